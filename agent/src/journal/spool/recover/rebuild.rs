//! A lane from its segments.

use std::collections::VecDeque;
use std::path::PathBuf;

use culprit_proto::limits::SPOOL_ID_BYTES;

use super::super::error::SpoolError;
use super::super::fs::{Fs, Now};
use super::super::header::{HEADER_BYTES, Header, file_name};
use super::super::lane::Log;
use super::super::meta::LaneMeta;
use super::super::scan::{self, Part, Scan};
use super::super::segment::Segment;
use super::super::voids::Void;
use super::super::{Core, LaneOptions, MAX_FOUND_SEQ};
use super::{Recovery, lane_dir};
use crate::journal::item::GapReason;

/// After a run without a last word numbering goes on at a multiple of this.
const JUMP: u64 = 1 << 32;

/// So many numbers above the last known one may have been used by such a run
/// since it was known: years at the highest rates between two notes.
const MARGIN: u64 = JUMP / 2;

/// The same when META is lost: more than many runs can use.
const FAR_JUMP: u64 = 1 << 48;

/// What is needed to rebuild a lane.
pub(super) struct Rebuild {
    pub(super) lane: usize,
    /// From META; without it, from the one of the last start.
    pub(super) known: Option<LaneMeta>,
    pub(super) start: Option<LaneMeta>,
    pub(super) headers: Vec<Header>,
    pub(super) spool_id: [u8; SPOOL_ID_BYTES],
    pub(super) boot_id: [u8; 16],
    pub(super) now: Now,
    pub(super) jump: bool,
    pub(super) max_file: usize,
    /// First and end of the numbers in the last segment that was put aside.
    pub(super) lost: (u64, u64),
    /// Files of no more use, to be removed once META is durable.
    pub(super) done: Vec<PathBuf>,
}

impl Rebuild {
    pub(super) fn run<F: Fs>(
        &mut self,
        recovery: &mut Recovery<'_, F>,
        options: LaneOptions,
    ) -> Result<Log<F>, SpoolError> {
        let dir = recovery.dir.join(lane_dir(self.lane));
        let segments = self.scan(recovery);
        let mut known = self.known.clone().unwrap_or_else(|| {
            // Nothing is known below the first segment: what is gone there was
            // acknowledged for the most part.
            let start = self.start.take().unwrap_or_default();
            let first = segments.first().map(|(header, ..)| header);
            LaneMeta {
                acked: first.map_or(start.next, |header| header.first_seq),
                unassigned_acked: first.map_or(start.unassigned, |header| header.unassigned),
                stored: 0,
                ..start
            }
        });
        let (lost_first, lost_end) = self.lost;
        known.next = known.next.max(lost_end);
        known.stored = known.stored.max(lost_end);
        let mut holes = known.holes.clone();
        holes.extend(segments.iter().flat_map(|(header, ..)| header.holes.iter()));
        holes.sort_unstable();
        let mut log = Log {
            lane: u32::try_from(self.lane).unwrap_or_default(),
            dir,
            options,
            acked: known.acked,
            given: 0,
            unassigned: 0,
            stored: known.stored,
            front: VecDeque::new(),
            segments: VecDeque::new(),
            tail: VecDeque::new(),
            next: 0,
            writer: None,
            cursor: None,
            evicted: VecDeque::new(),
            failed: (0, 0),
        };
        let mut pos = known.acked;
        let mut unassigned = known.unassigned_acked;
        let mut reason = GapReason::SpoolEvicted;
        if (lost_first..lost_end).contains(&pos) {
            reason = GapReason::Corrupt;
        }
        for (header, scan, bytes, newest) in segments {
            let mut segment = Segment {
                cover: pos.min(header.first_seq),
                parts: Vec::new(),
                bytes,
                newest,
                header,
            };
            let header = &segment.header;
            let path = log.dir.join(file_name(header.first_seq));
            if scan.parts.is_empty() || scan.parts.last().is_some_and(|p| p.end() <= pos) {
                // Nothing in it is wanted any more.
                reason = GapReason::Corrupt;
                self.done.push(path);
                continue;
            }
            let void = Void {
                first: pos,
                end: header.first_seq,
                stored_end: header.prev_end,
                stored_reason: reason,
                unassigned: header.unassigned.saturating_sub(unassigned),
                holes: &holes,
            };
            segment.parts = void.gaps().into_iter().map(Part::Gap).collect();
            unassigned = unassigned.max(header.unassigned);
            reason = GapReason::Corrupt;
            segment.take_in(scan, None);
            pos = segment.end();
            log.segments.push_back(segment);
        }
        log.stored = log
            .stored
            .max(pos.min(log.segments.back().map_or(0, Segment::end)));
        // A segment beyond what a last word knew of: it was not the last.
        let jump = self.jump || log.segments.back().is_some_and(|s| s.end() > known.next);
        let end = pos.max(known.next).max(known.acked);
        log.next = end;
        if jump {
            let (jump, margin) = match self.known {
                Some(_) => (JUMP, MARGIN),
                None => (FAR_JUMP, FAR_JUMP / 2),
            };
            log.next = ((end + margin) / jump + 1) * jump;
            holes.push((end, log.next));
        }
        let hole = log.next - end;
        let void = Void {
            first: pos,
            end: log.next,
            stored_end: known.stored,
            stored_reason: reason,
            unassigned: known.unassigned.saturating_sub(unassigned) + hole,
            holes: &holes,
        };
        log.tail = void.gaps().into();
        log.given = log.next;
        // By what was found, not by what was noted: a number that is there was
        // given, whatever a run thought that did not see it.
        log.unassigned = known.unassigned_acked.min(known.acked) + log.holes_above();
        Ok(log)
    }

    /// Reads all segments: header, contents, length, when the newest record
    /// came at the latest.
    fn scan<F: Fs>(&mut self, recovery: &mut Recovery<'_, F>) -> Vec<(Header, Scan, u64, i64)> {
        let dir = recovery.dir.join(lane_dir(self.lane));
        let label = format!("{}-", lane_dir(self.lane));
        let mut headers = Vec::new();
        for header in std::mem::take(&mut self.headers) {
            if header.spool_id == self.spool_id {
                headers.push(header);
            } else {
                let path = dir.join(file_name(header.first_seq));
                recovery.quarantine(&path, &label, "a segment of another spool");
            }
        }
        let mut segments = Vec::new();
        for (at, header) in headers.iter().enumerate() {
            let next = headers.get(at + 1);
            let limit = next.map_or(MAX_FOUND_SEQ, |next| next.first_seq);
            let path = dir.join(file_name(header.first_seq));
            let bytes = match recovery.read(&path, self.max_file) {
                Ok(bytes) if bytes.len() < self.max_file => bytes,
                Ok(_) => {
                    recovery.quarantine(&path, &label, "larger than any segment");
                    continue;
                }
                Err(error) => {
                    recovery.quarantine(&path, &label, &error.to_string());
                    continue;
                }
            };
            let lane = header.lane;
            let found = scan::scan(&bytes, lane, header.first_seq, limit);
            let name = format!("{}/{}", lane_dir(self.lane), file_name(header.first_seq));
            if found.damaged > 0 {
                recovery.trouble(format!("{name}: damaged in {} places", found.damaged));
            }
            let mut length = bytes.len() as u64;
            let rest = bytes.len() - found.good_end.min(bytes.len());
            if next.is_none() {
                // What a killed agent wrote may be in the page cache only.
                let settle = || {
                    let file = recovery.fs.open(&path, true)?;
                    if rest > 0 {
                        recovery.fs.set_len(&file, found.good_end as u64)?;
                    }
                    recovery.fs.sync(&file)?;
                    recovery.fs.sync_dir(&dir)
                };
                match settle() {
                    Ok(()) => length = found.good_end as u64,
                    Err(error) => recovery.trouble(format!(
                        "{name}: the disk does not take it: {error}; a crash can lose its newest records"
                    )),
                }
                if rest > 0 {
                    recovery.trouble(format!(
                        "{name}: {rest} bytes after the last whole record were cut off"
                    ));
                }
            }
            let newest = next.map_or(self.boot_now(), |next| self.begun(next));
            segments.push((
                header.clone(),
                found,
                length.max(HEADER_BYTES as u64),
                newest,
            ));
        }
        segments
    }

    fn boot_now(&self) -> i64 {
        i64::try_from(self.now.boot).unwrap_or(i64::MAX)
    }

    /// When a segment was begun, by the clock of this boot. Of an earlier boot
    /// the wall clock is asked, once: it may jump later without harm.
    fn begun(&self, header: &Header) -> i64 {
        let now = self.boot_now();
        if header.boot_id == self.boot_id && self.boot_id != [0; 16] {
            return i64::try_from(header.created_boot).unwrap_or(now).min(now);
        }
        let age = self.now.wall.saturating_sub(header.created_wall);
        now.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX))
    }
}

impl<F: Fs> Log<F> {
    /// Makes a lane that was just opened keep its bounds; that is part of what
    /// was found, not of what goes later.
    pub(super) fn fit(&mut self, core: &mut Core<F>) -> Result<(), SpoolError> {
        let mut result = self.expire(core);
        while result.is_ok() && self.bytes() > self.options.max_bytes {
            result = self.evict(core, GapReason::SpoolEvicted);
        }
        self.evicted.clear();
        result
    }
}
