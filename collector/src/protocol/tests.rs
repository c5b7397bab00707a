#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use culprit_proto::v1::{Batch, Event, Gap, Lane, LaneReport, collector_message};
use proptest::prelude::*;
use prost::Message;

use super::*;

/// One thing that a network between agent and collector does.
#[derive(Debug, Clone)]
enum Step {
    /// Records from here on, so many.
    Send(u64, u64),
    /// A gap from here on, so many numbers, of them events, and whether another
    /// collector has them.
    Gap(u64, u64, u64, bool),
    /// The checksum is wrong.
    Damage(u64, u64),
}

const LAST: u64 = 60;

fn step() -> impl Strategy<Value = Step> {
    (0..LAST, 0..12_u64, 0..8_u8, 0..13_u64).prop_map(|(from, count, what, events)| match what {
        0 => Step::Gap(from, count + 1, events.min(count + 1), events % 2 == 0),
        1 => Step::Damage(from, count),
        _ => Step::Send(from, count),
    })
}

/// Every fifth record is no event.
fn record(seq: u64) -> Bytes {
    if seq % 5 == 4 {
        return Bytes::from_static(&[0xff]);
    }
    let event = Event {
        time: seq + 1,
        ..Event::default()
    };
    Bytes::from(event.encode_to_vec())
}

fn batch(from: u64, count: u64) -> Batch {
    let records: Vec<Bytes> = (from..from + count).map(record).collect();
    Batch {
        lane: Lane::Bulk.into(),
        base_seq: from,
        crc: records
            .iter()
            .fold(0, |crc, r| crc32c::crc32c_append(crc, r)),
        records,
    }
}

proptest! {
    /// Whatever arrives in whatever order: each record below the cursor is
    /// stored once, rejected once or in a gap; what is stored is what was
    /// sent; acks only rise and never pass what came; a hole moves nothing.
    #[test]
    fn everything_below_the_cursor_is_accounted_for(
        start in 0..5_u64,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut cursor = Cursor::new(Lane::Bulk, start);
        let mut stored = BTreeMap::new();
        let mut rejected = Vec::new();
        let mut total = Tally::default();
        let mut acked = start;
        for step in steps {
            let before = cursor.next();
            let (decision, from, count) = match step {
                Step::Send(from, count) => {
                    (cursor.batch(check_batch(batch(from, count)).unwrap(), 1), from, count)
                }
                Step::Gap(from, count, events, elsewhere) => {
                    let gap = Gap {
                        lane: Lane::Bulk.into(),
                        first: from,
                        last: from + count - 1,
                        reason: if elsewhere { ACKNOWLEDGED } else { "spool_evicted" }.to_owned(),
                        events,
                    };
                    prop_assert_eq!(check_gap(&gap), Ok(Lane::Bulk));
                    let decision = cursor.gap(&gap, 1);
                    let t = decision.tally;
                    prop_assert_eq!(t.gaps + t.elsewhere, events.min(cursor.next() - before));
                    prop_assert_eq!(if elsewhere { t.gaps } else { t.elsewhere }, 0);
                    (decision, from, count)
                }
                Step::Damage(from, count) => {
                    let mut damaged = batch(from, count);
                    damaged.crc = !damaged.crc;
                    let is_damaged = matches!(check_batch(damaged), Err(Fault::Damaged { .. }));
                    prop_assert!(is_damaged);
                    continue;
                }
            };
            let expected = if from > before { before } else { before.max(from + count) };
            prop_assert_eq!(cursor.next(), expected);
            for (seq, row) in decision.store {
                prop_assert_eq!(&row.event, &record(seq));
                prop_assert!(stored.insert(seq, row.time).is_none(), "{} twice", seq);
            }
            for answer in decision.answers {
                match answer.message.unwrap() {
                    collector_message::Message::Ack(ack) => {
                        prop_assert!(ack.committed >= acked);
                        prop_assert_eq!(ack.committed, cursor.next());
                        acked = ack.committed;
                    }
                    collector_message::Message::Reject(r) => rejected.extend(r.first..=r.last),
                    collector_message::Message::Resync(r) => {
                        prop_assert!(from > before);
                        prop_assert_eq!(r.expected, before);
                    }
                    collector_message::Message::Welcome(_) => prop_assert!(false, "a Welcome"),
                }
            }
            total += decision.tally;
        }
        prop_assert_eq!(total.stored, stored.len() as u64);
        prop_assert_eq!(total.rejected, rejected.len() as u64);
        prop_assert!(rejected.iter().all(|seq| seq % 5 == 4));
        prop_assert_eq!(
            cursor.next() - start,
            total.stored + total.rejected + total.gaps + total.elsewhere + total.unassigned
        );
    }

    /// Bytes from anywhere do no harm.
    #[test]
    fn any_bytes_are_handled(data in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::message(&data);
        crate::fuzz::event(&data);
        crate::fuzz::frames(&data);
    }
}

#[test]
fn a_gap_has_no_more_events_than_numbers() {
    let gap = |first, last, events| {
        check_gap(&Gap {
            lane: Lane::Bulk.into(),
            first,
            last,
            reason: "restart".to_owned(),
            events,
        })
    };
    assert_eq!(gap(3, 5, 3), Ok(Lane::Bulk));
    assert_eq!(gap(3, 5, 0), Ok(Lane::Bulk));
    assert!(gap(3, 5, 4).is_err_and(|e| e.to_string().contains("with 4 events")));
    assert!(gap(5, 3, 0).is_err());
}

#[test]
fn what_was_merged_is_a_term_of_its_own() {
    let report = |seen| LaneReport {
        lane: Lane::Bulk.into(),
        seen,
        appended: 5,
        merged: 7,
        ..LaneReport::default()
    };
    assert!(adds_up(&report(12)));
    assert!(!adds_up(&report(5)));
    let below = Below {
        stored: 4,
        ..Below::default()
    };
    let mut account = Account::default();
    account.add(Lane::Bulk, below, Some((1, report(12))));
    let whole = account.finish("n".to_owned(), 0);
    assert_eq!(
        (whole.seen, whole.committed, whole.retained, whole.merged),
        (12, 4, 1, 7)
    );
    assert_eq!(whole.lanes[0].merged, 7);
}

#[test]
fn what_came_after_a_report_is_taken_from_queue_ring_and_then_is_new() {
    let report = |appended| LaneReport {
        lane: Lane::Signal.into(),
        seen: 10 + 4 + 3 + 2,
        in_ring: 4,
        queued: 3,
        appended,
        lost: BTreeMap::from([("ring_full".to_owned(), 2)]),
        outage_seconds: 60,
        merged: 0,
    };
    assert!(adds_up(&report(10)));
    assert!(!adds_up(&report(11)));
    // Stored so far: seen, committed, retained, in a ring.
    for (stored, expected) in [
        (0, [19, 0, 13, 4]),
        (10, [19, 10, 3, 4]),
        (12, [19, 12, 1, 4]),
        (15, [19, 15, 0, 2]),
        (17, [19, 17, 0, 0]),
        (20, [22, 20, 0, 0]),
    ] {
        let mut account = Account::default();
        let below = Below {
            stored,
            ..Below::default()
        };
        account.add(Lane::Signal, below, Some((7, report(10))));
        let a = account.finish("n".to_owned(), 0);
        assert_eq!([a.seen, a.committed, a.retained, a.in_ring], expected);
        assert_eq!(a.lost, BTreeMap::from([("ring_full".to_owned(), 2)]));
        assert_eq!((a.reported, a.lanes[0].outage_seconds), (7, 60));
    }
}

#[test]
fn limits_are_named() {
    let fault = |batch| match check_batch(batch) {
        Err(Fault::Protocol(text)) => text.into_owned(),
        other => format!("{other:?}"),
    };
    let many = Batch {
        records: vec![Bytes::new(); 16 * 1024 + 1],
        ..Batch::default()
    };
    assert!(fault(many).contains("16385 records"));
    let large = Batch {
        records: vec![Bytes::from(vec![0; 40_000]); 30],
        ..Batch::default()
    };
    assert!(fault(large).contains("the limit is 1048576"));
    let mut far = batch(0, 2);
    far.base_seq = MAX_SEQ - 1;
    assert!(fault(far).contains("out of range"));
    let mut nowhere = batch(0, 1);
    nowhere.lane = 3;
    assert!(fault(nowhere).contains("Batch.lane is 3"));
}
