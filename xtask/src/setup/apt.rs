//! Debian packages on this machine.

use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;

/// Names of the installed packages; empty where there is no dpkg.
pub(super) fn installed() -> BTreeSet<String> {
    let listing = sh::output(Command::new("dpkg-query").args([
        "-W",
        "-f",
        "${Package} ${db:Status-Status}\n",
    ]));
    listing
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect()
}

/// Installs them from the sources this machine has, without recommendations and questions.
pub(super) fn install(names: &[&str]) -> Result<()> {
    if paths::find_program("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install what Debian calls {}",
            names.join(" ")
        );
    }
    if !crate::is_root() {
        bail!("not root; run: sudo apt-get install {}", names.join(" "));
    }
    update()?;
    sh::run(
        apt_get()
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(names),
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command
}

/// Once a run: the lists may be older than what the mirror still has.
fn update() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| {
        sh::run(apt_get().args(["update", "-q"])).map_err(|error| format!("{error:#}"))
    })
    .clone()
    .map_err(anyhow::Error::msg)
    .context("fetching the package lists")
}
