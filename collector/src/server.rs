//! The gRPC side: streams of agents and questions, on one port.

mod access;
mod admit;
mod body;
mod connection;
mod gate;
mod identity;
mod io;
mod memory;
mod query;
mod refusals;
mod service;
mod stream;
mod tls;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::v1::query_server::QueryServer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::store::WriterHandle;
use gate::Gate;
use memory::Memory;

pub use access::{Access, Counters, QUERY_NAME};
pub use memory::{DEFAULT_MEMORY, MIN_MEMORY};
pub use refusals::Refusals;
pub use tls::Door;
pub use token::{TokenReview, Tokens};

/// Streams of agents at one time; more are refused with RESOURCE_EXHAUSTED.
const MAX_STREAMS: usize = 4096;
/// Questions that are answered at one time; more are refused.
const MAX_QUERIES: usize = 8;
/// Largest question, bytes.
const MAX_QUESTION_BYTES: usize = 16 * 1024;
/// After a stop, connections have this long to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// What the server needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the store, for reading.
    pub store: PathBuf,
    /// Bytes that an agent may have unacknowledged, per lane.
    pub credit_bytes: u64,
    /// Against peers.
    pub bounds: Bounds,
    /// What is refused is counted here.
    pub refusals: Arc<Refusals>,
}

impl Settings {
    /// With the usual bounds.
    #[must_use]
    pub fn new(store: PathBuf, credit_bytes: u64) -> Self {
        Self {
            store,
            credit_bytes,
            bounds: Bounds::default(),
            refusals: Arc::default(),
        }
    }
}

/// Bounds that keep one peer from being everybody's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that peers may make the collector hold, `MIN_MEMORY` at least.
    pub max_memory: u64,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// After about this time a connection is ended, so that agents spread
    /// again.
    pub age: Duration,
    /// A connection on which nothing is asked for so long is closed.
    pub idle: Duration,
    /// The first message of a stream must come within this time.
    pub hello: Duration,
    /// A message that has begun must be there, and an answer taken, within
    /// this time.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_memory: DEFAULT_MEMORY,
            connections_per_address: 256,
            age: Duration::from_secs(30 * 60),
            idle: Duration::from_secs(10),
            hello: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

/// [`serve_with`] plaintext, with nothing asked of anybody.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    writer: WriterHandle,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    serve_with(listener, settings, Access::open(), writer, stop).await
}

/// Serves until `stop` turns true. Streams then end with what was received
/// acknowledged, which still needs the writer: stop that one afterwards.
///
/// # Errors
/// When the listener fails.
pub async fn serve_with(
    listener: TcpListener,
    settings: Settings,
    access: Access,
    writer: WriterHandle,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let Settings {
        store,
        credit_bytes,
        bounds,
        refusals,
    } = settings;
    let access = Arc::new(access);
    let memory = Arc::new(Memory::new(bounds.max_memory));
    let gate = Gate::new(
        memory.connections(),
        bounds.connections_per_address,
        Arc::clone(&refusals),
    );
    let streams = stream::Streams {
        access: Arc::clone(&access),
        writer,
        credit_bytes,
        bounds,
        memory: Arc::clone(&memory),
        refusals: Arc::clone(&refusals),
        room: Arc::new(Semaphore::new(MAX_STREAMS)),
        stop: stop.clone(),
    };
    let queries = query::Queries {
        access: Arc::clone(&access),
        store,
        memory,
        refusals: Arc::clone(&refusals),
        room: Arc::new(Semaphore::new(MAX_QUERIES)),
        stop: stop.clone(),
    };
    let routes = Routes::new(service::CollectorService(Arc::new(streams)))
        .add_service(
            QueryServer::new(queries)
                .max_decoding_message_size(MAX_QUESTION_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .prepare();
    let mut incoming = tls::incoming(listener, access, gate);
    let mut connections = JoinSet::new();
    let mut stopping = std::pin::pin!(stopped(stop.clone()));
    loop {
        let (io, peer, ticket) = tokio::select! {
            () = &mut stopping => break,
            // A panic has said so itself.
            Some(_) = connections.join_next() => continue,
            Some(ready) = incoming.recv() => ready,
            else => break,
        };
        let (routes, refusals, stop) = (routes.clone(), Arc::clone(&refusals), stop.clone());
        connections.spawn(async move {
            let _ticket = ticket;
            connection::serve(io, peer, routes, bounds, refusals, stop).await;
        });
    }
    // New connections are refused from here on.
    drop(incoming);
    let end = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, end).await.is_err() {
        tracing::warn!(
            "connections that did not end in {} s are cut",
            GRACE.as_secs()
        );
    }
    Ok(())
}

/// Resolves when `stop` is true, or its sender gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody can stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}
