//! A segment as it is known in memory.

use std::collections::VecDeque;

use super::gap::Gap;
use super::header::Header;
use super::scan::{Part, Run, Scan};
use crate::journal::item::GapReason;

/// One segment file. Its parts cover `cover..end` without a hole, from the end
/// of the segment before.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) cover: u64,
    pub(super) parts: Vec<Part>,
    /// Length of the file.
    pub(super) bytes: u64,
    /// When its newest record came at the latest: nanoseconds since boot,
    /// negative before it.
    pub(super) newest: i64,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.parts.last().map_or(self.cover, Part::end)
    }

    pub(super) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.parts.iter().filter_map(|part| match part {
            Part::Run(run) => Some(run),
            Part::Gap(_) => None,
        })
    }

    pub(super) fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.parts.iter().filter_map(|part| match part {
            Part::Run(_) => None,
            Part::Gap(gap) => Some(gap),
        })
    }

    /// The part that has number `seq`.
    pub(super) fn part(&self, seq: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.end() <= seq);
        self.parts.get(at).filter(|part| part.first() <= seq)
    }

    /// Takes in what a scan found, up to `end` if that is known: what it
    /// missed is corrupt.
    pub(super) fn take_in(&mut self, scan: Scan, end: Option<u64>) {
        let first = self.header.first_seq;
        self.parts.retain(|part| part.end() <= first);
        let begin = scan.parts.first().map(Part::first).or(end).unwrap_or(first);
        let corrupt = |from, to| Gap::new(from, to, GapReason::Corrupt).map(Part::Gap);
        self.parts.extend(corrupt(first, begin));
        self.parts.extend(scan.parts);
        if let Some(end) = end {
            self.parts.extend(corrupt(self.end(), end));
        }
    }

    /// Gives up the records from `seq` to the end of their run.
    pub(super) fn give_up(&mut self, seq: u64) {
        let at = self.parts.partition_point(|part| part.end() <= seq);
        let Some(Part::Run(run)) = self.parts.get_mut(at) else {
            return;
        };
        let gap = Gap::new(seq.max(run.first), run.last + 1, GapReason::Corrupt).map(Part::Gap);
        if run.first < seq {
            run.last = seq - 1;
            self.parts.splice(at + 1..at + 1, gap);
        } else {
            self.parts.splice(at..=at, gap);
        }
    }

    /// Forgets all numbers from `end` on; the gaps that remain when no record
    /// does.
    pub(super) fn cut(&mut self, end: u64, bytes: u64) -> Option<VecDeque<Gap>> {
        self.bytes = bytes;
        self.parts = self
            .parts
            .iter()
            .filter(|part| part.first() < end)
            .filter_map(|part| match part {
                Part::Run(run) => Some(Part::Run(Run {
                    last: run.last.min(end - 1),
                    bytes: run.bytes.min(bytes.saturating_sub(run.offset)),
                    ..*run
                })),
                Part::Gap(gap) => gap.clip(0, end).map(Part::Gap),
            })
            .collect();
        let empty = self.runs().next().is_none();
        empty.then(|| self.gaps().copied().collect())
    }
}
