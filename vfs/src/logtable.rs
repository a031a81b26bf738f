//! `CREATE VIRTUAL TABLE … USING littoral_log(…)`: what a log's table says to its database, on the application's own connection (rule P11).
//!
//! 1. Which records of the log are rows is a row of the table `littoral_logs`, read and written in the transaction that asks. It decides.
//! 2. The log is where that row says: beside the database, or where `log=` said when the table was made.
//! 3. A process appends to a log from its first insert until no connection of it has the table any more.
//!
//! SQLite's calls are in `raw/logtable.rs`; what a log's table is, in `littoral_engine::logs::table`.

use crate::raw::abi::code;
use crate::raw::asking::Asking;
use crate::sql::{Cell, Refusal};
use littoral_engine::EngineError;
use littoral_engine::logs::schema::{Schema, quoted};
use littoral_engine::logs::table::{Ask, Draft, Extent, Scan, TableError, TableLog, columns, keep_columns};
use littoral_engine::logs::{self, Log, LogError, LogParts, tables};
use littoral_types::{Lsn, VolumeId};
use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The table of a database that says which records of which logs are rows.
pub(crate) const LOGS: &str = "littoral_logs";
/// How often it is looked whether whoever appends has let go.
const PAUSE: Duration = Duration::from_millis(5);

#[cfg(feature = "faults")]
static FAULTS: std::sync::OnceLock<Arc<dyn littoral_ports::Faults>> = std::sync::OnceLock::new();

#[cfg(feature = "faults")]
pub(crate) fn die_at(faults: Arc<dyn littoral_ports::Faults>) {
    let _ = FAULTS.set(faults);
}

fn parts() -> LogParts {
    let parts = logs::of_this_machine();
    #[cfg(feature = "faults")]
    if let Some(faults) = FAULTS.get() {
        return LogParts { faults: Arc::clone(faults), ..parts };
    }
    parts
}

/// A log's table, as one connection has it.
pub(crate) struct LogTable {
    /// The schema that it is in, as the connection calls it.
    place: String,
    name: String,
    pub(crate) schema: Arc<Schema>,
    /// The database's file; none in memory.
    file: Option<PathBuf>,
    log: Option<Arc<TableLog>>,
    /// The row of the database, as the transaction that adds rows has found it.
    extent: Option<Extent>,
    pub(crate) draft: Draft,
    /// Whose rows are added where no row says.
    pub(crate) session: Option<String>,
    /// How many rows there were when it was looked last.
    pub(crate) rows: u64,
    /// Whether the database's text is UTF-8, once somebody has asked.
    is_utf8: Option<bool>,
}

/// The row of the database.
struct Entry {
    folder: PathBuf,
    id: String,
    extent: Extent,
}

pub(crate) fn refused(error: TableError) -> Refusal {
    let (code, message) = match error {
        TableError::Log(error) => return of_log(error),
        TableError::TooLarge { .. } => (code::TOOBIG, error.to_string()),
        TableError::Behind { .. } | TableError::NoRow { .. } => (code::CORRUPT, error.to_string()),
        TableError::Taken { .. } => (code::BUSY, error.to_string()),
        TableError::Interrupted => (code::INTERRUPT, error.to_string()),
    };
    said(code, message)
}

pub(crate) fn of_log(error: LogError) -> Refusal {
    let code = match &error {
        LogError::Local(_) => {
            return match error {
                LogError::Local(error) => EngineError::from(error).into(),
                error => said(code::IOERR, error.to_string()),
            };
        }
        LogError::NoLog(_) => code::CANTOPEN,
        LogError::Fenced { .. } => code::READONLY,
        LogError::Busy { .. } => code::BUSY,
        LogError::TooLarge { .. } => code::TOOBIG,
        LogError::Damaged { .. } | LogError::Broken { .. } | LogError::Serials { .. } => code::CORRUPT,
        LogError::Stopped { .. } | LogError::Closed | LogError::Crash(_) => code::IOERR,
        LogError::Exists { .. } | LogError::Held(_) | LogError::TooMany { .. } | LogError::Behind { .. } => code::ERROR,
        LogError::Anonymous | LogError::Truncated { .. } | LogError::Beyond { .. } => code::ERROR,
        LogError::RolledBack { .. } | LogError::NotRolledBack { .. } => code::ERROR,
        LogError::NoCursor { .. } | LogError::OthersCursor { .. } => code::ERROR,
    };
    said(code, error.to_string())
}

fn said(code: c_int, message: String) -> Refusal {
    crate::last::refused(&message);
    Refusal { code, message }
}

/// Whether a schema has the table of logs.
pub(crate) fn has_logs(asking: Asking, place: &str) -> Result<bool, Refusal> {
    let sql = format!("SELECT 1 FROM {}.sqlite_master WHERE type = 'table' AND name = '{LOGS}'", quoted(place));
    Ok(!asking.rows(&statement(&sql)?, &[])?.is_empty())
}

pub(crate) fn statement(sql: &str) -> Result<CString, Refusal> {
    CString::new(sql).map_err(|_| Refusal::usage("a zero byte in a name"))
}

/// The folder of a log that a database names.
pub(crate) fn found_at(file: Option<&Path>, folder: &str) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(beside) => beside.join(folder),
        None => PathBuf::from(folder),
    }
}

/// The same of a log that is there: one that was restored for this very file comes first.
pub(crate) fn found_by(file: Option<&Path>, folder: &str, log: &str) -> PathBuf {
    match (file, VolumeId::from_hex(log)) {
        (Some(file), Some(log)) => tables::found(file, folder, log),
        _ => found_at(file, folder),
    }
}

impl LogTable {
    /// As it is declared, and nothing of it looked at.
    pub(crate) fn connect(
        place: &str,
        name: &str,
        arguments: &[String],
        file: Option<PathBuf>,
    ) -> Result<Self, Refusal> {
        let schema = Schema::parse(arguments.iter().map(String::as_str))
            .map_err(|why| Refusal::usage(format!("{name}: {why}")))?;
        Ok(Self {
            place: place.to_owned(),
            name: name.to_owned(),
            schema: Arc::new(schema),
            file,
            log: None,
            extent: None,
            draft: Draft::default(),
            session: None,
            rows: 0,
            is_utf8: None,
        })
    }

    /// Makes the table: its log, where there is none yet, and the row of the database.
    pub(crate) fn create(
        asking: Asking,
        place: &str,
        name: &str,
        arguments: &[String],
        file: Option<PathBuf>,
    ) -> Result<Self, Refusal> {
        if place.eq_ignore_ascii_case("temp") {
            return Err(Refusal::usage(format!("{name}: a log outlives its connection: it has no table in temp")));
        }
        let table = Self::connect(place, name, arguments, file)?;
        let said = quoted(place);
        if !has_logs(asking, place)? {
            asking.run(&format!(
                "CREATE TABLE {said}.{LOGS}(name TEXT PRIMARY KEY COLLATE NOCASE, folder TEXT UNIQUE, log TEXT, first INTEGER, last INTEGER, \
                 void TEXT)"
            ))?;
        }
        let folder = table.chosen(asking)?;
        let log = found_at(table.file.as_deref(), &folder);
        let is_taken_up = table.schema.log.is_some();
        match Log::create(&log, &parts()) {
            Ok(_) | Err(LogError::Exists { what: "a log is there already", .. }) => {}
            Err(error) => return Err(of_log(error)),
        }
        let stats = logs::stats(&log).map_err(of_log)?;
        match columns(&log).map_err(of_log)? {
            Some(kept) => {
                if let Some(differs) = table.schema.differs(&kept) {
                    return Err(Refusal::usage(format!("{name}: {}: {differs}", log.display())));
                }
            }
            None if stats.last == Lsn::ZERO => keep_columns(&log, &table.schema.said()).map_err(of_log)?,
            None => {
                return Err(Refusal::usage(format!(
                    "{name}: {}: this log has records that are no table's rows: name an empty folder for it (log='PATH')",
                    log.display()
                )));
            }
        }
        // A log that was named is taken up with all its rows; beside the database a table begins without any.
        let first = if is_taken_up { stats.start } else { stats.last.next() };
        let insert =
            format!("INSERT INTO {said}.{LOGS}(name, folder, log, first, last, void) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
        let voids = Extent { voids: logs::voids(&log).map_err(of_log)?, ..Extent::default() };
        let values = [
            Cell::Text(name.to_owned()),
            Cell::Text(folder),
            Cell::Text(stats.id.to_string()),
            number(first),
            number(stats.last),
            Cell::Text(if is_taken_up { voids.said() } else { String::new() }),
        ];
        asking.rows(&statement(&insert)?, &values)?;
        Ok(table)
    }

    /// Where the log of a new table is: what `log=` says, or beside the database, where no other table has its own.
    fn chosen(&self, asking: Asking) -> Result<String, Refusal> {
        let taken = format!("SELECT name FROM {}.{LOGS} WHERE folder = ?1", quoted(&self.place));
        let taken = statement(&taken)?;
        let owner =
            |folder: &str| Ok::<_, Refusal>(asking.rows(&taken, &[Cell::Text(folder.to_owned())])?.into_iter().next());
        let folders = statement(&format!("SELECT name, folder FROM {}.{LOGS}", quoted(&self.place)))?;
        let folders = asking.rows(&folders, &[])?;
        let is_named = |key: &str| {
            let is_it =
                |row: &&Vec<Cell>| matches!(row.get(1), Some(Cell::Text(folder)) if tables::key_of(folder) == key);
            folders.iter().find(is_it).and_then(|row| row.first()).map(Cell::shown)
        };
        if let Some(log) = &self.schema.log {
            let log = log.to_string_lossy().into_owned();
            if let (None, Some(of)) = (owner(&log)?, is_named(&tables::key_of(&log))) {
                return Err(Refusal::usage(format!(
                    "{}: the log of table {of} ends its name like {log}, too: their volumes would have one name. Name another folder",
                    self.name
                )));
            }
            return match owner(&log)? {
                None => Ok(log),
                Some(row) => {
                    let of = row.first().map(Cell::shown).unwrap_or_default();
                    Err(Refusal::usage(format!(
                        "{}: {log} is the log of the table {of}: a log is one table's",
                        self.name
                    )))
                }
            };
        }
        let Some(file) = self.file.as_deref().and_then(Path::file_name) else {
            return Err(Refusal::usage(format!(
                "{}: a database in memory has no place for a log: name one (log='PATH')",
                self.name
            )));
        };
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '_' };
        let own: String = self.name.chars().map(plain).collect::<String>().to_ascii_lowercase();
        let folder = format!(".littoral/logs/{}/{own}", file.to_string_lossy());
        let mut named = folder.clone();
        let mut nth = 2;
        while is_named(&tables::key_of(&named)).is_some() {
            named = format!("{folder}-{nth}");
            nth += 1;
        }
        Ok(named)
    }

    /// The table goes; its log stays.
    pub(crate) fn destroy(&mut self, asking: Asking) -> Result<(), Refusal> {
        self.end();
        if !has_logs(asking, &self.place)? {
            return Ok(());
        }
        let delete = format!("DELETE FROM {}.{LOGS} WHERE name = ?1", quoted(&self.place));
        asking.rows(&statement(&delete)?, &[Cell::Text(self.name.clone())]).map(drop)
    }

    pub(crate) fn rename(&mut self, asking: Asking, name: &str) -> Result<(), Refusal> {
        // SQLite goes on with another connection of ours to the table, which knows nothing of them.
        if !self.draft.is_empty() {
            let message =
                format!("{}: this transaction has added rows to it: commit them first, then rename it", self.name);
            return Err(Refusal::usage(message));
        }
        let update = format!("UPDATE {}.{LOGS} SET name = ?2 WHERE name = ?1", quoted(&self.place));
        asking.rows(&statement(&update)?, &[Cell::Text(self.name.clone()), Cell::Text(name.to_owned())])?;
        // If this is rolled back, the schema is read again, and the table connected anew.
        self.name = name.to_owned();
        Ok(())
    }

    fn entry(&self, asking: Asking) -> Result<Entry, Refusal> {
        let select =
            format!("SELECT folder, log, first, last, void FROM {}.{LOGS} WHERE name = ?1", quoted(&self.place));
        let rows = asking.rows(&statement(&select)?, &[Cell::Text(self.name.clone())])?;
        let read = |row: &Vec<Cell>| match row.as_slice() {
            [Cell::Text(folder), Cell::Text(id), Cell::Number(first), Cell::Number(last), Cell::Text(void)] => {
                let lsn = |number: i64| u64::try_from(number).ok().map(Lsn);
                let extent = Extent::read(lsn(*first)?, lsn(*last)?, void)?;
                Some(Entry { folder: PathBuf::from(folder), id: id.clone(), extent })
            }
            _ => None,
        };
        rows.first().and_then(read).ok_or_else(|| {
            said(
                code::CORRUPT,
                format!(
                    "{}: the table {LOGS} does not say where its log is: something else has written there. DROP TABLE lets go of the table, \
                     CREATE VIRTUAL TABLE with log='PATH' takes the log up again",
                    self.name
                ),
            )
        })
    }

    /// The log, and which of its records are rows in the transaction that asks.
    pub(crate) fn look(&mut self, asking: Asking) -> Result<(Arc<TableLog>, Extent), Refusal> {
        let entry = self.entry(asking)?;
        self.rows = (entry.extent.last.0 + 1).saturating_sub(entry.extent.first.0);
        if let Some(log) = &self.log {
            return Ok((Arc::clone(log), entry.extent));
        }
        let path = found_by(self.file.as_deref(), &entry.folder.to_string_lossy(), &entry.id);
        if let Some(file) = self.file.as_deref().filter(|file| tables::is_doubted(file, &path)) {
            let message = format!(
                "{}: {}: was there before this database was opened from its volume, and nobody has looked whether it is the log that belongs \
                 to it: littoral log bring {}",
                self.name,
                path.display(),
                file.display()
            );
            return Err(said(code::CANTOPEN, message));
        }
        let log = TableLog::open(&path).map_err(|error| self.missing(error))?;
        if log.id().to_string() != entry.id {
            let message =
                format!("{}: {}: this is another log than the one the table was made with", self.name, path.display());
            return Err(said(code::CORRUPT, message));
        }
        if let Some(differs) = columns(&path).map_err(of_log)?.and_then(|kept| self.schema.differs(&kept)) {
            return Err(said(code::CORRUPT, format!("{}: {}: {differs}", self.name, path.display())));
        }
        self.log = Some(Arc::clone(&log));
        Ok((log, entry.extent))
    }

    /// A log that is not here may be in the object store.
    fn missing(&self, error: LogError) -> Refusal {
        match (error, &self.file) {
            (LogError::NoLog(_), Some(file)) if tables::is_replica(file) => {
                said(code::CANTOPEN, format!("{}: {}", self.name, tables::NOT_IN_A_REPLICA))
            }
            (error @ LogError::NoLog(_), Some(file)) => {
                let file = file.display();
                said(
                    code::CANTOPEN,
                    format!(
                        "{}: {error}: the log of this table is not here. Where the database has a volume: littoral log bring {file}",
                        self.name
                    ),
                )
            }
            (error, _) => of_log(error),
        }
    }

    /// Before the first row of a transaction: who appends, and from where.
    pub(crate) fn begin(&mut self, asking: Asking) -> Result<(), Refusal> {
        if self.extent.is_some() {
            return Ok(());
        }
        let (log, extent) = self.look(asking)?;
        self.tell_of_logs()?;
        let mut until = None;
        let first = loop {
            match log.begin(parts(), &extent) {
                Ok(first) => break first,
                Err(TableError::Log(busy @ LogError::Busy { .. })) => {
                    let until = match until {
                        Some(until) => until,
                        None => *until.insert(Instant::now() + patience(asking)?),
                    };
                    if Instant::now() >= until {
                        return Err(of_log(busy));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(refused(error)),
            }
        };
        self.draft.begin(first);
        self.extent = Some(extent);
        Ok(())
    }

    /// Who ships the database looks for logs where this folder is.
    fn tell_of_logs(&self) -> Result<(), Refusal> {
        let Some(folder) = self.file.as_deref().map(tables::folder_of).filter(|folder| !folder.exists()) else {
            return Ok(());
        };
        std::fs::create_dir_all(&folder)
            .map_err(|error| said(code::CANTOPEN, format!("{}: {}: {error}", self.name, folder.display())))
    }

    /// The transaction commits: the log first, then the row of the database, which SQLite commits with everything else.
    pub(crate) fn sync(&mut self, asking: Asking) -> Result<(), Refusal> {
        let (Some(log), Some(extent)) = (&self.log, &self.extent) else { return Ok(()) };
        if self.draft.is_empty() {
            return Ok(());
        }
        let parts = parts();
        let extent = log.append(&mut self.draft, extent, &parts).map_err(refused)?;
        let update = format!("UPDATE {}.{LOGS} SET last = ?2, void = ?3 WHERE name = ?1", quoted(&self.place));
        let values = [Cell::Text(self.name.clone()), number(extent.last), Cell::Text(extent.said())];
        asking.rows(&statement(&update)?, &values)?;
        parts.faults.reach("log.table.noted").map_err(|crash| of_log(LogError::from(crash)))
    }

    /// The transaction is over, one way or the other.
    pub(crate) fn end(&mut self) {
        self.draft.clear();
        self.extent = None;
        self.session = None;
    }

    /// Whether SQLite orders text as the bytes that the log keeps are ordered.
    pub(crate) fn is_in_order_of_bytes(&mut self, asking: Asking) -> bool {
        *self.is_utf8.get_or_insert_with(|| {
            let rows = asking.rows(c"PRAGMA encoding", &[]).unwrap_or_default();
            matches!(rows.first().map(Vec::as_slice), Some([Cell::Text(name)]) if name == "UTF-8")
        })
    }

    /// Reads what is committed, in the transaction that asks.
    pub(crate) fn scan(&mut self, asking: Asking, ask: Ask) -> Result<Scan, Refusal> {
        let (log, extent) = self.look(asking)?;
        log.scan(&self.schema, &extent, ask).map_err(refused)
    }

    /// What is refused of a log's rows.
    pub(crate) fn stays(&self) -> Refusal {
        Refusal::usage(format!(
            "{}: the rows of a log stay as they were appended: SELECT littoral_log_truncate('{}', LSN) lets the oldest go",
            self.name, self.name
        ))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn number(lsn: Lsn) -> Cell {
    Cell::Number(i64::try_from(lsn.0).unwrap_or(i64::MAX))
}

/// How long the connection waits for what others hold.
fn patience(asking: Asking) -> Result<Duration, Refusal> {
    let rows = asking.rows(c"PRAGMA busy_timeout", &[])?;
    let ms = rows.first().and_then(|row| match row.first() {
        Some(Cell::Number(ms)) => u64::try_from(*ms).ok(),
        _ => None,
    });
    Ok(Duration::from_millis(ms.unwrap_or(0)))
}
