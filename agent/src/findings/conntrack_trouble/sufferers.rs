//! Connects and lookups that fared badly of late, which a loss in connection
//! tracking may explain.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::{Evidence, Identity};

use super::super::Seen;

/// Remembered; the oldest goes.
const MAX: usize = 256;
const RECENT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Sufferer {
    pub(super) who: Identity,
    pub(super) evidence: Evidence,
    pub(super) lookup: bool,
    at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Sufferers {
    all: VecDeque<Sufferer>,
}

impl Sufferers {
    /// Keeps those whose packets were not answered at first.
    pub(super) fn take(&mut self, seen: &Seen, now: Instant) {
        let lookup = match &seen.event.kind {
            Some(Kind::DnsLookup(one)) if !one.answered || one.retries > 0 => true,
            Some(Kind::TcpConnect(one))
                if one.syn_retransmits > 0 || one.outcome() == Outcome::TimedOut =>
            {
                false
            }
            _ => return,
        };
        if self.all.len() >= MAX {
            self.all.pop_front();
        }
        self.all.push_back(Sufferer {
            who: seen.event.who.clone().unwrap_or_default(),
            evidence: seen.evidence(),
            lookup,
            at: now,
        });
    }

    /// Those of a namespace; for the host's, whose connection tracking the packets
    /// of all pods pass, all.
    pub(super) fn of(&self, netns: u32, host: bool, now: Instant) -> Vec<&Sufferer> {
        self.all
            .iter()
            .filter(|one| one.at + RECENT > now && (host || one.who.netns == netns))
            .collect()
    }
}
