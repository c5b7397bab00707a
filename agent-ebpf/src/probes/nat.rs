//! nat: the two ends behind translated addresses, from the entries of connection
//! tracking that the first packets of connections carry (`sk_buff._nfct`). One
//! program for all network namespaces, and no privilege of netlink's.
//!
//! A connection has two rows: as its client's socket names it and as its
//! server's does. Sockets look theirs up when their handshake is done, so a
//! row is of use for a moment only.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{btf_tracepoint, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, ProbeContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    config::HAVE_NAT,
    nat::{NAT_NONE, NAT_TRANSLATED, Nat, NatEntry},
    tcp::{SockState, Tuple},
};

use super::sock::{AF_INET, AF_INET6};
use crate::{
    kernel::{self, Direct, Mem, Probed, Ptr, have, load},
    maps::NAT,
};

const TCP: u8 = 6;
/// enum ip_conntrack_info, in the low bits of `_nfct`.
const CTINFO: u64 = 7;
const IP_CT_NEW: u64 = 2;
/// The host's namespace and a container's may both track a connection; what
/// one of them translated stands beside what the other left alone.
const SAME_CONNECTION_NS: u64 = 1_000_000_000;

/// One direction of an entry (`struct nf_conntrack_tuple`).
struct Direction {
    source: [u64; 2],
    destination: [u64; 2],
    /// In host order.
    source_port: u16,
    destination_port: u16,
}

#[inline(always)]
fn direction(at: Ptr, wide: bool) -> Direction {
    let address = |offset: u32| {
        if wide {
            kernel::read::<Probed, [u64; 2]>(at, offset)
        } else {
            [u64::from(kernel::read::<Probed, u32>(at, offset)), 0]
        }
    };
    let port = |offset: u32| u16::from_be(kernel::read::<Probed, u16>(at, offset));
    Direction {
        source: address(kernel::field!(tuple_source)),
        destination: address(kernel::field!(tuple_destination)),
        source_port: port(kernel::field!(tuple_source_port)),
        destination_port: port(kernel::field!(tuple_destination_port)),
    }
}

/// Takes note of an entry: `nfct` is the packet's `_nfct`.
#[inline(always)]
fn learn(nfct: u64) {
    let entry = (nfct & !CTINFO) as Ptr;
    if entry.is_null() {
        return;
    }
    let first = kernel::field!(ct_tuplehash) + kernel::field!(hash_tuple);
    let second = first + kernel::field!(hash_stride);
    let original = entry.wrapping_add(first as usize);
    if load!(Probed, original, tuple_protocol: u8) != TCP {
        return;
    }
    let family = load!(Probed, original, tuple_family: u16);
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    let wide = family == AF_INET6;
    let there = direction(original, wide);
    let back = direction(entry.wrapping_add(second as usize), wide);
    put(&there, &back, family);
    put(&back, &there, family);
}

/// A row for the socket that sends `mine`; `other` is the opposite direction.
#[inline(always)]
fn put(mine: &Direction, other: &Direction, family: u16) {
    let same = mine.source == other.destination
        && mine.destination == other.source
        && mine.source_port == other.destination_port
        && mine.destination_port == other.source_port;
    let key = Tuple {
        local: bytes(mine.source),
        remote: bytes(mine.destination),
        local_port: mine.source_port,
        remote_port: mine.destination_port,
        family,
        pad: 0,
    };
    let entry = NatEntry {
        nat: Nat {
            remote: bytes(other.source),
            local: bytes(other.destination),
            remote_port: other.source_port,
            local_port: other.destination_port,
            how: if same { NAT_NONE } else { NAT_TRANSLATED },
            family,
        },
        at_ns: now(),
    };
    if same && let Some(old) = NAT.get_ptr(key) {
        // SAFETY: a live map value.
        let (how, at) = unsafe { ((*old).nat.how, (*old).at_ns) };
        if how == NAT_TRANSLATED && entry.at_ns.wrapping_sub(at) < SAME_CONNECTION_NS {
            return;
        }
    }
    // LRU: there is always room.
    let _ = NAT.insert(key, &entry, 0);
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: 16 bytes each, every pattern is a value.
    unsafe { core::mem::transmute(words) }
}

/// Puts what is known of a socket's two ends into its row.
///
/// # Safety
/// `state` is a live map value with its tuple.
#[inline(always)]
pub(super) unsafe fn resolve(state: *mut SockState) {
    if !have(HAVE_NAT) {
        return;
    }
    // SAFETY: the caller's promise.
    let mut key = unsafe { (*state).tuple };
    if is_mapped(&key) {
        key.local = unmapped(key.local);
        key.remote = unmapped(key.remote);
        key.family = AF_INET;
    }
    key.pad = 0;
    let Some(found) = NAT.get_ptr(key) else {
        return;
    };
    // SAFETY: a live map value.
    let nat = unsafe { (*found).nat };
    let mut last = nat;
    if nat.how == NAT_TRANSLATED {
        // What a container's own namespace translated may be translated once more by the host's.
        key.local = nat.local;
        key.remote = nat.remote;
        key.local_port = nat.local_port;
        key.remote_port = nat.remote_port;
        if let Some(further) = NAT.get_ptr(key) {
            // SAFETY: a live map value.
            let further = unsafe { (*further).nat };
            if further.how == NAT_TRANSLATED {
                last = further;
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { (*state).nat = last };
}

#[inline(always)]
fn words(bytes: [u8; 16]) -> [u64; 2] {
    // SAFETY: 16 bytes each, every pattern is a value.
    unsafe { core::mem::transmute(bytes) }
}

/// `::ffff:a.b.c.d`.
#[inline(always)]
fn is_mapped(tuple: &Tuple) -> bool {
    let [high, low] = words(tuple.remote);
    tuple.family == AF_INET6 && high == 0 && low as u32 == 0xffff_0000
}

#[inline(always)]
fn unmapped(address: [u8; 16]) -> [u8; 16] {
    bytes([words(address)[1] >> 32, 0])
}

/// Called once for each connection, when its first packet has passed all of
/// NAT (`nf_conntrack_confirm`).
#[kprobe]
pub fn nat_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(skb) = ctx.arg::<Ptr>(0) {
        learn(load!(Probed, skb, skb_nfct: u64));
    }
    0
}

/// Every packet that is handed to a device; of interest are the first ones of
/// connections.
#[inline(always)]
fn sent<M: Mem>(skb: Ptr) {
    let nfct = load!(M, skb, skb_nfct: u64);
    if nfct & CTINFO == IP_CT_NEW {
        learn(nfct);
    }
}

#[btf_tracepoint(function = "net_dev_queue")]
pub fn nat_tp_btf(ctx: BtfTracePointContext) -> i32 {
    sent::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn nat_raw_tp(ctx: RawTracePointContext) -> i32 {
    sent::<Probed>(ctx.arg(0));
    0
}
