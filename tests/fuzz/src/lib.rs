//! Everything that reads bytes from outside, one target each.
//!
//! `seeds/<target>/` has the inputs that are kept. Those named `made-…` are
//! written by `cargo run -p culprit-fuzz` from real messages; all others were
//! found by fuzzing, and a new crash belongs there. `cargo test -p culprit-fuzz`
//! puts every one through its target, without libFuzzer.
//!
//! To fuzz one target for longer than the smoke run does: `cargo xtask test
//! --tier fuzz-smoke` says how it starts the program; any libFuzzer flag goes.
#![forbid(unsafe_code)]

mod pieces;
pub mod seeds;
mod targets;

use std::path::{Path, PathBuf};

pub use pieces::{Pieces, join};

/// One reader of bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory of seeds.
    pub name: &'static str,
    /// Reads the bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Real inputs.
    pub seeds: fn() -> Vec<seeds::Seed>,
}

/// All of them. The fuzzer is one program, so that it is linked once.
pub const TARGETS: &[Target] = &[
    Target {
        name: "agent_message",
        run: targets::agent_message::run,
        seeds: seeds::stream::agent,
    },
    Target {
        name: "cgroup_path",
        run: targets::node::cgroup_path,
        seeds: seeds::node::cgroup_paths,
    },
    Target {
        name: "collector_message",
        run: targets::collector_message::run,
        seeds: seeds::stream::collector,
    },
    Target {
        name: "config_file",
        run: targets::node::config_file,
        seeds: seeds::node::config_files,
    },
    Target {
        name: "cri_answers",
        run: targets::node::cri_answers,
        seeds: seeds::cri::answers,
    },
    Target {
        name: "event_text",
        run: targets::event_text::run,
        seeds: seeds::events::encoded,
    },
    Target {
        name: "kernel_types",
        run: targets::node::kernel_types,
        seeds: seeds::btf::types,
    },
    Target {
        name: "local_request",
        run: targets::request::local,
        seeds: seeds::request::local,
    },
    Target {
        name: "query_request",
        run: targets::request::query,
        seeds: seeds::request::query,
    },
    Target {
        name: "recorder_frames",
        run: targets::frames::run,
        seeds: seeds::events::frames,
    },
    Target {
        name: "ring_record",
        run: targets::ring_record::run,
        seeds: seeds::node::ring_records,
    },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the inputs of a target are kept.
#[must_use]
pub fn seeds_of(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target.name)
}
