//! Which pod, and which node, had which address when, and who listened on the
//! nodes' own ports: of all nodes, from their inventories. With it the far end of a
//! connection gets its name when it is asked for, whichever of both came first.

use bytes::Bytes;
use culprit_proto::v1::event::Kind;
use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{
    Endpoint, Event, HostAddress, HostPort, Identity, Inventory, InventoryPod, Pod,
};
use prost::Message;
use rusqlite::params;

use super::error::{Doing, StoreError};
use super::reader::Reader;
use super::writer::State;
use super::{sql, unsql};

/// Addresses of pods, and ports of nodes, that are kept; beyond, the oldest go.
const MAX: i64 = 1_000_000;
/// Addresses of nodes likewise.
const MAX_NODE_ADDRESSES: i64 = 100_000;
/// How far the clocks of two nodes may differ, and how much later than its end a
/// pod's last connection may be told, nanoseconds.
pub(super) const SLACK: u64 = 5_000_000_000;

impl State {
    /// Takes what an encoded inventory tells. What is none says nothing.
    pub(super) fn note_inventory(&self, node: &str, event: &[u8]) -> Result<(), StoreError> {
        let Ok(Event {
            kind: Some(Kind::Inventory(inventory)),
            ..
        }) = Event::decode(event)
        else {
            return Ok(());
        };
        let Inventory {
            pods,
            addresses,
            ports,
            ..
        } = inventory;
        self.note_pods(node, pods)?;
        self.note_addresses(node, &addresses)?;
        self.note_ports(node, ports)
    }

    /// Pods without an address of their own say nothing here.
    fn note_pods(&self, node: &str, pods: Vec<InventoryPod>) -> Result<(), StoreError> {
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO address(ip, since, until, node, uid, pod)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .doing("note a pod's address")?;
        for one in pods {
            let Some(pod) = one.pod.filter(|pod| !pod.host_network) else {
                continue;
            };
            let encoded = pod.encode_to_vec();
            for ip in pod.ips.iter().filter_map(|ip| ip.parse().ok()) {
                insert
                    .execute(params![
                        &Endpoint::new(ip, 0).ip[..],
                        sql(one.since),
                        sql(one.until),
                        node,
                        pod.uid,
                        encoded,
                    ])
                    .doing("note a pod's address")?;
            }
        }
        Ok(())
    }

    fn note_addresses(&self, node: &str, addresses: &[HostAddress]) -> Result<(), StoreError> {
        // An agent that starts anew does not know since when: the former one did.
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT INTO node_address(ip, node, since, until) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(ip, node) DO UPDATE SET until = excluded.until, since =
                   CASE WHEN node_address.until = 0 THEN min(node_address.since, excluded.since)
                   ELSE excluded.since END",
            )
            .doing("note a node's address")?;
        for one in addresses {
            let Ok(ip) = one.ip.parse() else { continue };
            insert
                .execute(params![
                    &Endpoint::new(ip, 0).ip[..],
                    node,
                    sql(one.since),
                    sql(one.until),
                ])
                .doing("note a node's address")?;
        }
        Ok(())
    }

    fn note_ports(&self, node: &str, ports: Vec<HostPort>) -> Result<(), StoreError> {
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO node_port(node, port, since, until, who)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .doing("note a node's port")?;
        for one in ports {
            let who = one.who.unwrap_or_default().encode_to_vec();
            insert
                .execute(params![node, one.port, sql(one.since), sql(one.until), who])
                .doing("note a node's port")?;
        }
        Ok(())
    }

    /// Forgets who was gone before `oldest` (nanoseconds; 0: none), and the oldest
    /// beyond the bounds.
    pub(super) fn forget_addresses(&self, oldest: u64) -> Result<(), StoreError> {
        let tables = [
            ("address", MAX),
            ("node_address", MAX_NODE_ADDRESSES),
            ("node_port", MAX),
        ];
        for (table, max) in tables {
            self.connection
                .execute(
                    &format!("DELETE FROM {table} WHERE until <> 0 AND until < ?1"),
                    [sql(oldest)],
                )
                .doing("forget old addresses")?;
            self.connection
                .execute(
                    &format!(
                        "DELETE FROM {table} WHERE since < (
                           SELECT since FROM {table} ORDER BY since DESC LIMIT 1 OFFSET ?1)"
                    ),
                    [max],
                )
                .doing("forget old addresses")?;
        }
        Ok(())
    }
}

impl Reader {
    /// The event with who is at the other end of its connection, when it does not
    /// say and a node's inventory does; as it is otherwise.
    pub(super) fn with_peer(&self, encoded: Bytes, node: &str) -> Result<Bytes, StoreError> {
        let Ok(mut event) = Event::decode(encoded.clone()) else {
            return Ok(encoded);
        };
        // A node without more is no name yet.
        let named = event.peer.as_ref().is_some_and(|peer| {
            peer.pod.is_some() || peer.process.is_some() || peer.container.is_some()
        });
        if named {
            return Ok(encoded);
        }
        let Some(end) = event.far_end() else {
            return Ok(encoded);
        };
        let serves = event.far_end_serves();
        let mut found = self.pod_at(&end.ip, event.time)?;
        if found.is_none() {
            found = self.caller(&event)?;
        }
        if found.is_none() {
            found = self.node_at(end, serves, node, event.time)?;
        }
        let Some((home, who)) = found else {
            return Ok(encoded);
        };
        event.peer = Some(Identity {
            source: Source::Address.into(),
            node: if home == node { String::new() } else { home },
            ..who
        });
        Ok(event.encode_to_vec().into())
    }

    /// The node and the pod that had the address at this time.
    fn pod_at(&self, ip: &[u8], time: u64) -> Result<Option<(String, Identity)>, StoreError> {
        let rows = self
            .connection
            .prepare_cached(
                "SELECT since, until, node, pod FROM address WHERE ip = ?1 AND since <= ?2
                 ORDER BY since DESC LIMIT 8",
            )
            .and_then(|mut s| {
                let rows = s.query_map(params![ip, sql(time.saturating_add(SLACK))], |row| {
                    Ok(Span {
                        since: unsql(row.get(0)?),
                        until: unsql(row.get(1)?),
                        what: (row.get::<_, String>(2)?, row.get::<_, Vec<u8>>(3)?),
                    })
                })?;
                rows.collect()
            })
            .doing("look for a pod")?;
        Ok(at(rows, time).and_then(|(node, pod)| {
            let who = Identity {
                pod: Some(Pod::decode(&pod[..]).ok()?),
                ..Identity::default()
            };
            Some((node, who))
        }))
    }

    /// The node that had the address at this time, with who listened on the port
    /// where the far end is the server. An address that several nodes have, as that
    /// of a bridge, means the one that speaks of it, or nobody.
    fn node_at(
        &self,
        end: &Endpoint,
        serves: bool,
        speaker: &str,
        time: u64,
    ) -> Result<Option<(String, Identity)>, StoreError> {
        let nodes: Vec<(String, u64)> = self
            .connection
            .prepare_cached(
                "SELECT node, until FROM node_address WHERE ip = ?1 AND since <= ?2
                 ORDER BY node = ?3 DESC LIMIT 16",
            )
            .and_then(|mut s| {
                let since = sql(time.saturating_add(SLACK));
                let rows = s.query_map(params![&end.ip[..], since, speaker], |row| {
                    Ok((row.get(0)?, unsql(row.get(1)?)))
                })?;
                rows.collect()
            })
            .doing("look for a node")?;
        let mut nodes = nodes
            .into_iter()
            .filter(|(_, until)| !over(*until, time))
            .map(|(node, _)| node);
        let Some(node) = nodes.next() else {
            return Ok(None);
        };
        if node != speaker && nodes.next().is_some() {
            return Ok(None);
        }
        let who = match serves {
            true => self.listener(&node, end.port, time)?,
            false => None,
        };
        Ok(Some((node, who.unwrap_or_default())))
    }

    /// Who listened on a node's port at this time.
    fn listener(&self, node: &str, port: u32, time: u64) -> Result<Option<Identity>, StoreError> {
        let rows = self
            .connection
            .prepare_cached(
                "SELECT since, until, who FROM node_port
                 WHERE node = ?1 AND port = ?2 AND since <= ?3 ORDER BY since DESC LIMIT 8",
            )
            .and_then(|mut s| {
                let since = sql(time.saturating_add(SLACK));
                let rows = s.query_map(params![node, port, since], |row| {
                    Ok(Span {
                        since: unsql(row.get(0)?),
                        until: unsql(row.get(1)?),
                        what: row.get::<_, Vec<u8>>(2)?,
                    })
                })?;
                rows.collect()
            })
            .doing("look for a listener")?;
        Ok(at(rows, time).and_then(|who| Identity::decode(&who[..]).ok()))
    }
}

/// From when to when something was so; nanoseconds, `until` 0: it still is.
struct Span<T> {
    since: u64,
    until: u64,
    what: T,
}

/// What was so at this time, the latest first: by what the nodes' clocks say, and only
/// if that finds nothing within [`SLACK`] of it.
fn at<T>(spans: Vec<Span<T>>, time: u64) -> Option<T> {
    let exact = |one: &Span<T>| one.since <= time && (one.until == 0 || time <= one.until);
    let about = |one: &Span<T>| !over(one.until, time);
    let found = spans.iter().position(exact);
    let found = found.or_else(|| spans.iter().position(about))?;
    spans.into_iter().nth(found).map(|one| one.what)
}

/// Ended before `time`.
fn over(until: u64, time: u64) -> bool {
    until != 0 && until.saturating_add(SLACK) < time
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_address_that_is_reused_within_the_slack_is_told_by_the_clock() {
        let span = |since: u64, until: u64, what: &'static str| Span {
            since: since * SECOND,
            until: until * SECOND,
            what,
        };
        let who = |time: u64| {
            at(
                vec![span(102, 0, "new"), span(90, 101, "old")],
                time * SECOND,
            )
        };
        assert_eq!(who(100), Some("old"));
        assert_eq!(who(103), Some("new"));
        // Between them: whose clock is it?
        assert_eq!(at(vec![span(90, 101, "old")], 104 * SECOND), Some("old"));
        assert_eq!(at(vec![span(90, 101, "old")], 107 * SECOND), None);
        assert_eq!(at(vec![span(102, 0, "new")], 99 * SECOND), Some("new"));
    }
}
