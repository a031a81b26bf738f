//! What can go wrong, by what the caller does next.

use std::path::PathBuf;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database was not opened. The reason names what to change: a setting, a path, a permission, another writer.
    #[error("{}: {reason}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// Cause and way out.
        reason: String,
    },
    /// What was asked cannot be: the program that asks is wrong.
    #[error("{0}")]
    Usage(String),
    /// SQLite would not have us: another copy of Littoral is in this process, for one.
    #[error("{0}")]
    Host(String),
    /// SQLite's own answer to a statement; what Littoral refused comes this way too, with its cause and way out.
    #[error(transparent)]
    Sql(#[from] libsql::Error),
    /// No thread could be started to wait on.
    #[error("no thread can be started: {0}")]
    Threads(#[from] std::io::Error),
    /// The work broke down: a mistake inside of this crate or of one below. Nothing that was durable is lost.
    #[error("the work broke down inside of littoral; nothing that was durable is lost")]
    Broken,
}

impl Error {
    /// SQLite's code, where SQLite gave one.
    pub fn sqlite_code(&self) -> Option<i32> {
        match self {
            Error::Sql(libsql::Error::SqliteFailure(code, _)) => Some(*code),
            _ => None,
        }
    }
}
