//! The collector's store as it lies on disk: every record, in the order in
//! which they came, and whether any changed, went, or came twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use culprit_proto::json::enum_text;
use culprit_proto::v1::{Event, Lane, event};
use prost::Message;
use rusqlite::{Connection, OpenFlags};

/// (spool, lane, seq) names a record for good.
type Key = (i64, i32, i64);

/// A record in the store.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Order of arrival.
    pub id: i64,
    /// Number of the spool in this store.
    pub spool: i64,
    /// Name of the lane.
    pub lane: String,
    /// Sequence number.
    pub seq: u64,
    /// The event.
    pub event: Event,
}

/// Looks at a store again and again, and remembers what it saw.
pub struct Watch {
    directory: PathBuf,
    known: HashMap<Key, u64>,
    contents: HashSet<(i64, u64)>,
    last: i64,
}

impl Watch {
    /// Of the store in this directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            known: HashMap::new(),
            contents: HashSet::new(),
            last: 0,
        }
    }

    /// Looks at what came since the last look: no name and no content may
    /// have been there before. How many are known now.
    pub fn look(&mut self) -> Result<usize> {
        let from = self.last;
        for (id, key, content) in self.rows(from)? {
            ensure!(
                self.known.insert(key, content).is_none(),
                "{key:?} is in the store twice"
            );
            ensure!(
                self.contents.insert((key.0, content)),
                "the event of {key:?} is in the store twice"
            );
            self.last = self.last.max(id);
        }
        Ok(self.known.len())
    }

    /// The same, and looks at every record once more: none may have changed
    /// or gone.
    pub fn look_at_all(&mut self) -> Result<usize> {
        self.look()?;
        let mut seen = 0;
        for (_, key, content) in self.rows(0)? {
            match self.known.get(&key) {
                Some(known) => {
                    ensure!(*known == content, "{key:?} has changed in the store");
                    seen += 1;
                }
                // Came after the look above.
                None => continue,
            }
        }
        ensure!(
            seen == self.known.len(),
            "{} of {} records have gone from the store",
            self.known.len() - seen,
            self.known.len()
        );
        Ok(seen)
    }

    fn rows(&self, after: i64) -> Result<Vec<(i64, Key, u64)>> {
        let store = open(&self.directory)?;
        let mut rows =
            store.prepare("SELECT id, spool, lane, seq, event FROM event WHERE id > ?1")?;
        let rows = rows.query_map([after], |row| {
            let mut content = DefaultHasher::new();
            row.get_ref(4)?.as_blob()?.hash(&mut content);
            Ok((
                row.get(0)?,
                (row.get(1)?, row.get(2)?, row.get(3)?),
                content.finish(),
            ))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// Every record in the order of arrival; only of this kind, if one is given.
pub fn records(directory: &Path, kind: Option<&str>) -> Result<Vec<Stored>> {
    let store = open(directory)?;
    let mut rows = store.prepare(
        "SELECT id, spool, lane, seq, event FROM event WHERE ?1 IS NULL OR kind = ?1 ORDER BY id",
    )?;
    let rows = rows.query_map([kind], |row| {
        let bytes: Vec<u8> = row.get(4)?;
        let lane: i32 = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, lane, row.get::<_, i64>(3)?, bytes))
    })?;
    rows.map(|row| {
        let (id, spool, lane, seq, bytes) = row?;
        Ok(Stored {
            id,
            spool,
            lane: enum_text::<Lane>(lane),
            seq: u64::try_from(seq).context("a negative sequence number")?,
            event: Event::decode(bytes.as_slice()).context("a stored event does not decode")?,
        })
    })
    .collect()
}

/// How many records each lane has.
pub fn by_lane(records: &[Stored]) -> BTreeMap<String, u64> {
    let mut lanes = BTreeMap::new();
    for record in records {
        *lanes.entry(record.lane.clone()).or_default() += 1;
    }
    lanes
}

/// How often each address of the loopback network was connected to.
pub fn connects(records: &[Stored]) -> HashMap<Ipv4Addr, usize> {
    let mut found = HashMap::new();
    for record in records {
        let Some(event::Kind::TcpConnect(connect)) = &record.event.kind else {
            continue;
        };
        if let Some(IpAddr::V4(ip)) = connect.remote.as_ref().and_then(|remote| remote.addr()) {
            *found.entry(ip).or_default() += 1;
        }
    }
    found
}

fn open(directory: &Path) -> Result<Connection> {
    let path = directory.join("culprit.db");
    let store = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| path.display().to_string())?;
    store.busy_timeout(crate::scenario::tools::PATIENCE)?;
    Ok(store)
}
