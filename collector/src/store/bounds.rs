use rusqlite::{Connection, params};

use super::error::{Doing, StoreError};
use super::sql;
use super::writer::State;

/// How much the store keeps. Both delete the oldest: by age those whose own
/// time is before the limit, by size those that arrived first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the database that hold something. The log beside it adds a
    /// few tens of MiB at most.
    pub max_bytes: u64,
    /// Oldest event, nanoseconds; 0: no limit.
    pub max_age: u64,
}

/// Events that one transaction deletes at most: the writer is never busy for
/// long with what is old.
const SLICE: i64 = 500;

impl State {
    /// Deletes what is beyond the bounds. `tick`: age as well, which is looked
    /// at now and then only. A failure is logged; the next call tries again.
    pub(super) fn keep_bounds(&mut self, bounds: Bounds, tick: bool) {
        let result = if tick {
            self.keep_age(bounds.max_age)
                .and_then(|()| self.keep_pods(bounds.max_age))
                .and_then(|()| self.keep_bytes(bounds.max_bytes))
        } else {
            self.keep_bytes(bounds.max_bytes)
        };
        if let Err(error) = result {
            tracing::error!("the store may grow beyond its bounds: {error}");
        }
    }

    /// Who had an address is known as long as events may ask for it.
    fn keep_pods(&self, max_age: u64) -> Result<(), StoreError> {
        let oldest = match max_age {
            0 => 0,
            age => culprit_proto::time::now().saturating_sub(age),
        };
        self.forget_addresses(oldest)?;
        self.forget_callers(oldest)
    }

    fn keep_age(&mut self, max_age: u64) -> Result<(), StoreError> {
        if max_age == 0 {
            return Ok(());
        }
        let oldest = sql(culprit_proto::time::now().saturating_sub(max_age));
        loop {
            let deleted = delete(
                &mut self.connection,
                "SELECT id FROM event WHERE time < ?1 ORDER BY time LIMIT ?2",
                oldest,
            )?;
            self.totals.deleted_age += deleted;
            if deleted == 0 {
                break;
            }
        }
        // Journals that are gone from their nodes: nothing is left of them.
        self.connection
            .execute(
                "DELETE FROM spool WHERE connected = 0 AND last_seen < ?1
                   AND NOT EXISTS (SELECT 1 FROM event WHERE event.spool = spool.id)",
                [oldest],
            )
            .map(drop)
            .doing("forget old agents")
    }

    fn keep_bytes(&mut self, max_bytes: u64) -> Result<(), StoreError> {
        let (mut file, mut used) = bytes(&self.connection)?;
        while used > max_bytes {
            let deleted = delete(
                &mut self.connection,
                "SELECT id FROM event WHERE id > ?1 ORDER BY id LIMIT ?2",
                i64::MIN,
            )?;
            self.totals.deleted_bytes += deleted;
            if deleted == 0 {
                break;
            }
            (file, used) = bytes(&self.connection)?;
        }
        if file > max_bytes {
            give_back(&self.connection)?;
        }
        Ok(())
    }
}

/// Bytes of the database, and of those the ones that hold something.
fn bytes(connection: &Connection) -> Result<(u64, u64), StoreError> {
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .doing("measure the store")
    };
    let (pages, free, size) = (
        pragma("page_count")?,
        pragma("freelist_count")?,
        pragma("page_size")?,
    );
    Ok((
        super::unsql(pages.saturating_mul(size)),
        super::unsql((pages - free).saturating_mul(size)),
    ))
}

/// Deletes the events that `choose` names, at most a slice, and counts them
/// at their lanes.
fn delete(connection: &mut Connection, choose: &str, limit: i64) -> Result<u64, StoreError> {
    let transaction = connection.transaction().doing("begin to delete")?;
    let counted = format!(
        "UPDATE lane SET deleted = deleted + n FROM (
           SELECT spool AS s, lane AS l, count(*) AS n FROM event WHERE id IN ({choose})
           GROUP BY spool, lane) WHERE spool = s AND lane = l"
    );
    transaction
        .execute(&counted, params![limit, SLICE])
        .doing("count what is deleted")?;
    let deleted = transaction
        .execute(
            &format!("DELETE FROM event WHERE id IN ({choose})"),
            params![limit, SLICE],
        )
        .doing("delete old events")?;
    transaction.commit().doing("delete old events")?;
    Ok(deleted as u64)
}

/// Gives free pages back to the file system.
fn give_back(connection: &Connection) -> Result<(), StoreError> {
    connection
        .prepare("PRAGMA incremental_vacuum")
        .and_then(|mut statement| {
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        })
        .doing("give space back")
}
