//! Very many connections of processes that take one CPU from each other: one that is put off
//! in the middle of a program's run must not hide what the others do meanwhile.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::expect::{Expect, expect, skipped, text};
use super::load::{Load, Place};
use super::tcp_connect::{excess, listening};
use super::tools::Tools;

/// The count of what the kernel skipped comes with them.
pub const FLAGS: [&str; 2] = ["--stats-interval", "1s"];

const PROCESSES: usize = 4;
const EACH: usize = 100;

/// Runs them, and says what must be seen.
pub fn run(tools: &Tools) -> Result<Vec<Expect>> {
    let (all, each) = ((PROCESSES * EACH).to_string(), EACH.to_string());
    let words = [
        "--cpu",
        "0",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--connections",
        &all,
    ];
    let mut server = Load::start(&tools.load, Place::Here, &words)?;
    let address = listening(&mut server)?;
    let words = [
        "--cpu",
        "0",
        "--wait",
        "storm",
        "--hold-us",
        "0",
        "--count",
        &each,
        "--to",
        &address,
    ];
    let mut clients: Vec<Load> = (0..PROCESSES)
        .map(|_| Load::start(&tools.load, Place::Here, &words))
        .collect::<Result<_>>()?;
    for client in &mut clients {
        client.go()?;
    }
    let mut ports = Vec::new();
    for client in clients {
        let last = client.finish()?;
        let list = last.get("ports").and_then(Value::as_array);
        let list = list.context("the storm printed no ports")?;
        ports.extend(list.iter().filter_map(Value::as_u64));
    }
    server.finish()?;
    ports.sort_unstable();
    Ok(vec![both_ends(address, ports)])
}

/// A record of each end of each, but for the runs that the kernel says it skipped.
fn both_ends(address: String, ports: Vec<u64>) -> Expect {
    expect("a crowd on one CPU: both ends of each", move |events| {
        let clients = closed(events, "/tcp_flow/remote", "/tcp_flow/local", &address);
        let servers = closed(events, "/tcp_flow/local", "/tcp_flow/remote", &address);
        let mut missing = 0;
        for (end, mut got) in [("client", clients), ("server", servers)] {
            got.sort_unstable();
            let more = excess(&got, &ports);
            ensure!(
                more.is_empty(),
                "records of no connection's {end}: {more:?}"
            );
            missing += excess(&ports, &got).len();
        }
        let skipped = skipped(events);
        ensure!(
            missing as u64 <= skipped,
            "{missing} of {} records are missing, and the kernel skipped {skipped} runs",
            2 * ports.len()
        );
        Ok(format!(
            "{} connections, {missing} records missing, {skipped} runs skipped",
            ports.len()
        ))
    })
}

/// Client ports of the connections of the address at this end.
fn closed(events: &[Value], here: &str, other: &str, address: &str) -> Vec<u64> {
    events
        .iter()
        .filter(|event| text(event, "/tcp_flow/state") == "CLOSED" && text(event, here) == address)
        .filter_map(|event| text(event, other).rsplit(':').next()?.parse().ok())
        .collect()
}
