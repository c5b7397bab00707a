//! Reading records back, to send them.

use bytes::Bytes;
use culprit_proto::limits::MAX_FRAME_BYTES;

use super::Core;
use super::error::SpoolError;
use super::fs::{Fs, read_some};
use super::gap::Gap;
use super::header::file_name;
use super::lane::{Cursor, Log};
use super::scan::{self, Part, Run, frame_at};
use super::segment::Segment;
use crate::journal::item::GapReason;

/// Read from a file at a time; more than a frame.
const CHUNK: usize = 256 << 10;
const _: () = assert!(CHUNK > 2 * MAX_FRAME_BYTES);

/// So often a place is tried before it is given up.
const TRIES: u32 = 3;

/// A piece of what can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadPiece {
    /// Records `base .. base + records.len()`.
    Records {
        /// Number of the first.
        base: u64,
        /// Encoded events, never empty.
        records: Vec<Bytes>,
    },
    /// Records that cannot be had.
    Gap(Gap),
}

/// Why a run was not read.
enum Failed {
    Damaged,
    Io(SpoolError),
}

/// What may still be read.
struct Room {
    bytes: usize,
    records: usize,
    /// Nothing was read yet: one record is given whatever its size.
    first: bool,
}

impl<F: Fs> Log<F> {
    pub(super) fn read(
        &mut self,
        core: &Core<F>,
        from: u64,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Vec<ReadPiece>, SpoolError> {
        let mut out = Vec::new();
        let mut room = Room {
            bytes: max_bytes,
            records: max_records.max(1),
            first: true,
        };
        let mut pos = from;
        if let Some(gap) = Gap::new(from, self.acked.min(self.next), GapReason::Acknowledged) {
            pos = gap.end();
            out.push(ReadPiece::Gap(gap));
        }
        let mut scanned = None;
        while room.records > 0 {
            let (at, run) = match self.find(pos) {
                None => break,
                Some((_, Part::Gap(gap))) => {
                    room.records -= 1;
                    out.extend(gap.clip(pos, u64::MAX).map(ReadPiece::Gap));
                    pos = gap.end();
                    continue;
                }
                Some((at, Part::Run(run))) => (at, run),
            };
            match self.read_run(core, at, run, pos, &room) {
                Ok(records) if records.is_empty() => break,
                Ok(records) => {
                    self.failed = (0, 0);
                    room.first = false;
                    room.records -= records.len();
                    let bytes: usize = records.iter().map(Bytes::len).sum();
                    room.bytes = room.bytes.saturating_sub(bytes);
                    let base = pos;
                    pos += records.len() as u64;
                    out.push(ReadPiece::Records { base, records });
                }
                Err(Failed::Damaged) if scanned == Some(pos) => self.segments[at].give_up(pos),
                Err(Failed::Damaged) => {
                    scanned = Some(pos);
                    if let Err(error) = self.scan_again(core, at) {
                        self.failing(at, pos, error, &out)?;
                    }
                }
                Err(Failed::Io(error)) => {
                    self.failing(at, pos, error, &out)?;
                    if !out.is_empty() {
                        break;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Returns the error, unless there is something to give first, or it was
    /// returned often enough: then the records are given up.
    fn failing(
        &mut self,
        at: usize,
        pos: u64,
        error: SpoolError,
        out: &[ReadPiece],
    ) -> Result<(), SpoolError> {
        self.cursor = None;
        if !out.is_empty() {
            return Ok(());
        }
        let before = if self.failed.1 == pos {
            self.failed.0
        } else {
            0
        };
        if before + 1 < TRIES {
            self.failed = (before + 1, pos);
            return Err(error);
        }
        self.failed = (0, 0);
        self.segments[at].give_up(pos);
        Ok(())
    }

    fn find(&self, pos: u64) -> Option<(usize, Part)> {
        let gap = |gaps: &std::collections::VecDeque<Gap>| {
            let at = gaps.partition_point(|gap| gap.end() <= pos);
            let found = gaps.get(at).filter(|gap| gap.first <= pos);
            found.map(|gap| (0, Part::Gap(*gap)))
        };
        let at = self.segments.partition_point(|s| s.end() <= pos);
        let inner = || Some((at, *self.segments.get(at)?.part(pos)?));
        gap(&self.front).or_else(inner).or_else(|| gap(&self.tail))
    }

    fn read_run(
        &mut self,
        core: &Core<F>,
        at: usize,
        run: Run,
        pos: u64,
        room: &Room,
    ) -> Result<Vec<Bytes>, Failed> {
        let first_seq = self.segments[at].header.first_seq;
        let path = self.dir.join(file_name(first_seq));
        let io = |error| Failed::Io(SpoolError::io("read", &path)(error));
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.first_seq == first_seq && cursor.seq == pos => cursor,
            _ => Cursor {
                file: core.fs.open(&path, false).map_err(io)?,
                first_seq,
                offset: run.offset,
                seq: run.first,
            },
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        'file: while cursor.seq <= run.last {
            let chunk = read_some(&core.fs, &cursor.file, cursor.offset, CHUNK).map_err(io)?;
            let mut taken = 0;
            while cursor.seq <= run.last {
                let Some((_, event, length)) =
                    frame_at(&chunk[taken..], self.lane).filter(|(seq, _, _)| *seq == cursor.seq)
                else {
                    if taken > 0 {
                        continue 'file;
                    }
                    if records.is_empty() {
                        return Err(Failed::Damaged);
                    }
                    break 'file;
                };
                if cursor.seq >= pos {
                    let fits =
                        bytes + event.len() <= room.bytes || room.first && records.is_empty();
                    if !fits || records.len() >= room.records {
                        break 'file;
                    }
                    bytes += event.len();
                    records.push(event);
                }
                taken += length;
                cursor.offset += length as u64;
                cursor.seq += 1;
            }
        }
        self.cursor = Some(cursor);
        Ok(records)
    }

    /// Looks at the whole segment again: something in it is damaged.
    fn scan_again(&mut self, core: &Core<F>, at: usize) -> Result<(), SpoolError> {
        let segment: &mut Segment = &mut self.segments[at];
        let path = self.dir.join(file_name(segment.header.first_seq));
        let file = core
            .fs
            .open(&path, false)
            .map_err(SpoolError::io("read", &path))?;
        let most = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
        let bytes = read_some(&core.fs, &file, 0, most).map_err(SpoolError::io("read", &path))?;
        let end = segment.end();
        let found = scan::scan(&bytes, self.lane, segment.header.first_seq, end);
        segment.take_in(found, Some(end));
        self.cursor = None;
        Ok(())
    }
}
