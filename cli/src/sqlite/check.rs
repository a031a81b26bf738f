//! SQLite's opinion of a database.

use super::raw::{Cell, Connection, Failure};
use super::{error, source};
use libsql::ffi;
use littoral_engine::exec::drill::Examined;
use littoral_ports::SourceError;
use std::ffi::{CStr, CString};
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

/// Rows of a probe's answer that are kept.
const ROWS_KEPT: usize = 20;

/// SQLite's opinion of a copy, and what it answers to a question, where one is asked. A question that fails is a problem of the copy's: it was
/// chosen because it works.
pub fn examine(path: &Path, busy_timeout: Duration, probe: Option<&str>) -> Result<Examined, SourceError> {
    let mut examined = Examined { problems: integrity_check(path, busy_timeout)?, answer: None };
    let Some(probe) = probe else { return Ok(examined) };
    let connection = source::connect(path, busy_timeout)?;
    match answer(&connection, probe) {
        Ok(answer) => examined.answer = Some(answer),
        Err(why) => examined.problems.push(format!("the probe failed: {why}")),
    }
    Ok(examined)
}

/// What one query answers: a row in each line, its values apart by bars.
fn answer(connection: &Connection, sql: &str) -> Result<String, String> {
    let text = CString::new(sql).map_err(|_| "there is a zero byte in it".to_owned())?;
    let failed = |failure: Failure| failure.message;
    let (statement, behind) = connection.first(&text).map_err(failed)?;
    let rest = text.to_bytes().get(behind..).unwrap_or_default();
    if !rest.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';') {
        return Err("it is more than one statement".to_owned());
    }
    let Some(mut statement) = statement else { return Err("it is no statement".to_owned()) };
    let mut lines = Vec::new();
    while statement.step().map_err(failed)? {
        if lines.len() == ROWS_KEPT {
            lines.push("…".to_owned());
            break;
        }
        lines.push(statement.row().iter().map(Cell::shown).collect::<Vec<_>>().join("|"));
    }
    Ok(lines.join("\n"))
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
