//! runq: how long tasks were runnable and had no CPU. Sums by workload; no
//! records.
//!
//! The scheduler keeps `sched_info.run_delay` of each task itself. It raises it
//! after `sched_switch`, so what a task waited shows when it gives the CPU up
//! again: two loads and a comparison a switch, and no table of tasks.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::stats::PROBE_RUNQ;

use super::work;
use crate::{
    kernel::{self, Direct, Mem, Probed, Ptr, config, load},
    maps::{RUNQ_NOW, RUNQ_WORK},
};

#[inline(always)]
fn switched<M: Mem>(prev: Ptr, next: Ptr) {
    let Some(cpu) = RUNQ_NOW.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU map value.
    unsafe {
        let tid = load!(M, prev, task_pid: u32);
        if tid != 0 && (*cpu).tid == tid {
            let waited = load!(M, prev, task_run_delay: u64).wrapping_sub((*cpu).run_delay);
            if waited >= config!(runq_floor_ns) && waited < 1 << 40 {
                // Still the running task.
                work::add_to(
                    &RUNQ_WORK,
                    PROBE_RUNQ,
                    kernel::current_memory_cgroup(),
                    waited,
                );
            }
        }
        (*cpu).tid = load!(M, next, task_pid: u32);
        (*cpu).run_delay = load!(M, next, task_run_delay: u64);
    }
}

#[btf_tracepoint(function = "sched_switch")]
pub fn runq_tp_btf(ctx: BtfTracePointContext) -> i32 {
    switched::<Direct>(ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn runq_raw_tp(ctx: RawTracePointContext) -> i32 {
    switched::<Probed>(ctx.arg(1), ctx.arg(2));
    0
}
