//! Culprit's messages, generated from `culprit/v1/*.proto`, and what every
//! program that speaks them shares: their JSON and text forms, the kinds and
//! lanes, the limits, and the frames of files and pipes.
#![forbid(unsafe_code)]

pub mod endpoint;
pub mod frame;
pub mod identity;
pub mod json;
pub mod kind;
pub mod limits;
pub mod text;
pub mod time;

/// The package `culprit.v1` as generated: messages, and client and server of
/// the services Collector, Query and Local. The `.proto` files are the
/// documentation of each field.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("culprit.v1");
}

mod enum_names {
    include!(concat!(env!("OUT_DIR"), "/enum_names.rs"));
}
