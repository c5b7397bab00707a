//! The kernel side's own accounting: one per-CPU counter per probe and fate.

/// Row of the per-CPU array STATS for a probe: `PROBE_* as u32`.
pub const PROBE_TCP_CONNECT: u32 = 0;
pub const PROBE_TCP_FLOW: u32 = 1;
pub const PROBE_ICMP_ECHO: u32 = 2;
pub const PROBE_SOFTIRQ: u32 = 3;
pub const PROBE_OOM: u32 = 4;
pub const PROBE_CGROUP: u32 = 5;
pub const PROBE_HOLDER: u32 = 6;
pub const PROBE_CGROUP_READ: u32 = 7;
pub const PROBE_RECLAIM: u32 = 8;
pub const PROBE_RUNQ: u32 = 9;
pub const PROBE_TCP_LISTEN: u32 = 10;
pub const PROBE_SKB_DROP: u32 = 11;
pub const PROBE_DNS: u32 = 12;
pub const PROBE_SYN_RETRANSMIT: u32 = 13;
pub const PROBE_NAT: u32 = 14;
pub const PROBE_SIGTERM: u32 = 15;
pub const PROBES: u32 = 16;

wire_struct! {
    /// Value of STATS. `seen = submitted + dropped_ring + dropped_map +
    /// suppressed`, exactly, at rest.
    pub struct ProbeStats (64) {
        /// Events that had to become a record.
        pub seen: u64,
        /// Records handed to the ring.
        pub submitted: u64,
        /// The ring had no room.
        pub dropped_ring: u64,
        /// The in-flight table had no room, so the event could not be built.
        pub dropped_map: u64,
        /// Counted but not sent by rate limit.
        pub suppressed: u64,
        /// Socket or call not in the table where it should have been.
        pub unmatched: u64,
        pub reserved: [u64; 2],
    }
}
