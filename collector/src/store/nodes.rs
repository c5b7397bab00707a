use bytes::Bytes;
use culprit_proto::v1::{Coverage, LaneStatus, LossCounter, NodeStatus, ProbeCounters};
use prost::Message;

use super::error::{Doing, StoreError};
use super::reader::Reader;
use super::unsql;

/// Most nodes that one question is answered with, and most bytes of them: an
/// answer must fit into one gRPC message.
const MAX_NODES: i64 = 10_000;
const MAX_NODES_BYTES: usize = 3 * 1024 * 1024;

impl Reader {
    /// Every node with its newest journal, by name.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError> {
        let mut nodes = self.journals().doing("read the nodes")?;
        let mut bytes = 0;
        for (id, node) in &mut nodes {
            node.lanes = self.lanes(*id).doing("read the lanes")?;
            node.lost = self.lost(*id).doing("read the loss counters")?;
            node.counters = self.counters(*id).doing("read the probes' counters")?;
            bytes += node.encoded_len();
        }
        if bytes > MAX_NODES_BYTES {
            tracing::warn!("the answer about all nodes is too large; details are left out");
            for (_, node) in &mut nodes {
                node.probes.clear();
                node.lost.clear();
                node.counters.clear();
            }
        }
        Ok(nodes.into_iter().map(|(_, node)| node).collect())
    }

    fn journals(&self) -> rusqlite::Result<Vec<(i64, NodeStatus)>> {
        // SQLite takes the other columns from the row that has the maximum.
        let mut statement = self.connection.prepare_cached(
            "SELECT id, node, version, kernel, boot_id, epoch, spool_id, connected, probes,
               max(last_seen) FROM spool GROUP BY node ORDER BY node LIMIT ?1",
        )?;
        let rows = statement.query_map([MAX_NODES], |row| {
            let probes: Vec<u8> = row.get(8)?;
            let node = NodeStatus {
                node: row.get(1)?,
                version: row.get(2)?,
                kernel: row.get(3)?,
                boot_id: row.get(4)?,
                epoch: unsql(row.get(5)?),
                spool_id: Bytes::from(row.get::<_, Vec<u8>>(6)?),
                last_seen: unsql(row.get(9)?),
                connected: row.get(7)?,
                // Written by this program; an older row without is empty.
                probes: Coverage::decode(&probes[..]).unwrap_or_default().probes,
                lanes: Vec::new(),
                lost: Vec::new(),
                counters: Vec::new(),
                account: None,
            };
            Ok((row.get(0)?, node))
        })?;
        rows.collect()
    }

    fn lanes(&self, spool: i64) -> rusqlite::Result<Vec<LaneStatus>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT lane, committed, stored, duplicates, rejected, gaps, deleted, elsewhere
             FROM lane WHERE spool = ?1 ORDER BY lane",
        )?;
        let rows = statement.query_map([spool], |row| {
            Ok(LaneStatus {
                lane: row.get(0)?,
                committed: unsql(row.get(1)?),
                stored: unsql(row.get(2)?),
                duplicates: unsql(row.get(3)?),
                rejected: unsql(row.get(4)?),
                gaps: unsql(row.get(5)?),
                deleted: unsql(row.get(6)?),
                elsewhere: unsql(row.get(7)?),
                unassigned: 0,
            })
        })?;
        rows.collect()
    }

    fn lost(&self, spool: i64) -> rusqlite::Result<Vec<LossCounter>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT probe, lane, reason, sum(count) FROM loss WHERE spool = ?1
             GROUP BY probe, lane, reason ORDER BY probe, lane, reason LIMIT 1024",
        )?;
        let rows = statement.query_map([spool], |row| {
            Ok(LossCounter {
                probe: row.get(0)?,
                lane: row.get(1)?,
                reason: row.get(2)?,
                count: unsql(row.get(3)?),
            })
        })?;
        rows.collect()
    }

    fn counters(&self, spool: i64) -> rusqlite::Result<Vec<ProbeCounters>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT counters FROM counters
             WHERE spool = ?1 AND epoch = (SELECT epoch FROM spool WHERE id = ?1)
             ORDER BY probe LIMIT 1024",
        )?;
        let rows = statement.query_map([spool], |row| {
            // Written by this program.
            Ok(ProbeCounters::decode(&row.get::<_, Vec<u8>>(0)?[..]).unwrap_or_default())
        })?;
        rows.collect()
    }
}
