//! Waiting until the object store has what was committed (rule S13).
//!
//! What this room promises:
//! 1. Who waits for a commit is told that it is there after another process could read its record, never before.
//! 2. Nobody waits while holding a lock that others need to commit: commits that come meanwhile travel together.
//! 3. Whatever goes wrong, the commit is here; who waited is told so, and which LSN it will have.

use crate::last;
use crate::raw::abi::code;
use crate::sql::Target;
use littoral_engine::settings::Durability;
use littoral_engine::tracker::Tracker;
use littoral_engine::tracker::bells::Ordinal;
use littoral_types::limits::DURABLE_WAIT_MS;
use littoral_types::{Lsn, Position};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// After a failed attempt the next one is asked for this much later.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a commit of a rollback journal is waited for at most.
const JOURNAL_WAIT: Duration = Duration::from_secs(10);

/// When a connection's commits count as done: from now on, and for the transaction that is open or the next one.
#[derive(Debug)]
pub(crate) struct Wish {
    remote: AtomicBool,
    /// Zero: nothing else was said.
    once: AtomicU8,
}

impl Wish {
    /// As it was said when the connection was opened.
    pub(crate) fn new(said: Durability) -> Self {
        Self { remote: AtomicBool::new(said == Durability::Remote), once: AtomicU8::new(0) }
    }

    /// From now on.
    pub(crate) fn set(&self, wish: Durability) {
        self.remote.store(wish == Durability::Remote, Ordering::Relaxed);
    }

    /// For one transaction.
    pub(crate) fn set_once(&self, wish: Durability) {
        self.once.store(1 + u8::from(wish == Durability::Remote), Ordering::Relaxed);
    }

    /// What is said.
    pub(crate) fn now(&self) -> Durability {
        if self.remote.load(Ordering::Relaxed) { Durability::Remote } else { Durability::Local }
    }

    /// A transaction ends. Whether it is to be waited for, if it was committed.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        match self.once.load(Ordering::Relaxed) {
            0 => self.remote.load(Ordering::Relaxed),
            said => {
                self.once.store(0, Ordering::Relaxed);
                said == 2
            }
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// Its place among all commits in WALs; `None` for one of a rollback journal.
    pub(crate) place: Option<Ordinal>,
    /// How many commits had been counted with it.
    pub(crate) count: u64,
}

impl Pending {
    /// Everything that is committed by now.
    pub(crate) fn newest(tracker: &Tracker) -> Self {
        let place = tracker.ordered(tracker.witnessed()).filter(|place| place.frame() > 0);
        Self { place, count: tracker.commits() }
    }

    pub(crate) fn is_durable(&self, tracker: &Tracker) -> bool {
        match self.place {
            Some(place) => tracker.is_durable(place),
            None => tracker.published_commits() >= self.count,
        }
    }

    /// The LSN that it will have, as far as commits were counted.
    fn lsn(&self, tracker: &Tracker) -> Option<Position> {
        let Position { epoch, lsn: Lsn(lsn) } = tracker.durable()?;
        let after = self.count.saturating_sub(tracker.published_commits());
        Some(Position { epoch, lsn: Lsn(lsn + after.max(1)) })
    }
}

/// Waits for a commit. SQLite's answer: an error says that it is here and not there, and must not be made again.
pub(crate) fn committed(target: &Target, pending: Pending) -> c_int {
    let Some(tracker) = target.database.tracker() else {
        return told(target, None, "what was committed cannot be kept track of here (the log says why)");
    };
    // Who waits after a commit of a rollback journal keeps other writers out, and readers, whoever ships among them.
    let (tries, at_most) = match pending.place {
        Some(_) => (u32::MAX, Duration::from_millis(DURABLE_WAIT_MS)),
        None => (1, JOURNAL_WAIT),
    };
    let enough = |tracker: &Tracker| pending.is_durable(tracker);
    match tried(target, tracker, at_most, tries, &enough) {
        Ok(()) => code::OK,
        Err(why) => told(target, pending.lsn(tracker), &why),
    }
}

fn told(target: &Target, lsn: Option<Position>, why: &str) -> c_int {
    let lsn = lsn.map_or_else(String::new, |lsn| format!(" as LSN {lsn}"));
    last::error(&format!(
        "{}: committed here{lsn}, and not in the object store yet: {why}. Do not repeat the transaction: it travels as soon as it can. \
         PRAGMA littoral_durable_lsn tells when; PRAGMA littoral_durability=local goes on without waiting",
        target.database.path().display()
    ));
    code::ERROR
}

/// Has everything that is committed by now shipped, and waits until it is enough, or for so long; then says why it is not.
pub(crate) fn wait(
    target: &Target,
    tracker: &Tracker,
    at_most: Duration,
    enough: &dyn Fn(&Tracker) -> bool,
) -> Result<(), String> {
    tried(target, tracker, at_most, u32::MAX, enough)
}

fn tried(
    target: &Target,
    tracker: &Tracker,
    at_most: Duration,
    mut tries: u32,
    enough: &dyn Fn(&Tracker) -> bool,
) -> Result<(), String> {
    let begun = Instant::now();
    let left = || at_most.saturating_sub(begun.elapsed());
    if target.keeps_out {
        return Err("this connection keeps every other one out (locking_mode=EXCLUSIVE), and what is shipped is read by another one".into());
    }
    if !target.database.has_shipper() {
        // Nobody does it unasked.
        let shipped = crate::work::sync(&target.database, &target.said, at_most);
        return match shipped {
            Ok(_) if enough(tracker) => Ok(()),
            Ok(_) => Err("it was published in part".to_owned()),
            Err(error) => Err(error.to_string()),
        };
    }
    let mut asked = tracker.ask();
    loop {
        let heard = tracker.answers();
        if enough(tracker) {
            return Ok(());
        }
        if let Some((epoch, owner)) = tracker.fenced() {
            return Err(format!("{owner} took over (epoch {epoch}), and nothing is published from here any more"));
        }
        let is_served = tracker.is_served(asked);
        if is_served && !enough(tracker) {
            tries = tries.saturating_sub(1);
        }
        if left().is_zero() || tries == 0 {
            let trouble = target.database.trouble();
            let why = trouble.unwrap_or_else(|| {
                let database = &target.database;
                match (database.worked_by(), database.shipped_by(), is_served) {
                    (Some(by), ..) => format!("{by} is at work on the volume, and has not let it go"),
                    (None, Some(by), true) => format!("{by} ships, and has not said why"),
                    (None, None, true) => "the process that ships has not said why".to_owned(),
                    // An attempt is under way since.
                    (None, _, false) => {
                        "the object store has not answered: look at the network, and endpoint= (or AWS_ENDPOINT_URL_S3)"
                            .to_owned()
                    }
                }
            });
            return Err(format!("after {:.1} s: {why}", begun.elapsed().as_secs_f32()));
        }
        if is_served {
            // An attempt was made since, and it did not bring it there.
            std::thread::sleep(PAUSE.min(left()));
            asked = tracker.ask();
            continue;
        }
        tracker.await_answer(heard, left().min(Duration::from_secs(1)));
    }
}
