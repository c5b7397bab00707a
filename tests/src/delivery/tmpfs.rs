//! A small file system that can be filled up, and mounted read-only.

use std::ffi::CStr;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

const BALLAST: &str = "ballast";

/// A tmpfs. Unmounted when dropped.
pub struct Tmpfs {
    /// Where it is.
    pub path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of this size ("2m") on an empty directory.
    pub fn new(path: &Path, size: &CStr) -> Result<Self> {
        let mut options = b"mode=0700,size=".to_vec();
        options.extend_from_slice(size.to_bytes_with_nul());
        let options = CStr::from_bytes_with_nul(&options).context("the size holds a NUL")?;
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options)
            .with_context(|| format!("mounting a tmpfs on {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Leaves no room.
    pub fn fill(&self) -> Result<()> {
        let path = self.path.join(BALLAST);
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        // To the last byte: smaller and smaller pieces.
        let mut piece = 1 << 16;
        while piece > 0 {
            match file.write(&vec![0x5a; piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece /= 2,
                Err(error) => bail!("{}: {error}", path.display()),
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub fn make_room(&self) -> Result<()> {
        let path = self.path.join(BALLAST);
        std::fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// No file may be open for writing.
    pub fn read_only(&self) -> Result<()> {
        mount_remount(&self.path, MountFlags::RDONLY, "")
            .with_context(|| format!("remounting {} read-only", self.path.display()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // What still holds it open ends with this process.
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}
