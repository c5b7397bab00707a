//! The pods of this node with their addresses: who is at the other end of a
//! connection, and what the collector is told of.

use std::net::IpAddr;

use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{Container, Identity, InventoryPod, Pod};

use super::cri::PodFacts;
use super::identifier::Identifier;

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

/// The pod without its labels, which travel with its own events.
fn brief(facts: &PodFacts) -> Pod {
    let network = facts.network.as_deref();
    Pod {
        namespace: facts.pod.namespace.clone(),
        name: facts.pod.name.clone(),
        uid: facts.pod.uid.clone(),
        ips: network.map(|n| n.ips.clone()).unwrap_or_default(),
        host_network: network.is_some_and(|n| n.host),
        workload: Some(facts.workload.clone()),
        ..Pod::default()
    }
}
