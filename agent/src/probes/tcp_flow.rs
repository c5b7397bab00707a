//! tcp_flow: one connection, at close or in between.

use culprit_agent_ebpf::wire::{
    Header, KIND_TCP_FLOW, Task,
    tcp::{
        ROLE_CLIENT, ROLE_SERVER, SOCK_ACCEPTED, SOCK_FOUND, SOCK_OPENER, SockState,
        TcpFlow as Record,
    },
};
use culprit_proto::v1::{
    TcpFlow,
    event::Kind,
    tcp_flow::{BytesSource, CloseReason, Role, State},
};

use super::{Clock, tcp_connect::is_unreachable, who};
use crate::pipeline::source::{Draft, Slot};

const EPIPE: u32 = 32;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

// include/net/tcp_states.h
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const TIME_WAIT: u32 = 6;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

pub(super) fn closed(record: &Record, clock: &Clock, call_counts: bool) -> Draft {
    let mut flow = common(&record.sock, record.header.time_ns, clock);
    flow.state = State::Closed as i32;
    flow.close_reason = close_reason(record.old_state, record.errno) as i32;
    flow.errno = record.errno;
    if !call_counts {
        // bytes_received counts a received FIN as one.
        let fin = u64::from(record.fin_received);
        flow.bytes_sent = record.wire_sent;
        flow.bytes_received = record.wire_received.saturating_sub(fin);
        flow.bytes_source = BytesSource::TcpSock as i32;
        (flow.sends, flow.receives) = (0, 0);
    }
    draft(&record.header, &record.sock, flow, clock)
}

/// An interval record, made from the table of sockets.
#[must_use]
pub fn interval(state: &SockState, clock: &Clock, call_counts: bool) -> Draft {
    let header = Header {
        time_ns: clock.monotonic_ns(),
        kind: KIND_TCP_FLOW,
        cpu: 0,
    };
    let mut flow = common(state, header.time_ns, clock);
    flow.state = State::Open as i32;
    flow.close_reason = CloseReason::None as i32;
    if !call_counts {
        flow.bytes_source = BytesSource::Unknown as i32;
    }
    draft(&header, state, flow, clock)
}

fn common(state: &SockState, now_ns: u64, clock: &Clock) -> TcpFlow {
    let (local, remote) = who::endpoints(&state.tuple);
    let found = state.flags & SOCK_FOUND != 0;
    TcpFlow {
        local,
        remote,
        role: match state.role {
            ROLE_CLIENT => Role::Client,
            ROLE_SERVER => Role::Server,
            _ => Role::Unknown,
        } as i32,
        bytes_sent: state.sent_bytes,
        bytes_received: state.received_bytes,
        sends: state.sends,
        receives: state.receives,
        retransmits: state.total_retrans,
        srtt_ns: u64::from(state.srtt_us8) * 1000 / 8,
        min_rtt_ns: if state.min_rtt_us == u32::MAX {
            0
        } else {
            u64::from(state.min_rtt_us) * 1000
        },
        opened_at: if found {
            0
        } else {
            clock.unix_ns(state.opened_ns)
        },
        found_open: found,
        bytes_source: BytesSource::Calls as i32,
        duration_ns: now_ns.saturating_sub(state.opened_ns),
        nat: who::nat(&state.nat) as i32,
        remote_nat: who::remote_nat(&state.nat),
        local_nat: who::local_nat(&state.nat),
        family: who::family(&state.tuple) as i32,
        ..TcpFlow::default()
    }
}

fn draft(header: &Header, state: &SockState, flow: TcpFlow, clock: &Clock) -> Draft {
    let (owner, other) = owners(state);
    let empty = Task::EMPTY;
    let mut actors = vec![(
        Slot::Who,
        who::actor(owner.unwrap_or(&empty), state.sock_cgroup, state.netns),
    )];
    if let Some(user) = other {
        actors.push((Slot::LastUser, who::actor(user, 0, state.netns)));
    }
    Draft {
        opened_ns: state.opened_ns,
        event: super::event(header, clock, Kind::TcpFlow(flow)),
        actors,
    }
}

/// Whose connection it is, and who else used it last. An accepted socket's
/// listener is its owner only until a process has accepted or used it.
fn owners(state: &SockState) -> (Option<&Task>, Option<&Task>) {
    let opener = (state.flags & SOCK_OPENER != 0).then_some(&state.opener);
    let user = (state.last_user.tgid != 0).then_some(&state.last_user);
    match (opener, user) {
        (Some(_), Some(user))
            if state.role == ROLE_SERVER && state.flags & (SOCK_ACCEPTED | SOCK_FOUND) == 0 =>
        {
            (Some(user), None)
        }
        (Some(opener), Some(user)) if user.tgid != opener.tgid => (Some(opener), Some(user)),
        (Some(opener), _) => (Some(opener), None),
        (None, user) => (user, None),
    }
}

/// What the state before the close and the socket's error say.
fn close_reason(old_state: u32, errno: u32) -> CloseReason {
    match (errno, old_state) {
        (ECONNRESET | EPIPE | ECONNREFUSED, _) => CloseReason::ResetReceived,
        (ETIMEDOUT, _) => CloseReason::TimedOut,
        (errno, _) if is_unreachable(errno) => CloseReason::Unreachable,
        // FIN_WAIT: our FIN went first, CLOSING: both at once.
        (_, FIN_WAIT1 | FIN_WAIT2 | TIME_WAIT | CLOSING) => CloseReason::LocalClose,
        (_, LAST_ACK) => CloseReason::RemoteClose,
        // Not seen: known from the address serving another socket.
        (_, 0) => CloseReason::Unknown,
        // Straight from ESTABLISHED, CLOSE_WAIT or SYN_RECV without an error:
        // this side gave up and sent a reset.
        _ => CloseReason::ResetSent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use culprit_agent_ebpf::wire::task::TASK_KNOWN;

    #[test]
    fn close_reasons() {
        for (old, errno, expected) in [
            (5, 0, CloseReason::LocalClose),
            (9, 0, CloseReason::RemoteClose),
            (1, 104, CloseReason::ResetReceived),
            (8, 32, CloseReason::ResetReceived),
            (1, 110, CloseReason::TimedOut),
            (4, 113, CloseReason::Unreachable),
            (1, 0, CloseReason::ResetSent),
            (8, 0, CloseReason::ResetSent),
            (0, 0, CloseReason::Unknown),
        ] {
            assert_eq!(close_reason(old, errno), expected, "{old} {errno}");
        }
    }

    #[test]
    fn a_server_s_user_outranks_its_listener_but_not_its_acceptor() {
        let task = |tgid| Task {
            tgid,
            tid: tgid,
            flags: TASK_KNOWN,
            ..Task::EMPTY
        };
        let mut state = SockState {
            role: ROLE_SERVER,
            flags: SOCK_OPENER,
            ..SockState::EMPTY
        };
        state.opener = task(1);
        assert_eq!(owners(&state).0.map(|t| t.tgid), Some(1));
        state.last_user = task(2);
        let (who, last) = owners(&state);
        assert_eq!((who.map(|t| t.tgid), last.map(|t| t.tgid)), (Some(2), None));
        state.flags |= SOCK_ACCEPTED;
        let (who, last) = owners(&state);
        assert_eq!(
            (who.map(|t| t.tgid), last.map(|t| t.tgid)),
            (Some(1), Some(2))
        );
    }
}
