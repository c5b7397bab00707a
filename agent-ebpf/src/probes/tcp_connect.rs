//! tcp_connect: outcomes of client attempts. The outcome comes from the state
//! changes in `sock`; the flavours here add the failures that happen before
//! the SYN, which no state change shows.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user},
    macros::{fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use culprit_agent_ebpf::wire::{
    KIND_TCP_CONNECT,
    config::HAVE_PROBE_READ,
    nat::Nat,
    stats::PROBE_TCP_CONNECT,
    tcp::{CALL_FAILED_LOCALLY, CALL_SYN, Call, SockState, TcpConnect, Tuple},
};

use super::sock::{self, AF_INET, AF_INET6};
use crate::{
    account::{self, Wake, emit},
    kernel::{self, Direct, Mem, Probed, Ptr, follow, have, load},
    maps::{CALLS, RING_SIGNAL},
};

/// A connect has an outcome: new state ESTABLISHED or CLOSE.
///
/// # Safety
/// `state` is a live map value.
#[inline(always)]
pub(super) unsafe fn outcome(state: *mut SockState, new_state: u32, errno: u32) {
    emit(
        &RING_SIGNAL,
        PROBE_TCP_CONNECT,
        KIND_TCP_CONNECT,
        Wake::Batched,
        |out: *mut TcpConnect| {
            // SAFETY: the record and the state are valid.
            unsafe {
                kernel::copy_task(&raw mut (*out).task, &raw const (*state).opener);
                copy_tuple(&raw mut (*out).tuple, &raw const (*state).tuple);
                // A connect that began before the agent has no start to count from.
                (*out).latency_ns = match (*state).syn_ns {
                    0 => 0,
                    syn => bpf_ktime_get_ns().wrapping_sub(syn),
                };
                (*out).sock_cgroup = (*state).sock_cgroup;
                (*out).new_state = new_state;
                (*out).errno = errno;
                (*out).syn_retransmits = (*state).total_retrans;
                (*out).netns = (*state).netns;
                (*out).nat = (*state).nat;
            }
        },
    );
}

/// Copies both ends between map values and records.
///
/// # Safety
/// Both are valid.
pub(super) unsafe fn copy_tuple(out: *mut Tuple, from: *const Tuple) {
    // SAFETY: both valid, 5 words.
    unsafe {
        let (out, from) = (out.cast::<u64>(), from.cast::<u64>());
        out.write(from.read());
        out.add(1).write(from.add(1).read());
        out.add(2).write(from.add(2).read());
        out.add(3).write(from.add(3).read());
        out.add(4).write(from.add(4).read());
    }
}

#[inline(always)]
fn enter(sk: Ptr, addr: u64, fd: u32) {
    let call = Call {
        sk: sk as u64,
        addr,
        fd,
        flags: 0,
    };
    if CALLS.insert(bpf_get_current_pid_tgid(), &call, 0).is_err() {
        account::unmatched(PROBE_TCP_CONNECT);
    }
}

/// Ends the call under way in this thread. Some when it failed on this side,
/// with no outcome from a state change.
#[inline(always)]
fn leave(ret: i64) -> Option<Call> {
    let id = bpf_get_current_pid_tgid();
    let call = CALLS.get_ptr(id)?;
    // SAFETY: a live map value of this thread.
    let call = unsafe { *call };
    let _ = CALLS.remove(id);
    // Not failures: under way (EINPROGRESS, EALREADY, EINTR and the restart
    // codes), done already (EISCONN), or cut short by the caller's timeout.
    let pending = matches!(ret, -115 | -114 | -106 | -4 | -11) || (-516..=-512).contains(&ret);
    // ECONNRESET, ETIMEDOUT, ECONNREFUSED answer a SYN: a state change told.
    let answered = matches!(ret, -104 | -110 | -111);
    if ret >= 0
        || pending
        || answered
        || (call.flags & CALL_SYN != 0 && call.flags & CALL_FAILED_LOCALLY == 0)
    {
        return None;
    }
    Some(call)
}

/// A record for an attempt that failed before its SYN.
#[inline(always)]
fn failed_early<M: Mem>(sk: Ptr, errno: u32, remote: impl FnOnce(*mut Tuple)) {
    emit(
        &RING_SIGNAL,
        PROBE_TCP_CONNECT,
        KIND_TCP_CONNECT,
        Wake::Batched,
        |out: *mut TcpConnect| {
            // SAFETY: the record is valid; sk is a TCP socket.
            unsafe {
                kernel::fill_current(&raw mut (*out).task);
                sock::fill_tuple::<M>(&raw mut (*out).tuple, sk);
                remote(&raw mut (*out).tuple);
                (*out).latency_ns = 0;
                (*out).sock_cgroup = kernel::sock_cgroup::<M>(sk);
                (*out).new_state = 0;
                (*out).errno = errno;
                (*out).syn_retransmits = 0;
                (*out).netns = kernel::sock_netns::<M>(sk);
                (*out).nat = Nat::EMPTY;
            }
        },
    );
}

/// Port and address of an IPv4 sockaddr: within `struct sockaddr`, so plain
/// loads do.
///
/// # Safety
/// `out` is valid, `addr` a `struct sockaddr *` of `M`'s kind.
#[inline(always)]
unsafe fn remote_v4<M: Mem>(out: *mut Tuple, addr: Ptr) {
    // SAFETY: sockaddr_in: port at 2, address at 4.
    unsafe {
        (*out).remote_port = u16::from_be(M::load::<u16>(addr, 2));
        let words = (&raw mut (*out).remote).cast::<u64>();
        words.write(u64::from(M::load::<u32>(addr, 4)));
        words.add(1).write(0);
    }
}

/// Port of an IPv6 sockaddr; the address is `sk_v6_daddr`, set before the route
/// is looked up.
///
/// # Safety
/// As for [`remote_v4`].
#[inline(always)]
unsafe fn remote_v6<M: Mem>(out: *mut Tuple, addr: Ptr) {
    // SAFETY: sockaddr_in6: port at 2.
    unsafe { (*out).remote_port = u16::from_be(M::load::<u16>(addr, 2)) };
}

#[fentry(function = "tcp_v4_connect")]
pub fn connect_v4_fentry(ctx: FEntryContext) -> i32 {
    enter(ctx.arg(0), 0, 0);
    0
}

#[fexit(function = "tcp_v4_connect")]
pub fn connect_v4_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(3);
    if leave(i64::from(ret)).is_some() {
        let addr: Ptr = ctx.arg(1);
        failed_early::<Direct>(ctx.arg(0), ret.unsigned_abs(), |out| {
            // SAFETY: the function's own argument.
            unsafe { remote_v4::<Direct>(out, addr) }
        });
    }
    0
}

#[fentry(function = "tcp_v6_connect")]
pub fn connect_v6_fentry(ctx: FEntryContext) -> i32 {
    enter(ctx.arg(0), 0, 0);
    0
}

#[fexit(function = "tcp_v6_connect")]
pub fn connect_v6_fexit(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(3);
    if leave(i64::from(ret)).is_some() {
        let addr: Ptr = ctx.arg(1);
        failed_early::<Direct>(ctx.arg(0), ret.unsigned_abs(), |out| {
            // SAFETY: the function's own argument.
            unsafe { remote_v6::<Direct>(out, addr) }
        });
    }
    0
}

#[kprobe]
pub fn connect_kprobe(ctx: ProbeContext) -> u32 {
    let (Some(sk), Some(addr)) = (ctx.arg::<Ptr>(0), ctx.arg::<u64>(1)) else {
        return 0;
    };
    enter(sk, addr, 0);
    0
}

#[kretprobe]
pub fn connect_v4_kretprobe(ctx: RetProbeContext) -> u32 {
    let ret: i32 = ctx.ret();
    if let Some(call) = leave(i64::from(ret)) {
        failed_early::<Probed>(call.sk as Ptr, ret.unsigned_abs(), |out| {
            // SAFETY: the function's own argument.
            unsafe { remote_v4::<Probed>(out, call.addr as Ptr) }
        });
    }
    0
}

#[kretprobe]
pub fn connect_v6_kretprobe(ctx: RetProbeContext) -> u32 {
    let ret: i32 = ctx.ret();
    if let Some(call) = leave(i64::from(ret)) {
        failed_early::<Probed>(call.sk as Ptr, ret.unsigned_abs(), |out| {
            // SAFETY: the function's own argument.
            unsafe { remote_v6::<Probed>(out, call.addr as Ptr) }
        });
    }
    0
}

/// `syscalls:sys_enter_connect`: fd at 16, sockaddr at 24.
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn connect_sys_enter(ctx: TracePointContext) -> u32 {
    // SAFETY: the format of every syscalls tracepoint: 16 bytes of header and
    // number, then the arguments as longs.
    let (fd, addr) = unsafe {
        let args = ctx.as_ptr().cast::<u64>();
        (args.add(2).read() as u32, args.add(3).read())
    };
    enter(core::ptr::null(), addr, fd);
    0
}

/// `syscalls:sys_exit_connect`: return value at 16.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn connect_sys_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: the format of every syscalls exit tracepoint.
    let ret = unsafe { ctx.as_ptr().cast::<i64>().add(2).read() };
    let Some(call) = leave(ret) else { return 0 };
    if !have(HAVE_PROBE_READ) {
        return 0;
    }
    let sk = sock_of_fd(call.fd);
    if sk.is_null() || !sock::is_tcp::<Probed>(sk) {
        return 0;
    }
    let user = call.addr as *const u8;
    failed_early::<Probed>(sk, ret.unsigned_abs() as u32, |out| {
        // SAFETY: the helper copes with any user address; the record is valid.
        unsafe {
            let family = bpf_probe_read_user(user.cast::<u16>()).unwrap_or_default();
            let port = bpf_probe_read_user(user.add(2).cast::<u16>()).unwrap_or_default();
            (*out).remote_port = u16::from_be(port);
            let words = (&raw mut (*out).remote).cast::<u64>();
            if family == AF_INET {
                let addr = bpf_probe_read_user(user.add(4).cast::<u32>()).unwrap_or_default();
                words.write(u64::from(addr));
                words.add(1).write(0);
            } else if family == AF_INET6 {
                words.write(bpf_probe_read_user(user.add(8).cast::<u64>()).unwrap_or_default());
                words
                    .add(1)
                    .write(bpf_probe_read_user(user.add(16).cast::<u64>()).unwrap_or_default());
            }
            (*out).family = family;
        }
    });
    0
}

/// The socket behind a file descriptor of the running task, null if none.
#[inline(always)]
fn sock_of_fd(fd: u32) -> Ptr {
    // SAFETY: no argument.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() } as Ptr;
    let table = follow!(Probed, task, task_files, files_fdt, fdt_fd);
    // SAFETY: the helper copes with any address.
    let file = unsafe { Probed::load::<Ptr>(table, fd.wrapping_mul(8)) };
    sock::socket_of_file(file)
}
