//! The picture of what a node with trouble sends.
#![expect(clippy::unwrap_used, reason = "tests")]

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{
    Container, Event, Finding, FindingCount, FindingsStatus, Identity, Lane, LossCounter, OomKill,
    Pod, ProbeStatus, Process, SoftirqStall, StatusResponse, TcpConnect, TcpFlow,
    finding::Severity, tcp_connect, tcp_flow,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use snapbox::{assert_data_eq, str};

use super::model::Model;
use super::once::picture;
use super::view::{self, View};

/// 2026-11-22T12:01:02Z
const NOW: u64 = 1_795_348_862_000_000_000;

/// What no terminal may get.
const HOSTILE: &str = "\u{1b}[2J\n\u{202e}\u{9b}m\r\u{7f}";

fn who(pod: &str, comm: &str) -> Identity {
    Identity {
        process: Some(Process {
            pid: 812,
            comm: comm.to_owned(),
            ..Process::default()
        }),
        container: Some(Container {
            name: "app".to_owned(),
            ..Container::default()
        }),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            ..Pod::default()
        }),
        ..Identity::default()
    }
}

fn finding(severity: Severity, summary: &str) -> Kind {
    Kind::Finding(Finding {
        name: "oom_autopsy".to_owned(),
        severity: severity.into(),
        summary: summary.to_owned(),
        mend: "Raise the limit.".to_owned(),
        count: 1,
        ..Finding::default()
    })
}

fn model(hostile: &str) -> Model {
    let mut model = Model::new(StatusResponse {
        node: format!("node1{hostile}"),
        recorder_records: 7,
        probes: ["softirq", "oom"]
            .map(|probe| ProbeStatus {
                probe: format!("{probe}{hostile}"),
                flavour: if probe == "oom" { "" } else { "tp_btf" }.to_owned(),
                ..ProbeStatus::default()
            })
            .to_vec(),
        lost: vec![LossCounter {
            probe: format!("tcp_flow{hostile}"),
            reason: format!("ring_full{hostile}"),
            count: 9,
            ..LossCounter::default()
        }],
        findings: Some(FindingsStatus {
            findings: vec![FindingCount::default()],
            ..FindingsStatus::default()
        }),
        spool_trouble: hostile.to_owned(),
        collector: hostile.to_owned(),
        ..StatusResponse::default()
    });
    let pod = |name: &str| who(&format!("{name}{hostile}"), &format!("app{hostile}"));
    let refused = TcpConnect {
        outcome: tcp_connect::Outcome::Refused.into(),
        ..TcpConnect::default()
    };
    let flow = TcpFlow {
        bytes_sent: 600_000,
        bytes_received: 6_000_000,
        state: tcp_flow::State::Closed.into(),
        ..TcpFlow::default()
    };
    let stall = SoftirqStall {
        wait_ns: 12_300_000,
        run_ns: 20_000,
        suppressed: 2,
        ..SoftirqStall::default()
    };
    let happened = [
        (pod("web"), Kind::TcpFlow(flow)),
        (pod("web"), Kind::TcpConnect(TcpConnect::default())),
        (pod("api"), Kind::TcpConnect(refused.clone())),
        (pod("api"), Kind::TcpConnect(refused)),
        (pod("cart"), Kind::OomKill(OomKill::default())),
        (pod("hog"), Kind::SoftirqStall(stall)),
        (
            pod("web"),
            finding(
                Severity::Info,
                &format!("Something is worth knowing.{hostile}"),
            ),
        ),
        (
            pod("cart"),
            finding(Severity::Critical, &format!("app was killed.{hostile}")),
        ),
    ];
    for (seq, (who, kind)) in (0_u64..).zip(happened) {
        let event = Event {
            time: NOW - 10_000_000_000,
            cpu: 1,
            who: Some(who),
            kind: Some(kind),
            ..Event::default()
        };
        model.event(Lane::Critical.into(), seq, event);
    }
    model
}

#[test]
fn one_picture_says_who_is_in_trouble() {
    assert_data_eq!(
        picture(&model(""), 110, NOW).unwrap(),
        str![[r#"
culprit-agent on node1  12:01:02Z  7 events remembered  collector none
1 of 2 probes run, not oom  9 events lost, most by tcp_flow ring_full
Findings: 2, worst first──────────────────────────────────────────────────────────────────────────────────────
CRITICAL oom_autopsy 2026-11-22 12:00:52Z app[812] of shop/cart/app
  app was killed.
  What to do: Raise the limit.
INFO oom_autopsy 2026-11-22 12:00:52Z app[812] of shop/web/app
  Something is worth knowing.
  What to do: Raise the limit.
Workloads: 4──────────────────────────────────────────────────────────────────────────────────────────────────
WORKLOAD                                 KILLED STALLS FAILED CONNECTS CONN/s     SENT/s     RECV/s      BYTES
shop/cart/app                                 1      -      -        -    0.0          -          -        0 B
shop/hog/app                                  -      3      -        -    0.0          -          -        0 B
shop/api/app                                  -      -      2        2    0.0          -          -        0 B
shop/web/app                                  -      -      -        1    0.0    9.8 KiB   97.7 KiB    6.3 MiB
Softirqs: the longest of each CPU─────────────────────────────────────────────────────────────────────────────
 CPU       RUNS STALLS    WAITED       RAN  IRQS OFF    PACKET LAST     ON THE CPU THEN
   1          -      3   12.3 ms  0.020 ms         -         - 12:00:52 app[812] of shop/hog/app

"#]]
    );
}

#[test]
fn a_quiet_node_is_a_picture_too() {
    let model = Model::new(StatusResponse::default());
    assert_data_eq!(
        picture(&model, 80, NOW).unwrap(),
        str![[r#"
culprit-agent on   12:01:02Z  0 events remembered  collector none
0 of 0 probes run  nothing lost  no findings are looked for
Findings: none──────────────────────────────────────────────────────────────────

Workloads: 0────────────────────────────────────────────────────────────────────
WORKLOAD   KILLED STALLS FAILED CONNECTS CONN/s     SENT/s     RECV/s      BYTES

Softirqs: the longest of each CPU───────────────────────────────────────────────
 CPU       RUNS STALLS    WAITED       RAN  IRQS OFF    PACKET LAST     ON THE C


"#]]
    );
}

#[test]
fn on_a_terminal_the_parts_share_the_room_and_scroll() {
    let model = model("");
    let mut terminal = Terminal::new(TestBackend::new(110, 15)).unwrap();
    let mut view = View::default();
    view.scroll(2);
    view.next(true);
    view.scroll(900);
    terminal
        .draw(|frame| view::draw(frame, &model, &mut view, NOW, None))
        .unwrap();
    // No part is scrolled beyond its end.
    assert_eq!(view.offsets, [2, 0, 0]);
    let text = terminal.backend().to_string();
    assert!(text.contains("What to do: Raise the limit."), "{text}");
    assert!(!text.contains("CRITICAL"), "{text}");
    assert!(text.contains("q quit"), "{text}");
    // However small it is, it is drawn.
    for (width, height) in [(1, 1), (3, 40), (200, 2)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| view::draw(frame, &model, &mut view, NOW, None))
            .unwrap();
    }
}

#[test]
fn hostile_strings_steer_nothing() {
    let shown = picture(&model(HOSTILE), 200, NOW).unwrap();
    let bad: Vec<char> = shown
        .chars()
        .filter(|c| *c != '\n' && !culprit_proto::text::is_plain(*c))
        // Borders.
        .filter(|c| *c != '─')
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {shown}");
    // Escapes are visible, and so is what comes after them.
    assert!(shown.contains("node1\\u{1b}[2J"), "{shown}");
    assert!(shown.contains("Raise the limit."), "{shown}");
}
