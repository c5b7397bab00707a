//! Packages of any Debian suite without touching the system's apt: a private apt root per suite.

use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite (`bookworm`, `sid`...) with apt lists, cache and configuration of its own.
pub(crate) struct Suite {
    name: String,
    root: PathBuf,
}

impl Suite {
    /// Creates the private root; nothing is downloaded yet.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let root = paths::cache().join("apt").join(name);
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let write = |file: &str, content: String| {
            sh::write_if_changed(&root.join(file), content.as_bytes())
        };
        write("status", String::new())?;
        write(
            "sources.list",
            format!("deb [arch=amd64 signed-by={KEYRING}] {MIRROR} {name} main\n"),
        )?;
        let at = root.display();
        // sid's Release file may be past its date on a snapshot mirror: only its age is waived,
        // the signature is still checked.
        write(
            "apt.conf",
            format!(
                "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Acquire::Check-Valid-Until \"false\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"root\";\n"
            ),
        )?;
        Ok(Self {
            name: name.to_owned(),
            root,
        })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    /// Fetches the suite's package lists.
    pub(crate) fn update(&self) -> Result<()> {
        println!("fetching the package lists of Debian {}", self.name);
        sh::output(self.apt("apt-get").args(["-q", "update"])).map(drop)
    }

    /// The direct dependencies of a package, virtual ones left out.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = sh::output(self.apt("apt-cache").args([
            "depends",
            "--no-recommends",
            "--no-suggests",
            "--no-enhances",
            "--no-breaks",
            "--no-conflicts",
            "--no-replaces",
            package,
        ]))?;
        Ok(text
            .lines()
            .filter_map(|line| {
                line.trim()
                    .trim_start_matches('|')
                    .strip_prefix("Depends: ")
            })
            .filter(|name| !name.starts_with('<'))
            .map(str::to_owned)
            .collect())
    }

    /// Downloads the packages (their signatures and checksums are apt's work) and unpacks them
    /// over each other into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = into.with_extension("debs");
        for dir in [into, &debs] {
            std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        println!(
            "downloading {} from Debian {}",
            packages.join(", "),
            self.name
        );
        sh::output(
            self.apt("apt-get")
                .args(["-q", "download"])
                .args(packages)
                .current_dir(&debs),
        )?;
        let mut count = 0;
        for deb in
            std::fs::read_dir(&debs).with_context(|| format!("reading {}", debs.display()))?
        {
            sh::run(Command::new("dpkg").arg("-x").arg(deb?.path()).arg(into))?;
            count += 1;
        }
        std::fs::remove_dir_all(&debs).with_context(|| format!("removing {}", debs.display()))?;
        if count < packages.len() {
            bail!(
                "Debian {} gave {count} of the {} packages asked for",
                self.name,
                packages.len()
            );
        }
        Ok(())
    }
}
