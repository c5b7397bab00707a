//! Writing.

use bytes::{Bytes, BytesMut};
use culprit_proto::frame;
use culprit_proto::limits::MAX_RECORD_BYTES;
use culprit_proto::v1::Record;

use super::error::SpoolError;
use super::fs::Fs;
use super::gap::{self, Gap};
use super::header::{HEADER_BYTES, HEADER_HOLES, Header, file_name};
use super::lane::{Log, Writer};
use super::scan::{MAX_PARTS, Part, Run};
use super::segment::Segment;
use super::{Core, MAX_SEQ};
use crate::journal::item::GapReason;

const HEADER: u64 = HEADER_BYTES as u64;

impl<F: Fs> Log<F> {
    pub(super) fn append(
        &mut self,
        core: &mut Core<F>,
        base: u64,
        records: &[Bytes],
    ) -> Result<(), SpoolError> {
        if base < self.next || base.saturating_add(records.len() as u64) >= MAX_SEQ {
            let next = self.next;
            return Err(SpoolError::Order { base, next });
        }
        if core.meta.clean {
            // The last word was not the last.
            core.meta.clean = false;
            core.meta.write(&core.fs, &core.dir)?;
        }
        let mut frames = BytesMut::new();
        let mut ends = Vec::with_capacity(records.len());
        for (seq, event) in (base..).zip(records) {
            self.frame(seq, event, &mut frames)?;
            ends.push(frames.len());
        }
        let mut done = 0;
        while done < ends.len() {
            let begin = done.checked_sub(1).map_or(0, |before| ends[before]);
            let seq = base + done as u64;
            let first = (ends[done] - begin) as u64;
            self.make_room(core, seq, first)?;
            let room = self.room(core, first);
            let count = ends[done..].partition_point(|end| (end - begin) as u64 <= room);
            let end = ends[done + count - 1];
            self.write(core, seq, count as u64, &frames[begin..end])?;
            done += count;
        }
        Ok(())
    }

    fn frame(&self, seq: u64, event: &Bytes, out: &mut BytesMut) -> Result<(), SpoolError> {
        let refused = SpoolError::Record {
            seq,
            bytes: event.len(),
            max: MAX_RECORD_BYTES,
        };
        if event.is_empty() || event.len() > MAX_RECORD_BYTES {
            return Err(refused);
        }
        let record = Record {
            lane: i32::try_from(self.lane).unwrap_or_default(),
            seq,
            event: event.clone(),
        };
        frame::encode(&record, out).map_err(|_| refused)
    }

    fn segment_bytes(&self, core: &Core<F>) -> u64 {
        core.segment_bytes.min(self.options.max_bytes / 4)
    }

    fn written(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.bytes)
    }

    /// Closes the segment when it is full, and evicts so that a frame of
    /// `bytes` fits into the lane.
    fn make_room(&mut self, core: &mut Core<F>, seq: u64, bytes: u64) -> Result<(), SpoolError> {
        let full = self.written() + bytes > self.segment_bytes(core)
            || self
                .segments
                .back()
                .is_some_and(|s| s.parts.len() + 2 > MAX_PARTS);
        if self.writer.is_some() && full {
            self.sync(core)?;
            self.writer = None;
        }
        let max = self.options.max_bytes;
        loop {
            let header = if self.writer.is_some() { 0 } else { HEADER };
            let need = header + bytes;
            if self.bytes() + need <= max {
                return Ok(());
            }
            if self.segments.is_empty() {
                return Err(SpoolError::Budget {
                    seq,
                    bytes: need,
                    max,
                });
            }
            self.evict(core, GapReason::SpoolEvicted)?;
        }
    }

    /// Bytes of frames that may be written now; at least `first`, for which
    /// there is room.
    fn room(&self, core: &Core<F>, first: u64) -> u64 {
        let written = match self.writer {
            Some(_) => self.written(),
            None => HEADER,
        };
        let header = if self.writer.is_some() { 0 } else { HEADER };
        let of_segment = self.segment_bytes(core).saturating_sub(written);
        let of_lane = self.options.max_bytes.saturating_sub(self.bytes() + header);
        of_segment.min(of_lane).max(first)
    }

    fn write(
        &mut self,
        core: &Core<F>,
        seq: u64,
        count: u64,
        frames: &[u8],
    ) -> Result<(), SpoolError> {
        if self.writer.is_none() {
            self.begin(core, seq)?;
        }
        let (Some(writer), Some(segment)) = (&self.writer, self.segments.back_mut()) else {
            return Ok(());
        };
        let at = segment.bytes;
        if let Err(source) = core.fs.write_at(&writer.file, at, frames) {
            let path = self.dir.join(file_name(segment.header.first_seq));
            // Half a frame must not stand before the next.
            let fresh = at == HEADER;
            if fresh || core.fs.set_len(&writer.file, at).is_err() {
                self.roll_back(core);
            }
            return Err(SpoolError::io("write", &path)(source));
        }
        segment.bytes += frames.len() as u64;
        let last = seq + count - 1;
        let bytes = frames.len() as u64;
        match segment.parts.last_mut() {
            Some(Part::Run(run)) if run.last + 1 == seq => {
                run.last = last;
                run.bytes += bytes;
            }
            _ => {
                // Numbers whose records will not come.
                let jump = Gap::new(segment.end(), seq, GapReason::Evicted);
                segment.parts.extend(jump.map(Part::Gap));
                segment.parts.push(Part::Run(Run {
                    first: seq,
                    last,
                    offset: at,
                    bytes,
                }));
            }
        }
        segment.newest = i64::try_from(core.fs.now().boot).unwrap_or(i64::MAX);
        self.next = last + 1;
        self.stored = self.stored.max(self.next);
        Ok(())
    }

    /// Begins a segment with record `seq`.
    fn begin(&mut self, core: &Core<F>, seq: u64) -> Result<(), SpoolError> {
        let now = core.fs.now();
        let cover = self.tail.front().map_or(self.next, |gap| gap.first);
        let mut before = self.tail.clone();
        if let Some(jump) = Gap::new(self.next, seq, GapReason::Evicted) {
            gap::push(&mut before, jump);
        }
        let holes: Vec<_> = before
            .iter()
            .filter(|gap| gap.is_hole())
            .map(|gap| (gap.first, gap.end()))
            .collect();
        let header = Header {
            lane: self.lane,
            spool_id: core.spool_id,
            boot_id: core.boot_id,
            epoch: core.meta.epoch,
            first_seq: seq,
            prev_end: self.stored.min(seq),
            unassigned: self.unassigned,
            created_wall: now.wall,
            created_boot: now.boot,
            holes: holes[holes.len().saturating_sub(HEADER_HOLES)..].to_vec(),
        };
        let path = self.dir.join(file_name(seq));
        let file = core
            .fs
            .create(&path)
            .map_err(SpoolError::io("make", &path))?;
        if let Err(source) = core.fs.write_at(&file, 0, &header.encode()) {
            // Whatever remains of it is overwritten, or is no segment at the
            // next start.
            let _ = core.fs.set_len(&file, 0);
            let _ = core.fs.remove(&path);
            return Err(SpoolError::io("write", &path)(source));
        }
        self.segments.push_back(Segment {
            header,
            cover,
            parts: before.into_iter().map(Part::Gap).collect(),
            bytes: HEADER,
            newest: i64::try_from(now.boot).unwrap_or(i64::MAX),
        });
        self.writer = Some(Writer {
            file,
            synced_bytes: 0,
            synced_end: self.next,
            named: false,
        });
        self.tail.clear();
        Ok(())
    }

    pub(super) fn sync(&mut self, core: &Core<F>) -> Result<(), SpoolError> {
        let (Some(writer), Some(segment)) = (&mut self.writer, self.segments.back()) else {
            return Ok(());
        };
        if writer.synced_bytes == segment.bytes {
            return Ok(());
        }
        let path = self.dir.join(file_name(segment.header.first_seq));
        let mut result = core
            .fs
            .sync(&writer.file)
            .map_err(SpoolError::io("sync", &path));
        if result.is_ok() && !writer.named {
            result = core
                .fs
                .sync_dir(&self.dir)
                .map_err(SpoolError::io("sync", &self.dir));
        }
        match result {
            Ok(()) => {
                writer.named = true;
                writer.synced_bytes = segment.bytes;
                writer.synced_end = self.next;
            }
            // After a failed sync the kernel calls the pages clean, so asking
            // again would lie.
            Err(_) => self.roll_back(core),
        }
        result
    }

    /// The segment that is being written goes back to what is durable, and is
    /// not written again.
    fn roll_back(&mut self, core: &Core<F>) {
        let (Some(writer), Some(segment)) = (self.writer.take(), self.segments.back_mut()) else {
            return;
        };
        self.cursor = None;
        let path = self.dir.join(file_name(segment.header.first_seq));
        let end = writer.synced_end;
        // Frames that stay behind have numbers that the next segment begins
        // with, and are passed over by a scan.
        let bytes = match core.fs.set_len(&writer.file, writer.synced_bytes) {
            Ok(()) => writer.synced_bytes,
            Err(_) => core.fs.bytes(&writer.file).unwrap_or(segment.bytes),
        };
        self.next = end;
        self.stored = self.stored.min(end);
        if let Some(gaps) = segment.cut(end, bytes) {
            self.tail = gaps;
            self.segments.pop_back();
            let _ = core.fs.remove(&path);
        }
    }
}
