//! Tokens of agents: reviewed by somebody who knows, remembered for a while.
//!
//! An interface: no review by a Kubernetes API server is built in.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Longest token, bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Answers remembered; with one more the oldest goes.
const MAX_REMEMBERED: usize = 4096;
/// Nodes that one token may stand for.
const MAX_NODES: usize = 64;
/// Reviews at one time; more wait.
const MAX_REVIEWS: usize = 16;
/// A review that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Knows whose a token is.
#[tonic::async_trait]
pub trait TokenReview: Send + Sync + 'static {
    /// The nodes that the holder of `token` may be, at most 64; `None` when
    /// the token is not valid.
    ///
    /// # Errors
    /// Why it cannot be told at the moment, one sentence. It is not
    /// remembered: the agent comes again.
    async fn review(&self, token: &str) -> Result<Option<Vec<String>>, String>;
}

/// What is known of a token.
pub(super) enum Verdict {
    Nodes(Arc<[String]>),
    Invalid,
    Unknown(String),
}

/// Answer to a review, and when it came.
type Remembered = (Instant, Option<Arc<[String]>>);

#[derive(Default)]
struct Memory {
    answers: HashMap<[u8; 32], Remembered>,
    order: VecDeque<[u8; 32]>,
}

/// Reviews tokens and remembers the answers, valid or not: at most 4096, by
/// digest.
pub struct Tokens {
    review: Box<dyn TokenReview>,
    age: Duration,
    memory: Mutex<Memory>,
    room: Semaphore,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Remembers each answer for `age`; 30 s is a good one.
    pub fn new(review: impl TokenReview, age: Duration) -> Self {
        Self {
            review: Box::new(review),
            age,
            memory: Mutex::default(),
            room: Semaphore::new(MAX_REVIEWS),
        }
    }

    pub(super) async fn review(&self, token: &str) -> Verdict {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Verdict::Invalid;
        }
        let digest = culprit_tls::digest(token.as_bytes());
        if let Some(answer) = self.remembered(&digest) {
            return verdict(answer);
        }
        let asked = tokio::time::timeout(PATIENCE, async {
            let _room = self.room.acquire().await;
            self.review.review(token).await
        });
        match asked.await {
            Err(_) => Verdict::Unknown(format!("no answer within {PATIENCE:?}")),
            Ok(Err(why)) => Verdict::Unknown(why),
            Ok(Ok(Some(nodes))) if nodes.len() > MAX_NODES => {
                Verdict::Unknown(format!("it stands for more than {MAX_NODES} nodes"))
            }
            Ok(Ok(answer)) => {
                let answer = answer.map(Arc::from);
                self.remember(digest, answer.clone());
                verdict(answer)
            }
        }
    }

    #[expect(
        clippy::option_option,
        reason = "not remembered, and remembered as not valid"
    )]
    fn remembered(&self, digest: &[u8; 32]) -> Option<Option<Arc<[String]>>> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = memory.answers.get(digest)?;
        (at.elapsed() < self.age).then(|| answer.clone())
    }

    fn remember(&self, digest: [u8; 32], answer: Option<Arc<[String]>>) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let new = memory
            .answers
            .insert(digest, (Instant::now(), answer))
            .is_none();
        if !new {
            return;
        }
        memory.order.push_back(digest);
        if memory.order.len() > MAX_REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.answers.remove(&oldest);
        }
    }
}

fn verdict(answer: Option<Arc<[String]>>) -> Verdict {
    answer.map_or(Verdict::Invalid, Verdict::Nodes)
}
