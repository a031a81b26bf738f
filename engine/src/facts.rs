//! How databases, logs and their stores stand, as this machine knows it: for who is asked all the time, by a monitor or a page.
//!
//! What this room promises:
//! 1. The object store is not asked: to look costs no request, and works while it is away.
//! 2. Nothing is changed or made, and nobody who works is kept from anything: files are read, rows looked at.
//! 3. What costs more than a few reads, the rows of all chunks, is looked at when the log has moved on, and remembered until then.
//!
//! What may never enter: how it is shown.

use crate::chores;
use crate::components::Components;
use crate::copies::{self, Stand};
use crate::error::EngineError;
use crate::exec::checkpoint::dirty_bytes;
use crate::exec::coalesce::debt;
use crate::follow::Place as Followed;
use crate::hand_over::NOBODY;
use crate::jobs::{Seen, look};
use crate::leases::{Leases, Standing as LeaseStanding};
use crate::logs::{self, Range, Reader};
use crate::open::{self, Place, QuotaUse};
use crate::settings::Settings;
use littoral_local::WorkerLock;
use littoral_local::log::{LogEnd, appender, end};
use littoral_local::tracker::Tracker;
use littoral_local::tracker::peek::{ChunkPeek, Peek, PeekSparse, peek, peek_chunks, peek_sparse};
use littoral_local::upkeep::Upkeep;
use littoral_plan::Debt;
use littoral_plan::safety::{Safety, Standing, safety};
use littoral_ports::{Manifest, Meters, Spendings};
use littoral_types::limits::SYNC_INTERVAL_MS;
use littoral_types::{
    Change, ChangeSeq, ChunkId, Geometry, JobState, Lease, Lsn, Position, RecordKind, Seq, VolumeRow,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Chunks that are told one by one: of a database beyond 256 GB the first ones.
pub const CHUNKS_TOLD_MAX: usize = 4096;
/// Records that are looked through for the newest checkpoint where nobody looked before.
const LOOK_BACK: u64 = 4096;
/// Whoever was elected to ship shows that it lives at least this often.
const BEATS_WITHIN_MS: u64 = 60_000;

/// How a database stands.
#[derive(Debug)]
pub struct Facts {
    /// Its file.
    pub database: PathBuf,
    /// Where its volume is.
    pub volume: String,
    /// What it is called.
    pub name: String,
    /// Its store, where there is one; or the folder in which those are counted who only read it here.
    pub store: Option<PathBuf>,
    /// What is known here of its volume.
    pub row: Option<VolumeRow>,
    /// What whoever has it open knows.
    pub peek: Option<Peek>,
    /// Where it is not all here.
    pub sparse: Option<PeekSparse>,
    /// Why it could not be published, the last time.
    pub trouble: Option<String>,
    /// Who ships for it.
    pub shipped_by: Option<String>,
    /// For how long the oldest commit has waited that is not in the object store.
    pub waiting_ms: u64,
    /// The newest checkpoint: up to where, and when.
    pub checkpoint: Option<(Position, u64)>,
    /// The newest gap in its history: up to where, and when it was closed.
    pub gap: Option<(Position, u64)>,
    /// What is owed of merging.
    pub debt: Debt,
    /// Bytes of pages that changed since the newest checkpoint and travelled.
    pub backlog: u64,
    /// Its chunks, one by one, as far as they are told.
    pub chunks: Vec<ChunkFacts>,
    /// Where it is a log: its last record.
    pub log: Option<Lsn>,
    /// What was pruned, verified and proved.
    pub upkeep: Upkeep,
    /// What is taken of the quota.
    pub quota: Option<QuotaUse>,
    /// What its store asked of the object store this month.
    pub spent: Option<Spendings>,
    /// Its copies.
    pub copies: Vec<Stand>,
    /// Whether it is safe, and why.
    pub safety: (Safety, Vec<(Safety, String)>),
}

impl Facts {
    /// Commits that are counted and not in the object store; of a log, records.
    pub fn lag(&self) -> u64 {
        if let Some(last) = self.log {
            return last.0.saturating_sub(self.row.as_ref().map_or(0, |row| row.tail.lsn.0));
        }
        self.peek.as_ref().map_or(0, |peek| peek.commits_since)
    }

    /// Up to where the object store has it.
    pub fn remote(&self) -> Option<Position> {
        let known = self.row.as_ref().map(|row| Position { epoch: row.tail.epoch, lsn: row.tail.lsn });
        known.or_else(|| self.peek.as_ref()?.durable)
    }
}

/// How a chunk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkFacts {
    /// Whether it was ever written whole.
    pub has_base: bool,
    /// Deltas on top of it.
    pub deltas: u64,
    /// Bytes here that may have changed since the last checkpoint.
    pub changed: u64,
    /// Pages that are here; `None` where all are.
    pub here: Option<u64>,
    /// Of how many.
    pub pages: u64,
}

/// How a store stands, whatever its databases.
#[derive(Debug)]
pub struct StoreFacts {
    /// What was counted and timed, by all of its processes.
    pub meters: Meters,
    /// Its jobs.
    pub jobs: Vec<Seen>,
    /// Its leases.
    pub leases: Vec<(Lease, LeaseStanding)>,
}

impl StoreFacts {
    /// Jobs that are not over.
    pub fn depth(&self) -> usize {
        self.jobs.iter().filter(|seen| !seen.job.state.is_over()).count()
    }
}

/// What is remembered of a volume from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    seen: Option<Seq>,
    checkpoint: Option<(Position, u64)>,
    gap: Option<(Position, u64)>,
    debt: Debt,
    backlog: u64,
    /// Of each chunk: whether it has a base, and its deltas.
    rows: Vec<(bool, u64)>,
    /// Where a log ended.
    end: Option<LogEnd>,
    /// The first record of a log that waits, and when it was appended.
    oldest: Option<(Lsn, u64)>,
}

/// Looks at databases, again and again.
#[derive(Debug, Default)]
pub struct Looker {
    memory: BTreeMap<PathBuf, Memory>,
    marks: BTreeMap<PathBuf, (Stamp, bool)>,
}

/// What tells a file from the one that was looked at: its inode, its length, when it was written.
type Stamp = (u64, u64, i64, i64);

impl Looker {
    /// Forgets all others.
    pub fn keep(&mut self, databases: &BTreeSet<PathBuf>) {
        self.memory.retain(|database, _| databases.contains(database));
        self.marks.retain(|database, _| databases.contains(database));
    }

    /// Whether a replica stands at a path. Its file is opened once, however often it is asked: one that is none stays open (rule S9).
    fn is_replica(&mut self, root: &Path, database: &Path) -> bool {
        let place = Followed::of(root, database);
        let Some(found) = place.root.exists().then(|| std::fs::metadata(database).ok()).flatten() else { return false };
        let stamp = (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        match self.marks.get(database) {
            Some((known, is_replica)) if *known == stamp => *is_replica,
            _ => {
                let is_replica = place.is_replica();
                self.marks.insert(database.to_owned(), (stamp, is_replica));
                is_replica
            }
        }
    }

    /// How a database stands.
    pub fn facts(
        &mut self,
        place: &Place,
        settings: &Settings,
        components: &Components,
        jobs: &[Seen],
    ) -> Result<Facts, EngineError> {
        let database = place.database.clone().unwrap_or_default();
        let now_ms = components.clock.wall_ms();
        let manifest = place.manifest()?;
        let id = place.found.as_ref().map(|found| found.binding.id);
        let row = match &manifest {
            Some(manifest) => manifest.volume(&place.volume.value)?.filter(|row| Some(row.meta.id) == id),
            None => None,
        };
        let root = place.store_root.as_deref();
        let is_replica = row.is_none() && root.is_some_and(|root| self.is_replica(root, &database));
        let memory = self.memory.entry(database.clone()).or_default();
        match (&manifest, &row) {
            (Some(manifest), Some(row)) => memory.look(&**manifest, row)?,
            _ => *memory = Memory::default(),
        }
        let peek = root.map(|root| peek(root, &database)).transpose()?.flatten();
        let sparse = root.map(|root| peek_sparse(root, &database)).transpose()?.flatten();
        let chunks = match (&row, root) {
            (Some(row), Some(root)) => memory.chunks(row, &peek_chunks(root, &database)?),
            _ => Vec::new(),
        };
        let is_log = logs::identity(&database).is_ok();
        let (log, log_since) = match is_log {
            true => memory.log(&database, row.as_ref())?,
            false => (None, None),
        };
        let trouble = root.and_then(|root| trouble(root, &database, peek.as_ref()));
        let shipped_by = match is_log {
            // Whoever appends to one ships it.
            true => appender(&database).map(|(holder, _)| holder),
            false => root.and_then(|root| shipped_by(root, &database, peek.as_ref(), now_ms)),
        };
        let since = peek.as_ref().and_then(|peek| peek.waiting_since_ms).or(log_since);
        let waiting_ms = since.map_or(0, |since| now_ms.saturating_sub(since));
        let upkeep = chores::file(place).map(|file| file.read()).transpose()?.unwrap_or_default();
        let copies = copies::stands(place, settings, now_ms)?;
        let of_it = |seen: &&Seen| seen.job.wish.database == database;
        let dead = jobs.iter().filter(of_it).filter(|seen| matches!(seen.job.state, JobState::Dead { .. })).count();
        let fenced = fenced(peek.as_ref(), row.as_ref());
        let there = row.as_ref().map_or(Lsn::ZERO, |row| row.tail.lsn);
        let log_waits = log.map(|last| last.0.saturating_sub(there.0));
        let standing = Standing {
            is_log,
            is_published: match &row {
                Some(row) => is_log || row.tail.figures.page_size.is_some(),
                // Whoever only reads it here has it from the object store.
                None => sparse.is_some() || is_replica,
            },
            commits_waiting: log_waits.unwrap_or(peek.as_ref().map_or(0, |peek| peek.commits_since)),
            waiting_ms,
            // Who ships for programs that do not does so as often as anybody.
            interval_ms: settings.sync_interval_ms.value.or(shipped_by.as_ref().map(|_| SYNC_INTERVAL_MS)),
            is_shipped: shipped_by.is_some(),
            trouble: trouble.clone(),
            is_released: fenced.as_deref() == Some(NOBODY),
            fenced_by: fenced.filter(|owner| owner != NOBODY),
            gap: peek.as_ref().and_then(|peek| peek.dropped).map(|(why, _)| why.reason().to_string()),
            problems: upkeep.alarms().map(str::to_owned).collect(),
            jobs_dead: dead as u64,
            chores: failing(&upkeep),
            copies: copies.iter().filter_map(behind).collect(),
        };
        Ok(Facts {
            volume: place.url(),
            name: place.volume.value.to_string(),
            store: place.account_root(),
            peek,
            sparse,
            trouble,
            shipped_by,
            waiting_ms,
            checkpoint: memory.checkpoint,
            gap: memory.gap,
            debt: memory.debt,
            backlog: memory.backlog,
            chunks,
            log,
            upkeep,
            quota: open::quota_use(place, settings)?,
            spent: place.account(settings, components).map(|account| account.this_month()),
            copies,
            safety: safety(&standing),
            database,
            row,
        })
    }
}

impl Memory {
    /// A log's last record, and since when the oldest one waits that its volume does not have.
    fn log(&mut self, path: &Path, row: Option<&VolumeRow>) -> Result<(Option<Lsn>, Option<u64>), EngineError> {
        let end = end(path, self.end.take())?;
        self.end = Some(end);
        let waits = row.map_or(Lsn(1), |row| row.tail.lsn.next());
        if end.last() < waits {
            return Ok((Some(end.last()), None));
        }
        if self.oldest.is_none_or(|(lsn, _)| lsn != waits) {
            let first = waits.max(logs::start(path)?);
            let record = Reader::open(path, Range::from(first))?.next_record()?;
            self.oldest = record.map(|record| (waits, record.time_ms));
        }
        Ok((Some(end.last()), self.oldest.map(|(_, time_ms)| time_ms)))
    }

    /// Looks at what came since.
    fn look(&mut self, manifest: &dyn Manifest, row: &VolumeRow) -> Result<(), EngineError> {
        let tail = row.tail.seq;
        if self.seen == Some(tail) {
            return Ok(());
        }
        // A volume that was begun anew under its name.
        if self.seen.is_some_and(|seen| seen > tail) {
            *self = Memory::default();
        }
        let after = self.seen.unwrap_or(Seq(tail.0.saturating_sub(LOOK_BACK)));
        for record in manifest.changes_since(&row.meta.id, after)?.iter().flat_map(|change| &change.records) {
            let at = (Position { epoch: record.epoch, lsn: record.lsns.last }, record.time_ms);
            match record.kind {
                RecordKind::Checkpoint => self.checkpoint = Some(at),
                RecordKind::Gap => (self.checkpoint, self.gap) = (Some(at), Some(at)),
                _ => {}
            }
        }
        self.debt = debt(manifest, row)?;
        self.backlog = dirty_bytes(manifest, row)?;
        self.rows = Vec::new();
        let mut from = Some(ChunkId(0));
        while let Some(start) = from.filter(|_| self.rows.len() < CHUNKS_TOLD_MAX) {
            let found = manifest.rows(&row.meta.id, start, 64)?;
            for row in &found {
                let at = row.chunk.0 as usize;
                if at >= CHUNKS_TOLD_MAX {
                    break;
                }
                if self.rows.len() <= at {
                    self.rows.resize(at + 1, (false, 0));
                }
                if let Some(told) = self.rows.get_mut(at) {
                    *told = (row.base.is_some(), row.deltas.len() as u64);
                }
            }
            from = found.last().and_then(|row| row.chunk.0.checked_add(1)).map(ChunkId);
        }
        self.seen = Some(tail);
        Ok(())
    }

    fn chunks(&self, row: &VolumeRow, peeked: &[ChunkPeek]) -> Vec<ChunkFacts> {
        let figures = row.tail.figures;
        let Some(page_size) = figures.page_size else { return Vec::new() };
        let geometry = Geometry::new(page_size);
        let count = usize::try_from(geometry.chunk_count(figures.page_count)).unwrap_or(usize::MAX);
        let (each, all) = (geometry.pages_per_chunk(), figures.page_count.0);
        let told = |at: usize| {
            let (has_base, deltas) = self.rows.get(at).copied().unwrap_or_default();
            let peek = peeked.get(at).copied().unwrap_or_default();
            let pages = all.saturating_sub(at as u64 * each).min(each);
            ChunkFacts { has_base, deltas, changed: peek.changed, here: peek.here, pages }
        };
        (0..count.min(CHUNKS_TOLD_MAX)).map(told).collect()
    }
}

/// Who has taken the volume over, as the tracker or the manifest says.
fn fenced(peek: Option<&Peek>, row: Option<&VolumeRow>) -> Option<String> {
    let told = peek.and_then(|peek| peek.fenced.as_ref()).map(|(_, owner)| owner.clone());
    told.or_else(|| row?.fenced.as_ref().map(|(_, owner)| owner.label.clone()))
}

fn trouble(root: &Path, database: &Path, peek: Option<&Peek>) -> Option<String> {
    // What somebody left is of now only while it still fails.
    peek?.failed_since_ms?;
    let said = std::fs::read_to_string(Tracker::trouble_of(root, database)).ok()?;
    Some(said.trim().to_owned()).filter(|said| !said.is_empty())
}

fn shipped_by(root: &Path, database: &Path, peek: Option<&Peek>, now_ms: u64) -> Option<String> {
    let beats = peek.and_then(|peek| peek.beat_ms).is_some_and(|beat| now_ms.saturating_sub(beat) < BEATS_WITHIN_MS);
    let held = WorkerLock::held_by(&Tracker::shipper_of(root, database));
    held.or_else(|| beats.then(|| "a process that ended a moment ago, or hangs".to_owned()))
}

fn failing(upkeep: &Upkeep) -> Vec<String> {
    let prune = upkeep.prune.as_ref().and_then(|prune| prune.failed.as_ref());
    let verify = upkeep.verify.as_ref().and_then(|verify| verify.failed.as_ref());
    let drill = upkeep.drill.as_ref().and_then(|drill| drill.skipped.as_ref());
    [("prunes fail", prune), ("verification fails", verify), ("no drill was held", drill)]
        .into_iter()
        .filter_map(|(what, why)| Some(format!("{what}: {}", why?)))
        .collect()
}

fn behind(stand: &Stand) -> Option<String> {
    let why = stand.copied.as_ref()?.failed.as_ref()?;
    Some(format!("the copy at {} is not brought up: {why}", stand.url))
}

/// How a place's store stands; of one that is only read here, what its readers count.
pub fn of_store(
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<Option<StoreFacts>, EngineError> {
    let Some(account) = place.account(settings, components) else { return Ok(None) };
    let jobs = place.store.as_ref().map(look).transpose()?.flatten().unwrap_or_default();
    let leases = Leases::of(place, components)?.map(|leases| leases.all()).transpose()?.unwrap_or_default();
    Ok(Some(StoreFacts { meters: account.meters(), jobs, leases }))
}

/// The newest entries of a store's change log, the oldest of them first.
pub fn change_log(place: &Place, max: usize) -> Result<Vec<Change>, EngineError> {
    let mut newest = VecDeque::new();
    let Some(manifest) = place.manifest()? else { return Ok(Vec::new()) };
    let mut after = ChangeSeq(0);
    loop {
        let step = manifest.changes(after, 256)?;
        let Some(last) = step.last() else { return Ok(newest.into()) };
        after = last.change;
        newest.extend(step);
        newest.drain(..newest.len().saturating_sub(max));
    }
}
