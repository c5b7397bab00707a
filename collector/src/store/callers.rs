//! Clients that their server knows by another address than their own pod's: behind a
//! masquerade, or on the node's own network. Their own record says who they are;
//! the server's gets it from here.

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{Endpoint, Event, Identity, tcp_connect::Outcome, tcp_flow::Role};
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

/// A client's connection.
struct Connection<'a> {
    /// Its end as the client's socket has it.
    own: &'a Endpoint,
    /// Both ends as the server's socket has them.
    client: &'a Endpoint,
    server: &'a Endpoint,
    /// When it was opened, nanoseconds; 0: before the agent.
    opened: u64,
}

impl<'a> Connection<'a> {
    /// None for what is no client's record of a connection.
    fn of(event: &'a Event) -> Option<Self> {
        let (own, translated, opened) = match &event.kind {
            Some(Kind::TcpConnect(one)) if one.outcome() == Outcome::Established => {
                (&one.local, &one.local_nat, event.time)
            }
            Some(Kind::TcpFlow(one)) if one.role() == Role::Client => {
                (&one.local, &one.local_nat, one.opened_at)
            }
            _ => return None,
        };
        let own = own.as_ref()?;
        Some(Self {
            own,
            client: translated.as_ref().unwrap_or(own),
            server: event.far_end()?,
            opened,
        })
    }

    /// The server finds this client's pod by its address.
    fn is_plain(&self, who: &Identity) -> bool {
        let pod = who.pod.as_ref();
        pod.is_some_and(|pod| !pod.host_network) && self.own.ip == self.client.ip
    }
}

impl State {
    /// Takes a client's record if its server cannot know who it is.
    pub(super) fn note_caller(&self, node: &str, event: &[u8]) -> Result<(), StoreError> {
        let Ok(event) = Event::decode(event) else {
            return Ok(());
        };
        let (Some(connection), Some(who)) = (Connection::of(&event), &event.who) else {
            return Ok(());
        };
        let loopback = connection.client.addr().is_none_or(|ip| ip.is_loopback());
        if loopback || connection.is_plain(who) {
            return Ok(());
        }
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO caller(client, server, opened, node, who)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    key(connection.client),
                    key(connection.server),
                    sql(connection.opened),
                    node,
                    who.clone().brief().encode_to_vec()
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
