//! icmp_echo: an echo request handled.

use super::{Header, Task};

wire_struct! {
    /// KIND_ICMP_ECHO.
    pub struct IcmpEcho (112) {
        pub header: Header,
        /// What the CPU was running: ksoftirqd, idle or some task.
        pub task: Task,
        /// NET_RX raise to handling; 0 unknown.
        pub wait_ns: u64,
        /// Source address in network order; IPv4 uses the first 4 bytes.
        pub source: [u8; 16],
        /// AF_INET or AF_INET6; 0 when the packet could not be read.
        pub family: u16,
        /// Host order.
        pub id: u16,
        pub sequence: u16,
        pub pad: u16,
        /// Requests of this source counted but not sent since its last record.
        pub suppressed: u64,
    }
}

wire_struct! {
    /// Key of the map ICMP_SOURCES.
    pub struct IcmpSource (16) {
        pub addr: [u8; 16],
    }
}

wire_struct! {
    /// Value of ICMP_SOURCES: a one-second window.
    pub struct IcmpRate (24) {
        pub window_ns: u64,
        pub in_window: u64,
        pub suppressed: u64,
    }
}

wire_struct! {
    /// Per-CPU slot of the tracepoint stand-in: the request last received on
    /// this CPU, waiting for its reply to be queued.
    pub struct IcmpPending (40) {
        pub time_ns: u64,
        pub wait_ns: u64,
        pub source: [u8; 16],
        pub id: u16,
        pub sequence: u16,
        pub family: u16,
        pub pad: u16,
    }
}
