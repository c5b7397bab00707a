//! A connection tracking table that is full, in a container's network namespace,
//! and a connect that suffers from it; and the same packets while there is room.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{evidence_is_printed, found, silent};
use super::{NAME, ROUND, detail};
use crate::net::netfilter::track;
use crate::net::pair::{FAR_V4, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{Expect, expect, is_number, is_text, number, settle, text};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{FIRST, POD_UID};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tcp_connect::listening;
use crate::scenario::tools::Tools;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// Entries that are allowed, and that are tried.
const ROOM: u64 = 64;
const FLOWS: &str = "600";
const HELD: u64 = ROOM + 16;

/// The node's limit, put back when dropped.
struct Limit(String);

impl Limit {
    fn set(entries: u64) -> Result<Self> {
        let before = std::fs::read_to_string(MAX).context(MAX)?;
        std::fs::write(MAX, entries.to_string()).context(MAX)?;
        Ok(Self(before))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(MAX, self.0.trim()) {
            eprintln!("{MAX}: {error}: it was {}", self.0.trim());
        }
    }
}

/// A container's namespace in which the kernel tracks, and the packets that will fill it.
struct Stage {
    pair: Pair,
    flows: Load,
}

impl Stage {
    fn new(tools: &Tools, cgroup: &str) -> Result<Self> {
        let pair = Pair::new()?;
        pair.near.run(track)?;
        let to = SocketAddr::new(FAR_V4, 20000).to_string();
        let arguments = [
            "--comm",
            "flooder",
            "--enter-cgroup",
            cgroup,
            "flows",
            "--to",
            &to,
            "--count",
            FLOWS,
        ];
        let flows = Load::start(&tools.load, Place::In(&pair.near), &arguments)?;
        Ok(Self { pair, flows })
    }
}

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    let path = format!("/kubepods/burstable/pod{POD_UID}/{FIRST}");
    let container = Cgroup::new(&memory, &path)?;
    let directory = container.directory.display().to_string();

    let mut stage = Stage::new(tools, &directory)?;
    let agent = Agent::start(tools, NAME, &[])?;
    std::thread::sleep(ROUND);
    stage.flows.go()?;
    stage.flows.line("flows")?;
    std::thread::sleep(ROUND);
    let expects = [expect("room enough: silent", |events| silent(events, NAME))];
    settle(agent, &expects, report, subject)?;
    drop(stage);

    // The limit is the node's: its own connections would be dropped as well.
    let count = std::fs::read_to_string(COUNT).context(COUNT)?;
    let tracked: u64 = count.trim().parse().context(COUNT)?;
    if tracked >= ROOM / 2 {
        let why = format!("this machine tracks {tracked} connections of its own");
        report.skip(subject, "a full table", &why);
        return Ok(());
    }
    let Stage { pair, mut flows } = Stage::new(tools, &directory)?;
    // Entries of living connections are not thrown out for new ones: the table stays full.
    let arguments = ["deaf", "--listen", "10.211.7.2:0", "--backlog", "200"];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address = listening(&mut server)?;
    let count = HELD.to_string();
    let arguments = ["hold", "--to", &address, "--count", &count];
    let mut held = Load::start(&tools.load, Place::In(&pair.near), &arguments)?;
    held.line("held")?;
    let limit = Limit::set(ROOM)?;
    let agent = Agent::start(tools, NAME, &[])?;
    std::thread::sleep(ROUND);
    let lost = SocketAddr::new(FAR_V4, 7).to_string();
    flows.go()?;
    flows.line("flows")?;
    let arguments = [
        "--comm",
        "sufferer",
        "--enter-cgroup",
        &directory,
        "knock",
        "--count",
        "3",
        "--interval-ms",
        "1",
        "--to",
        &lost,
    ];
    Load::run(&tools.load, Place::In(&pair.near), &arguments)?;
    let netns = pair.near.inode()?;
    let expects = [expect("a full table", move |events| {
        let event = of(events, netns)?;
        is_text(event, "/who/container/id", FIRST)?;
        is_number(event, &detail("max_entries"), ROOM)?;
        let lost = number(event, &detail("dropped"))?;
        ensure!(lost >= 100, "{lost} lost: {event}");
        is_number(event, &detail("early_dropped"), 0)?;
        ensure!(number(event, &detail("entries"))? >= ROOM, "{event}");
        ensure!(
            event.pointer(&detail("cpus/0")).is_some(),
            "no CPU: {event}"
        );
        // Told anew with what came later: the first may have been told before the connects.
        if number(event, &detail("connects"))? > 0 {
            evidence_is_printed(events, event)?;
        } else {
            let summary = text(event, "/finding/summary");
            ensure!(summary.contains("counters alone"), "{event}");
        }
        Ok(text(event, "/finding/summary").to_owned())
    })];
    let expects: Vec<Expect> = expects
        .into_iter()
        .chain([expect("connect_trouble knows of it", |events| {
            let event = found(events, "connect_trouble")
                .into_iter()
                .find(|event| text(event, "/who/process/comm") == "sufferer")
                .context("no connect_trouble of it")?;
            let dropped = "/finding/detail/connect_trouble/conntrack_dropped";
            ensure!(number(event, dropped)? >= 100, "{event}");
            ensure!(
                text(event, "/finding/mend").contains("conntrack_trouble"),
                "{event}"
            );
            Ok(text(event, "/finding/summary").to_owned())
        })])
        .collect();
    settle(agent, &expects, report, subject)?;
    drop(limit);
    drop(flows);
    Ok(())
}

/// The first finding of this namespace's losses.
fn of(events: &[Value], netns: u64) -> Result<&Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| {
            let of = |field: &str| number(event, &detail(field)).unwrap_or(0);
            of("netns") == netns && of("dropped") + of("early_dropped") > 0
        })
        .with_context(|| format!("no {NAME} of namespace {netns}; the last: {last:?}"))
}
