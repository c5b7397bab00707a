//! The agent's own socket: `dump` and `status` ask here. It is mode 0600, and
//! beside that every call is checked: only root and the agent's own user may ask.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use culprit_proto::kind::Filter;
use culprit_proto::v1::local_server::{Local, LocalServer};
use culprit_proto::v1::{DumpRequest, Event, Record, StatusRequest, StatusResponse};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::journal::Journal;
use crate::journal::recorder::Entry;
use crate::privilege;

/// Name of the socket in the state directory.
pub const SOCKET: &str = "agent.sock";

/// Dumps that are answered at the same time.
const MAX_DUMPS: usize = 16;

/// Entries that are looked at in one go.
const CHUNK: usize = 256;

/// Answers about a running agent.
pub trait About: Send + Sync + 'static {
    /// Its status; what the server knows itself (flight recorder, privileges,
    /// refused callers) is filled in by it.
    fn status(&self) -> impl Future<Output = StatusResponse> + Send;
}

/// A socket that is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket, mode 0600, in place of one that a former agent left.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn bind(state_dir: &Path) -> anyhow::Result<Self> {
        let path = state_dir.join(SOCKET);
        // Under its name only once it has its mode.
        let new = state_dir.join("agent.sock.new");
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)
            .with_context(|| format!("cannot make the socket {}", new.display()))?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Answers until `finish` is set.
    pub async fn serve<A: About>(
        self,
        journal: Arc<Journal>,
        about: Arc<A>,
        mut finish: watch::Receiver<bool>,
    ) {
        let callers = Callers::default();
        let service = Service {
            journal,
            about,
            dumps: Arc::new(Semaphore::new(MAX_DUMPS)),
            finish: finish.clone(),
            refused: Arc::clone(&callers.refused),
        };
        let service = LocalServer::with_interceptor(service, move |request| callers.check(request));
        let served = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(self.listener), async move {
                // An error means that the agent is gone.
                let _ = finish.wait_for(|finish| *finish).await;
            })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the socket for dump and status is closed");
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
struct Callers {
    refused: Arc<AtomicU64>,
}

impl Callers {
    /// Lets pass whom the kernel names as root or as the agent's own user at
    /// the time of the connect (SO_PEERCRED).
    fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let uid = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred)
            .map(|peer| peer.uid());
        let own = rustix::process::geteuid().as_raw();
        if uid.is_some_and(|uid| may_ask(uid, own)) {
            return Ok(request);
        }
        let who = uid.map_or_else(
            || "a caller without uid".to_owned(),
            |uid| format!("uid {uid}"),
        );
        if self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                caller = who,
                "refused to answer on the agent's socket; further ones are counted only, see `status`"
            );
        }
        Err(Status::permission_denied(format!(
            "{who} may not ask this agent; ask as root or as its own user, uid {own}"
        )))
    }
}

fn may_ask(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

struct Service<A> {
    journal: Arc<Journal>,
    about: Arc<A>,
    dumps: Arc<Semaphore>,
    finish: watch::Receiver<bool>,
    refused: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl<A: About> Local for Service<A> {
    type DumpStream = Pin<Box<ReceiverStream<Result<Record, Status>>>>;

    async fn dump(
        &self,
        request: Request<DumpRequest>,
    ) -> Result<Response<Self::DumpStream>, Status> {
        let request = request.into_inner();
        let filter = Filter::try_from(&request).map_err(Status::invalid_argument)?;
        let permit = Arc::clone(&self.dumps).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_DUMPS} dumps are running already; end one of them"
            ))
        })?;
        let (out, stream) = mpsc::channel(CHUNK);
        let dump = Dump {
            journal: Arc::clone(&self.journal),
            filter,
            out,
        };
        let finish = self.finish.clone();
        tokio::spawn(async move {
            dump.run(request.follow, finish).await;
            drop(permit);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let mut status = self.about.status().await;
        let held = self.journal.recorder().held();
        status.recorder_records = held.records;
        status.recorder_bytes = held.bytes;
        status.recorder_max_bytes = held.max_bytes;
        status.callers_refused = self.refused.load(Ordering::Relaxed);
        status.capabilities = match privilege::held() {
            Ok(set) => privilege::names(set),
            Err(error) => vec![format!("unknown: /proc/self/task: {error}")],
        };
        Ok(Response::new(status))
    }
}

struct Dump {
    journal: Arc<Journal>,
    filter: Filter,
    out: mpsc::Sender<Result<Record, Status>>,
}

/// The reader has gone, or was told why it ends.
struct Over;

impl Dump {
    async fn run(self, follow: bool, mut finish: watch::Receiver<bool>) {
        let mut grown = self.journal.recorder().watch();
        let (oldest, end) = self.journal.recorder().bounds();
        let Ok(mut at) = self.stored(oldest, end).await else {
            return;
        };
        if !follow {
            return;
        }
        loop {
            let finishing = *finish.borrow_and_update();
            grown.mark_unchanged();
            match self.news(at).await {
                Ok(next) if next > at => at = next,
                Ok(_) if finishing => return,
                Ok(_) => tokio::select! {
                    changed = grown.changed() => if changed.is_err() { return },
                    changed = finish.changed() => if changed.is_err() { return },
                    () = self.out.closed() => return,
                },
                Err(Over) => return,
            }
        }
    }

    /// What was there when the dump began.
    async fn stored(&self, oldest: u64, end: u64) -> Result<u64, Over> {
        let last = usize::try_from(self.filter.last).unwrap_or(usize::MAX);
        let mut newest = std::collections::VecDeque::new();
        let mut at = oldest;
        while at < end {
            let limit = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            // What went by meanwhile was older than everything that is left.
            let piece = self.journal.recorder().read(at, limit);
            at = piece.next;
            for entry in piece.entries.into_iter().filter(|entry| self.wanted(entry)) {
                if last == 0 {
                    self.send(&entry).await?;
                    continue;
                }
                newest.push_back(entry);
                if newest.len() > last {
                    newest.pop_front();
                }
            }
            tokio::task::yield_now().await;
        }
        for entry in newest {
            self.send(&entry).await?;
        }
        Ok(at)
    }

    async fn news(&self, at: u64) -> Result<u64, Over> {
        let piece = self.journal.recorder().read(at, CHUNK);
        if piece.missed > 0 {
            let message = format!(
                "{} events went by faster than they were read; start again, with a narrower filter, or raise the agent's --recorder-bytes",
                piece.missed
            );
            let _ = self.out.send(Err(Status::data_loss(message))).await;
            return Err(Over);
        }
        for entry in piece.entries.iter().filter(|entry| self.wanted(entry)) {
            self.send(entry).await?;
        }
        Ok(piece.next)
    }

    async fn send(&self, entry: &Entry) -> Result<(), Over> {
        self.out.send(Ok(entry.record())).await.map_err(|_| Over)
    }

    fn wanted(&self, entry: &Entry) -> bool {
        // Most are decided without decoding.
        let kinds = &self.filter.kinds;
        if !kinds.is_empty() && !kinds.contains(&entry.kind) {
            return false;
        }
        Event::decode(entry.event.clone()).is_ok_and(|event| self.filter.matches(&event))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn root_and_the_own_user_may_ask_and_nobody_else() {
        assert!(may_ask(0, 65534));
        assert!(may_ask(65534, 65534));
        assert!(!may_ask(1000, 65534));
        assert!(!may_ask(1000, 0));
    }

    #[test]
    fn a_caller_whom_the_kernel_does_not_name_is_refused_and_counted() {
        let callers = Callers::default();
        let status = callers.check(Request::new(())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(callers.refused.load(Ordering::Relaxed), 1);
    }
}
