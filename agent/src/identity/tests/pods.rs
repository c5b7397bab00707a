//! The pods' addresses: who has one, who had it, and what is told of it.

use std::net::IpAddr;

use super::fixture::*;
use crate::identity::cri::fake::Fake;
use crate::identity::cri::v1::PodSandboxState;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_its_pod_s_and_its_successor_s() {
    let node = Node::v2();
    let fake = Fake::new();
    fake.tell(|answers| answers.pods = vec![pod(&id(1), "cart-0")]);
    let _running = fake.listen(&node.socket()).unwrap();
    let mut config = node.asking();
    config.resync = std::time::Duration::from_millis(50);
    let identifier = start(config).await;
    let name = |at: &str| {
        let who = identifier.at_address(ip(at))?;
        Some(who.pod?.name)
    };
    until("the pod's address", || name("10.1.2.3")).await;
    assert_eq!(name("fd00::3").as_deref(), Some("cart-0"));
    assert_eq!(name("10.1.2.4"), None);
    let (sandbox, told) = identifier.pods().remove(0);
    assert_eq!((sandbox, told.until), (id(1), 0));
    assert_eq!(told.since, 1_795_348_800_000_000_000);
    let told = told.pod.unwrap();
    assert!(told.labels.is_empty() && told.workload.is_some());

    // It stops, and another one gets its address; the old sandbox is still listed.
    let before = identifier.pods_state();
    fake.tell(|answers| {
        answers.pods[0].state = PodSandboxState::SandboxNotready.into();
        let mut next = pod(&id(2), "cart-1");
        next.metadata.as_mut().unwrap().uid = "other".to_owned();
        answers.pods.push(next);
    });
    until("its successor", || {
        (name("10.1.2.3")? == "cart-1").then_some(())
    })
    .await;
    assert!(identifier.pods_state() > before);
    let ended = |sandbox: &str| {
        let pods = identifier.pods();
        let found = pods.into_iter().find(|(id, _)| id == sandbox);
        found.map(|(_, pod)| pod.until)
    };
    let first = ended(&id(1)).unwrap();
    assert!(first > 0);
    assert_eq!(ended(&id(2)), Some(0));

    // Gone from the list: known for a while, with the end that was told.
    fake.tell(|answers| {
        answers.pods.remove(0);
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(ended(&id(1)), Some(first));
    assert_eq!(name("10.1.2.3").as_deref(), Some("cart-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_s_own_address_is_nobody_s() {
    let node = Node::v2();
    let fake = Fake::new();
    fake.tell(|answers| {
        let mut host = pod(&id(1), "proxy");
        host.linux = Some(on_host());
        answers.pods = vec![host];
    });
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;
    until("the pod", || {
        let (_, pod) = identifier.pods().pop()?;
        pod.pod?.host_network.then_some(())
    })
    .await;
    assert_eq!(identifier.at_address(ip("10.1.2.3")), None);
}
