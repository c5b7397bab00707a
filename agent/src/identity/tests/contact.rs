//! The runtime slow, away, back again, with and without events.

use std::time::Duration;

use super::fixture::*;
use crate::identity::{CriChoice, Resolution};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_runtime_the_path_is_told_and_the_reason() {
    let node = Node::v2();
    let cgroup = make(&node.v2_root(), &cart(2));
    let off = start(node.config(CriChoice::None)).await;
    assert_eq!(
        said(&ready(off.resolve(&actor(cgroup)))),
        format!(
            "2:: | / {UID} Burstable | CgroupPath | no container runtime is asked (--cri none)"
        )
    );
    assert!(!off.status().cri.enabled);

    let away = start(node.asking()).await;
    let who = ready(away.resolve(&actor(cgroup)));
    let reason = format!(
        "no container runtime answers at {}: No such file or directory",
        node.socket().display()
    );
    assert!(who.unresolved.starts_with(&reason), "{}", who.unresolved);
    let error = away.status().cri.error;
    assert!(
        error.contains("--cri SOCKET") && error.contains("No such file"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_goes_and_comes_back_is_asked_again() {
    let node = Node::v2();
    let first = make(&node.v2_root(), &cart(2));
    let fake = shop();
    let running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    assert_eq!(said(&ready(identifier.resolve(&actor(first)))), NAMED);

    drop(running);
    let second = make(&node.v2_root(), &cart(3));
    identifier.cgroup_changed(&created(second, &cart(3)));
    // Known names stay; new ones are missed with the reason.
    let who = until("the agent to notice", || {
        match identifier.resolve(&actor(second)) {
            Resolution::Ready(who) => Some(who),
            Resolution::Waiting(_) => None,
        }
    })
    .await;
    assert!(
        who.unresolved
            .starts_with("no container runtime answers at"),
        "{}",
        who.unresolved
    );
    assert_eq!(said(&ready(identifier.resolve(&actor(first)))), NAMED);
    assert!(!identifier.status().cri.connected);

    fake.tell(|a| {
        a.containers
            .push(container(&id(3), &id(1), "sidecar", "registry/side:2"))
    });
    let _running = fake.listen(&node.socket()).unwrap();
    let who = until("the second container's name", || {
        let (Resolution::Ready(who) | Resolution::Waiting(who)) =
            identifier.resolve(&actor(second));
        who.unresolved.is_empty().then_some(who)
    })
    .await;
    assert_eq!(
        said(&who),
        format!("3:sidecar:registry/side:2 | shop/cart-0 {UID} Burstable | Cri | ")
    );
    assert!(identifier.status().counters.cri_failures >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_runtime_delays_names_and_nothing_else() {
    let node = Node::v2();
    let cgroup = make(&node.v2_root(), &cart(2));
    let fake = shop();
    fake.tell(|a| a.delay = Duration::from_millis(300));
    let _running = fake.listen(&node.socket()).unwrap();
    let config = crate::identity::IdentityConfig {
        start_wait: Duration::from_millis(1),
        ..node.asking()
    };
    let identifier = start(config).await;
    let who = waiting(identifier.resolve(&actor(cgroup)));
    assert_eq!(
        who.unresolved,
        "the container runtime has not listed its containers yet"
    );
    assert_eq!(said(&resolved(&identifier, &actor(cgroup)).await), NAMED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn container_events_name_a_container_before_its_cgroup_is_seen() {
    let node = Node::v2();
    let fake = shop();
    fake.tell(|a| a.has_events = true);
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    until("the subscription", || {
        (identifier.status().cri.events == "received").then_some(())
    })
    .await;
    fake.tell(|a| {
        a.containers
            .push(container(&id(3), &id(1), "late", "late:1"))
    });
    until("the event to be sent", || {
        (fake.send_created(&id(3)) > 0).then_some(())
    })
    .await;
    until("the container to be known", || {
        (identifier.status().containers == 2).then_some(())
    })
    .await;
    assert_eq!(identifier.status().counters.cri_events, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_without_events_is_used_without_them() {
    let node = Node::v2();
    let fake = shop();
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    let said = until("the refusal", || {
        let events = identifier.status().cri.events;
        events.contains("not supported").then_some(events)
    })
    .await;
    assert_eq!(
        said,
        "not supported by this runtime; cgroup events and listings are used"
    );
    assert!(identifier.status().cri.connected);
}
