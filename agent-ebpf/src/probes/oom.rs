//! oom: every kill is reported at `mark_victim`, in the context of the task
//! whose allocation failed (the trigger), with the victim as argument. The
//! function flavours add what `oom_kill_process` was called with: the exact
//! limit owner. Without them the first full page counter on the victim's way
//! to the root stands in, and the agent asks the kernel log.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_OOM_KILL,
    config::{HAVE_MARK_VICTIM_TASK, HAVE_PID_LEVELS, HAVE_PROBE_READ, HAVE_RSS_PERCPU},
    fields::ABSENT,
    oom::{LIMIT_OOM_CONTROL, LIMIT_PAGE_COUNTERS, LIMIT_UNKNOWN, OomCall, OomKill, OomSignal},
    stats::PROBE_OOM,
    task::TASK_KNOWN,
};

use crate::{
    account::{self, Wake, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, config, field, follow, have, load},
    maps::{OOM_CALLS, OOM_SIGNALS, RING_CRITICAL},
};

const SIGKILL: i32 = 9;
/// Levels of the cgroup tree that are walked for the limit owner.
const LEVELS: u32 = 12;
/// A charge takes up to this many pages at once (MEMCG_CHARGE_BATCH), so a full
/// counter may stand this far below its limit.
const CHARGE_BATCH: u64 = 64;

fn tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// What the victim had and who could have stopped it.
struct Facts {
    anon: i64,
    file: i64,
    shmem: i64,
    score: i32,
    ns_pid: u32,
    ns_level: u32,
}

/// One counter of `mm->rss_stat`: MM_FILEPAGES 0, MM_ANONPAGES 1,
/// MM_SHMEMPAGES 3.
#[inline(always)]
fn rss<M: Mem>(mm: Ptr, index: u32) -> i64 {
    let (stat, stride) = (field!(mm_rss_stat), field!(rss_stride));
    if stat == ABSENT || stride == ABSENT {
        return 0;
    }
    let at = stat + index * stride + field!(rss_count);
    if have(HAVE_RSS_PERCPU) {
        kernel::read::<M, i64>(mm, at)
    } else if have(HAVE_PROBE_READ) {
        kernel::read::<Probed, i64>(mm, at)
    } else {
        0
    }
}

/// The victim's pid in its innermost namespace and that namespace's depth.
#[inline(always)]
unsafe fn ns_pid<M: Mem>(task: Ptr) -> (u32, u32) {
    let numbers = field!(pid_numbers);
    let pid = follow!(M, task, task_group_leader, task_thread_pid);
    let depth = load!(M, pid, pid_level: u32, u32::MAX);
    if numbers == ABSENT || depth == u32::MAX {
        return (0, 0);
    }
    let at = numbers + field!(upid_nr);
    let number = match depth {
        0 => upid::<M>(pid, at),
        1 => upid::<M>(pid, at + 16),
        2 => upid::<M>(pid, at + 32),
        3 => upid::<M>(pid, at + 48),
        4 => upid::<M>(pid, at + 64),
        _ => 0,
    };
    (number, depth)
}

/// A BTF pointer takes constant offsets only. The opaque move keeps the
/// compiler from folding the branches above into one computed offset.
#[inline(always)]
fn upid<M: Mem>(mut pid: Ptr, offset: u32) -> u32 {
    // SAFETY: moves a register onto itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) pid, options(nomem, nostack)) };
    kernel::read::<M, u32>(pid, offset)
}

#[inline(always)]
unsafe fn facts<M: Mem>(victim: Ptr) -> Facts {
    let mm = follow!(M, victim, task_mm);
    let signal = follow!(M, victim, task_signal);
    // A victim that has begun to exit has no mm of its own; the OOM killer
    // keeps it in signal->oom_mm.
    let mm = if mm.is_null() {
        follow!(M, signal, signal_oom_mm)
    } else {
        mm
    };
    // SAFETY: BTF pointers or probe reads.
    unsafe {
        let (ns_pid, ns_level) = if have(HAVE_PID_LEVELS) {
            ns_pid::<M>(victim)
        } else if have(HAVE_PROBE_READ) {
            ns_pid::<Probed>(victim)
        } else {
            (0, 0)
        };
        Facts {
            anon: rss::<M>(mm, 1),
            file: rss::<M>(mm, 0),
            shmem: rss::<M>(mm, 3),
            score: i32::from(load!(M, signal, signal_oom_score_adj: i16)),
            ns_pid,
            ns_level,
        }
    }
}

/// Limit owner: kernfs id, limit and usage in pages.
#[derive(Clone, Copy)]
struct Limit {
    cgroup: u64,
    pages: u64,
    usage: u64,
}

impl Limit {
    /// Not known: a limit of 0 pages is none that a task could run under.
    /// (No Option: older verifiers refuse its unwritten words.)
    const NONE: Self = Self {
        cgroup: 0,
        pages: 0,
        usage: 0,
    };
}

/// First full page counter from the victim's memcg to the root. Needs probe
/// reads: the chain has no BTF type that a program could follow.
#[inline(always)]
fn full_counter(victim: Ptr) -> Limit {
    let (memory, subsys) = (field!(memcg_memory), field!(css_set_subsys));
    if memory == ABSENT || subsys == ABSENT {
        return Limit::NONE;
    }
    let css_set = follow!(Probed, victim, task_cgroups);
    // SAFETY: probe reads cope with any address.
    let css = unsafe { Probed::load::<u64>(css_set, subsys + 8 * config!(memory_subsys)) };
    // struct mem_cgroup begins with its css.
    let mut counter = css.wrapping_add(u64::from(memory));
    let mut level = 0;
    while level < LEVELS && counter > u64::from(memory) {
        let at = counter as Ptr;
        let usage = load!(Probed, at, counter_usage: u64);
        let max = load!(Probed, at, counter_max: u64);
        if usage.saturating_add(CHARGE_BATCH) >= max {
            let memcg = counter.wrapping_sub(u64::from(memory)) as Ptr;
            let cgroup = kernel::cgroup_id::<Probed>(follow!(Probed, memcg, css_cgroup));
            return Limit {
                cgroup,
                pages: max,
                usage,
            };
        }
        counter = load!(Probed, at, counter_parent: u64);
        level += 1;
    }
    Limit::NONE
}

/// `oom_kill_process(oc, message)`.
#[inline(always)]
fn kill_process<M: Mem>(oc: Ptr) {
    let memcg = follow!(M, oc, oc_memcg);
    let mut call = OomCall {
        limit_cgroup: 0,
        limit_pages: 0,
        usage_pages: 0,
        total_pages: load!(M, oc, oc_totalpages: u64),
        chosen: load!(M, oc, oc_chosen: u64),
        // SAFETY: no argument.
        time_ns: unsafe { bpf_ktime_get_ns() },
        constraint: load!(M, oc, oc_constraint: u32, u32::MAX),
        order: load!(M, oc, oc_order: u32),
        gfp_mask: load!(M, oc, oc_gfp_mask: u32),
        pad: 0,
    };
    let memory = field!(memcg_memory);
    if !memcg.is_null() && memory != ABSENT {
        call.limit_cgroup = kernel::cgroup_id::<M>(follow!(M, memcg, css_cgroup));
        // SAFETY: inside struct mem_cgroup.
        unsafe {
            call.usage_pages = M::load::<u64>(memcg, memory + field!(counter_usage));
            call.limit_pages = M::load::<u64>(memcg, memory + field!(counter_max));
        }
    }
    if OOM_CALLS.insert(tid(), &call, 0).is_err() {
        account::unmatched(PROBE_OOM);
    }
}

/// Writes what the kill's caller and the limit owner were.
#[inline(always)]
unsafe fn fill_limit(out: *mut OomKill, counters: Limit) {
    let tid = tid();
    // SAFETY: the record is valid for writes.
    unsafe {
        kernel::fill_current(&raw mut (*out).trigger);
        (*out).pad = 0;
        if let Some(call) = OOM_CALLS.get_ptr(tid) {
            (*out).limit_cgroup = (*call).limit_cgroup;
            (*out).limit_pages = (*call).limit_pages;
            (*out).usage_pages = (*call).usage_pages;
            (*out).total_pages = (*call).total_pages;
            (*out).constraint = (*call).constraint;
            (*out).order = (*call).order;
            (*out).gfp_mask = (*call).gfp_mask;
            (*out).limit_source = LIMIT_OOM_CONTROL;
            return;
        }
        (*out).total_pages = 0;
        (*out).constraint = u32::MAX;
        (*out).order = 0;
        (*out).gfp_mask = 0;
        (*out).limit_cgroup = counters.cgroup;
        (*out).limit_pages = counters.pages;
        (*out).usage_pages = counters.usage;
        (*out).limit_source = if counters.pages == 0 {
            LIMIT_UNKNOWN
        } else {
            LIMIT_PAGE_COUNTERS
        };
    }
}

/// `mark_victim(task, uid)`.
#[inline(always)]
fn marked<M: Mem>(victim: Ptr) {
    let counters = if have(HAVE_PROBE_READ) && OOM_CALLS.get_ptr(tid()).is_none() {
        full_counter(victim)
    } else {
        Limit::NONE
    };
    emit(
        &RING_CRITICAL,
        PROBE_OOM,
        KIND_OOM_KILL,
        Wake::Now,
        |out: *mut OomKill| {
            // SAFETY: the record is valid; victim is a task.
            unsafe {
                kernel::fill_task::<M>(&raw mut (*out).victim, victim);
                let facts = facts::<M>(victim);
                (*out).anon_pages = facts.anon;
                (*out).file_pages = facts.file;
                (*out).shmem_pages = facts.shmem;
                (*out).oom_score_adj = facts.score;
                (*out).ns_pid = facts.ns_pid;
                (*out).ns_level = facts.ns_level;
                fill_limit(out, counters);
            }
        },
    );
}

/// `mark_victim(pid)`, 5.10: the task is the one that this thread has just
/// sent SIGKILL to.
#[inline(always)]
fn marked_pid(pid: u32) {
    let signal = OOM_SIGNALS.get_ptr(tid());
    let mut counters = Limit::NONE;
    emit(
        &RING_CRITICAL,
        PROBE_OOM,
        KIND_OOM_KILL,
        Wake::Now,
        |out: *mut OomKill| {
            // SAFETY: record and map value are valid.
            unsafe {
                match signal {
                    Some(signal) if (*signal).victim.tid == pid || (*signal).victim.tgid == pid => {
                        kernel::copy_task(&raw mut (*out).victim, &raw const (*signal).victim);
                        (*out).anon_pages = (*signal).anon_pages;
                        (*out).file_pages = (*signal).file_pages;
                        (*out).shmem_pages = (*signal).shmem_pages;
                        (*out).oom_score_adj = (*signal).oom_score_adj;
                        (*out).ns_pid = (*signal).ns_pid;
                        (*out).ns_level = (*signal).ns_level;
                        counters = Limit {
                            cgroup: (*signal).limit_cgroup,
                            pages: (*signal).limit_pages,
                            usage: (*signal).usage_pages,
                        };
                    }
                    _ => {
                        kernel::clear_task(&raw mut (*out).victim);
                        (*out).victim.tgid = pid;
                        (*out).victim.tid = pid;
                        (*out).victim.flags = TASK_KNOWN;
                        (*out).anon_pages = 0;
                        (*out).file_pages = 0;
                        (*out).shmem_pages = 0;
                        (*out).oom_score_adj = 0;
                        (*out).ns_pid = 0;
                        (*out).ns_level = 0;
                    }
                }
                fill_limit(out, counters);
            }
        },
    );
    let _ = OOM_SIGNALS.remove(tid());
}

/// `signal_generate(sig, info, task, group, result)`; only attached where
/// `mark_victim` has no task.
#[inline(always)]
fn signalled<M: Mem>(sig: i32, victim: Ptr) {
    if sig != SIGKILL || have(HAVE_MARK_VICTIM_TASK) {
        return;
    }
    let tid = tid();
    if OOM_SIGNALS.insert(tid, &OomSignal::EMPTY, 0).is_err() {
        return account::unmatched(PROBE_OOM);
    }
    let Some(signal) = OOM_SIGNALS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: a live map value; victim is a task.
    unsafe {
        kernel::fill_task::<M>(&raw mut (*signal).victim, victim);
        let facts = facts::<M>(victim);
        (*signal).anon_pages = facts.anon;
        (*signal).file_pages = facts.file;
        (*signal).shmem_pages = facts.shmem;
        (*signal).oom_score_adj = facts.score;
        (*signal).ns_pid = facts.ns_pid;
        (*signal).ns_level = facts.ns_level;
        if have(HAVE_PROBE_READ) {
            let limit = full_counter(victim);
            (*signal).limit_cgroup = limit.cgroup;
            (*signal).limit_pages = limit.pages;
            (*signal).usage_pages = limit.usage;
        }
    }
}

#[fentry(function = "oom_kill_process")]
pub fn oom_kill_fentry(ctx: FEntryContext) -> i32 {
    kill_process::<Direct>(ctx.arg(0));
    0
}

#[aya_ebpf::macros::fexit(function = "oom_kill_process")]
pub fn oom_kill_fexit(_ctx: aya_ebpf::programs::FExitContext) -> i32 {
    let _ = OOM_CALLS.remove(tid());
    0
}

#[kprobe]
pub fn oom_kill_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(oc) = ctx.arg(0) {
        kill_process::<Probed>(oc);
    }
    0
}

#[aya_ebpf::macros::kretprobe]
pub fn oom_kill_kretprobe(_ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
    let _ = OOM_CALLS.remove(tid());
    0
}

#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim_tp_btf(ctx: BtfTracePointContext) -> i32 {
    marked::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim_raw_tp(ctx: RawTracePointContext) -> i32 {
    marked::<Probed>(ctx.arg(0));
    0
}

/// 5.10 only.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim_pid_raw_tp(ctx: RawTracePointContext) -> i32 {
    marked_pid(ctx.arg(0));
    0
}

/// 5.10 only.
#[btf_tracepoint(function = "mark_victim")]
pub fn mark_victim_pid_tp_btf(ctx: BtfTracePointContext) -> i32 {
    marked_pid(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "signal_generate")]
pub fn signal_tp_btf(ctx: BtfTracePointContext) -> i32 {
    signalled::<Direct>(ctx.arg(0), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_raw_tp(ctx: RawTracePointContext) -> i32 {
    signalled::<Probed>(ctx.arg(0), ctx.arg(2));
    0
}
