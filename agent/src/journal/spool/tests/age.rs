//! What is too old goes, whatever the wall clock says.

use std::time::Duration;

use culprit_proto::v1::Lane;

use super::fake::FakeFs;
use super::lanes::{fill, open};
use crate::journal::item::GapReason;
use crate::journal::spool::Piece;

const HOUR: Duration = Duration::from_secs(3600);
const NS: u64 = 1_000_000_000;

#[test]
fn a_segment_goes_when_its_newest_record_is_too_old() {
    let fs = FakeFs::default();
    let (mut spool, _) = open(&fs, HOUR);
    fill(&mut spool, 0..2);
    fs.tick(3000 * NS);
    // The same segment: it is as young as this record.
    fill(&mut spool, 2..3);
    fs.tick(3000 * NS);
    // The wall clock jumps by a year and back; that makes nothing older.
    fs.wall_jump(i64::MAX / 1000);
    spool.expire().unwrap();
    assert_eq!(spool.held(Lane::Bulk).records, 3);
    fs.wall_jump(0);
    fs.tick(601 * NS);
    spool.expire().unwrap();
    let held = spool.held(Lane::Bulk);
    assert_eq!((held.records, held.segments, held.next), (0, 0, 3));
    let gone = spool.take_evicted(Lane::Bulk);
    assert_eq!((gone[0].events, gone[0].reason), (3, GapReason::Expired));
    fill(&mut spool, 3..4);
}

#[test]
fn of_an_earlier_boot_the_wall_clock_is_asked_and_the_future_is_young() {
    let fs = FakeFs::default();
    // Two segments: the first is as old as the second's beginning.
    let (mut spool, _) = open(&fs, HOUR);
    fill(&mut spool, 0..1);
    drop(spool);
    let (mut spool, found) = open(&fs, HOUR);
    fill(&mut spool, found.lanes[2].next..found.lanes[2].next + 1);
    drop(spool);
    fs.crash(1);
    // Written in the future, by this clock.
    fs.wall_jump(-i64::try_from(HOUR.as_nanos()).unwrap() * 5);
    let (spool, _) = open(&fs, HOUR);
    assert_eq!(spool.held(Lane::Bulk).records, 2);
    drop(spool);
    fs.wall_jump(i64::try_from(HOUR.as_nanos()).unwrap() * 5);
    let (mut spool, found) = open(&fs, HOUR);
    assert_eq!(spool.held(Lane::Bulk).records, 1);
    let Piece::Gap(gap) = found.lanes[2].pieces[0] else {
        panic!("{:?}", found.lanes[2])
    };
    assert_eq!((gap.events, gap.reason), (1, GapReason::Expired));
    // It was found so, and is not told a second time.
    assert_eq!(spool.take_evicted(Lane::Bulk), []);
}
