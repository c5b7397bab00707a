#![expect(clippy::unwrap_used, reason = "tests")]
use culprit_proto::v1::workload::Kind;
use culprit_proto::v1::{Record, TcpEdge, Workload, tcp_flow::State};

use super::*;

fn end(text: &str) -> Option<Endpoint> {
    Some(text.parse::<std::net::SocketAddr>().unwrap().into())
}

fn pod(name: &str, kind: Kind) -> Option<Identity> {
    Some(Identity {
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: format!("{name}-6d4cf56db6-x2m4k"),
            workload: Some(Workload {
                kind: kind.into(),
                name: name.to_owned(),
                ..Workload::default()
            }),
            ..Pod::default()
        }),
        ..Identity::default()
    })
}

/// As the collector keeps a node's event.
fn kept(node: &str, event: &Event) -> StoredEvent {
    StoredEvent {
        node: node.to_owned(),
        record: Some(Record {
            event: event.encode_to_vec().into(),
            ..Record::default()
        }),
        ..StoredEvent::default()
    }
}

fn stored(node: &str, who: &str, peer: Option<&str>, flow: TcpFlow) -> StoredEvent {
    let event = Event {
        who: pod(who, Kind::Deployment),
        peer: peer.and_then(|peer| pod(peer, Kind::StatefulSet)),
        kind: Some(event::Kind::TcpFlow(flow)),
        ..Event::default()
    };
    kept(node, &event)
}

/// Through a service's address and a masquerade, told by both ends.
fn both_ends() -> [StoredEvent; 3] {
    let client = TcpFlow {
        local: end("10.0.1.5:4000"),
        remote: end("10.96.0.1:80"),
        remote_nat: end("10.0.2.9:8080"),
        local_nat: end("192.168.0.1:61000"),
        role: Role::Client.into(),
        bytes_sent: 100,
        bytes_received: 7000,
        opened_at: 5,
        state: State::Closed.into(),
        ..TcpFlow::default()
    };
    let early = TcpFlow {
        bytes_sent: 10,
        state: State::Open.into(),
        ..client.clone()
    };
    let server = TcpFlow {
        local: end("10.0.2.9:8080"),
        remote: end("192.168.0.1:61000"),
        role: Role::Server.into(),
        bytes_sent: 7000,
        bytes_received: 100,
        opened_at: 6,
        ..TcpFlow::default()
    };
    [
        stored("a", "cart", Some("db"), client),
        stored("b", "db", None, server),
        stored("a", "cart", Some("db"), early),
    ]
}

#[test]
fn a_connection_that_both_ends_tell_counts_once() {
    let mut map = Map::default();
    both_ends().iter().for_each(|one| map.take(one));
    let (edges, unknown) = map.edges();
    let key = Key {
        client: "shop/Deployment/cart".to_owned(),
        server: "shop/StatefulSet/db".to_owned(),
        port: 8080,
    };
    let sum = Sum {
        connections: 1,
        sent: 100,
        received: 7000,
        ..Sum::default()
    };
    assert_eq!(edges, BTreeMap::from([(key, sum)]));
    assert_eq!(unknown, 0);
}

#[test]
fn a_server_that_the_client_cannot_name_names_itself() {
    let [client, server, _] = both_ends();
    let record = client.record.unwrap();
    let mut event = Event::decode(record.event).unwrap();
    event.peer = None;
    let unnamed = StoredEvent {
        node: client.node,
        record: Some(Record {
            event: event.encode_to_vec().into(),
            ..Record::default()
        }),
        ..StoredEvent::default()
    };
    let mut map = Map::default();
    [unnamed, server].iter().for_each(|one| map.take(one));
    let (edges, _) = map.edges();
    let names: Vec<_> = edges
        .keys()
        .map(|key| (&*key.client, &*key.server))
        .collect();
    assert_eq!(names, [("shop/Deployment/cart", "shop/Deployment/db")]);
}

#[test]
fn a_client_from_outside_is_told_by_the_server() {
    let mut map = Map::default();
    map.take(&both_ends()[1]);
    let (edges, _) = map.edges();
    let (key, sum) = edges.first_key_value().unwrap();
    assert_eq!(key.client, "192.168.0.1");
    assert_eq!((key.port, sum.sent, sum.received), (8080, 100, 7000));
}

fn summed(node: &str, who: &str, peer: (&str, &str), time: u64, edge: TcpEdge) -> StoredEvent {
    let mut who = pod(who, Kind::Deployment);
    // Of more than one pod.
    if let Some(pod) = who.as_mut().and_then(|who| who.pod.as_mut()) {
        pod.name.clear();
    }
    let event = Event {
        time,
        who,
        peer: pod(peer.0, Kind::Deployment).map(|who| Identity {
            node: peer.1.to_owned(),
            ..who
        }),
        kind: Some(event::Kind::TcpEdge(TcpEdge { port: 80, ..edge })),
        ..Event::default()
    };
    kept(node, &event)
}

#[test]
fn sums_add_up_and_count_once_when_both_ends_tell_them() {
    let client = |opened, closed, open, sent, time| {
        let edge = TcpEdge {
            role: Role::Client.into(),
            opened,
            closed,
            open,
            bytes_sent: sent,
            bytes_received: 10 * sent,
            ..TcpEdge::default()
        };
        summed("a", "cart", ("db", "b"), time, edge)
    };
    let server = |sent| TcpEdge {
        role: Role::Server.into(),
        closed: 2,
        bytes_sent: sent,
        bytes_received: 7,
        ..TcpEdge::default()
    };
    let mut map = Map::default();
    for one in [
        client(3, 1, 2, 5, 10),
        client(1, 1, 2, 6, 20),
        summed("b", "db", ("cart", "a"), 15, server(110)),
        // Its client's node tells nothing.
        summed("b", "db", ("web", "c"), 15, server(50)),
    ] {
        map.take(&one);
    }
    let (edges, unknown) = map.edges();
    let told: Vec<_> = edges
        .iter()
        .map(|(key, sum)| (&*key.client, sum.connections, sum.sent, sum.received))
        .collect();
    let expected = [
        ("shop/Deployment/cart", 4, 11, 110),
        ("shop/Deployment/web", 2, 7, 50),
    ];
    assert_eq!((told, unknown), (expected.to_vec(), 0));
}

#[test]
fn a_node_that_tells_connections_and_one_that_tells_sums_count_once() {
    let [client, server, _] = both_ends();
    let edge = |role: Role, sent, received| TcpEdge {
        role: role.into(),
        closed: 1,
        bytes_sent: sent,
        bytes_received: received,
        ..TcpEdge::default()
    };
    let sums = |records: &[StoredEvent]| {
        let mut map = Map::default();
        records.iter().for_each(|one| map.take(one));
        let (edges, _) = map.edges();
        edges.values().fold(Sum::default(), |mut all, sum| {
            all.add(sum);
            all
        })
    };
    let of_server = summed("b", "db", ("cart", "a"), 1, edge(Role::Server, 7000, 100));
    assert_eq!(sums(&[client, of_server.clone()]).connections, 1);
    let of_client = summed("a", "cart", ("db", "b"), 1, edge(Role::Client, 100, 7000));
    assert_eq!(sums(&[of_client.clone(), of_server]).connections, 1);
    // The server's record knows on which node its client is.
    let record = server.record.unwrap();
    let mut event = Event::decode(record.event).unwrap();
    event.peer = Some(Identity {
        node: "a".to_owned(),
        source: Source::Address.into(),
        ..Identity::default()
    });
    let named = StoredEvent {
        node: server.node,
        record: Some(Record {
            event: event.encode_to_vec().into(),
            ..Record::default()
        }),
        ..StoredEvent::default()
    };
    let all = sums(&[of_client, named]);
    assert_eq!((all.connections, all.sent, all.received), (1, 100, 7000));
}

#[test]
fn names_cannot_break_out_of_the_graph() {
    let key = Key {
        client: "a\"; x -> y [\\".to_owned(),
        server: "b".to_owned(),
        port: 1,
    };
    let graph = dot(&BTreeMap::from([(key, Sum::default())]));
    assert!(
        graph.contains(r#"  "a\"; x -> y [\\" -> "b" [label="#),
        "{graph}"
    );
}
