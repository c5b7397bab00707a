//! sigterm: a process was asked to end by somebody of another cgroup.

use super::{Header, Task};

wire_struct! {
    /// KIND_SIGTERM.
    pub struct Sigterm (128) {
        pub header: Header,
        /// The thread group leader that got the signal.
        pub target: Task,
        /// The task that sent it: current.
        pub sender: Task,
    }
}

wire_struct! {
    /// Value of the per-CPU map SIGTERM_NOW: the rate limit.
    pub struct SigtermNow (16) {
        /// Monotonic: begin of the second.
        pub window_ns: u64,
        /// Records sent in it.
        pub in_window: u64,
    }
}
