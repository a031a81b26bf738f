//! What lives in packs that are mostly dead moves to new ones: a job of its own, after prunes. No page changes, and no LSN.
//!
//! 1. The rows say which packs those are, and `plan::repack` chooses.
//! 2. The pages are fetched, verified, staged, read back and uploaded as coalescing does it, of which this is the smallest case: one delta becomes
//!    one, the same, elsewhere.
//! 3. One record names the new places. Until then the old ones are what everybody reads; and after it whoever reads an older state does.
//!    The old pack goes with a prune whose floor has passed that record, named first (rule P1).
//! 4. Who holds the chunks' lease does 2 without the volume's lock, so that commits travel meanwhile; and looks at the rows again before 3.

use super::beside::{Meanwhile, Nothing};
use super::coalesce::{CHUNKS_PER_RECORD, Coalesced, Group, leased, made, named, one_record};
use super::partial;
use crate::error::EngineError;
use crate::log::Writer;
use crate::volume::Session;
use littoral_local::Scratch;
use littoral_plan::{Merge, Packs, RepackPolicy, repack as plan};
use littoral_ports::RemoteError;
use littoral_types::{BlobName, ChunkId, ChunkRow, Compression, Work};
use std::collections::BTreeSet;
use std::path::Path;

/// Rows that are looked at at once.
const ROWS_AT_ONCE: usize = 64;

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repacked {
    /// Packs that nothing of the newest state is in any more.
    pub packs: usize,
    /// Bytes of them that were dead.
    pub dead: u64,
    /// Bytes that were written.
    pub moved: u64,
    /// Records that were published.
    pub records: usize,
}

/// Moves what lives in packs that are mostly dead, while nobody else extends the log.
pub async fn repack(
    writer: &mut Writer,
    scratch: &Scratch,
    compression: Compression,
    policy: RepackPolicy,
    meanwhile: &mut dyn Meanwhile,
) -> Result<Repacked, EngineError> {
    let mut moving = Moving::begin(writer, policy).await?;
    while let Some(group) = moving.next(writer)? {
        let is_done = one_record(writer, scratch, &group, compression, meanwhile, &mut moving.done).await?;
        moving.after(writer, &group, is_done)?;
    }
    Ok(moving.repacked())
}

/// The same while others do: the right to extend the log is let go of while pages are fetched and uploaded, and asked for again to publish.
/// What others publish meanwhile stands, and what was moved from under it is not published.
pub async fn repack_apart(
    mut session: Session,
    database: &Path,
    compression: Compression,
    policy: RepackPolicy,
    meanwhile: &mut dyn Meanwhile,
) -> Result<(Session, Repacked), EngineError> {
    let components = session.writer.components().clone();
    let mut moving = Moving::begin(&mut session.writer, policy).await?;
    while let Some(group) = moving.next(&session.writer)? {
        let Some(held) = &group.held else { break };
        let (volume, birth) = (session.writer.row().meta.id, session.writer.row().tail.seq);
        let dir = session.scratch.job_beside(&volume, birth, held.mark())?;
        let mut rested = session.rest(database);
        let mut nothing = Nothing;
        let work = made(rested.writer_mut(), dir, &group, compression, &mut nothing);
        let made = Box::pin(work).await;
        session = rested.again(&components, group.held.as_deref()).await?;
        session.writer.settle().await?;
        let is_done = match made {
            Ok(Some(made)) => named(&mut session.writer, &group, made, meanwhile, &mut moving.done).await?,
            Ok(None) => false,
            // Whoever folded it into something else meanwhile may have let it go.
            Err(EngineError::Remote(RemoteError::Missing { .. })) if !moving.is_there(&session.writer, &group)? => {
                false
            }
            Err(error) => return Err(error),
        };
        moving.after(&session.writer, &group, is_done)?;
    }
    Ok((session, moving.repacked()))
}

/// A move under way.
struct Moving {
    packs: BTreeSet<BlobName>,
    dead: u64,
    /// Chunks that something of them lives in.
    left: Vec<ChunkId>,
    done: Coalesced,
    is_all: bool,
}

impl Moving {
    async fn begin(writer: &mut Writer, policy: RepackPolicy) -> Result<Self, EngineError> {
        writer.settle().await?;
        let chunks = partial::all_chunks(writer.row());
        partial::rows(writer, &chunks).await?;
        let (packs, dead, left) = mostly_dead(writer, policy)?;
        Ok(Self { packs, dead, left, done: Coalesced::default(), is_all: true })
    }

    /// What is moved next, and the right to. Of each chunk one delta travels in a record: the next one is looked for in the row as it is
    /// then. What others are at work on stays.
    fn next(&mut self, writer: &Writer) -> Result<Option<Group>, EngineError> {
        while !self.left.is_empty() {
            let some = self.left.iter().take(CHUNKS_PER_RECORD);
            let group: Vec<(ChunkRow, Merge)> =
                some.filter_map(|chunk| next(writer, *chunk, &self.packs).transpose()).collect::<Result<_, _>>()?;
            let wanted = group.len();
            let group = leased(writer, Work::Repack, group)?;
            self.is_all &= group.merges.len() == wanted;
            if !group.merges.is_empty() {
                let is_first = |chunk: &ChunkId| group.merges.iter().any(|(row, _)| row.chunk == *chunk);
                let (first, rest): (Vec<ChunkId>, Vec<ChunkId>) = std::mem::take(&mut self.left)
                    .into_iter()
                    .enumerate()
                    .filter(|(at, chunk)| *at >= CHUNKS_PER_RECORD || is_first(chunk))
                    .map(|(_, chunk)| chunk)
                    .partition(is_first);
                self.left = first.into_iter().chain(rest).collect();
                return Ok(Some(group));
            }
            self.left.drain(..self.left.len().min(CHUNKS_PER_RECORD));
        }
        Ok(None)
    }

    /// Goes on after these.
    fn after(&mut self, writer: &Writer, group: &Group, is_done: bool) -> Result<(), EngineError> {
        let mut rest = Vec::with_capacity(self.left.len());
        for chunk in &self.left {
            let was_in = group.merges.iter().any(|(row, _)| row.chunk == *chunk);
            // What could not be moved is moved another time.
            if !was_in || (is_done && next(writer, *chunk, &self.packs)?.is_some()) {
                rest.push(*chunk);
            }
        }
        self.left = rest;
        self.is_all &= is_done;
        Ok(())
    }

    /// Whether all of it still lies where it was to be moved from.
    fn is_there(&self, writer: &Writer, group: &Group) -> Result<bool, EngineError> {
        for (row, merge) in &group.merges {
            let now = next(writer, row.chunk, &self.packs)?;
            if now.is_none_or(|(_, now)| now.deltas != merge.deltas) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn repacked(self) -> Repacked {
        let packs = if self.is_all { self.packs.len() } else { 0 };
        Repacked { packs, dead: self.dead, moved: self.done.bytes, records: self.done.records }
    }
}

/// The packs that are mostly dead, how many bytes of them are, and the chunks that something of them lives in.
fn mostly_dead(writer: &Writer, policy: RepackPolicy) -> Result<(BTreeSet<BlobName>, u64, Vec<ChunkId>), EngineError> {
    let mut used = Packs::default();
    each_row(writer, |row| used.add(&row))?;
    let packs = used.mostly_dead(writer.row().tail.floor, policy);
    let mut chunks = Vec::new();
    if !packs.is_empty() {
        each_row(writer, |row| chunks.extend(plan(&row, &packs).map(|merge| merge.chunk)))?;
    }
    Ok((packs.clone(), used.dead_bytes(&packs), chunks))
}

fn next(writer: &Writer, chunk: ChunkId, packs: &BTreeSet<BlobName>) -> Result<Option<(ChunkRow, Merge)>, EngineError> {
    let row = writer.manifest().row(&writer.row().meta.id, chunk)?;
    Ok(row.and_then(|row| plan(&row, packs).map(|merge| (row, merge))))
}

fn each_row(writer: &Writer, mut look: impl FnMut(ChunkRow)) -> Result<(), EngineError> {
    let mut from = Some(ChunkId(0));
    while let Some(start) = from {
        let rows = writer.manifest().rows(&writer.row().meta.id, start, ROWS_AT_ONCE)?;
        from = rows.last().and_then(|row| row.chunk.0.checked_add(1)).map(ChunkId);
        rows.into_iter().for_each(&mut look);
    }
    Ok(())
}
