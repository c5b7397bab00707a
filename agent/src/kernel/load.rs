//! The kernel side as a whole: one object, each probe in the best flavour that
//! attaches, each optional.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{Btf, Ebpf, programs::Iter};
use culprit_proto::v1::{NodeStats, ProbeCounters, ProbeStatus};

use super::{
    Choice, Facts, KernelError, KernelOptions, RingReader,
    attach::{self, Attacher},
    flavour::bring_up,
    flows::Flows,
    listeners::Listeners,
    log::KernelLog,
    names::LookedUp,
    nat::Translations,
    object::{open, system_btf},
    plan::{self, PROBES},
    stats::{self, ProgramCost, Stats},
    tables::{Look, Tables},
};
use crate::{
    pipeline::source::{Draft, Listening, Names},
    probes::Decoder,
};

/// The kernel side, attached. Dropping it detaches everything.
pub struct Kernel {
    /// Shared with the walk over listeners, which holds it weakly.
    attacher: Arc<Mutex<Attacher>>,
    statuses: Vec<ProbeStatus>,
    reader: Option<RingReader>,
    stats: Stats,
    flows: Flows,
    translations: Translations,
    /// None once taken.
    names: Option<LookedUp>,
    /// None once taken.
    listeners: Option<Arc<Listeners>>,
    proc_root: PathBuf,
    /// Send and receive are counted at hooks.
    call_counts: bool,
    /// For kills without a limit owner; None where it cannot be read.
    log: Option<KernelLog>,
    /// Whether the walk over open sockets could be loaded, or why not.
    walk: Result<(), String>,
    /// For the findings; None once taken.
    tables: Option<Tables>,
    /// Skipped runs by probe when the programs were detached.
    last_missed: Vec<u64>,
}

impl Kernel {
    /// Loads the object and attaches what can be attached.
    ///
    /// # Errors
    /// When nothing at all can run: no BTF, no privilege, a bad flag. A probe
    /// that cannot attach is no error: see [`Kernel::statuses`].
    pub fn load(options: &KernelOptions) -> Result<Self, KernelError> {
        check(options)?;
        let facts = Facts::find()?;
        let mut kernel = Self::bring_up(options, &facts)?;
        // Probes share programs: one that cannot attach must be off in the
        // frozen globals too, or its records would come all the same.
        let mut narrowed = options.clone();
        let failed: Vec<ProbeStatus> = kernel
            .statuses
            .iter()
            .filter(|s| s.flavour.is_empty() && options.choices.get(&s.probe) != Some(&Choice::Off))
            .cloned()
            .collect();
        if failed.is_empty() {
            return Ok(kernel);
        }
        for status in &failed {
            narrowed.choices.insert(status.probe.clone(), Choice::Off);
        }
        drop(kernel);
        kernel = Self::bring_up(&narrowed, &facts)?;
        for status in &mut kernel.statuses {
            if let Some(failed) = failed.iter().find(|f| f.probe == status.probe) {
                status.reason.clone_from(&failed.reason);
            }
        }
        Ok(kernel)
    }

    /// One object, attached as far as it goes.
    fn bring_up(options: &KernelOptions, facts: &Facts) -> Result<Self, KernelError> {
        let mut ebpf = open(options, facts)?;
        #[cfg(feature = "ebpf-log")]
        super::object::forward_log(&mut ebpf);
        let reader = RingReader::new(&mut ebpf)?;
        let stats = Stats::new(&mut ebpf)?;
        let flows = Flows::new(&mut ebpf)?;
        let translations = Translations::new(&mut ebpf)?;
        let names = Some(LookedUp::new(&mut ebpf)?);
        let listeners = Arc::new(Listeners::new(&mut ebpf)?);
        let mut tables = Tables::take(&mut ebpf, facts)?;
        let mut attacher = Attacher::new(ebpf, system_btf()?, options.holder_period_ns());
        let statuses = PROBES
            .iter()
            .map(|p| bring_up(&mut attacher, facts, options, p))
            .collect::<Vec<ProbeStatus>>();
        tables.listeners = Some(Arc::clone(&listeners));
        tables.keep(&statuses);
        let mut kernel = Self {
            attacher: Arc::new(Mutex::new(attacher)),
            statuses,
            reader: Some(reader),
            stats,
            flows,
            translations,
            names,
            listeners: Some(listeners),
            proc_root: options.proc_root.clone(),
            call_counts: false,
            log: None,
            walk: Ok(()),
            tables: Some(tables),
            last_missed: Vec::new(),
        };
        kernel.call_counts = kernel.counts_calls(facts);
        // Here and not when they are used: the privileges go after the load.
        kernel.open_log(&options.cgroup_root);
        kernel.load_walk();
        Ok(kernel)
    }

    /// Each probe's flavour, or why it has none.
    #[must_use]
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.statuses.clone()
    }

    /// The reader of the rings, for a thread of its own; None the second time.
    pub fn take_reader(&mut self) -> Option<RingReader> {
        self.reader.take()
    }

    /// The maps that the findings read; None the second time.
    pub fn take_tables(&mut self) -> Option<Tables> {
        self.tables.take()
    }

    /// Who listens where, for a thread of its own; None the second time, and where
    /// no probe keeps that.
    pub fn take_listening(&mut self) -> Option<Box<dyn Listening>> {
        let kept = ["tcp_flow", "tcp_connect", "tcp_listen"];
        let kept = kept.iter().any(|probe| self.is_on(probe));
        self.listeners
            .take()
            .filter(|_| kept)
            .map(|it| Box::new(it) as _)
    }

    /// By which names addresses were looked up, for a thread of its own; None the
    /// second time, and without the probe dns.
    pub fn take_names(&mut self) -> Option<Box<dyn Names>> {
        let on = self.is_on("dns");
        self.names.take().filter(|_| on).map(|it| Box::new(it) as _)
    }

    /// The kernel side's accounting, by probe.
    #[must_use]
    pub fn counters(&self) -> Vec<ProbeCounters> {
        let mut counters = self.stats.counters();
        let missed: BTreeMap<&str, u64> = lock(&self.attacher)
            .programs()
            .filter_map(|(name, program)| Some((name, stats::recursion_misses(program)?)))
            .collect();
        for (name, missed) in stats::unrepaired(missed) {
            let probe = PROBES.iter().find(|probe| probe.has(name));
            let row = counters
                .iter_mut()
                .find(|row| probe.is_some_and(|probe| row.probe == probe.name));
            if let Some(row) = row {
                row.missed += missed;
            }
        }
        // Once the programs are gone their last count stands.
        for (row, last) in counters.iter_mut().zip(&self.last_missed) {
            row.missed = row.missed.max(*last);
        }
        counters
    }

    /// Histograms and counters, cumulative.
    #[must_use]
    pub fn node_stats(&self) -> NodeStats {
        NodeStats {
            probes: self.counters(),
            ..self.stats.node_stats()
        }
    }

    /// What each attached program has cost so far; run times only while
    /// `kernel.bpf_stats_enabled` is on.
    #[must_use]
    pub fn costs(&self) -> Vec<ProgramCost> {
        lock(&self.attacher)
            .programs()
            .filter_map(|(name, p)| ProgramCost::of(name, p))
            .collect()
    }

    /// Interval records of the connections that moved data since the last
    /// sweep.
    pub fn sweep_flows(&mut self, f: &mut dyn FnMut(Draft)) {
        self.flows.sweep(&self.decoder(), self.call_counts, f);
    }

    /// What turns this kernel's records into events.
    #[must_use]
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.call_counts)
    }

    /// The kernel log, where the oom flavour in use does not see the limit
    /// owner itself; None the second time.
    pub(super) fn take_log(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    fn open_log(&mut self, cgroup_root: &Path) {
        let oom = self.statuses.iter().find(|s| s.probe == "oom");
        if !matches!(oom.map(|s| s.flavour.as_str()), Some("tp_btf" | "raw_tp")) {
            return;
        }
        match KernelLog::open(cgroup_root) {
            Ok(log) => self.log = Some(log),
            Err(reason) => self.limit(
                "oom",
                &format!("the kernel log cannot confirm the limit owner ({reason})"),
            ),
        }
    }

    /// Nothing is loaded after this.
    fn load_walk(&mut self) {
        let wanted = self.is_on("tcp_flow") || self.is_on("tcp_connect");
        let listen = self.is_on("tcp_listen");
        let attacher = Arc::clone(&self.attacher);
        let mut attacher = lock(&attacher);
        let (ebpf, btf) = attacher.finish();
        let Some(btf) = btf else { return };
        if wanted || listen {
            self.walk = load_walk(ebpf, "seed_sockets", &btf);
        }
        if listen {
            match load_walk(ebpf, "look_listeners", &btf) {
                Ok(()) => {
                    let look = Look::new(Arc::downgrade(&self.attacher));
                    if let Some(tables) = &mut self.tables {
                        tables.look = Some(look);
                    }
                }
                Err(reason) => self.limit(
                    "tcp_listen",
                    &format!("listeners cannot be looked at by a walk over open files ({reason})"),
                ),
            }
        }
    }

    /// Takes every program off the kernel; maps can still be read.
    pub fn detach(&mut self) {
        self.last_missed = self.counters().iter().map(|row| row.missed).collect();
        lock(&self.attacher).detach_all();
    }

    /// Notes something that a probe cannot do here.
    pub(super) fn limit(&mut self, probe: &str, what: &str) {
        if let Some(status) = self.statuses.iter_mut().find(|s| s.probe == probe) {
            status.limits.push(what.to_owned());
        }
    }

    /// Connections open before the agent, from a walk over every task's files.
    /// Call once, after the reader runs.
    ///
    /// # Errors
    /// Why the walk could not be made; the agent goes on without.
    pub fn seed(&mut self) -> Result<(), String> {
        let probes = ["tcp_flow", "tcp_connect", "tcp_listen"];
        if !probes.iter().any(|probe| self.is_on(probe)) {
            return Ok(());
        }
        std::mem::replace(&mut self.walk, Err("called twice".to_owned()))?;
        if self.is_on("nat") {
            // Before the walk: its sockets look themselves up.
            match self.translations.seed(&self.proc_root) {
                Ok(count) => tracing::debug!(count, "connections tracked before the agent"),
                Err(reason) => self.limit(
                    "nat",
                    &format!("connections open before the agent are unresolved ({reason})"),
                ),
            }
        }
        let mut attacher = lock(&self.attacher);
        let (ebpf, _) = attacher.finish();
        run_through(open_walk(ebpf, "seed_sockets")?)?;
        walk_program(ebpf, "seed_sockets")?
            .unload()
            .map_err(|e| attach::reason(&e))
    }

    fn is_on(&self, probe: &str) -> bool {
        self.statuses
            .iter()
            .any(|s| s.probe == probe && !s.flavour.is_empty())
    }

    /// Whether send and receive are counted at hooks: it decides what a flow's
    /// bytes mean.
    fn counts_calls(&self, facts: &Facts) -> bool {
        let flow = self.statuses.iter().find(|s| s.probe == "tcp_flow");
        match flow.map(|s| s.flavour.as_str()) {
            Some("fentry" | "kprobe") => true,
            Some("tp_btf" | "raw_tp") => facts.has("tracepoint:sock_send_length"),
            _ => false,
        }
    }
}

/// Flags must name what exists.
pub(super) fn check(options: &KernelOptions) -> Result<(), KernelError> {
    for (name, choice) in &options.choices {
        let Some(probe) = plan::probe(name) else {
            let known: Vec<_> = PROBES.iter().map(|p| p.name).collect();
            return Err(KernelError::Choice(format!(
                "{name}: no such probe; there are {}",
                known.join(", ")
            )));
        };
        if let Choice::Flavour(flavour) = choice
            && !probe.flavours.iter().any(|f| f.name == flavour)
        {
            let known: Vec<_> = probe.flavours.iter().map(|f| f.name).collect();
            return Err(KernelError::Choice(format!(
                "{name}={flavour}: no such flavour; {name} has {}, or off",
                known.join(", ")
            )));
        }
    }
    Ok(())
}

pub(super) fn lock(attacher: &Mutex<Attacher>) -> MutexGuard<'_, Attacher> {
    attacher.lock().unwrap_or_else(PoisonError::into_inner)
}

fn walk_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter, String> {
    let program = ebpf.program_mut(name).ok_or("not in the object")?;
    program.try_into().map_err(|e| attach::reason(&e))
}

fn load_walk(ebpf: &mut Ebpf, name: &str, btf: &Btf) -> Result<(), String> {
    walk_program(ebpf, name)?
        .load("task_file", btf)
        .map_err(|e| attach::reason(&e))
}

/// An iterator over every task's open files; reading it runs the program.
pub(super) fn open_walk(ebpf: &mut Ebpf, name: &str) -> Result<fs::File, String> {
    let iter = walk_program(ebpf, name)?;
    let link = iter.attach().map_err(|e| attach::reason(&e))?;
    let link = iter.take_link(link).map_err(|e| attach::reason(&e))?;
    link.into_file().map_err(|e| e.to_string())
}

/// Reads an iterator to its end: the programs print nothing.
pub(super) fn run_through(mut file: fs::File) -> Result<(), String> {
    let mut sink = [0; 4096];
    while file
        .read(&mut sink)
        .map_err(|e| format!("bpf iterator task_file: {e}"))?
        > 0
    {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_wrong_choice_says_what_there_is() {
        let refuse = |probe: &str, choice| {
            let options = KernelOptions {
                choices: [(probe.to_owned(), choice)].into(),
                ..KernelOptions::default()
            };
            check(&options).unwrap_err().to_string()
        };
        let probe = refuse("tcp_conect", Choice::Off);
        assert!(
            probe.contains("no such probe") && probe.contains("tcp_connect"),
            "{probe}"
        );
        let flavour = refuse("oom", Choice::Flavour("fenty".to_owned()));
        assert!(
            flavour.contains("fentry, kprobe, tp_btf, raw_tp"),
            "{flavour}"
        );
    }
}
