//! A database, for programs with many connections.

use crate::ask::{self, Status};
use crate::error::Error;
use crate::{entry, off};
use libsql::Connection;
use littoral_types::Position;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// SQLite's code for what others keep from being done.
const BUSY: i32 = 5;
/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// A database that connections are made to. It is cheap to clone: a pool's manager keeps one.
///
/// It holds one connection of its own, so that the database stays open however a pool's come and go: the last close, and what
/// [`crate::Builder::close_wait`] says of it, comes when the handle is dropped and all connections are.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
    _open: Connection,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    name: String,
    busy: Duration,
}

/// Opens a database, and makes it if it is not there.
pub(crate) async fn first(path: PathBuf, name: String, busy: Duration) -> Result<Connection, Error> {
    let inner = Inner { path, name, busy };
    off::thread(move || inner.first()).await
}

impl Database {
    pub(crate) async fn open(path: PathBuf, name: String, busy: Duration) -> Result<Self, Error> {
        let inner = Arc::new(Inner { path, name, busy });
        let opening = inner.clone();
        let conn = off::thread(move || opening.first()).await?;
        Ok(Self { inner, _open: conn })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What SQLite opens it as: for a program that opens connections by means of its own.
    pub fn uri(&self) -> &str {
        &self.inner.name
    }

    /// Makes a connection.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let inner = self.inner.clone();
        off::thread(move || inner.connect()).await
    }

    /// Makes a connection, on this thread: for programs without async code.
    pub fn connect_blocking(&self) -> Result<Connection, Error> {
        self.inner.connect()
    }

    /// Brings what is committed to the object store, over a connection of its own: nobody waits for it but who asks.
    pub async fn checkpoint(&self) -> Result<Position, Error> {
        let inner = self.inner.clone();
        off::thread(move || ask::checkpoint_of(&inner.connect()?)).await
    }

    /// Brings what is committed to the object store, and keeps it under a name until somebody drops that.
    pub async fn snapshot(&self, name: impl Into<String>) -> Result<Position, Error> {
        let (inner, name) = (self.inner.clone(), name.into());
        off::thread(move || ask::snapshot_of(&inner.connect()?, &name)).await
    }

    /// Where the database stands, without asking the object store.
    pub async fn status(&self) -> Result<Status, Error> {
        let inner = self.inner.clone();
        off::thread(move || ask::status_of(&inner.connect()?)).await
    }
}

impl Inner {
    fn first(&self) -> Result<Connection, Error> {
        let conn = self.connect()?;
        self.begin(&conn)?;
        Ok(conn)
    }

    fn connect(&self) -> Result<Connection, Error> {
        entry::register()?;
        // What went wrong before on this thread is not what goes wrong now.
        littoral_vfs::take_error();
        let connected = || {
            let conn = off::done(libsql::Builder::new_local(&self.name).build())?.connect()?;
            conn.busy_timeout(self.busy)?;
            Ok(conn)
        };
        connected().map_err(|error: libsql::Error| {
            let reason = self.misplaced().or_else(littoral_vfs::take_error).unwrap_or_else(|| unclear(&error));
            // A reason that begins with the path has said it.
            let told = self.path.display().to_string();
            let reason = reason.strip_prefix(&told).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&reason);
            Error::Open { path: self.path.clone(), reason: reason.to_owned() }
        })
    }

    /// A path at which no file can be.
    fn misplaced(&self) -> Option<String> {
        let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
        match folder {
            _ if self.path.is_dir() => Some("it is a folder: give the path of a file".to_owned()),
            Some(folder) if !folder.is_dir() => Some(format!("there is no folder {}: make it first", folder.display())),
            _ => None,
        }
    }

    /// A database that has no page yet becomes one in WAL mode.
    fn begin(&self, conn: &Connection) -> Result<(), Error> {
        let until = Instant::now() + self.busy;
        loop {
            let pages = ask::text(conn, "PRAGMA page_count").map_err(|error| self.unread(error))?;
            if pages.as_deref() != Some("0") {
                return Ok(());
            }
            match ask::text(conn, "PRAGMA journal_mode = WAL") {
                Ok(_) => return Ok(()),
                // Somebody else makes it just now: SQLite waits for nobody who changes the mode.
                Err(error) if error.sqlite_code().is_some_and(|code| code & 0xff == BUSY) && Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.unread(error)),
            }
        }
    }

    fn unread(&self, error: Error) -> Error {
        match error {
            Error::Sql(error) => Error::Open {
                path: self.path.clone(),
                reason: littoral_vfs::take_error().unwrap_or_else(|| error.to_string()),
            },
            error => error,
        }
    }
}

/// SQLite refused by itself: it says a code and the name.
fn unclear(error: &libsql::Error) -> String {
    format!("SQLite cannot open it; may it be read and written, and its folder too? ({error})")
}
