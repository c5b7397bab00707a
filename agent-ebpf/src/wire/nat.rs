//! nat: what connection tracking made of the two ends of a connection.

wire_struct! {
    /// The ends as they really are. Addresses as in a `Tuple`, of the same
    /// family; zero when `how` is NAT_UNRESOLVED.
    pub struct Nat (40) {
        /// The other end behind its address: for who connected the real
        /// server, for who accepted the real client.
        pub remote: [u8; 16],
        /// This end as the other one knows it: the source that the server
        /// sees, the address that the client dialed.
        pub local: [u8; 16],
        pub remote_port: u16,
        pub local_port: u16,
        /// `NAT_*`.
        pub how: u16,
        /// AF_INET or AF_INET6 of both addresses.
        pub family: u16,
    }
}

impl Nat {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        remote: [0; 16],
        local: [0; 16],
        remote_port: 0,
        local_port: 0,
        how: NAT_UNRESOLVED,
        family: 0,
    };
}

/// Connection tracking was not seen to know of the connection.
pub const NAT_UNRESOLVED: u16 = 0;
/// It knows of it, and leaves both ends as they are.
pub const NAT_NONE: u16 = 1;
/// It changes at least one end.
pub const NAT_TRANSLATED: u16 = 2;

wire_struct! {
    /// Value of the map NAT, keyed by the `Tuple` as a socket has it (IPv4 as
    /// AF_INET, without a pad).
    pub struct NatEntry (48) {
        pub nat: Nat,
        /// Monotonic: when its first packet was seen.
        pub at_ns: u64,
    }
}
