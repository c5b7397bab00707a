//! The table of sockets and the state changes that drive it:
//! `inet_sock_set_state`, present and stable from 5.10 to 7.2. It runs in the
//! caller's context for CLOSE -> SYN_SENT and CLOSE -> LISTEN and in any
//! context for the rest, so only those two name a process.
//!
//! The kernel skips a run of a program while another run of it is under way on
//! that CPU (6.2 and later): when a softirq comes in between, and on a preemptible
//! kernel (the default from 7.0 on) for as long as a task preempted in the middle
//! is kept waiting. So there are two programs at the tracepoint with the same
//! work. The first does it; the second, which is called after it, looks whether it
//! is done, and does what the first was skipped for. It is under way so briefly
//! that both are hardly ever skipped at once.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, helpers::bpf_ktime_get_ns};
use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use culprit_agent_ebpf::wire::{
    config::{HAVE_CONNECT, HAVE_FLOW, HAVE_LISTEN},
    stats::{PROBE_TCP_CONNECT, PROBE_TCP_FLOW},
    tcp::{
        CALL_FAILED_LOCALLY, CALL_SYN, Listener, ListenerKey, ROLE_CLIENT, ROLE_SERVER,
        ROLE_UNKNOWN, SOCK_ESTABLISHED, SOCK_FOUND, SOCK_LATE, SOCK_OPENER, SockState, Tuple,
    },
};

use super::{nat, tcp_connect, tcp_flow, tcp_listen};
use crate::{
    account::{self, add},
    kernel::{self, Direct, Mem, Probed, Ptr, follow, have, load},
    maps::{CALLS, HANDLED, LISTENERS, SOCKS, UNTRACKED},
};

pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

pub(super) const TCP_ESTABLISHED: u32 = 1;
pub(super) const TCP_SYN_SENT: u32 = 2;
pub(super) const TCP_SYN_RECV: u32 = 3;
pub(super) const TCP_CLOSE: u32 = 7;
pub(super) const TCP_LISTEN: u32 = 10;
pub(super) const FIN_WAIT1: u32 = 4;
pub(super) const FIN_WAIT2: u32 = 5;
pub(super) const LAST_ACK: u32 = 9;
pub(super) const CLOSING: u32 = 11;

static EMPTY: SockState = SockState::EMPTY;
static NO_LISTENER: Listener = Listener::EMPTY;

/// Whether the socket is TCP over IPv4 or IPv6.
#[inline(always)]
pub(super) fn is_tcp<M: Mem>(sk: Ptr) -> bool {
    let family = load!(M, sk, skc_family: u16);
    (family == AF_INET || family == AF_INET6) && load!(M, sk, sk_protocol: u16) == IPPROTO_TCP
}

/// Whether a FIN was taken in: `tcp_fin` sets SOCK_DONE, and nothing else does
/// for TCP. (RCV_SHUTDOWN is set by this side's own close as well.)
#[inline(always)]
pub(super) fn fin_received<M: Mem>(sk: Ptr) -> bool {
    const SOCK_DONE: u64 = 1 << 1;
    load!(M, sk, skc_flags: u64) & SOCK_DONE != 0
}

/// Local port in host order. `skc_num` is already 0 when a socket closes, the
/// inet_sock's own port is not.
#[inline(always)]
pub(super) fn local_port<M: Mem>(sk: Ptr) -> u16 {
    let num = load!(M, sk, skc_num: u16);
    if num != 0 {
        return num;
    }
    // SAFETY: sk is a TCP socket.
    let tp = unsafe { M::tcp_sock(sk) };
    if tp.is_null() {
        0
    } else {
        u16::from_be(load!(M, tp, inet_sport: u16))
    }
}

/// Writes both ends.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub(super) unsafe fn fill_tuple<M: Mem>(out: *mut Tuple, sk: Ptr) {
    let family = load!(M, sk, skc_family: u16);
    // SAFETY: out is valid; addresses are 16 bytes, aligned to 8 in a Tuple.
    unsafe {
        let local = (&raw mut (*out).local).cast::<u64>();
        let remote = (&raw mut (*out).remote).cast::<u64>();
        if family == AF_INET6 {
            local.write(load_half::<M>(sk, kernel::field!(skc_v6_rcv_saddr), 0));
            local
                .add(1)
                .write(load_half::<M>(sk, kernel::field!(skc_v6_rcv_saddr), 8));
            remote.write(load_half::<M>(sk, kernel::field!(skc_v6_daddr), 0));
            remote
                .add(1)
                .write(load_half::<M>(sk, kernel::field!(skc_v6_daddr), 8));
        } else {
            local.write(u64::from(load!(M, sk, skc_rcv_saddr: u32)));
            local.add(1).write(0);
            remote.write(u64::from(load!(M, sk, skc_daddr: u32)));
            remote.add(1).write(0);
        }
        (*out).local_port = local_port::<M>(sk);
        (*out).remote_port = u16::from_be(load!(M, sk, skc_dport: u16));
        (*out).family = family;
        (*out).pad = 0;
    }
}

/// Half of an IPv6 address as it lies in memory; 0 without IPv6 in the kernel.
#[inline(always)]
unsafe fn load_half<M: Mem>(sk: Ptr, offset: u32, half: u32) -> u64 {
    if offset == culprit_agent_ebpf::wire::fields::ABSENT {
        0
    } else {
        // SAFETY: within the 16-byte address.
        unsafe { M::load::<u64>(sk, offset + half) }
    }
}

/// What tcp_sock says at this moment.
///
/// # Safety
/// `state` is a live map value.
#[inline(always)]
pub(super) unsafe fn snapshot<M: Mem>(state: *mut SockState, tp: Ptr) {
    // SAFETY: the caller's promise.
    unsafe {
        (*state).srtt_us8 = load!(M, tp, srtt_us: u32);
        (*state).min_rtt_us = min_rtt::<M>(tp);
        (*state).total_retrans = load!(M, tp, total_retrans: u32);
    }
}

/// `tcp_min_rtt`: value of the first sample of `rtt_min`, which follows its
/// 4-byte time.
#[inline(always)]
unsafe fn min_rtt<M: Mem>(tp: Ptr) -> u32 {
    let offset = kernel::field!(rtt_min);
    if offset == culprit_agent_ebpf::wire::fields::ABSENT {
        return u32::MAX;
    }
    // SAFETY: struct minmax is three {u32 t, v}.
    unsafe { M::load::<u32>(tp, offset + 4) }
}

/// A new row for a socket, or None (counted by the caller) when the table is
/// full.
///
/// A close can go unseen, when the kernel skipped both programs for it. Its row is
/// still there when the address serves the next socket, and is reported then.
#[inline(always)]
pub(super) fn new_state(sk: Ptr) -> Option<*mut SockState> {
    let key = sk as u64;
    if have(HAVE_FLOW)
        && let Some(stale) = SOCKS.get_ptr_mut(key)
    {
        // SAFETY: a live map value; there is no tcp_sock of it any more.
        unsafe {
            if (*stale).flags & SOCK_ESTABLISHED != 0 {
                tcp_flow::closed::<Direct>(stale, core::ptr::null(), 0, 0, false);
            }
        }
    }
    if SOCKS.insert(key, &EMPTY, 0).is_err() {
        return None;
    }
    SOCKS.get_ptr_mut(key)
}

/// An end of a connection of this memory cgroup's that is not tracked. Row 0 is
/// there from the start.
#[inline(always)]
pub(super) fn untracked(cgroup: u64) {
    // Lost to another CPU is as good as done.
    let _ = UNTRACKED.insert(cgroup, &0, 1);
    let row = match UNTRACKED.get_ptr_mut(cgroup) {
        Some(row) => Some(row),
        None => UNTRACKED.get_ptr_mut(0),
    };
    if let Some(row) = row {
        add(row, 1);
    }
}

/// The row of a listener in LISTENERS.
#[inline(always)]
pub(super) fn listener_key<M: Mem>(sk: Ptr) -> ListenerKey {
    ListenerKey {
        netns: kernel::sock_netns::<M>(sk),
        port: local_port::<M>(sk),
        pad: 0,
    }
}

/// Notes that a change is done which leaves no trace in SOCKS.
#[inline(always)]
fn done<const SECOND: bool>(sk: Ptr, new: u32) {
    if !SECOND {
        let _ = HANDLED.insert(sk as u64, &new, 0);
    }
}

/// Whether the first program has done this change.
#[inline(always)]
fn is_done(sk: Ptr, old: u32, new: u32) -> bool {
    let key = sk as u64;
    if old != TCP_LISTEN
        && new != TCP_LISTEN
        && let Some(state) = SOCKS.get_ptr(key)
    {
        // SAFETY: a live map value.
        return new != TCP_CLOSE && unsafe { (*state).tcp_state == new };
    }
    if old != TCP_LISTEN && new == TCP_CLOSE {
        return true;
    }
    let Some(handled) = HANDLED.get_ptr(key) else {
        return false;
    };
    // SAFETY: a live map value.
    let same = unsafe { *handled == new };
    if same {
        let _ = HANDLED.remove(key);
    }
    same
}

#[inline(always)]
fn count_no_room() {
    untracked(kernel::current_memory_cgroup());
    if have(HAVE_CONNECT) {
        account::dropped_map(PROBE_TCP_CONNECT);
    }
    if have(HAVE_FLOW) {
        account::dropped_map(PROBE_TCP_FLOW);
    }
}

/// CLOSE -> SYN_SENT, in the context of the process that connects.
#[inline(always)]
fn connecting<M: Mem, const SECOND: bool>(sk: Ptr) {
    let Some(state) = new_state(sk) else {
        count_no_room();
        return done::<SECOND>(sk, TCP_SYN_SENT);
    };
    // SAFETY: a live map value; the socket is locked by its caller.
    unsafe {
        kernel::fill_current(&raw mut (*state).opener);
        fill_tuple::<M>(&raw mut (*state).tuple, sk);
        (*state).syn_ns = bpf_ktime_get_ns();
        (*state).sock_cgroup = kernel::sock_cgroup::<M>(sk);
        (*state).netns = kernel::sock_netns::<M>(sk);
        (*state).flags = SOCK_OPENER;
        (*state).role = ROLE_CLIENT;
        (*state).tcp_state = TCP_SYN_SENT;
    }
    if have(HAVE_CONNECT) {
        if let Some(call) = CALLS.get_ptr_mut(bpf_get_current_pid_tgid()) {
            // SAFETY: a live map value of this thread.
            unsafe {
                (*call).sk = sk as u64;
                (*call).flags |= CALL_SYN;
            }
        }
    }
}

/// The handshake is done: a connect succeeded, or a child came up.
#[inline(always)]
fn established<M: Mem, const SECOND: bool>(sk: Ptr, old: u32) {
    let key = sk as u64;
    // Null, and not Option: to the verifier an absent pointer is one never written.
    let mut listener: *mut Listener = core::ptr::null_mut();
    let state = match SOCKS.get_ptr_mut(key) {
        // One that is up already is of a socket before this one.
        // SAFETY: a live map value.
        Some(state) if unsafe { (*state).flags & SOCK_ESTABLISHED } == 0 => state,
        _ => {
            let mut role = ROLE_SERVER;
            if old == TCP_SYN_RECV {
                if let Some(row) = LISTENERS.get_ptr_mut(listener_key::<M>(sk)) {
                    listener = row;
                }
            } else {
                // A connect that began before the agent did, or whose beginning the
                // kernel skipped: who uses the connection will show.
                account::unmatched(PROBE_TCP_CONNECT);
                role = ROLE_CLIENT;
            }
            let Some(state) = new_state(sk) else {
                // One that connects was counted when it began.
                if role == ROLE_SERVER {
                    if have(HAVE_FLOW) {
                        account::dropped_map(PROBE_TCP_FLOW);
                    }
                    let owner = if listener.is_null() {
                        0
                    } else {
                        // SAFETY: a live map value.
                        unsafe { (*listener).owner.cgroup_memory }
                    };
                    untracked(owner);
                }
                return done::<SECOND>(sk, TCP_ESTABLISHED);
            };
            // SAFETY: live map values.
            unsafe {
                (*state).role = role;
                (*state).sock_cgroup = kernel::sock_cgroup::<M>(sk);
                (*state).netns = kernel::sock_netns::<M>(sk);
                if !listener.is_null() {
                    kernel::copy_task(&raw mut (*state).opener, &raw const (*listener).owner);
                    (*state).flags = SOCK_OPENER;
                    add(&raw mut (*listener).children, 1);
                }
            }
            state
        }
    };
    // SAFETY: a live map value; sk is a TCP socket.
    unsafe {
        fill_tuple::<M>(&raw mut (*state).tuple, sk);
        nat::resolve(state);
        (*state).opened_ns = bpf_ktime_get_ns();
        (*state).flags |= SOCK_ESTABLISHED;
        (*state).tcp_state = TCP_ESTABLISHED;
        let tp = M::tcp_sock(sk);
        if !tp.is_null() {
            (*state).copied_seq = load!(M, tp, copied_seq: u32);
            (*state).first_copied_seq = (*state).copied_seq;
            (*state).first_write_seq = load!(M, tp, write_seq: u32);
            snapshot::<M>(state, tp);
        }
        if have(HAVE_CONNECT) && (*state).role == ROLE_CLIENT && (*state).flags & SOCK_OPENER != 0 {
            tcp_connect::outcome(state, TCP_ESTABLISHED, 0);
        }
        if have(HAVE_LISTEN) && !listener.is_null() {
            tcp_listen::came_up::<M>(sk, state, listener);
        }
    }
}

/// A connection closes whose SYN_SENT -> ESTABLISHED the kernel skipped (see
/// [`new_state`]): the connect is reported now, without a latency.
///
/// # Safety
/// `state` is a live map value.
#[inline(always)]
unsafe fn established_unseen<M: Mem>(sk: Ptr, state: *mut SockState) {
    // SAFETY: the caller's promise.
    unsafe {
        fill_tuple::<M>(&raw mut (*state).tuple, sk);
        nat::resolve(state);
        (*state).opened_ns = bpf_ktime_get_ns();
        (*state).syn_ns = 0;
        (*state).flags |= SOCK_ESTABLISHED | SOCK_LATE;
        if have(HAVE_CONNECT) && (*state).role == ROLE_CLIENT {
            tcp_connect::outcome(state, TCP_ESTABLISHED, 0);
        }
    }
}

/// Any state -> CLOSE: the end of a connect attempt or of a connection.
#[inline(always)]
fn closed<M: Mem>(sk: Ptr, old: u32) {
    let key = sk as u64;
    let Some(state) = SOCKS.get_ptr_mut(key) else {
        if old != TCP_SYN_RECV && have(HAVE_FLOW) {
            account::unmatched(PROBE_TCP_FLOW);
        }
        return;
    };
    let errno = load!(M, sk, sk_err: u32);
    // SAFETY: a live map value; sk is a TCP socket.
    unsafe {
        let tp = M::tcp_sock(sk);
        if old == TCP_SYN_SENT {
            let port = local_port::<M>(sk);
            (*state).tuple.local_port = port;
            nat::resolve(state);
            if !tp.is_null() {
                (*state).total_retrans = load!(M, tp, total_retrans: u32);
            }
            if have(HAVE_CONNECT) && !failed_in_call(sk, port) {
                tcp_connect::outcome(state, TCP_CLOSE, errno);
            }
        } else {
            if (*state).flags & (SOCK_ESTABLISHED | SOCK_FOUND) == 0 {
                established_unseen::<M>(sk, state);
            }
            if have(HAVE_FLOW) {
                let fin = fin_received::<M>(sk);
                tcp_flow::closed::<M>(state, tp, old, errno, fin);
            }
        }
    }
    let _ = SOCKS.remove(key);
}

/// A connect that never got a local port fails inside its call, whose exit
/// knows the errno: left to it.
#[inline(always)]
fn failed_in_call(sk: Ptr, local_port: u16) -> bool {
    if local_port != 0 {
        return false;
    }
    let Some(call) = CALLS.get_ptr_mut(bpf_get_current_pid_tgid()) else {
        return false;
    };
    // SAFETY: a live map value of this thread.
    unsafe {
        if (*call).sk != sk as u64 {
            return false;
        }
        (*call).flags |= CALL_FAILED_LOCALLY;
    }
    true
}

/// CLOSE -> LISTEN, in the context of the process that listens.
#[inline(always)]
fn listening<M: Mem>(sk: Ptr) {
    let key = listener_key::<M>(sk);
    let listener = match LISTENERS.get_ptr_mut(key) {
        Some(listener) => listener,
        None => {
            if LISTENERS.insert(key, &NO_LISTENER, 0).is_err() {
                return account::unmatched(PROBE_TCP_FLOW);
            }
            let Some(listener) = LISTENERS.get_ptr_mut(key) else {
                return;
            };
            listener
        }
    };
    // SAFETY: a live map value.
    unsafe {
        (*listener).count += 1;
        kernel::fill_current(&raw mut (*listener).owner);
        (*listener).max_backlog = load!(M, sk, sk_max_ack_backlog: u32);
    }
}

#[inline(always)]
fn unlistened<M: Mem>(sk: Ptr) {
    let key = listener_key::<M>(sk);
    let Some(listener) = LISTENERS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a live map value.
    let last = unsafe {
        (*listener).count = (*listener).count.saturating_sub(1);
        (*listener).count == 0
    };
    if last {
        let _ = LISTENERS.remove(key);
    }
}

/// A socket that was open before the agent was: a row with what can be read
/// now. `task` fills in who has it.
#[inline(always)]
pub(super) fn found<M: Mem>(
    sk: Ptr,
    fill_owner: impl FnOnce(*mut SockState),
) -> Option<*mut SockState> {
    let Some(state) = new_state(sk) else {
        account::dropped_map(PROBE_TCP_FLOW);
        return None;
    };
    // SAFETY: a live map value; sk is a TCP socket.
    unsafe {
        (*state).flags = SOCK_FOUND;
        fill_tuple::<M>(&raw mut (*state).tuple, sk);
        nat::resolve(state);
        (*state).sock_cgroup = kernel::sock_cgroup::<M>(sk);
        (*state).netns = kernel::sock_netns::<M>(sk);
        // An accepted socket carries its listener's maximum, a connecting one
        // has none.
        (*state).role = match load!(M, sk, sk_max_ack_backlog: u32, u32::MAX) {
            u32::MAX => ROLE_UNKNOWN,
            0 => ROLE_CLIENT,
            _ => ROLE_SERVER,
        };
        (*state).opened_ns = bpf_ktime_get_ns();
        let tp = M::tcp_sock(sk);
        if !tp.is_null() {
            (*state).copied_seq = load!(M, tp, copied_seq: u32);
            snapshot::<M>(state, tp);
        }
        fill_owner(state);
    }
    Some(state)
}

/// A listener that was there before the agent.
#[inline(always)]
pub(super) fn found_listener<M: Mem>(sk: Ptr, task: Ptr) {
    let key = listener_key::<M>(sk);
    // The same socket shows once per process that has it: first one wins.
    if LISTENERS.get_ptr(key).is_some() || LISTENERS.insert(key, &NO_LISTENER, 0).is_err() {
        return;
    }
    let Some(listener) = LISTENERS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        (*listener).count = 1;
        kernel::fill_task::<M>(&raw mut (*listener).owner, task);
        (*listener).max_backlog = load!(M, sk, sk_max_ack_backlog: u32);
        (*listener).children = u64::from(load!(M, sk, sk_ack_backlog: u32));
        (*listener).told_drops = load!(M, sk, sk_drops: u32);
    }
}

#[inline(always)]
fn set_state<M: Mem, const SECOND: bool>(sk: Ptr, old: u32, new: u32) {
    if !matches!(new, TCP_SYN_SENT | TCP_ESTABLISHED | TCP_CLOSE | TCP_LISTEN)
        || !is_tcp::<M>(sk)
        || (SECOND && is_done(sk, old, new))
    {
        return;
    }
    if new == TCP_SYN_SENT {
        connecting::<M, SECOND>(sk);
    } else if new == TCP_ESTABLISHED {
        established::<M, SECOND>(sk, old);
    } else if new == TCP_LISTEN {
        listening::<M>(sk);
        done::<SECOND>(sk, new);
    } else if old == TCP_LISTEN {
        unlistened::<M>(sk);
        done::<SECOND>(sk, new);
    } else {
        closed::<M>(sk, old);
    }
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sock_state_tp_btf(ctx: BtfTracePointContext) -> i32 {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        &ctx,
        "socket state {} -> {}",
        ctx.arg::<u32>(1),
        ctx.arg::<u32>(2)
    );
    set_state::<Direct, false>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sock_state_second_tp_btf(ctx: BtfTracePointContext) -> i32 {
    set_state::<Direct, true>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn sock_state_raw_tp(ctx: RawTracePointContext) -> i32 {
    set_state::<Probed, false>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn sock_state_second_raw_tp(ctx: RawTracePointContext) -> i32 {
    set_state::<Probed, true>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// The socket of an open file, null for other files: a `struct socket` points
/// back at its file.
#[inline(always)]
pub(super) fn socket_of_file(file: Ptr) -> Ptr {
    let socket = follow!(Probed, file, file_private_data);
    if socket.is_null() || load!(Probed, socket, socket_file: u64) != file as u64 {
        return core::ptr::null();
    }
    follow!(Probed, socket, socket_sk)
}
