//! Adding to a workload's histogram.

use aya_ebpf::maps::HashMap;
use culprit_agent_ebpf::wire::{softirq::BUCKETS, work::Work};

use crate::account::{self, add, log2};

static EMPTY: Work = Work::EMPTY;

/// Adds one wait to a histogram.
///
/// # Safety
/// `work` is a live map value.
#[inline(always)]
pub(super) unsafe fn observe(work: *mut Work, ns: u64) {
    let bucket = log2(ns) as usize;
    let bucket = if bucket >= BUCKETS {
        BUCKETS - 1
    } else {
        bucket
    };
    // SAFETY: the caller's promise; the index is bounded.
    unsafe {
        add(
            (&raw mut (*work).buckets)
                .cast::<u64>()
                .wrapping_add(bucket),
            1,
        );
        add(&raw mut (*work).count, 1);
        add(&raw mut (*work).total_ns, ns);
        if (*work).max_ns < ns {
            (*work).max_ns = ns;
        }
    }
}

/// Adds one wait to a workload's histogram; one for which there is no room is
/// counted as `dropped_map` of `probe`.
#[inline(always)]
pub(super) fn add_to(map: &HashMap<u64, Work>, probe: u32, workload: u64, ns: u64) {
    if map.get_ptr(workload).is_none() {
        // Lost to another CPU is as good as done.
        let _ = map.insert(workload, &EMPTY, 1);
    }
    match map.get_ptr_mut(workload) {
        // SAFETY: a live map value.
        Some(work) => unsafe { observe(work, ns) },
        None => account::dropped_map(probe),
    }
}
