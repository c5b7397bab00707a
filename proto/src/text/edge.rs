use std::fmt::Write;

use super::phrase::{count, workload};
use super::unit::{bytes, duration};
use crate::v1::{Identity, TcpEdge, tcp_flow::Role};

/// Connections between two ends, in one phrase.
pub(super) fn sums(e: &TcpEdge, peer: Option<&Identity>) -> String {
    let mut text = if e.other {
        "between others".to_owned()
    } else {
        let whose = workload(peer);
        let end = match &e.remote {
            Some(remote) => remote.to_string(),
            None if whose.is_empty() => "?".to_owned(),
            None => whose,
        };
        match e.role() {
            Role::Client if e.remote.is_some() => format!("-> {end}"),
            Role::Client => format!("-> {end} port {}", e.port),
            Role::Server => format!("port {} <- {end}", e.port),
            Role::Unknown => format!("<-> {end}"),
        }
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        ": {} opened, {} closed, {} open, sent {}, received {}",
        count(e.opened, "connection"),
        e.closed,
        e.open,
        bytes(e.bytes_sent),
        bytes(e.bytes_received)
    );
    if e.max_srtt_ns > 0 {
        let _ = write!(text, ", rtt up to {}", duration(e.max_srtt_ns));
    }
    for (n, one) in [
        (e.retransmits, "retransmit"),
        (e.resets, "reset"),
        (e.timeouts, "timeout"),
    ] {
        if n > 0 {
            let _ = write!(text, ", {}", count(n, one));
        }
    }
    if e.unsure > 0 {
        let _ = write!(text, ", {} not in the sums", count(e.unsure, "record"));
    }
    text
}
