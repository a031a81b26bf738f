//! A database larger than the disk: what can be fetched again goes when there is no room for it.
//!
//! What this room promises:
//! 1. The database's pages take no more of the disk than its share of the quota, but for what one fetch brings and one page of a backfill.
//! 2. A page goes only if the state that pages are fetched as of holds it as it is here. Who commits evicts nothing: whoever fetches does, and
//!    whoever ships.
//! 3. What was written can go once it was published. So whoever ships counts rounds: what was in the file when a publication began, and was
//!    not written since, is in what was published. Where it takes too much room he publishes earlier, and backfills the WAL himself.
//! 4. A backfill for which there is no room writes nothing that was published: it lets those pages go. What was not puts it off: the WAL keeps what
//!    it has. Where nothing can be published and the WAL is as long as the quota, a commit is refused as SQLite refuses one on a full
//!    disk, with the reason.
//!
//! **Why a state may be moved on** (rule S4). Pages that are not here are fetched as of one state, F. A checkpoint of the WAL sees to it, before
//! it writes, that nobody reads an older commit than those it brings: so once a backfill was *begun* that covers all commits of a later state F',
//! whoever reads a page that changed between F and F' finds it in the WAL, and all others are the same in both.
//!
//! Nothing is ever mapped of a sparse file (rule S12), so that no pointer leads into what goes.

use super::{Sparse, SparseError};
use crate::database::Database;
use crate::said::Said;
use crate::source::{Lent, WalNow};
use littoral_engine::holes::{FileId, Holes, bytes_on_disk};
use littoral_engine::live::Synced;
use littoral_engine::readahead;
use littoral_engine::room::{Pressure, Shares};
use littoral_engine::tracker::bells::Ordinal;
use littoral_engine::tracker::residency::Census;
use littoral_ports::NoFaults;
use littoral_types::{PageCount, PageNo, Position};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A page or so is always allowed.
const LEAST: u64 = 256 << 10;
/// So much of a file belongs to nobody's page: what the file system keeps of it.
const LEFTOVERS: u64 = 1 << 20;
/// Whoever finds no room for a backfill asks for it so often.
const PRESSES: Duration = Duration::from_millis(200);
/// What is read ahead takes this part of the room, and what is installed before it is looked whether there is still room, this.
const AHEAD_PART: u64 = 8;
const BATCH_PART: u64 = 32;

/// What a database may take of the disk.
#[derive(Debug)]
pub(super) struct Room {
    quota: Option<u64>,
    file: Option<FileId>,
    /// The file system gives nothing back.
    is_stuck: AtomicBool,
    pressed: Mutex<Option<Instant>>,
    newer: Mutex<Option<Newer>>,
}

/// What a database takes of the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Its file.
    pub(crate) bytes: u64,
    /// What may be taken; `None` for no bound.
    pub(crate) share: Option<u64>,
    /// Of what.
    pub(crate) quota: Option<u64>,
    /// Bytes of a page.
    pub(crate) page_size: u64,
    /// How many pages are what.
    pub(crate) census: Census,
}

impl Room {
    /// What was said of it.
    pub(super) fn of(database: &Path, said: &Said) -> Self {
        Self { quota: said.settings.room(), file: FileId::of(database), ..Self::unbounded() }
    }

    /// No bound.
    pub(super) fn unbounded() -> Self {
        Self {
            quota: None,
            file: None,
            is_stuck: AtomicBool::new(false),
            pressed: Mutex::default(),
            newer: Mutex::default(),
        }
    }

    /// The quota, for who is told of it.
    pub(super) fn quota(&self) -> u64 {
        self.quota.unwrap_or(u64::MAX)
    }

    /// The pages' share of it.
    fn share(&self) -> Option<u64> {
        self.quota.map(|quota| Shares::of(quota).pages.max(LEAST))
    }

    /// Whether so many bytes of pages have no room.
    pub(super) fn is_less_than(&self, bytes: u64) -> bool {
        self.share().is_some_and(|share| share < bytes)
    }
}

impl Sparse {
    /// Its file's name.
    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// What it takes of the disk.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            bytes: self.bytes(),
            share: self.room.share(),
            quota: self.room.quota,
            page_size: self.residency.origin().page_size.bytes(),
            census: self.residency.census(),
        }
    }

    fn bytes(&self) -> u64 {
        bytes_on_disk(&self.database)
    }

    /// What is to be done about it. Counts all pages.
    fn pressure(&self, share: u64) -> Pressure {
        let Census { here, written, .. } = self.residency.census();
        let clean = here.saturating_sub(written) * self.residency.origin().page_size.bytes();
        Pressure { taken: self.bytes(), clean, share }
    }

    /// How much may be fetched ahead.
    pub(super) fn ahead_of(&self, most: readahead::Room) -> readahead::Room {
        let Some(share) = self.room.share() else { return most };
        let size = self.residency.origin().page_size.bytes();
        let bytes = most.bytes.min((share / AHEAD_PART).max(size));
        readahead::Room { bytes, pages: most.pages.min(usize::try_from(bytes / size).unwrap_or(1)) }
    }

    /// How many pages are installed before it is looked whether there is room for more.
    pub(super) fn at_once(&self, page_size: u64) -> usize {
        let share = self.room.share().map(|share| (share / BATCH_PART / page_size).max(1));
        share.and_then(|pages| usize::try_from(pages).ok()).unwrap_or(usize::MAX)
    }

    /// After pages came: others go, if there is no room for all of them. Not many more than came, so that those are still here that somebody
    /// else is about to read.
    pub(super) fn make_room(&self, came: usize) -> Result<(), SparseError> {
        let Some(share) = self.room.share() else { return Ok(()) };
        let pressure = Pressure { taken: self.bytes(), clean: 0, share };
        let bytes = came as u64 * self.residency.origin().page_size.bytes();
        let wanted = pressure.to_evict().min(2 * bytes);
        let went = self.evict(wanted, 1)?;
        if went == 0 && pressure.is_full() {
            // What takes the room was written.
            self.press();
        }
        Ok(())
    }

    /// Asks whoever ships to make some, now and then.
    fn press(&self) {
        let mut pressed = self.room.pressed.lock().unwrap_or_else(PoisonError::into_inner);
        if pressed.is_none_or(|pressed| pressed.elapsed() >= PRESSES) {
            *pressed = Some(Instant::now());
            if let Some(tracker) = Database::find(&self.database).as_ref().and_then(|database| database.tracker()) {
                tracker.ask();
            }
        }
    }

    /// Evicts so many bytes, as far as pages can go. How many pages went.
    fn evict(&self, bytes: u64, circles: u64) -> Result<u64, SparseError> {
        if bytes == 0 || self.room.is_stuck.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let Some(file) = self.room.file else { return Ok(0) };
        let done = Holes::of(&self.database, file).map_err(|error| error.to_string()).and_then(|holes| {
            let pages = bytes.div_ceil(self.residency.origin().page_size.bytes());
            let mut punch = |range| holes.punch(range);
            let went =
                self.residency.evict(pages, circles, &NoFaults, &mut punch).map_err(|error| error.to_string())?;
            // More is taken than can be accounted for: somebody died before he gave it back.
            if went < pages && self.has_leftovers() {
                self.residency.tidy(&mut punch).map_err(|error| error.to_string())?;
            }
            Ok(went)
        });
        done.or_else(|error| {
            self.room.is_stuck.store(true, Ordering::Relaxed);
            let database = self.database.display();
            tracing::warn!(%database, error, "nothing of it can be given back to the disk: it takes more room than its quota");
            Ok(0)
        })
    }

    /// Whether its file takes more than the pages that are here do.
    fn has_leftovers(&self) -> bool {
        let origin = self.residency.origin();
        let size = origin.page_size.bytes();
        let len = std::fs::metadata(&self.database).map_or(0, |found| found.len());
        let behind = len.saturating_sub(origin.page_count.0 * size);
        self.bytes() > self.residency.census().here * size + behind + LEFTOVERS
    }

    /// What becomes of a page that a backfill is about to write: it goes to the file where there is room. Where there is none and the state that
    /// pages are fetched as of holds it as it is to be written, it need not be here. `begun` is up to where the backfill goes, and
    /// `newer` answers which pages the WAL's frames after a place and up to there hold.
    pub(crate) fn backfilled(
        &self,
        (offset, len): (u64, u64),
        begun: impl FnOnce() -> Option<Ordinal>,
        newer: impl FnOnce(u64, u64) -> Option<Vec<u32>>,
    ) -> Result<Backfilled, SparseError> {
        let Some(share) = self.room.share() else { return Ok(Backfilled::Write) };
        let pressure = Pressure { taken: self.bytes(), clean: 0, share };
        // Where nothing can be given back to the disk nothing is let go.
        if !pressure.is_full() || self.room.is_stuck.load(Ordering::Relaxed) {
            return Ok(Backfilled::Write);
        }
        let size = self.residency.origin().page_size.bytes();
        let page = PageNo::from_index(offset / size);
        let known = self.residency.holds_upto().zip(begun()).filter(|(upto, begun)| upto.wals() == begun.wals());
        // The first page tells others that this is no database.
        if let (Some((upto, begun)), true) = (known, len == size && page != PageNo::FIRST) {
            let mut since = self.room.newer.lock().unwrap_or_else(PoisonError::into_inner);
            if since.as_ref().is_none_or(|since| (since.upto, since.begun) != (upto, begun)) {
                let pages =
                    if begun.frame() > upto.frame() { newer(upto.frame(), begun.frame()) } else { Some(Vec::new()) };
                *since = pages.map(|pages| Newer { upto, begun, pages: pages.into_iter().collect() });
            }
            let is_newer = |since: &Newer| page.to_sqlite().is_none_or(|page| since.pages.contains(&page));
            if since.as_ref().is_some_and(|since| !is_newer(since))
                && let Some(holes) = self.room.file.and_then(|file| Holes::of(&self.database, file).ok())
            {
                self.residency.let_go(page, &mut |range| holes.punch(range))?;
                return Ok(Backfilled::LetGo);
            }
            if since.is_some() && !pressure.is_overfull() {
                return Ok(Backfilled::Write);
            }
        }
        self.press();
        Ok(Backfilled::PutOff)
    }

    /// Why nothing more may be written to a WAL that reaches so far, where that is so: there is no room for its pages, and nobody makes any.
    pub(crate) fn refuses(&self, offset: u64) -> Option<String> {
        let (quota, share) = self.room.quota.zip(self.room.share())?;
        if offset <= quota || self.bytes() <= share {
            return None;
        }
        let database = Database::find(&self.database)?;
        let is_failing = database.tracker()?.failed_since().is_some() || !database.has_shipper();
        is_failing.then(|| {
            let why = database.trouble().unwrap_or_else(|| "nobody publishes it (PRAGMA littoral_sync)".to_owned());
            format!(
                "{}: quota={quota} is used up by what was committed and could not be published, so that nothing of it can go, and the WAL is \
                 as long. Nothing more is written until the object store answers, or the quota is raised: {why}",
                self.database.display()
            )
        })
    }
}

/// What becomes of a page that a backfill is about to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backfilled {
    /// It is written.
    Write,
    /// It is in the object store, and need not be here.
    LetGo,
    /// There is no room: it stays in the WAL, and so does all of it.
    PutOff,
}

/// Pages that a backfill brings and the state that pages are fetched as of does not hold.
#[derive(Debug)]
struct Newer {
    upto: Ordinal,
    begun: Ordinal,
    pages: HashSet<u32>,
}

/// A publication whose end may let pages go.
#[derive(Debug)]
pub(crate) struct Round {
    nth: u64,
    /// Everything that was in the file when it began is of a commit up to here.
    upto: Upto,
}

#[derive(Clone, Copy, Debug)]
enum Upto {
    /// Of the WAL.
    Wal(Ordinal),
    /// There is no WAL.
    File,
    /// Everything was published before.
    All,
}

impl Sparse {
    /// Before a publication by `source`: a round begins, if what was written takes too much room.
    pub(crate) fn begin_round(&self, database: &Database, source: &Lent) -> Option<Round> {
        let share = self.room.share()?;
        if !self.pressure(share).wants_settling() {
            return None;
        }
        let nth = self.residency.begin_round().map_err(|error| tracing::warn!(%error, "no round begins")).ok()?;
        // After it began: what is in the file by then is committed by now.
        let upto = match source.wal() {
            WalNow::None => Upto::File,
            // One that has just started over tells of nothing: what was in the one before is in the file.
            WalNow::At(header) if header.frames() == 0 => {
                let tracker = database.tracker()?;
                let is_published = tracker.basis().is_some() && tracker.commits_since() == 0;
                let ended = tracker.ordered(tracker.witnessed()).map(Upto::Wal);
                if is_published { Upto::All } else { ended? }
            }
            WalNow::At(header) => Upto::Wal(database.tracker()?.ordered(header.place())?),
            WalNow::Unknown => return None,
        };
        Some(Round { nth, upto })
    }

    /// After one: what was published can go. `source` is another reader, which backfills.
    pub(crate) fn end_round(
        &self,
        database: &Arc<Database>,
        round: &Round,
        synced: &Synced,
        source: &Lent,
    ) -> Result<bool, SparseError> {
        let is_all = match (round.upto, synced) {
            (Upto::Wal(place), _) => database.tracker().is_some_and(|tracker| tracker.is_durable(place)),
            (Upto::All, _) | (Upto::File, Synced::Checkpoint(_)) => true,
            (Upto::File, Synced::Segment(_)) => false,
        };
        let position = synced.position();
        // Its size, as whoever published noted it.
        let page_count = is_all.then(|| self.size_at(position)).flatten();
        let Some(page_count) = page_count.filter(|_| source.nobody_reads_what_was_before_now()) else {
            return Ok(false);
        };
        let place = match round.upto {
            Upto::Wal(place) => Some(place),
            Upto::File | Upto::All => None,
        };
        Ok(self.residency.settle(round.nth, position, page_count, place, &NoFaults)?)
    }

    /// How many pages the volume has at a position, if that is its newest one here.
    fn size_at(&self, position: Position) -> Option<PageCount> {
        let place = self.said.place(&self.database).ok()?;
        let row = place.manifest().ok()??.volume(&place.volume.value).ok()??;
        let (tail, origin) = (&row.tail, self.residency.origin());
        let is_it = row.meta.id == origin.volume && Position { epoch: tail.epoch, lsn: tail.lsn } == position;
        let is_alike = tail.figures.page_size == Some(origin.page_size);
        (is_it && is_alike).then_some(tail.figures.page_count)
    }

    /// For who ships: room for a backfill, and the backfill. Whether more is to be done.
    pub(crate) fn relieve(&self, source: &Lent, settled: bool) -> Result<bool, SparseError> {
        let Some(share) = self.room.share() else { return Ok(false) };
        let pressure = Pressure { taken: self.bytes(), clean: 0, share };
        let went = match settled || pressure.is_full() || pressure.taken > share / 8 * 7 {
            true => self.evict(pressure.to_evict_ahead(), 2)?,
            false => 0,
        };
        if went == 0 && !settled {
            return Ok(false);
        }
        Ok(!source.backfill())
    }
}
