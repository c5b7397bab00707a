//! The spool as the keeper's disk, and what a former run left in it.

use bytes::Bytes;
use culprit_proto::v1::Lane;

use super::account::{Account, Base, Lost};
use super::item::{GapReason, Loaded};
use super::keeper::Disk;
use super::lane::{self, Recovery};
use super::spool::fs::Fs;
use super::spool::{Gap, Piece, ReadPiece, Recovered, Spool, SpoolError};
use crate::pipeline::agent::Former;

impl<F: Fs> Disk for Spool<F> {
    type Error = SpoolError;

    fn append(&mut self, lane: Lane, base: u64, records: &[Bytes]) -> Result<(), SpoolError> {
        Self::append(self, lane, base, records)
    }

    fn sync(&mut self, lane: Lane) -> Result<(), SpoolError> {
        Self::sync(self, lane)
    }

    fn next(&self, lane: Lane) -> u64 {
        self.held(lane).next
    }

    fn read(
        &mut self,
        lane: Lane,
        from: u64,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Vec<Loaded>, SpoolError> {
        let pieces = Self::read(self, lane, from, max_bytes, max_records)?;
        Ok(pieces
            .into_iter()
            .map(|piece| match piece {
                ReadPiece::Records { base, records } => Loaded::Records { base, records },
                ReadPiece::Gap(Gap {
                    first,
                    last,
                    reason,
                    ..
                }) => Loaded::Gap {
                    first,
                    last,
                    reason,
                },
            })
            .collect())
    }

    fn take_gone(&mut self, lane: Lane) -> Vec<(u64, u64, GapReason)> {
        self.take_evicted(lane)
            .into_iter()
            .map(|gap| (gap.first, gap.last, gap.reason))
            .collect()
    }

    fn expire(&mut self) {
        if let Err(error) = Self::expire(self) {
            tracing::debug!(%error, "an old segment stays for now");
        }
    }

    fn note(&mut self, clean: bool, account: &Account) -> Result<(), SpoolError> {
        let [acked, next] = [
            account.lanes.each_ref().map(|lane| lane.mark.acked),
            account.lanes.each_ref().map(|lane| lane.mark.next),
        ];
        // Plain counts and strings: this cannot fail.
        let value = serde_json::to_value(account).unwrap_or_default();
        Self::note(self, clean, acked, next, &value)?;
        // Noted: files of what is acknowledged may go.
        for lane in super::LANES {
            if let Err(error) = self.release(lane, acked[lane as usize]) {
                tracing::debug!(%error, "an acknowledged segment stays for now");
            }
        }
        Ok(())
    }

    fn bytes(&self, lane: Lane) -> (u64, u64) {
        let held = self.held(lane);
        (held.bytes, self.max_bytes(lane))
    }
}

/// What the runs before this one left.
#[must_use]
pub fn former(recovered: &Recovered) -> Former {
    let account: Account = serde_json::from_value(recovered.account.clone()).unwrap_or_default();
    let mut former = Former::default();
    for (at, (lane, mut life)) in recovered.lanes.iter().zip(account.lanes).enumerate() {
        let recovery = Recovery {
            acked: lane.acked,
            next: lane.next,
            // The spool does not know which of the numbers that it never saw
            // had been given after all.
            unassigned: lane.unassigned_acked.saturating_sub(life.late),
            counted: life.mark.counted,
            pieces: lane.pieces.iter().map(piece).collect(),
        };
        let events: u64 = recovery.pieces.iter().map(lane::Piece::events).sum();
        let appended = lane.next - lane.unassigned.saturating_sub(life.late).min(lane.next);
        let counted = recovery.counted.min(recovery.gap_events());
        // What was too large for the collector, or rejected, is on disk even so
        // and comes again: it is not lost yet.
        take_back(&mut life.spool_lost, recovery.counted - counted);
        former.base[at] = Base::new(life, appended, events - counted);
        former.lanes[at] = recovery;
    }
    former
}

/// Takes `count` events off what was lost for reasons that leave a record on
/// disk.
fn take_back(lost: &mut Lost, mut count: u64) {
    for reason in [GapReason::Oversize, GapReason::Rejected] {
        if let Some(had) = lost.get_mut(reason.as_str()) {
            let back = count.min(*had);
            *had -= back;
            count -= back;
        }
    }
    lost.retain(|_, count| *count > 0);
}

fn piece(piece: &Piece) -> lane::Piece {
    match *piece {
        Piece::Stored { first, last, .. } => lane::Piece::Stored { first, last },
        Piece::Gap(Gap {
            first,
            last,
            reason,
            events,
        }) => lane::Piece::Gap {
            first,
            last,
            reason,
            events,
        },
    }
}
