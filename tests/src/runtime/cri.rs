//! The generated client and a small face over it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::scenario::tools::PATIENCE;

/// Generated from proto/runtime.proto.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// A blocking CRI client.
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// For the socket; connects at the first call, and again when it must.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoint =
            Endpoint::from_shared(format!("unix://{}", socket.display()))?.timeout(PATIENCE);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { runtime, channel })
    }

    /// Runs one call to its end.
    pub fn call<T>(
        &self,
        what: &str,
        call: impl AsyncFnOnce(
            RuntimeServiceClient<Channel>,
        ) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T> {
        self.runtime
            .block_on(call(RuntimeServiceClient::new(self.channel.clone())))
            .map(tonic::Response::into_inner)
            .with_context(|| what.to_owned())
    }

    /// Name and version of the runtime.
    pub fn version(&self) -> Result<String> {
        let answer = self.call("Version", async |mut client| {
            client.version(v1::VersionRequest::default()).await
        })?;
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// Waits until the runtime knows the image.
    pub fn await_image(&self, image: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spec = v1::ImageSpec {
                image: image.to_owned(),
            };
            let request = v1::ImageStatusRequest { image: Some(spec) };
            let answer = self.runtime.block_on(async {
                ImageServiceClient::new(self.channel.clone())
                    .image_status(request)
                    .await
            });
            match answer {
                Ok(answer) if answer.get_ref().image.is_some() => return Ok(()),
                Ok(_) if Instant::now() > deadline => bail!("the runtime has no image {image}"),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("ImageStatus");
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// State of a container and the reason of its end.
    pub fn status(&self, id: &str) -> Result<v1::ContainerStatus> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
        };
        self.call("ContainerStatus", async |mut client| {
            client.container_status(request).await
        })?
        .status
        .context("ContainerStatus answered nothing")
    }

    /// Waits until the container has ended.
    pub fn await_exit(&self, id: &str) -> Result<v1::ContainerStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(id)?;
            if status.state() == v1::ContainerState::ContainerExited {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("container {id} does not end: {status:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a program in a container, and gives what it printed.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<String> {
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: PATIENCE.as_secs().cast_signed(),
        };
        let answer = self.call("ExecSync", async |mut client| {
            client.exec_sync(request).await
        })?;
        if answer.exit_code != 0 {
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            bail!("{command:?} ended with {}: {said}", answer.exit_code);
        }
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }

    /// Stops and removes a pod.
    pub fn remove(&self, sandbox: &str) -> Result<()> {
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        self.call("StopPodSandbox", async |mut client| {
            client.stop_pod_sandbox(stop).await
        })?;
        let remove = v1::RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        self.call("RemovePodSandbox", async |mut client| {
            client.remove_pod_sandbox(remove).await
        })
        .map(drop)
    }

    /// Stops and removes every pod.
    pub fn remove_all(&self) -> Result<()> {
        let list = self.call("ListPodSandbox", async |mut client| {
            client
                .list_pod_sandbox(v1::ListPodSandboxRequest::default())
                .await
        })?;
        list.items.iter().try_for_each(|pod| self.remove(&pod.id))
    }
}
