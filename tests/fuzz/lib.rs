//! The programs are in `targets/`, one per decoder. To fuzz one for longer than the smoke run:
//! `cargo xtask test --tier fuzz-smoke --no-setup` builds them into
//! `target/fuzz/<triple>/testing/`; each is a libFuzzer program.
#![forbid(unsafe_code)]
