use std::fmt::Write;

use culprit_proto::json::enum_text;
use culprit_proto::v1::{
    Event, Lane, NodeAccount, NodeStatus, StoredEvent, TcpEdge, event, tcp_flow,
};
use culprit_proto::{text, time};
use prost::Message;

/// Columns of the flow table, and their widths; the last one is open.
pub(super) fn flow_header() -> String {
    flow_line([
        "TIME", "NODE", "WORKLOAD", "LOCAL", "ROLE", "PEER", "SENT", "RECEIVED", "RTT", "RETRANS",
        "STATE",
    ])
}

fn flow_line(columns: [&str; 11]) -> String {
    let [
        time,
        node,
        workload,
        local,
        role,
        peer,
        sent,
        received,
        rtt,
        retransmits,
        state,
    ] = columns;
    format!(
        "{time:<15} {node:<12} {workload:<32} {local:<21} {role:<7} {peer:<21} {sent:>10} \
         {received:>10} {rtt:>9} {retransmits:>7}  {state}"
    )
}

/// One flow; `None` when the record is none.
pub(super) fn flow_row(stored: &StoredEvent) -> Option<String> {
    let event = Event::decode(stored.record.as_ref()?.event.clone()).ok()?;
    let flow = match &event.kind {
        Some(event::Kind::TcpFlow(flow)) => flow,
        Some(event::Kind::TcpEdge(edge)) => return Some(edge_row(stored, &event, edge)),
        _ => return None,
    };
    let end = |e: &Option<_>| {
        e.as_ref().map_or_else(
            || "?".to_owned(),
            |e: &culprit_proto::v1::Endpoint| e.to_string(),
        )
    };
    let rtt = match flow.srtt_ns {
        0 => "-".to_owned(),
        ns => text::duration(ns),
    };
    let state = if flow.state() == tcp_flow::State::Closed {
        enum_text::<tcp_flow::CloseReason>(flow.close_reason)
    } else {
        "open".to_owned()
    };
    Some(flow_line([
        time::rfc3339(event.time).get(11..26).unwrap_or_default(),
        &text::clip(&stored.node),
        &text::actor(event.who.as_ref()),
        &end(&flow.local),
        &enum_text::<tcp_flow::Role>(flow.role),
        &peer(&event, &end(&flow.remote)),
        &text::bytes(flow.bytes_sent),
        &text::bytes(flow.bytes_received),
        &rtt,
        &flow.retransmits.to_string(),
        &state,
    ]))
}

/// Many connections between two ends.
fn edge_row(stored: &StoredEvent, event: &Event, edge: &TcpEdge) -> String {
    let whose = text::workload(event.peer.as_ref());
    let remote = edge.remote.as_ref().map(ToString::to_string);
    let peer = match (edge.other, remote) {
        (true, _) => "others".to_owned(),
        (false, Some(remote)) if whose.is_empty() => remote,
        (false, Some(remote)) => format!("{remote} {whose}"),
        (false, None) => whose,
    };
    let rtt = match edge.max_srtt_ns {
        0 => "-".to_owned(),
        ns => text::duration(ns),
    };
    flow_line([
        time::rfc3339(event.time).get(11..26).unwrap_or_default(),
        &text::clip(&stored.node),
        &text::actor(event.who.as_ref()),
        &format!("port {}", edge.port),
        &enum_text::<tcp_flow::Role>(edge.role),
        &peer,
        &text::bytes(edge.bytes_sent),
        &text::bytes(edge.bytes_received),
        &rtt,
        &edge.retransmits.to_string(),
        &format!(
            "{} opened, {} closed, {} open",
            edge.opened, edge.closed, edge.open
        ),
    ])
}

/// The other end: its address as it was named, the real one, and whose it is.
fn peer(event: &Event, named: &str) -> String {
    let Some(event::Kind::TcpFlow(flow)) = &event.kind else {
        return named.to_owned();
    };
    let mut text = named.to_owned();
    if let Some(real) = flow
        .remote_nat
        .as_ref()
        .filter(|real| Some(*real) != flow.remote.as_ref())
    {
        let _ = write!(text, " ({real})");
    }
    let whose = text::workload(event.peer.as_ref());
    if !whose.is_empty() {
        let _ = write!(text, " {whose}");
    }
    text
}

pub(super) fn node_header() -> String {
    format!(
        "{:<20} {:<12} {:<10} {:<24} {:>6} {:<20} LANES",
        "NODE", "STATE", "VERSION", "KERNEL", "EPOCH", "LAST SEEN"
    )
}

/// A node's line, and one for each probe that does not run and each loss.
pub(super) fn node_rows(node: &NodeStatus) -> String {
    let lanes: Vec<String> = node
        .lanes
        .iter()
        .map(|lane| {
            let mut text = format!("{} {} stored", enum_text::<Lane>(lane.lane), lane.stored);
            for (n, what) in [
                (lane.duplicates, "duplicates"),
                (lane.rejected, "rejected"),
                (lane.gaps, "in gaps"),
                (lane.deleted, "deleted"),
                (lane.elsewhere, "elsewhere"),
                (lane.unassigned, "never given"),
            ] {
                if n > 0 {
                    // Writing to a String cannot fail.
                    let _ = write!(text, ", {n} {what}");
                }
            }
            text
        })
        .collect();
    let mut text = format!(
        "{:<20} {:<12} {:<10} {:<24} {:>6} {:<20} {}\n",
        text::clip(&node.node),
        if node.connected {
            "connected"
        } else {
            "disconnected"
        },
        text::clip(&node.version),
        text::clip(&node.kernel),
        node.epoch,
        // Seconds are enough.
        format!(
            "{}Z",
            time::rfc3339(node.last_seen).get(..19).unwrap_or_default()
        ),
        lanes.join("; ")
    );
    for probe in node.probes.iter().filter(|p| p.flavour.is_empty()) {
        let _ = writeln!(
            text,
            "  probe {} is off: {}",
            text::clip(&probe.probe),
            text::clip(&probe.reason)
        );
    }
    for lost in node.lost.iter().filter(|l| l.count > 0) {
        let _ = writeln!(
            text,
            "  lost {} {} {}: {}",
            text::clip(&lost.probe),
            enum_text::<Lane>(lost.lane),
            text::clip(&lost.reason),
            lost.count
        );
    }
    text
}

pub(super) fn account_header() -> String {
    account_line([
        "NODE",
        "LANE",
        "SEEN",
        "COMMITTED",
        "RETAINED",
        "IN RING",
        "LOST",
        "REPORTED",
    ])
}

fn account_line(columns: [&str; 8]) -> String {
    let [node, lane, seen, committed, retained, ring, lost, reported] = columns;
    format!(
        "{node:<20} {lane:<9} {seen:>12} {committed:>12} {retained:>10} {ring:>8} {lost:>10}  {reported}"
    )
}

/// A node's account: the whole, each lane, and each reason of a loss.
pub(super) fn account_rows(account: &NodeAccount) -> String {
    let node = text::clip(&account.node);
    let reported = match account.reported {
        0 => "never".to_owned(),
        at => format!("{}Z", time::rfc3339(at).get(..19).unwrap_or_default()),
    };
    let row = |lane: &str, numbers: [u64; 5], reported: &str| {
        let [seen, committed, retained, ring, lost] = numbers.map(|n| n.to_string());
        let columns = [&seen, &committed, &retained, &ring, &lost].map(String::as_str);
        let [seen, committed, retained, ring, lost] = columns;
        account_line([&node, lane, seen, committed, retained, ring, lost, reported])
            .trim_end()
            .to_owned()
            + "\n"
    };
    let sum = |lost: &std::collections::BTreeMap<String, u64>| {
        lost.values().fold(0_u64, |sum, n| sum.saturating_add(*n))
    };
    let a = account;
    let whole = [a.seen, a.committed, a.retained, a.in_ring, sum(&a.lost)];
    let mut rows = row("all", whole, &reported);
    for l in &account.lanes {
        let numbers = [l.seen, l.committed, l.retained, l.in_ring, sum(&l.lost)];
        rows += &row(&enum_text::<Lane>(l.lane), numbers, "");
        if l.merged > 0 {
            let _ = writeln!(rows, "  merged, told as sums: {}", l.merged);
        }
        for (reason, count) in &l.lost {
            // Writing to a String cannot fail.
            let _ = writeln!(rows, "  lost {}: {count}", text::clip(reason));
        }
    }
    if account.unclean_stops > 0 {
        let _ = writeln!(
            rows,
            "  {} runs of the agent ended without a last word; what they had since their last report is not known",
            account.unclean_stops
        );
    }
    rows
}
