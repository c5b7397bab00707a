//! What this kernel is and allows: offsets, attach plan, ring buffers,
//! accounting.

mod attach;
pub mod btf;
mod examine;
mod facts;
mod flavour;
mod flows;
mod listeners;
mod load;
mod log;
mod names;
mod nat;
mod object;
pub mod plan;
mod questions;
mod ring;
mod source;
mod stats;
mod symbols;
mod tables;
mod untracked;
mod work;

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use thiserror::Error;

pub use examine::{FlavourReport, ProbeReport, examine};
pub use facts::{Facts, VMLINUX_BTF};
pub use load::Kernel;
pub use questions::Questions;
pub use ring::RingReader;
pub use stats::ProgramCost;
pub use symbols::Symbols;
pub use tables::Tables;
pub use untracked::Untracked;
pub use work::WorkTable;

/// What to do with a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best flavour that attaches.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// This one or none.
    Flavour(String),
}

/// How the kernel side is set up.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// By probe name; missing means [`Choice::Auto`].
    pub choices: BTreeMap<String, Choice>,
    /// Softirq wait, run, lateness from which an event is sent.
    pub stall_threshold: Duration,
    /// Stall events per CPU and second; the rest is counted.
    pub stall_limit: u64,
    /// ICMP events per source and second; the rest is counted.
    pub icmp_limit: u64,
    /// Rows in the table of sockets; what does not fit is counted.
    pub sockets: u32,
    /// Bytes of the rings of lanes CRITICAL, SIGNAL, BULK; rounded up to a
    /// power of two of pages.
    pub ring_bytes: [u32; 3],
    /// Fail every n-th reserve on purpose; 0 never.
    pub simulate_drops: u32,
    /// Looks a second of the probe holder's sampler, on each CPU.
    pub holder_rate: u64,
    /// Reads of cgroup files from which a record is sent.
    pub read_floor: Duration,
    /// Where the node's cgroup file systems are mounted.
    pub cgroup_root: PathBuf,
    /// Where the node's procfs is.
    pub proc_root: PathBuf,
}

impl KernelOptions {
    /// Time between two looks of the sampler, nanoseconds.
    fn holder_period_ns(&self) -> u64 {
        1_000_000_000 / self.holder_rate.clamp(1, 10_000)
    }
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            choices: BTreeMap::new(),
            stall_threshold: Duration::from_millis(10),
            stall_limit: 100,
            icmp_limit: 100,
            sockets: 32768,
            ring_bytes: [256 << 10, 1 << 20, 1 << 20],
            simulate_drops: 0,
            holder_rate: 499,
            read_floor: Duration::from_millis(10),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            proc_root: PathBuf::from("/proc"),
        }
    }
}

/// Why nothing at all can run.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No readable BTF.
    #[error(
        "{VMLINUX_BTF}: {0}; Culprit needs a kernel with CONFIG_DEBUG_INFO_BTF (5.10 or later), and in a container the host's /sys"
    )]
    NoBtf(#[source] io::Error),
    /// BTF that does not parse.
    #[error("{VMLINUX_BTF}: {0}")]
    BadBtf(#[source] btf::BtfError),
    /// The embedded object was refused as a whole: no privilege, mostly.
    #[error(
        "BPF object: {0}; CAP_BPF and CAP_PERFMON (or root) are needed, and before Linux 5.11 enough locked memory (LimitMEMLOCK=infinity, ulimit -l, or CAP_SYS_RESOURCE); see `culprit-agent doctor`"
    )]
    Object(String),
    /// A map is missing from the object or has another shape: a build error.
    #[error(
        "BPF map {name}: {reason}; the object does not belong to this agent, run `cargo xtask build-ebpf`"
    )]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What aya said.
        reason: String,
    },
    /// A flag names a probe or flavour that does not exist.
    #[error("--probe {0}")]
    Choice(String),
}
