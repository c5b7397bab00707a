//! Who listens where, as the kernel side keeps it for accepted connections.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::tcp::{Listener, ListenerKey};

use super::{KernelError, object::take};
use crate::{identity::Actor, pipeline::source::Listening, probes::who};

/// The table of listeners: 8192 rows, one per network namespace and port.
#[derive(Debug)]
pub(super) struct Listeners {
    map: HashMap<MapData, ListenerKey, Listener>,
}

impl Listeners {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, "LISTENERS")?,
        })
    }
}

/// The findings ask as well.
impl Listening for Arc<Listeners> {
    fn ports(&self, netns: u32) -> Vec<(u16, Actor)> {
        Listeners::ports(self, netns)
    }
}

impl Listeners {
    pub(super) fn ports(&self, netns: u32) -> Vec<(u16, Actor)> {
        self.map
            .iter()
            .flatten()
            .filter(|(key, _)| key.netns == netns)
            .map(|(key, row)| (key.port, who::actor(&row.owner, 0, key.netns)))
            .collect()
    }
}
