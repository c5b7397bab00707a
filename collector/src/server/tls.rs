//! The listener: connections, in TLS or without, that are ready for gRPC.
//!
//! A handshake costs the peer nothing and us a task, so they are bounded in
//! time and number; one that is slow or hostile delays nobody else.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use culprit_proto::text;
use culprit_tls::Server;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::access::Access;
use super::gate::{Gate, Ticket};
use super::io::{Io, Peer};

/// Rest after an accept that failed, for want of descriptors say.
const REST: Duration = Duration::from_millis(100);
/// Time between two log lines about handshakes that failed.
const QUIET: Duration = Duration::from_secs(1);
/// Connections that are ready and not yet taken over by gRPC.
const READY: usize = 64;

/// Bounds of the TLS handshakes under way.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// So many at one time; when another comes, the oldest is cut.
    pub handshakes: usize,
    /// A handshake that takes longer is cut.
    pub patience: Duration,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            handshakes: 256,
            patience: Duration::from_secs(10),
        }
    }
}

/// A connection that is ready, its other end, and its place.
pub(super) type Ready = (Io, SocketAddr, Ticket);

/// Accepts until the receiver is dropped.
pub(super) fn incoming(
    listener: TcpListener,
    access: Arc<Access>,
    gate: Arc<Gate>,
) -> mpsc::Receiver<Ready> {
    let (ready, connections) = mpsc::channel(READY);
    tokio::spawn(Acceptor::new(access, gate).run(listener, ready));
    connections
}

/// How a handshake ended.
enum Outcome {
    Ready(Box<Ready>),
    /// The peer closed without a word: somebody looked whether the port is open.
    Look,
    Failed(SocketAddr, io::Error),
    TimedOut(SocketAddr),
}

struct Acceptor {
    access: Arc<Access>,
    gate: Arc<Gate>,
    under_way: JoinSet<Outcome>,
    /// Those under way, oldest first, and some that have ended.
    handles: VecDeque<AbortHandle>,
    told: Option<Instant>,
    untold: u64,
}

impl Acceptor {
    fn new(access: Arc<Access>, gate: Arc<Gate>) -> Self {
        Self {
            access,
            gate,
            under_way: JoinSet::new(),
            handles: VecDeque::new(),
            told: None,
            untold: 0,
        }
    }

    async fn run(mut self, listener: TcpListener, ready: mpsc::Sender<Ready>) {
        loop {
            let io = tokio::select! {
                biased;
                () = ready.closed() => return,
                Some(ended) = self.under_way.join_next() => match ended {
                    Ok(outcome) => self.settle(outcome),
                    // Cut, and counted then; a panic has said so itself.
                    Err(_) => None,
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, addr)) => self.begin(stream, addr),
                    Err(error) => {
                        self.tell(&format!("cannot accept a connection: {error}"));
                        tokio::time::sleep(REST).await;
                        None
                    }
                },
            };
            if let Some(io) = io
                && ready.send(*io).await.is_err()
            {
                return;
            }
        }
    }

    /// Takes a connection: it is ready at once without TLS.
    fn begin(&mut self, stream: TcpStream, addr: SocketAddr) -> Option<Box<Ready>> {
        // Counted and logged there.
        let ticket = self.gate.admit(addr.ip())?;
        // Without it answers are a little slower, no more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.access.tls.clone() else {
            let peer = Peer { addr, names: None };
            return Some(Box::new((Io::plain(stream, peer), addr, ticket)));
        };
        let Door {
            handshakes,
            patience,
            ..
        } = self.access.door;
        if self.under_way.len() >= handshakes {
            self.cut_oldest();
        }
        if self.handles.len() >= 2 * handshakes {
            self.handles.retain(|handle| !handle.is_finished());
        }
        let handshake = handshake(tls, stream, addr, ticket);
        self.handles.push_back(self.under_way.spawn(async move {
            tokio::time::timeout(patience, handshake)
                .await
                .unwrap_or(Outcome::TimedOut(addr))
        }));
        None
    }

    fn cut_oldest(&mut self) {
        while let Some(handle) = self.handles.pop_front() {
            if !handle.is_finished() {
                handle.abort();
                self.access.counters.handshakes_cut.fetch_add(1, Relaxed);
                self.tell("there are too many TLS handshakes under way; the oldest is cut");
                return;
            }
        }
    }

    fn settle(&mut self, outcome: Outcome) -> Option<Box<Ready>> {
        let (addr, why) = match outcome {
            Outcome::Ready(io) => return Some(io),
            Outcome::Look => return None,
            Outcome::Failed(addr, error) => {
                let hint = culprit_tls::hint(&error, "--tls-client-ca");
                (addr, format!("{error}{hint}"))
            }
            Outcome::TimedOut(addr) => {
                let patience = self.access.door.patience;
                (addr, format!("it was not done within {patience:?}"))
            }
        };
        self.access.counters.handshakes_failed.fetch_add(1, Relaxed);
        self.tell(&format!("TLS handshake with {addr} failed: {why}"));
        None
    }

    /// Logs, at most once a second: peers decide how often these come.
    fn tell(&mut self, what: &str) {
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        let more = std::mem::take(&mut self.untold);
        self.told = Some(Instant::now());
        tracing::warn!(more_untold = more, "{}", text::escape(what));
    }
}

async fn handshake(tls: Server, stream: TcpStream, addr: SocketAddr, ticket: Ticket) -> Outcome {
    if matches!(stream.peek(&mut [0]).await, Ok(0)) {
        return Outcome::Look;
    }
    match tls.accept(stream).await {
        Ok((stream, names)) => {
            let names = Some(Arc::new(names));
            let io = Io::tls(stream, Peer { addr, names });
            Outcome::Ready(Box::new((io, addr, ticket)))
        }
        Err(error) => Outcome::Failed(addr, error),
    }
}
