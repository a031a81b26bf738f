//! Commits that travel while a checkpoint is made, or deltas are merged: whatever comes between, every restore point is one commit, as it
//! was, and none is undone by the work that it overtook.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::beside::Beside;
use littoral_engine::exec::checkpoint::{Options, checkpoint_beside};
use littoral_engine::exec::coalesce::coalesce_beside;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::segment::Shipped;
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_engine::exec::verify::verify;
use littoral_engine::{EngineError, Lazy, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_ports::{
    CaughtUp, Changed, Commits, Crash, Faults, LiveSource, MemoryManifest, MemoryRemote, Noted, PageSource, Silent,
    SourceError,
};
use littoral_remote::{Fault, Faulty, Op};
use littoral_types::{Compression, Epoch, Lsn, PageCount, PageNo, PageSize, RecordKind, Seq, VolumeRow, WalMark};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PAGE: usize = 65536;
/// How long an upload takes: long enough for somebody to want a turn.
const UPLOAD_MS: u64 = 130;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// Dies at the nth point that is reached, if it is told to.
#[derive(Debug, Default)]
struct Mortal {
    left: AtomicU64,
    died_at: Mutex<Vec<&'static str>>,
}

impl Faults for Mortal {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Ok(());
        }
        self.left.store(left - 1, Ordering::SeqCst);
        if left == 1 {
            self.died_at.lock().unwrap().push(point);
            return Err(Crash(point));
        }
        Ok(())
    }
}

/// What one transaction did.
struct Committed {
    pages: BTreeSet<PageNo>,
    size: usize,
}

/// A database of pages that each hold one number, to which somebody commits whenever it is read or looked at.
struct Living {
    pages: Vec<u8>,
    chance: Chance,
    /// Every transaction, and the state after it; the first is the state it began with.
    commits: Vec<Committed>,
    states: Vec<Vec<u8>>,
    /// Up to which the volume has them, and up to which what was read is of one state.
    published: usize,
    gathered: usize,
    caught_up: usize,
    /// Whether something was read, or shipped, since then.
    moved: bool,
    /// Nobody commits.
    rests: bool,
    /// Somebody commits whenever he can.
    is_eager: bool,
    /// Nothing can be gathered now.
    is_locked: bool,
    /// Which pages somebody writes to.
    writes: Option<Range<usize>>,
    underway: bool,
    /// How often something of it travelled.
    travelled: u64,
    reads: usize,
}

impl Living {
    fn new(seed: u64) -> Self {
        Self::of((0..1_300).map(|at| (at % 3) as u8).collect(), seed)
    }

    fn of(pages: Vec<u8>, seed: u64) -> Self {
        let first = Committed { pages: BTreeSet::new(), size: pages.len() };
        Self {
            states: vec![pages.clone()],
            commits: vec![first],
            pages,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            published: 0,
            gathered: 0,
            caught_up: 0,
            moved: false,
            rests: false,
            is_eager: false,
            is_locked: false,
            writes: None,
            underway: false,
            travelled: 0,
            reads: 0,
        }
    }

    fn newest(&self) -> usize {
        self.commits.len() - 1
    }

    fn commit(&mut self) {
        if self.rests {
            return;
        }
        let mut written = BTreeSet::new();
        if self.writes.is_none() && self.chance.below(100) == 0 {
            let (before, after) = (self.pages.len(), 1_000 + self.chance.below(500));
            self.pages.resize(after, 0);
            // Not every page that a database grows by is written.
            for at in before..after {
                if self.chance.below(2) == 0 {
                    self.pages[at] = 1;
                    written.insert(PageNo::from_index(at as u64));
                }
            }
        }
        for _ in 0..1 + self.chance.below(5) {
            // Few values, so that pages go back to what they held before.
            let among = self.writes.clone().unwrap_or(0..self.pages.len());
            let (at, value) = (among.start + self.chance.below(among.len()), self.chance.below(4) as u8);
            self.pages[at] = value;
            written.insert(PageNo::from_index(at as u64));
        }
        self.commits.push(Committed { pages: written, size: self.pages.len() });
        self.states.push(self.pages.clone());
    }

    fn image(at: usize, value: u8) -> Vec<u8> {
        let mut image = vec![value; PAGE];
        if value != 0 {
            image[..8].copy_from_slice(&(at as u64).to_le_bytes());
        }
        image
    }

    /// Pages that may be others than they were after that many transactions.
    fn changed_since(&self, before: usize) -> BTreeSet<PageNo> {
        let size = self.commits[before].size;
        let later = &self.commits[before + 1..];
        let least = later.iter().map(|commit| commit.size).min().unwrap_or(size).min(size);
        let mut pages: BTreeSet<PageNo> = later.iter().flat_map(|commit| commit.pages.iter().copied()).collect();
        pages.extend((least..self.pages.len()).map(|at| PageNo::from_index(at as u64)));
        pages.retain(|page| (page.index() as usize) < self.pages.len());
        pages
    }

    fn bytes(state: &[u8]) -> Vec<u8> {
        state.iter().enumerate().flat_map(|(at, value)| Self::image(at, *value)).collect()
    }

    /// A process died: the next one finds out where the volume stands.
    fn begins_anew(&mut self, lsn: Lsn) {
        (self.published, self.underway) = (lsn.0 as usize, false);
    }
}

impl PageSource for Living {
    // Whoever moves tells what he was asked for, and is not read for it.
    fn sessions(&mut self) -> Option<littoral_types::Sessions> {
        Some(littoral_types::Sessions::new())
    }
    fn page_size(&self) -> PageSize {
        PageSize::new(PAGE as u64).unwrap()
    }
    fn page_count(&self) -> PageCount {
        PageCount(self.commits[self.caught_up].size as u64)
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Unknown
    }
    fn commits(&self) -> u64 {
        (self.caught_up - self.published) as u64
    }
    fn wal(&self) -> Option<WalMark> {
        Some(WalMark { salts: [1, 2], frame: self.caught_up as u64, checksum: [3, 4] })
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.reads += 1;
        self.moved = true;
        if self.writes.is_none() && self.reads.is_multiple_of(211) {
            self.commit();
        }
        // A page that is gone by now reads as anything: it is named as changed, or lies beyond the end.
        match self.pages.get(page.index() as usize) {
            Some(value) => into.copy_from_slice(&Self::image(page.index() as usize, *value)),
            None => into.fill(0xee),
        }
        Ok(())
    }
    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        if !self.moved {
            return Ok(CaughtUp::Still);
        }
        self.moved = false;
        let newest = self.newest();
        let before = std::mem::replace(&mut self.caught_up, newest);
        match before == self.caught_up {
            true => Ok(CaughtUp::Still),
            false => Ok(CaughtUp::Moved(self.changed_since(before).into_iter().collect())),
        }
    }
    fn live(&mut self) -> Option<&mut dyn LiveSource> {
        Some(self)
    }
}

impl LiveSource for Living {
    fn begin(&mut self, _: &VolumeRow) -> Result<(), SourceError> {
        (self.caught_up, self.moved, self.underway) = (self.newest(), false, true);
        Ok(())
    }
    fn published(&mut self, row: &VolumeRow) {
        self.published = row.tail.lsn.0 as usize;
    }
    fn given_up(&mut self) {}
    fn superseded(&mut self, epoch: Epoch, owner: &str) {
        panic!("nobody else is here: {owner}, {epoch}");
    }
    fn commits_since(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        if self.is_locked {
            return Err(SourceError::Busy("somebody keeps everybody out".to_owned()));
        }
        if self.is_eager || self.chance.below(3) > 0 {
            self.commit();
        }
        assert_eq!(row.tail.lsn.0 as usize, self.published, "what was published is known");
        self.gathered = self.newest();
        let commits = self.commits[self.published + 1..].iter();
        let commits =
            commits.map(|commit| Noted { time_ms: 1, page_count: PageCount(commit.size as u64), session: None });
        let written: BTreeSet<PageNo> =
            self.commits[self.published + 1..].iter().flat_map(|commit| commit.pages.iter().copied()).collect();
        let pages = written.into_iter().filter_map(|page| {
            let at = page.index() as usize;
            self.pages.get(at).map(|value| (page, Self::image(at, *value)))
        });
        let commits = Commits {
            page_size: self.page_size(),
            commits: commits.collect(),
            pages: pages.collect(),
            wal: Some(WalMark { salts: [1, 2], frame: self.gathered as u64, checksum: [3, 4] }),
            is_all: true,
        };
        let cuts = self.underway && commits.cuts(row.tail.figures.page_count);
        // What was shipped is what the source has moved by.
        self.moved |= !cuts && self.gathered > self.published;
        Ok((!cuts).then_some(commits))
    }
    fn before(&mut self, _: PageNo) -> Option<Vec<u8>> {
        None
    }
    fn shipped(&mut self, row: &VolumeRow) {
        self.travelled += u64::from(self.gathered > self.published);
        self.published = self.gathered;
        assert_eq!(row.tail.lsn.0 as usize, self.published, "each transaction has its number");
    }
    fn commits_left(&self) -> u64 {
        // Somebody may have committed of whom nobody heard yet.
        1
    }
}

struct World {
    dir: tempfile::TempDir,
    stores: Stores,
    target: Target,
    components: Components,
    log: Log,
    faults: Arc<Mortal>,
}

impl World {
    fn new() -> Self {
        let memory = Arc::new(MemoryRemote::new("beside"));
        let faulty = Faulty::new(memory.clone(), Arc::new(MachineClock), Arc::new(MachineEntropy));
        faulty.at(Some(Op::Upload), "", 0, u64::MAX, Fault::Latency(UPLOAD_MS));
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Mortal::default());
        let components = Components {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: faults.clone(),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let store = Store::open_or_create(&dir.path().join("store"), &MachineEntropy, StoreOptions::default()).unwrap();
        let database = dir.path().join("app.db");
        std::fs::write(&database, b"").unwrap();
        Self {
            stores: Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: Arc::new(faulty) },
            target: Target { database, volume: None, takeover: None, fencing: true },
            components,
            log: Log::new(memory, "app.db".parse().unwrap()),
            faults,
            dir,
        }
    }

    async fn open(&self) -> Session {
        open_for_writing(&self.stores, &self.components, &self.target).await.unwrap()
    }

    /// A checkpoint, its manifest snapshot, and what is to be merged after it.
    async fn fold(&self, session: &mut Session, source: &mut Living) -> Result<u64, EngineError> {
        let Session { writer, scratch, .. } = session;
        let mut shipped = Shipped::new();
        source.begin(writer.row())?;
        let before = source.travelled;
        let mut beside = Beside::of(&mut shipped, Some(0));
        checkpoint_beside(writer, scratch, source, &Options::default(), &mut beside).await?;
        source.published(writer.row());
        snapshot_if_due(writer, Some(source)).await?;
        let mut meanwhile = beside.with(source);
        coalesce_beside(writer, scratch, None, Compression::Zstd, &mut meanwhile).await?;
        Ok(source.travelled - before)
    }

    async fn restored(&self, at: At) -> Vec<u8> {
        let dest = self.dir.path().join("restored.db");
        restore(&self.log, &self.components, &at, &dest, true).await.unwrap();
        std::fs::read(dest).unwrap()
    }

    /// Every restore point is a state that there was: some of them, by chance, and the newest.
    async fn check(&self, source: &mut Living, seed: u64, all: bool) {
        let glance = self.log.glance().await.unwrap().unwrap();
        let history = self.log.history(&glance, glance.tail.seq.next(), usize::MAX).await.unwrap();
        let mut points = BTreeMap::new();
        for record in history.iter().filter(|record| record.lsns.last.0 > 0) {
            points.insert(record.lsns.last, record.kind);
        }
        for (lsn, kind) in points {
            if source.chance.below(if all { 5 } else { 12 }) > 0 && lsn != glance.tail.lsn {
                continue;
            }
            let restored = self.restored(At::Lsn(lsn)).await;
            let state = Living::bytes(&source.states[lsn.0 as usize]);
            assert!(restored == state, "seed {seed}: {lsn}, brought by a {kind:?}, is no state that there was");
        }
        assert_eq!(verify(&self.log, &self.components).await.unwrap().problems, Vec::<String>::new(), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_while_a_checkpoint_is_made_travels_meanwhile_and_is_never_undone_by_it() {
    let seeds: Vec<u64> = match std::env::var("LITTORAL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..3).collect(),
    };
    let (mut beside, mut died) = (0, BTreeSet::new());
    for seed in seeds {
        let world = World::new();
        let mut source = Living::new(seed);
        // The state that it began with is the first commit.
        source.commit();
        let mut session = world.open().await;
        for _ in 0..5 {
            if source.chance.below(3) == 0 {
                world.faults.left.store(1 + source.chance.below(40) as u64, Ordering::SeqCst);
            }
            if let Err(error) = world.fold(&mut session, &mut source).await {
                assert!(error.is_crash(), "seed {seed}: {error}");
                // Dead. The next process finds out where it stands.
                drop(session);
                session = world.open().await;
                session.writer.settle().await.unwrap();
                source.begins_anew(session.writer.row().tail.lsn);
            }
            world.faults.left.store(0, Ordering::SeqCst);
            world.check(&mut source, seed, false).await;
        }
        source.rests = true;
        world.fold(&mut session, &mut source).await.unwrap();
        assert_eq!(session.writer.row().tail.lsn.0 as usize, source.newest(), "seed {seed}: all of it is there");
        world.check(&mut source, seed, true).await;
        beside += source.travelled;
        died.extend(world.faults.died_at.lock().unwrap().iter().copied());
    }
    eprintln!("{beside} segments beside checkpoints; died at {died:?}");
    assert!(beside >= 10, "hardly anything travelled beside a checkpoint: {beside}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_ends_however_fast_others_commit_and_whether_or_not_what_they_commit_can_be_gathered() {
    let world = World::new();
    let mut source = Living::new(3);
    source.writes = Some(0..1_300);
    source.commit();
    let mut session = world.open().await;
    world.fold(&mut session, &mut source).await.unwrap();
    source.is_eager = true;
    for _ in 0..20 {
        source.commit();
    }
    let segments = world.fold(&mut session, &mut source).await.unwrap();
    // Coalescing has its own; each of the four readings has as many as its uploads took.
    assert!((2..60).contains(&segments), "{segments} segments beside one checkpoint");
    source.is_locked = true;
    let before = session.writer.row().tail.lsn;
    (0..5).for_each(|_| source.commit());
    assert_eq!(world.fold(&mut session, &mut source).await.unwrap(), 0, "nothing could be gathered");
    assert!(session.writer.row().tail.lsn > before, "the checkpoint brought it all the same");
    world.check(&mut source, 3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shipped_beside_one_group_of_merges_is_not_lost_by_the_next() {
    let world = World::new();
    // Seventeen chunks, almost all of it zeros, the last one four pages long.
    let chunk = (64 << 20) / PAGE;
    let size = 16 * chunk + 4;
    let mut source = Living::of(vec![0; size], 5);
    source.writes = Some(size - 4..size);
    source.commit();
    let mut session = world.open().await;
    source.rests = true;
    world.fold(&mut session, &mut source).await.unwrap();
    for round in 1..=3 {
        let mut written = BTreeSet::new();
        for at in (0..16).map(|nth| nth * chunk + round).chain(size - 4..size - 1) {
            source.pages[at] = round as u8;
            written.insert(PageNo::from_index(at as u64));
        }
        source.commits.push(Committed { pages: written, size });
        source.states.push(source.pages.clone());
        // The third one makes merges due, in two groups; meanwhile somebody commits to the last chunk.
        (source.rests, source.is_eager) = (round < 3, round == 3);
        let segments = world.fold(&mut session, &mut source).await.unwrap();
        assert!(round < 3 || segments > 0, "nothing travelled beside it");
    }
    let changes = session.writer.manifest().changes_since(&session.writer.row().meta.id, Seq::ZERO).unwrap();
    let records = changes.iter().flat_map(|change| &change.records);
    assert!(records.filter(|record| record.kind == RecordKind::Coalesce).count() >= 2, "one group is not two");
    let lazy = Lazy::open(&world.log, &world.components, &At::Newest).await.unwrap();
    for at in size - 4..size {
        let page = PageNo::from_index(at as u64);
        let image = match lazy.resident(page) {
            Some(image) => image,
            None => lazy.fetch(page).await.unwrap().page(page).unwrap().clone(),
        };
        assert!(image[..] == Living::image(at, source.states[source.published][at])[..], "page {page} is an older one");
    }
    lazy.close().await;
}
