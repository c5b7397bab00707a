//! The flight recorder: through the socket of a running agent, and from its
//! file after a crash.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::agent::{Agent, kind};
use super::expect::missed_runs;
use super::program::{by_sequence, contained, json_lines, output};
use super::report::{Report, Subject};
use super::tcp_connect::{STORM, run_storm, storm_ports};
use super::tools::{PATIENCE, Tools};

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "dump",
        flavour: "",
    };
    let recorder = tools.directory("recorder")?.join("file");
    let file = recorder.to_str().context("the scratch path is not UTF-8")?;
    let agent = Agent::start(tools, "agent-dump", &["--recorder-file", file])?;
    let (pid, address, ports) = run_storm(tools, &[])?;
    let all = agent.wait_for(PATIENCE, |events| {
        let missing = ports
            .len()
            .saturating_sub(storm_ports(events, pid, &address).len());
        missing == 0
            || missing < 50
                && missed_runs(agent.pid()).iter().map(|(_, n)| n).sum::<u64>() >= missing as u64
    });
    ensure!(
        all,
        "{} of {} events of the storm came; program runs missed: {:?}",
        storm_ports(&agent.events(), pid, &address).len(),
        ports.len(),
        missed_runs(agent.pid())
    );

    report.result(subject, "socket is for its owner only", &mode(&agent));
    report.result(
        subject,
        "socket: everything, each once",
        &live(tools, &agent),
    );
    report.result(subject, "filters", &filters(tools, &agent));
    report.result(subject, "pb and back", &protobuf(tools, &agent));
    report.result(subject, "follow", &follow(tools, &agent));

    let before = agent.events();
    let kept = await_file(tools, &recorder, &before);
    report.result(subject, "the file keeps up", &kept);
    let finished = agent.kill()?;
    let result = from_file(tools, &recorder).and_then(|found| {
        contained(&before, &found).context("missing after kill -9")?;
        contained(&found, &finished.events).context("never printed")?;
        Ok(format!("{} records", by_sequence(&found)?.len()))
    });
    report.result(subject, "file after kill -9", &result);
    Ok(())
}

fn mode(agent: &Agent) -> Result<String> {
    let mode = std::fs::metadata(agent.state.join("agent.sock"))?
        .permissions()
        .mode()
        & 0o777;
    ensure!(mode == 0o600, "mode {mode:o}");
    Ok(format!("{mode:o}"))
}

fn ask(tools: &Tools, agent: &Agent, flags: &[&str]) -> Result<Vec<Value>> {
    let mut arguments = vec!["dump", "--format", "json"];
    arguments.extend_from_slice(flags);
    let output = output(
        &tools.agent,
        &arguments,
        Some(("--state-dir", &agent.state)),
    )?;
    json_lines(&output.stdout)
}

/// What was printed before is in the dump, and what is dumped gets printed.
fn live(tools: &Tools, agent: &Agent) -> Result<String> {
    let before = agent.events();
    let dumped = ask(tools, agent, &[])?;
    contained(&before, &dumped)?;
    agent.wait_for(PATIENCE, |events| contained(&dumped, events).is_ok());
    contained(&dumped, &agent.events())?;
    Ok(format!("{} records", dumped.len()))
}

fn filters(tools: &Tools, agent: &Agent) -> Result<String> {
    let five = ask(tools, agent, &["--kind", "tcp_connect", "--last", "5"])?;
    ensure!(five.len() == 5, "--last 5 gave {}", five.len());
    ensure!(
        five.iter().all(|event| kind(event) == "tcp_connect"),
        "another kind: {five:?}"
    );
    let two = ask(
        tools,
        agent,
        &["--kind", "tcp_connect", "--kind", "coverage"],
    )?;
    let connects = two
        .iter()
        .filter(|event| kind(event) == "tcp_connect")
        .count();
    let coverage = two.iter().filter(|event| kind(event) == "coverage").count();
    ensure!(
        connects > 0 && coverage > 0,
        "{connects} connects, {coverage} coverage"
    );
    ensure!(
        connects + coverage == two.len(),
        "another kind among {}",
        two.len()
    );
    let pod = ask(tools, agent, &["--pod", "no-such-namespace"])?;
    ensure!(
        pod.is_empty(),
        "events of a pod that does not exist: {pod:?}"
    );
    let old = ask(tools, agent, &["--until", "2001-01-01T00:00:00Z"])?;
    ensure!(old.is_empty(), "events of another century: {old:?}");
    Ok(format!("{connects} connects"))
}

fn protobuf(tools: &Tools, agent: &Agent) -> Result<String> {
    let arguments = ["dump", "--format", "pb", "--kind", "tcp_connect"];
    let state = Some(("--state-dir", agent.state.as_path()));
    let frames = output(&tools.agent, &arguments, state)?.stdout;
    let file = tools.directory("pb")?.join("frames");
    std::fs::write(&file, frames)?;
    let back = from_file(tools, &file)?;
    let direct = ask(tools, agent, &["--kind", "tcp_connect"])?;
    contained(&back, &direct)?;
    ensure!(!back.is_empty(), "no record in the frames");
    Ok(format!("{} records", back.len()))
}

/// A following dump shows what comes after its start, and ends well on SIGINT.
fn follow(tools: &Tools, agent: &Agent) -> Result<String> {
    let mut child = Command::new(&tools.agent)
        .args([
            "dump",
            "--format",
            "json",
            "--follow",
            "--kind",
            "tcp_connect",
            "--last",
            "1",
        ])
        .arg("--state-dir")
        .arg(&agent.state)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the following dump")?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout was piped")?).lines();
    // The newest old one: now it follows.
    lines
        .next()
        .context("the following dump printed nothing")??;
    let (pid, address, _) = run_storm(tools, &[])?;
    let mut seen = Vec::new();
    let last = loop {
        let Some(line) = lines.next() else {
            bail!("the following dump ended by itself")
        };
        seen.push(serde_json::from_str::<Value>(&line?)?);
        let got = storm_ports(&seen, pid, &address).len();
        // The kernel may have skipped some; it counts them.
        let skipped = || -> u64 { missed_runs(agent.pid()).iter().map(|(_, n)| n).sum() };
        if got == STORM || got > STORM - 50 && got as u64 + skipped() >= STORM as u64 {
            break got;
        }
    };
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.success(), "SIGINT ended it with {status}");
    Ok(format!("{last} followed"))
}

fn from_file(tools: &Tools, file: &Path) -> Result<Vec<Value>> {
    let arguments = ["dump", "--format", "json"];
    json_lines(&output(&tools.agent, &arguments, Some(("--file", file)))?.stdout)
}

fn await_file(tools: &Tools, file: &Path, events: &[Value]) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = from_file(tools, file).and_then(|found| contained(events, &found));
        match result {
            Ok(records) => return Ok(format!("{records} records")),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
    }
}
