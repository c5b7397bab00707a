//! One event of each kind, with all its parts.

use bytes::Bytes;
use culprit_proto::frame;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{
    Cgroup, Container, Coverage, CpuHistogram, DnsLookup, Endpoint, Event, Evidence, Family,
    Finding, Histogram, HostAddress, HostPort, IcmpEcho, Identity, Inventory, InventoryPod, Lane,
    Loss, LossCounter, Nat, NodeStats, OomKill, Party, Pod, ProbeCounters, ProbeStatus, Process,
    Record, SoftirqHistogram, SoftirqStall, TcpConnect, TcpEdge, TcpFlow, TcpFlowDelta, TcpListen,
    Workload, WorkloadStats, dns_lookup, event::Kind, finding, icmp_echo, identity, oom_kill, pod,
    softirq_stall, tcp_connect, tcp_flow, tcp_listen, workload,
};
use prost::Message;

use super::Seed;

/// When the first of them happened.
pub(crate) const TIME: u64 = 1_795_348_862_123_456_789;

fn end(ip: [u8; 4], port: u16) -> Option<Endpoint> {
    Some(Endpoint::new(ip.into(), port))
}

fn who(pod: &str, comm: &str) -> Option<Identity> {
    Some(Identity {
        process: Some(Process {
            pid: 4211,
            tid: 4212,
            comm: comm.to_owned(),
            exe: "/usr/bin/curl".to_owned(),
            start_time: 77,
        }),
        container: Some(Container {
            id: "0123456789abcdef".to_owned(),
            name: "app".to_owned(),
            image: "shop/cart:1".to_owned(),
        }),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            uid: "4a6f".to_owned(),
            qos_class: pod::QosClass::BestEffort.into(),
            labels: [("app".to_owned(), "cart".to_owned())].into(),
            ips: vec!["10.0.0.5".to_owned()],
            host_network: false,
            workload: Some(Workload {
                kind: workload::Kind::Deployment.into(),
                name: "cart".to_owned(),
                source: workload::Source::Label.into(),
            }),
        }),
        cgroup: Some(Cgroup {
            id: 4711,
            path: "/kubepods.slice/\u{1b}[31m".to_owned(),
            hierarchy: 0,
        }),
        netns: 4_026_531_840,
        source: identity::Source::Cri.into(),
        unresolved: "the runtime \u{202e} does not know it".to_owned(),
        node: "node2".to_owned(),
    })
}

fn counters() -> ProbeCounters {
    ProbeCounters {
        probe: "tcp_flow".to_owned(),
        seen: 10,
        submitted: 7,
        dropped_ring: 1,
        dropped_map: 1,
        suppressed: 1,
        ..ProbeCounters::default()
    }
}

fn kind(of: EventKind) -> Kind {
    match of {
        EventKind::TcpConnect => Kind::TcpConnect(TcpConnect {
            family: Family::Inet.into(),
            remote_name: "cart.shop.svc".to_owned(),
            local: end([10, 0, 0, 5], 41234),
            remote: end([10, 0, 0, 9], 5432),
            outcome: tcp_connect::Outcome::Refused.into(),
            errno: 111,
            latency_ns: 400_000,
            syn_retransmits: 1,
            nat: Nat::Translated.into(),
            remote_nat: end([10, 1, 0, 7], 5433),
            local_nat: end([192, 168, 0, 2], 61000),
        }),
        EventKind::TcpFlow => Kind::TcpFlow(TcpFlow {
            family: Family::Inet6.into(),
            local: end([10, 0, 0, 5], 80),
            remote: end([10, 0, 0, 9], 5432),
            role: tcp_flow::Role::Server.into(),
            state: tcp_flow::State::Closed.into(),
            close_reason: tcp_flow::CloseReason::ResetReceived.into(),
            bytes_sent: 10,
            bytes_received: 2048,
            duration_ns: 61_000_000_000,
            last_user: who("cart-7d9", "worker"),
            delta: Some(TcpFlowDelta {
                bytes_received: 48,
                duration_ns: 1_000_000_000,
                ..TcpFlowDelta::default()
            }),
            ..TcpFlow::default()
        }),
        EventKind::IcmpEcho => Kind::IcmpEcho(IcmpEcho {
            source: end([10, 0, 0, 1], 0),
            id: 12,
            sequence: 3,
            wait_ns: 20_000,
            context: icmp_echo::Context::Ksoftirqd.into(),
            suppressed: 9,
        }),
        EventKind::SoftirqStall => Kind::SoftirqStall(SoftirqStall {
            vector: softirq_stall::Vector::NetRx.into(),
            wait_ns: 12_300_000,
            run_ns: 100_000,
            irqs_off_ns: 15_000_000,
            queue_wait_ns: 3,
            ran_in_ksoftirqd: true,
            suppressed: 2,
        }),
        EventKind::OomKill => Kind::OomKill(OomKill {
            scope: oom_kill::Scope::Container.into(),
            trigger: who("cart-7d9", "stress"),
            limit_owner: who("cart-7d9", ""),
            limit_bytes: 64 << 20,
            usage_bytes: 64 << 20,
            anon_bytes: 60 << 20,
            oom_score_adj: -997,
            limit_source: oom_kill::LimitSource::KernelLog.into(),
            ..OomKill::default()
        }),
        EventKind::Loss => Kind::Loss(Loss {
            counters: vec![LossCounter {
                probe: "tcp_flow".to_owned(),
                lane: Lane::Bulk.into(),
                reason: "ring_full".to_owned(),
                count: 3,
            }],
        }),
        EventKind::Coverage => Kind::Coverage(Coverage {
            probes: vec![ProbeStatus {
                probe: "oom".to_owned(),
                flavour: "tp_btf".to_owned(),
                reason: "fentry oom_kill_process: load refused".to_owned(),
                limits: vec!["no owner".to_owned()],
            }],
        }),
        EventKind::NodeStats => Kind::NodeStats(NodeStats {
            softirq: vec![SoftirqHistogram::default()],
            timer_lateness: vec![CpuHistogram::default()],
            packet_queue_wait: vec![],
            probes: vec![counters()],
        }),
        EventKind::DnsLookup => Kind::DnsLookup(DnsLookup {
            server: end([10, 0, 0, 10], 53),
            client: end([10, 0, 0, 2], 40000),
            transport: dns_lookup::Transport::Udp as i32,
            name: "www.example".to_owned(),
            query_type: 28,
            id: 0x1234,
            latency_ns: 5_000_000_000,
            retries: 1,
            ..DnsLookup::default()
        }),
        EventKind::TcpListen => Kind::TcpListen(TcpListen {
            local: end([0, 0, 0, 0], 8080),
            backlog: 129,
            max_backlog: 128,
            drops: 7,
            why: tcp_listen::Why::Look.into(),
            oldest_wait_ns: 3_000_000_000,
            accept_wait: Some(Histogram::default()),
            sockets: 1,
            ..TcpListen::default()
        }),
        EventKind::WorkloadStats => Kind::WorkloadStats(WorkloadStats {
            runq_wait: Some(Histogram {
                buckets: vec![0, 3, 1],
                count: 4,
                total_ns: 9000,
                max_ns: 5000,
            }),
            ..WorkloadStats::default()
        }),
        EventKind::Finding => Kind::Finding(Finding {
            name: "oom_autopsy".to_owned(),
            severity: finding::Severity::Critical.into(),
            summary: "cart used 64 MiB of 64 MiB".to_owned(),
            mend: "raise the limit".to_owned(),
            evidence: vec![Evidence {
                lane: Lane::Critical.into(),
                seq: 7,
                kind: "oom_kill".to_owned(),
            }],
            parties: vec![Party {
                role: "victim".to_owned(),
                who: who("cart-7d9", "stress"),
            }],
            count: 1,
            ..Finding::default()
        }),
        EventKind::Inventory => Kind::Inventory(Inventory {
            pods: vec![InventoryPod {
                pod: who("cart-7d9", "").and_then(|who| who.pod),
                containers: vec![Container {
                    id: "0123456789abcdef".to_owned(),
                    name: "app".to_owned(),
                    image: "shop/cart:1".to_owned(),
                }],
                since: TIME - 1,
                until: TIME,
            }],
            whole: true,
            addresses: vec![HostAddress {
                ip: "192.168.0.1".to_owned(),
                since: TIME,
                until: 0,
            }],
            ports: vec![HostPort {
                port: 10250,
                who: who("", "kubelet"),
                since: TIME - 5,
                until: 0,
            }],
        }),
        EventKind::TcpEdge => Kind::TcpEdge(TcpEdge {
            remote: end([10, 0, 0, 9], 5432),
            port: 5432,
            role: tcp_flow::Role::Client.into(),
            since: TIME,
            records: 12,
            opened: 9,
            closed: 8,
            open: 3,
            bytes_sent: 4096,
            bytes_received: 1 << 20,
            retransmits: 2,
            max_srtt_ns: 400_000,
            resets: 1,
            unsure: 1,
            ..TcpEdge::default()
        }),
    }
}

/// One event of each kind, of two pods, a second apart.
pub(crate) fn samples() -> Vec<Event> {
    let events = EventKind::ALL.into_iter().zip(0_u32..);
    events
        .map(|(of, n)| Event {
            time: TIME + u64::from(n) * 1_000_000_000,
            cpu: n,
            who: who(if n % 2 == 0 { "cart-7d9" } else { "cart-7da" }, "curl"),
            peer: who("db-0", "").filter(|_| of == EventKind::TcpFlow),
            kind: Some(kind(of)),
        })
        .collect()
}

pub(crate) fn lane_of(event: &Event) -> Lane {
    EventKind::of(event).map_or(Lane::Bulk, EventKind::lane)
}

pub(crate) fn record(event: &Event, seq: u64) -> Record {
    Record {
        lane: lane_of(event).into(),
        seq,
        event: Bytes::from(event.encode_to_vec()),
    }
}

/// Events as they travel.
pub(crate) fn encoded() -> Vec<Seed> {
    let events = samples().into_iter();
    let mut seeds: Vec<Seed> = events
        .map(|event| {
            let name = EventKind::of(&event).map_or("unknown", EventKind::name);
            Seed::new(name, event.encode_to_vec())
        })
        .collect();
    // Of a later version: a kind and enum values that this one does not know.
    let mut later = Event {
        time: TIME,
        ..Event::default()
    }
    .encode_to_vec();
    later.extend([0xaa, 0x06, 0x02, 0x08, 0x63]);
    seeds.push(Seed::new("later_kind", later));
    seeds
}

/// A recorder file: whole, cut off, with a damaged frame, with zeros behind.
pub(crate) fn frames() -> Vec<Seed> {
    let mut whole = Vec::new();
    let mut ends = Vec::new();
    for (event, seq) in samples().iter().zip(0..) {
        // Samples are far below the bound of a frame.
        if frame::encode(&record(event, seq), &mut whole).is_ok() {
            ends.push(whole.len());
        }
    }
    let second = ends.get(1).copied().unwrap_or_default();
    let mut damaged = whole[..second].to_vec();
    if let Some(byte) = damaged.get_mut(30) {
        *byte ^= 0x10;
    }
    let mut zeros = whole[..second].to_vec();
    zeros.extend([0; 64]);
    vec![
        Seed::new("cut", &whole[..whole.len() - 3]),
        Seed::new("damaged", damaged),
        Seed::new("whole", whole),
        Seed::new("zeros", zeros),
    ]
}
