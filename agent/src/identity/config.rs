//! What the identifier is told at start.

use std::path::PathBuf;
use std::time::Duration;

/// Which container runtime to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CriChoice {
    /// The well-known sockets, in the order of [`WELL_KNOWN_SOCKETS`].
    #[default]
    Auto,
    /// None: names come from cgroup paths alone.
    None,
    /// This unix socket and no other.
    Socket(PathBuf),
}

/// Sockets that [`CriChoice::Auto`] tries, first to last.
pub const WELL_KNOWN_SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// Where to look and how long to remember.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Which container runtime to ask.
    pub cri: CriChoice,
    /// Where the host's cgroup file systems are mounted.
    pub cgroup_root: PathBuf,
    /// The host's procfs: its pid namespace must be the host's.
    pub proc_root: PathBuf,
    /// The host's /var/log: kubelet's links in `containers` name containers where
    /// the runtime does not.
    pub log_root: PathBuf,
    /// How long [`super::Identifier::start`] waits for the runtime's first
    /// complete answer; the agent goes on without it after that.
    pub start_wait: Duration,
    /// How long the runtime is asked again for a container that it does not
    /// know (yet), from the moment its cgroup was seen.
    pub ask_for: Duration,
    /// Time between two complete listings of the runtime.
    pub resync: Duration,
    /// How long a cgroup, container or pod that is gone is remembered.
    pub remember_gone: Duration,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            cri: CriChoice::Auto,
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            proc_root: PathBuf::from("/proc"),
            log_root: PathBuf::from("/var/log"),
            start_wait: Duration::from_secs(3),
            ask_for: Duration::from_secs(10),
            resync: Duration::from_secs(60),
            remember_gone: Duration::from_secs(600),
        }
    }
}
