//! The maps that the findings read, and files that only a privileged agent can
//! open, taken before the privileges go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
};

use aya::Ebpf;
use culprit_proto::v1::ProbeStatus;

use super::{
    Facts, KernelError,
    attach::Attacher,
    listeners::Listeners,
    load::{lock, open_walk, run_through},
    questions::Questions,
    symbols::Symbols,
    untracked::Untracked,
    work::WorkTable,
};
use crate::identity::Actor;

/// What the findings read of the kernel side. Every part is optional: a probe
/// that does not run has none. The default has nothing.
#[derive(Debug, Default)]
pub struct Tables {
    /// Names of `enum skb_drop_reason`; empty before 5.17.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Reads of cgroup files, direct reclaim, waits for a CPU and DNS lookups by
    /// workload; None without the probe.
    pub cgroup_reads: Option<WorkTable>,
    /// See `cgroup_reads`.
    pub reclaim: Option<WorkTable>,
    /// See `cgroup_reads`.
    pub runq: Option<WorkTable>,
    /// See `cgroup_reads`.
    pub dns: Option<WorkTable>,
    /// Ends of connections without room in the table of sockets, by workload.
    pub untracked: Option<Untracked>,
    /// Questions without an answer; None without the probe dns.
    pub questions: Option<Questions>,
    /// Names of kernel addresses.
    pub symbols: Symbols,
    /// Looks at every listener; None without the probe tcp_listen.
    pub look: Option<Look>,
    /// Who listens where; None without a probe that keeps that.
    pub(super) listeners: Option<Arc<Listeners>>,
}

impl Tables {
    /// Takes every map out of the object.
    pub(super) fn take(ebpf: &mut Ebpf, facts: &Facts) -> Result<Self, KernelError> {
        Ok(Self {
            drop_reasons: facts.drop_reasons.clone(),
            cgroup_reads: Some(WorkTable::one(ebpf, "READ_WORK")?),
            reclaim: Some(WorkTable::reclaim(ebpf)?),
            runq: Some(WorkTable::one(ebpf, "RUNQ_WORK")?),
            dns: Some(WorkTable::one(ebpf, "DNS_WORK")?),
            untracked: Some(Untracked::new(ebpf)?),
            questions: Some(Questions::new(ebpf)?),
            symbols: Symbols::open(),
            look: None,
            listeners: None,
        })
    }

    /// Keeps those of probes that run.
    pub(super) fn keep(&mut self, statuses: &[ProbeStatus]) {
        let runs = |probe: &str| {
            let status = statuses.iter().find(|status| status.probe == probe);
            status.is_some_and(|status| !status.flavour.is_empty())
        };
        self.cgroup_reads.take_if(|_| !runs("cgroup_read"));
        self.reclaim.take_if(|_| !runs("reclaim"));
        self.runq.take_if(|_| !runs("runq"));
        self.dns.take_if(|_| !runs("dns"));
        self.questions.take_if(|_| !runs("dns"));
        let kept = ["tcp_flow", "tcp_connect", "tcp_listen"];
        self.listeners.take_if(|_| !kept.into_iter().any(runs));
    }

    /// TCP ports that are listened on in a network namespace, and by whom; None
    /// when that is not known.
    #[must_use]
    pub fn ports(&self, netns: u32) -> Option<Vec<(u16, Actor)>> {
        Some(self.listeners.as_ref()?.ports(netns))
    }
}

/// The walk over every task's open files that tells of listeners under
/// pressure: as `TcpListen` events.
#[derive(Clone)]
pub struct Look {
    attacher: Weak<Mutex<Attacher>>,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

impl Look {
    pub(super) fn new(attacher: Weak<Mutex<Attacher>>) -> Self {
        Self { attacher }
    }

    /// Looks once; it takes a few milliseconds for some ten thousand open files.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn run(&self) -> Result<(), String> {
        let attacher = self.attacher.upgrade().ok_or("the probes are detached")?;
        let file = open_walk(lock(&attacher).finish().0, "look_listeners")?;
        drop(attacher);
        run_through(file)
    }
}
