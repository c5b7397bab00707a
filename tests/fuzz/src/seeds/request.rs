//! Questions, and the answers that name nodes.

use culprit_proto::v1::{
    DumpRequest, EventsRequest, LaneStatus, NodeStatus, NodesResponse, StatusResponse, StoredEvent,
};
use prost::Message;

use super::{Seed, events};

pub(crate) fn local() -> Vec<Seed> {
    let all = DumpRequest {
        follow: true,
        ..DumpRequest::default()
    };
    let some = DumpRequest {
        kinds: vec!["tcp_connect".to_owned(), "oom_kill".to_owned()],
        pod_namespace: "shop".to_owned(),
        pod_name: "cart-7d9".to_owned(),
        since: events::TIME,
        until: events::TIME + 5_000_000_000,
        last: 3,
        follow: false,
    };
    let wrong = DumpRequest {
        kinds: vec!["no\u{1b}kind".to_owned()],
        pod_name: "cart-7d9".to_owned(),
        ..DumpRequest::default()
    };
    let status = StatusResponse {
        node: "worker-1".to_owned(),
        spool_trouble: "no space left on device".to_owned(),
        ..StatusResponse::default()
    };
    vec![
        Seed::new("dump_all", all.encode_to_vec()),
        Seed::new("dump_some", some.encode_to_vec()),
        Seed::new("dump_wrong", wrong.encode_to_vec()),
        Seed::new("status_answer", status.encode_to_vec()),
    ]
}

pub(crate) fn query() -> Vec<Seed> {
    let some = EventsRequest {
        kinds: vec!["tcp_flow".to_owned(), "oom_kill".to_owned()],
        node: "worker-1".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "cart-7d9".to_owned(),
        since: events::TIME,
        until: events::TIME + 9_000_000_000,
        last: 2,
    };
    let newest = EventsRequest {
        last: 3,
        ..EventsRequest::default()
    };
    let namespace = EventsRequest {
        pod_namespace: "shop".to_owned(),
        until: u64::MAX,
        ..EventsRequest::default()
    };
    let hostile = EventsRequest {
        node: "' OR 1=1 --".to_owned(),
        since: u64::MAX,
        last: u64::MAX,
        ..EventsRequest::default()
    };
    let nodes = NodesResponse {
        nodes: vec![NodeStatus {
            node: "worker-1\u{7}".to_owned(),
            lanes: vec![LaneStatus::default()],
            ..NodeStatus::default()
        }],
        ..NodesResponse::default()
    };
    let mut seeds = vec![
        Seed::new("hostile", hostile.encode_to_vec()),
        Seed::new("namespace", namespace.encode_to_vec()),
        Seed::new("newest", newest.encode_to_vec()),
        Seed::new("nodes_answer", nodes.encode_to_vec()),
        Seed::new("some", some.encode_to_vec()),
    ];
    if let Some(event) = events::samples().first() {
        let stored = StoredEvent {
            node: "worker-1\u{7}".to_owned(),
            record: Some(events::record(event, 7)),
            ..StoredEvent::default()
        };
        seeds.push(Seed::new("stored_event", stored.encode_to_vec()));
    }
    seeds
}
