//! Forks: whatever is written, checkpointed, shipped, merged and pruned in parents, children and grandchildren, each of them stays what
//! it was made to be, and none of them costs more than a few requests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod shipping;
mod standing;

mod rig;

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::fork::{Forked, fork};
use littoral_engine::exec::prune::{self, prune, prune_thinning};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::segment::Shipped;
use littoral_engine::exec::snapshot::{snapshot_if_due, write_snapshot};
use littoral_engine::exec::verify::verify;
use littoral_engine::live::name_snapshot;
use littoral_engine::log::Draft;
use littoral_engine::{EngineError, Lazy, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_plan::KeepPolicy;
use littoral_ports::{Clock, Commits, Faults, MemoryManifest, MemoryRemote, NoFaults, Noted, Remote, Silent};
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, ChunkId, ChunkSpan, Compression, Epoch, FooterFigures,
    FrameEntry, FrameTable, Generation, Geometry, Home, Lsn, ManifestOp, PageCount, PageNo, PageSize, RecordBody, Seq,
    SkeletonPage, SnapshotName, VolumeFigures, VolumeName, WalMark,
};
use rig::Chance;
use shipping::ship;
use standing::{Source, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const PAGE: usize = 4096;
const PAGES: usize = 160;

fn page(at: usize) -> PageNo {
    PageNo::from_index(at as u64)
}

fn whole(state: &State) -> Vec<u8> {
    state.iter().flat_map(|page| page.iter().copied()).collect()
}

/// Fails once, at one point.
#[derive(Debug, Default)]
struct Once {
    point: std::sync::Mutex<Option<String>>,
    died: AtomicU64,
}

impl Once {
    fn arm(&self, point: &str) {
        *self.point.lock().unwrap() = Some(point.to_owned());
    }
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

fn components(faults: Arc<dyn Faults>) -> Components {
    Components {
        clock: Arc::new(MachineClock),
        entropy: Arc::new(MachineEntropy),
        faults,
        quota: Arc::new(LocalQuota::unlimited()),
        progress: Arc::new(Silent),
        account: Arc::new(littoral_ports::Uncounted),
    }
}

/// One volume: the machine that writes it, and all that it is to be.
struct Volume {
    dir: TempDir,
    stores: Stores,
    target: Target,
    components: Components,
    faults: Arc<Once>,
    session: Option<Session>,
    name: VolumeName,
    state: State,
    /// By the LSN of the record that ends with it.
    points: BTreeMap<Lsn, State>,
    named: Vec<(SnapshotName, State)>,
    changed: BTreeSet<PageNo>,
    shipped: Shipped,
    frame: u64,
    floor: Lsn,
}

impl Volume {
    /// A machine that is to write the volume of this name. `released` is the term that is over.
    fn new(remote: &Arc<dyn Remote>, name: &str, state: State, released: Option<Epoch>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Once::default());
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: remote.clone() };
        let database = dir.path().join(name);
        std::fs::write(&database, b"").unwrap();
        let name: VolumeName = name.parse().unwrap();
        let target = Target { database, volume: Some(name.clone()), takeover: released, fencing: true };
        let components = components(faults.clone());
        Self {
            dir,
            stores,
            target,
            components,
            faults,
            session: None,
            name,
            points: BTreeMap::new(),
            named: Vec::new(),
            changed: (0..state.len()).map(page).collect(),
            state,
            shipped: Shipped::new(),
            frame: 10,
            floor: Lsn::ZERO,
        }
    }

    /// The volume that a fork made, on a machine of its own, which knows of no change.
    fn of(remote: &Arc<dyn Remote>, forked: &Forked, state: State) -> Self {
        let mut volume = Self::new(remote, forked.volume.name.as_str(), state, Some(forked.position.epoch));
        volume.changed.clear();
        volume.points.insert(forked.position.lsn, volume.state.clone());
        volume.floor = forked.position.lsn;
        volume
    }

    fn log(&self) -> Log {
        Log::new(self.stores.remote.clone(), self.name.clone())
    }

    async fn open(&mut self) {
        if self.session.is_none() {
            self.session = Some(open_for_writing(&self.stores, &self.components, &self.target).await.unwrap());
            self.target.takeover = None;
        }
    }

    fn mark(&self) -> WalMark {
        WalMark { salts: [1, 2], frame: self.frame, checksum: [self.frame as u32, 4] }
    }

    fn commit(&mut self, chance: &mut Chance, written: &mut BTreeSet<PageNo>) -> Noted {
        if chance.below(8) == 0 {
            let (before, count) = (self.state.len(), PAGES - 30 + chance.below(60) as usize);
            self.state.resize_with(count, || Arc::new(vec![0; PAGE]));
            *written = written.iter().copied().filter(|page| PageCount(count as u64).holds(*page)).collect();
            (before..count).filter(|at| at % 3 > 0).for_each(|at| self.write(chance, at, written));
        }
        let many = if chance.below(10) == 0 { PAGES as u64 / 2 + 20 } else { 1 + chance.below(5) };
        for _ in 0..many {
            let at = chance.below(self.state.len() as u64) as usize;
            self.write(chance, at, written);
        }
        self.frame += 10;
        Noted { time_ms: self.frame, page_count: PageCount(self.state.len() as u64), session: None }
    }

    fn write(&mut self, chance: &mut Chance, at: usize, written: &mut BTreeSet<PageNo>) {
        let mut image = self.state[at].to_vec();
        match chance.below(8) {
            0 => image.fill(0),
            1 => image.iter_mut().for_each(|byte| *byte = chance.next() as u8),
            _ => {
                let from = chance.below(PAGE as u64 - 200) as usize;
                image[from..from + 40].iter_mut().for_each(|byte| *byte = chance.next() as u8);
            }
        }
        self.state[at] = Arc::new(image);
        written.insert(page(at));
    }

    async fn ship(&mut self, chance: &mut Chance) {
        self.open().await;
        if self.session.as_ref().unwrap().writer.row().tail.wal.is_none() {
            return self.checkpoint(chance).await;
        }
        let (mut written, before) = (BTreeSet::new(), self.state.clone());
        let commits: Vec<Noted> = (0..1 + chance.below(3)).map(|_| self.commit(chance, &mut written)).collect();
        let pages = written.iter().map(|page| (*page, self.state[page.index() as usize].to_vec())).collect();
        let least = commits.iter().map(|commit| commit.page_count.0 as usize).min().unwrap();
        let page_size = PageSize::new(PAGE as u64).unwrap();
        let changes = Commits { page_size, commits, pages, wal: Some(self.mark()), is_all: true };
        let mut at_hand = |page: PageNo| before.get(page.index() as usize).map(|image| image.to_vec());
        let session = self.session.as_mut().unwrap();
        ship(&mut session.writer, changes, &mut self.shipped, &mut at_hand).await.unwrap();
        self.points.insert(session.writer.row().tail.lsn, self.state.clone());
        self.changed.extend(written);
        self.changed.extend((least.min(before.len())..self.state.len()).map(page));
    }

    async fn checkpoint(&mut self, chance: &mut Chance) {
        self.open().await;
        let (mut written, before) = (BTreeSet::new(), self.state.len());
        self.commit(chance, &mut written);
        self.changed.extend(written);
        self.changed.extend((before.min(self.state.len())..self.state.len()).map(page));
        let changed = (chance.below(3) > 0).then_some(&self.changed);
        let mut source = Source { state: &self.state, wal: self.mark(), changed, gap: None };
        let Session { writer, scratch, .. } = self.session.as_mut().unwrap();
        checkpoint(writer, scratch, &mut source, &Options::default()).await.unwrap();
        snapshot_if_due(writer, Some(&mut source)).await.unwrap();
        if chance.below(2) == 0 {
            coalesce(writer, scratch, None, Compression::Zstd).await.unwrap();
        }
        self.points.insert(writer.row().tail.lsn, self.state.clone());
        self.changed.clear();
    }

    async fn prune(&mut self, last: u64) -> Option<prune::Pruned> {
        self.open().await;
        let options = prune::Options { keep: KeepPolicy { last, within_ms: 0 }, grace_ms: 0, dry_run: false };
        let done = prune(&mut self.session.as_mut().unwrap().writer, &options).await.unwrap()?;
        let floor = self.log().open_at(done.floor).await.unwrap().unwrap().tail.lsn;
        self.floor = self.floor.max(floor);
        Some(done)
    }

    /// Another process, perhaps without its manifest.
    fn close(&mut self, chance: &mut Chance) {
        self.session = None;
        self.shipped = Shipped::new();
        if chance.below(2) == 0 {
            self.stores.manifest = Arc::new(MemoryManifest::new());
        }
    }

    async fn name(&mut self) {
        let name: SnapshotName = format!("name-{}", self.named.len()).parse().unwrap();
        name_snapshot(&self.log(), &self.components, &name).await.unwrap();
        self.named.push((name, self.state.clone()));
    }

    async fn restored(&self, at: &At) -> Vec<u8> {
        let dest = self.dir.path().join("restored");
        restore(&self.log(), &components(Arc::new(NoFaults)), at, &dest, true).await.unwrap();
        std::fs::read(dest).unwrap()
    }

    /// All who read find what was committed.
    async fn check(&self, chance: &mut Chance, what: &str) {
        let mut states = vec![(At::Newest, &self.state)];
        let kept = self.points.range(self.floor..).count() as u64;
        let (lsn, state) = self.points.range(self.floor..).nth(chance.below(kept) as usize).unwrap();
        states.push((At::Lsn(*lsn), state));
        states.extend(self.named.last().map(|(name, state)| (At::Snapshot(name.clone()), state)));
        for (at, state) in states {
            assert!(self.restored(&at).await == whole(state), "{what}: {} at {at:?} is another", self.name);
        }
        let lazy = Lazy::open(&self.log(), &self.components, &At::Newest).await.unwrap();
        assert_eq!(lazy.page_count().0, self.state.len() as u64, "{what}: {}", self.name);
        for _ in 0..8 {
            let page = page(chance.below(self.state.len() as u64) as usize);
            let image = match lazy.resident(page) {
                Some(image) => image,
                None => lazy.fetch(page).await.unwrap().page(page).unwrap().clone(),
            };
            assert!(image[..] == self.state[page.index() as usize][..], "{what}: {} page {page}", self.name);
        }
        lazy.close().await;
        let found = verify(&self.log(), &self.components).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new(), "{what}: {}", self.name);
    }
}

fn noise(chance: &mut Chance) -> State {
    (0..PAGES).map(|_| Arc::new((0..PAGE).map(|_| chance.next() as u8).collect())).collect()
}

/// What happened, so that a test knows that it tried something.
#[derive(Debug, Default)]
struct Tried {
    forks: usize,
    deepest: usize,
    of_the_past: usize,
    pruned: u64,
    left: usize,
}

async fn history(seed: u64, steps: usize, tried: &mut Tried) {
    let memory = Arc::new(MemoryRemote::new("forks"));
    let remote: Arc<dyn Remote> = memory.clone();
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let state = noise(&mut chance);
    let mut volumes = vec![(Volume::new(&remote, "v0", state, None), 0)];
    volumes[0].0.checkpoint(&mut chance).await;
    for step in 0..steps {
        let at = chance.below(volumes.len() as u64) as usize;
        let what = format!("seed {seed}, step {step}");
        let depth = volumes[at].1;
        let many = volumes.len();
        let volume = &mut volumes[at].0;
        match chance.below(20) {
            0..=6 => volume.ship(&mut chance).await,
            7..=9 => volume.checkpoint(&mut chance).await,
            10..=12 => {
                let last = 1 + chance.below(3);
                if let Some(done) = volume.prune(last).await {
                    tried.pruned += done.blobs + done.records;
                }
                for (volume, _) in &volumes {
                    volume.check(&mut chance, &what).await;
                }
            }
            13 => volume.close(&mut chance),
            14 => volume.name().await,
            15..=18 if many < 7 => {
                let kept = volume.points.range(volume.floor..).count() as u64;
                let (lsn, state) = volume.points.range(volume.floor..).nth(chance.below(kept) as usize).unwrap();
                let (at, state) = match chance.below(3) {
                    0 => (At::Lsn(*lsn), state.clone()),
                    1 if !volume.named.is_empty() => {
                        let (name, state) = &volume.named[chance.below(volume.named.len() as u64) as usize];
                        (At::Snapshot(name.clone()), state.clone())
                    }
                    _ => (At::Newest, volume.state.clone()),
                };
                tried.of_the_past += usize::from(at != At::Newest);
                let name: VolumeName = format!("v{many}").parse().unwrap();
                let forked = fork(&volume.log(), &volume.components, &at, &name).await.unwrap();
                assert_eq!(forked.parent.name, volume.name);
                let child = Volume::of(&remote, &forked, state);
                child.check(&mut chance, &what).await;
                volumes.push((child, depth + 1));
                tried.forks += 1;
                tried.deepest = tried.deepest.max(depth + 1);
            }
            _ => volume.check(&mut chance, &what).await,
        }
    }
    // Everybody writes everything anew, and prunes hard: then nobody needs anybody.
    for round in 0..2 {
        for at in (0..volumes.len()).rev() {
            let volume = &mut volumes[at].0;
            for name in std::mem::take(&mut volume.named) {
                assert!(prune::drop_snapshot(&volume.log(), &name.0).await.unwrap());
            }
            volume.state = noise(&mut chance);
            volume.changed = (0..PAGES).map(page).collect();
            volume.checkpoint(&mut chance).await;
            volume.prune(1).await;
            for (volume, _) in &volumes {
                volume.check(&mut chance, &format!("seed {seed}, the end, {round}")).await;
            }
        }
    }
    let pins = memory.objects().into_iter().filter(|(path, _)| path.as_str().contains("/pins/")).count();
    assert_eq!(pins, 0, "seed {seed}: somebody still holds what nobody needs");
    tried.left += volumes.len();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_parents_children_and_grandchildren_are_pruned_apart_and_stay_what_they_are() {
    let seeds: Vec<u64> = match std::env::var("LITTORAL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..3).collect(),
    };
    let mut tried = Tried::default();
    for seed in seeds {
        history(seed, 55, &mut tried).await;
    }
    assert!(tried.deepest > 2 && tried.of_the_past > 4 && tried.pruned > 10, "{tried:?}");
}

/// The machine's clock, so many milliseconds behind.
#[derive(Debug)]
struct Behind(u64);

#[async_trait::async_trait]
impl Clock for Behind {
    fn wall_ms(&self) -> u64 {
        MachineClock.wall_ms() - self.0
    }
    fn boot_ms(&self) -> u64 {
        MachineClock.boot_ms()
    }
    async fn sleep_ms(&self, ms: u64) {
        MachineClock.sleep_ms(ms).await;
    }
}

/// The machine's clock, so many milliseconds ahead.
#[derive(Debug)]
struct Ahead(u64);

#[async_trait::async_trait]
impl Clock for Ahead {
    fn wall_ms(&self) -> u64 {
        MachineClock.wall_ms() + self.0
    }
    fn boot_ms(&self) -> u64 {
        MachineClock.boot_ms() + self.0
    }
    async fn sleep_ms(&self, ms: u64) {
        MachineClock.sleep_ms(ms).await;
    }
}

fn pins(remote: &MemoryRemote, name: &str) -> usize {
    let folder = format!("{name}/pins/");
    remote.objects().iter().filter(|(path, _)| path.as_str().starts_with(&folder)).count()
}

/// A parent with a checkpoint, segments on top of it, and a state of the past.
async fn parent(seed: u64) -> (Arc<MemoryRemote>, Arc<dyn Remote>, Volume, Chance) {
    let memory = Arc::new(MemoryRemote::new("forks"));
    let remote: Arc<dyn Remote> = memory.clone();
    let mut chance = Chance(seed);
    let state = noise(&mut chance);
    let mut volume = Volume::new(&remote, "v0", state, None);
    volume.checkpoint(&mut chance).await;
    for _ in 0..3 {
        volume.ship(&mut chance).await;
    }
    (memory, remote, volume, chance)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_that_dies_anywhere_leaves_a_whole_volume_or_none_and_can_be_made_again() {
    for point in ["pin.put", "fork.pinned", "fork.landed"] {
        let (memory, remote, mut volume, mut chance) = parent(7).await;
        volume.faults.arm(point);
        let name: VolumeName = "child".parse().unwrap();
        let died = fork(&volume.log(), &volume.components, &At::Newest, &name).await.unwrap_err();
        assert!(died.is_crash(), "{point}: {died}");
        let again = fork(&volume.log(), &volume.components, &At::Newest, &name).await;
        let child_log = Log::new(remote.clone(), name.clone());
        let lost = match point {
            // It was made: who makes it again is told so.
            "fork.landed" => {
                assert!(matches!(again, Err(EngineError::Refused(_))), "{again:?}");
                0
            }
            _ => {
                again.unwrap();
                1
            }
        };
        assert_eq!(pins(&memory, "v0"), 1 + lost, "{point}");
        let mut child = Volume::new(&remote, "child", volume.state.clone(), Some(Epoch(1)));
        child.changed.clear();
        child.points.insert(child_log.open().await.unwrap().unwrap().tail.lsn, child.state.clone());
        // The parent moves on and forgets: the pin that holds nothing for anybody goes when it is old, the other one stays.
        volume.state = noise(&mut chance);
        volume.changed = (0..volume.state.len()).map(page).collect();
        volume.checkpoint(&mut chance).await;
        volume.prune(1).await.unwrap();
        assert_eq!(pins(&memory, "v0"), 1 + lost, "{point}: too young");
        volume.session = None;
        volume.components.clock = Arc::new(Ahead(2 * littoral_types::limits::PRUNE_GRACE_MS));
        volume.checkpoint(&mut chance).await;
        volume.prune(1).await.unwrap();
        assert_eq!(pins(&memory, "v0"), 1, "{point}");
        volume.components.clock = Arc::new(MachineClock);
        child.check(&mut chance, point).await;
        child.checkpoint(&mut chance).await;
        child.check(&mut chance, point).await;
        volume.check(&mut chance, point).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_a_child_that_dies_while_it_lets_go_of_its_parent_lets_go_the_next_time() {
    for point in ["prune.planned", "prune.published", "prune.left", "prune.deleted"] {
        let (memory, remote, mut volume, mut chance) = parent(8).await;
        let forked = fork(&volume.log(), &volume.components, &At::Newest, &"child".parse().unwrap()).await.unwrap();
        let mut child = Volume::of(&remote, &forked, volume.state.clone());
        child.checkpoint(&mut chance).await;
        child.prune(1).await;
        assert_eq!(pins(&memory, "v0"), 1, "its chunk is still its parent's");
        child.state = noise(&mut chance);
        child.changed = (0..PAGES).map(page).collect();
        child.checkpoint(&mut chance).await;
        child.faults.arm(point);
        let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
        let died = prune(&mut child.session.as_mut().unwrap().writer, &options).await.unwrap_err();
        assert!(died.is_crash(), "{point}: {died}");
        volume.prune(1).await;
        child.session = None;
        child.checkpoint(&mut chance).await;
        child.prune(1).await;
        assert_eq!(pins(&memory, "v0"), 0, "{point}");
        volume.checkpoint(&mut chance).await;
        volume.prune(1).await;
        child.check(&mut chance, point).await;
        volume.check(&mut chance, point).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_forked_is_refused_by_name_and_nothing_is_left() {
    let (memory, remote, mut volume, mut chance) = parent(9).await;
    let components = volume.components.clone();
    let first = *volume.points.keys().next().unwrap();
    volume.checkpoint(&mut chance).await;
    volume.prune(1).await.unwrap();
    let (log, newest) = (volume.log(), *volume.points.keys().next_back().unwrap());
    let free: VolumeName = "free".parse().unwrap();
    fork(&log, &components, &At::Newest, &"taken".parse().unwrap()).await.unwrap();
    let before = memory.objects();
    let refused = |at: At, name: &VolumeName| {
        let (log, name, components) = (log.clone(), name.clone(), components.clone());
        async move { fork(&log, &components, &at, &name).await.unwrap_err() }
    };
    for name in ["taken", "v0"] {
        let error = refused(At::Newest, &name.parse().unwrap()).await;
        let said = error.to_string();
        assert!(matches!(error, EngineError::Refused(_)) && said.contains(name) && said.contains("exists"), "{said}");
    }
    let error = refused(At::Lsn(first), &free).await.to_string();
    assert!(
        error.contains(&format!("LSN {first}"))
            && error.contains("was pruned")
            && error.contains("the oldest restore point is"),
        "{error}"
    );
    let error = refused(At::Lsn(newest.next()), &free).await.to_string();
    assert!(error.contains(&format!("LSN {}", newest.next())) && error.contains("newest"), "{error}");
    let name: SnapshotName = "nobody".parse().unwrap();
    assert!(refused(At::Snapshot(name), &free).await.to_string().contains("no snapshot is called nobody"));
    let nowhere = Log::new(remote.clone(), "nowhere".parse().unwrap());
    let error = fork(&nowhere, &components, &At::Newest, &free).await.unwrap_err();
    assert!(matches!(error, EngineError::NoVolume(_)), "{error}");
    let mut empty = Volume::new(&remote, "empty", State::new(), None);
    empty.open().await;
    let error = fork(&empty.log(), &components, &At::Newest, &free).await.unwrap_err();
    assert!(error.to_string().contains("nothing was checkpointed yet"), "{error}");
    drop(empty);
    let after: Vec<_> = memory.objects().into_iter().filter(|(path, _)| !path.as_str().starts_with("empty/")).collect();
    assert!(after == before, "something was left");
    // What is before a fork is not in the child.
    let child = Log::new(remote.clone(), "taken".parse().unwrap());
    let error = fork(&child, &components, &At::Lsn(first), &free).await.unwrap_err();
    assert!(error.to_string().contains("before history begins"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_fork_to_one_name_one_makes_it_and_the_others_leave_nothing() {
    let (memory, remote, mut volume, mut chance) = parent(10).await;
    let name: VolumeName = "child".parse().unwrap();
    let points: Vec<(Lsn, State)> = volume.points.iter().map(|(lsn, state)| (*lsn, state.clone())).collect();
    let forks = points.iter().map(|(lsn, _)| {
        let (log, components, name, at) = (volume.log(), volume.components.clone(), name.clone(), At::Lsn(*lsn));
        tokio::spawn(async move { fork(&log, &components, &at, &name).await })
    });
    let mut made = Vec::new();
    for forking in forks.collect::<Vec<_>>() {
        match forking.await.unwrap() {
            Ok(forked) => made.push(forked),
            Err(error) => assert!(matches!(error, EngineError::Refused(_)), "{error}"),
        }
    }
    assert_eq!((made.len(), pins(&memory, "v0")), (1, 1));
    let state = volume.points[&made[0].position.lsn].clone();
    let mut child = Volume::of(&remote, &made[0], state);
    volume.checkpoint(&mut chance).await;
    volume.prune(1).await;
    child.checkpoint(&mut chance).await;
    child.check(&mut chance, "who won").await;
}

/// A state that only a coarser history keeps is forked like any, and the fork outlives what kept it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_coarser_history_keeps_is_forked_and_outlives_it() {
    let remote: Arc<dyn Remote> = Arc::new(MemoryRemote::new("forks"));
    let mut chance = Chance(14);
    let state = noise(&mut chance);
    let mut volume = Volume::new(&remote, "v0", state, None);
    let hour = Duration::from_secs(3600).as_millis() as u64;
    for past in [5, 4, 3, 2, 1] {
        // In the past, an hour apart.
        volume.session = None;
        volume.components.clock = Arc::new(Behind(past * hour));
        volume.checkpoint(&mut chance).await;
        volume.ship(&mut chance).await;
    }
    volume.session = None;
    volume.components.clock = Arc::new(MachineClock);
    volume.checkpoint(&mut chance).await;
    let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
    let writer = &mut volume.session.as_mut().unwrap().writer;
    let done = prune_thinning(writer, &options, &"0s,1h:30d".parse().unwrap()).await.unwrap().unwrap();
    assert!(done.kept >= 2, "{done:?}");
    let mut children = Vec::new();
    for (lsn, state) in volume.points.clone() {
        let name: VolumeName = format!("child{lsn}").parse().unwrap();
        match fork(&volume.log(), &volume.components, &At::Lsn(lsn), &name).await {
            Ok(forked) => children.push(Volume::of(&remote, &forked, state)),
            Err(error) => assert!(matches!(error, EngineError::NoSuchPosition { .. }), "{error}"),
        }
    }
    assert!(children.len() as u64 > done.kept, "{} of {}", children.len(), done.kept);
    for _ in 0..2 {
        volume.checkpoint(&mut chance).await;
        volume.prune(1).await.unwrap();
        for child in &children {
            child.check(&mut chance, "when nobody keeps it any more").await;
        }
    }
    for child in &mut children {
        child.ship(&mut chance).await;
        child.check(&mut chance, "written").await;
    }
}

/// Forks while the parent prunes: what was made can be read, whoever came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_a_fork_that_a_prune_overtakes_is_made_of_what_is_left_or_not_at_all() {
    let (_, remote, mut volume, mut chance) = parent(12).await;
    let mut made = 0;
    for round in 0..30 {
        volume.checkpoint(&mut chance).await;
        volume.ship(&mut chance).await;
        let kept = volume.points.range(volume.floor..).count() as u64;
        let (lsn, state) = volume.points.range(volume.floor..).nth(chance.below(kept) as usize).unwrap();
        let (at, state) = (At::Lsn(*lsn), state.clone());
        let (log, components, name) = (volume.log(), components(Arc::new(NoFaults)), format!("child{round}"));
        let forking = tokio::spawn(async move { fork(&log, &components, &at, &name.parse().unwrap()).await });
        if chance.below(2) == 0 {
            tokio::task::yield_now().await;
        }
        volume.prune(1).await;
        match forking.await.unwrap() {
            Ok(forked) => {
                let child = Volume::of(&remote, &forked, state);
                volume.checkpoint(&mut chance).await;
                volume.prune(1).await;
                child.check(&mut chance, &format!("round {round}")).await;
                made += 1;
            }
            Err(error) => assert!(
                matches!(&error, EngineError::NoSuchPosition { .. } | EngineError::Refused(_) | EngineError::Remote(_)),
                "{error}"
            ),
        }
    }
    assert!(made > 3, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_either_folder_is_an_error_or_no_matter_and_never_another_page() {
    let (memory, remote, mut volume, mut chance) = parent(13).await;
    let forked = fork(&volume.log(), &volume.components, &At::Newest, &"child".parse().unwrap()).await.unwrap();
    let mut child = Volume::of(&remote, &forked, volume.state.clone());
    volume.checkpoint(&mut chance).await;
    volume.prune(1).await;
    for round in 0..2 {
        let (mut noticed, mut objects) = (0, 0);
        for (path, bytes) in memory.objects() {
            objects += 1;
            for at in [0, 40, bytes.len() / 2, bytes.len() - 1] {
                let mut harmed = bytes.to_vec();
                harmed[at.min(bytes.len() - 1)] ^= 1 << chance.below(8);
                memory.tamper(&path, harmed.into());
                let dest = child.dir.path().join("harmed");
                match restore(&child.log(), &child.components, &At::Newest, &dest, true).await {
                    Ok(_) => {
                        assert!(std::fs::read(&dest).unwrap() == whole(&child.state), "{round}: {path} at {at}");
                    }
                    Err(EngineError::Damaged { .. } | EngineError::Chain { .. } | EngineError::Inconsistent { .. }) => {
                        noticed += 1;
                    }
                    Err(EngineError::Remote(_) | EngineError::NotAVolume { .. }) => noticed += 1,
                    Err(error) => panic!("{path} at {at}: {error}"),
                }
                memory.tamper(&path, bytes.clone());
            }
        }
        assert!(noticed > 8, "{noticed} of {objects}");
        child.ship(&mut chance).await;
        child.ship(&mut chance).await;
    }
}

fn base(span: ChunkSpan) -> Base {
    let pages: Vec<PageNo> = span.pages().collect();
    let mut offset = 64;
    let frames: Vec<FrameEntry> = pages
        .chunks(16)
        .map(|pages| {
            let len = 20_000 + pages[0].get() % 4_000;
            let entry = FrameEntry { span: ByteSpan { offset, len }, pages: pages.to_vec() };
            offset += len;
            entry
        })
        .collect();
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&span.first.get().to_le_bytes());
    let name = BlobName { kind: BlobKind::Chunk, hash: BlobHash(hash), birth: Seq(1) };
    Base {
        generation: Generation(1),
        blob: BlobRef { home: Home::Own, name, len: offset + 400_000 },
        span,
        last_live: span.last().unwrap(),
        table: FrameTable::new(frames, [], 7),
    }
}

/// Requests and bytes of forking a database of so many chunks, none of which is there.
async fn cost_of(chunks: u64) -> rig::Cost {
    let memory: Arc<dyn Remote> = Arc::new(MemoryRemote::new("large"));
    let mut parent = Volume::new(&memory, "v0", State::new(), None);
    parent.open().await;
    let page_size = PageSize::MAX;
    let geometry = Geometry::new(page_size);
    let page_count = PageCount(chunks * geometry.pages_per_chunk());
    let mut ops = vec![ManifestOp::Reshape { page_size }, ManifestOp::Resize { page_count }];
    for chunk in (0..chunks).map(ChunkId) {
        ops.push(ManifestOp::PutBase { chunk, base: base(geometry.span(chunk, page_count).unwrap()) });
    }
    let body = littoral_types::Checkpoint { ops, ..Default::default() };
    let draft = Draft {
        commits: 1,
        added: FooterFigures { pages: page_count.0, bytes: 1 << 39 },
        ..Draft::of(
            RecordBody::Checkpoint(body),
            VolumeFigures { generation: Generation(1), page_size: Some(page_size), page_count },
        )
    };
    let writer = &mut parent.session.as_mut().unwrap().writer;
    writer.publish(draft).await.unwrap();
    write_snapshot(writer, None).await.unwrap();
    // Page 1 comes with a checkpoint: it says that there is no table of logs.
    let pages = vec![SkeletonPage { page: PageNo::FIRST, image: vec![0; page_size.len()] }];
    let body = littoral_types::Checkpoint { pages, ..Default::default() };
    let figures = writer.row().tail.figures;
    writer.publish(Draft::of(RecordBody::Checkpoint(body), figures)).await.unwrap();
    let remote = rig::counted(memory.clone());
    let log = Log::new(remote.clone(), "v0".parse().unwrap());
    let forked = fork(&log, &parent.components, &At::Newest, &"child".parse().unwrap()).await.unwrap();
    assert_eq!(forked.figures.page_count, page_count);
    let cost = rig::cost(&remote);
    // Whoever opens the child finds a page's row where its parent has it.
    let lazy = Lazy::open(&Log::new(remote, forked.volume.name), &parent.components, &At::Newest).await.unwrap();
    let missing = lazy.fetch(PageNo::from_index(page_count.0 - 1)).await.unwrap_err().to_string();
    assert!(missing.contains("v0/chunk/"), "{missing}");
    cost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_costs_the_same_few_requests_whatever_the_size_and_copies_nothing() {
    let (small, large) = (cost_of(20).await, cost_of(3000).await);
    println!("20 chunks: {small:?}; 3000 chunks: {large:?}");
    assert!(small.requests <= 10 && large.requests <= small.requests, "{small:?} {large:?}");
    assert!(large.depth <= 7, "{large:?}");
    // Of 190 GB it reads and writes where the rows are.
    assert!(large.down < 256 << 10, "{large:?}");
}
