//! Direct reclaim of each workload over the last seconds: polled once a second,
//! for the findings that need it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use culprit_agent_ebpf::wire::work::Work;
use culprit_proto::v1::Histogram;

use super::sums::{Delta, Sums};
use crate::kernel::Tables;
use crate::pipeline::source::Resolver;

/// Seconds that are remembered.
const SECONDS: usize = 10;
/// Workloads of one second; further ones are in the sums alone.
const MAX: usize = 256;

/// Sorts of reclaim, in the order of `RECLAIM_*`.
pub(super) const MEMCG: usize = 0;
/// See [`MEMCG`].
pub(super) const GLOBAL: usize = 1;
/// See [`MEMCG`].
pub(super) const HIGH: usize = 2;

/// What was reclaimed by whom.
#[derive(Debug, Default)]
pub(super) struct Reclaimed {
    sums: Sums,
    /// Newest last.
    history: VecDeque<(Instant, Vec<Delta>)>,
}

impl Reclaimed {
    pub(super) fn poll(&mut self, tables: &mut Tables, resolver: &dyn Resolver, now: Instant) {
        let Some(rows) = tables.reclaim.as_ref().map(crate::kernel::WorkTable::rows) else {
            return;
        };
        let mut deltas = self.sums.poll(rows, now);
        deltas.truncate(MAX);
        if self.history.len() >= SECONDS {
            self.history.pop_front();
        }
        self.history.push_back((now, deltas));
        for id in self.sums.gone(resolver, now) {
            if let Some(table) = &mut tables.reclaim {
                table.remove(id);
            }
        }
    }

    /// Of the last second.
    pub(super) fn latest(&self) -> &[Delta] {
        self.history.back().map_or(&[], |(_, deltas)| deltas)
    }

    /// Of all that is remembered, by workload: all sorts together, nanoseconds.
    pub(super) fn recent(&self, now: Instant) -> BTreeMap<u64, u64> {
        let mut all = BTreeMap::new();
        let window = Duration::from_secs(SECONDS as u64);
        for (_, deltas) in self.history.iter().filter(|(at, _)| *at + window > now) {
            for delta in deltas {
                let total: u64 = delta.works.iter().map(|work| work.total_ns).sum();
                *all.entry(delta.workload).or_default() += total;
            }
        }
        all
    }

    /// One sort of each workload, cumulative.
    pub(super) fn of(&self, sort: usize) -> impl Iterator<Item = (u64, Histogram)> {
        self.sums.of(sort)
    }
}

/// One sort of a delta.
pub(super) fn sort(delta: &Delta, sort: usize) -> Work {
    delta.works.get(sort).copied().unwrap_or(Work::EMPTY)
}
