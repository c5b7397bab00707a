//! reclaim: time that tasks spend freeing memory before they get some.

use super::work::Work;

wire_struct! {
    /// Value of the map RECLAIM_NOW, by pid_tgid.
    pub struct ReclaimNow (16) {
        pub start_ns: u64,
        /// `RECLAIM_*`.
        pub kind: u32,
        pub pad: u32,
    }
}

/// For a limit of the task's cgroup or of one above it.
pub const RECLAIM_MEMCG: u32 = 0;
/// Because the node is short of memory.
pub const RECLAIM_GLOBAL: u32 = 1;
/// Slept because memory.high was exceeded.
pub const RECLAIM_HIGH: u32 = 2;

wire_struct! {
    /// Value of RECLAIM_WORK, by the memory cgroup of the task.
    pub struct ReclaimWork (936) {
        /// In the order of `RECLAIM_*`.
        pub kinds: [Work; 3],
    }
}

impl ReclaimWork {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        kinds: [Work::EMPTY; 3],
    };
}
