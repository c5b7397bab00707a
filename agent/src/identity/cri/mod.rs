//! The container runtime: what it says of containers and pods, by the CRI.
//!
//! The base is a complete listing at start and from time to time. A container
//! whose cgroup appears is asked for at once, and container events, where the
//! runtime has them, only make that quicker.

mod ask;
mod client;
mod events;
mod facts;
mod limits;
mod listing;
mod session;
mod store;
mod tables;
mod task;

#[cfg(test)]
pub(super) mod fake;

/// The package `runtime.v1`, reduced; see `agent/proto/cri/runtime.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::enum_variant_names,
    reason = "generated code"
)]
pub(super) mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub(super) use facts::{ContainerFacts, PodFacts};
pub use limits::AskedLimit;
pub(super) use limits::Query;
pub(super) use listing::Listing;
pub(super) use store::{Contact, Lookup, Store};
pub(super) use task::{Shared, spawn};

/// Decodes the status of a sandbox; true when it named one.
pub(super) fn decode_status(bytes: &[u8], counters: &super::counters::Counters) -> bool {
    prost::Message::decode(bytes)
        .ok()
        .and_then(|r: v1::PodSandboxStatusResponse| r.status)
        .and_then(|s| PodFacts::from_status(s, counters))
        .is_some()
}
