//! Bounds, failures and order, one by one.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use culprit_proto::v1::Lane;
use rustix::io::Errno;
use serde_json::json;

use super::fake::FakeFs;
use super::machine::{DIR, record};
use crate::journal::item::GapReason;
use crate::journal::spool::{
    Gap, Held, LaneOptions, Options, ReadPiece, Recovered, Spool, SpoolError,
};

const LANE: Lane = Lane::Bulk;

pub(super) fn open(fs: &FakeFs, max_age: Duration) -> (Spool<FakeFs>, Recovered) {
    let lane = LaneOptions {
        max_bytes: 4000,
        max_age,
    };
    let options = Options {
        lanes: [lane; 3],
        segment_bytes: 500,
    };
    Spool::open(fs.clone(), Path::new(DIR), "n1", options, Duration::ZERO).unwrap()
}

fn records(seqs: std::ops::Range<u64>) -> Vec<Bytes> {
    seqs.map(|seq| record(2, seq, 100)).collect()
}

pub(super) fn fill(spool: &mut Spool<FakeFs>, seqs: std::ops::Range<u64>) {
    spool.append(LANE, seqs.start, &records(seqs)).unwrap();
    spool.sync(LANE).unwrap();
}

fn segments(fs: &FakeFs) -> usize {
    fs.files(&Path::new(DIR).join("lane2")).len()
}

#[test]
fn at_its_bytes_the_oldest_segments_go_and_are_told_once() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..200);
    let held = spool.held(LANE);
    assert!(held.bytes <= 4000 && held.bytes > 3000, "{held:?}");
    assert_eq!((held.next, held.synced), (200, 200));
    assert_eq!(held.records, 200 - held.first);
    let gone = Gap {
        first: 0,
        last: held.first - 1,
        reason: GapReason::SpoolEvicted,
        events: held.first,
    };
    assert_eq!(spool.take_evicted(LANE), [gone]);
    assert_eq!(spool.take_evicted(LANE), []);
    // It takes its place in what is read, after a start as well.
    let first = spool.read(LANE, 0, 1, 2).unwrap();
    assert_eq!(first[0], ReadPiece::Gap(gone));
    let base = held.first;
    let records = records(base..base + 1);
    assert_eq!(first[1], ReadPiece::Records { base, records });
    spool.note(true, [0; 3], [0, 0, 200], &json!(1)).unwrap();
    drop(spool);
    let (mut spool, _) = open(&fs, Duration::ZERO);
    let read = spool.read(LANE, 10, 1, 1).unwrap();
    let rest = Gap {
        first: 10,
        events: base - 10,
        ..gone
    };
    assert_eq!(read, [ReadPiece::Gap(rest)]);
    assert_eq!(spool.take_evicted(LANE), [], "it is in what was found");
}

#[test]
fn what_is_acknowledged_goes_and_no_loss_is_told() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..30);
    let before = segments(&fs);
    spool.release(LANE, 20).unwrap();
    assert!(segments(&fs) < before);
    assert_eq!((spool.held(LANE).first, spool.held(LANE).records), (20, 10));
    spool.release(LANE, 30).unwrap();
    // The one that is being written stays.
    assert_eq!((segments(&fs), spool.held(LANE).records), (1, 0));
    let (_, found) = open(&fs, Duration::ZERO);
    assert_eq!(found.lanes[2].acked, 30);
    assert_eq!(spool.take_evicted(LANE), []);
}

#[test]
fn a_jump_is_a_gap_of_records_that_memory_lost() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..2);
    fill(&mut spool, 5..7);
    for _ in 0..2 {
        let read = spool.read(LANE, 1, 1000, 3).unwrap();
        let gap = Gap {
            first: 2,
            last: 4,
            reason: GapReason::Evicted,
            events: 3,
        };
        let records_at = |base, end| ReadPiece::Records {
            base,
            records: records(base..end),
        };
        let expected = [records_at(1, 2), ReadPiece::Gap(gap), records_at(5, 6)];
        assert_eq!(read, expected);
        drop(spool);
        (spool, _) = open(&fs, Duration::ZERO);
    }
    let error = spool.append(LANE, 6, &records(6..7)).unwrap_err();
    assert!(
        matches!(error, SpoolError::Order { base: 6, .. }),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_said_and_what_was_written_stays() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..2);
    fs.full(true);
    let error = spool.append(LANE, 2, &records(2..4)).unwrap_err();
    assert!(
        error.to_string().contains("No space left on device")
            && error.to_string().contains("free space"),
        "{error}"
    );
    let held = spool.held(LANE);
    assert_eq!((held.next, held.records), (2, 2));
    fs.full(false);
    fill(&mut spool, 2..4);
    let read = spool.read(LANE, 0, 1000, 9).unwrap();
    assert_eq!(
        read,
        [ReadPiece::Records {
            base: 0,
            records: records(0..4)
        }]
    );
}

#[test]
fn a_failed_sync_takes_back_what_was_not_durable() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..2);
    spool.append(LANE, 2, &records(2..4)).unwrap();
    assert_eq!((spool.held(LANE).next, spool.held(LANE).synced), (4, 2));
    fs.fail_in(0, Errno::IO);
    spool.sync(LANE).unwrap_err();
    assert_eq!(spool.held(LANE).next, 2);
    // Again, into another file: the disk has them now.
    fill(&mut spool, 2..4);
    assert_eq!(segments(&fs), 2);
    drop(spool);
    fs.crash(0);
    let (mut spool, _) = open(&fs, Duration::ZERO);
    let read = spool.read(LANE, 0, 1000, 9).unwrap();
    let read: usize = read
        .iter()
        .map(|piece| match piece {
            ReadPiece::Records { records, .. } => records.len(),
            ReadPiece::Gap(_) => 0,
        })
        .sum();
    assert_eq!(read, 4);
}

#[test]
fn a_disk_that_cannot_be_read_is_said_and_then_given_up() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    fill(&mut spool, 0..2);
    fs.bad_reads(3);
    for _ in 0..2 {
        spool.read(LANE, 0, 1000, 9).unwrap_err();
    }
    let lost = Gap {
        first: 0,
        last: 1,
        reason: GapReason::Corrupt,
        events: 2,
    };
    assert_eq!(
        spool.read(LANE, 0, 1000, 9).unwrap(),
        [ReadPiece::Gap(lost)]
    );
}

#[test]
fn records_that_no_spool_can_keep_are_refused() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    let append = |spool: &mut Spool<FakeFs>, bytes: usize| {
        let record = Bytes::from(vec![1; bytes]);
        spool.append(LANE, 0, &[record]).unwrap_err().to_string()
    };
    assert!(append(&mut spool, 0).contains("1 to 65536 bytes"));
    assert!(append(&mut spool, 65537).contains("1 to 65536 bytes"));
    assert!(append(&mut spool, 5000).contains("the lane has 4000; raise its budget"));
    assert_eq!(spool.held(LANE), Held::default());
}

#[test]
fn more_after_the_last_word_makes_it_none() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, Duration::ZERO);
    spool.note(true, [0; 3], [0; 3], &json!(1)).unwrap();
    fill(&mut spool, 0..1);
    drop(spool);
    let (_, found) = open(&fs, Duration::ZERO);
    assert_eq!((found.unclean_stops, found.lanes[2].next), (1, 1 << 32));
}
