//! DNS questions that nobody has answered yet.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::dns::{DnsKey, DnsNow};
use culprit_proto::v1::DnsLookup;

use super::{KernelError, object::take};
use crate::{
    identity::Actor,
    probes::{Clock, dns},
};

/// The table of questions.
#[derive(Debug)]
pub struct Questions {
    map: HashMap<MapData, DnsKey, DnsNow>,
    clock: Clock,
}

impl Questions {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, "DNS_NOW")?,
            clock: Clock::now(),
        })
    }

    /// Takes out the questions that have waited for so long, nanoseconds, with
    /// who asked.
    pub fn take_older(&mut self, age_ns: u64) -> Vec<(DnsLookup, Actor)> {
        let now = self.clock.monotonic_ns();
        let old: Vec<(DnsKey, DnsNow)> = self
            .map
            .iter()
            .flatten()
            .filter(|(_, row)| now.saturating_sub(row.asked_ns) >= age_ns)
            .collect();
        old.iter()
            // An answer may have come meanwhile, and has been told.
            .filter(|(key, _)| self.map.remove(key).is_ok())
            .map(|(key, row)| dns::unanswered(key, row, now))
            .collect()
    }
}
