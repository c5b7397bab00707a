use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::kind::Filter;
use culprit_proto::v1::query_server::Query as QueryService;
use culprit_proto::v1::{EventsRequest, NodesRequest, NodesResponse, StoredEvent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::store::{Page, Position, Query, Reader, StoreError};

/// Events that wait for a client to take them.
const BUFFER: usize = 64;
/// A client that takes nothing for so long is cut off.
const STALLED: Duration = Duration::from_secs(30);

/// The service Query.
pub(super) struct Queries {
    pub(super) store: PathBuf,
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Queries {
    fn room(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
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
        let request = request.into_inner();
        let query = Query {
            filter: Filter::try_from(&request).map_err(Status::invalid_argument)?,
            node: request.node,
        };
        let room = self.room()?;
        let store = self.store.clone();
        let reader = blocking(move || Reader::open(&store)).await?;
        let (out, answers) = mpsc::channel(BUFFER);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _room = room;
            let result = tokio::select! {
                result = send(reader, query, &out) => result,
                () = super::stopped(stop) => Err(Status::unavailable("the collector is stopping")),
            };
            if let Err(status) = result {
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
        let _room = self.room()?;
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
