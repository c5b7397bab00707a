//! The manifests in deploy/ against the Kubernetes schemas.

use crate::test::Tally;
use crate::{paths, setup, sh};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest version that knows every field we use, and the newest the validator knows.
const VERSIONS: &[&str] = &["1.30", "1.37"];
/// Kustomize's own file has no schema in Kubernetes.
const KUSTOMIZATION: &str = "kustomization.yaml";

/// Every manifest against every version, and whether kustomize's list is complete.
pub(crate) fn validate() -> Result<Tally> {
    let dir = paths::root().join("deploy/kubernetes");
    let files = manifests(&dir)?;
    let mut tally = Tally::default();
    tally.check("deploy/kubernetes/kustomization.yaml", listed(&dir, &files));
    let validator = setup::schemas_python().with_file_name("kubernetes-validate");
    if !validator.is_file() {
        tally
            .left_out
            .push("unit: no Kubernetes schemas (mend: `cargo xtask setup`)".into());
        return Ok(tally);
    }
    for version in VERSIONS {
        let mut command = Command::new(&validator);
        command
            .args(["--quiet", "--strict", "-k", version])
            .args(&files);
        tally.check(
            &format!("manifests against Kubernetes {version}"),
            sh::run(&mut command),
        );
    }
    Ok(tally)
}

fn manifests(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .filter(|path| !path.ends_with(KUSTOMIZATION))
        .collect();
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} has no manifest", dir.display());
    Ok(files)
}

/// `kubectl apply -k` must not leave one out.
fn listed(dir: &Path, files: &[PathBuf]) -> Result<()> {
    let path = dir.join(KUSTOMIZATION);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        anyhow::ensure!(
            text.lines().any(|line| line.trim() == format!("- {name}")),
            "{name} is not in the list of resources"
        );
    }
    Ok(())
}
