//! Cgroups: which hierarchy speaks, what is a host process, what
//! happens to ids that are not known.

use std::time::Duration;

use culprit_proto::v1::identity::Source;

use super::fixture::*;
use crate::identity::{Actor, CgroupChange, CgroupClass, CgroupMode, CriChoice, IdentityConfig};

const BARE: &str = "/kubepods/besteffort/pod6b1ed4f3-27b5-4d1c-9f3e-0123456789ab";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_hybrid_a_container_is_found_in_whichever_hierarchy_has_it() {
    let node = Node::hybrid();
    let path = format!("{BARE}/{}", id(2));
    let in_memory = make(&node.memory_root(), &path);
    let service = make(&node.v2_root(), "/system.slice/kubelet.service");
    let identifier = start(node.config(CriChoice::None)).await;
    let status = identifier.status();
    assert_eq!(
        (
            status.mode,
            status.primary_hierarchy,
            status.memory_hierarchy
        ),
        (CgroupMode::Hybrid, 4, 4)
    );
    assert_eq!(status.container_cgroups, 1);

    // The v2 id says less than the memory id.
    let who = ready(identifier.resolve(&Actor {
        cgroup_v2: service,
        cgroup_memory: in_memory,
        ..actor(0)
    }));
    let cgroup = who.cgroup.clone().unwrap();
    assert_eq!(
        (cgroup.id, cgroup.hierarchy, cgroup.path),
        (in_memory, 4, path.clone())
    );
    assert_eq!(who.container.unwrap().id, id(2));
    // The same number in the other hierarchy is another cgroup.
    let who = ready(identifier.resolve_cgroup(in_memory));
    assert_eq!(who.container.unwrap().id, id(2));
    assert_eq!(identifier.cgroup_class(in_memory), CgroupClass::Container);
    assert_eq!(identifier.cgroup_class(service), CgroupClass::Unknown);

    // A container that is on v2 as well (containerd on hybrid) is found by its
    // socket's cgroup, whatever task was interrupted.
    let in_v2 = make(&node.v2_root(), &path);
    identifier.cgroup_changed(&created(in_v2, &path));
    let mut idle = [0; 16];
    idle[..9].copy_from_slice(b"swapper/0");
    let socket = Actor {
        sock_cgroup: in_v2,
        cgroup_v2: service,
        comm: idle,
        ..Actor::default()
    };
    let who = ready(identifier.resolve(&socket));
    assert_eq!(who.container.unwrap().id, id(2));
    assert_eq!(who.process, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sockets_root_cgroup_names_nobody_where_containers_are_on_v1() {
    let node = Node::hybrid();
    make(&node.memory_root(), &format!("{BARE}/{}", id(2)));
    let identifier = start(node.config(CriChoice::None)).await;
    // In the fixture the root has an inode of its own; the kernel's is 1.
    identifier.cgroup_changed(&created(1, "/"));
    let who = ready(identifier.resolve(&Actor {
        sock_cgroup: 1,
        ..Actor::default()
    }));
    assert_eq!(who.source(), Source::Unknown);
    assert!(who.unresolved.contains("v2 only"), "{}", who.unresolved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_tell_the_scope_of_a_kill() {
    let node = Node::v2();
    let root = node.v2_root();
    let identifier_paths = [
        ("/", CgroupClass::Root),
        ("/kubepods", CgroupClass::Kubepods),
        ("/kubepods/besteffort", CgroupClass::Kubepods),
        (BARE, CgroupClass::Pod),
        ("/system.slice/sshd.service", CgroupClass::Other),
    ];
    let ids = identifier_paths.map(|(path, class)| (make(&root, path), class));
    let container = make(&root, &format!("{BARE}/{}/nested", id(2)));
    let identifier = start(node.config(CriChoice::None)).await;
    for (id, class) in ids {
        assert_eq!(identifier.cgroup_class(id), class);
    }
    assert_eq!(identifier.cgroup_class(container), CgroupClass::Container);
    assert_eq!(identifier.cgroup_class(1), CgroupClass::Root);
    assert_eq!(identifier.cgroup_class(0), CgroupClass::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_id_is_looked_for_and_then_said_to_be_gone() {
    let node = Node::v2();
    let identifier = start(node.config(CriChoice::None)).await;
    // No record told of this one.
    let missed = make(&node.v2_root(), &format!("{BARE}/{}", id(2)));
    let who = waiting(identifier.resolve(&actor(missed)));
    assert_eq!(
        who.unresolved,
        format!("cgroup {missed} is being looked for")
    );
    assert_eq!(
        resolved(&identifier, &actor(missed))
            .await
            .container
            .unwrap()
            .id,
        id(2)
    );
    // And this one is not there any more.
    let who = resolved(&identifier, &actor(u64::MAX)).await;
    assert_eq!(
        who.unresolved,
        format!("cgroup {} was gone before it was read", u64::MAX)
    );
    assert_eq!(who.source(), Source::Unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cgroup_whose_path_the_kernel_could_not_say_is_walked_for() {
    let node = Node::v2();
    let identifier = start(node.config(CriChoice::None)).await;
    let made = make(&node.v2_root(), &format!("{BARE}/{}", id(2)));
    identifier.cgroup_changed(&CgroupChange {
        at_ns: 0,
        hierarchy: 0,
        id: made,
        created: true,
        path: None,
    });
    until("the walk", || {
        (identifier.status().container_cgroups == 1).then_some(())
    })
    .await;
    // Other hierarchies (cpu, pids...) are nobody's business.
    identifier.cgroup_changed(&CgroupChange {
        at_ns: 0,
        hierarchy: 7,
        id: 5,
        created: true,
        path: None,
    });
    assert_eq!(identifier.status().cgroups, 5);
}

#[tokio::test]
async fn a_node_without_cgroups_is_an_error_that_says_what_to_mount() {
    let empty = tempfile::TempDir::new().unwrap();
    let config = IdentityConfig {
        cgroup_root: empty.path().into(),
        ..IdentityConfig::default()
    };
    let handle = tokio::runtime::Handle::current();
    let error = crate::identity::Identifier::start(config, &handle)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("no cgroup file system below") && error.contains("hostPath"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_very_node_is_understood() {
    let config = IdentityConfig {
        cri: CriChoice::None,
        ..IdentityConfig::default()
    };
    let identifier = start(config).await;
    let status = identifier.status();
    assert!(status.cgroups >= 1, "{status:?}");
    assert_eq!(identifier.cgroup_class(1), CgroupClass::Root);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_ends_with_the_identifier() {
    let node = Node::v2();
    let identifier = start(node.asking()).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    assert!(tasks.num_alive_tasks() >= 2);
    drop(identifier);
    until("the end of its tasks", || {
        (tasks.num_alive_tasks() == 0).then_some(())
    })
    .await;
    // Else the wait above would have been for nothing.
    tokio::time::timeout(Duration::from_secs(1), async {})
        .await
        .unwrap();
}
