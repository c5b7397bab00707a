//! A runtime, or workloads behind it, that answer too much.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;

use super::fixture::*;
use crate::identity::counters::Counters;
use crate::identity::cri::fake::Fake;
use crate::identity::cri::v1;
use crate::identity::tree::{Found, MAX_CGROUPS, Tree};
use crate::identity::{fuzz, limits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_answers_are_cut_and_what_was_cut_is_counted() {
    let node = Node::v2();
    let path = format!("/kubepods/pod{UID}/{}", id(2));
    let cgroup = make(&node.v2_root(), &path);
    let fake = Fake::new();
    fake.tell(|a| {
        let mut big = pod(&id(1), &"n".repeat(10_000));
        big.labels = (0..10_000)
            .map(|i| (format!("k{i:05}"), "v".repeat(63)))
            .collect();
        big.labels.insert("a".to_owned(), "too long ".repeat(100));
        big.network = Some(v1::PodSandboxNetworkStatus {
            ip: "not an address\n".to_owned(),
            additional_ips: (0..100)
                .map(|i| v1::PodIp {
                    ip: format!("10.0.0.{i}"),
                })
                .collect(),
        });
        a.pods.push(big);
        a.containers.push(container(
            &id(2),
            &id(1),
            &"é".repeat(5_000),
            &"i".repeat(5_000),
        ));
        a.containers
            .push(container(&"x".repeat(200), &id(1), "long id", "image"));
        let mut heavy = container(&id(8), &id(1), "heavy", "image");
        heavy
            .labels
            .insert("blob".to_owned(), "x".repeat(2 * 1024 * 1024));
        a.containers.push(heavy);
        a.containers
            .extend((100..20_000).map(|n| container(&id(n), &id(1), "many", "image")));
    });
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    let who = until("addresses", || {
        let who = ready(identifier.resolve(&actor(cgroup)));
        who.pod
            .as_ref()
            .is_some_and(|p| !p.ips.is_empty())
            .then_some(who)
    })
    .await;
    let (container, pod) = (who.container.unwrap(), who.pod.unwrap());
    assert_eq!(
        (container.name, container.image.len()),
        ("é".repeat(126), 512)
    );
    assert_eq!(pod.name.len(), 253);
    assert_eq!(
        (pod.labels.len(), pod.ips.len()),
        (59, 8),
        "4096 bytes of 69; addresses that are addresses"
    );
    assert!(!pod.labels.contains_key("a"));

    let status = identifier.status();
    assert_eq!(status.containers, 4096);
    let counters = status.counters;
    assert!(counters.cri_items_dropped >= 15_000, "{counters:?}");
    assert_eq!(counters.cri_items_rejected, 2, "{counters:?}");
    assert!(
        counters.strings_cut >= 3 && counters.labels_dropped >= 9_900 + 93,
        "{counters:?}"
    );
}

#[test]
fn a_listing_of_a_million_nothings_is_decoded_without_holding_them() {
    // Two bytes each on the wire, some hundred in memory.
    let bytes = [0x0a, 0x00].repeat(1024 * 1024);
    assert_eq!(fuzz::cri_answers(&bytes), (0, 0));
    let listing = v1::ListContainersResponse {
        containers: (0..10_000)
            .map(|n| container(&id(n), &id(1), "c", "i"))
            .collect(),
    };
    assert_eq!(fuzz::cri_answers(&listing.encode_to_vec()).0, 4096);
}

#[test]
fn the_table_of_cgroups_keeps_the_living_and_forgets_the_longest_gone() {
    let (mut tree, counters, now) = (Tree::default(), Counters::default(), Instant::now());
    let bound = u64::try_from(MAX_CGROUPS).unwrap();
    for id in 0..bound {
        assert!(tree.insert((0, id), "/a", now, &counters).is_some());
    }
    assert!(
        tree.insert((0, bound), "/refused", now, &counters)
            .is_none()
    );
    assert_eq!(counters.read().cgroups_refused, 1);
    tree.remove((0, 7), now);
    tree.remove((0, 8), now);
    assert!(tree.insert((0, bound), "/taken", now, &counters).is_some());
    assert!(tree.get((0, 7)).is_none() && tree.get((0, 8)).is_some());
}

#[test]
fn a_gone_cgroup_is_remembered_for_the_stated_time() {
    let (mut tree, counters, now) = (Tree::default(), Counters::default(), Instant::now());
    let (keep, second) = (Duration::from_secs(600), Duration::from_secs(1));
    tree.insert((0, 5), "/a", now, &counters);
    tree.insert((0, 6), "/b", now, &counters);
    tree.remove((0, 5), now);
    tree.remove((0, 6), now);
    tree.forget(now + keep, keep);
    // It came back (same id, as after a missed removal): it is no longer gone.
    tree.insert((0, 6), "/b", now, &counters);
    assert!(tree.get((0, 5)).is_some());
    tree.forget(now + keep + second, keep);
    assert!(tree.get((0, 5)).is_none() && tree.get((0, 6)).is_some());
}

#[test]
fn too_many_unknown_ids_are_not_waited_for() {
    let (mut tree, counters) = (Tree::default(), Counters::default());
    let lost = (0..5000)
        .filter(|id| matches!(tree.find((0, *id), &counters), Found::Lost))
        .count();
    assert_eq!(lost, 5000 - 1024);
    assert_eq!(counters.read().unknown_cgroups_refused, 5000 - 1024);
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let (containers, pods) = fuzz::cri_answers(&bytes);
        prop_assert!(containers <= 4096 && pods <= 4097);
    }

    #[test]
    fn broken_answers_are_decoded_within_bounds(at in 0_usize..2000, byte in any::<u8>()) {
        let mut bytes = v1::ListContainersResponse {
            containers: (0..4).map(|n| container(&id(n), &id(1), "c", "i")).collect(),
        }.encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        prop_assert!(fuzz::cri_answers(&bytes).0 <= 4);
    }

    #[test]
    fn labels_stay_within_their_bounds(given: HashMap<String, String>) {
        let counters = Counters::default();
        let count = given.len() as u64;
        let kept = limits::labels(given, &counters);
        let bytes: usize = kept.iter().map(|(k, v)| k.len() + v.len()).sum();
        prop_assert!(kept.len() <= 64 && bytes <= 4096);
        prop_assert_eq!(kept.len() as u64 + counters.read().labels_dropped, count);
    }
}
