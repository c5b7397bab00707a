//! Where files go that the spool cannot use: kept for a while, bounded, so that
//! a person can look at them.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use culprit_proto::text::escape;

use super::QUARANTINE;
use super::fs::{Entry, Fs};

/// Most files kept.
pub const MAX_FILES: usize = 16;
/// Most bytes kept.
pub const MAX_BYTES: u64 = 16 << 20;

/// What was moved and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Files moved to quarantine.
    pub files: u64,
    /// Files that were deleted to keep the bound.
    pub deleted: u64,
}

/// Moves `path` into the quarantine of `dir`, where the oldest make room.
/// `label` begins its name there.
pub(super) fn put<F: Fs>(
    fs: &F,
    dir: &Path,
    path: &Path,
    label: &str,
    moved: &mut Moved,
) -> io::Result<()> {
    let home = dir.join(QUARANTINE);
    fs.make_dir(&home)?;
    let number = sorted(fs, &home)?
        .last()
        .map_or(0, |(number, _)| number.saturating_add(1));
    let name = path.file_name().unwrap_or(OsStr::new("file"));
    // A name of bytes that mean something to a terminal is kept readable.
    let name: String = escape(&name.to_string_lossy())
        .chars()
        .filter(|c| *c != '/' && *c != '\\')
        .take(60)
        .collect();
    fs.rename(path, &home.join(format!("{number:08}-{label}{name}")))?;
    moved.files += 1;
    // It must not be found a second time after a crash.
    fs.sync_dir(&home)?;
    fs.sync_dir(path.parent().unwrap_or(dir))?;
    moved.deleted += bound(fs, &home)?;
    Ok(())
}

/// Files in quarantine, oldest first: names begin with a number that rises.
fn sorted<F: Fs>(fs: &F, home: &Path) -> io::Result<Vec<(u64, Entry)>> {
    let mut files: Vec<_> = fs
        .list(home)?
        .into_iter()
        .filter(|entry| !entry.dir)
        .map(|entry| {
            let name = entry.name.to_string_lossy();
            let number = name.split('-').next().and_then(|n| n.parse().ok());
            (number.unwrap_or(0), entry)
        })
        .collect();
    files.sort();
    Ok(files)
}

fn bound<F: Fs>(fs: &F, home: &Path) -> io::Result<u64> {
    let files = sorted(fs, home)?;
    let mut left = files.len();
    let mut bytes: u64 = files.iter().map(|(_, file)| file.bytes).sum();
    let mut deleted = 0;
    for (_, file) in files {
        if left <= MAX_FILES && bytes <= MAX_BYTES {
            break;
        }
        fs.remove(&home.join(&file.name))?;
        deleted += 1;
        left -= 1;
        bytes -= file.bytes;
    }
    Ok(deleted)
}
