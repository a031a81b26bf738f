//! Commits that travel one by one: after every record, whatever came between, the newest state and every earlier restore point are
//! what was committed, for all who read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod shipping;
mod standing;

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::segment::Shipped;
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_engine::exec::verify::verify;
use littoral_engine::lazy::Budget;
use littoral_engine::live::name_snapshot;
use littoral_engine::{EngineError, Lazy, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_plan::KeepPolicy;
use littoral_ports::{Commits, Faults, MemoryManifest, MemoryRemote, NoFaults, Noted, Remote, Silent};
use littoral_remote::{Counting, Op};
use littoral_types::{Compression, Gap, GapReason, Lsn, PageCount, PageNo, PageSize, SnapshotName, WalMark};
use shipping::ship;
use standing::{Source, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const PAGE: usize = 65_536;
/// Two chunks, and a little of a third at times.
const PAGES: usize = 1_100;

fn page(at: usize) -> PageNo {
    PageNo::from_index(at as u64)
}

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

/// Fails once, at one point.
#[derive(Debug, Default)]
struct Once {
    point: std::sync::Mutex<Option<String>>,
    died: AtomicU64,
}

impl Faults for Once {
    fn reach(&self, point: &'static str) -> Result<(), littoral_ports::Crash> {
        let mut armed = self.point.lock().unwrap();
        if armed.as_deref() == Some(point) {
            *armed = None;
            self.died.fetch_add(1, Ordering::SeqCst);
            return Err(littoral_ports::Crash(point));
        }
        Ok(())
    }
}

struct Machine {
    dir: TempDir,
    stores: Stores,
    target: Target,
    components: Components,
    faults: Arc<Once>,
}

impl Machine {
    fn new(remote: &Arc<MemoryRemote>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Once::default());
        let components = Components {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: faults.clone(),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: remote.clone() };
        let database = dir.path().join("app.db");
        std::fs::write(&database, b"").unwrap();
        let target = Target { database, volume: None, takeover: None, fencing: true };
        Self { dir, stores, target, components, faults }
    }

    async fn open(&self) -> Session {
        open_for_writing(&self.stores, &self.components, &self.target).await.unwrap()
    }

    fn log(&self) -> Log {
        Log::new(self.stores.remote.clone(), "app.db".parse().unwrap())
    }

    async fn restored(&self, at: At) -> Vec<u8> {
        let dest = self.dir.path().join("restored.db");
        let components = Components { faults: Arc::new(NoFaults), ..self.components.clone() };
        restore(&self.log(), &components, &at, &dest, true).await.unwrap();
        std::fs::read(dest).unwrap()
    }
}

struct World {
    machine: Machine,
    chance: Chance,
    state: State,
    /// Everything that was committed, by the LSN of the record that ends with it.
    points: BTreeMap<Lsn, State>,
    changed: BTreeSet<PageNo>,
    shipped: Shipped,
    lsn: Lsn,
    frame: u64,
    patched: u64,
    floor: Lsn,
    checkpointed: State,
    named: Vec<(SnapshotName, State)>,
}

impl World {
    fn mark(&self) -> WalMark {
        WalMark { salts: [1, 2], frame: self.frame, checksum: [self.frame as u32, 4] }
    }

    /// What a transaction does to a few pages.
    fn commit(&mut self, written: &mut BTreeSet<PageNo>) -> Noted {
        if self.chance.below(6) == 0 {
            let count = PAGES - 80 + self.chance.below(160);
            let before = self.state.len();
            self.state.resize_with(count, || Arc::new(vec![0; PAGE]));
            *written = written.iter().copied().filter(|page| PageCount(count as u64).holds(*page)).collect();
            // Not every page that a database grows by is written.
            for at in before..count {
                if self.chance.below(3) > 0 {
                    self.write(at, written);
                }
            }
        }
        if self.chance.below(10) == 0 {
            // More than a record holds.
            for at in (0..24).map(|nth| nth * 7) {
                self.state[at] = Arc::new(self.chance.noise(PAGE));
                written.insert(page(at));
            }
        }
        for _ in 0..1 + self.chance.below(5) {
            // Some pages are written again and again.
            let at = match self.chance.below(5) {
                0 => self.chance.below(self.state.len()),
                // Where the end comes and goes.
                1 => PAGES - 40 + self.chance.below(3) * 30,
                _ => self.chance.below(6) * 190,
            };
            self.write(at.min(self.state.len() - 1), written);
        }
        self.frame += 10;
        Noted { time_ms: self.frame, page_count: PageCount(self.state.len() as u64), session: None }
    }

    fn write(&mut self, at: usize, written: &mut BTreeSet<PageNo>) {
        let mut image = self.state[at].to_vec();
        match self.chance.below(8) {
            0 => image.fill(0),
            1 => image = self.chance.noise(PAGE),
            // What the newest checkpoint has: nothing will be left of what came since.
            2 if at < self.checkpointed.len() => image = self.checkpointed[at].to_vec(),
            _ => {
                let (from, len) = (self.chance.below(PAGE - 200), 1 + self.chance.below(100));
                let noise = self.chance.noise(len);
                image[from..from + len].copy_from_slice(&noise);
            }
        }
        self.state[at] = Arc::new(image);
        written.insert(page(at));
    }

    /// Commits that travel in one record, perhaps after a death on the way.
    async fn ship(&mut self, session: &mut Session) {
        let mut written = BTreeSet::new();
        let before = self.state.clone();
        let commits: Vec<Noted> = (0..1 + self.chance.below(3)).map(|_| self.commit(&mut written)).collect();
        let pages = written.iter().map(|page| (*page, self.state[page.index() as usize].to_vec())).collect();
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let many = commits.len() as u64;
        let least = commits.iter().map(|commit| commit.page_count.0 as usize).min().unwrap();
        let changes = Commits { page_size, commits, pages, wal: Some(self.mark()), is_all: true };
        let points = ["segment.uploaded", "publish.drafted", "publish.intended", "publish.landed", "publish.committed"];
        if self.chance.below(4) == 0 {
            *self.machine.faults.point.lock().unwrap() = Some(points[self.chance.below(points.len())].to_owned());
        }
        // What stands in the database file may be the version before, or any other.
        let stale = self.chance.below(3) == 0;
        let mut at_hand = |page: PageNo| {
            let image = before.get(page.index() as usize)?;
            Some(if stale { vec![7; PAGE] } else { image.to_vec() })
        };
        let tail = session.writer.row().tail.lsn;
        let done = ship(&mut session.writer, changes.clone(), &mut self.shipped, &mut at_hand).await;
        let done = match done {
            Err(error) if error.is_crash() => {
                // The process died: what it remembered is gone, and the next one finds out where it stands.
                self.shipped = Shipped::new();
                session.writer.settle().await.unwrap();
                match session.writer.row().tail.lsn == tail {
                    true => ship(&mut session.writer, changes, &mut self.shipped, &mut at_hand).await.map(Some),
                    false => Ok(None),
                }
            }
            done => done.map(Some),
        };
        *self.machine.faults.point.lock().unwrap() = None;
        if let Some(done) = done.unwrap() {
            self.patched += done.patched;
        }
        self.lsn = Lsn(self.lsn.0 + many);
        assert_eq!(session.writer.row().tail.lsn, self.lsn);
        assert_eq!(session.writer.row().tail.wal, Some(self.mark()));
        self.points.insert(self.lsn, self.state.clone());
        self.changed.extend(written);
        // A page that was cut off and came back is new, whoever wrote it.
        let cut = least.min(before.len());
        self.changed.extend((cut..self.state.len()).map(page));
    }

    async fn checkpoint(&mut self, session: &mut Session) {
        let mut written = BTreeSet::new();
        if self.chance.below(4) == 0 && !self.checkpointed.is_empty() {
            // Everything is undone: what came since the newest checkpoint is nowhere any more.
            let before = self.state.len().min(self.checkpointed.len());
            self.state = self.checkpointed.clone();
            self.changed.extend((before..self.state.len()).map(page));
        } else if self.chance.below(2) > 0 {
            let before = self.state.len();
            self.commit(&mut written);
            self.changed.extend(written);
            self.changed.extend((before.min(self.state.len())..self.state.len()).map(page));
        }
        let tracked = self.chance.below(3) > 0;
        let changed = tracked.then_some(&self.changed);
        let mut source = Source { state: &self.state, wal: self.mark(), changed, gap: None };
        let Session { writer, scratch, .. } = session;
        checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
        snapshot_if_due(writer, Some(&mut source)).await.unwrap();
        if self.chance.below(2) == 0 {
            coalesce(writer, scratch, None, Compression::Zstd).await.unwrap();
        }
        self.lsn = session.writer.row().tail.lsn;
        self.points.insert(self.lsn, self.state.clone());
        self.changed.clear();
        self.checkpointed = self.state.clone();
    }

    /// What a name holds stays, whatever is pruned.
    async fn name(&mut self) {
        let name: SnapshotName = format!("name-{}", self.named.len()).parse().unwrap();
        let components = Components { faults: Arc::new(NoFaults), ..self.machine.components.clone() };
        name_snapshot(&self.machine.log(), &components, &name).await.unwrap();
        self.named.push((name, self.state.clone()));
    }

    async fn prune(&mut self, session: &mut Session) {
        let options = prune::Options { keep: KeepPolicy { last: 9, within_ms: 0 }, grace_ms: 0, dry_run: false };
        if let Some(done) = prune(&mut session.writer, &options).await.unwrap() {
            let floor = self.machine.log().open_at(done.floor).await.unwrap().unwrap().tail.lsn;
            self.floor = self.floor.max(floor);
        }
    }

    /// All who read find what was committed.
    async fn check(&mut self, seed: u64) {
        let lazy = Lazy::open(&self.machine.log(), &self.machine.components, &At::Newest).await.unwrap();
        assert_eq!(lazy.page_count().0, self.state.len() as u64, "seed {seed}");
        let some: Vec<PageNo> =
            (0..40).map(|nth| page(if nth < 6 { nth * 190 } else { self.chance.below(self.state.len()) })).collect();
        let some: Vec<PageNo> = some.into_iter().filter(|page| lazy.page_count().holds(*page)).collect();
        for page in some.iter().take(12) {
            let found = match lazy.resident(*page) {
                Some(image) => image,
                None => lazy.fetch(*page).await.unwrap().page(*page).unwrap().clone(),
            };
            assert!(found[..] == self.state[page.index() as usize][..], "seed {seed}: page {page} of the newest state");
        }
        let fetched = lazy.fetch_many(&some, Budget::default()).await.unwrap();
        for (page, image) in fetched.frames.iter().flat_map(|frame| &frame.pages) {
            assert!(image[..] == self.state[page.index() as usize][..], "seed {seed}: page {page}, one of many");
        }
        lazy.close().await;
        let at = self.points.range(self.floor..).nth(self.chance.below(self.points.range(self.floor..).count()));
        let (lsn, state) = at.unwrap();
        let mut states = vec![(At::Lsn(*lsn), state), (At::Newest, &self.state)];
        if let Some(nth) = self.named.len().checked_sub(1) {
            let (name, state) = &self.named[self.chance.below(nth + 1)];
            states.push((At::Snapshot(name.clone()), state));
        }
        for (at, state) in states {
            let restored = self.machine.restored(at.clone()).await;
            let whole: Vec<u8> = state.iter().flat_map(|page| page.iter().copied()).collect();
            assert!(restored == whole, "seed {seed}: {at:?} is not what was committed");
        }
        let found = verify(&self.machine.log(), &self.machine.components).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new(), "seed {seed}");
    }
}

/// Objects of frames that did not fit in their record.
async fn segments(remote: &MemoryRemote) -> usize {
    remote.list("app.db/seg", None, 10).await.unwrap().len()
}

async fn history(seed: u64, steps: usize) -> (u64, usize) {
    let remote = Arc::new(MemoryRemote::new("segments"));
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let state: State =
        (0..PAGES).map(|at| Arc::new([vec![(at % 250) as u8 + 1; PAGE - 64], chance.noise(64)].concat())).collect();
    let mut world = World {
        machine: Machine::new(&remote),
        chance,
        state,
        points: BTreeMap::new(),
        changed: BTreeSet::new(),
        shipped: Shipped::new(),
        lsn: Lsn::ZERO,
        frame: 10,
        patched: 0,
        floor: Lsn::ZERO,
        checkpointed: State::new(),
        named: Vec::new(),
    };
    let mut session = world.machine.open().await;
    world.changed = (0..PAGES).map(page).collect();
    world.checkpoint(&mut session).await;
    for step in 0..steps {
        match world.chance.below(14) {
            0 | 1 => world.checkpoint(&mut session).await,
            2 => {
                // Another process, or the same machine without its manifest.
                drop(session);
                world.shipped = Shipped::new();
                if world.chance.below(3) == 0 {
                    world.machine.stores.manifest = Arc::new(MemoryManifest::new());
                    session = world.machine.open().await;
                    world.checkpoint(&mut session).await;
                } else {
                    session = world.machine.open().await;
                }
            }
            3 => world.prune(&mut session).await,
            4 => world.name().await,
            _ => world.ship(&mut session).await,
        }
        if step % 12 == 11 {
            world.check(seed).await;
        }
    }
    world.check(seed).await;
    (world.patched, segments(&remote).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_that_was_shipped_comes_back_whatever_came_between() {
    let seeds: Vec<u64> = match std::env::var("LITTORAL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..4).collect(),
    };
    let (mut patched, mut large, many) = (0, 0, seeds.len() as u64);
    for seed in seeds {
        let (patches, objects) = history(seed, 48).await;
        patched += patches;
        large += objects;
    }
    assert!(large > 0, "every record held its frames itself");
    assert!(patched > 20 * many, "hardly a page travelled as a patch: {patched}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_one_put_and_its_patches_a_small_part_of_the_pages() {
    let remote = Arc::new(MemoryRemote::new("small"));
    let mut machine = Machine::new(&remote);
    machine.components.faults = Arc::new(NoFaults);
    let mut chance = Chance(5);
    let mut state: State = (0..PAGES).map(|_| Arc::new(chance.noise(PAGE))).collect();
    let mut session = machine.open().await;
    let wal = WalMark { salts: [1, 2], frame: 1, checksum: [3, 4] };
    let mut shipped = Shipped::new();
    let Session { writer, scratch, .. } = &mut session;
    for _ in 0..3 {
        let mut source = Source { state: &state, wal, changed: None, gap: None };
        checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
        let before = state.clone();
        let pages: Vec<(PageNo, Vec<u8>)> = (0..20)
            .map(|nth| {
                let mut image = state[nth * 50].to_vec();
                image[100..140].copy_from_slice(&chance.noise(40));
                state[nth * 50] = Arc::new(image.clone());
                (page(nth * 50), image)
            })
            .collect();
        let puts = remote.objects().len();
        let noted = Noted { time_ms: 1, page_count: PageCount(PAGES as u64), session: None };
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let changes = Commits { page_size, commits: vec![noted], pages, wal: Some(wal), is_all: true };
        let mut at_hand = |page: PageNo| Some(before[page.index() as usize].to_vec());
        let done = ship(writer, changes, &mut shipped, &mut at_hand).await.unwrap();
        assert_eq!((done.whole, done.patched), (0, 20));
        assert_eq!(remote.objects().len() - puts, 1, "one PUT");
        assert!(done.bytes < 20 * 200, "{} bytes for twenty times forty", done.bytes);
    }
    // Whoever opens it has what travelled in the records with them.
    let counting = Arc::new(Counting::new(remote.clone()));
    let lazy = Lazy::open(&Log::new(counting.clone(), "app.db".parse().unwrap()), &machine.components, &At::Newest)
        .await
        .unwrap();
    lazy.held().await;
    let before = counting.totals().of(Op::Get).requests;
    let image = lazy.fetch(page(50)).await.unwrap().page(page(50)).unwrap().clone();
    assert!(image[..] == state[50][..]);
    let asked = counting.totals().of(Op::Get).requests - before;
    assert_eq!(asked, 1, "the page that its patches stand on, and nothing else");

    let nothing = Commits { page_size: PageSize::MIN, commits: Vec::new(), pages: Vec::new(), wal: None, is_all: true };
    let refused = ship(writer, nothing, &mut shipped, &mut |_| None).await;
    assert!(matches!(refused, Err(EngineError::Refused(_))));
    assert!(segments(&remote).await == 0, "what fits travels in the record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p09_no_patch_stands_on_what_was_published_before_its_term() {
    let remote = Arc::new(MemoryRemote::new("terms"));
    let mut machines = [Machine::new(&remote), Machine::new(&remote)];
    let mut chance = Chance(9);
    let mut state: State = (0..PAGES).map(|_| Arc::new(chance.noise(PAGE))).collect();
    let wal = WalMark { salts: [1, 2], frame: 1, checksum: [3, 4] };
    let mut session = machines[0].open().await;
    checkpoint(
        &mut session.writer,
        &session.scratch,
        &mut Source { state: &state, wal, changed: None, gap: None },
        &Options::default(),
    )
    .await
    .unwrap();
    drop(session);
    machines[1].target.takeover = Some(littoral_types::Epoch(1));
    let mut session = machines[1].open().await;
    let mut shipped = Shipped::new();
    let all: BTreeSet<PageNo> = (0..4).map(|nth| page(nth * 50)).collect();
    for (round, patched) in [(0, 0), (1, 4), (2, 2)] {
        // In the last round two pages are changed that no checkpoint of this term has.
        let these: Vec<usize> = if round < 2 { vec![0, 50, 100, 150] } else { vec![0, 50, 500, 550] };
        let before = state.clone();
        let pages: Vec<(PageNo, Vec<u8>)> = these
            .iter()
            .map(|at| {
                let mut image = state[*at].to_vec();
                image[7] ^= 1;
                state[*at] = Arc::new(image.clone());
                (page(*at), image)
            })
            .collect();
        let noted = Noted { time_ms: 1, page_count: PageCount(PAGES as u64), session: None };
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let commits = Commits { page_size, commits: vec![noted], pages, wal: Some(wal), is_all: true };
        // Nothing is remembered: what is at hand is what the database file has.
        let mut at_hand = |page: PageNo| Some(before[page.index() as usize].to_vec());
        let done = ship(&mut session.writer, commits, &mut shipped, &mut at_hand).await.unwrap();
        assert_eq!(done.patched, patched, "round {round}");
        let mut source = Source { state: &state, wal, changed: Some(&all), gap: None };
        if round == 0 {
            checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap();
        }
    }
    let whole: Vec<u8> = state.iter().flat_map(|page| page.iter().copied()).collect();
    assert!(machines[1].restored(At::Newest).await == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p09_no_patch_crosses_a_gap() {
    let remote = Arc::new(MemoryRemote::new("gaps"));
    let mut machine = Machine::new(&remote);
    machine.components.faults = Arc::new(NoFaults);
    let mut chance = Chance(13);
    let mut state: State = (0..PAGES).map(|_| Arc::new(chance.noise(PAGE))).collect();
    let wal = WalMark { salts: [1, 2], frame: 1, checksum: [3, 4] };
    let mut session = machine.open().await;
    let Session { writer, scratch, .. } = &mut session;
    // One who ships all along, one who comes after the gap, and knows of it from the manifest alone.
    let (mut shipped, mut fresh) = (Shipped::new(), Shipped::new());
    let mut source = Source { state: &state, wal, changed: None, gap: None };
    checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
    let ship_these = async |writer: &mut _, state: &mut State, these: &[usize], shipped: &mut Shipped| {
        let before = state.clone();
        let pages: Vec<(PageNo, Vec<u8>)> = these
            .iter()
            .map(|at| {
                let mut image = state[*at].to_vec();
                image[7] ^= 1;
                state[*at] = Arc::new(image.clone());
                (page(*at), image)
            })
            .collect();
        let noted = Noted { time_ms: 1, page_count: PageCount(PAGES as u64), session: None };
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let commits = Commits { page_size, commits: vec![noted], pages, wal: Some(wal), is_all: true };
        let mut at_hand = |page: PageNo| Some(before[page.index() as usize].to_vec());
        ship(writer, commits, shipped, &mut at_hand).await.unwrap().patched
    };
    assert_eq!(ship_these(writer, &mut state, &[0, 50, 100], &mut shipped).await, 3);
    // Somebody writes one of them, and nobody can say when.
    state[100] = Arc::new(chance.noise(PAGE));
    let changed = BTreeSet::from([page(0), page(50), page(100)]);
    let gap = Some(Gap { reason: GapReason::Foreign, since_ms: 0 });
    let mut source = Source { state: &state, wal, changed: Some(&changed), gap };
    checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
    // Whatever was there before the gap, whoever had it at hand: pages travel whole, and patches stand on those.
    assert_eq!(ship_these(writer, &mut state, &[0, 500], &mut shipped).await, 0);
    assert_eq!(ship_these(writer, &mut state, &[50, 550], &mut fresh).await, 0);
    assert_eq!(ship_these(writer, &mut state, &[0, 500], &mut shipped).await, 2);
    let whole: Vec<u8> = state.iter().flat_map(|page| page.iter().copied()).collect();
    drop(session);
    assert!(machine.restored(At::Newest).await == whole);
}

/// Who goes on with a volume knows what was written here, and nothing of what another machine shipped last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_machine_shipped_is_folded_by_whoever_makes_the_next_checkpoint() {
    let remote = Arc::new(MemoryRemote::new("folded"));
    let mut machines = [Machine::new(&remote), Machine::new(&remote)];
    let mut chance = Chance(11);
    let mut state: State = (0..PAGES).map(|_| Arc::new(chance.noise(PAGE))).collect();
    let wal = WalMark { salts: [1, 2], frame: 1, checksum: [3, 4] };
    let mut session = machines[0].open().await;
    let Session { writer, scratch, .. } = &mut session;
    let mut source = Source { state: &state, wal, changed: None, gap: None };
    checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
    for at in [3, 700] {
        state[at] = Arc::new(chance.noise(PAGE));
        let noted = Noted { time_ms: 1, page_count: PageCount(PAGES as u64), session: None };
        let pages = vec![(page(at), state[at].to_vec())];
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let commits = Commits { page_size, commits: vec![noted], pages, wal: Some(wal), is_all: true };
        ship(writer, commits, &mut Shipped::new(), &mut |_| None).await.unwrap();
    }
    drop(session);
    machines[1].target.takeover = Some(littoral_types::Epoch(1));
    let mut session = machines[1].open().await;
    state[9] = Arc::new(chance.noise(PAGE));
    let changed = BTreeSet::from([page(9)]);
    let mut source = Source { state: &state, wal, changed: Some(&changed), gap: None };
    let Session { writer, scratch, .. } = &mut session;
    checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap().unwrap();
    let whole: Vec<u8> = state.iter().flat_map(|page| page.iter().copied()).collect();
    assert!(machines[1].restored(At::Newest).await == whole, "what the other machine shipped is gone");
}
