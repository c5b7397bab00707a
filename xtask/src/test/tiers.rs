//! The tiers, and what each needs.

use super::{Shared, Tally, cargo_tests, fuzz, scenario};
use crate::{deploy, ebpf, paths, setup, sh, vm};
use anyhow::Result;
use vm::matrix::Verdict;

/// Parts of the test run that can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Format, lints, unit tests, manifests.
    Unit,
    /// The committed BPF object is what its sources build to.
    EbpfCheck,
    /// The scenarios on this machine's kernel; needs root.
    Live,
    /// Kills, full disks, damage, cuts and floods between agent and collector; needs root.
    Delivery,
    /// The scenarios on every kernel of the matrix.
    Vm,
    /// Real pods on two machines as two nodes.
    Nodes,
    /// Real pods in containerd; needs root.
    Containerd,
    /// Each decoder against a fuzzer for a short time.
    FuzzSmoke,
}

const ALL: &[Tier] = &[
    Tier::Unit,
    Tier::EbpfCheck,
    Tier::Live,
    Tier::Delivery,
    Tier::Vm,
    Tier::Nodes,
    Tier::Containerd,
    Tier::FuzzSmoke,
];

pub(super) fn chosen(wanted: &[Tier]) -> Vec<Tier> {
    ALL.iter()
        .copied()
        .filter(|tier| wanted.is_empty() || wanted.contains(tier))
        .collect()
}

impl Tier {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::EbpfCheck => "ebpf-check",
            Self::Live => "live",
            Self::Delivery => "delivery",
            Self::Vm => "vm",
            Self::Nodes => "nodes",
            Self::Containerd => "containerd",
            Self::FuzzSmoke => "fuzz-smoke",
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it broke as a whole; single failures are in the tally.
    pub(super) fn run(self, shared: &mut Shared) -> Result<Tally> {
        match self {
            Self::Unit => unit(),
            Self::EbpfCheck => ebpf_check(),
            Self::Live if !crate::is_root() => Ok(Tally::left_out("live: not root")),
            Self::Live => scenario::run(shared, "culprit-scenario", &[]),
            Self::Delivery if !crate::is_root() => Ok(Tally::left_out("delivery: not root")),
            Self::Delivery => scenario::run(shared, "culprit-delivery", &[]),
            Self::Vm => matrix(shared),
            Self::Nodes => nodes(shared),
            Self::Containerd => containerd(shared),
            Self::FuzzSmoke => fuzz::run(),
        }
    }
}

fn unit() -> Result<Tally> {
    let mut tally = Tally::default();
    tally.check(
        "cargo fmt",
        sh::run(sh::cargo().args(["fmt", "--all", "--check"])),
    );
    tally.check(
        "cargo clippy",
        sh::run(sh::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"])),
    );
    tally.add(cargo_tests::run()?);
    tally.add(deploy::validate()?);
    Ok(tally)
}

fn ebpf_check() -> Result<Tally> {
    let mut tally = Tally::default();
    match ebpf::check(None) {
        Ok(ebpf::Checked::Rebuilt) => tally.passed += 1,
        Ok(ebpf::Checked::HashOnly(why)) => {
            tally.passed += 1;
            tally
                .left_out
                .push(format!("ebpf-check: only the hash was compared: {why}"));
        }
        Err(error) => tally.check("the committed BPF object", Err(error)),
    }
    Ok(tally)
}

fn matrix(shared: &mut Shared) -> Result<Tally> {
    for program in ["qemu-system-x86_64", "busybox", "xz"] {
        if paths::find_program(program).is_none() {
            return Ok(Tally::left_out(format!(
                "vm: no {program} (mend: `cargo xtask setup`)"
            )));
        }
    }
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Tally::left_out("vm: the matrix has x86_64 kernels only"));
    }
    let matrix = vm::measure_all(shared.binaries()?)?;
    let mut tally = Tally::default();
    for row in &matrix.rows {
        tally.passed += row.count(Verdict::Pass);
    }
    // Said by the matrix itself already.
    tally.failed = matrix.failures();
    Ok(tally)
}

fn nodes(shared: &mut Shared) -> Result<Tally> {
    for program in ["qemu-system-x86_64", "busybox", "xz", "containerd", "runc"] {
        if paths::find_program(program).is_none() {
            return Ok(Tally::left_out(format!(
                "nodes: no {program} (mend: `cargo xtask setup`)"
            )));
        }
    }
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Tally::left_out("nodes: the machines' kernels are x86_64"));
    }
    let mut tally = Tally::default();
    if crate::is_root() {
        // First a node by itself, on this machine's kernel.
        tally.add(scenario::run(shared, "culprit-nodes", &[])?);
    } else {
        tally
            .left_out
            .push("nodes: one by itself on this machine's kernel: not root".to_owned());
    }
    let rows = vm::nodes::run(shared.binaries()?)?;
    vm::nodes::show(&rows)?;
    for row in &rows {
        tally.passed += row.count(Verdict::Pass);
    }
    // Said already.
    tally.failed.extend(vm::matrix::Matrix { rows }.failures());
    Ok(tally)
}

fn containerd(shared: &mut Shared) -> Result<Tally> {
    if !crate::is_root() {
        return Ok(Tally::left_out("containerd: not root"));
    }
    for program in ["containerd", "runc"] {
        if paths::find_program(program).is_none() {
            return Ok(Tally::left_out(format!(
                "containerd: no {program} (mend: `cargo xtask setup`)"
            )));
        }
    }
    let mut tally = scenario::run(shared, "culprit-containerd", &[])?;
    for one in setup::CONTAINERDS {
        let program = one.program();
        let Some(dir) = program.parent().filter(|_| program.is_file()) else {
            tally.left_out.push(format!(
                "containerd: no {} (mend: `cargo xtask setup`)",
                one.version
            ));
            continue;
        };
        let dir = dir.display().to_string();
        let words = ["--containerd-dir", &dir, "--version", one.version];
        tally.add(scenario::run(shared, "culprit-containerd", &words)?);
    }
    Ok(tally)
}
