//! Where every event is, whatever an agent does: its sequence numbers and the
//! node's account add up after each step, and at rest they are the truth.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{CREDIT, connect, encoded, hello};
use bytes::Bytes;
use culprit_collector::protocol::check_batch;
use culprit_collector::store::{Answer, Bounds, Job, Message, Reader, StreamKey, Writer};
use culprit_proto::v1::{
    Batch, Gap, Lane, LaneAccount, LaneReport, LaneStatus, LossReport, NodeAccount,
};
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};

const BOUNDS: Bounds = Bounds {
    max_bytes: 1 << 30,
    max_age: 0,
};

#[derive(Clone, Debug)]
enum Step {
    /// The kernel has events, some of which no ring had room for.
    See(u64, u64),
    /// The agent reads its ring.
    Read(u64),
    /// What was read gets numbers.
    Append(u64),
    /// The spool lets go of its oldest.
    Evict(u64),
    /// From so far back, so many numbers go to the collector.
    Send(u64, u64),
    /// Another collector acknowledges.
    Elsewhere(u64),
    /// The agent says where it stands.
    Report,
    /// A report that was under way for long.
    OldReport(usize),
    /// The agent stops, cleanly or not, and starts again.
    Restart(bool),
    /// The collector does.
    NewCollector,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..9_u64, 0..3_u64).prop_map(|(n, lost)| Step::See(n, lost)),
        (0..9_u64).prop_map(Step::Read),
        (0..9_u64).prop_map(Step::Append),
        (0..4_u64).prop_map(Step::Evict),
        (0..4_u64, 0..12_u64).prop_map(|(back, n)| Step::Send(back, n)),
        (0..3_u64).prop_map(Step::Elsewhere),
        Just(Step::Report),
        (0..9_usize).prop_map(Step::OldReport),
        any::<bool>().prop_map(Step::Restart),
        Just(Step::NewCollector),
    ]
}

/// What a sequence number stands for.
#[derive(Clone, Copy, PartialEq)]
enum Number {
    Event,
    Evicted,
    Unassigned,
}

/// Every fifth record is no event.
fn is_bad(seq: u64) -> bool {
    seq % 5 == 4
}

/// An agent that knows the truth, and a collector's store.
struct World<'a> {
    dir: &'a Path,
    writer: Option<Writer>,
    stream: Option<StreamKey>,
    epoch: u64,
    numbers: Vec<Number>,
    acked: usize,
    /// What the collector's cursor jumped over because of `acked`.
    elsewhere: u64,
    report: LaneReport,
    reports: Vec<(LaneReport, u64)>,
    unclean: u64,
}

impl World<'_> {
    fn hello(&mut self) {
        let unassigned = |numbers: &[Number]| {
            numbers.iter().filter(|n| **n == Number::Unassigned).count() as u64
        };
        let mut hello = hello(self.epoch, self.numbers.len() as u64, self.acked as u64);
        hello.lanes[0].unassigned = unassigned(&self.numbers[..self.acked]);
        let lanes = vec![Lane::Signal];
        let (to, answer) = oneshot::channel();
        let (end, _) = oneshot::channel();
        let handle = self.writer.as_ref().unwrap().handle();
        let before = lane(self.dir).map_or(0, |l| l.committed as usize);
        assert!(handle.send(Job::Hello(Box::new(hello), lanes, to, end)));
        let opened = answer.blocking_recv().unwrap().unwrap();
        let from = opened.lanes[0].resume_from as usize;
        assert_eq!(from, before.max(self.acked));
        let jumped = &self.numbers[before..from];
        self.elsewhere += jumped.len() as u64 - unassigned(jumped);
        self.acked = from;
        self.stream = Some(opened.stream);
    }

    fn say(&mut self, message: Message) {
        if self.stream.is_none() {
            self.hello();
        }
        let handle = self.writer.as_ref().unwrap().handle();
        let room = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(handle.room(Lane::Signal, 1))
            .unwrap();
        let (to, mut answers) = mpsc::channel(1);
        assert!(handle.send(Job::Message(self.stream.unwrap(), message, to, room)));
        assert!(matches!(answers.blocking_recv(), Some(Answer::Done(_))));
        self.acked = lane(self.dir).map_or(0, |l| l.committed as usize);
    }

    /// Sends the numbers `first..end`, each run as what it is.
    fn send(&mut self, first: usize, end: usize) {
        let mut first = first;
        while first < end {
            let what = self.numbers[first];
            let run = self.numbers[first..end]
                .iter()
                .take_while(|n| **n == what)
                .count();
            let numbers = first as u64..(first + run) as u64;
            let message = match what {
                Number::Event => {
                    let record = |seq| match is_bad(seq) {
                        true => Bytes::from_static(&[0xff]),
                        false => encoded(&connect(seq, "curl")),
                    };
                    let records: Vec<Bytes> = numbers.map(record).collect();
                    Message::Batch(
                        check_batch(Batch {
                            lane: Lane::Signal.into(),
                            base_seq: first as u64,
                            crc: records
                                .iter()
                                .fold(0, |crc, r| crc32c::crc32c_append(crc, r)),
                            records,
                        })
                        .unwrap(),
                    )
                }
                Number::Evicted | Number::Unassigned => {
                    let evicted = what == Number::Evicted;
                    let gap = Gap {
                        lane: Lane::Signal.into(),
                        first: numbers.start,
                        last: numbers.end - 1,
                        reason: if evicted { "spool_evicted" } else { "restart" }.to_owned(),
                        events: if evicted { run as u64 } else { 0 },
                    };
                    Message::Gap(Lane::Signal, gap)
                }
            };
            self.say(message);
            first += run;
        }
    }

    fn report(&mut self, report: LaneReport, unclean_stops: u64) {
        self.say(Message::Loss(LossReport {
            lanes: vec![report],
            unclean_stops,
            ..LossReport::default()
        }));
    }

    fn step(&mut self, step: Step) {
        let r = &mut self.report;
        match step {
            Step::See(n, lost) => {
                r.seen += n + lost;
                r.in_ring += n;
                *r.lost.entry("ring_full".to_owned()).or_default() += lost;
            }
            Step::Read(n) => {
                let n = n.min(r.in_ring);
                r.in_ring -= n;
                r.queued += n;
            }
            Step::Append(n) => {
                let n = n.min(r.queued);
                r.queued -= n;
                r.appended += n;
                self.numbers
                    .extend(std::iter::repeat_n(Number::Event, n as usize));
            }
            Step::Evict(n) => {
                let from = self.numbers.iter_mut().skip(self.acked);
                for number in from.filter(|n| **n == Number::Event).take(n as usize) {
                    *number = Number::Evicted;
                }
            }
            Step::Send(back, n) => {
                let first = self.acked.saturating_sub(back as usize);
                let end = (first + n as usize).min(self.numbers.len());
                self.send(first, end);
            }
            Step::Elsewhere(n) => {
                // On another stream, then back here.
                self.acked = (self.acked + n as usize).min(self.numbers.len());
                self.hello();
            }
            Step::Report => {
                let report = (self.report.clone(), self.unclean);
                self.reports.push(report.clone());
                self.report(report.0, report.1);
            }
            Step::OldReport(n) => {
                // Of this epoch only: another one's stream is fenced.
                if let Some((report, unclean)) = self.reports.get(n).cloned() {
                    self.report(report, unclean);
                }
            }
            Step::Restart(clean) => {
                self.reports.clear();
                self.epoch += 1;
                if !clean {
                    // What was not appended is gone and nobody knows how much.
                    let r = &mut self.report;
                    r.seen -= r.in_ring + r.queued;
                    (r.in_ring, r.queued) = (0, 0);
                    self.unclean += 1;
                    let jump = self.numbers.len() + 100;
                    self.numbers.resize(jump, Number::Unassigned);
                }
                self.hello();
            }
            Step::NewCollector => {
                self.writer.take().unwrap().stop().unwrap();
                self.writer = Some(Writer::start(self.dir, BOUNDS, CREDIT).unwrap());
                self.stream = None;
            }
        }
    }
}

fn lane(dir: &Path) -> Option<LaneStatus> {
    let nodes = Reader::open(dir).unwrap().nodes().unwrap();
    nodes.first().and_then(|node| node.lanes.first()).copied()
}

fn lost(lost: &BTreeMap<String, u64>) -> u64 {
    lost.values().sum()
}

/// Both identities.
fn adds_up(dir: &Path) -> Option<NodeAccount> {
    let nodes = Reader::open(dir).unwrap().nodes().unwrap();
    let node = nodes.into_iter().next()?;
    for l in &node.lanes {
        assert_eq!(
            l.committed,
            l.stored + l.rejected + l.gaps + l.elsewhere + l.unassigned,
            "{l:?}"
        );
    }
    let account = node.account.unwrap();
    let lane = |l: &LaneAccount| l.committed + l.retained + l.in_ring + l.merged + lost(&l.lost);
    for l in &account.lanes {
        assert_eq!(l.seen, lane(l), "{l:?}");
    }
    let a = &account;
    assert_eq!(
        a.seen,
        a.committed + a.retained + a.in_ring + a.merged + lost(&a.lost)
    );
    Some(account)
}

/// Each step is a commit: few cases, unless PROPTEST_CASES asks for more.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 24;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_account_adds_up_after_every_step(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World {
            dir: dir.path(),
            writer: Some(Writer::start(dir.path(), BOUNDS, CREDIT).unwrap()),
            stream: None,
            epoch: 1,
            numbers: Vec::new(),
            acked: 0,
            elsewhere: 0,
            report: LaneReport { lane: Lane::Signal.into(), ..LaneReport::default() },
            reports: Vec::new(),
            unclean: 0,
        };
        for step in steps {
            world.step(step);
            adds_up(dir.path());
        }
        // To rest: all that was seen is read, appended, sent and reported.
        for step in [Step::Read(1000), Step::Append(1000)] {
            world.step(step);
        }
        if world.stream.is_none() {
            world.hello();
        }
        world.send(world.acked, world.numbers.len());
        world.step(Step::Report);
        let account = adds_up(dir.path()).unwrap();
        let seqs = crate::common::seqs(dir.path());
        prop_assert!(seqs.windows(2).all(|w| w[0] < w[1]), "twice: {:?}", seqs);
        prop_assert!(seqs.iter().all(|s| world.numbers[*s as usize] != Number::Unassigned));
        prop_assert_eq!((account.retained, account.in_ring), (0, 0));
        prop_assert_eq!(account.seen, world.report.seen);
        prop_assert_eq!(account.committed, seqs.len() as u64 + world.elsewhere);
        prop_assert_eq!(account.unclean_stops, world.unclean);
        let ring_full = world.report.lost.get("ring_full").copied().unwrap_or_default();
        prop_assert_eq!(account.lost.get("ring_full").copied().unwrap_or_default(), ring_full);
        // What is neither stored nor elsewhere nor dropped before was rejected
        // or evicted, and is under no other name.
        let names = ["ring_full", "rejected", "spool_evicted"];
        prop_assert!(account.lost.keys().all(|k| names.contains(&k.as_str())), "{:?}", account.lost);
        world.writer.take().unwrap().stop().unwrap();
    }
}
