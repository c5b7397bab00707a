//! tcp_edge: connections told as sums, which are what the loads moved.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::agent::kind;
use super::crew::Crew;
use super::expect::{Expect, expect, is_number, number, text};
use super::flow_deltas::no_calls;
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::{PATIENCE, Tools};

/// An interval that a test can wait for.
pub const FLAGS: [&str; 4] = ["--flow-records", "edges", "--flow-interval", "200ms"];

/// Connections one after the other, and one over several intervals.
const SHORT: u64 = 12;
const SENT: u64 = 30_011;
const RECEIVED: u64 = 7_003;
const PARTS: u64 = 3;

/// What one end's edge adds up to.
struct Sums {
    role: &'static str,
    port: u64,
    connections: u64,
    sent: u64,
    received: u64,
    resets: u64,
}

/// Moves the bytes and says what must be seen.
pub fn run(tools: &Tools, crew: &Crew<'_>) -> Result<Vec<Expect>> {
    let mut expects = vec![expect("edges: no record of a single one", |events| {
        ensure!(
            !events.iter().any(|event| kind(event) == "tcp_flow"),
            "there is a tcp_flow"
        );
        Ok(String::new())
    })];
    let short = |close: &'static str| transfers(tools, SHORT, close, |_, _| Ok(()));
    for (close, resets) in [("client", 0), ("server-reset", SHORT)] {
        let port = short(close)?;
        expects.extend(both(close, port, SHORT, resets));
    }
    let port = transfers(tools, 1, "client", |client, port| {
        for part in 1..=PARTS {
            client.line("part")?;
            crew.wait_for(PATIENCE / 3, |events| {
                if no_calls(events) {
                    return true;
                }
                let sent = sum(events, "CLIENT", port, "bytes_sent");
                let received = sum(events, "SERVER", port, "bytes_received");
                let told = part * (SENT / PARTS);
                sent.ok() == Some(told) && received.ok() == Some(told)
            });
            client.go()?;
        }
        Ok(())
    })?;
    expects.extend(both("client, in parts", port, 1, 0));
    Ok(expects)
}

fn both(close: &str, port: u64, connections: u64, resets: u64) -> [Expect; 2] {
    let (sent, received) = (connections * SENT, connections * RECEIVED);
    let end = |role, sent, received| {
        let sums = Sums {
            role,
            port,
            connections,
            sent,
            received,
            resets,
        };
        expect(format!("edges, closed by {close}: {role}"), move |events| {
            adds_up(events, &sums)
        })
    };
    [end("CLIENT", sent, received), end("SERVER", received, sent)]
}

/// Runs so many transfers to a port of their own, which is given back.
fn transfers(
    tools: &Tools,
    connections: u64,
    close: &'static str,
    meanwhile: impl FnOnce(&mut Load, u64) -> Result<()>,
) -> Result<u64> {
    let [sent, received, parts, connections_text] =
        [SENT, RECEIVED, PARTS, connections].map(|n| n.to_string());
    let listen = ["--comm", "edgeserver", "serve", "--listen", "127.0.0.1:0"];
    let mut arguments = listen.to_vec();
    arguments.extend(["--connections", &connections_text, "--close", close]);
    arguments.extend(["--receive", &sent, "--send", &received]);
    let mut server = Load::start(&tools.load, Place::Here, &arguments)?;
    let address = listening(&mut server)?;
    let Some(Ok(port)) = address.rsplit_once(':').map(|(_, port)| port.parse()) else {
        bail!("{address} has no port");
    };
    let mut arguments = vec!["--comm", "edgeclient", "transfer", "--to", &address];
    arguments.extend(["--connections", &connections_text, "--close", close]);
    arguments.extend(["--send", &sent, "--receive", &received]);
    if connections == 1 {
        arguments.extend(["--parts", &parts]);
    }
    let mut client = Load::start(&tools.load, Place::Here, &arguments)?;
    meanwhile(&mut client, port)?;
    client.finish()?;
    server.finish()?;
    Ok(port)
}

fn of<'a>(events: &'a [Value], role: &'a str, port: u64) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| {
        kind(event) == "tcp_edge"
            && text(event, "/tcp_edge/role") == role
            && number(event, "/tcp_edge/port").ok() == Some(port)
    })
}

fn sum(events: &[Value], role: &str, port: u64, field: &str) -> Result<u64> {
    let pointer = format!("/tcp_edge/{field}");
    of(events, role, port)
        .map(|event| number(event, &pointer))
        .sum()
}

fn adds_up(events: &[Value], sums: &Sums) -> Result<String> {
    let told: Vec<&Value> = of(events, sums.role, sums.port).collect();
    for (field, want) in [
        ("opened", sums.connections),
        ("closed", sums.connections),
        ("bytes_sent", sums.sent),
        ("bytes_received", sums.received),
        ("resets", sums.resets),
        ("timeouts", 0),
        ("unsure", 0),
    ] {
        let got = sum(events, sums.role, sums.port, field)?;
        ensure!(got == want, "{field} is {got}, not {want}: {told:?}");
    }
    if let Some(last) = told.last() {
        is_number(last, "/tcp_edge/open", 0)?;
        ensure!(
            last.pointer("/who/process").is_none(),
            "a process in {last}"
        );
    }
    Ok(format!("{} records", told.len()))
}
