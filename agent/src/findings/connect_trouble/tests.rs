#![expect(clippy::unwrap_used, reason = "tests")]
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::{Cgroup, Container, Endpoint, Evidence, Identity, Process, TcpConnect};

use super::causes::Causes;
use super::key;
use super::trouble::Trouble;
use crate::probes::skb_drop::SkbDrop;

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn connect(outcome: Outcome, retransmits: u32) -> TcpConnect {
    TcpConnect {
        outcome: outcome as i32,
        syn_retransmits: retransmits,
        latency_ns: 1_000_000_000,
        ..TcpConnect::default()
    }
}

#[test]
fn troubles_are_counted_for_a_minute() {
    let start = Instant::now();
    let mut trouble = Trouble::new(start);
    let at = |s| start + Duration::from_secs(s);
    for s in [0, 20, 40] {
        trouble.ended(&connect(Outcome::Refused, 0), Evidence::default(), at(s));
    }
    assert_eq!(trouble.recent(at(41)), 3);
    assert_eq!(trouble.recent(at(61)), 2);
    assert_eq!(trouble.recent(at(200)), 0);
    assert_eq!(trouble.evidence.len(), 3);
}

#[test]
fn a_retransmit_counts_once_though_it_is_told_twice() {
    let now = Instant::now();
    let mut trouble = Trouble::new(now);
    trouble.waits(1, 1_000_000_000, now);
    trouble.waits(2, 3_000_000_000, now);
    assert_eq!(trouble.recent(now), 2);
    trouble.ended(&connect(Outcome::TimedOut, 2), Evidence::default(), now);
    assert_eq!(trouble.recent(now), 3);
    let detail = trouble.detail(now);
    assert_eq!((detail.timed_out, detail.syn_retransmits), (1, 2));
    assert_eq!(detail.longest_wait_ns, 3_000_000_000);
    assert_eq!(trouble.take_untold(now), 3);
    assert!(!trouble.is_due(now + Duration::from_secs(9), Duration::ZERO));
}

#[test]
fn success_is_no_trouble() {
    let now = Instant::now();
    let mut trouble = Trouble::new(now);
    for _ in 0..100 {
        trouble.ended(&connect(Outcome::Established, 0), Evidence::default(), now);
        trouble.ended(&connect(Outcome::Aborted, 0), Evidence::default(), now);
    }
    assert_eq!(trouble.recent(now), 0);
    assert!(trouble.evidence.len() <= 100);
}

#[test]
fn a_workload_is_its_container_or_cgroup_or_process() {
    let remote = end("10.0.0.1:80");
    let mut who = Identity {
        process: Some(Process {
            pid: 7,
            ..Process::default()
        }),
        ..Identity::default()
    };
    assert_eq!(key(&remote, &who).2, "pid 7");
    who.cgroup = Some(Cgroup {
        path: "/".to_owned(),
        ..Cgroup::default()
    });
    assert_eq!(key(&remote, &who).2, "pid 7");
    who.cgroup = Some(Cgroup {
        path: "/a".to_owned(),
        ..Cgroup::default()
    });
    assert_eq!(key(&remote, &who).2, "/a");
    who.container = Some(Container {
        id: "c".to_owned(),
        ..Container::default()
    });
    assert_eq!(key(&remote, &who).2, "c");
}

#[test]
fn drops_belong_to_the_end_that_was_dialled_and_grow_old() {
    let now = Instant::now();
    let mut causes = Causes::default();
    let mut drop = SkbDrop {
        server: end("10.0.0.1:80"),
        client: end("10.0.0.2:4000"),
        reason: 7,
        count: 41,
        answer: false,
        netns: 1,
    };
    causes.drop(&drop, "NETFILTER_DROP", now);
    drop.count = 43;
    causes.drop(&drop, "NETFILTER_DROP", now);
    let of = causes.of(&drop.server, now);
    assert_eq!((of[0].reason.as_str(), of[0].count), ("NETFILTER_DROP", 3));
    assert!(causes.of(&end("10.0.0.1:81"), now).is_empty());
    assert!(
        causes
            .of(&drop.server, now + Duration::from_secs(61))
            .is_empty()
    );
    for n in 0..2000 {
        drop.server = end(&format!("10.0.{}.{}:80", n / 250, n % 250));
        causes.drop(&drop, "X", now);
    }
    // Bounded: the first had to go, the last is there.
    assert!(causes.of(&end("10.0.0.3:80"), now).is_empty());
    assert_eq!(causes.of(&drop.server, now).len(), 1);
}
