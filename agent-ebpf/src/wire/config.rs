//! Frozen read-only globals that the agent sets before loading.

wire_struct! {
    /// The global CONFIG.
    pub struct Config (64) {
        /// Softirq wait, run, timer lateness or packet wait from which an
        /// event is sent.
        pub stall_threshold_ns: u64,
        /// Stall events per CPU and second; the rest is counted.
        pub stall_limit: u64,
        /// ICMP events per source and second; the rest is counted.
        pub icmp_limit: u64,
        /// Kernel page size, bytes.
        pub page_size: u32,
        /// `HAVE_*` bits.
        pub have: u32,
        /// Fail every n-th ring reserve on purpose; 0 never.
        pub simulate_drops: u32,
        /// `memory_cgrp_id` of this kernel.
        pub memory_subsys: u32,
        /// Period of the sampler of the probe holder.
        pub holder_period_ns: u64,
        /// Run-queue waits shorter than this are not looked at.
        pub runq_floor_ns: u64,
        /// Reads of cgroup files, and flushes, from which a record is sent.
        pub read_floor_ns: u64,
    }
}

impl Config {
    /// What the object holds until the agent sets it: nothing is there.
    pub const NONE: Self = Self {
        stall_threshold_ns: u64::MAX,
        stall_limit: 0,
        icmp_limit: 0,
        page_size: 4096,
        have: 0,
        simulate_drops: 0,
        memory_subsys: 0,
        holder_period_ns: 0,
        runq_floor_ns: u64::MAX,
        read_floor_ns: u64::MAX,
    };
}

/// `bpf_get_current_task_btf` exists (5.11).
pub const HAVE_TASK_BTF: u32 = 1;
/// `bpf_probe_read_kernel` is allowed (not under lockdown=confidentiality).
pub const HAVE_PROBE_READ: u32 = 2;
/// `mark_victim` carries the task, not only a pid.
pub const HAVE_MARK_VICTIM_TASK: u32 = 4;
/// The softirq probe runs, so SOFTIRQ_NOW is kept.
pub const HAVE_SOFTIRQ: u32 = 8;
/// `bpf_sock_from_file` exists (5.11).
pub const HAVE_SOCK_FROM_FILE: u32 = 16;
/// The memory controller is on the v2 hierarchy.
pub const HAVE_MEMORY_V2: u32 = 64;
/// `sk_cgrp_data` is a plain pointer (6.1), not a tagged value (5.10).
pub const HAVE_SK_CGROUP_PTR: u32 = 128;
/// cgroup_read sees files, so CGROUP_READS is kept.
pub const HAVE_CGROUP_READS: u32 = 4096;
/// tcp_connect is on: outcomes become records.
pub const HAVE_CONNECT: u32 = 256;
/// tcp_flow is on: closes become records.
pub const HAVE_FLOW: u32 = 512;
/// `pid.numbers` ends its struct without a length (6.1), so plain loads reach
/// every level; up to 5.15 the verifier knows of one entry only.
pub const HAVE_PID_LEVELS: u32 = 2048;
/// `mm_struct.rss_stat` is an array of percpu_counter (6.2), which plain loads
/// can reach; the verifier of older kernels refuses its array of
/// atomic_long_t.
pub const HAVE_RSS_PERCPU: u32 = 1024;
/// nat is on, so NAT is kept.
pub const HAVE_NAT: u32 = 8192;
/// tcp_listen is on: pressure on listeners becomes records.
pub const HAVE_LISTEN: u32 = 1 << 16;
