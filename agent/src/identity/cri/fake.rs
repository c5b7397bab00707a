//! A container runtime for tests: a real gRPC server on a unix socket that
//! calls itself "culprit-fake" and answers as it is told.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use super::v1::*;
use crate::identity::lock;

/// What the runtime knows and how it behaves.
#[derive(Default)]
pub(in crate::identity) struct Answers {
    pub(in crate::identity) pods: Vec<PodSandboxStatus>,
    pub(in crate::identity) containers: Vec<Container>,
    /// Container id -> image that its status says.
    pub(in crate::identity) status_images: Vec<(String, String)>,
    /// False: GetContainerEvents is UNIMPLEMENTED, as in containerd 1.6.
    pub(in crate::identity) has_events: bool,
    /// Waited before every answer but Version's.
    pub(in crate::identity) delay: Duration,
    /// Calls so far, by name.
    pub(in crate::identity) calls: Vec<&'static str>,
}

#[derive(Clone)]
pub(in crate::identity) struct Fake {
    pub(in crate::identity) answers: Arc<Mutex<Answers>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

/// A fake that listens; dropped, it is gone with all its connections, as a
/// runtime that was killed.
pub(in crate::identity) struct Running {
    runtime: Option<Runtime>,
    socket: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Fake {
    pub(in crate::identity) fn new() -> Self {
        Self {
            answers: Arc::default(),
            events: broadcast::channel(16).0,
        }
    }

    /// Changes the answers.
    pub(in crate::identity) fn tell(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut lock(&self.answers));
    }

    pub(in crate::identity) fn calls(&self, name: &str) -> usize {
        lock(&self.answers)
            .calls
            .iter()
            .filter(|c| **c == name)
            .count()
    }

    pub(in crate::identity) fn send_created(&self, id: &str) -> usize {
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: ContainerEventType::ContainerCreatedEvent.into(),
        };
        self.events.send(event).unwrap_or(0)
    }

    pub(in crate::identity) fn listen(&self, socket: &Path) -> std::io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket)?
        };
        let incoming = UnixListenerStream::new(listener);
        let service = RuntimeServiceServer::new(self.clone());
        runtime.spawn(async move {
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            assert!(served.await.is_ok(), "fake runtime stopped by itself");
        });
        Ok(Running {
            runtime: Some(runtime),
            socket: socket.to_owned(),
        })
    }

    async fn called(&self, name: &'static str) {
        let delay = {
            let mut answers = lock(&self.answers);
            answers.calls.push(name);
            answers.delay
        };
        tokio::time::sleep(delay).await;
    }
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "culprit-fake".to_owned(),
            runtime_version: "v0".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        self.called("PodSandboxStatus").await;
        let id = request.into_inner().pod_sandbox_id;
        let found = lock(&self.answers)
            .pods
            .iter()
            .find(|p| p.id == id)
            .cloned();
        match found {
            Some(status) => Ok(Response::new(PodSandboxStatusResponse {
                status: Some(status),
            })),
            None => Err(Status::not_found("sandbox")),
        }
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        self.called("ListPodSandbox").await;
        let items = lock(&self.answers)
            .pods
            .iter()
            .cloned()
            .map(|p| PodSandbox {
                id: p.id,
                metadata: p.metadata,
                state: p.state,
                created_at: p.created_at,
                labels: p.labels,
                annotations: p.annotations,
            })
            .collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        self.called("ListContainers").await;
        let id = request
            .into_inner()
            .filter
            .map(|f| f.id)
            .unwrap_or_default();
        let containers = lock(&self.answers)
            .containers
            .iter()
            .filter(|c| c.id.starts_with(&id))
            .cloned()
            .collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        self.called("ContainerStatus").await;
        let id = request.into_inner().container_id;
        let image = lock(&self.answers)
            .status_images
            .iter()
            .find(|(i, _)| *i == id)
            .map(|(_, image)| image.clone());
        let Some(image) = image else {
            return Err(Status::not_found("container"));
        };
        let image = Some(ImageSpec {
            image,
            ..ImageSpec::default()
        });
        let status = Some(ContainerStatus {
            resources: None,
            id,
            image,
            image_ref: String::new(),
        });
        Ok(Response::new(ContainerStatusResponse { status }))
    }

    type GetContainerEventsStream =
        Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        self.called("GetContainerEvents").await;
        if !lock(&self.answers).has_events {
            return Err(Status::unimplemented(
                "method GetContainerEvents not implemented",
            ));
        }
        let mut events = self.events.subscribe();
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream.map(|event| event))))
    }
}
