use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{Doing, StoreError};
use super::{DATABASE, LOCK};

/// "CLPT": marks the database as ours.
const APPLICATION: i64 = 0x434c_5054;
/// Raised with every change of the tables.
const VERSION: i64 = 4;
/// Size the write-ahead log is cut back to at a checkpoint, bytes.
const WAL_BYTES: i64 = 16 * 1024 * 1024;

/// Version 1.
const TABLES: &str = "
-- One journal of one agent: all its records are named by (spool, lane, seq).
CREATE TABLE spool(
  id INTEGER PRIMARY KEY,
  node TEXT NOT NULL,
  spool_id BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  version TEXT NOT NULL,
  kernel TEXT NOT NULL,
  probes BLOB NOT NULL,        -- an encoded Coverage
  last_seen INTEGER NOT NULL,  -- ns since the Unix epoch, the collector's clock
  connected INTEGER NOT NULL DEFAULT 0,
  UNIQUE(node, spool_id)
);
CREATE TABLE lane(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  lane INTEGER NOT NULL,
  committed INTEGER NOT NULL,
  stored INTEGER NOT NULL DEFAULT 0,
  duplicates INTEGER NOT NULL DEFAULT 0,
  rejected INTEGER NOT NULL DEFAULT 0,
  gaps INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  elsewhere INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(spool, lane)
) WITHOUT ROWID;
CREATE TABLE event(
  id INTEGER PRIMARY KEY,      -- order of arrival
  spool INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  time INTEGER NOT NULL,       -- ns since the Unix epoch, the agent's clock
  kind TEXT NOT NULL,
  pod_namespace TEXT NOT NULL,
  pod_name TEXT NOT NULL,
  event BLOB NOT NULL,
  UNIQUE(spool, lane, seq)
);
CREATE INDEX event_time ON event(time);
CREATE INDEX event_kind ON event(kind, time);
CREATE INDEX event_pod ON event(pod_namespace, pod_name, time) WHERE pod_namespace <> '';
CREATE TABLE loss(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  epoch INTEGER NOT NULL,
  probe TEXT NOT NULL,
  lane INTEGER NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY(spool, epoch, probe, lane, reason)
) WITHOUT ROWID;
CREATE TABLE counters(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  epoch INTEGER NOT NULL,
  probe TEXT NOT NULL,
  seen INTEGER NOT NULL,       -- the larger, the newer
  counters BLOB NOT NULL,      -- encoded ProbeCounters
  PRIMARY KEY(spool, epoch, probe)
) WITHOUT ROWID;
";

/// From version 1 to 2: where every event is.
const TO_2: &str = "
ALTER TABLE lane ADD COLUMN unassigned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spool ADD COLUMN unclean_stops INTEGER NOT NULL DEFAULT 0;
-- What lane.gaps is made of.
CREATE TABLE gap(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  lane INTEGER NOT NULL,
  reason TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY(spool, lane, reason)
) WITHOUT ROWID;
INSERT INTO gap(spool, lane, reason, count) SELECT spool, lane, 'unknown', gaps FROM lane
  WHERE gaps > 0;
-- The agent's newest word on a lane.
CREATE TABLE report(
  spool INTEGER NOT NULL REFERENCES spool(id) ON DELETE CASCADE,
  lane INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  time INTEGER NOT NULL,       -- ns since the Unix epoch, the collector's clock
  report BLOB NOT NULL,        -- an encoded LaneReport
  PRIMARY KEY(spool, lane)
) WITHOUT ROWID;
";

/// From version 2 to 3: who had which address.
const TO_3: &str = "
CREATE TABLE address(
  ip BLOB NOT NULL,            -- 4 or 16 bytes in network order
  since INTEGER NOT NULL,      -- ns since the Unix epoch, the node's clock
  until INTEGER NOT NULL,      -- 0: it runs
  node TEXT NOT NULL,
  uid TEXT NOT NULL,
  pod BLOB NOT NULL,           -- an encoded Pod
  PRIMARY KEY(ip, since, uid)
) WITHOUT ROWID;
CREATE INDEX address_since ON address(since);
";

/// From version 3 to 4: the nodes' own addresses and ports, and clients that hide
/// behind them.
const TO_4: &str = "
CREATE TABLE node_address(
  ip BLOB NOT NULL,            -- 4 or 16 bytes in network order
  node TEXT NOT NULL,
  since INTEGER NOT NULL,      -- ns since the Unix epoch, the node's clock
  until INTEGER NOT NULL,      -- 0: it has it
  PRIMARY KEY(ip, node)
) WITHOUT ROWID;
CREATE TABLE node_port(
  node TEXT NOT NULL,
  port INTEGER NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER NOT NULL,      -- 0: somebody listens
  who BLOB NOT NULL,           -- an encoded Identity
  PRIMARY KEY(node, port, since)
) WITHOUT ROWID;
CREATE INDEX node_port_since ON node_port(since);
-- A connection whose client has another address for its server than its own pod's.
CREATE TABLE caller(
  client BLOB NOT NULL,        -- address and port as the server sees them
  server BLOB NOT NULL,        -- address and port of the server's socket
  opened INTEGER NOT NULL,     -- ns since the Unix epoch; 0: before the agent
  node TEXT NOT NULL,
  who BLOB NOT NULL,           -- an encoded Identity
  PRIMARY KEY(client, server, opened)
) WITHOUT ROWID;
CREATE INDEX caller_opened ON caller(opened);
";

/// A store's directory, held for writing: at most one in all processes.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Released by the system with the process, however it ends.
    lock: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing alone would leave it taken while a child that was forked
        // just now has not come to its exec.
        let _ = self.lock.unlock();
    }
}

impl Directory {
    /// Takes the directory at `path`, made when it is not there (mode 0700).
    ///
    /// # Errors
    /// `InUse`, `NotEmpty`, or what the file system said.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io(path))?;
        if !path.join(LOCK).exists() && !path.join(DATABASE).exists() {
            for entry in fs::read_dir(path).map_err(io(path))? {
                // A fresh ext4 volume has this one.
                if entry.map_err(io(path))?.file_name() != "lost+found" {
                    return Err(StoreError::NotEmpty(path.to_owned()));
                }
            }
        }
        let lock_path = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io(&lock_path)(source)),
        }
    }

    /// The writing connection; makes the tables in a new database.
    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        let path = self.path.join(DATABASE);
        // Made here for its mode, which SQLite's other files take over.
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::Io {
                path: path.clone(),
                source,
            })?;
        let connection = Connection::open(&path).doing("open the database")?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .doing("set the busy timeout")?;
        let is_new: bool = connection
            .query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
                row.get(0)
            })
            .map_err(|source| not_ours(source, &path))?;
        let mut found = 0;
        if !is_new {
            found = check(&connection, &path)?;
        } else {
            // Pages of deleted rows can be given back; only before the first table.
            connection
                .pragma_update(None, "auto_vacuum", "INCREMENTAL")
                .doing("set auto_vacuum")?;
        }
        // In memory: a container's root may be read-only.
        for (name, value) in [
            ("journal_mode", "WAL"),
            ("synchronous", "FULL"),
            ("temp_store", "MEMORY"),
        ] {
            connection
                .pragma_update(None, name, value)
                .doing("set the journal")?;
        }
        connection
            .pragma_update(None, "journal_size_limit", WAL_BYTES)
            .doing("bound the journal")?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .doing("set foreign_keys")?;
        let steps = [TABLES, TO_2, TO_3, TO_4];
        let missing = steps.get(usize::try_from(found).unwrap_or(0)..);
        if let Some(steps) = missing.filter(|steps| !steps.is_empty()) {
            connection
                .execute_batch(&format!(
                    "BEGIN; {} PRAGMA application_id = {APPLICATION}; \
                     PRAGMA user_version = {VERSION}; COMMIT;",
                    steps.concat()
                ))
                .doing("make the tables")?;
            if found > 0 {
                tracing::info!(
                    from = found,
                    to = VERSION,
                    "the store's tables were brought up to date"
                );
            }
        }
        connection
            .execute("UPDATE spool SET connected = 0", [])
            .doing("reset the connected flags")?;
        Ok(connection)
    }
}

/// A connection that only reads, beside a running collector or without one.
pub(super) fn connect_read_only(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(DATABASE);
    if !path.is_file() {
        return Err(StoreError::Missing(dir.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let open = |suffix: &str| -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(uri(&path, suffix), flags)
            .doing("open the database for reading")?;
        connection
            .busy_timeout(Duration::from_secs(5))
            .doing("set the busy timeout")?;
        connection
            .pragma_update(None, "temp_store", "MEMORY")
            .doing("set temp_store")?;
        let found = check(&connection, &path)?;
        if found < VERSION {
            return Err(StoreError::Older {
                path: path.clone(),
                found,
                known: VERSION,
            });
        }
        Ok(connection)
    };
    match open("") {
        // In a directory that cannot be written SQLite cannot make the file
        // that readers of a log share. A store without a log needs none.
        Err(StoreError::Sqlite { source, .. })
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
                && !dir.join(format!("{DATABASE}-wal")).exists() =>
        {
            open("?immutable=1")
        }
        result => result,
    }
}

fn uri(path: &Path, suffix: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + suffix
}

/// That the database is ours; its schema version, which is ours at most.
fn check(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(|source| not_ours(source, path))?;
    if application != APPLICATION {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let found = pragma("user_version").doing("read the schema version")?;
    if found > VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(found)
}

fn not_ours(source: rusqlite::Error, path: &Path) -> StoreError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => StoreError::Foreign(path.to_owned()),
        _ => StoreError::Sqlite {
            doing: "read the database",
            source,
        },
    }
}
