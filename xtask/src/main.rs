//! The project's own commands: `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod bench;
mod binaries;
mod deploy;
mod ebpf;
mod paths;
mod run;
mod setup;
mod sh;
mod soak;
mod test;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, runs, tests and measures Culprit"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands need (apt, cargo, rustup); safe to repeat.
    Setup(setup::Options),
    /// Build and run a collector and an agent on this kernel, and show events as they come.
    Run(run::Options),
    /// Build the BPF object and write it beside its source, or compare it with a rebuild.
    BuildEbpf(ebpf::Options),
    /// Run all tests, in tiers: unit, ebpf-check, live, delivery, vm, containerd, fuzz-smoke.
    Test(test::Options),
    /// Measure what the agent costs, beside the same loads without it.
    Bench(bench::Options),
    /// Load, churn and faults for a long time; says at the end whether anything leaked or got lost.
    Soak(soak::Options),
    /// Run the scenarios on every kernel of the matrix, in QEMU.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Task::Setup(options) => setup::run(&options),
        Task::Run(options) => run::run(&options),
        Task::BuildEbpf(options) => ebpf::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Vm(options) => vm::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether we may install, load BPF and make network namespaces.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
