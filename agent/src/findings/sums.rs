//! Sums of the kernel side by workload, polled: what they are, and what came
//! since the poll before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_agent_ebpf::wire::work::Work;
use culprit_proto::v1::Histogram;

use super::Context;
use crate::identity::CgroupClass;
use crate::kernel::WorkTable;
use crate::pipeline::source::Resolver;

/// Rows from which those of cgroups that are gone give up their place, well
/// before the kernel's table is full.
pub(super) const CROWDED: usize = 256;
/// For so long they are kept, for the statistics.
const KEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Row {
    works: Vec<Work>,
    changed: Instant,
}

/// The sums as of the last poll.
#[derive(Debug, Default)]
pub(super) struct Sums {
    rows: BTreeMap<u64, Row>,
}

/// What a workload did between two polls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Delta {
    /// kernfs id of its memory cgroup.
    pub(super) workload: u64,
    /// By sort.
    pub(super) works: Vec<Work>,
}

fn since(now: &Work, before: Option<&Work>) -> Work {
    let Some(before) = before else {
        return *now;
    };
    let mut delta = *now;
    for (bucket, old) in delta.buckets.iter_mut().zip(before.buckets) {
        *bucket = bucket.saturating_sub(old);
    }
    delta.count = now.count.saturating_sub(before.count);
    delta.total_ns = now.total_ns.saturating_sub(before.total_ns);
    delta
}

impl Sums {
    /// Takes the table's rows, which begin with the agent; gives what changed.
    pub(super) fn poll(&mut self, rows: Vec<(u64, Vec<Work>)>, now: Instant) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for (workload, works) in rows {
            let before = self.rows.get(&workload);
            let changed = before.is_none_or(|row| row.works != works);
            if !changed {
                continue;
            }
            let delta = works
                .iter()
                .enumerate()
                .map(|(at, work)| since(work, before.and_then(|row| row.works.get(at))))
                .collect();
            deltas.push(Delta {
                workload,
                works: delta,
            });
            self.rows.insert(
                workload,
                Row {
                    works,
                    changed: now,
                },
            );
        }
        deltas
    }

    /// Rows of cgroups that are gone, once there are many: to be removed.
    pub(super) fn gone(&mut self, resolver: &dyn Resolver, now: Instant) -> Vec<u64> {
        if self.rows.len() < CROWDED {
            return Vec::new();
        }
        let gone: Vec<u64> = self
            .rows
            .iter()
            .filter(|(_, row)| row.changed + KEEP < now)
            .map(|(id, _)| *id)
            .filter(|id| resolver.cgroup_class(*id) == CgroupClass::Unknown)
            .collect();
        for id in &gone {
            self.rows.remove(id);
        }
        gone
    }

    /// One sort of work of each workload, cumulative.
    pub(super) fn of(&self, sort: usize) -> impl Iterator<Item = (u64, Histogram)> {
        self.rows.iter().filter_map(move |(id, row)| {
            let work = row.works.get(sort)?;
            (work.count > 0).then(|| (*id, histogram(work)))
        })
    }
}

/// Polls a table of the kernel side and lets go of what is gone.
pub(super) fn poll(
    sums: &mut Sums,
    table: impl for<'a> Fn(&'a mut crate::kernel::Tables) -> Option<&'a mut WorkTable>,
    context: &mut Context<'_>,
) -> Vec<Delta> {
    let Some(rows) = table(context.tables).map(|table| table.rows()) else {
        return Vec::new();
    };
    let deltas = sums.poll(rows, context.now);
    for id in sums.gone(context.resolver, context.now) {
        if let Some(table) = table(context.tables) {
            table.remove(id);
        }
    }
    deltas
}

/// As in events.
pub(super) fn histogram(work: &Work) -> Histogram {
    Histogram {
        buckets: work.buckets.to_vec(),
        count: work.count,
        total_ns: work.total_ns,
        max_ns: work.max_ns,
    }
}

/// Upper bound of the bucket below which half of the values are, nanoseconds.
pub(super) fn median(work: &Work) -> u64 {
    let mut seen = 0;
    for (bucket, count) in work.buckets.iter().enumerate() {
        seen += count;
        if seen * 2 >= work.count && seen > 0 {
            return 2_u64.saturating_pow(bucket as u32 + 1);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(bucket: usize, count: u64, total_ns: u64) -> Work {
        let mut work = Work::EMPTY;
        work.buckets[bucket] = count;
        work.count = count;
        work.total_ns = total_ns;
        work
    }

    #[test]
    fn a_poll_gives_what_came_since_the_one_before() {
        let now = Instant::now();
        let mut sums = Sums::default();
        assert_eq!(sums.poll(vec![(7, vec![work(3, 2, 20)])], now).len(), 1);
        let rows = vec![(7, vec![work(3, 5, 60)]), (8, vec![work(4, 1, 9)])];
        let deltas = sums.poll(rows.clone(), now);
        assert_eq!(deltas.len(), 2);
        assert_eq!(
            (deltas[0].works[0].count, deltas[0].works[0].total_ns),
            (3, 40)
        );
        assert_eq!(deltas[1].works[0].count, 1);
        assert!(sums.poll(rows, now).is_empty());
        assert_eq!(sums.of(0).count(), 2);
    }

    #[test]
    fn the_median_is_the_bound_of_its_bucket() {
        assert_eq!(median(&work(3, 4, 40)), 16);
        assert_eq!(median(&Work::EMPTY), 0);
    }
}
