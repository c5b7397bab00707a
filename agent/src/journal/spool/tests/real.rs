//! On the system's own file system.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use culprit_proto::v1::Lane;
use serde_json::json;

use crate::journal::item::GapReason;
use crate::journal::spool::fs::RealFs;
use crate::journal::spool::{
    Former, Gap, HEADER_BYTES, LaneOptions, MAX_QUARANTINE_FILES, Options, Piece, ReadPiece,
    Recovered, SEGMENT_BYTES, Spool, SpoolError, inspect,
};

fn options() -> Options {
    let lane = LaneOptions {
        max_bytes: 64 << 10,
        max_age: Duration::ZERO,
    };
    Options {
        lanes: [lane; 3],
        segment_bytes: SEGMENT_BYTES,
    }
}

fn open(dir: &Path) -> Result<(Spool<RealFs>, Recovered), SpoolError> {
    Spool::open(RealFs, dir, "n1", options(), Duration::ZERO)
}

fn event(seq: u64) -> Bytes {
    format!("event {seq}").into()
}

fn fill(spool: &mut Spool<RealFs>, seqs: std::ops::Range<u64>) {
    let records: Vec<_> = seqs.clone().map(event).collect();
    spool.append(Lane::Signal, seqs.start, &records).unwrap();
    spool.sync(Lane::Signal).unwrap();
}

/// What can be read, one number a record, gaps as they are.
fn all(spool: &mut Spool<RealFs>, from: u64) -> (Vec<u64>, Vec<Gap>) {
    let (mut seqs, mut gaps, mut pos) = (vec![], vec![], from);
    loop {
        let pieces = spool.read(Lane::Signal, pos, 1000, 100).unwrap();
        if pieces.is_empty() {
            return (seqs, gaps);
        }
        for piece in pieces {
            match piece {
                ReadPiece::Records { base, records } => {
                    assert_eq!(base, pos);
                    for record in records {
                        assert_eq!(record, event(pos));
                        seqs.push(pos);
                        pos += 1;
                    }
                }
                ReadPiece::Gap(gap) => {
                    assert_eq!(gap.first, pos);
                    pos = gap.last + 1;
                    gaps.push(gap);
                }
            }
        }
    }
}

fn segment(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("lane1/{first:020}.seg"))
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn records_outlive_a_clean_stop_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, first) = open(dir.path()).unwrap();
    assert_eq!(first.former, None);
    fill(&mut spool, 0..10);
    spool.release(Lane::Signal, 4).unwrap();
    spool
        .note(true, [0, 4, 0], [0, 10, 0], &json!({"seen": 10}))
        .unwrap();
    drop(spool);
    let (mut spool, again) = open(dir.path()).unwrap();
    assert_eq!(again.spool_id, first.spool_id);
    assert!(again.epoch > first.epoch);
    let clean = true;
    let epoch = first.epoch;
    assert_eq!(again.former, Some(Former { epoch, clean }));
    assert_eq!(again.account, json!({"seen": 10}));
    assert_eq!((again.unclean_stops, again.troubles.len()), (0, 0));
    let lane = &again.lanes[1];
    assert_eq!((lane.acked, lane.next, lane.unassigned), (4, 10, 0));
    assert!(matches!(
        lane.pieces[..],
        [Piece::Stored {
            first: 4,
            last: 9,
            ..
        }]
    ));
    fill(&mut spool, 10..12);
    assert_eq!(all(&mut spool, 4), ((4..12).collect(), vec![]));
}

#[test]
fn after_a_kill_numbers_go_on_far_above_and_the_hole_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path()).unwrap();
    fill(&mut spool, 0..10);
    // Given to two records that were sent from memory only.
    spool.note(false, [0; 3], [0, 12, 0], &json!(null)).unwrap();
    drop(spool);
    let (mut spool, again) = open(dir.path()).unwrap();
    assert_eq!(again.unclean_stops, 1);
    let next = 1 << 32;
    assert_eq!(again.lanes[1].next, next);
    assert_eq!(again.lanes[1].unassigned, next - 12);
    fill(&mut spool, next..next + 2);
    let gap = |first, last, reason, events| Gap {
        first,
        last,
        reason,
        events,
    };
    let gaps = vec![
        gap(10, 11, GapReason::Unclean, 2),
        gap(12, next - 1, GapReason::Restart, 0),
    ];
    let seqs: Vec<_> = (0..10).chain(next..next + 2).collect();
    assert_eq!(all(&mut spool, 0), (seqs.clone(), gaps.clone()));
    drop(spool);
    // The hole is known from the segment as well, without META.
    fs::write(dir.path().join("META"), "{").unwrap();
    let (mut spool, again) = open(dir.path()).unwrap();
    let (found, found_gaps) = all(&mut spool, 0);
    assert_eq!((found, &found_gaps[..2]), (seqs, &gaps[..]));
    assert!(again.lanes[1].next > next + 2);
    assert!(
        again.troubles[0].contains("META: unreadable"),
        "{:?}",
        again.troubles
    );
    assert_eq!(again.quarantined, 1);
}

#[test]
fn a_flipped_bit_costs_its_record_and_a_torn_tail_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path()).unwrap();
    fill(&mut spool, 0..10);
    let path = segment(dir.path(), 0);
    // 8 bytes of frame header, lane (2), number (0 is left out, later 2), tag
    // and length of the event (2), "event 0".
    let second = HEADER_BYTES as u64 + 8 + 4 + 7;
    let frame = 8 + 6 + 7;
    // While it runs: the payload of record 1, the length of record 4.
    flip(&path, second + 15);
    flip(&path, second + 3 * frame + 1);
    let lost = |seq| Gap {
        first: seq,
        last: seq,
        reason: GapReason::Corrupt,
        events: 1,
    };
    let seqs = vec![0, 2, 3, 5, 6, 7, 8, 9];
    let expected = (seqs.clone(), vec![lost(1), lost(4)]);
    assert_eq!(all(&mut spool, 0), expected);
    spool.note(true, [0; 3], [0, 10, 0], &json!(null)).unwrap();
    drop(spool);
    let (mut spool, again) = open(dir.path()).unwrap();
    assert_eq!(all(&mut spool, 0), expected);
    assert!(
        again.troubles[0].ends_with("damaged in 2 places"),
        "{:?}",
        again.troubles
    );
    spool.note(true, [0; 3], [0, 10, 0], &json!(null)).unwrap();
    drop(spool);
    let length = fs::metadata(&path).unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(length - 3).unwrap();
    let (mut spool, again) = open(dir.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), length - frame);
    assert!(
        again.troubles[1].contains("cut off"),
        "{:?}",
        again.troubles
    );
    let gaps = vec![lost(1), lost(4), lost(9)];
    assert_eq!(all(&mut spool, 0), (seqs[..7].to_vec(), gaps));
}

#[test]
fn files_that_are_of_no_use_are_put_aside_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    fs::write(segment(dir.path(), 7), "no segment").unwrap();
    for name in 0..20 {
        fs::write(dir.path().join(format!("lane0/{name}\u{1b}[2J")), "x").unwrap();
    }
    let (_spool, found) = open(dir.path()).unwrap();
    assert_eq!((found.quarantined, found.quarantine_deleted), (21, 5));
    let kept = fs::read_dir(dir.path().join("quarantine")).unwrap().count();
    assert_eq!(kept, MAX_QUARANTINE_FILES);
    assert_eq!(found.troubles.len(), 21);
    assert!(found.troubles.iter().all(|text| !text.contains('\u{1b}')));
}

#[test]
fn only_its_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let (mut spool, _) = open(&dir).unwrap();
    fill(&mut spool, 0..1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in ["META", "META.start", "LOCK"] {
        assert_eq!(mode(&dir.join(path)), 0o600, "{path}");
    }
    assert_eq!(mode(&segment(&dir, 0)), 0o600);
    assert_eq!((mode(&dir), mode(&dir.join("lane1"))), (0o700, 0o700));
}

#[test]
fn what_is_not_ours_is_left_alone_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let (_spool, _) = open(&dir.path().join("one")).unwrap();
    let error = open(&dir.path().join("one")).unwrap_err();
    assert!(matches!(error, SpoolError::Locked(_)), "{error}");
    // A directory of somebody else's stays as it is.
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("it holds one;") && error.contains("--state-dir"),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let other = dir.path().join("two");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("META"), r#"{"magic":"other"}"#).unwrap();
    let error = open(&other).unwrap_err();
    assert!(matches!(error, SpoolError::Foreign { .. }), "{error}");
    fs::write(
        other.join("META"),
        r#"{"magic":"culprit-spool","format":2}"#,
    )
    .unwrap();
    let error = open(&other).unwrap_err().to_string();
    assert!(error.contains("format 2 is newer than format 1"), "{error}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    // What lives beside a spool is no sign of a stranger, and an agent that had
    // none leaves its epoch.
    let third = dir.path().join("three");
    fs::create_dir(&third).unwrap();
    fs::write(third.join("agent.sock"), "").unwrap();
    fs::write(third.join("flight.1"), "").unwrap();
    let epoch = 1 << 40;
    let older = json!({"spool_id": "00", "epoch": epoch, "node": "n1", "clean": true, "unacknowledged": [0, 0, 0]});
    fs::write(third.join("META"), older.to_string()).unwrap();
    let (_spool, found) = open(&third).unwrap();
    assert_eq!(found.former, Some(Former { epoch, clean: true }));
    assert_eq!((found.epoch, found.lanes[0].next), (epoch + 1, 0));
    assert!(third.join("flight.1").exists());
}

#[test]
fn an_account_that_is_too_large_is_refused_and_the_former_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path()).unwrap();
    spool.note(false, [0; 3], [0; 3], &json!("small")).unwrap();
    let large = json!("x".repeat(70_000));
    let error = spool.note(false, [0; 3], [0; 3], &large).unwrap_err();
    assert!(error.to_string().contains("more than 65536"), "{error}");
    spool.release(Lane::Signal, 0).unwrap();
    drop(spool);
    assert_eq!(open(dir.path()).unwrap().1.account, json!("small"));
}

#[test]
fn it_can_be_looked_at_beside_a_running_agent() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path()).unwrap();
    fill(&mut spool, 0..10);
    let before = fs::read(segment(dir.path(), 0)).unwrap();
    let found = inspect(dir.path()).unwrap();
    assert_eq!(found.troubles, [""; 0]);
    let lane = &found.lanes[1];
    assert_eq!((lane.records, lane.segments[0].end), (10, 10));
    assert_eq!(lane.bytes, before.len() as u64);
    flip(&segment(dir.path(), 0), 200);
    let found = inspect(dir.path()).unwrap();
    assert_eq!(found.lanes[1].records, 9);
    assert_eq!(found.troubles.len(), 1);
    assert!(inspect(&dir.path().join("none")).is_err());
}
