//! Which cgroup hierarchies this node has and where they are mounted.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use procfs::process::{MountInfos, Process};
use procfs::{CGroupControllers, FromRead};
use serde::Serialize;

/// How the node's cgroups are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// One v2 hierarchy with all controllers.
    #[default]
    V2,
    /// Controllers on v1, and a v2 tree beside them.
    Hybrid,
    /// v1 only.
    V1,
}

/// Inode of a hierarchy's true top directory.
const ROOT_INO: u64 = 1;
// linux/magic.h
const CGROUP_SUPER_MAGIC: rustix::fs::FsWord = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// The kernel's id of the v2 hierarchy.
pub(super) const V2: u32 = 0;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Kernel's hierarchy id.
    pub(super) id: u32,
    pub(super) path: PathBuf,
    /// Inode of its top directory.
    pub(super) root_ino: u64,
    /// False when the mount shows only a subtree (a cgroup namespace, as in
    /// kind): the kernel's paths are then longer than those seen here.
    pub(super) whole: bool,
}

impl Mount {
    fn at(id: u32, path: PathBuf) -> std::io::Result<Self> {
        let root_ino = std::fs::metadata(&path)?.ino();
        let magic = rustix::fs::statfs(&path)?.f_type;
        let cgroup_fs = magic == CGROUP2_SUPER_MAGIC || magic == CGROUP_SUPER_MAGIC;
        Ok(Self {
            id,
            path,
            root_ino,
            whole: root_ino == ROOT_INO || !cgroup_fs,
        })
    }
}

/// The hierarchies that container ids are looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchies {
    pub(super) mode: CgroupMode,
    pub(super) v2: Option<Mount>,
    /// The v1 hierarchy of the memory controller; none where memory is on v2.
    pub(super) memory: Option<Mount>,
}

impl Hierarchies {
    /// Looks at what is mounted below `root`.
    pub(super) fn detect(root: &Path, proc_root: &Path) -> Result<Self> {
        if let Some(v2) = v2_mount(root) {
            return Ok(Self {
                mode: CgroupMode::V2,
                v2: Some(v2),
                memory: None,
            });
        }
        let v2 = v2_mount(&root.join("unified"));
        let memory = memory_mount(root, proc_root)?;
        let mode = match (&v2, &memory) {
            (None, None) => bail!(
                "no cgroup file system below {}: mount the host's cgroups there (in Kubernetes a hostPath volume of /sys/fs/cgroup)",
                root.display()
            ),
            (None, Some(_)) => CgroupMode::V1,
            (Some(_), _) => CgroupMode::Hybrid,
        };
        Ok(Self { mode, v2, memory })
    }

    /// Kernel's id of the hierarchy that memory ids belong to.
    pub(super) fn memory_id(&self) -> u32 {
        self.memory.as_ref().map_or(V2, |m| m.id)
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = &Mount> {
        self.v2.iter().chain(&self.memory)
    }

    pub(super) fn mount(&self, id: u32) -> Option<&Mount> {
        self.mounts().find(|m| m.id == id)
    }
}

fn v2_mount(path: &Path) -> Option<Mount> {
    // v1 has no file of that name.
    path.join("cgroup.controllers").exists().then_some(())?;
    Mount::at(V2, path.to_owned()).ok()
}

/// The top directory of the memory controller's hierarchy where it usually is below `root`,
/// and whether that is v1's.
pub fn memory_root(root: &Path) -> (PathBuf, bool) {
    let usual = root.join("memory");
    // v2 has no files of these names, and may have a cgroup of that name.
    if usual.join("tasks").exists() || usual.join("memory.limit_in_bytes").exists() {
        (usual, true)
    } else {
        (root.to_owned(), false)
    }
}

/// Where v1's memory controller is mounted under another name ("cpu,memory").
fn memory_among(mounts: MountInfos, root: &Path) -> Option<PathBuf> {
    let found = mounts.into_iter().find(|mount| {
        mount.fs_type == "cgroup"
            && mount.mount_point.starts_with(root)
            && mount.super_options.contains_key("memory")
    });
    Some(found?.mount_point)
}

fn memory_mount(root: &Path, proc_root: &Path) -> Result<Option<Mount>> {
    let (usual, v1) = memory_root(root);
    let path = if v1 {
        usual
    } else {
        let mounts = Process::myself().and_then(|own| own.mountinfo());
        let mounts = mounts.context("the mounts in /proc/self/mountinfo")?;
        match memory_among(mounts, root) {
            Some(path) => path,
            None => return Ok(None),
        }
    };
    let table = proc_root.join("cgroups");
    let controllers = CGroupControllers::from_file(&table)
        .with_context(|| format!("hierarchy ids in {}", table.display()))?;
    let id = controllers
        .0
        .iter()
        .find(|c| c.name == "memory")
        .map(|c| c.hierarchy)
        .with_context(|| format!("{} does not list the memory controller", table.display()))?;
    let shown = path.display().to_string();
    Mount::at(id, path)
        .map(Some)
        .with_context(|| format!("cgroup mount {shown}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use procfs::FromBufRead;

    use super::*;

    #[test]
    fn the_memory_controller_is_found_whatever_its_mount_is_called() {
        let find = |lines: &str| {
            let mounts = MountInfos::from_buf_read(lines.as_bytes()).unwrap();
            memory_among(mounts, Path::new("/sys/fs/cgroup"))
        };
        let joint = "31 25 0:27 / /sys/fs/cgroup/cpu,memory rw - cgroup cgroup rw,cpu,memory\n";
        let elsewhere = "32 25 0:28 / /mnt/memory rw - cgroup cgroup rw,memory\n";
        let v2 = "33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let tmpfs = "34 25 0:30 / /sys/fs/cgroup rw - tmpfs tmpfs rw,memory\n";
        let all = [tmpfs, elsewhere, v2, joint].concat();
        assert_eq!(find(&all).unwrap(), Path::new("/sys/fs/cgroup/cpu,memory"));
        assert_eq!(find(&[tmpfs, elsewhere, v2].concat()), None);
    }
}
