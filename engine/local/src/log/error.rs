//! What can go wrong with a log, by what the caller does next.

use crate::error::LocalError;
use littoral_format::FormatError;
use littoral_format::log::LogBreak;
use littoral_ports::Crash;
use littoral_types::{Lsn, Serial, SessionName};
use std::path::{Path, PathBuf};

/// Why a log did not do what was asked. What was acknowledged before stays.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk, or a lock. See there.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// There is no log. Make one, or correct the path.
    #[error("{path}: no log is there", path = .0.display())]
    NoLog(PathBuf),
    /// There is something already. Choose another place.
    #[error("{path}: {what}", path = path.display())]
    Exists {
        /// Where.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// Another process appends. End it, or append through it.
    #[error("{path}: {holder} appends to this log{since}; a log has one appending process, and any number of readers", path = path.display())]
    Busy {
        /// Which log.
        path: PathBuf,
        /// Who.
        holder: String,
        /// Since when, with a word before it; empty where that cannot be told.
        since: String,
    },
    /// A session is one appender's alone. Use that one, or another name.
    #[error("session {0} has an appender already, in this process")]
    Held(SessionName),
    /// More at once than a log has. Let one go first.
    #[error("{what}: at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// More than a record holds. Append less at once; nothing was appended.
    #[error("a record of {len} bytes is too large: at most {max}")]
    TooLarge {
        /// How much.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The session is past this serial: the record was appended before, or the numbers are mixed up. Nothing was appended.
    #[error("session {session} is at serial {last}: serial {serial} was not appended, serials go up")]
    Behind {
        /// Which.
        session: SessionName,
        /// Where it is.
        last: Serial,
        /// What was asked.
        serial: Serial,
    },
    /// A serial for an appender without a session's name. Open it with one.
    #[error("an appender without a session's name has no serials")]
    Anonymous,
    /// What was asked for is gone. Go on from where the log begins now.
    #[error("the log begins at LSN {start} now: what was before, LSN {asked} with it, was truncated")]
    Truncated {
        /// What was asked for.
        asked: Lsn,
        /// Where it begins.
        start: Lsn,
    },
    /// What was asked for is gone, or will be another record. Go on from where the log goes on now.
    #[error("the log ends at LSN {end} now{on}: what was behind, LSN {asked} with it, was rolled back", on = goes_on(*end, *next))]
    RolledBack {
        /// What was asked for.
        asked: Lsn,
        /// The last record that stayed.
        end: Lsn,
        /// The record with which it goes on, or will.
        next: Lsn,
    },
    /// Its end stays as it is. See why; nothing was changed.
    #[error("{path}: cannot be rolled back there: {why}. Nothing was changed", path = path.display())]
    NotRolledBack {
        /// Which log.
        path: PathBuf,
        /// Why, and where there is one, the way out.
        why: String,
    },
    /// A place that the log has not reached. Nothing was changed.
    #[error("LSN {asked} is beyond the log's end (its last record is {last})")]
    Beyond {
        /// What was asked for.
        asked: Lsn,
        /// Its last record.
        last: Lsn,
    },
    /// Nobody of this name reads the log. Make the cursor, or correct the name.
    #[error("{path}: there is no cursor {name}: littoral log cursors create makes one", path = path.display())]
    NoCursor {
        /// Which log.
        path: PathBuf,
        /// Who was asked for.
        name: SessionName,
    },
    /// A cursor is moved by who keeps it. Move it there, or choose another name.
    #[error("cursor {name} is kept by {who}: it is moved there, or another name is chosen", who = match database {
        Some(database) => format!("the database {}", database.display()),
        None => "the log itself (littoral log cursors)".to_owned(),
    })]
    OthersCursor {
        /// Which.
        name: SessionName,
        /// The database that keeps it; where there is none, the log's folder does.
        database: Option<PathBuf>,
    },
    /// Appending stopped when the disk failed: what it had accepted and not acknowledged may be lost. Look at the disk, then open the log again.
    #[error("appending has stopped, up to LSN {durable} all is on the disk: {reason}")]
    Stopped {
        /// The last record that is durable.
        durable: Lsn,
        /// What went wrong first.
        reason: String,
    },
    /// Another one appends to the log's volume, from elsewhere. What was appended here stays here; go on there, or take it back by name.
    #[error("nobody appends from here any more, up to LSN {durable} all is on the disk: {why}")]
    Fenced {
        /// The last record that is durable here.
        durable: Lsn,
        /// Who does, and since when.
        why: String,
    },
    /// The log was closed. Open it again.
    #[error("the log is closed")]
    Closed,
    /// Bytes that are not those that were written. Restore the log, or truncate what is before.
    #[error("{path}: damaged at byte {offset}, at LSN {lsn}: {source}", path = path.display())]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The record that should begin there.
        lsn: Lsn,
        /// How.
        source: FormatError,
    },
    /// Segments that do not follow one another. Restore the log.
    #[error("{path}: {detail}", path = path.display())]
    Broken {
        /// Which.
        path: PathBuf,
        /// How.
        detail: String,
    },
    /// Serials that cannot be right: whoever resumed by them would lose records, or append them twice. Restore the log.
    #[error("{path}: its serials are not to be believed: {source}", path = path.display())]
    Serials {
        /// Which segment.
        path: PathBuf,
        /// Whose, and how.
        source: LogBreak,
    },
    /// A test's crash.
    #[error(transparent)]
    Crash(#[from] Crash),
}

fn goes_on(end: Lsn, next: Lsn) -> String {
    if next == end.next() { String::new() } else { format!(", and goes on at LSN {next}") }
}

impl LogError {
    /// Whether a newer Littoral wrote it: no damage, but this version must not touch it.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            LogError::Damaged { source: FormatError::Newer { .. }, .. } | LogError::Local(LocalError::Newer { .. })
        )
    }

    pub(super) fn damaged(path: &Path, offset: u64, lsn: Lsn) -> impl FnOnce(FormatError) -> LogError {
        move |source| LogError::Damaged { path: path.to_owned(), offset, lsn, source }
    }
}
