//! Memory cgroups of v1 and v2 for the OOM scenarios, removed when dropped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where the memory controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Mount point of its hierarchy.
    pub mount: PathBuf,
    /// It is the unified hierarchy.
    pub v2: bool,
}

impl Memory {
    /// Finds the hierarchy in /proc/self/mountinfo.
    pub fn find() -> Result<Self> {
        let text =
            std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let mut unified = None;
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            if kind == "cgroup" && options.split(',').any(|option| option == "memory") {
                return Ok(Self { mount, v2: false });
            }
            if kind == "cgroup2" {
                unified = Some(mount);
            }
        }
        let mount = unified.context("no cgroup hierarchy with the memory controller is mounted")?;
        let controllers = std::fs::read_to_string(mount.join("cgroup.controllers"))?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            bail!(
                "{} has no memory controller: {controllers}",
                mount.display()
            );
        }
        Ok(Self { mount, v2: true })
    }
}

/// A directory of a memory hierarchy and those above it that it had to make.
#[derive(Debug)]
pub struct Cgroup {
    /// Path below the mount point, as events name it.
    pub path: String,
    /// Directory in the file system.
    pub directory: PathBuf,
    made: Vec<PathBuf>,
    v2: bool,
}

impl Cgroup {
    /// Makes the cgroup `path` ("/a/b") and what is missing above it.
    pub fn new(memory: &Memory, path: &str) -> Result<Self> {
        let mut made = Vec::new();
        let mut directory = memory.mount.clone();
        for part in path.trim_matches('/').split('/') {
            if memory.v2 {
                let control = directory.join("cgroup.subtree_control");
                std::fs::write(&control, "+memory")
                    .with_context(|| format!("{}: +memory", control.display()))?;
            }
            directory.push(part);
            match std::fs::create_dir(&directory) {
                Ok(()) => made.push(directory.clone()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| directory.display().to_string());
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            directory,
            made,
            v2: memory.v2,
        })
    }

    /// Sets the hard limit, bytes; no swap where there is a choice.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let file = if self.v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        let path = self.directory.join(file);
        std::fs::write(&path, bytes.to_string())
            .with_context(|| format!("{}: {bytes}", path.display()))?;
        let swap = if self.v2 {
            ("memory.swap.max", 0)
        } else {
            ("memory.swappiness", 0)
        };
        // Absent without swap support, and then not needed.
        drop(std::fs::write(
            self.directory.join(swap.0),
            swap.1.to_string(),
        ));
        Ok(())
    }

    /// Inode number of the directory: the cgroup's id.
    pub fn id(&self) -> Result<u64> {
        Ok(rustix::fs::stat(&self.directory)?.st_ino)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            remove(directory);
        }
    }
}

/// Removes the directory as soon as its last process is gone.
fn remove(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::remove_dir(directory).is_err() {
        if Instant::now() > deadline {
            eprintln!("could not remove the cgroup {}", directory.display());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
