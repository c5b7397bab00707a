//! The limit owner's cgroup as it was when the kill's record arrived.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use culprit_proto::v1::{MemorySplit, OomKill, oom_kill::Scope};

use super::super::{Context, place};
use super::stat;
use crate::identity::memory_root;

/// Processes that are told, those with most resident memory first.
pub(super) const TOP: usize = 5;
/// Directories and processes that are looked at; beyond, the answer is partial.
const MAX_DIRECTORIES: usize = 128;
const MAX_PROCESSES: usize = 2048;
/// Time for the look at processes; beyond, the answer is partial.
const PATIENCE: Duration = Duration::from_millis(60);

/// One process of the cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) pid: u32,
    /// kernfs id of the memory cgroup in which it was found; 0 for NODE.
    pub(super) memory_cgroup: u64,
    pub(super) comm: String,
    pub(super) rss_bytes: u64,
    pub(super) oom_score_adj: i32,
}

/// What was read, and what was not.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) split: Option<MemorySplit>,
    /// `memory.current`, at the time of reading; 0 not read.
    pub(super) usage_bytes: u64,
    /// For NODE: MemTotal.
    pub(super) total_bytes: u64,
    pub(super) top: Vec<Resident>,
    /// memory.oom.group is set where it counts.
    pub(super) group: bool,
    /// memory.pressure's `full` total, nanoseconds; v2 with PSI.
    pub(super) pressure_ns: Option<u64>,
    /// What could not be read, one sentence each.
    pub(super) caveats: Vec<String>,
}

/// The directory of a cgroup of the memory hierarchy.
pub(super) fn directory(id: u64, context: &Context<'_>) -> Option<PathBuf> {
    let who = context.whose(id);
    place::directory(&who, context)
}

/// Reads what is left to read.
pub(super) fn take(
    kill: &OomKill,
    owner: Option<u64>,
    victims: u64,
    context: &mut Context<'_>,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let (_, v1) = memory_root(context.cgroup_root);
    if kill.scope() == Scope::Node {
        node(&mut snapshot, context);
        return snapshot;
    }
    let Some(directory) = owner.and_then(|id| directory(id, context)) else {
        snapshot
            .caveats
            .push("the cgroup whose limit it was is not known, and was not read".to_owned());
        return snapshot;
    };
    if v1 {
        cgroup_v1(&mut snapshot, &directory, context);
    } else {
        cgroup_v2(&mut snapshot, &directory, context);
        snapshot.group = group(victims, &directory, context);
    }
    let proc_root = context.proc_root.to_owned();
    processes(&mut snapshot, context, move |deadline| {
        let mut found = Found::default();
        below(&directory, &mut found, deadline);
        residents(&proc_root, found, deadline)
    });
    snapshot
}

fn read(
    snapshot: &mut Snapshot,
    what: &'static str,
    path: &Path,
    context: &mut Context<'_>,
) -> Option<String> {
    match context.readings.file(what, path) {
        Ok(text) => Some(text),
        Err(unread) => {
            snapshot
                .caveats
                .push(format!("{what} was not read: {unread}"));
            None
        }
    }
}

fn number(what: &'static str, path: &Path, context: &mut Context<'_>) -> u64 {
    let text = context.readings.file(what, path);
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn cgroup_v2(snapshot: &mut Snapshot, directory: &Path, context: &mut Context<'_>) {
    // The usage first: it says how late the rest is.
    snapshot.usage_bytes = number("memory.current", &directory.join("memory.current"), context);
    if let Some(text) = read(
        snapshot,
        "memory.stat",
        &directory.join("memory.stat"),
        context,
    ) {
        let swap = number(
            "memory.swap.current",
            &directory.join("memory.swap.current"),
            context,
        );
        snapshot.split = Some(MemorySplit {
            swap_bytes: swap,
            ..stat::v2(&text)
        });
    }
    let pressure = context
        .readings
        .file("memory.pressure", &directory.join("memory.pressure"));
    snapshot.pressure_ns = pressure.ok().and_then(|text| full_total(&text));
}

/// `full ... total=<microseconds>`.
fn full_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("full"))?;
    let (_, total) = line.rsplit_once("total=")?;
    total
        .trim()
        .parse::<u64>()
        .ok()
        .map(|us| us.saturating_mul(1000))
}

fn cgroup_v1(snapshot: &mut Snapshot, directory: &Path, context: &mut Context<'_>) {
    let usage = directory.join("memory.usage_in_bytes");
    snapshot.usage_bytes = number("memory.usage_in_bytes", &usage, context);
    if let Some(text) = read(
        snapshot,
        "memory.stat",
        &directory.join("memory.stat"),
        context,
    ) {
        let mut of = |file: &'static str| number(file, &directory.join(file), context);
        snapshot.split = Some(MemorySplit {
            kernel_bytes: of("memory.kmem.usage_in_bytes"),
            sock_bytes: of("memory.kmem.tcp.usage_in_bytes"),
            ..stat::v1(&text)
        });
    }
}

/// Whether memory.oom.group is set from the victim's cgroup up to the limit's.
fn group(victims: u64, owner: &Path, context: &mut Context<'_>) -> bool {
    const DEPTH: usize = 6;
    let Some(mut at) = directory(victims, context) else {
        return false;
    };
    for _ in 0..DEPTH {
        let file = at.join("memory.oom.group");
        let text = context.readings.file("memory.oom.group", &file);
        if text.is_ok_and(|text| text.trim() == "1") {
            return true;
        }
        if at == owner || !at.pop() {
            return false;
        }
    }
    false
}

fn node(snapshot: &mut Snapshot, context: &mut Context<'_>) {
    let path = context.proc_root.join("meminfo");
    if let Some(text) = read(snapshot, "meminfo", &path, context) {
        let (split, total) = stat::node(&text);
        snapshot.split = Some(split);
        snapshot.total_bytes = total;
    }
    let proc_root = context.proc_root.to_owned();
    processes(snapshot, context, move |deadline| {
        let mut found = Found::default();
        for entry in std::fs::read_dir(&proc_root)?.flatten() {
            let name = entry.file_name();
            let pid: Option<u32> = name.to_str().and_then(|name| name.parse().ok());
            found.pids.extend(pid.map(|pid| (pid, 0)));
            found.cut |= found.pids.len() > MAX_PROCESSES;
            if found.cut {
                break;
            }
        }
        residents(&proc_root, found, deadline)
    });
}

#[derive(Default)]
struct Found {
    /// With the inode number of the directory, which is the cgroup's id.
    pids: Vec<(u32, u64)>,
    directories: usize,
    cut: bool,
}

/// Processes of a cgroup and of those below it.
fn below(directory: &Path, found: &mut Found, deadline: Instant) {
    found.directories += 1;
    if found.directories > MAX_DIRECTORIES
        || found.pids.len() > MAX_PROCESSES
        || Instant::now() > deadline
    {
        found.cut = true;
        return;
    }
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let id = std::fs::metadata(directory).map_or(0, |file| file.ino());
    let pids = text.lines().filter_map(|pid| pid.parse::<u32>().ok());
    found.pids.extend(pids.map(|pid| (pid, id)));
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found, deadline);
        }
    }
}

/// `rss pid cgroup adj comm` lines, the largest first; a last line "cut" when not all
/// were looked at.
fn residents(proc_root: &Path, found: Found, deadline: Instant) -> io::Result<Vec<u8>> {
    let page = rustix::param::page_size() as u64;
    let mut cut = found.cut;
    let mut all: Vec<(u64, u32, u64)> = Vec::new();
    for (pid, cgroup) in found.pids {
        if Instant::now() > deadline {
            cut = true;
            break;
        }
        // Gone meanwhile, as a victim is: no process of the cgroup any more.
        let text = std::fs::read_to_string(proc_root.join(format!("{pid}/statm")));
        let pages = text
            .ok()
            .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        if let Some(pages) = pages.filter(|pages| *pages > 0) {
            all.push((pages.saturating_mul(page), pid, cgroup));
        }
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    let mut lines = Vec::new();
    for (rss, pid, cgroup) in all.into_iter().take(TOP) {
        let of =
            |file: &str| std::fs::read(proc_root.join(format!("{pid}/{file}"))).unwrap_or_default();
        let adj = String::from_utf8_lossy(&of("oom_score_adj"))
            .trim()
            .to_owned();
        let comm = String::from_utf8_lossy(&of("comm"))
            .trim_end_matches('\n')
            .replace('\n', " ");
        lines.extend_from_slice(format!("{rss} {pid} {cgroup} {adj} {comm}\n").as_bytes());
    }
    if cut {
        lines.extend_from_slice(b"cut\n");
    }
    Ok(lines)
}

fn processes(
    snapshot: &mut Snapshot,
    context: &mut Context<'_>,
    look: impl FnOnce(Instant) -> io::Result<Vec<u8>> + Send + 'static,
) {
    let read = context
        .readings
        .run("processes", move || look(Instant::now() + PATIENCE));
    match read {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            for line in text.lines() {
                match resident(line) {
                    Some(one) => snapshot.top.push(one),
                    None => snapshot.caveats.push(
                        "not all processes were looked at: there are too many, or it took too long"
                            .to_owned(),
                    ),
                }
            }
        }
        Err(unread) => snapshot
            .caveats
            .push(format!("its processes were not read: {unread}")),
    }
}

fn resident(line: &str) -> Option<Resident> {
    let mut words = line.splitn(5, ' ');
    Some(Resident {
        rss_bytes: words.next()?.parse().ok()?,
        pid: words.next()?.parse().ok()?,
        memory_cgroup: words.next()?.parse().ok()?,
        oom_score_adj: words.next()?.parse().unwrap_or(0),
        comm: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_back_whatever_its_name() {
        let one =
            resident("4096 7 99 -997 a b\tc").map(|one| (one.pid, one.oom_score_adj, one.comm));
        assert_eq!(one, Some((7, -997, "a b\tc".to_owned())));
        assert_eq!(resident("cut"), None);
    }

    #[test]
    fn pressure_is_read_in_nanoseconds() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=99\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=12\n";
        assert_eq!(full_total(text), Some(12_000));
        assert_eq!(full_total("some total=1"), None);
    }
}
