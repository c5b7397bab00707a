use std::time::{Duration, Instant};

use super::reader::Reader;
use crate::identity::Actor;
use crate::probes::cgroup_read::CgroupRead;

const MS: u64 = 1_000_000;

fn read(file: Option<&str>, cgroup: u64, end: u64, took: u64) -> CgroupRead {
    CgroupRead {
        time: end,
        cpu: 1,
        actor: Actor::default(),
        took_ns: took,
        cgroup,
        file: file.map(str::to_owned),
        flushed: 0,
        flushed_dying: 0,
    }
}

#[test]
fn reads_are_added_up_by_file_and_the_slowest_is_kept() {
    let now = Instant::now();
    let mut reader = Reader::new(Actor::default(), now);
    reader.read(&read(None, 1, 900 * MS, 300 * MS), true, now);
    reader.read(&read(Some("memory.stat"), 7, 500 * MS, 80 * MS), true, now);
    reader.read(&read(Some("memory.stat"), 7, 700 * MS, 20 * MS), false, now);
    assert_eq!((reader.reads, reader.total_ns / MS), (2, 100));
    assert_eq!((reader.flushes, reader.flush_ns / MS), (1, 300));
    // A read with its file says more than a longer flush.
    assert_eq!(
        reader.slowest.as_ref().map(|one| one.took_ns / MS),
        Some(80)
    );
    assert_eq!(reader.files.len(), 1);
    for cgroup in 0..1000 {
        reader.read(&read(Some("cpu.stat"), cgroup, 800 * MS, MS), false, now);
    }
    assert_eq!(reader.files.len(), 64);
}

#[test]
fn a_stall_belongs_to_a_read_on_its_cpu_at_its_time() {
    let now = Instant::now();
    let mut reader = Reader::new(Actor::default(), now);
    reader.read(&read(Some("memory.stat"), 7, 500 * MS, 80 * MS), true, now);
    assert!(reader.was_at(1, 490 * MS, MS));
    assert!(reader.was_at(1, 520 * MS, 30 * MS));
    assert!(!reader.was_at(1, 520 * MS, 5 * MS));
    assert!(!reader.was_at(2, 490 * MS, MS));
}

#[test]
fn a_reader_is_told_of_after_a_while_and_not_all_the_time() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut reader = Reader::new(Actor::default(), start);
    let slow = read(Some("memory.stat"), 7, 500 * MS, 80 * MS);
    reader.read(&slow, false, at(0));
    assert!(!reader.is_due(at(9000)));
    reader.read(&slow, true, at(100));
    assert!(!reader.is_due(at(1000)));
    assert!(reader.is_due(at(1600)));
    reader.told(at(1600));
    assert_eq!(reader.reads, 0);
    reader.read(&slow, true, at(1700));
    assert!(!reader.is_due(at(6000)));
    assert!(reader.is_due(at(6600)));
}
