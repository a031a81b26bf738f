//! The model: an object store, machines that publish one volume to it and die, and what every restore must give.
//!
//! What the model knows, it knows from its own doing: which commit holds which bytes, whose term it is, which commits a prune
//! had to leave. The engine is asked, crashed and lied to; whatever it answers without an error must agree.

use crate::chance::Chance;
use crate::clock::TestClock;
use crate::crash::POINTS;
use crate::database::{Bounds, Stock, assert_sound, source, stock};
use crate::machine::Machine;
use littoral_engine::exec::checkpoint::Options;
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::prune::{self, drop_snapshot, prune};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::snapshot::{snapshot_if_due, write_snapshot};
use littoral_engine::exec::verify::verify;
use littoral_engine::log::pins::Wish;
use littoral_engine::volume::release;
use littoral_engine::{Components, EngineError, Log, Session};
use littoral_plan::{CheckpointPolicy, KeepPolicy};
use littoral_ports::{MemoryRemote, NoFaults, PageSource as _, Remote};
use littoral_remote::{Directory, Fault, Faulty, Op};
use littoral_types::{Compression, Epoch, Lsn, PinPurpose, Position, Seq, SnapshotName, StoreId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const HOUR_MS: u64 = 3_600_000;
/// Bytes that the memory's file system must have for a world to live in it.
const ROOM: u64 = 2 << 30;

/// How a world is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Everything follows from it.
    pub seed: u64,
    /// What happens in it.
    pub steps: u64,
    /// Small databases and many checkpoints, or larger ones.
    pub bounds: Bounds,
    /// Whether manifest and object store lie on the disk.
    pub durable: bool,
}

impl Layout {
    /// The layout that a seed has of its own.
    pub fn of(seed: u64, steps: u64) -> Self {
        let chance = Chance::new(seed ^ 0x1a70);
        let bytes_max = *chance.pick(&[40_000, 300_000, 1_500_000, 5_000_000]);
        let bounds = Bounds { bytes_max, reshapes: chance.once_in(2) };
        Self { seed, steps, bounds, durable: !chance.once_in(5) }
    }
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Steps by name, and other things that came to pass.
    pub counts: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, what: impl Into<String>, by: u64) {
        *self.counts.entry(what.into()).or_default() += by;
    }

    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Sums up two.
    pub fn merge(&mut self, other: &Tally) {
        other.counts.iter().for_each(|(what, by)| self.add(what.clone(), *by));
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// A machine's disk as it once was.
struct Image {
    of: usize,
    path: PathBuf,
    /// Where the log ended then.
    seen: Seq,
    attempted: Vec<Arc<Stock>>,
}

#[derive(Clone, Debug)]
struct Published {
    stock: Arc<Stock>,
    epoch: u64,
}

/// One world. Dropped in a panic, it says what led there.
pub struct World {
    layout: Layout,
    chance: Chance,
    folder: TempDir,
    clock: Arc<TestClock>,
    /// The object store as it is.
    calm: Arc<dyn Remote>,
    /// As the machines see it.
    faulty: Arc<Faulty>,
    machines: Vec<Machine>,
    /// Commits that must be restorable.
    published: BTreeMap<Lsn, Published>,
    /// Commits that a prune may have taken.
    fading: BTreeMap<Lsn, Published>,
    snapshots: BTreeMap<SnapshotName, (Lsn, Arc<Stock>)>,
    tail: Lsn,
    epoch: u64,
    owner: Option<StoreId>,
    begun: bool,
    images: Vec<Image>,
    /// With which the model itself reads: nothing of it dies.
    reader: Components,
    trace: Vec<String>,
    tally: Tally,
}

impl World {
    /// A world before anything happened.
    pub fn new(layout: Layout) -> Self {
        let chance = Chance::new(layout.seed);
        let folder = folder();
        let clock = Arc::new(TestClock::new());
        let calm: Arc<dyn Remote> = match layout.durable {
            true => Arc::new(Directory::new(&folder.path().join("remote"), clock.clone(), Arc::new(chance.fork()))),
            false => Arc::new(MemoryRemote::with_clock("world", clock.clone())),
        };
        let faulty = Arc::new(Faulty::new(calm.clone(), clock.clone(), Arc::new(chance.fork())));
        let machines = ["a", "b"].map(|name| {
            let (root, remote) = (folder.path().join(name), faulty.clone());
            Machine::new(root, remote, clock.clone(), chance.fork(), layout.bounds, layout.durable)
        });
        let mut reader = machines[0].components.clone();
        reader.faults = Arc::new(NoFaults);
        Self {
            layout,
            chance,
            folder,
            clock,
            calm,
            faulty,
            machines: machines.into(),
            published: BTreeMap::new(),
            fading: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            tail: Lsn::ZERO,
            epoch: 0,
            owner: None,
            begun: false,
            images: Vec::new(),
            reader,
            trace: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Lives through all steps; what came to pass.
    pub async fn live(mut self) -> Tally {
        for step in 0..self.layout.steps {
            self.clock.advance_ms(self.chance.under(2 * 60_000));
            Box::pin(self.step(step)).await;
        }
        self.end().await;
        self.told()
    }

    fn told(&mut self) -> Tally {
        for machine in &self.machines {
            for (point, times) in machine.faults.died() {
                self.tally.add(format!("died at {point}"), times);
            }
        }
        std::mem::take(&mut self.tally)
    }

    /// One machine does everything once, and dies at a point after it was passed so many times; it is started again and goes
    /// on where it was. What came to pass.
    pub async fn walk(mut self, point: &str, passes: u64) -> Tally {
        self.say(format!("to die at {point} after {passes}"));
        let database = &mut self.machines[0].database;
        database
            .run("PRAGMA page_size = 1024; CREATE TABLE t0(id INTEGER PRIMARY KEY, a TEXT, b BLOB, c INTEGER)")
            .await;
        for _ in 0..8 {
            database
                .run(&format!("INSERT INTO t0(b, c) VALUES (randomblob(30000), {})", self.chance.number() >> 2))
                .await;
        }
        self.machines[0].faults.arm(point, passes);
        for _ in 0..2 {
            for _ in 0..4 {
                // Twice: what is not done for the death of the first is done by the second.
                for _ in 0..2 {
                    self.checkpoint_as_it_is(0, Trouble::Armed).await;
                }
                self.machines[0].database.run("UPDATE t0 SET c = c + 1 WHERE id = 3").await;
                self.checkpoint_as_it_is(0, Trouble::Armed).await;
            }
            for _ in 0..2 {
                self.coalesce(0, Trouble::Armed).await;
            }
            for _ in 0..2 {
                self.manifest_snapshot(0, Trouble::Armed).await;
            }
            self.restore(Trouble::Armed).await;
            for _ in 0..2 {
                self.prune_to(0, Trouble::Armed, 2, 0, false).await;
            }
            self.machines[0].lose_manifest();
            for _ in 0..2 {
                self.checkpoint_as_it_is(0, Trouble::Armed).await;
            }
        }
        self.machines[0].faults.disarm();
        self.checkpoint_as_it_is(0, Trouble::None).await;
        self.end().await;
        self.told()
    }

    fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        if std::env::var_os("MODEL_TRACE").is_some() {
            eprintln!("{what}");
        }
        self.trace.push(what);
    }

    fn happened(&mut self, what: &str) {
        self.tally.add(what, 1);
    }

    fn log(&self, remote: &Arc<dyn Remote>) -> Log {
        Log::new(remote.clone(), "app.db".parse().unwrap())
    }

    fn calm_log(&self) -> Log {
        self.log(&self.calm)
    }

    fn lossy_log(&self) -> Log {
        let faulty: Arc<dyn Remote> = self.faulty.clone();
        self.log(&faulty)
    }

    async fn newest(&self) -> Option<Seq> {
        self.calm_log().newest().await.unwrap()
    }

    async fn step(&mut self, number: u64) {
        let step = self.chance.weighted(&[
            (30, "checkpoint"),
            (12, "checkpoint, crashing"),
            (10, "checkpoint, answers lost"),
            (14, "restore"),
            (4, "restore, crashing"),
            (4, "restore, answers lost"),
            (4, "prune"),
            (2, "prune, crashing"),
            (2, "prune, answers lost"),
            (5, "snapshot"),
            (2, "drop snapshot"),
            (4, "verify"),
            (3, "manifest lost"),
            (2, "store lost"),
            (4, "takeover"),
            (2, "intruder"),
            (2, "release"),
            (3, "image"),
            (3, "image put back"),
            (2, "silent writer"),
            (3, "process ends"),
        ]);
        self.say(format!("{number}: {step}"));
        self.happened(step);
        let who = self.at_work();
        match step {
            "checkpoint" => self.checkpoint(who, Trouble::None).await,
            "checkpoint, crashing" => self.checkpoint(who, Trouble::Crash).await,
            "checkpoint, answers lost" => self.checkpoint(who, Trouble::Losses).await,
            "restore" => self.restore(Trouble::None).await,
            "restore, crashing" => self.restore(Trouble::Crash).await,
            "restore, answers lost" => self.restore(Trouble::Losses).await,
            "prune" => self.prune(who, Trouble::None).await,
            "prune, crashing" => self.prune(who, Trouble::Crash).await,
            "prune, answers lost" => self.prune(who, Trouble::Losses).await,
            "snapshot" => self.snapshot(who).await,
            "drop snapshot" => self.drop_snapshot().await,
            "verify" => self.verify().await,
            "manifest lost" => self.machines[who].lose_manifest(),
            "store lost" => self.machines[who].lose_store(),
            "takeover" => self.takeover(1 - who).await,
            "intruder" => self.intruder(1 - who).await,
            "release" => self.release(who).await,
            "image" => self.image(who).await,
            "image put back" => self.image_put_back().await,
            "silent writer" => Box::pin(self.silent_writer(who)).await,
            _ => self.machines[who].end_process(),
        }
    }

    /// The machine whose term it is, or any.
    fn at_work(&mut self) -> usize {
        let owner = self.owner;
        let mine = |machine: &mut Machine| machine.stores().is_ok_and(|stores| Some(stores.store.id()) == owner);
        self.machines.iter_mut().position(mine).unwrap_or_else(|| self.chance.under(2) as usize)
    }

    // What is known.

    /// Looks at the object store itself: who owns it, and whether a commit came true. Commits come one at a time, and each
    /// holds what the machine tried to publish.
    async fn settle(&mut self, who: usize) {
        let Some(opened) = self.calm_log().open().await.unwrap() else {
            assert!(!self.begun, "the volume is gone");
            return;
        };
        self.begun = true;
        let tail = opened.tail;
        assert!(tail.epoch.0 >= self.epoch, "the epoch went back");
        self.epoch = tail.epoch.0;
        let owner = tail.owner.map(|owner| owner.store);
        if owner != self.owner {
            let mine = self.machines[who].id();
            assert!(owner.is_none_or(|owner| owner == mine), "a term of somebody who did nothing");
            self.owner = owner;
        }
        let attempted = self.machines[who].attempted.clone();
        assert!(tail.lsn.0 - self.tail.0 <= attempted.len().min(2) as u64, "commits that nobody made");
        // One that was interrupted comes true first, or never; it takes its bytes to tell which did.
        let mut left = attempted.len().saturating_sub(2);
        while self.tail < tail.lsn {
            let lsn = self.tail.next();
            let out = self.folder.path().join("settled.db");
            restore(&self.calm_log(), &self.reader, &At::Lsn(lsn), &out, true).await.unwrap();
            let bytes = std::fs::read(&out).unwrap();
            let found = attempted[left..].iter().position(|stock| stock.bytes == bytes);
            let Some(found) = found else { panic!("LSN {lsn} holds what nobody tried to publish") };
            left += found;
            let stock = attempted[left].clone();
            left += 1;
            self.published.insert(lsn, Published { stock, epoch: self.epoch });
            self.tail = lsn;
            self.happened("commits");
        }
        let keep = self.machines[who].attempted.len().saturating_sub(1);
        self.machines[who].attempted.drain(..keep);
    }

    fn current(&self) -> Option<Arc<Stock>> {
        self.published.get(&self.tail).map(|published| published.stock.clone())
    }

    // Trouble.

    fn begin_trouble(&mut self, who: usize, trouble: Trouble, about: &str) {
        match trouble {
            Trouble::None | Trouble::Armed => {}
            Trouble::Crash => {
                let points: Vec<&str> =
                    POINTS.iter().copied().filter(|point| about.contains(point.split('.').next().unwrap())).collect();
                let (point, passes) = (*self.chance.pick(&points), self.chance.under(2));
                self.say(format!("  to die at {point} after {passes}"));
                self.machines[who].faults.arm(point, passes);
            }
            Trouble::Losses => {
                let op =
                    *self.chance.pick(&[None, None, Some(Op::PutNew), Some(Op::Upload), Some(Op::Get), Some(Op::List)]);
                let fault = *self.chance.pick(&[
                    Fault::NotSent,
                    Fault::LostBefore,
                    Fault::LostAfter,
                    Fault::LostAfter,
                    Fault::Truncated,
                    Fault::Flipped,
                    Fault::Throttled,
                    Fault::Full,
                ]);
                let (after, times) = (self.chance.under(12), 1 + self.chance.under(3));
                self.say(format!("  {op:?} fails with {fault:?} after {after}, {times} times"));
                self.faulty.at(op, "", after, times, fault);
                if self.chance.once_in(3) {
                    let per_mille = 1 + self.chance.under(80);
                    self.faulty.chance(Fault::LostAfter, per_mille);
                }
            }
        }
    }

    fn end_trouble(&mut self, who: usize) {
        self.machines[who].faults.disarm();
        self.faulty.calm();
    }

    /// What was answered in trouble: an error of that trouble, and then the process is thought dead; or a value.
    fn survived<T: std::fmt::Debug>(
        &mut self,
        who: usize,
        trouble: Trouble,
        done: Result<T, EngineError>,
    ) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                self.say(format!("  {error}"));
                match trouble {
                    Trouble::Crash | Trouble::Armed => assert!(error.is_crash(), "{error:?}"),
                    Trouble::Losses => assert!(is_of_the_store(&error), "{error:?}"),
                    Trouble::None => panic!(
                        "{error:?}\n{}",
                        std::backtrace::Backtrace::force_capture()
                            .to_string()
                            .lines()
                            .filter(|l| l.contains("world.rs"))
                            .collect::<Vec<_>>()
                            .join("\n")
                    ),
                }
                self.machines[who].end_process();
                None
            }
        }
    }

    // Steps.

    /// Opens the volume for the one whose term it is, or who may begin one.
    async fn open(&mut self, who: usize) -> Result<Session, EngineError> {
        let mine = self.machines[who].id();
        let takeover = match self.owner {
            _ if !self.begun => None,
            Some(owner) if owner == mine => None,
            _ => Some(Epoch(self.epoch)),
        };
        let session = self.machines[who].open(takeover).await;
        self.settle(who).await;
        session
    }

    async fn sql(&mut self, who: usize) {
        let chance = self.chance.fork();
        let database = &mut self.machines[who].database;
        if std::fs::metadata(database.path()).is_ok_and(|file| file.len() == 0) && !chance.once_in(8) {
            database.shape(&chance).await;
        }
        match chance.under(5) {
            0..=1 => database.touch(&chance).await,
            _ => {
                for _ in 0..chance.under(6) {
                    database.change(&chance, false).await;
                }
            }
        }
        if chance.once_in(6) {
            database.close();
        }
    }

    async fn checkpoint_as_it_is(&mut self, who: usize, trouble: Trouble) {
        let opened = self.open(who).await;
        if let Some(mut session) = self.survived(who, trouble, opened) {
            self.publish(who, trouble, &mut session).await;
        }
    }

    async fn coalesce(&mut self, who: usize, trouble: Trouble) {
        let opened = self.open(who).await;
        let Some(mut session) = self.survived(who, trouble, opened) else { return };
        let compression = *self.chance.pick(&[Compression::Zstd, Compression::Lz4]);
        let done = coalesce(&mut session.writer, &session.scratch, None, compression).await;
        self.settle(who).await;
        if let Some(done) = self.survived(who, trouble, done) {
            self.tally.add("deltas coalesced", done.deltas as u64);
        }
    }

    async fn manifest_snapshot(&mut self, who: usize, trouble: Trouble) {
        let opened = self.open(who).await;
        let Some(mut session) = self.survived(who, trouble, opened) else { return };
        let done = write_snapshot(&mut session.writer, None).await;
        self.survived(who, trouble, done);
    }

    async fn checkpoint(&mut self, who: usize, trouble: Trouble) {
        // Now and then the same again: what an interrupted attempt has done already need not be done anew.
        if !self.chance.once_in(3) {
            self.sql(who).await;
        }
        self.begin_trouble(who, trouble, "checkpoint publish coalesce snapshot rebuild");
        let opened = self.open(who).await;
        if let Some(mut session) = self.survived(who, trouble, opened) {
            self.publish(who, trouble, &mut session).await;
            // The same process tries again, with what it has in memory.
            if trouble != Trouble::Crash && self.chance.once_in(3) {
                self.faulty.calm();
                self.sql(who).await;
                self.publish_again(who, trouble, &mut session).await;
            }
        }
        self.end_trouble(who);
    }

    async fn publish(&mut self, who: usize, trouble: Trouble, session: &mut Session) {
        let Some((done, stock, before)) = self.publish_once(who, session).await else { return };
        let Some(done) = self.survived(who, trouble, done) else { return };
        self.check_done(done, &stock, before.as_deref());
        self.afterwards(who, trouble, session).await;
    }

    /// A session that met an error may go on, or say that it must be opened anew; it may not do anything wrong.
    async fn publish_again(&mut self, who: usize, trouble: Trouble, session: &mut Session) {
        let Some((done, stock, before)) = self.publish_once(who, session).await else { return };
        match done {
            Ok(done) => self.check_done(done, &stock, before.as_deref()),
            Err(error) => {
                self.say(format!("  again: {error}"));
                assert!(trouble != Trouble::None, "{error:?}");
                assert!(matches!(error, EngineError::Refused(_)), "{error:?}");
            }
        }
    }

    #[allow(clippy::type_complexity)]
    async fn publish_once(
        &mut self,
        who: usize,
        session: &mut Session,
    ) -> Option<(
        Result<Option<littoral_engine::exec::checkpoint::Checkpointed>, EngineError>,
        Arc<Stock>,
        Option<Arc<Stock>>,
    )> {
        let path = self.machines[who].database.path().to_owned();
        let mut source = source(&path);
        let held = Arc::new(stock(&mut source));
        if source.lock_page().is_some() {
            self.happened("commits across the lock page");
        }
        if source.schema().journal == littoral_types::JournalMode::Wal && self.chance.once_in(4) {
            // Somebody writes on while we read.
            let chance = self.chance.fork();
            if !held.bytes.is_empty() {
                self.machines[who].database.change(&chance, true).await;
                self.happened("written meanwhile");
            }
        } else if self.chance.once_in(6) {
            let lock_page = source.lock_page();
            drop(source);
            let mut file = self.machines[who].database.quiescent();
            if let Some(page) = lock_page {
                // SQLite neither reads nor writes it, so that it may hold what a larger or differently paged database left
                // there. Littoral takes it for zeros.
                let from = (page.index() * held.page_size) as usize;
                file[from..from + held.page_size as usize].fill(0);
            }
            assert!(file == held.bytes, "the file holds other bytes than its source");
            self.happened("stock copies of the file");
            source = crate::database::source(&path);
        }
        let options = self.options();
        let done = self.machines[who].publish(session, &mut source, &held, &options).await;
        self.settle(who).await;
        // What it was compared with: an interrupted publication may have come true first.
        let before = match &done {
            Ok(Some(_)) => self.tail.0.checked_sub(1).map(Lsn),
            _ => Some(self.tail),
        };
        let before = before.and_then(|lsn| self.published.get(&lsn).or(self.fading.get(&lsn)));
        let before = before.map(|published| published.stock.clone());
        self.say(format!(
            "  {held:?}: {}",
            done.as_ref().map_or_else(ToString::to_string, |done| done
                .as_ref()
                .map_or("nothing".to_owned(), |done| done.position.to_string()))
        ));
        Some((done, held, before))
    }

    fn options(&self) -> Options {
        // A job goes on where it was only with the options it began with.
        if self.layout.steps == 0 || !self.chance.once_in(3) {
            return Options::default();
        }
        let policy = match self.chance.under(3) {
            0 => CheckpointPolicy { delta_bytes_max: 1 << self.chance.under(20), ..CheckpointPolicy::default() },
            _ => CheckpointPolicy::default(),
        };
        Options {
            policy,
            compression: *self.chance.pick(&[
                Compression::Zstd,
                Compression::Zstd,
                Compression::Lz4,
                Compression::None,
            ]),
        }
    }

    fn check_done(
        &mut self,
        done: Option<littoral_engine::exec::checkpoint::Checkpointed>,
        stock: &Arc<Stock>,
        before: Option<&Stock>,
    ) {
        match done {
            None => assert_eq!(before, Some(&**stock), "said to be unchanged"),
            Some(done) => {
                assert_ne!(before, Some(&**stock), "published, and nothing had changed");
                assert_eq!(done.position, Position { epoch: Epoch(self.epoch), lsn: self.tail });
                assert_eq!(done.plan.changed_pages(), stock.differing(before), "pages said to have changed");
                self.tally.add("resumed blobs", done.resumed as u64);
            }
        }
    }

    /// The jobs that follow a checkpoint.
    async fn afterwards(&mut self, who: usize, trouble: Trouble, session: &mut Session) {
        let path = self.machines[who].database.path().to_owned();
        if self.chance.once_in(2) {
            let compression = *self.chance.pick(&[Compression::Zstd, Compression::Lz4]);
            let done = coalesce(&mut session.writer, &session.scratch, None, compression).await;
            self.settle(who).await;
            let Some(done) = self.survived(who, trouble, done) else { return };
            self.tally.add("deltas coalesced", done.deltas as u64);
        }
        let mut source = source(&path);
        let unchanged = self.current().is_some_and(|current| *current == stock(&mut source));
        let skeleton: Option<&mut dyn littoral_ports::PageSource> = if unchanged { Some(&mut source) } else { None };
        let done = match self.chance.under(8) {
            0 => write_snapshot(&mut session.writer, skeleton).await.map(Some),
            _ => snapshot_if_due(&mut session.writer, skeleton).await,
        };
        if self.survived(who, trouble, done).flatten().is_some() {
            self.happened("manifest snapshots");
        }
    }

    async fn restore(&mut self, trouble: Trouble) {
        let Some((at, published)) = self.any_point() else { return };
        let out = self.folder.path().join("restored.db");
        let _ = std::fs::remove_file(&out);
        // Readers are machines of their own: no store, no manifest.
        self.begin_trouble(0, trouble, "restore pin");
        let log = self.lossy_log();
        let components = self.machines[0].components.clone();
        for _ in 0..3 {
            let done = restore(&log, &components, &at, &out, false).await;
            if self.survived(0, trouble, done).is_some() {
                break;
            }
            assert!(!out.exists(), "a restore that failed left a file");
        }
        if trouble != Trouble::Armed {
            self.end_trouble(0);
        }
        self.restored(&at, &published, trouble != Trouble::None).await;
    }

    /// Restores, unless an earlier try has, and compares.
    async fn restored(&mut self, at: &At, published: &Published, go_on: bool) {
        let out = self.folder.path().join("restored.db");
        if !go_on || !out.exists() {
            let _ = std::fs::remove_file(&out);
            let done = restore(&self.calm_log(), &self.reader, at, &out, false).await;
            let done = done.unwrap_or_else(|error| panic!("{at:?}: {error}"));
            assert!(done.pinned || matches!(at, At::Snapshot(_)));
            self.tally.add("bytes resumed", done.resumed);
        }
        let bytes = std::fs::read(&out).unwrap();
        if bytes != published.stock.bytes {
            let size = published.stock.page_size as usize;
            let other =
                bytes.chunks(size).zip(published.stock.bytes.chunks(size)).position(|(one, other)| one != other);
            panic!(
                "{at:?}: {} bytes instead of {}, page {other:?} (from zero) differs",
                bytes.len(),
                published.stock.bytes.len()
            );
        }
        self.happened("restores compared");
        if !bytes.is_empty() && self.chance.once_in(5) {
            assert_sound(&out, "restored");
            self.happened("restores checked by SQLite");
        }
    }

    fn any_point(&mut self) -> Option<(At, Published)> {
        if !self.snapshots.is_empty() && self.chance.once_in(4) {
            let names: Vec<SnapshotName> = self.snapshots.keys().cloned().collect();
            let name = self.chance.pick(&names).clone();
            let (_, stock) = self.snapshots[&name].clone();
            return Some((At::Snapshot(name), Published { stock, epoch: 0 }));
        }
        let points: Vec<Lsn> = self.published.keys().copied().collect();
        let lsn = match points.as_slice() {
            [] => return None,
            points => *self.chance.pick(points),
        };
        let published = self.published[&lsn].clone();
        Some(match self.chance.under(3) {
            0 => (At::Newest, self.published[&self.tail].clone()),
            1 => (At::Position(Position { epoch: Epoch(published.epoch), lsn }), published),
            _ => (At::Lsn(lsn), published),
        })
    }

    async fn prune(&mut self, who: usize, trouble: Trouble) {
        let keep = 1 + self.chance.under(12);
        let grace_ms = if self.chance.once_in(4) { HOUR_MS } else { 0 };
        let dry_run = self.chance.once_in(8);
        self.begin_trouble(who, trouble, "prune publish snapshot rebuild");
        self.prune_to(who, trouble, keep, grace_ms, dry_run).await;
        self.end_trouble(who);
    }

    async fn prune_to(&mut self, who: usize, trouble: Trouble, keep: u64, grace_ms: u64, dry_run: bool) {
        let options = prune::Options { keep: KeepPolicy { last: keep, within_ms: 0 }, grace_ms, dry_run };
        let opened = self.open(who).await;
        if let Some(mut session) = self.survived(who, trouble, opened) {
            // From here on the older ones may go, whatever is answered.
            if !options.dry_run {
                let kept: Vec<Lsn> = self.published.keys().rev().take(keep as usize).copied().collect();
                let gone = match kept.last() {
                    Some(oldest) => {
                        let kept = self.published.split_off(oldest);
                        std::mem::replace(&mut self.published, kept)
                    }
                    None => BTreeMap::new(),
                };
                self.fading.extend(gone);
            }
            let done = prune(&mut session.writer, &options).await;
            drop(session);
            self.settle(who).await;
            if let Some(Some(pruned)) = self.survived(who, trouble, done) {
                self.tally.add("objects pruned", pruned.records + pruned.blobs + pruned.snapshots);
                self.say(format!("  {pruned:?}"));
            }
        }
        self.look_at_fading().await;
    }

    /// What a prune may take is gone by name or still right.
    async fn look_at_fading(&mut self) {
        let points: Vec<Lsn> = self.fading.keys().copied().collect();
        let [_, ..] = points.as_slice() else { return };
        let lsn = *self.chance.pick(&points);
        let out = self.folder.path().join("fading.db");
        let _ = std::fs::remove_file(&out);
        match restore(&self.calm_log(), &self.reader, &At::Lsn(lsn), &out, true).await {
            Ok(_) => assert!(std::fs::read(&out).unwrap() == self.fading[&lsn].stock.bytes, "LSN {lsn}, about to go"),
            Err(EngineError::NoSuchPosition { .. }) => {
                self.fading = self.fading.split_off(&lsn.next());
            }
            Err(error) => panic!("LSN {lsn}, about to go: {error:?}"),
        }
    }

    async fn snapshot(&mut self, who: usize) {
        if self.tail == Lsn::ZERO {
            return;
        }
        let opened = self.open(who).await;
        let Some(mut session) = self.survived(who, Trouble::None, opened) else { return };
        write_snapshot(&mut session.writer, None).await.unwrap();
        let name: SnapshotName = format!("s{}", self.chance.under(5)).parse().unwrap();
        let log = self.calm_log();
        let opened = log.open().await.unwrap().unwrap();
        let wish = Wish { purpose: PinPurpose::Snapshot(name.clone()), holder: "model".to_owned(), life_ms: None };
        match log.pin(&self.reader, &opened, wish).await {
            Ok(pinned) => {
                assert!(pinned.is_some(), "nobody pruned");
                let stock = self.current().unwrap();
                assert_eq!(self.snapshots.insert(name, (self.tail, stock)).map(|(lsn, _)| lsn), None, "taken twice");
            }
            Err(EngineError::Refused(_)) => assert!(self.snapshots.contains_key(&name)),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn drop_snapshot(&mut self) {
        let name: SnapshotName = format!("s{}", self.chance.under(5)).parse().unwrap();
        let there = drop_snapshot(&self.calm_log(), &name).await.unwrap();
        assert_eq!(there, self.snapshots.remove(&name).is_some());
    }

    async fn verify(&mut self) {
        if !self.begun {
            return;
        }
        let found = verify(&self.calm_log(), &self.reader).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
        self.tally.add("objects verified", found.records + found.blobs + found.snapshots);
    }

    /// The other machine takes over: with the newest state, or with whatever it has.
    async fn takeover(&mut self, who: usize) {
        if !self.begun {
            return;
        }
        if self.tail > Lsn::ZERO && self.chance.once_in(2) {
            let database = &mut self.machines[who].database;
            database.close();
            let path = database.path().to_owned();
            restore(&self.calm_log(), &self.reader, &At::Newest, &path, true).await.unwrap();
        }
        let trouble = *self.chance.pick(&[Trouble::None, Trouble::Crash, Trouble::Losses]);
        self.checkpoint(who, trouble).await;
    }

    /// The other machine tries without being asked to: it is told whose the volume is, and nothing moves.
    async fn intruder(&mut self, who: usize) {
        let mine = self.machines[who].id();
        // One that was told to take over, and died on the way, goes on by itself.
        if !self.begun || self.owner == Some(mine) || self.machines[who].intends() {
            return;
        }
        let before = self.newest().await;
        self.sql(who).await;
        let file = self.machines[who].database.quiescent();
        let refused = self.machines[who].open(None).await.err();
        let told = match &refused {
            Some(EngineError::Superseded { owner, .. }) => self.owner.is_none_or(|now| now == owner.store),
            Some(EngineError::NotBound { .. } | EngineError::Diverged { .. }) => true,
            // Its own release, nobody came since: it may go on.
            None => self.owner.is_none(),
            _ => false,
        };
        assert!(told, "{refused:?}");
        if refused.is_some() {
            assert_eq!(self.newest().await, before, "somebody else's log moved");
            let wrong = self.machines[who].open(Some(Epoch(self.epoch + 1))).await.err();
            assert!(matches!(wrong, Some(EngineError::WrongTakeover { .. })), "{wrong:?}");
            assert_eq!(self.newest().await, before, "somebody else's log moved");
        }
        assert!(self.machines[who].database.quiescent() == file, "a refusal changed the database");
        self.settle(who).await;
    }

    async fn release(&mut self, who: usize) {
        let opened = self.open(who).await;
        let Some(mut session) = self.survived(who, Trouble::None, opened) else { return };
        release(&mut session.writer).await.unwrap();
        drop(session);
        self.settle(who).await;
        assert_eq!(self.owner, None);
    }

    async fn image(&mut self, who: usize) {
        let Some(newest) = self.newest().await else { return };
        if !self.machines[who].has_disk() || self.machines[who].ignorant {
            return;
        }
        let path = self.folder.path().join(format!("image-{}", self.images.len()));
        self.machines[who].image(&path);
        let attempted = self.machines[who].attempted.clone();
        self.images.push(Image { of: who, path, seen: newest, attempted });
    }

    /// A machine is put back to what its disk once held. Where the log went on since, it is refused until the user says so.
    async fn image_put_back(&mut self) {
        let Some(Image { of: who, path, seen, attempted }) = self.images.pop() else { return };
        self.machines[who].restore_image(&path);
        self.machines[who].attempted = attempted;
        let before = self.newest().await;
        let refused = self.machines[who].open(None).await.err();
        if before == Some(seen) {
            return self.settle(who).await;
        }
        assert!(
            matches!(
                refused,
                Some(EngineError::Diverged { .. } | EngineError::Superseded { .. } | EngineError::NotBound { .. })
            ),
            "{refused:?}"
        );
        assert_eq!(self.newest().await, before, "an image moved the log");
        self.happened("images refused");
        let session = self.machines[who].open(Some(Epoch(self.epoch))).await;
        self.settle(who).await;
        session.unwrap_or_else(|error| panic!("a takeover by name: {error:?}"));
    }

    /// A writer stops for days in the middle of its work; meanwhile another takes over and prunes.
    async fn silent_writer(&mut self, who: usize) {
        if self.tail == Lsn::ZERO {
            return;
        }
        let opened = self.open(who).await;
        let Some(mut session) = self.survived(who, Trouble::None, opened) else { return };
        self.sql(who).await;
        let other = 1 - who;
        self.clock.advance_ms(self.chance.under(40) * HOUR_MS);
        for _ in 0..1 + self.chance.under(3) {
            self.checkpoint(other, Trouble::None).await;
        }
        // The others may not have published anything but their claim.
        self.clock.advance_ms((1 + self.chance.under(60)) * HOUR_MS);
        if self.chance.once_in(2) {
            let opened = self.open(other).await;
            let Some(mut theirs) = self.survived(other, Trouble::None, opened) else { return };
            let kept = self.published.split_off(&self.tail);
            let gone = std::mem::replace(&mut self.published, kept);
            self.fading.extend(gone);
            let options = prune::Options {
                keep: KeepPolicy { last: 1, within_ms: 0 },
                grace_ms: littoral_types::limits::PRUNE_GRACE_MS,
                dry_run: false,
            };
            prune(&mut theirs.writer, &options).await.unwrap();
        }
        self.settle(other).await;
        let newest = self.newest().await;
        let path = self.machines[who].database.path().to_owned();
        let mut source = source(&path);
        let held = Arc::new(stock(&mut source));
        let current = self.current();
        let options = self.options();
        let done = self.machines[who].publish(&mut session, &mut source, &held, &options).await;
        match done {
            Err(EngineError::Superseded { owner, .. }) => assert_eq!(Some(owner.store), self.owner),
            // By what it knew, nothing had changed.
            Ok(None) => assert!(current.is_some()),
            other => panic!("a silent writer came back to {other:?}"),
        }
        drop(session);
        self.machines[who].attempted.clear();
        assert!(self.newest().await == newest, "a silent writer moved the log");
    }

    /// Every commit that must be there is compared, and everything verified.
    async fn end(&mut self) {
        self.say("the end");
        self.faulty.calm();
        let all: Vec<Lsn> = self.published.keys().copied().collect();
        let step = all.len().div_ceil(12).max(1);
        for lsn in all.iter().rev().step_by(step) {
            let published = self.published[lsn].clone();
            self.restored(&At::Lsn(*lsn), &published, false).await;
        }
        for (name, (_, stock)) in self.snapshots.clone() {
            self.restored(&At::Snapshot(name), &Published { stock, epoch: 0 }, false).await;
        }
        self.verify().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.trace.len().saturating_sub(40);
            eprintln!("what led there, the last at the end:\n{}", self.trace[from..].join("\n"));
            let Layout { seed, steps, .. } = self.layout;
            eprintln!("again: cargo run -p littoral-tests --bin model -- --seed {seed} --worlds 1 --steps {steps}");
        }
    }
}

/// A folder in memory where that is to be had: syncing is shown elsewhere, and would be most of the time here.
pub fn folder() -> TempDir {
    let roomy = |path: &PathBuf| rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ROOM);
    let memory = Some(PathBuf::from("/dev/shm")).filter(roomy);
    tempfile::tempdir_in(memory.unwrap_or_else(std::env::temp_dir)).unwrap()
}

/// How the world treats a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Crash,
    /// As a crash, at a point that was chosen before.
    Armed,
    Losses,
}

/// An error that a store which loses and damages answers may bring.
fn is_of_the_store(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Remote(_)
            | EngineError::Damaged { .. }
            | EngineError::Chain { .. }
            | EngineError::Inconsistent { .. }
            | EngineError::Serials { .. }
    )
}
