//! What became of numbers for which no record was found.

use std::collections::VecDeque;

use super::gap::{Gap, push};
use crate::journal::item::GapReason;

/// What is known of a range in which no record was found.
pub(super) struct Void<'a> {
    /// The range.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Below this the records were on disk once, and are gone for this reason.
    pub(super) stored_end: u64,
    pub(super) stored_reason: GapReason,
    /// How many numbers in the range were never given.
    pub(super) unassigned: u64,
    /// Ranges (first, end) of such numbers, as far as they are known, sorted.
    pub(super) holes: &'a [(u64, u64)],
}

impl Void<'_> {
    /// The gaps that cover it. What is never given but at no known place is
    /// taken to be at the beginning: the sums are right.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        let mut holes: Vec<(u64, u64)> = Vec::new();
        for (first, end) in self.holes {
            let from = holes.last().map_or(self.first, |last| last.1);
            let (first, end) = ((*first).max(from), (*end).min(self.end));
            if first < end {
                holes.push((first, end));
            }
        }
        let known: u64 = holes.iter().map(|(first, end)| end - first).sum();
        let mut unplaced = self.unassigned.saturating_sub(known);
        let mut gaps = VecDeque::new();
        let mut pos = self.first;
        holes.push((self.end, self.end));
        for (hole, hole_end) in holes {
            let placed = unplaced.min(hole.saturating_sub(pos));
            unplaced -= placed;
            // Above the last hole the run that wrote the next segment gave
            // the numbers, and its queue in memory lost them.
            let never_written = if hole < self.end {
                GapReason::Unclean
            } else {
                GapReason::Evicted
            };
            let on_disk = self.stored_end.clamp(pos + placed, hole.max(pos + placed));
            for (first, end, reason) in [
                (pos, pos + placed, GapReason::Restart),
                (pos + placed, on_disk, self.stored_reason),
                (on_disk, hole, never_written),
                (hole, hole_end, GapReason::Restart),
            ] {
                if let Some(gap) = Gap::new(first, end, reason) {
                    push(&mut gaps, gap);
                }
            }
            pos = hole_end;
        }
        gaps.into()
    }
}
