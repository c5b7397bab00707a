//! The thread on which findings are found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culprit_proto::kind::EventKind;
use culprit_proto::v1::{
    Event, Evidence, FindingCount, FindingsStatus, ProbeStatus, WorkloadStats, event::Kind,
};
use prost::Message as _;

use super::conntrack::Conntrack;
use super::desk::Desk;
use super::input::Input;
use super::reclaimed::Reclaimed;
use super::sums::CROWDED;
use super::{Context, Inlet, Options, ROWS, Readings, Seen, Watcher, Workloads};
use crate::identity::CgroupClass;
use crate::journal::Journal;
use crate::kernel::Tables;
use crate::pipeline::host::Host;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::source::Resolver;

/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// What the findings are made of.
pub struct Parts {
    /// Which are on.
    pub options: Options,
    /// Names.
    pub resolver: Arc<dyn Resolver>,
    /// Maps of the kernel side.
    pub tables: Tables,
    /// Where findings go.
    pub journal: Arc<Journal>,
    /// Counts them.
    pub ledger: Arc<Ledger>,
    /// Between two reports of each workload's statistics.
    pub stats: Duration,
    /// The node itself.
    pub host: Arc<Host>,
    /// Where the host's procfs is.
    pub proc_root: PathBuf,
    /// Where the host's cgroup file systems are.
    pub cgroup_root: PathBuf,
}

/// Where the agent's conclusions go.
#[derive(Debug)]
pub(super) struct Output {
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
}

impl Output {
    /// The reference to the event; None for one of no kind.
    pub(super) fn append(&self, event: &Event) -> Option<Evidence> {
        let kind = EventKind::of(event)?;
        self.ledger.add_made(kind.lane());
        let bytes = event.encode_to_vec().into();
        Some(Evidence {
            lane: kind.lane().into(),
            seq: self.journal.append(kind, event.time, bytes),
            kind: kind.name().to_owned(),
        })
    }
}

/// The running findings.
#[derive(Debug)]
pub struct Engine {
    inlet: Inlet,
    thread: JoinHandle<()>,
    board: Arc<Mutex<FindingsStatus>>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(parts: Parts) -> std::io::Result<Self> {
        let (inlet, receiver) = Inlet::new();
        let board = Arc::new(Mutex::new(FindingsStatus::default()));
        let readings = Readings::start()?;
        let mut work = Work::new(parts, readings, inlet.clone(), Arc::clone(&board));
        // Who asks before the first tick is not to read that none is looked for.
        work.publish();
        let thread = std::thread::Builder::new()
            .name("culprit-findings".to_owned())
            .spawn(move || work.run(&receiver))?;
        Ok(Self {
            inlet,
            thread,
            board,
        })
    }

    /// The way to it.
    #[must_use]
    pub fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Its counters, as of the last tick.
    #[must_use]
    pub fn board(&self) -> Arc<Mutex<FindingsStatus>> {
        Arc::clone(&self.board)
    }

    /// Ends it: everything told so far is taken in, and what is half done is
    /// reported. Gives back the thread to wait for.
    #[must_use]
    pub fn stop(self) -> JoinHandle<()> {
        self.inlet.stop();
        self.thread
    }
}

struct Work {
    watchers: Vec<Box<dyn Watcher>>,
    parts: Parts,
    readings: Readings,
    inlet: Inlet,
    desk: Desk,
    output: Arc<Output>,
    board: Arc<Mutex<FindingsStatus>>,
    /// Which probes run, as of the last tick.
    statuses: Vec<ProbeStatus>,
    /// The statistics that were told last, by workload.
    told: BTreeMap<u64, WorkloadStats>,
    workloads_left_out: u64,
    reclaimed: Reclaimed,
    conntrack: Conntrack,
    /// A finding is on that looks at it.
    wants_conntrack: bool,
}

impl Work {
    fn new(
        parts: Parts,
        readings: Readings,
        inlet: Inlet,
        board: Arc<Mutex<FindingsStatus>>,
    ) -> Self {
        let watchers = ROWS
            .iter()
            .filter_map(|row| Some((row.make)(parts.options.threshold(row.name)?)))
            .collect();
        let output = Arc::new(Output {
            journal: Arc::clone(&parts.journal),
            ledger: Arc::clone(&parts.ledger),
        });
        let statuses = parts.ledger.statuses();
        let on = |name| parts.options.threshold(name).is_some();
        let wants_conntrack = on("conntrack_trouble") || on("dns_trouble") || on("connect_trouble");
        Self {
            watchers,
            parts,
            readings,
            inlet,
            desk: Desk::new(Instant::now()),
            output,
            board,
            statuses,
            told: BTreeMap::new(),
            workloads_left_out: 0,
            reclaimed: Reclaimed::default(),
            conntrack: Conntrack::default(),
            wants_conntrack,
        }
    }

    fn run(&mut self, inputs: &Receiver<Input>) {
        // What the counters are now is what later ones are held against.
        self.poll(Instant::now());
        let mut next_tick = Instant::now() + TICK;
        let mut next_stats = Instant::now() + self.parts.stats;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match inputs.recv_timeout(wait) {
                Ok(Input::Early(draft)) => self.each(|one, context| one.early(&draft, context)),
                Ok(Input::Seen(seen)) => self.each(|one, context| one.seen(&seen, context)),
                Ok(Input::Note(note)) => self.each(|one, context| one.note(&note, context)),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= next_tick {
                self.statuses = self.parts.ledger.statuses();
                self.poll(now);
                self.each(|one, context| one.tick(context));
                self.due(now, false);
                self.publish();
                next_tick = Instant::now() + TICK;
            }
            if now >= next_stats {
                self.statistics();
                next_stats = Instant::now() + self.parts.stats;
            }
        }
        self.poll(Instant::now());
        self.each(|one, context| one.tick(context));
        self.each(|one, context| one.finish(context));
        self.due(Instant::now(), true);
        self.statistics();
        self.publish();
    }

    fn poll(&mut self, now: Instant) {
        let resolver = &*self.parts.resolver;
        self.reclaimed.poll(&mut self.parts.tables, resolver, now);
        if self.wants_conntrack {
            let proc_root = &self.parts.proc_root;
            self.conntrack
                .poll(&mut self.readings, resolver, proc_root, now);
        }
    }

    fn each(&mut self, call: impl FnMut(&mut dyn Watcher, &mut Context<'_>)) {
        let appended = self.call_each(call);
        // Events of the findings' own are seen like all others. Nobody appends
        // another for them.
        for seen in appended {
            self.call_each(|one, context| one.seen(&seen, context));
        }
    }

    fn call_each(&mut self, mut call: impl FnMut(&mut dyn Watcher, &mut Context<'_>)) -> Vec<Seen> {
        let mut appended = Vec::new();
        let mut context = Context {
            now: Instant::now(),
            resolver: &*self.parts.resolver,
            readings: &mut self.readings,
            tables: &mut self.parts.tables,
            reclaimed: &self.reclaimed,
            conntrack: &self.conntrack,
            host_netns: self.parts.host.netns(),
            appended: &mut appended,
            proc_root: &self.parts.proc_root,
            cgroup_root: &self.parts.cgroup_root,
            statuses: &self.statuses,
            desk: &mut self.desk,
            output: &self.output,
            since: &self.inlet.since,
        };
        for watcher in &mut self.watchers {
            call(&mut **watcher, &mut context);
        }
        appended
    }

    fn due(&mut self, now: Instant, all: bool) {
        for event in self.desk.due(now, all) {
            self.output.append(&event);
        }
    }

    fn statistics(&mut self) {
        let mut workloads = Workloads::default();
        for watcher in &mut self.watchers {
            watcher.stats(&mut workloads);
        }
        if let Some(untracked) = &mut self.parts.tables.untracked {
            let rows = untracked.rows();
            for (cgroup, count) in &rows {
                if *count > 0
                    && let Some(row) = workloads.of(*cgroup)
                {
                    row.untracked_connections = *count;
                }
            }
            let resolver = &self.parts.resolver;
            let is_gone = |id| resolver.cgroup_class(id) == CgroupClass::Unknown;
            for id in spent(&rows, &self.told, is_gone) {
                untracked.remove(id);
            }
        }
        let (now, left_out) = workloads.into_parts();
        self.workloads_left_out += left_out;
        for (cgroup, stats) in &now {
            if self.told.get(cgroup) == Some(stats) || *stats == WorkloadStats::default() {
                continue;
            }
            let who = self.parts.resolver.resolve_cgroup(*cgroup).so_far();
            self.output.append(&Event {
                time: culprit_proto::time::now(),
                cpu: 0,
                who: Some(who),
                kind: Some(Kind::WorkloadStats(stats.clone())),
                ..Event::default()
            });
        }
        self.told = now;
    }

    fn publish(&self) {
        let counts = self.desk.counts();
        let status = FindingsStatus {
            findings: ROWS
                .iter()
                .filter(|row| self.parts.options.threshold(row.name).is_some())
                .map(|row| {
                    let one = counts.get(row.name).copied().unwrap_or_default();
                    FindingCount {
                        name: row.name.to_owned(),
                        raised: one.raised,
                        repeats: one.repeats,
                        limited: one.limited,
                    }
                })
                .collect(),
            shed: self.inlet.shed(),
            readings: self.readings.stats(),
            workloads_left_out: self.workloads_left_out,
        };
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Rows of connections without a row in the table of sockets that are told as they are and whose
/// cgroup is gone, once there are many. Row 0 is of no workload.
fn spent(
    rows: &[(u64, u64)],
    told: &BTreeMap<u64, WorkloadStats>,
    is_gone: impl Fn(u64) -> bool,
) -> Vec<u64> {
    if rows.len() < CROWDED {
        return Vec::new();
    }
    rows.iter()
        .filter(|(id, count)| {
            *id != 0
                && told
                    .get(id)
                    .is_some_and(|told| told.untracked_connections == *count)
                && is_gone(*id)
        })
        .map(|(id, _)| *id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_given_up_when_they_are_told_gone_and_many() {
        let many: Vec<(u64, u64)> = (0..CROWDED as u64).map(|id| (id, 5)).collect();
        let stats = |untracked_connections| WorkloadStats {
            untracked_connections,
            ..WorkloadStats::default()
        };
        let told = BTreeMap::from([(0, stats(5)), (1, stats(5)), (2, stats(4)), (3, stats(5))]);
        // 2 was told with less than it has now, 3 is there still, the rest was never told.
        assert_eq!(spent(&many, &told, |id| id != 3), [1]);
        assert!(spent(&many[1..], &told, |_| true).is_empty());
    }
}
