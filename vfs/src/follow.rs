//! A replica, as SQLite sees it (rule S18): a database in rollback mode that somebody else writes. A read transaction is pinned to one state
//! from its SHARED lock to the end of that, and page 1 shows change counters that move with the LSN, so that SQLite drops what it remembers of
//! the state before by itself.
//!
//! Nothing of it is written by SQLite, nothing mapped, and no lock of a file taken: who reads what is known by pins.

use crate::raw::abi::code;
use crate::said::Said;
use crate::sql::Refusal;
use crate::work::{self, Ground};
use littoral_engine::EngineError;
use littoral_engine::follow::{FollowError, Options, Place, Reader, Replica};
use littoral_engine::open::{self, store_root};
use littoral_types::{PageNo, Position};
use std::ffi::c_int;
use std::path::Path;

/// Bytes of page 1 that are shown otherwise than they are: from, and what.
type Shown = (u64, Vec<u8>);

/// Opens a database that follows.
pub(crate) fn open(database: &Path, said: &Said, read_only: bool) -> Result<Replica, String> {
    if !read_only {
        return Err(format!(
            "{}: what follows (follow=) is only read, and somebody else writes it: open it as mode=ro&follow=1, or leave out follow= to write \
             it here",
            database.display()
        ));
    }
    let told = |error: EngineError| format!("{}: {}", database.display(), crate::remedy::told(&error));
    let Ground { place, said, components } = work::ground(database, said).map_err(told)?;
    if place.found.is_some() {
        return Err(format!(
            "{}: is bound to a volume that is written here: a replica stands under another path. Leave out follow= to open this one",
            database.display()
        ));
    }
    open::begin_account(&place, &said.settings, &components);
    let (log, meter) = place.log(&said.settings, &components).map_err(told)?;
    let components = components.charged_to(meter.account());
    let options = Options { poll_ms: said.settings.poll_ms.value, quota: said.settings.quota.value };
    let files = Place::of(&store_root(database, &said.settings), database);
    Replica::open(&files, log, components, options)
        .map_err(|error| format!("{}: {}", database.display(), told_of(&error)))
}

/// Refuses what would read without telling when it begins and ends: it would be shown a mixture of states.
pub(crate) fn refuse_unlocked(database: &Path, parameters: &[(String, String)]) -> Result<(), String> {
    let Some((name, _)) = parameters.iter().find(|(name, _)| matches!(name.as_str(), "nolock" | "immutable")) else {
        return Ok(());
    };
    Err(format!(
        "{}: what follows (follow=) moves on between read transactions, which {name}= does without: leave out {name}=",
        database.display()
    ))
}

/// A moment of the past does not move.
pub(crate) fn refused_moment(database: &Path) -> String {
    format!(
        "{}: at= opens one moment, and follow= what comes after it: leave out at= to follow, or follow= to look at that moment",
        database.display()
    )
}

/// A cold scan does not move either.
pub(crate) fn refused_cold(database: &Path) -> String {
    format!(
        "{}: cold= reads one state, and follow= what comes after it: leave out cold= to follow, or follow= to scan",
        database.display()
    )
}

/// Refuses to take a replica for anything else.
pub(crate) fn refuse_replica(database: &Path, said: &Said) -> Result<(), String> {
    if !Place::of(&store_root(database, &said.settings), database).is_replica() {
        return Ok(());
    }
    Err(format!(
        "{}: is a replica, which follows its volume and is only read: open it as mode=ro&follow=1. To write its volume, open it under another \
         path (takeover=); to have another database here, close all connections and delete this file",
        database.display()
    ))
}

/// An error and its remedy.
pub(crate) fn told_of(error: &FollowError) -> String {
    match error {
        FollowError::Engine(error) => crate::remedy::told(error),
        FollowError::Shared(error) => {
            format!("a page is not here and cannot be fetched: {}", crate::remedy::told(error))
        }
        FollowError::Late(_) | FollowError::Bridge(_) => error.to_string(),
    }
}

impl From<FollowError> for Refusal {
    fn from(error: FollowError) -> Self {
        let message = crate::last::in_sql(&told_of(&error));
        crate::last::error(&message);
        Self { code: code_of(&error), message }
    }
}

/// SQLite's code of it.
pub(crate) fn code_of(error: &FollowError) -> c_int {
    match error {
        FollowError::Engine(error) => crate::code::of(error),
        FollowError::Shared(error) => crate::code::of(error),
        // Not yet: whoever asks again may be told otherwise.
        FollowError::Late(_) => code::BUSY,
        FollowError::Bridge(_) => code::IOERR,
    }
}

/// Fetches every page of the newest state that is not here, as far as the quota has room.
pub(crate) fn hydrate(replica: &Replica) -> Result<String, FollowError> {
    let mut reader = replica.reader();
    reader.begin()?;
    let (count, position) = (reader.page_count(), reader.position());
    for index in 0..count.0 {
        reader.read(PageNo::from_index(index), 0, &mut [0])?;
    }
    let shown = position.map(|position| position.to_string()).unwrap_or_default();
    Ok(format!("{count} of {count} pages of {shown} were fetched where they were not here"))
}

/// One connection's file.
#[derive(Debug)]
pub(crate) struct Watched {
    reader: Reader,
    /// Between SQLite's SHARED lock and its end.
    locked: bool,
}

impl Watched {
    pub(crate) fn new(replica: &Replica) -> Self {
        Self { reader: replica.reader(), locked: false }
    }

    /// A read transaction begins.
    pub(crate) fn lock(&mut self) -> Result<(), FollowError> {
        self.reader.begin()?;
        self.locked = true;
        Ok(())
    }

    /// It ends.
    pub(crate) fn unlock(&mut self) {
        self.locked = false;
        self.reader.end();
    }

    /// What the transaction reads; `None` outside of one.
    pub(crate) fn shown(&self) -> Option<Position> {
        if self.locked { self.reader.position() } else { None }
    }

    /// Looks at a state: that of the transaction, else the newest one for this once.
    fn during<T>(&mut self, look: impl FnOnce(&Reader) -> Result<T, FollowError>) -> Result<T, FollowError> {
        self.reader.begin()?;
        let found = look(&self.reader);
        if !self.locked {
            self.reader.end();
        }
        found
    }

    /// The database's size in bytes.
    pub(crate) fn size(&mut self) -> Result<u64, FollowError> {
        self.during(|reader| Ok(reader.page_count().0 * reader.page_size().bytes()))
    }

    /// Reads. How much of it there was: what lies behind the end is zeros.
    pub(crate) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<usize, FollowError> {
        self.during(|reader| {
            let size = reader.page_size().bytes();
            let end = reader.page_count().0 * size;
            let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
            let (here, behind) = into.split_at_mut(there);
            behind.fill(0);
            let mut at = offset;
            let mut rest = &mut *here;
            while !rest.is_empty() {
                let (page, from) = (PageNo::from_index(at / size), at % size);
                let many = rest.len().min(usize::try_from(size - from).unwrap_or(usize::MAX));
                let (part, next) = rest.split_at_mut(many);
                reader.read(page, usize::try_from(from).unwrap_or(0), part)?;
                (at, rest) = (at + many as u64, next);
            }
            if let Some(position) = reader.position() {
                overlay(offset, here, position, reader.page_count().0);
            }
            Ok(there)
        })
    }
}

/// Page 1 as a database shows it that commits by a rollback journal, with counters of its own (rule S18).
fn overlay(offset: u64, into: &mut [u8], position: Position, page_count: u64) {
    // Any number that is another for another state: SQLite compares, and never counts.
    let counter = (position.lsn.0 as u32).to_be_bytes().to_vec();
    let count = u32::try_from(page_count).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    let shown: [Shown; 4] = [(18, vec![1, 1]), (24, counter.clone()), (28, count), (92, counter)];
    for (start, bytes) in shown {
        for (at, byte) in (start..).zip(bytes) {
            let place = at.checked_sub(offset).and_then(|place| usize::try_from(place).ok());
            if let Some(found) = place.and_then(|place| into.get_mut(place)) {
                *found = byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s18_page_one_is_shown_in_rollback_mode_with_counters_that_move() {
        let position: Position = "3.258".parse().unwrap();
        let page: Vec<u8> = (0..=255).collect();
        let mut whole = page.clone();
        overlay(0, &mut whole, position, 7);
        assert_eq!(
            (&whole[18..20], &whole[24..32], &whole[92..96]),
            (&[1, 1][..], &[0, 0, 1, 2, 0, 0, 0, 7][..], &[0, 0, 1, 2][..])
        );
        let others = (0..256).filter(|at| !matches!(at, 18..20 | 24..32 | 92..96));
        assert!(others.into_iter().all(|at| whole[at] == page[at]));
        // As SQLite looks whether anything changed, and however else it asks.
        for start in 0..100_usize {
            for len in [1, 7, 16, 100] {
                let mut part = page[start..start + len].to_vec();
                overlay(start as u64, &mut part, position, 7);
                assert_eq!(part, whole[start..start + len], "{start} {len}");
            }
        }
    }
}
