//! dns: lookups over UDP and TCP, port 53.

use super::{Header, Task};

/// Bytes of a query's name and type that are kept, as in the packet.
pub const QUESTION: usize = 64;

wire_struct! {
    /// Key of the map DNS_NOW: a question that has no answer yet.
    pub struct DnsKey (24) {
        /// IPv4 uses the first 4 bytes.
        pub client: [u8; 16],
        pub port: u16,
        /// The question's number, as in the packet.
        pub id: u16,
        /// 17 UDP, 6 TCP.
        pub protocol: u8,
        pub pad: [u8; 3],
    }
}

wire_struct! {
    /// What was asked for. Value of the map DNS_NAMES: by which name a workload last
    /// looked an address up.
    pub struct DnsName (72) {
        /// The question section from its first byte, cut.
        pub question: [u8; QUESTION],
        /// Bytes in `question`.
        pub question_bytes: u16,
        pub pad: [u8; 6],
    }
}

wire_struct! {
    /// Key of the map DNS_NAMES.
    pub struct DnsNameKey (24) {
        /// kernfs id of the memory cgroup of who asked.
        pub workload: u64,
        /// IPv4 uses the first 4 bytes.
        pub address: [u8; 16],
    }
}

wire_struct! {
    /// Value of DNS_NOW.
    pub struct DnsNow (176) {
        pub task: Task,
        pub server: [u8; 16],
        /// First time it was asked.
        pub asked_ns: u64,
        /// Last time.
        pub again_ns: u64,
        /// Times it was asked again.
        pub retries: u32,
        /// AF_INET or AF_INET6.
        pub family: u16,
        pub pad: u16,
        pub netns: u32,
        pub pad2: u32,
        pub name: DnsName,
    }
}

wire_struct! {
    /// KIND_DNS: an answer that is late, says no, or came after a retry.
    pub struct DnsAnswer (224) {
        pub header: Header,
        pub now: DnsNow,
        pub latency_ns: u64,
        pub port: u16,
        pub id: u16,
        /// RCODE, RFC 1035.
        pub rcode: u8,
        /// 17 UDP, 6 TCP.
        pub protocol: u8,
        pub pad: u16,
        pub client: [u8; 16],
    }
}
