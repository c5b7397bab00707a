//! What lies in a state directory: by `spool inspect`, and as files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::node::lane_number;
use crate::scenario::expect::{number, text};
use crate::scenario::program::json_lines;
use crate::scenario::tools::Tools;

/// What `spool inspect --json` says.
pub fn inspect(tools: &Tools, state: &Path) -> Result<Value> {
    let directory = state.to_str().context("the state directory is not UTF-8")?;
    // Its exit code says whether anything is damaged.
    let said = Command::new(&tools.agent)
        .args(["spool", "inspect", directory, "--json"])
        .output()
        .context("starting culprit-agent spool inspect")?;
    json_lines(&said.stdout)?.pop().with_context(|| {
        let error = String::from_utf8_lossy(&said.stderr);
        format!("spool inspect printed nothing: {error}")
    })
}

/// Where the records on disk end, by lane; 0 where there are none.
pub fn ends(tools: &Tools, state: &Path) -> Result<[u64; 3]> {
    let said = inspect(tools, state)?;
    let rows = said
        .get("lanes")
        .and_then(Value::as_array)
        .with_context(|| format!("no `lanes` in {said}"))?;
    let mut ends = [0; 3];
    for row in rows {
        let segments = row.get("segments").and_then(Value::as_array);
        for segment in segments.into_iter().flatten() {
            let end = &mut ends[lane_number(text(row, "/lane"))?];
            *end = (*end).max(number(segment, "/end")?);
        }
    }
    Ok(ends)
}

/// The names of all records on disk. For a spool without damage: a segment is
/// whole from its first number to its end.
pub fn records(tools: &Tools, state: &Path) -> Result<BTreeSet<(String, u64)>> {
    let said = inspect(tools, state)?;
    let rows = said.get("lanes").and_then(Value::as_array);
    let mut names = BTreeSet::new();
    for row in rows.with_context(|| format!("no `lanes` in {said}"))? {
        let segments = row.get("segments").and_then(Value::as_array);
        for segment in segments.into_iter().flatten() {
            let numbers = number(segment, "/first")?..number(segment, "/end")?;
            ensure!(
                number(segment, "/records")? == numbers.end - numbers.start,
                "a segment with holes: {segment}"
            );
            names.extend(numbers.map(|seq| (text(row, "/lane").to_owned(), seq)));
        }
    }
    Ok(names)
}

/// The segments of a lane (0, 1, 2), oldest first.
pub fn segments(state: &Path, lane: usize) -> Result<Vec<PathBuf>> {
    let directory = state.join(format!("lane{lane}"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .with_context(|| directory.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "seg"));
    files.sort();
    Ok(files)
}

/// Copies a state directory: plain files and directories, no sockets.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target)
                .with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}
