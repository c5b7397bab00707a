//! `culprit-agent`: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    culprit_agent::commands::main()
}
