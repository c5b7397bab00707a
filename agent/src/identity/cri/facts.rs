//! From the runtime's messages to what is kept of them, every part at its bound.

use std::collections::BTreeMap;
use std::sync::Arc;

use culprit_proto::v1::Workload;
use prost::Message;

use super::v1;
use crate::identity::counters::Counters;
use crate::identity::limits::{self, MAX_ID, MAX_IMAGE, MAX_NAME, cut_owned};
use crate::identity::workload::{self, Known};

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// One entry of a listing, bounded as soon as it is decoded.
pub(in crate::identity) trait Fact: Sized + Send + Sync {
    /// The message it is made of.
    type Wire: Message + Default;
    /// `None` when the entry says nothing that could be looked up.
    fn from_wire(wire: Self::Wire, counters: &Counters) -> Option<Self>;
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) struct ContainerFacts {
    pub(in crate::identity) id: String,
    /// Empty for a sandbox: it is no container of the pod's.
    pub(in crate::identity) name: String,
    /// Empty until known.
    pub(in crate::identity) image: String,
    pub(in crate::identity) sandbox_id: String,
    /// What the container's own labels say of its pod, for want of a sandbox.
    pub(in crate::identity) pod: PodName,
}

/// Namespace, name and uid of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::identity) struct PodName {
    pub(in crate::identity) namespace: String,
    pub(in crate::identity) name: String,
    pub(in crate::identity) uid: String,
}

/// A pod sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) struct PodFacts {
    pub(in crate::identity) sandbox_id: String,
    pub(in crate::identity) pod: PodName,
    pub(in crate::identity) labels: BTreeMap<String, String>,
    pub(in crate::identity) workload: Workload,
    /// When its sandbox was made, nanoseconds since the Unix epoch; 0 not known.
    pub(in crate::identity) made_ns: u64,
    pub(in crate::identity) ready: bool,
    /// What only the status of the single sandbox says; none until asked.
    pub(in crate::identity) network: Option<Arc<PodNetwork>>,
}

/// A pod's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::identity) struct PodNetwork {
    pub(in crate::identity) ips: Vec<String>,
    pub(in crate::identity) host: bool,
}

impl Fact for ContainerFacts {
    type Wire = v1::Container;

    fn from_wire(wire: v1::Container, counters: &Counters) -> Option<Self> {
        let mut labels = wire.labels;
        let mut take = |key| cut_owned(labels.remove(key).unwrap_or_default(), MAX_NAME, counters);
        let pod = PodName {
            namespace: take(POD_NAMESPACE),
            name: take(POD_NAME),
            uid: take(POD_UID),
        };
        let label = take(CONTAINER_NAME);
        let name = if label.is_empty() {
            cut_owned(wire.metadata.unwrap_or_default().name, MAX_NAME, counters)
        } else {
            label
        };
        usable_id(&wire.id).then(|| Self {
            id: wire.id,
            name,
            image: image_name(wire.image, counters),
            sandbox_id: cut_owned(wire.pod_sandbox_id, MAX_ID, counters),
            pod,
        })
    }
}

impl Fact for PodFacts {
    type Wire = v1::PodSandbox;

    fn from_wire(wire: v1::PodSandbox, counters: &Counters) -> Option<Self> {
        let ready = wire.state == v1::PodSandboxState::SandboxReady as i32;
        let pod = pod_name(wire.metadata, counters);
        usable_id(&wire.id).then(|| Self {
            sandbox_id: wire.id,
            workload: workload::of(&Known {
                name: &pod.name,
                labels: &wire.labels,
                annotations: &wire.annotations,
                made_ns: wire.created_at.unsigned_abs(),
            }),
            pod,
            made_ns: wire.created_at.unsigned_abs(),
            labels: limits::labels(wire.labels, counters),
            ready,
            network: None,
        })
    }
}

impl PodFacts {
    /// From the status of one sandbox, which says its network too.
    pub(super) fn from_status(wire: v1::PodSandboxStatus, counters: &Counters) -> Option<Self> {
        let network = wire.network.unwrap_or_default();
        let given =
            std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
        let host = wire
            .linux
            .and_then(|l| l.namespaces)
            .and_then(|n| n.options)
            .is_some_and(|o| o.network == v1::NamespaceMode::Node as i32);
        let listed = v1::PodSandbox {
            id: wire.id,
            metadata: wire.metadata,
            state: wire.state,
            created_at: wire.created_at,
            labels: wire.labels,
            annotations: wire.annotations,
        };
        let facts = Self::from_wire(listed, counters)?;
        Some(Self {
            network: Some(Arc::new(PodNetwork {
                ips: limits::ips(given, counters),
                host,
            })),
            ..facts
        })
    }
}

/// The image by name from the status of one container, where its listing
/// gave only a digest; the digest if there is nothing better.
pub(super) fn status_image(wire: v1::ContainerStatus, counters: &Counters) -> String {
    let name = image_name(wire.image.clone(), counters);
    if !name.is_empty() {
        return name;
    }
    let digest = wire
        .image
        .map(|i| i.image)
        .filter(|i| !i.is_empty())
        .unwrap_or(wire.image_ref);
    cut_owned(digest, MAX_IMAGE, counters)
}

/// As the pod asked for it; empty when there is only a digest.
fn image_name(spec: Option<v1::ImageSpec>, counters: &Counters) -> String {
    let spec = spec.unwrap_or_default();
    let name = [spec.user_specified_image, spec.image]
        .into_iter()
        .find(|i| !i.is_empty() && !is_bare_digest(i))
        .unwrap_or_default();
    cut_owned(name, MAX_IMAGE, counters)
}

fn is_bare_digest(image: &str) -> bool {
    let hex = image.strip_prefix("sha256:").unwrap_or(image);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn pod_name(metadata: Option<v1::PodSandboxMetadata>, counters: &Counters) -> PodName {
    let m = metadata.unwrap_or_default();
    PodName {
        namespace: cut_owned(m.namespace, MAX_NAME, counters),
        name: cut_owned(m.name, MAX_NAME, counters),
        uid: cut_owned(m.uid, MAX_NAME, counters),
    }
}

/// An id that is cut would name something else: it is refused instead.
fn usable_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
}
