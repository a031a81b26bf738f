//! Leases: work on chunks by several, work that is stopped, holders that die, hang and go on, clocks that jump.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

mod rig;

use async_trait::async_trait;
use littoral_engine::EngineError;
use littoral_engine::exec::beside::Nothing;
use littoral_engine::exec::checkpoint::{self, Checkpointed, checkpoint};
use littoral_engine::exec::prune::{How, Options, prune_as};
use littoral_engine::exec::repack::{Repacked, repack_apart};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::leases::{Leases, Standing, Wanted};
use littoral_manifest::LmdbManifest;
use littoral_plan::RepackPolicy;
use littoral_ports::{
    BlobBody, Clock, Crash, Faults, LeaseChange, Leased, Manifest, ManifestError, MemoryRemote, Paced, Remote,
    RemoteError, Spending, Spendings, Spent, Uncounted, passes_on,
};
use littoral_types::limits::{LEASE_MS, LEASES_MAX};
use littoral_types::{
    ChunkId, ChunkRuns, Compression, Generation, LeaseWish, ObjectPath, RecordKind, Retention, Seq, VolumeId, Work,
};
use rig::{Machine, Pages};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

const ANY: RepackPolicy = RepackPolicy { dead_bytes_min: 1 };

/// An object store whose uploads wait at a gate, where it is closed.
#[derive(Debug)]
struct Gate {
    inner: MemoryRemote,
    is_closed: AtomicBool,
    /// How many stand before it.
    arrived: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        let inner = MemoryRemote::new("gate");
        let is_closed = AtomicBool::new(false);
        Arc::new(Self { inner, is_closed, arrived: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// The next upload waits.
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    async fn somebody_waits(&self) {
        self.arrived.acquire().await.unwrap().forget();
        // Others pass.
        self.is_closed.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Remote for Gate {
    passes_on!(inner: get, get_range, get_suffix, size, put, put_new, list, delete, url, distrust, copies);

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        if self.is_closed.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.open.acquire().await.unwrap().forget();
        }
        self.inner.upload(path, body).await
    }
}

async fn bare_checkpoint(machine: &Machine, pages: &mut Pages) -> Result<Option<Checkpointed>, EngineError> {
    let mut session = machine.open().await?;
    checkpoint(&mut session.writer, &session.scratch, pages, &checkpoint::Options::default()).await
}

async fn pruned(machine: &Machine) -> Result<(), EngineError> {
    let mut session = machine.open().await?;
    let options = Options { grace_ms: 0, ..Options::default() };
    prune_as(&mut session.writer, &options, &Retention::all_within(0), How::default()).await.map(drop)
}

/// A volume with a pack of a hundred pages, of which ninety were written again.
async fn mostly_dead(gate: &Arc<Gate>) -> (Arc<Machine>, Pages) {
    let machine = Machine::new(gate.clone());
    let mut pages = Pages::new(4096, 2000);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    (0..100).for_each(|at| pages.write(at, 1000 + at as u64));
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    (0..90).for_each(|at| pages.write(at, 2000 + at as u64));
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    pruned(&machine).await.unwrap();
    (Arc::new(machine), pages)
}

async fn repacked(machine: &Machine) -> Result<Repacked, EngineError> {
    let session = machine.open().await?;
    let database = &machine.target.database;
    let moved = repack_apart(session, database, Compression::Zstd, ANY, &mut Nothing).await;
    moved.map(|(_, repacked)| repacked)
}

/// One whose uploads wait at the gate by now.
async fn repacking(gate: &Gate, machine: &Arc<Machine>) -> tokio::task::JoinHandle<Result<Repacked, EngineError>> {
    gate.close();
    let machine = machine.clone();
    let task = tokio::task::spawn_blocking(move || tokio::runtime::Handle::current().block_on(repacked(&machine)));
    gate.somebody_waits().await;
    task
}

async fn newest_is(machine: &Machine, pages: &Pages) {
    let found = verify(&machine.log(), &machine.components).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    restore(&machine.log(), &machine.components, &At::Newest, &file, false).await.unwrap();
    assert!(std::fs::read(&file).unwrap() == pages.pages.concat(), "another state than the newest");
}

fn leases(machine: &Machine) -> Leases {
    Leases::new(&machine.stores.store, machine.stores.manifest.clone(), &machine.components)
}

fn kinds(machine: &Machine) -> Vec<RecordKind> {
    let manifest = &machine.stores.manifest;
    let volume = manifest.volumes().unwrap().remove(0).meta.id;
    let changes = manifest.changes_since(&volume, Seq(0)).unwrap();
    changes.iter().flat_map(|change| &change.records).map(|record| record.kind).collect()
}

fn merges(machine: &Machine) -> usize {
    kinds(machine).iter().filter(|kind| **kind == RecordKind::Coalesce).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_travels_while_a_pack_is_written_anew_and_both_are_kept() {
    let gate = Gate::new();
    let (machine, mut pages) = mostly_dead(&gate).await;
    let moving = repacking(&gate, &machine).await;
    let held = leases(&machine).all().unwrap();
    assert_eq!(held.len(), 1);
    let (lease, standing) = &held[0];
    assert_eq!((lease.wish.work, lease.chunks().as_str(), *standing), (Work::Repack, "0", Standing::Held));
    assert_eq!(lease.wish.process, std::process::id());
    // Others have the volume meanwhile, stage beside, and lay their pages on top.
    pages.write(5, 7777);
    pages.write(95, 8888);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    assert_eq!(merges(&machine), 0);
    gate.open.add_permits(1);
    let moved = moving.await.unwrap().unwrap();
    assert_eq!((moved.packs, moved.records, merges(&machine)), (1, 1, 1), "{moved:?}");
    assert_eq!(leases(&machine).all().unwrap(), []);
    newest_is(&machine, &pages).await;
    assert_eq!(std::fs::read_dir(machine.stores.store.lease_marks()).unwrap().count(), 0, "marks that nobody needs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_what_others_wrote_whole_meanwhile_is_not_hidden_by_what_was_moved() {
    let gate = Gate::new();
    let (machine, mut pages) = mostly_dead(&gate).await;
    let moving = repacking(&gate, &machine).await;
    // More than half of the chunk: it is written whole, and the delta that is being moved is gone.
    (0..1600).for_each(|at| pages.write(at, 50_000 + at as u64));
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    gate.open.add_permits(1);
    let moved = moving.await.unwrap().unwrap();
    assert_eq!((moved.packs, moved.records, merges(&machine)), (0, 0, 0), "{moved:?}");
    newest_is(&machine, &pages).await;
    // And one that the database was cut in: what lies beyond is dead.
    let (machine, mut pages) = mostly_dead(&Gate::new()).await;
    pages.resize(50);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    repacked(&machine).await.unwrap();
    newest_is(&machine, &pages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_waits_for_merges_is_told_who_merges_and_takes_the_lease_where_it_is_told_to() {
    let gate = Gate::new();
    let (machine, mut pages) = mostly_dead(&gate).await;
    let moving = repacking(&gate, &machine).await;
    pages.write(1500, 1);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    // What is uploaded and not named is an orphan to a prune: it does not come between.
    let refused = pruned(&machine).await.unwrap_err().to_string();
    let me = format!("process {} has had chunks 0 for", std::process::id());
    assert!(
        refused.contains(&me) && refused.contains("repack") && refused.contains("littoral leases release"),
        "{refused}"
    );
    let volume = machine.stores.manifest.volumes().unwrap().remove(0).meta.id;
    let leases = leases(&machine);
    let waited = leases.wait((volume, "app.db"), (Work::Prune, None), 120, None).await.unwrap_err();
    assert!(matches!(&waited, EngineError::Leased { waited_ms: 120, who, .. } if who.contains(&me)), "{waited:?}");
    let before = kinds(&machine);
    leases.wait((volume, "app.db"), (Work::Prune, None), 0, Some("a prune was to come first")).await.unwrap();
    pruned(&machine).await.unwrap();
    gate.open.add_permits(1);
    let lost = moving.await.unwrap().unwrap_err();
    assert!(matches!(lost, EngineError::Manifest(ManifestError::NoLease(_))), "{lost:?}");
    let since: Vec<RecordKind> = kinds(&machine).split_off(before.len());
    assert!(!since.contains(&RecordKind::Coalesce), "{since:?}");
    newest_is(&machine, &pages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_lease_was_taken_by_force_goes_on_and_publishes_nothing_and_the_change_log_says_so() {
    let gate = Gate::new();
    let (machine, pages) = mostly_dead(&gate).await;
    let moving = repacking(&gate, &machine).await;
    let leases = leases(&machine);
    let (lease, _) = leases.all().unwrap().remove(0);
    let before = machine.stores.manifest.changes(Default::default(), 999).unwrap().len();
    assert_eq!(leases.take_away(&lease, "it hangs").unwrap(), Some(lease.clone()));
    assert_eq!(leases.take_away(&lease, "it hangs").unwrap(), None, "once");
    gate.open.add_permits(1);
    let lost = moving.await.unwrap().unwrap_err();
    assert!(matches!(lost, EngineError::Manifest(ManifestError::NoLease(token)) if token == lease.token), "{lost:?}");
    assert!(lost.to_string().contains("littoral leases audit"), "{lost}");
    assert_eq!(merges(&machine), 0);
    let changes = machine.stores.manifest.changes(Default::default(), 999).unwrap().split_off(before);
    assert_eq!(changes.len(), 1, "{changes:?}");
    let undone = changes[0].undone.clone().unwrap();
    assert_eq!((&undone.lease, undone.why.as_str(), undone.is_forced), (&lease, "it hangs", true));
    assert!(undone.by.contains(&format!("process {}", std::process::id())), "{}", undone.by);
    assert_eq!(leases.taken_away(9).unwrap(), [undone]);
    // Nothing is broken by it: another one does it.
    let moved = repacked(&machine).await.unwrap();
    assert_eq!((moved.packs, moved.records), (1, 1));
    newest_is(&machine, &pages).await;
}

/// Takes away whatever is held when a point is reached.
#[derive(Debug)]
struct Taking {
    point: &'static str,
    leases: Mutex<Option<Leases>>,
    taken: AtomicU64,
}

impl Faults for Taking {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if point == self.point
            && let Some(leases) = self.leases.lock().unwrap().take()
        {
            for (lease, _) in leases.all().unwrap() {
                leases.take_away(&lease, "by a test").unwrap();
                self.taken.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_cancelled_publishes_nothing_wherever_it_is_and_the_next_one_brings_everything() {
    for point in
        ["checkpoint.begun", "checkpoint.staged", "checkpoint.blob-uploaded", "checkpoint.uploaded", "publish.drafted"]
    {
        let mut machine = Machine::new(Arc::new(MemoryRemote::new("cancelled")));
        let mut pages = Pages::new(4096, 300);
        bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
        let taking = Arc::new(Taking { point, leases: Mutex::new(Some(leases(&machine))), taken: AtomicU64::new(0) });
        machine.components.faults = taking.clone();
        pages.write(7, 777);
        let before = kinds(&machine);
        let cancelled = bare_checkpoint(&machine, &mut pages).await.unwrap_err();
        assert!(matches!(cancelled, EngineError::Manifest(ManifestError::NoLease(_))), "{point}: {cancelled:?}");
        assert_eq!((taking.taken.load(Ordering::SeqCst), kinds(&machine)), (1, before), "{point}");
        let undone = leases(&machine).taken_away(9).unwrap();
        assert_eq!((undone.len(), undone[0].lease.wish.work), (1, Work::Checkpoint), "{point}");
        let log = machine.stores.manifest.changes(Default::default(), 999).unwrap();
        assert_eq!(log.iter().filter(|change| change.undone.is_some()).count(), 1, "{point}");
        bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
        newest_is(&machine, &pages).await;
    }
    // From the intent on it is decided.
    let mut machine = Machine::new(Arc::new(MemoryRemote::new("decided")));
    let mut pages = Pages::new(4096, 300);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    let point = "publish.intended";
    let taking = Arc::new(Taking { point, leases: Mutex::new(Some(leases(&machine))), taken: AtomicU64::new(0) });
    machine.components.faults = taking.clone();
    pages.write(7, 777);
    bare_checkpoint(&machine, &mut pages).await.unwrap().unwrap();
    assert_eq!(taking.taken.load(Ordering::SeqCst), 0, "there is nothing left to take");
    newest_is(&machine, &pages).await;
}

/// Clocks that a test sets.
#[derive(Debug)]
struct Set {
    wall_ms: AtomicU64,
    boot_ms: AtomicU64,
}

#[async_trait]
impl Clock for Set {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
    fn boot_ms(&self) -> u64 {
        self.boot_ms.load(Ordering::SeqCst)
    }
    async fn sleep_ms(&self, ms: u64) {
        self.boot_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn wanted(work: Work, chunks: &[u64]) -> Wanted {
    let chunks: ChunkRuns = chunks.iter().copied().map(ChunkId).collect();
    Wanted { volume: VolumeId([1; 16]), work, chunks: Some(chunks), generation: Generation(1) }
}

#[test]
fn p12_a_lease_runs_out_by_a_clock_that_nobody_sets_and_ends_with_its_holder() {
    let mut machine = Machine::new(Arc::new(MemoryRemote::new("clocks")));
    let clock = Arc::new(Set { wall_ms: AtomicU64::new(1 << 40), boot_ms: AtomicU64::new(10 * LEASE_MS) });
    machine.components.clock = clock.clone();
    let leases = leases(&machine);
    let standing = || leases.all().unwrap().into_iter().map(|(_, standing)| standing).collect::<Vec<_>>();
    let one = leases.take(wanted(Work::Repack, &[1, 2])).unwrap().unwrap();
    for wall_ms in [0, 1 << 50, 77] {
        clock.wall_ms.store(wall_ms, Ordering::SeqCst);
        assert_eq!(standing(), [Standing::Held], "whatever the wall clock says");
        assert!(leases.take(wanted(Work::Coalesce, &[2])).unwrap().is_err());
    }
    // A holder that goes on renews it, for as long as he likes.
    for _ in 0..50 {
        clock.boot_ms.fetch_add(LEASE_MS / 10, Ordering::SeqCst);
        one.step().unwrap();
        assert_eq!(standing(), [Standing::Held]);
    }
    // One that hangs loses it to whoever wants it, and to nobody else.
    clock.boot_ms.fetch_add(LEASE_MS + 1, Ordering::SeqCst);
    assert_eq!(standing(), [Standing::RunOut]);
    one.step().unwrap();
    assert_eq!(standing(), [Standing::Held], "nobody wanted it");
    clock.boot_ms.fetch_add(LEASE_MS + 1, Ordering::SeqCst);
    let two = leases.take(wanted(Work::Coalesce, &[2, 3])).unwrap().unwrap();
    assert!(two.token() > one.token());
    for _ in 0..2 {
        let lost = one.step().unwrap_err();
        assert!(matches!(lost, EngineError::Manifest(ManifestError::NoLease(token)) if token == one.token()));
    }
    let taken = leases.taken_away(9).unwrap();
    assert_eq!((taken.len(), taken[0].why.as_str(), taken[0].is_forced), (1, "its time had run out", false));
    drop(one);
    assert_eq!(standing(), [Standing::Held], "who lost his lets go of no other's");
    // A machine that was booted since began to count anew.
    clock.boot_ms.store(5, Ordering::SeqCst);
    assert_eq!(standing(), [Standing::RunOut]);
    drop(two);
    assert_eq!(standing(), []);
    // One whose holder is gone, and left everything.
    let wish = LeaseWish {
        volume: VolumeId([1; 16]),
        work: Work::Prune,
        chunks: None,
        generation: Generation(1),
        process: 4711,
        mark: "4711-0".to_owned(),
        taken_ms: 1,
        until_boot_ms: 6,
    };
    let dead = LeaseChange::Take { wish, over: Vec::new(), by: String::new() };
    assert!(matches!(machine.stores.manifest.lease(&dead).unwrap(), Leased::Held(_)));
    assert_eq!(standing(), [Standing::Dead]);
    drop(leases.take(wanted(Work::Repack, &[9])).unwrap().unwrap());
    assert_eq!(standing(), []);
    assert_eq!(leases.taken_away(1).unwrap()[0].why, "its process had ended");
}

/// One that is at work and will never end it.
fn left(leases: &dyn Manifest, volume: u8, work: Work, chunks: &[u64]) {
    let wish = LeaseWish {
        volume: VolumeId([volume; 16]),
        work,
        chunks: Some(chunks.iter().copied().map(ChunkId).collect()),
        generation: Generation(1),
        process: 4711,
        mark: "4711-0".to_owned(),
        taken_ms: 1,
        until_boot_ms: u64::MAX,
    };
    let taken = leases.lease(&LeaseChange::Take { wish, over: Vec::new(), by: String::new() }).unwrap();
    assert!(matches!(taken, Leased::Held(_)), "{taken:?}");
}

#[test]
fn the_dead_stop_nobody_who_takes_a_lease_or_works_on_more_and_the_living_are_named() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("dead")));
    let (leases, manifest) = (leases(&machine), &*machine.stores.manifest);
    // However many there are, of whatever volumes, and in nobody's way: the store goes on.
    (0..LEASES_MAX as u64).for_each(|chunk| left(manifest, 1 + (chunk % 3) as u8, Work::Repack, &[chunk]));
    let one = leases.take(wanted(Work::Checkpoint, &[0])).unwrap().unwrap();
    assert_eq!(leases.all().unwrap().len(), 1, "nobody else would ever end them");
    assert_eq!(leases.taken_away(usize::MAX).unwrap().len(), LEASES_MAX);
    left(manifest, 1, Work::Checkpoint, &[7]);
    one.widen(&[ChunkId(7)].into_iter().collect()).unwrap().unwrap();
    assert_eq!(leases.all().unwrap()[0].0.chunks(), "0, 7");
    assert_eq!(leases.taken_away(1).unwrap()[0].why, "its process had ended");
    let two = leases.take(wanted(Work::Checkpoint, &[9])).unwrap().unwrap();
    let others = one.widen(&[ChunkId(8), ChunkId(9)].into_iter().collect()).unwrap().unwrap_err();
    assert_eq!(others.iter().map(|lease| lease.token).collect::<Vec<_>>(), [two.token()]);
    assert_eq!(leases.all().unwrap()[0].0.chunks(), "0, 7", "nothing moved");
}

/// A clock that goes where somebody sleeps, up to a point; and knows how long he slept at once.
#[derive(Debug)]
struct Slept {
    wall: Arc<dyn Clock>,
    boot_ms: AtomicU64,
    end_ms: u64,
    longest_ms: AtomicU64,
}

#[async_trait]
impl Clock for Slept {
    fn wall_ms(&self) -> u64 {
        self.wall.wall_ms()
    }
    fn boot_ms(&self) -> u64 {
        self.boot_ms.load(Ordering::SeqCst)
    }
    async fn sleep_ms(&self, ms: u64) {
        self.longest_ms.fetch_max(ms, Ordering::SeqCst);
        let slept = |now: u64| (now < self.end_ms).then_some(now + ms);
        let _ = self.boot_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, slept);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whoever reads or writes here rests for longer than a lease lasts.
#[derive(Debug)]
struct SlowDisk;

impl Spending for SlowDisk {
    fn spend(&self, _: Spent) {}
    fn take(&self, what: Paced, _: u64) -> u64 {
        if what == Paced::Io { 2 * LEASE_MS } else { 0 }
    }
    fn this_month(&self) -> Spendings {
        Uncounted.this_month()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_rests_or_waits_for_an_upload_for_longer_than_a_lease_lasts_keeps_his() {
    let gate = Gate::new();
    let (machine, pages) = mostly_dead(&gate).await;
    let mut machine = Arc::into_inner(machine).unwrap();
    let wall = machine.components.clock.clone();
    let (begun, end_ms) = (10 * LEASE_MS, 15 * LEASE_MS);
    let clock = Arc::new(Slept { wall, boot_ms: AtomicU64::new(begun), end_ms, longest_ms: AtomicU64::new(0) });
    machine.components.clock = clock.clone();
    machine.components.account = Arc::new(SlowDisk);
    let machine = Arc::new(machine);
    let moving = repacking(&gate, &machine).await;
    assert!(clock.boot_ms() >= begun + 2 * LEASE_MS, "it has rested");
    assert_eq!(clock.longest_ms.load(Ordering::SeqCst), LEASE_MS / 20, "and looked after its lease meanwhile");
    // The upload that it waits for stands still until everybody's time would have run out.
    let since = std::time::Instant::now();
    while clock.boot_ms() < end_ms {
        assert!(since.elapsed() < Duration::from_secs(60), "it waits, and does not look after its lease");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let held = leases(&machine).all().unwrap();
    assert_eq!(held.iter().map(|(_, standing)| *standing).collect::<Vec<_>>(), [Standing::Held]);
    gate.open.add_permits(1);
    let moved = moving.await.unwrap().unwrap();
    assert_eq!((moved.packs, moved.records), (1, 1), "{moved:?}");
    newest_is(&machine, &pages).await;
}

const PLACE: &str = "LITTORAL_LEASES_TEST_PLACE";

/// A machine of which a process has the store.
fn of_process(place: PathBuf) -> Leases {
    let components = rig::components();
    let options = littoral_local::StoreOptions::default();
    let store = littoral_local::Store::open_or_create(&place, &*components.entropy, options).unwrap();
    let manifest: Arc<dyn Manifest> = Arc::new(LmdbManifest::open(&store.manifest_dir()).unwrap());
    Leases::new(&store, manifest, &components)
}

#[test]
#[ignore = "the other half of the test below, which starts it"]
fn the_other_process() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let leases = of_process(place.into());
    // Thirty-two takers want four chunks, for as long as they live.
    std::thread::scope(|scope| {
        for taker in 0..32_u64 {
            let leases = &leases;
            scope.spawn(move || {
                loop {
                    if let Ok(held) = leases.take(wanted(Work::Repack, &[taker % 4])).unwrap() {
                        println!("\nsays took {} of {}", held.token(), taker % 4);
                        std::thread::yield_now();
                        held.step().unwrap();
                        println!("\nsays leaves {} of {}", held.token(), taker % 4);
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
}

fn other(place: &std::path::Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    (child, BufReader::new(out))
}

#[test]
fn of_two_processes_with_sixty_four_takers_no_two_hold_one_chunk_and_who_is_killed_holds_none() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let leases = of_process(place.clone());
    let (mut one, said_by_one) = other(&place);
    let (mut two, said_by_two) = other(&place);
    // Whoever is listened to goes on: they are killed at work.
    let lines = |said: BufReader<std::process::ChildStdout>| {
        let mut lines = said.lines().map_while(Result::ok);
        let took = lines.by_ref().filter(|line| line.contains("says took")).take(150).count();
        (took, lines)
    };
    // Whenever it is looked, of each chunk one has it at most.
    std::thread::scope(|scope| {
        let both = [scope.spawn(move || lines(said_by_one)), scope.spawn(move || lines(said_by_two))];
        while both.iter().any(|one| !one.is_finished()) {
            let mut held: Vec<String> = leases.all().unwrap().iter().map(|(lease, _)| lease.chunks()).collect();
            let all = held.len();
            held.sort();
            held.dedup();
            assert_eq!(held.len(), all, "two hold one chunk");
        }
        let said = both.map(|one| one.join().unwrap());
        assert_eq!([said[0].0, said[1].0], [150, 150], "both got their turns");
        one.kill().unwrap();
        two.kill().unwrap();
    });
    let (pids, _) = ([one.id(), two.id()], [one.wait().unwrap(), two.wait().unwrap()]);
    // What was written by who was killed just then is seen when somebody has written after him: of chunk 9, which nobody wants.
    drop(leases.take(wanted(Work::Repack, &[9])).unwrap().unwrap());
    // What they held when they were killed is free at once, and it is kept whose it was.
    let left = leases.all().unwrap();
    assert!(left.iter().all(|(lease, standing)| *standing == Standing::Dead && pids.contains(&lease.wish.process)));
    let before = leases.taken_away(usize::MAX).unwrap().len();
    let mine = leases.take(wanted(Work::Coalesce, &[0, 1, 2, 3])).unwrap().unwrap();
    let taken = leases.taken_away(usize::MAX).unwrap();
    assert_eq!(taken.len() - before, left.len());
    assert_eq!(leases.all().unwrap().len(), 1);
    let tokens: Vec<_> = taken.iter().map(|taken| taken.lease.token).collect();
    assert!(tokens.iter().all(|token| *token < mine.token()));
}

#[test]
fn whoever_is_killed_in_the_middle_of_taking_one_stands_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let leases = of_process(place.clone());
    for round in 0..40 {
        let (mut one, said) = other(&place);
        let heard = said.lines().map_while(Result::ok).filter(|line| line.contains("says took"));
        assert_eq!(heard.take(1 + round % 7).count(), 1 + round % 7);
        one.kill().unwrap();
        one.wait().unwrap();
        let held = leases.take(wanted(Work::Coalesce, &[0, 1, 2, 3])).unwrap();
        assert!(held.is_ok(), "round {round}: {held:?}");
    }
}
