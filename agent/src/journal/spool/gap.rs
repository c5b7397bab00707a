//! Ranges of numbers, and what became of them.

use std::collections::VecDeque;

use crate::journal::item::GapReason;

/// Records `first..=last` cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First missing number.
    pub first: u64,
    /// Last missing number.
    pub last: u64,
    /// Why.
    pub reason: GapReason,
    /// Events that the range stood for: its length, or 0 for `Restart`.
    pub events: u64,
}

impl Gap {
    /// Of all of `first..end`; `None` when that is empty.
    pub(super) fn new(first: u64, end: u64, reason: GapReason) -> Option<Self> {
        (first < end).then(|| Self {
            first,
            last: end - 1,
            reason,
            events: match reason {
                GapReason::Restart => 0,
                _ => end - first,
            },
        })
    }

    /// What of it lies in `from..end`.
    pub(super) fn clip(&self, from: u64, end: u64) -> Option<Self> {
        let mut clipped = Self::new(self.first.max(from), self.end().min(end), self.reason)?;
        clipped.events = clipped.events.min(self.events);
        Some(clipped)
    }

    pub(super) fn end(&self) -> u64 {
        self.last + 1
    }

    pub(super) fn is_hole(&self) -> bool {
        self.reason == GapReason::Restart
    }
}

/// Most gaps kept apart before the first segment; past it they are merged.
pub(super) const MAX_FRONT_GAPS: usize = 1024;

/// Appends a gap; joins it with the last one when they say the same.
pub(super) fn push(gaps: &mut VecDeque<Gap>, gap: Gap) {
    match gaps.back_mut() {
        Some(last) if last.reason == gap.reason && last.end() == gap.first => {
            last.last = gap.last;
            last.events += gap.events;
        }
        _ => gaps.push_back(gap),
    }
    // The oldest two become one; the count of events stays right.
    while gaps.len() > MAX_FRONT_GAPS {
        let (Some(one), Some(two)) = (gaps.pop_front(), gaps.pop_front()) else {
            return;
        };
        let reason = if one.is_hole() {
            two.reason
        } else {
            one.reason
        };
        gaps.push_front(Gap {
            first: one.first,
            last: two.last,
            reason,
            events: one.events + two.events,
        });
    }
}

/// Forgets what lies below `acked`.
pub(super) fn trim(gaps: &mut VecDeque<Gap>, acked: u64) {
    while let Some(gap) = gaps.front_mut() {
        match gap.clip(acked, u64::MAX) {
            Some(rest) => {
                *gap = rest;
                return;
            }
            None => gaps.pop_front(),
        };
    }
}
