//! The far ends of connections: named by the inventories of all nodes, by address
//! and time.

use bytes::Bytes;
use culprit_proto::v1::{
    Endpoint, Event, Identity, Inventory, InventoryPod, Lane, LaneCursor, Pod, TcpFlow, Workload,
    event, tcp_flow, workload,
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
        kind: Some(event::Kind::Inventory(Inventory { pods, whole: true })),
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
        assert!(asked.status.success(), "{asked:?}");
        let text = String::from_utf8(asked.stdout).unwrap();
        let mut peers = Vec::new();
        for line in text.lines() {
            let flow: serde_json::Value = serde_json::from_str(line).unwrap();
            let at = |pointer: &str| {
                let value = flow.pointer(pointer).and_then(|value| value.as_str());
                value.unwrap_or_default().to_owned()
            };
            peers.push([
                at("/tcp_flow/local"),
                at("/peer/pod/name"),
                at("/peer/node"),
                at("/peer/source"),
            ]);
        }
        peers.sort();
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
