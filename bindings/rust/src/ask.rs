//! What can be asked of an open database.

use crate::error::Error;
use crate::off;
use libsql::Connection;
use littoral_types::Position;
use std::fmt;

/// Brings what is committed to the object store, and answers the position that it holds then.
///
/// It waits on a thread of its own. Statements on this very connection wait too: [`crate::Database::checkpoint`] takes another one.
pub async fn checkpoint(conn: &Connection) -> Result<Position, Error> {
    let conn = conn.clone();
    off::thread(move || checkpoint_of(&conn)).await
}

/// Brings what is committed to the object store, and keeps it under a name until somebody drops that (`littoral snapshot drop`).
pub async fn snapshot(conn: &Connection, name: impl Into<String>) -> Result<Position, Error> {
    let (conn, name) = (conn.clone(), name.into());
    off::thread(move || snapshot_of(&conn, &name)).await
}

/// Where the database stands, without asking the object store.
pub async fn status(conn: &Connection) -> Result<Status, Error> {
    let conn = conn.clone();
    off::thread(move || status_of(&conn)).await
}

/// Where a database stands: what `PRAGMA littoral_status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    rows: Vec<(String, Option<String>)>,
}

impl Status {
    /// The value of one row, by the name that `littoral_status` gives it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.rows.iter().find(|(known, _)| known == name)?.1.as_deref()
    }

    /// All rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.rows.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Whether the object store has everything that is committed.
    pub fn is_safe(&self) -> bool {
        self.get("safe").is_some_and(|safe| safe.starts_with("yes"))
    }

    /// Where the volume is.
    pub fn volume(&self) -> Option<&str> {
        self.get("volume")
    }

    /// Up to where it was published.
    pub fn position(&self) -> Option<Position> {
        self.get("position")?.parse().ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "{name:<18}{}", value.unwrap_or_default())?;
        }
        Ok(())
    }
}

pub(crate) fn checkpoint_of(conn: &Connection) -> Result<Position, Error> {
    position(text(conn, "SELECT littoral_checkpoint()")?)
}

pub(crate) fn snapshot_of(conn: &Connection, name: &str) -> Result<Position, Error> {
    position(text(conn, &format!("SELECT littoral_snapshot('{}')", name.replace('\'', "''")))?)
}

pub(crate) fn status_of(conn: &Connection) -> Result<Status, Error> {
    off::done(async {
        let mut found = conn.query("SELECT name, CAST(value AS TEXT) FROM littoral_status", ()).await?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().await? {
            rows.push((row.get::<String>(0)?, row.get::<Option<String>>(1)?));
        }
        Ok(Status { rows })
    })
}

/// The first value that a statement answers.
pub(crate) fn text(conn: &Connection, sql: &str) -> Result<Option<String>, Error> {
    off::done(async {
        let mut rows = conn.query(sql, ()).await?;
        let Some(row) = rows.next().await? else { return Ok(None) };
        Ok(match row.get_value(0)? {
            libsql::Value::Null | libsql::Value::Blob(_) => None,
            libsql::Value::Integer(number) => Some(number.to_string()),
            libsql::Value::Real(number) => Some(number.to_string()),
            libsql::Value::Text(text) => Some(text),
        })
    })
}

fn position(answer: Option<String>) -> Result<Position, Error> {
    answer.as_deref().and_then(|text| text.parse().ok()).ok_or(Error::Broken)
}
