//! oom: who was killed, whose allocation failed, whose limit was reached.

use super::{Header, Task};

wire_struct! {
    /// KIND_OOM_KILL.
    pub struct OomKill (216) {
        pub header: Header,
        pub victim: Task,
        /// The task whose allocation failed: current.
        pub trigger: Task,
        /// kernfs id of the limit owner's cgroup in the memory hierarchy; 0
        /// for none (global) or unknown, see `limit_source`.
        pub limit_cgroup: u64,
        /// Pages.
        pub limit_pages: u64,
        pub usage_pages: u64,
        pub total_pages: u64,
        /// Pages; counters of 6.2 and later may read slightly negative.
        pub anon_pages: i64,
        pub file_pages: i64,
        pub shmem_pages: i64,
        pub oom_score_adj: i32,
        /// The victim's pid in its innermost pid namespace; 0 unknown.
        pub ns_pid: u32,
        /// Depth of that namespace: 0 is the host's.
        pub ns_level: u32,
        /// `enum oom_constraint`: 3 is MEMCG; ~0 unknown.
        pub constraint: u32,
        pub order: u32,
        pub gfp_mask: u32,
        /// `LIMIT_*`.
        pub limit_source: u32,
        pub pad: u32,
    }
}

/// Not known to the kernel side.
pub const LIMIT_UNKNOWN: u32 = 0;
/// From `oom_control`: exact; `limit_cgroup` 0 means global.
pub const LIMIT_OOM_CONTROL: u32 = 1;
/// First full page counter on the victim's way to the root.
pub const LIMIT_PAGE_COUNTERS: u32 = 2;

wire_struct! {
    /// Value of the map OOM_CALLS, keyed by the trigger's tid: what
    /// oom_kill_process was called with.
    pub struct OomCall (64) {
        pub limit_cgroup: u64,
        pub limit_pages: u64,
        pub usage_pages: u64,
        pub total_pages: u64,
        /// Chosen victim: `task_struct *`.
        pub chosen: u64,
        pub time_ns: u64,
        pub constraint: u32,
        pub order: u32,
        pub gfp_mask: u32,
        pub pad: u32,
    }
}

wire_struct! {
    /// Value of the map OOM_SIGNALS, keyed by the trigger's tid: the task that
    /// this thread last sent SIGKILL to, for kernels whose `mark_victim`
    /// carries only a pid (5.10).
    pub struct OomSignal (120) {
        pub victim: Task,
        pub anon_pages: i64,
        pub file_pages: i64,
        pub shmem_pages: i64,
        pub limit_cgroup: u64,
        pub limit_pages: u64,
        pub usage_pages: u64,
        pub oom_score_adj: i32,
        pub ns_pid: u32,
        pub ns_level: u32,
        pub pad: u32,
    }
}

impl OomSignal {
    /// A fresh row.
    pub const EMPTY: Self = Self {
        victim: Task::EMPTY,
        anon_pages: 0,
        file_pages: 0,
        shmem_pages: 0,
        limit_cgroup: 0,
        limit_pages: 0,
        usage_pages: 0,
        oom_score_adj: 0,
        ns_pid: 0,
        ns_level: 0,
        pad: 0,
    };
}
