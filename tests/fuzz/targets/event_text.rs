//! Events as text and JSON: one line, nothing that steers a terminal.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    culprit_collector::fuzz::event(data);
});
