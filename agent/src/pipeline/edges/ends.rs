//! The two ends of an edge: what tells edges apart, and what is told of each end.

use bytes::Bytes;
use culprit_proto::v1::{Endpoint, Event, Identity, TcpFlow, tcp_flow::Role};

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    who: Party,
    pub(super) peer: Party,
    port: u32,
    role: i32,
}

/// One end, as far as it is told from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Party {
    /// Namespace, kind and name.
    Workload(String, i32, String),
    /// Namespace, name and uid.
    Pod(String, String, String),
    Container(String),
    /// A host process.
    Cgroup(String),
    Address(Bytes),
    Unknown,
}

pub(super) fn far(flow: &TcpFlow) -> Option<&Endpoint> {
    flow.remote_nat.as_ref().or(flow.remote.as_ref())
}

/// The server's, behind all translation.
pub(super) fn port(flow: &TcpFlow) -> u32 {
    let server = match flow.role() {
        Role::Client => far(flow),
        Role::Server => flow.local.as_ref(),
        Role::Unknown => None,
    };
    server.map_or(0, |end| end.port)
}

pub(super) fn key(event: &Event, flow: &TcpFlow) -> Key {
    let cgroup = event.who.as_ref().and_then(|who| who.cgroup.as_ref());
    Key {
        who: party(event.who.as_ref()).unwrap_or_else(|| {
            cgroup.map_or(Party::Unknown, |cgroup| Party::Cgroup(cgroup.path.clone()))
        }),
        peer: party(event.peer.as_ref()).unwrap_or_else(|| {
            far(flow).map_or(Party::Unknown, |end| Party::Address(end.ip.clone()))
        }),
        port: port(flow),
        role: flow.role,
    }
}

fn party(identity: Option<&Identity>) -> Option<Party> {
    let identity = identity?;
    if let Some(pod) = &identity.pod {
        let workload = pod.workload.as_ref();
        return Some(
            match workload.filter(|workload| !workload.name.is_empty()) {
                Some(workload) => {
                    Party::Workload(pod.namespace.clone(), workload.kind, workload.name.clone())
                }
                None => Party::Pod(pod.namespace.clone(), pod.name.clone(), pod.uid.clone()),
            },
        );
    }
    let container = identity.container.as_ref()?;
    Some(Party::Container(container.id.clone()))
}

impl Party {
    pub(super) fn is_named(&self) -> bool {
        matches!(
            self,
            Self::Workload(..) | Self::Pod(..) | Self::Container(_)
        )
    }
}

/// Without process and labels.
pub(super) fn brief(identity: &Identity) -> Identity {
    let mut brief = Identity {
        process: None,
        ..identity.clone()
    };
    if let Some(pod) = &mut brief.pod {
        pod.labels.clear();
    }
    brief
}

/// What is true of both: pods of a workload share it and their namespace, no more.
pub(super) fn shared(one: Option<Identity>, other: Option<&Identity>) -> Option<Identity> {
    let (mut one, other) = (one?, other?);
    if one.process != other.process {
        one.process = None;
    }
    if one.container != other.container {
        one.container = None;
    }
    if one.cgroup != other.cgroup {
        one.cgroup = None;
    }
    if one.netns != other.netns {
        one.netns = 0;
    }
    if let (Some(pod), Some(another)) = (&mut one.pod, &other.pod)
        && (&pod.uid, &pod.name) != (&another.uid, &another.name)
    {
        pod.name.clear();
        pod.uid.clear();
        pod.ips.clear();
    }
    Some(one)
}
