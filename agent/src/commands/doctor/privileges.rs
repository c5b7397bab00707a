//! What the agent may do here, what each privilege is for, and how it would
//! run as another user than root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use culprit_proto::text::escape;
use serde::Serialize;

use super::super::cli::DoctorArgs;
use super::super::run::cri_choice;
use crate::identity::{CriChoice, WELL_KNOWN_SOCKETS};
use crate::privilege::{self, Need, WANTED, Wanted};

/// The privileges of this process, which `run` would start with as well.
#[derive(Debug, Serialize)]
pub(super) struct Privileges {
    /// Effective user id.
    pub(super) uid: u32,
    /// Every capability held, as `CAP_...`.
    pub(super) held: Vec<String>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Those that are of use, the necessary ones first.
    pub(super) capabilities: Vec<Row>,
    /// What it takes to run as another user than root, one sentence each.
    pub(super) as_non_root: Vec<String>,
}

/// One capability.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) need: Need,
    /// It, or CAP_SYS_ADMIN where that stands for it, is there.
    pub(super) held: bool,
    /// `run` keeps it once the probes are attached.
    pub(super) kept: bool,
    /// Only another user than root has a use for it.
    pub(super) non_root_only: bool,
    pub(super) purpose: &'static str,
    pub(super) without: &'static str,
}

impl Row {
    /// It is missing, and this user would have a use for it.
    pub(super) fn is_missed(&self, uid: u32) -> bool {
        !self.held && (uid != 0 || !self.non_root_only)
    }
}

/// Looks at this process.
pub(super) fn look(args: &DoctorArgs) -> Privileges {
    // This process has one thread yet, or all have the same.
    let (held, error) = match rustix::thread::capabilities(None) {
        Ok(sets) => (sets.permitted, None),
        Err(error) => (
            rustix::thread::CapabilitySet::empty(),
            Some(format!("not known: capget: {error}")),
        ),
    };
    let row = |wanted: &Wanted| Row {
        name: wanted.name(),
        need: wanted.need,
        held: privilege::is_covered(wanted.set, held),
        kept: wanted.kept,
        non_root_only: wanted.non_root,
        purpose: wanted.purpose,
        without: wanted.without,
    };
    Privileges {
        uid: rustix::process::geteuid().as_raw(),
        held: privilege::names(held),
        error,
        capabilities: WANTED.iter().map(row).collect(),
        as_non_root: as_non_root(args),
    }
}

fn as_non_root(args: &DoctorArgs) -> Vec<String> {
    let program = std::env::current_exe().map_or_else(
        |_| "culprit-agent".to_owned(),
        |path| path.display().to_string(),
    );
    let mut steps = vec![
        format!(
            "setcap cap_bpf,cap_perfmon+ep {} (add cap_sys_ptrace for executables of other users; the file system must not be mounted nosuid), or ambient capabilities",
            escape(&program)
        ),
        format!(
            "the state directory {} must belong to that user",
            escape(&args.state_dir.display().to_string())
        ),
    ];
    steps.extend(
        sockets(args)
            .iter()
            .filter_map(|path| socket_step(path.as_path())),
    );
    steps
}

fn sockets(args: &DoctorArgs) -> Vec<PathBuf> {
    match cri_choice(Some(&args.cri)) {
        CriChoice::Auto => WELL_KNOWN_SOCKETS.map(Into::into).to_vec(),
        CriChoice::None => vec![],
        CriChoice::Socket(path) => vec![path],
    }
}

/// A socket that is not there needs nothing.
fn socket_step(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let mode = meta.mode() & 0o777;
    let shown = path.display().to_string();
    let shown = escape(&shown);
    Some(if mode & 0o002 != 0 {
        format!("{shown} lets everybody in")
    } else if mode & 0o020 != 0 {
        format!("{shown} wants group {} (mode {mode:o})", meta.gid())
    } else {
        format!(
            "{shown} lets in uid {} only (mode {mode:o}): CAP_DAC_OVERRIDE, or names are given up",
            meta.uid()
        )
    })
}
