//! tcp_connect and tcp_flow share one table of sockets.

use super::{Header, Task, nat::Nat};

wire_struct! {
    /// Both ends of a connection. Addresses are in network order, 16 bytes
    /// each; IPv4 uses the first 4. Ports are in host order.
    pub struct Tuple (40) {
        pub local: [u8; 16],
        pub remote: [u8; 16],
        pub local_port: u16,
        pub remote_port: u16,
        /// AF_INET (2) or AF_INET6 (10).
        pub family: u16,
        pub pad: u16,
    }
}

wire_struct! {
    /// Value of the map SOCKS; the key is the address of the `struct sock`.
    pub struct SockState (296) {
        /// Who connected; for an accepted socket who accepted it, or, before
        /// that, the listener's owner.
        pub opener: Task,
        /// Who last sent or received.
        pub last_user: Task,
        pub tuple: Tuple,
        /// Monotonic: state SYN_SENT. 0 for accepted sockets.
        pub syn_ns: u64,
        /// Monotonic: state ESTABLISHED, or when the agent found it.
        pub opened_ns: u64,
        /// Monotonic: last send or receive that moved bytes.
        pub active_ns: u64,
        pub sent_bytes: u64,
        pub received_bytes: u64,
        pub sends: u64,
        pub receives: u64,
        /// v2 cgroup the socket was created in (`sk_cgrp_data`); 0 not read.
        pub sock_cgroup: u64,
        pub netns: u32,
        /// `tcp_sock.copied_seq` up to which received bytes are counted.
        pub copied_seq: u32,
        /// `SOCK_*` bits.
        pub flags: u32,
        /// `ROLE_*`.
        pub role: u32,
        /// Kernel's `srtt_us` (8 times the smoothed RTT) at the last look.
        pub srtt_us8: u32,
        /// `tcp_sock.rtt_min.s[0].v`, microseconds; ~0 before a sample.
        pub min_rtt_us: u32,
        pub total_retrans: u32,
        /// `tcp_sock.write_seq` at ESTABLISHED: the sequence number of the
        /// first byte to send.
        pub first_write_seq: u32,
        /// `tcp_sock.copied_seq` at ESTABLISHED.
        pub first_copied_seq: u32,
        /// TCP_SYN_SENT or TCP_ESTABLISHED, the last of them that was seen; else 0.
        pub tcp_state: u32,
        pub nat: Nat,
    }
}

impl SockState {
    /// A fresh row.
    pub const EMPTY: Self = Self {
        opener: Task::EMPTY,
        last_user: Task::EMPTY,
        tuple: Tuple {
            local: [0; 16],
            remote: [0; 16],
            local_port: 0,
            remote_port: 0,
            family: 0,
            pad: 0,
        },
        syn_ns: 0,
        opened_ns: 0,
        active_ns: 0,
        sent_bytes: 0,
        received_bytes: 0,
        sends: 0,
        receives: 0,
        sock_cgroup: 0,
        netns: 0,
        copied_seq: 0,
        flags: 0,
        role: ROLE_UNKNOWN,
        srtt_us8: 0,
        min_rtt_us: u32::MAX,
        total_retrans: 0,
        first_write_seq: 0,
        first_copied_seq: 0,
        tcp_state: 0,
        nat: Nat::EMPTY,
    };
}

pub const ROLE_UNKNOWN: u32 = 0;
pub const ROLE_CLIENT: u32 = 1;
pub const ROLE_SERVER: u32 = 2;

/// Open before the agent was.
pub const SOCK_FOUND: u32 = 1;
/// `opener` is known.
pub const SOCK_OPENER: u32 = 2;
/// `opener` came from accept itself, not from the listener.
pub const SOCK_ACCEPTED: u32 = 4;
/// The three-way handshake is done.
pub const SOCK_ESTABLISHED: u32 = 8;
/// ESTABLISHED was not seen and is known from what came after.
pub const SOCK_LATE: u32 = 16;

wire_struct! {
    /// KIND_TCP_CONNECT: a client's attempt has an outcome.
    pub struct TcpConnect (184) {
        pub header: Header,
        pub task: Task,
        pub tuple: Tuple,
        pub latency_ns: u64,
        pub sock_cgroup: u64,
        /// TCP state after: 1 ESTABLISHED, 7 CLOSE; 0 when the call failed
        /// before the SYN.
        pub new_state: u32,
        /// Positive errno: `sk_err`, or what the call returned; 0 for none.
        pub errno: u32,
        pub syn_retransmits: u32,
        pub netns: u32,
        pub nat: Nat,
    }
}

wire_struct! {
    /// KIND_TCP_FLOW: a connection has closed.
    pub struct TcpFlow (344) {
        pub header: Header,
        pub sock: SockState,
        /// `tcp_sock.bytes_sent - bytes_retrans`, payload on the wire.
        pub wire_sent: u64,
        /// `tcp_sock.bytes_received`; counts a received FIN as one byte.
        pub wire_received: u64,
        /// TCP state before the close.
        pub old_state: u32,
        /// `sk_err`, positive.
        pub errno: u32,
        /// 1 when a FIN was received (SOCK_DONE): `wire_received` counts it.
        pub fin_received: u32,
        pub pad: u32,
    }
}

wire_struct! {
    /// Key of the map LISTENERS.
    pub struct ListenerKey (8) {
        pub netns: u32,
        pub port: u16,
        pub pad: u16,
    }
}

wire_struct! {
    /// Value of the map LISTENERS: who called listen, and how the sockets that
    /// listen on this port fare.
    pub struct Listener (296) {
        pub owner: Task,
        /// Sockets listening on this port in this namespace (SO_REUSEPORT, or
        /// several addresses).
        pub count: u32,
        pub max_backlog: u32,
        /// Connections that came into the queue, those found in it included.
        pub children: u64,
        /// Accepts seen, where accept can be hooked.
        pub accepts: u64,
        /// Time in the queue of those, all and longest.
        pub accept_total_ns: u64,
        pub accept_max_ns: u64,
        /// SYNs dropped because the queue was full, where that can be hooked.
        pub syn_overflows: u64,
        /// Final ACKs dropped because the queue was full, likewise.
        pub ack_overflows: u64,
        /// Monotonic: last record of this row that no look made, and last that
        /// one made.
        pub told_ns: u64,
        pub looked_ns: u64,
        /// Most `sk_drops` that a record told of.
        pub told_drops: u32,
        /// `told_drops` of the record before.
        pub drops_before: u32,
        /// Of the times in the queue, by log2 of nanoseconds.
        pub accept_buckets: [u32; ACCEPT_BUCKETS],
    }
}

/// The last one holds 9 minutes and more.
pub const ACCEPT_BUCKETS: usize = 40;

impl Listener {
    /// A fresh row.
    pub const EMPTY: Self = Self {
        owner: Task::EMPTY,
        count: 0,
        max_backlog: 0,
        children: 0,
        accepts: 0,
        accept_total_ns: 0,
        accept_max_ns: 0,
        syn_overflows: 0,
        ack_overflows: 0,
        told_ns: 0,
        looked_ns: 0,
        told_drops: 0,
        drops_before: 0,
        accept_buckets: [0; ACCEPT_BUCKETS],
    };
}

wire_struct! {
    /// KIND_TCP_LISTEN: a listener under pressure.
    pub struct TcpListen (360) {
        pub header: Header,
        /// The row of its port.
        pub listener: Listener,
        /// Local address in network order, IPv4 in the first 4 bytes; of the
        /// child with LISTEN_FILLED.
        pub address: [u8; 16],
        pub key: ListenerKey,
        /// `sk_ack_backlog`: connections that wait for accept.
        pub backlog: u32,
        /// `sk_drops` of the listening socket; 0 with LISTEN_FILLED, where it
        /// is not known.
        pub drops: u32,
        /// `LISTEN_*`: what it was noticed by.
        pub why: u16,
        /// AF_INET or AF_INET6.
        pub family: u16,
        pub pad: u32,
        /// How long the first in the queue has waited since it was
        /// established; 0 when that is not known.
        pub oldest_wait_ns: u64,
    }
}

/// A child took the queue's last place.
pub const LISTEN_FILLED: u16 = 1;
/// A SYN is dropped because the queue is full.
pub const LISTEN_SYN: u16 = 2;
/// A handshake's last ACK is dropped because the queue is full.
pub const LISTEN_ACK: u16 = 3;
/// The walk over open files found it full, or its drops risen.
pub const LISTEN_LOOK: u16 = 4;

wire_struct! {
    /// KIND_SYN_RETRANSMIT: a connect is not answered.
    pub struct SynRetransmit (144) {
        pub header: Header,
        pub task: Task,
        pub tuple: Tuple,
        /// Since the first SYN.
        pub waited_ns: u64,
        pub sock_cgroup: u64,
        /// SYNs sent again so far, this one included.
        pub syn_retransmits: u32,
        pub netns: u32,
        pub pad: u64,
    }
}

wire_struct! {
    /// Value of the map CALLS, keyed by pid_tgid: a connect or a send under
    /// way in this thread.
    pub struct Call (24) {
        /// `struct sock *`; 0 for a connect system call before its SYN.
        pub sk: u64,
        /// The sockaddr: kernel address for tcp_v4_connect, user address for
        /// the system call.
        pub addr: u64,
        pub fd: u32,
        /// `CALL_*` bits.
        pub flags: u32,
    }
}

/// The socket went to SYN_SENT inside this call.
pub const CALL_SYN: u32 = 1;
/// ... and back to CLOSE without a local port: a local failure.
pub const CALL_FAILED_LOCALLY: u32 = 2;
