//! A container that gets SIGTERM while clients still come, and are refused once it is
//! gone; and one to which nobody comes any more.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{evidence_is_printed, found};
use crate::net::pair::{FAR_V4, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{
    Expect, expect, is_number, is_process, is_text, number, probe_runs, settle, text, truth,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{Kept, POD_UID};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tcp_connect::listening;
use crate::scenario::tools::{PATIENCE, Tools};

const NAME: &str = "traffic_after_sigterm";
/// Connections before the signal, after it, and refusals at the end.
const BEFORE: u64 = 3;
const AFTER: u64 = 4;
const REFUSED: u64 = 2;
/// Of each connection: to the server, and back.
const SENT: u64 = 10;
const ANSWER: u64 = 20;

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let agent = Agent::start(tools, NAME, &["--flow-interval", "1s"])?;
    ensure!(
        agent.wait_for(Duration::ZERO, |events| probe_runs(events, "sigterm")),
        "the probe sigterm does not run"
    );
    let mut kept = Kept::default();
    // Namespaces of their own, as pods have: an address is one container's.
    let (late, quiet) = (Pair::new()?, Pair::new()?);
    // In this order: both have the same address.
    let silent = no_clients(tools, &quiet, &mut kept)?;
    let mut expects = late_clients(tools, &late, &agent, &mut kept)?;
    expects.push(silent);
    settle(agent, &expects, report, subject)?;
    Ok(())
}

/// A server in a container, as PID 1 of its namespace: SIGTERM, which it does not
/// handle, does not end it.
fn serve(
    tools: &Tools,
    pair: &Pair,
    comm: &str,
    connections: u64,
    keep: &mut Kept,
) -> Result<(Load, String)> {
    let path = format!("/kubepods/burstable/pod{POD_UID}/{}", container(comm));
    let cgroup = Cgroup::new(&Memory::find()?, &path)?;
    let directory = cgroup.directory.display().to_string();
    keep.keep(cgroup);
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let [connections, sent, answer] = [connections, SENT, ANSWER].map(|n| n.to_string());
    let arguments = [
        ["--comm", comm, "--enter-cgroup", &directory, "serve"].as_slice(),
        &["--listen", &listen, "--connections", &connections],
        &["--receive", &sent, "--send", &answer],
    ]
    .concat();
    let mut server = pair
        .far
        .run(|| Load::start(&tools.load, Place::Init, &arguments))?;
    let address = listening(&mut server)?;
    Ok((server, address))
}

/// So many, one after the other.
fn transfer(tools: &Tools, pair: &Pair, to: &str, connections: u64) -> Result<()> {
    let [connections, sent, answer] = [connections, SENT, ANSWER].map(|n| n.to_string());
    let arguments = [
        ["--comm", "lateclient", "transfer", "--to", to].as_slice(),
        &["--connections", &connections, "--send", &sent],
        &["--receive", &answer],
    ]
    .concat();
    Load::run(&tools.load, Place::In(&pair.near), &arguments)?;
    Ok(())
}

fn container(comm: &str) -> String {
    let hex: String = comm.bytes().map(|byte| format!("{byte:x}")).collect();
    format!("{hex:0<64}")
}

fn of_container(event: &Value, comm: &str) -> bool {
    text(event, "/who/container/id") == container(comm)
}

fn terminate(server: &Load) -> Result<()> {
    let pid = i32::try_from(server.pid())?;
    let pid = Pid::from_raw(pid).context("no pid")?;
    kill_process(pid, Signal::TERM).context("sending SIGTERM")
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

fn late_clients(tools: &Tools, pair: &Pair, agent: &Agent, keep: &mut Kept) -> Result<Vec<Expect>> {
    // One more than come: it listens to its end.
    let (server, address) = serve(tools, pair, "lateserver", BEFORE + AFTER + 1, keep)?;
    transfer(tools, pair, &address, BEFORE)?;
    terminate(&server)?;
    // The agent hears of it within a batch, and follows connections from then on.
    std::thread::sleep(Duration::from_millis(300));
    transfer(tools, pair, &address, AFTER)?;
    let told = agent.wait_for(PATIENCE, |events| {
        found(events, NAME)
            .iter()
            .any(|event| of_container(event, "lateserver"))
    });
    ensure!(told, "no finding while the server still ran");
    let pid = server.pid();
    drop(server);
    let count = REFUSED.to_string();
    let arguments = ["--comm", "refused", "knock", "--interval-ms", "10", "--to"];
    let arguments = [&arguments[..], &[&address, "--count", &count]].concat();
    let last = Load::run(&tools.load, Place::In(&pair.near), &arguments)?;
    is_number(&last, "/errno", 111).context("the client met another end")?;

    let sender = std::process::id();
    let first = expect("told while the server still runs", move |events| {
        let event = found(events, NAME)
            .into_iter()
            .find(|event| of_container(event, "lateserver"))
            .context("no finding")?;
        is_process(event, "/who/process", pid, "lateserver")?;
        is_text(event, "/who/pod/uid", POD_UID)?;
        is_text(event, "/finding/severity", "WARNING")?;
        is_number(event, &detail("sender_pid"), sender.into())?;
        ensure!(!truth(event, &detail("ended"))?, "{event}");
        is_number(event, &detail("refused"), 0)?;
        let connections = number(event, &detail("connections"))?;
        ensure!((1..=AFTER).contains(&connections), "{connections}: {event}");
        let summary = text(event, "/finding/summary");
        for word in ["lateserver", &sender.to_string(), "it still runs"] {
            ensure!(summary.contains(word), "no {word:?} in {summary:?}");
        }
        let mend = text(event, "/finding/mend");
        ensure!(mend.contains("preStop"), "{mend}");
        let evidence = evidence_is_printed(events, event)?;
        Ok(format!("{summary} ({evidence} events)"))
    });
    let all = expect("all that came after it, and no other", move |events| {
        let mine = found(events, NAME)
            .into_iter()
            .filter(|event| of_container(event, "lateserver"));
        let mut told = 0;
        let mut last = None;
        for event in mine {
            told += number(event, "/finding/count")?;
            last = Some(event);
        }
        let event = last.context("no finding")?;
        for (field, want) in [
            ("accepted", AFTER),
            ("connections", AFTER),
            ("refused", REFUSED),
            ("bytes", AFTER * (SENT + ANSWER)),
        ] {
            is_number(event, &detail(field), want)?;
        }
        ensure!(told == AFTER + REFUSED, "{told} told: {event}");
        is_text(event, "/finding/severity", "CRITICAL")?;
        ensure!(truth(event, &detail("ended"))?, "{event}");
        let latest = number(event, &detail("latest_ns"))?;
        ensure!(latest >= 300_000_000, "latest_ns is {latest}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    });
    // What came after it was first told waits for its minute, or for the agent's end.
    Ok(vec![first, all.at_the_end()])
}

/// The probe alone in one flavour: what it counts. Signals within a cgroup are not
/// for it, and a CPU tells of 64 a second.
pub(crate) fn flavours(tools: &Tools) -> Result<Vec<Expect>> {
    const OUTSIDE: u64 = 300;
    let mut kept = Kept::default();
    let pair = Pair::new()?;
    let (server, _) = serve(tools, &pair, "signalled", 1, &mut kept)?;
    let own = Load::start(&tools.load, Place::Init, &["park"])?;
    for _ in 0..OUTSIDE {
        terminate(&server)?;
        terminate(&own)?;
    }
    Ok(vec![expect(
        "every SIGTERM from outside, exactly",
        |events| {
            let rows = events
                .iter()
                .rev()
                .filter_map(|event| event.pointer("/node_stats/probes"))
                .filter_map(Value::as_array);
            let row = rows
                .flatten()
                .find(|row| text(row, "/probe") == "sigterm")
                .context("no counters")?;
            let count = |field: &str| number(row, &format!("/{field}"));
            let (seen, told) = (count("seen")?, count("submitted")?);
            let lost = count("dropped_ring")? + count("dropped_map")? + count("suppressed")?;
            // Somebody else may end something meanwhile, but not so much.
            ensure!((OUTSIDE..OUTSIDE * 2).contains(&seen), "{seen} seen: {row}");
            ensure!(told > 0 && seen == told + lost, "{row}");
            Ok(format!("{seen} seen, {told} told"))
        },
    )])
}

/// Those that come before the signal are no trouble.
fn no_clients(tools: &Tools, pair: &Pair, keep: &mut Kept) -> Result<Expect> {
    let (server, address) = serve(tools, pair, "quietserver", BEFORE + 1, keep)?;
    transfer(tools, pair, &address, BEFORE)?;
    terminate(&server)?;
    std::thread::sleep(Duration::from_millis(300));
    drop(server);
    Ok(expect("nobody came after it: silent", |events| {
        let seen = events
            .iter()
            .any(|event| of_container(event, "quietserver"));
        ensure!(seen, "no event of it was seen");
        let told = found(events, NAME)
            .into_iter()
            .find(|event| of_container(event, "quietserver"));
        ensure!(told.is_none(), "{told:?}");
        Ok("silent".to_owned())
    }))
}
