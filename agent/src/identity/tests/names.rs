//! Names from the runtime: at start, when a container comes and goes.

use std::time::Duration;

use super::fixture::*;
use culprit_proto::v1::identity::Source;

use crate::identity::CriChoice;
use crate::identity::cri::fake::Fake;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_that_were_there_before_the_agent_have_their_names_at_once() {
    let node = Node::v2();
    let (cgroup, pause, slice) = (
        make(&node.v2_root(), &cart(2)),
        make(&node.v2_root(), &cart(1)),
        make(&node.v2_root(), CART),
    );
    let inside = make(
        &node.v2_root(),
        &format!("{}/system.slice/app.service", cart(2)),
    );
    let fake = shop();
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;

    let who = ready(identifier.resolve(&actor(cgroup)));
    assert_eq!(said(&who), NAMED);
    let process = who.process.unwrap();
    assert_eq!(
        (process.pid, process.tid, &*process.comm, &*process.exe),
        (4242, 4243, "curl", "")
    );
    assert_eq!(who.cgroup.unwrap().path, cart(2));
    assert_eq!(said(&ready(identifier.resolve(&actor(inside)))), NAMED);

    // Addresses and host network come one question later.
    let pod = until("the pod's addresses", || {
        let pod = ready(identifier.resolve(&actor(cgroup))).pod.unwrap();
        (!pod.ips.is_empty()).then_some(pod)
    })
    .await;
    assert_eq!(pod.ips, ["10.1.2.3", "fd00::3"]);
    assert!(!pod.host_network);
    assert_eq!(
        pod.labels.into_iter().collect::<Vec<_>>(),
        [("app".to_owned(), "cart-0".to_owned())]
    );

    // The sandbox's own process, and the pod's cgroup as the owner of a limit.
    let who = ready(identifier.resolve(&actor(pause)));
    assert_eq!(
        said(&who),
        format!("1:: | shop/cart-0 {UID} Burstable | Cri | ")
    );
    let who = ready(identifier.resolve_cgroup(slice));
    assert_eq!(
        said(&who),
        format!("- | shop/cart-0 {UID} Burstable | Cri | ")
    );

    let status = identifier.status();
    assert!(
        status.cri.connected && status.cri.error.is_empty(),
        "{status:?}"
    );
    assert_eq!(status.cri.runtime, "culprit-fake v0");
    assert_eq!(
        (status.containers, status.pods, status.container_cgroups),
        (1, 1, 4)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_gone_in_half_a_second_keeps_its_names() {
    let node = Node::v2();
    let fake = Fake::new();
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;

    // The runtime does not know it yet when its cgroup appears...
    let cgroup = make(&node.v2_root(), &cart(2));
    identifier.cgroup_changed(&created(cgroup, &cart(2)));
    let who = waiting(identifier.resolve(&actor(cgroup)));
    assert_eq!(
        said(&who),
        format!(
            "2:: | / {UID} Burstable | CgroupPath | the container runtime is being asked about this container"
        )
    );
    until("a question in vain", || {
        (fake.calls("PodSandboxStatus") > 1).then_some(())
    })
    .await;
    // ...then does, and the container goes before anything was asked of it.
    fake.tell(|a| {
        a.pods.push(pod(&id(1), "cart-0"));
        a.containers
            .push(container(&id(2), &id(1), "cart", "registry/cart:1"));
    });
    let mut gone = created(cgroup, &cart(2));
    gone.created = false;
    identifier.cgroup_changed(&gone);
    let who = resolved(&identifier, &actor(cgroup)).await;
    assert_eq!(said(&who), NAMED);
    assert_eq!(
        who.pod.unwrap().ips,
        ["10.1.2.3", "fd00::3"],
        "everything at once"
    );
    fake.tell(|a| {
        a.pods.clear();
        a.containers.clear();
    });
    assert_eq!(said(&ready(identifier.resolve(&actor(cgroup)))), NAMED);
    assert_eq!(identifier.status().cgroups_gone, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_the_runtime_never_knows_is_said_to_be_unknown() {
    let node = Node::v2();
    let fake = Fake::new();
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(crate::identity::IdentityConfig {
        ask_for: Duration::ZERO,
        ..node.asking()
    })
    .await;
    let cgroup = make(&node.v2_root(), &format!("/docker/{}", id(9)));
    identifier.cgroup_changed(&created(cgroup, &format!("/docker/{}", id(9))));
    let who = resolved(&identifier, &actor(cgroup)).await;
    let socket = node.socket();
    assert_eq!(
        said(&who),
        format!(
            "9:: | - | CgroupPath | the container runtime at {} does not know this container",
            socket.display()
        )
    );
    assert_eq!(identifier.status().counters.cri_not_found, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_told_by_name_where_the_runtime_has_one() {
    let node = Node::v2();
    let digest = format!("sha256:{}", id(7));
    let fake = Fake::new();
    fake.tell(|a| {
        a.pods.push(pod(&id(1), "cart-0"));
        a.containers
            .push(container(&id(2), &id(1), "asked", &digest));
        a.containers
            .push(container(&id(3), &id(1), "digest", &digest));
        let mut by_user = container(&id(4), &id(1), "user", &digest);
        by_user.image.as_mut().unwrap().user_specified_image = "registry/user:3".to_owned();
        a.containers.push(by_user);
        a.status_images.push((id(2), "registry/asked:1".to_owned()));
        a.status_images.push((id(3), digest.clone()));
    });
    let cgroups = [2, 3, 4].map(|n| make(&node.v2_root(), &cart(n)));
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    let image = |cgroup| {
        ready(identifier.resolve(&actor(cgroup)))
            .container
            .unwrap()
            .image
    };
    assert_eq!(image(cgroups[2]), "registry/user:3");
    for (cgroup, expected) in [(cgroups[0], "registry/asked:1"), (cgroups[1], &*digest)] {
        let found = until("the image", || {
            Some(image(cgroup)).filter(|i| !i.is_empty())
        })
        .await;
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_runtime_kubelets_links_have_the_names() {
    let node = Node::v2();
    let (known, unknown) = (
        make(&node.v2_root(), &cart(1)),
        make(&node.v2_root(), &cart(2)),
    );
    let mut config = node.config(CriChoice::None);
    config.log_root = node.v2_root().with_file_name("log");
    let containers = config.log_root.join("containers");
    std::fs::create_dir_all(&containers).unwrap();
    let link = containers.join(format!("cart-6d4cf56db6-x2m4k_shop_app-{}.log", id(1)));
    std::os::unix::fs::symlink("/var/log/pods/none", link).unwrap();
    let identifier = start(config).await;

    let who = ready(identifier.resolve(&actor(known)));
    assert_eq!(who.source(), Source::LogDirectory);
    assert_eq!(who.container.unwrap().name, "app");
    let pod = who.pod.unwrap();
    assert_eq!(
        (&*pod.namespace, &*pod.name),
        ("shop", "cart-6d4cf56db6-x2m4k")
    );
    assert!(!pod.uid.is_empty(), "of the cgroup path");
    assert_eq!(pod.workload.unwrap().name, "cart");
    let who = ready(identifier.resolve(&actor(unknown)));
    assert_eq!(who.source(), Source::CgroupPath);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_on_the_hosts_network_is_said_to_be() {
    let node = Node::v2();
    let cgroup = make(&node.v2_root(), &cart(1));
    let fake = Fake::new();
    fake.tell(|a| {
        let mut host = pod(&id(1), "agent");
        host.network = None;
        host.linux = Some(on_host());
        a.pods.push(host);
    });
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    until("host_network", || {
        ready(identifier.resolve(&actor(cgroup)))
            .pod
            .filter(|p| p.host_network && p.ips.is_empty())
    })
    .await;
}
