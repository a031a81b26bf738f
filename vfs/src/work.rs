//! What a connection asks of the engine: across the bridge, and back with the answer.

use crate::database::{Database, Reads};
use crate::durable::Pending;
use crate::said::Said;
use littoral_engine::hand_over::{self, Released};
use littoral_engine::open::{self, Place};
use littoral_engine::runtime::{self, BridgeError};
use littoral_engine::{Components, EngineError, LocalError, live};
use littoral_ports::{LiveSource, SourceError};
use littoral_types::Position;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

impl WorkError {
    /// Whether somebody has the database for himself just now.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, WorkError::Engine(EngineError::Source(SourceError::Busy(_))))
    }
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
pub(crate) fn checkpoint(database: &Arc<Database>, said: &Said, deadline: Duration) -> Result<live::Done, WorkError> {
    let mut source = database.lend(Reads::Asked)?;
    let Ground { place, said, components } = ground(database.path(), said)?;
    let options = live::Options::default();
    run_behind(deadline, async move || {
        live::checkpoint(&place, &said.settings, &components, &mut source, options).await
    })
}

/// Ends the term of an open database, after all of it was shipped.
pub(crate) fn release(database: &Arc<Database>, said: &Said, deadline: Duration) -> Result<Released, WorkError> {
    let mut stream = database.take_stream(said);
    let Ground { place, said, components } = ground(database.path(), said)?;
    let database = database.clone();
    run(deadline, async move || {
        let mut open = || -> Result<Box<dyn LiveSource>, _> { Ok(Box::new(database.lend(Reads::Asked)?)) };
        hand_over::release(&place, &said.settings, &components, &mut stream, &mut open).await
    })
}

/// How often it is looked whether whoever is at work is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Brings whatever was committed to an open database to the object store, the short way where there is one. Whoever makes a checkpoint
/// meanwhile is asked to.
pub(crate) fn sync(database: &Arc<Database>, said: &Said, deadline: Duration) -> Result<Position, WorkError> {
    let begun = Instant::now();
    let wanted = database.tracker().map(Pending::newest);
    let mut asked = None;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let others_are_at_work = match synced(database, said, left, false) {
            Err(WorkError::Engine(EngineError::AtWork(_))) => true,
            // Another database of this store has a checkpoint made, and this one needs one too.
            Err(WorkError::Engine(EngineError::Local(LocalError::Busy { .. }))) => false,
            done => return done,
        };
        let (Some(tracker), Some(wanted), true) = (database.tracker(), wanted, others_are_at_work && left > PAUSE)
        else {
            return synced(database, said, left, true);
        };
        let heard = tracker.answers();
        let question = *asked.get_or_insert_with(|| tracker.ask());
        if !tracker.is_served(question) {
            tracker.await_answer(heard, PAUSE);
        }
        if tracker.is_served(question) {
            // Asked in this order: the position is told before it is told what is durable.
            if wanted.is_durable(tracker)
                && let Some(position) = tracker.durable()
            {
                return Ok(position);
            }
            asked = None;
        }
    }
}

fn synced(database: &Arc<Database>, said: &Said, deadline: Duration, waits: bool) -> Result<Position, WorkError> {
    let mut source = database.lend(Reads::Asked)?;
    let recall = source.recall();
    let mut stream = database.take_stream(said);
    let done = run_behind(deadline, async move || {
        let done = if waits { stream.sync(&mut source).await } else { stream.sync_at_once(&mut source).await };
        Ok((done, stream))
    });
    // Whoever did not wait for the end does not leave a reader behind.
    recall.now();
    let (done, stream) = done?;
    database.keep_stream(stream);
    Ok(done?.position())
}
