//! Very many memory cgroups whose statistics change all the time, and a reader
//! of a cgroup file: what a flush of the statistics costs grows with the cgroups
//! that were updated since the last one, dead or alive.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;
use serde_json::json;
use vmap::Map;

use super::start::{enter_cgroup, say};

const PAGE: usize = 4096;

/// Options of `churn`.
#[derive(clap::Args, Debug)]
pub struct Churn {
    /// The directory below which the cgroups are made.
    #[arg(long)]
    pub under: PathBuf,
    /// Where this process goes back to.
    #[arg(long)]
    pub home: PathBuf,
    /// How many.
    #[arg(long)]
    pub cgroups: u32,
    /// Remove their directories: they are dying then, for their page holds them.
    #[arg(long)]
    pub remove: bool,
}

/// Each cgroup is charged one page of a shared file; mapping the file and looking
/// at it changes the statistics of all of them. Until a line comes in on standard
/// input, or it ends.
pub fn churn(options: &Churn) -> Result<()> {
    let file: File = rustix::fs::memfd_create("churn", MemfdFlags::empty())
        .context("memfd_create")?
        .into();
    file.set_len(u64::from(options.cgroups) * PAGE as u64)?;
    for n in 0..options.cgroups {
        let directory = options.under.join(format!("churn{n}"));
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        enter_cgroup(&directory)?;
        file.write_at(&[1], u64::from(n) * PAGE as u64)?;
    }
    enter_cgroup(&options.home)?;
    if options.remove {
        remove(options);
    }
    say(&json!({ "cgroups": options.cgroups }))?;
    let stop = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let worker = scope.spawn(|| touch(&file, &stop));
        let mut line = String::new();
        let ended = std::io::stdin().lock().read_line(&mut line);
        stop.store(true, Ordering::Relaxed);
        ended.context("standard input")?;
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("the worker panicked"))?
    })?;
    drop(file);
    if !options.remove {
        remove(options);
    }
    say(&json!({ "rounds": rounds }))
}

fn remove(options: &Churn) {
    for n in 0..options.cgroups {
        // What cannot be removed is removed with its parent, or shows there.
        drop(std::fs::remove_dir(options.under.join(format!("churn{n}"))));
    }
}

/// Maps the file, looks at each page and unmaps it: NR_FILE_MAPPED of the cgroup
/// to which the page is charged goes up and down.
fn touch(file: &File, stop: &AtomicBool) -> Result<u64> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let map = Map::with_options()
            .map(file)
            .map_err(|e| anyhow::anyhow!("mmap: {e}"))?;
        let sum: u64 = map.iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum();
        rounds += std::hint::black_box(sum).min(1);
    }
    Ok(rounds)
}

/// Options of `read`.
#[derive(clap::Args, Debug)]
pub struct Read {
    /// Which file.
    #[arg(long)]
    pub path: PathBuf,
    /// How often.
    #[arg(long)]
    pub times: u32,
    /// Pause between two, milliseconds.
    #[arg(long, default_value_t = 20)]
    pub pause_ms: u64,
}

/// Reads it so often, and prints how long it took.
pub fn read(options: &Read) -> Result<()> {
    let mut file = File::open(&options.path).with_context(|| options.path.display().to_string())?;
    let (mut longest, mut bytes) = (Duration::ZERO, 0);
    let mut text = Vec::new();
    for _ in 0..options.times {
        text.clear();
        file.seek(SeekFrom::Start(0))?;
        let start = Instant::now();
        bytes = file.read_to_end(&mut text)?;
        longest = longest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(options.pause_ms));
    }
    say(&json!({ "reads": options.times, "bytes": bytes, "longest_us": longest.as_micros() }))
}
