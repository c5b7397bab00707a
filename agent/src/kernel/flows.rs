//! Interval records: connections that moved data since the last sweep, read
//! from the table of sockets. A quiet connection costs one look.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::tcp::{SOCK_ESTABLISHED, SOCK_FOUND, SockState};

use super::{KernelError, object::take};
use crate::{
    pipeline::source::Draft,
    probes::{Decoder, tcp_flow},
};

/// The table of sockets and how far it was swept.
pub(super) struct Flows {
    sockets: HashMap<MapData, u64, SockState>,
    swept_ns: u64,
}

impl Flows {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            sockets: take(ebpf, "SOCKS")?,
            swept_ns: 0,
        })
    }

    /// Rows that change while they are walked may be seen twice or not at all;
    /// their next record carries the same totals.
    pub(super) fn sweep(&mut self, decoder: &Decoder, call_counts: bool, f: &mut dyn FnMut(Draft)) {
        let clock = decoder.clock();
        let since = self.swept_ns;
        self.swept_ns = clock.monotonic_ns();
        for (_, state) in self.sockets.iter().flatten() {
            let live = state.flags & (SOCK_ESTABLISHED | SOCK_FOUND) != 0;
            if live && state.active_ns >= since && state.active_ns != 0 {
                f(tcp_flow::interval(&state, clock, call_counts));
            }
        }
    }
}
