//! tcp_flow over several intervals: what the records of a connection add to each
//! other is its totals in the end.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::agent::kind;
use super::crew::Crew;
use super::expect::{Expect, expect, is_number, limits, number, text};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::{PATIENCE, Tools};

/// An interval that a test can wait for.
pub const FLAGS: [&str; 2] = ["--flow-interval", "200ms"];

const PARTS: u64 = 3;
const SENT: u64 = 60_001;
const RECEIVED: u64 = 7_003;

/// Sends in parts, with a record after each, and says what must be seen.
pub fn run(tools: &Tools, crew: &Crew<'_>) -> Result<Vec<Expect>> {
    let (sent, received) = (SENT.to_string(), RECEIVED.to_string());
    let listen = ["--comm", "partserver", "serve", "--listen", "127.0.0.1:0"];
    let mut arguments = listen.to_vec();
    arguments.extend(["--receive", &sent, "--send", &received]);
    let mut server = Load::start(&tools.load, Place::Here, &arguments)?;
    let address = listening(&mut server)?;
    let parts = PARTS.to_string();
    let mut arguments = vec!["--comm", "partclient", "transfer", "--to", &address];
    arguments.extend(["--parts", &parts, "--send", &sent, "--receive", &received]);
    let mut client = Load::start(&tools.load, Place::Here, &arguments)?;
    let mut local = String::new();
    for part in 1..=PARTS {
        local = text(&client.line("part")?, "/local").to_owned();
        let told = part * (SENT / PARTS);
        crew.wait_for(PATIENCE / 3, |events| {
            no_calls(events)
                || open(events, &local, &address, "/tcp_flow/bytes_sent", told)
                    && open(events, &address, &local, "/tcp_flow/bytes_received", told)
        });
        client.go()?;
    }
    client.finish()?;
    server.finish()?;
    let (here, there) = (local.clone(), address.clone());
    Ok(vec![
        expect("deltas over several intervals: client", move |events| {
            adds_up(events, &here, &there, SENT, RECEIVED)
        }),
        expect("deltas over several intervals: server", move |events| {
            adds_up(events, &address, &local, RECEIVED, SENT)
        }),
    ])
}

/// Where calls are not counted, no interval record need come, as the agent says itself.
pub fn no_calls(events: &[Value]) -> bool {
    let told = limits(events, "tcp_flow");
    told.iter().any(|limit| limit.contains("bytes come from"))
}

/// Whether an interval record of this end says so much.
fn open(events: &[Value], local: &str, remote: &str, pointer: &str, want: u64) -> bool {
    of(events, local, remote).any(|event| {
        text(event, "/tcp_flow/state") == "OPEN" && number(event, pointer).ok() == Some(want)
    })
}

fn of<'a>(events: &'a [Value], local: &'a str, remote: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| {
        kind(event) == "tcp_flow"
            && text(event, "/tcp_flow/local") == local
            && text(event, "/tcp_flow/remote") == remote
    })
}

fn adds_up(
    events: &[Value],
    local: &str,
    remote: &str,
    sent: u64,
    received: u64,
) -> Result<String> {
    let records: Vec<&Value> = of(events, local, remote).collect();
    let last = records.last().context("no record")?;
    ensure!(
        text(last, "/tcp_flow/state") == "CLOSED",
        "the last record is not final: {last}"
    );
    is_number(last, "/tcp_flow/bytes_sent", sent)?;
    is_number(last, "/tcp_flow/bytes_received", received)?;
    for field in [
        "bytes_sent",
        "bytes_received",
        "sends",
        "receives",
        "retransmits",
        "duration_ns",
    ] {
        let mut sum = 0;
        for event in &records {
            sum += number(event, &format!("/tcp_flow/delta/{field}"))?;
        }
        is_number(last, &format!("/tcp_flow/{field}"), sum)?;
    }
    let counts_calls = text(last, "/tcp_flow/bytes_source") == "CALLS";
    ensure!(
        !counts_calls || records.len() > PARTS as usize,
        "{} records of {PARTS} parts: {last}",
        records.len()
    );
    Ok(format!("{} records", records.len()))
}
