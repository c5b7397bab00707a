#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::{Duration, Instant};

use culprit_proto::v1::accept_queue_full_detail::Accepting;
use culprit_proto::v1::{Event, Histogram, Lane, TcpListen, event::Kind, tcp_listen::Why};

use super::pressure::{Pressure, is_full};
use super::{Seen, is_over};

const SECOND: u64 = 1_000_000_000;

fn reading(why: Why, backlog: u32, max: u32, queued: u64) -> TcpListen {
    TcpListen {
        local: Some(
            "10.0.0.1:80"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        ),
        backlog,
        max_backlog: max,
        why: why as i32,
        queued,
        sockets: 1,
        ..TcpListen::default()
    }
}

fn fed(readings: &[TcpListen]) -> Pressure {
    let now = Instant::now();
    let mut pressure = Pressure::new(&readings[0], 100 * SECOND, now);
    for (n, reading) in readings.iter().enumerate() {
        let seen = Seen {
            merged: false,
            event: Event {
                time: (100 + n as u64) * SECOND,
                kind: Some(Kind::TcpListen(reading.clone())),
                ..Event::default()
            },
            lane: Lane::Signal,
            seq: n as u64,
        };
        pressure.add(reading, &seen, now);
    }
    pressure
}

#[test]
fn a_queue_is_full_with_one_more_than_its_maximum() {
    assert!(is_full(&reading(Why::Look, 2, 1, 2), 100.0));
    assert!(!is_full(&reading(Why::Look, 1, 1, 2), 100.0));
    assert!(is_full(&reading(Why::Look, 1, 1, 2), 50.0));
}

#[test]
fn full_for_an_instant_is_no_trouble() {
    let pressure = fed(&[reading(Why::Filled, 129, 128, 500)]);
    assert!(!pressure.is_trouble(true));
}

#[test]
fn nothing_is_accepted() {
    let mut late = reading(Why::Look, 2, 1, 2);
    late.oldest_wait_ns = 3 * SECOND;
    late.drops = 7;
    late.new_drops = 7;
    let pressure = fed(&[reading(Why::Filled, 2, 1, 2), late]);
    assert!(pressure.is_trouble(true));
    let detail = &pressure.detail;
    assert_eq!(detail.accepting(), Accepting::Nothing);
    assert_eq!(
        (detail.drops, detail.drops_total, detail.accepted),
        (7, 7, 0)
    );
    // It began when the first in the queue was established.
    assert_eq!(pressure.since, 98 * SECOND);
    assert_eq!(pressure.evidence.len(), 2);
}

#[test]
fn what_came_in_less_what_waits_was_accepted() {
    let mut late = reading(Why::SynDropped, 129, 128, 700);
    late.new_drops = 1;
    late.accept_wait = Some(Histogram {
        buckets: [vec![0; 20], vec![3, 1]].concat(),
        count: 4,
        total_ns: 10 << 20,
        max_ns: 3 << 20,
    });
    let pressure = fed(&[reading(Why::Filled, 129, 128, 500), late]);
    assert!(pressure.is_trouble(true));
    assert_eq!(pressure.detail.accepted, 200);
    assert_eq!(pressure.detail.accepting(), Accepting::Slowly);
    assert_eq!(pressure.detail.accept_wait_p50_ns, 2 << 20);
    let short = fed(&[reading(Why::Filled, 2, 1, 5), reading(Why::Look, 2, 1, 9)]);
    assert_eq!(short.detail.accepting(), Accepting::ShortQueue);
}

#[test]
fn a_look_that_does_not_find_it_ends_it() {
    let seen = Instant::now();
    let at = |s| seen + Duration::from_secs(s);
    assert!(!is_over(seen, None, at(10)));
    assert!(is_over(seen, None, at(31)));
    // A look right after an event finds its record held back.
    assert!(!is_over(seen, Some(at(1)), at(5)));
    assert!(!is_over(seen, Some(at(4)), at(4)));
    assert!(is_over(seen, Some(at(4)), at(6)));
}
