//! tcp_listen: a listener under pressure.

use culprit_agent_ebpf::wire::tcp as wire;
use culprit_proto::v1::{Histogram, TcpListen, event::Kind, tcp_listen::Why};

use super::{Clock, who};
use crate::pipeline::source::{Draft, Slot};

pub(super) fn event(record: &wire::TcpListen, clock: &Clock) -> Draft {
    let row = &record.listener;
    let kind = TcpListen {
        local: Some(who::endpoint(
            &record.address,
            record.family,
            record.key.port,
        )),
        backlog: record.backlog,
        max_backlog: row.max_backlog,
        drops: record.drops,
        why: why(record.why) as i32,
        oldest_wait_ns: record.oldest_wait_ns,
        syn_overflows: row.syn_overflows,
        ack_overflows: row.ack_overflows,
        queued: row.children,
        accept_wait: (row.accepts > 0).then(|| Histogram {
            buckets: row.accept_buckets.iter().map(|n| u64::from(*n)).collect(),
            count: row.accepts,
            total_ns: row.accept_total_ns,
            max_ns: row.accept_max_ns,
        }),
        sockets: row.count,
        new_drops: row.told_drops.saturating_sub(row.drops_before),
    };
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::TcpListen(kind)),
        actors: vec![(Slot::Who, who::actor(&row.owner, 0, record.key.netns))],
    }
}

fn why(why: u16) -> Why {
    match why {
        wire::LISTEN_FILLED => Why::Filled,
        wire::LISTEN_SYN => Why::SynDropped,
        wire::LISTEN_ACK => Why::AckDropped,
        wire::LISTEN_LOOK => Why::Look,
        _ => Why::Unknown,
    }
}
