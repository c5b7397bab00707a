//! Findings as a user of the command line sees them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use culprit_agent::findings;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{
    Event, Evidence, Finding, Identity, Lane, Party, Process, event::Kind, finding::Severity,
};
use prost::Message;
use snapbox::{assert_data_eq, str};
use support::running::{HOSTILE, Running, assert_harmless, command, run, text};
use support::{connect, connect_by, events_when};

/// 2026-11-22T12:00:00Z
const NOON: u64 = 1_795_348_800_000_000_000;

/// An agent that looks for one finding, which nothing here provokes.
fn start() -> Running {
    let off = findings::ROWS
        .iter()
        .filter(|row| row.name != "dns_trouble")
        .map(|row| (row.name, "off"));
    Running::looking_for(Some(findings::Options::parse(off).unwrap()))
}

fn who(comm: &str) -> Option<Identity> {
    Some(Identity {
        process: Some(Process {
            pid: 812,
            comm: comm.to_owned(),
            ..Process::default()
        }),
        ..Identity::default()
    })
}

/// Puts a finding into the journal, as the findings' thread does.
fn tell(running: &Running, seconds: u64, severity: Severity, comm: &str) {
    let finding = Finding {
        name: "oom_autopsy".to_owned(),
        severity: severity.into(),
        summary: format!("{comm} was killed."),
        mend: "Raise its limit.".to_owned(),
        evidence: vec![Evidence {
            lane: Lane::Critical.into(),
            seq: 1,
            kind: "oom_kill".to_owned(),
        }],
        parties: vec![Party {
            role: "limit_owner".to_owned(),
            who: who(comm),
        }],
        count: 2,
        since: NOON - 60_000_000_000,
        caveats: vec!["Swap was not looked at.".to_owned()],
        ..Finding::default()
    };
    let event = Event {
        time: NOON + seconds * 1_000_000_000,
        cpu: 0,
        who: who(comm),
        kind: Some(Kind::Finding(finding)),
        ..Event::default()
    };
    let bytes = event.encode_to_vec().into();
    running
        .agent
        .journal()
        .append(EventKind::Finding, event.time, bytes);
}

const FINDINGS: [&str; 3] = ["dump", "--kind", "finding"];

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_paragraphs_and_the_worst_comes_first() {
    let running = start();
    running.give([connect(1, 1)]).await;
    tell(&running, 1, Severity::Critical, "first");
    tell(&running, 2, Severity::Info, "second");
    tell(&running, 3, Severity::Critical, "third");
    let live = running.run(&FINDINGS).await;
    assert!(live.status.success() && live.stderr.is_empty(), "{live:?}");
    assert_data_eq!(
        text(&live.stdout),
        str![[r#"
CRITICAL oom_autopsy 2026-11-22 12:00:03Z third[812] (2 times since 11:59:00)
  third was killed.
  What to do: Raise its limit.
  Parties: limit owner third[812]
  Evidence: oom_kill CRITICAL/1
  Not seen: Swap was not looked at.

CRITICAL oom_autopsy 2026-11-22 12:00:01Z first[812] (2 times since 11:59:00)
  first was killed.
  What to do: Raise its limit.
  Parties: limit owner first[812]
  Evidence: oom_kill CRITICAL/1
  Not seen: Swap was not looked at.

INFO oom_autopsy 2026-11-22 12:00:02Z second[812] (2 times since 11:59:00)
  second was killed.
  What to do: Raise its limit.
  Parties: limit owner second[812]
  Evidence: oom_kill CRITICAL/1
  Not seen: Swap was not looked at.

"#]]
    );
    // Among other kinds, and in JSON, a finding is one line.
    let mixed = [&FINDINGS[..], &["--kind", "tcp_connect"]].concat();
    let lines = text(&running.run(&mixed).await.stdout);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(lines.contains("CRITICAL oom_autopsy: first was killed. Raise its limit."));
    let json = running
        .run(&[&FINDINGS[..], &["--format", "json"]].concat())
        .await;
    assert_eq!(text(&json.stdout).lines().count(), 3);
    let one = running
        .run(&[&FINDINGS[..], &["--last", "1"]].concat())
        .await;
    assert!(text(&one.stdout).starts_with("CRITICAL oom_autopsy 2026-11-22 12:00:03Z third"));
    let file = running.dir.path().join("flight");
    let _dir = running.stop().await;
    let offline = run(&[&FINDINGS[..], &["--file", file.to_str().unwrap()]].concat());
    assert_eq!(text(&offline.stdout), text(&live.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_finding_is_said_with_what_it_covers() {
    let running = start();
    // The first record says what runs, and when it was written; the connect is of 1970.
    events_when(&running.agent.journal(), |events| !events.is_empty()).await;
    running.give([connect(1, 1)]).await;
    let silent = running.run(&FINDINGS).await;
    assert!(silent.status.success() && silent.stdout.is_empty());
    let said = text(&silent.stderr);
    assert!(
        said.starts_with("no findings: nothing went wrong in what the recorder holds (since 20")
            && said.ends_with("Z)\n"),
        "{said}"
    );
    let file = running.dir.path().join("flight");
    let _dir = running.stop().await;
    let offline = run(&[&FINDINGS[..], &["--file", file.to_str().unwrap()]].concat());
    assert!(offline.status.success() && offline.stdout.is_empty());
    assert!(text(&offline.stderr).starts_with("no findings: nothing went wrong"));

    let blind = Running::start();
    let said = text(&blind.run(&FINDINGS).await.stderr);
    assert!(said.contains("this agent looks for none"), "{said}");
    blind.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_followed_as_they_come() {
    let running = start();
    tell(&running, 1, Severity::Info, "first");
    let mut child = command(&[&FINDINGS[..], &["--follow"]].concat())
        .args(["--state-dir", running.dir()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (first, lines) = first.await.unwrap();
    assert!(first.starts_with("INFO oom_autopsy"), "{first}");
    tell(&running, 2, Severity::Critical, "second");
    running.stop().await;
    let rest = tokio::task::spawn_blocking(move || lines.map(Result::unwrap).collect::<Vec<_>>());
    let rest = rest.await.unwrap();
    assert!(
        rest.iter()
            .any(|line| line.starts_with("CRITICAL oom_autopsy")),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn explain_prints_a_section_or_the_list() {
    let list = text(&run(&["explain"]).stdout);
    for row in findings::ROWS {
        let line = list.lines().find(|line| line.starts_with(row.name));
        let threshold = row.threshold.to_string();
        assert!(
            line.is_some_and(|line| line.contains(&threshold) && line.len() > 40),
            "{}: {list}",
            row.name
        );
        let section = run(&["explain", row.name]);
        assert!(section.status.success(), "{section:?}");
        let section = text(&section.stdout);
        assert!(
            section.starts_with(&format!("## {}\n", row.name)),
            "{section}"
        );
        let heads = section.lines().filter(|line| line.starts_with("## "));
        assert_eq!(heads.count(), 1, "{section}");
    }
    let unknown = run(&["explain", "oom\u{1b}"]);
    assert!(!unknown.status.success() && unknown.stdout.is_empty());
    assert_data_eq!(
        text(&unknown.stderr).replace('\\', "/"),
        str![[r#"
culprit-agent: there is no finding "oom/u{1b}"; there are softirq_stall, slow_cgroup_read, oom_autopsy, limit_drift, reclaim_stall, cpu_starved, accept_queue_full, connect_trouble, conntrack_trouble, dns_trouble, backend_imbalance, traffic_after_sigterm

"#]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_the_findings() {
    let running = start();
    let status = text(&running.run(&["status"]).await.stdout);
    assert!(
        status.contains("\nfindings: none; 1 looked for\n"),
        "{status}"
    );
    let json = running.run(&["status", "--json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["findings"]["findings"][0]["name"], "dns_trouble");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_harmless_in_paragraphs_and_top() {
    let running = start();
    let name = String::from_utf8_lossy(HOSTILE);
    running.give([connect_by(1, 1, HOSTILE)]).await;
    tell(&running, 1, Severity::Critical, &name);
    let dumped = running.run(&FINDINGS).await;
    assert_harmless(&dumped.stdout);
    assert!(text(&dumped.stdout).contains("\\u{1b}[2J\\nx"));
    let top = running.run(&["top", "--once"]).await;
    assert!(top.status.success(), "{top:?}");
    let top = text(&top.stdout).replace('─', "-");
    assert_harmless(top.as_bytes());
    assert!(
        top.contains("CRITICAL oom_autopsy 2026-11-22 12:00:01Z"),
        "{top}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_once_prints_what_there_is() {
    let running = start();
    running.give((1..=3).map(|port| connect(1, port))).await;
    tell(&running, 1, Severity::Warning, "slow");
    for once in [&["top", "--once"][..], &["top"]] {
        let top = text(&running.run(once).await.stdout);
        for part in [
            "culprit-agent on n1  ",
            "\n1 of 1 probes run  7 events lost, most by tcp_connect ring_full",
            "\nFindings: 1, worst first",
            "\nWARNING oom_autopsy 2026-11-22 12:00:01Z slow[812] (2 times since 11:59:00)\n",
            "\n  What to do: Raise its limit.\n",
            "\nWorkloads: 1",
            "\nunknown ",
        ] {
            assert!(top.contains(part), "{part:?} is not in {top}");
        }
    }
    running.stop().await;
    let gone = run(&["top", "--state-dir", "/none"]);
    assert!(text(&gone.stderr).starts_with("culprit-agent: no agent at /none/agent.sock"));
}

/// A terminal, and the program on it.
struct Pty {
    child: Child,
    user: File,
    program: File,
    shown: String,
}

impl Pty {
    fn top(running: &Running) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap();
        let program = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = rustix::termios::Winsize {
            ws_row: 30,
            ws_col: 110,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&program, size).unwrap();
        let child = command(&["top", "--state-dir", running.dir()])
            .env("TERM", "xterm")
            .stdin(program.try_clone().unwrap())
            .stdout(program.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            user: user.into(),
            program,
            shown: String::new(),
        }
    }

    fn until(&mut self, text: &str) {
        let mut piece = [0; 4096];
        while !self.shown.contains(text) {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let mut ready = [PollFd::new(&self.user, PollFlags::IN)];
            let patience = Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            };
            let came = poll(&mut ready, Some(&patience)).unwrap();
            assert!(came > 0, "no {text:?} after {:?}", self.shown);
            let n = self.user.read(&mut piece).unwrap();
            self.shown += &String::from_utf8_lossy(&piece[..n]);
        }
    }

    fn local_modes(&self) -> rustix::termios::LocalModes {
        rustix::termios::tcgetattr(&self.program)
            .unwrap()
            .local_modes
    }
}

/// Other screen, back from it, raw and not.
fn ends_well(running: &Running, end: impl FnOnce(&mut Pty)) {
    use rustix::termios::LocalModes;
    let mut pty = Pty::top(running);
    pty.until("\u{1b}[?1049h");
    pty.until("Findings");
    assert!(!pty.local_modes().contains(LocalModes::ICANON));
    end(&mut pty);
    pty.until("\u{1b}[?1049l");
    pty.until("\u{1b}[?25h");
    assert!(pty.child.wait().unwrap().success());
    assert!(
        pty.local_modes()
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn top_gives_the_terminal_back() {
    use std::io::Write;
    let running = start();
    tell(&running, 1, Severity::Critical, "first");
    tokio::task::block_in_place(|| {
        ends_well(&running, |pty| pty.user.write_all(b"\t\x1b[Bq").unwrap());
        ends_well(&running, |pty| {
            let pid = rustix::process::Pid::from_child(&pty.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        });
    });
    running.stop().await;
}
