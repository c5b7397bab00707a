//! Entry points for fuzzers: each takes any bytes and must not panic, hang or
//! hold more than the stated bounds.

use prost::Message;

use super::counters::Counters;
use super::cri::{ContainerFacts, Listing, PodFacts};
use super::path::CgroupPath;

/// Parses a cgroup path; returns what it stands for.
pub fn cgroup_path(bytes: &[u8]) -> CgroupPath {
    CgroupPath::parse(&String::from_utf8_lossy(bytes))
}

/// Decodes the answers to `ListContainers` and `ListPodSandbox`; returns how
/// many containers and pods were kept.
pub fn cri_answers(bytes: &[u8]) -> (usize, usize) {
    let containers = Listing::<ContainerFacts>::decode(bytes).map_or(0, |l| l.items.len());
    let pods = Listing::<PodFacts>::decode(bytes).map_or(0, |l| l.items.len());
    let status = super::cri::decode_status(bytes, &Counters::default());
    (containers, pods + usize::from(status))
}
