//! The spool: records on disk until a collector has acknowledged them.
//!
//! `LOCK`, `META`, a directory per lane with segment files, and `quarantine`.
//! A segment is a header and frames (`culprit_proto::frame`), named by its
//! first number. Everything that can be seen from the segments is taken from
//! them at start; META has only the rest.
//!
//! A number is never used twice. After a run that ended without a last word
//! nobody knows which numbers it gave to records that were sent but not yet on
//! disk, so the next run goes on far above.

mod append;
mod drop;
mod error;
pub mod fs;
mod gap;
mod header;
mod inspect;
mod lane;
mod meta;
mod quarantine;
mod read;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod voids;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use culprit_proto::limits::{LANES, SPOOL_ID_BYTES};
use culprit_proto::v1::Lane;
use serde_json::Value;

pub use error::SpoolError;
pub use gap::Gap;
pub use header::HEADER_BYTES;
pub use inspect::{Inspection, LaneView, SegmentView, inspect};
pub use meta::{LaneMeta, MAX_META_BYTES, Meta};
pub use quarantine::{MAX_BYTES as MAX_QUARANTINE_BYTES, MAX_FILES as MAX_QUARANTINE_FILES};
pub use read::ReadPiece;

use fs::Fs;
use lane::Log;

/// Size of a segment unless told otherwise, bytes.
pub const SEGMENT_BYTES: u64 = 4 << 20;

const META: &str = "META";
/// META as it was when the last run began: where numbering goes on from should
/// META be damaged.
const META_START: &str = "META.start";
const LOCK: &str = "LOCK";
const QUARANTINE: &str = "quarantine";

/// No number reaches this.
const MAX_SEQ: u64 = 1 << 62;

/// What claims a number beyond this is damaged.
const MAX_FOUND_SEQ: u64 = 1 << 61;

/// Most troubles told one by one.
const MAX_TROUBLES: usize = 64;

/// Bounds of one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneOptions {
    /// Most bytes of segment files.
    pub max_bytes: u64,
    /// A segment goes when its newest record is older; zero: no limit.
    pub max_age: Duration,
}

/// Bounds of the spool.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// By lane.
    pub lanes: [LaneOptions; LANES],
    /// A segment is closed before it passes this ([`SEGMENT_BYTES`]), or a
    /// quarter of its lane's bytes where that is less.
    pub segment_bytes: u64,
}

/// The run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its epoch.
    pub epoch: u64,
    /// It stopped with a last word.
    pub clean: bool,
}

/// What was found at start.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Names the spool; made with it.
    pub spool_id: [u8; SPOOL_ID_BYTES],
    /// Of this run: higher than that of every earlier one.
    pub epoch: u64,
    /// The run before, if it is known.
    pub former: Option<Former>,
    /// Runs with this spool that ended without a last word.
    pub unclean_stops: u64,
    /// By lane.
    pub lanes: [RecoveredLane; LANES],
    /// What the caller last noted; null when unknown.
    pub account: Value,
    /// Files that were moved to quarantine, and deleted from it for its bound.
    pub quarantined: u64,
    /// See `quarantined`.
    pub quarantine_deleted: u64,
    /// What was wrong, one sentence each, safe to print.
    pub troubles: Vec<String>,
}

/// A lane as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLane {
    /// All below this was acknowledged.
    pub acked: u64,
    /// Number for the next record.
    pub next: u64,
    /// Of all numbers below `next`, those never given to an event.
    pub unassigned: u64,
    /// The same below `acked`.
    pub unassigned_acked: u64,
    /// Cover `acked..next` exactly, in order.
    pub pieces: Vec<Piece>,
}

/// A range of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Records that can be read.
    Stored {
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
        /// What they take, frames included. Of a range that begins within a
        /// segment, what the whole range takes.
        bytes: u64,
    },
    /// Records that cannot.
    Gap(Gap),
}

/// What a lane holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Number of the oldest record that is not acknowledged; `next` when there
    /// is none.
    pub first: u64,
    /// The first number that an append may have.
    pub next: u64,
    /// Below this everything is on disk or gone; only records from here on can
    /// be lost in a crash.
    pub synced: u64,
    /// Records that are not acknowledged.
    pub records: u64,
    /// Length of all segment files.
    pub bytes: u64,
    /// How many there are.
    pub segments: u64,
    /// Of all numbers that are acknowledged, those never given to an event.
    pub unassigned_acked: u64,
}

/// The parts that all lanes share.
struct Core<F: Fs> {
    fs: F,
    dir: PathBuf,
    meta: Meta,
    spool_id: [u8; SPOOL_ID_BYTES],
    boot_id: [u8; 16],
    segment_bytes: u64,
    _lock: F::Lock,
}

/// An open spool; it belongs to this process until it is dropped. An error
/// leaves it usable.
pub struct Spool<F: Fs> {
    core: Core<F>,
    lanes: [Log<F>; LANES],
}

impl<F: Fs> std::fmt::Debug for Spool<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("dir", &self.core.dir)
            .finish_non_exhaustive()
    }
}

impl<F: Fs> Spool<F> {
    /// Opens the spool in `dir`, or makes one (the directory too, mode 0700),
    /// and notes in META that a new run has begun. Waits up to `patience` while
    /// another agent holds it.
    ///
    /// # Errors
    /// The directory is locked, somebody else's, written by a newer agent, or
    /// the system refuses. Never because of damaged contents.
    pub fn open(
        fs: F,
        dir: &Path,
        node: &str,
        options: Options,
        patience: Duration,
    ) -> Result<(Self, Recovered), SpoolError> {
        recover::open(fs, dir, node, options, patience)
    }

    /// Writes records `base..`, after what was written before; a jump ahead of
    /// [`Held::next`] says that the numbers between will not come. Makes room
    /// first, see [`Spool::take_evicted`]. Not durable before [`Spool::sync`].
    ///
    /// # Errors
    /// The records from [`Held::next`] on are not in the spool, which may be
    /// fewer than before: records that were not synced yet can go with those
    /// of this call.
    pub fn append(&mut self, lane: Lane, base: u64, records: &[Bytes]) -> Result<(), SpoolError> {
        self.lanes[lane as usize].append(&mut self.core, base, records)
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// As with [`Spool::append`]: what was not durable is no longer in the
    /// spool. The file is not trusted again; the next append begins another.
    pub fn sync(&mut self, lane: Lane) -> Result<(), SpoolError> {
        self.lanes[lane as usize].sync(&self.core)
    }

    /// Records that were not acknowledged and went to keep the bounds, since
    /// this was last asked, oldest first. Gaps that were known already are not
    /// among them. Neighbours of one reason are one range; of more than 1024
    /// the oldest are merged.
    pub fn take_evicted(&mut self, lane: Lane) -> Vec<Gap> {
        self.lanes[lane as usize].evicted.drain(..).collect()
    }

    /// What can be sent from `from` on: pieces that follow each other, as many
    /// records as the bounds allow and at least one. Empty: nothing is there.
    ///
    /// # Errors
    /// The disk; at the third time in a row at one place, the records there are
    /// given up as corrupt instead.
    pub fn read(
        &mut self,
        lane: Lane,
        from: u64,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Vec<ReadPiece>, SpoolError> {
        self.lanes[lane as usize].read(&self.core, from, max_bytes, max_records)
    }

    /// All below `acked` is acknowledged: segments that are done with go, but
    /// for the one that is being written.
    ///
    /// # Errors
    /// META could not be written (the segments go even so) or a segment could
    /// not be removed (the next release tries again).
    pub fn release(&mut self, lane: Lane, acked: u64) -> Result<(), SpoolError> {
        self.lanes[lane as usize].release(&mut self.core, acked)
    }

    /// Drops segments that are too old.
    ///
    /// # Errors
    /// A segment could not be removed; the next call tries again.
    pub fn expire(&mut self) -> Result<(), SpoolError> {
        let mut result = Ok(());
        for log in &mut self.lanes {
            result = result.and(log.expire(&mut self.core));
        }
        result
    }

    /// What the lane holds.
    #[must_use]
    pub fn held(&self, lane: Lane) -> Held {
        self.lanes[lane as usize].held()
    }

    /// The lane's bound.
    #[must_use]
    pub fn max_bytes(&self, lane: Lane) -> u64 {
        self.lanes[lane as usize].options.max_bytes
    }

    /// Where the lane stands: `acked..next` in pieces.
    #[must_use]
    pub fn pieces(&self, lane: Lane) -> Vec<Piece> {
        self.lanes[lane as usize].pieces()
    }

    /// Writes META: where the lanes stand (`next`: the first number not given
    /// to any record, on disk or not), the caller's own account, and whether
    /// this is the last word. A clean note is void once more is appended.
    ///
    /// # Errors
    /// META could not be written, or would be larger than [`MAX_META_BYTES`].
    pub fn note(
        &mut self,
        clean: bool,
        acked: [u64; LANES],
        next: [u64; LANES],
        account: &Value,
    ) -> Result<(), SpoolError> {
        for (at, log) in self.lanes.iter_mut().enumerate() {
            log.acknowledge(acked[at]);
            log.given = log.given.max(next[at]).min(MAX_SEQ - 1);
        }
        let former = std::mem::replace(&mut self.core.meta.account, account.clone());
        let result = self.core.write_meta(&mut self.lanes, clean);
        if matches!(result, Err(SpoolError::Account { .. })) {
            self.core.meta.account = former;
        }
        result
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.core.dir
    }
}

impl<F: Fs> Core<F> {
    fn write_meta(&mut self, lanes: &mut [Log<F>; LANES], clean: bool) -> Result<(), SpoolError> {
        for (at, log) in lanes.iter_mut().enumerate() {
            log.describe(&mut self.meta.lanes[at]);
        }
        self.meta.clean = clean;
        self.meta.write(&self.fs, &self.dir)
    }
}

/// 16 random bytes: an id for a spool, or for a run that has none.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn random_id() -> io::Result<[u8; SPOOL_ID_BYTES]> {
    let mut id = [0; SPOOL_ID_BYTES];
    let mut filled = 0;
    while filled < id.len() {
        filled +=
            rustix::rand::getrandom(&mut id[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(id)
}

/// The node's name in META, for reading files of an agent that is gone.
#[must_use]
pub fn node_name(dir: &Path) -> Option<String> {
    meta::read(&fs::RealFs, dir).ok()?.node()
}

/// The run before, for one that cannot use the directory; as far as META can
/// be read.
#[must_use]
pub fn former(dir: &Path) -> Option<Former> {
    meta::read(&fs::RealFs, dir).ok()?.former()
}

/// The epoch of a run that begins at `wall` (nanoseconds since the Unix epoch).
/// Seconds since 1970 are the least: a node whose directory was lost must not
/// fall behind an epoch that a collector has seen and be refused for ever.
#[must_use]
pub fn next_epoch(former: Option<u64>, wall: u64) -> u64 {
    let floor = wall / 1_000_000_000;
    former.map_or(floor, |former| floor.max(former.saturating_add(1)))
}
