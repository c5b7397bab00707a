//! Parts of Rust that a plain installation may lack.

use super::apt;
use crate::{ebpf, paths, sh};
use anyhow::{Context, Result};
use std::process::Command;

const BPF_LINKER: &str = "bpf-linker@0.13.0";
/// Debian's Rust with sources, and the LLVM that bpf-linker must share with it.
const DEBIAN_BPF: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev"];

pub(super) fn lint_tools_present() -> bool {
    ["fmt", "clippy"]
        .iter()
        .all(|tool| sh::output(sh::cargo().args([tool, "--version"])).is_ok())
}

pub(super) fn install_lint_tools() -> Result<()> {
    sh::run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
}

pub(super) fn bpf_present() -> bool {
    ebpf::toolchain_present()
}

/// Debian's packages where they can be had (the committed object is built with them), else a
/// nightly from rustup.
pub(super) fn install_bpf() -> Result<()> {
    let debian = apt::install(DEBIAN_BPF).and_then(|()| {
        install_linker(
            &["--no-default-features", "--features", "llvm-22"],
            "/usr/lib/llvm-22",
        )
    });
    let Err(error) = debian else { return Ok(()) };
    println!("setup: Debian's BPF toolchain cannot be had ({error:#}); trying rustup's nightly");
    sh::run(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]))?;
    install_linker(&[], "").with_context(|| format!("after Debian's packages: {error:#}"))
}

fn install_linker(features: &[&str], llvm: &str) -> Result<()> {
    if paths::find_program("bpf-linker").is_some() {
        return Ok(());
    }
    let mut command = sh::cargo();
    command
        .args(["install", BPF_LINKER, "--locked"])
        .args(features);
    if !llvm.is_empty() {
        command.env("LLVM_PREFIX", llvm);
    }
    sh::run(&mut command)
}
