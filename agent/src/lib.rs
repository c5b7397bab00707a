//! The node agent. Data flows one way: kernel -> probes -> identity ->
//! journal -> export; `pipeline` holds the stages together and `commands` is
//! what a user runs.
#![forbid(unsafe_code)]

pub mod commands;
pub mod config;
pub mod export;
pub mod findings;
pub mod identity;
pub mod journal;
pub mod kernel;
pub mod pipeline;
pub mod privilege;
pub mod probes;

/// The error and what caused it, one line that is safe on a terminal. A cause
/// that the text names already is not said twice.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    culprit_proto::text::escape(&text).into_owned()
}
