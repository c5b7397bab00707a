#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::item::{BatchLimits, GapReason, Item, LaneTotals, Loaded};
use super::{LaneQueue, Piece, Recovery, SLOT_BYTES};

const LIMITS: BatchLimits = BatchLimits {
    bytes: 100,
    record: 50,
    records: 8,
};
const MAX_BYTES: usize = 20 * (SLOT_BYTES + 10);

/// One thing that happens to a lane.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Oversize,
    /// The stream takes so many items.
    Take(u8),
    /// The collector acknowledges a part of what it was sent.
    Acknowledge(u8),
    /// It rejects some of it.
    Reject(u8, u8),
    /// The stream breaks; the next goes on where the collector stands.
    Reconnect,
    /// The keeper writes.
    Write(u8),
    /// The spool drops its oldest records.
    Drop(u8),
    /// The keeper reads what is wanted.
    Read(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..60_u8).prop_map(Step::Append),
        1 => Just(Step::Oversize),
        4 => (1..4_u8).prop_map(Step::Take),
        3 => any::<u8>().prop_map(Step::Acknowledge),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(at, more)| Step::Reject(at, more)),
        1 => Just(Step::Reconnect),
        4 => (1..20_u8).prop_map(Step::Write),
        1 => (1..9_u8).prop_map(Step::Drop),
        4 => (1..9_u8).prop_map(Step::Read),
    ]
}

/// A lane with a disk and a collector that are simple enough to be right.
struct World {
    lane: LaneQueue,
    given: BTreeMap<u64, Bytes>,
    disk: BTreeMap<u64, Bytes>,
    /// End of what the stream has taken.
    cursor: u64,
    /// What the collector got as records, and as gaps.
    stored: BTreeMap<u64, Bytes>,
    gaps: BTreeSet<u64>,
    /// Everything below is settled at the collector.
    committed: u64,
}

impl World {
    fn new(lane: LaneQueue, given: BTreeMap<u64, Bytes>) -> Self {
        let at = lane.acked();
        Self {
            lane,
            disk: given.clone(),
            given,
            cursor: at,
            stored: BTreeMap::new(),
            gaps: BTreeSet::new(),
            committed: at,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(length) => {
                let seq = self.lane.next();
                let event = Bytes::from(vec![seq as u8; usize::from(length)]);
                assert_eq!(self.lane.append(event.clone()), seq);
                self.given.insert(seq, event);
            }
            Step::Oversize => {
                self.lane.append_oversize();
            }
            Step::Take(count) => {
                for _ in 0..count {
                    self.take();
                }
            }
            Step::Acknowledge(part) => {
                let room = self.cursor - self.lane.acked();
                let to = self.lane.acked() + room * u64::from(part) / 255;
                self.committed = self.committed.max(to);
                self.lane.acknowledge(to).unwrap();
            }
            Step::Reject(at, more) => {
                let room = self.cursor - self.lane.acked();
                let first = self.lane.acked() + room * u64::from(at) / 256;
                let last = first + u64::from(more);
                if last < self.cursor {
                    self.lane.reject(first, last).unwrap();
                    for seq in first..=last {
                        self.stored.remove(&seq);
                    }
                }
            }
            Step::Reconnect => self.cursor = self.lane.acked().max(self.committed),
            Step::Write(records) => {
                if let Some(run) = self.lane.unwritten(usize::from(records) * 20) {
                    let end = run.base + run.records.len() as u64;
                    self.disk.extend((run.base..).zip(run.records));
                    self.lane.written(run.base, end);
                }
            }
            Step::Drop(count) => {
                let oldest: Vec<u64> = self.disk.keys().copied().take(usize::from(count)).collect();
                if let (Some(first), Some(last)) = (oldest.first(), oldest.last()) {
                    self.disk.retain(|seq, _| seq > last);
                    self.lane.gone(*first, *last, GapReason::SpoolEvicted);
                }
            }
            Step::Read(count) => self.read(count),
        }
    }

    fn take(&mut self) {
        match self.lane.take(self.cursor, &LIMITS) {
            None => {}
            Some(Item::Gap {
                first,
                last,
                events,
                ..
            }) => {
                assert!(events == 0 || events == last - first + 1);
                assert!(first <= self.cursor && self.cursor <= last);
                self.gaps.extend(first..=last);
                self.cursor = last + 1;
            }
            Some(Item::Batch {
                base,
                records,
                bytes,
            }) => {
                assert_eq!(base, self.cursor);
                assert_eq!(bytes, records.iter().map(Bytes::len).sum::<usize>());
                for (seq, record) in (base..).zip(records) {
                    assert_eq!(self.given.get(&seq), Some(&record), "{seq}");
                    self.stored.insert(seq, record);
                    self.cursor = seq + 1;
                }
            }
        }
    }

    fn read(&mut self, count: u8) {
        let Some(from) = self.lane.wanted() else {
            return;
        };
        let records: Vec<Bytes> = (from..)
            .map_while(|seq| self.disk.get(&seq).cloned())
            .take(usize::from(count))
            .collect();
        self.lane.load(vec![Loaded::Records {
            base: from,
            records,
        }]);
    }

    fn check(&self) {
        let totals = self.lane.totals();
        assert_eq!(
            sum(&totals),
            totals.recovered + totals.appended,
            "{totals:?}"
        );
        let mut at = self.lane.acked();
        let mut bytes = 0;
        for slot in &self.lane.slots {
            assert_eq!(slot.first(), at, "{:?}", self.lane.slots);
            at = slot.last() + 1;
            if let super::Slot::Record { event, .. } = slot {
                bytes += super::cost(event);
            }
        }
        assert_eq!(at, self.lane.next());
        assert_eq!(bytes, totals.bytes);
        let markers = self
            .lane
            .slots
            .iter()
            .filter(|slot| !matches!(slot, super::Slot::Record { .. }))
            .count();
        assert_eq!(markers, self.lane.markers);
        let leading = self.lane.slots.iter().take(self.lane.leading);
        assert_eq!(
            leading
                .filter(|slot| matches!(slot, super::Slot::Record { .. }))
                .count(),
            0
        );
        // What was read back may stand above the bound for a moment.
        assert!(bytes <= (MAX_BYTES + 9 * (SLOT_BYTES + 60)) as u64);
    }

    /// No more faults: everything comes to an end.
    fn settle(&mut self) {
        self.cursor = self.lane.acked();
        for _ in 0..10_000 {
            self.take();
            self.read(4);
            if self.cursor == self.lane.next() {
                break;
            }
        }
        assert_eq!(self.cursor, self.lane.next());
        self.lane.acknowledge(self.cursor).unwrap();
        self.check();
        let totals = self.lane.totals();
        assert_eq!(totals.retained, 0);
        assert_eq!(self.lane.counted(), 0);
    }
}

fn sum(totals: &LaneTotals) -> u64 {
    let lost: u64 = totals.lost().iter().map(|(_, count)| count).sum();
    totals.local + totals.committed + lost + totals.retained
}

proptest! {
    /// Whatever happens in whatever order, every number is covered, no byte is
    /// changed, the books balance, and in the end nothing is left over.
    #[test]
    fn every_number_is_accounted_for(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new(LaneQueue::new(Some(MAX_BYTES)), BTreeMap::new());
        for step in steps {
            world.run(step);
            world.check();
        }
        world.settle();
        for seq in 0..world.lane.next() {
            let got = world.stored.contains_key(&seq) || world.gaps.contains(&seq);
            prop_assert!(got || seq < world.committed, "{}", seq);
        }
    }

    /// The same after a former run, whose spool has holes.
    #[test]
    fn a_former_run_s_records_are_accounted_for(
        lengths in prop::collection::vec((1..6_u64, 0..3_u8), 0..8),
        acked in 0..100_u64,
        counted in 0..10_u64,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut given = BTreeMap::new();
        let mut pieces = Vec::new();
        let mut next = acked;
        for (length, what) in lengths {
            let (first, last) = (next, next + length - 1);
            next = last + 1;
            pieces.push(match what {
                0 => {
                    given.extend((first..=last).map(|seq| (seq, Bytes::from(vec![7; seq as usize % 50]))));
                    Piece::Stored { first, last }
                }
                1 => Piece::Gap { first, last, reason: GapReason::Corrupt, events: length },
                _ => Piece::Gap { first, last, reason: GapReason::Restart, events: 0 },
            });
        }
        let former = Recovery { acked, next, unassigned: 0, counted, pieces };
        let mut world = World::new(LaneQueue::recovered(Some(MAX_BYTES), former), given);
        world.check();
        for step in steps {
            world.run(step);
            world.check();
        }
        world.settle();
    }
}

fn filled(lane: &mut LaneQueue, count: u8) {
    for byte in 0..count {
        lane.append(Bytes::from(vec![byte; 10]));
    }
}

#[test]
fn what_is_on_disk_leaves_the_memory_and_comes_back() {
    let mut lane = LaneQueue::new(Some(MAX_BYTES));
    for round in 0..10 {
        filled(&mut lane, 10);
        lane.written(round * 10, round * 10 + 10);
    }
    let totals = lane.totals();
    assert_eq!((totals.evicted, totals.retained), (0, 100));
    assert!(totals.bytes <= MAX_BYTES as u64 / 2);
    // From memory as far as it goes, then from disk.
    let mut cursor = 0;
    while let Some(Item::Batch { records, .. }) = lane.take(cursor, &LIMITS) {
        cursor += records.len() as u64;
    }
    assert!(cursor > 0);
    assert_eq!(lane.wanted(), Some(cursor));
    lane.load(vec![Loaded::Records {
        base: cursor,
        records: vec![Bytes::from_static(b"from disk")],
    }]);
    assert!(matches!(
        lane.take(cursor, &LIMITS),
        Some(Item::Batch { records, .. }) if records == [Bytes::from_static(b"from disk")]
    ));
}

#[test]
fn a_disk_that_does_not_write_costs_the_oldest() {
    let mut lane = LaneQueue::new(Some(MAX_BYTES));
    filled(&mut lane, 30);
    let totals = lane.totals();
    assert_eq!((totals.evicted, totals.retained), (10, 20));
    assert_eq!(lane.unwritten(1000).unwrap().base, 10);
}

#[test]
fn numbers_that_were_never_given_are_no_loss() {
    let pieces = vec![
        Piece::Stored { first: 5, last: 9 },
        Piece::Gap {
            first: 10,
            last: 99,
            reason: GapReason::Restart,
            events: 0,
        },
    ];
    let former = Recovery {
        acked: 5,
        next: 100,
        unassigned: 2,
        counted: 0,
        pieces,
    };
    // The collector has no more than the spool.
    let mut lane = LaneQueue::recovered(Some(MAX_BYTES), former.clone());
    assert_eq!(lane.unassigned_in_all(), 92);
    let gap = lane.take(10, &LIMITS);
    assert!(matches!(
        gap,
        Some(Item::Gap {
            first: 10,
            last: 99,
            events: 0,
            ..
        })
    ));
    lane.acknowledge(100).unwrap();
    let totals = lane.totals();
    assert_eq!((totals.recovered, totals.committed), (5, 5));
    assert_eq!(lane.unassigned(), 92);
    // It has three that the dead run had sent from memory.
    let mut lane = LaneQueue::recovered(Some(MAX_BYTES), former);
    lane.acknowledge(13).unwrap();
    let totals = lane.totals();
    assert_eq!((totals.committed, totals.recovered_late), (8, 3));
    assert_eq!(lane.unassigned_in_all(), 89);
}

#[test]
fn a_hole_that_a_killed_run_had_told_is_no_record() {
    let former = Recovery {
        acked: 0,
        next: 100,
        unassigned: 0,
        counted: 0,
        pieces: vec![
            Piece::Stored { first: 0, last: 1 },
            Piece::Gap {
                first: 2,
                last: 49,
                reason: GapReason::Restart,
                events: 0,
            },
            Piece::Stored {
                first: 50,
                last: 54,
            },
            Piece::Gap {
                first: 55,
                last: 99,
                reason: GapReason::Restart,
                events: 0,
            },
        ],
    };
    let mut lane = LaneQueue::recovered(Some(MAX_BYTES), former);
    // The run before had sent 55 to 57 from memory, and told of the hole from
    // 2 on before it was killed.
    lane.resume(58, 48).unwrap();
    let totals = lane.totals();
    assert_eq!((totals.committed, totals.recovered_late), (10, 3));
    assert_eq!(lane.unassigned(), 48);
    assert_eq!(lane.unassigned_in_all(), 48 + 42);
}

#[test]
fn gaps_without_number_are_joined() {
    let mut lane = LaneQueue::new(Some(MAX_BYTES));
    for _ in 0..20_000 {
        lane.append_oversize();
        filled(&mut lane, 1);
        lane.written(lane.next() - 1, lane.next());
    }
    assert!(
        lane.slots.len() <= super::MAX_MARKERS + 40,
        "{}",
        lane.slots.len()
    );
    let totals = lane.totals();
    assert_eq!(sum(&totals), 40_000);
    assert!(totals.spool_evicted > 0);
}
