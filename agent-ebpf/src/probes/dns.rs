//! dns: questions that leave this node's processes for port 53 and their
//! answers, over UDP and TCP, as packets at `net_dev_queue` and
//! `netif_receive_skb`.
//!
//! A question is counted where its own socket still is with the packet, so once,
//! whatever bridges it passes. Packet bytes are no BTF type: probe reads.
//!
//! What a TCP segment carries is in pages of its own, mostly, which cannot be
//! read: there the first data that leaves is the question and the first that
//! comes back the answer, without name and code.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel, generated},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_DNS, Task,
    config::HAVE_PROBE_READ,
    dns::{DnsAnswer, DnsKey, DnsName, DnsNameKey, DnsNow, QUESTION},
    stats::PROBE_DNS,
};

use super::work;
use crate::{
    account::{self, Wake, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, have, load},
    maps::{DNS_NAMES, DNS_NOW, DNS_WORK, RING_SIGNAL},
};

const IPV4: u16 = 0x0800u16.to_be();
const IPV6: u16 = 0x86ddu16.to_be();
const UDP: u8 = 17;
const TCP: u8 = 6;
const DNS: u16 = 53u16.to_be();
/// Header of a DNS message, RFC 1035 4.1.1.
const HEADER: u64 = 12;
/// Answers slower than this are told.
const SLOW_NS: u64 = 1_000_000_000;
/// The same question seen again sooner is the same packet on its way.
const SAME_NS: u64 = 100_000_000;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

static EMPTY: DnsNow = DnsNow {
    task: Task::EMPTY,
    server: [0; 16],
    asked_ns: 0,
    again_ns: 0,
    retries: 0,
    family: 0,
    pad: 0,
    netns: 0,
    pad2: 0,
    name: DnsName {
        question: [0; QUESTION],
        question_bytes: 0,
        pad: [0; 6],
    },
};

/// Reads packet bytes; zero where they cannot be read, which is no DNS.
#[inline(always)]
fn packet<T: Copy>(at: u64) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}

/// A packet from or to port 53.
struct Dns {
    source: [u64; 2],
    destination: [u64; 2],
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    family: u16,
    /// Address of the DNS message.
    message: u64,
    /// Its bytes in this packet.
    length: u64,
    /// They can be read.
    readable: bool,
}

/// Looks at a packet; quick to say no.
#[inline(always)]
fn parse<M: Mem>(skb: Ptr) -> Option<Dns> {
    let ethertype = load!(M, skb, skb_protocol: u16);
    if ethertype != IPV4 && ethertype != IPV6 {
        return None;
    }
    let head = load!(M, skb, skb_head: u64);
    let ip = head + u64::from(load!(M, skb, skb_network_header: u16));
    let (protocol, transport, source, destination, total, family);
    if ethertype == IPV4 {
        let first: u64 = packet(ip)?;
        protocol = packet::<u8>(ip + 9)?;
        if protocol != UDP && protocol != TCP {
            return None;
        }
        let header = (first & 0xf) * 4;
        transport = ip + header;
        let ports: u32 = packet(transport)?;
        if ports as u16 != DNS && (ports >> 16) as u16 != DNS {
            return None;
        }
        let both: [u32; 2] = packet(ip + 12)?;
        source = [u64::from(both[0]), 0];
        destination = [u64::from(both[1]), 0];
        total = u64::from(u16::from_be((first >> 16) as u16)).wrapping_sub(header);
        family = 2;
    } else {
        protocol = packet::<u8>(ip + 6)?;
        if protocol != UDP && protocol != TCP {
            return None;
        }
        transport = ip + 40;
        let ports: u32 = packet(transport)?;
        if ports as u16 != DNS && (ports >> 16) as u16 != DNS {
            return None;
        }
        source = packet(ip + 8)?;
        destination = packet(ip + 24)?;
        total = u64::from(u16::from_be(packet::<u16>(ip + 4)?));
        family = 10;
    }
    let ports: u32 = packet(transport)?;
    let skip = if protocol == UDP {
        8
    } else {
        // The message follows its length, RFC 1035 4.2.2.
        u64::from(packet::<u8>(transport + 12)? >> 4) * 4 + 2
    };
    if total < skip + HEADER {
        // No message in it: a handshake, an acknowledgement.
        return None;
    }
    Some(Dns {
        source,
        destination,
        source_port: u16::from_be(ports as u16),
        destination_port: u16::from_be((ports >> 16) as u16),
        protocol,
        family,
        message: transport + skip,
        length: total - skip,
        readable: load!(M, skb, skb_data_len: u32) == 0,
    })
}

#[inline(always)]
fn key(client: [u64; 2], port: u16, id: u16, protocol: u8) -> DnsKey {
    DnsKey {
        // SAFETY: 16 bytes either way.
        client: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(client) },
        port,
        id,
        protocol,
        pad: [0; 3],
    }
}

/// QR, in the first four bytes of a message.
const ANSWER: u32 = 0x0080_0000;

/// Number and flags of a message; 0 where a TCP segment cannot be read. None: no
/// DNS that is known of.
#[inline(always)]
fn flags(dns: &Dns) -> Option<u32> {
    if dns.readable {
        packet::<u32>(dns.message)
    } else if dns.protocol == TCP {
        Some(0)
    } else {
        None
    }
}

/// A packet leaves.
#[inline(always)]
fn out<M: Mem>(skb: Ptr) {
    // A forwarded packet, or the same one a device further.
    if load!(M, skb, skb_sk: u64) == 0 {
        return;
    }
    let Some(dns) = parse::<M>(skb) else { return };
    if dns.destination_port != 53 {
        return;
    }
    let Some(flags) = flags(&dns) else { return };
    if flags & ANSWER != 0 {
        return;
    }
    let key = key(dns.source, dns.source_port, flags as u16, dns.protocol);
    // SAFETY: no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(row) = DNS_NOW.get_ptr_mut(key) {
        // SAFETY: a live map value.
        unsafe {
            if now.wrapping_sub((*row).again_ns) >= SAME_NS {
                (*row).retries += 1;
                (*row).again_ns = now;
            }
        }
        return;
    }
    if DNS_NOW.insert(key, &EMPTY, 0).is_err() {
        return account::dropped_map(PROBE_DNS);
    }
    let Some(row) = DNS_NOW.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        // Nearly always who asks; for TCP it can be whoever the packet's
        // acknowledgement interrupted.
        kernel::fill_current(&raw mut (*row).task);
        (*row).server = core::mem::transmute::<[u64; 2], [u8; 16]>(dns.destination);
        (*row).asked_ns = now;
        (*row).again_ns = now;
        (*row).family = dns.family;
        (*row).netns = (*row).task.netns;
        let rest = dns.length - HEADER;
        let bytes = if rest < QUESTION as u64 {
            rest
        } else {
            QUESTION as u64
        };
        // Zero bytes is not what the verifier takes.
        let bytes = (bytes & 0x7f) as u32;
        if dns.readable && bytes > 0 && bytes <= QUESTION as u32 {
            (*row).name.question_bytes = bytes as u16;
            let done = generated::bpf_probe_read_kernel(
                (&raw mut (*row).name.question).cast(),
                bytes,
                (dns.message + HEADER) as *const _,
            );
            if done != 0 {
                (*row).name.question_bytes = 0;
            }
        }
    }
}

/// A packet arrives.
#[inline(always)]
fn arrived<M: Mem>(skb: Ptr) {
    let Some(dns) = parse::<M>(skb) else { return };
    if dns.source_port != 53 {
        return;
    }
    let Some(mut flags) = flags(&dns) else { return };
    if !dns.readable {
        flags |= ANSWER;
    }
    if flags & ANSWER == 0 {
        return;
    }
    let id = flags as u16;
    let key = key(dns.destination, dns.destination_port, id, dns.protocol);
    let Some(row) = DNS_NOW.get_ptr(key) else {
        return;
    };
    let rcode = (flags >> 24) as u8 & 0xf;
    // SAFETY: a live map value.
    let (latency, retries, workload) = unsafe {
        (
            bpf_ktime_get_ns().wrapping_sub((*row).asked_ns),
            (*row).retries,
            (*row).task.cgroup_memory,
        )
    };
    work::add_to(&DNS_WORK, PROBE_DNS, workload, latency);
    if rcode == 0 && dns.readable && dns.protocol == UDP {
        names(&dns, row, workload);
    }
    // No such name is an answer, and usual with search lists.
    let failed = rcode >= SERVFAIL && rcode != NXDOMAIN;
    if failed || retries > 0 || latency >= SLOW_NS {
        emit(
            &RING_SIGNAL,
            PROBE_DNS,
            KIND_DNS,
            Wake::Batched,
            |out: *mut DnsAnswer| {
                // SAFETY: record and row are valid and aligned to 8.
                unsafe {
                    let to = (&raw mut (*out).now).cast::<u64>();
                    let from = row.cast::<u64>();
                    for word in 0..22 {
                        to.add(word).write(from.add(word).read());
                    }
                    (*out).latency_ns = latency;
                    (*out).port = dns.destination_port;
                    (*out).id = u16::from_be(id);
                    (*out).rcode = rcode;
                    (*out).protocol = dns.protocol;
                    (*out).pad = 0;
                    (*out).client = core::mem::transmute::<[u64; 2], [u8; 16]>(dns.destination);
                }
            },
        );
    }
    let _ = DNS_NOW.remove(key);
}

/// Labels of a question's name, and records of an answer, that are looked at.
const LABELS: u32 = 32;
const RECORDS: u32 = 16;
const A: u16 = 1u16.to_be();
const AAAA: u16 = 28u16.to_be();
/// The two bits of a name that is a pointer to another one, RFC 1035 4.1.4.
const POINTER: u8 = 0xc0;

/// Notes by which name the addresses of an answer were looked up. Every name server
/// compresses names: a record whose name is none but a pointer ends the look.
#[inline(always)]
fn names(dns: &Dns, row: *const DnsNow, workload: u64) {
    let end = dns.message + dns.length;
    let Some(records) = packet::<u16>(dns.message + 6) else {
        return;
    };
    let records = u32::from(u16::from_be(records));
    let mut at = dns.message + HEADER;
    let mut over = false;
    for _ in 0..LABELS {
        let Some(length) = packet::<u8>(at) else {
            return;
        };
        at += 1 + u64::from(length);
        if length == 0 {
            over = true;
            break;
        }
        if length & POINTER != 0 {
            return;
        }
    }
    if !over {
        return;
    }
    // Type and class of the question.
    at += 4;
    for n in 0..RECORDS {
        // Name, type, class, time to live, length.
        if n >= records || at + 12 > end {
            return;
        }
        let Some(head) = packet::<[u8; 12]>(at) else {
            return;
        };
        if head[0] & POINTER != POINTER {
            return;
        }
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let length = u64::from(u16::from_be_bytes([head[10], head[11]]));
        at += 12;
        if at + length > end {
            return;
        }
        let mut key = DnsNameKey {
            workload,
            address: [0; 16],
        };
        let found = match (kind, length) {
            (A, 4) => packet::<[u8; 4]>(at).map(|ip| key.address[..4].copy_from_slice(&ip)),
            (AAAA, 16) => packet::<[u8; 16]>(at).map(|ip| key.address = ip),
            _ => None,
        };
        if found.is_some() {
            // SAFETY: a live map value.
            let _ = DNS_NAMES.insert(key, unsafe { &(*row).name }, 0);
        }
        at += length;
    }
}

#[btf_tracepoint(function = "net_dev_queue")]
pub fn dns_out_tp_btf(ctx: BtfTracePointContext) -> i32 {
    if have(HAVE_PROBE_READ) {
        out::<Direct>(ctx.arg(0));
    }
    0
}

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn dns_in_tp_btf(ctx: BtfTracePointContext) -> i32 {
    if have(HAVE_PROBE_READ) {
        arrived::<Direct>(ctx.arg(0));
    }
    0
}

#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn dns_out_raw_tp(ctx: RawTracePointContext) -> i32 {
    out::<Probed>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn dns_in_raw_tp(ctx: RawTracePointContext) -> i32 {
    arrived::<Probed>(ctx.arg(0));
    0
}
