//! One database in the care of a worker: opened when it is there, kept, looked at, and closed in order.
//!
//! What this room promises:
//! 1. A database that is not there is waited for, one that vanishes too. Nothing is made where none is, and nothing fetched.
//! 2. Between two looks no connection of ours is open (`littoral_vfs::watch`).
//! 3. What somebody wrote past the VFS is looked for as soon as the files have stood still for a [`TICK`], or at least every ten seconds.
//!    Who looks and finds nobody else there cleans up as any last connection of SQLite's does.
//! 4. Each change of how it stands is told once.

use crate::caretaker::Charges;
use crate::sqlite::OpenDatabase;
use littoral_engine::hand_over::NOBODY;
use littoral_engine::runtime::Cut;
use littoral_engine::settings::{Key, Settings};
use littoral_types::{Epoch, Lsn, Position};
use littoral_vfs::watch::{Looks, Seen, Watch};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked how a database stands, from outside.
pub const TICK: Duration = Duration::from_secs(1);
/// While it is written all the time, it is looked for others' writing this often.
const BUSY_LOOK: Duration = Duration::from_secs(10);
/// One that could not be opened is tried again after this, and ever more slowly.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is told of a database, or of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is not there yet.
    Waits,
    /// What is committed to it is shipped from here.
    Ships(Option<Position>),
    /// Another process ships for it, as of now.
    StandsBy,
    /// It cannot be opened, or what was committed cannot be published.
    Fails(String),
    /// It can be again.
    Recovers(Option<Position>),
    /// Another machine took over.
    Fenced(Epoch, String),
    /// It was given up in order: nothing travels until it is claimed anew.
    Released(Epoch),
    /// It was there, and is no more.
    Gone,
    /// It is left: so many commits were not published, for that reason; or for that reason it is not known whether any were not.
    Left(u64, Option<Position>, Option<String>),
    /// What nobody needs went: objects, their bytes; and packs were written anew.
    Pruned {
        /// Records, manifest snapshots, blobs and pins.
        objects: u64,
        /// Their bytes.
        bytes: u64,
        /// Packs that were mostly dead.
        packs: u64,
    },
    /// The credentials may not delete, in the object store's words. Told once.
    MayNotDelete(String),
    /// A pass over everything came to its end, and all was well.
    Verified {
        /// Blobs of its last part.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A restore works.
    Proved {
        /// Up to which commit.
        position: Position,
        /// How long it took.
        took_ms: u64,
        /// What the probe answered.
        answer: Option<String>,
    },
    /// Something of the volume is damaged: what a verification or a drill found.
    NotSound(Vec<String>),
    /// What was due could not be done, and why: it is tried again.
    ChoreFails(&'static str, String),
    /// Records of a log to which nobody appends went to its volume.
    Shipped {
        /// How many.
        records: u64,
        /// Their bytes, and those that travelled once more.
        bytes: u64,
        /// Up to where the object store has it.
        position: Option<Position>,
    },
    /// What a log need not keep went, there and here.
    LetGo {
        /// Sealed segments.
        segments: u64,
        /// Their bytes.
        bytes: u64,
        /// The record with which it begins now.
        start: Lsn,
    },
}

/// When everybody is to end.
#[derive(Debug, Default)]
pub struct Stop {
    stops: Mutex<bool>,
    told: Condvar,
    cut: Cut,
}

impl Stop {
    /// Now.
    pub fn now(&self) {
        *self.stops.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
        self.cut.now();
    }

    /// What cuts long work off then.
    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Waits for that, no longer than this: whether it is so.
    pub(crate) fn within(&self, at_most: Duration) -> bool {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        let (stops, _) =
            self.told.wait_timeout_while(stops, at_most, |stops| !*stops).unwrap_or_else(PoisonError::into_inner);
        *stops
    }
}

/// Keeps one database.
pub struct Keeper<'a> {
    /// The database.
    pub path: PathBuf,
    /// What was said of it.
    pub said: Vec<(Key, OsString)>,
    /// Where it is told how it stands.
    pub tell: &'a (dyn Fn(&Path, Event) + Sync),
    /// When to end.
    pub stop: &'a Stop,
    /// What else is asked for, beside shipping.
    pub settings: Arc<Settings>,
    /// Who does that.
    pub charges: &'a Charges,
}

/// Where nobody knows what was written past us.
const COMPARES: &str =
    "something was written past Littoral, and who ships next compares the whole file (littoral checkpoint does so now)";

/// What was told of it last.
#[derive(Debug, Default)]
struct Told {
    stands: Stands,
    /// Whether it was told that it ships: only then can it again.
    has_shipped: bool,
}

/// How it was told to stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stands {
    #[default]
    Untold,
    Away,
    Ships,
    By,
    Ill(String),
    Fenced(Epoch, String),
}

/// One that is open.
struct Kept {
    watch: Watch,
    /// As it was when it was opened by a connection for the last time, and at the last tick.
    looked: Looks,
    seen: Looks,
    when: Instant,
}

impl Keeper<'_> {
    /// Until it is to end. `tried` when it was looked at for the first time.
    pub fn run(self, tried: impl FnOnce()) {
        let mut kept: Option<Kept> = None;
        let mut last = Told::default();
        let mut failures = 0;
        let mut tried = Some(tried);
        let mut next = Instant::now();
        loop {
            if let Some(gone) = kept.take_if(|kept| !kept.watch.is_there()) {
                drop(gone);
                (self.tell)(&self.path, Event::Gone);
                (last, failures, next) = (Told::default(), 0, Instant::now());
            }
            match &mut kept {
                Some(kept) => self.look_again(kept, &mut last),
                None if !holds_something(&self.path) => self.told(&mut last, Stands::Away, None),
                None if Instant::now() >= next => match self.open() {
                    Ok(new) => {
                        failures = 0;
                        let seen = new.watch.seen();
                        kept = Some(new);
                        // Who ships is settled a moment later.
                        if seen.fenced.is_some() || seen.is_elected {
                            self.told(&mut last, stands_now(&seen), seen.position);
                        }
                    }
                    Err(why) => {
                        self.told(&mut last, Stands::Ill(why), None);
                        next = Instant::now() + PAUSE.saturating_mul(1 << failures).min(PAUSE_MAX);
                        failures = (failures + 1).min(8);
                    }
                },
                None => {}
            }
            self.charges
                .set(&self.path, Some(&self.settings).filter(|_| kept.is_some() && last.stands == Stands::Ships));
            if let Some(tried) = tried.take() {
                tried();
            }
            if self.stop.within(TICK) {
                break;
            }
        }
        self.charges.set(&self.path, None);
        if let Some(kept) = kept {
            self.leave(kept);
        }
    }

    fn open(&self) -> Result<Kept, String> {
        let looked = Looks::of(&self.path);
        let connection = self.connect()?;
        let watch = Watch::keep(connection.path()).ok_or("it is not open through the VFS")?;
        if !watch.has_shipper() {
            return Err("commits cannot be kept track of here, and so none can be shipped (the log says why)".into());
        }
        drop(connection);
        Ok(Kept { watch, looked, seen: looked, when: Instant::now() })
    }

    /// Opens it as an application does, and closes it so: whoever wrote past us is found out, and who is the last one cleans up.
    fn connect(&self) -> Result<OpenDatabase, String> {
        let connection = OpenDatabase::open(&self.path, &self.said).map_err(|error| error.to_string())?;
        connection.cleans_up().map_err(|error| error.to_string())?;
        Ok(connection)
    }

    fn look_again(&self, kept: &mut Kept, last: &mut Told) {
        let now = Looks::of(&self.path);
        let is_still = now == kept.seen;
        kept.seen = now;
        if now != kept.looked && (is_still || kept.when.elapsed() >= BUSY_LOOK) {
            kept.when = Instant::now();
            let before = Looks::of(&self.path);
            // Where it cannot be opened just now, it is looked at again; and who ships tells what keeps him from it.
            if self.connect().is_ok() {
                kept.watch.ask();
                kept.seen = Looks::of(&self.path);
                // What came while it was looked at is looked at again.
                kept.looked = if kept.seen == before { before } else { now };
            }
        }
        let seen = kept.watch.seen();
        self.told(last, stands_now(&seen), seen.position);
    }

    fn told(&self, last: &mut Told, now: Stands, position: Option<Position>) {
        if last.stands == now {
            return;
        }
        let was_ill = matches!(last.stands, Stands::Ill(_));
        last.stands = now.clone();
        let event = match now {
            Stands::Untold => return,
            Stands::Away => Event::Waits,
            Stands::Ships => match std::mem::replace(&mut last.has_shipped, true) && was_ill {
                true => Event::Recovers(position),
                false => Event::Ships(position),
            },
            Stands::By => Event::StandsBy,
            Stands::Ill(why) => Event::Fails(why),
            Stands::Fenced(epoch, owner) if owner == NOBODY => Event::Released(epoch),
            Stands::Fenced(epoch, owner) => Event::Fenced(epoch, owner),
        };
        (self.tell)(&self.path, event);
    }

    /// Leaves it as the last connection of a process does: what is committed travels within `close_wait`.
    fn leave(&self, kept: Kept) {
        let _ = littoral_vfs::take_error();
        let connection = if kept.watch.is_there() { self.connect() } else { Err("it is gone".to_owned()) };
        let why = match connection {
            Ok(connection) => {
                // From here on the connection is the last one.
                let tracker = kept.watch.counts();
                drop(kept);
                drop(connection);
                let why = littoral_vfs::take_error();
                let (left, position) = tracker.as_ref().map_or((0, None), |counts| counts.now());
                let why = match left == 0 && tracker.is_some_and(|counts| counts.are_all()) {
                    true => None,
                    false if left == 0 => why.or_else(|| Some(COMPARES.to_owned())),
                    false => why,
                };
                return (self.tell)(&self.path, Event::Left(left, position, why));
            }
            Err(why) => why,
        };
        let seen = kept.watch.seen();
        drop(kept);
        (self.tell)(&self.path, Event::Left(seen.commits_left, seen.position, Some(why)));
    }
}

fn stands_now(seen: &Seen) -> Stands {
    match (&seen.fenced, &seen.trouble) {
        (Some((epoch, owner)), _) => Stands::Fenced(*epoch, owner.clone()),
        (None, Some(why)) if seen.is_elected => Stands::Ill(why.clone()),
        (None, _) if seen.is_elected => Stands::Ships,
        (None, _) => Stands::By,
    }
}

/// Whether there is a database, and not only its name.
fn holds_something(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let len = |path: &Path| std::fs::metadata(path).ok().map(|found| found.len());
    len(path).is_some_and(|bytes| bytes > 0 || len(Path::new(&wal)).is_some_and(|bytes| bytes > 0))
}
