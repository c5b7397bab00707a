use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::kind::Filter;
use culprit_proto::v1::query_server::Query as QueryService;
use culprit_proto::v1::{EventsRequest, NodesRequest, NodesResponse, StoredEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::access::Access;
use super::connection::{Active, Connection};
use super::identity::may_ask;
use super::memory::{Memory, Permit};
use super::refusals::Refusals;
use crate::store::{Page, Position, Query, Reader, StoreError};

/// Events that wait for a client to take them.
const BUFFER: usize = 64;
/// A client that takes nothing for so long is cut off.
const STALLED: Duration = Duration::from_secs(30);

/// The service Query.
pub(super) struct Queries {
    pub(super) access: Arc<Access>,
    pub(super) store: PathBuf,
    pub(super) memory: Arc<Memory>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

type Room = (OwnedSemaphorePermit, Permit, Option<Active>);

impl Queries {
    /// One of the places, memory for the answer, and a connection that is not
    /// idle.
    fn room<T>(&self, request: &Request<T>) -> Result<Room, Status> {
        let active = request.extensions().get::<Connection>();
        let active = active.map(Connection::enter);
        let place = Arc::clone(&self.room).try_acquire_owned().ok();
        place
            .and_then(|place| Some((place, self.memory.query()?, active)))
            .ok_or_else(|| {
                Refusals::count(&self.refusals.queries);
                Status::resource_exhausted(
                    "the collector answers as many questions as it can; try later",
                )
            })
    }
}

#[tonic::async_trait]
impl QueryService for Queries {
    type EventsStream = ReceiverStream<Result<StoredEvent, Status>>;

    async fn events(
        &self,
        request: Request<EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        may_ask(&self.access, &request)?;
        let room = self.room(&request)?;
        let request = request.into_inner();
        let query = Query {
            filter: Filter::try_from(&request).map_err(Status::invalid_argument)?,
            node: request.node,
        };
        let store = self.store.clone();
        let reader = blocking(move || Reader::open(&store)).await?;
        let (out, answers) = mpsc::channel(BUFFER);
        let stop = self.stop.clone();
        let refusals = Arc::clone(&self.refusals);
        tokio::spawn(async move {
            let _room = room;
            let result = tokio::select! {
                result = send(reader, query, &out) => result,
                () = super::stopped(stop) => Err(Status::unavailable("the collector is stopping")),
            };
            if let Err(status) = result {
                if status.code() == Code::DeadlineExceeded {
                    Refusals::count(&refusals.slow_readers);
                }
                // A client that is gone or stuck cannot be told.
                let _ = out.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn nodes(
        &self,
        request: Request<NodesRequest>,
    ) -> Result<Response<NodesResponse>, Status> {
        may_ask(&self.access, &request)?;
        let _room = self.room(&request)?;
        let store = self.store.clone();
        let request = request.into_inner();
        let page = blocking(move || Reader::open(&store)?.nodes_page(&request)).await?;
        Ok(Response::new(page))
    }
}

/// Sends page by page: between pages no transaction is open, so a slow client
/// does not hold the log.
async fn send(
    mut reader: Reader,
    query: Query,
    out: &mpsc::Sender<Result<StoredEvent, Status>>,
) -> Result<(), Status> {
    let query = Arc::new(query);
    let mut after: Option<Position> = None;
    let mut first = true;
    loop {
        let page: Page;
        let asked = Arc::clone(&query);
        (reader, page) = blocking(move || {
            let after = if first { reader.start(&asked)? } else { after };
            let page = reader.page(&asked, after)?;
            Ok((reader, page))
        })
        .await?;
        first = false;
        for event in page.events {
            match out.send_timeout(Ok(event), STALLED).await {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    return Err(Status::deadline_exceeded("the client takes nothing"));
                }
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Runs SQLite off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Status::internal("a reader of the store panicked"))?
        .map_err(|error| Status::internal(error.to_string()))
}
