//! Counting and handing over records: nothing is lost without a number.

use core::arch::asm;

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    maps::RingBuf,
};
use culprit_agent_ebpf::wire::{Header, stats::ProbeStats};

use crate::{kernel::config, maps::STATS};

/// BPF_RB_NO_WAKEUP, BPF_RB_FORCE_WAKEUP, BPF_RB_AVAIL_DATA.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
const AVAIL_DATA: u64 = 0;
/// The reader looks by itself every few milliseconds; above this many unread
/// bytes it is woken.
const WAKE_BYTES: u64 = 64 * 1024;

/// Adds to a counter that interrupts on this CPU may add to as well.
#[inline(always)]
pub fn add(counter: *mut u64, n: u64) {
    // Not AtomicU64: the target has no compare-and-swap before 5.12, so core
    // leaves fetch_add out; the plain atomic add is in every kernel.
    // SAFETY: counters live in map values, aligned to 8.
    unsafe {
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) n, options(nostack));
    }
}

/// The accounting row of a probe.
#[inline(always)]
pub fn stats(probe: u32) -> Option<*mut ProbeStats> {
    STATS.get_ptr_mut(probe)
}

/// An event that cannot become a record because its table is full.
#[inline(always)]
pub fn dropped_map(probe: u32) {
    if let Some(s) = stats(probe) {
        // SAFETY: a map value.
        unsafe {
            add(&raw mut (*s).seen, 1);
            add(&raw mut (*s).dropped_map, 1);
        }
    }
}

/// An event held back by a rate limit.
#[inline(always)]
pub fn suppressed(probe: u32) {
    if let Some(s) = stats(probe) {
        // SAFETY: a map value.
        unsafe {
            add(&raw mut (*s).seen, 1);
            add(&raw mut (*s).suppressed, 1);
        }
    }
}

/// A socket or call that should have been in its table was not.
#[inline(always)]
pub fn unmatched(probe: u32) {
    if let Some(s) = stats(probe) {
        // SAFETY: a map value.
        unsafe { add(&raw mut (*s).unmatched, 1) };
    }
}

/// When the reader is woken for a record.
#[derive(Clone, Copy, PartialEq)]
pub enum Wake {
    /// At once: rare and urgent.
    Now,
    /// With the batch.
    Batched,
}

/// Reserves room, lets `fill` write every byte of the record but the header,
/// and submits. Counts the event whatever comes of it.
#[inline(always)]
pub fn emit<T: 'static>(
    ring: &RingBuf,
    probe: u32,
    kind: u32,
    wake: Wake,
    fill: impl FnOnce(*mut T),
) {
    let Some(s) = stats(probe) else { return };
    // SAFETY: s is a map value; the reserved record is valid for writes.
    unsafe {
        add(&raw mut (*s).seen, 1);
        let every = config!(simulate_drops);
        if every != 0 && (*s).seen % u64::from(every) == 0 {
            add(&raw mut (*s).dropped_ring, 1);
            return;
        }
        let Some(mut entry) = ring.reserve::<T>(0) else {
            add(&raw mut (*s).dropped_ring, 1);
            return;
        };
        let record = entry.as_mut_ptr();
        let header = record.cast::<Header>();
        (*header).time_ns = bpf_ktime_get_ns();
        (*header).kind = kind;
        (*header).cpu = bpf_get_smp_processor_id();
        fill(record);
        let flags = match wake {
            Wake::Now => 0,
            Wake::Batched if ring.query(AVAIL_DATA) >= WAKE_BYTES => FORCE_WAKEUP,
            Wake::Batched => NO_WAKEUP,
        };
        entry.submit(flags);
        add(&raw mut (*s).submitted, 1);
    }
}

/// Index of the highest set bit, 0 for 0: the log2 bucket of a value.
#[inline(always)]
pub fn log2(mut value: u64) -> u32 {
    let mut bucket = 0;
    if value >= 1 << 32 {
        value >>= 32;
        bucket += 32;
    }
    if value >= 1 << 16 {
        value >>= 16;
        bucket += 16;
    }
    if value >= 1 << 8 {
        value >>= 8;
        bucket += 8;
    }
    if value >= 1 << 4 {
        value >>= 4;
        bucket += 4;
    }
    if value >= 1 << 2 {
        value >>= 2;
        bucket += 2;
    }
    if value >= 1 << 1 {
        bucket += 1;
    }
    bucket
}
