//! dns: a lookup that is slow, failed, was repeated or had no answer.

use culprit_agent_ebpf::wire::dns as wire;
use culprit_proto::v1::{DnsLookup, dns_lookup::Transport, event::Kind};

use super::{Clock, who};
use crate::pipeline::source::{Draft, Slot};

/// Longest name that a query may have, RFC 1035.
const MAX_NAME: usize = 255;

/// Name and type of a question, as far as it was kept.
fn question(bytes: &[u8]) -> (String, u32, bool) {
    let mut name = String::new();
    let mut at = 0;
    while let Some(length) = bytes.get(at).map(|b| usize::from(*b)) {
        if length == 0 {
            let kind = bytes
                .get(at + 1..at + 3)
                .map_or(0, |b| u32::from(u16::from_be_bytes([b[0], b[1]])));
            return (name, kind, false);
        }
        // A pointer has no place in a question.
        if length > 63 || name.len() + length > MAX_NAME {
            return (name, 0, true);
        }
        let end = (at + 1 + length).min(bytes.len());
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(&bytes[at + 1..end]));
        at += 1 + length;
    }
    (name, 0, true)
}

fn asked(name: &wire::DnsName) -> (String, u32, bool) {
    let bytes = usize::from(name.question_bytes).min(wire::QUESTION);
    question(&name.question[..bytes])
}

/// The name alone; cut ones end in an ellipsis.
pub(crate) fn name(name: &wire::DnsName) -> String {
    match asked(name) {
        (name, _, true) if !name.is_empty() => name + "…",
        (name, ..) => name,
    }
}

fn lookup(now: &wire::DnsNow, protocol: u8) -> DnsLookup {
    let (name, query_type, cut) = asked(&now.name);
    let transport = if protocol == 6 {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    DnsLookup {
        server: Some(who::endpoint(&now.server, now.family, 53)),
        transport: transport as i32,
        name,
        name_cut: cut,
        query_type,
        retries: now.retries,
        ..DnsLookup::default()
    }
}

pub(super) fn event(record: &wire::DnsAnswer, clock: &Clock) -> Draft {
    let now = &record.now;
    let kind = DnsLookup {
        client: Some(who::endpoint(&record.client, now.family, record.port)),
        id: u32::from(record.id),
        answered: true,
        rcode: u32::from(record.rcode),
        latency_ns: record.latency_ns,
        ..lookup(now, record.protocol)
    };
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::DnsLookup(kind)),
        actors: vec![(Slot::Who, who::actor(&now.task, 0, now.netns))],
    }
}

/// A question that nobody has answered, from the table of questions; as of
/// `monotonic_ns`.
pub(crate) fn unanswered(
    key: &wire::DnsKey,
    now: &wire::DnsNow,
    monotonic_ns: u64,
) -> (DnsLookup, crate::identity::Actor) {
    let kind = DnsLookup {
        client: Some(who::endpoint(&key.client, now.family, key.port)),
        id: u32::from(u16::from_be(key.id)),
        latency_ns: monotonic_ns.saturating_sub(now.asked_ns),
        ..lookup(now, key.protocol)
    };
    (kind, who::actor(&now.task, 0, now.netns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_with_its_type() {
        let bytes = b"\x03www\x07example\x00\x00\x1c\x00\x01";
        assert_eq!(question(bytes), ("www.example".to_owned(), 28, false));
    }

    #[test]
    fn hostile_questions_are_cut() {
        assert_eq!(question(b""), (String::new(), 0, true));
        assert_eq!(question(b"\xc0\x0c"), (String::new(), 0, true));
        assert_eq!(question(b"\x3fab"), ("ab".to_owned(), 0, true));
        let long = [b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(9);
        let (name, _, cut) = question(&long);
        assert!(cut && name.len() <= MAX_NAME);
    }
}
