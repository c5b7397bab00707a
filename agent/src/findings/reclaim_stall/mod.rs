//! reclaim_stall: tasks of a workload spend their time freeing memory.
//! docs/findings.md, `reclaim_stall`.

mod pressure;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::reclaimed::{GLOBAL, HIGH, MEMCG, sort};
use super::window::Window;
use super::{Context, Threshold, Watcher, Workloads};
use pressure::Node;

const NAME: &str = "reclaim_stall";
/// Workloads that are looked at; those beyond are in the statistics alone.
const MAX: usize = 512;
/// Between two reports of one workload to the desk.
const REPORT: Duration = Duration::from_secs(10);

/// Speaks of `threshold` and more within 10 s, all tasks of a workload together.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(ReclaimStall {
        threshold: threshold.time(),
        workloads: BTreeMap::new(),
        node: Node::default(),
        told: Vec::new(),
    })
}

/// One workload's reclaim of late.
#[derive(Debug, Default)]
struct Workload {
    memcg: Window,
    global: Window,
    high: Window,
    told: Option<Instant>,
}

struct ReclaimStall {
    threshold: Duration,
    /// By memory cgroup.
    workloads: BTreeMap<u64, Workload>,
    node: Node,
    /// Sums as of the last tick, for the statistics.
    told: Vec<(u64, [Option<culprit_proto::v1::Histogram>; 3])>,
}

impl Watcher for ReclaimStall {
    fn tick(&mut self, context: &mut Context<'_>) {
        self.keep_sums(context);
        self.take(context);
        if !self.workloads.is_empty() {
            self.node.poll(context);
        }
        self.judge(context, false);
        let now = context.now;
        self.workloads.retain(|_, one| {
            !(one.memcg.is_empty(now) && one.global.is_empty(now) && one.high.is_empty(now))
        });
    }

    fn stats(&mut self, workloads: &mut Workloads) {
        for (cgroup, [memcg, global, high]) in &self.told {
            if let Some(row) = workloads.of(*cgroup) {
                row.memcg_reclaim.clone_from(memcg);
                row.global_reclaim.clone_from(global);
                row.memory_high.clone_from(high);
            }
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.judge(context, true);
    }
}

impl ReclaimStall {
    fn take(&mut self, context: &Context<'_>) {
        for delta in context.reclaimed.latest() {
            if self.workloads.len() >= MAX && !self.workloads.contains_key(&delta.workload) {
                continue;
            }
            let workload = self.workloads.entry(delta.workload).or_default();
            workload.memcg.add(sort(delta, MEMCG), context.now);
            workload.global.add(sort(delta, GLOBAL), context.now);
            workload.high.add(sort(delta, HIGH), context.now);
        }
    }

    fn keep_sums(&mut self, context: &Context<'_>) {
        let mut all: BTreeMap<u64, [Option<culprit_proto::v1::Histogram>; 3]> = BTreeMap::new();
        for at in [MEMCG, GLOBAL, HIGH] {
            for (cgroup, histogram) in context.reclaimed.of(at) {
                if let Some(cell) = all.entry(cgroup).or_default().get_mut(at) {
                    *cell = Some(histogram);
                }
            }
        }
        self.told = all.into_iter().collect();
    }

    fn judge(&mut self, context: &mut Context<'_>, last: bool) {
        let now = context.now;
        for (cgroup, workload) in &mut self.workloads {
            let sums = [
                workload.memcg.sum(now),
                workload.global.sum(now),
                workload.high.sum(now),
            ];
            let total: u64 = sums.iter().map(|sum| sum.total_ns).sum();
            if Duration::from_nanos(total) < self.threshold {
                continue;
            }
            let due = workload.told.is_none_or(|told| told + REPORT <= now);
            if due || (last && workload.told.is_none()) {
                workload.told = Some(now);
                let stats = self.told.iter().find(|(id, _)| id == cgroup);
                let histograms = stats.map(|(_, histograms)| histograms.clone());
                words::report(*cgroup, &sums, histograms, &self.node, context);
            }
        }
    }
}
