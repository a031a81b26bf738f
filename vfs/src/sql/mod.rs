//! What SQL can ask: pragmas, functions and tables, one file each, registered in the lists below.
//!
//! A verb is a pragma (`PRAGMA littoral_checkpoint`) and a function (`SELECT littoral_checkpoint()`); a table is there without being made
//! (`SELECT * FROM littoral_status`), and takes the schema as its one argument (`littoral_status('aux')`).

mod at;
mod changes;
mod checkpoint;
mod checkpoints;
mod chunks;
mod durability;
mod hydrate;
mod jobs;
mod lag;
mod last_error;
mod leases;
mod logs;
mod release;
pub(crate) mod session;
mod setting;
mod snapshot;
mod status;
mod terms;
mod version;
mod wait;

use crate::database::Database;
use crate::durable::Wish;
use crate::raw::abi::code;
use crate::raw::asking::Asking;
use crate::raw::library::Library;
use crate::said::Said;
use crate::seat::Seat;
use crate::work::{self, Ground, WorkError};
use littoral_engine::{EngineError, Log};
use littoral_ports::Manifest;
use littoral_types::{Position, VolumeId};
use std::ffi::c_int;
use std::future::Future;
use std::path::PathBuf;
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
    /// When this connection's commits count as done.
    pub(crate) wish: Arc<Wish>,
    /// What this connection's read transaction shows, of a replica.
    pub(crate) shown: Option<Position>,
    /// Which session this connection is.
    pub(crate) seat: Arc<Seat>,
    /// The connection itself, as long as it asks.
    pub(crate) asking: Asking,
}

type Answer = fn(Option<&Target>, &[Option<String>]) -> Result<Cell, Refusal>;
type AnswerOfLogs = fn(Asking, Option<PathBuf>, &[Option<String>]) -> Result<Cell, Refusal>;
type Answers = Result<Vec<Vec<Cell>>, Refusal>;

/// What answers a function.
pub(crate) enum Run {
    /// Asked of a database of ours; a pragma, too.
    OfDatabase(Answer),
    /// Asked of logs, by any connection: for the file of its main database.
    OfLogs(AnswerOfLogs),
}

/// What gives all rows of a table.
pub(crate) enum Rows {
    /// Asked of a database of ours.
    OfDatabase(fn(Option<&Target>) -> Answers),
    /// Asked of logs, by any connection: for the file of its main database, of all its tables' logs or of the one that is named.
    OfLogs(fn(Asking, Option<PathBuf>, Option<&str>) -> Answers),
}

/// A function.
pub(crate) struct Function {
    /// With our prefix.
    pub(crate) name: &'static str,
    /// How many arguments it takes at most.
    pub(crate) arguments_max: c_int,
    /// Answers it.
    pub(crate) run: Run,
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

/// Every function that is a pragma, too, and what answers it.
pub(crate) fn pragmas() -> impl Iterator<Item = (&'static Function, Answer)> {
    FUNCTIONS.iter().filter_map(|function| match function.run {
        Run::OfDatabase(run) => Some((function, run)),
        Run::OfLogs(_) => None,
    })
}

/// Every function.
pub(crate) const FUNCTIONS: &[Function] = &[
    at::AT,
    checkpoint::CHECKPOINT,
    durability::DURABILITY,
    durability::ONCE,
    durability::DURABLE_LSN,
    hydrate::HYDRATE,
    hydrate::PREFETCH,
    lag::LAG,
    last_error::LAST_ERROR,
    last_error::TAKE_ERROR,
    logs::ACK,
    logs::CURSOR,
    logs::DROP_CURSOR,
    logs::TRUNCATE,
    release::RELEASE,
    session::DURABLE_SERIAL,
    session::SERIAL,
    session::SESSION,
    setting::SETTING,
    snapshot::SNAPSHOT,
    status::STATUS,
    checkpoint::SYNC,
    version::VERSION,
    wait::WAIT,
];

/// Every table.
pub(crate) const TABLES: &[Table] = &[
    changes::TABLE,
    checkpoints::TABLE,
    chunks::TABLE,
    jobs::TABLE,
    leases::TABLE,
    logs::STATS,
    session::TABLE,
    status::TABLE,
    terms::TABLE,
];

/// The schema that a function is about: one that takes a schema's name says so, all others mean the main one.
pub(crate) fn schema_of<'a>(function: &Function, arguments: &'a [Option<String>]) -> Option<&'a str> {
    let takes_schema = function.name == at::AT.name;
    arguments.first().filter(|_| takes_schema).and_then(Option::as_deref)
}

type Known = (Arc<dyn Manifest>, VolumeId);

/// The local manifest, and the volume's id in it; `None` as long as nothing was published from here.
fn manifest_of(target: Option<&Target>) -> Result<Option<Known>, Refusal> {
    let Target { database, said, .. } = ours(target)?;
    let place = said.place(database.path())?;
    let Some(found) = &place.found else { return Ok(None) };
    Ok(place.manifest()?.map(|manifest| (manifest, found.binding.id)))
}

/// What the volume's log answers. Nothing where nothing was published from here yet: whatever lies under that name is somebody else's.
fn of_log<T, F>(target: Option<&Target>, ask: impl FnOnce(Log) -> F + Send + 'static) -> Result<Vec<T>, Refusal>
where
    T: Send + 'static,
    F: Future<Output = Result<Vec<T>, EngineError>>,
{
    let Target { database, said, .. } = ours(target)?;
    let Ground { place, said, components } = work::ground(database.path(), said)?;
    if place.found.is_none() {
        return Ok(Vec::new());
    }
    let asked = work::run(DEADLINE, async move || {
        let (log, _) = place.log(&said.settings, &components)?;
        ask(log).await
    });
    Ok(asked?)
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
    if target.database.replica().is_some() {
        let message = format!(
            "{}: is a replica: it is only read here, and published by whoever writes its volume",
            target.database.path().display()
        );
        crate::last::error(&message);
        return Err(Refusal { code: code::READONLY, message });
    }
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
