//! A replica: a volume that is read here while somebody else writes it, and that follows its log.
//!
//! What this room promises:
//! 1. Whoever begins to read is shown the newest state that is known here, a committed one, and that very one until it ends, whatever comes
//!    meanwhile (rule S18). States never go back.
//! 2. Readers never wait for the follower, nor the follower for readers. One process of all that have the replica open follows; when it
//!    dies another one does.
//! 3. Looking for news costs one request where there are none: a GET of the next record's name, or now and then a listing of one name, which
//!    tells a volume that is gone and a prune that overtook us from one that rests (rule P8).
//! 4. What comes is verified to follow from what was shown (rule P3). Another volume under the name, or a log that lost records, is refused:
//!    what is here is read on, and following goes on by itself when the volume is back.
//! 5. Where the log cannot be followed record by record (pruned, too far ahead, another page size), those who begin to read are given its
//!    newest state; those who read go on with theirs.
//!
//! What may never enter: SQLite; writing anything to the object store.
//! Read next: `following.rs` (what one process knows of it), `shelf.rs`, then [`littoral_local::replica`] (what all know together).

mod following;
mod reader;
mod shelf;
mod wait;

pub use reader::Reader;

use crate::components::Components;
use crate::error::EngineError;
use crate::lazy::Failure;
use crate::log::Log;
use crate::log::read::is_missing;
use crate::runtime::{self, BridgeError};
use following::{Following, Step};
use futures::future::{Either, select};
use littoral_format::keys;
use littoral_local::LocalError;
use littoral_local::replica::{self as local, Elected, Mark};
use littoral_plan::ChainBreak;
use littoral_plan::versions::rest_ms;
use littoral_types::limits::{FOLLOW_RECORDS_AT_ONCE, FOLLOW_RECORDS_MAX, POLL_LIST_EVERY};
use littoral_types::{PageCount, Position, Seq};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an opening may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// How long a replica that is here already waits at its opening for the newest state.
const FRESH_DEADLINE: Duration = Duration::from_secs(5);

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its folder in the store.
    pub root: PathBuf,
    /// The file that stands for it.
    pub database: PathBuf,
}

impl Place {
    /// Of a database in a store's directory.
    pub fn of(store_root: &Path, database: &Path) -> Self {
        Self { root: local::Replica::path_of(store_root, database), database: database.to_owned() }
    }

    /// Whether a replica stands there.
    pub fn is_replica(&self) -> bool {
        self.root.exists() && matches!(local::mark_at(&self.database), Ok(Mark::Replica(_)))
    }
}

/// How it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How often it looks for news.
    pub poll_ms: u64,
    /// Bytes of pages that are kept; `None` for no bound.
    pub quota: Option<u64>,
}

/// Why a replica could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The engine's reason.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The same, for several at once.
    #[error("{0}")]
    Shared(Failure),
    /// What was waited for is not here yet. Whoever waits again may be told otherwise.
    #[error("{0}")]
    Late(String),
    /// No answer.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

impl From<LocalError> for FollowError {
    fn from(error: LocalError) -> Self {
        EngineError::from(error).into()
    }
}

/// How far what is read is behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// What is read.
    pub shown: Position,
    /// The newest state that is known here.
    pub newest: Position,
    /// Milliseconds since what is read was known to be the newest.
    pub ms: u64,
    /// Why it is not followed, while it is not.
    pub trouble: Option<String>,
}

/// What a replica is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The newest state that is known here.
    pub newest: Position,
    /// The record that it ends with.
    pub seq: Seq,
    /// Its size.
    pub page_count: PageCount,
    /// Versions of pages that are here.
    pub held: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
    /// The oldest state that somebody reads.
    pub floor: Seq,
    /// Why it is not followed, while it is not.
    pub trouble: Option<String>,
    /// Whether this process is the one that follows.
    pub is_follower: bool,
}

/// A replica that this process has open.
#[derive(Debug)]
pub struct Replica {
    inner: Arc<Inner>,
    process: u32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    local: Arc<local::Replica>,
    log: Log,
    components: Components,
    options: Options,
    newest: RwLock<Arc<Following>>,
    /// Begins the next edition, or attaches to it: one at a time.
    turning: tokio::sync::Mutex<()>,
    call: Mutex<Call>,
    called: Condvar,
    cut: tokio::sync::Notify,
    /// News came, or looking failed: for those who wait.
    moved: (Mutex<u64>, Condvar),
}

/// What the follower's thread is told.
#[derive(Debug, Default)]
struct Call {
    over: bool,
    look: bool,
    follows: bool,
}

/// A follower's state of mind.
#[derive(Debug, Default)]
struct Pace {
    idle: u32,
    failed: u32,
    looks: u32,
    /// The volume is to be listed.
    list: bool,
    /// Milliseconds of the machine at the last look, counting its sleep.
    at_ms: u64,
}

impl Replica {
    /// Opens the replica that a file stands for, or makes both. The network is asked where nothing is here; else the newest state is waited
    /// for a little.
    pub fn open(place: &Place, log: Log, components: Components, options: Options) -> Result<Self, FollowError> {
        let Place { root, database } = place;
        let opening = local::Replica::opening(root)?;
        let mark = local::mark_at(database)?;
        match &mark {
            // Deleted on purpose: it begins anew.
            Mark::Nothing => local::Replica::remove(root, &opening)?,
            Mark::Replica(url) if *url == log.url() => {}
            Mark::Replica(url) => {
                return Err(EngineError::Refused(format!(
                    "{}: is a replica of {url}, not of {}. To follow the other one, use another file, or close all connections and delete \
                     this one",
                    database.display(),
                    log.url()
                ))
                .into());
            }
            Mark::Other => {
                return Err(EngineError::Refused(format!(
                    "{}: there is a file that is no replica, and it is not replaced. Choose another path for what follows, or leave out \
                     follow= to open this one",
                    database.display()
                ))
                .into());
            }
        }
        let local = Arc::new(local::Replica::open(root, &opening)?);
        let attached = local.attach()?;
        let known = {
            let (local, log) = (local.clone(), log.clone());
            runtime::cross(OPEN_DEADLINE, async move || match attached {
                Some(files) => match Following::attach(files, &log).await {
                    Ok(following) => Ok((Arc::new(following), true)),
                    Err(error) => {
                        tracing::warn!(%error, "what is here of the replica cannot be gone on with: it begins anew");
                        Ok((Arc::new(Following::begin(&local, &log).await?), false))
                    }
                },
                None => Ok((Arc::new(Following::begin(&local, &log).await?), false)),
            })?
        };
        let (following, is_old) = known.map_err(|error: EngineError| FollowError::from(error))?;
        if mark == Mark::Nothing && !Mark::create(database, &log.url())? {
            let what = "a file that came to be meanwhile";
            return Err(LocalError::WouldOverwrite { path: database.clone(), what }.into());
        }
        let elected = local.elect()?;
        drop(opening);
        let inner = Arc::new(Inner {
            local,
            log,
            components,
            options,
            newest: RwLock::new(following),
            turning: tokio::sync::Mutex::default(),
            call: Mutex::default(),
            called: Condvar::new(),
            cut: tokio::sync::Notify::new(),
            moved: (Mutex::new(0), Condvar::new()),
        });
        if is_old && elected.is_some() {
            // Nobody followed it: what is here may be old. Whoever cannot be asked keeps nobody from it.
            let asked = inner.clone();
            let fresh = runtime::cross(FRESH_DEADLINE, async move || asked.look(true).await.map(drop));
            if let Err(error) =
                fresh.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()))
            {
                inner.trouble(&error);
            }
        } else if !is_old {
            inner.local.looked(inner.components.clock.wall_ms());
        }
        let thread = {
            let inner = inner.clone();
            let thread = std::thread::Builder::new().name("littoral-follow".to_owned());
            thread.spawn(move || inner.follow(elected)).map_err(BridgeError::from)?
        };
        Ok(Self { inner, process: std::process::id(), thread: Mutex::new(Some(thread)) })
    }

    /// A reader of it: for one connection.
    pub fn reader(&self) -> Reader {
        Reader::new(self.inner.clone())
    }

    /// Looks for news soon.
    pub fn poke(&self) {
        self.inner.poke();
    }

    /// How far a reader is behind, or one that would begin now.
    pub fn lag(&self, reader: Option<Position>) -> Lag {
        self.inner.lag(reader)
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let following = self.inner.known_newest();
        let (tail, page_count) = following.tail();
        Status {
            newest: tail.0,
            seq: tail.1,
            page_count,
            held: following.files.count_held(),
            bytes: following.files.bytes_on_disk().unwrap_or(0),
            floor: following.files.floor(),
            trouble: self.inner.local.trouble(),
            is_follower: self.inner.call.lock().unwrap_or_else(PoisonError::into_inner).follows,
        }
    }

    /// Waits until those who begin to read are shown this position or a later one of the same history; gives what they are shown. One that a
    /// takeover cut off is an error at once (rule P4).
    pub fn wait(&self, position: Position, timeout: Duration) -> Result<Position, FollowError> {
        self.inner.wait(position, timeout)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.process != std::process::id() {
            // A forked child has no such thread.
            std::mem::forget(thread);
            return;
        }
        self.inner.call.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.inner.cut.notify_one();
        self.inner.called.notify_all();
        if let Some(thread) = thread {
            // A thread that broke down said so.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn is_over(&self) -> bool {
        self.call.lock().unwrap_or_else(PoisonError::into_inner).over
    }

    fn poke(&self) {
        self.local.want();
        self.call.lock().unwrap_or_else(PoisonError::into_inner).look = true;
        self.called.notify_all();
    }

    fn trouble(&self, why: &str) {
        if self.local.failed(why) == 1 {
            tracing::warn!(volume = %self.log.url(), why, "following fails: what is here is read on, and tried again");
        }
        self.tell();
    }

    fn tell(&self) {
        *self.moved.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.moved.1.notify_all();
    }

    /// The edition that this process knows.
    fn known_newest(&self) -> Arc<Following> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest edition of all processes.
    async fn following(&self) -> Result<Arc<Following>, EngineError> {
        let known = self.known_newest();
        if known.files.number() == self.local.current() {
            return Ok(known);
        }
        let _one = self.turning.lock().await;
        let known = self.known_newest();
        if known.files.number() == self.local.current() {
            return Ok(known);
        }
        let gone =
            || EngineError::Interrupted(format!("{}: the replica's files are gone: open it anew", self.log.url()));
        let files = self.local.attach()?.ok_or_else(gone)?;
        let next = Arc::new(Following::attach(files, &self.log).await?);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        Ok(next)
    }

    /// Learns what the follower has made known to all; gives who knows it then. What this process was told by may be gone for long.
    async fn caught_up(&self, following: Arc<Following>, newest: Seq) -> Result<Arc<Following>, EngineError> {
        match following.catch_up(newest).await {
            Ok(()) => Ok(following),
            Err(error) if is_missing(&error) => {
                tracing::info!(volume = %self.log.url(), %error, "the records in between are gone: going on from what the replica has");
                let _one = self.turning.lock().await;
                let files = self.local.attach()?.ok_or(error)?;
                let next = Arc::new(Following::attach(files, &self.log).await?);
                *self.newest.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
                Ok(next)
            }
            Err(error) => Err(error),
        }
    }

    /// The next edition: the newest state, whatever came between.
    async fn turn(&self, why: &str) -> Result<(), EngineError> {
        let _one = self.turning.lock().await;
        tracing::info!(volume = %self.log.url(), why, "the replica goes on from the newest state");
        let next = Arc::new(Following::begin(&self.local, &self.log).await?);
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Looks for news, as the follower: whether there were any. `list` asks for the newest name instead of the next.
    async fn look(&self, list: bool) -> Result<bool, EngineError> {
        let began = self.components.clock.wall_ms();
        let following = self.following().await?;
        // Whoever followed before may have come further.
        let newest = following.files.newest();
        let following = self.caught_up(following, newest).await?;
        let news = self.news(&following, list).await?;
        self.local.looked(began);
        let following = self.known_newest();
        following.still_current(began);
        following.settle()?;
        self.local.sweep();
        if news {
            self.tell();
        }
        Ok(news)
    }

    async fn news(&self, following: &Arc<Following>, list: bool) -> Result<bool, EngineError> {
        let end = following.end();
        let mut records = Vec::new();
        if !list {
            match following.record(end.seq.next()).await? {
                None => return Ok(false),
                Some(record) => records.push(record),
            }
            match following.record(Seq(end.seq.0 + 2)).await? {
                None => {
                    let step = following.learn(records, true);
                    return self.stepped(following, step).await.map(|_| true);
                }
                Some(record) => records.push(record),
            }
        }
        let url = self.log.url();
        let Some(newest) = self.log.newest().await? else {
            return Err(EngineError::Refused(format!(
                "{url}: the volume that is followed is gone. What is here is read on; following goes on by itself when it is back"
            )));
        };
        if newest < end.seq {
            return Err(self.behind(following, newest).await?);
        }
        let mut first = end.seq.0 + records.len() as u64 + 1;
        if newest.0 + 1 > first + FOLLOW_RECORDS_MAX {
            self.turn("the log is far ahead").await?;
            return Ok(true);
        }
        let found = newest > end.seq;
        // Some at a time: they may be many, and large. Each of them ends with a state that was committed.
        while first <= newest.0 || !records.is_empty() {
            let last = newest.0.min(first + FOLLOW_RECORDS_AT_ONCE - 1);
            if first <= last {
                let Some(rest) = following.records(Seq(first), Seq(last)).await? else {
                    self.turn("a prune overtook it").await?;
                    return Ok(true);
                };
                records.extend(rest);
                first = last + 1;
            }
            let step = following.learn(std::mem::take(&mut records), true);
            if self.stepped(following, step).await? {
                break;
            }
        }
        Ok(found)
    }

    /// What came of learning. Whether it goes on in another edition.
    async fn stepped(&self, following: &Arc<Following>, step: Result<Step, EngineError>) -> Result<bool, EngineError> {
        match step {
            Ok(Step::Learnt) => {
                following.rebase().await;
                Ok(false)
            }
            Ok(Step::Turn(why)) => self.turn(why).await.map(|()| true),
            Err(EngineError::Chain { source: ChainBreak::Volume { .. }, .. }) => Err(self.anew(following)),
            // In names that were pruned and free again, a writer that had been silent may have left records that follow nothing (rule P5).
            Err(error @ EngineError::Chain { .. }) => {
                let opened = self.log.open().await?;
                let is_pruned = opened.is_some_and(|opened| opened.tail.floor > following.end().seq);
                if is_pruned { self.turn("a prune overtook it").await.map(|()| true) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// The log ends before what was shown: another volume's, or one that lost records.
    async fn behind(&self, following: &Following, newest: Seq) -> Result<EngineError, EngineError> {
        let is_other =
            self.log.envelope(newest).await?.is_some_and(|found| found.header.volume != following.files.volume());
        if is_other {
            return Ok(self.anew(following));
        }
        Ok(EngineError::Refused(format!(
            "{}: its log ends at record {newest}, and record {} was shown here: it lost records. What is here is read on, and nothing older is \
             shown; following goes on when they are back",
            self.log.url(),
            following.end().seq
        )))
    }

    fn anew(&self, following: &Following) -> EngineError {
        EngineError::Refused(format!(
            "{}: another volume was made under this name since this replica of {} began. What is here is read on. To follow the new one, \
             close all connections, delete this file, and open it again",
            self.log.url(),
            following.files.volume()
        ))
    }

    /// The follower's thread, and that of whoever would be the next one.
    fn follow(&self, mut elected: Option<Elected>) {
        let runtime = match runtime::shared() {
            Ok(runtime) => runtime,
            Err(error) => return self.trouble(&format!("no thread can be started: {error}")),
        };
        let mut pace = Pace { at_ms: self.components.clock.boot_ms(), ..Pace::default() };
        loop {
            self.rest(&mut pace, elected.is_some());
            if self.is_over() {
                return;
            }
            if elected.is_none() {
                elected = self.local.elect().unwrap_or_else(|error| {
                    tracing::debug!(%error, "nobody is elected here");
                    None
                });
                pace.list = elected.is_some();
            }
            self.call.lock().unwrap_or_else(PoisonError::into_inner).follows = elected.is_some();
            let follows = elected.is_some();
            pace.looks = pace.looks.wrapping_add(1);
            let list = pace.list || pace.looks.is_multiple_of(POLL_LIST_EVERY);
            let work = async {
                let (cut, work) = (std::pin::pin!(self.cut.notified()), std::pin::pin!(self.once(follows, list)));
                match select(cut, work).await {
                    Either::Left(_) => Ok(false),
                    Either::Right((done, _)) => done,
                }
            };
            match runtime.run(work) {
                Ok(true) => (pace.idle, pace.failed, pace.list) = (0, 0, false),
                Ok(false) => {
                    pace.idle = pace.idle.saturating_add(1);
                    (pace.failed, pace.list) = (0, false);
                }
                Err(error) if follows => {
                    pace.failed = pace.failed.saturating_add(1);
                    // What failed may have been told from a name that a prune took.
                    pace.list = true;
                    self.trouble(&error.to_string());
                }
                Err(error) => tracing::debug!(%error, "what the follower has is not read here yet"),
            }
        }
    }

    async fn once(&self, follows: bool, list: bool) -> Result<bool, EngineError> {
        if follows {
            return self.look(list).await;
        }
        let following = self.following().await?;
        let newest = following.files.newest();
        let news = following.end().seq < newest;
        self.caught_up(following, newest).await?;
        if news {
            self.tell();
        }
        Ok(news)
    }

    /// Rests until it is time to look again, or somebody calls.
    fn rest(&self, pace: &mut Pace, follows: bool) {
        let poll = self.options.poll_ms;
        let rest = if follows { rest_ms(poll, pace.idle, pace.failed) } else { poll };
        let began = Instant::now();
        let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        while !call.over {
            let left = Duration::from_millis(rest).saturating_sub(began.elapsed());
            let wanted = std::mem::take(&mut call.look) || (follows && self.local.is_wanted());
            if wanted {
                pace.idle = 0;
            }
            if wanted || left.is_zero() {
                break;
            }
            // Others call through shared memory.
            let slice = left.min(Duration::from_millis(poll));
            call = self.called.wait_timeout(call, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = self.components.clock.boot_ms();
        // The machine slept: much may have come, and what stands under the next name may be part of no log, where a prune had freed it (rule P5).
        // Who looks all the time finds no such name: a prune leaves what is young.
        pace.list |= now.saturating_sub(pace.at_ms) > 4 * rest.max(poll) + 1000;
        pace.at_ms = now;
    }

    fn lag(&self, reader: Option<Position>) -> Lag {
        let following = self.known_newest();
        let newest = following.tail().0.0;
        let shown = reader.unwrap_or(newest);
        let looked = self.local.looked_ms();
        let current = if shown == newest { looked } else { following.current_ms(shown).unwrap_or(looked) };
        let ms = self.components.clock.wall_ms().saturating_sub(current);
        Lag { shown, newest, ms, trouble: self.local.trouble() }
    }
}

/// A record's name.
fn record_path(log: &Log, seq: Seq) -> littoral_types::ObjectPath {
    keys::record(log.name(), seq)
}
