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
        Ok(Self(take(ebpf, "UNTRACKED")?))
    }

    /// Every row, cumulative.
    #[must_use]
    pub fn rows(&self) -> Vec<(u64, u64)> {
        self.0.iter().flatten().collect()
    }
}
