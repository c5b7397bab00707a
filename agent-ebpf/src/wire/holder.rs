//! holder: what held a CPU while work was pending on it.

use super::{Header, Task};

/// Frames of a kernel stack that a sample carries.
pub const FRAMES: usize = 24;
/// Bytes of a cgroup file's name that are kept.
pub const FILE_NAME: usize = 32;

wire_struct! {
    /// KIND_HOLDER: one look at a CPU on which something waits.
    pub struct HolderSample (344) {
        pub header: Header,
        /// Who runs (perf_event), or who gave the CPU up (sched_switch).
        pub task: Task,
        /// Time that this sample stands for, up to the header's: one period of
        /// the sampler, or how long the task had the CPU (sched_switch).
        pub held_ns: u64,
        /// How long the oldest raise has been pending; with sched_switch also
        /// the last wait that ended during the task's turn; 0 none.
        pub pending_ns: u64,
        /// How long the running vector has been at it; 0 none.
        pub running_ns: u64,
        /// How late the sampler's own timer is: interrupts were off.
        pub late_ns: u64,
        /// Directory of the cgroup file that the task is reading: its kernfs
        /// id; 0 none, or not known.
        pub file_cgroup: u64,
        /// Name of that file, NUL-padded.
        pub file_name: [u8; FILE_NAME],
        /// The vector that has been pending longest, or that runs.
        pub vector: u32,
        /// Bytes in `stack`.
        pub stack_bytes: u32,
        /// Kernel addresses, innermost first.
        pub stack: [u64; FRAMES],
    }
}

wire_struct! {
    /// Value of the per-CPU array HOLDER_NOW.
    pub struct HolderNow (40) {
        /// The last tick, or when the running task got the CPU.
        pub last_ns: u64,
        /// Start of the current rate window, and samples in it.
        pub window_ns: u64,
        pub in_window: u64,
        /// For one look: longest time pending and running, and its vector in the
        /// lowest four bits.
        pub pending: u64,
        pub running: u64,
    }
}
