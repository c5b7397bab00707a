//! Which pod had which address when, of all nodes: from their inventories. With
//! it the far end of a connection gets its name when it is asked for, whichever
//! of both came first.

use bytes::Bytes;
use culprit_proto::v1::event::Kind;
use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{Endpoint, Event, Identity, Inventory, Pod};
use prost::Message;
use rusqlite::{OptionalExtension, params};

use super::error::{Doing, StoreError};
use super::reader::Reader;
use super::writer::State;
use super::{sql, unsql};

/// Addresses that are kept; beyond, those go whose pods are the oldest.
const MAX: i64 = 1_000_000;
/// How far the clocks of two nodes may differ, and how much later than its end a
/// pod's last connection may be told, nanoseconds.
const SLACK: u64 = 5_000_000_000;

impl State {
    /// Takes the pods of an encoded inventory. What is none, or has no address of
    /// its own, says nothing.
    pub(super) fn note_pods(&self, node: &str, event: &[u8]) -> Result<(), StoreError> {
        let Ok(Event {
            kind: Some(Kind::Inventory(Inventory { pods, .. })),
            ..
        }) = Event::decode(event)
        else {
            return Ok(());
        };
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

    /// Forgets pods that were gone before `oldest` (nanoseconds; 0: none), and the
    /// oldest beyond the bound.
    pub(super) fn forget_pods(&self, oldest: u64) -> Result<(), StoreError> {
        self.connection
            .execute(
                "DELETE FROM address WHERE until <> 0 AND until < ?1",
                [sql(oldest)],
            )
            .doing("forget old pods")?;
        self.connection
            .execute(
                "DELETE FROM address WHERE since < (
                   SELECT since FROM address ORDER BY since DESC LIMIT 1 OFFSET ?1)",
                [MAX],
            )
            .map(drop)
            .doing("forget old pods")
    }
}

impl Reader {
    /// The event with the pod at the other end of its connection, when it names
    /// none and a node had it then; as it is otherwise.
    pub(super) fn with_peer(&self, encoded: Bytes, node: &str) -> Result<Bytes, StoreError> {
        let Ok(mut event) = Event::decode(encoded.clone()) else {
            return Ok(encoded);
        };
        if event.peer.is_some() {
            return Ok(encoded);
        }
        let Some(end) = event.far_end() else {
            return Ok(encoded);
        };
        let Some((home, pod)) = self.at_address(&end.ip, event.time)? else {
            return Ok(encoded);
        };
        event.peer = Some(Identity {
            pod: Some(pod),
            source: Source::Address.into(),
            node: if home == node { String::new() } else { home },
            ..Identity::default()
        });
        Ok(event.encode_to_vec().into())
    }

    /// The node and the pod that had the address at this time.
    fn at_address(&self, ip: &[u8], time: u64) -> Result<Option<(String, Pod)>, StoreError> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT node, pod, until FROM address WHERE ip = ?1 AND since <= ?2
                 ORDER BY since DESC LIMIT 1",
            )
            .and_then(|mut s| {
                s.query_row(params![ip, sql(time.saturating_add(SLACK))], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, Vec<u8>>(1)?,
                        unsql(row.get(2)?),
                    ))
                })
                .optional()
            })
            .doing("look for a pod")?;
        let Some((node, pod, until)) = found else {
            return Ok(None);
        };
        let over = until != 0 && until.saturating_add(SLACK) < time;
        Ok(Pod::decode(&pod[..])
            .ok()
            .filter(|_| !over)
            .map(|pod| (node, pod)))
    }
}
