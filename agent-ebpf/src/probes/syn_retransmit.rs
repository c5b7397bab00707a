//! syn_retransmit: a connect whose SYN is sent again, told of long before the
//! kernel gives up (127 s by default). `tcp_retransmit_skb`, every kernel.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_SYN_RETRANSMIT, stats::PROBE_SYN_RETRANSMIT, tcp::SynRetransmit,
};

use super::{sock, tcp_connect::copy_tuple};
use crate::{
    account::{self, Wake, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, load},
    maps::{RING_SIGNAL, SOCKS},
};

/// A segment is sent again; of interest is a SYN. They are a second and more
/// apart for each socket, so they need no limit of their own.
#[inline(always)]
fn retransmitted<M: Mem>(sk: Ptr) {
    if u32::from(load!(M, sk, skc_state: u8)) != sock::TCP_SYN_SENT {
        return;
    }
    let Some(state) = SOCKS.get_ptr_mut(sk as u64) else {
        return account::unmatched(PROBE_SYN_RETRANSMIT);
    };
    // SAFETY: sk is a TCP socket.
    let tp = unsafe { M::tcp_sock(sk) };
    if tp.is_null() {
        return;
    }
    let retransmits = load!(M, tp, total_retrans: u32);
    let port = sock::local_port::<M>(sk);
    emit(
        &RING_SIGNAL,
        PROBE_SYN_RETRANSMIT,
        KIND_SYN_RETRANSMIT,
        Wake::Batched,
        |out: *mut SynRetransmit| {
            // SAFETY: the record and the state are valid.
            unsafe {
                kernel::copy_task(&raw mut (*out).task, &raw const (*state).opener);
                copy_tuple(&raw mut (*out).tuple, &raw const (*state).tuple);
                (*out).tuple.local_port = port;
                (*out).waited_ns = match (*state).syn_ns {
                    0 => 0,
                    syn => bpf_ktime_get_ns().wrapping_sub(syn),
                };
                (*out).sock_cgroup = (*state).sock_cgroup;
                (*out).syn_retransmits = retransmits;
                (*out).netns = (*state).netns;
                (*out).pad = 0;
            }
        },
    );
}

#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn syn_retransmit_tp_btf(ctx: BtfTracePointContext) -> i32 {
    retransmitted::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn syn_retransmit_raw_tp(ctx: RawTracePointContext) -> i32 {
    retransmitted::<Probed>(ctx.arg(0));
    0
}
