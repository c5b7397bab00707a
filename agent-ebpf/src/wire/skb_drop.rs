//! skb_drop: SYNs and SYN-ACKs that this node's kernel threw away, and why.

use super::Header;

wire_struct! {
    /// KIND_SKB_DROP.
    pub struct SkbDrop (80) {
        pub header: Header,
        pub key: DropKey,
        /// The client's end; the key has the server's.
        pub client: [u8; 16],
        /// Drops of this key so far, this one included.
        pub count: u64,
        /// Of the device it came from or was to leave by; 0 not read.
        pub netns: u32,
        /// Host order.
        pub client_port: u16,
        /// 1 for a SYN-ACK, 0 for a SYN.
        pub answer: u16,
        pub pad: u64,
    }
}

wire_struct! {
    /// Key of the map SKB_DROPS: the server's end and the reason.
    pub struct DropKey (24) {
        /// Network order; IPv4 uses the first 4 bytes.
        pub server: [u8; 16],
        /// Host order.
        pub server_port: u16,
        /// AF_INET or AF_INET6.
        pub family: u16,
        /// `enum skb_drop_reason` of this kernel.
        pub reason: u32,
    }
}

wire_struct! {
    /// Value of SKB_DROPS.
    pub struct DropCount (16) {
        pub count: u64,
        /// Monotonic: last record of this key.
        pub told_ns: u64,
    }
}
