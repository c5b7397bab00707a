//! How often and how long: one histogram of a workload.

use super::softirq::BUCKETS;

wire_struct! {
    /// Log2 buckets of nanoseconds; the last one also counts everything above.
    pub struct Work (312) {
        pub buckets: [u64; BUCKETS],
        pub count: u64,
        pub total_ns: u64,
        /// Longest; CPUs may race for it.
        pub max_ns: u64,
    }
}

impl Work {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        buckets: [0; BUCKETS],
        count: 0,
        total_ns: 0,
        max_ns: 0,
    };
}
