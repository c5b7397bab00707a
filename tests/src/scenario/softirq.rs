//! softirq: histograms that agree with /proc/softirqs, and stalls.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::agent::{Agent, kind};
use super::expect::{Expect, expect, number, text};
use super::load::{Load, Place};
use super::report::{Report, Subject};
use super::tools::{PATIENCE, Tools};

/// Runs per vector name and CPU.
type Counts = BTreeMap<(String, u64), u64>;

/// Brackets the agent's counts by what the kernel itself counted: at least
/// what ran while it was surely attached, at most what ran from before its
/// start to after its end.
pub fn run(tools: &Tools, flavour: &str, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "softirq",
        flavour,
    };
    let before = kernel_counts()?;
    let agent = Agent::start_one(tools, "softirq", flavour, &["--stall-threshold", "1us"])?;
    let from = kernel_counts()?;
    load(tools)?;
    let until = kernel_counts()?;
    let stalled = |events: &[Value]| stalls(events, flavour).is_ok();
    agent.wait_for(PATIENCE / 3, stalled);
    let finished = agent.stop()?;
    let after = kernel_counts()?;
    let counts = agent_counts(&finished.events);
    let agree = counts.and_then(|counts| {
        let inner = difference(&from, &until);
        let outer = difference(&before, &after);
        agree(&inner, &counts, &outer)
    });
    report.result(subject, "agrees with /proc/softirqs", &agree);
    report.result(subject, "histograms add up", &sums(&finished.events));
    report.result(
        subject,
        "stalls over the threshold",
        &stalls(&finished.events, flavour),
    );
    let quiet = expectation_of_silence(tools, flavour)?;
    for expect in quiet {
        report.result(subject, "no stalls below the threshold", &expect);
    }
    Ok(())
}

fn load(tools: &Tools) -> Result<()> {
    for protocol in ["tcp", "udp"] {
        let arguments = ["send-storm", "--protocol", protocol, "--count", "20000"];
        Load::run(&tools.load, Place::Here, &arguments)?;
    }
    Ok(())
}

/// With a threshold that nothing reaches, no stall may be told.
fn expectation_of_silence(tools: &Tools, flavour: &str) -> Result<Vec<Result<String>>> {
    let agent = Agent::start_one(tools, "softirq", flavour, &["--stall-threshold", "1000s"])?;
    load(tools)?;
    let finished = agent.stop()?;
    let silent: Expect = expect("silence", |events: &[Value]| {
        let told = events
            .iter()
            .filter(|event| kind(event) == "softirq_stall")
            .count();
        ensure!(told == 0, "{told} stalls of more than 1000 s");
        Ok("none".to_owned())
    });
    Ok(vec![silent.ask(&finished.events)])
}

fn kernel_counts() -> Result<Counts> {
    let text = std::fs::read_to_string("/proc/softirqs").context("/proc/softirqs")?;
    let mut counts = Counts::new();
    let cpus: Vec<u64> = text
        .lines()
        .next()
        .context("/proc/softirqs is empty")?
        .split_whitespace()
        .filter_map(|name| name.strip_prefix("CPU")?.parse().ok())
        .collect();
    for line in text.lines().skip(1) {
        let Some((name, numbers)) = line.trim().split_once(':') else {
            continue;
        };
        for (cpu, count) in cpus.iter().zip(numbers.split_whitespace()) {
            counts.insert(
                (name.to_owned(), *cpu),
                count.parse().context("/proc/softirqs")?,
            );
        }
    }
    Ok(counts)
}

fn difference(from: &Counts, to: &Counts) -> Counts {
    to.iter()
        .map(|(key, value)| (key.clone(), value - from.get(key).copied().unwrap_or(0)))
        .collect()
}

fn last_stats(events: &[Value]) -> Result<&Value> {
    events
        .iter()
        .rev()
        .find(|event| kind(event) == "node_stats")
        .context("no node_stats event")
}

fn rows(events: &[Value]) -> Result<&Vec<Value>> {
    last_stats(events)?
        .pointer("/node_stats/softirq")
        .and_then(Value::as_array)
        .context("node_stats has no softirq rows")
}

fn agent_counts(events: &[Value]) -> Result<Counts> {
    let mut counts = Counts::new();
    for row in rows(events)? {
        let key = (text(row, "/vector").to_owned(), number(row, "/cpu")?);
        counts.insert(key, number(row, "/count")?);
    }
    Ok(counts)
}

fn agree(inner: &Counts, counts: &Counts, outer: &Counts) -> Result<String> {
    let mut total = 0;
    for ((vector, cpu), most) in outer {
        let key = (vector.clone(), *cpu);
        // The kernel counts a run when it begins, the agent when it ends: one may
        // have been under way when the probe was taken off.
        let least = inner.get(&key).copied().unwrap_or(0).saturating_sub(1);
        let got = counts.get(&key).copied().unwrap_or(0);
        ensure!(
            (least..=*most).contains(&got),
            "{vector} on CPU {cpu}: {got}, but the kernel counted {least} to {most}"
        );
        total += got;
    }
    let work: u64 = inner.values().sum();
    ensure!(work > 0, "no softirq ran during the load");
    Ok(format!(
        "{total} runs, every CPU and vector within the kernel's own counts"
    ))
}

fn sums(events: &[Value]) -> Result<String> {
    let mut waits = 0;
    for row in rows(events)? {
        let sum = |field: &str| -> u64 {
            row.get(field)
                .and_then(Value::as_array)
                .map_or(0, |buckets| buckets.iter().filter_map(Value::as_u64).sum())
        };
        let (count, run, wait) = (number(row, "/count")?, sum("run"), sum("wait"));
        // One run may be under way on this CPU while the row is read, and one
        // may have begun before the probe was attached.
        ensure!(
            run.abs_diff(count) <= 2,
            "{run} run times of {count} runs in {row}"
        );
        ensure!(wait <= count + 1, "{wait} waits of {count} runs in {row}");
        waits += wait;
    }
    ensure!(waits > 0, "no wait was measured");
    Ok(format!("{waits} waits"))
}

fn stalls(events: &[Value], flavour: &str) -> Result<String> {
    let mut told = 0;
    for event in events.iter().filter(|event| kind(event) == "softirq_stall") {
        let longest = ["wait_ns", "run_ns", "irqs_off_ns", "queue_wait_ns"]
            .iter()
            .filter_map(|field| number(event, &format!("/softirq_stall/{field}")).ok())
            .max()
            .unwrap_or(0);
        ensure!(longest >= 1000, "below the threshold of 1 us: {event}");
        ensure!(
            !text(event, "/softirq_stall/vector").is_empty(),
            "no vector in {event}"
        );
        event
            .pointer("/softirq_stall/ran_in_ksoftirqd")
            .and_then(Value::as_bool)
            .with_context(|| format!("ran_in_ksoftirqd in {event}"))?;
        told += 1;
    }
    ensure!(told > 0, "no stall over 1 us with {flavour}");
    Ok(format!("{told} stalls"))
}
