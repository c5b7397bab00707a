//! Who connects. kubelet's probes go on while a container ends, and it is no client:
//! processes of the node that are in no container are left out.

use culprit_proto::v1::Identity;

/// A process of the node's own, as the far end of a connection.
pub(super) fn is_host_process(peer: Option<&Identity>) -> bool {
    peer.is_some_and(|peer| peer.process.is_some() && is_in_none(peer))
}

/// The same, as the one that connects.
pub(super) fn is_of_node(who: Option<&Identity>, host_netns: u32) -> bool {
    who.is_some_and(|who| host_netns != 0 && who.netns == host_netns && is_in_none(who))
}

fn is_in_none(who: &Identity) -> bool {
    let container = who.container.as_ref().is_some_and(|one| !one.id.is_empty());
    who.pod.is_none() && !container
}
