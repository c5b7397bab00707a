//! Statistics of each workload, collected from the findings on an interval.

use std::collections::BTreeMap;

use culprit_proto::v1::WorkloadStats;

/// Workloads told in one interval; a node has fewer containers.
const MAX: usize = 1024;

/// What is known of each workload, cumulative, by the id of its cgroup in the
/// memory controller's hierarchy.
#[derive(Debug, Default)]
pub struct Workloads {
    all: BTreeMap<u64, WorkloadStats>,
    left_out: u64,
}

impl Workloads {
    /// The statistics of a workload, to add to; `None` when there are too many.
    pub fn of(&mut self, memory_cgroup: u64) -> Option<&mut WorkloadStats> {
        if self.all.len() >= MAX && !self.all.contains_key(&memory_cgroup) {
            self.left_out += 1;
            return None;
        }
        Some(self.all.entry(memory_cgroup).or_default())
    }

    pub(super) fn into_parts(self) -> (BTreeMap<u64, WorkloadStats>, u64) {
        (self.all, self.left_out)
    }
}
