#![expect(clippy::unwrap_used, reason = "tests")]

use culprit_proto::v1::Endpoint;

use super::*;

fn flow(port: u16, state: State, total: u64) -> TcpFlow {
    TcpFlow {
        local: Some(Endpoint::new([10, 0, 0, 1].into(), port)),
        remote: Some(Endpoint::new([10, 0, 0, 2].into(), 80)),
        state: state.into(),
        bytes_sent: total,
        bytes_received: 2 * total,
        sends: 3 * total,
        receives: 4 * total,
        retransmits: 5 * u32::try_from(total).unwrap(),
        duration_ns: 6 * total,
        ..TcpFlow::default()
    }
}

/// Bytes sent of the part, all others alike.
fn take(
    deltas: &mut Deltas,
    port: u16,
    opened_ns: u64,
    state: State,
    total: u64,
    now: Instant,
) -> Option<u64> {
    let mut flow = flow(port, state, total);
    deltas.take(7, opened_ns, &mut flow, now);
    let part = flow.delta?;
    let sent = part.bytes_sent;
    assert_eq!(
        part,
        totals(&self::flow(port, state, sent)),
        "all parts alike"
    );
    Some(sent)
}

#[test]
fn the_parts_add_up_to_the_totals_and_nothing_is_kept() {
    let (mut deltas, now) = (Deltas::new(Duration::ZERO, 1), Instant::now());
    let mut told = Vec::new();
    for total in [10, 10, 25] {
        told.push(take(&mut deltas, 1, 5, State::Open, total, now));
    }
    told.push(take(&mut deltas, 1, 5, State::Closed, 31, now));
    assert_eq!(told, [Some(10), Some(0), Some(15), Some(6)]);
    assert_eq!(told.iter().flatten().sum::<u64>(), 31);
    assert!(deltas.living.is_empty() && deltas.order.is_empty());
    // Another one between the same ends.
    assert_eq!(take(&mut deltas, 1, 9, State::Open, 4, now), Some(4));
    assert_eq!(take(&mut deltas, 1, 9, State::Closed, 4, now), Some(0));
    // One that has only its final record.
    assert_eq!(take(&mut deltas, 2, 9, State::Closed, 8, now), Some(8));
    let later = now + 2 * REMEMBER;
    assert_eq!(take(&mut deltas, 3, 20, State::Open, 1, later), Some(1));
    assert!(deltas.ended.is_empty() && deltas.ends.is_empty());
    assert_eq!(deltas.forgotten(), 0);
}

#[test]
fn a_record_that_was_overtaken_adds_nothing_and_leaves_nothing() {
    let (mut deltas, now) = (Deltas::new(Duration::ZERO, 1), Instant::now());
    assert_eq!(take(&mut deltas, 1, 5, State::Open, 10, now), Some(10));
    assert_eq!(take(&mut deltas, 1, 5, State::Closed, 30, now), Some(20));
    assert_eq!(take(&mut deltas, 1, 5, State::Open, 20, now), Some(0));
    // Without a record before.
    assert_eq!(take(&mut deltas, 2, 5, State::Closed, 30, now), Some(30));
    assert_eq!(take(&mut deltas, 2, 5, State::Open, 20, now), Some(0));
    assert!(deltas.living.is_empty() && deltas.order.is_empty());
    // Two of the sweep's, the later one first.
    assert_eq!(take(&mut deltas, 3, 5, State::Open, 20, now), Some(20));
    assert_eq!(take(&mut deltas, 3, 5, State::Open, 10, now), Some(0));
    assert_eq!(take(&mut deltas, 3, 5, State::Closed, 25, now), Some(5));
}

#[test]
fn a_forgotten_connection_has_no_part_rather_than_a_wrong_one() {
    let (mut deltas, now) = (Deltas::new(Duration::ZERO, 1), Instant::now());
    deltas.max = (2, 2);
    for port in 1..=3 {
        let opened = 10 * u64::from(port);
        assert_eq!(
            take(&mut deltas, port, opened, State::Open, 100, now),
            Some(100)
        );
    }
    assert_eq!((deltas.living.len(), deltas.forgotten()), (2, 1));
    // The first was forgotten: no part, and from here on known again.
    assert_eq!(take(&mut deltas, 1, 10, State::Open, 150, now), None);
    assert_eq!(take(&mut deltas, 1, 10, State::Closed, 160, now), Some(10));
    // So was the second now.
    assert_eq!(take(&mut deltas, 2, 20, State::Closed, 120, now), None);
    // One opened after all that were forgotten.
    assert_eq!(take(&mut deltas, 9, 90, State::Closed, 5, now), Some(5));
    assert_eq!(deltas.order.len(), deltas.living.len());
}

#[test]
fn the_one_silent_longest_is_forgotten() {
    let (mut deltas, now) = (Deltas::new(Duration::ZERO, 1), Instant::now());
    deltas.max = (2, 2);
    for (port, part) in [(1, 10), (2, 10), (1, 0), (3, 10), (1, 0)] {
        let opened = 10 * u64::from(port);
        let told = take(&mut deltas, port, opened, State::Open, 10, now);
        assert_eq!(told, Some(part), "{port}");
    }
    assert_eq!(take(&mut deltas, 2, 20, State::Open, 10, now), None);
    assert_eq!(Deltas::new(Duration::ZERO, 50_000).max.0, 50_000);
}

#[test]
fn an_end_that_was_forgotten_early_is_not_told_again() {
    let (mut deltas, now) = (Deltas::new(Duration::ZERO, 1), Instant::now());
    deltas.max = (9, 2);
    for port in 1..=3 {
        let opened = 10 * u64::from(port);
        assert_eq!(
            take(&mut deltas, port, opened, State::Closed, 100, now),
            Some(100)
        );
    }
    assert_eq!((deltas.ended.len(), deltas.ends.len()), (2, 2));
    assert_eq!(take(&mut deltas, 1, 10, State::Open, 90, now), None);
    assert_eq!(take(&mut deltas, 2, 20, State::Open, 90, now), Some(0));
}
