//! Events as text and JSON: one line, nothing that steers a terminal.

/// The bytes as an encoded event.
pub(crate) fn run(data: &[u8]) {
    culprit_collector::fuzz::event(data);
}
