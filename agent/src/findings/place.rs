//! Where the files of a cgroup are.

use std::path::{Path, PathBuf};

use culprit_proto::v1::Identity;

use super::Context;
use crate::identity;

/// The directory of the CPU controller's hierarchy, and whether it is v1's.
pub(super) fn cpu_root(cgroup_root: &Path) -> (PathBuf, bool) {
    for name in ["cpu,cpuacct", "cpu", "cpuacct,cpu"] {
        let v1 = cgroup_root.join(name);
        if v1.join("cpu.cfs_quota_us").exists() || v1.join("cpu.shares").exists() {
            return (v1, true);
        }
    }
    (cgroup_root.to_owned(), false)
}

/// The directory of an identity's cgroup in the memory hierarchy.
pub(super) fn directory(who: &Identity, context: &Context<'_>) -> Option<PathBuf> {
    let path = &who.cgroup.as_ref()?.path;
    let (root, _) = identity::memory_root(context.cgroup_root);
    Some(root.join(path.trim_start_matches('/')))
}
