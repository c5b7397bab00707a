//! The messages that say who, from what is known.

use std::sync::Arc;

use culprit_proto::v1::pod::QosClass;
use culprit_proto::v1::{Cgroup, Pod, Process};

use super::Actor;
use super::cri::{ContainerFacts, PodFacts};
use super::path::CgroupPath;
use super::tree::Key;
use super::workload;

/// The process; none when a socket's owner is meant, or nobody.
pub(super) fn process(actor: &Actor, exe: &str) -> Option<Process> {
    let comm = actor.comm.split(|b| *b == 0).next().unwrap_or_default();
    if actor.pid == 0 && (comm.is_empty() || actor.sock_cgroup != 0) {
        return None;
    }
    Some(Process {
        pid: actor.pid,
        tid: actor.tid,
        comm: String::from_utf8_lossy(comm).into_owned(),
        exe: exe.to_owned(),
        start_time: actor.start_time_ns,
    })
}

/// The cgroup; `path` is empty when it is not known.
pub(super) fn cgroup(key: Key, path: &str) -> Cgroup {
    Cgroup {
        id: key.1,
        path: path.to_owned(),
        hierarchy: key.0,
    }
}

/// All that the path says of the pod.
pub(super) fn bare_pod(parsed: &CgroupPath) -> Pod {
    let mut pod = Pod {
        uid: parsed.pod_uid.clone().unwrap_or_default(),
        ..Pod::default()
    };
    pod.set_qos_class(parsed.qos);
    pod
}

/// The pod as its sandbox names it.
pub(super) fn pod(facts: &PodFacts, qos: QosClass) -> Pod {
    let mut pod = Pod {
        labels: facts.labels.clone(),
        ..brief(facts)
    };
    pod.set_qos_class(qos);
    pod
}

/// The pod without its labels, which travel with its own events.
pub(super) fn brief(facts: &PodFacts) -> Pod {
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

/// The pod by its sandbox, else by the container's own labels, else by the
/// path; none when nothing names one.
pub(super) fn named_pod(
    container: &ContainerFacts,
    sandbox: Option<&Arc<PodFacts>>,
    parsed: &CgroupPath,
) -> Option<Pod> {
    if let Some(facts) = sandbox {
        return Some(pod(facts, parsed.qos));
    }
    let mut bare = bare_pod(parsed);
    bare.namespace.clone_from(&container.pod.namespace);
    bare.name.clone_from(&container.pod.name);
    if !bare.name.is_empty() {
        bare.workload = Some(workload::without_labels(&bare.name));
    }
    if !container.pod.uid.is_empty() {
        bare.uid.clone_from(&container.pod.uid);
    }
    (!bare.uid.is_empty() || !bare.name.is_empty()).then_some(bare)
}
