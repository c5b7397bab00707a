//! Keeps the journal on its way to a collector: one task a stream, which
//! connects again, to the next collector if need be, whenever it breaks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::v1::{Hello, Lane, LossReport};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::backoff::{self, Backoff};
use super::session;
use super::stream::{all_acknowledged, stream};
use super::target::Target;
use crate::journal::Journal;

/// The lanes, stream by stream: a frozen reader of records in bulk must not
/// delay a kill.
const STREAMS: [&[Lane]; 2] = [&[Lane::Critical], &[Lane::Signal, Lane::Bulk]];

/// What the exporter asks the agent for.
pub trait Agent: Send + Sync + 'static {
    /// Hello without its lanes.
    fn hello(&self) -> Hello;
    /// The counters as they are published.
    fn loss_report(&self) -> LossReport;
    /// Tells when they are published anew.
    fn reported(&self) -> watch::Receiver<u64>;
}

/// Settings of the exporter.
#[derive(Clone, Debug)]
pub struct Options {
    /// Collectors, best first; not empty.
    pub targets: Vec<Target>,
}

/// What the streams share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) journal: Arc<Journal>,
    pub(super) agent: Arc<dyn Agent>,
    in_use: watch::Sender<Option<String>>,
    pub(super) finish: watch::Sender<bool>,
}

impl Shared {
    /// Notes which collector is in use.
    pub(super) fn set_in_use(&self, url: Option<String>) {
        self.in_use.send_replace(url);
    }
}

/// Sends the journal to a collector until told to finish.
pub struct Exporter {
    shared: Arc<Shared>,
    streams: JoinSet<()>,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

/// Says which collector is in use.
#[derive(Clone)]
pub struct InUse(Arc<Shared>);

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InUse").field(&self.get()).finish()
    }
}

impl InUse {
    /// Its address; `None` when there is no connection.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.in_use.borrow().clone()
    }
}

impl Exporter {
    /// Starts the streams on the present tokio runtime.
    #[must_use]
    pub fn start(options: Options, journal: Arc<Journal>, agent: Arc<dyn Agent>) -> Self {
        let shared = Arc::new(Shared {
            options,
            journal,
            agent,
            in_use: watch::Sender::new(None),
            finish: watch::Sender::new(false),
        });
        let mut streams = JoinSet::new();
        for lanes in STREAMS {
            streams.spawn(keep_sending(Arc::clone(&shared), lanes));
        }
        Self { shared, streams }
    }

    /// For the status answer.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        InUse(Arc::clone(&self.shared))
    }

    /// Waits until everything in the journal, to which nothing is added any
    /// more, is acknowledged, at most for `patience`.
    pub async fn finish(mut self, patience: Duration) {
        self.shared.finish.send_replace(true);
        let all = async { while self.streams.join_next().await.is_some() {} };
        if timeout(patience, all).await.is_err() {
            tracing::warn!(
                after = ?patience,
                "the collector did not take everything in time; raise --stop-timeout if this is common"
            );
        }
        self.streams.shutdown().await;
    }
}

async fn keep_sending(shared: Arc<Shared>, lanes: &'static [Lane]) {
    let names: Vec<String> = lanes.iter().map(|lane| session::name(*lane)).collect();
    let names = names.join("+");
    let mut backoff = Backoff::default();
    let mut told = String::new();
    let targets = &shared.options.targets;
    let mut index = 0;
    while let Some(target) = targets.get(index) {
        if *shared.finish.borrow() && all_acknowledged(&shared.journal, lanes) {
            return;
        }
        let mut welcomed = false;
        let ended = match stream(&shared, lanes, target, &mut welcomed).await {
            Ok(()) => return,
            Err(ended) => ended,
        };
        if lanes.contains(&Lane::Critical) {
            shared.set_in_use(None);
        }
        if welcomed {
            backoff.reset();
            told.clear();
            // The best one first again.
            index = 0;
        } else {
            index = (index + 1) % targets.len();
        }
        // Once, and again when it becomes another trouble: a collector that is
        // away for a day is not worth a log line every thirty seconds.
        let trouble = crate::causes(&ended);
        if welcomed {
            // Collectors end old connections now and then; it is no trouble
            // unless the next does not come about.
            tracing::info!(
                collector = target.url, lanes = names, %trouble,
                "the stream ended; connecting again"
            );
        } else if trouble == told {
            tracing::debug!(collector = target.url, lanes = names, %trouble, "still not sending");
        } else {
            tracing::warn!(
                collector = target.url, lanes = names, %trouble,
                "not sending; events are kept up to the spool's bound and this is tried again"
            );
            told = trouble;
        }
        let mut finish = shared.finish.subscribe();
        let wait = async {
            sleep(backoff.after_failure(backoff::draw())).await;
            if !lanes.contains(&Lane::Critical) {
                // First come the kills: a backlog that is back before them
                // would delay them.
                let mut critical = shared.in_use.subscribe();
                let up = critical.wait_for(Option::is_some);
                // It may be refused while this stream would not.
                let _ = timeout(backoff::LONGEST, up).await;
            }
        };
        tokio::select! {
            () = wait => {}
            // A last try at once.
            _ = finish.changed() => {}
        }
    }
}
