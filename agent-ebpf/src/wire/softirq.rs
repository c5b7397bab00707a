//! softirq: histograms per CPU and vector, and the stalls over the threshold.

use super::{Header, Task};

/// HI to RCU, include/linux/interrupt.h.
pub const VECTORS: usize = 10;
pub const VECTOR_NET_RX: usize = 3;
/// Stands for "no vector": timer lateness.
pub const VECTOR_NONE: u32 = 15;
/// Log2 buckets of nanoseconds: the last one also counts everything above.
pub const BUCKETS: usize = 36;

wire_struct! {
    /// One vector on one CPU.
    pub struct VectorStats (600) {
        pub wait: [u64; BUCKETS],
        pub run: [u64; BUCKETS],
        pub count: u64,
        pub wait_total_ns: u64,
        pub run_total_ns: u64,
    }
}

wire_struct! {
    /// Value of the per-CPU array SOFTIRQ_NOW: what is under way on this CPU.
    pub struct SoftirqNow (296) {
        /// First raise of the vector since its last entry; 0 none.
        pub raised_ns: [u64; VECTORS],
        /// Raise that the running (or last) entry answered; 0 unknown.
        pub serving_ns: [u64; VECTORS],
        pub entered_ns: [u64; VECTORS],
        /// Start of the current rate window, and stalls sent in it.
        pub window_ns: u64,
        pub in_window: u64,
        pub suppressed: u64,
        /// Bit per vector: between entry and exit.
        pub running: u64,
        /// End of the longest wait of the running task's turn (of those over a
        /// quarter of the threshold), how long it was, and its vector.
        pub waited_until_ns: u64,
        pub waited_ns: u64,
        pub waited_vector: u64,
    }
}

wire_struct! {
    /// Value of the per-CPU arrays LATENESS and QUEUE_WAIT.
    pub struct Histogram (304) {
        pub buckets: [u64; BUCKETS],
        pub count: u64,
        pub total_ns: u64,
    }
}

wire_struct! {
    /// Slot of the map PACKETS: one packet on its way from netif_rx to
    /// netif_receive_skb.
    pub struct PacketSlot (16) {
        /// `struct sk_buff *`; 0 free.
        pub skb: u64,
        pub queued_ns: u64,
    }
}

wire_struct! {
    /// KIND_SOFTIRQ_STALL.
    pub struct SoftirqStall (120) {
        pub header: Header,
        /// The task that the vector ran on top of (or the timer interrupted).
        pub task: Task,
        pub wait_ns: u64,
        pub run_ns: u64,
        pub irqs_off_ns: u64,
        pub queue_wait_ns: u64,
        pub suppressed: u64,
        pub vector: u32,
        pub pad: u32,
    }
}
