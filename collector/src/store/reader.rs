use std::path::Path;

use bytes::Bytes;
use culprit_proto::kind::Filter;
use culprit_proto::v1::{Record, StoredEvent};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::error::{Doing, StoreError};
use super::schema::connect_read_only;
use super::{sql, unsql};

/// Most events that one question is answered with: the newest.
pub const MAX_EVENTS: u64 = 1_000_000;

/// Reads a store: beside a running collector, or when none runs.
#[derive(Debug)]
pub struct Reader {
    pub(super) connection: Connection,
}

/// Which events to read. They come in the order of their times.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Kinds, pod, times, and how many of the newest (0: `MAX_EVENTS`).
    pub filter: Filter,
    /// Of this node only; empty: of any.
    pub node: String,
}

/// Where a page ended: the next one begins behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    time: i64,
    id: i64,
}

/// Some events, and where to go on; `None` when these were the last.
#[derive(Debug, Default)]
pub struct Page {
    /// The events, oldest first.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins.
    pub next: Option<Position>,
}

/// Rows of one page at most, and where its bytes end it: what a reader holds.
const PAGE_ROWS: usize = 1000;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

impl Reader {
    /// Opens the store in `dir` for reading.
    ///
    /// # Errors
    /// When there is none, it is another program's, or newer.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            connection: connect_read_only(dir)?,
        })
    }

    /// Where the newest `last` events of the query begin; `None` when there
    /// are not so many, so that the first page begins at the oldest.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn start(&self, query: &Query) -> Result<Option<Position>, StoreError> {
        let last = match query.filter.last {
            0 => MAX_EVENTS,
            last => last.min(MAX_EVENTS),
        };
        let (conditions, mut values) = conditions(query);
        values.push(Value::Integer(sql(last)));
        self.connection
            .prepare_cached(&start_sql(&conditions))
            .and_then(|mut s| {
                s.query_row(params_from_iter(values), |row| {
                    Ok(Position {
                        time: row.get(0)?,
                        id: row.get(1)?,
                    })
                })
                .optional()
            })
            .doing("look for the newest events")
    }

    /// The next page behind `after`.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn page(&self, query: &Query, after: Option<Position>) -> Result<Page, StoreError> {
        let (mut conditions, mut values) = conditions(query);
        if let Some(after) = after {
            conditions.push_str(" AND (time, event.id) > (?, ?)");
            values.extend([Value::Integer(after.time), Value::Integer(after.id)]);
        }
        let read = || {
            let mut statement = self.connection.prepare_cached(&page_sql(&conditions))?;
            let mut rows = statement.query(params_from_iter(values))?;
            let mut page = Page::default();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let (node, event): (String, Vec<u8>) = (row.get(2)?, row.get(7)?);
                bytes += event.len();
                page.events.push(StoredEvent {
                    node,
                    spool_id: Bytes::from(row.get::<_, Vec<u8>>(3)?),
                    epoch: unsql(row.get(4)?),
                    record: Some(Record {
                        lane: row.get(5)?,
                        seq: unsql(row.get(6)?),
                        event: Bytes::from(event),
                    }),
                });
                if page.events.len() == PAGE_ROWS || bytes >= PAGE_BYTES {
                    page.next = Some(Position {
                        time: row.get(0)?,
                        id: row.get(1)?,
                    });
                    break;
                }
            }
            Ok(page)
        };
        let mut page = read().doing("read events")?;
        for one in &mut page.events {
            if let Some(record) = &mut one.record {
                record.event = self.with_peer(std::mem::take(&mut record.event), &one.node)?;
            }
        }
        Ok(page)
    }

    /// Calls `each` for every event of the query, oldest first.
    ///
    /// # Errors
    /// What SQLite says, or what `each` returns.
    pub fn events<E: From<StoreError>>(
        &self,
        query: &Query,
        mut each: impl FnMut(StoredEvent) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = self.start(query)?;
        loop {
            let page = self.page(query, after)?;
            for event in page.events {
                each(event)?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// The query's WHERE, with its values in order. Whatever the filter, rows are
/// to come from an index in the order of their times (a CROSS JOIN keeps
/// `event` in front, a `+` keeps an index out that has another order), so that
/// a page costs what it shows and nothing is sorted.
fn conditions(query: &Query) -> (String, Vec<Value>) {
    let mut text = String::from("1");
    let mut values = Vec::new();
    let filter = &query.filter;
    if !query.node.is_empty() {
        text.push_str(" AND node = ?");
        values.push(Value::Text(query.node.clone()));
    }
    if !filter.kinds.is_empty() {
        let marks = vec!["?"; filter.kinds.len()].join(", ");
        let plus = if filter.kinds.len() > 1 { "+" } else { "" };
        text.push_str(&format!(" AND {plus}kind IN ({marks})"));
        values.extend(
            filter
                .kinds
                .iter()
                .map(|k| Value::Text(k.name().to_owned())),
        );
    }
    if let Some(pod) = &filter.pod {
        values.push(Value::Text(pod.namespace.clone()));
        if pod.name.is_empty() {
            text.push_str(" AND +pod_namespace = ?");
        } else {
            text.push_str(" AND pod_namespace = ? AND pod_namespace <> '' AND pod_name = ?");
            values.push(Value::Text(pod.name.clone()));
        }
    }
    if filter.since > 0 {
        text.push_str(" AND time >= ?");
        values.push(Value::Integer(sql(filter.since)));
    }
    if filter.until > 0 {
        text.push_str(" AND time < ?");
        values.push(Value::Integer(sql(filter.until)));
    }
    (text, values)
}

fn start_sql(conditions: &str) -> String {
    format!(
        "SELECT time, event.id FROM event CROSS JOIN spool ON spool.id = event.spool
         WHERE {conditions} ORDER BY time DESC, event.id DESC LIMIT 1 OFFSET ?"
    )
}

fn page_sql(conditions: &str) -> String {
    format!(
        "SELECT time, event.id, node, spool_id, event.epoch, lane, seq, event
         FROM event CROSS JOIN spool ON spool.id = event.spool
         WHERE {conditions} ORDER BY time, event.id LIMIT {PAGE_ROWS}"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::store::{Bounds, Writer};

    #[test]
    fn no_question_sorts() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            max_bytes: 1 << 20,
            max_age: 0,
        };
        Writer::start(dir.path(), bounds, 1 << 20)
            .unwrap()
            .stop()
            .unwrap();
        let reader = Reader::open(dir.path()).unwrap();
        let kinds = culprit_proto::kind::EventKind::ALL;
        let mut asked = 0;
        for node in ["", "node1"] {
            for kinds in [&kinds[..0], &kinds[..1], &kinds[..3]] {
                for pod in [None, Some("shop"), Some("shop/cart")] {
                    for since in [0, 7] {
                        let filter = Filter {
                            kinds: kinds.to_vec(),
                            pod: pod.map(|pod| pod.parse().unwrap()),
                            since,
                            until: since,
                            last: 0,
                        };
                        let node = node.to_owned();
                        let (conditions, _) = conditions(&Query { filter, node });
                        let next = format!("{conditions} AND (time, event.id) > (?, ?)");
                        for sql in [
                            start_sql(&conditions),
                            page_sql(&conditions),
                            page_sql(&next),
                        ] {
                            let plan: Vec<String> = reader
                                .connection
                                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                                .unwrap()
                                .query_map(
                                    params_from_iter(vec![
                                        Value::Integer(1);
                                        sql.matches('?').count()
                                    ]),
                                    |row| row.get(3),
                                )
                                .unwrap()
                                .map(Result::unwrap)
                                .collect();
                            let plan = plan.join("; ");
                            assert!(plan.contains("USING INDEX event_"), "{sql}: {plan}");
                            assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
                            asked += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(asked, 108);
    }
}
