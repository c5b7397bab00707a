use bytes::Bytes;
use culprit_proto::v1::{
    Coverage, LaneStatus, LossCounter, NodeStatus, NodesRequest, NodesResponse, ProbeCounters,
    ProbeStatus,
};
use prost::Message;
use rusqlite::params;

use super::error::{Doing, StoreError};
use super::reader::Reader;
use super::unsql;

/// Most nodes of one page, and where its bytes end it: an answer must fit into
/// one gRPC message, and a reader holds no more.
const PAGE_NODES: usize = 1000;
const PAGE_BYTES: usize = 2 * 1024 * 1024;

impl Reader {
    /// Every node with its newest journal, by name, and the account of all its
    /// journals.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn nodes(&self) -> Result<Vec<NodeStatus>, StoreError> {
        let mut request = NodesRequest::default();
        let mut nodes = Vec::new();
        loop {
            let page = self.nodes_page(&request)?;
            nodes.extend(page.nodes);
            match nodes.last() {
                Some(last) if page.more => request.after.clone_from(&last.node),
                _ => return Ok(nodes),
            }
        }
    }

    /// Some nodes, and whether there are more.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn nodes_page(&self, request: &NodesRequest) -> Result<NodesResponse, StoreError> {
        let mut journals = self.journals(request).doing("read the nodes")?;
        let mut page = NodesResponse {
            more: journals.len() > PAGE_NODES,
            ..NodesResponse::default()
        };
        journals.truncate(PAGE_NODES);
        let mut bytes = 0;
        for (id, mut node) in journals {
            if bytes >= PAGE_BYTES {
                page.more = true;
                break;
            }
            node.probes = self.probes(id).doing("read the probes")?;
            node.lanes = self.lanes(id).doing("read the lanes")?;
            node.lost = self.lost(id).doing("read the loss counters")?;
            node.counters = self.counters(id).doing("read the probes' counters")?;
            node.account = Some(self.account(&node.node).doing("read the account")?);
            bytes += node.encoded_len();
            page.nodes.push(node);
        }
        Ok(page)
    }

    fn journals(&self, request: &NodesRequest) -> rusqlite::Result<Vec<(i64, NodeStatus)>> {
        // SQLite takes the other columns from the row that has the maximum.
        let mut statement = self.connection.prepare_cached(
            "SELECT id, node, version, kernel, boot_id, epoch, spool_id, connected,
               max(last_seen) FROM spool WHERE node > ?1 AND (?2 = '' OR node = ?2)
             GROUP BY node ORDER BY node LIMIT ?3",
        )?;
        let limit = i64::try_from(PAGE_NODES).unwrap_or(i64::MAX) + 1;
        let rows = statement.query_map(params![request.after, request.node, limit], |row| {
            let node = NodeStatus {
                node: row.get(1)?,
                version: row.get(2)?,
                kernel: row.get(3)?,
                boot_id: row.get(4)?,
                epoch: unsql(row.get(5)?),
                spool_id: Bytes::from(row.get::<_, Vec<u8>>(6)?),
                connected: row.get(7)?,
                last_seen: unsql(row.get(8)?),
                ..NodeStatus::default()
            };
            Ok((row.get(0)?, node))
        })?;
        rows.collect()
    }

    fn probes(&self, spool: i64) -> rusqlite::Result<Vec<ProbeStatus>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT probes FROM spool WHERE id = ?1")?;
        let probes: Vec<u8> = statement.query_row([spool], |row| row.get(0))?;
        // Written by this program; an older row without is empty.
        Ok(Coverage::decode(&probes[..]).unwrap_or_default().probes)
    }

    fn lanes(&self, spool: i64) -> rusqlite::Result<Vec<LaneStatus>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT lane, committed, stored, duplicates, rejected, gaps, deleted, elsewhere,
               unassigned FROM lane WHERE spool = ?1 ORDER BY lane",
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
                unassigned: unsql(row.get(8)?),
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
