//! Replicas of a volume that moves: whatever its writers do, and whoever reads beside them, what is read is one committed state, the one
//! that it was when reading began, and never an older one than before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod shipping;

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::segment::Shipped;
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_engine::follow::{self, Reader, Replica};
use littoral_engine::runtime::Runtime;
use littoral_engine::volume::release;
use littoral_engine::{Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_plan::KeepPolicy;
use littoral_ports::{
    Changed, Commits, MemoryManifest, MemoryRemote, NoFaults, Noted, PageSource, Remote, Silent, SourceError,
};
use littoral_remote::{Counting, Fault, Faulty, Op};
use littoral_types::limits::POLL_LIST_EVERY;
use littoral_types::{Compression, Epoch, Lsn, PageCount, PageNo, PageSize, Position, WalMark};
use shipping::ship;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PAGE: usize = 512;
const PAGES: usize = 700;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

fn page(at: usize) -> PageNo {
    PageNo::from_index(at as u64)
}

type State = Vec<Arc<Vec<u8>>>;

/// A database in memory, as a checkpoint sees it.
struct Source<'a> {
    state: &'a State,
    page_size: usize,
    wal: WalMark,
    changed: Option<&'a BTreeSet<PageNo>>,
}

impl PageSource for Source<'_> {
    fn page_size(&self) -> PageSize {
        PageSize::new(self.page_size as u64).unwrap()
    }
    fn page_count(&self) -> PageCount {
        PageCount(self.state.len() as u64)
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        let is_in = |page: &PageNo| self.page_count().holds(*page);
        self.changed.map_or(Changed::Unknown, |pages| Changed::Pages(pages.iter().copied().filter(is_in).collect()))
    }
    fn wal(&self) -> Option<WalMark> {
        Some(self.wal)
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        into.copy_from_slice(&self.state[page.index() as usize]);
        Ok(())
    }
}

fn components() -> Components {
    Components {
        clock: Arc::new(MachineClock),
        entropy: Arc::new(MachineEntropy),
        faults: Arc::new(NoFaults),
        quota: Arc::new(LocalQuota::unlimited()),
        progress: Arc::new(Silent),
        account: Arc::new(littoral_ports::Uncounted),
    }
}

struct Machine {
    _dir: TempDir,
    stores: Stores,
    target: Target,
}

impl Machine {
    fn new(remote: Arc<dyn Remote>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote };
        let database = dir.path().join("app.db");
        std::fs::write(&database, b"").unwrap();
        Self { _dir: dir, stores, target: Target { database, volume: None, takeover: None, fencing: true } }
    }
}

/// A volume, who writes it, and everything that it ever was.
struct World {
    runtime: Runtime,
    remote: Arc<MemoryRemote>,
    machine: Machine,
    session: Option<Session>,
    chance: Chance,
    page_size: usize,
    state: State,
    checkpointed: State,
    points: BTreeMap<Lsn, State>,
    changed: Option<BTreeSet<PageNo>>,
    shipped: Shipped,
    frame: u64,
    /// What was the newest commit at the last prune.
    pruned: Lsn,
}

impl World {
    fn new(seed: u64) -> Self {
        let remote = Arc::new(MemoryRemote::new("volume"));
        let runtime = Runtime::start().unwrap();
        let machine = Machine::new(remote.clone());
        let session = runtime.run(open_for_writing(&machine.stores, &components(), &machine.target)).unwrap();
        let mut chance = Chance(seed.wrapping_mul(977) + 13);
        let state: State = (0..PAGES).map(|_| Arc::new(chance.noise(PAGE))).collect();
        let mut world = Self {
            runtime,
            remote,
            machine,
            session: Some(session),
            chance,
            page_size: PAGE,
            state,
            checkpointed: Vec::new(),
            points: BTreeMap::new(),
            changed: None,
            shipped: Shipped::new(),
            frame: 0,
            pruned: Lsn(0),
        };
        world.checkpoint();
        world
    }

    fn log(&self) -> Log {
        Log::new(self.remote.clone(), "app.db".parse().unwrap())
    }

    fn mark(&self) -> WalMark {
        WalMark { salts: [1, 2], frame: self.frame, checksum: [self.frame as u32, 4] }
    }

    fn position(&self) -> Position {
        let tail = &self.session.as_ref().unwrap().writer.row().tail;
        Position { epoch: tail.epoch, lsn: tail.lsn }
    }

    fn write(&mut self, at: usize) {
        let mut image = self.state[at].to_vec();
        match self.chance.below(8) {
            0 => image.fill(0),
            1 => image = self.chance.noise(self.page_size),
            2 if at < self.checkpointed.len() => image = self.checkpointed[at].to_vec(),
            _ => {
                let from = self.chance.below(self.page_size - 40);
                let noise = self.chance.noise(30);
                image[from..from + 30].copy_from_slice(&noise);
            }
        }
        self.state[at] = Arc::new(image);
    }

    /// A transaction: which pages it wrote, and the least size that the database had.
    fn commit(&mut self, written: &mut BTreeSet<PageNo>) -> usize {
        let before = self.state.len();
        if self.chance.below(5) == 0 {
            let count = PAGES - 200 + self.chance.below(400);
            let size = self.page_size;
            self.state.resize_with(count, || Arc::new(vec![0; size]));
            written.retain(|page| page.index() < count as u64);
            for at in before..count {
                if self.chance.below(3) > 0 {
                    self.write(at);
                    written.insert(page(at));
                }
            }
        }
        for _ in 0..1 + self.chance.below(6) {
            let at = if self.chance.below(2) == 0 { 0 } else { self.chance.below(self.state.len()) };
            self.write(at);
            written.insert(page(at));
        }
        self.frame += 10;
        before.min(self.state.len())
    }

    fn ship(&mut self) {
        let mut written = BTreeSet::new();
        let before = self.state.clone();
        let mut least = before.len();
        let commits: Vec<Noted> = (0..1 + self.chance.below(3))
            .map(|_| {
                least = least.min(self.commit(&mut written));
                Noted { time_ms: self.frame, page_count: PageCount(self.state.len() as u64), session: None }
            })
            .collect();
        let pages = written.iter().map(|page| (*page, self.state[page.index() as usize].to_vec())).collect();
        let page_size = PageSize::new(self.page_size as u64).unwrap();
        let changes = Commits { page_size, commits, pages, wal: Some(self.mark()), is_all: true };
        let mut at_hand = |page: PageNo| before.get(page.index() as usize).map(|image| image.to_vec());
        let Self { session, shipped, runtime, .. } = self;
        let writer = &mut session.as_mut().unwrap().writer;
        runtime.run(ship(writer, changes, shipped, &mut at_hand)).unwrap();
        if let Some(changed) = &mut self.changed {
            changed.extend(written);
            changed.extend((least..self.state.len()).map(page));
        }
        self.points.insert(self.position().lsn, self.state.clone());
    }

    fn checkpoint(&mut self) {
        let undone = self.chance.below(4) == 0 && !self.checkpointed.is_empty();
        let mut written = BTreeSet::new();
        let before = self.state.len();
        if undone {
            self.state = self.checkpointed.clone();
        } else if self.chance.below(2) == 0 && !self.checkpointed.is_empty() {
            self.commit(&mut written);
        }
        if let Some(changed) = &mut self.changed {
            changed.extend(written);
            changed.extend((before.min(self.state.len())..self.state.len()).map(page));
        }
        let wal = self.mark();
        let folds = self.chance.below(2) == 0;
        let Self { session, runtime, state, changed, page_size, .. } = self;
        let mut source = Source { state, page_size: *page_size, wal, changed: changed.as_ref() };
        let Session { writer, scratch, .. } = session.as_mut().unwrap();
        runtime.run(async {
            checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
            snapshot_if_due(writer, Some(&mut source)).await.unwrap();
            if folds {
                coalesce(writer, scratch, None, Compression::Zstd).await.unwrap();
            }
        });
        self.points.insert(self.position().lsn, self.state.clone());
        self.changed = Some(BTreeSet::new());
        self.checkpointed = self.state.clone();
    }

    fn prune(&mut self) {
        let options = prune::Options { keep: KeepPolicy { last: 3, within_ms: 0 }, grace_ms: 0, dry_run: false };
        let Self { session, runtime, .. } = self;
        runtime.run(prune(&mut session.as_mut().unwrap().writer, &options)).unwrap();
        self.pruned = self.position().lsn;
    }

    /// Another machine goes on: released to it, or taken.
    fn takeover(&mut self) {
        let (epoch, mut session) = (self.position().epoch, self.session.take().unwrap());
        if self.chance.below(2) == 0 {
            self.runtime.run(release(&mut session.writer)).unwrap();
        }
        drop(session);
        self.machine = Machine::new(self.remote.clone());
        self.machine.target.takeover = Some(epoch);
        let Machine { stores, target, .. } = &self.machine;
        self.session = Some(self.runtime.run(open_for_writing(stores, &components(), target)).unwrap());
        assert_eq!(self.position().epoch, epoch.next());
        self.shipped = Shipped::new();
        self.changed = None;
        // What it was taken from is what the volume has.
        self.checkpoint();
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0..12 => self.ship(),
            12..18 => self.checkpoint(),
            18 => self.prune(),
            _ => self.takeover(),
        }
    }
}

fn options(quota: Option<u64>) -> follow::Options {
    follow::Options { poll_ms: 20, quota }
}

fn open(dir: &TempDir, log: Log, quota: Option<u64>) -> Replica {
    Replica::open(&place(dir), log, components(), options(quota)).unwrap()
}

fn place(dir: &TempDir) -> follow::Place {
    follow::Place { root: dir.path().join("replica"), database: dir.path().join("replica.db") }
}

/// Somebody who reads, and what the world was like when he began.
struct Reading {
    reader: Reader,
    last: Position,
}

impl Reading {
    fn of(replica: &Replica) -> Self {
        Self { reader: replica.reader(), last: Position { epoch: Epoch(0), lsn: Lsn(0) } }
    }

    fn begin(&mut self, world: &World) {
        self.reader.begin().unwrap();
        let position = self.reader.position().unwrap();
        assert!(position >= self.last, "{position} after {}", self.last);
        self.last = position;
        let state = &world.points[&position.lsn];
        assert_eq!(self.reader.page_count(), PageCount(state.len() as u64), "{position}");
    }

    /// Reads a page as it was, or is told that it is gone for good.
    fn read(&self, world: &World, at: usize, why: &str) -> bool {
        let position = self.reader.position().unwrap();
        let state = &world.points[&position.lsn];
        let at = at % state.len();
        let mut image = vec![0; state[at].len()];
        match self.reader.read(page(at), 0, &mut image) {
            Ok(()) => {
                assert!(image == **state[at], "{why}: page {} of {position} is another", page(at));
                true
            }
            Err(error) => {
                // A prune without grace takes older states from whoever reads them.
                assert!(position.lsn < world.pruned, "{why}: page {} of {position}: {error}", page(at));
                false
            }
        }
    }
}

#[test]
fn s18_every_reader_sees_one_state_whatever_comes_meanwhile() {
    let only = std::env::var("LITTORAL_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    for seed in only.map_or(0..8, |seed| seed..seed + 1) {
        let why = format!("seed {seed}");
        let mut world = World::new(seed);
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        // Two that share a folder, as two processes do, and one with little room.
        let quota = Some(96 << 10);
        let replicas =
            [open(&dirs[0], world.log(), None), open(&dirs[0], world.log(), None), open(&dirs[1], world.log(), quota)];
        let mut readings: Vec<Reading> =
            replicas.iter().flat_map(|replica| [0, 1, 2].map(|_| Reading::of(replica))).collect();
        let mut read = 0;
        for _ in 0..90 {
            world.step();
            if world.chance.below(3) == 0 {
                std::thread::sleep(Duration::from_millis(25));
            }
            for reading in &mut readings {
                match world.chance.below(6) {
                    0 => reading.reader.end(),
                    _ if reading.reader.position().is_none() => reading.begin(&world),
                    _ => {}
                }
                if reading.reader.position().is_some() {
                    for nth in 0..4 {
                        let at = if nth == 0 { 0 } else { world.chance.below(PAGES) };
                        read += u64::from(reading.read(&world, at, &why));
                    }
                }
            }
        }
        assert!(read > 300, "{why}: {read}");
        // Everybody comes to the end.
        let end = world.position();
        for replica in &replicas {
            assert_eq!(replica.wait(end, Duration::from_secs(20)).unwrap(), end, "{why}");
        }
        for reading in &mut readings {
            reading.reader.end();
            reading.begin(&world);
            assert_eq!(reading.last, end, "{why}");
            (0..world.state.len()).for_each(|at| assert!(reading.read(&world, at, &why), "{why}"));
        }
        assert!(replicas[2].status().held * PAGE as u64 <= 96 << 10, "{why}: {:?}", replicas[2].status());
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn p08_a_look_that_finds_nothing_costs_one_request() {
    let world = World::new(1);
    let counted = Arc::new(Counting::new(world.remote.clone()));
    let log = Log::new(counted.clone(), "app.db".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let _one = open(&dir, log.clone(), None);
    let _two = open(&dir, log, None);
    counted.reset();
    let began = Instant::now();
    until("forty looks", || counted.totals().all().requests >= 40);
    let totals = counted.totals();
    let (gets, lists) = (totals.of(Op::Get).requests, totals.of(Op::List).requests);
    assert_eq!(totals.all().requests, gets + lists, "{totals:?}");
    assert!(lists <= 1 + totals.all().requests / u64::from(POLL_LIST_EVERY) + 1, "{totals:?}");
    // Two processes ask as often as one; and less often when nothing comes.
    assert!(began.elapsed() > Duration::from_millis(30 * 20 + 9 * 40), "{:?}", began.elapsed());
}

#[test]
fn one_asks_for_what_came_and_the_others_read_what_it_was_told() {
    let mut world = World::new(2);
    let dir = tempfile::tempdir().unwrap();
    let one = open(&dir, world.log(), None);
    // Its remote knows nothing that came after: whatever it shows, it has from the other one.
    let frozen = Arc::new(MemoryRemote::new("volume"));
    for (path, bytes) in world.remote.objects() {
        frozen.tamper(&path, bytes);
    }
    let two = open(&dir, Log::new(frozen, "app.db".parse().unwrap()), None);
    assert!(one.status().is_follower || !two.status().is_follower);
    for _ in 0..6 {
        world.ship();
    }
    let end = world.position();
    one.wait(end, Duration::from_secs(10)).unwrap();
    let mut reading = Reading::of(&one);
    reading.begin(&world);
    (0..world.state.len()).for_each(|at| assert!(reading.read(&world, at, "one")));
    let mut other = Reading::of(&two);
    other.begin(&world);
    assert_eq!(other.last, end);
    (0..world.state.len()).for_each(|at| assert!(other.read(&world, at, "two")));
}

#[test]
fn a_volume_that_vanishes_is_named_and_gone_on_with_when_it_is_back() {
    let mut world = World::new(3);
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir, world.log(), None);
    let mut reading = Reading::of(&replica);
    reading.begin(&world);
    [0, 40].iter().for_each(|at| assert!(reading.read(&world, *at, "here")));
    let all = world.remote.objects();
    let paths: Vec<_> = all.iter().map(|(path, _)| path.clone()).collect();
    world.runtime.run(world.remote.delete(&paths)).unwrap();
    until("it is noticed", || replica.status().trouble.is_some_and(|why| why.contains("is gone")));
    [0, 40].iter().for_each(|at| assert!(reading.read(&world, *at, "still here")));
    let mut image = vec![0; PAGE];
    assert!(reading.reader.read(page(650), 0, &mut image).is_err());
    for (path, bytes) in all {
        world.remote.tamper(&path, bytes);
    }
    world.ship();
    let end = world.position();
    assert_eq!(replica.wait(end, Duration::from_secs(20)).unwrap(), end);
    assert_eq!(replica.status().trouble, None);
    assert!(reading.read(&world, 650, "back"));
}

#[test]
fn p03_another_volume_under_the_name_is_refused_and_what_was_shown_is_read_on() {
    for longer in [false, true] {
        let mut world = World::new(4);
        (0..4).for_each(|_| world.ship());
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir, world.log(), None);
        let mut reading = Reading::of(&replica);
        reading.begin(&world);
        assert!(reading.read(&world, 5, "here"));
        let paths: Vec<_> = world.remote.objects().into_iter().map(|(path, _)| path).collect();
        world.runtime.run(world.remote.delete(&paths)).unwrap();
        let mut other = World::new(5);
        if longer {
            (0..12).for_each(|_| other.ship());
        }
        for (path, bytes) in other.remote.objects() {
            world.remote.tamper(&path, bytes);
        }
        until("it is noticed", || {
            replica.status().trouble.is_some_and(|why| why.contains("another volume was made under this name"))
        });
        assert!(reading.read(&world, 5, "still here"));
        let last = reading.last;
        reading.reader.end();
        reading.begin(&world);
        assert_eq!(reading.last, last);
        drop((replica, reading));
        // Nor after it was closed, nor when what was here is gone.
        let replica = open(&dir, world.log(), None);
        assert!(replica.status().trouble.is_some_and(|why| why.contains("another volume")), "{:?}", replica.status());
        drop(replica);
        std::fs::remove_dir_all(dir.path().join("replica/1/shelf")).unwrap();
        let refused = Replica::open(&place(&dir), world.log(), components(), options(None));
        assert!(refused.unwrap_err().to_string().contains("another volume was made under this name"));
    }
}

#[test]
fn whatever_the_object_store_does_no_wrong_page_is_read_and_it_goes_on_by_itself() {
    for seed in 20..23 {
        let mut world = World::new(seed);
        let faulty = Arc::new(Faulty::new(world.remote.clone(), Arc::new(MachineClock), Arc::new(MachineEntropy)));
        let log = Log::new(faulty.clone(), "app.db".parse().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (open(&dir, log.clone(), Some(64 << 10)), open(&dir, log, Some(64 << 10)));
        for (fault, per_mille) in [
            (Fault::NotSent, 80),
            (Fault::LostAfter, 60),
            (Fault::Truncated, 60),
            (Fault::Flipped, 60),
            (Fault::Throttled, 40),
        ] {
            faulty.chance(fault, per_mille);
        }
        let (mut right, mut failed) = (0, 0);
        let mut readings = [Reading::of(&one), Reading::of(&two), Reading::of(&two)];
        for round in 0..60 {
            if round % 2 == 0 {
                if world.chance.below(4) > 0 { world.ship() } else { world.checkpoint() }
            }
            std::thread::sleep(Duration::from_millis(10));
            for reading in &mut readings {
                reading.reader.end();
                // Where the follower has something that this one cannot read yet, that is said.
                if reading.reader.begin().is_err() {
                    continue;
                }
                reading.reader.end();
                reading.begin(&world);
                let state = &world.points[&reading.last.lsn];
                for _ in 0..6 {
                    let at = world.chance.below(state.len());
                    let mut image = vec![0; PAGE];
                    match reading.reader.read(page(at), 0, &mut image) {
                        Ok(()) => {
                            assert!(image == **state[at], "seed {seed}: page {} of {}", page(at), reading.last);
                            right += 1;
                        }
                        Err(_) => failed += 1,
                    }
                }
            }
        }
        assert!(
            right > 100 && faulty.happened().len() > 40,
            "seed {seed}: {right} {failed} {}",
            faulty.happened().len()
        );
        faulty.calm();
        let end = world.position();
        for replica in [&one, &two] {
            assert_eq!(replica.wait(end, Duration::from_secs(20)).unwrap(), end, "seed {seed}");
        }
        for reading in &mut readings {
            reading.reader.end();
            reading.begin(&world);
            (0..world.state.len()).for_each(|at| assert!(reading.read(&world, at, "calm"), "seed {seed}"));
        }
    }
}

#[test]
fn p04_waiting_for_what_a_takeover_cut_off_fails_at_once() {
    let mut world = World::new(6);
    world.ship();
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir, world.log(), None);
    let before = world.position();
    let never = Position { lsn: Lsn(before.lsn.0 + 3), ..before };
    let late = replica.wait(never, Duration::from_millis(50)).unwrap_err().to_string();
    assert!(late.contains("is not shown here"), "{late}");
    world.takeover();
    let end = world.position();
    replica.wait(end, Duration::from_secs(10)).unwrap();
    let began = Instant::now();
    let cut_off = replica.wait(never, Duration::from_secs(60)).unwrap_err().to_string();
    assert!(cut_off.contains("was cut off") && began.elapsed() < Duration::from_secs(10), "{cut_off}");
    assert_eq!(replica.wait(before, Duration::from_secs(1)).unwrap(), end);
}

#[test]
fn where_there_is_no_volume_or_nothing_in_it_that_is_said() {
    let remote: Arc<dyn Remote> = Arc::new(MemoryRemote::new("nothing"));
    let log = Log::new(remote, "app.db".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let opened = Replica::open(&place(&dir), log, components(), options(None));
    assert!(opened.unwrap_err().to_string().contains("no Littoral volume"));
    assert!(!dir.path().join("replica.db").exists());
    let machine = Machine::new(Arc::new(MemoryRemote::new("claimed")));
    let runtime = Runtime::start().unwrap();
    let _session = runtime.run(open_for_writing(&machine.stores, &components(), &machine.target)).unwrap();
    let log = Log::new(machine.stores.remote.clone(), "app.db".parse().unwrap());
    let opened = Replica::open(&place(&dir), log, components(), options(None));
    assert!(opened.unwrap_err().to_string().contains("nothing was committed to it yet"));
}

#[test]
fn a_file_that_stands_there_is_not_replaced_and_a_replica_follows_one_volume() {
    let world = World::new(9);
    let dir = tempfile::tempdir().unwrap();
    let refused = |log: Log| Replica::open(&place(&dir), log, components(), options(None)).unwrap_err().to_string();
    std::fs::write(dir.path().join("replica.db"), b"something").unwrap();
    assert!(refused(world.log()).contains("is not replaced"));
    assert_eq!(std::fs::read(dir.path().join("replica.db")).unwrap(), b"something");
    std::fs::write(dir.path().join("replica.db"), b"").unwrap();
    let replica = open(&dir, world.log(), None);
    assert!(place(&dir).is_replica());
    drop(replica);
    let other = Log::new(world.remote.clone(), "other.db".parse().unwrap());
    assert!(refused(other.clone()).contains("is a replica of mem://volume/app.db, not of mem://volume/other.db"));
    // Deleting the file is enough to begin anew.
    std::fs::remove_file(dir.path().join("replica.db")).unwrap();
    assert!(refused(other).contains("no Littoral volume"));
    drop(open(&dir, world.log(), None));
}

#[test]
fn a_replica_that_was_closed_goes_on_where_it_stood_and_asks_for_what_came() {
    let mut world = World::new(7);
    let dir = tempfile::tempdir().unwrap();
    let counted = Arc::new(Counting::new(world.remote.clone()));
    let log = Log::new(counted.clone(), "app.db".parse().unwrap());
    let replica = open(&dir, log.clone(), None);
    let mut reading = Reading::of(&replica);
    reading.begin(&world);
    (0..300).for_each(|at| assert!(reading.read(&world, at, "first")));
    drop((reading, replica));
    world.ship();
    counted.reset();
    let replica = open(&dir, log, None);
    let mut reading = Reading::of(&replica);
    reading.begin(&world);
    assert_eq!(reading.last, world.position(), "the newest state, at once");
    (0..300).for_each(|at| assert!(reading.read(&world, at, "again")));
    let down = counted.totals().all().bytes_down;
    assert!(down < 100 << 10, "{down} bytes for what is here");
}

#[test]
fn another_page_size_and_a_prune_that_overtakes_begin_anew_and_readers_keep_their_state() {
    let mut world = World::new(8);
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir, world.log(), None);
    let mut reading = Reading::of(&replica);
    reading.begin(&world);
    (0..world.state.len()).for_each(|at| assert!(reading.read(&world, at, "before")));
    // VACUUM with another page size.
    world.page_size = 1024;
    world.state = (0..400).map(|_| Arc::new(world.chance.noise(1024))).collect();
    world.changed = None;
    world.checkpointed = Vec::new();
    world.checkpoint();
    let end = world.position();
    replica.wait(end, Duration::from_secs(10)).unwrap();
    (0..300).for_each(|at| assert!(reading.read(&world, at, "its own state")));
    let mut other = Reading::of(&replica);
    other.begin(&world);
    assert_eq!((other.last, other.reader.page_size().bytes()), (end, 1024));
    (0..400).for_each(|at| assert!(other.read(&world, at, "the new one")));
    reading.reader.end();
    reading.begin(&world);
    assert_eq!(reading.last, end);
    drop((replica, reading, other));
    // While it is closed, everything up to here goes.
    for _ in 0..12 {
        world.ship();
        world.checkpoint();
    }
    world.prune();
    world.ship();
    let replica = open(&dir, world.log(), None);
    assert_eq!(replica.wait(world.position(), Duration::from_secs(10)).unwrap(), world.position());
    let mut reading = Reading::of(&replica);
    reading.begin(&world);
    assert_eq!(reading.last, world.position());
    (0..world.state.len()).for_each(|at| assert!(reading.read(&world, at, "after the prune")));
}
