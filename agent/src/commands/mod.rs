//! What a user runs.

mod cli;
mod doctor;
mod dump;
mod explain;
mod local_client;
pub mod local_server;
mod logging;
mod printer;
mod run;
mod spool;
mod status;
mod top;

pub use cli::{Cli, main};
