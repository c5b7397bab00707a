//! `cargo xtask setup`: installs what is missing, says what and why, and is quick when nothing is.

mod apt;
mod needs;
mod rust;

use anyhow::{Result, bail};
pub(crate) use needs::{CONTAINERDS, schemas_python};

/// What `setup` can be asked.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Say what is missing and install nothing; fail when something is.
    #[arg(long)]
    dry_run: bool,
}

/// One thing the project's commands need.
pub(crate) struct Need {
    /// What it is, as the user reads it.
    pub(crate) what: &'static str,
    /// What does not work without it.
    pub(crate) why: &'static str,
    pub(crate) kind: Kind,
}

/// How a need is met.
pub(crate) enum Kind {
    /// Debian packages.
    Packages(&'static [&'static str]),
    /// Something else: is it there, and how it is installed.
    Other {
        present: fn() -> bool,
        install: fn() -> Result<()>,
    },
}

/// Entry point of the command.
///
/// # Errors
/// When something is still missing at the end; what could be installed is installed all the same.
pub(crate) fn run(options: &Options) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    for (need, lacks) in &missing {
        println!("setup: missing {lacks} ({}: {})", need.what, need.why);
    }
    if options.dry_run {
        bail!(
            "{} of the project's needs are missing; run `cargo xtask setup` as root",
            missing.len()
        );
    }
    let mut failed = Vec::new();
    for (need, lacks) in &missing {
        println!("setup: installing {lacks}");
        let result = match &need.kind {
            Kind::Packages(names) => apt::install(names),
            Kind::Other { install, .. } => install(),
        };
        if let Err(error) = result {
            println!("setup: {lacks} failed: {error:#}");
            failed.push(need.what);
        }
    }
    if !failed.is_empty() {
        bail!(
            "setup could not install everything; still missing: {}",
            failed.join(", ")
        );
    }
    println!("setup: done");
    Ok(())
}

/// What is missing, with the names of what exactly.
fn missing() -> Vec<(&'static Need, String)> {
    let installed = apt::installed();
    needs::NEEDS
        .iter()
        .filter_map(|need| match &need.kind {
            Kind::Packages(names) => {
                let lacking: Vec<&str> = names
                    .iter()
                    .copied()
                    .filter(|name| !installed.contains(*name))
                    .collect();
                (!lacking.is_empty()).then(|| (need, lacking.join(" ")))
            }
            Kind::Other { present, .. } => (!present()).then(|| (need, need.what.to_owned())),
        })
        .collect()
}
