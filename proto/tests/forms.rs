//! Every kind of event as text and as JSON, as a user sees them.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use culprit_proto::kind::{self, EventKind, Filter};
use culprit_proto::text::{self, LineOptions};
use culprit_proto::v1::*;
use culprit_proto::{json, time};
use prost::Message;
use serde_json::{Value, json};

const TIME: u64 = 1_795_348_862_123_456_789;

fn end(ip: &str, port: u16) -> Option<Endpoint> {
    Some(Endpoint::new(ip.parse().unwrap(), port))
}

fn who(pod: &str, container: &str, comm: &str, pid: u32) -> Option<Identity> {
    Some(Identity {
        process: Some(Process {
            pid,
            tid: pid,
            comm: comm.to_owned(),
            ..Process::default()
        }),
        container: Some(Container {
            id: "0123456789abcdef".to_owned(),
            name: container.to_owned(),
            image: "shop/cart:1".to_owned(),
        }),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            qos_class: pod::QosClass::BestEffort.into(),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            ..Pod::default()
        }),
        source: identity::Source::Cri.into(),
        ..Identity::default()
    })
}

fn event(kind: event::Kind) -> Event {
    Event {
        time: TIME,
        cpu: 3,
        who: who("cart-7d9", "app", "curl", 4211),
        kind: Some(kind),
        ..Event::default()
    }
}

fn connect() -> TcpConnect {
    TcpConnect {
        local: end("10.0.0.5", 41234),
        remote: end("10.0.0.9", 5432),
        outcome: tcp_connect::Outcome::Established.into(),
        latency_ns: 400_000,
        syn_retransmits: 1,
        ..TcpConnect::default()
    }
}

fn shown(kind: event::Kind) -> String {
    let line = text::event_line("node1", &event(kind), LineOptions::default());
    line.split_once("curl[4211]  ").unwrap().1.to_owned()
}

#[test]
fn a_line_names_time_node_kind_workload_process_and_what_happened() {
    let record = Record {
        lane: 1,
        seq: 7,
        event: Bytes::from(event(event::Kind::TcpConnect(connect())).encode_to_vec()),
    };
    assert_eq!(
        text::line("node1", &record, LineOptions::default()).unwrap(),
        "12:01:02.123456 node1 tcp_connect    shop/cart-7d9/app  curl[4211]  \
         10.0.0.5:41234 -> 10.0.0.9:5432 ESTABLISHED in 0.4 ms, 1 SYN retransmit"
    );
    let options = LineOptions {
        date: true,
        no_node: true,
    };
    assert!(
        text::line("node1", &record, options)
            .unwrap()
            .starts_with("2026-11-22T12:01:02.123456Z tcp_connect ")
    );
}

#[test]
fn connects_flows_and_echoes_read_well() {
    assert_eq!(
        shown(event::Kind::TcpConnect(TcpConnect {
            remote: end("::1", 80),
            outcome: tcp_connect::Outcome::Refused.into(),
            errno: 111,
            latency_ns: 90_000,
            syn_retransmits: 0,
            ..connect()
        })),
        "10.0.0.5:41234 -> [::1]:80 REFUSED after 0.090 ms (ECONNREFUSED)"
    );
    assert_eq!(
        shown(event::Kind::TcpConnect(TcpConnect {
            remote: end("10.96.0.1", 80),
            remote_nat: end("10.1.0.7", 8080),
            latency_ns: 0,
            syn_retransmits: 0,
            ..connect()
        })),
        "10.0.0.5:41234 -> 10.96.0.1:80 (10.1.0.7:8080) ESTABLISHED"
    );
    let flow = TcpFlow {
        local: end("10.0.0.5", 80),
        remote: end("10.0.0.9", 5432),
        role: tcp_flow::Role::Server.into(),
        state: tcp_flow::State::Open.into(),
        bytes_sent: 10,
        bytes_received: 2048,
        duration_ns: 61_000_000_000,
        found_open: true,
        last_user: who("cart-7d9", "app", "worker", 4300),
        ..TcpFlow::default()
    };
    assert_eq!(
        shown(event::Kind::TcpFlow(flow)),
        "10.0.0.5:80 <- 10.0.0.9:5432 open for 1m01s, sent 10 B, received 2.0 KiB, \
         open before the agent, last used by worker[4300] of shop/cart-7d9/app"
    );
    assert_eq!(
        shown(event::Kind::IcmpEcho(IcmpEcho {
            source: end("10.0.0.1", 0),
            id: 12,
            sequence: 3,
            wait_ns: 20_000,
            context: icmp_echo::Context::Ksoftirqd.into(),
            suppressed: 9,
        })),
        "echo request from 10.0.0.1 id 12 seq 3 on CPU 3 in ksoftirqd, waited 0.020 ms, \
         9 more not shown since the last"
    );
}

#[test]
fn stalls_and_kills_read_well() {
    assert_eq!(
        shown(event::Kind::SoftirqStall(SoftirqStall {
            vector: softirq_stall::Vector::NetRx.into(),
            wait_ns: 12_300_000,
            run_ns: 100_000,
            ran_in_ksoftirqd: true,
            ..SoftirqStall::default()
        })),
        "NET_RX on CPU 3: waited 12.3 ms, ran 0.1 ms, run by ksoftirqd"
    );
    assert_eq!(
        shown(event::Kind::SoftirqStall(SoftirqStall {
            vector: softirq_stall::Vector::None.into(),
            irqs_off_ns: 15_000_000,
            ..SoftirqStall::default()
        })),
        "interrupts on CPU 3: interrupts off for at least 15.0 ms"
    );
    assert_eq!(
        shown(event::Kind::OomKill(OomKill {
            scope: oom_kill::Scope::Container.into(),
            trigger: who("cart-7d9", "app", "stress", 50),
            limit_owner: who("cart-7d9", "app", "", 0),
            limit_bytes: 64 << 20,
            usage_bytes: 64 << 20,
            anon_bytes: 60 << 20,
            oom_score_adj: 1000,
            ..OomKill::default()
        })),
        "killed, container limit 64.0 MiB (used 64.0 MiB) of shop/cart-7d9/app; \
         anon 60.0 MiB, file 0 B, shmem 0 B, oom_score_adj 1000; \
         it was not the container's init; triggered by stress[50] of shop/cart-7d9/app"
    );
}

#[test]
fn loss_coverage_and_stats_read_well() {
    let counter = |reason: &str, count| LossCounter {
        probe: "tcp_flow".to_owned(),
        lane: Lane::Bulk.into(),
        reason: reason.to_owned(),
        count,
    };
    assert_eq!(
        shown(event::Kind::Loss(Loss {
            counters: vec![
                counter("ring_full", 10),
                counter("shed", 0),
                counter("map_full", 2)
            ]
        })),
        "lost so far: tcp_flow BULK ring_full 10, tcp_flow BULK map_full 2"
    );
    assert_eq!(shown(event::Kind::Loss(Loss::default())), "nothing lost");
    let probe = |probe: &str, flavour: &str, reason: &str| ProbeStatus {
        probe: probe.to_owned(),
        flavour: flavour.to_owned(),
        reason: reason.to_owned(),
        limits: Vec::new(),
    };
    assert_eq!(
        shown(event::Kind::Coverage(Coverage {
            probes: vec![
                probe("tcp_connect", "tp_btf", "fentry: EPERM"),
                probe("oom", "", "no hook")
            ]
        })),
        "probes: tcp_connect tp_btf, oom OFF (no hook)"
    );
    let stats = NodeStats {
        softirq: vec![SoftirqHistogram {
            wait: vec![0, 0, 5],
            run: vec![0; 40],
            count: 1234,
            ..SoftirqHistogram::default()
        }],
        timer_lateness: vec![CpuHistogram {
            cpu: 0,
            buckets: vec![1; 64],
        }],
        probes: vec![ProbeCounters {
            probe: "oom".to_owned(),
            seen: 7,
            dropped_map: 2,
            ..ProbeCounters::default()
        }],
        ..NodeStats::default()
    };
    assert_eq!(
        shown(event::Kind::NodeStats(stats)),
        "since start 1234 softirq runs, waits under 8 ns, timer lateness beyond measure, \
         oom saw 7 and dropped 2"
    );
}

#[test]
fn json_follows_the_contract() {
    let record = Record {
        lane: Lane::Signal.into(),
        seq: 7,
        event: Bytes::from(event(event::Kind::TcpConnect(connect())).encode_to_vec()),
    };
    let line = json::event_line("node1", &record).unwrap();
    assert!(line.starts_with(
        "{\"seq\":7,\"lane\":\"SIGNAL\",\"time\":\"2026-11-22T12:01:02.123456789Z\",\
         \"node\":\"node1\",\"kind\":\"tcp_connect\",\"cpu\":3,\"who\":{\"process\":{\"pid\":4211,"
    ));
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        value["tcp_connect"],
        json!({
            "local": "10.0.0.5:41234", "remote": "10.0.0.9:5432", "outcome": "ESTABLISHED",
            "errno": 0, "latency_ns": 400_000, "syn_retransmits": 1,
            "nat": "UNRESOLVED", "family": "UNKNOWN", "remote_name": ""
        })
    );
    assert_eq!(
        value["who"],
        json!({
            "process": {"pid": 4211, "tid": 4211, "comm": "curl", "exe": "", "start_time": 0},
            "container": {"id": "0123456789abcdef", "name": "app", "image": "shop/cart:1"},
            "pod": {
                "namespace": "shop", "name": "cart-7d9", "uid": "", "qos_class": "BEST_EFFORT",
                "labels": {"app": "cart"}, "ips": [], "host_network": false
            },
            "netns": 0, "source": "CRI", "unresolved": "", "node": ""
        })
    );
}

#[test]
fn what_a_later_version_sends_is_shown_as_far_as_known() {
    let mut odd = event(event::Kind::TcpConnect(TcpConnect {
        outcome: 77,
        ..connect()
    }));
    let value: Value =
        serde_json::from_str(&json::to_line(&json::EventLine::new("n", 9, 1, &odd)).unwrap())
            .unwrap();
    assert_eq!(value["tcp_connect"]["outcome"], 77);
    assert_eq!(value["lane"], 9);
    odd.kind = None;
    odd.time = 0;
    let value: Value =
        serde_json::from_str(&json::to_line(&json::EventLine::new("n", 0, 1, &odd)).unwrap())
            .unwrap();
    assert_eq!(value["kind"], "unknown");
    assert_eq!(value["time"], Value::Null);
    let bad = Record {
        lane: 0,
        seq: 42,
        event: Bytes::from_static(&[0xff]),
    };
    let error = json::event_line("n", &bad).unwrap_err().to_string();
    assert!(
        error.starts_with("record 42: the event does not decode"),
        "{error}"
    );
}

#[test]
fn hostile_strings_are_harmless_in_both_forms() {
    let hostile = "\u{1b}]0;x\u{7}\n\u{9b}2J\u{202e}\u{200b}\u{e0041}\u{1f600}\"\\";
    let mut bad = event(event::Kind::TcpConnect(connect()));
    bad.who = who(hostile, hostile, hostile, 1);
    let line = text::event_line(hostile, &bad, LineOptions::default());
    assert!(line.chars().all(text::is_plain), "{line:?}");
    let json = json::to_line(&json::EventLine::new(hostile, 1, 1, &bad)).unwrap();
    assert!(json.chars().all(text::is_plain), "{json:?}");
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["node"], hostile);
    assert_eq!(value["who"]["process"]["comm"], hostile);
}

#[test]
fn every_kind_has_its_name_and_lane() {
    for kind in EventKind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    let lane = |kind| kind::lane(&event(kind));
    assert_eq!(
        lane(event::Kind::OomKill(OomKill::default())),
        Lane::Critical
    );
    assert_eq!(
        lane(event::Kind::IcmpEcho(IcmpEcho::default())),
        Lane::Signal
    );
    assert_eq!(lane(event::Kind::TcpFlow(TcpFlow::default())), Lane::Bulk);
    let error = "tcp".parse::<EventKind>().unwrap_err();
    assert!(
        error.contains("tcp_connect, tcp_flow, icmp_echo"),
        "{error}"
    );
}

#[test]
fn filters_survive_the_way_to_a_server() {
    let filter = Filter {
        kinds: vec![EventKind::TcpConnect, EventKind::OomKill],
        pod: Some("shop/cart-7d9".parse().unwrap()),
        since: TIME,
        until: TIME + 1,
        last: 5,
    };
    assert_eq!(
        Filter::try_from(&filter.to_dump_request(true)),
        Ok(filter.clone())
    );
    assert_eq!(
        Filter::try_from(&filter.to_events_request("n")),
        Ok(filter.clone())
    );
    let event = event(event::Kind::TcpConnect(connect()));
    assert!(filter.matches(&event));
    for other in [
        Filter {
            kinds: vec![EventKind::Loss],
            ..filter.clone()
        },
        Filter {
            pod: Some("shop/cart".parse().unwrap()),
            ..filter.clone()
        },
        Filter {
            since: TIME + 1,
            until: 0,
            ..filter.clone()
        },
        Filter {
            since: 0,
            until: TIME,
            ..filter.clone()
        },
    ] {
        assert!(!other.matches(&event), "{other:?}");
    }
    assert_eq!(time::parse_point(&time::rfc3339(TIME), 0), Ok(TIME));
}
