//! The kernel side's sums by workload.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::{reclaim::ReclaimWork, work::Work};

use super::{KernelError, object::take};

/// Sums of some sorts of work, by kernfs id of the workload's memory cgroup.
#[derive(Debug)]
pub struct WorkTable(Map);

#[derive(Debug)]
enum Map {
    One(HashMap<MapData, u64, Work>),
    Reclaim(HashMap<MapData, u64, ReclaimWork>),
}

impl WorkTable {
    pub(super) fn one(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, KernelError> {
        Ok(Self(Map::One(take(ebpf, name)?)))
    }

    pub(super) fn reclaim(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(Map::Reclaim(take(ebpf, "RECLAIM_WORK")?)))
    }

    /// Every row; with reclaim in the order of `RECLAIM_*`, else one sort alone.
    /// A row that comes or goes meanwhile may be missed.
    #[must_use]
    pub fn rows(&self) -> Vec<(u64, Vec<Work>)> {
        match &self.0 {
            Map::One(map) => map
                .iter()
                .flatten()
                .map(|(id, work)| (id, vec![work]))
                .collect(),
            Map::Reclaim(map) => map
                .iter()
                .flatten()
                .map(|(id, work)| (id, work.kinds.to_vec()))
                .collect(),
        }
    }

    /// Gives a row's place to another workload.
    pub fn remove(&mut self, id: u64) {
        // Gone already is as good.
        drop(match &mut self.0 {
            Map::One(map) => map.remove(&id),
            Map::Reclaim(map) => map.remove(&id),
        });
    }
}
