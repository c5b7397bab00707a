//! From the agent to the store: a collector killed in the middle, totals at
//! the end, losses that are counted.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::agent::{Agent, Finished, kind};
use super::expect::{count, number, text};
use super::program::{Collector, by_sequence, contained, json_lines, output};
use super::report::{Report, Subject};
use super::tcp_connect::{STORM, run_storm, storm_ports};
use super::tools::{PATIENCE, Tools};

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    killed(tools, report)?;
    drops(tools, report)
}

/// The collector is killed while events come, is away for a while, comes back.
fn killed(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "stream",
        flavour: "",
    };
    let mut collector = Collector::start(tools, "store")?;
    let url = collector.url();
    let agent = Agent::start(tools, "agent-stream", &["--collector", &url])?;
    run_storm(tools, &[])?;

    let dead = AtomicBool::new(false);
    let storms = std::thread::scope(|scope| -> Result<Vec<_>> {
        // Storms go on until one ran wholly without a collector.
        let storms = scope.spawn(|| -> Result<Vec<_>> {
            let mut done = Vec::new();
            loop {
                let alone = dead.load(Ordering::SeqCst);
                done.push(run_storm(tools, &[])?);
                if alone {
                    return Ok(done);
                }
            }
        });
        let so_far = agent.events().len();
        let flowing = agent.wait_for(PATIENCE, |events| events.len() > so_far + STORM / 4);
        ensure!(flowing, "no events during the storm");
        collector.kill()?;
        dead.store(true, Ordering::SeqCst);
        storms
            .join()
            .map_err(|_| anyhow::anyhow!("the storm's thread panicked"))?
    })?;
    collector.restart()?;
    run_storm(tools, &[])?;
    for (pid, address, ports) in &storms {
        agent.wait_for(PATIENCE, |events| {
            storm_ports(events, *pid, address).len() >= ports.len()
        });
    }
    let finished = agent.stop()?;
    let status = collector_status(tools, &collector)?;
    let store = collector.store.clone();
    let ended = collector.stop()?;

    report.result(
        subject,
        "the stopping agent's totals",
        &totals(&finished, true),
    );
    let arguments = ["events", "--format", "json"];
    let stored = output(&tools.collector, &arguments, Some(("--store", &store)))
        .and_then(|output| json_lines(&output.stdout));
    let compared = stored.and_then(|stored| {
        let (sent, got) = (
            by_sequence(&finished.events)?.len(),
            by_sequence(&stored)?.len(),
        );
        contained(&finished.events, &stored).context("missing in the store")?;
        contained(&stored, &finished.events).context("more in the store than was sent")?;
        Ok(format!("{sent} records printed, {got} stored, each once"))
    });
    report.result(
        subject,
        "collector killed: nothing missing, nothing twice",
        &compared,
    );
    report.result(subject, "nodes knows the agent", &node(&status));
    let ended = if ended.success() {
        Ok(String::new())
    } else {
        Err(anyhow::anyhow!("{ended}"))
    };
    report.result(subject, "collector stops cleanly", &ended);
    Ok(())
}

fn collector_status(tools: &Tools, collector: &Collector) -> Result<Vec<Value>> {
    let url = collector.url();
    let arguments = ["nodes", "--format", "json", "--collector", &url];
    json_lines(&output(&tools.collector, &arguments, None)?.stdout)
}

fn node(rows: &[Value]) -> Result<String> {
    let row = rows
        .iter()
        .find(|row| text(row, "/node") == "t")
        .with_context(|| format!("no node t in {rows:?}"))?;
    let probes = row
        .get("probes")
        .and_then(Value::as_array)
        .context("no probes")?;
    let attached = probes
        .iter()
        .filter(|probe| !text(probe, "/flavour").is_empty())
        .count();
    ensure!(attached >= 5, "only {attached} probes are known in {row}");
    let lanes = row
        .get("lanes")
        .and_then(Value::as_array)
        .context("no lanes")?;
    let stored: u64 = lanes
        .iter()
        .filter_map(|lane| number(lane, "/stored").ok())
        .sum();
    ensure!(
        stored as usize > 3 * STORM,
        "only {stored} are said to be stored in {row}"
    );
    Ok(format!("{attached} probes, {stored} stored"))
}

/// `totals: A seen by the probes, B recorded, C sent, D acknowledged, E lost`
fn totals(finished: &Finished, collector: bool) -> Result<String> {
    ensure!(
        finished.status.success(),
        "the agent ended with {}",
        finished.status
    );
    let line = finished
        .stderr
        .lines()
        .find_map(|line| line.split_once("totals: "))
        .context("no totals on stderr")?
        .1;
    let numbers: Vec<u64> = line
        .split(", ")
        .filter_map(|part| part.split(' ').next()?.parse().ok())
        .collect();
    let &[seen, recorded, sent, acknowledged, lost] = numbers.as_slice() else {
        anyhow::bail!("totals are not five numbers: {line}");
    };
    let printed = finished.events.len() as u64;
    ensure!(
        recorded == printed,
        "{recorded} recorded, but {printed} printed: {line}"
    );
    let from_probes = [
        "tcp_connect",
        "tcp_flow",
        "icmp_echo",
        "softirq_stall",
        "oom_kill",
    ]
    .iter()
    .map(|kind| count(&finished.events, kind) as u64)
    .sum::<u64>();
    let held_back: u64 = match line.split("; ").find(|part| part.contains("held back")) {
        Some(part) => part.split(' ').next().unwrap_or_default().parse()?,
        None => 0,
    };
    ensure!(
        seen > 0 && seen <= from_probes + lost + held_back,
        "{from_probes} printed, {lost} lost and {held_back} held back: {line}"
    );
    if collector {
        // What was in flight when the collector died was sent twice.
        ensure!(sent >= recorded, "not all were sent: {line}");
        ensure!(
            acknowledged == recorded,
            "not all were acknowledged: {line}"
        );
        ensure!(lost == 0, "some were lost: {line}");
    }
    Ok(line.to_owned())
}

/// What is dropped on purpose is counted, to the last record.
fn drops(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "loss",
        flavour: "",
    };
    let flags = ["--simulate-drops", "7"];
    let agent = Agent::start_one(tools, "tcp_connect", "tp_btf", &flags)?;
    let (pid, address, _) = run_storm(tools, &[])?;
    agent.wait_for(PATIENCE, |events| {
        let got = storm_ports(events, pid, &address).len();
        got >= STORM - STORM / 7 - 1
    });
    let finished = agent.stop()?;
    let lost = lost(&finished.events);
    let result = lost.and_then(|lost| {
        let got = storm_ports(&finished.events, pid, &address).len();
        ensure!(got < STORM, "nothing was dropped");
        let all = count(&finished.events, "tcp_connect") as u64;
        let stats = finished
            .events
            .iter()
            .rev()
            .find(|event| kind(event) == "node_stats")
            .context("no node_stats event")?;
        let row = stats
            .pointer("/node_stats/probes")
            .and_then(Value::as_array)
            .and_then(|rows| rows.iter().find(|row| text(row, "/probe") == "tcp_connect"))
            .context("node_stats has no tcp_connect row")?;
        let (seen, dropped) = (number(row, "/seen")?, number(row, "/dropped_ring")?);
        ensure!(
            seen == all + dropped,
            "{seen} seen, {all} came, {dropped} dropped"
        );
        ensure!(
            lost == dropped,
            "the loss event says {lost}, the counter {dropped}"
        );
        ensure!(seen >= STORM as u64, "only {seen} seen");
        Ok(format!(
            "{seen} seen = {all} came + {dropped} counted as lost"
        ))
    });
    report.result(subject, "dropped records are counted", &result);
    Ok(())
}

fn lost(events: &[Value]) -> Result<u64> {
    let last = events
        .iter()
        .rev()
        .find(|event| kind(event) == "loss")
        .context("no loss event")?;
    last.pointer("/loss/counters")
        .and_then(Value::as_array)
        .context("the loss event has no counters")?
        .iter()
        .filter(|row| text(row, "/probe") == "tcp_connect" && text(row, "/reason") == "ring_full")
        .map(|row| number(row, "/count"))
        .sum()
}
