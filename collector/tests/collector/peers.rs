//! The far ends of connections: named by the inventories of all nodes, by address
//! and time.

use bytes::Bytes;
use culprit_proto::v1::{
    Endpoint, Event, HostAddress, HostPort, Identity, Inventory, InventoryPod, Lane, LaneCursor,
    Pod, Process, TcpFlow, Workload, event, tcp_flow, workload,
};

use crate::cli::{run, start_with};
use crate::common::{Agent, NOON, batch, encoded, end, hello};

const SECOND: u64 = 1_000_000_000;

fn pod(name: &str, since: u64, until: u64) -> InventoryPod {
    InventoryPod {
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            ips: vec!["10.0.2.9".to_owned(), "fd00::9".to_owned()],
            workload: Some(Workload {
                kind: workload::Kind::Deployment.into(),
                name: name.trim_end_matches("-1").to_owned(),
                ..Workload::default()
            }),
            ..Pod::default()
        }),
        since: NOON + since * SECOND,
        until: if until == 0 { 0 } else { NOON + until * SECOND },
        ..InventoryPod::default()
    }
}

fn inventory(pods: Vec<InventoryPod>) -> Event {
    Event {
        time: NOON + 500 * SECOND,
        kind: Some(event::Kind::Inventory(Inventory {
            pods,
            whole: true,
            ..Inventory::default()
        })),
        ..Event::default()
    }
}

/// A client's record to a service, `at` seconds after noon.
fn flow(at: u64, port: u16, real: Endpoint) -> Event {
    Event {
        time: NOON + at * SECOND,
        who: Some(Identity {
            pod: Some(Pod {
                namespace: "shop".to_owned(),
                name: "web-1".to_owned(),
                ..Pod::default()
            }),
            ..Identity::default()
        }),
        kind: Some(event::Kind::TcpFlow(TcpFlow {
            local: Some(end([10, 0, 1, 5], port)),
            remote: Some(end([10, 96, 0, 1], 80)),
            remote_nat: Some(real),
            role: tcp_flow::Role::Client.into(),
            bytes_sent: 10,
            bytes_received: 20,
            opened_at: NOON,
            ..TcpFlow::default()
        })),
        ..Event::default()
    }
}

async fn tell(url: &str, node: &str, lane: Lane, events: &[Event]) {
    let mut hello = hello(1, 0, 0);
    hello.node = node.to_owned();
    hello.spool_id = Bytes::from(vec![node.as_bytes()[4]; 16]);
    hello.lanes = vec![LaneCursor {
        lane: lane.into(),
        ..LaneCursor::default()
    }];
    let mut agent = Agent::connect(url, hello).await.unwrap();
    let mut batch = batch(0, events.iter().map(encoded).collect());
    batch.lane = lane.into();
    agent.batch(batch).await;
    assert_eq!(agent.acked().await, events.len() as u64);
}

/// These fields of each flow that was printed as JSON, sorted; empty where it has none.
fn rows(asked: &std::process::Output, fields: [&str; 4]) -> Vec<[String; 4]> {
    assert!(asked.status.success(), "{asked:?}");
    let text = String::from_utf8(asked.stdout.clone()).unwrap();
    let row = |line: &str| {
        let flow: serde_json::Value = serde_json::from_str(line).unwrap();
        fields.map(|field| {
            let value = flow.pointer(field).and_then(|value| value.as_str());
            value.unwrap_or_default().to_owned()
        })
    };
    let mut rows: Vec<_> = text.lines().map(row).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_whose_it_was_at_that_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let path = store.to_str().unwrap();
    let collector = start_with(&store, &[]);
    let real = end([10, 0, 2, 9], 8080);
    // The flows come before anybody knows whose the address was.
    let flows = [
        flow(20, 4001, real.clone()),
        flow(150, 4002, real.clone()),
        flow(250, 4003, real),
        flow(150, 4004, end([10, 0, 2, 77], 8080)),
    ];
    tell(&collector.url, "node1", Lane::Bulk, &flows).await;
    let pods = [
        inventory(vec![pod("old-1", 0, 100), pod("new-1", 120, 200)]),
        // Told again as it ends: no second pod.
        inventory(vec![pod("new-1", 120, 200)]),
    ];
    tell(&collector.url, "node2", Lane::Signal, &pods).await;

    for source in [["--collector", &collector.url], ["--store", path]] {
        let asked = run(&[&["flows", "--format", "json"], &source[..]].concat());
        let peers = rows(
            &asked,
            [
                "/tcp_flow/local",
                "/peer/pod/name",
                "/peer/node",
                "/peer/source",
            ],
        );
        assert_eq!(
            peers,
            [
                ["10.0.1.5:4001", "old-1", "node2", "ADDRESS"],
                ["10.0.1.5:4002", "new-1", "node2", "ADDRESS"],
                // Its pod went long before.
                ["10.0.1.5:4003", "", "", ""],
                ["10.0.1.5:4004", "", "", ""],
            ]
        );
        let map = run(&[&["flows", "--by", "workload"], &source[..]].concat());
        assert!(map.status.success(), "{map:?}");
        let map = String::from_utf8(map.stdout).unwrap();
        let lines: Vec<String> = map
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "shop/web-1 10.0.2.77:8080 8080 1 10 B 20 B 0 -",
                "shop/web-1 10.0.2.9:8080 8080 1 10 B 20 B 0 -",
                "shop/web-1 shop/Deployment/new 8080 1 10 B 20 B 0 -",
                "shop/web-1 shop/Deployment/old 8080 1 10 B 20 B 0 -",
            ]
        );
    }
}

/// The node's own addresses: one that it has alone, and a bridge's.
fn node(own: [u8; 4], listener: &str) -> Event {
    let address = |ip: [u8; 4]| HostAddress {
        ip: std::net::Ipv4Addr::from(ip).to_string(),
        since: NOON,
        until: 0,
    };
    let port = |port: u32, comm: &str, until: u64| HostPort {
        port,
        who: Some(process(comm)),
        since: NOON,
        until,
    };
    Event {
        time: NOON,
        kind: Some(event::Kind::Inventory(Inventory {
            addresses: vec![address(own), address([10, 88, 0, 1])],
            ports: vec![port(10250, listener, 0), port(10251, "gone", NOON + SECOND)],
            ..Inventory::default()
        })),
        ..Event::default()
    }
}

fn process(comm: &str) -> Identity {
    Identity {
        process: Some(Process {
            comm: comm.to_owned(),
            pid: 7,
            ..Process::default()
        }),
        ..Identity::default()
    }
}

/// A connection with nothing translated.
fn plain(role: tcp_flow::Role, who: &str, local: Endpoint, remote: Endpoint) -> Event {
    Event {
        time: NOON + 60 * SECOND,
        who: Some(process(who)),
        kind: Some(event::Kind::TcpFlow(TcpFlow {
            local: Some(local),
            remote: Some(remote),
            role: role.into(),
            opened_at: NOON + 50 * SECOND,
            ..TcpFlow::default()
        })),
        ..Event::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_own_addresses_are_named_by_port_and_by_the_clients_own_record() {
    use tcp_flow::Role::{Client, Server};
    let dir = tempfile::tempdir().unwrap();
    let collector = start_with(&dir.path().join("store"), &[]);
    let (one, two) = ([192, 168, 0, 1], [192, 168, 0, 2]);
    let flows = [
        plain(Client, "a", end([10, 0, 1, 5], 4001), end(two, 10250)),
        plain(Client, "b", end([10, 0, 1, 5], 4002), end(two, 10251)),
        plain(Client, "c", end([10, 0, 1, 5], 4003), end(two, 9)),
        // Both nodes have a bridge of this address.
        plain(
            Client,
            "d",
            end([10, 0, 1, 5], 4004),
            end([10, 88, 0, 1], 10250),
        ),
        // From the node's own network to the other one, and who accepts it there.
        plain(Client, "e", end(one, 4005), end(two, 10250)),
    ];
    tell(&collector.url, "node1", Lane::Bulk, &flows).await;
    let accepted = [
        plain(Server, "f", end(two, 10250), end(one, 4005)),
        plain(Server, "g", end(two, 10250), end(one, 4006)),
    ];
    tell(&collector.url, "node2", Lane::Bulk, &accepted).await;
    tell(&collector.url, "node1", Lane::Signal, &[node(one, "sshd")]).await;
    tell(
        &collector.url,
        "node2",
        Lane::Signal,
        &[node(two, "kubelet")],
    )
    .await;

    let asked = run(&["flows", "--format", "json", "--collector", &collector.url]);
    let peers = rows(
        &asked,
        [
            "/who/process/comm",
            "/peer/process/comm",
            "/peer/node",
            "/peer/source",
        ],
    );
    assert_eq!(
        peers,
        [
            ["a", "kubelet", "node2", "ADDRESS"],
            // Nobody listened there any more, or ever.
            ["b", "", "node2", "ADDRESS"],
            ["c", "", "node2", "ADDRESS"],
            // Its own bridge, of those two.
            ["d", "sshd", "", "ADDRESS"],
            ["e", "kubelet", "node2", "ADDRESS"],
            ["f", "e", "node1", "ADDRESS"],
            ["g", "", "node1", "ADDRESS"],
        ]
    );
    let map = run(&["flows", "--by", "workload", "--collector", &collector.url]);
    let map = String::from_utf8(map.stdout).unwrap();
    for edge in [
        "b node/node2 10251 1",
        "e kubelet 10250 1",
        "node/node1 g 10250 1",
    ] {
        let found = map.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.join(" ").starts_with(edge)
        });
        assert!(found, "{edge}: {map}");
    }
}
