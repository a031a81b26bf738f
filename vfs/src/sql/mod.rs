//! What SQL can ask: pragmas, functions and tables, one file each, registered in the lists below.
//!
//! A verb is a pragma (`PRAGMA littoral_checkpoint`) and a function (`SELECT littoral_checkpoint()`); a table is there without being made
//! (`SELECT * FROM littoral_status`), and takes the schema as its one argument (`littoral_status('aux')`).

mod changes;
mod checkpoint;
mod checkpoints;
mod chunks;
mod hydrate;
mod last_error;
mod snapshot;
mod status;
mod version;

use crate::database::Database;
use crate::raw::abi::code;
use crate::raw::library::Library;
use crate::said::Said;
use crate::work::WorkError;
use littoral_ports::Manifest;
use littoral_types::VolumeId;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

/// How long a question to the object store may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a checkpoint that was asked for may take.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Number(i64),
    /// TEXT.
    Text(String),
}

impl Cell {
    fn count(number: u64) -> Self {
        Cell::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn text(text: impl ToString) -> Self {
        Cell::Text(text.to_string())
    }

    /// As a pragma answers it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Cell::Null => String::new(),
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => text.clone(),
        }
    }
}

/// Why a question was not answered, as SQLite says it.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// SQLite's code.
    pub(crate) code: c_int,
    /// Cause and way out.
    pub(crate) message: String,
}

impl Refusal {
    /// What was asked makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        let message = message.into();
        crate::last::refused(&message);
        Self { code: code::ERROR, message }
    }
}

impl From<WorkError> for Refusal {
    fn from(error: WorkError) -> Self {
        let message = crate::last::in_sql(&error.to_string());
        crate::last::error(&message);
        Self { code: crate::code::of_work(&error), message }
    }
}

impl From<littoral_engine::EngineError> for Refusal {
    fn from(error: littoral_engine::EngineError) -> Self {
        WorkError::from(error).into()
    }
}

/// What is asked about: a database of ours that is open on the connection.
pub(crate) struct Target {
    pub(crate) database: Arc<Database>,
    pub(crate) said: Said,
    pub(crate) library: &'static Library,
    /// Whether this connection keeps every other one out, ours included.
    pub(crate) keeps_out: bool,
}

type Answer = fn(Option<&Target>, &[Option<String>]) -> Result<Cell, Refusal>;
type Rows = fn(Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal>;

/// A pragma that is a function too.
pub(crate) struct Function {
    /// With our prefix.
    pub(crate) name: &'static str,
    /// How many arguments it takes at most.
    pub(crate) arguments_max: c_int,
    /// Answers it.
    pub(crate) run: Answer,
}

/// A table that is only read.
pub(crate) struct Table {
    /// With our prefix.
    pub(crate) name: &'static str,
    /// Its columns, as SQL declares them.
    pub(crate) columns: &'static [&'static str],
    /// All of its rows.
    pub(crate) rows: Rows,
}

/// Every pragma and function.
pub(crate) const FUNCTIONS: &[Function] = &[
    checkpoint::CHECKPOINT,
    hydrate::HYDRATE,
    hydrate::PREFETCH,
    last_error::LAST_ERROR,
    snapshot::SNAPSHOT,
    status::STATUS,
    checkpoint::SYNC,
    version::VERSION,
];

/// Every table.
pub(crate) const TABLES: &[Table] = &[changes::TABLE, checkpoints::TABLE, chunks::TABLE, status::TABLE];

type Known = (Arc<dyn Manifest>, VolumeId);

/// The local manifest, and the volume's id in it; `None` as long as nothing was published from here.
fn manifest_of(target: Option<&Target>) -> Result<Option<Known>, Refusal> {
    let Target { database, said, .. } = ours(target)?;
    let place = said.place(database.path())?;
    let Some(found) = &place.found else { return Ok(None) };
    Ok(place.manifest()?.map(|manifest| (manifest, found.binding.id)))
}

/// The database that is asked about, or why there is none.
fn ours(target: Option<&Target>) -> Result<&Target, Refusal> {
    target.ok_or_else(|| {
        Refusal::usage(
            "there is no such database here, or it was not opened through littoral: open it as file:NAME?vfs=littoral, or name a \
             remote for it (LITTORAL_REMOTE, littoral.toml)",
        )
    })
}

/// The same, where a connection of our own is to read beside this one: refused at once where it would wait for this very connection.
fn shared(target: Option<&Target>) -> Result<&Target, Refusal> {
    let target = ours(target)?;
    if !target.keeps_out {
        return Ok(target);
    }
    let message = format!(
        "{}: this connection keeps every other one out (locking_mode=EXCLUSIVE, or a transaction of a rollback journal), and a \
         checkpoint reads through one of its own. Commit, say PRAGMA locking_mode=NORMAL and read once; or let the last close do it \
         (close_wait=)",
        target.database.path().display()
    );
    crate::last::error(&message);
    Err(Refusal { code: code::BUSY, message })
}
