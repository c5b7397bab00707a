//! The alarm path: records that the kernel's side loses on purpose are counted
//! to the last one, and said everywhere.

use anyhow::{Context, Result, ensure};
use culprit_proto::v1::event::Kind;
use serde_json::Value;

use super::account::Account;
use super::node::Node;
use super::store::{self, connects};
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::agent::Finished;
use crate::scenario::expect::{number, text};
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const CONNECTS: usize = 600;
/// One in so many is lost, on each CPU.
const EVERY: u64 = 10;
const LOST: &str = "ring_full";

/// Runs it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "drops",
        flavour: "",
    };
    let collector = Collector::start(tools, "drops-store")?;
    let (url, every) = (collector.url(), EVERY.to_string());
    let flags = [
        "--collector",
        &url,
        "--simulate-drops",
        &every,
        "--stats-interval",
        "500ms",
    ];
    let mut node = Node::new(tools, "drops-agent", &["tcp_connect"], &flags)?;
    node.start()?;
    let traffic = Traffic::start()?;
    let made = traffic.connects(CONNECTS)?;
    let status = node.wait_status("the connects to be counted", |status| {
        let (seen, dropped) = counters(status)?;
        let lane = Account::parse(status.get("account").context("no account")?)?;
        let lane = lane.lane("SIGNAL")?.clone();
        Ok(seen >= CONNECTS as u64 && lane.lost.get(LOST) == Some(&dropped))
    })?;
    let at_work = Account::parse(status.get("account").context("no account")?)?;
    report.result(
        subject,
        "status says what was dropped",
        &at_work.balance().map(|()| at_work.say()),
    );
    let finished = node.stop()?;
    let directory = collector.store.clone();
    collector.stop()?;
    let records = store::records(&directory, None)?;
    let account = verdict::rest(tools, &directory, &records)?;
    let dropped = account.whole.lost.get(LOST).copied().unwrap_or_default();

    let result = verdict::each_once(&records, &[]).and_then(|()| {
        let arrived = connects(&records);
        let arrived = made.iter().filter(|ip| arrived.contains_key(ip)).count() as u64;
        let missing = CONNECTS as u64 - arrived;
        ensure!(
            missing > 0 && missing <= dropped,
            "{missing} connects are missing, {dropped} events are counted as dropped"
        );
        ensure!(
            account.whole.lost() == dropped,
            "something else was lost: {}",
            account.say()
        );
        Ok(format!("{missing} connects missing; {}", account.say()))
    });
    report.result(subject, "the collector says the same, at rest", &result);
    report.result(
        subject,
        "one in ten on each CPU, no more",
        &share(&records, dropped),
    );
    report.result(
        subject,
        "the loss event and the last line say it",
        &alarm(&records, &finished, dropped),
    );
    Ok(())
}

/// Seen and dropped, as the kernel counted.
fn counters(status: &Value) -> Result<(u64, u64)> {
    let rows = status
        .get("counters")
        .and_then(Value::as_array)
        .context("status has no `counters`")?;
    let row = rows
        .iter()
        .find(|row| text(row, "/probe") == "tcp_connect")
        .context("no counters of tcp_connect")?;
    Ok((number(row, "/seen")?, number(row, "/dropped_ring")?))
}

/// The kernel's own last count, as it travelled in the last statistics.
fn share(records: &[store::Stored], dropped: u64) -> Result<String> {
    let stats = records
        .iter()
        .filter_map(|record| match &record.event.kind {
            Some(Kind::NodeStats(stats)) => Some((record.seq, stats)),
            _ => None,
        })
        .max_by_key(|(seq, _)| *seq);
    let (_, stats) = stats.context("no node_stats in the store")?;
    let row = stats.probes.iter().find(|row| row.probe == "tcp_connect");
    let seen = row.context("node_stats without tcp_connect")?.seen;
    let cpus = std::thread::available_parallelism()?.get() as u64;
    // Each CPU's remainder is its own.
    let least = (seen / EVERY).saturating_sub(cpus);
    ensure!(
        (least..=seen / EVERY).contains(&dropped),
        "{dropped} of {seen} were dropped, with {cpus} CPUs"
    );
    Ok(format!("{dropped} of {seen}"))
}

fn alarm(records: &[store::Stored], finished: &Finished, dropped: u64) -> Result<String> {
    let told = records
        .iter()
        .filter_map(|record| match &record.event.kind {
            Some(Kind::Loss(loss)) => loss
                .counters
                .iter()
                .find(|row| row.probe == "tcp_connect" && row.reason == LOST)
                .map(|row| row.count),
            _ => None,
        });
    let told = told.max().context("no loss event in the store")?;
    ensure!(
        told == dropped,
        "the last loss event says {told}, the account {dropped}"
    );
    let line = finished
        .stderr
        .lines()
        .find(|line| line.contains("totals: "))
        .context("no totals on stderr")?;
    ensure!(
        line.contains(&format!("{dropped} lost")),
        "{dropped} were lost, and the last line is: {line}"
    );
    Ok(line.to_owned())
}
