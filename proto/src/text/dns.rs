use super::phrase::end;
use crate::v1::DnsLookup;

/// A lookup in one phrase.
pub(super) fn lookup(e: &DnsLookup) -> String {
    format!("lookup at {}", end(e.server.as_ref()))
}
