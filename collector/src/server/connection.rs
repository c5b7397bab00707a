//! One HTTP/2 connection: its limits, its idleness, its age.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep, sleep_until};
use tonic::codegen::{Service, http};
use tonic::service::Routes;
use tonic::transport::server::Connected;

use super::Bounds;
use super::refusals::Refusals;

/// gRPC streams on one connection: an agent has one.
const MAX_STREAMS: u32 = 2;
/// What a peer may send of a stream before it is read, bytes. h2 ends a
/// connection with very many small frames that nobody reads: as many as fill
/// half of the connection's window with what 256 bytes have over them. One
/// stream of single events, of 128 bytes and more, cannot come to that.
const WINDOW: u32 = 64 * 1024;
/// Answers that wait in one stream for the peer to take them, bytes.
const SEND_BUFFER: usize = 16 * 1024;
/// Headers of one request, bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a peer resets before they are looked at, and that are reset
/// because of its errors; beyond it the connection ends.
const MAX_RESETS: usize = 32;
/// A peer that answers no ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// An old connection has this long to end by itself.
const GRACE: Duration = Duration::from_secs(30);

/// A connection as its streams see it, in the extensions of each request.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: SocketAddr,
    requests: AtomicU64,
    active: AtomicUsize,
    old: watch::Sender<bool>,
}

/// A stream or a question is under way.
pub(super) struct Active(Arc<Inner>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

impl Connection {
    fn new(peer: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            peer,
            requests: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            old: watch::Sender::new(false),
        }))
    }

    /// Who is at the other end.
    pub(super) fn peer(&self) -> String {
        self.0.peer.to_string()
    }

    /// Keeps the connection from being idle.
    pub(super) fn enter(&self) -> Active {
        self.0.active.fetch_add(1, Relaxed);
        Active(Arc::clone(&self.0))
    }

    /// Resolves when the connection is old: streams should end.
    pub(super) fn old(&self) -> impl Future<Output = ()> + use<> {
        super::stopped(self.0.old.subscribe())
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve<T>(
    io: T,
    peer: SocketAddr,
    routes: Routes,
    bounds: Bounds,
    refusals: Arc<Refusals>,
    stop: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let connection = Connection::new(peer);
    let (seen, info) = (connection.clone(), io.connect_info());
    let service = service_fn(move |request: http::Request<Incoming>| {
        seen.0.requests.fetch_add(1, Relaxed);
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(seen.clone());
        request.extensions_mut().insert(info.clone());
        routes.clone().call(request)
    });
    let mut http = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(MAX_STREAMS * WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(io), service)
    );
    let mut stop = std::pin::pin!(super::stopped(stop));
    let mut age = std::pin::pin!(sleep(jittered(bounds.age)));
    let mut look = interval_at(Instant::now() + bounds.idle, bounds.idle);
    let mut requests = 0;
    let mut ending = false;
    let mut cut = std::pin::pin!(sleep_until(Instant::now() + GRACE));
    loop {
        tokio::select! {
            result = http.as_mut() => {
                if let Err(error) = result {
                    Refusals::count(&refusals.broken);
                    tracing::debug!(%peer, "connection broken: {error}");
                }
                return;
            }
            () = &mut stop, if !ending => {
                // How long that may take is the server's business.
                ending = true;
                cut.as_mut().reset(Instant::now() + 10 * GRACE);
                http.as_mut().graceful_shutdown();
            }
            () = &mut age, if !ending => {
                Refusals::count(&refusals.aged);
                ending = true;
                cut.as_mut().reset(Instant::now() + GRACE);
                connection.0.old.send_replace(true);
                http.as_mut().graceful_shutdown();
            }
            _ = look.tick(), if !ending => {
                // Nothing was asked since the last look, and nothing goes on.
                let so_far = connection.0.requests.load(Relaxed);
                if so_far == requests && connection.0.active.load(Relaxed) == 0 {
                    Refusals::count(&refusals.idle);
                    tracing::debug!(%peer, "connection closed: idle for {:?}", bounds.idle);
                    return;
                }
                requests = so_far;
            }
            () = &mut cut, if ending => return,
        }
    }
}

/// Between nine and eleven tenths of `age`, so that what began together does
/// not end together.
fn jittered(age: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let draw = RandomState::new().hash_one(age) % 201;
    age / 1000 * (900 + draw as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = Duration::from_secs(1000);
        let ages: Vec<u64> = (0..100).map(|_| jittered(age).as_secs()).collect();
        assert!(
            ages.iter().all(|age| (900..=1100).contains(age)),
            "{ages:?}"
        );
        assert!(ages.iter().any(|age| *age != ages[0]));
    }
}
