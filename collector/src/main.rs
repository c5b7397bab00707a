//! `culprit-collector`: see `culprit_collector`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    culprit_collector::commands::main()
}
