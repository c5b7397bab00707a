#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::{Duration, Instant};

use culprit_proto::v1::backend_imbalance_detail::Measure;
use culprit_proto::v1::tcp_flow::{BytesSource, Role, State};
use culprit_proto::v1::{
    Endpoint, Event, Identity, Lane, Nat, Pod, TcpFlow, Workload, event::Kind, workload,
};

use super::backends::Backends;
use super::client::Client;
use super::{MIN_AGE_NS, Seen, end, judge::judge, wants, words};

const SECOND: u64 = 1_000_000_000;

fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

/// A connection from this port that sent so much in so many seconds.
fn flow(port: u16, sends: u64, seconds: u64) -> TcpFlow {
    TcpFlow {
        local: Some(endpoint(&format!("10.244.0.9:{port}"))),
        remote: Some(endpoint("10.96.0.7:80")),
        role: Role::Client as i32,
        state: State::Open as i32,
        bytes_source: BytesSource::Calls as i32,
        sends,
        bytes_sent: sends * 10,
        duration_ns: seconds * SECOND,
        nat: Nat::Translated as i32,
        ..TcpFlow::default()
    }
}

struct Stage {
    client: Client,
    backends: Backends,
    start: Instant,
}

impl Stage {
    fn new() -> Self {
        let start = Instant::now();
        let (client, backends) = (Client::new(start), Backends::new(start));
        Self {
            client,
            backends,
            start,
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn record(&mut self, flow: &TcpFlow, backend: &str, second: u64) -> bool {
        let now = self.at(second);
        let backend = end(&endpoint(backend));
        self.backends.reached(&backend, None, now);
        let seen = Seen {
            merged: false,
            event: Event {
                time: 100 * SECOND,
                kind: Some(Kind::TcpFlow(flow.clone())),
                ..Event::default()
            },
            lane: Lane::Bulk,
            seq: second,
        };
        self.client.record(flow, backend, &seen, true, now)
    }
}

const ONE: &str = "10.244.1.5:8080";
const OTHER: &str = "10.244.2.6:8080";

#[test]
fn one_connection_has_all_while_another_backend_is_there() {
    let mut stage = Stage::new();
    stage.record(&flow(4000, 500, 20), ONE, 20);
    stage.record(&flow(4000, 900, 40), ONE, 40);
    // Only one backend is known.
    let now = stage.at(43);
    assert!(judge(&stage.client, &stage.backends, 90.0, now).is_none());
    // Another client's.
    stage.backends.reached(&end(&endpoint(OTHER)), None, now);
    assert!(stage.client.is_due(now, false) && !stage.client.is_due(stage.at(42), false));
    let mut detail = judge(&stage.client, &stage.backends, 90.0, now).unwrap();
    assert_eq!(detail.measure(), Measure::Requests);
    // What it sent while it was young is not in.
    assert_eq!((detail.requests, detail.bytes), (400, 4000));
    assert_eq!((detail.known, detail.idle, detail.connections), (2, 1, 1));
    assert_eq!(detail.backends.len(), 2);
    assert_eq!(detail.backends[0].address, ONE);
    assert_eq!(
        (detail.backends[1].requests, detail.backends[1].connections),
        (0, 0)
    );
    detail.remote = "10.96.0.7:80".to_owned();
    let text = words::summary(&detail, "cart");
    assert_eq!(
        text,
        "Of 400 requests on long-lived connections of cart to 10.96.0.7:80 within a minute, 100% went to one of 2 backends: 10.244.1.5:8080 got 400 with 1 connection open; 10.244.2.6:8080 got none with 0 connections open."
    );
    // A minute later that is forgotten.
    assert!(judge(&stage.client, &stage.backends, 90.0, stage.at(101)).is_none());
}

#[test]
fn an_even_spread_is_none() {
    let mut stage = Stage::new();
    for second in [10, 40, 50] {
        stage.record(&flow(4000, second * 10, second), ONE, second);
        stage.record(&flow(4001, second * 10, second), OTHER, second);
    }
    let now = stage.at(53);
    assert!(judge(&stage.client, &stage.backends, 90.0, now).is_none());
    assert!(judge(&stage.client, &stage.backends, 50.0, now).is_some());
}

#[test]
fn a_backend_that_another_replaced_does_not_count() {
    let mut stage = Stage::new();
    // The one before was reached last when this connection was not open yet.
    stage
        .backends
        .reached(&end(&endpoint(OTHER)), None, stage.start);
    stage.record(&flow(4000, 0, 10), ONE, 11);
    stage.record(&flow(4000, 900, 40), ONE, 41);
    let now = stage.at(44);
    assert!(judge(&stage.client, &stage.backends, 90.0, now).is_none());
}

#[test]
fn many_short_connections_spread_the_load() {
    let mut stage = Stage::new();
    stage.record(&flow(4000, 0, 10), ONE, 10);
    stage.record(&flow(4000, 200, 40), ONE, 40);
    let now = stage.at(41);
    for n in 0..200 {
        let backend = end(&endpoint(if n % 2 == 0 { ONE } else { OTHER }));
        stage.backends.reached(&backend, None, now);
        stage.client.connected(&backend, now);
    }
    assert!(judge(&stage.client, &stage.backends, 90.0, now).is_none());
    let detail = judge(&stage.client, &stage.backends, 70.0, now).unwrap();
    assert_eq!((detail.requests, detail.connects), (200, 200));
}

#[test]
fn a_port_that_is_used_again_begins_anew() {
    let mut stage = Stage::new();
    stage.record(&flow(4000, 900, 40), ONE, 50);
    stage.record(&flow(4000, 100, 35), OTHER, 100);
    let detail = judge(&stage.client, &stage.backends, 90.0, stage.at(103)).unwrap();
    assert_eq!((detail.requests, detail.connections), (1000, 1));
    // A connection that was silent before its first record: not all is of now.
    stage.record(&flow(4002, 5000, 7000), OTHER, 103);
    let detail = judge(&stage.client, &stage.backends, 90.0, stage.at(104)).unwrap();
    assert_eq!((detail.requests, detail.connections), (1000, 2));
}

#[test]
fn without_send_calls_bytes_at_the_close_are_compared() {
    let mut stage = Stage::new();
    stage
        .backends
        .reached(&end(&endpoint(OTHER)), None, stage.start);
    let closed = TcpFlow {
        state: State::Closed as i32,
        bytes_source: BytesSource::TcpSock as i32,
        sends: 0,
        bytes_sent: 3 << 20,
        ..flow(4000, 0, 4000)
    };
    stage.record(&closed, ONE, 40);
    let detail = judge(&stage.client, &stage.backends, 90.0, stage.at(43)).unwrap();
    assert_eq!(detail.measure(), Measure::Bytes);
    assert_eq!((detail.bytes, detail.connections), (3 << 20, 0));
}

#[test]
fn records_of_short_connections_are_not_wanted() {
    let young = TcpFlow {
        state: State::Closed as i32,
        ..flow(4000, 1, 10)
    };
    assert!(!wants(&young) && wants(&flow(4000, 1, 10)));
    let old = TcpFlow {
        duration_ns: MIN_AGE_NS,
        ..young
    };
    assert!(wants(&old));
    assert!(!wants(&TcpFlow {
        nat: Nat::None as i32,
        ..old
    }));
}

#[test]
fn pods_of_one_controller_are_one_workload() {
    let pod = |name: &str, made_by: &str| {
        let made_by = (!made_by.is_empty()).then(|| Workload {
            kind: workload::Kind::Deployment as i32,
            name: made_by.to_owned(),
            ..Workload::default()
        });
        super::workload(Some(&Identity {
            pod: Some(Pod {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                workload: made_by,
                ..Pod::default()
            }),
            ..Identity::default()
        }))
    };
    assert_eq!(pod("cart-1", "cart"), pod("cart-2", "cart"));
    assert_ne!(pod("cart-1", ""), pod("cart-2", ""));
    assert_eq!(super::workload(None), "");
}
