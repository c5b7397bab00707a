//! Pods as kubelet makes them: labels, cgroup parent, limits.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::containerd::IMAGE;
use super::cri::{Cri, v1};
use crate::scenario::tools::PATIENCE;

/// Namespace of every pod.
pub const NAMESPACE: &str = "shop";

/// A running pod.
pub struct Pod {
    config: v1::PodSandboxConfig,
    /// Id of its sandbox.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its address; empty for one on the host's network.
    pub ip: String,
    host_network: bool,
    logs: PathBuf,
}

/// What kind of pod.
#[derive(Clone, Copy, Default)]
pub struct Kind<'a> {
    /// QoS part of the cgroup path: "burstable", "besteffort", "" for guaranteed.
    pub class: &'a str,
    /// More labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// No network namespace of its own.
    pub host_network: bool,
}

/// A container of a pod.
pub struct Container {
    /// Its id, 64 hex digits.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    log: PathBuf,
}

impl Pod {
    /// Makes the sandbox. `number` distinguishes uids; `class` is the QoS part
    /// of the cgroup path ("burstable", "besteffort", "" for guaranteed).
    pub fn run(cri: &Cri, logs: PathBuf, name: &str, number: u32, class: &str) -> Result<Self> {
        let kind = Kind {
            class,
            ..Kind::default()
        };
        Self::run_as(cri, logs, name, number, kind)
    }

    /// The same with more to say.
    pub fn run_as(
        cri: &Cri,
        logs: PathBuf,
        name: &str,
        number: u32,
        kind: Kind<'_>,
    ) -> Result<Self> {
        let class = kind.class;
        let uid = format!(
            "5ca1ab1e-0000-4000-8000-{:06x}{number:06x}",
            std::process::id()
        );
        let parent = if class.is_empty() {
            format!("/kubepods/pod{uid}")
        } else {
            format!("/kubepods/{class}/pod{uid}")
        };
        let logs = logs.join(name);
        std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let mut labels = HashMap::from(
            [
                ("io.kubernetes.pod.name", name),
                ("io.kubernetes.pod.namespace", NAMESPACE),
                ("io.kubernetes.pod.uid", &uid),
                ("app", name),
                ("tier", "test"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let more = kind.labels.iter();
        labels.extend(more.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: NAMESPACE.to_owned(),
                attempt: 0,
            }),
            // Without a namespace for it there is none to set.
            hostname: match kind.host_network {
                true => String::new(),
                false => name.to_owned(),
            },
            log_directory: logs.display().to_string(),
            labels,
            annotations: HashMap::new(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: parent,
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(kind.host_network)),
                }),
            }),
        };
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let id = cri
            .call("RunPodSandbox", async |mut client| {
                client.run_pod_sandbox(request).await
            })?
            .pod_sandbox_id;
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.clone(),
        };
        let ip = cri
            .call("PodSandboxStatus", async |mut client| {
                client.pod_sandbox_status(request).await
            })?
            .status
            .and_then(|status| status.network)
            .map(|network| network.ip)
            .filter(|ip| !ip.is_empty() || kind.host_network)
            .context("the pod has no address")?;
        Ok(Self {
            config,
            id,
            name: name.to_owned(),
            uid,
            ip,
            host_network: kind.host_network,
            logs,
        })
    }

    /// Path of a container's cgroup, as with the cgroupfs driver.
    pub fn cgroup(&self, container: &Container) -> String {
        let linux = self.config.linux.as_ref();
        let parent = linux.map_or("", |linux| linux.cgroup_parent.as_str());
        format!("{parent}/{}", container.id)
    }

    /// Makes and starts a container that runs culprit-load with these
    /// arguments; a memory limit of 0 is none.
    pub fn start(&self, cri: &Cri, name: &str, memory: i64, args: &[&str]) -> Result<Container> {
        let labels = HashMap::from(
            [
                ("io.kubernetes.container.name", name),
                ("io.kubernetes.pod.name", &self.name),
                ("io.kubernetes.pod.namespace", NAMESPACE),
                ("io.kubernetes.pod.uid", &self.uid),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let log_path = format!("{name}.log");
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: IMAGE.to_owned(),
            }),
            command: vec!["/culprit-load".to_owned()],
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            labels,
            log_path: log_path.clone(),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(v1::LinuxContainerResources {
                    memory_limit_in_bytes: memory,
                }),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces(self.host_network)),
                }),
            }),
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id = cri
            .call("CreateContainer", async |mut client| {
                client.create_container(request).await
            })?
            .container_id;
        let request = v1::StartContainerRequest {
            container_id: id.clone(),
        };
        cri.call("StartContainer", async |mut client| {
            client.start_container(request).await
        })?;
        Ok(Container {
            id,
            name: name.to_owned(),
            log: self.logs.join(log_path),
        })
    }
}

impl Container {
    /// The first line of its log that has this field.
    pub fn line(&self, field: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            // "<time> stdout F <line>"
            let found = text
                .lines()
                .filter_map(|line| serde_json::from_str(line.splitn(4, ' ').nth(3)?).ok())
                .find(|value: &Value| value.get(field).is_some());
            if let Some(value) = found {
                return Ok(value);
            }
            if Instant::now() > deadline {
                bail!("{} did not print {field:?}: {text}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As kubelet sets them.
fn namespaces(host_network: bool) -> v1::NamespaceOption {
    let network = if host_network {
        v1::NamespaceMode::Node
    } else {
        v1::NamespaceMode::Pod
    };
    v1::NamespaceOption {
        network: network.into(),
        pid: v1::NamespaceMode::Container.into(),
        ipc: v1::NamespaceMode::Pod.into(),
    }
}
