//! runq: time that runnable tasks wait for a CPU.

use super::work::Work;

wire_struct! {
    /// Value of the per-CPU array RUNQ_NOW: the task that runs.
    pub struct RunqNow (16) {
        /// Its `sched_info.run_delay` when it got the CPU, which the kernel
        /// raises just after by what it waited.
        pub run_delay: u64,
        pub tid: u32,
        pub pad: u32,
    }
}

/// Value of RUNQ_WORK, by the memory cgroup of the task: waits over the floor.
pub type RunqWork = Work;
