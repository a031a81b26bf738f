//! What the statements that run will ask for next, by their programs.
//!
//! A statement's program is had by `EXPLAIN`, on a connection of our own that is closed again before anybody goes on: it holds no lock
//! and no WAL longer than that. It is asked on a thread of its own, and waited for no longer than [`PATIENCE`]: whatever the host
//! does when a connection is opened, no read hangs on it. Where it cannot be had (a busy file, a function or a table that only the
//! application knows, a temporary table, a name of an attached database) nothing is foreseen, and nobody is told.

use crate::raw::connection::Connection;
use crate::raw::library::Library;
use littoral_engine::foresee::Foresight;
use littoral_engine::program::Nest;
use littoral_engine::readahead::Readahead;
use littoral_types::PageNo;
use littoral_types::limits::{PROGRAM_TRIES_MAX, PROGRAMS_KNOWN_MAX};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How long a program is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pages whose reading is remembered.
const RECENT: usize = 1024;

/// What is known of trees, statements, and how they were read so far.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) trees: Readahead,
    pub(super) foresight: Foresight,
    statements: VecDeque<Known>,
}

/// A statement whose program was asked for.
#[derive(Debug)]
struct Known {
    text: u64,
    nest: Option<Arc<Nest>>,
    /// How often it could not be had.
    failed: u32,
}

impl Ahead {
    pub(super) fn new(trees: Readahead) -> Self {
        Self { trees, foresight: Foresight::default(), statements: VecDeque::new() }
    }

    /// What is known of a statement; `None` where its program is to be asked for.
    pub(super) fn known(&self, text: u64) -> Option<Option<Arc<Nest>>> {
        let known = self.statements.iter().find(|known| known.text == text)?;
        let settled = known.nest.is_some() || known.failed == 0 || known.failed >= PROGRAM_TRIES_MAX;
        settled.then(|| known.nest.clone())
    }

    /// Keeps what a statement's program says; `None` where it could not be had.
    pub(super) fn keep(&mut self, text: u64, nest: Option<Nest>, here: &dyn Fn(PageNo) -> Option<Vec<u8>>) {
        let failed = self.statements.iter().position(|known| known.text == text);
        let failed = failed.and_then(|at| self.statements.remove(at)).map_or(0, |known| known.failed);
        let failed = if nest.is_none() { failed + 1 } else { 0 };
        let nest = nest.filter(|nest| !nest.is_empty());
        for root in nest.iter().flat_map(Nest::roots) {
            self.trees.learn_tree(root, here);
        }
        if self.statements.len() >= PROGRAMS_KNOWN_MAX {
            self.statements.pop_front();
        }
        self.statements.push_back(Known { text, nest: nest.map(Arc::new), failed });
    }
}

/// A statement's name among those that are known, as of a state of the schema.
pub(super) fn name(sql: &str, schema: [u8; 4]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sql, schema).hash(&mut hasher);
    hasher.finish()
}

/// Asks for a statement's program. `None` where it cannot be had.
pub(super) fn program(library: &'static Library, database: &Path, sql: &str) -> Option<Nest> {
    if !is_query(sql) {
        return Some(Nest::default());
    }
    // A library without mutexes is its one thread's.
    if !library.has_threads() {
        return None;
    }
    let (tell, told) = sync_channel(1);
    let (database, sql) = (database.to_owned(), sql.to_owned());
    let asking = std::thread::Builder::new().name("littoral-ahead".to_owned()).spawn(move || {
        let program = Connection::open(library, &database, 0).and_then(|connection| connection.explain(&sql));
        // The connection is closed. Whoever waited may have gone.
        let _ = tell.send(program.map(|program| Nest::of(&program)));
    });
    if let Err(error) = asking {
        tracing::debug!(%error, "no thread to ask for a statement's program");
        return None;
    }
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(nest)) => Some(nest),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a statement's program cannot be had: nothing is foreseen by it");
            None
        }
        Err(_) => None,
    }
}

/// Whether a statement may be explained: a pragma does what it says while it is prepared.
fn is_query(sql: &str) -> bool {
    let mut rest = sql.trim_start();
    loop {
        rest = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(comment), _) => comment.split_once('\n').map_or("", |(_, rest)| rest),
            (_, Some(comment)) => comment.split_once("*/").map_or("", |(_, rest)| rest),
            (None, None) => break,
        }
        .trim_start();
    }
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
    ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "REPLACE", "VALUES"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

/// Pages that were read, without a lock: a hint that may be torn between threads.
#[derive(Debug)]
pub(super) struct Recent {
    pages: [AtomicU32; RECENT],
    next: AtomicUsize,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { pages: [const { AtomicU32::new(0) }; RECENT], next: AtomicUsize::new(0) }
    }

    pub(super) fn note(&self, page: PageNo) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % RECENT;
        if let (Some(place), Ok(page)) = (self.pages.get(at), u32::try_from(page.get())) {
            place.store(page, Ordering::Relaxed);
        }
    }

    /// The newest first.
    pub(super) fn newest(&self) -> Vec<PageNo> {
        let next = self.next.load(Ordering::Relaxed) % RECENT;
        let (newer, older) = self.pages.split_at(next.min(RECENT));
        let pages = newer.iter().rev().chain(older.iter().rev());
        pages.filter_map(|page| PageNo::new(u64::from(page.load(Ordering::Relaxed)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_nothing_while_it_is_prepared_is_explained() {
        for (sql, asked) in [
            ("SELECT 1", true),
            (" -- a remark\n /* and another */ with t AS (SELECT 1) SELECT * FROM t", true),
            ("update t SET a = 1", true),
            ("PRAGMA littoral_checkpoint", false),
            ("/* SELECT */ PRAGMA journal_mode = WAL", false),
            ("ATTACH 'x' AS y", false),
            ("EXPLAIN SELECT 1", false),
            ("-- SELECT", false),
            ("", false),
        ] {
            assert_eq!(is_query(sql), asked, "{sql}");
        }
    }

    #[test]
    fn pages_that_were_read_are_told_newest_first() {
        let recent = Recent::new();
        (1..=RECENT as u64 + 5).filter_map(PageNo::new).for_each(|page| recent.note(page));
        let told: Vec<u64> = recent.newest().iter().map(|page| page.get()).collect();
        assert_eq!((told.len(), told[0], told[RECENT - 1]), (RECENT, RECENT as u64 + 5, 6));
        assert!(told.is_sorted_by(|a, b| a > b));
    }
}
