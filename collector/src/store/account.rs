use culprit_proto::text;
use culprit_proto::v1::{Lane, LaneReport, LossReport, NodeAccount};
use prost::Message;
use rusqlite::{OptionalExtension, params};

use super::error::{Doing, StoreError};
use super::job::SpoolKey;
use super::reader::Reader;
use super::writer::State;
use super::{sql, unsql};
use crate::protocol::{Account, Below, MAX_REASONS, OTHER_REASON, adds_up};

/// Longest reason of a gap that is kept apart, bytes.
const MAX_REASON_BYTES: usize = 64;

impl State {
    /// Counts a gap's events under its reason: at most `MAX_REASONS` of a
    /// lane, the rest as one.
    pub(super) fn count_gap(
        &self,
        spool: SpoolKey,
        lane: Lane,
        reason: &str,
        events: u64,
    ) -> Result<(), StoreError> {
        if events == 0 {
            return Ok(());
        }
        let count = |reason: &str, room: i64| {
            self.connection
                .prepare_cached(
                    "INSERT INTO gap(spool, lane, reason, count) SELECT ?1, ?2, ?3, ?4 WHERE
                       (SELECT count(*) FROM gap WHERE spool = ?1 AND lane = ?2) < ?5 OR
                       EXISTS (SELECT 1 FROM gap WHERE spool = ?1 AND lane = ?2 AND reason = ?3)
                     ON CONFLICT DO UPDATE SET count = count + excluded.count",
                )
                .and_then(|mut s| {
                    s.execute(params![spool.0, i32::from(lane), reason, sql(events), room])
                })
                .doing("count a gap")
        };
        let room = i64::try_from(MAX_REASONS).unwrap_or(i64::MAX) - 1;
        let reason = match reason {
            "" => "unknown",
            long if long.len() > MAX_REASON_BYTES => OTHER_REASON,
            reason => reason,
        };
        if count(reason, room)? == 0 {
            count(OTHER_REASON, i64::MAX)?;
        }
        Ok(())
    }

    /// Keeps what is the agent's newest word on each lane. A report that does
    /// not add up would spoil the account: it is left out and counted.
    pub(super) fn lane_reports(
        &mut self,
        spool: SpoolKey,
        epoch: u64,
        report: &LossReport,
    ) -> Result<(), StoreError> {
        let now = sql(culprit_proto::time::now());
        for lane in &report.lanes {
            if !adds_up(lane) {
                self.totals.reports_refused += 1;
                tracing::warn!(
                    lane = lane.lane().as_str_name(),
                    seen = lane.seen,
                    in_ring = lane.in_ring,
                    queued = lane.queued,
                    appended = lane.appended,
                    lost = %text::clip(&format!("{:?}", lane.lost)),
                    "LossReport.lanes: seen is not in_ring + queued + appended + lost; left out"
                );
                continue;
            }
            let known = self
                .connection
                .prepare_cached("SELECT epoch, report FROM report WHERE spool = ?1 AND lane = ?2")
                .and_then(|mut s| {
                    s.query_row(params![spool.0, lane.lane], |row| {
                        Ok((unsql(row.get(0)?), decode(&row.get::<_, Vec<u8>>(1)?)))
                    })
                    .optional()
                })
                .doing("read a lane's report")?;
            if known.is_some_and(|(seen, known)| (seen, age(&known)) > (epoch, age(lane))) {
                continue;
            }
            self.connection
                .prepare_cached(
                    "INSERT INTO report(spool, lane, epoch, time, report)
                     VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET epoch = excluded.epoch, time = excluded.time,
                       report = excluded.report",
                )
                .and_then(|mut s| {
                    s.execute(params![
                        spool.0,
                        lane.lane,
                        sql(epoch),
                        now,
                        lane.encode_to_vec()
                    ])
                })
                .doing("store a lane's report")?;
            // The account has a lane that no stream carried yet.
            self.connection
                .prepare_cached(
                    "INSERT INTO lane(spool, lane, committed) VALUES (?1, ?2, 0)
                     ON CONFLICT DO NOTHING",
                )
                .and_then(|mut s| s.execute(params![spool.0, lane.lane]))
                .doing("add a lane")?;
        }
        self.connection
            .prepare_cached(
                "UPDATE spool SET unclean_stops = max(unclean_stops, ?2) WHERE id = ?1
                   AND unclean_stops < ?2",
            )
            .and_then(|mut s| s.execute(params![spool.0, sql(report.unclean_stops)]))
            .map(drop)
            .doing("note the unclean stops")
    }
}

/// Grows from report to report of one epoch: events are seen, then leave the
/// rings and the queues.
fn age(report: &LaneReport) -> (u64, u64, u64) {
    let settled = report.seen - report.in_ring - report.queued;
    (report.seen, settled, report.queued)
}

/// Written by this program, after `adds_up`.
fn decode(report: &[u8]) -> LaneReport {
    LaneReport::decode(report).unwrap_or_default()
}

impl Reader {
    /// Where the events of a node are, over all its journals.
    pub(super) fn account(&self, node: &str) -> rusqlite::Result<NodeAccount> {
        let mut account = Account::default();
        let mut statement = self.connection.prepare_cached(
            "SELECT l.lane, l.stored, l.rejected, l.gaps, l.elsewhere, r.time, r.report
             FROM spool s JOIN lane l ON l.spool = s.id
             LEFT JOIN report r ON r.spool = l.spool AND r.lane = l.lane
             WHERE s.node = ?1",
        )?;
        let mut rows = statement.query([node])?;
        while let Some(row) = rows.next()? {
            let Ok(lane) = Lane::try_from(row.get::<_, i32>(0)?) else {
                continue;
            };
            let below = Below {
                stored: unsql(row.get(1)?),
                rejected: unsql(row.get(2)?),
                gaps: unsql(row.get(3)?),
                elsewhere: unsql(row.get(4)?),
            };
            let report = match (row.get(5)?, row.get::<_, Option<Vec<u8>>>(6)?) {
                (Some(time), Some(report)) => Some((unsql(time), decode(&report))),
                _ => None,
            };
            account.add(lane, below, report);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT g.lane, g.reason, g.count FROM spool s JOIN gap g ON g.spool = s.id
             WHERE s.node = ?1",
        )?;
        let mut rows = statement.query([node])?;
        while let Some(row) = rows.next()? {
            if let Ok(lane) = Lane::try_from(row.get::<_, i32>(0)?) {
                account.gap(lane, &row.get::<_, String>(1)?, unsql(row.get(2)?));
            }
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT unclean_stops FROM spool WHERE node = ?1")?;
        let stops = statement
            .query_map([node], |row| Ok(unsql(row.get(0)?)))?
            .try_fold(0_u64, |sum, n| {
                Ok::<_, rusqlite::Error>(sum.saturating_add(n?))
            })?;
        Ok(account.finish(node.to_owned(), stops))
    }
}
