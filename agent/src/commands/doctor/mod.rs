//! `culprit-agent doctor`.

mod checks;
mod privileges;
mod render;

use std::io::{self, Write};
use std::process::ExitCode;

use culprit_proto::json;
use serde::Serialize;
use tokio::runtime::Handle;

use super::cli::DoctorArgs;
use super::run::cri_choice;
use crate::identity::{Identifier, IdentityConfig, IdentityStatus};
use crate::kernel::{self, KernelOptions, ProbeReport};
use checks::Check;
use privileges::Privileges;

/// What this node allows.
#[derive(Debug, Serialize)]
struct Report {
    /// `uname -r`.
    kernel: String,
    /// Every probe can run in some flavour.
    ok: bool,
    /// Why no probe can run at all, with the mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    probes: Vec<ProbeReport>,
    /// Fields this kernel's types do not have; only details depend on them.
    missing_fields: Vec<&'static str>,
    privileges: Privileges,
    checks: Vec<Check>,
    /// How containers and pods are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityStatus>,
}

/// Runs the command; fails unless every probe can run in some flavour.
pub(super) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let privileges = privileges::look(args);
    let (probes, missing_fields, error) = match kernel::examine(&KernelOptions::default()) {
        Ok((facts, probes)) => (probes, facts.missing_optional(), None),
        Err(error) => (vec![], vec![], Some(error.to_string())),
    };
    let (identity, cgroups) = identity(args);
    let mut checks = checks::all(args, &privileges);
    checks.push(cgroups);
    checks.extend(identity.as_ref().map(checks::runtime));
    let report = Report {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        ok: error.is_none() && probes.iter().all(|probe| probe.chosen.is_some()),
        error,
        probes,
        missing_fields,
        privileges,
        checks,
        identity,
    };
    let text = if args.json {
        json::to_line(&report)? + "\n"
    } else {
        render::text(&report)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Looks at cgroups and runtime the way `run` does.
fn identity(args: &DoctorArgs) -> (Option<IdentityStatus>, Check) {
    let config = IdentityConfig {
        cri: cri_choice(Some(&args.cri)),
        proc_root: args.proc_root.clone(),
        cgroup_root: args.cgroup_root.clone(),
        ..IdentityConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let status = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let status = runtime
            .block_on(async { Identifier::start(config, &Handle::current()).map(|i| i.status()) });
        runtime.shutdown_background();
        status
    });
    let check = checks::cgroups(&args.cgroup_root, status.as_ref());
    (status.ok(), check)
}
