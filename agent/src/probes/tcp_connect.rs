//! tcp_connect: the outcome of a client's attempt.

use culprit_agent_ebpf::wire::tcp as wire;
use culprit_proto::v1::{TcpConnect, event::Kind, tcp_connect::Outcome};

use super::{Clock, who};
use crate::pipeline::source::{Draft, Slot};

/// TCP_ESTABLISHED, include/net/tcp_states.h.
const ESTABLISHED: u32 = 1;

// asm-generic/errno.h, the same on every architecture Linux runs BPF on but
// MIPS and PA-RISC.
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
/// ENETDOWN 100, ENETUNREACH 101, EHOSTDOWN 112, EHOSTUNREACH 113.
pub(super) fn is_unreachable(errno: u32) -> bool {
    matches!(errno, 100 | 101 | 112 | 113)
}

pub(super) fn event(record: &wire::TcpConnect, clock: &Clock) -> Draft {
    let (local, remote) = who::endpoints(&record.tuple);
    let kind = TcpConnect {
        local,
        remote,
        outcome: outcome(record.new_state, record.errno) as i32,
        errno: if record.new_state == ESTABLISHED {
            0
        } else {
            record.errno
        },
        latency_ns: record.latency_ns,
        syn_retransmits: record.syn_retransmits,
        nat: who::nat(&record.nat) as i32,
        remote_nat: who::remote_nat(&record.nat),
        local_nat: who::local_nat(&record.nat),
        family: who::family(&record.tuple) as i32,
        // Filled in with the identities.
        remote_name: String::new(),
    };
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::TcpConnect(kind)),
        actors: vec![(
            Slot::Who,
            who::actor(&record.task, record.sock_cgroup, record.netns),
        )],
    }
}

/// What the state after and the socket's error say.
fn outcome(new_state: u32, errno: u32) -> Outcome {
    match (new_state, errno) {
        (ESTABLISHED, _) => Outcome::Established,
        (_, ECONNREFUSED) => Outcome::Refused,
        (_, ECONNRESET) => Outcome::Reset,
        (_, ETIMEDOUT) => Outcome::TimedOut,
        (_, errno) if is_unreachable(errno) => Outcome::Unreachable,
        // No error on the socket: closed by its owner while connecting; any
        // other: a failure on this side.
        _ => Outcome::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        for (state, errno, expected) in [
            (1, 0, Outcome::Established),
            (7, 111, Outcome::Refused),
            (7, 110, Outcome::TimedOut),
            (7, 104, Outcome::Reset),
            (7, 113, Outcome::Unreachable),
            (0, 101, Outcome::Unreachable),
            (7, 0, Outcome::Aborted),
            (0, 99, Outcome::Aborted),
        ] {
            assert_eq!(outcome(state, errno), expected, "{state} {errno}");
        }
    }
}
