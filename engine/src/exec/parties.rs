//! Those who take part in a checkpoint beside the pages themselves ([`super::checkpoint`]): each with what it takes of the commit that the
//! checkpoint ends at, and brings into the record.
//!
//! What may never enter: an order among them. Who needs something of another finds it in the [`Course`], or does without.

use super::catalogue::{Catalogue, schema};
use super::coordinator::{Course, Party, Record};
use super::sessions;
use crate::error::EngineError;
use async_trait::async_trait;
use littoral_plan::participant::Participant;
use littoral_ports::{CaughtUp, SourceError};
use littoral_types::{JournalMode, PageNo, SchemaSummary, Sessions, WalMark};

/// Draws the line between what this checkpoint brings and what the next one does.
pub(super) struct TransactionFence;

#[async_trait(?Send)]
impl Party for TransactionFence {
    fn who(&self) -> Participant {
        Participant::TransactionFence
    }

    async fn begin(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        let row = course.row();
        // One that stands still has begun.
        while let Some(live) = course.source.live() {
            match live.begin(&row) {
                Err(SourceError::Busy(why)) => course.phases.wait(why).await?,
                begun => return Ok(begun?),
            }
        }
        Ok(())
    }

    /// Whoever keeps readers out is waited for, up to a bound.
    async fn catch_up(&mut self, course: &mut Course<'_, '_>) -> Result<CaughtUp, EngineError> {
        loop {
            match course.source.catch_up() {
                Err(SourceError::Busy(why)) => course.phases.wait(why).await?,
                caught_up => return Ok(caught_up?),
            }
        }
    }

    async fn commit(&mut self, course: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        let commits = course.commits();
        record.draft.commits = commits;
        record.committed_ms = course.source.committed_ms();
        // Before the first checkpoint there is nothing from which anything could be missing.
        let has_before = course.row().tail.figures.page_size.is_some();
        record.body.gap = course.source.gap().filter(|_| commits > 0 && has_before);
        Ok(())
    }

    fn settled(&mut self, course: &mut Course<'_, '_>) {
        let row = course.row();
        if let Some(live) = course.source.live() {
            live.published(&row);
        }
    }

    /// No transaction stays open, not even where the source stood still. The marks that were taken count for the next checkpoint: nobody is told
    /// that they were published.
    fn abort(&mut self, course: &mut Course<'_, '_>) {
        if let Some(live) = course.source.live() {
            live.given_up();
            return;
        }
        if let Err(error) = course.source.rest() {
            tracing::debug!(%error, "a checkpoint was given up, and its read transaction could not be ended");
        }
    }
}

/// Says where in the WAL the line is: whatever ships commits goes on from there.
#[derive(Default)]
pub(super) struct WalPin {
    mark: Option<WalMark>,
}

#[async_trait(?Send)]
impl Party for WalPin {
    fn who(&self) -> Participant {
        Participant::WalPin
    }

    async fn prepare(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        self.mark = course.source.wal();
        Ok(())
    }

    async fn commit(&mut self, _: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        record.body.wal = self.mark;
        Ok(())
    }
}

/// Knows the schema: what page 1 says of it, and the trees that it names.
#[derive(Default)]
pub(super) struct Schema {
    summary: Option<SchemaSummary>,
}

#[async_trait(?Send)]
impl Party for Schema {
    fn who(&self) -> Participant {
        Participant::SchemaCatalogue
    }

    async fn begin(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        if course.source.page_count().holds(PageNo::FIRST) {
            course.first = vec![0; course.source.page_size().len()];
            course.source.read(PageNo::FIRST, &mut course.first)?;
        }
        Ok(())
    }

    async fn prepare(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        // It was read again if it changed.
        let is_there = course.source.page_count().holds(PageNo::FIRST);
        self.summary = is_there.then(|| summary(&course.first));
        course.trees = schema(course.source)?;
        Ok(())
    }

    async fn commit(&mut self, _: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        record.body.schema = self.summary;
        Ok(())
    }
}

/// What page 1 says.
fn summary(first: &[u8]) -> SchemaSummary {
    let number =
        |at: usize| first.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    SchemaSummary {
        cookie: number(40),
        encoding: number(56),
        user_version: number(60),
        application_id: number(68),
        journal: if first.get(18) == Some(&2) { JournalMode::Wal } else { JournalMode::Rollback },
    }
}

/// Knows how far named sessions are.
#[derive(Default)]
pub(super) struct Named {
    now: Option<Sessions>,
}

#[async_trait(?Send)]
impl Party for Named {
    fn who(&self) -> Participant {
        Participant::Sessions
    }

    async fn prepare(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        self.now = Some(sessions::of_source(course.source)?);
        Ok(())
    }

    async fn commit(&mut self, course: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        if let Some(now) = &self.now {
            let told = sessions::told(&*course.manifest, &course.row(), now, course.commits())?;
            record.body.ops.extend(told);
        }
        Ok(())
    }
}

/// Knows whose pages are, and what was taken of each table and index.
pub(super) struct IndexRegistry;

#[async_trait(?Send)]
impl Party for IndexRegistry {
    fn who(&self) -> Participant {
        Participant::IndexRegistry
    }

    async fn begin(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        let mut catalogue = Catalogue::begin(&*course.manifest, &course.row(), course.source.page_size())?;
        if !course.first.is_empty() {
            catalogue.look(PageNo::FIRST, &course.first, course.source.page_count());
        }
        course.catalogue = Some(catalogue);
        Ok(())
    }

    async fn commit(&mut self, course: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        let Some(catalogue) = &course.catalogue else { return Ok(()) };
        let state = (course.source.page_size(), course.source.page_count(), course.trees.as_deref());
        let built = course.rounds.iter().flat_map(|round| &round.built);
        let told = catalogue.told(&*course.manifest, &course.row(), state, course.commits(), built)?;
        record.body.ops.extend(told.ops);
        record.draft.owners = told.owners;
        Ok(())
    }

    fn abort(&mut self, course: &mut Course<'_, '_>) {
        course.catalogue = None;
    }
}
