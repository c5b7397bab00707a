//! Cutting slots apart and joining them.

use super::super::item::GapReason;
use super::{Gap, LaneQueue, MAX_MARKERS, Slot, cost};

impl LaneQueue {
    /// Index of the slot that holds `seq`, or of the first one after it.
    pub(super) fn find(&self, seq: u64) -> usize {
        self.slots.partition_point(|slot| slot.last() < seq)
    }

    /// Makes `seq` the first number of a slot, if it lies within one; the
    /// slot's index.
    pub(super) fn cut(&mut self, seq: u64) -> usize {
        let at = self.find(seq);
        let Some(slot) = self.slots.get_mut(at) else {
            return at;
        };
        if slot.first() >= seq {
            return at;
        }
        let below = match slot {
            // Holds one number: its first is not below it.
            Slot::Record { .. } => return at,
            Slot::Disk { first, .. } => {
                let below = Slot::Disk {
                    first: *first,
                    last: seq - 1,
                };
                *first = seq;
                below
            }
            Slot::Gap(gap) => {
                let length = seq - gap.first;
                // What was sent lies before what was not.
                let below = Gap {
                    last: seq - 1,
                    events: gap.events.min(length),
                    undecided: gap.undecided.min(length),
                    ..*gap
                };
                gap.first = seq;
                gap.events -= below.events;
                gap.undecided -= below.undecided;
                Slot::Gap(below)
            }
        };
        self.slots.insert(at, below);
        self.markers += 1;
        if at < self.leading {
            self.leading += 1;
        }
        at + 1
    }

    /// The record or records at `at` become a gap.
    pub(super) fn lose_at(&mut self, at: usize, reason: GapReason) -> u64 {
        let sent_high = self.sent_high;
        let Some(slot) = self.slots.get_mut(at) else {
            return 0;
        };
        let (first, last) = (slot.first(), slot.last());
        match slot {
            Slot::Record { event, .. } => {
                self.totals.bytes -= cost(event);
                self.markers += 1;
            }
            Slot::Disk { .. } => {}
            Slot::Gap(_) => return 0,
        }
        let events = last - first + 1;
        // The collector's own word is final; for what it may have got before
        // the loss, its cursor will tell.
        let undecided = match reason {
            GapReason::Rejected | GapReason::Oversize => 0,
            _ => sent_high.clamp(first, last + 1) - first,
        };
        self.totals.lose(reason, events - undecided);
        self.totals.retained -= events - undecided;
        *slot = Slot::Gap(Gap {
            first,
            last,
            reason,
            events,
            undecided,
            announced: false,
        });
        events
    }

    /// Joins the slot at `at` with the one before it, if they say the same.
    pub(super) fn join_before(&mut self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else {
            return false;
        };
        let joined = match (self.slots.get(before), self.slots.get(at)) {
            (Some(Slot::Disk { first, .. }), Some(Slot::Disk { last, .. })) => Slot::Disk {
                first: *first,
                last: *last,
            },
            (Some(Slot::Gap(a)), Some(Slot::Gap(b)))
                if a.reason == b.reason && !a.announced && !b.announced =>
            {
                Slot::Gap(joined(a, b))
            }
            _ => return false,
        };
        self.replace_pair(before, joined);
        true
    }

    fn replace_pair(&mut self, before: usize, joined: Slot) {
        self.slots.remove(before + 1);
        self.slots[before] = joined;
        self.markers -= 1;
        if self.leading > before + 1 {
            self.leading -= 1;
        }
    }

    /// Keeps the number of slots without a record in bounds.
    pub(super) fn bound_markers(&mut self) {
        if self.markers <= MAX_MARKERS {
            return;
        }
        // To half, so that this is rare. First what is a gap already, then
        // records on disk between gaps, oldest first.
        for give_up in [false, true] {
            let mut at = 1;
            while at < self.slots.len() && self.markers > MAX_MARKERS / 2 {
                if give_up && matches!(self.slots.get(at), Some(Slot::Disk { .. })) {
                    self.lose_at(at, GapReason::SpoolEvicted);
                }
                if self.join_before(at) {
                    continue;
                }
                if let (Some(Slot::Gap(a)), Some(Slot::Gap(b))) =
                    (self.slots.get(at - 1), self.slots.get(at))
                {
                    let joined = joined(a, b);
                    self.replace_pair(at - 1, Slot::Gap(joined));
                    continue;
                }
                at += 1;
            }
        }
    }
}

fn joined(a: &Gap, b: &Gap) -> Gap {
    Gap {
        first: a.first,
        last: b.last,
        // The one that stands for more.
        reason: if b.events > a.events {
            b.reason
        } else {
            a.reason
        },
        events: a.events + b.events,
        undecided: a.undecided + b.undecided,
        announced: a.announced || b.announced,
    }
}
