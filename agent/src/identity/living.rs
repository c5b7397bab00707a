//! The containers and pods of this node as they are now, for those who read
//! their cgroup files.

use std::path::PathBuf;

use super::hierarchy::V2;
use super::identifier::Identifier;
use super::{CgroupClass, lock};

/// A container's or pod's cgroup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// kernfs id in the hierarchy of the memory controller.
    pub memory_cgroup: u64,
    /// Path below the hierarchy's root, starting with '/'.
    pub path: String,
    /// Its directory in the hierarchy of the memory controller.
    pub directory: PathBuf,
    /// Container or pod.
    pub class: CgroupClass,
    /// The container's id; empty for a pod.
    pub container_id: String,
    /// With dashes; empty when the path does not say it.
    pub pod_uid: String,
}

impl Identifier {
    /// How many cgroups the hierarchy of the memory controller has.
    pub fn memory_cgroups(&self) -> u64 {
        let memory = self.hierarchies.memory_id();
        lock(&self.tree).living(memory).count() as u64
    }

    /// Every container and pod that is there, in the hierarchy of the memory
    /// controller; those below a container are left out. At most as many as the
    /// tree holds.
    pub fn living(&self) -> Vec<Living> {
        let memory = self.hierarchies.memory_id();
        let Some(mount) = self
            .hierarchies
            .mount(memory)
            .or(self.hierarchies.mount(V2))
        else {
            return Vec::new();
        };
        let mut all: Vec<Living> = lock(&self.tree)
            .living(memory)
            .filter(|(_, node)| {
                matches!(
                    node.parsed.class(),
                    CgroupClass::Container | CgroupClass::Pod
                )
            })
            .map(|(id, node)| Living {
                memory_cgroup: id,
                path: node.path.to_string(),
                directory: mount.path.join(node.path.trim_start_matches('/')),
                class: node.parsed.class(),
                container_id: node
                    .parsed
                    .container
                    .as_ref()
                    .map(|container| container.id.clone())
                    .unwrap_or_default(),
                pod_uid: node.parsed.pod_uid.clone().unwrap_or_default(),
            })
            .collect();
        // A directory below a container's own has the same container id.
        all.sort_by(|a, b| a.path.cmp(&b.path));
        let mut last = String::new();
        all.retain(|one| {
            let below = !last.is_empty() && one.path.starts_with(&last);
            if one.class == CgroupClass::Container && !below {
                last = format!("{}/", one.path);
            }
            !below
        });
        all
    }
}
