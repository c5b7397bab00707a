//! A SYN that nobody answers, refusals, and connects that are well.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use super::{evidence_is_printed, finding, found};
use crate::net::pair::{BLACKHOLE_V4, FAR_V4, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::expect::{
    Expect, expect, is_number, is_process, is_text, number, probe_runs, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tcp_connect::listening;
use crate::scenario::tools::{PATIENCE, Tools};

const NAME: &str = "connect_trouble";
/// Nobody listens there.
const CLOSED: u16 = 4;
const CLOSED_ONCE: u16 = 5;
/// Refusals, the least that are told.
const REFUSALS: u64 = 3;
/// SYNs sent again 1, 3 and 7 s after the first.
const RETRANSMITS: u64 = 3;

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    // Long enough that no attempt ends by itself.
    pair.near.sysctl("ipv4/tcp_syn_retries", "6")?;
    let agent = Agent::start(tools, NAME, &[])?;
    let near = Place::In(&pair.near);
    let lost = SocketAddr::new(BLACKHOLE_V4, 8080).to_string();
    let attempt = Load::start(
        &tools.load,
        near,
        &["--comm", "lost", "attempt", "--to", &lost],
    )?;
    let well = well(tools, &pair)?;
    let closed = SocketAddr::new(FAR_V4, CLOSED).to_string();
    let once = SocketAddr::new(FAR_V4, CLOSED_ONCE).to_string();
    let knocker = knock(tools, near, &closed, REFUSALS)?;
    knock(tools, near, &once, 1)?;
    // While the attempt is still under way.
    let waiting = lost.clone();
    let told = agent.wait_for(PATIENCE, |events| {
        finding(events, NAME, |event| {
            text(event, "/finding/detail/connect_trouble/remote") == waiting
        })
        .is_ok()
    });
    let mut attempt = attempt;
    let alive = attempt.alive()?;
    let pid = attempt.pid();
    drop(attempt);
    ensure!(told, "nothing was told of the SYN that nobody answers");
    ensure!(alive, "the attempt had ended before it was told of");
    let silent = [well, once];
    let expects = [
        unanswered(pid, lost),
        refused(knocker, closed),
        expect("silence for success and for one refusal", move |events| {
            for event in found(events, NAME) {
                let remote = text(event, "/finding/detail/connect_trouble/remote");
                ensure!(!silent.iter().any(|one| one == remote), "{event}");
            }
            Ok("silent".to_owned())
        }),
    ];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

/// Connections that succeed; where to.
fn well(tools: &Tools, pair: &Pair) -> Result<String> {
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let arguments = ["serve", "--listen", &listen, "--connections", "100"];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address = listening(&mut server)?;
    let arguments = ["storm", "--count", "100", "--to", &address];
    Load::run(&tools.load, Place::In(&pair.near), &arguments)?;
    server.finish()?;
    Ok(address)
}

fn knock(tools: &Tools, place: Place<'_>, to: &str, count: u64) -> Result<u32> {
    let count = count.to_string();
    let arguments = [
        "--comm",
        "knocker",
        "knock",
        "--count",
        &count,
        "--interval-ms",
        "20",
        "--to",
        to,
    ];
    let load = Load::start(&tools.load, place, &arguments)?;
    let pid = load.pid();
    is_number(&load.finish()?, "/errno", 111)?;
    Ok(pid)
}

fn unanswered(pid: u32, remote: String) -> Expect {
    expect("a SYN that nobody answers, while it waits", move |events| {
        let event = finding(events, NAME, |event| {
            text(event, "/finding/detail/connect_trouble/remote") == remote
        })?;
        is_process(event, "/who/process", pid, "lost")?;
        let detail = |field: &str| format!("/finding/detail/connect_trouble/{field}");
        is_number(event, &detail("syn_retransmits"), RETRANSMITS)?;
        is_number(event, &detail("max_syn_retransmits"), RETRANSMITS)?;
        is_number(event, &detail("timed_out"), 0)?;
        let wait = number(event, &detail("longest_wait_ns"))?;
        // 7 s by the kernel's clock, which may be a tick early.
        ensure!(wait >= 6_500_000_000, "longest_wait_ns is {wait}");
        let summary = text(event, "/finding/summary");
        for word in ["lost", &pid.to_string(), &remote, "sent again"] {
            ensure!(summary.contains(word), "no {word:?} in {summary:?}");
        }
        dropped_for(events, event, "OTHERHOST")?;
        Ok(format!("{summary} {}", text(event, "/finding/mend")))
    })
}

fn refused(pid: u32, remote: String) -> Expect {
    expect("refusals", move |events| {
        let event = finding(events, NAME, |event| {
            text(event, "/finding/detail/connect_trouble/remote") == remote
        })?;
        is_process(event, "/who/process", pid, "knocker")?;
        is_number(event, "/finding/detail/connect_trouble/refused", REFUSALS)?;
        is_number(event, "/finding/detail/connect_trouble/syn_retransmits", 0)?;
        is_text(event, "/finding/severity", "WARNING")?;
        dropped_for(events, event, "NO_SOCKET")?;
        let evidence = evidence_is_printed(events, event)?;
        ensure!(evidence as u64 == REFUSALS, "{evidence} events: {event}");
        Ok(text(event, "/finding/summary").to_owned())
    })
}

/// The kernel's reason is there, or the finding says why not.
fn dropped_for(
    events: &[serde_json::Value],
    event: &serde_json::Value,
    reason: &str,
) -> Result<()> {
    if probe_runs(events, "skb_drop") {
        is_text(
            event,
            "/finding/detail/connect_trouble/dropped/0/reason",
            reason,
        )?;
        let count = number(event, "/finding/detail/connect_trouble/dropped/0/count")?;
        ensure!(count >= 1, "no drop in {event}");
        return Ok(());
    }
    let caveats = event.pointer("/finding/caveats").map(ToString::to_string);
    let caveats = caveats.unwrap_or_default();
    ensure!(
        caveats.contains("why packets were dropped"),
        "no reason and no caveat: {event}"
    );
    Ok(())
}
