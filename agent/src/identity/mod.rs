//! Who did it: from the ids in a kernel record to process, container and pod.
//!
//! A record names its cgroup by id. The tree of cgroups (`tree`) knows the
//! path of each id, from a walk at start (`walk`) and from the kernel's
//! records of directories made and removed. The path (`path`) says the
//! container's id and the pod's uid. Their names are the container runtime's
//! (`cri`), listed at start and asked for the moment a container's cgroup
//! appears, so that one that lives half a second still has its names.
//! `/proc` (`process`) gives the executable.
//!
//! Nothing here is guessed: what is not known is left empty, and `source` and
//! `unresolved` of the [`Identity`] say why.

mod config;
mod counters;
mod cri;
pub mod fuzz;
mod hierarchy;
mod identifier;
mod limits;
mod living;
mod log_names;
mod message;
mod naming;
mod path;
mod place;
mod pods;
mod process;
mod resolve;
mod status;
mod tree;
mod walk;
mod walker;
mod workload;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use culprit_proto::v1::Identity;

pub use config::{CriChoice, IdentityConfig, WELL_KNOWN_SOCKETS};
pub use counters::IdentityCounters;
pub use cri::AskedLimit;
pub use hierarchy::{CgroupMode, memory_root};
pub use identifier::Identifier;
pub use living::Living;
pub use naming::Naming;
pub use path::{CgroupPath, ContainerRef};
pub use status::{CriState, IdentityStatus};

/// What a kernel record says about one actor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actor {
    /// Thread group id in the host's pid namespace; 0 when no task is meant
    /// (a socket's owner in softirq context) or for the idle task.
    pub pid: u32,
    /// Thread id in the host's pid namespace.
    pub tid: u32,
    /// `task_struct.comm`, NUL-padded; hostile input.
    pub comm: [u8; 16],
    /// Start of the process, nanoseconds since boot; 0 when not read.
    pub start_time_ns: u64,
    /// Cgroup id in the v2 hierarchy; 1 is its root, 0 not read.
    pub cgroup_v2: u64,
    /// Cgroup id in the memory controller's hierarchy; 0 not read.
    pub cgroup_memory: u64,
    /// v2 cgroup in which the socket was created; used only when `pid` is 0.
    pub sock_cgroup: u64,
    /// Inode number of the network namespace; 0 not read.
    pub netns: u32,
    /// The task is a kernel thread: it has no executable.
    pub kernel_thread: bool,
}

/// The answer to "who".
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// As complete as it will become.
    Ready(Identity),
    /// The best so far, with the reason in `unresolved`; asking again soon may
    /// give more.
    Waiting(Identity),
}

impl Resolution {
    /// What is known now.
    #[must_use]
    pub fn so_far(self) -> Identity {
        match self {
            Self::Ready(who) | Self::Waiting(who) => who,
        }
    }
}

/// A cgroup directory came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupChange {
    /// Kernel's hierarchy id; 0 is v2.
    pub hierarchy: u32,
    /// kernfs id of the directory.
    pub id: u64,
    /// True for a new directory, false for a removed one.
    pub created: bool,
    /// Path below the hierarchy's root, starting with '/'; `None` when the
    /// kernel could not say it whole.
    pub path: Option<String>,
    /// CLOCK_MONOTONIC when it happened, nanoseconds; 0 not known.
    pub at_ns: u64,
}

/// What a cgroup stands for; says the scope of an out-of-memory kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupClass {
    /// The root of the hierarchy: the node itself.
    Root,
    /// A container, or a cgroup that a container made below its own.
    Container,
    /// A pod's cgroup, the parent of its containers.
    Pod,
    /// Above the pods: `kubepods` or one of its QoS classes.
    Kubepods,
    /// Nothing of Kubernetes: a service, a user's slice.
    Other,
    /// The id is not known (0, or gone before it was seen).
    Unknown,
}

/// The tables stay whole when a holder panics: no update spans two of them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
