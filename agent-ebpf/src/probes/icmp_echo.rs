//! icmp_echo: echo requests that this node handles. The functions see the
//! request (`icmp_echo`, `icmpv6_echo_reply`) or the reply being pushed
//! (`icmp_push_reply`, `icmpv6_push_pending_frames`: plain loads only, so they
//! run under lockdown=confidentiality). The tracepoint stand-in pairs the request at
//! `netif_receive_skb` with its reply at `net_dev_queue` on the same CPU.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_ICMP_ECHO,
    config::HAVE_SOFTIRQ,
    icmp_echo::{IcmpEcho, IcmpPending, IcmpRate, IcmpSource},
    softirq::VECTOR_NET_RX,
    stats::PROBE_ICMP_ECHO,
};

use super::sock::{AF_INET, AF_INET6};
use crate::{
    account::{self, Wake, add, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, config, have, load},
    maps::{ICMP_PENDING, ICMP_SOURCES, RING_SIGNAL, SOFTIRQ_NOW},
};

const SECOND: u64 = 1_000_000_000;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ICMP_ECHOREPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// One request: its source (two words as they lie in memory), id, sequence.
#[derive(Clone, Copy)]
struct Request {
    source: [u64; 2],
    family: u16,
    id: u16,
    sequence: u16,
}

/// NET_RX raise to now, when NET_RX runs on this CPU and the softirq probe
/// keeps the time; else 0.
#[inline(always)]
fn wait() -> u64 {
    if !have(HAVE_SOFTIRQ) {
        return 0;
    }
    let Some(now) = SOFTIRQ_NOW.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a per-CPU map value.
    unsafe {
        let raised = (*now).serving_ns[VECTOR_NET_RX];
        if (*now).running & (1 << VECTOR_NET_RX) == 0 || raised == 0 {
            return 0;
        }
        bpf_ktime_get_ns().wrapping_sub(raised)
    }
}

/// Lets a source through while its second is not full. Some(n): n requests of
/// it were counted only since the last one that passed.
#[inline(always)]
fn admit(source: [u64; 2]) -> Option<u64> {
    // SAFETY: 16 bytes either way.
    let key: IcmpSource = unsafe { core::mem::transmute(source) };
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(rate) = ICMP_SOURCES.get_ptr_mut(key) else {
        let rate = IcmpRate {
            window_ns: now,
            in_window: 1,
            suppressed: 0,
        };
        let _ = ICMP_SOURCES.insert(key, &rate, 0);
        return Some(0);
    };
    // SAFETY: a live map value.
    unsafe {
        if now.wrapping_sub((*rate).window_ns) >= SECOND {
            (*rate).window_ns = now;
            (*rate).in_window = 0;
        }
        if (*rate).in_window >= config!(icmp_limit) {
            add(&raw mut (*rate).suppressed, 1);
            account::suppressed(PROBE_ICMP_ECHO);
            return None;
        }
        add(&raw mut (*rate).in_window, 1);
        let held = (*rate).suppressed;
        (*rate).suppressed = 0;
        Some(held)
    }
}

#[inline(always)]
fn handled(request: Request, wait_ns: u64) {
    let Some(suppressed) = admit(request.source) else {
        return;
    };
    emit(
        &RING_SIGNAL,
        PROBE_ICMP_ECHO,
        KIND_ICMP_ECHO,
        Wake::Batched,
        |out: *mut IcmpEcho| {
            // SAFETY: the record is valid for writes.
            unsafe {
                kernel::fill_current(&raw mut (*out).task);
                (*out).wait_ns = wait_ns;
                (&raw mut (*out).source)
                    .cast::<[u64; 2]>()
                    .write(request.source);
                (*out).family = request.family;
                (*out).id = request.id;
                (*out).sequence = request.sequence;
                (*out).pad = 0;
                (*out).suppressed = suppressed;
            }
        },
    );
}

/// Reads packet bytes: they are no BTF type, so always a probe read.
#[inline(always)]
fn byte_at<T: Copy>(base: u64, offset: u64) -> T {
    // SAFETY: the helper copes with any address.
    unsafe { Probed::load::<T>(base.wrapping_add(offset) as Ptr, 0) }
}

/// id and sequence of an ICMP header at `icmp`, either version.
#[inline(always)]
fn id_and_sequence(icmp: u64) -> (u16, u16) {
    (
        u16::from_be(byte_at(icmp, 4)),
        u16::from_be(byte_at(icmp, 6)),
    )
}

/// A request whose headers skb says where to find.
#[inline(always)]
fn from_headers<M: Mem>(skb: Ptr, family: u16) -> Request {
    let head = load!(M, skb, skb_head: u64);
    let network = head.wrapping_add(u64::from(load!(M, skb, skb_network_header: u16)));
    let icmp = head.wrapping_add(u64::from(load!(M, skb, skb_transport_header: u16)));
    let (id, sequence) = id_and_sequence(icmp);
    let source = if family == AF_INET {
        [u64::from(byte_at::<u32>(network, 12)), 0]
    } else {
        [byte_at(network, 8), byte_at(network, 16)]
    };
    Request {
        source,
        family,
        id,
        sequence,
    }
}

#[fentry(function = "icmp_echo")]
pub fn icmp_echo_fentry(ctx: FEntryContext) -> i32 {
    handled(from_headers::<Direct>(ctx.arg(0), AF_INET), wait());
    0
}

#[fentry(function = "icmpv6_echo_reply")]
pub fn icmpv6_echo_fentry(ctx: FEntryContext) -> i32 {
    handled(from_headers::<Direct>(ctx.arg(0), AF_INET6), wait());
    0
}

#[kprobe]
pub fn icmp_echo_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        handled(from_headers::<Probed>(skb, AF_INET), wait());
    }
    0
}

#[kprobe]
pub fn icmpv6_echo_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg(0) {
        handled(from_headers::<Probed>(skb, AF_INET6), wait());
    }
    0
}

/// Plain loads only: `struct icmp_bxm` has the reply's header, `flowi4` where
/// it goes, which is where the request came from.
#[inline(always)]
fn replied(bxm: Ptr, fl4: Ptr) {
    let header = kernel::field!(bxm_icmph);
    // SAFETY: inside struct icmp_bxm; offsets come from this kernel's BTF.
    unsafe {
        if Direct::load::<u8>(bxm, header + kernel::field!(icmph_type)) != ICMP_ECHOREPLY {
            return;
        }
        let id = Direct::load::<u16>(bxm, header + kernel::field!(icmph_id));
        let sequence = Direct::load::<u16>(bxm, header + kernel::field!(icmph_sequence));
        let daddr = Direct::load::<u32>(fl4, kernel::field!(fl4_daddr));
        let request = Request {
            source: [u64::from(daddr), 0],
            family: AF_INET,
            id: u16::from_be(id),
            sequence: u16::from_be(sequence),
        };
        handled(request, wait());
    }
}

/// `icmp_push_reply(icmp_param, fl4, ipc, rt)`, 5.10.
#[fentry(function = "icmp_push_reply")]
pub fn icmp_reply0_fentry(ctx: FEntryContext) -> i32 {
    replied(ctx.arg(0), ctx.arg(1));
    0
}

/// `icmp_push_reply(sk, icmp_param, fl4, ipc, rt)`, later.
#[fentry(function = "icmp_push_reply")]
pub fn icmp_reply1_fentry(ctx: FEntryContext) -> i32 {
    replied(ctx.arg(1), ctx.arg(2));
    0
}

/// `icmpv6_push_pending_frames(sk, fl6, thdr, len)`: IPv6 replies, and requests
/// of ping sockets, which are left out.
#[fentry(function = "icmpv6_push_pending_frames")]
pub fn icmpv6_reply_fentry(ctx: FEntryContext) -> i32 {
    let (fl6, header): (Ptr, Ptr) = (ctx.arg(1), ctx.arg(2));
    if load!(Direct, header, icmp6h_type: u8) != ICMPV6_ECHO_REPLY {
        return 0;
    }
    let daddr = kernel::field!(fl6_daddr);
    let request = Request {
        source: [
            kernel::read::<Direct, u64>(fl6, daddr),
            kernel::read::<Direct, u64>(fl6, daddr + 8),
        ],
        family: AF_INET6,
        id: u16::from_be(load!(Direct, header, icmp6h_id: u16)),
        sequence: u16::from_be(load!(Direct, header, icmp6h_sequence: u16)),
    };
    handled(request, wait());
    0
}

/// `netif_receive_skb`: `skb->data` is at the network header.
#[inline(always)]
fn arrived<M: Mem>(skb: Ptr) {
    let protocol = u16::from_be(load!(M, skb, skb_protocol: u16));
    let request = if protocol == ETH_P_IP {
        let data = load!(M, skb, skb_data: u64);
        // One read decides for nearly every packet: bytes 8..16 hold the
        // protocol (9) and the source (12..16).
        let words: [u8; 8] = byte_at(data, 8);
        if words[1] != IPPROTO_ICMP {
            return;
        }
        let header = u64::from(byte_at::<u8>(data, 0) & 15) * 4;
        let icmp = data.wrapping_add(header);
        if byte_at::<u8>(icmp, 0) != ICMP_ECHO {
            return;
        }
        let (id, sequence) = id_and_sequence(icmp);
        let source = u32::from_ne_bytes([words[4], words[5], words[6], words[7]]);
        Request {
            source: [u64::from(source), 0],
            family: AF_INET,
            id,
            sequence,
        }
    } else if protocol == ETH_P_IPV6 {
        let data = load!(M, skb, skb_data: u64);
        if byte_at::<u8>(data, 6) != IPPROTO_ICMPV6
            || byte_at::<u8>(data, 40) != ICMPV6_ECHO_REQUEST
        {
            return;
        }
        let (id, sequence) = id_and_sequence(data.wrapping_add(40));
        Request {
            source: [byte_at(data, 8), byte_at(data, 16)],
            family: AF_INET6,
            id,
            sequence,
        }
    } else {
        return;
    };
    let Some(pending) = ICMP_PENDING.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU map value.
    unsafe {
        (*pending).time_ns = bpf_ktime_get_ns();
        (*pending).wait_ns = wait();
        (&raw mut (*pending).source)
            .cast::<[u64; 2]>()
            .write(request.source);
        (*pending).id = request.id;
        (*pending).sequence = request.sequence;
        (*pending).family = request.family;
    }
}

/// `net_dev_queue`: is this the reply to the request pending on this CPU?
#[inline(always)]
fn queued<M: Mem>(skb: Ptr) {
    let Some(pending) = ICMP_PENDING.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a per-CPU map value.
    let held: IcmpPending = unsafe { *pending };
    if held.time_ns == 0 {
        return;
    }
    let head = load!(M, skb, skb_head: u64);
    let network = head.wrapping_add(u64::from(load!(M, skb, skb_network_header: u16)));
    let icmp = if held.family == AF_INET {
        if u16::from_be(load!(M, skb, skb_protocol: u16)) != ETH_P_IP
            || byte_at::<u8>(network, 9) != IPPROTO_ICMP
        {
            return;
        }
        network.wrapping_add(u64::from(byte_at::<u8>(network, 0) & 15) * 4)
    } else {
        if u16::from_be(load!(M, skb, skb_protocol: u16)) != ETH_P_IPV6
            || byte_at::<u8>(network, 6) != IPPROTO_ICMPV6
        {
            return;
        }
        network.wrapping_add(40)
    };
    let reply = if held.family == AF_INET {
        ICMP_ECHOREPLY
    } else {
        ICMPV6_ECHO_REPLY
    };
    if byte_at::<u8>(icmp, 0) != reply || id_and_sequence(icmp) != (held.id, held.sequence) {
        return;
    }
    // SAFETY: a per-CPU map value; the array is 16 bytes.
    unsafe {
        (*pending).time_ns = 0;
        let request = Request {
            source: core::mem::transmute::<[u8; 16], [u64; 2]>(held.source),
            family: held.family,
            id: held.id,
            sequence: held.sequence,
        };
        handled(request, held.wait_ns);
    }
}

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn icmp_receive_tp_btf(ctx: BtfTracePointContext) -> i32 {
    arrived::<Direct>(ctx.arg(0));
    0
}

#[btf_tracepoint(function = "net_dev_queue")]
pub fn icmp_queue_tp_btf(ctx: BtfTracePointContext) -> i32 {
    queued::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn icmp_receive_raw_tp(ctx: RawTracePointContext) -> i32 {
    arrived::<Probed>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn icmp_queue_raw_tp(ctx: RawTracePointContext) -> i32 {
    queued::<Probed>(ctx.arg(0));
    0
}
