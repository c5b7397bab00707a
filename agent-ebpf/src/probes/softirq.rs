//! softirq: how long vectors wait and run, how late timers fire, how long
//! packets wait between netif_rx and netif_receive_skb. Histograms in per-CPU
//! maps; a record only over the threshold.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    maps::PerCpuArray,
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_SOFTIRQ_STALL,
    softirq::{BUCKETS, Histogram, SoftirqNow, SoftirqStall, VECTOR_NET_RX, VECTOR_NONE, VECTORS},
    stats::PROBE_SOFTIRQ,
};

use crate::{
    account::{self, Wake, add, emit, log2},
    kernel::{self, Direct, Mem, Probed, Ptr, config, follow, load},
    maps::{
        HOLDER_NOW, LATENESS, PACKET_SLOTS, PACKETS, QUEUE_WAIT, RING_CRITICAL, SOFTIRQ_NOW,
        SOFTIRQ_STATS,
    },
};

const SECOND: u64 = 1_000_000_000;

/// Index of a bucket, within the array whatever the value.
#[inline(always)]
fn bucket(ns: u64) -> usize {
    let bucket = log2(ns) as usize;
    if bucket >= BUCKETS {
        BUCKETS - 1
    } else {
        bucket
    }
}

fn now() -> u64 {
    // SAFETY: no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// A stall over the threshold, unless this CPU has sent its share this second.
#[inline(always)]
fn stalled(cpu: *mut SoftirqNow, vector: u32, wait: u64, run: u64, irqs_off: u64, queue: u64) {
    let time = now();
    // SAFETY: a per-CPU map value.
    let suppressed = unsafe {
        if time.wrapping_sub((*cpu).window_ns) >= SECOND {
            (*cpu).window_ns = time;
            (*cpu).in_window = 0;
        }
        if (*cpu).in_window >= config!(stall_limit) {
            add(&raw mut (*cpu).suppressed, 1);
            return account::suppressed(PROBE_SOFTIRQ);
        }
        add(&raw mut (*cpu).in_window, 1);
        let held = (*cpu).suppressed;
        (*cpu).suppressed = 0;
        held
    };
    emit(
        &RING_CRITICAL,
        PROBE_SOFTIRQ,
        KIND_SOFTIRQ_STALL,
        Wake::Batched,
        |out: *mut SoftirqStall| {
            // SAFETY: the record is valid for writes.
            unsafe {
                kernel::fill_current(&raw mut (*out).task);
                (*out).wait_ns = wait;
                (*out).run_ns = run;
                (*out).irqs_off_ns = irqs_off;
                (*out).queue_wait_ns = queue;
                (*out).suppressed = suppressed;
                (*out).vector = vector;
                (*out).pad = 0;
            }
        },
    );
}

/// Raised while already pending is no new wait: the first raise counts.
#[inline(always)]
fn raise(vector: u32) {
    let Some(cpu) = SOFTIRQ_NOW.get_ptr_mut(0) else {
        return;
    };
    let vector = vector as usize;
    if vector < VECTORS {
        // SAFETY: a per-CPU map value, index checked.
        unsafe {
            let at = (&raw mut (*cpu).raised_ns).cast::<u64>().add(vector);
            if at.read() == 0 {
                at.write(now());
            }
        }
    }
}

#[inline(always)]
fn entry(vector: u32) {
    let Some(cpu) = SOFTIRQ_NOW.get_ptr_mut(0) else {
        return;
    };
    let vector = vector as usize;
    if vector < VECTORS {
        // SAFETY: a per-CPU map value, index checked.
        unsafe {
            let raised = (&raw mut (*cpu).raised_ns).cast::<u64>().add(vector);
            (&raw mut (*cpu).serving_ns)
                .cast::<u64>()
                .add(vector)
                .write(raised.read());
            raised.write(0);
            (&raw mut (*cpu).entered_ns)
                .cast::<u64>()
                .add(vector)
                .write(now());
            (*cpu).running |= 1 << vector;
        }
    }
}

#[inline(always)]
fn exit(vector: u32) {
    let Some(cpu) = SOFTIRQ_NOW.get_ptr_mut(0) else {
        return;
    };
    let index = vector as usize;
    if index >= VECTORS {
        return;
    }
    let Some(stats) = SOFTIRQ_STATS.get_ptr_mut(vector) else {
        return;
    };
    // SAFETY: per-CPU map values, indices checked.
    unsafe {
        (*cpu).running &= !(1 << index);
        let entered_at = (&raw mut (*cpu).entered_ns).cast::<u64>().add(index);
        let entered = entered_at.read();
        if entered == 0 {
            return;
        }
        entered_at.write(0);
        let raised = (&raw const (*cpu).serving_ns)
            .cast::<u64>()
            .add(index)
            .read();
        let run = now().wrapping_sub(entered);
        // Raised before the agent was, or by a path without the tracepoint.
        let wait = if raised == 0 {
            0
        } else {
            entered.wrapping_sub(raised)
        };
        (*stats).count += 1;
        (*stats).run_total_ns += run;
        *(&raw mut (*stats).run).cast::<u64>().add(bucket(run)) += 1;
        if raised != 0 {
            (*stats).wait_total_ns += wait;
            *(&raw mut (*stats).wait).cast::<u64>().add(bucket(wait)) += 1;
        }
        let threshold = config!(stall_threshold_ns);
        // For who had the CPU meanwhile (holder, where it sees switches only): the
        // longest wait of a turn.
        let turn = HOLDER_NOW.get_ptr(0).map_or(0, |holder| (*holder).last_ns);
        let first = (*cpu).waited_until_ns < turn;
        if wait >= threshold / 4 && (first || wait > (*cpu).waited_ns) {
            (*cpu).waited_until_ns = entered;
            (*cpu).waited_ns = wait;
            (*cpu).waited_vector = vector as u64;
        }
        if wait >= threshold || run >= threshold {
            stalled(cpu, vector, wait, run, 0, 0);
        }
    }
}

/// Adds to this CPU's histogram.
#[inline(always)]
fn observe(map: &PerCpuArray<Histogram>, ns: u64) {
    let Some(histogram) = map.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU map value, index bounded.
    unsafe {
        *(&raw mut (*histogram).buckets)
            .cast::<u64>()
            .add(bucket(ns)) += 1;
        (*histogram).count += 1;
        (*histogram).total_ns += ns;
    }
}

/// How late a timer of the hard monotonic base fires (index 0 of the clock
/// bases; the others have other clocks or run in softirq).
#[inline(always)]
fn timer<M: Mem>(timer: Ptr) {
    let base = follow!(M, timer, hrtimer_base);
    if load!(M, base, clock_base_index: u32, u32::MAX) != 0 {
        return;
    }
    let expires = load!(M, timer, hrtimer_expires: u64);
    let late = now().wrapping_sub(expires);
    if late >= 1 << 63 {
        return;
    }
    observe(&LATENESS, late);
    if late >= config!(stall_threshold_ns)
        && let Some(cpu) = SOFTIRQ_NOW.get_ptr_mut(0)
    {
        stalled(cpu, VECTOR_NONE, 0, 0, late, 0);
    }
}

/// Slot of a packet: 64 of them, so packets in flight are sampled.
#[inline(always)]
fn slot(skb: Ptr) -> u32 {
    ((skb as u64 >> 8) as u32) & (PACKET_SLOTS - 1)
}

/// `netif_rx`: the packet enters a CPU's backlog.
#[inline(always)]
fn packet_queued(skb: u64) {
    let Some(slot) = PACKETS.get_ptr_mut(slot(skb as Ptr)) else {
        return;
    };
    let time = now();
    // SAFETY: a map value. CPUs may race for a slot: one of the samples is
    // then never matched, and its slot is taken over a second later.
    unsafe {
        if (*slot).skb == 0 || time.wrapping_sub((*slot).queued_ns) >= SECOND {
            (*slot).queued_ns = time;
            (*slot).skb = skb;
        }
    }
}

/// `netif_receive_skb`: the packet is taken from it.
#[inline(always)]
fn packet_received(skb: u64) {
    let Some(slot) = PACKETS.get_ptr_mut(slot(skb as Ptr)) else {
        return;
    };
    // SAFETY: a map value.
    let waited = unsafe {
        if (*slot).skb != skb {
            return;
        }
        let waited = now().wrapping_sub((*slot).queued_ns);
        (*slot).skb = 0;
        waited
    };
    if waited >= SECOND {
        return;
    }
    observe(&QUEUE_WAIT, waited);
    if waited >= config!(stall_threshold_ns)
        && let Some(cpu) = SOFTIRQ_NOW.get_ptr_mut(0)
    {
        stalled(cpu, VECTOR_NET_RX as u32, 0, 0, 0, waited);
    }
}

#[btf_tracepoint(function = "softirq_raise")]
pub fn softirq_raise_tp_btf(ctx: BtfTracePointContext) -> i32 {
    raise(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "softirq_entry")]
pub fn softirq_entry_tp_btf(ctx: BtfTracePointContext) -> i32 {
    entry(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "softirq_exit")]
pub fn softirq_exit_tp_btf(ctx: BtfTracePointContext) -> i32 {
    exit(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "hrtimer_expire_entry")]
pub fn hrtimer_tp_btf(ctx: BtfTracePointContext) -> i32 {
    timer::<Direct>(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "netif_rx")]
pub fn packet_queued_tp_btf(ctx: BtfTracePointContext) -> i32 {
    packet_queued(ctx.arg::<Ptr>(0) as u64);
    0
}

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn packet_received_tp_btf(ctx: BtfTracePointContext) -> i32 {
    packet_received(ctx.arg::<Ptr>(0) as u64);
    0
}

#[raw_tracepoint(tracepoint = "softirq_raise")]
pub fn softirq_raise_raw_tp(ctx: RawTracePointContext) -> i32 {
    raise(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn softirq_entry_raw_tp(ctx: RawTracePointContext) -> i32 {
    entry(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn softirq_exit_raw_tp(ctx: RawTracePointContext) -> i32 {
    exit(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "hrtimer_expire_entry")]
pub fn hrtimer_raw_tp(ctx: RawTracePointContext) -> i32 {
    timer::<Probed>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "netif_rx")]
pub fn packet_queued_raw_tp(ctx: RawTracePointContext) -> i32 {
    packet_queued(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn packet_received_raw_tp(ctx: RawTracePointContext) -> i32 {
    packet_received(ctx.arg(0));
    0
}
