//! A spool that was damaged while no agent looked: what is intact arrives
//! once, the rest is counted, and no damage keeps the agent from starting.

mod damage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use self::damage::{CASES, Case, Damage};
use super::node::{Node, wait_until};
use super::promise::Promises;
use super::spool;
use super::store;
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const PROBES: &[&str] = &["tcp_connect", "tcp_flow"];
/// Runs of the agent that fill the spool; each begins new segments.
const RUNS: usize = 3;
const CONNECTS: usize = 40;
/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:9";

/// A spool that waits for a collector.
struct Filled {
    state: PathBuf,
    promises: Promises,
    /// The names of all records in it.
    on_disk: BTreeSet<(String, u64)>,
    killed: bool,
}

/// Every damage to a spool that was left cleanly, and to one of killed agents.
pub fn run(tools: &Tools, report: &mut Report, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let traffic = Traffic::start()?;
    for killed in [false, true] {
        let end = if killed { "killed" } else { "stopped" };
        let filled = fill(tools, &traffic, killed)?;
        for case in CASES {
            let subject = Subject {
                probe: "rot",
                flavour: end,
            };
            let result = one(tools, &traffic, &filled, case, &mut random)
                .with_context(|| format!("again with --seed {seed}"));
            report.result(subject, case.name, &result);
        }
    }
    Ok(())
}

fn fill(tools: &Tools, traffic: &Traffic, killed: bool) -> Result<Filled> {
    let flags = ["--collector", NOBODY, "--stop-timeout", "100ms"];
    let mut node = Node::new(tools, "rot-agent", PROBES, &flags)?;
    let mut promises = Promises::default();
    for _ in 0..RUNS {
        node.start()?;
        let made = traffic.connects(CONNECTS)?;
        node.wait_connects(&made)?;
        if killed {
            // Each run's own segments are worth damaging: not written at once.
            wait_until("segments of some size", || grown(&node.state))?;
            node.promise(&mut promises)?;
            node.kill()?;
        } else {
            promises.add(&node.stop()?.events)?;
        }
    }
    let on_disk = spool::records(tools, &node.state)?;
    promises.among(&on_disk)?;
    let count = on_disk.len();
    ensure!(
        killed || count == promises.len(),
        "{count} events are on disk, {} were printed",
        promises.len()
    );
    Ok(Filled {
        state: node.state,
        promises,
        on_disk,
        killed,
    })
}

/// Whether the newest segment of the lanes SIGNAL and BULK is no small one.
fn grown(state: &Path) -> Result<Option<()>> {
    for lane in [1, 2] {
        let size = match spool::segments(state, lane)?.last() {
            Some(newest) => std::fs::metadata(newest)?.len(),
            None => 0,
        };
        if size <= damage::SMALL {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

fn one(
    tools: &Tools,
    traffic: &Traffic,
    filled: &Filled,
    case: &Case,
    random: &mut fastrand::Rng,
) -> Result<String> {
    let state = tools.directory("rot-case")?;
    spool::copy(&filled.state, &state)?;
    let damaged = (case.damage)(&mut Damage {
        state: &state,
        random,
        spare_last: filled.killed,
    })?;

    let collector = Collector::start(tools, "rot-store")?;
    let url = collector.url();
    let mut node = Node::at(tools, state, PROBES, &["--collector", &url]);
    node.start().context("the agent does not start")?;
    let made = traffic.connects(5)?;
    node.wait_connects(&made)?;
    let finished = node.stop()?;
    let directory = collector.store.clone();
    collector.stop()?;

    let records = store::records(&directory, None)?;
    let mut promises = Promises::default();
    promises.add(&finished.events)?;
    promises.kept(&records)?;
    verdict::each_once(&records, &made)?;
    let account = verdict::rest(tools, &directory, &records)?;

    // Those that were printed say the same; those that are not there are
    // counted below.
    filled.promises.missing(&records)?;
    let stored: BTreeSet<_> = records.iter().map(|r| (r.lane.clone(), r.seq)).collect();
    let missing: Vec<_> = filled.on_disk.difference(&stored).collect();
    for (lane, seq) in &missing {
        ensure!(
            damaged
                .iter()
                .any(|range| range.lane == *lane && range.seqs.contains(seq)),
            "{lane} {seq} was intact and has not arrived; damaged were {damaged:?}"
        );
    }
    ensure!(
        missing.len() <= case.most,
        "{} events are missing, the damage was to {} at most",
        missing.len(),
        case.most
    );
    ensure!(
        account.whole.lost() == missing.len() as u64,
        "{} events are missing, counted are {}",
        missing.len(),
        account.say()
    );
    Ok(format!(
        "{} of {} events missing; {}{}",
        missing.len(),
        filled.on_disk.len(),
        account.say(),
        said(&finished.stderr)
    ))
}

/// What the agent said of it.
fn said(stderr: &str) -> String {
    match stderr.lines().find(|line| line.contains("trouble=")) {
        Some(line) => format!("; {line}"),
        None => String::new(),
    }
}

/// The number of a segment's first record, from its name.
fn first_seq(segment: &Path) -> Result<u64> {
    let name = segment.file_stem().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok())
        .with_context(|| format!("{} is no segment", segment.display()))
}
