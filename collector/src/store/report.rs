use culprit_proto::v1::LossReport;
use prost::Message;
use rusqlite::params;

use super::error::{Doing, StoreError};
use super::job::SpoolKey;
use super::sql;
use super::writer::State;

/// Most rows of each table for one epoch of one journal.
const MAX_ROWS: i64 = 512;
/// Epochs of a journal whose counters are kept apart; older ones are added up
/// in the oldest of these.
const MAX_EPOCHS: i64 = 16;
/// No counter of an agent is larger in the store, so that no sum of them runs
/// over: at a million a second 2^48 takes nine years.
const MAX_COUNT: u64 = 1 << 48;
/// Longest name of a probe or a reason, bytes; longer ones are refused.
const MAX_NAME: usize = 64;

impl State {
    /// Stores the cumulative counters of an epoch. They only rise, so a report
    /// that comes late or twice changes nothing.
    pub(super) fn loss_report(
        &mut self,
        spool: SpoolKey,
        epoch: u64,
        report: &LossReport,
    ) -> Result<(), StoreError> {
        let mut refused = 0;
        // A full table still takes new values of the rows it has.
        let mut loss = self
            .connection
            .prepare_cached(
                "INSERT INTO loss(spool, epoch, probe, lane, reason, count)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE
                   (SELECT count(*) FROM loss WHERE spool = ?1 AND epoch = ?2) < ?7 OR
                   EXISTS (SELECT 1 FROM loss WHERE spool = ?1 AND epoch = ?2 AND probe = ?3
                     AND lane = ?4 AND reason = ?5)
                 ON CONFLICT DO UPDATE SET count = max(count, excluded.count)",
            )
            .doing("store a loss counter")?;
        for counter in &report.counters {
            let fits = counter.probe.len() <= MAX_NAME && counter.reason.len() <= MAX_NAME;
            let rows = if fits {
                loss.execute(params![
                    spool.0,
                    sql(epoch),
                    counter.probe,
                    counter.lane,
                    counter.reason,
                    sql(counter.count.min(MAX_COUNT)),
                    MAX_ROWS,
                ])
                .doing("store a loss counter")?
            } else {
                0
            };
            refused += u64::from(rows == 0);
        }
        let mut counters = self
            .connection
            .prepare_cached(
                "INSERT INTO counters(spool, epoch, probe, seen, counters)
                 SELECT ?1, ?2, ?3, ?4, ?5 WHERE
                   (SELECT count(*) FROM counters WHERE spool = ?1 AND epoch = ?2) < ?6 OR
                   EXISTS (SELECT 1 FROM counters WHERE spool = ?1 AND epoch = ?2 AND probe = ?3)
                 ON CONFLICT DO UPDATE SET seen = max(seen, excluded.seen),
                   counters = iif(excluded.seen >= seen, excluded.counters, counters)",
            )
            .doing("store a probe's counters")?;
        for p in &report.probes {
            let rows = if p.probe.len() <= MAX_NAME {
                counters
                    .execute(params![
                        spool.0,
                        sql(epoch),
                        p.probe,
                        sql(p.seen),
                        p.encode_to_vec(),
                        MAX_ROWS,
                    ])
                    .doing("store a probe's counters")?
            } else {
                0
            };
            refused += u64::from(rows == 0);
        }
        drop((loss, counters));
        self.lane_reports(spool, epoch, report)?;
        if refused > 0 {
            self.totals.counters_refused += refused;
            tracing::warn!(refused, "a loss report has too many or too long counters");
        }
        Ok(())
    }

    /// Adds up the counters of the oldest epochs.
    pub(super) fn fold_epochs(&self, spool: SpoolKey) -> Result<(), StoreError> {
        let limit: Option<i64> = self
            .connection
            .query_row(
                "SELECT min(epoch) FROM (SELECT DISTINCT epoch FROM loss WHERE spool = ?1
                   ORDER BY epoch DESC LIMIT ?2)",
                params![spool.0, MAX_EPOCHS],
                |row| row.get(0),
            )
            .doing("look for old epochs")?;
        let Some(limit) = limit else { return Ok(()) };
        self.connection
            .execute(
                "INSERT INTO loss(spool, epoch, probe, lane, reason, count)
                 SELECT spool, ?2, probe, lane, reason, min(sum(count), 1 << 48) FROM loss
                 WHERE spool = ?1 AND epoch < ?2 GROUP BY probe, lane, reason
                 ON CONFLICT DO UPDATE SET count = min(count + excluded.count, 1 << 48)",
                params![spool.0, limit],
            )
            .and_then(|_| {
                self.connection.execute(
                    "DELETE FROM loss WHERE spool = ?1 AND epoch < ?2",
                    params![spool.0, limit],
                )
            })
            .and_then(|_| {
                // Only the newest epoch's are shown.
                self.connection.execute(
                    "DELETE FROM counters WHERE spool = ?1 AND epoch <
                       (SELECT epoch FROM spool WHERE id = ?1)",
                    [spool.0],
                )
            })
            .map(drop)
            .doing("add up old epochs")
    }
}
