//! What is told of the node's pods, and when.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use culprit_agent::identity::{Actor, CgroupChange, CgroupClass, Resolution};
use culprit_agent::journal::{Journal, Limits};
use culprit_agent::pipeline::inventory::Teller;
use culprit_agent::pipeline::ledger::Ledger;
use culprit_agent::pipeline::source::Resolver;
use culprit_proto::v1::{Identity, InventoryPod, Pod, event::Kind};

/// The runtime's table, and the number of its state.
#[derive(Default)]
struct Pods(Mutex<(u64, Vec<(String, InventoryPod)>)>);

impl Pods {
    /// Changes a pod, or adds it.
    fn put(&self, name: &str, until: u64) {
        let pod = InventoryPod {
            pod: Some(Pod {
                name: name.to_owned(),
                ..Pod::default()
            }),
            until,
            ..InventoryPod::default()
        };
        let mut table = self.0.lock().unwrap();
        table.0 += 1;
        table.1.retain(|(id, _)| id != name);
        table.1.push((name.to_owned(), pod));
    }
}

impl Resolver for Pods {
    fn resolve(&self, _: &Actor) -> Resolution {
        Resolution::Ready(Identity::default())
    }

    fn resolve_cgroup(&self, _: u64) -> Resolution {
        Resolution::Ready(Identity::default())
    }

    fn cgroup_class(&self, _: u64) -> CgroupClass {
        CgroupClass::Unknown
    }

    fn cgroup_changed(&self, _: &CgroupChange) {}

    fn pods(&self) -> Vec<(String, InventoryPod)> {
        self.0.lock().unwrap().1.clone()
    }

    fn pods_state(&self) -> u64 {
        self.0.lock().unwrap().0
    }
}

/// Each inventory so far: whether it is whole, and `name` or `name gone` of its pods.
fn told(journal: &Journal) -> Vec<(bool, Vec<String>)> {
    let inventory = |kind| match kind {
        Some(Kind::Inventory(inventory)) => Some(inventory),
        _ => None,
    };
    let events = support::events(journal);
    let all = events.into_iter().filter_map(|event| inventory(event.kind));
    all.map(|inventory| {
        let name = |one: InventoryPod| {
            let gone = if one.until == 0 { "" } else { " gone" };
            one.pod.unwrap().name + gone
        };
        let mut names: Vec<String> = inventory.pods.into_iter().map(name).collect();
        names.sort();
        (inventory.whole, names)
    })
    .collect()
}

#[test]
fn what_is_new_is_told_once_and_all_from_time_to_time() {
    let limits = Limits {
        lanes: None,
        recorder: 1 << 20,
    };
    let journal = Arc::new(Journal::new(limits));
    let ledger = Arc::new(Ledger::default());
    let mut teller = Teller::new(Arc::clone(&journal), ledger, Arc::default());
    let pods = Pods::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);

    teller.look(&pods, false, at(0));
    assert!(
        told(&journal).is_empty(),
        "the runtime has not said anything"
    );
    pods.put("a", 0);
    pods.put("b", 0);
    teller.look(&pods, false, at(1));
    teller.look(&pods, false, at(2));
    pods.put("c", 0);
    pods.put("a", 7);
    teller.look(&pods, false, at(3));
    // Something changed that is not told of, as an image's name.
    pods.0.lock().unwrap().0 += 1;
    teller.look(&pods, false, at(4));
    teller.look(&pods, false, at(700));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected: Vec<(bool, Vec<String>)> = vec![
        (true, names(&["a", "b"])),
        (false, names(&["a gone", "c"])),
        (true, names(&["a gone", "b", "c"])),
    ];
    assert_eq!(told(&journal), expected);
}
