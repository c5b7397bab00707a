//! Container images with one static binary, made here: no registry is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

/// Makes an image archive in `directory` with `program` at /culprit-load.
pub fn archive(directory: &Path, program: &Path, tag: &str) -> Result<PathBuf> {
    let work = directory.join(tag.replace(['/', ':'], "-"));
    let root = work.join("root");
    std::fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    std::fs::copy(program, root.join("culprit-load"))
        .with_context(|| format!("copying {}", program.display()))?;
    let layer = work.join("layer.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&layer)
        .arg("."))?;
    let digest = run(Command::new("sha256sum").arg(&layer))?;
    let digest = digest
        .split_whitespace()
        .next()
        .context("sha256sum printed nothing")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": ["/culprit-load"], "Cmd": ["park"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    std::fs::write(work.join("config.json"), config.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"] }]);
    std::fs::write(work.join("manifest.json"), manifest.to_string())?;
    let archive = work.join("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&work)
        .arg("-cf")
        .arg(&archive)
        .args(["manifest.json", "config.json", "layer.tar"]))?;
    Ok(archive)
}

/// Runs a program to its end and gives its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
