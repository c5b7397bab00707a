//! icmp_echo: requests through a veth pair, from one namespace to another.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::agent::kind;
use super::expect::{Expect, expect, number, runs_as, text};
use super::load::{Load, Place};
use super::tools::Tools;
use crate::net::pair::{FAR_V4, FAR_V6, NEAR_V4, NEAR_V6, Pair};

/// Few enough to stay below the rate limit of one source.
const COUNT: u64 = 5;
/// Many more than the limit lets through.
const FLOOD: u64 = 400;

/// Pings and says what must be seen.
pub fn run(tools: &Tools, pair: &Pair) -> Result<Vec<Expect>> {
    let v4 = ping(tools, pair, FAR_V4, 0x4d2, COUNT, 20_000)?;
    let v6 = ping(tools, pair, FAR_V6, 0x4d6, COUNT, 20_000)?;
    let flood = ping(tools, pair, FAR_V4, 0x4e0, FLOOD, 0)?;
    let v6 = move |events: &[Value]| seen(events, NEAR_V6, v6, COUNT);
    let replied = expect("IPv6", v6).or_limit("icmp_echo", "IPv6");
    Ok(vec![
        expect("echo through veth, IPv4", move |events| {
            seen(events, NEAR_V4, v4, COUNT)
        }),
        expect("echo through veth, IPv6", move |events| {
            if runs_as(events, "icmp_echo", "fentry_reply") {
                replied.ask(events)
            } else {
                v6(events)
            }
        }),
        expect("flood: sent or counted", move |events| {
            counted(events, flood)
        }),
    ])
}

fn ping(
    tools: &Tools,
    pair: &Pair,
    to: IpAddr,
    id: u64,
    count: u64,
    interval_us: u64,
) -> Result<u64> {
    let result = Load::run(
        &tools.load,
        Place::In(&pair.near),
        &[
            "ping",
            "--to",
            &to.to_string(),
            "--id",
            &id.to_string(),
            "--count",
            &count.to_string(),
            "--interval-us",
            &interval_us.to_string(),
        ],
    )?;
    let answered = result
        .get("answered")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    ensure!(
        answered as u64 == count,
        "only {answered} of {count} pings to {to} were answered"
    );
    Ok(id)
}

fn of(events: &[Value], id: u64) -> Vec<&Value> {
    events
        .iter()
        .filter(|event| kind(event) == "icmp_echo")
        .filter(|event| number(event, "/icmp_echo/id").is_ok_and(|got| got == id))
        .collect()
}

fn seen(events: &[Value], source: IpAddr, id: u64, count: u64) -> Result<String> {
    let events = of(events, id);
    let mut sequences = BTreeSet::new();
    let mut contexts = BTreeSet::new();
    for event in &events {
        ensure!(
            text(event, "/icmp_echo/source") == source.to_string(),
            "source in {event}"
        );
        let context = text(event, "/icmp_echo/context");
        ensure!(
            ["KSOFTIRQD", "IDLE", "TASK"].contains(&context),
            "context in {event}"
        );
        if context == "TASK" {
            ensure!(
                !text(event, "/who/process/comm").is_empty(),
                "no task named in {event}"
            );
        }
        contexts.insert(context);
        let sequence = number(event, "/icmp_echo/sequence")?;
        ensure!(sequences.insert(sequence), "sequence {sequence} came twice");
    }
    let want: BTreeSet<u64> = (1..=count).collect();
    ensure!(
        sequences == want,
        "sequences {sequences:?} instead of {want:?}"
    );
    Ok(format!("{count} requests, on top of {contexts:?}"))
}

/// Requests that the rate limit held back are counted, to the last one.
fn counted(events: &[Value], id: u64) -> Result<String> {
    let sent = of(events, id).len() as u64;
    ensure!(sent > 0, "none of the flood was sent");
    ensure!(sent < FLOOD, "the rate limit did not work: {sent} events");
    let all = events
        .iter()
        .filter(|event| kind(event) == "icmp_echo")
        .count() as u64;
    let stats = events
        .iter()
        .rev()
        .find(|event| kind(event) == "node_stats")
        .context("no node_stats event")?;
    let counters = stats
        .pointer("/node_stats/probes")
        .and_then(Value::as_array)
        .and_then(|probes| {
            probes
                .iter()
                .find(|row| row.get("probe").and_then(Value::as_str) == Some("icmp_echo"))
        })
        .context("node_stats has no counters of icmp_echo")?;
    let seen = number(counters, "/seen")?;
    let suppressed = number(counters, "/suppressed")?;
    ensure!(
        seen == all + suppressed,
        "{seen} seen, but {all} events and {suppressed} suppressed"
    );
    ensure!(seen >= FLOOD, "only {seen} seen");
    Ok(format!(
        "{seen} seen = {all} sent + {suppressed} suppressed"
    ))
}
