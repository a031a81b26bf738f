//! A database that is kept by who has no use for it: a daemon that ships what others commit.
//!
//! What this room promises:
//! 1. No connection of ours is open between two looks and two publications: SQLite's last close, exclusive mode and another journal mode
//!    find nobody but, for a moment, a reader. Marks, commits and bells are those of all processes (the tracker).
//! 2. It begins with a connection that opens the database, and ends with one that closes it as the last of this process does: only so it
//!    is known what the file looked like when we left. Without one nothing is known of it afterwards, and nothing is lost.
//!
//! What may never enter: when to look, what is said of it.

use crate::database::{self, Database, Used};
use littoral_engine::tracker::{Trace, Tracker};
use littoral_types::{Epoch, Position};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Kept as long as this lives.
#[derive(Debug)]
pub struct Watch {
    used: Option<Used>,
}

/// How a database stands that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether this process is the one that ships for it.
    pub is_elected: bool,
    /// Up to where the object store has it, as far as anybody here has published.
    pub position: Option<Position>,
    /// Commits that were counted and are not there.
    pub commits_left: u64,
    /// For how long the oldest of them has waited.
    pub waiting: Option<Duration>,
    /// Why they could not be published, the last time this process tried.
    pub trouble: Option<String>,
    /// Whose term began since ours.
    pub fenced: Option<(Epoch, String)>,
}

impl Watch {
    /// Keeps a database that a connection of this process has open through the VFS; that one may be closed then. `None` when none has.
    pub fn keep(path: &Path) -> Option<Self> {
        Some(Self { used: Some(Database::find_used(path)?) })
    }

    /// Whether its file still has its name.
    pub fn is_there(&self) -> bool {
        self.used.as_ref().is_some_and(|used| used.is_there())
    }

    /// How it stands.
    pub fn seen(&self) -> Seen {
        let Some(database) = self.used.as_deref() else { return Seen::default() };
        let Some(tracker) = database.tracker() else {
            return Seen { trouble: database.trouble(), ..Seen::default() };
        };
        Seen {
            is_elected: database.is_elected(),
            position: tracker.durable(),
            commits_left: tracker.commits_since(),
            waiting: tracker.waiting(),
            trouble: database.trouble(),
            fenced: tracker.fenced(),
        }
    }

    /// What is counted of it, also after it is kept no more.
    pub fn counts(&self) -> Option<Counts> {
        self.used.as_ref()?.counts().map(Counts)
    }

    /// Whether commits are counted here at all: without that nobody ships.
    pub fn has_shipper(&self) -> bool {
        self.used.as_ref().is_some_and(|used| used.has_shipper())
    }

    /// Somebody may have written past us: whoever ships looks at once.
    pub fn ask(&self) {
        if let Some(tracker) = self.used.as_ref().and_then(|used| used.tracker()) {
            tracker.ask();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(used) = self.used.take() {
            database::abandoned(used);
        }
    }
}

/// What all processes count of a database's commits.
#[derive(Debug)]
pub struct Counts(Arc<Tracker>);

impl Counts {
    /// Commits that are not in the object store, and up to where it has them, as of now.
    pub fn now(&self) -> (u64, Option<Position>) {
        (self.0.commits_since(), self.0.durable())
    }

    /// Whether these are all that there are: nothing was written past us that is to be compared yet.
    pub fn are_all(&self) -> bool {
        self.0.basis().is_some()
    }
}

/// What a database and its WAL look like from outside: whether anything was written since, by whomever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks([Option<Trace>; 2]);

impl Looks {
    /// Looks, without opening anything.
    pub fn of(path: &Path) -> Self {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self([Trace::of(path), Trace::of(Path::new(&wal))])
    }
}
