//! The fuzzer. `CULPRIT_FUZZ_TARGET` names the target; the arguments are
//! libFuzzer's.
#![no_main]

use std::sync::OnceLock;

use culprit_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("CULPRIT_FUZZ_TARGET").unwrap_or_default();
    culprit_fuzz::target(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "CULPRIT_FUZZ_TARGET is {name:?}; set it to one of {}",
            names.join(", ")
        );
        std::process::exit(2)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (CHOSEN.get_or_init(chosen).run)(data));
