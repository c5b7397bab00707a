//! Counters of connection tracking, by network namespace and CPU: polled, for the
//! findings that need them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Readings;
use super::turn::Turn;
use crate::pipeline::source::Resolver;

/// Namespaces that are read in one round.
const EACH: usize = 16;
/// Namespaces that are known at a time; the host's is always one.
const MAX: usize = 256;
/// Between two rounds, and between two looks at which namespaces there are.
const ROUND: Duration = Duration::from_secs(2);
const LIST: Duration = Duration::from_secs(10);
/// How long losses are remembered.
const RECENT: Duration = Duration::from_secs(60);
/// Rounds with losses that are remembered of one namespace.
const MAX_LOSSES: usize = 32;

/// Counters of one CPU (`struct ip_conntrack_stat`, net/netfilter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// An entry could not be put into the table: another one was there first.
    pub(super) insert_failed: u64,
    /// Packets dropped: a full table, or no memory.
    pub(super) drop: u64,
    /// Entries thrown out for new ones at a full table.
    pub(super) early_drop: u64,
    /// Of insert_failed, those whose packet went on with the other entry (5.10).
    pub(super) clash_resolve: u64,
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        // Going back means a new namespace of the same number: a new beginning.
        let of = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            insert_failed: of(self.insert_failed, before.insert_failed),
            drop: of(self.drop, before.drop),
            early_drop: of(self.early_drop, before.early_drop),
            clash_resolve: of(self.clash_resolve, before.clash_resolve),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.insert_failed += other.insert_failed;
        self.drop += other.drop;
        self.early_drop += other.early_drop;
        self.clash_resolve += other.clash_resolve;
    }

    /// Packets or entries that were lost for good.
    pub(super) fn is_loss(&self) -> bool {
        self.insert_failed + self.drop + self.early_drop > 0
    }
}

/// What one namespace lost in one round.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) at: Instant,
    pub(super) cpus: Vec<(u32, Counts)>,
}

/// One network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    /// A process in it, and the memory cgroup of its container; 0 for the host.
    pub(super) pid: u32,
    pub(super) memory_cgroup: u64,
    /// Entries in the table, as of the last round.
    pub(super) entries: u64,
    pub(super) losses: VecDeque<Loss>,
    last: Option<BTreeMap<u32, Counts>>,
}

/// All namespaces of this node that somebody known lives in.
#[derive(Debug, Default)]
pub(super) struct Conntrack {
    pub(super) namespaces: BTreeMap<u32, Namespace>,
    /// Most entries of one namespace (nf_conntrack_max; 0 is no bound), or why that is not
    /// known; None before the first look.
    pub(super) max: Option<Result<u64, String>>,
    /// Why there are no counters.
    pub(super) unread: Option<String>,
    /// Namespaces that are not looked at.
    pub(super) left_out: u64,
    listed: Option<Instant>,
    round: Option<Instant>,
    turn: Turn<u32>,
}

/// Rows of /proc/net/stat/nf_conntrack by CPU, and the entries: columns go by
/// their names, numbers are hexadecimal. None: it is in another form.
pub(super) fn parse(text: &str) -> Option<(BTreeMap<u32, Counts>, u64)> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let column = |name: &str| names.iter().position(|one| *one == name);
    column("entries")?;
    let mut cpus = BTreeMap::new();
    let mut entries = 0;
    for (cpu, line) in (0..).zip(lines) {
        let values = line
            .split_ascii_whitespace()
            .map(|value| u64::from_str_radix(value, 16).ok())
            .collect::<Option<Vec<u64>>>()?;
        // A column that this kernel does not have counts nothing.
        let of = |name: &str| {
            column(name)
                .and_then(|at| values.get(at))
                .copied()
                .unwrap_or(0)
        };
        entries = of("entries");
        let counts = Counts {
            insert_failed: of("insert_failed"),
            drop: of("drop"),
            early_drop: of("early_drop"),
            clash_resolve: of("clashres"),
        };
        cpus.insert(cpu, counts);
    }
    Some((cpus, entries))
}

impl Conntrack {
    /// Most entries of one namespace; None where there is no bound or it is not known.
    pub(super) fn bound(&self) -> Option<u64> {
        match self.max {
            Some(Ok(max)) if max > 0 => Some(max),
            _ => None,
        }
    }

    /// Reads some namespaces when it is time.
    pub(super) fn poll(
        &mut self,
        readings: &mut Readings,
        resolver: &dyn Resolver,
        proc_root: &Path,
        now: Instant,
    ) {
        if self.round.is_some_and(|round| round + ROUND > now) {
            return;
        }
        self.round = Some(now);
        if self.listed.is_none_or(|listed| listed + LIST <= now) {
            self.listed = Some(now);
            self.list(readings, resolver, proc_root);
            self.max = Some(read_max(readings, proc_root));
        }
        for id in self.turn.next(&self.namespaces, EACH) {
            self.look(id, readings, proc_root, now);
        }
    }

    /// The host's namespace, and those of the containers that are there.
    fn list(&mut self, readings: &mut Readings, resolver: &dyn Resolver, proc_root: &Path) {
        let directories: Vec<_> = resolver
            .living()
            .into_iter()
            .map(|one| (one.directory, one.memory_cgroup))
            .collect();
        let root = proc_root.to_owned();
        let found = readings.run("network namespaces", move || {
            let mut lines = Vec::new();
            let deadline = Instant::now() + Duration::from_millis(60);
            let mut tell = |pid: u32, cgroup: u64| {
                if let Ok(file) = std::fs::metadata(root.join(format!("{pid}/ns/net"))) {
                    let line = format!("{} {pid} {cgroup}\n", file.ino());
                    lines.extend_from_slice(line.as_bytes());
                }
            };
            tell(1, 0);
            for (directory, cgroup) in directories {
                if Instant::now() > deadline {
                    break;
                }
                let procs = std::fs::read_to_string(directory.join("cgroup.procs"));
                let first = procs
                    .ok()
                    .and_then(|text| text.lines().next()?.parse().ok());
                if let Some(pid) = first {
                    tell(pid, cgroup);
                }
            }
            io::Result::Ok(lines)
        });
        let Ok(found) = found else { return };
        let mut namespaces = BTreeMap::new();
        self.left_out = 0;
        for line in String::from_utf8_lossy(&found).lines() {
            let mut numbers = line.split(' ').map(str::parse::<u64>);
            let (Some(Ok(inode)), Some(Ok(pid)), Some(Ok(memory_cgroup))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                continue;
            };
            let (Ok(inode), Ok(pid)) = (u32::try_from(inode), u32::try_from(pid)) else {
                continue;
            };
            if namespaces.contains_key(&inode) {
                continue;
            }
            if namespaces.len() >= MAX {
                self.left_out += 1;
                continue;
            }
            let mut row = self.namespaces.remove(&inode).unwrap_or(Namespace {
                pid,
                memory_cgroup,
                entries: 0,
                losses: VecDeque::new(),
                last: None,
            });
            row.pid = pid;
            namespaces.insert(inode, row);
        }
        self.namespaces = namespaces;
    }

    fn look(&mut self, id: u32, readings: &mut Readings, proc_root: &Path, now: Instant) {
        let Some(row) = self.namespaces.get_mut(&id) else {
            return;
        };
        row.losses.retain(|loss| loss.at + RECENT > now);
        let path = proc_root.join(format!("{}/net/stat/nf_conntrack", row.pid));
        let text = match readings.file("nf_conntrack", &path) {
            Ok(text) => text,
            Err(unread) => {
                self.unread = Some(format!("{}: {unread}", path.display()));
                return;
            }
        };
        let Some((cpus, entries)) = parse(&text) else {
            self.unread = Some(format!("{}: not in the form that is known", path.display()));
            return;
        };
        self.unread = None;
        row.entries = entries;
        if let Some(last) = &row.last {
            let lost: Vec<(u32, Counts)> = cpus
                .iter()
                .map(|(cpu, now)| {
                    let before = last.get(cpu).copied().unwrap_or_default();
                    (*cpu, now.since(&before))
                })
                .filter(|(_, delta)| delta.is_loss())
                .collect();
            if !lost.is_empty() {
                if row.losses.len() >= MAX_LOSSES {
                    row.losses.pop_front();
                }
                row.losses.push_back(Loss {
                    at: now,
                    cpus: lost,
                });
            }
        }
        row.last = Some(cpus);
    }

    /// What a namespace and the node's own lost within the last minute: a packet of a
    /// pod passes both.
    pub(super) fn around(&self, netns: u32, host: u32, now: Instant) -> Counts {
        let mut sum = self.recent(netns, now);
        if host != netns {
            sum.add(&self.recent(host, now));
        }
        sum
    }

    /// What a namespace lost within the last minute.
    pub(super) fn recent(&self, netns: u32, now: Instant) -> Counts {
        let mut sum = Counts::default();
        if let Some(row) = self.namespaces.get(&netns) {
            for loss in row.losses.iter().filter(|loss| loss.at + RECENT > now) {
                for (_, counts) in &loss.cpus {
                    sum.add(counts);
                }
            }
        }
        sum
    }
}

fn read_max(readings: &mut Readings, proc_root: &Path) -> Result<u64, String> {
    let path = proc_root.join("sys/net/netfilter/nf_conntrack_max");
    let text = readings.file("nf_conntrack_max", &path);
    text.map_err(|unread| unread.to_string())
        .and_then(|text| text.trim().parse().map_err(|_| "not a number".to_owned()))
        .map_err(|reason| format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n0000000a  00000000 00000000 00000000 00000001 00000000 00000000 00000003 00000000 00000010 00000002 00000001 00000000  00000000 00000000 00000000 00000000\n0000000a  00000000 00000000 00000000 00000001 00000000 00000000 00000003 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n";

    #[test]
    fn columns_go_by_their_names() {
        let parsed = parse(TEXT);
        let (cpus, entries) = parsed.unwrap_or_default();
        assert_eq!((entries, cpus.len()), (10, 2));
        let first = cpus.get(&0).copied().unwrap_or_default();
        assert_eq!(
            (first.insert_failed, first.drop, first.early_drop),
            (16, 2, 1)
        );
        assert!(!cpus.get(&1).copied().unwrap_or_default().is_loss());
        assert!(parse("").is_none());
        assert!(parse("x y\n1 2\n").is_none());
        assert!(parse("entries drop\n0a zz\n").is_none());
    }

    #[test]
    fn a_counter_that_goes_back_begins_anew() {
        let of = |insert_failed| Counts {
            insert_failed,
            ..Counts::default()
        };
        assert_eq!(of(7).since(&of(5)).insert_failed, 2);
        assert_eq!(of(3).since(&of(5)).insert_failed, 3);
    }
}
