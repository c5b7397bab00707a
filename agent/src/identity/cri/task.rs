//! The task that keeps in contact with the runtime: connects, lists, asks
//! about single containers, and begins again whenever the runtime went away.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

use super::client::{Client, Trouble};
use super::limits::Query;
use super::session::Session;
use super::store::{Contact, Store};
use crate::identity::config::{CriChoice, IdentityConfig, WELL_KNOWN_SOCKETS};
use crate::identity::counters::{Counters, count};
use crate::identity::limits::reason;

/// Wait before the second try; doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What the task shares with the identifier.
#[derive(Clone)]
pub(in crate::identity) struct Shared {
    pub(in crate::identity) config: Arc<IdentityConfig>,
    pub(in crate::identity) store: Arc<Store>,
    pub(in crate::identity) counters: Arc<Counters>,
}

/// Starts the task. It ends when the other end of `questions` is dropped.
/// `first` hears once: after the first complete listing or the first failure.
pub(in crate::identity) fn spawn(
    handle: &Handle,
    shared: Shared,
    questions: Receiver<Query>,
    first: Sender<()>,
) {
    handle.spawn(run(shared, questions, Some(first)));
}

async fn run(shared: Shared, mut questions: Receiver<Query>, mut first: Option<Sender<()>>) {
    let sockets = sockets(&shared.config.cri);
    let mut wait = FIRST_WAIT;
    loop {
        let (short, detail) = match connect(&sockets).await {
            Ok((client, socket, runtime)) => {
                shared.store.set_runtime(runtime);
                let session = Session::new(shared.clone(), client, socket.clone());
                match session.run(&mut questions, &mut first).await {
                    Ok(()) => return,
                    Err(why) => {
                        // It was there: it may be back at once.
                        wait = FIRST_WAIT;
                        down(&socket, &why)
                    }
                }
            }
            Err(why) => why,
        };
        count(&shared.counters.cri_failures);
        if !matches!(&shared.store.contact(), Contact::Down { short: before, .. } if *before == short)
        {
            tracing::warn!(%detail, "container runtime does not answer; names come from cgroup paths until it does");
        }
        shared.store.set_contact(Contact::Down { short, detail });
        shared.store.set_events("not connected");
        if let Some(first) = first.take() {
            // Nobody listens any more when start gave up waiting.
            let _ = first.send(());
        }
        let until = Instant::now() + wait;
        wait = (wait * 2).min(LAST_WAIT);
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                // Stays noted in the store as asked for; the next session asks.
                question = questions.recv() => if question.is_none() { return },
            }
        }
    }
}

fn sockets(choice: &CriChoice) -> Vec<PathBuf> {
    match choice {
        CriChoice::Auto => WELL_KNOWN_SOCKETS.iter().map(PathBuf::from).collect(),
        CriChoice::Socket(path) => vec![path.clone()],
        CriChoice::None => Vec::new(),
    }
}

/// The first socket that answers as a CRI runtime.
async fn connect(sockets: &[PathBuf]) -> Result<(Client, String, String), (String, String)> {
    let mut failures = Vec::new();
    for socket in sockets {
        let shown = socket.display().to_string();
        // Several well-known sockets: those that do not exist are not news.
        if sockets.len() > 1 && !socket.exists() {
            continue;
        }
        let answer = match Client::connect(socket).await {
            Ok(client) => client.version().await.map(|v| (client, v)),
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok((client, runtime)) => return Ok((client, shown, runtime)),
            Err(Trouble::Unsupported) => failures.push(down(
                &shown,
                "it does not speak CRI v1 (containerd needs 1.6, CRI-O 1.20 and their CRI switched on)",
            )),
            Err(Trouble::Absent) => failures.push(down(&shown, "it has no version")),
            Err(Trouble::Failed(why)) => failures.push(down(&shown, &why)),
        }
    }
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Err((
            "no container runtime answers at the well-known sockets".to_owned(),
            format!(
                "no container runtime socket at {}: name it with --cri SOCKET, or say --cri none",
                sockets
                    .iter()
                    .map(|s| s.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )),
    }
}

fn down(socket: &str, why: &str) -> (String, String) {
    let short = reason(format!("no container runtime answers at {socket}: {why}"));
    let detail = format!(
        "{short}; is it running, and is the socket's directory mounted? --cri SOCKET names another"
    );
    (short, detail)
}
