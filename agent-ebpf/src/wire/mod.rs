//! One file per probe. Every record begins with [`Header`].

/// Declares plain-data structs: `repr(C)`, integers and arrays of them only.
/// In user space they get the zerocopy derives, which refuse implicit padding.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident ($size:literal) { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        const _: () = assert!(core::mem::align_of::<$name>() <= 8);

        // SAFETY: repr(C), integers only, no padding (zerocopy's derive
        // refuses implicit padding), every bit pattern is a value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

pub mod cgroup;
pub mod cgroup_read;
pub mod config;
pub mod dns;
pub mod fields;
pub mod holder;
pub mod icmp_echo;
pub mod nat;
pub mod oom;
pub mod reclaim;
pub mod runq;
pub mod sigterm;
pub mod skb_drop;
pub mod softirq;
pub mod stats;
pub mod task;
pub mod tcp;
pub mod work;

pub use task::Task;

wire_struct! {
    /// First bytes of every ring record.
    pub struct Header (16) {
        /// `bpf_ktime_get_ns()`: CLOCK_MONOTONIC, nanoseconds.
        pub time_ns: u64,
        /// One of the `KIND_*` constants.
        pub kind: u32,
        /// CPU the program ran on.
        pub cpu: u32,
    }
}

pub const KIND_TCP_CONNECT: u32 = 1;
pub const KIND_TCP_FLOW: u32 = 2;
pub const KIND_ICMP_ECHO: u32 = 3;
pub const KIND_SOFTIRQ_STALL: u32 = 4;
pub const KIND_OOM_KILL: u32 = 5;
pub const KIND_CGROUP: u32 = 6;
pub const KIND_CGROUP_READ: u32 = 7;
pub const KIND_DNS: u32 = 8;
pub const KIND_TCP_LISTEN: u32 = 9;
pub const KIND_HOLDER: u32 = 10;
pub const KIND_SKB_DROP: u32 = 11;
pub const KIND_SYN_RETRANSMIT: u32 = 12;
pub const KIND_SIGTERM: u32 = 13;
