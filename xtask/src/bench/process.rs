//! What the agent itself takes: CPU time, memory, events.

use crate::sh;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// User and system CPU time of the process so far.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name in brackets may hold anything: the fields begin after its end.
    let (_, fields) = text
        .rsplit_once(") ")
        .with_context(|| format!("parsing {path}"))?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let user = ticks().with_context(|| format!("{path}: no utime"))?;
    let system = ticks().with_context(|| format!("{path}: no stime"))?;
    let hertz = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(
        (user + system) as f64 / hertz as f64,
    ))
}

/// A line of /proc/<pid>/status in bytes, such as `VmRSS` or `VmHWM`.
pub(crate) fn memory(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kib: Option<u64> = text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    });
    Ok(kib.with_context(|| format!("{path} has no {key}"))? * 1024)
}

/// Records the kernel side has seen so far, over all probes.
pub(super) fn seen(agent: &Path, state: &Path) -> Result<u64> {
    let status = status(agent, state)?;
    let counters = status.get("counters").and_then(Value::as_array);
    let counters = counters.context("status --json has no `counters`")?;
    Ok(counters
        .iter()
        .filter_map(|probe| probe.get("seen")?.as_u64())
        .sum())
}

/// `culprit-agent status --json`.
pub(crate) fn status(agent: &Path, state: &Path) -> Result<Value> {
    let mut command = Command::new(agent);
    command.args(["status", "--json", "--state-dir"]).arg(state);
    serde_json::from_str(&sh::output(&mut command)?).context("parsing status --json")
}
