//! Each finding, provoked for real and checked for its names and numbers; and
//! silence while nothing is wrong.

pub(super) mod accept_queue_full;
mod backend_imbalance;
mod connect_trouble;
mod conntrack_trouble;
mod cpu_starved;
mod dns_trouble;
mod limit_drift;
mod oom_autopsy;
mod reclaim_stall;
mod slow_cgroup_read;
mod softirq_stall;
pub(super) mod traffic_after_sigterm;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::agent::{Agent, kind};
use super::expect::{Expect, text};
use super::report::{Report, Subject};
use super::tools::Tools;

type Case = fn(&Tools, Subject<'_>, &mut Report) -> Result<()>;

const CASES: [(&str, Case); 12] = [
    ("softirq_stall", softirq_stall::run),
    ("slow_cgroup_read", slow_cgroup_read::run),
    ("oom_autopsy", oom_autopsy::run),
    ("limit_drift", limit_drift::run),
    ("reclaim_stall", reclaim_stall::run),
    ("cpu_starved", cpu_starved::run),
    ("accept_queue_full", accept_queue_full::run),
    ("connect_trouble", connect_trouble::run),
    ("conntrack_trouble", conntrack_trouble::run),
    ("dns_trouble", dns_trouble::run),
    ("backend_imbalance", backend_imbalance::run),
    ("traffic_after_sigterm", traffic_after_sigterm::run),
];

/// Runs all, or only these.
pub fn run(tools: &Tools, only: &[String], report: &mut Report) -> Result<()> {
    let unknown = only
        .iter()
        .find(|only| CASES.iter().all(|(name, _)| only != name));
    if let Some(unknown) = unknown {
        bail!("there is no finding {unknown:?}");
    }
    let chosen = CASES
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|only| only == name));
    for (name, case) in chosen {
        let subject = Subject {
            probe: name,
            flavour: "",
        };
        report.play(&[subject], |report| case(tools, subject, report));
    }
    Ok(())
}

/// How often a trouble is made anew, and how long what it leads to is waited for.
const TRIES: u32 = 5;
const SOON: Duration = Duration::from_secs(8);

/// Makes a trouble until what `provoke` expects of it was seen: in an emulated machine a CPU
/// stands still at times for longer than the trouble lasts, and that hides it. What was
/// expected last is given back, to be settled.
fn until_seen(
    agent: &Agent,
    mut provoke: impl FnMut() -> Result<Vec<Expect>>,
) -> Result<Vec<Expect>> {
    let mut tries = 0;
    loop {
        let expects = provoke()?;
        tries += 1;
        let seen = |events: &[Value]| expects.iter().all(|one| one.ask(events).is_ok());
        if tries == TRIES || agent.wait_for(SOON, seen) {
            return Ok(expects);
        }
    }
}

/// Every finding of this name, oldest first.
pub fn found<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| kind(event) == "finding" && text(event, "/finding/name") == name)
        .collect()
}

/// The first finding of this name for which `filter` holds.
pub fn finding<'a>(
    events: &'a [Value],
    name: &str,
    filter: impl Fn(&Value) -> bool,
) -> Result<&'a Value> {
    let all = found(events, name);
    let near: Vec<String> = all.iter().rev().take(3).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| filter(event))
        .with_context(|| format!("no such {name}; the last: {near:?}"))
}

/// No finding of this name.
pub fn silent(events: &[Value], name: &str) -> Result<String> {
    let all = found(events, name);
    ensure!(all.is_empty(), "{} {name}: {}", all.len(), all[0]);
    Ok("silent".to_owned())
}

/// Every event that the finding refers to was printed: how many there are.
pub fn evidence_is_printed(events: &[Value], finding: &Value) -> Result<usize> {
    let evidence = finding
        .pointer("/finding/evidence")
        .and_then(Value::as_array)
        .with_context(|| format!("no evidence in {finding}"))?;
    ensure!(!evidence.is_empty(), "no evidence in {finding}");
    for one in evidence {
        let printed = events.iter().any(|event| {
            ["lane", "seq", "kind"]
                .iter()
                .all(|field| event.get(*field) == one.get(*field))
        });
        ensure!(printed, "{one} was not printed: {finding}");
    }
    Ok(evidence.len())
}

/// The party in this role is the process.
pub fn is_party(finding: &Value, role: &str, pid: u32) -> Result<()> {
    let parties = finding
        .pointer("/finding/parties")
        .and_then(Value::as_array)
        .with_context(|| format!("no parties in {finding}"))?;
    let there = parties.iter().any(|party| {
        text(party, "/role") == role
            && party.pointer("/who/process/pid").and_then(Value::as_u64) == Some(pid.into())
    });
    ensure!(there, "no {role} with pid {pid} in {finding}");
    Ok(())
}
