//! What every load does first: take a name, enter cgroups, say who it is, and
//! wait for the word.

use std::ffi::CString;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

/// Options that all loads share.
#[derive(clap::Args, Debug, Clone)]
pub struct Start {
    /// Name of the process (`comm`), at most 15 bytes.
    #[arg(long, global = true)]
    pub comm: Option<String>,
    /// The same as hex digits, for bytes that no command line carries.
    #[arg(long, global = true, conflicts_with = "comm")]
    pub comm_hex: Option<String>,
    /// Directory of a cgroup to enter; repeatable, for v1 hierarchies.
    #[arg(long, global = true)]
    pub enter_cgroup: Vec<PathBuf>,
    /// Run on this CPU alone.
    #[arg(long, global = true)]
    pub cpu: Option<usize>,
    /// Wait for a line on standard input after saying hello.
    #[arg(long, global = true)]
    pub wait: bool,
}

impl Start {
    /// Carries the options out and prints the hello line.
    pub fn apply(&self) -> Result<()> {
        for cgroup in &self.enter_cgroup {
            enter_cgroup(cgroup)?;
        }
        if let Some(comm) = &self.comm {
            set_comm(comm.as_bytes())?;
        }
        if let Some(hex) = &self.comm_hex {
            set_comm(&from_hex(hex)?)?;
        }
        if let Some(cpu) = self.cpu {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set).with_context(|| format!("moving to CPU {cpu}"))?;
        }
        let pid = std::process::id();
        say(&json!({ "hello": true, "pid": pid }))?;
        if self.wait {
            wait_for_line()?;
        }
        Ok(())
    }
}

/// Moves the calling process into the cgroup.
pub fn enter_cgroup(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    std::fs::write(&file, "0").with_context(|| format!("entering {}", file.display()))
}

/// Sets the calling thread's name, bytes as they are.
pub fn set_comm(name: &[u8]) -> Result<()> {
    let name = CString::new(name).context("--comm holds a NUL byte")?;
    rustix::thread::set_name(&name).context("prctl(PR_SET_NAME)")
}

/// Prints one JSON line at once.
pub fn say(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("standard output")
}

/// Waits for a line, or the end, of standard input.
pub fn wait_for_line() -> Result<()> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("standard input")?;
    Ok(())
}

/// Decodes hex digits.
pub fn from_hex(text: &str) -> Result<Vec<u8>> {
    anyhow::ensure!(
        text.len().is_multiple_of(2),
        "--comm-hex has an odd number of digits"
    );
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let pair = text.get(at..at + 2).context("--comm-hex is not ASCII")?;
            u8::from_str_radix(pair, 16).with_context(|| format!("--comm-hex: {pair}"))
        })
        .collect()
}
