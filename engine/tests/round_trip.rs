//! A database goes out and comes back: the engine's whole way, on stores in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::snapshot::{snapshot_if_due, write_snapshot};
use littoral_engine::exec::verify::verify;
use littoral_engine::log::Draft;
use littoral_engine::{EngineError, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_plan::{CheckpointPolicy, KeepPolicy};
use littoral_ports::{Changed, Crash, Faults, MemoryManifest, MemoryRemote, NoFaults, PageSource, Silent, SourceError};
use littoral_types::{
    BlobKind, BlobName, BlobRef, ChunkId, Coalesce, Compression, Delta, DeltaId, FrameTable, Home, Lsn, ManifestOp,
    PageCount, PageNo, PageSize, RecordBody, Seq,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// A database in memory.
#[derive(Clone)]
struct Pages {
    page_size: PageSize,
    pages: Vec<Vec<u8>>,
}

impl Pages {
    fn new(page_size: u64, count: usize) -> Self {
        let page_size = PageSize::new(page_size).unwrap();
        let mut new = Self { page_size, pages: Vec::new() };
        new.resize(count);
        new
    }

    fn resize(&mut self, count: usize) {
        let len = self.page_size.len();
        let first = self.pages.len();
        self.pages.resize(count, vec![0; len]);
        (first..count).for_each(|at| self.write(at, at as u64));
    }

    /// Text-like content that differs from page to page and value to value.
    fn write(&mut self, at: usize, value: u64) {
        for (place, byte) in self.pages[at].iter_mut().enumerate() {
            *byte = b'a' + ((value.wrapping_mul(31).wrapping_add(place as u64 / 7)) % 23) as u8;
        }
        self.pages[at][..8].copy_from_slice(&value.to_le_bytes());
    }

    fn bytes(&self) -> Vec<u8> {
        self.pages.concat()
    }
}

impl PageSource for Pages {
    fn page_size(&self) -> PageSize {
        self.page_size
    }
    fn page_count(&self) -> PageCount {
        PageCount(self.pages.len() as u64)
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Unknown
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        into.copy_from_slice(&self.pages[page.index() as usize]);
        Ok(())
    }
}

struct Machine {
    _dir: TempDir,
    stores: Stores,
    target: Target,
    components: Components,
}

impl Machine {
    fn new(remote: &Arc<MemoryRemote>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let components = Components {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: Arc::new(NoFaults),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: remote.clone() };
        let database = dir.path().join("app.db");
        std::fs::write(&database, b"").unwrap();
        Self { _dir: dir, stores, target: Target { database, volume: None, takeover: None, fencing: true }, components }
    }

    async fn open(&self) -> Result<Session, EngineError> {
        open_for_writing(&self.stores, &self.components, &self.target).await
    }

    async fn checkpoint(&self, pages: &mut Pages) -> Result<Option<Checkpointed>, EngineError> {
        let mut session = self.open().await?;
        let done = checkpoint(&mut session.writer, &session.scratch, pages, &Options::default()).await?;
        snapshot_if_due(&mut session.writer, Some(pages)).await?;
        coalesce(&mut session.writer, &session.scratch, None, Compression::Zstd).await?;
        Ok(done)
    }

    fn log(&self) -> Log {
        Log::new(self.stores.remote.clone(), "app.db".parse().unwrap())
    }

    async fn restored(&self, at: At, dir: &Path) -> Vec<u8> {
        let dest = dir.join("restored.db");
        restore(&self.log(), &self.components, &at, &dest, true).await.unwrap();
        std::fs::read(dest).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_checkpoint_comes_back_byte_for_byte_through_coalescing_snapshots_and_prunes() {
    let remote = Arc::new(MemoryRemote::new("round-trip"));
    let machine = Machine::new(&remote);
    let out = tempfile::tempdir().unwrap();
    let mut pages = Pages::new(65536, 2100);
    let mut states: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
    let mut seed = 9u64;
    for step in 0..90u64 {
        for _ in 0..5 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % pages.pages.len();
            pages.write(at, seed);
        }
        match step % 30 {
            11 => pages.resize(900),
            13 => pages.resize(1500),
            25 => pages.resize(2100),
            26 => pages.pages[5].fill(0),
            _ => {}
        }
        let done = machine.checkpoint(&mut pages).await.unwrap().unwrap();
        assert_eq!(done.position.lsn, Lsn(step + 1));
        if step % 10 == 3 || step > 86 {
            states.insert(done.position.lsn, pages.bytes());
        }
        assert!(machine.checkpoint(&mut pages).await.unwrap().is_none(), "nothing changed, nothing published");
    }
    for (lsn, bytes) in &states {
        assert!(machine.restored(At::Lsn(*lsn), out.path()).await == *bytes, "LSN {lsn}");
    }
    let verified = verify(&machine.log(), &machine.components).await.unwrap();
    assert_eq!(verified.problems, Vec::<String>::new());

    let mut session = machine.open().await.unwrap();
    write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    let options = prune::Options { keep: KeepPolicy { last: 10, within_ms: 0 }, grace_ms: 0, dry_run: false };
    let pruned = prune(&mut session.writer, &options).await.unwrap().unwrap();
    assert!(pruned.records > 50 && pruned.blobs > 50, "{pruned:?}");
    drop(session);
    let verified = verify(&machine.log(), &machine.components).await.unwrap();
    assert_eq!(verified.problems, Vec::<String>::new());
    assert_eq!(verified.orphans, 0);
    for (lsn, bytes) in states.iter().filter(|(lsn, _)| lsn.0 > 80) {
        assert!(machine.restored(At::Lsn(*lsn), out.path()).await == *bytes, "LSN {lsn} after the prune");
    }

    // Another machine takes over, and the first one is told by whom.
    let mut other = Machine::new(&remote);
    assert!(matches!(other.open().await, Err(EngineError::NotBound { .. })));
    other.target.takeover = Some(littoral_types::Epoch(1));
    let mut theirs = pages.clone();
    theirs.write(7, 4711);
    let done = other.checkpoint(&mut theirs).await.unwrap().unwrap();
    assert_eq!(done.plan.changed_pages(), 1, "identities were learnt from the object store");
    pages.write(8, 4712);
    let refused = machine.checkpoint(&mut pages).await;
    assert!(
        matches!(&refused, Err(EngineError::Superseded { owner, .. }) if owner.store == other.stores.store.id()),
        "{refused:?}"
    );
    assert!(other.restored(At::Newest, out.path()).await == theirs.bytes());
}

/// Dies once, where it is told to, after it came by so often.
#[derive(Debug, Default)]
struct Dying(std::sync::Mutex<Option<(&'static str, u32)>>);

impl Faults for Dying {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let mut armed = self.0.lock().unwrap();
        match armed.as_mut().filter(|(at, _)| *at == point) {
            None => return Ok(()),
            Some((_, left)) if *left > 0 => {
                *left -= 1;
                return Ok(());
            }
            Some(_) => *armed = None,
        }
        Err(Crash(point))
    }
}

/// A body that is a blob lies in the bucket before its record does. If its writer dies then, a prune finds an orphan; and if that
/// record is an index, and due, it is about to be published again, with the same body, born at the same place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_prune_does_not_doom_the_body_of_an_index_that_is_due() {
    let remote = Arc::new(MemoryRemote::new("due"));
    let mut machine = Machine::new(&remote);
    let dying = Arc::new(Dying::default());
    machine.components.faults = dying.clone();
    let mut pages = Pages::new(4096, 20);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    pages.write(3, 1);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
    let mut session = machine.open().await.unwrap();
    prune(&mut session.writer, &options).await.unwrap().unwrap();
    // Operations whose sum does not fit into a record.
    let table = FrameTable::default();
    let ops = (1000..31_000u64)
        .map(|chunk| {
            let hash = littoral_format::hash::blob(&chunk.to_le_bytes());
            let name = BlobName { kind: BlobKind::Pack, hash, birth: Seq(1) };
            let blob = BlobRef { home: Home::Own, name, len: 1 };
            let delta = Delta { id: DeltaId(1), blob, last_live: PageNo::FIRST, table: table.clone() };
            ManifestOp::PutDelta { chunk: ChunkId(chunk), delta }
        })
        .collect::<Vec<_>>();
    let draft =
        |session: &Session, ops| Draft::of(RecordBody::Coalesce(Coalesce { ops }), session.writer.row().tail.figures);
    let large = draft(&session, ops);
    session.writer.publish(large).await.unwrap();
    while session.writer.row().tail.seq < Seq(62) {
        let small = draft(&session, Vec::new());
        session.writer.publish(small).await.unwrap();
    }
    let bodies = || remote.objects().into_iter().filter(|(path, _)| path.as_str().contains("/seg/")).count();
    assert_eq!(bodies(), 1);
    // The record that follows is drafted, and then the index.
    *dying.0.lock().unwrap() = Some(("publish.drafted", 1));
    let small = draft(&session, Vec::new());
    assert!(session.writer.publish(small).await.unwrap_err().is_crash());
    assert_eq!(bodies(), 2);
    drop(session);
    let mut session = machine.open().await.unwrap();
    assert_eq!(session.writer.row().tail.seq, Seq(63));
    prune(&mut session.writer, &options).await.unwrap();
    let log = machine.log();
    let record = log.record(Seq(64)).await.unwrap().unwrap();
    assert!(matches!(record.body, RecordBody::Index(index) if index.ops.len() >= 30_000));
    assert_eq!(log.open().await.unwrap().unwrap().tail.hash, session.writer.row().tail.hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_prune_finishes_nothing_and_writes_nothing() {
    let remote = Arc::new(MemoryRemote::new("dry"));
    let mut machine = Machine::new(&remote);
    let dying = Arc::new(Dying::default());
    machine.components.faults = dying.clone();
    let mut pages = Pages::new(4096, 20);
    for value in 0..4 {
        pages.write(3, value);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
    }
    pages.write(3, 9);
    let mut session = machine.open().await.unwrap();
    *dying.0.lock().unwrap() = Some(("publish.intended", 0));
    let died = checkpoint(&mut session.writer, &session.scratch, &mut pages, &Options::default()).await;
    assert!(died.is_err_and(|error| error.is_crash()));
    let (objects, id) = (remote.objects(), session.writer.row().meta.id);
    let intent = machine.stores.manifest.intent(&id).unwrap();
    assert!(intent.is_some());
    let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: true };
    let would_go = prune(&mut session.writer, &options).await.unwrap().unwrap();
    assert!(would_go.records > 0 && would_go.blobs > 0, "{would_go:?}");
    assert!(remote.objects() == objects, "something was written or deleted");
    assert_eq!(machine.stores.manifest.intent(&id).unwrap(), intent);
}

/// A record that says more than it brings, or cuts off what it then counts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_misses_pages_that_a_record_counts_and_no_version_holds() {
    for (what, sizes, missing) in [
        ("grown", vec![1100], "page 1051 of chunk 1"),
        ("grown by chunks", vec![2500], "page 2049 of chunk 2"),
        ("cut and counted again", vec![1030, 1050], "page 1031 of chunk 1"),
        ("cut to nothing and counted again", vec![0, 1050], "page 1 of chunk 0"),
    ] {
        let remote = Arc::new(MemoryRemote::new("counted"));
        let machine = Machine::new(&remote);
        let mut pages = Pages::new(65536, 1050);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
        pages.write(3, 7);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
        let found = verify(&machine.log(), &machine.components).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
        let mut session = machine.open().await.unwrap();
        let mut figures = session.writer.row().tail.figures;
        let ops = sizes.iter().map(|pages| ManifestOp::Resize { page_count: PageCount(*pages) }).collect();
        figures.page_count = PageCount(*sizes.last().unwrap());
        let body = RecordBody::Coalesce(Coalesce { ops });
        let draft = Draft::of(body, figures);
        session.writer.publish(draft).await.unwrap();
        let found = verify(&machine.log(), &machine.components).await.unwrap();
        assert!(found.problems.iter().any(|problem| problem.contains(missing)), "{what}: {:?}", found.problems);
    }
}

/// Looks at the scratch at every named point.
#[derive(Debug)]
struct Watch {
    scratch: PathBuf,
    most: AtomicU64,
}

impl Faults for Watch {
    fn reach(&self, _: &'static str) -> Result<(), Crash> {
        let bytes = std::fs::read_dir(&self.scratch).into_iter().flatten().flatten().flat_map(|job| {
            let files = std::fs::read_dir(job.path()).into_iter().flatten().flatten();
            files.map(|file| file.metadata().map_or(0, |data| data.len())).collect::<Vec<_>>()
        });
        self.most.fetch_max(bytes.sum(), Ordering::Relaxed);
        Ok(())
    }
}

/// What was uploaded takes no room, and what has none yet waits for it: a database may be far larger than the quota (I7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_blobs_of_a_database_larger_than_the_quota_never_take_more_than_it() {
    const QUOTA: u64 = 3 << 20;
    let remote = Arc::new(MemoryRemote::new("bounded"));
    let mut machine = Machine::new(&remote);
    let scratch = machine.stores.store.root().join("checkpoint_scratch");
    let watch = Arc::new(Watch { scratch: scratch.clone(), most: AtomicU64::new(0) });
    machine.components.quota = Arc::new(LocalQuota::new("store", QUOTA));
    machine.components.faults = watch.clone();
    let mut pages = Pages::new(65536, 6 * 1024);
    let mut seed = 5u64;
    let mut noise = |pages: &mut Pages, at: usize| {
        for byte in &mut pages.pages[at] {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (seed >> 56) as u8;
        }
    };
    pages.pages.iter_mut().for_each(|page| page.fill(0));
    (0..6).for_each(|chunk| (0..16).for_each(|page| noise(&mut pages, chunk * 1024 + page)));
    // What a killed attempt left behind is in nobody's way.
    let left = scratch.join(format!("{}-1", littoral_types::VolumeId([9; 16])));
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("left"), vec![1; QUOTA as usize]).unwrap();
    let mut session = machine.open().await.unwrap();
    let options = Options {
        policy: CheckpointPolicy { pack_bytes_max: 1, ..CheckpointPolicy::default() },
        compression: Compression::None,
    };
    let done = checkpoint(&mut session.writer, &session.scratch, &mut pages, &options).await.unwrap().unwrap();
    assert!(done.blobs == 6 && done.bytes > 2 * QUOTA, "{done:?}");
    for _ in 0..3 {
        (0..6).for_each(|chunk| (0..16).for_each(|page| noise(&mut pages, chunk * 1024 + page)));
        let done = checkpoint(&mut session.writer, &session.scratch, &mut pages, &options).await.unwrap().unwrap();
        assert!(done.blobs == 6 && done.bytes > 2 * QUOTA, "{done:?}");
    }
    let most = watch.most.load(Ordering::Relaxed);
    assert!((1 << 20..=QUOTA).contains(&most), "{most} bytes lay in the scratch");
    drop(session);
    let out = tempfile::tempdir().unwrap();
    assert!(machine.restored(At::Newest, out.path()).await == pages.bytes());
}
