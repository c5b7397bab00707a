//! tcp_flow: bytes and calls at send and receive, who accepted, and the record
//! at close. Opening and closing come from `sock`.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};
use culprit_agent_ebpf::wire::{
    KIND_TCP_FLOW,
    stats::PROBE_TCP_FLOW,
    tcp::{
        Call, SOCK_ACCEPTED, SOCK_ESTABLISHED, SOCK_FOUND, SOCK_LATE, SOCK_OPENER, SockState,
        TcpFlow,
    },
};

use super::sock::{
    self, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV,
};
use super::{tcp_listen, walk};
use crate::{
    account::{self, Wake, add, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, load},
    maps::{CALLS, HOST_NETNS, RING_BULK, SOCKS},
};

/// A connection has closed.
///
/// # Safety
/// `state` is a live map value, `tp` a `struct tcp_sock *` or null.
#[inline(always)]
pub(super) unsafe fn closed<M: Mem>(
    state: *mut SockState,
    tp: Ptr,
    old_state: u32,
    errno: u32,
    fin_received: bool,
) {
    let (mut wire_sent, mut wire_received) = (0, 0);
    if !tp.is_null() {
        wire_sent = load!(M, tp, bytes_sent: u64).wrapping_sub(load!(M, tp, bytes_retrans: u64));
        wire_received = load!(M, tp, bytes_received: u64);
        // SAFETY: the caller's promise.
        unsafe {
            sock::snapshot::<M>(state, tp);
            count_rest::<M>(state, tp, old_state, fin_received);
        }
    }
    emit(
        &RING_BULK,
        PROBE_TCP_FLOW,
        KIND_TCP_FLOW,
        Wake::Batched,
        |out: *mut TcpFlow| {
            // SAFETY: record and state are valid and aligned to 8.
            unsafe {
                let to = (&raw mut (*out).sock).cast::<[u64; size_of::<SockState>() / 8]>();
                to.write(state.cast::<[u64; size_of::<SockState>() / 8]>().read());
                (*out).wire_sent = wire_sent;
                (*out).wire_received = wire_received;
                (*out).old_state = old_state;
                (*out).errno = errno;
                (*out).fin_received = u32::from(fin_received);
                (*out).pad = 0;
            }
        },
    );
}

/// A call that is still under way when its connection is reset returns after
/// the close: what it moved is known from the sequence numbers.
///
/// # Safety
/// `state` is a live map value, `tp` a `struct tcp_sock *`.
#[inline(always)]
unsafe fn count_rest<M: Mem>(state: *mut SockState, tp: Ptr, old_state: u32, fin_received: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        // Without a row from the start there is no number to begin at.
        if (*state).flags & (SOCK_FOUND | SOCK_LATE) != 0 {
            return;
        }
        // A FIN takes a number: ours from the first state after it, the peer's
        // when it was read.
        let fin_sent = matches!(old_state, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING);
        let written = load!(M, tp, write_seq: u32)
            .wrapping_sub((*state).first_write_seq)
            .wrapping_sub(u32::from(fin_sent));
        (*state).sent_bytes = at_least((*state).sent_bytes, written);
        let copied = load!(M, tp, copied_seq: u32);
        let fin_read = fin_received && copied == load!(M, tp, rcv_nxt: u32);
        let read = copied
            .wrapping_sub((*state).first_copied_seq)
            .wrapping_sub(u32::from(fin_read));
        (*state).received_bytes = at_least((*state).received_bytes, read);
    }
}

/// The count, or what its low 32 bits lack to `low`: at most one call's worth.
#[inline(always)]
fn at_least(count: u64, low: u32) -> u64 {
    let lacking = low.wrapping_sub(count as u32);
    if lacking < 1 << 30 {
        count + u64::from(lacking)
    } else {
        count
    }
}

/// The row of a socket in use; one that was open before the agent, and that
/// the start-up scan missed, gets its row now.
#[inline(always)]
fn row<M: Mem>(sk: Ptr) -> Option<*mut SockState> {
    let key = sk as u64;
    if let Some(state) = SOCKS.get_ptr_mut(key) {
        return Some(state);
    }
    if !sock::is_tcp::<M>(sk) {
        return None;
    }
    let state = u32::from(load!(M, sk, skc_state: u8));
    if state == TCP_CLOSE || state == TCP_LISTEN {
        return None;
    }
    sock::found::<M>(sk, |_| {})
}

/// Remembers who uses the socket; process context only.
#[inline(always)]
unsafe fn used(state: *mut SockState) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: a live map value.
    unsafe {
        (*state).active_ns = bpf_ktime_get_ns();
        if (*state).last_user.tgid == tgid
            || ((*state).last_user.tgid == 0 && (*state).opener.tgid == tgid)
        {
            return;
        }
        kernel::fill_current(&raw mut (*state).last_user);
    }
}

#[inline(always)]
fn sent<M: Mem>(sk: Ptr, bytes: i64) {
    if bytes <= 0 {
        return;
    }
    let Some(state) = row::<M>(sk) else { return };
    // SAFETY: a live map value. Senders may run on several CPUs at once.
    unsafe {
        add(&raw mut (*state).sent_bytes, bytes as u64);
        add(&raw mut (*state).sends, 1);
        used(state);
    }
}

#[inline(always)]
fn received<M: Mem>(sk: Ptr, bytes: i64) {
    if bytes <= 0 {
        return;
    }
    let Some(state) = row::<M>(sk) else { return };
    // SAFETY: a live map value.
    unsafe {
        add(&raw mut (*state).received_bytes, bytes as u64);
        add(&raw mut (*state).receives, 1);
        used(state);
    }
}

/// `tcp_cleanup_rbuf(sk, copied)`: `copied` is what this call has copied so
/// far, peeked bytes included, and the function may run several times in one
/// call. `copied_seq` under the socket lock says what was really taken.
#[inline(always)]
fn cleanup<M: Mem>(sk: Ptr, copied: i32) {
    if copied <= 0 {
        return;
    }
    let Some(state) = row::<M>(sk) else { return };
    // SAFETY: a live map value, the socket is locked; sk is a TCP socket.
    unsafe {
        let tp = M::tcp_sock(sk);
        if tp.is_null() {
            return;
        }
        let seq = load!(M, tp, copied_seq: u32);
        let mut taken = seq.wrapping_sub((*state).copied_seq);
        (*state).copied_seq = seq;
        // A FIN that was read takes a sequence number but is no byte.
        if taken != 0 && seq == load!(M, tp, rcv_nxt: u32) && sock::fin_received::<M>(sk) {
            taken -= 1;
        }
        if taken == 0 || taken > copied as u32 {
            // Nothing but a peek; or the row was made during this very call.
            if taken == 0 {
                return;
            }
            taken = copied as u32;
        }
        add(&raw mut (*state).received_bytes, u64::from(taken));
        add(&raw mut (*state).receives, 1);
        used(state);
    }
}

/// A process took the connection from its listener's queue.
#[inline(always)]
fn accepted<M: Mem>(sk: Ptr) {
    if sk.is_null() {
        return;
    }
    let Some(state) = row::<M>(sk) else { return };
    // SAFETY: a live map value.
    unsafe {
        tcp_listen::accepted(state);
        kernel::fill_current(&raw mut (*state).opener);
        (*state).flags |= SOCK_OPENER | SOCK_ACCEPTED;
    }
}

#[fexit(function = "tcp_sendmsg")]
pub fn send_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(3);
    sent::<Direct>(ctx.arg(0), i64::from(ret));
    0
}

/// Up to 6.4 sendfile and splice go this way.
#[fexit(function = "tcp_sendpage")]
pub fn sendpage_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(5);
    sent::<Direct>(ctx.arg(0), i64::from(ret));
    0
}

#[fentry(function = "tcp_cleanup_rbuf")]
pub fn cleanup_fentry(ctx: FEntryContext) -> i32 {
    cleanup::<Direct>(ctx.arg(0), ctx.arg(1));
    0
}

/// `inet_csk_accept(sk, flags, err, kern)`, up to 6.9.
#[fexit(function = "inet_csk_accept")]
pub fn accept4_fexit(ctx: FExitContext) -> i32 {
    accepted::<Direct>(ctx.arg(4));
    0
}

/// `inet_csk_accept(sk, arg)`, from 6.10 on.
#[fexit(function = "inet_csk_accept")]
pub fn accept2_fexit(ctx: FExitContext) -> i32 {
    accepted::<Direct>(ctx.arg(2));
    0
}

/// Entry of tcp_sendmsg and tcp_sendpage: remembers the socket for the exit.
#[kprobe]
pub fn send_kprobe(ctx: ProbeContext) -> u32 {
    let Some(sk) = ctx.arg::<u64>(0) else {
        return 0;
    };
    let call = Call {
        sk,
        addr: 0,
        fd: 0,
        flags: 0,
    };
    if CALLS.insert(bpf_get_current_pid_tgid(), &call, 0).is_err() {
        account::unmatched(PROBE_TCP_FLOW);
    }
    0
}

#[kretprobe]
pub fn send_kretprobe(ctx: RetProbeContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr(id) else {
        account::unmatched(PROBE_TCP_FLOW);
        return 0;
    };
    // SAFETY: a live map value of this thread.
    let sk = unsafe { (*call).sk } as Ptr;
    let _ = CALLS.remove(id);
    sent::<Probed>(sk, i64::from(ctx.ret::<i32>()));
    0
}

#[kprobe]
pub fn cleanup_kprobe(ctx: ProbeContext) -> u32 {
    let (Some(sk), Some(copied)) = (ctx.arg::<Ptr>(0), ctx.arg::<i32>(1)) else {
        return 0;
    };
    cleanup::<Probed>(sk, copied);
    0
}

#[kretprobe]
pub fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    accepted::<Probed>(ctx.ret());
    0
}

#[btf_tracepoint(function = "sock_send_length")]
pub fn send_length_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    sent::<Direct>(ctx.arg(0), i64::from(ret));
    0
}

/// MSG_PEEK reads without taking.
const MSG_PEEK: i32 = 2;

#[btf_tracepoint(function = "sock_recv_length")]
pub fn recv_length_tp_btf(ctx: BtfTracePointContext) -> i32 {
    let (ret, flags): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if flags & MSG_PEEK == 0 {
        received::<Direct>(ctx.arg(0), i64::from(ret));
    }
    0
}

#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn send_length_raw_tp(ctx: RawTracePointContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    sent::<Probed>(ctx.arg(0), i64::from(ret));
    0
}

#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn recv_length_raw_tp(ctx: RawTracePointContext) -> i32 {
    let (ret, flags): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if flags & MSG_PEEK == 0 {
        received::<Probed>(ctx.arg(0), i64::from(ret));
    }
    0
}

/// Puts the sockets that are there at start into the table.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn seed_sockets(ctx: *const Ptr) -> i32 {
    walk::step::<Seed>(ctx)
}

struct Seed;

impl walk::Walk for Seed {
    #[inline(always)]
    fn task<M: Mem>(task: Ptr) {
        if load!(M, task, task_tgid: u32) == 1 {
            let _ = HOST_NETNS.set(0, kernel::task_netns::<M>(task), 0);
        }
    }

    #[inline(always)]
    fn socket<M: Mem>(sk: Ptr, task: Ptr) {
        if !sock::is_tcp::<M>(sk) {
            return;
        }
        let tcp_state = u32::from(load!(M, sk, skc_state: u8));
        if tcp_state == TCP_LISTEN {
            return sock::found_listener::<M>(sk, task);
        }
        if tcp_state == TCP_CLOSE || tcp_state == TCP_SYN_RECV || SOCKS.get_ptr(sk as u64).is_some()
        {
            return;
        }
        let row = sock::found::<M>(sk, |state| {
            // SAFETY: a live map value.
            unsafe {
                kernel::fill_task::<M>(&raw mut (*state).opener, task);
                (*state).flags |= SOCK_OPENER;
                (*state).active_ns = bpf_ktime_get_ns();
                if tcp_state != sock::TCP_SYN_SENT {
                    (*state).flags |= SOCK_ESTABLISHED;
                }
            }
        });
        if row.is_none() {
            sock::untracked(kernel::memory_cgroup_of::<M>(task));
        }
    }
}
