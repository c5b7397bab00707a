//! `/proc/PID`: the executable, and the cgroups where the record's id says
//! nothing. A process is named by pid and start time, so that a reused pid is
//! never taken for its predecessor.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use procfs::process::Process;
use procfs::{FromBufRead, ProcessCGroups};

use super::counters::{Counters, count};
use super::limits::{MAX_PATH, cut};
use super::{Actor, lock};

/// Most executables remembered; past it the one read longest ago goes.
const MAX_PROCESSES: usize = 4096;
/// After this a process is looked at again: it may have run another program.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// `/proc/PID/stat` counts in ticks of USER_HZ, 100 on every architecture
/// that Linux runs containers on.
const TICK_NS: u64 = 10_000_000;
/// Longest `/proc/PID/cgroup` read, bytes.
const MAX_CGROUP_FILE: u64 = 64 * 1024;

/// pid, start time, and comm because it changes with the executable.
type Key = (u32, u64, [u8; 16]);

struct Entry {
    exe: Arc<str>,
    read: Instant,
}

/// The processes lately named.
pub(super) struct Processes {
    proc_root: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
}

impl Processes {
    pub(super) fn new(proc_root: PathBuf) -> Self {
        Self {
            proc_root,
            cache: Mutex::default(),
        }
    }

    /// Target of `/proc/PID/exe`; empty when the process is gone, is another
    /// one by now, or has none (kernel threads).
    pub(super) fn exe(&self, actor: &Actor, counters: &Counters) -> Arc<str> {
        if actor.pid == 0 || actor.kernel_thread {
            return Arc::from("");
        }
        let key = (actor.pid, actor.start_time_ns, actor.comm);
        let known = lock(&self.cache)
            .entries
            .get(&key)
            .map(|e| (e.exe.clone(), e.read));
        if let Some((exe, read)) = &known
            && read.elapsed() < READ_AGAIN
        {
            return exe.clone();
        }
        let read = self.open(actor, counters).and_then(|p| p.exe().ok());
        let exe: Arc<str> = match (read, known) {
            (Some(exe), _) => Arc::from(cut(&exe.to_string_lossy(), MAX_PATH, counters)),
            // Gone meanwhile: what it was then is still true.
            (None, Some((exe, _))) => exe,
            (None, None) => Arc::from(""),
        };
        lock(&self.cache).insert(
            key,
            Entry {
                exe: exe.clone(),
                read: Instant::now(),
            },
            counters,
        );
        exe
    }

    /// Path of the process's cgroup in a hierarchy, as of now.
    pub(super) fn cgroup_path(
        &self,
        actor: &Actor,
        hierarchy: u32,
        counters: &Counters,
    ) -> Option<String> {
        let process = self.open(actor, counters)?;
        let file = process.open_relative("cgroup").ok()?;
        let cgroups =
            ProcessCGroups::from_buf_read(BufReader::new(file.take(MAX_CGROUP_FILE))).ok()?;
        cgroups
            .into_iter()
            .find(|c| c.hierarchy == hierarchy)
            .map(|c| c.pathname)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.cache).entries.len()
    }

    /// The process of the record and no other: the open directory stays with
    /// it, so that what is read after the check is its own.
    fn open(&self, actor: &Actor, counters: &Counters) -> Option<Process> {
        let process = Process::new_with_root(self.proc_root.join(actor.pid.to_string())).ok();
        let same = process.filter(|p| {
            actor.start_time_ns == 0
                || p.stat().is_ok_and(|s| {
                    s.starttime
                        .saturating_mul(TICK_NS)
                        .abs_diff(actor.start_time_ns)
                        <= TICK_NS
                })
        });
        if same.is_none() {
            count(&counters.processes_gone);
        }
        same
    }
}

impl Cache {
    fn insert(&mut self, key: Key, entry: Entry, counters: &Counters) {
        if self.entries.insert(key, entry).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MAX_PROCESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
            count(&counters.processes_evicted);
        }
    }
}
