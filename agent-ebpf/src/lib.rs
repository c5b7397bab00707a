//! The records that the BPF programs write and the agent reads, and the maps'
//! keys and values. Plain data: `#[repr(C)]`, integers only, padding spelled
//! out, sizes asserted. See `src/main.rs` for the programs.
#![no_std]
#![expect(
    missing_docs,
    reason = "members named as the kernel names them need no second sentence; the rest is documented"
)]

pub mod wire;
