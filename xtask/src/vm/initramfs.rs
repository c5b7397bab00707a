//! The machine's whole userland: busybox, our static binaries, modules and `/init`.

use super::modules::Module;
use crate::{binaries::Binaries, paths};
use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Where the binaries lie in the machine.
pub(crate) const BIN_DIR: &str = "/culprit";

/// A file that only some machines have.
pub(crate) struct File {
    /// Without a slash at its begin.
    pub(crate) path: String,
    pub(crate) executable: bool,
    pub(crate) content: Vec<u8>,
}

impl File {
    /// A program or library of this machine.
    pub(crate) fn read(from: &Path, to: String) -> Result<Self> {
        let content = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        Ok(Self {
            path: to,
            executable: true,
            content,
        })
    }
}

/// An uncompressed cpio archive (the image has every decompressor it needs: none).
pub(crate) fn build(modules: &[Module], binaries: &Binaries, more: &[File]) -> Result<Vec<u8>> {
    let mut archive = Archive {
        bytes: Vec::new(),
        inode: 1,
    };
    for dir in [
        "bin", "dev", "etc", "proc", "sys", "tmp", "run", "var", "modules", "culprit",
    ] {
        archive.add(dir, DIRECTORY, (0, 0), &[])?;
    }
    // The kernel opens it for init's standard streams before anything is mounted.
    archive.add("dev/console", CHARACTER_DEVICE, (5, 1), &[])?;
    archive.add("init", EXECUTABLE, (0, 0), include_bytes!("init.sh"))?;
    archive.add("etc/passwd", FILE, (0, 0), b"root:x:0:0:root:/:/bin/sh\n")?;
    let busybox =
        paths::find_program("busybox").context("busybox is missing: install busybox-static")?;
    archive.add("bin/busybox", EXECUTABLE, (0, 0), &std::fs::read(busybox)?)?;
    let mut order = String::new();
    for module in modules {
        archive.add(
            &format!("modules/{}", module.file),
            FILE,
            (0, 0),
            &module.content,
        )?;
        order.push_str(&module.file);
        order.push('\n');
    }
    archive.add("modules/order", FILE, (0, 0), order.as_bytes())?;
    for binary in binaries.all()? {
        let name = binary
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let content =
            std::fs::read(&binary).with_context(|| format!("reading {}", binary.display()))?;
        archive.add(
            &format!("{}/{name}", &BIN_DIR[1..]),
            EXECUTABLE,
            (0, 0),
            &content,
        )?;
    }
    let mut made = BTreeSet::new();
    for file in more {
        let mut parents: Vec<&Path> = Path::new(&file.path).ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.iter().filter(|path| path.iter().count() > 0) {
            if made.insert(parent.to_path_buf()) {
                archive.add(&parent.to_string_lossy(), DIRECTORY, (0, 0), &[])?;
            }
        }
        let mode = if file.executable { EXECUTABLE } else { FILE };
        archive.add(&file.path, mode, (0, 0), &file.content)?;
    }
    trailer(&mut archive.bytes)?;
    Ok(archive.bytes)
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let entry = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .nlink(1)
            .rdev_major(device.0)
            .rdev_minor(device.1);
        self.inode += 1;
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}
