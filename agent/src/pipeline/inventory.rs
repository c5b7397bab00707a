//! Tells the collector which pods this node has, and had: with that it names the
//! far ends of other nodes' connections without asking anybody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culprit_proto::kind::EventKind;
use culprit_proto::limits::MAX_RECORD_BYTES;
use culprit_proto::v1::{Event, Inventory, InventoryPod, event::Kind};
use prost::Message;

use super::ledger::Ledger;
use super::source::Resolver;
use crate::journal::Journal;

/// Between two looks at what the container runtime has said.
const LOOK: Duration = Duration::from_secs(1);
/// All pods are told again after this, for a collector that was set up anew.
const WHOLE: Duration = Duration::from_secs(600);
/// Pods of one event, and their bytes: half of the largest record. One pod is far
/// below that (names, addresses and containers are bounded).
const PODS: usize = 64;
const BYTES: usize = MAX_RECORD_BYTES / 2;

/// What was told, and where the next telling goes.
pub struct Teller {
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
    /// By sandbox: what was said of it. Bounded by the runtime's table.
    told: HashMap<String, InventoryPod>,
    /// When all were told; None: not yet.
    whole: Option<Instant>,
    /// The state of the runtime's table that was looked at.
    state: Option<u64>,
}

impl Teller {
    /// Nothing told yet.
    #[must_use]
    pub fn new(journal: Arc<Journal>, ledger: Arc<Ledger>) -> Self {
        Self {
            journal,
            ledger,
            told: HashMap::new(),
            whole: None,
            state: None,
        }
    }

    /// Looks, and tells what is new.
    pub fn look(&mut self, resolver: &dyn Resolver, now: Instant) {
        let whole = self.whole.is_none_or(|at| at + WHOLE <= now);
        let state = resolver.pods_state();
        if !whole && self.state == Some(state) {
            return;
        }
        let pods = resolver.pods();
        if whole && pods.is_empty() {
            // The runtime has not said anything, or there is none.
            return;
        }
        self.state = Some(state);
        if whole {
            self.whole = Some(now);
        }
        let news: Vec<InventoryPod> = pods
            .iter()
            .filter(|(sandbox, pod)| whole || self.told.get(sandbox) != Some(pod))
            .map(|(_, pod)| pod.clone())
            .collect();
        self.told = pods.into_iter().collect();
        for pods in parts(news) {
            self.append(Inventory { pods, whole });
        }
    }

    fn append(&self, inventory: Inventory) {
        let event = Event {
            time: culprit_proto::time::now(),
            kind: Some(Kind::Inventory(inventory)),
            ..Event::default()
        };
        self.ledger.add_made(EventKind::Inventory.lane());
        let encoded = event.encode_to_vec().into();
        self.journal
            .append(EventKind::Inventory, event.time, encoded);
    }
}

/// So that each fits into one event.
fn parts(pods: Vec<InventoryPod>) -> Vec<Vec<InventoryPod>> {
    let mut parts: Vec<Vec<InventoryPod>> = Vec::new();
    let mut bytes = 0;
    for pod in pods {
        let size = pod.encoded_len();
        match parts.last_mut() {
            Some(part) if part.len() < PODS && bytes + size <= BYTES => {
                bytes += size;
                part.push(pod);
            }
            _ => {
                bytes = size;
                parts.push(vec![pod]);
            }
        }
    }
    parts
}

/// The thread that looks.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(mut teller: Teller, resolver: Arc<dyn Resolver>) -> std::io::Result<Self> {
        let (stop, stopped): (_, Receiver<()>) = channel();
        let thread = std::thread::Builder::new()
            .name("culprit-pods".to_owned())
            .spawn(move || {
                loop {
                    teller.look(&*resolver, Instant::now());
                    match stopped.recv_timeout(LOOK) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
                // What came and went since the last look.
                teller.look(&*resolver, Instant::now());
            })?;
        Ok(Self { stop, thread })
    }

    /// Has it look once more and end.
    #[must_use]
    pub fn stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.thread
    }
}

#[cfg(test)]
mod tests {
    use culprit_proto::v1::{Container, Pod};

    use super::*;

    fn pod(image: usize) -> InventoryPod {
        InventoryPod {
            pod: Some(Pod::default()),
            containers: vec![Container {
                image: "i".repeat(image),
                ..Container::default()
            }],
            ..InventoryPod::default()
        }
    }

    #[test]
    fn each_part_fits_into_one_event() {
        let counts =
            |pods: Vec<InventoryPod>| -> Vec<usize> { parts(pods).iter().map(Vec::len).collect() };
        assert_eq!(counts(vec![pod(1); 150]), [64, 64, 22]);
        let large = counts(vec![pod(10_000); 7]);
        assert_eq!(large, [3, 3, 1]);
        assert!(counts(Vec::new()).is_empty());
    }
}
