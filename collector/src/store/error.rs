use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory has files, and none of them is a store.
    #[error(
        "{0} is not empty and holds no Culprit store; give --store an empty or a new directory"
    )]
    NotEmpty(PathBuf),
    /// The database is some other program's.
    #[error("{0} is no Culprit store: it is a database of another program")]
    Foreign(PathBuf),
    /// There is no store to read.
    #[error("there is no Culprit store in {0}; `culprit-collector run --store` makes one")]
    Missing(PathBuf),
    /// Written by a later version.
    #[error(
        "the store {path} has schema version {found}, this program knows {known}; use the newer culprit-collector"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// Written by an earlier version: a reader changes nothing.
    #[error(
        "the store {path} has schema version {found}, this program reads {known}; start `culprit-collector run` on it once, which brings it up to date"
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// Another collector runs on it.
    #[error("another culprit-collector runs on {0}; stop it or give another --store")]
    InUse(PathBuf),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite said no.
    #[error("store: cannot {doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: rusqlite::Error,
    },
}

/// Names what was being done when SQLite said no.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sqlite { doing, source })
    }
}
