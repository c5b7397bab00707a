use std::time::{Duration, Instant};

use culprit_proto::v1::{Event, Lane, SoftirqStall, softirq_stall::Vector};

use super::super::Seen;
use super::holders::syscall;
use super::looks::Looks;
use super::trouble::Trouble;
use crate::identity::Actor;
use crate::probes::holder::HolderSample;

const MS: u64 = 1_000_000;

fn seen(time: u64) -> Seen {
    Seen {
        merged: false,
        event: Event {
            time,
            ..Event::default()
        },
        lane: Lane::Critical,
        seq: 1,
    }
}

fn stall(wait: u64, run: u64) -> SoftirqStall {
    SoftirqStall {
        vector: Vector::NetRx as i32,
        wait_ns: wait,
        run_ns: run,
        ..SoftirqStall::default()
    }
}

fn sample(time: u64) -> HolderSample {
    HolderSample {
        time,
        cpu: 3,
        actor: Actor::default(),
        idle: false,
        ksoftirqd: false,
        held_ns: 2 * MS,
        pending_ns: 5 * MS,
        running_ns: 0,
        late_ns: 0,
        vector: 3,
        file: None,
        stack: vec![],
    }
}

#[test]
fn samples_of_the_wait_belong_to_it_and_no_others() {
    let mut trouble = Trouble::new(Instant::now());
    trouble.stall(&stall(20 * MS, MS), &seen(1000 * MS), Instant::now());
    let mut looks = Looks::default();
    for time in [900, 985, 1001, 1100] {
        looks.sample(&sample(time * MS));
    }
    let times: Vec<u64> = looks
        .of(3, &trouble)
        .samples
        .iter()
        .map(|s| s.time / MS)
        .collect();
    assert_eq!(times, [985, 1001]);
    assert!(looks.of(4, &trouble).samples.is_empty());
    assert_eq!(trouble.since(), 979 * MS);
    assert_eq!(trouble.of_vector(), (20 * MS, MS));
    looks.forget(20_000 * MS);
    assert!(looks.of(3, &trouble).samples.is_empty());
}

#[test]
fn a_trouble_is_over_when_it_was_quiet_or_lasts_too_long() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut trouble = Trouble::new(start);
    assert!(!trouble.is_over(at(1000)));
    trouble.stall(&stall(20 * MS, 0), &seen(1), at(1000));
    assert!(!trouble.is_over(at(2000)));
    assert!(trouble.is_over(at(2600)));
    trouble.stall(&stall(20 * MS, 0), &seen(1), at(4900));
    assert!(trouble.is_over(at(5000)));
}

#[test]
fn the_vector_is_that_which_was_held_up_longest() {
    let mut trouble = Trouble::new(Instant::now());
    trouble.stall(&stall(20 * MS, 0), &seen(1), Instant::now());
    let other = SoftirqStall {
        vector: Vector::Timer as i32,
        wait_ns: MS,
        irqs_off_ns: 90 * MS,
        ..SoftirqStall::default()
    };
    trouble.stall(&other, &seen(2), Instant::now());
    assert_eq!(trouble.vector(), Vector::NetRx);
    assert_eq!((trouble.irqs_off_ns, trouble.stalls), (90 * MS, 2));
}

#[test]
fn a_system_call_is_told_by_its_outermost_frame() {
    let stack = |frames: &[&str]| frames.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let frames = stack(&[
        "fib6_walk",
        "__sys_sendto",
        "__x64_sys_sendto",
        "do_syscall_64",
    ]);
    assert_eq!(syscall(&frames), "sendto");
    assert_eq!(syscall(&stack(&["worker_thread"])), "");
}
