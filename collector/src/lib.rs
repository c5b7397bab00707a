//! The collector: takes streams of records from many agents, makes them
//! durable before it acknowledges them, and answers questions about them.
//!
//! `protocol` decides what a message means, `store` keeps it, `server` speaks
//! gRPC, `commands` is the command line.
#![forbid(unsafe_code)]

pub mod commands;
pub mod fuzz;
pub mod protocol;
pub mod server;
pub mod store;
