//! What a segment file holds: its frames, and where it is damaged.

use bytes::Bytes;
use culprit_proto::frame;
use culprit_proto::limits::MAX_FRAME_BYTES;

use super::gap::Gap;
use super::header::HEADER_BYTES;
use crate::journal::item::GapReason;

/// Most pieces of one segment. Appending begins a new segment there; in a file
/// with more damaged places than that, the rest is given up.
pub(super) const MAX_PARTS: usize = 1024;

/// Most bytes that a search for the next good frame runs a checksum over, per
/// segment.
const SEARCH_BYTES: usize = 64 << 20;

/// Records without a hole, in numbers and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A piece of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Run(Run),
    Gap(Gap),
}

impl Part {
    pub(super) fn first(&self) -> u64 {
        match self {
            Self::Run(run) => run.first,
            Self::Gap(gap) => gap.first,
        }
    }

    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Run(run) => run.last + 1,
            Self::Gap(gap) => gap.last + 1,
        }
    }
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    /// Runs and the gaps between them, from the first good frame to the last.
    pub(super) parts: Vec<Part>,
    /// Where the last good frame ends.
    pub(super) good_end: usize,
    /// Places that were skipped because they are no frame, the tail not
    /// counted.
    pub(super) damaged: u64,
}

/// A good frame at the beginning of `bytes`, and its length. An empty event is
/// none: zeros must not pass for frames.
pub(super) fn frame_at(bytes: &[u8], lane: u32) -> Option<(u64, Bytes, usize)> {
    let mut reader = frame::Reader::new(bytes);
    let record = reader.next()?.ok()?;
    let length = usize::try_from(reader.offset()).ok()?;
    let ours = u32::try_from(record.lane) == Ok(lane) && !record.event.is_empty();
    ours.then_some((record.seq, record.event, length))
}

/// Length of the frame that the header at `at` claims, if it can be one.
fn claimed(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..at + frame::HEADER_BYTES)?;
    let [l0, l1, l2, l3, ..] = *header else {
        return None;
    };
    let payload = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    let whole = frame::HEADER_BYTES + payload;
    (payload > 0 && payload <= MAX_FRAME_BYTES && at + whole <= bytes.len()).then_some(whole)
}

/// Whether a payload begins as one of this lane does: a cheap look before a
/// checksum.
fn begins_well(bytes: &[u8], at: usize, lane: u32) -> bool {
    let payload = &bytes[(at + frame::HEADER_BYTES).min(bytes.len())..];
    match payload {
        // Field 1 is the lane; field 2 the number, left out when 0.
        [0x10 | 0x1a, ..] => lane == 0,
        [0x08, value, ..] => lane != 0 && u32::from(*value) == lane,
        _ => false,
    }
}

/// Finds the records of `bytes` (a segment, header included) with numbers from
/// `from` up to `limit`, rising.
pub(super) fn scan(bytes: &[u8], lane: u32, from: u64, limit: u64) -> Scan {
    let mut at = HEADER_BYTES;
    let mut found = Scan {
        parts: Vec::new(),
        good_end: at,
        damaged: 0,
    };
    let mut next = from;
    let mut budget = SEARCH_BYTES;
    while at < bytes.len() {
        match good(bytes, at, lane, next, limit) {
            Some((seq, length)) => {
                found.add(seq, at, length);
                next = seq + 1;
                at += length;
            }
            None => {
                let Some(good_at) = resume(bytes, at, lane, next, limit, &mut budget) else {
                    break;
                };
                found.damaged += 1;
                at = good_at;
            }
        }
        if found.parts.len() >= MAX_PARTS {
            break;
        }
    }
    found
}

fn good(bytes: &[u8], at: usize, lane: u32, next: u64, limit: u64) -> Option<(u64, usize)> {
    let whole = claimed(bytes, at)?;
    if !begins_well(bytes, at, lane) {
        return None;
    }
    let (seq, _, length) = frame_at(&bytes[at..at + whole], lane)?;
    (seq >= next && seq < limit).then_some((seq, length))
}

/// Where the next good frame begins after the bad one at `at`: behind it, if
/// its length is right, otherwise wherever one is found.
fn resume(
    bytes: &[u8],
    at: usize,
    lane: u32,
    next: u64,
    limit: u64,
    budget: &mut usize,
) -> Option<usize> {
    let behind = claimed(bytes, at).map(|whole| at + whole);
    behind
        .into_iter()
        .chain(at + 1..bytes.len())
        .find(|&place| {
            let Some(whole) = claimed(bytes, place) else {
                return false;
            };
            if !begins_well(bytes, place, lane) || *budget < whole {
                return false;
            }
            *budget -= whole;
            good(bytes, place, lane, next, limit).is_some()
        })
}

impl Scan {
    fn add(&mut self, seq: u64, at: usize, length: usize) {
        let (offset, bytes) = (at as u64, length as u64);
        let whole = at == self.good_end;
        self.good_end = at + length;
        if let Some(Part::Run(run)) = self.parts.last_mut() {
            if whole && run.last + 1 == seq {
                run.last = seq;
                run.bytes += bytes;
                return;
            }
            // Frames that touch with a jump in the numbers were written so.
            let reason = if whole {
                GapReason::Evicted
            } else {
                GapReason::Corrupt
            };
            if let Some(gap) = Gap::new(run.last + 1, seq, reason) {
                self.parts.push(Part::Gap(gap));
            }
        }
        self.parts.push(Part::Run(Run {
            first: seq,
            last: seq,
            offset,
            bytes,
        }));
    }
}
