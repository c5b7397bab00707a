//! From the ring reader's thread into the agent: a bounded queue per lane that
//! is never waited for.

use std::sync::Arc;

use culprit_proto::kind::{self, EventKind};
use culprit_proto::v1::{Lane, event::Kind};
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use super::ledger::{Ledger, Loss, is_counted, lane_of, probe_of};
use super::source::{BadRecord, Draft, Observation};
use crate::findings::Inlet;
use crate::identity::CgroupChange;

/// Events that wait for the identity stage, per lane.
const QUEUE: usize = 8192;

/// Cgroup changes that wait for it. One that finds no room is not needed: an
/// unknown cgroup is looked for in the tree.
const CGROUP_QUEUE: usize = 4096;

/// What the queues carry.
#[derive(Debug)]
pub enum Item {
    /// An event without its names.
    Event(Box<Draft>),
    /// The sweep's records of this interval are all before this.
    Swept,
}

/// The reader's end; the sweep of the connections has another.
#[derive(Clone, Debug)]
pub struct Intake {
    lanes: [Sender<Item>; 3],
    cgroups: Sender<CgroupChange>,
    findings: Inlet,
    ledger: Arc<Ledger>,
}

/// The identity stage's end.
#[derive(Debug)]
pub struct Inbox {
    /// In the order of the lanes.
    pub lanes: [Receiver<Item>; 3],
    /// Cgroups that came or went.
    pub cgroups: Receiver<CgroupChange>,
}

/// Both ends.
#[must_use]
pub fn channels(ledger: Arc<Ledger>, findings: Inlet) -> (Intake, Inbox) {
    let (critical, critical_out) = mpsc::channel(QUEUE);
    let (signal, signal_out) = mpsc::channel(QUEUE);
    let (bulk, bulk_out) = mpsc::channel(QUEUE);
    let (cgroups, cgroups_out) = mpsc::channel(CGROUP_QUEUE);
    (
        Intake {
            lanes: [critical, signal, bulk],
            cgroups,
            findings,
            ledger,
        },
        Inbox {
            lanes: [critical_out, signal_out, bulk_out],
            cgroups: cgroups_out,
        },
    )
}

impl Intake {
    /// Takes what the reader read. Never blocks: what finds no room is counted.
    pub fn take(&self, observation: Result<Observation, BadRecord>) {
        match observation {
            Ok(Observation::Draft(draft)) => {
                self.ledger.add_read(Some(kind::lane(&draft.event)));
                if matches!(draft.event.kind, Some(Kind::OomKill(_))) {
                    self.findings.early(&draft);
                }
                self.push(draft);
            }
            Ok(Observation::Cgroup(change)) => {
                self.ledger.add_read(None);
                if let Err(TrySendError::Full(change)) = self.cgroups.try_send(change) {
                    tracing::debug!(cgroup = change.id, "change of a cgroup left to the scan");
                }
            }
            Ok(Observation::Note(note)) => {
                self.ledger.add_read(None);
                self.findings.note(note);
            }
            Err(bad) => {
                tracing::warn!(
                    probe = bad.probe, what = %culprit_proto::text::clip(&bad.what),
                    "a kernel record makes no sense"
                );
                let lane = lane_of(bad.probe);
                self.ledger
                    .add_read(is_counted(bad.probe, lane).then_some(lane));
                self.ledger.lost(bad.probe, lane, Loss::BadRecord, 1);
            }
        }
    }

    fn push(&self, draft: Box<Draft>) {
        let lane = kind::lane(&draft.event);
        if let Err(error) = self.lanes[lane as usize].try_send(Item::Event(draft)) {
            let (TrySendError::Full(item) | TrySendError::Closed(item)) = error;
            self.shed(&item);
        }
    }

    /// For a thread that may wait and makes events itself: the sweep of the
    /// connections.
    pub fn push_waiting(&self, draft: Draft) {
        let lane = kind::lane(&draft.event);
        self.ledger.add_made(lane);
        let item = Item::Event(Box::new(draft));
        if let Err(error) = self.lanes[lane as usize].blocking_send(item) {
            self.shed(&error.0);
        }
    }

    /// An interval of the sweep is over.
    pub fn swept(&self) {
        // An error means that the stage is gone: nobody waits for it.
        let _ = self.lanes[Lane::Bulk as usize].blocking_send(Item::Swept);
    }

    fn shed(&self, item: &Item) {
        let Item::Event(draft) = item else { return };
        let probe = EventKind::of(&draft.event).map_or("agent", probe_of);
        self.ledger
            .lost(probe, kind::lane(&draft.event), Loss::Shed, 1);
    }
}
