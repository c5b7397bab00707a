//! BTF: types and offsets of the running kernel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    culprit_agent::kernel::btf::fuzz(data);
});
