//! A model of the collector, and whatever a network can do to the two.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{
    Ack, AgentMessage, CollectorMessage, Lane, LaneResume, Reject, Resync, Welcome, agent_message,
    collector_message::Message,
};
use proptest::prelude::*;

use super::session::{Breach, Session};
use crate::journal::{Journal, Limits};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    Gap,
    Rejected,
}

/// What a collector does, for one lane, by the protocol.
#[derive(Default)]
struct Model {
    fates: BTreeMap<u64, Fate>,
    expected: u64,
    credit: u64,
    max_record: u32,
    reject_every: u64,
}

impl Model {
    fn welcome(&self, lane: Lane) -> CollectorMessage {
        wrap(Message::Welcome(Welcome {
            lanes: vec![LaneResume {
                lane: lane.into(),
                resume_from: self.expected,
                ..LaneResume::default()
            }],
            max_batch_bytes: 2000,
            max_record_bytes: self.max_record,
            credit_bytes: self.credit,
        }))
    }

    fn put(&mut self, seq: u64, fate: Fate) {
        assert_eq!(seq, self.expected, "in order, without a hole, never twice");
        self.fates.insert(seq, fate);
        self.expected += 1;
    }

    fn receive(&mut self, message: AgentMessage) -> Vec<CollectorMessage> {
        match message.message.unwrap() {
            agent_message::Message::Batch(batch) => {
                if batch.base_seq > self.expected {
                    let (lane, expected) = (batch.lane, self.expected);
                    return vec![wrap(Message::Resync(Resync { lane, expected }))];
                }
                let mut answers = Vec::new();
                let mut crc = 0;
                for (index, record) in batch.records.iter().enumerate() {
                    let seq = batch.base_seq + index as u64;
                    crc = crc32c::crc32c_append(crc, record);
                    assert_eq!(u64::from_le_bytes(record[..8].try_into().unwrap()), seq);
                    if seq < self.expected {
                        continue;
                    }
                    if self.reject_every > 0 && seq % self.reject_every == 3 {
                        self.put(seq, Fate::Rejected);
                        let reject = Reject {
                            lane: batch.lane,
                            first: seq,
                            last: seq,
                            reason: "x".into(),
                        };
                        answers.push(wrap(Message::Reject(reject)));
                    } else {
                        self.put(seq, Fate::Stored);
                    }
                }
                assert_eq!(crc, batch.crc);
                answers.push(self.ack(batch.lane));
                answers
            }
            agent_message::Message::Gap(gap) => {
                if gap.first > self.expected {
                    let (lane, expected) = (gap.lane, self.expected);
                    return vec![wrap(Message::Resync(Resync { lane, expected }))];
                }
                for seq in self.expected..=gap.last {
                    self.put(seq, Fate::Gap);
                }
                vec![self.ack(gap.lane)]
            }
            _ => vec![],
        }
    }

    fn ack(&self, lane: i32) -> CollectorMessage {
        let (committed, credit_bytes) = (self.expected, self.credit);
        wrap(Message::Ack(Ack {
            lane,
            committed,
            credit_bytes,
        }))
    }

    fn count(&self, fate: Fate) -> u64 {
        self.fates.values().filter(|f| **f == fate).count() as u64
    }
}

fn wrap(message: Message) -> CollectorMessage {
    CollectorMessage {
        message: Some(message),
    }
}

/// An event that names its own sequence number.
fn event(seq: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&seq.to_le_bytes());
    Bytes::from(bytes)
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Send,
    /// The network takes the oldest message to the collector.
    Deliver,
    /// The network takes the oldest answer to the agent.
    Answer,
    /// The connection breaks: what is on its way, both ways, is gone.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (8..600_usize).prop_map(Step::Append),
        1 => Just(Step::Append(70_000)),
        4 => Just(Step::Send),
        4 => Just(Step::Deliver),
        3 => Just(Step::Answer),
        1 => Just(Step::Break),
    ]
}

const LANE: Lane = Lane::Signal;

struct World {
    journal: Journal,
    model: Model,
    session: Session,
    there: VecDeque<AgentMessage>,
    back: VecDeque<CollectorMessage>,
    appended: u64,
}

impl World {
    fn new(queue: usize, credit: u64, max_record: u32, reject_every: u64) -> Self {
        let journal = Journal::new(Limits {
            lanes: Some([queue; 3]),
            recorder: 0,
        });
        let model = Model {
            credit,
            max_record,
            reject_every,
            ..Model::default()
        };
        let mut world = Self {
            journal,
            model,
            session: Session::new(&[LANE]),
            there: VecDeque::new(),
            back: VecDeque::new(),
            appended: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.session = Session::new(&[LANE]);
        self.there.clear();
        self.back.clear();
        self.session
            .receive(self.model.welcome(LANE), &self.journal)
            .unwrap();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(size) => {
                let event = event(self.appended, *size);
                self.journal.append(EventKind::TcpConnect, 0, event);
                self.appended += 1;
            }
            Step::Send => self.there.extend(self.session.next(&self.journal)),
            Step::Deliver => {
                if let Some(message) = self.there.pop_front() {
                    self.back.extend(self.model.receive(message));
                }
            }
            Step::Answer => {
                if let Some(message) = self.back.pop_front() {
                    self.session.receive(message, &self.journal).unwrap();
                }
            }
            Step::Break => self.connect(),
        }
        let t = self.journal.totals(LANE);
        assert_eq!(
            t.appended,
            t.committed + t.evicted + t.oversize + t.rejected + t.retained
        );
    }

    fn quiet(&mut self) {
        let mut idle = 0;
        while self.journal.cursor(LANE).acked < self.appended {
            let before = self.journal.cursor(LANE).acked;
            for _ in 0..3 {
                self.take(&Step::Send);
            }
            for _ in 0..8 {
                self.take(&Step::Deliver);
                for _ in 0..40 {
                    self.take(&Step::Answer);
                }
            }
            idle = if self.journal.cursor(LANE).acked > before {
                0
            } else {
                idle + 1
            };
            assert!(idle < 5, "no progress at {before}");
        }
    }
}

proptest! {
    /// Every record ends in exactly one place, and both sides agree which.
    #[test]
    fn nothing_is_missing_and_nothing_is_there_twice(
        steps in prop::collection::vec(step(), 1..300),
        queue in 500..6000_usize,
        credit in 1..8000_u64,
        max_record in prop_oneof![Just(0_u32), 300..700_u32],
        reject_every in prop_oneof![Just(0_u64), 4..9_u64],
    ) {
        let mut world = World::new(queue, credit, max_record, reject_every);
        for step in &steps {
            world.take(step);
        }
        world.connect();
        world.quiet();
        let totals = world.journal.totals(LANE);
        let seqs: Vec<u64> = world.model.fates.keys().copied().collect();
        prop_assert_eq!(seqs, (0..world.appended).collect::<Vec<_>>());
        prop_assert_eq!(totals.retained, 0);
        prop_assert_eq!(totals.bytes, 0);
        // An answer that was lost on the way hides a rejection from the agent,
        // which then takes the record for stored: the collector has the count.
        prop_assert!(totals.rejected <= world.model.count(Fate::Rejected));
        prop_assert_eq!(
            totals.committed + totals.rejected,
            world.model.count(Fate::Stored) + world.model.count(Fate::Rejected)
        );
        prop_assert_eq!(totals.evicted + totals.oversize, world.model.count(Fate::Gap));
    }
}

#[test]
fn a_collector_that_lost_its_store_is_told_of_the_gap() {
    let mut world = World::new(10_000, 10_000, 0, 0);
    for _ in 0..5 {
        world.take(&Step::Append(100));
    }
    world.quiet();
    world.take(&Step::Append(100));
    world.model = Model {
        credit: 10_000,
        ..Model::default()
    };
    world.connect();
    world.quiet();
    assert_eq!(
        (
            world.model.count(Fate::Gap),
            world.model.count(Fate::Stored)
        ),
        (5, 1)
    );
    let totals = world.journal.totals(LANE);
    assert_eq!((totals.committed, totals.evicted), (6, 0));
}

#[test]
fn a_hole_is_sent_again() {
    let mut world = World::new(100_000, 100_000, 0, 0);
    for _ in 0..40 {
        world.take(&Step::Append(500));
    }
    for _ in 0..3 {
        world.take(&Step::Send);
    }
    world.there.pop_front();
    world.quiet();
    assert_eq!(world.model.count(Fate::Stored), 40);
}

#[test]
fn the_credit_bounds_what_is_on_its_way() {
    let mut world = World::new(100_000, 2500, 0, 0);
    for _ in 0..40 {
        world.take(&Step::Append(500));
    }
    for _ in 0..20 {
        world.take(&Step::Send);
    }
    let bytes: usize = world
        .there
        .iter()
        .filter_map(|message| match message.message.as_ref() {
            Some(agent_message::Message::Batch(batch)) => {
                Some(batch.records.iter().map(Bytes::len).sum::<usize>())
            }
            _ => None,
        })
        .sum();
    assert!((2000..=2500).contains(&bytes), "{bytes}");
    assert!(world.session.owed(&world.journal));
}

#[test]
fn a_collector_that_breaks_the_protocol_is_left() {
    let mut world = World::new(10_000, 10_000, 0, 0);
    world.take(&Step::Append(100));
    let ack = |committed, lane: Lane| {
        wrap(Message::Ack(Ack {
            lane: lane.into(),
            committed,
            credit_bytes: 1,
        }))
    };
    let too_far = world.session.receive(ack(1, LANE), &world.journal);
    assert!(matches!(too_far, Err(Breach::NeverSent(_))), "{too_far:?}");
    let other = world.session.receive(ack(0, Lane::Bulk), &world.journal);
    assert!(matches!(other, Err(Breach::Lane(2))), "{other:?}");
    let twice = world
        .session
        .receive(world.model.welcome(LANE), &world.journal);
    assert!(matches!(twice, Err(Breach::Order(_))), "{twice:?}");
    // A collector that claims to have what was never sent would make the agent
    // skip it: the records stay.
    let ahead = Model {
        expected: 9,
        ..Model::default()
    }
    .welcome(LANE);
    let mut session = Session::new(&[LANE]);
    let ahead = session.receive(ahead, &world.journal);
    assert!(
        matches!(
            ahead,
            Err(Breach::Ahead {
                said: 9,
                next: 1,
                ..
            })
        ),
        "{ahead:?}"
    );
    assert_eq!(world.journal.totals(LANE).retained, 1);
    // Nothing is sent before Welcome.
    assert_eq!(Session::new(&[LANE]).next(&world.journal), None);
}

#[test]
fn a_resync_that_was_overtaken_is_no_breach() {
    let mut world = World::new(10_000, 10_000, 0, 0);
    for _ in 0..3 {
        world.take(&Step::Append(100));
        world.take(&Step::Send);
    }
    // The first of three batches came damaged: each of the three is asked for.
    world.there.clear();
    let resync = wrap(Message::Resync(Resync {
        lane: LANE.into(),
        expected: 0,
    }));
    let hear = |world: &mut World, message| world.session.receive(message, &world.journal);
    assert_eq!(hear(&mut world, resync.clone()), Ok(()));
    world.take(&Step::Send);
    assert_eq!(hear(&mut world, resync.clone()), Ok(()));
    assert_eq!(hear(&mut world, resync), Ok(()));
    world.take(&Step::Deliver);
    let answer = world.back.pop_front().unwrap();
    assert_eq!(hear(&mut world, answer), Ok(()));
    assert_eq!(world.journal.cursor(LANE).acked, 3);
    // What is stored meanwhile is not sent a third time.
    assert_eq!(world.session.next(&world.journal), None);
}
