//! CRI-O's answers, and its cgroups as the systemd driver names them.

use std::collections::HashMap;

use culprit_proto::v1::workload::Kind;
use serde_json::Value;

use super::fixture::*;
use crate::identity::cri::fake::Fake;
use crate::identity::cri::v1;

fn recorded() -> Value {
    serde_json::from_str(include_str!("crio.json")).unwrap()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).unwrap().as_str().unwrap().to_owned()
}

fn labels(value: &Value, pointer: &str) -> HashMap<String, String> {
    let labels = value.pointer(pointer).unwrap().as_object().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    labels.iter().map(|(k, v)| (k.clone(), text(v))).collect()
}

fn crio() -> Fake {
    let all = recorded();
    let id = text(&all, "/status/id");
    let sandbox = text(&all, "/sandbox/id");
    let fake = Fake::new();
    fake.tell(|answers| {
        let mut one = container(&id, &sandbox, "kube-flannel", &text(&all, "/listed_image"));
        one.labels = labels(&all, "/status/labels");
        answers.containers.push(one);
        let image = text(&all, "/status/image/image");
        answers.status_images.push((id, image));
        let name = text(&all, "/status/labels/io.kubernetes.pod.name");
        let mut pod = pod(&sandbox, &name);
        pod.labels = labels(&all, "/sandbox/labels");
        pod.metadata = Some(v1::PodSandboxMetadata {
            name,
            uid: text(&all, "/status/labels/io.kubernetes.pod.uid"),
            namespace: text(&all, "/status/labels/io.kubernetes.pod.namespace"),
        });
        answers.pods.push(pod);
    });
    fake
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cri_os_containers_have_their_names() {
    let all = recorded();
    let uid = text(&all, "/status/labels/io.kubernetes.pod.uid");
    let id = text(&all, "/status/id");
    let slice = format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        uid.replace('-', "_")
    );
    let node = Node::v2();
    let inside = make(&node.v2_root(), &format!("{slice}/crio-{id}.scope"));
    let monitor = make(&node.v2_root(), &format!("{slice}/crio-conmon-{id}.scope"));
    let fake = crio();
    let _running = fake.listen(&node.socket()).unwrap();
    let identifier = start(node.asking()).await;

    // The image's name is one question more than its id.
    let who = until("the image's name", || {
        let who = ready(identifier.resolve(&actor(inside)));
        let named = who.container.as_ref().unwrap().image.contains(':');
        named.then_some(who)
    })
    .await;
    let container = who.container.clone().unwrap();
    assert_eq!(
        (&*container.id, &*container.name, &*container.image),
        (&*id, "kube-flannel", "quay.io/coreos/flannel:v0.11.0-amd64")
    );
    let pod = who.pod.unwrap();
    assert_eq!(
        (&*pod.namespace, &*pod.name, &*pod.uid),
        ("kube-system", "kube-flannel-ds-amd64-dcvtc", &*uid)
    );
    let workload = pod.workload.unwrap();
    assert_eq!(
        (workload.kind(), &*workload.name),
        (Kind::DaemonSet, "kube-flannel-ds-amd64")
    );
    // CRI-O's own label of the sandbox is no label of the pod's.
    let kept: Vec<&str> = pod.labels.keys().map(String::as_str).collect();
    assert!(
        !kept.iter().any(|key| key.starts_with("io.kubernetes.")),
        "{kept:?}"
    );

    // The monitor of a container is none, but belongs to its pod.
    let who = ready(identifier.resolve(&actor(monitor)));
    assert!(who.container.is_none(), "{who:?}");
    assert_eq!(who.pod.unwrap().uid, uid);
}
