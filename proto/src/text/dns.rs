//! DNS lookups in words.

use super::phrase::{count, end};
use super::{clip, duration};
use crate::json::enum_text;
use crate::v1::{DnsLookup, dns_lookup};

/// Name of a query type; its number when it is not one of the usual.
pub fn query_type(number: u32) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        _ => return format!("TYPE{number}"),
    };
    name.to_owned()
}

/// Name of an answer's code, RFC 1035 and 2136; its number when it has none.
pub fn rcode(number: u32) -> String {
    let name = match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => return format!("RCODE{number}"),
    };
    name.to_owned()
}

/// A lookup in one phrase.
pub(super) fn lookup(e: &DnsLookup) -> String {
    let cut = if e.name_cut { "…" } else { "" };
    let name = if e.name.is_empty() { "." } else { &e.name };
    let mut text = format!(
        "{} {}{cut} at {} over {}",
        query_type(e.query_type),
        clip(name),
        end(e.server.as_ref()),
        enum_text::<dns_lookup::Transport>(e.transport)
    );
    if e.answered {
        text += &format!(", {} after {}", rcode(e.rcode), duration(e.latency_ns));
    } else {
        text += &format!(", no answer within {}", duration(e.latency_ns));
    }
    if e.retries > 0 {
        text += &format!(", asked again {}", count(e.retries.into(), "time"));
    }
    text
}
