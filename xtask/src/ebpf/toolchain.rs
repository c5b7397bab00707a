//! Finding a Rust toolchain that can build `core` for BPF, and bpf-linker.

use super::manifest::Manifest;
use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's compiler before this cannot build the workspace (edition 2024, `rust-version`).
const MIN_RUSTC: (u32, u32) = (1, 95);

/// Where a BPF toolchain comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debian's packages rustc-web, cargo-web and rust-web-src.
    Debian,
    /// A rustup nightly with the component rust-src.
    Nightly,
}

/// A toolchain that was found complete.
pub(crate) struct Toolchain {
    pub(crate) kind: Kind,
    /// `rustc --version`.
    pub(crate) rustc_version: String,
    /// `bpf-linker --version`.
    pub(crate) linker_version: String,
    pub(crate) linker: PathBuf,
    /// Its library sources, for the remapping of paths.
    pub(crate) library: PathBuf,
}

impl Toolchain {
    /// cargo of this toolchain, freed of what an outer cargo or rustup set.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc");
                command
            }
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command
                    .args(["run", "nightly", "cargo"])
                    .env_remove("RUSTC");
                command
            }
        };
        for name in [
            "CARGO",
            "RUSTUP_TOOLCHAIN",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
        ] {
            command.env_remove(name);
        }
        // Debian's compiler is a stable one: -Z build-std needs its bootstrap door opened.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

/// The toolchain asked for, else the one that built the committed object, else any.
///
/// # Errors
/// When none is complete; the message says for each what it lacks, and the mend.
pub(crate) fn choose(wanted: Option<Kind>, recorded: Option<&Manifest>) -> Result<Toolchain> {
    let kinds = match wanted {
        Some(kind) => vec![kind],
        None => vec![Kind::Debian, Kind::Nightly],
    };
    let mut lacking = Vec::new();
    let mut found = Vec::new();
    for kind in kinds {
        match probe(kind) {
            Ok(toolchain) => found.push(toolchain),
            Err(why) => lacking.push(format!("{kind:?}: {why:#}")),
        }
    }
    let same = found
        .iter()
        .position(|t| recorded.is_some_and(|r| r.same_toolchain(t)));
    if found.is_empty() {
        bail!(
            "no BPF toolchain ({}); mend: `cargo xtask setup`, or `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`",
            lacking.join("; ")
        );
    }
    Ok(found.swap_remove(same.unwrap_or(0)))
}

fn probe(kind: Kind) -> Result<Toolchain> {
    let rustc = |flag: &[&str]| {
        let mut command = match kind {
            Kind::Debian => Command::new("/usr/bin/rustc"),
            Kind::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
        };
        sh::output(command.args(flag).env_remove("RUSTUP_TOOLCHAIN"))
    };
    let rustc_version = rustc(&["--version"])?;
    if kind == Kind::Debian {
        if !Path::new("/usr/bin/cargo").is_file() {
            bail!("/usr/bin/cargo is missing");
        }
        if minor_version(&rustc_version).is_none_or(|version| version < MIN_RUSTC) {
            bail!("/usr/bin/rustc is too old: {rustc_version}");
        }
    }
    let library =
        PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    if !library.join("core/src/lib.rs").is_file() {
        bail!(
            "rust-src is missing (no {})",
            library.join("core").display()
        );
    }
    let linker = paths::find_program("bpf-linker").context("bpf-linker is not installed")?;
    let linker_version = sh::output(Command::new(&linker).arg("--version"))?;
    Ok(Toolchain {
        kind,
        rustc_version,
        linker_version,
        linker,
        library,
    })
}

/// `rustc 1.96.0 (...)` -> (1, 96).
fn minor_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn versions_are_read_from_what_rustc_prints() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some((1, 96))
        );
        assert_eq!(
            minor_version("rustc 1.97.0-nightly (abc 2026-06-01)"),
            Some((1, 97))
        );
        assert_eq!(minor_version("gibberish"), None);
    }
}
