//! Who was running: the process facts every record carries.

wire_struct! {
    /// A task and its cgroups, as the kernel saw them at the hook.
    pub struct Task (56) {
        /// `group_leader->start_boottime`, nanoseconds since boot.
        pub start_boottime_ns: u64,
        /// kernfs id of the cgroup in the v2 (default) hierarchy; 1 is its
        /// root, 0 not read.
        pub cgroup_v2: u64,
        /// kernfs id of the cgroup in the hierarchy of the memory controller;
        /// equals `cgroup_v2` where memory is on v2; 0 not read.
        pub cgroup_memory: u64,
        pub tgid: u32,
        pub tid: u32,
        /// Network namespace inode; 0 not read.
        pub netns: u32,
        /// `TASK_*` bits.
        pub flags: u32,
        /// `task_struct.comm`, NUL-padded; bytes are the process's own choice.
        pub comm: [u8; 16],
    }
}

/// PF_KTHREAD was set.
pub const TASK_KTHREAD: u32 = 1;
/// The idle task of its CPU.
pub const TASK_IDLE: u32 = 2;
/// ksoftirqd of its CPU.
pub const TASK_KSOFTIRQD: u32 = 4;
/// The record holds a task at all.
pub const TASK_KNOWN: u32 = 8;

impl Task {
    /// Nobody.
    pub const EMPTY: Self = Self {
        start_boottime_ns: 0,
        cgroup_v2: 0,
        cgroup_memory: 0,
        tgid: 0,
        tid: 0,
        netns: 0,
        flags: 0,
        comm: [0; 16],
    };
}
