//! What `top` knows: made of events and of the agent's status alone. Bounded.

use std::collections::BTreeMap;

use culprit_proto::kind::EventKind;
use culprit_proto::text::{Told, Worst};
use culprit_proto::v1::{Event, Identity, NodeStats, SoftirqStall, StatusResponse, event::Kind};

use super::workloads::Workloads;

/// Kinds that the picture is made of.
pub(super) const KINDS: [EventKind; 7] = [
    EventKind::Finding,
    EventKind::TcpConnect,
    EventKind::TcpFlow,
    EventKind::TcpEdge,
    EventKind::SoftirqStall,
    EventKind::OomKill,
    EventKind::NodeStats,
];

/// Findings that are kept, the worst ones.
const MAX_FINDINGS: usize = 200;

/// CPUs that have a row; the others have none.
const MAX_CPUS: usize = 1024;

/// Stalls of one CPU, as far as the events go back.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    /// Runs of softirqs since the probe was attached.
    pub(super) runs: u64,
    /// Stalls, those included that were counted and not sent.
    pub(super) stalls: u64,
    /// The longest, nanoseconds.
    pub(super) wait_ns: u64,
    pub(super) run_ns: u64,
    pub(super) irqs_off_ns: u64,
    pub(super) queue_wait_ns: u64,
    /// The newest: when, and who was on the CPU.
    pub(super) last: Option<(u64, Option<Identity>)>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) node: String,
    pub(super) findings: Worst,
    pub(super) workloads: Workloads,
    pub(super) cpus: BTreeMap<u32, Cpu>,
    pub(super) status: StatusResponse,
}

impl Model {
    pub(super) fn new(status: StatusResponse) -> Self {
        Self {
            node: status.node.clone(),
            findings: Worst::new(MAX_FINDINGS),
            workloads: Workloads::default(),
            cpus: BTreeMap::new(),
            status,
        }
    }

    /// Takes the agent's newer state.
    pub(super) fn status(&mut self, status: StatusResponse) {
        self.status = status;
    }

    /// Takes an event, which is `seq` of `lane`.
    pub(super) fn event(&mut self, lane: i32, seq: u64, event: Event) {
        let (who, time) = (event.who.as_ref(), event.time);
        match &event.kind {
            Some(Kind::TcpConnect(connect)) => self.workloads.connect(who, time, connect),
            Some(Kind::TcpFlow(flow)) => self.workloads.flow(who, time, flow),
            Some(Kind::TcpEdge(edge)) => self.workloads.edge(who, time, edge),
            Some(Kind::OomKill(_)) => self.workloads.kill(who, time),
            Some(Kind::SoftirqStall(stall)) => {
                let stalls = stall.suppressed.saturating_add(1);
                self.workloads.stalls(who, time, stalls);
                self.stall(event.cpu, time, event.who.clone(), stall);
            }
            Some(Kind::NodeStats(stats)) => self.softirqs(stats),
            Some(Kind::Finding(_)) => self.findings.push(Told {
                node: self.node.clone(),
                lane,
                seq,
                event,
            }),
            _ => {}
        }
    }

    fn cpu(&mut self, cpu: u32) -> Option<&mut Cpu> {
        if self.cpus.len() >= MAX_CPUS && !self.cpus.contains_key(&cpu) {
            return None;
        }
        Some(self.cpus.entry(cpu).or_default())
    }

    fn stall(&mut self, cpu: u32, time: u64, who: Option<Identity>, stall: &SoftirqStall) {
        let Some(cpu) = self.cpu(cpu) else { return };
        cpu.stalls = cpu
            .stalls
            .saturating_add(stall.suppressed)
            .saturating_add(1);
        cpu.wait_ns = cpu.wait_ns.max(stall.wait_ns);
        cpu.run_ns = cpu.run_ns.max(stall.run_ns);
        cpu.irqs_off_ns = cpu.irqs_off_ns.max(stall.irqs_off_ns);
        cpu.queue_wait_ns = cpu.queue_wait_ns.max(stall.queue_wait_ns);
        if cpu.last.as_ref().is_none_or(|(last, _)| *last <= time) {
            cpu.last = Some((time, who));
        }
    }

    /// The statistics are cumulative: the newest hold.
    fn softirqs(&mut self, stats: &NodeStats) {
        let mut runs = BTreeMap::<u32, u64>::new();
        for one in &stats.softirq {
            let sum = runs.entry(one.cpu).or_default();
            *sum = sum.saturating_add(one.count);
        }
        for (cpu, runs) in runs {
            if let Some(cpu) = self.cpu(cpu) {
                cpu.runs = runs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use culprit_proto::v1::{Finding, SoftirqHistogram, finding::Severity};

    use super::*;

    fn of(cpu: u32, time: u64, kind: Kind) -> Event {
        Event {
            time,
            cpu,
            kind: Some(kind),
            ..Event::default()
        }
    }

    #[test]
    fn a_cpu_keeps_its_longest_and_its_newest_stall() {
        let mut model = Model::new(StatusResponse::default());
        let stall = |wait_ns, irqs_off_ns, suppressed| {
            Kind::SoftirqStall(SoftirqStall {
                wait_ns,
                irqs_off_ns,
                suppressed,
                ..SoftirqStall::default()
            })
        };
        model.event(0, 0, of(3, 20, stall(9, 0, 4)));
        model.event(0, 1, of(3, 10, stall(0, 7, 0)));
        let histogram = |cpu, count| SoftirqHistogram {
            cpu,
            count,
            ..SoftirqHistogram::default()
        };
        let stats = NodeStats {
            softirq: vec![histogram(3, 5), histogram(3, 6), histogram(0, 1)],
            ..NodeStats::default()
        };
        model.event(2, 0, of(0, 30, Kind::NodeStats(stats)));
        let cpu = &model.cpus[&3];
        assert_eq!((cpu.stalls, cpu.wait_ns, cpu.irqs_off_ns), (6, 9, 7));
        assert_eq!((cpu.runs, cpu.last.clone()), (11, Some((20, None))));
        assert_eq!(model.cpus[&0].runs, 1);
    }

    #[test]
    fn however_much_comes_it_stays_within_its_bounds() {
        let mut model = Model::new(StatusResponse::default());
        for n in 0..5000 {
            let finding = Finding {
                severity: Severity::Info.into(),
                ..Finding::default()
            };
            model.event(0, n, of(0, n, Kind::Finding(finding)));
            let cpu = u32::try_from(n).unwrap_or_default();
            model.event(
                0,
                n,
                of(cpu, n, Kind::SoftirqStall(SoftirqStall::default())),
            );
        }
        assert_eq!(model.findings.len(), MAX_FINDINGS);
        assert_eq!(model.cpus.len(), MAX_CPUS);
    }
}
