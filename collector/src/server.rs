//! The gRPC side: streams of agents and questions, on one port.

mod admit;
mod query;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::v1::collector_server::CollectorServer;
use culprit_proto::v1::query_server::QueryServer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::transport::server::TcpIncoming;

use crate::store::WriterHandle;

/// Streams of agents at one time; more are refused with RESOURCE_EXHAUSTED.
const MAX_STREAMS: usize = 4096;
/// Questions that are answered at one time; more are refused.
const MAX_QUERIES: usize = 8;
/// gRPC streams on one connection: an agent has two.
const MAX_STREAMS_PER_CONNECTION: u32 = 16;
/// A peer that answers no ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a stop, connections have this long to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// What the server needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Directory of the store, for reading.
    pub store: PathBuf,
    /// Bytes that an agent may have unacknowledged, per lane.
    pub credit_bytes: u64,
}

/// Serves until `stop` turns true. Streams then end with what was received
/// acknowledged, which still needs the writer: stop that one afterwards.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    writer: WriterHandle,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let streams = stream::Streams {
        writer,
        credit_bytes: settings.credit_bytes,
        room: Arc::new(Semaphore::new(MAX_STREAMS)),
        stop: stop.clone(),
    };
    let queries = query::Queries {
        store: settings.store,
        room: Arc::new(Semaphore::new(MAX_QUERIES)),
        stop: stop.clone(),
    };
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_keepalive(Some(KEEPALIVE))
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .add_service(
            CollectorServer::new(streams)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            QueryServer::new(queries)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        );
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = server.serve_with_incoming_shutdown(incoming, stopped(stop.clone()));
    tokio::select! {
        result = server => result,
        () = async {
            stopped(stop).await;
            tokio::time::sleep(GRACE).await;
        } => {
            tracing::warn!("connections that did not end in {} s are cut", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Resolves when `stop` is true, or its sender gone.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody can stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}
