//! Which kernel modules the machines get, in the order they load.

use super::kernels::Kernel;
use crate::sh;
use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the scenarios need beyond the image; a kernel that has one built in has no file for it.
const WANTED: &[&str] = &[
    "veth",
    "dummy",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_compat",
    "xt_NFQUEUE",
    "nfnetlink_queue",
    "sch_netem",
    "virtio_pci",
    "virtio_net",
];

/// A module with its decompressed content.
pub(crate) struct Module {
    /// `veth.ko`.
    pub(crate) file: String,
    pub(crate) content: Vec<u8>,
}

/// The wanted modules and what they depend on, dependencies first.
pub(crate) fn load(kernel: &Kernel) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(&kernel.modules.join("kernel"), &mut files)?;
    let mut modules = Vec::new();
    for wanted in WANTED {
        if files.contains_key(*wanted) {
            add(wanted, &mut files, &mut modules)?;
        }
    }
    Ok(modules)
}

/// All module files by name.
fn index(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.insert(stem(&name).replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Adds the module behind what it needs; taking it out of `files` marks it as done.
fn add(name: &str, files: &mut BTreeMap<String, PathBuf>, modules: &mut Vec<Module>) -> Result<()> {
    let Some(path) = files.remove(name) else {
        return Ok(());
    };
    let content = content(&path)?;
    for needed in needs(&content).with_context(|| format!("reading {}", path.display()))? {
        add(&needed, files, modules)?;
    }
    modules.push(Module {
        file: format!("{name}.ko"),
        content,
    });
    Ok(())
}

/// The module's `depends=` list.
fn needs(content: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(content)?;
    let info = file
        .section_by_name(".modinfo")
        .context("no .modinfo")?
        .data()?;
    Ok(info
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// `veth.ko.xz` -> `veth`.
fn stem(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

fn content(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|ext| ext == "xz") {
        let mut command = Command::new("xz");
        command.arg("-dc").arg(path);
        let output = command
            .output()
            .with_context(|| format!("starting `{}`", sh::shown(&command)))?;
        anyhow::ensure!(output.status.success(), "`{}` failed", sh::shown(&command));
        return Ok(output.stdout);
    }
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn a_module_is_known_by_its_name_without_compression() {
        assert_eq!(stem("veth.ko.xz"), "veth");
        assert_eq!(stem("nf_conntrack.ko"), "nf_conntrack");
    }
}
