use std::time::{Duration, Instant};

use culprit_proto::v1::dns_lookup::Transport;
use culprit_proto::v1::{DnsLookup, Endpoint, Event, Lane};

use super::super::Seen;
use super::lookups::Lookups;

fn lookup(query_type: u32, port: u32) -> DnsLookup {
    DnsLookup {
        client: Some(Endpoint {
            ip: vec![10, 0, 0, 1].into(),
            port,
        }),
        name: "db.shop".to_owned(),
        query_type,
        transport: Transport::Udp as i32,
        latency_ns: 5_000_000_000,
        ..DnsLookup::default()
    }
}

fn take(row: &mut Lookups, lookup: &DnsLookup, now: Instant) {
    let seen = Seen {
        merged: false,
        event: Event {
            time: 9_000_000_000,
            ..Event::default()
        },
        lane: Lane::Signal,
        seq: 1,
    };
    row.take(lookup, &seen, now);
}

#[test]
fn a_lost_twin_is_one_whose_other_is_well() {
    let now = Instant::now();
    let mut row = Lookups::new(now);
    take(&mut row, &lookup(28, 4000), now);
    assert_eq!(row.counts(now).lost_twins, 1);
    // Another port: both are lost.
    take(&mut row, &lookup(1, 4001), now);
    take(&mut row, &lookup(28, 4001), now);
    let counts = row.counts(now);
    assert_eq!((counts.unanswered, counts.lost_twins), (3, 1));
    assert_eq!(row.since, 4_000_000_000);
}

#[test]
fn lookups_are_counted_by_their_trouble_for_a_minute() {
    let now = Instant::now();
    let mut row = Lookups::new(now);
    let failed = DnsLookup {
        answered: true,
        rcode: 2,
        latency_ns: 1_000_000,
        ..lookup(16, 4000)
    };
    let late = DnsLookup {
        answered: true,
        retries: 1,
        transport: Transport::Tcp as i32,
        ..lookup(16, 4000)
    };
    take(&mut row, &failed, now);
    take(&mut row, &late, now);
    let counts = row.counts(now);
    assert_eq!((counts.failed, counts.late, counts.retried), (1, 1, 1));
    assert_eq!((counts.over_tcp, counts.lost_twins), (1, 0));
    assert_eq!(counts.codes.get(&2), Some(&1));
    assert_eq!(counts.name, "db.shop");
    let later = now + Duration::from_secs(61);
    assert_eq!(row.recent(later), 0);
    assert!(row.is_old(later));
    for _ in 0..1000 {
        take(&mut row, &failed, later);
    }
    assert_eq!(row.recent(later), 256);
    assert_eq!(row.evidence(later).len(), 16);
}
