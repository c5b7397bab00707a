//! The thread that owns the probes: sweeps the connections, reports
//! statistics and losses on an interval, and takes the probes off at the end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use culprit_proto::kind::EventKind;
use culprit_proto::v1::{Coverage, Event, Loss, LossCounter, ProbeStatus, event::Kind};
use prost::Message;
use tokio::sync::oneshot;

use super::intake::Intake;
use super::ledger::Ledger;
use super::outage::Outage;
use super::source::Source;
use crate::journal::keeper::KeeperHandle;
use crate::journal::{Journal, Limits};

/// Settings of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Between two sweeps of the connections.
    pub flows: Duration,
    /// Between two reports of statistics and losses.
    pub stats: Duration,
}

/// How long a stock may wait for the disk before it is told without it.
const PATIENCE: Duration = Duration::from_secs(5);

enum Order {
    /// Read the kernel's counters into the ledger now.
    Count(oneshot::Sender<()>),
    /// Take the probes off the kernel.
    Detach(oneshot::Sender<()>),
    /// Say the last words. Everything that was read is in the journal.
    Finish(oneshot::Sender<()>),
}

/// Speaks to the driver's thread.
#[derive(Clone, Debug)]
pub struct Driver {
    orders: Sender<Order>,
}

impl Driver {
    /// The kernel's counters as they are now are in the ledger after this.
    pub async fn count(&self) {
        self.order(Order::Count).await;
    }

    /// The probes are off the kernel after this, and the last records of the
    /// connections are on their way.
    pub async fn detach(&self) {
        self.order(Order::Detach).await;
    }

    /// The last statistics, losses and coverage are in the journal after this.
    pub async fn finish(&self) {
        self.order(Order::Finish).await;
    }

    async fn order(&self, order: fn(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(order(done)).is_ok() {
            // An error means that the thread is gone: nothing more to wait for.
            let _ = wait.await;
        }
    }
}

/// What the driver's thread works with.
pub struct Work<S> {
    /// The probes.
    pub source: S,
    /// Where interval records go; dropped when the probes are off.
    pub intake: Intake,
    /// Where reports go.
    pub journal: Arc<Journal>,
    /// Where counters go.
    pub ledger: Arc<Ledger>,
    /// How often.
    pub intervals: Intervals,
    /// Bounds of the journal.
    pub limits: Limits,
    /// Notes the account on disk after each report.
    pub keeper: Option<KeeperHandle>,
}

/// Starts the driver's thread.
///
/// # Errors
/// When the system has no thread left.
pub fn start<S: Source>(work: Work<S>) -> std::io::Result<Driver> {
    let (orders, inbox) = channel();
    std::thread::Builder::new()
        .name("culprit-driver".to_owned())
        .spawn(move || drive(work, &inbox))?;
    Ok(Driver { orders })
}

fn drive<S: Source>(work: Work<S>, orders: &Receiver<Order>) {
    let Work {
        mut source,
        intake,
        journal,
        ledger,
        intervals,
        limits,
        keeper,
    } = work;
    let mut intake = Some(intake);
    let mut reports = Reports {
        journal,
        ledger,
        outage: Outage::new(limits, keeper.clone()),
        keeper,
        told: Vec::new(),
        published: (0, Instant::now()),
    };
    source.seed();
    // After the seed, which may find out more about what is missing.
    reports.ledger.set_statuses(source.statuses());
    reports.append(Kind::Coverage(Coverage {
        probes: reports.ledger.statuses(),
    }));
    reports.take_stock(&source);
    let mut next_flows = Instant::now() + intervals.flows;
    let mut next_stats = Instant::now() + intervals.stats;
    loop {
        let wait = next_flows
            .min(next_stats)
            .saturating_duration_since(Instant::now());
        let order = match orders.recv_timeout(wait) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match order {
            Some(Order::Count(done)) => {
                reports.take_stock(&source);
                let _ = done.send(());
            }
            Some(Order::Detach(done)) => {
                source.detach();
                if let Some(intake) = intake.take() {
                    source.sweep_flows(&mut |draft| intake.push_waiting(draft));
                }
                let _ = done.send(());
            }
            Some(Order::Finish(done)) => {
                reports.statistics(&source);
                reports.append(Kind::Coverage(Coverage {
                    probes: stopped(reports.ledger.statuses()),
                }));
                reports.take_stock(&source);
                let _ = done.send(());
                return;
            }
            None => {}
        }
        let now = Instant::now();
        if let Some(intake) = &intake {
            if now >= next_flows {
                source.sweep_flows(&mut |draft| intake.push_waiting(draft));
                intake.swept();
                next_flows = Instant::now() + intervals.flows;
            }
            if now >= next_stats {
                reports.statistics(&source);
                reports.take_stock(&source);
                next_stats = Instant::now() + intervals.stats;
            }
        } else {
            // Off the kernel: only orders are left.
            (next_flows, next_stats) = (now + intervals.flows, now + intervals.stats);
        }
    }
}

/// What the driver tells of the agent itself.
struct Reports {
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
    outage: Outage,
    keeper: Option<KeeperHandle>,
    /// The losses that were told last.
    told: Vec<LossCounter>,
    /// The stock that was published last, as of when that was new or all.
    published: (u64, Instant),
}

impl Reports {
    /// Where every event is, for the collector, `status` and the next run.
    fn take_stock<S: Source>(&mut self, source: &S) {
        let seconds = self.outage.seconds(&self.journal, Instant::now());
        let stock = self
            .ledger
            .take_stock(&self.journal, || source.counters(), seconds);
        let reports = self.ledger.lane_reports();
        let ledger = Arc::clone(&self.ledger);
        // First noted, then told: a run that comes after a kill must not know
        // less than the collector. But a disk that hangs must not silence us.
        let published = *ledger.publication().borrow();
        if published != self.published.0 || published + 1 == stock {
            self.published = (published, Instant::now());
        }
        let hangs = self.published.1.elapsed() > PATIENCE;
        match &self.keeper {
            Some(keeper) if !hangs => {
                let account = self.ledger.account();
                keeper.note(account, move || ledger.publish(stock, reports));
            }
            _ => ledger.publish(stock, reports),
        }
    }

    fn statistics<S: Source>(&mut self, source: &S) {
        let stats = source.node_stats();
        self.append(Kind::NodeStats(
            self.ledger.complete(stats, source.counters()),
        ));
        let counters = self.ledger.all(&self.journal);
        if counters != self.told {
            self.append(Kind::Loss(Loss {
                counters: counters.clone(),
            }));
            self.told = counters;
        }
    }

    /// Puts an event of the agent's own into the journal.
    fn append(&self, kind: Kind) {
        let event = Event {
            time: culprit_proto::time::now(),
            kind: Some(kind),
            ..Event::default()
        };
        if let Some(kind) = EventKind::of(&event) {
            self.ledger.add_made(kind.lane());
            self.journal
                .append(kind, event.time, event.encode_to_vec().into());
        }
    }
}

/// Nothing is watched from here on.
fn stopped(mut probes: Vec<ProbeStatus>) -> Vec<ProbeStatus> {
    for probe in &mut probes {
        probe.flavour.clear();
        probe.reason = "the agent has stopped".to_owned();
    }
    probes
}
