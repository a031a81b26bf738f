//! A log that this process appends to.

use super::appender::Appender;
use super::error::LogError;
use super::folder::{Folder, Meta};
use super::live::{Blank, Live};
use super::prefix::Prefix;
use super::recover::recover;
use super::retain::retain;
use super::roll_back::finish;
use super::sync::{Bell, LogSync, Syncing, Thread};
use super::truncate::Truncated;
use crate::durable::create_dirs;
use crate::error::LocalError;
use crate::filesystem::require_local;
use crate::lock::WorkerLock;
use littoral_format::log::Fold;
use littoral_ports::{Clock, Entropy, Faults};
use littoral_types::limits::{LOG_APPENDERS_MAX, LOG_SESSIONS_MAX, LOG_UNSEALED_MAX};
use littoral_types::moment::Utc;
use littoral_types::{LogHead, Lsn, Serial, SessionName, Sessions, VolumeId};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked again whether a segment that is full has its last record.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it is looked whether who has the right to append for a moment has let it go, and how often where nobody seems to have it so.
const KEEPER_PAUSE: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 5;
/// One who has it for longer than this is stopped, or hangs: then it is said who.
const KEEPER_MAX: Duration = Duration::from_secs(10);

/// What a log takes from the machine, and a test from elsewhere.
#[derive(Clone, Debug)]
pub struct LogParts {
    /// The time of each record.
    pub clock: Arc<dyn Clock>,
    /// A new log's id.
    pub entropy: Arc<dyn Entropy>,
    /// Where a test makes the process die.
    pub faults: Arc<dyn Faults>,
}

/// What was found when a log was opened again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes that were torn, or stood behind what was: they were reserved and never acknowledged as durable.
    pub cut_bytes: u64,
}

/// A log that this process appends to: it alone, as long as this or an appender of it lives.
#[derive(Debug)]
pub struct Log {
    pub(super) inner: Arc<Inner>,
    /// Joined when the log is closed.
    thread: Option<Thread>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) folder: Folder,
    id: VolumeId,
    parts: LogParts,
    pub(super) how: LogSync,
    segments: Mutex<Segments>,
    pub(super) syncing: Mutex<Syncing>,
    /// The LSN after the last durable record.
    pub(super) durable: AtomicU64,
    stopped: OnceLock<String>,
    /// Why nobody may append from here any more: another one does, elsewhere.
    fenced: OnceLock<String>,
    is_closed: AtomicBool,
    /// The segment after the current one, made beforehand.
    spare: Mutex<Option<Blank>>,
    appenders: Mutex<Appenders>,
    pub(super) bell: Bell,
    recovered: Recovered,
    /// Whether what the log need not keep goes while it is appended to.
    pub(super) retains: AtomicBool,
    _lock: WorkerLock,
}

/// The segments that are not sealed.
#[derive(Debug)]
pub(super) struct Segments {
    /// Those that are full, oldest first.
    pub(super) full: VecDeque<Arc<Live>>,
    pub(super) current: Arc<Live>,
}

#[derive(Debug)]
struct Appenders {
    open: usize,
    held: BTreeSet<SessionName>,
    /// How far each session is that nobody holds.
    sessions: Sessions,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Makes a log in a folder that is empty, or not there. A creation that was killed is finished by the next.
    pub fn create(path: &Path, parts: &LogParts) -> Result<VolumeId, LogError> {
        let exists = |what| LogError::Exists { path: path.to_owned(), what };
        if path.exists() && !path.is_dir() {
            return Err(exists("a file is there, and a log is a folder"));
        }
        require_local(path.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new(".")))?;
        let folder = Folder::at(path);
        if path.is_dir() && folder.meta().is_ok() {
            return Err(exists("a log is there already"));
        }
        create_dirs(path)?;
        if !folder.is_fresh()? {
            return Err(exists("something else is in this folder"));
        }
        let _lock = folder.lock_change()?;
        let mut id = [0; 16];
        parts.entropy.fill(&mut id);
        let id = VolumeId(id);
        let created_ms = parts.clock.wall_ms();
        let first = Lsn(1);
        folder.remove(&folder.segment(first))?;
        let live = Blank::make(&folder)?.begin(&folder, LogHead { log: id, first, created_ms })?;
        live.sync(&folder)?;
        parts.faults.reach("log.create.segment")?;
        let meta = Meta::new(id, created_ms, first, Sessions::new());
        // From here on it is a log.
        if !folder.create_meta(&meta)? {
            return Err(exists("a log is there already"));
        }
        parts.faults.reach("log.create.named")?;
        Ok(id)
    }

    /// Opens a log to append to it, after it has been made sound.
    pub fn open(path: &Path, how: LogSync, parts: LogParts) -> Result<Self, LogError> {
        let folder = Folder::at(path);
        folder.meta()?;
        require_local(path)?;
        let lock = take_lock(&folder, parts.clock.wall_ms())?;
        let change = folder.lock_change()?;
        let meta = finish(&folder, folder.meta()?, &*parts.faults)?;
        let found = recover(&folder, &meta, &*parts.faults)?;
        let (fold, live) = match found.tail {
            Some((path, fold)) => {
                let live = Live::resume(&path, &fold)?;
                (fold, live)
            }
            None => {
                let head = LogHead { log: meta.id, first: found.next, created_ms: parts.clock.wall_ms() };
                (Fold::new(head, &found.sessions), Blank::make(&folder)?.begin(&folder, head)?)
            }
        };
        live.sync(&folder)?;
        parts.faults.reach("log.recover.open")?;
        drop(change);
        let inner = Arc::new(Inner {
            id: meta.id,
            how,
            segments: Mutex::new(Segments { full: VecDeque::new(), current: Arc::new(live) }),
            durable: AtomicU64::new(fold.next().0),
            appenders: Mutex::new(Appenders { open: 0, held: BTreeSet::new(), sessions: fold.sessions() }),
            syncing: Mutex::new(Syncing::new(fold)),
            stopped: OnceLock::new(),
            fenced: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            spare: Mutex::new(None),
            bell: Bell::default(),
            recovered: found.recovered,
            retains: AtomicBool::new(false),
            folder,
            parts,
            _lock: lock,
        });
        let thread = Some(Thread::start(&inner)?);
        Ok(Self { inner, thread })
    }

    /// Which log it is.
    pub fn id(&self) -> VolumeId {
        self.inner.id
    }

    /// What was found when it was opened.
    pub fn recovered(&self) -> Recovered {
        self.inner.recovered
    }

    /// An appender. One with a session's name goes on from that session's serial, and is its only one.
    pub fn appender(&self, session: Option<SessionName>) -> Result<Appender, LogError> {
        self.inner.check()?;
        let mut appenders = locked(&self.inner.appenders);
        if appenders.open >= LOG_APPENDERS_MAX {
            return Err(LogError::TooMany { what: "appenders of one log that are open", max: LOG_APPENDERS_MAX });
        }
        let session = match session {
            None => None,
            Some(name) => {
                if appenders.held.contains(&name) {
                    return Err(LogError::Held(name));
                }
                if !appenders.sessions.contains_key(&name) && appenders.sessions.len() >= LOG_SESSIONS_MAX {
                    return Err(LogError::TooMany { what: "named sessions of one log", max: LOG_SESSIONS_MAX });
                }
                appenders.held.insert(name.clone());
                let serial = *appenders.sessions.entry(name.clone()).or_insert(Serial::ZERO);
                Some((name, serial))
            }
        };
        appenders.open += 1;
        drop(appenders);
        Ok(Appender::new(Arc::clone(&self.inner), session))
    }

    /// What the log need not keep goes from now on, as segments are sealed, and now. Only for a log that lives here alone: what has a volume is
    /// truncated there first.
    pub fn retain(&self) -> Result<Option<Truncated>, LogError> {
        self.inner.retains.store(true, Ordering::SeqCst);
        retain(self.inner.folder.path(), self.inner.now_ms(), self.inner.faults())
    }

    /// Makes everything durable that was appended before. The last durable record's LSN.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        self.inner.check()?;
        self.inner.sync()?;
        Ok(self.durable())
    }

    /// The last record that is durable.
    pub fn durable(&self) -> Lsn {
        self.inner.durable()
    }

    /// What of it is durable, for who carries it elsewhere.
    pub fn prefix(&self) -> Prefix {
        Prefix::new(Arc::clone(&self.inner))
    }

    /// The last record that has room, published or about to be.
    pub fn last(&self) -> Lsn {
        Lsn(locked(&self.inner.segments).current.reserved().0 - 1)
    }

    /// How far each session is with what is durable: what a crash leaves is exactly that of each, or more.
    pub fn durable_sessions(&self) -> Sessions {
        locked(&self.inner.syncing).durable_sessions()
    }

    /// Makes everything durable, and lets the log go. Appenders that are left append nothing any more.
    pub fn close(mut self) -> Result<Lsn, LogError> {
        let done = self.end();
        let last = self.durable();
        done.map(|()| last)
    }

    fn end(&mut self) -> Result<(), LogError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.inner.is_closed.store(true, Ordering::SeqCst);
        thread.stop(&self.inner);
        if let Some(spare) = locked(&self.inner.spare).take() {
            drop(spare);
            self.inner.folder.remove(&self.inner.folder.next())?;
        }
        match self.inner.stopped.get() {
            Some(reason) => Err(self.inner.stopped_for(reason)),
            None => {
                self.inner.sync()?;
                self.inner.parts.faults.reach("log.close.synced")?;
                Ok(())
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a log was let go of and is not all on the disk");
        }
    }
}

/// Who appends to a log just now, and since when; nobody where that cannot be told.
pub(super) fn appender_of(folder: &Folder) -> Option<(String, String)> {
    let holder = WorkerLock::held_by(&folder.appender_lock())?;
    Some((holder, since(folder)))
}

fn since(folder: &Folder) -> String {
    let text = std::fs::read_to_string(folder.appender_lock()).unwrap_or_default();
    text.lines().nth(1).map_or_else(String::new, |since| format!(" since {since}"))
}

/// The right to append, after who has it for a moment and appends nothing: he is done in milliseconds. Whoever appends is told at once.
pub(super) fn take_lock(folder: &Folder, now_ms: u64) -> Result<WorkerLock, LogError> {
    let begun = Instant::now();
    let mut looks = 0;
    loop {
        match take_lock_at_once(folder, now_ms) {
            Err(LogError::Busy { .. }) if begun.elapsed() < KEEPER_MAX => {}
            taken => return taken,
        }
        // He takes the keeper's lock first and lets it go last. Where it is free he may just have let go of both, and whoever only looks at a lock has
        // it for that moment, too: it is looked a few times.
        match WorkerLock::held_by(&folder.keeper_lock()) {
            Some(_) => looks = 0,
            None if looks < LOOKS_MAX => looks += 1,
            None => return take_lock_at_once(folder, now_ms),
        }
        std::thread::sleep(KEEPER_PAUSE);
    }
}

/// The same for who does not wait.
pub(super) fn take_lock_at_once(folder: &Folder, now_ms: u64) -> Result<WorkerLock, LogError> {
    match WorkerLock::take(folder.appender_lock()) {
        Ok(mut lock) => {
            lock.also_say(&Utc(now_ms).to_string())?;
            Ok(lock)
        }
        Err(LocalError::Busy { holder, .. }) => {
            Err(LogError::Busy { path: folder.path().to_owned(), holder, since: since(folder) })
        }
        Err(error) => Err(error.into()),
    }
}

impl Inner {
    pub(super) fn id(&self) -> VolumeId {
        self.id
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.parts.clock.wall_ms()
    }

    pub(super) fn faults(&self) -> &dyn Faults {
        &*self.parts.faults
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        if let Some(reason) = self.stopped.get() {
            return Err(self.stopped_for(reason));
        }
        if let Some(why) = self.fenced.get() {
            return Err(LogError::Fenced { durable: self.durable(), why: why.clone() });
        }
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        Ok(())
    }

    fn stopped_for(&self, reason: &str) -> LogError {
        LogError::Stopped { durable: self.durable(), reason: reason.to_owned() }
    }

    pub(super) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::SeqCst) - 1)
    }

    /// Nobody appends from here any more. What was appended stays.
    pub(super) fn fence(&self, why: &str) {
        let _ = self.fenced.set(why.to_owned());
    }

    /// Nothing is acknowledged any more: what the disk did not take once, it may have dropped.
    pub(super) fn stop_for(&self, error: &LogError) {
        let _ = self.stopped.set(error.to_string());
    }

    pub(super) fn current(&self) -> Arc<Live> {
        Arc::clone(&locked(&self.segments).current)
    }

    pub(super) fn oldest(&self) -> Arc<Live> {
        let segments = locked(&self.segments);
        Arc::clone(segments.full.front().unwrap_or(&segments.current))
    }

    /// Whether one waits to be sealed.
    pub(super) fn is_any_full(&self) -> bool {
        !locked(&self.segments).full.is_empty()
    }

    /// The oldest one was sealed. The one after it.
    pub(super) fn sealed(&self) -> Arc<Live> {
        locked(&self.segments).full.pop_front();
        self.oldest()
    }

    /// The segment after one that is full.
    pub(super) fn roll(&self, full: &Arc<Live>) -> Result<Arc<Live>, LogError> {
        loop {
            self.check()?;
            let mut segments = locked(&self.segments);
            if !Arc::ptr_eq(&segments.current, full) {
                return Ok(Arc::clone(&segments.current));
            }
            // Whoever found its end is just about to say where.
            let Some(end) = full.end() else {
                drop(segments);
                std::thread::yield_now();
                continue;
            };
            if segments.full.len() >= LOG_UNSEALED_MAX {
                drop(segments);
                self.sync()?;
                std::thread::sleep(PAUSE);
                continue;
            }
            self.faults().reach("log.roll.ended")?;
            let first = Lsn(full.head.first.0 + end.records);
            let spare = locked(&self.spare).take();
            let blank = spare.map_or_else(|| Blank::make(&self.folder), Ok)?;
            self.faults().reach("log.roll.made")?;
            let head = LogHead { log: self.id, first, created_ms: self.now_ms() };
            let live = Arc::new(blank.begin(&self.folder, head)?);
            self.faults().reach("log.roll.named")?;
            let before = std::mem::replace(&mut segments.current, Arc::clone(&live));
            segments.full.push_back(before);
            drop(segments);
            self.bell.ring();
            return Ok(live);
        }
    }

    /// Makes the next segment beforehand, once the current one is half full.
    pub(super) fn prepare(&self) {
        // Under the lock that a roll holds: of two files of one name, one would be lost.
        let segments = locked(&self.segments);
        let mut spare = locked(&self.spare);
        if spare.is_none() && segments.current.is_half_full() {
            match Blank::make(&self.folder) {
                Ok(blank) => *spare = Some(blank),
                Err(error) => tracing::debug!(%error, "no segment is made beforehand"),
            }
        }
    }

    /// An appender is gone.
    pub(super) fn left(&self, session: Option<(SessionName, Serial)>) {
        let mut appenders = locked(&self.appenders);
        appenders.open -= 1;
        if let Some((name, serial)) = session {
            appenders.held.remove(&name);
            appenders.sessions.insert(name, serial);
        }
    }
}
