//! Questions to one runtime over its unix socket, each with a time limit and a
//! bound on the answer's size.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};

use super::facts::{ContainerFacts, Fact, PodFacts, status_image};
use super::listing::Listing;
use super::v1::runtime_service_client::RuntimeServiceClient;
use super::v1::{
    ContainerEventResponse, ContainerFilter, ContainerStatusRequest, GetEventsRequest,
    ListContainersRequest, ListPodSandboxRequest, PodSandboxStatusRequest, VersionRequest,
};
use crate::identity::counters::{Counters, add};
use crate::identity::limits;

/// Largest listing, bytes; kubelet's own bound.
const MAX_LISTING: usize = 16 * 1024 * 1024;
/// Largest answer about one container or pod, and largest event, bytes.
const MAX_SINGLE: usize = 1024 * 1024;
const CONNECT_TIME: Duration = Duration::from_secs(2);
const SINGLE_TIME: Duration = Duration::from_secs(2);
const LISTING_TIME: Duration = Duration::from_secs(10);

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The runtime does not know the id.
    Absent,
    /// The runtime has no such call.
    Unsupported,
    /// Anything else, in words.
    Failed(String),
}

impl Trouble {
    /// In words, with the call it befell.
    pub(super) fn words(self, call: &str) -> String {
        match self {
            Self::Absent => format!("{call}: not found"),
            Self::Unsupported => format!("{call}: not supported by this runtime"),
            Self::Failed(why) => limits::reason(format!("{call}: {why}")),
        }
    }
}

/// A connected runtime.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
    service: RuntimeServiceClient<Channel>,
}

impl Client {
    pub(super) async fn connect(socket: &Path) -> Result<Self, Trouble> {
        let path = socket.to_owned();
        // The URI is never dialled; a path with odd bytes needs no escaping.
        let connector = tower::service_fn(move |_: Uri| dial(path.clone()));
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIME);
        let channel = timeout(CONNECT_TIME, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| Trouble::Failed("no connection in 2 s".to_owned()))?
            .map_err(|e| Trouble::Failed(root_cause(&e)))?;
        let service =
            RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_SINGLE);
        Ok(Self { channel, service })
    }

    /// Name and version of the runtime.
    pub(super) async fn version(&self) -> Result<String, Trouble> {
        let request = VersionRequest {
            version: "v1".to_owned(),
        };
        let v = within(SINGLE_TIME, self.service.clone().version(request))
            .await?
            .into_inner();
        Ok(limits::reason(format!(
            "{} {}",
            v.runtime_name, v.runtime_version
        )))
    }

    pub(super) async fn containers(
        &self,
        counters: &Counters,
    ) -> Result<Listing<ContainerFacts>, Trouble> {
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListContainers");
        self.list(
            path,
            ListContainersRequest { filter: None },
            LISTING_TIME,
            counters,
        )
        .await
    }

    pub(super) async fn pods(&self, counters: &Counters) -> Result<Listing<PodFacts>, Trouble> {
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");
        self.list(
            path,
            ListPodSandboxRequest { filter: None },
            LISTING_TIME,
            counters,
        )
        .await
    }

    /// One container; its listing says its sandbox, which its status does not.
    pub(super) async fn container(
        &self,
        id: &str,
        counters: &Counters,
    ) -> Result<ContainerFacts, Trouble> {
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListContainers");
        let filter = Some(ContainerFilter { id: id.to_owned() });
        let listing: Listing<ContainerFacts> = self
            .list(
                path,
                ListContainersRequest { filter },
                SINGLE_TIME,
                counters,
            )
            .await?;
        // Runtimes take the filter for a prefix.
        listing
            .items
            .into_iter()
            .find(|c| c.id == id)
            .ok_or(Trouble::Absent)
    }

    /// One sandbox with its network.
    pub(super) async fn pod(
        &self,
        sandbox: &str,
        counters: &Counters,
    ) -> Result<PodFacts, Trouble> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
        };
        let answer = within(
            SINGLE_TIME,
            self.service.clone().pod_sandbox_status(request),
        )
        .await?;
        answer
            .into_inner()
            .status
            .and_then(|s| PodFacts::from_status(s, counters))
            .filter(|p| p.sandbox_id == sandbox)
            .ok_or(Trouble::Absent)
    }

    /// Image of one container, by name where the runtime has one.
    /// The memory limit that was asked for, bytes; 0 none.
    pub(super) async fn limit(&self, id: &str) -> Result<u64, Trouble> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
        };
        let answer = within(SINGLE_TIME, self.service.clone().container_status(request)).await?;
        let status = answer.into_inner().status.ok_or(Trouble::Absent)?;
        let linux = status.resources.and_then(|resources| resources.linux);
        let linux = linux.ok_or(Trouble::Failed(
            "it does not say what limits were asked for (containerd 1.7 and later do)".to_owned(),
        ))?;
        Ok(linux.memory_limit_in_bytes.max(0).unsigned_abs())
    }

    pub(super) async fn image(&self, id: &str, counters: &Counters) -> Result<String, Trouble> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
        };
        let answer = within(SINGLE_TIME, self.service.clone().container_status(request)).await?;
        answer
            .into_inner()
            .status
            .map(|s| status_image(s, counters))
            .ok_or(Trouble::Absent)
    }

    /// Container events, from now on.
    pub(super) async fn events(&self) -> Result<Streaming<ContainerEventResponse>, Trouble> {
        // No time limit: some runtimes send the headers with the first event.
        let answer = self
            .service
            .clone()
            .get_container_events(GetEventsRequest {})
            .await;
        answer.map(tonic::Response::into_inner).map_err(trouble)
    }

    async fn list<Q, T>(
        &self,
        path: PathAndQuery,
        request: Q,
        limit: Duration,
        counters: &Counters,
    ) -> Result<Listing<T>, Trouble>
    where
        Q: prost::Message + 'static,
        T: Fact + 'static,
    {
        let mut grpc =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_LISTING);
        let call = async {
            grpc.ready()
                .await
                .map_err(|e| Status::unavailable(root_cause(&e)))?;
            let codec = tonic_prost::ProstCodec::<Q, Listing<T>>::default();
            grpc.unary(Request::new(request), path, codec).await
        };
        let listing = within(limit, call).await?.into_inner();
        add(&counters.cri_items_dropped, listing.dropped);
        add(&counters.cri_items_rejected, listing.rejected);
        counters.absorb(&listing.cuts);
        Ok(listing)
    }
}

async fn dial(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Trouble> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(trouble),
        Err(_) => Err(Trouble::Failed(format!(
            "no answer in {} s",
            limit.as_secs()
        ))),
    }
}

fn trouble(status: Status) -> Trouble {
    match status.code() {
        Code::NotFound => Trouble::Absent,
        Code::Unimplemented => Trouble::Unsupported,
        code => Trouble::Failed(limits::reason(format!("{code:?}: {}", status.message()))),
    }
}

/// The innermost cause says it best ("Connection refused (os error 111)").
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    limits::reason(cause.to_string())
}
