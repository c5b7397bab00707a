#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::{Duration, Instant};

use culprit_proto::v1::{Container, Endpoint, Event, Identity, Lane, Pod, Process};

use super::ending::{Ending, Opened, end};
use super::{Seen, clients, id_of, is_over, words};

const SECOND: u64 = 1_000_000_000;

fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

fn seen(who: Option<Identity>) -> Seen {
    Seen {
        merged: false,
        event: Event {
            who,
            ..Event::default()
        },
        lane: Lane::Bulk,
        seq: 1,
    }
}

fn server() -> Identity {
    Identity {
        container: Some(Container {
            id: "c1".to_owned(),
            ..Container::default()
        }),
        pod: Some(Pod {
            ips: vec!["10.244.1.5".to_owned(), "fd00::5".to_owned()],
            ..Pod::default()
        }),
        ..Identity::default()
    }
}

fn ending() -> Ending {
    let runtime = Identity {
        process: Some(Process {
            pid: 7,
            comm: "runc".to_owned(),
            ..Process::default()
        }),
        ..Identity::default()
    };
    Ending::new(server(), &runtime, 100 * SECOND, Instant::now())
}

fn opened(second: u64, bytes: u64, by_server: bool) -> Opened {
    Opened {
        at: second * SECOND,
        bytes,
        by_server,
        counts: true,
    }
}

#[test]
fn both_ends_of_a_connection_are_one() {
    let mut ending = ending();
    let key = |port| {
        let client = endpoint(&format!("10.244.9.9:{port}"));
        (end(&client), end(&endpoint("10.244.1.5:80")))
    };
    assert!(ending.has(&key(1).1));
    let seen = seen(None);
    // Opened before.
    ending.opened(key(1), opened(99, 10, true), &seen, None);
    assert_eq!((ending.attempts(), ending.take_untold()), (0, None));
    ending.opened(key(2), opened(101, 0, false), &seen, None);
    ending.opened(key(2), opened(101, 30, true), &seen, None);
    ending.opened(key(2), opened(101, 50, true), &seen, None);
    ending.opened(key(3), opened(103, 7, true), &seen, None);
    ending.refused(105 * SECOND, &seen);
    ending.refused(99 * SECOND, &seen);
    assert_eq!(ending.take_untold(), Some(3));
    let detail = ending.detail();
    assert_eq!(
        (detail.accepted, detail.dialed, detail.connections),
        (2, 1, 2)
    );
    assert_eq!((detail.refused, detail.bytes), (1, 57));
    assert_eq!(detail.latest_ns, 5 * SECOND);
    assert_eq!(
        words::summary(&detail, "cart"),
        "cart was asked to end (SIGTERM from runc[7]), and after that 2 connections were opened to it (with 57 B so far) and 1 was refused, the latest 5.00 s after it; it still runs."
    );
    // Another container's.
    ending.is_not(&key(3));
    assert_eq!(ending.detail().connections, 1);
}

#[test]
fn ports_of_other_containers_are_not_its_own() {
    let mut ending = ending();
    ending.others = Some([9090].into());
    assert!(!ending.has(&end(&endpoint("10.244.1.5:9090"))));
    assert!(ending.has(&end(&endpoint("[fd00::5]:80"))));
    assert!(!ending.has(&end(&endpoint("10.244.1.6:80"))));
    ending.learn(&endpoint("127.0.0.1:80"));
    ending.learn(&endpoint("10.244.1.6:80"));
    assert!(ending.has(&end(&endpoint("10.244.1.6:80"))));
    assert!(!ending.has(&end(&endpoint("127.0.0.1:80"))));
    ending.by_address = false;
    assert!(!ending.has(&end(&endpoint("10.244.1.6:80"))));
}

#[test]
fn kubelet_is_no_client() {
    let kubelet = Identity {
        process: Some(Process::default()),
        netns: 5,
        ..Identity::default()
    };
    assert!(clients::is_host_process(Some(&kubelet)));
    assert!(clients::is_of_node(Some(&kubelet), 5));
    assert!(!clients::is_of_node(Some(&kubelet), 6));
    // A node's address alone may stand for clients behind it.
    assert!(!clients::is_host_process(Some(&Identity::default())));
    let pod = Identity {
        netns: 5,
        ..server()
    };
    assert!(!clients::is_of_node(Some(&pod), 5));

    let mut ending = ending();
    let key = (
        end(&endpoint("10.0.0.1:1")),
        end(&endpoint("10.244.1.5:80")),
    );
    let probe = Opened {
        counts: false,
        ..opened(101, 10, false)
    };
    ending.opened(key.clone(), probe, &seen(None), None);
    ending.opened(key, opened(101, 10, true), &seen(None), None);
    assert_eq!((ending.attempts(), ending.take_untold()), (0, None));
}

#[test]
fn it_is_watched_for_a_while() {
    let mut ending = ending();
    let start = ending.at;
    assert!(!is_over(&ending, start + Duration::from_secs(599)));
    assert!(is_over(&ending, start + Duration::from_secs(600)));
    ending.ended = Some(start);
    assert!(is_over(&ending, start + Duration::from_secs(60)));
    assert_eq!(id_of(&server()), Some("c1"));
    assert_eq!(id_of(&Identity::default()), None);
}

#[test]
fn connections_are_bounded() {
    let mut ending = ending();
    let server = end(&endpoint("10.244.1.5:80"));
    for port in 0..600 {
        let client = (server.0.clone(), port);
        let record = opened(101, 1, true);
        ending.opened((client, server.clone()), record, &seen(None), None);
    }
    assert_eq!((ending.detail().connections, ending.left_out), (512, 88));
    assert_eq!(ending.evidence.len(), 16);
}
