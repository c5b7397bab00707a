//! tcp_listen: listeners whose accept queue is full. A child that takes the last
//! place shows it on every kernel (`inet_sock_set_state`; a child is a copy of
//! its listener, count of the queue included). What is dropped then shows at the
//! functions that drop it, or in a walk over every task's open files that the
//! agent starts while a listener looks full.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use culprit_agent_ebpf::wire::{
    KIND_TCP_LISTEN,
    config::HAVE_LISTEN,
    stats::PROBE_TCP_LISTEN,
    tcp::{
        ACCEPT_BUCKETS, LISTEN_ACK, LISTEN_FILLED, LISTEN_LOOK, LISTEN_SYN, Listener, ListenerKey,
        SOCK_FOUND, SockState, TcpListen,
    },
};

use super::sock::{self, AF_INET6, TCP_LISTEN};
use super::walk;
use crate::{
    account::{self, Wake, add, emit, log2},
    kernel::{self, Direct, Mem, Probed, Ptr, follow, have, load},
    maps::{LISTENERS, RING_SIGNAL, SOCKS},
};

/// Records of one row are this far apart; those between are counted. (A look
/// meets a socket once for each process that has it open.)
const APART_NS: u64 = 900_000_000;

/// `sk_acceptq_is_full`: more than the maximum wait.
#[inline(always)]
fn is_full(backlog: u32, max: u32) -> bool {
    backlog > max
}

/// What a reading of a listening socket says.
struct Reading {
    backlog: u32,
    max_backlog: u32,
    drops: u32,
    oldest_wait_ns: u64,
    address: [u64; 2],
    family: u16,
    why: u16,
}

#[inline(always)]
unsafe fn tell(row: *mut Listener, key: ListenerKey, reading: Reading) {
    // SAFETY: a live map value; the record is valid.
    unsafe {
        let now = bpf_ktime_get_ns();
        // A look tells what the others cannot: they do not hold it back.
        let last = if reading.why == LISTEN_LOOK {
            &raw mut (*row).looked_ns
        } else {
            &raw mut (*row).told_ns
        };
        if now.wrapping_sub(last.read()) < APART_NS {
            return account::suppressed(PROBE_TCP_LISTEN);
        }
        last.write(now);
        (*row).max_backlog = reading.max_backlog;
        (*row).drops_before = (*row).told_drops;
        // Several sockets may share the row: the one with the most counts.
        if reading.drops > (*row).told_drops {
            (*row).told_drops = reading.drops;
        }
        emit(
            &RING_SIGNAL,
            PROBE_TCP_LISTEN,
            KIND_TCP_LISTEN,
            Wake::Batched,
            |out: *mut TcpListen| {
                type Words = [u64; size_of::<Listener>() / 8];
                let to = (&raw mut (*out).listener).cast::<Words>();
                to.write(row.cast::<Words>().read());
                (&raw mut (*out).address)
                    .cast::<[u64; 2]>()
                    .write(reading.address);
                (*out).key.netns = key.netns;
                (*out).key.port = key.port;
                (*out).key.pad = 0;
                (*out).backlog = reading.backlog;
                (*out).drops = reading.drops;
                (*out).why = reading.why;
                (*out).family = reading.family;
                (*out).pad = 0;
                (*out).oldest_wait_ns = reading.oldest_wait_ns;
            },
        );
    }
}

/// A child is established and goes into the queue of its listener.
///
/// # Safety
/// `state` and `row` are live map values, `sk` is the child.
#[inline(always)]
pub(super) unsafe fn came_up<M: Mem>(sk: Ptr, state: *mut SockState, row: *mut Listener) {
    // Copied from the listener before this child was counted.
    let backlog = load!(M, sk, sk_ack_backlog: u32).wrapping_add(1);
    let max_backlog = load!(M, sk, sk_max_ack_backlog: u32);
    if !is_full(backlog, max_backlog) {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let key = ListenerKey {
            netns: (*state).netns,
            port: (*state).tuple.local_port,
            pad: 0,
        };
        let reading = Reading {
            backlog,
            max_backlog,
            drops: 0,
            oldest_wait_ns: 0,
            address: (&raw const (*state).tuple.local).cast::<[u64; 2]>().read(),
            family: (*state).tuple.family,
            why: LISTEN_FILLED,
        };
        tell(row, key, reading);
    }
}

/// A process took the connection out of the queue.
///
/// # Safety
/// `state` is a live map value.
#[inline(always)]
pub(super) unsafe fn accepted(state: *mut SockState) {
    // SAFETY: the caller's promise.
    unsafe {
        if !have(HAVE_LISTEN) || (*state).flags & SOCK_FOUND != 0 || (*state).opened_ns == 0 {
            return;
        }
        let key = ListenerKey {
            netns: (*state).netns,
            port: (*state).tuple.local_port,
            pad: 0,
        };
        let Some(row) = LISTENERS.get_ptr_mut(key) else {
            return;
        };
        let wait = bpf_ktime_get_ns().wrapping_sub((*state).opened_ns);
        add(&raw mut (*row).accepts, 1);
        add(&raw mut (*row).accept_total_ns, wait);
        if wait > (*row).accept_max_ns {
            (*row).accept_max_ns = wait;
        }
        let bucket = log2(wait) as usize;
        let last = ACCEPT_BUCKETS - 1;
        let bucket = if bucket > last { last } else { bucket };
        let counter = (&raw mut (*row).accept_buckets).cast::<u32>().add(bucket);
        // Two accepts at once may count as one here; `accepts` has both.
        *counter += 1;
    }
}

/// How long the first in the queue has waited.
#[inline(always)]
fn oldest_wait<M: Mem>(sk: Ptr) -> u64 {
    // SAFETY: sk is a TCP socket.
    let tp = unsafe { M::tcp_sock(sk) };
    if tp.is_null() {
        return 0;
    }
    let request = follow!(M, tp, accept_head);
    if request.is_null() {
        return 0;
    }
    let child = follow!(M, request, request_sk);
    let Some(state) = SOCKS.get_ptr(child as u64) else {
        return 0;
    };
    // SAFETY: a live map value; the helper takes nothing.
    unsafe {
        if (*state).opened_ns == 0 {
            return 0;
        }
        bpf_ktime_get_ns().wrapping_sub((*state).opened_ns)
    }
}

#[inline(always)]
fn reading<M: Mem>(sk: Ptr, backlog: u32, max_backlog: u32, why: u16) -> Reading {
    let family = load!(M, sk, skc_family: u16);
    let mut address = [0; 2];
    let v6 = kernel::field!(skc_v6_rcv_saddr);
    if family != AF_INET6 {
        address[0] = u64::from(load!(M, sk, skc_rcv_saddr: u32));
    } else if v6 != culprit_agent_ebpf::wire::fields::ABSENT {
        address = [
            kernel::read::<M, u64>(sk, v6),
            kernel::read::<M, u64>(sk, v6 + 8),
        ];
    }
    Reading {
        backlog,
        max_backlog,
        drops: load!(M, sk, sk_drops: u32),
        oldest_wait_ns: oldest_wait::<M>(sk),
        address,
        family,
        why,
    }
}

/// A SYN or a last ACK has come for this listener.
#[inline(always)]
fn knocked<M: Mem>(sk: Ptr, why: u16) {
    let backlog = load!(M, sk, sk_ack_backlog: u32);
    let max_backlog = load!(M, sk, sk_max_ack_backlog: u32);
    if !is_full(backlog, max_backlog) {
        return;
    }
    let key = sock::listener_key::<M>(sk);
    let Some(row) = LISTENERS.get_ptr_mut(key) else {
        return account::unmatched(PROBE_TCP_LISTEN);
    };
    // SAFETY: a live map value.
    unsafe {
        if why == LISTEN_SYN {
            add(&raw mut (*row).syn_overflows, 1);
        } else {
            add(&raw mut (*row).ack_overflows, 1);
        }
        let mut reading = reading::<M>(sk, backlog, max_backlog, why);
        // The caller counts this one when it is done.
        reading.drops = reading.drops.wrapping_add(1);
        tell(row, key, reading);
    }
}

#[fentry(function = "tcp_conn_request")]
pub fn listen_syn_fentry(ctx: FEntryContext) -> i32 {
    knocked::<Direct>(ctx.arg(2), LISTEN_SYN);
    0
}

#[fentry(function = "tcp_v4_syn_recv_sock")]
pub fn listen_ack_fentry(ctx: FEntryContext) -> i32 {
    knocked::<Direct>(ctx.arg(0), LISTEN_ACK);
    0
}

/// `tcp_v6_syn_recv_sock` hands IPv4 on to the other.
const ETH_P_IPV6: u16 = 0x86dd;

#[fentry(function = "tcp_v6_syn_recv_sock")]
pub fn listen_ack6_fentry(ctx: FEntryContext) -> i32 {
    let skb: Ptr = ctx.arg(1);
    if u16::from_be(load!(Direct, skb, skb_protocol: u16)) == ETH_P_IPV6 {
        knocked::<Direct>(ctx.arg(0), LISTEN_ACK);
    }
    0
}

#[kprobe]
pub fn listen_syn_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<Ptr>(2) {
        knocked::<Probed>(sk, LISTEN_SYN);
    }
    0
}

#[kprobe]
pub fn listen_ack_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<Ptr>(0) {
        knocked::<Probed>(sk, LISTEN_ACK);
    }
    0
}

#[kprobe]
pub fn listen_ack6_kprobe(ctx: ProbeContext) -> u32 {
    let (Some(sk), Some(skb)) = (ctx.arg::<Ptr>(0), ctx.arg::<Ptr>(1)) else {
        return 0;
    };
    if u16::from_be(load!(Probed, skb, skb_protocol: u16)) == ETH_P_IPV6 {
        knocked::<Probed>(sk, LISTEN_ACK);
    }
    0
}

/// Walks the open files of every task and tells of the listeners that are full
/// or have dropped something since they were told of last.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn look_listeners(ctx: *const Ptr) -> i32 {
    walk::step::<Look>(ctx)
}

struct Look;

impl walk::Walk for Look {
    #[inline(always)]
    fn socket<M: Mem>(sk: Ptr, task: Ptr) {
        if u32::from(load!(M, sk, skc_state: u8)) != TCP_LISTEN || !sock::is_tcp::<M>(sk) {
            return;
        }
        let key = sock::listener_key::<M>(sk);
        if LISTENERS.get_ptr(key).is_none() {
            sock::found_listener::<M>(sk, task);
        }
        let Some(row) = LISTENERS.get_ptr_mut(key) else {
            return account::unmatched(PROBE_TCP_LISTEN);
        };
        let backlog = load!(M, sk, sk_ack_backlog: u32);
        let max_backlog = load!(M, sk, sk_max_ack_backlog: u32);
        let drops = load!(M, sk, sk_drops: u32);
        // SAFETY: a live map value.
        unsafe {
            if !is_full(backlog, max_backlog) && drops <= (*row).told_drops {
                return;
            }
            let reading = reading::<M>(sk, backlog, max_backlog, LISTEN_LOOK);
            tell(row, key, reading);
        }
    }
}
