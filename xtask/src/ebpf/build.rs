//! Compiling, linking and stripping the programs.

use super::toolchain::Toolchain;
use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};
use std::path::Path;

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";

/// Compiler flags that do not depend on where anything lies. BTF is made from debug information;
/// v3 is the newest instruction set that 5.10 loads.
pub(super) const FLAGS: &[&str] = &[
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Cpanic=abort",
];

/// Builds the programs and gives the stripped object: no DWARF, and no path of this machine.
pub(super) fn build(toolchain: &Toolchain, log: bool, locked: bool) -> Result<Vec<u8>> {
    let target_dir = paths::target().join("ebpf");
    let mut command = toolchain.cargo();
    command
        .args([
            "build",
            "--package",
            "culprit-agent-ebpf",
            "--bin",
            "culprit",
        ])
        .args(["--features", if log { "programs,log" } else { "programs" }])
        .args(["-Zbuild-std=core", "--target", TARGET, "--profile", PROFILE])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(paths::root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain).join("\x1f"));
    if locked {
        command.arg("--locked");
    }
    sh::run(&mut command)?;
    let linked = target_dir.join(TARGET).join(PROFILE).join("culprit");
    let bytes = std::fs::read(&linked).with_context(|| format!("reading {}", linked.display()))?;
    strip(&bytes).with_context(|| format!("stripping {}", linked.display()))
}

fn rustflags(toolchain: &Toolchain) -> Vec<String> {
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("-Clinker={}", toolchain.linker.display()));
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(&paths::root(), "culprit");
    remap(&toolchain.library, "library");
    // The directory below src carries a hash of the registry's address.
    let sources = paths::cargo_home().join("registry/src");
    if let Ok(registries) = std::fs::read_dir(&sources) {
        let mut registries: Vec<_> = registries.flatten().map(|entry| entry.path()).collect();
        registries.sort();
        for registry in registries {
            remap(&registry, "registry");
        }
    }
    flags
}

/// Takes DWARF and line information out; programs, maps, globals, BTF, relocations and symbols stay.
fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes)?;
    let mut btf = false;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        btf |= name == b".BTF";
        // .BTF.ext is source lines for verifier logs: more bytes than all programs
        // together, parsed by the agent at every start.
        let lines = name == b".BTF.ext" || name == b".rel.BTF.ext";
        if lines || name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            section.delete = true;
        }
    }
    if !btf {
        bail!("the linked object has no .BTF section: is bpf-linker's --btf supported?");
    }
    // LLVM keeps section names in .strtab; the writer wants a table of their own.
    let names = object.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    object.delete_orphans();
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(stripped)
}
