//! reclaim: time in direct reclaim, for a limit and for the node, and asleep
//! because of memory.high. Sums by workload; no records.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use culprit_agent_ebpf::wire::{
    reclaim::{RECLAIM_GLOBAL, RECLAIM_HIGH, RECLAIM_MEMCG, ReclaimNow, ReclaimWork},
    stats::PROBE_RECLAIM,
};

use super::work;
use crate::{
    account, kernel,
    maps::{RECLAIM_NOW, RECLAIM_WORK},
};

/// No task sleeps for longer at once.
const LEFT_OVER_NS: u64 = 60_000_000_000;

static EMPTY: ReclaimWork = ReclaimWork::EMPTY;

#[inline(always)]
fn begin(kind: u32) {
    let id = bpf_get_current_pid_tgid();
    // SAFETY: no argument.
    let start_ns = unsafe { bpf_ktime_get_ns() };
    // Reclaim for memory.high happens inside its sleep: the sleep counts. A row
    // that is left over, because its end was missed, does not.
    if let Some(row) = RECLAIM_NOW.get_ptr(id) {
        // SAFETY: a live map value of this thread.
        let (other, age) = unsafe { ((*row).kind != kind, start_ns.wrapping_sub((*row).start_ns)) };
        if other && age < LEFT_OVER_NS {
            return;
        }
    }
    let now = ReclaimNow {
        start_ns,
        kind,
        pad: 0,
    };
    if RECLAIM_NOW.insert(id, &now, 0).is_err() {
        account::dropped_map(PROBE_RECLAIM);
    }
}

#[inline(always)]
fn end(kind: u32) {
    let id = bpf_get_current_pid_tgid();
    let Some(now) = RECLAIM_NOW.get_ptr(id) else {
        return account::unmatched(PROBE_RECLAIM);
    };
    // SAFETY: a live map value of this thread.
    let took = unsafe {
        if (*now).kind != kind {
            return;
        }
        bpf_ktime_get_ns().wrapping_sub((*now).start_ns)
    };
    let _ = RECLAIM_NOW.remove(id);
    // A call that did not have to sleep is none.
    if kind == RECLAIM_HIGH && took < 100_000 {
        return;
    }
    let workload = kernel::current_memory_cgroup();
    if RECLAIM_WORK.get_ptr(workload).is_none() {
        // Lost to another CPU is as good as done.
        let _ = RECLAIM_WORK.insert(workload, &EMPTY, 1);
    }
    match RECLAIM_WORK.get_ptr_mut(workload) {
        // SAFETY: a live map value; kind is one of three.
        Some(row) => unsafe {
            let kinds = &raw mut (*row).kinds;
            let work = if kind == RECLAIM_MEMCG {
                &raw mut (*kinds)[0]
            } else if kind == RECLAIM_GLOBAL {
                &raw mut (*kinds)[1]
            } else {
                &raw mut (*kinds)[2]
            };
            work::observe(work, took);
        },
        None => account::dropped_map(PROBE_RECLAIM),
    }
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_reclaim_begin_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    begin(RECLAIM_MEMCG);
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn memcg_reclaim_end_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    end(RECLAIM_MEMCG);
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_reclaim_begin_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    begin(RECLAIM_GLOBAL);
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn direct_reclaim_end_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    end(RECLAIM_GLOBAL);
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
pub fn memcg_reclaim_begin_raw_tp(_ctx: RawTracePointContext) -> i32 {
    begin(RECLAIM_MEMCG);
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_end")]
pub fn memcg_reclaim_end_raw_tp(_ctx: RawTracePointContext) -> i32 {
    end(RECLAIM_MEMCG);
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
pub fn direct_reclaim_begin_raw_tp(_ctx: RawTracePointContext) -> i32 {
    begin(RECLAIM_GLOBAL);
    0
}

#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_end")]
pub fn direct_reclaim_end_raw_tp(_ctx: RawTracePointContext) -> i32 {
    end(RECLAIM_GLOBAL);
    0
}

/// `mem_cgroup_handle_over_high`, 5.10 to 6.12; `__mem_cgroup_handle_over_high`
/// from 6.13 on.
#[fentry(function = "mem_cgroup_handle_over_high")]
pub fn over_high_fentry(_ctx: FEntryContext) -> i32 {
    begin(RECLAIM_HIGH);
    0
}

#[fexit(function = "mem_cgroup_handle_over_high")]
pub fn over_high_fexit(_ctx: FExitContext) -> i32 {
    end(RECLAIM_HIGH);
    0
}

#[kprobe]
pub fn over_high_kprobe(_ctx: ProbeContext) -> u32 {
    begin(RECLAIM_HIGH);
    0
}

#[kretprobe]
pub fn over_high_kretprobe(_ctx: RetProbeContext) -> u32 {
    end(RECLAIM_HIGH);
    0
}
