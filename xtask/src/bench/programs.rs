//! What the kernel counted per program, and what memory maps take.

use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Runs and time of one program since it was loaded.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) runs: u64,
    pub(super) ns: u64,
}

/// One row of the table.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) program: String,
    pub(super) runs: u64,
    pub(super) ns_per_run: f64,
    /// Beside the empty program of the same run.
    pub(super) times_empty: f64,
}

/// Turns the kernel's counting on, and back to what it was when dropped.
pub(super) struct Counting {
    before: String,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    pub(super) fn on() -> Result<Self> {
        let before =
            std::fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        std::fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(SWITCH, &self.before) {
            eprintln!("{SWITCH} stays on: {error}");
        }
    }
}

/// The counters of the process's programs and of those with the given names, by name.
pub(super) fn costs(pid: u32, names: &[&str]) -> Result<BTreeMap<String, Cost>> {
    let held = fdinfo(pid, "prog_id:")?
        .into_iter()
        .map(|(id, _)| id)
        .collect::<BTreeSet<_>>();
    let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
    for program in aya::programs::loaded_programs() {
        let program = program.context("listing loaded programs")?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        if held.contains(&u64::from(program.id())) || names.contains(&name.as_str()) {
            let cost = costs.entry(name).or_default();
            cost.runs += program.run_count();
            cost.ns += program.run_time().as_nanos().try_into().unwrap_or(u64::MAX);
        }
    }
    Ok(costs)
}

/// What happened between two readings, dearest first.
pub(super) fn rows(
    before: &BTreeMap<String, Cost>,
    after: &BTreeMap<String, Cost>,
    empty: &str,
) -> Result<Vec<Row>> {
    let between = |name: &str| {
        let old = before.get(name).copied().unwrap_or_default();
        let new = after.get(name).copied().unwrap_or_default();
        Cost {
            runs: new.runs.saturating_sub(old.runs),
            ns: new.ns.saturating_sub(old.ns),
        }
    };
    let base = between(empty);
    anyhow::ensure!(
        base.runs > 0,
        "the empty program did not run: is bpf_stats_enabled refused?"
    );
    let base = base.ns as f64 / base.runs as f64;
    let mut rows: Vec<Row> = after
        .keys()
        .map(|name| (name, between(name)))
        .filter(|(_, cost)| cost.runs > 0)
        .map(|(name, cost)| {
            let ns_per_run = cost.ns as f64 / cost.runs as f64;
            let times_empty = ns_per_run / base;
            Row {
                program: name.clone(),
                runs: cost.runs,
                ns_per_run,
                times_empty,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.ns_per_run.total_cmp(&a.ns_per_run));
    Ok(rows)
}

/// Bytes of the maps that the process holds, as the kernel accounts them.
pub(crate) fn map_bytes(pid: u32) -> Result<u64> {
    let maps: BTreeMap<u64, u64> = fdinfo(pid, "map_id:")?
        .into_iter()
        .map(|(id, text)| (id, value(&text, "memlock:").unwrap_or(0)))
        .collect();
    Ok(maps.values().sum())
}

/// (id, text) of the process's descriptors that have this kind of id.
fn fdinfo(pid: u32, key: &str) -> Result<Vec<(u64, String)>> {
    let dir = Path::new("/proc").join(pid.to_string()).join("fdinfo");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    Ok(entries
        .flatten()
        // A descriptor may be closed while we look.
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .filter_map(|text| Some((value(&text, key)?, text)))
        .collect())
}

fn value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}
