//! slow_cgroup_read: reads of cgroup files that take long, or keep interrupts
//! off while statistics are summed up. docs/findings.md, `slow_cgroup_read`.

mod dying;
mod reader;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use culprit_proto::v1::{Evidence, event::Kind};

use super::sums::{self, Sums};
use super::{Context, Seen, Threshold, Watcher, Workloads};
use crate::pipeline::source::Note;
use reader::Reader;

const NAME: &str = "slow_cgroup_read";
/// Readers at once; for one more the one that was quiet for longest goes.
const MAX: usize = 256;
/// Stalls that may belong to a read; the oldest goes.
const MAX_STALLS: usize = 256;
/// After a slow read, for stalls of the same time that are on their way.
const SETTLE: Duration = Duration::from_millis(1500);
/// Between two reports of one reader to the desk.
const REPORT: Duration = Duration::from_secs(5);
/// Quiet for so long, a reader is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// Interrupts off for this part of the threshold are as bad.
const FLUSH_PART: u32 = 5;

/// Speaks of reads of `threshold` and more.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(SlowCgroupRead {
        threshold: threshold.time(),
        readers: BTreeMap::new(),
        stalls: VecDeque::new(),
        sums: Sums::default(),
    })
}

/// A stall that may belong to a read.
#[derive(Debug)]
struct Stall {
    cpu: u32,
    time: u64,
    worst_ns: u64,
    evidence: Evidence,
}

struct SlowCgroupRead {
    threshold: Duration,
    /// By thread and its process's start.
    readers: BTreeMap<(u32, u64), Reader>,
    stalls: VecDeque<Stall>,
    sums: Sums,
}

impl Watcher for SlowCgroupRead {
    fn seen(&mut self, seen: &Seen, _context: &mut Context<'_>) {
        let Some(Kind::SoftirqStall(stall)) = &seen.event.kind else {
            return;
        };
        if self.stalls.len() >= MAX_STALLS {
            self.stalls.pop_front();
        }
        self.stalls.push_back(Stall {
            cpu: seen.event.cpu,
            time: seen.event.time,
            worst_ns: stall
                .wait_ns
                .max(stall.irqs_off_ns)
                .max(stall.queue_wait_ns),
            evidence: seen.evidence(),
        });
    }

    fn note(&mut self, note: &Note, context: &mut Context<'_>) {
        let Note::CgroupRead(read) = note else { return };
        let floor = if read.file.is_some() {
            self.threshold
        } else {
            self.threshold / FLUSH_PART
        };
        let slow = Duration::from_nanos(read.took_ns) >= floor;
        let key = (read.actor.tid, read.actor.start_time_ns);
        // A faster read of a known reader is a part of its time.
        if !slow && !self.readers.contains_key(&key) {
            return;
        }
        if self.readers.len() >= MAX && !self.readers.contains_key(&key) {
            let oldest = self.readers.iter().min_by_key(|(_, one)| one.last());
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.readers.remove(&oldest);
            }
        }
        let reader = self
            .readers
            .entry(key)
            .or_insert_with(|| Reader::new(read.actor.clone(), context.now));
        reader.read(read, slow, context.now);
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        sums::poll(
            &mut self.sums,
            |tables| tables.cgroup_reads.as_mut(),
            context,
        );
        let now = context.now;
        self.report(context, |reader| reader.is_due(now));
        self.readers
            .retain(|_, reader| reader.last() + FORGET > now);
    }

    fn stats(&mut self, workloads: &mut Workloads) {
        for (cgroup, reads) in self.sums.of(0) {
            if let Some(row) = workloads.of(cgroup) {
                row.cgroup_reads = Some(reads);
            }
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.report(context, Reader::is_untold);
    }
}

impl SlowCgroupRead {
    fn report(&mut self, context: &mut Context<'_>, due: impl Fn(&Reader) -> bool) {
        if !self.readers.values().any(&due) {
            return;
        }
        let dying = dying::count(context);
        for reader in self.readers.values_mut().filter(|reader| due(reader)) {
            let stalls: Vec<&Stall> = self
                .stalls
                .iter()
                .filter(|stall| reader.was_at(stall.cpu, stall.time, stall.worst_ns))
                .collect();
            words::report(reader, &stalls, &dying, context);
            reader.told(context.now);
        }
    }
}
