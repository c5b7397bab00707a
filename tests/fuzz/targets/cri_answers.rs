//! What a container runtime may answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = culprit_agent::identity::fuzz::cri_answers(data);
});
