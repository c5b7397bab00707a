//! cgroup: a directory came or went.

use culprit_agent_ebpf::wire::cgroup as wire;

use crate::identity::CgroupChange;

pub(super) fn change(record: &wire::Cgroup) -> CgroupChange {
    let length = record.path_len as usize;
    // A path that fills the record may have been cut: the tree is walked then.
    let path = record
        .path
        .get(..length)
        .filter(|p| !p.is_empty() && p.len() < wire::PATH_BYTES - 1)
        .and_then(|p| String::from_utf8(p.to_vec()).ok());
    CgroupChange {
        hierarchy: record.hierarchy,
        id: record.id,
        created: record.op == wire::CGROUP_MKDIR,
        path,
        at_ns: record.header.time_ns,
    }
}
