//! Where the programs under test are, and how long to be patient.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long any condition is awaited. Generous: emulated machines are slow,
/// and a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Tools {
    /// culprit-agent.
    pub agent: PathBuf,
    /// culprit-collector.
    pub collector: PathBuf,
    /// culprit-load.
    pub load: PathBuf,
    /// A directory for state, removed by whoever made it.
    pub scratch: PathBuf,
}

impl Tools {
    /// The programs in `directory`, or beside this program.
    pub fn find(directory: Option<&Path>, scratch: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("/proc/self/exe")?;
        let directory = match directory {
            Some(directory) => directory.to_owned(),
            None => own
                .parent()
                .context("this program has no directory")?
                .to_owned(),
        };
        Ok(Self {
            agent: directory.join("culprit-agent"),
            collector: directory.join("culprit-collector"),
            load: directory.join("culprit-load"),
            scratch: scratch.to_owned(),
        })
    }

    /// A new empty directory below the scratch directory.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// Whether the running kernel is this one or a later one.
pub fn kernel_at_least(major: u32, minor: u32) -> Result<bool> {
    let path = "/proc/sys/kernel/osrelease";
    let release = std::fs::read_to_string(path).context(path)?;
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let mut next = || {
        numbers
            .next()
            .and_then(Result::ok)
            .with_context(|| format!("{path}: {release:?}"))
    };
    Ok((next()?, next()?) >= (major, minor))
}
