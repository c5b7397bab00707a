//! Letting go of segments: acknowledged, too many, too old.

use std::io;

use super::Core;
use super::error::SpoolError;
use super::fs::Fs;
use super::gap::{self, Gap};
use super::header::file_name;
use super::lane::Log;
use super::scan::Part;
use super::segment::Segment;
use crate::journal::item::GapReason;

impl<F: Fs> Log<F> {
    /// Writes META with what is new of this lane.
    fn note(&mut self, core: &mut Core<F>) -> Result<(), SpoolError> {
        self.describe(&mut core.meta.lanes[self.lane as usize]);
        core.meta.write(&core.fs, &core.dir)
    }

    pub(super) fn release(&mut self, core: &mut Core<F>, acked: u64) -> Result<(), SpoolError> {
        self.acknowledge(acked);
        let mut noted = None;
        loop {
            let written = self.writer.is_some() && self.segments.len() == 1;
            match self.segments.front() {
                Some(segment) if segment.end() <= self.acked && !written => {}
                _ => break,
            }
            // META first: otherwise a crash between leaves numbers that seem
            // lost. If it cannot be written the segments go even so, since on
            // a full disk that is what makes room; then the hole only has the
            // wrong name after a crash.
            if noted.is_none() {
                noted = Some(self.note(core));
            }
            self.unlink(core)?;
        }
        noted.unwrap_or(Ok(()))
    }

    pub(super) fn expire(&mut self, core: &mut Core<F>) -> Result<(), SpoolError> {
        if self.options.max_age.is_zero() {
            return Ok(());
        }
        let now = i64::try_from(core.fs.now().boot).unwrap_or(i64::MAX);
        let most = i64::try_from(self.options.max_age.as_nanos()).unwrap_or(i64::MAX);
        while self
            .segments
            .front()
            .is_some_and(|segment| now.saturating_sub(segment.newest) > most)
        {
            self.evict(core, GapReason::Expired)?;
        }
        Ok(())
    }

    /// Removes the oldest segment, acknowledged or not.
    pub(super) fn evict(
        &mut self,
        core: &mut Core<F>,
        reason: GapReason,
    ) -> Result<(), SpoolError> {
        let end = self.segments.front().map_or(0, Segment::end);
        if core.meta.lanes[self.lane as usize].next < end {
            // Nothing on the disk would tell of these numbers any more. If it
            // cannot be written there is still the jump after an unclean stop.
            let _ = self.note(core);
        }
        let Some(segment) = self.unlink(core)? else {
            return Ok(());
        };
        // What was told to be gone must not be there after a crash.
        let _ = core.fs.sync_dir(&self.dir);
        for part in segment.parts {
            match part {
                Part::Gap(gap) => gap::push(&mut self.front, gap),
                Part::Run(run) => {
                    if let Some(gone) = Gap::new(run.first, run.last + 1, reason) {
                        gap::push(&mut self.front, gone);
                    }
                    if let Some(gone) = Gap::new(run.first.max(self.acked), run.last + 1, reason) {
                        gap::push(&mut self.evicted, gone);
                    }
                }
            }
        }
        gap::trim(&mut self.front, self.acked);
        Ok(())
    }

    fn unlink(&mut self, core: &Core<F>) -> Result<Option<Segment>, SpoolError> {
        let Some(segment) = self.segments.front() else {
            return Ok(None);
        };
        let first_seq = segment.header.first_seq;
        let path = self.dir.join(file_name(first_seq));
        match core.fs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SpoolError::io("remove", &path)(error));
            }
            _ => {}
        }
        if self
            .cursor
            .as_ref()
            .is_some_and(|c| c.first_seq == first_seq)
        {
            self.cursor = None;
        }
        if self.segments.len() == 1 {
            self.writer = None;
        }
        Ok(self.segments.pop_front())
    }
}
