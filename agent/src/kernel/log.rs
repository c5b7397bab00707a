//! The kernel log's word on an OOM kill: the exact limit owner where
//! `oom_kill_process` cannot be hooked. The kernel prints its `oom-kill:` line
//! before it marks the victim, so the line is there when the record is.
//!
//! Needs CAP_SYSLOG where `kernel.dmesg_restrict` is set; optional.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use culprit_proto::v1::{
    OomKill,
    event::Kind,
    oom_kill::{LimitSource, Scope},
};

use crate::{
    identity::{self, Actor},
    pipeline::source::{Draft, Slot},
};

/// Kills remembered; a record follows its line within milliseconds.
const KILLS: usize = 64;
/// Log lines read for one record; the kernel prints a table of tasks, bounded
/// by what the log buffer holds.
const LINES: usize = 20_000;

/// One `oom-kill:` line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kill {
    /// The victim.
    pid: u32,
    /// Path of the cgroup whose limit was reached, in the memory hierarchy;
    /// None: the node ran out of memory.
    limit_owner: Option<String>,
}

/// Reads /dev/kmsg from where it stood at start.
#[derive(Debug)]
pub(super) struct KernelLog {
    file: File,
    kills: VecDeque<Kill>,
    /// Mount point of the memory controller's hierarchy.
    memory: PathBuf,
}

impl KernelLog {
    /// Opens the log at its end.
    ///
    /// # Errors
    /// Why it cannot be read, with the mend.
    pub(super) fn open(cgroup_root: &Path) -> Result<Self, String> {
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock.cast_signed())
            .open("/dev/kmsg")
            .map_err(|e| format!("/dev/kmsg: {e}; CAP_SYSLOG is needed"))?;
        file.seek(SeekFrom::End(0))
            .map_err(|e| format!("/dev/kmsg: {e}"))?;
        let (memory, _) = identity::memory_root(cgroup_root);
        Ok(Self {
            file,
            kills: VecDeque::new(),
            memory,
        })
    }

    /// Puts the log's limit owner into a kill that has none from the kernel's
    /// own `oom_control`.
    pub(super) fn amend(&mut self, draft: &mut Draft) {
        let Some(Kind::OomKill(event)) = &mut draft.event.kind else {
            return;
        };
        if event.limit_source() == LimitSource::OomControl {
            return;
        }
        self.catch_up();
        let Some(victim) = draft.actors.iter().find(|(slot, _)| *slot == Slot::Who) else {
            return;
        };
        let pids = [victim.1.tid, victim.1.pid];
        let Some(at) = self.kills.iter().rposition(|k| pids.contains(&k.pid)) else {
            return;
        };
        let Some(kill) = self.kills.remove(at) else {
            return;
        };
        let Some(path) = kill.limit_owner else {
            event.set_scope(Scope::Node);
            event.set_limit_source(LimitSource::KernelLog);
            (event.limit_bytes, event.usage_bytes) = (0, 0);
            draft.actors.retain(|(slot, _)| *slot != Slot::LimitOwner);
            return;
        };
        let directory = self.memory.join(path.trim_start_matches('/'));
        // A cgroup that is gone already keeps what the page counters said.
        let Ok(id) = fs::metadata(&directory).map(|m| m.ino()) else {
            return;
        };
        let known = draft
            .actors
            .iter()
            .find(|(slot, _)| *slot == Slot::LimitOwner);
        if known.is_none_or(|(_, owner)| owner.cgroup_memory != id) {
            limit(event, &directory);
            draft.actors.retain(|(slot, _)| *slot != Slot::LimitOwner);
            let owner = Actor {
                cgroup_memory: id,
                ..Actor::default()
            };
            draft.actors.push((Slot::LimitOwner, owner));
        }
        event.set_limit_source(LimitSource::KernelLog);
    }

    /// Reads what was logged since; never waits.
    fn catch_up(&mut self) {
        // One read gives one record; the kernel's are at most 8 KiB long.
        let mut buffer = vec![0; 8192];
        for _ in 0..LINES {
            match self.file.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if let Some(kill) = std::str::from_utf8(&buffer[..n]).ok().and_then(parse) {
                        if self.kills.len() == KILLS {
                            self.kills.pop_front();
                        }
                        self.kills.push_back(kill);
                    }
                }
                // Records were overwritten before they were read: go on with
                // the oldest that is there.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// The limit from the cgroup's file; its usage at the kill is not known.
fn limit(event: &mut OomKill, directory: &Path) {
    let text = ["memory.max", "memory.limit_in_bytes"]
        .iter()
        .find_map(|file| fs::read_to_string(directory.join(file)).ok());
    // "max" is no limit: 0 says the same.
    event.limit_bytes = text.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    event.usage_bytes = 0;
}

/// A record of /dev/kmsg: `prio,seq,usec,flags;text`. The task's comm is
/// hostile and may hold anything, so its fields are read around it: the paths
/// from the left, the pid from the right.
fn parse(record: &str) -> Option<Kill> {
    let (_, text) = record.split_once(';')?;
    let text = text.lines().next()?.strip_prefix("oom-kill:")?;
    let (before, _uid) = text.rsplit_once(",uid=")?;
    let (_, pid) = before.rsplit_once(",pid=")?;
    let limit_owner = match text.split_once(",oom_memcg=") {
        Some((_, rest)) => Some(rest.split_once(",task_memcg=")?.0.to_owned()),
        // Global, or a cpuset or memory policy of the node.
        None => None,
    };
    Some(Kill {
        pid: pid.parse().ok()?,
        limit_owner,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_are_read_around_a_hostile_comm() {
        let memcg = "6,1234,99,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/pod,task_memcg=/pod/c2,task=a,pid=1,uid=5,pid=77,uid=0\n SUBSYSTEM=x\n";
        assert_eq!(
            parse(memcg).unwrap(),
            Kill {
                pid: 77,
                limit_owner: Some("/pod".to_owned())
            }
        );
        let global = "6,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=hog,pid=5,uid=0\n";
        assert_eq!(
            parse(global).unwrap(),
            Kill {
                pid: 5,
                limit_owner: None
            }
        );
        assert_eq!(
            parse("6,1,1,-;Out of memory: Killed process 5 (hog)\n"),
            None
        );
        assert_eq!(parse("oom-kill:"), None);
    }
}
