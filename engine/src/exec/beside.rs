//! Commits that travel while long work is done on their volume.
//!
//! Who makes a checkpoint holds the volume's lock until its record is published, and that may take as long as an upload of all that
//! changed. What is committed meanwhile is shipped by whoever holds the lock, between two blobs and while it waits for an upload.
//!
//! What this room promises:
//! 1. Nothing that is shipped in between is undone by the work's own record: a source that has shipped has moved, and is read again
//!    before it is published (rule S16).
//! 2. It gets done: after a few readings during which something was shipped nothing more is.
//! 3. What the next checkpoint has to fold stays bounded, however long the work takes.

use super::segment::{self, Sent, Shipped};
use super::sessions;
use crate::error::EngineError;
use crate::log::Writer;
use crate::open::Place;
use async_trait::async_trait;
use littoral_local::Tracker;
use littoral_ports::{PageSource, SourceError};
use littoral_types::limits::{BESIDE_BYTES_MAX, BESIDE_SEGMENTS_MAX};
use std::path::PathBuf;

/// During so many readings of a checkpoint commits are shipped: each makes another one necessary.
pub(crate) const ROUNDS: usize = 4;
/// How often whoever waits for an upload looks whether there is something to ship.
const TURN_MS: u64 = 50;
/// Where nothing could be shipped it is not tried again for so long.
const REST_MS: u64 = 1_000;

/// What wants a turn between two steps of long work.
#[async_trait]
pub trait Meanwhile: Send {
    /// How long it lets others wait before it wants to be asked again; `None` where it wants nothing.
    fn patience_ms(&self) -> Option<u64>;

    /// Its turn.
    async fn turn(&mut self, writer: &mut Writer) -> Result<(), EngineError>;

    /// The work has published a record in which no page is another.
    fn published(&mut self, writer: &Writer);
}

/// Nothing does.
#[derive(Debug)]
pub struct Nothing;

#[async_trait]
impl Meanwhile for Nothing {
    fn patience_ms(&self) -> Option<u64> {
        None
    }

    async fn turn(&mut self, _: &mut Writer) -> Result<(), EngineError> {
        Ok(())
    }

    fn published(&mut self, _: &Writer) {}
}

/// Nothing wants a turn; and whoever has the database open here, in whatever process, is told of records in which no page is another.
#[derive(Debug)]
pub struct Quietly {
    tracker: Option<PathBuf>,
}

impl Quietly {
    /// Of this database.
    pub fn of(place: &Place) -> Self {
        let paths = place.store_root.as_ref().zip(place.database.as_ref());
        Self { tracker: paths.map(|(store, database)| Tracker::path_of(store, database)) }
    }
}

#[async_trait]
impl Meanwhile for Quietly {
    fn patience_ms(&self) -> Option<u64> {
        None
    }

    async fn turn(&mut self, _: &mut Writer) -> Result<(), EngineError> {
        Ok(())
    }

    fn published(&mut self, writer: &Writer) {
        if let Some(tracker) = &self.tracker {
            Tracker::moves_on(tracker, writer.row().meta.id, writer.row().tail.figures.generation);
        }
    }
}

/// How commits are shipped beside long work.
#[derive(Debug)]
pub struct Beside<'a> {
    /// Pages as they were shipped before; `None` where nothing is shipped.
    shipped: Option<&'a mut Shipped>,
    /// So long commits wait for others; `None` where they travel only when somebody asks.
    interval_ms: Option<u64>,
    /// When something was shipped last, or the work began.
    since_ms: Option<u64>,
    /// Before that nothing is tried again.
    not_before_ms: u64,
    /// How many segments it was.
    sent: u64,
    /// The work is about to end.
    is_over: bool,
}

impl<'a> Beside<'a> {
    /// Nothing is shipped beside it.
    pub fn nothing() -> Self {
        Self { shipped: None, interval_ms: None, since_ms: None, not_before_ms: 0, sent: 0, is_over: false }
    }

    /// What is committed travels every so often, and soon where somebody asks.
    pub fn of(shipped: &'a mut Shipped, interval_ms: Option<u64>) -> Self {
        Self { shipped: Some(shipped), interval_ms, since_ms: None, not_before_ms: 0, sent: 0, is_over: false }
    }

    /// Nothing more is shipped.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }

    /// How often something was shipped.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// What was missing to tell what commits say of sessions is fetched, where they waited for that. To be called between two turns.
    pub(crate) async fn fetch(&mut self, writer: &mut Writer) -> Result<(), EngineError> {
        if let Some(shipped) = &mut self.shipped
            && shipped.takes_lack()
        {
            sessions::bring(writer, shipped).await?;
            self.not_before_ms = 0;
        }
        Ok(())
    }

    /// For work that reads this source.
    pub fn with<'b>(&'b mut self, source: &'b mut dyn PageSource) -> Shipping<'b, 'a> {
        Shipping { beside: self, source }
    }
}

/// A source whose commits are shipped.
pub struct Shipping<'b, 'a> {
    beside: &'b mut Beside<'a>,
    source: &'b mut dyn PageSource,
}

#[async_trait]
impl Meanwhile for Shipping<'_, '_> {
    fn patience_ms(&self) -> Option<u64> {
        (self.beside.shipped.is_some() && !self.beside.is_over).then_some(TURN_MS)
    }

    async fn turn(&mut self, writer: &mut Writer) -> Result<(), EngineError> {
        let Beside { shipped, interval_ms, since_ms, not_before_ms, sent, is_over } = &mut *self.beside;
        let (Some(shipped), false) = (shipped, *is_over) else { return Ok(()) };
        let Some(source) = self.source.live() else { return Ok(()) };
        let now = writer.components().clock.boot_ms();
        let waited = now.saturating_sub(*since_ms.get_or_insert(now));
        let asked = source.asked();
        let is_due = interval_ms.is_some_and(|interval| waited >= interval) && source.commits_left() > 0;
        if now < *not_before_ms || !is_due && (asked.is_none() || waited < TURN_MS) {
            return Ok(());
        }
        if segment::pressure(writer)?.reaches(BESIDE_SEGMENTS_MAX, BESIDE_BYTES_MAX) {
            return Ok(());
        }
        *since_ms = Some(now);
        match segment::ship_at_hand(writer, source, shipped).await {
            Ok(Some(Sent { segments, is_all })) => {
                *sent += segments;
                if let Some(asked) = asked.filter(|_| is_all) {
                    source.answered(asked);
                }
                Ok(())
            }
            // Commits cannot be told apart, or the database not be read now: this very work brings them, and whoever asked waits for that.
            Ok(None) | Err(EngineError::Source(SourceError::Busy(_) | SourceError::Failed(_))) => {
                *not_before_ms = now + REST_MS;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn published(&mut self, writer: &Writer) {
        if let Some(source) = self.source.live() {
            source.published(writer.row());
        }
    }
}
