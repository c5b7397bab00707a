//! cgroup_read: reads of cgroup files, and flushes of cgroup statistics.

use super::{Header, Task, holder::FILE_NAME, work::Work};

wire_struct! {
    /// Value of the map CGROUP_READS, by pid_tgid: a read under way.
    pub struct ReadNow (56) {
        pub start_ns: u64,
        /// kernfs id of the file's directory.
        pub cgroup: u64,
        pub file_name: [u8; FILE_NAME],
        /// Cgroups whose statistics were flushed for this read (per CPU and
        /// cgroup), and how many of them were dying.
        pub flushed: u32,
        pub flushed_dying: u32,
    }
}

wire_struct! {
    /// KIND_CGROUP_READ: a read, or a stretch of a flush, over the floor.
    pub struct CgroupRead (152) {
        pub header: Header,
        /// Who reads.
        pub task: Task,
        /// How long it took; the header's time is its end.
        pub took_ns: u64,
        /// kernfs id of the file's directory; of the flushed cgroup for
        /// `READ_FLUSH`; 0 not known.
        pub cgroup: u64,
        pub file_name: [u8; FILE_NAME],
        pub flushed: u32,
        pub flushed_dying: u32,
        /// `READ_*`.
        pub what: u32,
        pub pad: u32,
        pub reserved: u64,
        pub reserved2: u64,
    }
}

/// A file was read (`cgroup_seqfile_show`).
pub const READ_FILE: u32 = 0;
/// The lock of the statistics was held, with interrupts off.
pub const READ_FLUSH: u32 = 1;

wire_struct! {
    /// Value of the per-CPU array FLUSH_NOW.
    pub struct FlushNow (32) {
        /// When this CPU took the lock; 0 it has not.
        pub locked_ns: u64,
        /// Start of the current rate window, and records in it.
        pub window_ns: u64,
        pub in_window: u64,
        pub reserved: u64,
    }
}

/// Value of READ_WORK, by the reader's memory cgroup.
pub type ReadWork = Work;
