//! What both programs hold, seen from outside.

use super::world::{Lives, lock};
use crate::bench::{process, programs};
use anyhow::{Context, Result};
use culprit_tests::delivery::account::Account;
use culprit_tests::delivery::node::NAME;
use culprit_tests::scenario::tools::Tools;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a process holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Held {
    /// Counts up with each start of the program.
    pub(super) life: u32,
    pub(super) rss_bytes: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    /// Of BPF maps, as the kernel accounts them.
    pub(super) map_bytes: u64,
}

/// One look at everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Seconds since the start.
    pub(super) at: f64,
    /// None while it is down.
    pub(super) agent: Option<Held>,
    pub(super) collector: Option<Held>,
    /// Files of the state directory.
    pub(super) spool_bytes: u64,
    pub(super) store_bytes: u64,
    /// As the collector knows.
    pub(super) seen: u64,
    pub(super) committed: u64,
    pub(super) retained: u64,
    pub(super) lost: u64,
}

/// Where to look.
pub(super) struct Sampler {
    pub(super) tools: Tools,
    pub(super) lives: Arc<Mutex<Lives>>,
    pub(super) state: PathBuf,
    pub(super) store: PathBuf,
    pub(super) started: Instant,
    pub(super) every: Duration,
}

impl Sampler {
    /// Looks again and again until stopped.
    pub(super) fn run(&self, stop: &AtomicBool) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match self.look() {
                Ok(sample) => samples.push(sample),
                // The account is not there before the first agent's first word.
                Err(error) => println!("no sample: {error:#}"),
            }
            super::load::rest(stop, self.every);
        }
        samples
    }

    fn look(&self) -> Result<Sample> {
        let lives = *lock(&self.lives);
        let account = Account::at_collector(&self.tools, &self.store, NAME)?;
        account.balance()?;
        // A process that ends while it is looked at is down.
        let agent = lives.agent.and_then(|pid| held(pid, lives.agent_life).ok());
        let collector = lives
            .collector
            .and_then(|pid| held(pid, lives.collector_life).ok());
        Ok(Sample {
            at: self.started.elapsed().as_secs_f64(),
            agent,
            collector,
            spool_bytes: disk(&self.state)?,
            store_bytes: disk(&self.store)?,
            seen: account.whole.seen,
            committed: account.whole.committed,
            retained: account.whole.retained,
            lost: account.whole.lost(),
        })
    }
}

fn held(pid: u32, life: u32) -> Result<Held> {
    let count = |name: &str| -> Result<u64> {
        let path = format!("/proc/{pid}/{name}");
        let entries = std::fs::read_dir(&path).with_context(|| path.clone())?;
        Ok(entries.count() as u64)
    };
    Ok(Held {
        life,
        rss_bytes: process::memory(pid, "VmRSS")?,
        descriptors: count("fd")?,
        threads: count("task")?,
        map_bytes: programs::map_bytes(pid)?,
    })
}

/// Bytes of the files below; what goes meanwhile counts nothing, and neither does the ballast of a
/// full disk.
fn disk(directory: &Path) -> Result<u64> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    let mut sum = 0;
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if about.is_dir() {
            sum += disk(&entry.path())?;
        } else if entry.file_name() != "ballast" {
            sum += about.len();
        }
    }
    Ok(sum)
}
