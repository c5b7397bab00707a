//! holder: who has the CPU while a softirq is pending on it, a vector does not
//! end, or the sampler itself was held up by interrupts that were off.
//!
//! `perf_event` looks many times a second and does nothing unless something
//! waits. `sched_switch` stands in where it is refused: it books the time to
//! the task that gives the CPU up, without a stack.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_get_stack},
    macros::{btf_tracepoint, perf_event, raw_tracepoint},
    programs::{BtfTracePointContext, PerfEventContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_HOLDER,
    config::HAVE_CGROUP_READS,
    holder::{FRAMES, HolderNow, HolderSample},
    softirq::{VECTOR_NONE, VECTORS},
    stats::PROBE_HOLDER,
};

use crate::{
    account::{self, Wake, add, emit},
    kernel::{self, config, have},
    maps::{CGROUP_READS, HOLDER_NOW, RING_CRITICAL, SOFTIRQ_NOW},
};

const SECOND: u64 = 1_000_000_000;
/// Samples per CPU and second: a stall is explained by its first ones, and a
/// kill must find room in the ring.
const LIMIT: u64 = 128;
/// A gap that is longer is no lateness: the machine was suspended.
const SUSPENDED: u64 = 60 * SECOND;

/// What waits on this CPU.
struct Waiting {
    pending_ns: u64,
    running_ns: u64,
    vector: u32,
}

/// Raises the longest time in `longest` to that since `since`. It is kept in a map
/// and not in a register: the verifier then sees the same state on every path,
/// and need not follow each through ten vectors (5.10 gives up on that).
///
/// # Safety
/// `longest` is a map value.
#[inline(always)]
unsafe fn raise(longest: *mut u64, since: u64, now: u64, vector: usize) {
    let waited = now.wrapping_sub(since);
    // SAFETY: the caller's promise.
    unsafe {
        if since != 0 && waited < SUSPENDED {
            let packed = waited << 4 | vector as u64;
            if packed > longest.read_volatile() {
                longest.write_volatile(packed);
            }
        }
    }
}

/// The vector that has been pending or running longest.
#[inline(always)]
fn waiting(scratch: *mut HolderNow, now: u64) -> Waiting {
    let mut found = Waiting {
        pending_ns: 0,
        running_ns: 0,
        vector: VECTOR_NONE,
    };
    let Some(cpu) = SOFTIRQ_NOW.get_ptr(0) else {
        return found;
    };
    // SAFETY: per-CPU map values, index bounded; the programs of this probe do not
    // interrupt each other.
    unsafe {
        let pending = &raw mut (*scratch).pending;
        let running = &raw mut (*scratch).running;
        pending.write_volatile(0);
        running.write_volatile(0);
        for vector in 0..VECTORS {
            let raised = (&raw const (*cpu).raised_ns).cast::<u64>().add(vector);
            raise(pending, raised.read_volatile(), now, vector);
            let entered = (&raw const (*cpu).entered_ns).cast::<u64>().add(vector);
            raise(running, entered.read_volatile(), now, vector);
        }
        let (pending, running) = (pending.read_volatile(), running.read_volatile());
        found.pending_ns = pending >> 4;
        found.running_ns = running >> 4;
        if pending > running {
            found.vector = (pending & 15) as u32;
        } else if running > 0 {
            found.vector = (running & 15) as u32;
        }
    }
    found
}

/// From where a wait is looked at: a quarter of what is reported, so that a
/// stall has some samples by the time it is one.
#[inline(always)]
fn floor() -> u64 {
    config!(stall_threshold_ns) / 4
}

/// Whether this CPU may send one more sample in this second.
#[inline(always)]
fn admit(cpu: *mut HolderNow, now: u64) -> bool {
    // SAFETY: a per-CPU map value.
    unsafe {
        if now.wrapping_sub((*cpu).window_ns) >= SECOND {
            (*cpu).window_ns = now;
            (*cpu).in_window = 0;
        }
        if (*cpu).in_window >= LIMIT {
            account::suppressed(PROBE_HOLDER);
            return false;
        }
        add(&raw mut (*cpu).in_window, 1);
    }
    true
}

/// Sends a sample of the running task; `stack` writes the frames and says how
/// many bytes.
#[inline(always)]
fn sample(waiting: &Waiting, held_ns: u64, late_ns: u64, stack: impl Fn(*mut u64) -> u32) {
    emit(
        &RING_CRITICAL,
        PROBE_HOLDER,
        KIND_HOLDER,
        Wake::Batched,
        |out: *mut HolderSample| {
            // SAFETY: the record is valid for writes.
            unsafe {
                kernel::fill_current(&raw mut (*out).task);
                (*out).held_ns = held_ns;
                (*out).pending_ns = waiting.pending_ns;
                (*out).running_ns = waiting.running_ns;
                (*out).late_ns = late_ns;
                (*out).vector = waiting.vector;
                (*out).file_cgroup = 0;
                let name = (&raw mut (*out).file_name).cast::<u64>();
                for word in 0..4 {
                    name.add(word).write(0);
                }
                if have(HAVE_CGROUP_READS)
                    && let Some(read) = CGROUP_READS.get_ptr(bpf_get_current_pid_tgid())
                {
                    (*out).file_cgroup = (*read).cgroup;
                    let from = (&raw const (*read).file_name).cast::<u64>();
                    for word in 0..4 {
                        name.add(word).write(from.add(word).read());
                    }
                }
                let frames = (&raw mut (*out).stack).cast::<u64>();
                for frame in 0..FRAMES {
                    frames.add(frame).write_volatile(0);
                }
                (*out).stack_bytes = stack(frames);
            }
        },
    );
}

/// One tick of the sampler.
#[inline(always)]
fn tick(ctx: &PerfEventContext) {
    let Some(cpu) = HOLDER_NOW.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let period = config!(holder_period_ns);
    // SAFETY: a per-CPU map value.
    let late = unsafe {
        let last = (*cpu).last_ns;
        (*cpu).last_ns = now;
        now.wrapping_sub(last).saturating_sub(period)
    };
    let late = if late < SUSPENDED { late } else { 0 };
    let waiting = waiting(cpu, now);
    let floor = floor();
    if waiting.pending_ns < floor && waiting.running_ns < floor && late < floor {
        return;
    }
    if !admit(cpu, now) {
        return;
    }
    sample(&waiting, period, late, |frames| {
        // SAFETY: room for FRAMES addresses.
        let bytes = unsafe { bpf_get_stack(ctx.as_ptr(), frames.cast(), 8 * FRAMES as u32, 0) };
        if bytes > 0 { bytes as u32 } else { 0 }
    });
}

/// A task gives the CPU up.
#[inline(always)]
fn switched() {
    let Some(cpu) = HOLDER_NOW.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a per-CPU map value.
    let had = unsafe {
        let last = (*cpu).last_ns;
        (*cpu).last_ns = now;
        now.wrapping_sub(last)
    };
    // A short turn held nobody up.
    if had < floor() || had >= SUSPENDED {
        return;
    }
    let mut waiting = waiting(cpu, now);
    if waiting.pending_ns < floor() {
        // Nothing waits any more: did it during this turn?
        let Some(softirq) = SOFTIRQ_NOW.get_ptr(0) else {
            return;
        };
        // SAFETY: a per-CPU map value.
        unsafe {
            if (*softirq).waited_until_ns < now - had {
                return;
            }
            waiting.pending_ns = (*softirq).waited_ns;
            waiting.vector = (*softirq).waited_vector as u32;
        }
    }
    if admit(cpu, now) {
        sample(&waiting, had, 0, |_| 0);
    }
}

#[perf_event]
pub fn holder_perf(ctx: PerfEventContext) -> u32 {
    tick(&ctx);
    0
}

#[btf_tracepoint(function = "sched_switch")]
pub fn holder_switch_tp_btf(_ctx: BtfTracePointContext) -> i32 {
    switched();
    0
}

#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn holder_switch_raw_tp(_ctx: RawTracePointContext) -> i32 {
    switched();
    0
}
