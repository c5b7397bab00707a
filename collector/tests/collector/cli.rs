//! The program as a user meets it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::common::{Agent, batch, connect, encoded, hello};
use crate::raw::{Raw, framed, hello as framed_hello};
use culprit_proto::v1::{
    Coverage, Event, Gap, Lane, LaneCursor, LaneReport, LossReport, ProbeStatus, TcpFlow,
    agent_message, event, tcp_flow,
};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_culprit-collector"))
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
}

fn start(store: &Path) -> Running {
    start_with(store, &[])
}

pub(crate) fn start_with(store: &Path, more: &[&str]) -> Running {
    let mut child = program()
        .args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--store",
        ])
        .arg(store)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = format!("http://{}", line["fields"]["address"].as_str().unwrap());
    // The pipe must not fill up.
    std::thread::spawn(move || log.lines().for_each(drop));
    Running { child, url }
}

impl Running {
    pub(crate) fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let mut said = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn flow(n: u64) -> Event {
    let mut event = connect(n, "nginx");
    let Some(event::Kind::TcpConnect(ends)) = event.kind else {
        panic!("a connect");
    };
    event.kind = Some(event::Kind::TcpFlow(TcpFlow {
        local: ends.local,
        remote: ends.remote,
        role: tcp_flow::Role::Server.into(),
        bytes_sent: 1536,
        bytes_received: 12,
        sends: 2,
        receives: 1,
        retransmits: 3,
        srtt_ns: 250_000,
        state: tcp_flow::State::Closed.into(),
        close_reason: tcp_flow::CloseReason::ResetReceived.into(),
        duration_ns: 1_500_000_000,
        ..TcpFlow::default()
    }));
    event
}

async fn fill(url: &str, comm: &str) {
    let mut hello = hello(3, 0, 0);
    hello.lanes.push(LaneCursor {
        lane: Lane::Bulk.into(),
        ..LaneCursor::default()
    });
    hello.probes = Coverage {
        probes: vec![
            ProbeStatus {
                probe: "tcp_connect".to_owned(),
                flavour: "tp_btf".to_owned(),
                ..ProbeStatus::default()
            },
            ProbeStatus {
                probe: "oom".to_owned(),
                reason: "mark_victim is missing".to_owned(),
                ..ProbeStatus::default()
            },
        ],
    }
    .probes;
    let mut agent = Agent::connect(url, hello).await.unwrap();
    agent
        .batch(batch(0, vec![encoded(&connect(0, comm))]))
        .await;
    assert_eq!(agent.acked().await, 1);
    let mut flows = batch(0, vec![encoded(&flow(1))]);
    flows.lane = Lane::Bulk.into();
    agent.batch(flows).await;
    assert_eq!(agent.acked().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_stopped_answer_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let path = store.to_str().unwrap();
    let collector = start(&store);
    fill(&collector.url, "curl").await;

    let table = "\
2026-11-22T12:00:00.000000Z node1 tcp_connect    shop/cart-0  curl[4211]  10.0.0.5:41234 -> 10.0.0.9:5432 ESTABLISHED in 0.4 ms, 1 SYN retransmit
2026-11-22T12:00:00.000001Z node1 tcp_flow       shop/cart-1  nginx[4211]  10.0.0.5:41234 <- 10.0.0.9:5432 closed (RESET_RECEIVED) after 1.50 s, sent 1.5 KiB in 2 calls, received 12 B in 1 call, rtt 0.2 ms, 3 retransmits
";
    let flows = "\
TIME            NODE         WORKLOAD                         LOCAL                 ROLE    PEER                        SENT   RECEIVED       RTT RETRANS  STATE
12:00:00.000001 node1        nginx[4211] of shop/cart-1       10.0.0.5:41234        SERVER  10.0.0.9:5432            1.5 KiB       12 B    0.2 ms       3  RESET_RECEIVED
";
    let ask = ["--collector", &collector.url];
    let read = ["--store", path];
    for source in [ask, read] {
        assert_eq!(stdout(&[&["events"], &source[..]].concat()), table);
        assert_eq!(stdout(&[&["flows"], &source[..]].concat()), flows);
        let last = stdout(&[&["events", "--last", "1", "--format", "json"], &source[..]].concat());
        let line: serde_json::Value = serde_json::from_str(&last).unwrap();
        assert_eq!(line["kind"], "tcp_flow");
        assert_eq!(line["time"], "2026-11-22T12:00:00.000001000Z");
        assert_eq!(line["lane"], "BULK");
        assert_eq!(line["seq"], 0);
        assert_eq!(line["tcp_flow"]["remote"], "10.0.0.9:5432");
        assert_eq!(line["tcp_flow"]["close_reason"], "RESET_RECEIVED");
        assert_eq!(line["tcp_flow"]["opened_at"], serde_json::Value::Null);
        let nodes = stdout(&[&["nodes", "--format", "json"], &source[..]].concat());
        let node: serde_json::Value = serde_json::from_str(&nodes).unwrap();
        assert_eq!(node["node"], "node1");
        assert_eq!(node["epoch"], 3);
        assert_eq!(node["spool_id"], "07".repeat(16));
        assert_eq!(node["lanes"][0]["committed"], 1);
        let nodes = stdout(&[&["nodes"], &source[..]].concat());
        assert!(
            nodes.contains("  probe oom is off: mark_victim is missing\n"),
            "{nodes}"
        );
        assert!(nodes.contains("SIGNAL 1 stored; BULK 1 stored"), "{nodes}");
    }
    let totals = collector.stop();
    assert!(
        totals.starts_with("collector stopped: 2 events stored in "),
        "{totals}"
    );
    assert_eq!(stdout(&["events", "--store", path]), table);
    let nodes = stdout(&["nodes", "--store", path]);
    assert!(nodes.contains(" disconnected "), "{nodes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_loss_says_where_every_event_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let collector = start(&store);
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let report = LaneReport {
        lane: Lane::Signal.into(),
        seen: 15,
        in_ring: 1,
        queued: 2,
        appended: 8,
        lost: [("ring_full".to_owned(), 4)].into(),
        outage_seconds: 90,
        merged: 0,
    };
    let mut wrong = report.clone();
    wrong.seen = 99;
    for report in [report, wrong] {
        let report = LossReport {
            lanes: vec![report],
            unclean_stops: 2,
            ..LossReport::default()
        };
        agent.send(agent_message::Message::LossReport(report)).await;
    }
    agent.batch(crate::common::records(0..3)).await;
    assert_eq!(agent.acked().await, 3);
    agent
        .send(agent_message::Message::Gap(Gap {
            lane: Lane::Signal.into(),
            first: 3,
            last: 4,
            reason: "spool_\u{1b}[2J".to_owned(),
            events: 2,
        }))
        .await;
    assert_eq!(agent.acked().await, 5);
    let ask = ["--collector", &collector.url];
    let path = store.to_str().unwrap();
    for source in [ask, ["--store", path]] {
        let args = |more: &[&'static str]| [&["nodes", "--loss"], more, &source[..]].concat();
        let text = stdout(&args(&["--format", "json"]));
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.chars()
                .all(|c| c == '\n' || culprit_proto::text::is_plain(c))
        );
        let node: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(node["reported"].is_string(), "{node}");
        assert_eq!(node["node"], "node1");
        assert_eq!(node["unclean_stops"], 2);
        assert_eq!(node["lanes"][0]["lane"], "SIGNAL");
        assert_eq!(node["lanes"][0]["outage_seconds"], 90);
        for whole in [&node, &node["lanes"][0]] {
            assert_eq!(whole["seen"], 15);
            assert_eq!(whole["committed"], 3);
            assert_eq!(whole["retained"], 5);
            assert_eq!(whole["in_ring"], 1);
            let lost = serde_json::json!({"ring_full": 4, "spool_\u{1b}[2J": 2});
            assert_eq!(whole["lost"], lost);
        }
        let table = stdout(&args(&[]));
        let words: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[1][..7], ["node1", "all", "15", "3", "5", "1", "6"]);
        assert_eq!(words[2], ["node1", "SIGNAL", "15", "3", "5", "1", "6"]);
        assert_eq!(words[3], ["lost", "ring_full:", "4"]);
        assert!(
            table
                .chars()
                .all(|c| c == '\n' || culprit_proto::text::is_plain(c))
        );
        assert!(table.contains("2 runs of the agent ended without a last word"));
    }
    drop(agent);
    let totals = collector.stop();
    assert!(totals.contains("1 reports that do not add up"), "{totals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_collector_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut collector = start(&store);
    fill(&collector.url, "curl").await;
    collector.child.kill().unwrap();
    collector.child.wait().unwrap();
    let path = store.to_str().unwrap();
    assert_eq!(stdout(&["events", "--store", path]).lines().count(), 2);
    let nodes = stdout(&["nodes", "--store", path]);
    assert!(nodes.contains(" disconnected "), "{nodes}");
    start(&store).stop();
    assert_eq!(stdout(&["events", "--store", path]).lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_cannot_steer_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let path = store.to_str().unwrap();
    let collector = start(&store);
    fill(&collector.url, "\u{1b}[2J\n\u{202e}\u{9b}m\r\u{7f}").await;
    collector.stop();
    for format in ["table", "json"] {
        for what in ["events", "flows", "nodes"] {
            let text = stdout(&[what, "--store", path, "--format", format]);
            assert!(
                text.chars()
                    .all(|c| c == '\n' || culprit_proto::text::is_plain(c)),
                "{what} {format}: {text:?}"
            );
        }
    }
    let json = stdout(&["events", "--store", path, "--format", "json", "--last", "2"]);
    let line: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    // A parser gets the name unchanged.
    assert_eq!(
        line["who"]["process"]["comm"],
        "\u{1b}[2J\n\u{202e}\u{9b}m\r\u{7f}"
    );
}

/// Hundreds of peers send large messages that never end, and read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_bound_whatever_peers_do() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let flags = [
        "--max-memory",
        "128M",
        "--max-connections-per-address",
        "1000",
    ];
    let collector = start_with(&store, &flags);
    let named = |node: String, lane: Lane| {
        let mut hello = hello(1, 0, 0);
        hello.node = node;
        hello.lanes[0].lane = lane.into();
        hello
    };
    // All but the last byte, 400 MiB in all: the clients share the bytes.
    let bytes = bytes::Bytes::from(vec![0; MIB - 1]);
    let (mut held, mut clients) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let mut client = Raw::with_window(&collector.url, 0).await;
        for stream in 0..2 {
            let mut call = client.call(&[]).await.unwrap();
            call.send(framed_hello(named(format!("hog{n}-{stream}"), Lane::Bulk)));
            call.send(framed(0, MIB, b""));
            call.send(bytes.clone());
            held.push(call);
        }
        clients.push(client);
    }
    // Until memory is short; then what is critical is taken even so.
    let mut tries = 0;
    let refused = loop {
        match Agent::connect(&collector.url, named(format!("n{tries}"), Lane::Signal)).await {
            Err(status) => break status,
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
        tries += 1;
        assert!(tries < 3000);
    };
    assert_eq!(
        refused.code(),
        tonic::Code::ResourceExhausted,
        "{refused:?}"
    );
    let critical = named("critical".to_owned(), Lane::Critical);
    let mut agent = Agent::connect(&collector.url, critical).await.unwrap();
    let mut batch = crate::common::records(0..100);
    batch.lane = Lane::Critical.into();
    agent.batch(batch).await;
    assert_eq!(agent.acked().await, 100);
    let status = std::fs::read_to_string(format!("/proc/{}/status", collector.child.id())).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 128 * 1024, "{peak}");
    drop((agent, held, clients));
    let totals = collector.stop();
    assert!(totals.contains("100 events stored"), "{totals}");
    assert!(
        totals.contains("streams refused for want of room"),
        "{totals}"
    );
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for (args, code, hint) in [
        (vec!["events"], 2, "--store"),
        (
            vec!["events", "--store", path, "--kind", "oom"],
            2,
            "oom_kill",
        ),
        (vec!["events", "--store", path, "--since", "soon"], 2, "5m"),
        (
            vec!["events", "--store", path, "--pod", "/x"],
            2,
            "NAMESPACE/NAME",
        ),
        (vec!["events", "--store", path], 1, "no Culprit store"),
        (
            vec!["nodes", "--collector", "http://127.0.0.1:1"],
            1,
            "cannot connect",
        ),
        (
            vec!["run", "--store", path, "--listen", "0.0.0.0:0"],
            1,
            "--allow-plaintext",
        ),
        (
            vec!["run", "--store", path, "--tls-cert", "/none"],
            2,
            "--tls-client-ca",
        ),
        (
            vec![
                "run",
                "--store",
                path,
                "--tls-cert",
                "/none/cert",
                "--tls-key",
                "/none/key",
                "--tls-client-ca",
                "/none/ca",
            ],
            1,
            "--tls-key /none/key: cannot read it",
        ),
        (
            vec!["nodes", "--collector", "https://127.0.0.1:1"],
            1,
            "give --tls-ca, --tls-cert and --tls-key",
        ),
        (
            vec!["nodes", "--store", path, "--tls-ca", "/none"],
            2,
            "--tls-cert",
        ),
        (
            vec!["run", "--store", path, "--max-bytes", "1K"],
            2,
            "1048576",
        ),
        (
            vec!["run", "--store", path, "--max-memory", "64M"],
            2,
            "134217728",
        ),
        (
            vec!["run", "--store", path, "--connection-age", "0s"],
            2,
            "30m",
        ),
    ] {
        let output = run(&args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(hint), "{args:?}: {error}");
    }
}

#[test]
fn plaintext_for_everybody_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program()
        .args([
            "run",
            "--listen",
            "0.0.0.0:0",
            "--allow-plaintext",
            "--store",
        ])
        .arg(dir.path())
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.contains("WARN") && line.contains("--allow-plaintext: no TLS on 0.0.0.0:0"),
        "{line}"
    );
}
