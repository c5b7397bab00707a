//! A node made of directories, and pods to put in the fake runtime.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::v1::Identity;
use tempfile::TempDir;

use crate::identity::cri::fake::Fake;
use crate::identity::cri::v1::*;
use crate::identity::{Actor, CgroupChange, CriChoice, Identifier, IdentityConfig, Resolution};

/// Cgroup of the pod shop/cart-0.
pub(super) const CART: &str = "/kubepods/burstable/pod6b1ed4f3-27b5-4d1c-9f3e-0123456789ab";

pub(super) fn cart(n: u64) -> String {
    format!("{CART}/{}", id(n))
}

/// [`said`] of the container cart.
pub(super) const NAMED: &str =
    "2:cart:registry/cart:1 | shop/cart-0 6b1ed4f3-27b5-4d1c-9f3e-0123456789ab Burstable | Cri | ";

/// A runtime with pod shop/cart-0 (sandbox 1) and its container cart (2).
pub(super) fn shop() -> Fake {
    let fake = Fake::new();
    fake.tell(|a| {
        a.pods.push(pod(&id(1), "cart-0"));
        a.containers
            .push(container(&id(2), &id(1), "cart", "registry/cart:1"));
    });
    fake
}

pub(super) const UID: &str = "6b1ed4f3-27b5-4d1c-9f3e-0123456789ab";

/// A node's cgroup and proc file systems, as plain directories.
pub(super) struct Node {
    dir: TempDir,
    hybrid: bool,
}

impl Node {
    pub(super) fn v2() -> Self {
        let node = Self {
            dir: TempDir::new().unwrap(),
            hybrid: false,
        };
        fs::create_dir_all(node.v2_root()).unwrap();
        fs::write(node.v2_root().join("cgroup.controllers"), "memory").unwrap();
        fs::create_dir(node.dir.path().join("proc")).unwrap();
        node
    }

    /// Memory on v1 with hierarchy id 4, a v2 tree beside it.
    pub(super) fn hybrid() -> Self {
        let node = Self {
            dir: TempDir::new().unwrap(),
            hybrid: true,
        };
        for root in [
            node.v2_root(),
            node.memory_root(),
            node.dir.path().join("proc"),
        ] {
            fs::create_dir_all(root).unwrap();
        }
        fs::write(node.v2_root().join("cgroup.controllers"), "").unwrap();
        fs::write(node.memory_root().join("tasks"), "").unwrap();
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nmemory\t4\t9\t1\n";
        fs::write(node.dir.path().join("proc/cgroups"), table).unwrap();
        node
    }

    pub(super) fn v2_root(&self) -> PathBuf {
        self.dir
            .path()
            .join(if self.hybrid { "cg/unified" } else { "cg" })
    }

    pub(super) fn memory_root(&self) -> PathBuf {
        self.dir.path().join("cg/memory")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("fake.sock")
    }

    pub(super) fn config(&self, cri: CriChoice) -> IdentityConfig {
        IdentityConfig {
            cri,
            cgroup_root: self.dir.path().join("cg"),
            proc_root: self.dir.path().join("proc"),
            ..IdentityConfig::default()
        }
    }

    pub(super) fn asking(&self) -> IdentityConfig {
        self.config(CriChoice::Socket(self.socket()))
    }
}

/// Makes a cgroup directory; returns its id.
pub(super) fn make(root: &Path, path: &str) -> u64 {
    let dir = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(&dir).unwrap();
    fs::metadata(dir).unwrap().ino()
}

pub(super) async fn start(config: IdentityConfig) -> Arc<Identifier> {
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || Identifier::start(config, &handle))
        .await
        .unwrap()
        .unwrap()
}

/// A process that `/proc` does not know (any more).
pub(super) fn actor(cgroup_v2: u64) -> Actor {
    let mut comm = [0; 16];
    comm[..4].copy_from_slice(b"curl");
    Actor {
        pid: 4242,
        tid: 4243,
        comm,
        start_time_ns: 77,
        cgroup_v2,
        cgroup_memory: cgroup_v2,
        ..Actor::default()
    }
}

/// A container id that ends in `n`.
pub(super) fn id(n: u64) -> String {
    format!("{n:064x}")
}

pub(super) fn created(id: u64, path: &str) -> CgroupChange {
    CgroupChange {
        at_ns: 0,
        hierarchy: 0,
        id,
        created: true,
        path: Some(path.to_owned()),
    }
}

pub(super) fn pod(sandbox: &str, name: &str) -> PodSandboxStatus {
    let labels = [
        ("app", name),
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.uid", UID),
    ];
    PodSandboxStatus {
        id: sandbox.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: UID.to_owned(),
            namespace: "shop".to_owned(),
        }),
        state: PodSandboxState::SandboxReady.into(),
        created_at: 1_795_348_800_000_000_000,
        network: Some(PodSandboxNetworkStatus {
            ip: "10.1.2.3".to_owned(),
            additional_ips: vec![PodIp {
                ip: "fd00::3".to_owned(),
            }],
        }),
        linux: None,
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        annotations: HashMap::new(),
    }
}

/// Of a pod without a network namespace of its own.
pub(super) fn on_host() -> LinuxPodSandboxStatus {
    LinuxPodSandboxStatus {
        namespaces: Some(Namespace {
            options: Some(NamespaceOption {
                network: NamespaceMode::Node.into(),
            }),
        }),
    }
}

pub(super) fn container(id: &str, sandbox: &str, name: &str, image: &str) -> Container {
    let labels = [
        ("io.kubernetes.container.name", name),
        ("io.kubernetes.pod.name", "cart-0"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", UID),
    ];
    Container {
        id: id.to_owned(),
        pod_sandbox_id: sandbox.to_owned(),
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
        }),
        image: Some(ImageSpec {
            image: image.to_owned(),
            user_specified_image: String::new(),
        }),
        image_ref: "sha256:0".to_owned(),
        state: ContainerState::ContainerRunning.into(),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

/// The identity as an operator reads it: container, image, pod, source and reason.
pub(super) fn said(who: &Identity) -> String {
    let container = who.container.as_ref().map_or("-".to_owned(), |c| {
        format!("{}:{}:{}", c.id.trim_start_matches('0'), c.name, c.image)
    });
    let pod = who.pod.as_ref().map_or("-".to_owned(), |p| {
        format!("{}/{} {} {:?}", p.namespace, p.name, p.uid, p.qos_class())
    });
    format!(
        "{container} | {pod} | {:?} | {}",
        who.source(),
        who.unresolved
    )
}

pub(super) fn ready(resolution: Resolution) -> Identity {
    match resolution {
        Resolution::Ready(who) => who,
        Resolution::Waiting(who) => panic!("still waiting: {}", said(&who)),
    }
}

pub(super) fn waiting(resolution: Resolution) -> Identity {
    match resolution {
        Resolution::Waiting(who) => who,
        Resolution::Ready(who) => panic!("not waited for: {}", said(&who)),
    }
}

/// Asks until the answer is there.
pub(super) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), found).await {
        Ok(found) => found,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Asks again while told to wait, as the pipeline does.
pub(super) async fn resolved(identifier: &Identifier, actor: &Actor) -> Identity {
    until("an identity that is ready", || {
        match identifier.resolve(actor) {
            Resolution::Ready(who) => Some(who),
            Resolution::Waiting(_) => None,
        }
    })
    .await
}
