//! Where things lie in the working tree.

use std::path::{Path, PathBuf};

/// The workspace's top directory.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory, `CARGO_TARGET_DIR` or `target`.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where results and downloaded material of xtask go; safe to delete.
pub(crate) fn work() -> PathBuf {
    target().join("culprit")
}

/// What is dear to fetch and outlives `cargo clean`: kernels, package lists. Safe to delete.
pub(crate) fn cache() -> PathBuf {
    match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) => PathBuf::from(dir).join("culprit"),
        (None, Some(home)) => Path::new(&home).join(".cache/culprit"),
        (None, None) => work().join("cache"),
    }
}

/// `CARGO_HOME` or its default.
pub(crate) fn cargo_home() -> PathBuf {
    match (std::env::var_os("CARGO_HOME"), std::env::var_os("HOME")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(home)) => Path::new(&home).join(".cargo"),
        (None, None) => PathBuf::from("/root/.cargo"),
    }
}

/// The first executable of that name on the PATH, then in cargo's bin directory.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([cargo_home().join("bin"), "/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}
