//! The static binaries that tests, machines and measurements run.

use crate::{paths, sh};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// What a user runs.
const PROGRAMS: &[&str] = &["-p=culprit-agent", "-p=culprit-collector"];
/// What the end-to-end tests and measurements run beside it.
const TESTS: &[&str] = &["-p=culprit-tests", "--features=culprit-tests/cri"];

/// Static: they run in an initramfs, a container and here alike.
pub(crate) const RUSTFLAGS: &str = "-Ctarget-feature=+crt-static";

/// A directory with the binaries.
pub(crate) struct Binaries {
    pub(crate) dir: PathBuf,
}

impl Binaries {
    /// Builds programs and tests.
    pub(crate) fn build() -> Result<Self> {
        Self::with(&[PROGRAMS, TESTS].concat(), "testing")
    }

    /// Agent and collector alone, which is quicker.
    pub(crate) fn build_programs() -> Result<Self> {
        Self::with(PROGRAMS, "testing")
    }

    /// As a user gets them, for measurements.
    pub(crate) fn build_release() -> Result<Self> {
        Self::with(&[PROGRAMS, TESTS].concat(), "release")
    }

    fn with(packages: &[&str], profile: &str) -> Result<Self> {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let mut command = sh::cargo();
        command
            .args(["build", "--bins", "--profile", profile, "--target", &target])
            .args(packages)
            .env("RUSTFLAGS", RUSTFLAGS);
        sh::run(&mut command).context("building the static binaries")?;
        Ok(Self {
            dir: paths::target().join(target).join(profile),
        })
    }

    /// Those of a directory when one is named.
    pub(crate) fn at_or_build(dir: Option<&Path>) -> Result<Self> {
        match dir {
            Some(dir) => Ok(Self {
                dir: dir.to_path_buf(),
            }),
            None => Self::build(),
        }
    }

    /// Path of one of them.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The executables for the machines, sorted.
    pub(crate) fn all(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.dir)
            .with_context(|| format!("reading {}", self.dir.display()))?;
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                // What runs on this machine only.
                let here = ["culprit-containerd", "culprit-delivery", "culprit-pods"];
                path.is_file()
                    && name.starts_with("culprit-")
                    && !name.contains('.')
                    && !here.contains(&&*name)
            })
            .collect();
        files.sort();
        Ok(files)
    }
}
