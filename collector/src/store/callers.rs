//! Clients that their server knows by another address than their own pod's: behind a
//! masquerade, or on the node's own network. Their own record says who they are;
//! the server's gets it from here.

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{Endpoint, Event, Identity, Pod, tcp_connect::Outcome, tcp_flow::Role};
use prost::Message;
use rusqlite::{OptionalExtension, params};

use super::addresses::SLACK;
use super::error::{Doing, StoreError};
use super::reader::Reader;
use super::writer::State;
use super::{sql, unsql};

/// Connections that are kept; beyond, the oldest go.
const MAX: i64 = 1_000_000;

/// An address and a port as the table has them.
fn key(end: &Endpoint) -> Vec<u8> {
    let mut key = end.ip.to_vec();
    key.extend(end.port.to_be_bytes());
    key
}

/// A client's connection: its end and the server's as that one's socket has them,
/// and when it was opened (0: before the agent).
fn connection(event: &Event) -> Option<(&Endpoint, &Endpoint, u64)> {
    match &event.kind {
        Some(Kind::TcpConnect(one)) if one.outcome() == Outcome::Established => Some((
            one.local_nat.as_ref().or(one.local.as_ref())?,
            one.remote_nat.as_ref().or(one.remote.as_ref())?,
            event.time,
        )),
        Some(Kind::TcpFlow(one)) if one.role() == Role::Client => Some((
            one.local_nat.as_ref().or(one.local.as_ref())?,
            one.remote_nat.as_ref().or(one.remote.as_ref())?,
            one.opened_at,
        )),
        _ => None,
    }
}

/// The server finds the client's pod by its address.
fn is_plain(event: &Event, seen_as: &Endpoint) -> bool {
    let own = match &event.kind {
        Some(Kind::TcpConnect(one)) => one.local.as_ref(),
        Some(Kind::TcpFlow(one)) => one.local.as_ref(),
        _ => None,
    };
    let pod = event.who.as_ref().and_then(|who| who.pod.as_ref());
    pod.is_some_and(|pod| !pod.host_network) && own.is_some_and(|own| own.ip == seen_as.ip)
}

impl State {
    /// Takes a client's record if its server cannot know who it is.
    pub(super) fn note_caller(&self, node: &str, event: &[u8]) -> Result<(), StoreError> {
        let Ok(event) = Event::decode(event) else {
            return Ok(());
        };
        let Some((client, server, opened)) = connection(&event) else {
            return Ok(());
        };
        let loopback = client.addr().is_none_or(|ip| ip.is_loopback());
        let Some(who) = event.who.as_ref().filter(|_| !loopback) else {
            return Ok(());
        };
        if is_plain(&event, client) {
            return Ok(());
        }
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO caller(client, server, opened, node, who)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    key(client),
                    key(server),
                    sql(opened),
                    node,
                    brief(who).encode_to_vec()
                ])
            })
            .map(drop)
            .doing("note a client behind another address")
    }

    /// Forgets connections opened before `oldest` (nanoseconds; 0: none), and the
    /// oldest beyond the bound.
    pub(super) fn forget_callers(&self, oldest: u64) -> Result<(), StoreError> {
        self.connection
            .execute(
                "DELETE FROM caller WHERE opened < max(?1, coalesce((
                   SELECT opened FROM caller ORDER BY opened DESC LIMIT 1 OFFSET ?2), 0))",
                params![sql(oldest), MAX],
            )
            .map(drop)
            .doing("forget old clients")
    }
}

/// Without labels and cgroup, which the client's own record has.
fn brief(who: &Identity) -> Identity {
    Identity {
        pod: who.pod.clone().map(|pod| Pod {
            labels: Default::default(),
            ..pod
        }),
        process: who.process.clone(),
        container: who.container.clone(),
        ..Identity::default()
    }
}

impl Reader {
    /// The client of a server's connection, with its node, by its own record.
    pub(super) fn caller(&self, event: &Event) -> Result<Option<(String, Identity)>, StoreError> {
        let Some(Kind::TcpFlow(flow)) = &event.kind else {
            return Ok(None);
        };
        let (Some(local), Some(remote), Role::Server) = (&flow.local, &flow.remote, flow.role())
        else {
            return Ok(None);
        };
        let found = self
            .connection
            .prepare_cached(
                "SELECT node, who, opened FROM caller
                 WHERE client = ?1 AND server = ?2 AND opened <= ?3
                 ORDER BY opened DESC LIMIT 1",
            )
            .and_then(|mut s| {
                let latest = sql(event.time.saturating_add(SLACK));
                s.query_row(params![key(remote), key(local), latest], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, Vec<u8>>(1)?,
                        unsql(row.get(2)?),
                    ))
                })
                .optional()
            })
            .doing("look for a client")?;
        Ok(found
            .filter(|(_, _, opened)| {
                // The same ports again are another connection.
                *opened == 0 || flow.opened_at == 0 || opened.abs_diff(flow.opened_at) <= SLACK
            })
            .and_then(|(node, who, _)| Some((node, Identity::decode(&who[..]).ok()?))))
    }
}
