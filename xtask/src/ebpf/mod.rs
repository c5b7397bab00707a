//! `cargo xtask build-ebpf`: the committed BPF object and the proof that it is what its source
//! says.

mod build;
mod compare;
mod manifest;
mod toolchain;

use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use manifest::Manifest;
use std::path::{Path, PathBuf};
use toolchain::Toolchain;

/// What `build-ebpf` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the committed object is not what a rebuild gives. Without a BPF
    /// toolchain only the hash of the sources is compared.
    #[arg(long)]
    check: bool,
    /// With --check: fail instead of falling back to the hash when no BPF toolchain is there.
    #[arg(long, requires = "check")]
    require_toolchain: bool,
    /// Build with aya-log in the programs, to target/culprit/culprit-log.bpf.o (never committed).
    #[arg(long, conflicts_with = "check")]
    log: bool,
    /// Which BPF toolchain to use; by default the one the committed object was built with, else
    /// the first that is there.
    #[arg(long, value_enum)]
    toolchain: Option<toolchain::Kind>,
}

/// How thorough a check of the committed object was.
pub(crate) enum Checked {
    /// Rebuilt and compared.
    Rebuilt,
    /// Only the hash of the sources was compared, for the reason given.
    HashOnly(String),
}

fn object_path() -> PathBuf {
    paths::root().join("agent-ebpf/object/culprit.bpf.o")
}

fn manifest_path() -> PathBuf {
    paths::root().join("agent-ebpf/object/culprit.bpf.json")
}

/// Entry point of the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        match check(options.toolchain)? {
            Checked::Rebuilt => println!("the committed BPF object is what its sources build to"),
            Checked::HashOnly(why) if options.require_toolchain => {
                bail!("cannot rebuild the BPF object: {why}");
            }
            Checked::HashOnly(why) => println!(
                "the committed BPF object was built from these sources (by hash only: {why})"
            ),
        }
        return Ok(());
    }
    let recorded = Manifest::read(&manifest_path()).ok();
    let toolchain = toolchain::choose(options.toolchain, recorded.as_ref())?;
    let object = build::build(&toolchain, options.log, false)?;
    if options.log {
        let path = paths::work().join("culprit-log.bpf.o");
        sh::write_if_changed(&path, &object)?;
        println!("{}: {} bytes, with aya-log", path.display(), object.len());
        return Ok(());
    }
    let manifest = Manifest::of(&toolchain, &object)?;
    let changed = sh::write_if_changed(&object_path(), &object)?;
    sh::write_if_changed(&manifest_path(), manifest.to_text()?.as_bytes())?;
    println!(
        "{}: {} bytes, {} ({}, {})",
        object_path().display(),
        object.len(),
        if changed { "changed" } else { "as it was" },
        toolchain.rustc_version,
        toolchain.linker_version,
    );
    Ok(())
}

/// Compares the committed object with its sources; see [`Checked`] for how far it could go.
///
/// # Errors
/// When they differ: the message says in what.
pub(crate) fn check(wanted: Option<toolchain::Kind>) -> Result<Checked> {
    let recorded = Manifest::read(&manifest_path())?;
    let committed = read(&object_path())?;
    recorded.check_hashes(&committed)?;
    let toolchain = match toolchain::choose(wanted, Some(&recorded)) {
        Ok(toolchain) => toolchain,
        Err(missing) => return Ok(Checked::HashOnly(format!("{missing:#}"))),
    };
    let rebuilt = build::build(&toolchain, false, true)?;
    let differences = compare::differences(&committed, &rebuilt)?;
    if differences.is_empty() {
        return Ok(Checked::Rebuilt);
    }
    bail!(
        "the committed BPF object differs from a rebuild:\n  {}\n{}Mend: run `cargo xtask build-ebpf` and commit agent-ebpf/object/",
        differences.join("\n  "),
        toolchain_note(&toolchain, &recorded),
    )
}

/// Whether some BPF toolchain is complete.
pub(crate) fn toolchain_present() -> bool {
    toolchain::choose(None, None).is_ok()
}

fn toolchain_note(toolchain: &Toolchain, recorded: &Manifest) -> String {
    if recorded.same_toolchain(toolchain) {
        return String::new();
    }
    format!(
        "The toolchain differs, which alone may explain it: committed by {} with {}, rebuilt by {} with {}\n",
        recorded.rustc, recorded.bpf_linker, toolchain.rustc_version, toolchain.linker_version
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "reading {} (mend: run `cargo xtask build-ebpf`)",
            path.display()
        )
    })
}
