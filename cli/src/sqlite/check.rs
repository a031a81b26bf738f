//! SQLite's opinion of a database.

use super::raw::{Connection, Failure};
use super::{error, source};
use libsql::ffi;
use littoral_ports::SourceError;
use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

/// Everything that SQLite's `integrity_check` finds wrong, at most a hundred problems; nothing when the database is sound.
///
/// For a copy that was restored. A schema that names collations or functions of an application gets the structural
/// `quick_check`, since only the application could say how its indexes are ordered.
pub fn integrity_check(path: &Path, busy_timeout: Duration) -> Result<Vec<String>, SourceError> {
    let connection = source::connect(path, busy_timeout)?;
    let problems = match problems(&connection, c"PRAGMA integrity_check(100)") {
        Err(failure) if failure.primary() == ffi::SQLITE_ERROR => {
            tracing::info!(path = %path.display(), reason = failure.message, "checking the structure only");
            quick_check(&connection, c"PRAGMA quick_check(100)")
        }
        answered => answered,
    };
    match problems.map_err(|failure| error::reading(path, &failure)) {
        // A database that is too broken to be checked is what the caller wants to know, not why nothing is known.
        Err(broken @ (SourceError::Corrupt(_) | SourceError::NotADatabase(_))) => Ok(vec![broken.to_string()]),
        answered => answered,
    }
}

/// The structural check, which needs nobody's collations.
pub(super) fn quick_check(connection: &Connection, sql: &CStr) -> Result<Vec<String>, Failure> {
    connection.stand_in_for_collations()?;
    problems(connection, sql)
}

fn problems(connection: &Connection, sql: &CStr) -> Result<Vec<String>, Failure> {
    let mut rows = connection.prepare(sql)?;
    let mut problems = Vec::new();
    while rows.step()? {
        problems.push(rows.text());
    }
    if problems.len() == 1 && problems[0] == "ok" {
        problems.clear();
    }
    Ok(problems)
}
