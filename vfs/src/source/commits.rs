//! A database's commits out of its WAL, since the place that the volume's newest record names.
//!
//! What this room promises:
//! 1. What it gives is all that changed since that record, or the first commits of that: the frames before are those that the record
//!    speaks of (their running checksum says so), those of WALs that started over since were copied without a gap (rule S14), and nobody
//!    wrote past it. Else it gives nothing, and a checkpoint is due.
//! 2. No more than a bounded part of memory is filled, inside of one short read transaction.
//! 3. Each commit has the time at which it was made, as far as that was noted, and never an earlier one. Of what waited for long a batch holds
//!    a part: restore points are batch ends.

use super::Live;
use super::times::{Times, now_ms};
use crate::raw::connection::Failure;
use littoral_engine::sealed::SealedWal;
use littoral_engine::sessions::Walked;
use littoral_engine::tracker::bells::Ordinal;
use littoral_engine::tracker::{Dropped, WalPlace};
use littoral_engine::wal::{self, FRAME_BYTES, FrameHead, HEADER_BYTES, WalHeader};
use littoral_ports::{Commits, Noted, SourceError};
use littoral_types::{Gap, GapReason, PageCount, PageNo, VolumeRow, WalMark};
use std::collections::{BTreeMap, HashMap};

/// Pages that travel commit by commit, in bytes: read with what they replace inside of one slice (rule S16).
const GATHERED_BYTES_MAX: u64 = 8 << 20;

/// Commits that waited no longer than this, where they travel by themselves, are a batch like any other, however they came.
const BATCH_MS_MAX: u64 = 60_000;

fn salts_of(mark: &WalMark) -> u64 {
    u64::from(mark.salts[0]) << 32 | u64::from(mark.salts[1])
}

/// How a WAL spells the salts that its index has in the machine's own order.
fn spelled(salts: u64) -> u64 {
    let [one, two] = [(salts >> 32) as u32, salts as u32].map(u32::swap_bytes);
    let native = u64::from(one) << 32 | u64::from(two);
    if cfg!(target_endian = "little") { native } else { salts }
}

/// A WAL's salts as its file has them.
pub(crate) fn salts_in_file(salts: u64) -> [u32; 2] {
    pair(spelled(salts))
}

/// A place in a WAL by its own spelling.
fn pair(salts: u64) -> [u32; 2] {
    [(salts >> 32) as u32, salts as u32]
}

/// What was gathered.
type Gathered = (Commits, Option<Ordinal>, Option<u64>);

/// Commits, as they are found one after the other, up to a bound.
struct Gathering {
    page_bytes: u64,
    times: Times,
    /// Up to where everything is in it.
    mark: WalMark,
    commits: Vec<Noted>,
    /// The newest version of each page.
    newest: BTreeMap<PageNo, Found>,
    /// Those of a commit whose end was not seen yet.
    open: BTreeMap<PageNo, Found>,
    /// No more fits.
    is_full: bool,
}

/// Where a page's version is.
enum Found {
    /// In the WAL, in this frame.
    Frame(u64),
    /// Here: of a WAL that is gone.
    Image(Vec<u8>),
}

impl Gathering {
    /// Takes a frame. False where it is none, or no more is wanted. `place` is its number among all that were witnessed.
    fn take(&mut self, (frame, place): (u64, Option<Ordinal>), head: &FrameHead, found: Found) -> bool {
        let Some(page) = PageNo::new(u64::from(head.page)) else { return false };
        self.open.insert(page, found);
        if head.pages == 0 {
            // One that is too large alone is not looked at to its end.
            self.is_full = self.open.len() as u64 * self.page_bytes > GATHERED_BYTES_MAX;
            return !self.is_full;
        }
        let fresh = self.open.keys().filter(|page| !self.newest.contains_key(page)).count();
        let is_large = (self.newest.len() + fresh) as u64 * self.page_bytes > GATHERED_BYTES_MAX;
        if is_large || !self.times.take(place, head.checksum) {
            self.is_full = true;
            return false;
        }
        self.newest.append(&mut self.open);
        let page_count = PageCount(u64::from(head.pages));
        self.commits.push(Noted { time_ms: 0, page_count, session: None });
        self.mark = WalMark { salts: head.salts, frame, checksum: head.checksum };
        true
    }
}

/// After which frame of a copy what follows a mark goes on, and from which checksum.
fn goes_on(sealed: &SealedWal, mark: &WalMark) -> Option<(u64, [u32; 2])> {
    let follows = pair(spelled(sealed.previous.salts)) == mark.salts && sealed.previous.frame == mark.frame;
    match sealed.header.salts == mark.salts {
        true => Some((mark.frame, mark.checksum)),
        false if follows => Some((0, sealed.header.checksum)),
        false => None,
    }
}

impl Live {
    fn head(&self, frame: u64) -> Result<FrameHead, Failure> {
        let mut bytes = [0; FRAME_BYTES as usize];
        self.connection.read_wal(wal::frame_at(self.page_size, frame), &mut bytes)?;
        Ok(FrameHead::decode(&bytes))
    }

    fn page_of(&self, frame: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.connection.read_wal(wal::frame_at(self.page_size, frame) + FRAME_BYTES, into)
    }

    /// The mark of a place in the WAL that is there now. `None` where it is not any more.
    pub(super) fn mark_at(&self, place: WalPlace) -> Option<WalMark> {
        if place.salts == 0 {
            return None;
        }
        let wanted = spelled(place.salts);
        match place.frame {
            0 => {
                let mut header = [0; HEADER_BYTES as usize];
                self.connection.read_wal(0, &mut header).ok()?;
                let header = WalHeader::decode(&header).ok()?;
                (header.salts == pair(wanted)).then(|| header.mark(0, header.checksum))
            }
            frame => {
                let head = self.head(frame).ok()?;
                let salts = head.salts;
                (salts == pair(wanted)).then_some(WalMark { salts, frame, checksum: head.checksum })
            }
        }
    }

    /// The mark of the end of a WAL that was taken away, where none is there now: the next one follows from it.
    pub(super) fn mark_of_end(&self) -> Option<WalMark> {
        let tracker = self.database.tracker().filter(|_| self.place.salts == 0 || self.place.frame == 0)?;
        let previous = tracker.previous();
        let is_over = previous.salts != 0 && tracker.witnessed() == self.place;
        is_over.then(|| WalMark { salts: pair(spelled(previous.salts)), frame: previous.frame, checksum: [0; 2] })
    }

    /// The place that a mark speaks of, where this WAL has it, and goes on from it.
    fn place_of(&self, mark: &WalMark, now: WalPlace) -> Option<WalPlace> {
        let place = WalPlace { salts: now.salts, frame: mark.frame };
        let same = spelled(now.salts) == salts_of(mark) && mark.frame <= now.frame;
        (same && self.mark_at(place) == Some(*mark)).then_some(place)
    }

    /// The beginning of this WAL, where the mark speaks of the very end of the one before: everything in that one was shipped.
    fn begun_from(&self, mark: &WalMark, now: WalPlace) -> Option<WalPlace> {
        let previous = self.database.tracker()?.previous();
        let ended = previous.salts != 0 && spelled(previous.salts) == salts_of(mark) && previous.frame == mark.frame;
        // What another writer began is no writer's of ours to speak of.
        let is_ours = self.database.tracker()?.witnessed().salts == now.salts;
        (ended && is_ours && now.salts != 0).then_some(WalPlace { salts: now.salts, frame: 0 })
    }

    /// Commits in the WAL after a mark and up to a place: how many. `None` where that cannot be told.
    pub(super) fn commits_after(&self, mark: &WalMark, to: WalPlace) -> Option<u64> {
        let from = self.place_of(mark, to).or_else(|| self.begun_from(mark, to))?;
        let mut commits = 0;
        for frame in from.frame + 1..=to.frame {
            commits += u64::from(self.head(frame).ok()?.pages != 0);
        }
        Some(commits)
    }

    /// What was noted of the times of commits; and how often they travel, where who ships does it by himself.
    fn times(&self) -> Times {
        let noted = self.database.tracker().map(|tracker| tracker.times()).unwrap_or_default();
        Times::new(noted, now_ms(), self.database.interval_ms().filter(|_| self.is_behind))
    }

    /// When the commit was made that the open transaction sees, as far as it was noted.
    pub(super) fn time_of_commit(&self) -> Option<u64> {
        let tracker = self.database.tracker()?;
        let place = self.view.place;
        match (place.salts, place.frame) {
            (0, _) => {
                let mut counter = [0; 4];
                self.connection.read_main(24, &mut counter).ok()?;
                tracker.time_of(None, None).or_else(|| tracker.plain_time(u32::from_be_bytes(counter)))
            }
            (_, 0) => tracker.time_of(None, None),
            _ => tracker.time_of(Some(tracker.ordered(place)?), Some(self.mark_at(place)?.checksum)),
        }
    }

    /// Why what was committed since the newest record cannot be told apart, or is too much for one batch: what a checkpoint brings then is a
    /// gap (rule P9). Where commits do not travel by themselves nobody said how often they do, and whoever asks says where a batch ends.
    /// Whatever waited no longer than an interval would have been one batch anyway.
    pub(super) fn gap_since(&self, is_known: bool, is_foreign: bool) -> Option<Gap> {
        let tracker = self.database.tracker()?;
        let interval = self.database.interval_ms();
        let since_ms = tracker.waiting_since().unwrap_or(0);
        let waited_ms = if since_ms == 0 { 0 } else { now_ms().saturating_sub(since_ms) };
        let waited_more_than = |at_most: u64| interval.is_some_and(|interval| waited_ms > interval.max(at_most));
        let is_apart = is_known && self.from.is_some_and(|mark| self.is_told_apart(&mark));
        let by_journal = self.place.salts == 0 && tracker.previous().salts == 0;
        let reason = match tracker.dropped() {
            None if interval.is_none() => return None,
            _ if is_foreign => GapReason::Foreign,
            _ if is_apart && !waited_more_than(BATCH_MS_MAX) => return None,
            _ if is_apart => GapReason::Room,
            Some((Dropped::Room, _)) => GapReason::Room,
            // What was written to a sparse one is known, whatever else is not.
            _ if !is_known && self.database.sparse().is_none() => GapReason::Untracked,
            _ if (by_journal || self.from.is_none()) && !waited_more_than(BATCH_MS_MAX) => return None,
            _ if by_journal => GapReason::Journal,
            _ if interval.is_some() && !waited_more_than(0) => return None,
            _ => GapReason::Lost,
        };
        // Nobody knows when somebody wrote of whom nobody knows.
        let is_dated = !matches!(reason, GapReason::Foreign | GapReason::Untracked);
        Some(Gap { reason, since_ms: if is_dated { since_ms } else { 0 } })
    }

    /// Whether every commit since a place is in a WAL or in a copy of one.
    fn is_told_apart(&self, mark: &WalMark) -> bool {
        let mut mark = *mark;
        if self.follows(&mark, self.place).is_some() {
            return true;
        }
        for sealed in self.database.sealed().list().unwrap_or_default() {
            let Some((after, checksum)) = goes_on(&sealed, &mark) else { continue };
            let salts = sealed.header.salts;
            let read = sealed.frames(after, checksum, |frame, head, _| {
                if head.pages != 0 {
                    mark = WalMark { salts, frame, checksum: head.checksum };
                }
                true
            });
            if read.is_err() {
                return false;
            }
        }
        self.follows(&mark, self.place).is_some()
    }

    /// All that was committed since the newest record; see [`littoral_ports::LiveSource::commits_since`].
    pub(super) fn gather(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        let Some(mark) = row.tail.wal else { return Ok(None) };
        // A checkpoint that stands still, or that brings what nobody could name, is not overtaken.
        if self.underway && (self.holds || self.from.is_none() || self.connection.is_closed()) {
            return Ok(None);
        }
        if let Some(sparse) = self.database.sparse() {
            sparse.vouch(row).map_err(SourceError::Failed)?;
        }
        // What was counted before is of that transaction's commit, or of an older one.
        self.seen_commits = self.counted();
        let read_ms = now_ms();
        self.leave()?;
        let page_size = self.enter()?;
        if self.underway && page_size != self.page_size {
            self.leave()?;
            return Ok(None);
        }
        self.page_size = page_size;
        let gathered = self.vouch().and_then(|()| self.gathered(row, &mark));
        self.leave()?;
        let Some((commits, seen, began_ms)) = gathered? else {
            self.database.lags(false);
            return Ok(None);
        };
        // What was read of a checkpoint that is under way would bring back what such a commit has cut off.
        if self.underway && commits.cuts(row.tail.figures.page_count) {
            return Ok(None);
        }
        self.seen = seen;
        // What does not fit was committed after what does.
        (self.rest_ms, self.gave_all) = if commits.is_all { (Some(read_ms), true) } else { (began_ms, false) };
        // What a checkpoint has read so far is behind what is about to travel.
        self.moved |= self.underway && !commits.commits.is_empty();
        // The object store is about to have it, and must not be ahead of this disk when the power fails (rule S2).
        self.settle()?;
        Ok(Some(commits))
    }

    /// What there is, the number of its last commit, and the first time that was noted of it.
    fn gathered(&mut self, row: &VolumeRow, mark: &WalMark) -> Result<Option<Gathered>, SourceError> {
        let figures = row.tail.figures;
        // What nobody has seen, or what is of another state, is compared page by page.
        let basis = self.database.tracker().and_then(|tracker| tracker.basis());
        let is_known = basis.is_some_and(|basis| (basis.volume, basis.generation) == (row.meta.id, figures.generation));
        let now = self.view.place;
        if !is_known || figures.page_size != Some(self.page_size) || self.connection.reader().is_none() {
            return Ok(None);
        }
        let mut gathering = Gathering {
            page_bytes: self.page_size.bytes(),
            times: self.times(),
            mark: *mark,
            commits: Vec::new(),
            newest: BTreeMap::new(),
            open: BTreeMap::new(),
            is_full: false,
        };
        let mut last = self.gather_sealed(&mut gathering, now)?;
        let mut older = None;
        if !gathering.is_full {
            // What was copied, and what is here, follow one another, or a checkpoint is due.
            let Some(from) = self.follows(&gathering.mark, now) else { return Ok(None) };
            if gathering.commits.is_empty() {
                older = Some(from.frame);
            }
            let wals = self.database.tracker().and_then(|tracker| tracker.ordered(now)).map(Ordinal::wals);
            for frame in from.frame + 1..=now.frame {
                let head = self.head(frame).map_err(|failure| self.told(&failure))?;
                let place = wals.map(|wals| Ordinal::of(wals, frame));
                if head.salts != pair(spelled(now.salts)) {
                    return Ok(None);
                }
                if !gathering.take((frame, place), &head, Found::Frame(frame)) {
                    break;
                }
            }
            let seen = WalPlace { salts: now.salts, frame: gathering.mark.frame };
            if gathering.mark.salts == pair(spelled(now.salts)) {
                last = self.database.tracker().and_then(|tracker| tracker.ordered(seen));
            }
        }
        if !gathering.open.is_empty() && gathering.commits.is_empty() {
            // One commit is too much alone.
            return Ok(None);
        }
        self.database.lags(gathering.is_full);
        if gathering.is_full {
            let published = self.database.tracker().map_or(0, |tracker| tracker.published_commits());
            // More is to come, whatever was counted.
            let before = self.seen_commits.saturating_sub(1);
            self.seen_commits = before.min(published + gathering.commits.len() as u64);
        }
        let began_ms = gathering.times.began_ms();
        for (commit, time_ms) in gathering.commits.iter_mut().zip(gathering.times.told()) {
            commit.time_ms = time_ms;
        }
        let count = gathering.commits.last().map_or(figures.page_count, |last| last.page_count);
        // Patches stand on what was shipped from here; and where nothing was copied, on what is still here.
        let before = older.map(|frame| self.older(frame)).transpose()?;
        self.before.clear();
        let mut pages = Vec::with_capacity(gathering.newest.len());
        for (page, found) in gathering.newest.into_iter().filter(|(page, _)| count.holds(*page)) {
            let image = match found {
                Found::Image(image) => image,
                Found::Frame(frame) => {
                    let mut image = vec![0; self.page_size.len()];
                    self.page_of(frame, &mut image).map_err(|failure| self.told(&failure))?;
                    image
                }
            };
            let older = match &before {
                Some(before) => self.version_before(page, before),
                None => self.database.take_older(page).or_else(|| self.version_before(page, &HashMap::new())),
            };
            if let Some(older) = older {
                self.before.insert(page, older);
            }
            pages.push((page, image));
        }
        // What is left for the next batch is of a later state than this one's end.
        self.gathered = None;
        if !gathering.is_full
            && let Walked::Found(found, root) =
                self.look_for_sessions(self.database.serials_at(figures.generation), false)?
        {
            self.database.set_serials_at(root, figures.generation);
            self.gathered = Some(found);
        }
        self.find_logs()?;
        // Who reads the file alone does not keep the WAL from starting over.
        let still = self.connection.header().map_or(0, |header| header.salts()) == now.salts;
        let wal = Some(gathering.mark).filter(|_| still);
        let (page_size, is_all) = (self.page_size, !gathering.is_full);
        Ok(wal.map(|wal| {
            (Commits { page_size, commits: gathering.commits, pages, wal: Some(wal), is_all }, last, began_ms)
        }))
    }

    /// What was copied of WALs that started over since. Gives the number of the last commit that is in it.
    fn gather_sealed(&self, into: &mut Gathering, now: WalPlace) -> Result<Option<Ordinal>, SourceError> {
        let failed = |error: littoral_engine::LocalError| SourceError::Failed(error.to_string());
        let mut last = None;
        for sealed in self.database.sealed().list().map_err(failed)? {
            let header = &sealed.header;
            if header.page_size != self.page_size || now.salts != 0 && header.salts == pair(spelled(now.salts)) {
                break;
            }
            let mark = into.mark;
            let Some((after, checksum)) = goes_on(&sealed, &mark) else { continue };
            let mut goes_on = true;
            sealed
                .frames(after, checksum, |frame, head, page| {
                    let place = Some(Ordinal::of(sealed.wals, frame));
                    goes_on = into.take((frame, place), &head, Found::Image(page.to_vec()));
                    goes_on
                })
                .map_err(failed)?;
            if into.mark != mark {
                last = Some(Ordinal::of(sealed.wals, into.mark.frame));
            }
            // What ends no commit was rolled back, or its end was never copied: what follows does not follow then.
            if goes_on {
                into.open.clear();
            } else {
                break;
            }
        }
        Ok(last)
    }

    /// From where in the WAL that is there now what follows a mark goes on. Where there is none, nothing follows the last one's end.
    fn follows(&self, mark: &WalMark, now: WalPlace) -> Option<WalPlace> {
        if now.salts != 0 {
            return self.place_of(mark, now).or_else(|| self.begun_from(mark, now));
        }
        let tracker = self.database.tracker()?;
        let previous = tracker.previous();
        let is_end = pair(spelled(previous.salts)) == mark.salts && previous.frame == mark.frame;
        (is_end && tracker.witnessed() == WalPlace::default()).then_some(WalPlace::default())
    }

    /// The newest frame of each page up to one.
    fn older(&self, frame: u64) -> Result<HashMap<u32, u64>, SourceError> {
        let pages =
            self.connection.frames(0, frame).ok_or_else(|| self.busy("the WAL's index went away: try again"))?;
        Ok(pages.into_iter().zip(1..).collect())
    }

    /// What may be a page's version before, as far as it is here: whoever uses it looks at its identity.
    fn version_before(&self, page: PageNo, older: &HashMap<u32, u64>) -> Option<Vec<u8>> {
        let mut image = vec![0; self.page_size.len()];
        match older.get(&page.to_sqlite()?) {
            Some(frame) => self.page_of(*frame, &mut image).ok()?,
            // Of a sparse one it may have to be fetched, and nobody waits for that here.
            None if self.database.sparse().is_some() => return None,
            None => self.connection.read_main(page.index() * self.page_size.bytes(), &mut image).ok()?,
        }
        Some(image)
    }
}
