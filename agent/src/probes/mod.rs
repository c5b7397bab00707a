//! From wire records to events: one file per probe, mirroring
//! `agent-ebpf/src/probes`. Pure functions; identities are filled in later.

mod cgroup;
pub mod cgroup_read;
mod clock;
pub(crate) mod dns;
pub mod holder;
mod icmp_echo;
mod oom;
pub mod sigterm;
pub mod skb_drop;
mod softirq;
pub mod syn_retransmit;
pub mod tcp_connect;
pub mod tcp_flow;
mod tcp_listen;
pub(crate) mod who;

use culprit_agent_ebpf::wire::{self, Header};
use culprit_proto::v1::{Event, event::Kind};
use zerocopy::FromBytes;

pub use clock::Clock;

use crate::pipeline::source::{BadRecord, Note, Observation};

/// Turns ring records into events.
#[derive(Clone, Debug)]
pub struct Decoder {
    clock: Clock,
    call_counts: bool,
}

impl Decoder {
    /// `call_counts`: send and receive are counted at hooks, so a flow's bytes
    /// are the application's.
    #[must_use]
    pub fn new(call_counts: bool) -> Self {
        Self {
            clock: Clock::now(),
            call_counts,
        }
    }

    /// The clock that times are told by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sees whether the wall clock was set; cheap enough for every batch.
    pub fn refresh(&mut self) {
        self.clock.refresh();
    }

    /// Reads one record.
    ///
    /// # Errors
    /// When its kind is unknown or its length is not its kind's.
    pub fn decode(&self, record: &[u8]) -> Result<Observation, BadRecord> {
        let (header, _) = Header::read_from_prefix(record).map_err(|_| BadRecord {
            probe: "agent",
            what: format!("{} bytes, shorter than a header", record.len()),
        })?;
        let clock = &self.clock;
        let draft = match header.kind {
            wire::KIND_TCP_CONNECT => tcp_connect::event(&read(record, "tcp_connect")?, clock),
            wire::KIND_TCP_FLOW => {
                tcp_flow::closed(&read(record, "tcp_flow")?, clock, self.call_counts)
            }
            wire::KIND_ICMP_ECHO => icmp_echo::event(&read(record, "icmp_echo")?, clock),
            wire::KIND_SOFTIRQ_STALL => softirq::event(&read(record, "softirq")?, clock),
            wire::KIND_OOM_KILL => oom::event(&read(record, "oom")?, clock),
            wire::KIND_CGROUP => {
                return Ok(Observation::Cgroup(cgroup::change(&read(
                    record, "cgroup",
                )?)));
            }
            wire::KIND_TCP_LISTEN => tcp_listen::event(&read(record, "tcp_listen")?, clock),
            wire::KIND_SKB_DROP => {
                let drop = skb_drop::note(&read(record, "skb_drop")?);
                return Ok(Observation::Note(Box::new(Note::SkbDrop(drop))));
            }
            wire::KIND_SYN_RETRANSMIT => {
                let note = syn_retransmit::note(&read(record, "syn_retransmit")?);
                return Ok(Observation::Note(Box::new(Note::SynRetransmit(note))));
            }
            wire::KIND_SIGTERM => {
                let note = sigterm::note(&read(record, "sigterm")?, clock);
                return Ok(Observation::Note(Box::new(Note::Sigterm(note))));
            }
            wire::KIND_HOLDER => {
                let sample = holder::note(&read(record, "holder")?, clock);
                return Ok(Observation::Note(Box::new(Note::Holder(sample))));
            }
            wire::KIND_CGROUP_READ => {
                let read = cgroup_read::note(&read(record, "cgroup_read")?, clock);
                return Ok(Observation::Note(Box::new(Note::CgroupRead(read))));
            }
            wire::KIND_DNS => dns::event(&read(record, "dns")?, clock),
            kind => {
                return Err(BadRecord {
                    probe: "agent",
                    what: format!("unknown kind {kind}, {} bytes", record.len()),
                });
            }
        };
        Ok(Observation::Draft(Box::new(draft)))
    }
}

/// Entry for the fuzzer: must not panic.
pub fn fuzz(data: &[u8]) {
    let _ = Decoder::new(data.first().is_some_and(|b| b & 1 == 1)).decode(data);
}

/// A record of exactly its kind's length. The ring rounds lengths to 8 but
/// says the true one.
fn read<T: FromBytes>(record: &[u8], probe: &'static str) -> Result<T, BadRecord> {
    T::read_from_bytes(record).map_err(|_| BadRecord {
        probe,
        what: format!("{} bytes instead of {}", record.len(), size_of::<T>()),
    })
}

/// An event without identities.
fn event(header: &Header, clock: &Clock, kind: Kind) -> Event {
    Event {
        time: clock.unix_ns(header.time_ns),
        cpu: header.cpu,
        kind: Some(kind),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use culprit_agent_ebpf::wire::{icmp_echo::IcmpEcho, tcp::TcpConnect};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    #[test]
    fn every_kind_is_read_at_its_length_and_refused_at_any_other() {
        let decoder = Decoder::new(true);
        let mut record = TcpConnect::new_zeroed();
        record.header.kind = wire::KIND_TCP_CONNECT;
        let bytes = record.as_bytes();
        assert!(matches!(decoder.decode(bytes), Ok(Observation::Draft(_))));
        for length in 0..bytes.len() {
            assert!(decoder.decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        let error = decoder.decode(&longer).unwrap_err();
        assert_eq!(error.probe, "tcp_connect");
        assert!(
            error.what.contains("185 bytes instead of 184"),
            "{}",
            error.what
        );
    }

    #[test]
    fn an_unknown_kind_says_which() {
        let mut record = IcmpEcho::new_zeroed();
        record.header.kind = 4711;
        let error = Decoder::new(true).decode(record.as_bytes()).unwrap_err();
        assert!(error.what.contains("4711"), "{}", error.what);
    }
}
