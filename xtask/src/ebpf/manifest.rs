//! `culprit.bpf.json`: what the committed object was built from and with.

use super::build::FLAGS;
use super::toolchain::Toolchain;
use crate::paths;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Packages that end up in the object, as far as they are in it.
const PACKAGES: &[&str] = &[
    "aya-ebpf",
    "aya-ebpf-bindings",
    "aya-ebpf-cty",
    "aya-ebpf-macros",
];

/// Beside the committed object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Over names and contents of agent-ebpf/src/** and agent-ebpf/Cargo.toml, the profile, the
    /// compiler flags and the packages below.
    pub(crate) sources_sha256: String,
    /// Locked version and checksum of each package that is compiled into it.
    pub(crate) packages: BTreeMap<String, String>,
    /// Of the object file.
    pub(crate) object_sha256: String,
    /// `rustc --version` of the toolchain that built it.
    pub(crate) rustc: String,
    /// `bpf-linker --version`.
    pub(crate) bpf_linker: String,
}

impl Manifest {
    pub(super) fn of(toolchain: &Toolchain, object: &[u8]) -> Result<Self> {
        let packages = locked_packages(&paths::root())?;
        Ok(Self {
            sources_sha256: sources_sha256(&paths::root(), &packages)?,
            packages,
            object_sha256: hex(&Sha256::digest(object)),
            rustc: toolchain.rustc_version.clone(),
            bpf_linker: toolchain.linker_version.clone(),
        })
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "reading {} (mend: run `cargo xtask build-ebpf`)",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
    }

    pub(super) fn to_text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn same_toolchain(&self, toolchain: &Toolchain) -> bool {
        self.rustc == toolchain.rustc_version && self.bpf_linker == toolchain.linker_version
    }

    /// The cheap half of the check: nothing is built.
    pub(super) fn check_hashes(&self, object: &[u8]) -> Result<()> {
        let packages = locked_packages(&paths::root())?;
        if packages != self.packages {
            bail!(
                "Cargo.lock has {packages:?} but the committed BPF object was built with {:?}; mend: run `cargo xtask build-ebpf` and commit agent-ebpf/object/",
                self.packages
            );
        }
        if sources_sha256(&paths::root(), &packages)? != self.sources_sha256 {
            bail!(
                "agent-ebpf's sources are not those the committed BPF object was built from; mend: run `cargo xtask build-ebpf` and commit agent-ebpf/object/"
            );
        }
        if hex(&Sha256::digest(object)) != self.object_sha256 {
            bail!(
                "culprit.bpf.o is not the object that culprit.bpf.json describes; mend: run `cargo xtask build-ebpf` and commit both"
            );
        }
        Ok(())
    }
}

fn sources_sha256(root: &Path, packages: &BTreeMap<String, String>) -> Result<String> {
    let mut files = vec![root.join("agent-ebpf/Cargo.toml")];
    rust_files(&root.join("agent-ebpf/src"), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content =
            std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy();
        field(&mut hash, name.as_bytes());
        field(&mut hash, &content);
    }
    for flag in FLAGS {
        field(&mut hash, flag.as_bytes());
    }
    field(&mut hash, profile(root)?.as_bytes());
    for (name, version) in packages {
        field(&mut hash, name.as_bytes());
        field(&mut hash, version.as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// Length first, so that no two lists of fields hash alike.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn toml_file(path: &Path) -> Result<toml::Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse()
        .with_context(|| format!("parsing {}", path.display()))
}

/// `[profile.ebpf]`, and `[profile.release]` which it inherits.
fn profile(root: &Path) -> Result<String> {
    let manifest = toml_file(&root.join("Cargo.toml"))?;
    let profiles = manifest
        .get("profile")
        .context("Cargo.toml has no [profile.ebpf]")?;
    let wanted: toml::Table = ["ebpf", "release"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), profiles.get(name)?.clone())))
        .collect();
    Ok(wanted.to_string())
}

fn locked_packages(root: &Path) -> Result<BTreeMap<String, String>> {
    let lock = toml_file(&root.join("Cargo.lock"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |package: &toml::Value, key: &str| {
        package
            .get(key)
            .and_then(toml::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(packages
        .into_iter()
        .flatten()
        .map(|package| (text(package, "name"), package))
        .filter(|(name, _)| PACKAGES.contains(&name.as_str()))
        .map(|(name, package)| {
            (
                name,
                format!("{} {}", text(package, "version"), text(package, "checksum")),
            )
        })
        .collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
