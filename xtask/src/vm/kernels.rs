//! The kernels of the matrix: Debian's cloud images, unpacked below the cache.

use super::debian::Suite;
use crate::paths;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// How cgroups are mounted in the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    V1,
    V2,
}

/// One row of the matrix.
pub(crate) struct Machine {
    /// What the table and `--kernel` call it.
    pub(crate) name: &'static str,
    suite: &'static str,
    /// The release must begin so, else the suite has moved on and the table must be told.
    release: &'static str,
    pub(crate) cgroups: Cgroups,
    pub(crate) lockdown: bool,
}

/// All rows, in the order they run.
pub(crate) const MACHINES: &[Machine] = &[
    machine("5.10", "bullseye", "5.10.", Cgroups::V2, false),
    machine("6.1-v1", "bookworm", "6.1.", Cgroups::V1, false),
    machine("6.1-v2", "bookworm", "6.1.", Cgroups::V2, false),
    machine("6.12", "trixie", "6.12.", Cgroups::V2, false),
    machine("7.2", "sid", "7.", Cgroups::V2, false),
    machine("6.1-lockdown", "bookworm", "6.1.", Cgroups::V2, true),
    machine("6.12-lockdown", "trixie", "6.12.", Cgroups::V2, true),
];

const fn machine(
    name: &'static str,
    suite: &'static str,
    release: &'static str,
    cgroups: Cgroups,
    lockdown: bool,
) -> Machine {
    Machine {
        name,
        suite,
        release,
        cgroups,
        lockdown,
    }
}

/// A kernel on disk.
pub(crate) struct Kernel {
    /// `uname -r`.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// `lib/modules/<release>`.
    pub(crate) modules: PathBuf,
}

impl Machine {
    fn dir(&self) -> PathBuf {
        paths::cache().join("kernels").join(self.suite)
    }

    /// Whether its kernel needs no download.
    pub(crate) fn present(&self) -> bool {
        find(&self.dir()).is_ok()
    }

    /// The unpacked kernel; downloads it when the cache has none. `refresh` looks for a newer one.
    pub(crate) fn kernel(&self, refresh: bool) -> Result<Kernel> {
        let dir = self.dir();
        if refresh && dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        if !dir.exists() {
            download(self.suite, &dir)?;
        }
        let kernel = find(&dir)?;
        if !kernel.release.starts_with(self.release) {
            bail!(
                "Debian {} now has kernel {}, the matrix row {} wants {}x: mend the table in xtask/src/vm/kernels.rs",
                self.suite,
                kernel.release,
                self.name,
                self.release
            );
        }
        Ok(kernel)
    }
}

fn download(suite: &str, dir: &Path) -> Result<()> {
    let apt = Suite::new(suite)?;
    apt.update()?;
    // The meta package names the image; newer suites split it into linux-binary and linux-modules.
    let mut wanted = BTreeSet::new();
    let mut open = vec![META_PACKAGE.to_owned()];
    while let Some(package) = open.pop() {
        for name in apt.depends(&package)? {
            let kernel_part = ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if kernel_part && wanted.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    if wanted.is_empty() {
        bail!("Debian {suite}: {META_PACKAGE} names no kernel image");
    }
    let packages: Vec<String> = wanted.into_iter().collect();
    let unfinished = dir.with_extension("new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)
            .with_context(|| format!("removing {}", unfinished.display()))?;
    }
    apt.unpack(&packages, &unfinished)?;
    find(&unfinished)?;
    std::fs::rename(&unfinished, dir).with_context(|| format!("renaming to {}", dir.display()))
}

fn find(dir: &Path) -> Result<Kernel> {
    // Debian's split packages have the modules below usr.
    for base in [dir.to_path_buf(), dir.join("usr")] {
        let all = base.join("lib/modules");
        let Ok(entries) = std::fs::read_dir(&all) else {
            continue;
        };
        for entry in entries.flatten() {
            let release = entry.file_name().to_string_lossy().into_owned();
            let modules = entry.path();
            let images = [
                dir.join("boot").join(format!("vmlinuz-{release}")),
                modules.join("vmlinuz"),
            ];
            if let Some(image) = images.into_iter().find(|image| image.is_file()) {
                return Ok(Kernel {
                    release,
                    image,
                    modules,
                });
            }
        }
    }
    bail!(
        "no kernel image with modules below {} (mend: remove that directory and run again)",
        dir.display()
    )
}
