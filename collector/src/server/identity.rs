//! What the peer of a request may be and do.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use culprit_proto::text;
use tonic::{Request, Status};

use super::access::Access;
use super::io::Peer;
use super::token::Verdict;

/// Names that a refusal lists.
const MAX_LISTED: usize = 8;

/// The peer of one stream, and the access that it has.
pub(super) struct Claimant {
    access: Arc<Access>,
    peer: Option<Peer>,
    token: Option<String>,
}

impl Claimant {
    pub(super) fn of<T>(access: &Arc<Access>, request: &Request<T>) -> Self {
        Self {
            access: Arc::clone(access),
            peer: request.extensions().get().cloned(),
            token: request
                .metadata()
                .get("authorization")
                .and_then(|value| value.to_str().ok())
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::to_owned),
        }
    }

    /// Whether it may be the node that it says it is.
    pub(super) async fn admit(&self, node: &str) -> Result<(), Status> {
        let names = self.peer.as_ref().and_then(|peer| peer.names.as_deref());
        match names {
            Some(names) if self.access.names_node(names, node) => return Ok(()),
            None if self.access.tls.is_none() && self.access.tokens.is_none() => return Ok(()),
            _ => {}
        }
        if let (Some(tokens), Some(token)) = (&self.access.tokens, &self.token) {
            let refused = || self.access.counters.tokens_refused.fetch_add(1, Relaxed);
            match tokens.review(token).await {
                Verdict::Nodes(nodes) if nodes.iter().any(|name| name == node) => return Ok(()),
                Verdict::Nodes(nodes) => {
                    return Err(self.denied(node, "token", nodes.iter().map(String::as_str)));
                }
                Verdict::Invalid => {
                    refused();
                    return Err(Status::unauthenticated(
                        "the agent's token is not valid (--token-file of the agent)",
                    ));
                }
                Verdict::Unknown(why) => {
                    refused();
                    return Err(Status::unavailable(format!(
                        "the agent's token cannot be reviewed: {}",
                        text::escape(&why)
                    )));
                }
            }
        }
        Err(match names {
            Some(names) => self.denied(node, "certificate", names.nodes()),
            None => self.denied(
                node,
                "connection without certificate and token",
                [].into_iter(),
            ),
        })
    }

    fn denied<'a>(&self, node: &str, by: &str, may_be: impl Iterator<Item = &'a str>) -> Status {
        self.access.counters.nodes_denied.fetch_add(1, Relaxed);
        let query_name = &self.access.query_name;
        let mut may_be = may_be.filter(|name| name != query_name);
        let mut listed: Vec<String> = may_be
            .by_ref()
            .take(MAX_LISTED)
            .map(|name| format!("\"{}\"", text::clip(name)))
            .collect();
        match may_be.count() {
            _ if listed.is_empty() => listed.push("no node".to_owned()),
            0 => {}
            more => listed.push(format!("{more} more")),
        }
        Status::permission_denied(format!(
            "the agent claims to be node \"{}\", but its {by} is for {}; mend its --node, or give it a certificate with that name as DNS SAN or with the URI SAN spiffe://DOMAIN/node/NODE",
            text::clip(node),
            listed.join(", ")
        ))
    }
}

/// Whether the peer may ask questions.
pub(super) fn may_ask<T>(access: &Access, request: &Request<T>) -> Result<(), Status> {
    if access.tls.is_none() {
        return Ok(());
    }
    let peer: Option<&Peer> = request.extensions().get();
    let names = peer.and_then(|peer| peer.names.as_deref());
    if names.is_some_and(|names| names.has_dns(&access.query_name)) {
        return Ok(());
    }
    access.counters.queries_denied.fetch_add(1, Relaxed);
    let from = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.addr.to_string());
    tracing::warn!(peer = from, "question refused: the certificate may not ask");
    Err(Status::permission_denied(format!(
        "this certificate may not ask questions; use one with the DNS SAN \"{}\"",
        text::clip(&access.query_name)
    )))
}
