//! Walks the mounted hierarchies: directory names and inode numbers only, no
//! file in them is ever opened (reading `memory.stat` of many cgroups is one
//! of the faults this project looks for).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::hierarchy::{Hierarchies, Mount};
use super::tree::{Key, MAX_CGROUPS};

/// Deepest directory visited, below the mount.
const MAX_DEPTH: usize = 32;

/// What one walk saw.
pub(super) struct Walk {
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) seen: HashMap<Key, String>,
    /// False when a bound ended it early.
    pub(super) complete: bool,
    /// Directories that could not be read.
    pub(super) errors: u64,
    hierarchies: Vec<u32>,
}

impl Walk {
    /// Visits every directory of every hierarchy, at most [`MAX_CGROUPS`].
    pub(super) fn all(hierarchies: &Hierarchies) -> Self {
        let mut walk = Self {
            began: Instant::now(),
            took: Duration::ZERO,
            seen: HashMap::new(),
            complete: true,
            errors: 0,
            hierarchies: Vec::new(),
        };
        for mount in hierarchies.mounts() {
            walk.hierarchies.push(mount.id);
            walk.seen.insert((mount.id, mount.root_ino), "/".to_owned());
            walk.directory(mount, &mount.path, "", 0);
        }
        walk.took = walk.began.elapsed();
        walk
    }

    pub(super) fn covers(&self, hierarchy: u32) -> bool {
        self.hierarchies.contains(&hierarchy)
    }

    fn directory(&mut self, mount: &Mount, dir: &Path, below: &str, depth: usize) {
        let Ok(entries) = fs::read_dir(dir) else {
            self.errors += 1;
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if self.seen.len() >= MAX_CGROUPS || depth >= MAX_DEPTH {
                self.complete = false;
                return;
            }
            let path = format!("{below}/{}", entry.file_name().to_string_lossy());
            self.seen.insert((mount.id, entry.ino()), path.clone());
            self.directory(mount, &entry.path(), &path, depth + 1);
        }
    }
}
