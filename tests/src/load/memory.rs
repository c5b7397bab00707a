//! Memory: a hog that grows, and an init that outlives its child.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::json;

use super::start::{say, wait_for_line};

/// Options of `hog`.
#[derive(clap::Args, Debug)]
pub struct Hog {
    /// How much to touch, MiB.
    #[arg(long)]
    pub mib: usize,
    /// Raise the own oom_score_adj to this first.
    #[arg(long)]
    pub oom_score_adj: Option<i32>,
}

/// Options of `init`: start a child, wait for its end, live on.
#[derive(clap::Args, Debug)]
pub struct Init {
    /// Live on until killed, not until a line comes in.
    #[arg(long)]
    pub stay: bool,
    /// Arguments of the child, another run of this program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub child: Vec<String>,
}

/// Touches the memory page by page, says so, and holds it until a line comes
/// in on standard input. Most runs are killed before.
pub fn hog(options: &Hog) -> Result<()> {
    if let Some(value) = options.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", value.to_string())
            .context("/proc/self/oom_score_adj")?;
    }
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(options.mib);
    for index in 0..options.mib {
        // Not zero, so that every page is really written.
        blocks.push(vec![index as u8 | 1; 1 << 20]);
    }
    let touched: usize = blocks.iter().map(Vec::len).sum();
    say(&json!({ "pid": std::process::id(), "touched": touched }))?;
    wait_for_line()?;
    // Keeps the memory in use until here.
    std::hint::black_box(&blocks);
    Ok(())
}

/// Runs the child to its end, prints its signal, and sleeps until standard
/// input says something. The child shares standard input: its line comes
/// first.
pub fn init(options: &Init) -> Result<()> {
    let program = std::env::current_exe().context("/proc/self/exe")?;
    let mut child = Command::new(program)
        .args(&options.child)
        .stdin(Stdio::inherit())
        .spawn()
        .context("starting the child")?;
    let ns_pid = child.id();
    let status = child.wait().context("waiting for the child")?;
    say(&json!({
        "init": std::process::id(), "child": ns_pid,
        "signal": status.signal(), "code": status.code(),
    }))?;
    if options.stay {
        park()
    } else {
        wait_for_line()
    }
}

/// Does nothing until killed.
pub fn park() -> Result<()> {
    loop {
        std::thread::park();
    }
}
