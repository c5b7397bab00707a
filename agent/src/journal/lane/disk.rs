//! The keeper's side of a lane: what is to be written, and what was read.

use bytes::Bytes;

use super::super::item::{GapReason, Loaded};
use super::{LaneQueue, Slot, cost};

/// Records to be written to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// Sequence number of the first.
    pub base: u64,
    /// Encoded events, never empty.
    pub records: Vec<Bytes>,
}

impl LaneQueue {
    /// The oldest records that are not on disk, without a hole, at most
    /// `max_bytes` of them (one at least); `None` when all is written.
    #[must_use]
    pub fn unwritten(&self, max_bytes: usize) -> Option<Unwritten> {
        let mut found = Unwritten {
            base: 0,
            records: Vec::new(),
        };
        let mut bytes = 0;
        for slot in self.slots.iter().skip(self.find(self.write_from)) {
            match slot {
                Slot::Record { seq, event, .. } => {
                    bytes += event.len();
                    if bytes > max_bytes && !found.records.is_empty() {
                        break;
                    }
                    if found.records.is_empty() {
                        found.base = *seq;
                    }
                    found.records.push(event.clone());
                }
                _ if found.records.is_empty() => {}
                _ => break,
            }
        }
        (!found.records.is_empty()).then_some(found)
    }

    /// All records below `end` are on disk now, as far as they were not.
    pub fn written(&mut self, base: u64, end: u64) {
        let from = self.find(base.max(self.acked));
        for slot in self.slots.iter_mut().skip(from) {
            match slot {
                Slot::Record { seq, on_disk, .. } if *seq < end => *on_disk = true,
                slot if slot.first() >= end => break,
                _ => {}
            }
        }
        self.write_from = self.write_from.max(end);
        // Half of the bound stays free for what comes while the disk is slow.
        if let Some(max_bytes) = self.max_bytes {
            self.unload(max_bytes as u64 / 2);
        }
    }

    /// The disk has nothing from `next` on: what is in memory is to be written
    /// again, the rest is lost.
    pub fn unwritten_from(&mut self, next: u64) {
        if next < self.next {
            self.gone(next, self.next - 1, GapReason::Corrupt);
        }
        self.write_from = self.write_from.min(next).max(self.acked);
    }

    /// Lets records that are on disk go out of memory until no more than
    /// `target` bytes are held, the newest first: the oldest are sent next.
    pub(super) fn unload(&mut self, target: u64) {
        if self.totals.bytes <= target {
            return;
        }
        let end = self.find(self.write_from);
        let mut start = end;
        while start > 0 && self.totals.bytes > target {
            start -= 1;
            if let Some(slot) = self.slots.get_mut(start)
                && let Slot::Record {
                    seq,
                    event,
                    on_disk: true,
                } = slot
            {
                self.totals.bytes -= cost(event);
                let seq = *seq;
                *slot = Slot::Disk {
                    first: seq,
                    last: seq,
                };
                self.markers += 1;
            }
        }
        self.join_from(start);
        self.bound_markers();
    }

    /// Joins neighbours from slot `start` on.
    fn join_from(&mut self, start: usize) {
        let rest = self.slots.split_off(start);
        for slot in rest {
            if let Slot::Disk { last, .. } = slot
                && let Some(Slot::Disk { last: before, .. }) = self.slots.back_mut()
            {
                *before = last;
                self.markers -= 1;
            } else {
                self.slots.push_back(slot);
            }
        }
        self.leading = self.leading.min(start.saturating_sub(1));
    }

    /// The record on disk that a stream waits for.
    #[must_use]
    pub fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    /// Takes what the spool has read.
    pub fn load(&mut self, pieces: Vec<Loaded>) {
        self.wanted = None;
        for piece in pieces {
            match piece {
                Loaded::Gap {
                    first,
                    last,
                    reason,
                } => self.gone(first, last, reason),
                Loaded::Records { base, records } => self.load_records(base, records),
            }
        }
    }

    /// Puts records in the place of what is on disk alone. What has been
    /// acknowledged or lost since it was asked for is left out.
    fn load_records(&mut self, base: u64, records: Vec<Bytes>) {
        let end = base + records.len() as u64;
        self.cut(end);
        let start = self.cut(base.max(self.acked));
        let rest = self.slots.split_off(start);
        for slot in rest {
            match slot {
                Slot::Disk { first, last } if last < end && first >= base => {
                    self.markers -= 1;
                    for seq in first..=last {
                        // Within the range that was read.
                        let Some(event) = usize::try_from(seq - base)
                            .ok()
                            .and_then(|at| records.get(at))
                        else {
                            continue;
                        };
                        self.totals.bytes += cost(event);
                        self.slots.push_back(Slot::Record {
                            seq,
                            event: event.clone(),
                            on_disk: true,
                        });
                    }
                }
                slot => self.slots.push_back(slot),
            }
        }
        self.leading = self.leading.min(start);
    }

    /// Records `first..=last` are not on disk any more.
    pub fn gone(&mut self, first: u64, last: u64, reason: GapReason) {
        if last < self.acked {
            return;
        }
        self.cut(last + 1);
        let mut at = self.cut(first.max(self.acked));
        while let Some(slot) = self.slots.get_mut(at)
            && slot.first() <= last
        {
            match slot {
                // Still in memory, and can still be sent.
                Slot::Record { on_disk, .. } => {
                    *on_disk = false;
                    at += 1;
                }
                Slot::Gap(_) => at += 1,
                Slot::Disk { .. } => {
                    self.lose_at(at, reason);
                    if !self.join_before(at) {
                        at += 1;
                    }
                }
            }
        }
        self.bound_markers();
    }
}
