//! The pods of this node with their addresses: who is at the other end of a
//! connection, and what the collector is told of.

use std::net::IpAddr;

use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{Container, Identity, InventoryPod};

use super::Naming;
use super::identifier::Identifier;
use super::message::brief;

/// Containers of one pod that are told.
const MAX_CONTAINERS: usize = 16;

impl Identifier {
    /// The pod of this node that has the address now, or had it last; None for
    /// the node's own addresses.
    pub fn at_address(&self, ip: IpAddr) -> Option<Identity> {
        let facts = self.store.pod_by_ip(ip)?;
        Some(Identity {
            pod: Some(brief(&facts)),
            source: Source::Address.into(),
            ..Identity::default()
        })
    }

    /// How long containers that came while the agent runs had no name.
    pub fn naming(&self) -> Naming {
        self.store.naming.read()
    }

    /// A number that changes when [`Self::pods`] may.
    pub fn pods_state(&self) -> u64 {
        self.store.state()
    }

    /// Every pod that the runtime tells of, by sandbox, those that went lately
    /// included. One whose network is not known yet is left out: it comes with
    /// it.
    pub fn pods(&self) -> Vec<(String, InventoryPod)> {
        let held = self.store.inventory();
        held.into_iter()
            .filter(|one| one.pod.network.is_some())
            .map(|one| {
                let containers = one.containers.iter().take(MAX_CONTAINERS);
                let containers = containers.map(|container| Container {
                    id: container.id.clone(),
                    name: container.name.clone(),
                    image: container.image.clone(),
                });
                let pod = InventoryPod {
                    pod: Some(brief(&one.pod)),
                    containers: containers.collect(),
                    since: one.pod.made_ns,
                    until: one.gone_ns,
                };
                (one.pod.sandbox_id.clone(), pod)
            })
            .collect()
    }
}
