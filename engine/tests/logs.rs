//! Logs in the object store: whatever is appended, sealed, shipped, truncated, pruned and lost, here and on the way, the volume holds what the
//! log held, each record once, in its place; and what was truncated does not come back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::At;
use littoral_engine::exec::verify::verify;
use littoral_engine::logs::{
    self, Appender, Batch, Cut, Log, LogError, LogParts, LogSync, Quiet, RESTORE_POINTS, ROLL_BACK_POINTS, Range,
    Reader, Record, RemoteReader, SHIP_POINTS, TAKE_BACK_POINTS, TRUNCATE_POINTS, Void, carry, let_go, take_back,
};
use littoral_engine::volume::open_log;
use littoral_engine::{EngineError, Log as Volume, Session, Stores, Target};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_plan::KeepPolicy;
use littoral_ports::{Crash, Faults, MemoryManifest, MemoryRemote, Remote, Silent};
use littoral_remote::{Counting, Fault, Faulty, Op};
use littoral_types::{Lsn, SessionName, VolumeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Dies at a point, and is dead from then on until it is born again.
#[derive(Debug, Default)]
struct Dies {
    armed: Mutex<Option<(String, u64)>>,
    is_dead: AtomicBool,
}

impl Dies {
    fn arm(&self, point: &str, passes: u64) {
        *self.armed.lock().unwrap() = Some((point.to_owned(), passes));
    }

    /// Whether it had died.
    fn revive(&self) -> bool {
        *self.armed.lock().unwrap() = None;
        self.is_dead.swap(false, Ordering::SeqCst)
    }
}

impl Faults for Dies {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(Crash(point));
        }
        let mut armed = self.armed.lock().unwrap();
        match &mut *armed {
            Some((at, 0)) if at == point => {
                self.is_dead.store(true, Ordering::SeqCst);
                Err(Crash(point))
            }
            Some((at, left)) if at == point => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A record as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    session: Option<SessionName>,
    serial: u64,
    number: u64,
    len: usize,
    /// Whether it was rolled back and stays in its place.
    is_void: bool,
}

impl Known {
    fn body(&self) -> Vec<u8> {
        let mut chance = Chance(self.number);
        let mut body: Vec<u8> = (0..self.len.min(64)).map(|_| chance.below(256) as u8).collect();
        body.resize(self.len, self.number as u8);
        body
    }
}

struct World {
    dir: TempDir,
    memory: Arc<MemoryRemote>,
    faulty: Arc<Faulty>,
    stores: Stores,
    faults: Arc<Dies>,
    components: Components,
    identity: (VolumeId, u64),
    log: Option<Log>,
    /// All that was ever appended and is not lost; the first of it is LSN 1.
    known: Vec<Known>,
    start: u64,
    /// The last place before which anything was to go.
    wished: u64,
    /// What was said to be durable here, and what to be there.
    durable: u64,
    shipped: u64,
    numbers: u64,
    restores: u64,
    /// Up to where what is void was said to be so there.
    void_there: Vec<Void>,
    /// Behind which record the log may end that died while its end was rolled back, and what was void before.
    ends: Option<(u64, Vec<Void>)>,
    tally: BTreeMap<&'static str, u64>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryRemote::new("m"));
        let faulty = Arc::new(Faulty::new(memory.clone(), Arc::new(MachineClock), Arc::new(MachineEntropy)));
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: faulty.clone() };
        let faults = Arc::new(Dies::default());
        let components = Components {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: faults.clone(),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let path = dir.path().join("events");
        let parts = logs::parts(&components);
        Log::create(&path, &parts).unwrap();
        let identity = logs::identity(&path).unwrap();
        let log = Some(Log::open(&path, LogSync::None, parts).unwrap());
        Self {
            dir,
            memory,
            faulty,
            stores,
            faults,
            components,
            identity,
            log,
            known: Vec::new(),
            start: 1,
            wished: 1,
            durable: 0,
            shipped: 0,
            numbers: 0,
            restores: 0,
            void_there: Vec::new(),
            ends: None,
            tally: BTreeMap::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("events")
    }

    fn parts(&self) -> LogParts {
        logs::parts(&self.components)
    }

    fn volume(&self) -> Volume {
        Volume::new(self.memory.clone(), "events".parse().unwrap())
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    async fn session(&self) -> Result<Session, EngineError> {
        let target = Target { database: self.path(), volume: None, takeover: None, fencing: true };
        open_log(&self.stores, &self.components, &target, self.identity).await
    }

    fn append(&mut self, session: Option<&str>, count: u64, len: usize) {
        let log = self.log.as_ref().unwrap();
        let session: Option<SessionName> = session.map(|name| name.parse().unwrap());
        let appender: Result<Appender, _> = log.appender(session.clone());
        let Ok(mut appender) = appender else { return };
        let mut left = count;
        while left > 0 {
            // One alone, or some together.
            let most = [1, 1, 7, 60][(self.numbers % 4) as usize].min((16 << 20) / len.max(1) as u64);
            let many = most.clamp(1, left);
            left -= many;
            let known = |number| Known { session: session.clone(), serial: 0, number, len, is_void: false };
            let mut new: Vec<Known> = (self.numbers + 1..).take(many as usize).map(known).collect();
            self.numbers += many;
            let appended = match new.as_slice() {
                [one] => appender.append(&one.body()).map(Some),
                all => {
                    let mut batch = Batch::default();
                    all.iter().for_each(|known| batch.push(&known.body()).unwrap());
                    appender.append_part(&mut batch, 0..all.len())
                }
            };
            let Ok(appended) = appended else { return };
            let appended = appended.unwrap();
            assert_eq!(appended.lsn.0, self.known.len() as u64 + many);
            for (known, nth) in new.iter_mut().zip(1..) {
                known.serial = if session.is_some() { appended.serial.get() - (many - nth) } else { 0 };
            }
            self.known.extend(new);
            self.count(if many > 1 { "together" } else { "alone" });
        }
    }

    /// Everything is durable, and then there.
    async fn ship(&mut self) -> Result<(), EngineError> {
        let prefix = self.log.as_ref().unwrap().prefix();
        self.durable = prefix.sync()?.0;
        let mut session = self.session().await?;
        let shipped = carry(&mut session.writer, &prefix).await?;
        assert_eq!(shipped.position.unwrap().lsn.0, self.durable);
        self.shipped = self.durable;
        self.void_there = logs::voids(&self.path()).unwrap();
        if shipped.sealed > 0 {
            self.count("sealed");
        }
        Ok(())
    }

    async fn truncate(&mut self, before: u64) -> Result<(), EngineError> {
        self.wished = self.wished.max(before);
        let mut session = self.session().await?;
        let done = let_go(&mut session.writer, &self.path(), Cut::Before(Lsn(before)), (false, false)).await?;
        // Or what an earlier one had begun; and what a ship that died had brought there.
        let row = self.stores.manifest.volume(&"events".parse().unwrap()).unwrap();
        let there = row.map_or(0, |row| row.tail.lsn.0);
        let (wished, start) = (self.wished.max(self.start), done.start.0);
        assert!(start <= wished && start <= there + 1, "begins at {start}: asked for {wished}, {there} is shipped");
        self.start = done.start.0;
        if done.segments > 0 {
            self.count("truncated");
        }
        Ok(())
    }

    fn voids(&self) -> Vec<Void> {
        logs::voids(&self.path()).unwrap()
    }

    /// What is void is what the log says, no record behind its end is known any more, and what is not void is what was not.
    fn take_voids(&mut self, end: u64, voids: &[Void]) {
        self.known.truncate(end as usize);
        for (known, lsn) in self.known.iter_mut().zip(1..) {
            known.is_void = voids.iter().any(|(from, to)| (from.0..=to.0).contains(&lsn));
        }
    }

    /// Everything behind a record goes: what was not shipped is cut off, the rest is void.
    async fn roll_back(&mut self, last: u64) -> Result<(), EngineError> {
        let old = self.known.len() as u64;
        let before = self.voids();
        // What is not all on the disk by now is not all there.
        if self.log.take().is_some_and(|log| log.close().is_err()) {
            self.reopen();
            return Ok(());
        }
        let done = async {
            let quiet = Quiet::take(&self.path(), 0)?;
            let mut session = self.session().await?;
            take_back(&mut session.writer, &quiet, Lsn(last), (false, false)).await
        };
        match done.await {
            Ok(done) => {
                let end = done.next.0 - 1;
                assert!(done.was.0 == old && end + done.cut == old, "{done:?} of {old}");
                let row = self.stores.manifest.volume(&"events".parse().unwrap()).unwrap().unwrap();
                assert!(row.tail.lsn.0 <= end, "s02: what was shipped is not cut off");
                self.is_rolled_back(last, end, &before);
                self.durable = end;
                self.void_there = self.voids();
                if done.cut > 0 {
                    self.count("cut off");
                }
                if done.voided > 0 {
                    self.count("made void");
                }
            }
            Err(_) => self.ends = Some((last, before)),
        }
        self.reopen();
        Ok(())
    }

    /// Behind a record nothing is given out, before it what was, and what was void is.
    fn is_rolled_back(&mut self, last: u64, end: u64, before: &[Void]) {
        let was: Vec<bool> = self.known.iter().map(|known| known.is_void).collect();
        self.take_voids(end, &self.voids());
        for ((known, was), lsn) in self.known.iter().zip(was).zip(1..) {
            // Of what is before the log's beginning nothing need be said.
            let wanted = was || lsn > last;
            assert!(known.is_void == wanted || lsn < self.start, "LSN {lsn}, rolled back behind {last}: {before:?}");
        }
    }

    async fn prune(&mut self) -> Result<(), EngineError> {
        let keep = KeepPolicy { last: 1, within_ms: 0 };
        let mut session = self.session().await?;
        if prune(&mut session.writer, &prune::Options { keep, grace_ms: 0, dry_run: false }).await?.is_some() {
            self.count("pruned");
        }
        Ok(())
    }

    /// The process is gone, and another one opens the log. What was durable is there.
    fn reopen(&mut self) {
        drop(self.log.take());
        if self.faults.revive() {
            self.count("died");
        }
        let log = Log::open(&self.path(), LogSync::None, self.parts()).unwrap();
        let last = log.durable().0;
        assert!(last <= self.known.len() as u64);
        match self.ends.take() {
            // All of it, or nothing.
            Some((end, before)) if last < self.known.len() as u64 || self.voids() != before => {
                self.is_rolled_back(end, last, &before);
                self.count("finished");
            }
            Some(_) => {}
            None => assert!(last >= self.durable, "durable up to {}, and {last} is there", self.durable),
        }
        self.known.truncate(last as usize);
        self.durable = last;
        if let Some(row) = self.stores.manifest.volume(&"events".parse().unwrap()).unwrap() {
            assert!(row.tail.lsn.0 <= last, "s02: the volume is ahead of the disk");
        }
        self.log = Some(log);
    }

    /// Its disk is gone, and with it what its store knew: the log is what the volume holds.
    async fn lose_disk(&mut self) {
        if self.volume().newest().await.unwrap().is_none() {
            return;
        }
        drop(self.log.take());
        self.faults.revive();
        std::fs::remove_dir_all(self.path()).unwrap();
        self.stores.manifest = Arc::new(MemoryManifest::new());
        let done = logs::restore(&self.volume(), &self.components, &At::Newest, &self.path()).await.unwrap();
        assert!(done.position.lsn.0 >= self.shipped);
        self.known.truncate(done.position.lsn.0 as usize);
        (self.durable, self.shipped, self.start) = (done.position.lsn.0, done.position.lsn.0, done.start.0);
        // What was said there is, and nothing is that was not at least said here.
        let voids = self.voids();
        let is_in = |lsn: u64, voids: &[Void]| voids.iter().any(|(from, to)| (from.0..=to.0).contains(&lsn));
        for (known, lsn) in self.known.iter().zip(1..).filter(|(_, lsn)| *lsn >= self.start) {
            assert!(!is_in(lsn, &self.void_there) || is_in(lsn, &voids), "LSN {lsn} has come back");
            assert!(!is_in(lsn, &voids) || known.is_void, "LSN {lsn} went without being asked to");
        }
        self.take_voids(done.position.lsn.0, &voids);
        self.void_there = voids;
        self.count("lost disks");
        self.reopen();
    }

    fn check(&self, found: &[Record], from: u64, to: u64) {
        let is_asked = |(known, lsn): &(&Known, u64)| !known.is_void && (from..=to).contains(lsn);
        let mut expected = self.known.iter().zip(1..).filter(is_asked);
        for record in found {
            let (known, lsn) = expected.next().unwrap_or_else(|| panic!("LSN {} is too much", record.lsn));
            assert_eq!((record.lsn.0, &record.session, record.serial.get()), (lsn, &known.session, known.serial));
            assert!(record.body == known.body(), "LSN {lsn}");
        }
        assert_eq!(expected.next().map(|(_, lsn)| lsn), None, "is missing, of {from} to {to}");
    }

    /// Elsewhere: read where it is, and restored.
    async fn look(&mut self, chance: &mut Chance) {
        let volume = self.volume();
        if volume.newest().await.unwrap().is_none() {
            return;
        }
        self.restores += 1;
        let copy = self.dir.path().join(format!("copy-{}", self.restores));
        let done = logs::restore(&volume, &self.components, &At::Newest, &copy).await.unwrap();
        let last = done.position.lsn.0;
        assert!((self.shipped..=self.known.len() as u64).contains(&last));
        assert_eq!(done.start.0, self.start, "truncated data never comes back, and nothing else goes");
        self.check(&all(Reader::open(&copy, Range::ALL).unwrap()), self.start, last);
        // And it is a log that goes on.
        let log = Log::open(&copy, LogSync::None, self.parts()).unwrap();
        for name in ["a", "b", "c"] {
            let of = |known: &&Known| known.session.as_ref().is_some_and(|session| session.as_str() == name);
            let serial = self.known[..last as usize].iter().rfind(of).map_or(0, |known| known.serial);
            assert_eq!(log.appender(Some(name.parse().unwrap())).unwrap().serial().get(), serial);
        }
        drop(log);
        std::fs::remove_dir_all(&copy).unwrap();
        let from = self.start + chance.below(last + 1 - self.start.min(last));
        let to = from + chance.below(200);
        let range = Range { from: Lsn(from), to: Lsn(to), ..Range::ALL };
        let is_void = |lsn: u64| self.known.get(lsn as usize - 1).is_some_and(|known| known.is_void);
        let mut reader = match RemoteReader::open(volume, range).await {
            Err(EngineError::Log(LogError::RolledBack { end, next, .. })) => {
                // What is before it was given to whoever asks for this.
                assert!(from > self.start && is_void(from) && is_void(from - 1), "LSN {from}");
                assert!(
                    (end.0 + 1..next.0).all(is_void) && !is_void(next.0) && (end.0 < self.start || !is_void(end.0))
                );
                self.count("told");
                return;
            }
            opened => opened.unwrap(),
        };
        let mut found = Vec::new();
        while let Some(record) = reader.next_record().await.unwrap() {
            found.push(record);
        }
        self.check(&found, from, to.min(last));
        self.count("looked");
    }
}

fn all(mut reader: Reader) -> Vec<Record> {
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

const DEATHS: [&str; 22] = [
    "log.cut.said",
    "log.cut.marked",
    "log.cut.zeroed",
    "log.cut.done",
    "log.cut.here",
    "log.cut.there",
    "carry.walked",
    "carry.uploaded",
    "carry.published",
    "truncate.leased",
    "truncate.dropped",
    "publish.drafted",
    "publish.intended",
    "publish.landed",
    "publish.committed",
    "snapshot.shards",
    "snapshot.stored",
    "snapshot.head",
    "log.append.reserved",
    "log.sync.walked",
    "log.seal.indexed",
    "log.truncate.said",
];

async fn live(seed: u64, steps: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new();
    let mut chance = Chance(seed);
    for step in 0..steps {
        let what = chance.below(22);
        if chance.below(6) == 0 {
            world.faults.arm(DEATHS[chance.below(DEATHS.len() as u64) as usize], chance.below(3));
        }
        if chance.below(4) == 0 {
            world.faulty.chance(Fault::LostAfter, 150);
        }
        let done = match what {
            0..=6 => {
                let session = [None, Some("a"), Some("b"), Some("c")][chance.below(4) as usize];
                let (count, len) = match chance.below(8) {
                    0 | 1 => (2 + chance.below(4), 14 << 20),
                    2 => (1 + chance.below(20), 100_000),
                    _ => (1 + chance.below(200), chance.below(300) as usize),
                };
                world.append(session, count, len);
                Ok(())
            }
            7..=11 => world.ship().await,
            12 => {
                world.reopen();
                Ok(())
            }
            13 | 14 => {
                let before = (world.durable + 1 - chance.below(40).min(world.durable)).max(1);
                world.truncate(before).await
            }
            15 => world.prune().await,
            16 => {
                world.faults.revive();
                world.stores.manifest = Arc::new(MemoryManifest::new());
                Ok(())
            }
            17 => {
                world.faulty.calm();
                world.lose_disk().await;
                Ok(())
            }
            18 | 19 => {
                let far = [5, 40, 40, 400][chance.below(4) as usize];
                let last = world.known.len() as u64 - chance.below(far).min(world.known.len() as u64);
                world.roll_back(last.max(world.start - 1)).await
            }
            _ => {
                world.faulty.calm();
                if world.faults.revive() || world.log.as_ref().unwrap().sync().is_err() {
                    world.reopen();
                }
                // What was said and not done yet is done first: then the two begin at the same place.
                let done = world.ship().await;
                done.unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
                world.truncate(1).await.unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
                world.look(&mut chance).await;
                Ok(())
            }
        };
        world.faulty.calm();
        if let Err(error) = &done {
            let passes = matches!(error, EngineError::Remote(_) | EngineError::Interrupted(_) | EngineError::AtWork(_));
            let is_dead = world.faults.is_dead.load(Ordering::SeqCst);
            assert!(error.is_crash() || passes || is_dead, "seed {seed}, step {step}, {what}: {error}");
        }
        if world.faults.is_dead.load(Ordering::SeqCst) {
            world.reopen();
        }
    }
    world.faults.revive();
    world.reopen();
    world.ship().await.unwrap();
    world.truncate(1).await.unwrap();
    world.look(&mut chance).await;
    let found = verify(&world.volume(), &world.components).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new(), "seed {seed}");
    world.tally
}

#[tokio::test]
async fn s02_p15_the_volume_holds_what_the_log_held_whatever_happened() {
    let mut all = BTreeMap::new();
    for seed in 0..8 {
        for (what, times) in live(seed, 70).await {
            *all.entry(what).or_insert(0) += times;
        }
    }
    println!("{all:?}");
    let rolled_back = ["cut off", "made void", "finished", "told"];
    for what in ["sealed", "truncated", "pruned", "died", "lost disks", "looked"].into_iter().chain(rolled_back) {
        assert!(all.get(what).is_some_and(|times| *times > 0), "{what} never came to pass: {all:?}");
    }
}

#[tokio::test]
async fn a_death_at_any_named_point_of_shipping_and_restoring_loses_nothing_and_needs_no_hand() {
    for point in SHIP_POINTS.iter().chain(&TRUNCATE_POINTS).chain(&RESTORE_POINTS) {
        let mut world = World::new();
        world.append(Some("a"), 30, 100);
        world.ship().await.unwrap();
        world.append(None, 6, 14 << 20);
        world.append(Some("b"), 2, 2 << 20);
        world.faults.arm(point, 0);
        let copy = world.dir.path().join("copy");
        let mut died = world.ship().await.is_err();
        if !died {
            died = world.truncate(36).await.is_err();
        }
        if !died {
            died = logs::restore(&world.volume(), &world.components, &At::Newest, &copy).await.is_err();
            assert!(!copy.exists(), "what is not whole has no name");
        }
        assert!(died && world.faults.is_dead.load(Ordering::SeqCst), "{point} was never reached");
        world.reopen();
        world.ship().await.unwrap();
        world.truncate(36).await.unwrap();
        world.look(&mut Chance(7)).await;
        logs::restore(&world.volume(), &world.components, &At::Newest, &copy).await.unwrap();
        assert_eq!(verify(&world.volume(), &world.components).await.unwrap().problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_death_at_any_named_point_of_rolling_back_what_was_shipped_is_finished_here_and_there_by_whoever_comes_next()
{
    let publication = ["publish.drafted", "publish.intended", "publish.landed", "publish.committed"];
    for point in ROLL_BACK_POINTS.iter().chain(&TAKE_BACK_POINTS).chain(&publication) {
        for is_answer_lost in [false, true] {
            let mut world = World::new();
            world.append(Some("a"), 30, 100);
            if !is_answer_lost {
                // A segment that is sealed, there and here.
                world.append(None, 6, 14 << 20);
            }
            world.ship().await.unwrap();
            let mut there = world.shipped;
            world.append(Some("b"), 10, 100);
            if is_answer_lost {
                // What was on its way is settled first: then it is there.
                world.faults.arm("publish.intended", 0);
                assert!(world.ship().await.is_err());
                world.reopen();
                there += 10;
                world.append(Some("c"), 5, 100);
            }
            let died = world.tally.get("died").copied();
            world.faults.arm(point, u64::from(is_answer_lost && *point == "publish.committed"));
            world.roll_back(20).await.unwrap();
            assert!(world.tally.get("died").copied() > died, "{point} was never reached");
            assert_eq!(world.known.len() as u64, there, "{point}: what was not shipped is cut off");
            assert!(world.known[20..].iter().all(|known| known.is_void), "{point}: it is done");
            world.check(&all(Reader::open(&world.path(), Range::ALL).unwrap()), 1, u64::MAX);
            world.append(Some("b"), 3, 100);
            world.ship().await.unwrap();
            world.look(&mut Chance(5)).await;
            world.lose_disk().await;
            assert!(world.known[25].is_void, "{point}: it has come back");
            world.check(&all(Reader::open(&world.path(), Range::ALL).unwrap()), 1, u64::MAX);
            world.roll_back(20).await.unwrap();
            assert_eq!(world.known.iter().filter(|known| !known.is_void).count(), 20, "{point}");
            assert_eq!(verify(&world.volume(), &world.components).await.unwrap().problems, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn who_follows_a_volume_and_has_read_what_was_rolled_back_is_told_where_it_goes_on_and_others_go_on() {
    let mut world = World::new();
    world.append(Some("a"), 20, 100);
    world.ship().await.unwrap();
    let mut readers = Vec::new();
    for read in [0, 9, 10, 11, 20] {
        let range = Range { to: Lsn(if read == 20 { u64::MAX } else { read }), ..Range::ALL };
        let mut reader = RemoteReader::open(world.volume(), range).await.unwrap();
        for _ in 0..read {
            assert!(reader.next_record().await.unwrap().is_some());
        }
        readers.push((read, reader));
    }
    let mut behind = RemoteReader::open(world.volume(), Range::from(Lsn(11))).await.unwrap();
    world.roll_back(10).await.unwrap();
    world.append(Some("a"), 5, 100);
    world.ship().await.unwrap();
    for (read, reader) in &mut readers {
        let told = reader.look().await;
        match told {
            Ok(is_more) => assert!(is_more && *read <= 10, "{read}"),
            Err(EngineError::Log(LogError::RolledBack { asked, end, next })) => {
                assert_eq!((asked.0, end.0, next.0), (*read + 1, 10, 21), "{read}");
                assert!(*read > 10);
            }
            Err(error) => panic!("{read}: {error}"),
        }
    }
    // Who has read none of it is given none of it.
    assert!(behind.look().await.unwrap());
    assert_eq!(behind.next_record().await.unwrap().unwrap().lsn, Lsn(21));
    world.prune().await.unwrap();
    world.look(&mut Chance(1)).await;
    let refused = RemoteReader::open(world.volume(), Range::from(Lsn(15))).await.unwrap_err().to_string();
    assert!(refused.contains("the log ends at LSN 10 now, and goes on at LSN 21"), "{refused}");
    // As of before it is as it was.
    let copy = world.dir.path().join("then");
    let records = world.volume().newest().await.unwrap().unwrap().0;
    assert!(records > 3);
    let then = logs::restore(&world.volume(), &world.components, &At::Lsn(Lsn(20)), &copy).await.unwrap();
    assert_eq!(then.records(), 10, "its newest state with these LSNs");
}

/// What reading gives, all of it.
async fn read_all(volume: &Volume) -> Result<Vec<Record>, EngineError> {
    let mut reader = RemoteReader::open(volume.clone(), Range::ALL).await?;
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().await? {
        found.push(record);
    }
    Ok(found)
}

#[tokio::test]
async fn whatever_object_is_flipped_cut_or_gone_is_named_and_never_read_as_other_records() {
    let mut world = World::new();
    world.append(Some("a"), 50, 90);
    world.ship().await.unwrap();
    world.append(Some("b"), 40, 60_000);
    world.ship().await.unwrap();
    world.append(None, 6, 14 << 20);
    world.ship().await.unwrap();
    world.append(Some("a"), 20, 500);
    world.ship().await.unwrap();
    let whole = read_all(&world.volume()).await.unwrap();
    world.check(&whole, 1, world.shipped);
    let objects = world.memory.objects();
    assert!(objects.len() >= 8, "{}", objects.len());
    let mut refused = 0;
    for (path, bytes) in &objects {
        let middle = bytes.len() / 2;
        let mut harms: Vec<Vec<u8>> = vec![bytes[..middle].to_vec(), Vec::new()];
        for at in [0, 1, bytes.len() / 3, middle, bytes.len() - 9, bytes.len() - 1] {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            harms.push(flipped);
        }
        for (nth, harm) in harms.into_iter().enumerate() {
            world.memory.tamper(path, harm.into());
            same_or_refused(&world, &whole, &format!("{path}, harm {nth}"), &mut refused).await;
        }
        world.memory.delete(std::slice::from_ref(path)).await.unwrap();
        same_or_refused(&world, &whole, &format!("{path} is gone"), &mut refused).await;
        world.memory.tamper(path, bytes.clone());
    }
    assert!(refused > 3 * objects.len(), "{refused} of {} objects", objects.len());
    assert_eq!(read_all(&world.volume()).await.unwrap(), whole);
}

async fn same_or_refused(world: &World, whole: &[Record], what: &str, refused: &mut usize) {
    // The newest record's absence is an earlier state; of all others nothing may be missing.
    let fits = |found: &[Record]| found == whole || (what.contains("/log/") && whole.starts_with(found));
    match read_all(&world.volume()).await {
        Ok(found) => assert!(fits(&found), "{what}: read as something else"),
        Err(error) => {
            *refused += 1;
            assert!(error.is_damage() || error.is_newer() || is_named(&error), "{what}: {error}");
        }
    }
    let copy = world.dir.path().join("harmed");
    match logs::restore(&world.volume(), &world.components, &At::Newest, &copy).await {
        Ok(_) => {
            assert!(fits(&all(Reader::open(&copy, Range::ALL).unwrap())), "{what}: restored as something else");
            std::fs::remove_dir_all(&copy).unwrap();
        }
        Err(_) => assert!(!copy.exists(), "{what}"),
    }
}

fn is_named(error: &EngineError) -> bool {
    matches!(error, EngineError::NotAVolume { .. } | EngineError::RemoteBehind { .. } | EngineError::Log(_))
}

#[tokio::test]
async fn a_range_of_a_sealed_segment_costs_its_index_and_the_blocks_that_match() {
    let mut world = World::new();
    world.append(Some("a"), 12_000, 5_600);
    world.ship().await.unwrap();
    world.prune().await.unwrap();
    let counting = Arc::new(Counting::new(world.memory.clone()));
    let volume = Volume::new(counting.clone(), "events".parse().unwrap());
    let range = Range { from: Lsn(5_000), to: Lsn(5_003), ..Range::ALL };
    let mut reader = RemoteReader::open(volume, range).await.unwrap();
    let mut found = Vec::new();
    while let Some(record) = reader.next_record().await.unwrap() {
        found.push(record);
    }
    world.check(&found, 5_000, 5_003);
    let fetched = reader.fetched();
    assert!(fetched.requests <= 3 && fetched.bytes < 400_000, "{fetched:?}");
    assert!(counting.totals().of(Op::Get).requests <= 6, "{:?}", counting.totals());
}

#[tokio::test]
async fn who_follows_sees_what_is_shipped_and_survives_seals_and_prunes() {
    let mut world = World::new();
    world.append(Some("a"), 10, 100);
    world.ship().await.unwrap();
    let mut reader = RemoteReader::open(world.volume(), Range::ALL).await.unwrap();
    let mut found = Vec::new();
    for round in 0..40 {
        while let Some(record) = reader.next_record().await.unwrap() {
            found.push(record);
        }
        world.check(&found, 1, world.shipped);
        let (count, len) = if round % 12 == 11 { (3, 14 << 20) } else { (7, 200) };
        world.append(if round % 2 == 0 { Some("b") } else { None }, count, len);
        world.ship().await.unwrap();
        if round % 9 == 8 {
            world.prune().await.unwrap();
        }
        let mut looks = 0;
        while !reader.look().await.unwrap() {
            looks += 1;
            assert!(looks < 40, "round {round}: nothing is seen");
        }
    }
}

#[tokio::test]
async fn a_log_that_was_truncated_before_it_had_a_volume_begins_there_too() {
    let mut world = World::new();
    world.append(Some("a"), 3, 14 << 20);
    world.append(Some("b"), 4, 14 << 20);
    world.log.as_ref().unwrap().sync().unwrap();
    let done = logs::truncate(&world.path(), Cut::Before(Lsn(5)), false, &*world.faults).unwrap();
    assert_eq!(done.start, Lsn(5));
    world.start = 5;
    world.ship().await.unwrap();
    world.look(&mut Chance(1)).await;
    let refused = RemoteReader::open(world.volume(), Range::from(Lsn(2))).await.unwrap_err();
    assert!(refused.to_string().contains("the log begins at LSN 5 now"), "{refused}");
}

#[tokio::test]
async fn a_database_s_verbs_refuse_a_log_by_name_and_the_other_way_round() {
    let mut world = World::new();
    world.append(None, 3, 10);
    world.ship().await.unwrap();
    let volume = world.volume();
    let dest: &Path = &world.dir.path().join("x.db");
    let refused = [
        littoral_engine::exec::restore::restore(&volume, &world.components, &At::Newest, dest, false).await.err(),
        littoral_engine::exec::fork::fork(&volume, &world.components, &At::Newest, &"f".parse().unwrap()).await.err(),
        littoral_engine::Lazy::open(&volume, &world.components, &At::Newest).await.err(),
    ];
    for error in refused {
        let text = error.unwrap().to_string();
        assert!(text.contains("is the volume of a log"), "{text}");
    }
    assert!(!dest.exists());
    drop(world.log.take());
    let target =
        Target { database: dest.to_owned(), volume: Some("events".parse().unwrap()), takeover: None, fencing: true };
    std::fs::write(dest, b"").unwrap();
    let session = littoral_engine::open_for_writing(&world.stores, &world.components, &target).await;
    assert!(session.is_err());
}
