//! cpu_starved: a workload has work and no CPU, by its own limit or because the
//! node has none left. docs/findings.md, `cpu_starved`.

mod quota;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::sums::{self, Sums};
use super::window::Window;
use super::{Context, Threshold, Watcher, Workloads};
use quota::Quotas;

const NAME: &str = "cpu_starved";
/// Workloads whose waits are looked at; those beyond are in the statistics alone.
const MAX: usize = 512;
/// Between two reports of one workload to the desk.
const REPORT: Duration = Duration::from_secs(10);

/// Speaks of `threshold` percent of the time, of ten seconds or of the limit's
/// periods.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(CpuStarved {
        percent: threshold.percent(),
        sums: Sums::default(),
        waits: BTreeMap::new(),
        quotas: Quotas::default(),
        told: BTreeMap::new(),
    })
}

struct CpuStarved {
    percent: f64,
    sums: Sums,
    /// Waits for a CPU by memory cgroup.
    waits: BTreeMap<u64, Window>,
    quotas: Quotas,
    told: BTreeMap<u64, Instant>,
}

impl Watcher for CpuStarved {
    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for delta in sums::poll(&mut self.sums, |tables| tables.runq.as_mut(), context) {
            if self.waits.len() >= MAX && !self.waits.contains_key(&delta.workload) {
                continue;
            }
            if let Some(work) = delta.works.first() {
                let window = self.waits.entry(delta.workload).or_default();
                window.add(*work, now);
            }
        }
        let suspects: Vec<u64> = self
            .waits
            .iter()
            .filter(|(_, window)| self.is_much(window.sum(now).total_ns))
            .map(|(id, _)| *id)
            .collect();
        self.quotas.poll(&suspects, context);
        self.judge(context);
        self.waits.retain(|_, window| !window.is_empty(now));
        self.told.retain(|_, told| *told + REPORT > now);
    }

    fn stats(&mut self, workloads: &mut Workloads) {
        for (cgroup, waits) in self.sums.of(0) {
            if let Some(row) = workloads.of(cgroup) {
                row.runq_wait = Some(waits);
            }
        }
    }
}

impl CpuStarved {
    /// Whether so much waiting within the window is over the threshold.
    fn is_much(&self, waited_ns: u64) -> bool {
        waited_ns as f64 >= super::window::SPAN.as_nanos() as f64 * self.percent / 100.0
    }

    fn judge(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let throttled = self.quotas.throttled(self.percent);
        let waiting = self
            .waits
            .iter()
            .filter(|(_, window)| self.is_much(window.sum(now).total_ns))
            .map(|(id, _)| *id);
        let mut all: Vec<u64> = throttled.into_iter().chain(waiting).collect();
        all.sort_unstable();
        all.dedup();
        for cgroup in all {
            if self.told.contains_key(&cgroup) || cgroup <= 1 {
                continue;
            }
            let wait = self
                .waits
                .get(&cgroup)
                .map(|window| window.sum(now))
                .unwrap_or(culprit_agent_ebpf::wire::work::Work::EMPTY);
            let usage = self.quotas.of(cgroup);
            let histogram = self
                .sums
                .of(0)
                .find(|(id, _)| *id == cgroup)
                .map(|(_, histogram)| histogram);
            if words::report(cgroup, &wait, usage, histogram, context) {
                self.told.insert(cgroup, now);
            }
        }
    }
}
