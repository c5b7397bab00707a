//! Connections that found no room in the table of sockets.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};

use super::{KernelError, object::take};

/// How many, by kernfs id of the memory cgroup of who connected or listens. 1024 rows;
/// row 0 has those of whom it is not known, and of workloads beyond.
#[derive(Debug)]
pub struct Untracked(HashMap<MapData, u64, u64>);

impl Untracked {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut map: HashMap<MapData, u64, u64> = take(ebpf, "UNTRACKED")?;
        // Row 0 has its place whoever comes.
        map.insert(0, 0, 0).map_err(|e| KernelError::Map {
            name: "UNTRACKED",
            reason: e.to_string(),
        })?;
        Ok(Self(map))
    }

    /// Every row, cumulative.
    #[must_use]
    pub fn rows(&self) -> Vec<(u64, u64)> {
        self.0.iter().flatten().collect()
    }

    /// Gives a row's place to another workload.
    pub fn remove(&mut self, id: u64) {
        // Gone already is as good.
        drop(self.0.remove(&id));
    }
}
