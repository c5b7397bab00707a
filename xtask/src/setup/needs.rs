//! The table of needs.

use super::{Kind, Need, rust};
use crate::{paths, sh, vm};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// PyPI package with the Kubernetes API schemas, and the version that is known to work.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";

/// In the order they are installed.
pub(super) const NEEDS: &[Need] = &[
    Need {
        what: "C compiler",
        why: "builds the embedded SQLite and libFuzzer",
        kind: Kind::Packages(&["gcc", "g++", "libc6-dev"]),
    },
    Need {
        what: "rustfmt and clippy",
        why: "the unit tier checks format and lints",
        kind: Kind::Other {
            present: rust::lint_tools_present,
            install: rust::install_lint_tools,
        },
    },
    Need {
        what: "BPF toolchain",
        why: "rebuilds the BPF object and proves the committed one",
        kind: Kind::Other {
            present: rust::bpf_present,
            install: rust::install_bpf,
        },
    },
    Need {
        what: "network tools",
        why: "the live tests make network namespaces and ping through them",
        kind: Kind::Packages(&["iproute2", "iputils-ping", "nftables"]),
    },
    Need {
        what: "virtual machines",
        why: "the kernel matrix runs in QEMU",
        kind: Kind::Packages(&[
            "qemu-system-x86",
            "busybox-static",
            "xz-utils",
            "debian-archive-keyring",
        ]),
    },
    Need {
        what: "kernels of the matrix",
        why: "Debian's 5.10 to 7.2, about 100 MB, kept in the cache directory",
        kind: Kind::Other {
            present: vm::kernels_present,
            install: vm::fetch_kernels,
        },
    },
    Need {
        what: "container runtime",
        why: "the containerd tests run real pods; they start their own daemon with its own directories",
        kind: Kind::Packages(&["containerd", "runc", "containernetworking-plugins"]),
    },
    Need {
        what: "containerd 1.7 and 2",
        why: "the containerd tests run with these too; unpacked into the cache directory, not installed",
        kind: Kind::Other {
            present: || CONTAINERDS.iter().all(|one| one.program().is_file()),
            install: || CONTAINERDS.iter().try_for_each(Containerd::install),
        },
    },
    Need {
        what: "python3-venv",
        why: "holds the Kubernetes schemas",
        kind: Kind::Packages(&["python3-venv"]),
    },
    Need {
        what: "Kubernetes schemas",
        why: "the unit tier validates the manifests in deploy/; in a Python environment of its own",
        kind: Kind::Other {
            present: || {
                schemas_python()
                    .with_file_name("kubernetes-validate")
                    .is_file()
            },
            install: install_schemas,
        },
    },
];

/// A containerd beside the installed one.
pub(crate) struct Containerd {
    /// Its version begins so.
    pub(crate) version: &'static str,
    /// The suite of Debian that has it.
    suite: &'static str,
}

/// Those that the tests run with.
pub(crate) const CONTAINERDS: [Containerd; 2] = [
    Containerd {
        version: "1.7",
        suite: "trixie",
    },
    Containerd {
        version: "2.",
        suite: "sid",
    },
];

impl Containerd {
    fn dir(&self) -> PathBuf {
        let version = self.version.trim_end_matches('.');
        paths::cache().join(format!("containerd-{version}"))
    }

    /// Where setup puts it.
    pub(crate) fn program(&self) -> PathBuf {
        self.dir().join("usr/bin/containerd")
    }

    fn install(&self) -> Result<()> {
        if self.program().is_file() {
            return Ok(());
        }
        let suite = vm::debian::Suite::new(self.suite)?;
        suite.update()?;
        suite.unpack(&["containerd".to_owned()], &self.dir())
    }
}

/// The Python that has the Kubernetes schemas.
pub(crate) fn schemas_python() -> PathBuf {
    paths::work().join("venv/bin/python3")
}

fn install_schemas() -> Result<()> {
    let venv = paths::work().join("venv");
    sh::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    sh::run(Command::new(schemas_python()).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        SCHEMAS,
    ]))
}
