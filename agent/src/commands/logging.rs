//! The agent's log, on stderr.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Starts logging. `level` is a filter as in RUST_LOG, which holds when it is
/// not given; `info` when that is not set either.
///
/// # Errors
/// When the filter does not parse.
pub(super) fn start(format: LogFormat, level: Option<&str>) -> anyhow::Result<()> {
    let from_env = std::env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let (from, filter) = match (level, &from_env) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(filter)) => ("RUST_LOG", filter.as_str()),
        (None, None) => ("", "info"),
    };
    let filter = EnvFilter::builder().parse(filter).with_context(|| {
        format!("{from} \"{filter}\" is no filter; write a level such as info, or culprit_agent=debug,info")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
