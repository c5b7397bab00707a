//! One lane: its segments, the gaps around them, and where it stands.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::fs::Fs;
use super::gap::{self, Gap};
use super::meta::{LaneMeta, META_HOLES};
use super::scan::Part;
use super::segment::Segment;
use super::{Held, LaneOptions, Piece};

/// The file that is being written; it is that of the last segment.
pub(super) struct Writer<F: Fs> {
    pub(super) file: F::File,
    /// Length and end of the numbers that are durable.
    pub(super) synced_bytes: u64,
    pub(super) synced_end: u64,
    /// Its name is on the disk.
    pub(super) named: bool,
}

/// Where the last read ended.
pub(super) struct Cursor<F: Fs> {
    pub(super) file: F::File,
    /// The segment.
    pub(super) first_seq: u64,
    /// The next frame, and the number that is to be there.
    pub(super) offset: u64,
    pub(super) seq: u64,
}

/// A lane. `front`, the segments and `tail` cover `acked..next` (and what the
/// first segment has below).
pub(super) struct Log<F: Fs> {
    pub(super) lane: u32,
    pub(super) dir: PathBuf,
    pub(super) options: LaneOptions,
    pub(super) acked: u64,
    /// No number from here on was given to a record, as far as is known.
    pub(super) given: u64,
    /// Never given, of all numbers of the spool below this run's first.
    pub(super) unassigned: u64,
    /// End of what was ever in a segment.
    pub(super) stored: u64,
    pub(super) front: VecDeque<Gap>,
    pub(super) segments: VecDeque<Segment>,
    pub(super) tail: VecDeque<Gap>,
    /// End of the tail.
    pub(super) next: u64,
    pub(super) writer: Option<Writer<F>>,
    pub(super) cursor: Option<Cursor<F>>,
    pub(super) evicted: VecDeque<Gap>,
    /// Reads that failed in a row, and where.
    pub(super) failed: (u32, u64),
}

impl<F: Fs> Log<F> {
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn acknowledge(&mut self, acked: u64) {
        self.acked = self.acked.max(acked.min(super::MAX_SEQ - 1));
        gap::trim(&mut self.front, self.acked);
        gap::trim(&mut self.tail, self.acked);
    }

    pub(super) fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let front = self.front.iter().copied().map(Part::Gap);
        let inner = self.segments.iter().flat_map(|s| s.parts.iter().copied());
        let tail = self.tail.iter().copied().map(Part::Gap);
        for part in front.chain(inner).chain(tail) {
            let piece = match part {
                Part::Gap(gap) => match gap.clip(self.acked, u64::MAX) {
                    Some(gap) => Piece::Gap(gap),
                    None => continue,
                },
                Part::Run(run) if run.last < self.acked => continue,
                Part::Run(run) => Piece::Stored {
                    first: run.first.max(self.acked),
                    last: run.last,
                    bytes: run.bytes,
                },
            };
            match (pieces.last_mut(), piece) {
                (
                    Some(Piece::Stored { last, bytes, .. }),
                    Piece::Stored {
                        first,
                        last: end,
                        bytes: more,
                    },
                ) if *last + 1 == first => {
                    *last = end;
                    *bytes += more;
                }
                (Some(Piece::Gap(one)), Piece::Gap(two))
                    if one.reason == two.reason && one.end() == two.first =>
                {
                    one.last = two.last;
                    one.events += two.events;
                }
                _ => pieces.push(piece),
            }
        }
        pieces
    }

    pub(super) fn held(&self) -> Held {
        let mut held = Held {
            first: self.next,
            next: self.next,
            synced: self.writer.as_ref().map_or(self.next, |w| w.synced_end),
            bytes: self.bytes(),
            segments: self.segments.len() as u64,
            unassigned_acked: self.unassigned_acked(),
            records: 0,
        };
        for run in self.segments.iter().flat_map(Segment::runs) {
            if run.last >= self.acked {
                let first = run.first.max(self.acked);
                held.first = held.first.min(first);
                held.records += run.last + 1 - first;
            }
        }
        held
    }

    /// Never given, of all numbers below `acked`.
    pub(super) fn unassigned_acked(&self) -> u64 {
        self.unassigned.saturating_sub(self.holes_above())
    }

    /// Never given, of all numbers from `acked` on.
    pub(super) fn holes_above(&self) -> u64 {
        let inner = self.segments.iter().flat_map(Segment::gaps);
        self.front
            .iter()
            .chain(inner)
            .chain(&self.tail)
            .filter(|gap| gap.is_hole())
            .filter_map(|gap| gap.clip(self.acked, u64::MAX))
            .map(|gap| gap.end() - gap.first)
            .sum()
    }

    /// What META is to say.
    pub(super) fn describe(&mut self, meta: &mut LaneMeta) {
        self.given = self.given.max(self.next).max(self.acked);
        let holes: Vec<_> = self
            .front
            .iter()
            .chain(&self.tail)
            .filter(|gap| gap.is_hole())
            .map(|gap| (gap.first, gap.end()))
            .collect();
        *meta = LaneMeta {
            acked: self.acked,
            next: self.given,
            unassigned: self.unassigned,
            unassigned_acked: self.unassigned_acked(),
            stored: self.writer.as_ref().map_or(self.stored, |w| w.synced_end),
            holes: holes[holes.len().saturating_sub(META_HOLES)..].to_vec(),
        };
    }
}
