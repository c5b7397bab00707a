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
use super::source::Source;
use crate::journal::Journal;

/// Settings of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Between two sweeps of the connections.
    pub flows: Duration,
    /// Between two reports of statistics and losses.
    pub stats: Duration,
}

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
    /// Called after each report: notes the journal's state on disk.
    pub note: Box<dyn FnMut() + Send>,
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
        mut note,
    } = work;
    let mut intake = Some(intake);
    let mut told = Vec::new();
    source.seed();
    // After the seed, which may find out more about what is missing.
    ledger.set_statuses(source.statuses());
    append(
        &journal,
        Kind::Coverage(Coverage {
            probes: ledger.statuses(),
        }),
    );
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
                ledger.set_kernel(source.counters());
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
                report(&source, &journal, &ledger, &mut told);
                append(
                    &journal,
                    Kind::Coverage(Coverage {
                        probes: stopped(ledger.statuses()),
                    }),
                );
                note();
                let _ = done.send(());
                return;
            }
            None => {}
        }
        let now = Instant::now();
        if let Some(intake) = &intake {
            if now >= next_flows {
                source.sweep_flows(&mut |draft| intake.push_waiting(draft));
                next_flows = Instant::now() + intervals.flows;
            }
            if now >= next_stats {
                report(&source, &journal, &ledger, &mut told);
                note();
                next_stats = Instant::now() + intervals.stats;
            }
        } else {
            // Off the kernel: only orders are left.
            (next_flows, next_stats) = (now + intervals.flows, now + intervals.stats);
        }
    }
}

fn report<S: Source>(source: &S, journal: &Journal, ledger: &Ledger, told: &mut Vec<LossCounter>) {
    ledger.set_kernel(source.counters());
    append(
        journal,
        Kind::NodeStats(ledger.complete(source.node_stats())),
    );
    let counters = ledger.all(journal);
    if counters != *told {
        append(
            journal,
            Kind::Loss(Loss {
                counters: counters.clone(),
            }),
        );
        *told = counters;
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

/// Puts an event of the agent's own into the journal.
pub fn append(journal: &Journal, kind: Kind) {
    let event = Event {
        time: culprit_proto::time::now(),
        kind: Some(kind),
        ..Event::default()
    };
    if let Some(kind) = EventKind::of(&event) {
        journal.append(kind, event.time, event.encode_to_vec().into());
    }
}
