//! What a containerd that died in the middle may leave: shims, mounts,
//! cgroups, files.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal};

/// Ends every process whose command line names the directory, unmounts all
/// below it, removes it and the pods' cgroups.
pub fn remove(directory: &Path) -> Result<String> {
    let shims = kill_all(directory)?;
    let mounts = unmount_all(directory)?;
    let cgroups = remove_cgroups()?;
    std::fs::remove_dir_all(directory)
        .with_context(|| format!("removing {}", directory.display()))?;
    Ok(format!(
        "{shims} shims, {mounts} mounts, {cgroups} cgroups were left"
    ))
}

fn kill_all(directory: &Path) -> Result<usize> {
    let name = directory.as_os_str().as_encoded_bytes();
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // Gone meanwhile: nothing to end.
        let Ok(line) = std::fs::read(path.join("cmdline")) else {
            continue;
        };
        let ours = line.windows(name.len()).any(|part| part == name);
        let shim = line.windows(15).any(|part| part == b"containerd-shim");
        if ours && shim && pid != rustix::process::getpid() {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            killed += 1;
        }
    }
    Ok(killed)
}

fn unmount_all(directory: &Path) -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let mounts: Vec<&Path> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1).map(Path::new))
        .filter(|mount| mount.starts_with(directory))
        .collect();
    for mount in mounts.iter().rev() {
        unmount(*mount, UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    Ok(mounts.len())
}

/// Pods of these tests are recognised by their uids; what is above them is
/// removed when nothing else is in it.
fn remove_cgroups() -> Result<usize> {
    let mut removed = 0;
    let deadline = Instant::now() + Duration::from_secs(10);
    let text = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let roots = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let mount = words.nth(1)?;
        matches!(words.next()?, "cgroup" | "cgroup2").then(|| Path::new(mount).join("kubepods"))
    });
    for root in roots {
        for class in ["burstable", "besteffort", ""] {
            let class = root.join(class);
            let Ok(entries) = std::fs::read_dir(&class) else {
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if name.starts_with("pod5ca1ab1e-") {
                    remove_tree(&path, deadline)?;
                    removed += 1;
                }
            }
            // Not empty: somebody else's pods are there.
            drop(std::fs::remove_dir(&class));
        }
    }
    Ok(removed)
}

fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), deadline)?;
        }
    }
    loop {
        let procs = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in procs
            .lines()
            .filter_map(|pid| pid.parse().ok())
            .filter_map(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if std::fs::remove_dir(directory).is_ok() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "removing the cgroup {}",
            directory.display()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
