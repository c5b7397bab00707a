//! Privileges, mounts and sockets.

use std::fs;
use std::path::Path;

use rustix::fs::Access;
use serde::Serialize;

use super::super::cli::DoctorArgs;
use super::privileges::Privileges;
use crate::identity::{CgroupMode, IdentityStatus};
use crate::kernel::VMLINUX_BTF;
use crate::privilege::Need;

/// Inode of the first pid namespace (PROC_PID_INIT_INO).
const INIT_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Something about the node that the agent wants.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: &'static str,
    /// As it should be.
    pub(super) ok: bool,
    /// What was found.
    pub(super) found: String,
    /// What to do, and what it costs not to; empty when it is as it should be.
    pub(super) mend: String,
}

impl Check {
    fn new(name: &'static str, ok: bool, found: impl Into<String>, mend: &str) -> Self {
        let mend = if ok { String::new() } else { mend.to_owned() };
        Self {
            name,
            ok,
            found: found.into(),
            mend,
        }
    }
}

/// Everything but cgroups and the container runtime.
pub(super) fn all(args: &DoctorArgs, held: &Privileges) -> Vec<Check> {
    vec![
        privileges(held),
        btf(),
        tracefs(),
        lockdown(),
        pid_namespace(),
        state_dir(&args.state_dir),
    ]
}

fn privileges(privileges: &Privileges) -> Check {
    let missing: Vec<&str> = privileges
        .capabilities
        .iter()
        .filter(|row| row.need == Need::Required && !row.held)
        .map(|row| row.name.as_str())
        .collect();
    let found = match (&privileges.error, missing.as_slice()) {
        (Some(error), _) => error.clone(),
        (None, []) => "all that are needed".to_owned(),
        (None, missing) => format!("without {}", missing.join(", ")),
    };
    Check::new(
        "privileges",
        missing.is_empty(),
        found,
        "run as root, or add these capabilities (in Kubernetes: securityContext.capabilities.add; as another user: setcap cap_bpf,cap_perfmon+ep on the program)",
    )
}

fn btf() -> Check {
    let found = fs::metadata(VMLINUX_BTF);
    let text = match &found {
        Ok(meta) => format!("{VMLINUX_BTF}, {} bytes", meta.len()),
        Err(error) => format!("{VMLINUX_BTF}: {error}"),
    };
    Check::new(
        "kernel types (BTF)",
        found.is_ok(),
        text,
        "boot a kernel with CONFIG_DEBUG_INFO_BTF, 5.10 or later; in a container mount the host's /sys",
    )
}

fn tracefs() -> Check {
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let mounted = places
        .into_iter()
        .find(|place| Path::new(place).join("events").is_dir());
    Check::new(
        "tracefs",
        mounted.is_some(),
        mounted.unwrap_or("not mounted"),
        "mount -t tracefs tracefs /sys/kernel/tracing; needed only for kprobe and tracepoint flavours on some kernels",
    )
}

fn lockdown() -> Check {
    const FILE: &str = "/sys/kernel/security/lockdown";
    let mode = match fs::read_to_string(FILE) {
        Ok(text) => text.split(['[', ']']).nth(1).unwrap_or("none").to_owned(),
        // No such kernel feature, or securityfs is not mounted: not the same.
        Err(error) => format!("not known ({FILE}: {error})"),
    };
    // Whatever it is: what it forbids was found out by trying.
    Check::new("kernel lockdown", true, mode, "")
}

fn pid_namespace() -> Check {
    let found = fs::read_link("/proc/self/ns/pid").map_or_else(
        |error| format!("/proc/self/ns/pid: {error}"),
        |link| link.to_string_lossy().into_owned(),
    );
    let ours = found == INIT_PID_NAMESPACE;
    Check::new(
        "pid namespace",
        ours,
        if ours {
            "the host's".to_owned()
        } else {
            format!("{found}, not the host's")
        },
        "run in the host's pid namespace (hostPID: true), or mount the host's /proc and give --proc-root; else executables stay unknown",
    )
}

fn state_dir(dir: &Path) -> Check {
    let nearest = dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let access = rustix::fs::access(nearest, Access::WRITE_OK);
    let found = match access {
        Ok(()) if nearest == dir => format!("{} can be written", dir.display()),
        Ok(()) => format!("{} can be made", dir.display()),
        Err(error) => format!("{}: {error}", nearest.display()),
    };
    Check::new(
        "state directory",
        access.is_ok(),
        found,
        "make it writable or choose another with --state-dir; without one, dump and status cannot ask the agent",
    )
}

/// The cgroup file systems, as the identities found them.
pub(super) fn cgroups(root: &Path, status: Result<&IdentityStatus, &anyhow::Error>) -> Check {
    let found = match &status {
        Ok(status) => format!(
            "{} at {}, {} cgroups, {} of containers",
            match status.mode {
                CgroupMode::V1 => "v1",
                CgroupMode::Hybrid => "hybrid (v1 with a v2 tree)",
                CgroupMode::V2 => "v2",
            },
            root.display(),
            status.cgroups,
            status.container_cgroups
        ),
        Err(error) => format!("{error:#}"),
    };
    Check::new(
        "cgroups",
        status.is_ok(),
        found,
        "mount the host's cgroup file systems, and say where with --cgroup-root",
    )
}

/// The container runtime, as the identities found it.
pub(super) fn runtime(status: &IdentityStatus) -> Check {
    let cri = &status.cri;
    let found = if !cri.enabled {
        "not asked (--cri none)".to_owned()
    } else if cri.connected {
        format!(
            "{} at {}, {} containers",
            cri.runtime, cri.socket, status.containers
        )
    } else {
        cri.error.clone()
    };
    Check::new(
        "container runtime",
        cri.connected || !cri.enabled,
        found,
        "give its socket with --cri (in a container: mount it); without it containers go by id and pods by uid",
    )
}
