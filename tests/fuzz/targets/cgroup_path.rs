//! Cgroup paths of any form.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = culprit_agent::identity::fuzz::cgroup_path(data);
});
