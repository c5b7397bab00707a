//! Every kept input through its target: a crash that was found once stays found.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use culprit_fuzz::{TARGETS, Target, seeds_of};

/// What the repository holds of all targets together, bytes.
const MAX_BYTES: usize = 300_000;

fn kept(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let dir = seeds_of(target);
    let entries = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}; see src/lib.rs", dir.display()));
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn every_kept_input_passes() {
    for target in TARGETS {
        for (name, bytes) in kept(target) {
            let passed = catch_unwind(|| (target.run)(&bytes)).is_ok();
            assert!(passed, "seeds/{}/{name} fails, see above", target.name);
        }
    }
}

/// Half an input, and one with a byte changed, are what a cut or a fault leaves.
#[test]
fn what_is_cut_or_damaged_passes_too() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            let bytes = seed.bytes;
            let step = (bytes.len() / 40).max(1);
            for at in (0..bytes.len()).step_by(step) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x41;
                for input in [&bytes[..at], &damaged] {
                    let passed = catch_unwind(|| (target.run)(input)).is_ok();
                    assert!(
                        passed,
                        "{} {} fails when cut or damaged at byte {at}, see above",
                        target.name, seed.name
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_made_is_what_is_kept() {
    for target in TARGETS {
        let mut kept = kept(target);
        kept.retain(|name, _| name.starts_with("made-"));
        let made: BTreeMap<String, Vec<u8>> = (target.seeds)()
            .into_iter()
            .map(|seed| (seed.file(), seed.bytes))
            .collect();
        assert!(!made.is_empty(), "{}", target.name);
        assert!(
            kept == made,
            "seeds/{} is out of date: `cargo run -p culprit-fuzz` writes it anew",
            target.name
        );
    }
}

/// `cargo xtask test` finds the targets by these directories.
#[test]
fn there_is_a_directory_for_each_target_and_no_other() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");
    let mut found: Vec<String> = std::fs::read_dir(seeds)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(found, names);
}

#[test]
fn the_corpus_stays_small() {
    let inputs = TARGETS.iter().flat_map(|target| kept(target).into_values());
    let bytes: usize = inputs.map(|input| input.len()).sum();
    assert!(bytes < MAX_BYTES, "{bytes} bytes of seeds");
}
