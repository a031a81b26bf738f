//! `littoral_log_truncate`, `littoral_log_cursor`, `littoral_log_ack`, `littoral_log_drop_cursor` and the table `littoral_log_stats`: what is asked of
//! logs, by a table's name or by a log's folder. Any database can, whichever VFS it was opened with.
//!
//! A cursor that a database keeps is a row of it, moved by the transaction that did what it stands for: exactly once. What the log's folder says of it
//! keeps the log from being truncated there, and may lag behind.

use super::{Cell, Function, Refusal, Rows, Run, Table};
use crate::logtable::{LOGS, found_by, has_logs, number, of_log, statement};
use crate::raw::asking::Asking;
use littoral_engine::logs::table::{Extent, TableLog, columns};
use littoral_engine::logs::{self, Cut, tables};
use littoral_ports::NoFaults;
use littoral_types::{Lsn, SessionName};
use std::path::{Path, PathBuf};

/// Everything of a log up to an LSN is done with, once the transaction commits. Gives where the cursor is then.
pub(super) const ACK: Function = Function { name: "littoral_log_ack", arguments_max: 3, run: Run::OfLogs(ack) };

/// Up to which LSN a cursor is done; makes it, before the first row or done up to an LSN.
pub(super) const CURSOR: Function =
    Function { name: "littoral_log_cursor", arguments_max: 3, run: Run::OfLogs(cursor) };

/// Lets a cursor go. Gives where it was.
pub(super) const DROP_CURSOR: Function =
    Function { name: "littoral_log_drop_cursor", arguments_max: 2, run: Run::OfLogs(drop_cursor) };

/// Lets the oldest segments of a table's log go, up to its cursors. Gives the LSN at which it begins then.
pub(super) const TRUNCATE: Function =
    Function { name: "littoral_log_truncate", arguments_max: 3, run: Run::OfLogs(truncate) };

/// The tables' logs, or one log: what it holds, who appends, and what reading it has cost this process.
pub(super) const STATS: Table = Table {
    name: "littoral_log_stats",
    columns: &[
        "name TEXT",
        "folder TEXT",
        "rows INTEGER",
        "first INTEGER",
        "last INTEGER",
        "void INTEGER",
        "start INTEGER",
        "log_last INTEGER",
        "segments INTEGER",
        "bytes INTEGER",
        "file_bytes INTEGER",
        "appender TEXT",
        "blocks_read INTEGER",
        "blocks_skipped INTEGER",
    ],
    rows: Rows::OfLogs(stats),
};

const CURSORS: &str = "littoral_log_cursors";

/// A log, as it was named.
struct Named {
    name: Option<String>,
    path: PathBuf,
    extent: Option<Extent>,
}

fn tables(asking: Asking, file: Option<&Path>) -> Result<Vec<Named>, Refusal> {
    if !has_logs(asking, "main")? {
        return Ok(Vec::new());
    }
    let sql = statement(&format!("SELECT name, folder, log, first, last, void FROM main.{LOGS} ORDER BY name"))?;
    let named = |row: Vec<Cell>| match row.as_slice() {
        [
            Cell::Text(name),
            Cell::Text(folder),
            Cell::Text(log),
            Cell::Number(first),
            Cell::Number(last),
            Cell::Text(void),
        ] => {
            let lsn = |number: &i64| u64::try_from(*number).map(Lsn).ok();
            let extent = lsn(first).zip(lsn(last)).and_then(|(first, last)| Extent::read(first, last, void));
            Some(Named { name: Some(name.clone()), path: found_by(file, folder, log), extent })
        }
        _ => None,
    };
    Ok(asking.rows(&sql, &[])?.into_iter().filter_map(named).collect())
}

fn named(asking: Asking, file: Option<&Path>, said: &str) -> Result<Named, Refusal> {
    let is_it = |table: &Named| table.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(said));
    if let Some(table) = tables(asking, file)?.into_iter().find(is_it) {
        return Ok(table);
    }
    let path = PathBuf::from(said);
    match logs::voids(&path) {
        Ok(_) => Ok(Named { name: None, path, extent: None }),
        Err(logs::LogError::NoLog(_)) => {
            Err(Refusal::usage(format!("{said}: neither a log's table of this database nor the folder of a log")))
        }
        Err(error) => Err(of_log(error)),
    }
}

fn text(said: Option<&Option<String>>) -> &str {
    said.and_then(Option::as_deref).unwrap_or_default()
}

fn lsn(said: Option<&Option<String>>) -> Result<Lsn, Refusal> {
    let said = text(said);
    let number = said.trim().parse().ok().filter(|number| i64::try_from(*number).is_ok());
    number.map(Lsn).ok_or_else(|| Refusal::usage(format!("not an LSN: {said:?}")))
}

fn reader(said: Option<&Option<String>>) -> Result<SessionName, Refusal> {
    text(said)
        .parse()
        .map_err(|error: littoral_types::SessionNameError| Refusal::usage(format!("a cursor's name: {error}")))
}

/// Lets the oldest rows of a log go: whole segments before an LSN, up to where its cursors are. Where it begins then. At once, whatever becomes of the
/// transaction.
fn truncate(asking: Asking, file: Option<PathBuf>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let log = named(asking, file.as_deref(), text(said.first()))?;
    let asked = lsn(said.get(1))?;
    // Another log may have a volume, which is to let go first.
    if columns(&log.path).map_err(of_log)?.is_none() {
        let path = log.path.display();
        return Err(Refusal::usage(format!(
            "{path}: is no table's log: littoral log truncate {path} lets its oldest records go"
        )));
    }
    if let Some(file) = &file {
        tables::may_truncate(file, &log.path)?;
    }
    if !asking.is_in_transaction() {
        kept(asking, file.as_deref(), &log)?;
    }
    let done = match said.get(2).map(|said| text(Some(said))) {
        None => logs::truncate(&log.path, Cut::Before(asked), false, &NoFaults),
        Some("past-cursors") => {
            // What its volume has not is lost with what is here.
            let shipped = tables::shipped_up_to(&log.path).map_err(of_log)?;
            let before = shipped.map_or(asked, |shipped| asked.min(shipped.next()));
            logs::truncate_past_cursors(&log.path, Cut::Before(before), false, &NoFaults)
        }
        Some(other) => {
            return Err(Refusal::usage(format!(
                "littoral_log_truncate(TABLE, LSN, 'past-cursors'), and not {other:?}"
            )));
        }
    };
    Ok(number(done.map_err(of_log)?.start))
}

/// What the cursors of this database have committed, told to the log's folder.
fn kept(asking: Asking, file: Option<&Path>, log: &Named) -> Result<(), Refusal> {
    let Some(file) = file else { return Ok(()) };
    let id = id_of(log)?;
    for row in cursors(asking)?.into_iter().filter(|row| row.log == id) {
        if let Ok(name) = row.cursor.parse() {
            match logs::ack(&log.path, &name, row.acked, Some(file)) {
                // Let go of there, or another database's by now.
                Ok(_) | Err(logs::LogError::NoCursor { .. } | logs::LogError::OthersCursor { .. }) => {}
                Err(error) => return Err(of_log(error)),
            }
        }
    }
    Ok(())
}

struct Row {
    log: String,
    cursor: String,
    acked: Lsn,
}

fn cursors(asking: Asking) -> Result<Vec<Row>, Refusal> {
    if !asking.has_table(CURSORS)? {
        return Ok(Vec::new());
    }
    let rows = asking.rows(&statement(&format!("SELECT log, cursor, acked FROM main.{CURSORS}"))?, &[])?;
    let read = |row: Vec<Cell>| match row.as_slice() {
        [Cell::Text(log), Cell::Text(cursor), Cell::Number(acked)] => {
            let acked = Lsn(u64::try_from(*acked).ok()?);
            Some(Row { log: log.clone(), cursor: cursor.clone(), acked })
        }
        _ => None,
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

fn id_of(log: &Named) -> Result<String, Refusal> {
    Ok(TableLog::open(&log.path).map_err(of_log)?.id().to_string())
}

fn keeper(file: Option<PathBuf>) -> Result<PathBuf, Refusal> {
    file.ok_or_else(|| Refusal::usage("a database in memory keeps no cursor: it would forget where it is"))
}

/// Up to where a cursor of this database is done. Made where it is not there yet: from the beginning, or done up to the LSN that is said.
fn cursor(asking: Asking, file: Option<PathBuf>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let log = named(asking, file.as_deref(), text(said.first()))?;
    let file = keeper(file)?;
    let (id, name) = (id_of(&log)?, reader(said.get(1))?);
    let is_it = |row: &Row| row.log == id && row.cursor == name.as_str();
    if let Some(row) = cursors(asking)?.into_iter().find(is_it) {
        // In a transaction it may be an acknowledgement that is rolled back yet.
        if !asking.is_in_transaction() {
            logs::keep_cursor(&log.path, &name, Some(row.acked), Some(&file)).map_err(of_log)?;
            logs::ack(&log.path, &name, row.acked, Some(&file)).map_err(of_log)?;
        }
        return Ok(number(row.acked));
    }
    let from = said.get(2).map(|from| lsn(Some(from))).transpose()?;
    within(&log, from)?;
    let made = logs::keep_cursor(&log.path, &name, from, Some(&file)).map_err(of_log)?;
    if !asking.has_table(CURSORS)? {
        asking.run(&format!(
            "CREATE TABLE main.{CURSORS}(log TEXT, cursor TEXT, acked INTEGER, PRIMARY KEY(log, cursor)) WITHOUT ROWID"
        ))?;
    }
    let insert = statement(&format!("INSERT INTO main.{CURSORS}(log, cursor, acked) VALUES (?1, ?2, ?3)"))?;
    asking.rows(&insert, &[Cell::Text(id), Cell::text(&name), number(made.acked)])?;
    Ok(number(made.acked))
}

/// What is beyond the last row that this transaction sees cannot have been done.
fn within(log: &Named, acked: Option<Lsn>) -> Result<(), Refusal> {
    let Some((acked, extent)) = acked.zip(log.extent.as_ref()) else { return Ok(()) };
    if acked > extent.last {
        return Err(of_log(logs::LogError::Beyond { asked: acked, last: extent.last }));
    }
    Ok(())
}

/// Everything up to an LSN is done with, once the transaction commits. Where the cursor is then: it never goes back.
fn ack(asking: Asking, file: Option<PathBuf>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let log = named(asking, file.as_deref(), text(said.first()))?;
    keeper(file)?;
    let (id, name, acked) = (id_of(&log)?, reader(said.get(1))?, lsn(said.get(2))?);
    let is_it = |row: &Row| row.log == id && row.cursor == name.as_str();
    let Some(row) = cursors(asking)?.into_iter().find(is_it) else {
        return Err(Refusal::usage(format!(
            "{}: this database keeps no cursor {name}: SELECT littoral_log_cursor('{}', '{name}') makes one",
            log.path.display(),
            text(said.first())
        )));
    };
    if acked <= row.acked {
        return Ok(number(row.acked));
    }
    match &log.extent {
        Some(_) => within(&log, Some(acked))?,
        None => {
            let last = logs::stats(&log.path).map_err(of_log)?.last;
            if acked > last {
                return Err(of_log(logs::LogError::Beyond { asked: acked, last }));
            }
        }
    }
    let update = statement(&format!("UPDATE main.{CURSORS} SET acked = ?3 WHERE log = ?1 AND cursor = ?2"))?;
    asking.rows(&update, &[Cell::Text(id), Cell::text(&name), number(acked)])?;
    Ok(number(acked))
}

/// Lets a cursor of this database go.
fn drop_cursor(asking: Asking, file: Option<PathBuf>, said: &[Option<String>]) -> Result<Cell, Refusal> {
    let log = named(asking, file.as_deref(), text(said.first()))?;
    let file = keeper(file)?;
    let (id, name) = (id_of(&log)?, reader(said.get(1))?);
    let known = logs::cursor(&log.path, &name).map_err(of_log)?;
    if known.database.as_deref() != Some(&file) {
        return Err(of_log(logs::LogError::OthersCursor { name, database: known.database }));
    }
    if asking.has_table(CURSORS)? {
        let delete = statement(&format!("DELETE FROM main.{CURSORS} WHERE log = ?1 AND cursor = ?2"))?;
        asking.rows(&delete, &[Cell::Text(id), Cell::text(&name)])?;
    }
    Ok(number(logs::drop_cursor(&log.path, &name).map_err(of_log)?.acked))
}

/// The rows of [`STATS`].
fn stats(asking: Asking, file: Option<PathBuf>, said: Option<&str>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let logs = match said {
        Some(said) => vec![named(asking, file.as_deref(), said)?],
        None => tables(asking, file.as_deref())?,
    };
    logs.into_iter().map(row_of).collect()
}

fn row_of(log: Named) -> Result<Vec<Cell>, Refusal> {
    let stats = logs::stats(&log.path).map_err(of_log)?;
    let (read, skipped) = TableLog::open(&log.path).map_err(of_log)?.counts();
    let extent = match log.extent {
        Some(extent) => extent,
        None => Extent { first: stats.start, last: stats.last, voids: logs::voids(&log.path).map_err(of_log)? },
    };
    let first = extent.first.max(stats.start);
    let void: u64 =
        extent.voids.iter().filter(|(_, to)| *to >= first).map(|(from, to)| to.0 + 1 - from.max(&first).0).sum();
    let sum = |of: fn(&logs::SegmentStats) -> u64| Cell::count(stats.segments.iter().map(of).sum());
    Ok(vec![
        log.name.map_or(Cell::Null, Cell::Text),
        Cell::text(log.path.display()),
        Cell::count((extent.last.0 + 1).saturating_sub(first.0).saturating_sub(void)),
        number(first),
        number(extent.last),
        Cell::count(void),
        number(stats.start),
        number(stats.last),
        Cell::count(stats.segments.len() as u64),
        sum(|segment| segment.bytes),
        sum(|segment| segment.file_bytes),
        stats.appender.map_or(Cell::Null, |(holder, since)| Cell::Text(format!("{holder}{since}"))),
        Cell::count(read),
        Cell::count(skipped),
    ])
}
