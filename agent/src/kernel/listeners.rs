//! Who listens where, as the kernel side keeps it for accepted connections.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use culprit_agent_ebpf::wire::tcp::{Listener, ListenerKey};

use super::{KernelError, object::take};
use crate::{identity::Actor, pipeline::source::Listening, probes::who};

/// The table of listeners: 8192 rows, one per network namespace and port.
pub(super) struct Listeners {
    map: HashMap<MapData, ListenerKey, Listener>,
    host: Array<MapData, u32>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listeners")
    }
}

impl Listeners {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, "LISTENERS")?,
            host: take(ebpf, "HOST_NETNS")?,
        })
    }

    /// See [`Listening::ports`].
    pub(super) fn ports(&self, netns: u32) -> Vec<(u16, Actor)> {
        self.map
            .iter()
            .flatten()
            .filter(|(key, _)| key.netns == netns)
            .map(|(key, row)| (key.port, who::actor(&row.owner, 0, key.netns)))
            .collect()
    }
}

/// The findings ask as well.
impl Listening for Arc<Listeners> {
    fn host_netns(&self) -> u32 {
        // The walk at start fills it in; 0 before, and where it cannot be made.
        self.host.get(&0, 0).unwrap_or(0)
    }

    fn ports(&self, netns: u32) -> Vec<(u16, Actor)> {
        Listeners::ports(self, netns)
    }

    fn owner(&self, netns: u32, port: u16) -> Option<Actor> {
        let key = ListenerKey {
            netns,
            port,
            pad: 0,
        };
        let row = self.map.get(&key, 0).ok()?;
        Some(who::actor(&row.owner, 0, netns))
    }
}
