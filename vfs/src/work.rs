//! What a connection asks of the engine: across the bridge, and back with the answer.

use crate::database::Database;
use crate::raw::library::Library;
use crate::said::Said;
use crate::source::Live;
use littoral_engine::open::{self, Place};
use littoral_engine::runtime::{self, BridgeError};
use littoral_engine::{Components, EngineError, live};
use littoral_ports::SourceError;
use littoral_types::Position;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// The engine said no; and what to do about it.
    #[error("{}", crate::remedy::told(.0))]
    Engine(#[from] EngineError),
    /// There is no way to it, or it took too long.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

impl From<SourceError> for WorkError {
    fn from(error: SourceError) -> Self {
        WorkError::Engine(error.into())
    }
}

/// What work stands on: where the volume is, and the machine.
pub(crate) struct Ground {
    pub(crate) place: Place,
    pub(crate) said: Said,
    pub(crate) components: Components,
}

/// Finds out where a database's volume is.
pub(crate) fn ground(database: &Path, said: &Said) -> Result<Ground, EngineError> {
    Ok(ground_of(said.place(database)?, said))
}

/// Where it is known already.
pub(crate) fn ground_of(place: Place, said: &Said) -> Ground {
    let components = Components::of_this_machine(open::quota(&said.settings));
    Ground { place, said: said.clone(), components }
}

/// Runs something of the engine's, with a deadline.
pub(crate) fn run<T, F>(deadline: Duration, work: impl FnOnce() -> F + Send + 'static) -> Result<T, WorkError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>>,
{
    Ok(runtime::cross(deadline, work)??)
}

/// The same for long work that others should not notice: they come first where processors are scarce.
fn run_behind<T, F>(deadline: Duration, work: impl FnOnce() -> F + Send + 'static) -> Result<T, WorkError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>>,
{
    Ok(runtime::cross_behind(deadline, work)??)
}

/// The same for what may fail for several callers at once.
pub(crate) fn run_shared<T, F>(deadline: Duration, work: impl FnOnce() -> F + Send + 'static) -> Result<T, WorkError>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    Ok(runtime::cross(deadline, work)?)
}

/// Makes a checkpoint of an open database.
pub(crate) fn checkpoint(
    library: &'static Library,
    database: &Arc<Database>,
    said: &Said,
    deadline: Duration,
) -> Result<live::Done, WorkError> {
    let mut source = Live::open(library, database.clone())?;
    let Ground { place, said, components } = ground(database.path(), said)?;
    let options = live::Options::default();
    run_behind(deadline, async move || {
        live::checkpoint(&place, &said.settings, &components, &mut source, options).await
    })
}

/// Brings whatever was committed to an open database to the object store, the short way where there is one.
pub(crate) fn sync(
    library: &'static Library,
    database: &Arc<Database>,
    said: &Said,
    deadline: Duration,
) -> Result<Position, WorkError> {
    let mut source = Live::open(library, database.clone())?;
    let Ground { place, said, components } = ground(database.path(), said)?;
    let mut shipped = database.take_shipped();
    let (done, shipped) = run_behind(deadline, async move || {
        let done = live::sync(&place, &said.settings, &components, &mut source, &mut shipped).await;
        Ok((done, shipped))
    })?;
    database.keep_shipped(shipped);
    Ok(done?.position())
}
