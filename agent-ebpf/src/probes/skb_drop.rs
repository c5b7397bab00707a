//! skb_drop: `kfree_skb` with its reason (5.17), SYNs and SYN-ACKs only: what a
//! client that connects waits for in vain.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_SKB_DROP,
    skb_drop::{DropCount, DropKey, SkbDrop},
    stats::PROBE_SKB_DROP,
};

use super::sock::{AF_INET, AF_INET6};
use crate::{
    account::{self, Wake, add, emit},
    kernel::{Direct, Mem, Probed, Ptr, follow, load},
    maps::{RING_SIGNAL, SKB_DROPS},
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Records of one server and reason are this far apart.
const APART_NS: u64 = 1_000_000_000;

/// Packet bytes are no BTF type: always a probe read.
#[inline(always)]
fn at<T: Copy>(base: u64, offset: u64) -> T {
    // SAFETY: the helper copes with any address.
    unsafe { Probed::load::<T>(base.wrapping_add(offset) as Ptr, 0) }
}

#[inline(always)]
fn dropped<M: Mem>(skb: Ptr, reason: u32) {
    let protocol = u16::from_be(load!(M, skb, skb_protocol: u16));
    let v6 = protocol == ETH_P_IPV6;
    if reason == 0 || (protocol != ETH_P_IP && !v6) {
        return;
    }
    let head = load!(M, skb, skb_head: u64);
    let ip = head.wrapping_add(u64::from(load!(M, skb, skb_network_header: u16)));
    let next: u8 = at(ip, if v6 { 6 } else { 9 });
    if next != IPPROTO_TCP {
        return;
    }
    let length = if v6 {
        40
    } else {
        u64::from(at::<u8>(ip, 0) & 15) * 4
    };
    let tcp = ip.wrapping_add(length);
    let flags: u8 = at(tcp, 13);
    if flags & (SYN | RST) != SYN {
        return;
    }
    let answer = flags & ACK != 0;
    let (source, destination) = if v6 {
        (
            [at::<u64>(ip, 8), at::<u64>(ip, 16)],
            [at::<u64>(ip, 24), at::<u64>(ip, 32)],
        )
    } else {
        (
            [u64::from(at::<u32>(ip, 12)), 0],
            [u64::from(at::<u32>(ip, 16)), 0],
        )
    };
    let from = u16::from_be(at(tcp, 0));
    let to = u16::from_be(at(tcp, 2));
    let (server, server_port, client, client_port) = if answer {
        (source, from, destination, to)
    } else {
        (destination, to, source, from)
    };
    let key = DropKey {
        // SAFETY: 16 bytes either way.
        server: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(server) },
        server_port,
        family: if v6 { AF_INET6 } else { AF_INET },
        reason,
    };
    let netns = load!(M, follow!(M, skb, skb_dev, dev_net), net_inum: u32);
    tell(key, client, client_port, answer, netns);
}

#[inline(always)]
fn tell(key: DropKey, client: [u64; 2], client_port: u16, answer: bool, netns: u32) {
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut count = 1;
    if let Some(row) = SKB_DROPS.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*row).count, 1);
            if now.wrapping_sub((*row).told_ns) < APART_NS {
                return account::suppressed(PROBE_SKB_DROP);
            }
            (*row).told_ns = now;
            count = (*row).count;
        }
    } else {
        let row = DropCount {
            count,
            told_ns: now,
        };
        // Without room the record is told all the same, and its count is 1.
        let _ = SKB_DROPS.insert(key, &row, 0);
    }
    emit(
        &RING_SIGNAL,
        PROBE_SKB_DROP,
        KIND_SKB_DROP,
        Wake::Batched,
        |out: *mut SkbDrop| {
            // SAFETY: the record is valid for writes.
            unsafe {
                (*out).key = key;
                (&raw mut (*out).client).cast::<[u64; 2]>().write(client);
                (*out).count = count;
                (*out).netns = netns;
                (*out).client_port = client_port;
                (*out).answer = u16::from(answer);
                (*out).pad = 0;
            }
        },
    );
}

#[btf_tracepoint(function = "kfree_skb")]
pub fn skb_drop_tp_btf(ctx: BtfTracePointContext) -> i32 {
    dropped::<Direct>(ctx.arg(0), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn skb_drop_raw_tp(ctx: RawTracePointContext) -> i32 {
    dropped::<Probed>(ctx.arg(0), ctx.arg(2));
    0
}
