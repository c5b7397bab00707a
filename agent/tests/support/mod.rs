//! A source of events and a source of names that a test holds in its hands.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; each test binary uses a part"
)]

pub mod running;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use culprit_agent::identity::{Actor, CgroupChange, CgroupClass, Resolution};
use culprit_agent::journal::keeper::NoDisk;
use culprit_agent::journal::{Journal, Limits, Run};
use culprit_agent::pipeline::agent::{Former, Options};
use culprit_agent::pipeline::driver::Intervals;
use culprit_agent::pipeline::source::{BadRecord, Draft, Observation, Resolver, Slot};
use culprit_agent::pipeline::{Reader, Source};
use culprit_proto::v1::{
    Container, Endpoint, Event, Identity, NodeStats, ProbeCounters, ProbeStatus, Process,
    TcpConnect, TcpFlow,
    event::Kind,
    tcp_flow::{Role, State},
};
use prost::Message;

type Fed = Result<Observation, BadRecord>;

/// Feeds a [`FakeSource`].
#[derive(Clone)]
pub struct Feed {
    fed: Sender<Fed>,
    count: Arc<AtomicU64>,
}

impl Feed {
    pub fn give(&self, draft: Draft) {
        self.raw(Ok(Observation::Draft(Box::new(draft))));
    }

    pub fn raw(&self, fed: Fed) {
        // Counted first, as the kernel does.
        self.count.fetch_add(1, Ordering::AcqRel);
        self.fed.send(fed).unwrap();
    }
}

/// Probes that see what the test says.
pub struct FakeSource {
    reader: Option<FakeReader>,
    count: Arc<AtomicU64>,
    pub flows: Vec<Draft>,
}

struct FakeReader(Receiver<Fed>);

pub fn source() -> (FakeSource, Feed) {
    let (feed, fed) = channel();
    let count = Arc::new(AtomicU64::new(0));
    (
        FakeSource {
            reader: Some(FakeReader(fed)),
            count: Arc::clone(&count),
            flows: vec![],
        },
        Feed { fed: feed, count },
    )
}

impl Source for FakeSource {
    fn statuses(&self) -> Vec<ProbeStatus> {
        vec![ProbeStatus {
            probe: "tcp_connect".into(),
            flavour: "fake".into(),
            ..ProbeStatus::default()
        }]
    }

    fn take_reader(&mut self) -> Option<Box<dyn Reader>> {
        self.reader
            .take()
            .map(|reader| Box::new(reader) as Box<dyn Reader>)
    }

    fn seed(&mut self) {}

    fn counters(&self) -> Vec<ProbeCounters> {
        vec![ProbeCounters {
            probe: "tcp_connect".into(),
            // Seven found no room in the ring.
            seen: self.count.load(Ordering::Acquire) + 7,
            dropped_ring: 7,
            ..ProbeCounters::default()
        }]
    }

    fn node_stats(&self) -> NodeStats {
        NodeStats::default()
    }

    fn sweep_flows(&mut self, give: &mut dyn FnMut(Draft)) {
        self.flows.drain(..).for_each(give);
    }

    fn detach(&mut self) {}
}

impl Reader for FakeReader {
    fn run(self: Box<Self>, stop: &AtomicBool, give: &mut dyn FnMut(Fed)) {
        loop {
            let stopping = stop.load(Ordering::Acquire);
            match self.0.recv_timeout(Duration::from_millis(1)) {
                Ok(fed) => give(fed),
                Err(RecvTimeoutError::Timeout) if !stopping => {}
                Err(_) if stopping => return,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// Knows the containers that it was told of, by pid; asked for others it
/// waits. Can be shut, so that every question waits.
#[derive(Default)]
pub struct FakeNames {
    known: Mutex<BTreeMap<u32, String>>,
    shut: Mutex<bool>,
    opened: Condvar,
    pub changes: Mutex<Vec<CgroupChange>>,
}

impl FakeNames {
    pub fn learn(&self, pid: u32, name: &str) {
        self.known.lock().unwrap().insert(pid, name.to_owned());
    }

    pub fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

/// From this pid on a process belongs to a container.
pub const CONTAINED: u32 = 1000;

impl Resolver for FakeNames {
    fn resolve(&self, actor: &Actor) -> Resolution {
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            shut = self.opened.wait(shut).unwrap();
        }
        let comm = String::from_utf8_lossy(&actor.comm)
            .trim_end_matches('\0')
            .to_owned();
        let mut identity = Identity {
            process: Some(Process {
                pid: actor.pid,
                comm,
                ..Process::default()
            }),
            ..Identity::default()
        };
        if actor.pid < CONTAINED {
            return Resolution::Ready(identity);
        }
        match self.known.lock().unwrap().get(&actor.pid) {
            Some(name) => {
                identity.container = Some(Container {
                    name: name.clone(),
                    ..Container::default()
                });
                Resolution::Ready(identity)
            }
            None => {
                identity.unresolved = "the runtime has not answered yet".into();
                Resolution::Waiting(identity)
            }
        }
    }

    fn resolve_cgroup(&self, memory_cgroup: u64) -> Resolution {
        let container = Container {
            id: memory_cgroup.to_string(),
            ..Container::default()
        };
        Resolution::Ready(Identity {
            container: Some(container),
            ..Identity::default()
        })
    }

    fn cgroup_class(&self, _: u64) -> CgroupClass {
        CgroupClass::Pod
    }

    fn cgroup_changed(&self, change: &CgroupChange) {
        self.changes.lock().unwrap().push(change.clone());
    }
}

/// A connect of process `pid`, to port `port` so that it can be told apart.
pub type DraftOf = Draft;

pub fn connect(pid: u32, port: u32) -> Draft {
    connect_by(pid, port, b"client")
}

pub fn connect_by(pid: u32, port: u32, name: &[u8]) -> Draft {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    let end = |port| {
        Some(Endpoint {
            ip: vec![127, 0, 0, 1].into(),
            port,
        })
    };
    let connect = TcpConnect {
        local: end(1),
        remote: end(port),
        ..TcpConnect::default()
    };
    Draft {
        opened_ns: 0,
        event: Event {
            time: 1,
            kind: Some(Kind::TcpConnect(connect)),
            ..Event::default()
        },
        actors: vec![(
            Slot::Who,
            Actor {
                pid,
                comm,
                ..Actor::default()
            },
        )],
    }
}

/// A client's record, by its port.
pub fn flow(port: u32, state: State, sent: u64) -> Draft {
    let end = |port| {
        Some(Endpoint {
            ip: vec![10, 0, 0, 1].into(),
            port,
        })
    };
    let flow = TcpFlow {
        local: end(port),
        remote: end(80),
        role: Role::Client.into(),
        state: state.into(),
        bytes_sent: sent,
        ..TcpFlow::default()
    };
    Draft {
        opened_ns: 1,
        event: Event {
            time: 1,
            kind: Some(Kind::TcpFlow(flow)),
            ..Event::default()
        },
        actors: vec![(Slot::Who, Actor::default())],
    }
}

pub fn port(event: &Event) -> Option<u32> {
    match &event.kind {
        Some(Kind::TcpConnect(connect)) => connect.remote.as_ref().map(|remote| remote.port),
        _ => None,
    }
}

pub fn options() -> Options<NoDisk> {
    let long = Duration::from_secs(3600);
    Options {
        node: "n1".into(),
        boot_id: "b".into(),
        kernel: "k".into(),
        run: Run {
            spool_id: [7; 16],
            epoch: 1,
            unclean_stops: 0,
        },
        disk: None,
        former: Former::default(),
        limits: Limits {
            lanes: None,
            recorder: 64 << 20,
        },
        targets: vec![],
        edges: false,
        sockets: 1,
        intervals: Intervals {
            flows: long,
            stats: long,
        },
        identity_wait: long,
        findings: None,
        // No node: its addresses would be an event as well.
        proc_root: std::path::PathBuf::from("/nowhere"),
        cgroup_root: std::path::PathBuf::from("/sys/fs/cgroup"),
        recorder_file: None,
    }
}

/// Waits until the recorder's events fulfil the condition, and returns them.
pub async fn events_when(journal: &Journal, done: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut grown = journal.recorder().watch();
    loop {
        grown.mark_unchanged();
        let events = events(journal);
        if done(&events) {
            return events;
        }
        tokio::time::timeout(Duration::from_secs(30), grown.changed())
            .await
            .unwrap_or_else(|_| panic!("nothing more came after {events:#?}"))
            .unwrap();
    }
}

pub fn events(journal: &Journal) -> Vec<Event> {
    let piece = journal.recorder().read(0, usize::MAX);
    assert_eq!(piece.missed, 0);
    piece
        .entries
        .iter()
        .map(|entry| Event::decode(entry.event.clone()).unwrap())
        .collect()
}

/// Ports of the connects among the events, in order.
pub fn ports(events: &[Event]) -> Vec<u32> {
    events.iter().filter_map(port).collect()
}

pub fn frames(path: &Path) -> Vec<Event> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    culprit_proto::frame::Reader::new(file)
        .map_while(Result::ok)
        .map(|record| Event::decode(record.event).unwrap())
        .collect()
}

pub fn names() -> Arc<FakeNames> {
    Arc::new(FakeNames::default())
}
