//! The collector is frozen under a flood of connection records, and ten
//! processes are killed for their memory: the kills come first, and none is
//! lost.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use culprit_proto::v1::event::Kind;
use rustix::process::Signal;

use super::node::{Node, wait_until};
use super::oom::Killer;
use super::store::{self, Stored};
use super::verdict;
use crate::scenario::load::{Load, Place};
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

/// How many processes are killed.
const KILLS: usize = 10;
/// Connections per storm; two records each.
const CONNECTIONS: &str = "5000";
/// Storms at the most: more than the spool of lane BULK holds.
const STORMS: usize = 16;
/// Of the flood's records that were stored, at least one in so many must have
/// come after the last kill. All that was on its way when the collector froze
/// may come before: the credit, which is an eighth of the spool.
const SHARE: usize = 2;

/// What the spool counts when it is full.
const EVICTED: &str = "spool_evicted";

const SUBJECT: Subject<'_> = Subject {
    probe: "frozen",
    flavour: "",
};

/// Freezes, floods, kills, thaws, and looks at the order of arrival.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let collector = Collector::start_with(tools, "frozen-store", &["--credit-bytes", "1M"])?;
    let url = collector.url();
    let flags = [
        "--collector",
        &url,
        "--spool-bulk",
        "8MiB",
        "--queue-bulk",
        "1MiB",
        "--ring-bulk",
        "8MiB",
        "--stats-interval",
        "1s",
    ];
    let probes = ["tcp_connect", "tcp_flow", "oom"];
    let mut node = Node::new(tools, "frozen-agent", &probes, &flags)?;
    node.start()?;
    node.wait_status("a collector", |status| {
        Ok(status.get("collector").is_some_and(|url| url != ""))
    })?;
    let killer = Killer::new(tools)?;

    collector.signal(Signal::STOP)?;
    let before = store::records(&collector.store, None)?.len();
    let evicted = flood(tools, &node)?;
    let pids = (0..KILLS)
        .map(|_| killer.kill())
        .collect::<Result<BTreeSet<u32>>>()?;
    ensure!(pids.len() == KILLS, "a pid came twice: {pids:?}");
    node.wait_printed("oom_kill", KILLS, |_| true)?;
    collector.signal(Signal::CONT)?;

    wait_until("the backlog to arrive", || {
        let account = node.account()?;
        Ok((account.whole.retained < 100).then_some(()))
    })?;
    node.stop()?;
    let directory = collector.store.clone();
    let ended = collector.stop()?;
    ensure!(ended.success(), "the collector stopped with {ended}");
    let records = store::records(&directory, None)?;
    let (after, rest) = records
        .split_at_checked(before)
        .map(|(_, after)| (after, records.len() - before))
        .context("records have gone from the store")?;
    report.result(
        SUBJECT,
        "ten kills under a flood arrive before its backlog",
        &order(after, &pids)
            .map(|said| format!("{said}; {rest} records came after the freeze, {evicted}")),
    );
    let result = verdict::rest(tools, &directory, &records).and_then(|account| {
        let critical = account.lane("CRITICAL")?;
        ensure!(critical.lost() == 0, "lost kills: {critical:?}");
        let bulk = account.lane("BULK")?;
        ensure!(
            bulk.lost.get(EVICTED).is_some_and(|count| *count > 0),
            "the flood was to be more than the spool holds"
        );
        Ok(account.say())
    });
    report.result(
        SUBJECT,
        "no kill counted lost, the flood's loss counted",
        &result,
    );
    Ok(())
}

/// Storms of connections until the spool of lane BULK is full.
fn flood(tools: &Tools, node: &Node) -> Result<String> {
    for storm in 1..=STORMS {
        let arguments = ["connect-bench", "--count", CONNECTIONS];
        Load::run(&tools.load, Place::Here, &arguments)?;
        let account = node.account()?;
        let bulk = account.lane("BULK")?;
        if bulk.lost.get(EVICTED).is_some_and(|count| *count > 0) {
            return Ok(format!(
                "{storm} storms of {CONNECTIONS} connections, then {bulk:?}"
            ));
        }
    }
    anyhow::bail!("{STORMS} storms did not fill the spool of lane BULK")
}

/// Where the kills came, among what arrived since the freeze.
fn order(after: &[Stored], pids: &BTreeSet<u32>) -> Result<String> {
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for (at, record) in after.iter().enumerate() {
        if !matches!(record.event.kind, Some(Kind::OomKill(_))) {
            continue;
        }
        let who = record.event.who.as_ref();
        let pid = who
            .and_then(|who| who.process.as_ref())
            .map(|process| process.pid);
        let pid = pid.context("a kill without a process")?;
        if pids.contains(&pid) {
            ensure!(seen.insert(pid), "the kill of {pid} is in the store twice");
            last = at;
        }
    }
    ensure!(
        seen == *pids,
        "kills arrived of {seen:?}, made were {pids:?}"
    );
    let bulk = |records: &[Stored]| records.iter().filter(|r| r.lane == "BULK").count();
    let (before, all) = (bulk(&after[..last]), bulk(after));
    ensure!(
        before * SHARE < all,
        "{before} of {all} records of the flood came before the last kill"
    );
    Ok(format!(
        "the last kill came after {before} of {all} records of the flood"
    ))
}
