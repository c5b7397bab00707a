//! cgroup: directories that come and go, so that a container is known before
//! its first connection is reported.

use super::Header;

/// Longest path that a record carries, bytes; a longer one is cut, and the
/// agent walks the tree instead.
pub const PATH_BYTES: usize = 256;

wire_struct! {
    /// KIND_CGROUP.
    pub struct Cgroup (296) {
        pub header: Header,
        /// kernfs id of the directory.
        pub id: u64,
        /// `cgroup_root.hierarchy_id`; 0 is v2.
        pub hierarchy: u32,
        /// `CGROUP_*`.
        pub op: u32,
        /// Length of the path in `path`, without the NUL; 0 when the kernel
        /// does not let programs read strings (lockdown=confidentiality).
        pub path_len: u32,
        pub pad: u32,
        pub path: [u8; PATH_BYTES],
    }
}

pub const CGROUP_MKDIR: u32 = 1;
pub const CGROUP_RMDIR: u32 = 2;
