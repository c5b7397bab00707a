//! Tells the collector which pods, addresses and ports this node has, and had: with
//! that it names the far ends of other nodes' connections without asking anybody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culprit_proto::kind::EventKind;
use culprit_proto::limits::MAX_RECORD_BYTES;
use culprit_proto::v1::{Event, HostAddress, HostPort, Inventory, InventoryPod, event::Kind};
use prost::Message;

use super::host::{Host, Looker};
use super::ledger::Ledger;
use super::source::Resolver;
use crate::journal::Journal;

/// Between two looks at what the container runtime has said, and at the node.
const LOOK: Duration = Duration::from_secs(1);
/// All is told again after this, for a collector that was set up anew.
const WHOLE: Duration = Duration::from_secs(600);
/// Pods and ports of one event, and its bytes: half of the largest record. One of
/// them is far below that (names, addresses and containers are bounded).
const THINGS: usize = 64;
const BYTES: usize = MAX_RECORD_BYTES / 2;

/// What was told, and where the next telling goes.
pub struct Teller {
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
    host: Arc<Host>,
    /// By sandbox: what was said of it. Bounded by the runtime's table.
    told: HashMap<String, InventoryPod>,
    /// What was said of the node itself. Bounded by [`Host`].
    told_addresses: Vec<HostAddress>,
    told_ports: HashMap<u32, HostPort>,
    /// When all were told; None: not yet.
    whole: Option<Instant>,
    /// The state of the runtime's table that was looked at.
    state: Option<u64>,
}

impl Teller {
    /// Nothing told yet.
    #[must_use]
    pub fn new(journal: Arc<Journal>, ledger: Arc<Ledger>, host: Arc<Host>) -> Self {
        Self {
            journal,
            ledger,
            host,
            told: HashMap::new(),
            told_addresses: Vec::new(),
            told_ports: HashMap::new(),
            whole: None,
            state: None,
        }
    }

    /// Looks, and tells what is new; `host_news`: something of the node itself is.
    pub fn look(&mut self, resolver: &dyn Resolver, host_news: bool, now: Instant) {
        let due = self.whole.is_some_and(|at| at + WHOLE <= now);
        let state = resolver.pods_state();
        if !due && !host_news && self.state == Some(state) {
            return;
        }
        let pods = resolver.pods();
        let (addresses, ports) = self.host.all();
        let empty = pods.is_empty() && addresses.is_empty() && ports.is_empty();
        if self.whole.is_none() && empty {
            // Nobody has said anything yet.
            return;
        }
        let whole = due || self.whole.is_none();
        self.state = Some(state);
        if whole {
            self.whole = Some(now);
        }
        let mut parts = Parts::new(whole);
        for (sandbox, pod) in &pods {
            if whole || self.told.get(sandbox) != Some(pod) {
                parts.add(pod.encoded_len(), |part| part.pods.push(pod.clone()));
            }
        }
        if (whole || self.told_addresses != addresses) && !addresses.is_empty() {
            let bytes = addresses.iter().map(Message::encoded_len).sum();
            parts.add(bytes, |part| part.addresses.clone_from(&addresses));
        }
        for port in &ports {
            if whole || self.told_ports.get(&port.port) != Some(port) {
                parts.add(port.encoded_len(), |part| part.ports.push(port.clone()));
            }
        }
        self.told = pods.into_iter().collect();
        self.told_addresses = addresses;
        self.told_ports = ports.into_iter().map(|port| (port.port, port)).collect();
        for inventory in parts.all {
            self.append(inventory);
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

/// What is told, so that each part fits into one event.
struct Parts {
    all: Vec<Inventory>,
    whole: bool,
    /// Of the last part.
    count: usize,
    bytes: usize,
}

impl Parts {
    fn new(whole: bool) -> Self {
        Self {
            all: Vec::new(),
            whole,
            count: 0,
            bytes: 0,
        }
    }

    /// Adds one thing of this many bytes.
    fn add(&mut self, bytes: usize, put: impl FnOnce(&mut Inventory)) {
        if self.count >= THINGS || self.bytes + bytes > BYTES || self.all.is_empty() {
            self.all.push(Inventory {
                whole: self.whole,
                ..Inventory::default()
            });
            (self.count, self.bytes) = (0, 0);
        }
        self.count += 1;
        self.bytes += bytes;
        if let Some(part) = self.all.last_mut() {
            put(part);
        }
    }
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
    pub(super) fn start(
        mut teller: Teller,
        mut looker: Looker,
        resolver: Arc<dyn Resolver>,
    ) -> std::io::Result<Self> {
        let (stop, stopped): (_, Receiver<()>) = channel();
        let thread = std::thread::Builder::new()
            .name("culprit-pods".to_owned())
            .spawn(move || {
                let host = Arc::clone(&teller.host);
                let mut look = || {
                    let now = Instant::now();
                    let news = looker.look(&host, &*resolver, now);
                    teller.look(&*resolver, news, now);
                };
                loop {
                    look();
                    match stopped.recv_timeout(LOOK) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
                // What came and went since the last look.
                look();
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
        let counts = |pods: Vec<InventoryPod>| -> Vec<usize> {
            let mut parts = Parts::new(true);
            for pod in pods {
                parts.add(pod.encoded_len(), |part| part.pods.push(pod));
            }
            parts.all.iter().map(|part| part.pods.len()).collect()
        };
        assert_eq!(counts(vec![pod(1); 150]), [64, 64, 22]);
        let large = counts(vec![pod(10_000); 7]);
        assert_eq!(large, [3, 3, 1]);
        assert!(counts(Vec::new()).is_empty());
    }
}
