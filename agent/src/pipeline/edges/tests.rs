use std::time::{Duration, Instant};

use culprit_proto::v1::{Container, Pod, Process, Workload, workload};

use super::*;

struct Stage {
    deltas: Deltas,
    edges: Edges,
}

fn stage(max: usize) -> Stage {
    Stage {
        deltas: Deltas::new(Duration::ZERO, 1),
        edges: Edges {
            max,
            ..Edges::default()
        },
    }
}

fn pod(name: &str, workload: &str) -> Identity {
    Identity {
        process: Some(Process {
            pid: 5,
            ..Process::default()
        }),
        container: Some(Container {
            id: format!("id of {name}"),
            ..Container::default()
        }),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid of {name}"),
            labels: [("app".to_owned(), workload.to_owned())].into(),
            workload: Some(Workload {
                kind: workload::Kind::Deployment.into(),
                name: workload.to_owned(),
                ..Workload::default()
            }),
            ..Pod::default()
        }),
        ..Identity::default()
    }
}

/// A client's record to `to`.80 from its port `from`.
fn flow(from: u16, to: u8, state: State, bytes: u64) -> TcpFlow {
    TcpFlow {
        local: Some(Endpoint::new([10, 0, 0, 1].into(), from)),
        remote: Some(Endpoint::new([10, 0, 0, to].into(), 80)),
        role: Role::Client.into(),
        state: state.into(),
        bytes_sent: bytes,
        bytes_received: 10 * bytes,
        sends: 1,
        receives: 2,
        srtt_ns: bytes,
        ..TcpFlow::default()
    }
}

impl Stage {
    fn add(&mut self, who: Option<Identity>, peer: Option<Identity>, mut flow: TcpFlow) {
        let standing = self.deltas.take(1, 7, &mut flow, Instant::now());
        let event = Event {
            who,
            peer,
            kind: Some(Kind::TcpFlow(flow.clone())),
            ..Event::default()
        };
        let number = self.edges.add(&event, &flow, standing);
        self.deltas.belongs(standing, number);
    }

    fn told(&mut self) -> Vec<(Event, TcpEdge)> {
        let taken = self.edges.take(&self.deltas);
        taken
            .into_iter()
            .filter_map(|(records, event)| match &event.kind {
                Some(Kind::TcpEdge(sums)) => {
                    assert_eq!(records, sums.records);
                    let sums = sums.clone();
                    Some((event, sums))
                }
                _ => None,
            })
            .collect()
    }
}

#[test]
fn pods_of_a_workload_are_one_end_and_the_sums_are_exact() {
    let mut stage = stage(10);
    let cart = |n| Some(pod(n, "cart"));
    let db = || Some(pod("db-0", "db"));
    stage.add(cart("cart-1"), db(), flow(1, 2, State::Open, 10));
    stage.add(cart("cart-2"), db(), flow(2, 3, State::Open, 20));
    let reset = TcpFlow {
        close_reason: CloseReason::ResetReceived.into(),
        ..flow(2, 3, State::Closed, 25)
    };
    stage.add(cart("cart-2"), db(), reset);
    let found = TcpFlow {
        found_open: true,
        ..flow(3, 2, State::Open, 1)
    };
    stage.add(cart("cart-1"), db(), found);
    let told = stage.told();
    assert_eq!(told.len(), 1, "{told:?}");
    let (event, sums) = &told[0];
    let expected = TcpEdge {
        port: 80,
        role: Role::Client.into(),
        since: sums.since,
        records: 4,
        opened: 2,
        closed: 1,
        open: 2,
        bytes_sent: 36,
        bytes_received: 360,
        sends: 3,
        receives: 6,
        max_srtt_ns: 25,
        resets: 1,
        ..TcpEdge::default()
    };
    assert_eq!(*sums, expected);
    let who = event.who.clone().unwrap_or_default();
    let of = who.pod.unwrap_or_default();
    assert_eq!((who.process, who.container), (None, None));
    assert_eq!((&*of.namespace, &*of.name, &*of.uid), ("shop", "", ""));
    assert_eq!(of.workload.map(|w| w.name).as_deref(), Some("cart"));
    let peer = event.peer.clone().unwrap_or_default();
    let peer_pod = peer.pod.unwrap_or_default();
    assert_eq!(peer_pod.name, "db-0", "the only one");
    assert!(peer_pod.labels.is_empty());
    // The next interval: what came since, and nothing when nothing came.
    stage.add(cart("cart-1"), db(), flow(1, 2, State::Closed, 15));
    let (_, sums) = &stage.told()[0];
    assert_eq!(
        (sums.opened, sums.closed, sums.open, sums.bytes_sent),
        (0, 1, 1, 5)
    );
    assert!(stage.told().is_empty());
}

#[test]
fn an_end_without_a_name_is_its_address_and_a_client_s_port_says_nothing() {
    let mut stage = stage(10);
    let who = |path: &str| {
        Some(Identity {
            cgroup: Some(culprit_proto::v1::Cgroup {
                path: path.to_owned(),
                ..Default::default()
            }),
            ..Identity::default()
        })
    };
    stage.add(who("/a"), None, flow(1, 2, State::Closed, 1));
    stage.add(who("/a"), None, flow(2, 2, State::Closed, 1));
    stage.add(who("/a"), None, flow(3, 3, State::Closed, 1));
    stage.add(who("/b"), None, flow(4, 3, State::Closed, 1));
    for client in [5, 6] {
        let mut serves = flow(8080, 9, State::Closed, 1);
        serves.role = Role::Server.into();
        serves.remote = Some(Endpoint::new([10, 0, 0, 9].into(), client));
        stage.add(who("/a"), None, serves);
    }
    let mut told: Vec<_> = stage
        .told()
        .into_iter()
        .map(|(_, sums)| {
            let remote = sums.remote.map(|end| end.to_string()).unwrap_or_default();
            (remote, sums.port, sums.closed)
        })
        .collect();
    told.sort();
    let expected = [
        ("10.0.0.2:80", 80, 2),
        ("10.0.0.3:80", 80, 1),
        ("10.0.0.3:80", 80, 1),
        ("10.0.0.9", 8080, 2),
    ];
    assert_eq!(
        told,
        expected.map(|(end, port, n)| (end.to_owned(), port, n))
    );
}

#[test]
fn edges_that_are_too_many_are_summed_up_in_one() {
    let mut stage = stage(2);
    for to in 1..=5 {
        stage.add(None, None, flow(to.into(), to, State::Open, 100));
        stage.add(None, None, flow(to.into(), to, State::Open, 101));
    }
    let told = stage.told();
    assert_eq!(told.len(), 3);
    let (event, other) = &told[2];
    assert!(other.other && event.who.is_none() && other.remote.is_none());
    assert_eq!((other.records, other.opened, other.open), (6, 3, 3));
    let sent: u64 = told.iter().map(|(_, sums)| sums.bytes_sent).sum();
    assert_eq!(sent, 505);
    // They have room in the next one.
    stage.add(None, None, flow(5, 5, State::Closed, 111));
    let told = stage.told();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].1.bytes_sent, told[0].1.other), (10, false));
}
