//! What an agent, or anybody, may send to the collector.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    culprit_collector::fuzz::message(data);
});
