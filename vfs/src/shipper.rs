//! The one who ships: a thread for each database that this process may write, and of all processes one that is elected (rule P12).
//!
//! What this room promises:
//! 1. The first commit after a pause travels at once; then at most one publication begins in an interval, unless somebody asks, or more
//!    waits than travels in one batch. While nobody commits nothing is done, and nothing asked of the object store.
//! 2. Of all processes that have a database open one ships. When it ends, however it ends, another one notices within seconds. One that
//!    does not answer while commits wait is stopped, or hangs: another one ships in its place until it answers again, unless it holds the
//!    volume's lock in the middle of a publication; then those who wait are told which process it is.
//! 3. Nobody who commits waits for it (I6). Whoever closes the database last waits no longer than he said: what a network keeps it
//!    waiting for is cut off then, so that whoever opens the database again is not kept waiting for that.
//! 4. What fails is tried again, ever more slowly and never in step with others, also where somebody waits for it; it is told once, and
//!    what is committed meanwhile stays here.
//! 5. A forked child has none of this: its own begins when it opens a database.
//!
//! What may never enter: what a commit is, how it travels ([`crate::source`], the engine).

use crate::database::{Database, Reads};
use crate::last;
use crate::raw::library::Library;
use crate::said::Said;
use crate::sparse::Sparse;
use crate::sparse::room::Round;
use crate::work::WorkError;
use littoral_engine::copies::{Copier, interval_ms, is_behind};
use littoral_engine::hand_over::NOBODY;
use littoral_engine::runtime::{self, Cut, Runtime};
use littoral_engine::tracker::Tracker;
use littoral_engine::{Components, EngineError, LocalError, WorkerLock, live, open};
use littoral_ports::Spending;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often those who are not elected look whether they can be.
const ELECTION: Duration = Duration::from_secs(2);
/// For so long commits wait for one who was elected and does not answer, before another one ships in his place.
const SILENCE: Duration = Duration::from_secs(5);
/// How long it is waited after a first failure, and after many.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest one while somebody waits for it.
const PAUSE_ASKED: Duration = Duration::from_secs(1);
/// As many failures are taken over from another process, or from an earlier opening.
const FAILURES: u32 = 4;
/// For so long others may be at work on the volume before anybody is told.
const OTHERS: Duration = Duration::from_secs(5);
/// How often one who has nothing to do looks all the same.
const LOOK: Duration = Duration::from_secs(60);
/// Whoever was there so lately is there, or will be again soon: what vanishes is copied for him.
pub(crate) const SHIPPED_LATELY: Duration = LOOK.saturating_mul(3);
/// How often it is looked whether something is to be copied that was published from here, and whether others published.
const COPY_TICK: Duration = Duration::from_millis(250);
const COPY_LOOK: Duration = Duration::from_secs(5);
/// SQLite's own code runs on it, and the engine's.
const STACK: usize = 2 << 20;

/// A thread that ships, as those see it who started it.
#[derive(Debug)]
pub(crate) struct Shipper {
    tracker: Arc<Tracker>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    stops: AtomicBool,
    /// Whether it is the one that ships.
    is_elected: AtomicBool,
    /// Whether the thread has ended.
    over: Mutex<bool>,
    ended: Condvar,
    /// Cuts off what it does just now.
    cut: Cut,
}

impl State {
    fn stops(&self) -> bool {
        self.stops.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the thread is to stop or has ended, or for so long.
    fn wait(&self, at_most: Duration, enough: impl Fn(bool) -> bool) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(over, at_most, |over| !enough(*over));
        let (over, _) = waited.unwrap_or_else(PoisonError::into_inner);
        enough(*over)
    }

    fn tell(&self, over: bool) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) |= over;
        self.ended.notify_all();
    }
}

impl Shipper {
    /// Starts it. `None` where nothing is to be shipped unasked, or no thread can be had: then commits travel when they are asked to.
    pub(crate) fn start(
        database: &Arc<Database>,
        tracker: &Arc<Tracker>,
        said: &Said,
        library: &'static Library,
    ) -> Option<Self> {
        let interval = Duration::from_millis(said.settings.sync_interval_ms.value?);
        if !library.has_threads() {
            return None;
        }
        let state = Arc::new(State::default());
        let components = Components::of_this_machine(open::quota(&said.settings));
        let work = Work {
            database: Arc::downgrade(database),
            lock: database.shipper_lock(),
            tracker: tracker.clone(),
            said: said.clone(),
            interval,
            account: open::account(database.store(), &said.settings, &components),
            components,
            state: state.clone(),
            published: AtomicU64::new(0),
        };
        let thread = std::thread::Builder::new().name("littoral-ship".to_owned()).stack_size(STACK);
        let run = move || {
            let state = work.state.clone();
            // Whatever happens in there, whoever waits for its end hears of it.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.run()));
            if ended.is_err() {
                tracing::error!(
                    "the thread that ships broke down: commits travel when they are asked to, or with the next opening"
                );
            }
            state.tell(true);
        };
        match thread.spawn(run) {
            Ok(_) => Some(Self { tracker: tracker.clone(), state }),
            Err(error) => {
                tracing::warn!(%error, "no thread can be started that ships: commits travel when they are asked to");
                None
            }
        }
    }

    /// It is to end. What it does just now it does to its end.
    pub(crate) fn stop(&self) {
        self.state.stops.store(true, Ordering::SeqCst);
        self.state.tell(false);
        self.tracker.ring();
    }

    /// It is to end now, wherever it stands: whoever publishes next settles what came of it.
    pub(crate) fn cut(&self) {
        self.stop();
        self.state.cut.now();
    }

    /// Whether it is to end, or has.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.stops() || self.state.is_over()
    }

    /// Whether it is the one that ships, of all processes.
    pub(crate) fn is_elected(&self) -> bool {
        self.state.is_elected.load(Ordering::SeqCst) && !self.state.is_over()
    }

    /// Waits until it has ended. False where it has not by then.
    pub(crate) fn join(&self, at_most: Duration) -> bool {
        self.state.wait(at_most, |over| over)
    }
}

/// Tells the thread that copies frames that there is nobody to copy for.
struct Ends<'a> {
    is_over: &'a AtomicBool,
    tracker: &'a Tracker,
}

/// Ends what is copied just now: whatever a copy lacks then it gets from whoever copies next.
struct CutsCopies<'a>(&'a Cut);

impl Drop for CutsCopies<'_> {
    fn drop(&mut self) {
        self.0.now();
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.tracker.wake_sealer();
    }
}

/// What came of an attempt.
enum Did {
    /// Somebody wants the database for himself, or has closed it.
    Nothing,
    /// Somebody else of this store is at work: on the volume, and was asked to ship; or a checkpoint is due, and another database has its own
    /// made.
    Waits(String),
    Published,
    Failed(WorkError),
}

/// As what somebody ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Elected,
    /// In the place of one who has shown so often that he was alive, and does not any more.
    StandsIn(u64),
}

/// Since when whoever was elected has shown nothing, though he was spoken to.
struct Silence {
    beats: u64,
    since: Instant,
}

struct Work {
    database: Weak<Database>,
    lock: PathBuf,
    tracker: Arc<Tracker>,
    said: Said,
    interval: Duration,
    account: Arc<dyn Spending>,
    components: Components,
    state: Arc<State>,
    /// How often something was published from here.
    published: AtomicU64,
}

impl Work {
    /// How often commits travel now: as was asked, or more rarely where requests are bounded (rule P8). All who count with that are told.
    fn interval(&self) -> Duration {
        let (asked, now_ms) = (self.interval.as_millis() as u64, self.components.clock.wall_ms());
        let interval_ms = open::interval_ms(asked, &self.said.settings, &*self.account, now_ms);
        if let Some(database) = self.database.upgrade() {
            database.travels_every(interval_ms);
        }
        Duration::from_millis(interval_ms)
    }

    fn run(self) {
        runtime::step_back();
        let Ok(runtime) = runtime::shared() else {
            tracing::error!("no threads can be started: commits travel when they are asked to");
            return;
        };
        let cut = Cut::default();
        std::thread::scope(|scope| {
            if !self.said.settings.copies().is_empty() {
                let copier = std::thread::Builder::new().name("littoral-copy".to_owned()).stack_size(STACK);
                if let Err(error) = copier.spawn_scoped(scope, || self.copy(&runtime, &cut)) {
                    tracing::warn!(%error, "no thread can be started that copies: littoral copy does, when it is asked to");
                }
            }
            let _ends = CutsCopies(&cut);
            self.stands(&runtime);
        });
    }

    /// Ships whenever it is elected, or has to, until it is told to stop.
    fn stands(&self, runtime: &Runtime) {
        let mut silence = Silence { beats: self.tracker.beats(), since: Instant::now() };
        while !self.state.stops() {
            match self.elected() {
                Some(_elected) => {
                    self.state.is_elected.store(true, Ordering::SeqCst);
                    self.works(runtime);
                    self.state.is_elected.store(false, Ordering::SeqCst);
                }
                None if self.is_silent(&mut silence) => self.stands_in(runtime, silence.beats),
                None => {
                    self.state.wait(ELECTION, |_| self.state.stops());
                }
            }
        }
    }

    /// Whether commits wait for whoever was elected, and he does not answer when he is spoken to.
    fn is_silent(&self, silence: &mut Silence) -> bool {
        let waiting = self.tracker.waiting().is_some_and(|since| since >= self.interval() + SILENCE);
        let waits = (waiting || self.tracker.is_asked()) && !self.tracker.is_fenced();
        let beats = self.tracker.beats();
        if !waits || beats != silence.beats {
            *silence = Silence { beats, since: Instant::now() };
        }
        if waits {
            self.tracker.wake_sealer();
        }
        waits && silence.since.elapsed() >= SILENCE
    }

    /// Ships until whoever was elected answers again, or is gone. Of several who would, one does. He who is stopped may go on at any
    /// moment: whoever publishes has the volume's lock, and looks at the log as it is by then (rule P3).
    fn stands_in(&self, runtime: &Runtime, beats: u64) {
        let Some(database) = self.database.upgrade() else { return };
        let (path, by, lock) = (database.path().display().to_string(), database.shipped_by(), database.stand_in_lock());
        drop(database);
        match WorkerLock::take(lock) {
            Ok(_alone) => {
                let by = by.unwrap_or_else(|| "who was elected".to_owned());
                tracing::warn!(
                    database = path,
                    "{by} is to ship and does not answer: this process ships in its place until it does"
                );
                self.ship(runtime, Term::StandsIn(beats));
                // Whoever was elected sleeps on the same bell, and may not be rung for: he listens again.
                self.tracker.ring();
            }
            Err(_) => {
                self.state.wait(ELECTION, |_| self.state.stops());
            }
        }
    }

    /// Whether he ships on, as what he is.
    fn goes_on(&self, term: Term) -> bool {
        let is_his = match term {
            Term::Elected => {
                self.tracker.beat();
                true
            }
            Term::StandsIn(beats) => self.tracker.beats() == beats && self.elected().is_none(),
        };
        is_his && !self.state.stops() && self.database.strong_count() > 0
    }

    fn elected(&self) -> Option<WorkerLock> {
        match WorkerLock::take(self.lock.clone()) {
            Ok(lock) => Some(lock),
            Err(LocalError::Busy { .. }) => None,
            Err(error) => {
                tracing::debug!(%error, "nobody can be elected to ship here");
                None
            }
        }
    }

    /// Ships, and copies what would vanish before it is shipped, until it is told to stop.
    fn works(&self, runtime: &Runtime) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sealer = std::thread::Builder::new().name("littoral-seal".to_owned()).stack_size(STACK);
            let sealer = sealer.spawn_scoped(scope, || self.seal(&is_over));
            if let Err(error) = &sealer {
                tracing::warn!(%error, "no thread can be started that keeps what a WAL lets go: checkpoints bring it");
            }
            // However it ends, the other one ends with it.
            let _ends = Ends { is_over: &is_over, tracker: &self.tracker };
            self.ship(runtime, Term::Elected);
        });
    }

    fn seal(&self, is_over: &AtomicBool) {
        runtime::step_back();
        let mut reader = None;
        while !is_over.load(Ordering::SeqCst) {
            let heard = self.tracker.listen_to_seal();
            self.tracker.beat();
            let Some(database) = self.database.upgrade() else { return };
            let begun = Instant::now();
            let did = database.seal_what_came(&mut reader);
            drop(database);
            if !did && !is_over.load(Ordering::SeqCst) {
                self.tracker.sleep_to_seal(heard, if reader.is_some() { PAUSE } else { LOOK });
                // Nobody writes any more: nothing is to be read for them.
                if begun.elapsed() >= PAUSE {
                    reader = None;
                }
            }
        }
    }

    /// Brings other object stores up to what was published, beside whoever ships: he never waits for it. Each place goes at its own pace, and
    /// fails by itself.
    fn copy(&self, runtime: &Runtime, cut: &Cut) {
        runtime::step_back();
        let places = self.said.settings.copies().iter().map(|url| self.copy_to(url));
        runtime.run_unless(cut, futures::future::join_all(places));
    }

    /// Brings one place up. Somebody of another process may publish, too, so that it is looked every now and then; and of all processes one
    /// copies to a place at a time.
    async fn copy_to(&self, url: &String) {
        let settings = &self.said.settings;
        let mut copier = Copier::default();
        let (mut failures, mut rests, mut seen, mut last) = (0, Duration::ZERO, None, Instant::now());
        while !self.state.stops() {
            let published = self.published.load(Ordering::SeqCst);
            let is_due = match seen {
                None => true,
                Some(seen) => {
                    let has_rested = last.elapsed() >= rests;
                    has_rested && (failures > 0 || seen != published || last.elapsed() >= COPY_LOOK)
                }
            };
            if !is_due {
                self.components.clock.sleep_ms(COPY_TICK.as_millis() as u64).await;
                continue;
            }
            let Some(path) = self.database.upgrade().map(|database| database.path().to_owned()) else { return };
            let copied = Box::pin(async {
                let place = open::Place::of_database(&path, settings)?;
                if !is_behind(&place, settings, url, self.components.clock.wall_ms())? {
                    return Ok(Vec::new());
                }
                copier.copy_to(&place, settings, &self.components, std::slice::from_ref(url)).await
            });
            let failed = match copied.await {
                Ok(outcomes) => outcomes.into_iter().find_map(|outcome| outcome.did.err()),
                Err(error) => Some(error),
            };
            (seen, last) = (Some(published), Instant::now());
            match failed {
                None => {
                    if failures > 0 {
                        tracing::info!(database = %path.display(), copy = open::told_url(url), "copies are made again");
                    }
                    // As rarely as the place's requests are bounded.
                    let least = interval_ms(&path, url, settings, &self.components);
                    (failures, rests) = (0, least.map_or(Duration::ZERO, Duration::from_millis));
                }
                Some(why) => {
                    failures += 1;
                    rests = self.pause(failures);
                    if failures == 1 {
                        let (database, copy) = (path.display(), open::told_url(url));
                        tracing::warn!(%database, copy, "a copy is behind, and nothing waits for it: {why}");
                    }
                }
            }
        }
    }

    /// Ships until it is told to stop.
    fn ship(&self, runtime: &Runtime, term: Term) {
        let look = if term == Term::Elected { LOOK } else { ELECTION };
        let mut last: Option<Instant> = None;
        let (mut failures, mut rests) = (0, Duration::ZERO);
        // Since when somebody else is at work.
        let mut others = None;
        // What failed a moment ago, for whoever it was, is not tried again at once.
        if self.tracker.failed_since().is_some_and(|since| since < PAUSE_MAX) {
            (last, failures, rests) = (Some(Instant::now()), FAILURES, self.pause(FAILURES));
        }
        // A WAL that lies there may hold a commit that nobody lived to count.
        let mut has_leftovers = self.database.upgrade().is_some_and(|database| database.has_wal());
        while self.goes_on(term) {
            let heard = self.tracker.listen();
            let is_asked = self.tracker.is_asked();
            let due = if is_asked || has_leftovers { Some(Duration::ZERO) } else { self.due_in() };
            if !due.is_some_and(|due| due.is_zero()) {
                if others.take().is_some() {
                    self.database.upgrade().inspect(|database| database.is_well());
                }
                if !self.state.stops() {
                    self.tracker.sleep(heard, Some(due.unwrap_or(look).min(look)));
                }
                continue;
            }
            let pause = match (failures, is_asked) {
                (0, true) => Duration::ZERO,
                (0, false) => self.interval(),
                (_, true) => rests.min(PAUSE_ASKED),
                (_, false) => rests,
            };
            let left = last.and_then(|last| pause.checked_sub(last.elapsed()));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                let heard = self.tracker.listen_to_requests();
                if self.tracker.is_asked() == is_asked && !self.state.stops() {
                    self.tracker.sleep(heard, Some(left.min(look)));
                }
                continue;
            }
            let asked = self.tracker.asked();
            last = Some(Instant::now());
            match self.once(runtime) {
                Did::Nothing if self.state.wait(PAUSE, |_| self.state.stops()) => return,
                Did::Nothing => {}
                Did::Waits(holder) => {
                    // Nothing failed, and nobody is answered: whoever asked has his answer from the one who is at work, or later.
                    let since = *others.get_or_insert_with(Instant::now);
                    self.wait_for(&holder, since);
                    continue;
                }
                Did::Published => {
                    self.published.fetch_add(1, Ordering::SeqCst);
                    (failures, has_leftovers, others) = (0, false, None);
                    // What waits travels in batches, one after the other.
                    last = last.filter(|_| !self.has_more());
                }
                Did::Failed(error) => {
                    others = None;
                    failures += 1;
                    // From its end: what took its time trying has not rested yet.
                    (last, rests) = (Some(Instant::now()), self.pause(failures));
                    // Somebody keeps readers out for a moment, as he may: that is told when it lasts.
                    if failures > 1 || !error.is_busy() {
                        self.failed(&error, rests);
                    }
                }
            }
            self.tracker.serve(asked);
        }
    }

    /// When there is something to do: now, where there is anything that nobody has published, or when what was published is to be folded, as
    /// far as is known without asking.
    fn due_in(&self) -> Option<Duration> {
        if self.tracker.is_fenced() {
            return None;
        }
        let newest = self.tracker.ordered(self.tracker.witnessed());
        let is_behind = newest.is_some_and(|newest| newest.frame() > 0 && !self.tracker.is_durable(newest));
        let database = self.database.upgrade()?;
        let is_now = self.tracker.commits_since() > 0
            || is_behind && self.tracker.basis().is_some()
            || database.is_unpublished();
        if is_now { Some(Duration::ZERO) } else { database.folds_in() }
    }

    fn has_more(&self) -> bool {
        self.database.upgrade().is_some_and(|database| database.has_more())
    }

    /// Publishes what there is.
    fn once(&self, runtime: &Runtime) -> Did {
        let Some(database) = self.database.upgrade() else { return Did::Nothing };
        let mut source = match database.lend(Reads::Behind) {
            Ok(source) => source,
            Err(_) if database.keeps_out() => return Did::Nothing,
            Err(error) => return Did::Failed(error.into()),
        };
        let sparse = database.sparse();
        let round = sparse.as_ref().and_then(|sparse| sparse.begin_round(&database, &source));
        let mut stream = database.take_stream(&self.said);
        let is_released = || self.tracker.fenced().is_some_and(|(_, owner)| owner == NOBODY);
        let synced = runtime.run_unless(&self.state.cut, stream.sync_unless(&mut source, &is_released));
        let was_recalled = source.is_recalled();
        drop(source);
        database.keep_stream(stream);
        // It was cut off.
        let Some(synced) = synced else { return Did::Nothing };
        match synced {
            Ok(synced) => {
                database.is_well();
                if let Some(sparse) = sparse {
                    self.relieve(&database, &sparse, round.as_ref(), &synced);
                }
                if let live::Synced::Checkpoint(done) = &synced {
                    tracing::debug!(position = %done.position, "a checkpoint was made by itself");
                }
                Did::Published
            }
            // The last user is leaving, or keeps everybody out: no trouble, and nothing to be done before that is over.
            Err(_) if was_recalled || self.state.stops() => Did::Nothing,
            // Somebody else here makes a checkpoint, and ships meanwhile what he is asked to.
            Err(EngineError::AtWork(LocalError::Busy { holder, .. })) => {
                if !self.tracker.is_asked() {
                    self.tracker.ask();
                }
                Did::Waits(holder)
            }
            Err(EngineError::Local(LocalError::Busy { holder, .. })) => Did::Waits(holder),
            Err(error) => Did::Failed(error.into()),
        }
    }

    /// What was published can go, where there is no room for it, and what waits in the WAL has room then.
    fn relieve(&self, database: &Arc<Database>, sparse: &Sparse, round: Option<&Round>, synced: &live::Synced) {
        let Ok(source) = database.lend(Reads::Behind) else { return };
        let settled = round.map_or(Ok(false), |round| sparse.end_round(database, round, synced, &source));
        match settled.and_then(|settled| sparse.relieve(&source, settled)) {
            // One round after the other, as long as each makes some room.
            Ok(true) => drop(self.tracker.ask()),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "no room was made for what waits in the WAL"),
        }
    }

    /// Somebody else is at work: waited for a moment. Who waits for that for long is told.
    fn wait_for(&self, holder: &str, since: Instant) {
        if since.elapsed() > OTHERS
            && self.tracker.is_asked()
            && let Some(database) = self.database.upgrade()
        {
            database.is_ill(&format!(
                "{holder} is at work in this store, and what is committed since travels when that is done"
            ));
        }
        self.state.wait(PAUSE, |_| self.state.stops());
    }

    /// How long to wait after so many failures, one after the other: some of it is chance, so that those who failed together do not
    /// come back together.
    fn pause(&self, failures: u32) -> Duration {
        let longest = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX);
        let half = longest / 2;
        half + Duration::from_millis(self.components.entropy.below(u64::try_from(half.as_millis()).unwrap_or(0) + 1))
    }

    fn failed(&self, error: &WorkError, next: Duration) {
        self.tracker.tell_failed();
        let why = last::in_sql(&error.to_string());
        if let Some(database) = self.database.upgrade() {
            // The same trouble is told once.
            if database.is_ill(&why) {
                let path = database.path().display().to_string();
                tracing::warn!(database = path, ?next, "what was committed is kept here and was not published: {why}");
            }
        }
    }
}
