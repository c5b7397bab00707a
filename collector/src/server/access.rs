//! Who may do what.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use culprit_tls::{Names, Server};

use super::tls::Door;
use super::token::Tokens;

/// The DNS name that a certificate must have to ask questions.
pub const QUERY_NAME: &str = "culprit-query";

/// Who may connect, claim a node, and ask.
#[derive(Debug)]
pub struct Access {
    /// TLS, with a certificate demanded of every client. `None`: plaintext,
    /// and whoever can connect may ask, and claim any node (see `tokens`).
    pub tls: Option<Server>,
    /// Reviews the tokens of agents that claim a node their certificate does
    /// not name, or have none.
    pub tokens: Option<Tokens>,
    /// The DNS name that lets a certificate ask questions. It is no node's.
    pub query_name: String,
    /// Bounds of the TLS handshakes under way.
    pub door: Door,
    /// What was refused.
    pub counters: Arc<Counters>,
}

impl Access {
    /// Plaintext, with nothing asked of anybody.
    #[must_use]
    pub fn open() -> Self {
        Self {
            tls: None,
            tokens: None,
            query_name: QUERY_NAME.to_owned(),
            door: Door::default(),
            counters: Arc::default(),
        }
    }

    /// Whether a certificate lets its holder be this node.
    pub(super) fn names_node(&self, names: &Names, node: &str) -> bool {
        node != self.query_name && names.nodes().any(|name| name == node)
    }
}

/// What was refused since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handshakes that either side refused, that were no TLS, or too slow.
    pub handshakes_failed: AtomicU64,
    /// Handshakes cut because there were too many.
    pub handshakes_cut: AtomicU64,
    /// Streams whose node is not what the peer may be.
    pub nodes_denied: AtomicU64,
    /// Streams whose token was refused, or could not be reviewed.
    pub tokens_refused: AtomicU64,
    /// Questions of peers that may not ask.
    pub queries_denied: AtomicU64,
}

impl Counters {
    /// Each count and what it counts, in the words of the line of totals.
    #[must_use]
    pub fn list(&self) -> [(u64, &'static str); 5] {
        [
            (
                self.handshakes_failed.load(Relaxed),
                "TLS handshakes failed",
            ),
            (self.handshakes_cut.load(Relaxed), "TLS handshakes cut"),
            (self.nodes_denied.load(Relaxed), "node claims denied"),
            (self.tokens_refused.load(Relaxed), "tokens refused"),
            (self.queries_denied.load(Relaxed), "questions denied"),
        ]
    }
}
