//! A database's commits out of its WAL, since the place that the volume's newest record names.
//!
//! What this room promises:
//! 1. What it gives is all that changed since that record: the WAL has not started over since, its frames before are those that the record
//!    speaks of (their running checksum says so), or it started over exactly there; and nobody wrote past it. Else it gives nothing, and a
//!    checkpoint is due.
//! 2. No more than a bounded part of memory is filled, inside of one short read transaction.

use super::{FRAME_HEADER, Live, WAL_HEADER};
use crate::raw::connection::Failure;
use littoral_engine::tracker::WalPlace;
use littoral_ports::{Commits, Noted, SourceError};
use littoral_types::{PageCount, PageNo, VolumeRow, WalMark};
use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// Pages that travel commit by commit, in bytes: read with what they replace inside of one slice (rule S16).
const GATHERED_BYTES_MAX: u64 = 8 << 20;

/// What a frame's header says.
struct FrameHead {
    page: u32,
    /// The database's size after the commit that it ends; zero for one that ends none.
    pages: u32,
    salts: u64,
    checksum: [u32; 2],
}

fn salts_of(mark: &WalMark) -> u64 {
    u64::from(mark.salts[0]) << 32 | u64::from(mark.salts[1])
}

/// How a WAL spells the salts that its index has in the machine's own order.
fn spelled(salts: u64) -> u64 {
    let [one, two] = [(salts >> 32) as u32, salts as u32].map(u32::swap_bytes);
    let native = u64::from(one) << 32 | u64::from(two);
    if cfg!(target_endian = "little") { native } else { salts }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

impl Live {
    fn offset_of(&self, frame: u64) -> u64 {
        WAL_HEADER + frame.saturating_sub(1) * (FRAME_HEADER + self.page_size.bytes())
    }

    fn head(&self, frame: u64) -> Result<FrameHead, Failure> {
        let mut bytes = [0; FRAME_HEADER as usize];
        self.connection.read_wal(self.offset_of(frame), &mut bytes)?;
        let salts = u64::from(number(&bytes, 8)) << 32 | u64::from(number(&bytes, 12));
        let checksum = [number(&bytes, 16), number(&bytes, 20)];
        Ok(FrameHead { page: number(&bytes, 0), pages: number(&bytes, 4), salts, checksum })
    }

    /// The mark of a place in the WAL that is there now. `None` where it is not any more.
    pub(super) fn mark_at(&self, place: WalPlace) -> Option<WalMark> {
        if place.salts == 0 {
            return None;
        }
        let wanted = spelled(place.salts);
        let (salts, checksum) = match place.frame {
            0 => {
                let mut header = [0; WAL_HEADER as usize];
                self.connection.read_wal(0, &mut header).ok()?;
                let salts = u64::from(number(&header, 16)) << 32 | u64::from(number(&header, 20));
                (salts, [number(&header, 24), number(&header, 28)])
            }
            frame => {
                let head = self.head(frame).ok()?;
                (head.salts, head.checksum)
            }
        };
        let parts = [(wanted >> 32) as u32, wanted as u32];
        (salts == wanted).then_some(WalMark { salts: parts, frame: place.frame, checksum })
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

    /// All that was committed since the newest record; see [`littoral_ports::LiveSource::commits_since`].
    pub(super) fn gather(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        let Some(mark) = row.tail.wal else { return Ok(None) };
        if let Some(sparse) = self.database.sparse() {
            sparse.vouch(row).map_err(SourceError::Failed)?;
        }
        self.page_size = self.enter()?;
        let gathered = self.vouch().and_then(|()| self.gathered(row, &mark));
        self.leave()?;
        let Some(commits) = gathered? else { return Ok(None) };
        // The object store is about to have it, and must not be ahead of this disk when the power fails (rule S2).
        self.settle()?;
        Ok(Some(commits))
    }

    fn gathered(&mut self, row: &VolumeRow, mark: &WalMark) -> Result<Option<Commits>, SourceError> {
        let figures = row.tail.figures;
        // What nobody has seen, or what is of another state, is compared page by page.
        let basis = self.database.tracker().and_then(|tracker| tracker.basis());
        let is_known = basis.is_some_and(|basis| (basis.volume, basis.generation) == (row.meta.id, figures.generation));
        let now = self.view.place;
        if !is_known || figures.page_size != Some(self.page_size) || self.connection.reader().is_none() {
            return Ok(None);
        }
        let Some(from) = self.place_of(mark, now).or_else(|| self.begun_from(mark, now)) else { return Ok(None) };
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut commits = Vec::new();
        let mut newest: BTreeMap<PageNo, u64> = BTreeMap::new();
        for frame in from.frame + 1..=now.frame {
            let head = self.head(frame).map_err(|failure| self.told(&failure))?;
            let Some(page) = PageNo::new(u64::from(head.page)).filter(|_| head.salts == spelled(now.salts)) else {
                return Ok(None);
            };
            newest.insert(page, frame);
            if head.pages != 0 {
                commits.push(Noted { time_ms, page_count: PageCount(u64::from(head.pages)), session: None });
            }
            if newest.len() as u64 * self.page_size.bytes() > GATHERED_BYTES_MAX {
                return Ok(None);
            }
        }
        let count = commits.last().map_or(figures.page_count, |last| last.page_count);
        let before = self.older(from.frame)?;
        self.before.clear();
        let mut pages = Vec::with_capacity(newest.len());
        for (page, frame) in newest.into_iter().filter(|(page, _)| count.holds(*page)) {
            let mut image = vec![0; self.page_size.len()];
            let read = self.connection.read_wal(self.offset_of(frame) + FRAME_HEADER, &mut image);
            read.map_err(|failure| self.told(&failure))?;
            if let Some(older) = self.version_before(page, &before) {
                self.before.insert(page, older);
            }
            pages.push((page, image));
        }
        // Who reads the file alone does not keep the WAL from starting over.
        let still = self.connection.header().is_some_and(|header| header.salts() == now.salts);
        let wal = self.mark_at(now).filter(|_| still);
        self.seen_commits = self.database.tracker().map_or(0, |tracker| tracker.commits());
        Ok(wal.map(|wal| Commits { page_size: self.page_size, commits, pages, wal: Some(wal) }))
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
            Some(frame) => self.connection.read_wal(self.offset_of(*frame) + FRAME_HEADER, &mut image).ok()?,
            // Of a sparse one it may have to be fetched, and nobody waits for that here.
            None if self.database.sparse().is_some() => return None,
            None => self.connection.read_main(page.index() * self.page_size.bytes(), &mut image).ok()?,
        }
        Some(image)
    }
}
