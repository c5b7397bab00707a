//! Process names with escape sequences, newlines, quotes and bytes that are no
//! UTF-8, in every output format.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::agent::{Agent, kind};
use super::expect::{number, text};
use super::load::{Load, Place};
use super::program::{Collector, json_lines, output};
use super::report::{Report, Subject};
use super::tools::{PATIENCE, Tools};

/// Names, at most 15 bytes each.
const NAMES: [&[u8]; 5] = [
    b"\x1b[31mred\x1b]0;x\x07",
    b"two\nlines\r\x00",
    b"\xff\xfe\xc3\x28bad",
    b"\"},{\"kind\":1",
    b"\xe2\x80\xaeabc\xc2\x9b1m\x7f",
];

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "hostile",
        flavour: "",
    };
    let collector = Collector::start(tools, "store-hostile")?;
    let url = collector.url();
    let agent = Agent::start(tools, "agent-hostile", &["--collector", &url])?;
    let pids = knock_all(tools)?;
    agent.wait_for(PATIENCE, |events| names(events, &pids).is_ok());
    report.result(subject, "stdout json", &names(&agent.events(), &pids));

    let state = Some(("--state-dir", agent.state.as_path()));
    let dump = output(&tools.agent, &["dump", "--format", "json"], state)
        .and_then(|output| json_lines(&output.stdout))
        .and_then(|events| names(&events, &pids));
    report.result(subject, "dump json", &dump);
    let dump = output(&tools.agent, &["dump", "--format", "table"], state)
        .and_then(|output| harmless(&output.stdout, &pids));
    report.result(subject, "dump table", &dump);
    agent.stop()?;

    let store = Some(("--store", collector.store.as_path()));
    let events = output(&tools.collector, &["events", "--format", "json"], store)
        .and_then(|output| json_lines(&output.stdout))
        .and_then(|events| names(&events, &pids));
    report.result(subject, "collector events json", &events);
    let events = output(&tools.collector, &["events", "--format", "table"], store)
        .and_then(|output| harmless(&output.stdout, &pids));
    report.result(subject, "collector events table", &events);
    report.result(subject, "stdout text", &stdout_text(tools));
    Ok(())
}

/// One refused connect under each name.
fn knock_all(tools: &Tools) -> Result<Vec<u32>> {
    NAMES
        .iter()
        .map(|name| {
            let name: &[u8] = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            let arguments = ["--comm-hex", &hex, "attempt", "--to", "127.0.0.1:1"];
            let load = Load::start(&tools.load, Place::Here, &arguments)?;
            let pid = load.pid();
            load.finish()?;
            Ok(pid)
        })
        .collect()
}

/// In JSON the names are there as they were, bytes that are no UTF-8 replaced.
fn names(events: &[Value], pids: &[u32]) -> Result<String> {
    for (name, pid) in NAMES.iter().zip(pids) {
        let event = events
            .iter()
            .filter(|event| kind(event) == "tcp_connect")
            .find(|event| number(event, "/who/process/pid").ok() == Some(u64::from(*pid)))
            .with_context(|| format!("no event of {}", name.escape_ascii()))?;
        let name: &[u8] = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let want = String::from_utf8_lossy(name);
        let got = text(event, "/who/process/comm");
        ensure!(got == want, "comm is {got:?}, not {want:?}");
    }
    Ok(format!("{} names", NAMES.len()))
}

/// As text every event is one line without anything that a terminal acts on.
fn harmless(output: &[u8], pids: &[u32]) -> Result<String> {
    let output = std::str::from_utf8(output).context("not UTF-8")?;
    for line in output.split('\n') {
        // C0 and C1 controls, DEL, and what reorders or hides text.
        let bad = line.chars().find(|&c| {
            c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        ensure!(bad.is_none(), "{bad:?} in {line:?}");
    }
    for (name, pid) in NAMES.iter().zip(pids) {
        let pid = pid.to_string();
        let lines = output
            .lines()
            .filter(|line| line.contains("tcp_connect"))
            .filter(|line| {
                line.split(|c: char| !c.is_ascii_digit())
                    .any(|word| word == pid)
            })
            .count();
        ensure!(
            lines == 1,
            "{lines} lines of {} (pid {pid})",
            name.escape_ascii()
        );
    }
    Ok(format!("{} lines", output.lines().count()))
}

/// The agent's own readable lines.
fn stdout_text(tools: &Tools) -> Result<String> {
    let state = tools.directory("agent-text")?;
    let path = state.join("stdout");
    let mut child = Command::new(&tools.agent)
        .args([
            "run",
            "--stdout=text",
            "--node",
            "t",
            "--cri",
            "none",
            "--state-dir",
        ])
        .arg(&state)
        .stdin(Stdio::null())
        .stdout(File::create(&path)?)
        .stderr(Stdio::null())
        .spawn()
        .context("starting the agent")?;
    let result = await_text(tools, &path);
    // Fails only when it has ended already, which the status shows.
    let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
    let status = child.wait()?;
    let pids = result?;
    ensure!(status.success(), "the agent ended with {status}");
    harmless(&std::fs::read(&path)?, &pids)
}

fn await_text(tools: &Tools, path: &std::path::Path) -> Result<Vec<u32>> {
    await_line(path, "coverage")?;
    let pids = knock_all(tools)?;
    for pid in &pids {
        await_line(path, &pid.to_string())?;
    }
    Ok(pids)
}

fn await_line(path: &std::path::Path, word: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read(path)?;
        let found = text
            .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
            .any(|found| found == word.as_bytes());
        if found {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{word} did not come in {}", path.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
