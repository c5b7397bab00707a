//! CPU and page cache.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::start::say;

/// Options of `spin`.
#[derive(clap::Args, Debug)]
pub struct Spin {
    /// Threads that do nothing but run.
    #[arg(long)]
    pub threads: usize,
    /// For how long, milliseconds.
    #[arg(long)]
    pub for_ms: u64,
}

/// Runs so many threads for so long.
pub fn spin(options: &Spin) -> Result<()> {
    let end = Instant::now() + Duration::from_millis(options.for_ms);
    let rounds: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut rounds = 0_u64;
                    while Instant::now() < end {
                        rounds = std::hint::black_box(rounds + 1);
                    }
                    rounds
                })
            })
            .collect();
        threads.into_iter().filter_map(|one| one.join().ok()).sum()
    });
    say(&json!({ "threads": options.threads, "rounds": rounds }))
}

/// Options of `fill`.
#[derive(clap::Args, Debug)]
pub struct Fill {
    /// A file on a disk, which is made and removed.
    #[arg(long)]
    pub path: PathBuf,
    /// Its size, MiB.
    #[arg(long)]
    pub mib: u64,
    /// How often it is written and read.
    #[arg(long, default_value_t = 1)]
    pub times: u32,
}

/// Writes and reads a file through the page cache.
pub fn fill(options: &Fill) -> Result<()> {
    let context = || options.path.display().to_string();
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&options.path)
        .with_context(context)?;
    let mut block = vec![7_u8; 1 << 20];
    for _ in 0..options.times {
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..options.mib {
            file.write_all(&block).with_context(context)?;
        }
        file.sync_data().with_context(context)?;
        file.seek(SeekFrom::Start(0))?;
        for _ in 0..options.mib {
            file.read_exact(&mut block).with_context(context)?;
        }
    }
    std::fs::remove_file(&options.path).with_context(context)?;
    say(&json!({ "mib": options.mib, "times": options.times }))
}
