//! sigterm: a process is asked to end from outside of its cgroup, as container
//! runtimes do. `signal_generate`, every kernel.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{KIND_SIGTERM, sigterm::Sigterm, stats::PROBE_SIGTERM};

use crate::{
    account::{self, Wake, add, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, load},
    maps::{RING_SIGNAL, SIGTERM_NOW},
};

const SIGTERM: i32 = 15;
/// Records that one CPU sends in a second.
const LIMIT: u64 = 64;
const SECOND: u64 = 1_000_000_000;

/// `signal_generate(sig, info, task, group, result)`, in the context of the sender.
#[inline(always)]
fn generated<M: Mem>(sig: i32, task: Ptr) {
    if sig != SIGTERM {
        return;
    }
    // A process, and not one of its threads.
    if load!(M, task, task_pid: u32) != load!(M, task, task_tgid: u32, 1) {
        return;
    }
    // Shells, supervisors and servers end their own children all the time.
    let own = kernel::memory_cgroup_of::<M>(task);
    if own != 0 && own == kernel::current_memory_cgroup() {
        return;
    }
    if !admit() {
        return account::suppressed(PROBE_SIGTERM);
    }
    emit(
        &RING_SIGNAL,
        PROBE_SIGTERM,
        KIND_SIGTERM,
        Wake::Now,
        |out: *mut Sigterm| {
            // SAFETY: the record is valid for writes; task is a task.
            unsafe {
                kernel::fill_task::<M>(&raw mut (*out).target, task);
                kernel::fill_current(&raw mut (*out).sender);
            }
        },
    );
}

/// Whether this CPU may send one more record in this second.
#[inline(always)]
fn admit() -> bool {
    let Some(cpu) = SIGTERM_NOW.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a per-CPU map value.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now.wrapping_sub((*cpu).window_ns) >= SECOND {
            (*cpu).window_ns = now;
            (*cpu).in_window = 0;
        }
        add(&raw mut (*cpu).in_window, 1);
        (*cpu).in_window <= LIMIT
    }
}

#[btf_tracepoint(function = "signal_generate")]
pub fn sigterm_tp_btf(ctx: BtfTracePointContext) -> i32 {
    generated::<Direct>(ctx.arg(0), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn sigterm_raw_tp(ctx: RawTracePointContext) -> i32 {
    generated::<Probed>(ctx.arg(0), ctx.arg(2));
    0
}
