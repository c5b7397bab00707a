//! One connection's life: the first listing, then questions, events, listings
//! and signs of life until the runtime is gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::ask::{Detail, answer, fill_in, sync};
use super::client::{Client, Trouble};
use super::events::listen;
use super::limits::Query;
use super::store::Contact;
use super::task::Shared;
use crate::identity::counters::count;

/// Questions under way at once: a node that starts many pods must not slow
/// the runtime that starts them.
const MAX_JOBS: usize = 8;
/// Events waiting to be looked at; past it they are dropped, the next listing
/// makes up for them.
const MAX_EVENTS: usize = 256;
/// Details that wait; a limit beyond is asked for again later.
const MAX_DETAILS: usize = 1024;
/// Time between two signs of life asked of an idle runtime.
const PING: Duration = Duration::from_secs(3);
/// Wait before the second question about a container that is not known yet;
/// doubles up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// A container to ask about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    due: Instant,
    since: Instant,
    attempt: u32,
    id: String,
}

/// What a job found.
enum Done {
    Asked(Question, Result<(), Trouble>),
    Detail,
    Synced(Result<(), Trouble>),
    Pinged(Result<(), Trouble>),
}

pub(super) struct Session {
    shared: Shared,
    client: Client,
    socket: String,
    jobs: JoinSet<Done>,
    asking: usize,
    /// Ids with a question in `due`, `later` or under way: one each.
    open: HashSet<String>,
    due: VecDeque<Question>,
    later: BinaryHeap<Reverse<Question>>,
    details: VecDeque<Detail>,
    ping_under_way: bool,
    sync_under_way: bool,
}

impl Session {
    pub(super) fn new(shared: Shared, client: Client, socket: String) -> Self {
        Self {
            shared,
            client,
            socket,
            jobs: JoinSet::new(),
            asking: 0,
            open: HashSet::new(),
            due: VecDeque::new(),
            later: BinaryHeap::new(),
            details: VecDeque::new(),
            ping_under_way: false,
            sync_under_way: false,
        }
    }

    /// Runs until the runtime is gone (the reason), or nobody asks any more.
    pub(super) async fn run(
        mut self,
        questions: &mut Receiver<Query>,
        first: &mut Option<Sender<()>>,
    ) -> Result<(), String> {
        sync(&self.shared, &self.client)
            .await
            .map_err(|t| t.words("listing"))?;
        self.shared.store.set_events("being subscribed to");
        self.shared
            .store
            .set_contact(Contact::Up(self.socket.clone()));
        tracing::info!(socket = %self.socket, runtime = %self.shared.store.runtime(), "container runtime answers");
        if let Some(first) = first.take() {
            // Nobody listens any more when start gave up waiting.
            let _ = first.send(());
        }
        for id in self.shared.store.pending() {
            self.ask(id);
        }
        self.want_details();

        let (events_in, mut events) = mpsc::channel(MAX_EVENTS);
        let listener = tokio::spawn(listen(self.shared.clone(), self.client.clone(), events_in));
        let ended = self.serve(questions, &mut events).await;
        listener.abort();
        ended
    }

    async fn serve(
        &mut self,
        questions: &mut Receiver<Query>,
        events: &mut Receiver<String>,
    ) -> Result<(), String> {
        let resync = self.shared.config.resync;
        let mut resync = interval_at(Instant::now() + resync, resync);
        let mut ping = interval_at(Instant::now() + PING, PING);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start_jobs();
            let next = self.later.peek().map(|q| q.0.due);
            tokio::select! {
                question = questions.recv() => match question {
                    Some(Query::Who(id)) => self.ask(id),
                    Some(Query::Limit(id)) => self.ask_limit(id),
                    None => return Ok(()),
                },
                Some(id) = events.recv() => {
                    self.shared.store.heard_of(&id);
                    if self.shared.store.ask(&id, &self.shared.counters) {
                        self.ask(id);
                    }
                }
                Some(done) = self.jobs.join_next() => self.finish(done)?,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.due.extend(self.later.pop().map(|q| q.0));
                }
                _ = resync.tick() => self.start_sync(),
                _ = ping.tick() => self.start_ping(),
            }
        }
    }

    fn ask(&mut self, id: String) {
        if !self.open.insert(id.clone()) {
            return;
        }
        let now = Instant::now();
        self.due.push_back(Question {
            due: now,
            since: now,
            attempt: 0,
            id,
        });
    }

    fn ask_limit(&mut self, id: String) {
        if self.details.len() < MAX_DETAILS {
            self.details.push_back(Detail::Limit(id));
        }
    }

    fn start_jobs(&mut self) {
        while self.asking < MAX_JOBS {
            let (shared, client) = (self.shared.clone(), self.client.clone());
            if let Some(question) = self.due.pop_front() {
                self.jobs.spawn(async move {
                    let answer = answer(&shared, &client, &question.id).await;
                    Done::Asked(question, answer)
                });
            } else if let Some(detail) = self.details.pop_front() {
                self.jobs.spawn(async move {
                    fill_in(&shared, &client, detail).await;
                    Done::Detail
                });
            } else {
                return;
            }
            self.asking += 1;
        }
    }

    fn start_sync(&mut self) {
        if std::mem::replace(&mut self.sync_under_way, true) {
            return;
        }
        let (shared, client) = (self.shared.clone(), self.client.clone());
        self.jobs
            .spawn(async move { Done::Synced(sync(&shared, &client).await) });
    }

    fn start_ping(&mut self) {
        if std::mem::replace(&mut self.ping_under_way, true) {
            return;
        }
        let client = self.client.clone();
        self.jobs
            .spawn(async move { Done::Pinged(client.version().await.map(|_| ())) });
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), String> {
        // A job that panicked leaves nothing to go on with: begin again.
        match done.map_err(|e| format!("a question to it failed: {e}"))? {
            Done::Asked(question, answer) => {
                self.asking -= 1;
                match answer {
                    Ok(()) => {
                        self.open.remove(&question.id);
                    }
                    Err(trouble) => self.ask_later(question, &trouble),
                }
            }
            Done::Detail => self.asking -= 1,
            Done::Synced(answer) => {
                self.sync_under_way = false;
                match answer {
                    Ok(()) => self.want_details(),
                    Err(_) => self.start_ping(),
                }
            }
            Done::Pinged(answer) => {
                self.ping_under_way = false;
                answer.map_err(|t| t.words("version"))?;
            }
        }
        Ok(())
    }

    fn ask_later(&mut self, mut question: Question, trouble: &Trouble) {
        if !matches!(trouble, Trouble::Absent) {
            // Is it this question or the runtime?
            self.start_ping();
        }
        if question.since.elapsed() >= self.shared.config.ask_for {
            count(&self.shared.counters.cri_not_found);
            self.shared.store.not_found(&question.id);
            self.open.remove(&question.id);
            return;
        }
        let wait = FIRST_RETRY * 2_u32.saturating_pow(question.attempt.min(16));
        question.due = Instant::now() + wait.min(LAST_RETRY);
        question.attempt += 1;
        self.later.push(Reverse(question));
    }

    fn want_details(&mut self) {
        if !self.details.is_empty() {
            return;
        }
        let (pods, containers) = self.shared.store.incomplete();
        self.details
            .extend(containers.into_iter().map(Detail::Image));
        self.details.extend(pods.into_iter().map(Detail::Network));
    }
}
