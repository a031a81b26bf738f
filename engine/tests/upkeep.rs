//! Prunes by who may not delete, prunes after prunes, packs that are mostly dead, verification by parts, drills.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

mod rig;

use async_trait::async_trait;
use littoral_engine::EngineError;
use littoral_engine::exec::beside::Nothing;
use littoral_engine::exec::checkpoint::{self, checkpoint};
use littoral_engine::exec::drill::{Drill, Examined, Order, drill};
use littoral_engine::exec::prune::{How, Options, Pruned, prune, prune_as};
use littoral_engine::exec::repack::repack;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::{Verified, verify, verify_part};
use littoral_local::LocalQuota;
use littoral_plan::RepackPolicy;
use littoral_ports::{Crash, Faults, MemoryManifest, MemoryRemote, Remote, RemoteError, passes_on};
use littoral_types::{BlobKind, Compression, ObjectPath, Retention};
use rig::{Chance, Machine, Pages, cost, counted};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether deletions are refused, for what has no right to them.
#[derive(Debug)]
struct MayNotDelete {
    inner: Arc<MemoryRemote>,
    refuses: AtomicBool,
    asked: AtomicUsize,
}

impl MayNotDelete {
    fn new() -> Arc<Self> {
        let inner = Arc::new(MemoryRemote::new("kept"));
        Arc::new(Self { inner, refuses: AtomicBool::new(true), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Remote for MayNotDelete {
    passes_on!(inner: get, get_range, get_suffix, size, put, put_new, upload, list, url, distrust, copies);

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        // The probe's own objects are taken back before anything else is known.
        if self.refuses.load(Ordering::SeqCst) && !paths.iter().all(|path| path.as_str().contains("/probe/")) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return Err(RemoteError::Denied { what: self.url(), detail: "no permission (AccessDenied)".to_owned() });
        }
        self.inner.delete(paths).await
    }
}

fn newest_only() -> Options {
    Options { grace_ms: 0, ..Options::default() }
}

/// A prune by the newest restore point, with or without deletions.
async fn pruned(machine: &Machine, how: How) -> Option<Pruned> {
    let mut session = machine.open().await.unwrap();
    prune_as(&mut session.writer, &newest_only(), &Retention::all_within(0), how).await.unwrap()
}

async fn sound(machine: &Machine) -> Verified {
    let found = verify(&machine.log(), &machine.components).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    found
}

async fn newest_is(machine: &Machine, pages: &Pages) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    restore(&machine.log(), &machine.components, &At::Newest, &file, false).await.unwrap();
    assert!(std::fs::read(&file).unwrap() == pages.pages.concat(), "another state than the newest");
}

fn paths(remote: &MemoryRemote) -> BTreeSet<String> {
    remote.objects().into_iter().map(|(path, _)| path.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_who_may_not_delete_says_in_the_log_what_may_go_and_is_told_once_and_nothing_breaks() {
    let remote = MayNotDelete::new();
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 40);
    for value in 0..6 {
        pages.write(3, 100 + value);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
    }
    let before = paths(&remote.inner);
    let refused = pruned(&machine, How::default()).await.unwrap();
    assert!(refused.denied.as_ref().is_some_and(|why| why.contains("AccessDenied")), "{refused:?}");
    let marked = refused.marked.unwrap();
    assert!(refused.left.len() > 5 && refused.left_bytes() > 0, "{refused:?}");
    assert_eq!(
        (refused.records, refused.blobs, remote.asked.load(Ordering::SeqCst)),
        (0, 0, 1),
        "one request was refused"
    );
    assert!(before.is_subset(&paths(&remote.inner)), "nothing is gone");
    sound(&machine).await;

    // From now on it is not asked, and what is said is not said again.
    let how = How { deletes: false, marked: Some(marked) };
    let again = pruned(&machine, how).await.unwrap();
    let paths_of = |pruned: &Pruned| pruned.left.iter().map(|left| left.path.clone()).collect::<BTreeSet<_>>();
    assert_eq!((again.marked, paths_of(&again), &again.denied), (Some(marked), paths_of(&refused), &None));
    assert_eq!(remote.asked.load(Ordering::SeqCst), 1);
    // Until there is more to say. Work goes on meanwhile.
    pages.write(4, 1);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let more = pruned(&machine, how).await.unwrap();
    assert!(more.marked > Some(marked) && more.left.len() > refused.left.len(), "{more:?}");
    newest_is(&machine, &pages).await;

    // Whoever may delete goes by the list, without asking anybody; and what is needed stays.
    let listed: Vec<ObjectPath> = more.left.iter().map(|left| left.path.clone()).collect();
    remote.inner.delete(&listed).await.unwrap();
    assert_eq!(sound(&machine).await.orphans, 0);
    newest_is(&machine, &pages).await;

    // And with the right to delete all is as ever.
    pages.write(5, 1);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    remote.refuses.store(false, Ordering::SeqCst);
    let gone = pruned(&machine, How::default()).await.unwrap();
    assert_eq!((gone.left.len(), gone.marked, &gone.denied), (0, None, &None));
    assert!(gone.records > 0);
    assert_eq!(sound(&machine).await.orphans, 0);
    newest_is(&machine, &pages).await;
}

/// Records since the floor are read once at most: the change log knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p08_a_prune_that_follows_a_prune_reads_no_record_that_it_published_itself() {
    let inner = Arc::new(MemoryRemote::new("again"));
    let remote = counted(inner.clone());
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 40);
    let keep = |last| Options { keep: littoral_plan::KeepPolicy { last, within_ms: 0 }, grace_ms: 0, dry_run: false };
    let mut at = 0;
    let mut lives = async |count: u64| {
        for _ in 0..count {
            at += 1;
            pages.write(at as usize % 40, 1000 + at);
            machine.checkpoint(&mut pages).await.unwrap().unwrap();
        }
    };
    let prunes = async |options: Options| {
        let mut session = machine.open().await.unwrap();
        let before = cost(&remote).gets;
        let pruned = prune(&mut session.writer, &options).await.unwrap().unwrap();
        (pruned, cost(&remote).gets - before)
    };
    lives(200).await;
    let (first, gets_first) = prunes(keep(150)).await;
    lives(20).await;
    let (second, gets_second) = prunes(keep(150)).await;
    println!(
        "first: {} read, {} known, {gets_first} GETs; second: {} read, {} known, {gets_second} GETs",
        first.read, first.known, second.read, second.known
    );
    lives(20).await;
    let (third, gets_third) = prunes(keep(20)).await;
    println!("third: {} read, {} known, {gets_third} GETs", third.read, third.known);
    assert_eq!(third.read, 0, "{third:?}");
    assert!(third.known >= 20);
    assert!(first.known + first.read >= 150 && second.known + second.read >= 150);
    sound(&machine).await;
}

/// What is doomed by what the change log knows is what is doomed by what lies in the object store, whatever was published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_prune_by_the_change_log_dooms_exactly_what_one_by_the_object_store_does() {
    for seed in 1..8 {
        let remote = Arc::new(MemoryRemote::new("same"));
        let mut machine = Machine::new(remote.clone());
        let mut chance = Chance(seed);
        let mut pages = Pages::new(4096, 300);
        for step in 0..40 + chance.below(60) {
            for _ in 0..=chance.below(5) {
                let at = chance.below(pages.pages.len() as u64) as usize;
                pages.write(at, chance.next());
            }
            match chance.below(12) {
                0 => pages.resize(120 + chance.below(200) as usize),
                1 => drop(pruned(&machine, How::default()).await),
                _ => {}
            }
            machine.checkpoint(&mut pages).await.unwrap();
            if step % 9 == 0 {
                let mut session = machine.open().await.unwrap();
                littoral_engine::exec::snapshot::write_snapshot(&mut session.writer, None).await.unwrap();
            }
        }
        let look = Options {
            keep: littoral_plan::KeepPolicy { last: 1 + chance.below(9), within_ms: 0 },
            grace_ms: 0,
            dry_run: true,
        };
        let known = {
            let mut session = machine.open().await.unwrap();
            prune(&mut session.writer, &look).await.unwrap()
        };
        machine.stores.manifest = Arc::new(MemoryManifest::new());
        let read = {
            let mut session = machine.open().await.unwrap();
            prune(&mut session.writer, &look).await.unwrap()
        };
        let bare = |pruned: Option<Pruned>| pruned.map(|pruned| Pruned { read: 0, known: 0, ..pruned });
        assert!(known.as_ref().is_none_or(|known| known.known > 0), "seed {seed}: {known:?}");
        assert_eq!(bare(known), bare(read), "seed {seed}");
    }
}

/// Dies once, where it is told to.
#[derive(Debug, Default)]
struct Dying(std::sync::Mutex<Option<&'static str>>);

impl Faults for Dying {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let mut armed = self.0.lock().unwrap();
        if *armed == Some(point) {
            *armed = None;
            return Err(Crash(point));
        }
        Ok(())
    }
}

/// Checkpoints alone: nothing is merged.
async fn bare_checkpoint(machine: &Machine, pages: &mut Pages) {
    let mut session = machine.open().await.unwrap();
    let done = checkpoint(&mut session.writer, &session.scratch, pages, &checkpoint::Options::default()).await;
    done.unwrap().unwrap();
}

fn packs(remote: &MemoryRemote) -> BTreeSet<String> {
    let folder = format!("/{}/", BlobKind::Pack.folder());
    paths(remote).into_iter().filter(|path| path.contains(&folder)).collect()
}

/// A volume with a pack of a hundred pages, of which ninety were written again.
async fn mostly_dead() -> (Arc<MemoryRemote>, Machine, Pages, BTreeSet<String>) {
    let remote = Arc::new(MemoryRemote::new("packs"));
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 2000);
    bare_checkpoint(&machine, &mut pages).await;
    (0..100).for_each(|at| pages.write(at, 1000 + at as u64));
    bare_checkpoint(&machine, &mut pages).await;
    let old = packs(&remote);
    assert_eq!(old.len(), 1);
    (0..90).for_each(|at| pages.write(at, 2000 + at as u64));
    bare_checkpoint(&machine, &mut pages).await;
    pruned(&machine, How::default()).await.unwrap();
    assert!(old.is_subset(&packs(&remote)), "a few of its pages live");
    (remote, machine, pages, old)
}

const ANY: RepackPolicy = RepackPolicy { dead_bytes_min: 1 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_what_lives_in_a_pack_that_is_mostly_dead_moves_and_the_pack_goes_with_a_prune() {
    let (remote, machine, mut pages, old) = mostly_dead().await;
    let mut session = machine.open().await.unwrap();
    let done = repack(&mut session.writer, &session.scratch, Compression::Zstd, ANY, &mut Nothing).await.unwrap();
    assert_eq!((done.packs, done.records), (1, 1), "{done:?}");
    assert!(done.dead > 0 && done.moved > 0 && done.moved < done.dead, "{done:?}");
    let again = repack(&mut session.writer, &session.scratch, Compression::Zstd, ANY, &mut Nothing).await.unwrap();
    assert_eq!((again.packs, again.records), (0, 0), "once is enough");
    drop(session);
    sound(&machine).await;
    newest_is(&machine, &pages).await;
    // States before the move need the old one until history begins after it.
    assert!(old.is_subset(&packs(&remote)));
    pages.write(1500, 1);
    bare_checkpoint(&machine, &mut pages).await;
    pruned(&machine, How::default()).await.unwrap();
    assert!(old.is_disjoint(&packs(&remote)), "it is gone");
    assert_eq!(sound(&machine).await.orphans, 0);
    newest_is(&machine, &pages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_out_of_a_pack_that_dies_at_any_named_point_changes_no_page_and_is_done_again() {
    for point in ["coalesce.uploaded", "publish.drafted", "publish.intended", "publish.landed", "publish.committed"] {
        let (remote, mut machine, mut pages, old) = mostly_dead().await;
        let dying = Arc::new(Dying::default());
        machine.components.faults = dying.clone();
        let mut session = machine.open().await.unwrap();
        *dying.0.lock().unwrap() = Some(point);
        let died = repack(&mut session.writer, &session.scratch, Compression::Zstd, ANY, &mut Nothing).await;
        assert!(matches!(died, Err(EngineError::Crash(_))), "{point}: {died:?}");
        drop(session);
        sound(&machine).await;
        newest_is(&machine, &pages).await;
        let mut session = machine.open().await.unwrap();
        repack(&mut session.writer, &session.scratch, Compression::Zstd, ANY, &mut Nothing).await.unwrap();
        drop(session);
        pages.write(1500, 1);
        bare_checkpoint(&machine, &mut pages).await;
        pruned(&machine, How::default()).await.unwrap();
        assert!(old.is_disjoint(&packs(&remote)), "{point}");
        assert_eq!(sound(&machine).await.orphans, 0, "{point}");
        newest_is(&machine, &pages).await;
    }
}

/// All parts of a pass, and in how many.
async fn by_parts(machine: &Machine, bytes: u64) -> (Verified, usize) {
    let (mut all, mut cursor, mut parts) = (Verified::default(), None, 0);
    loop {
        let (found, next) = verify_part(&machine.log(), &machine.components, cursor.as_deref(), bytes).await.unwrap();
        parts += 1;
        all.blobs += found.blobs;
        all.pages += found.pages;
        all.records += found.records;
        all.problems.extend(found.problems);
        if next.is_none() {
            return (all, parts);
        }
        assert!(next > cursor || cursor.is_none(), "it goes on");
        cursor = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_in_parts_reads_every_blob_once_and_misses_no_damage() {
    let remote = Arc::new(MemoryRemote::new("parts"));
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 3000);
    for value in 0..12 {
        (0..40).for_each(|at| pages.write(at * 60 + value as usize, 7000 + value));
        bare_checkpoint(&machine, &mut pages).await;
    }
    let blobs = |path: &String| BlobKind::ALL.iter().any(|kind| path.contains(&format!("/{}/", kind.folder())));
    let there: Vec<String> = paths(&remote).into_iter().filter(blobs).collect();
    for (bytes, many) in [(u64::MAX, false), (20_000, true), (1, true)] {
        let (found, parts) = by_parts(&machine, bytes).await;
        assert_eq!(found.problems, Vec::<String>::new());
        assert_eq!(found.blobs, there.len() as u64, "{bytes}");
        assert_eq!(parts > 1, many, "{bytes}: {parts} parts");
    }
    let whole = remote.objects();
    for victim in &there {
        let path = ObjectPath::parse(victim).unwrap();
        let (_, right) = whole.iter().find(|(other, _)| *other == path).unwrap();
        let mut wrong = right.to_vec();
        let middle = wrong.len() / 2;
        wrong[middle] ^= 4;
        remote.put(&path, wrong.into()).await.unwrap();
        let (found, _) = by_parts(&machine, 20_000).await;
        assert!(found.problems.iter().any(|problem| problem.contains(victim)), "a flipped bit in {victim}");
        remote.delete(std::slice::from_ref(&path)).await.unwrap();
        let (found, _) = by_parts(&machine, 20_000).await;
        assert!(found.problems.iter().any(|problem| problem.contains(victim)), "{victim} is gone");
        remote.put(&path, right.clone()).await.unwrap();
    }
}

fn order(folder: &Path, examined: Examined) -> Order {
    Order {
        folder: folder.join("drill"),
        probe: Some("SELECT 1".to_owned()),
        examine: Arc::new(move |copy, probe| {
            assert_eq!(probe, Some("SELECT 1"));
            assert!(copy.exists());
            Ok(examined.clone())
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_says_up_to_where_a_restore_works_and_leaves_nothing_behind() {
    let remote = Arc::new(MemoryRemote::new("drill"));
    let mut machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 50);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fine = || order(folder.path(), Examined { problems: Vec::new(), answer: Some("1".to_owned()) });
    let left = || std::fs::read_dir(folder.path()).unwrap().count();
    // What an earlier one left is in nobody's way.
    std::fs::create_dir_all(folder.path().join("drill/copy.db")).unwrap();
    let Drill::Held(held) = drill(&machine.log(), &machine.components, fine()).await.unwrap() else {
        panic!("skipped")
    };
    assert_eq!(held.position.map(|position| position.to_string()).as_deref(), Some("1.1"));
    assert_eq!((held.bytes, held.answer.as_deref(), left()), (50 * 4096, Some("1"), 0));
    assert_eq!(held.problems, Vec::<String>::new());
    // What SQLite says is wrong is what is wrong.
    let bad = order(folder.path(), Examined { problems: vec!["row 7 missing from index".to_owned()], answer: None });
    let Drill::Held(held) = drill(&machine.log(), &machine.components, bad).await.unwrap() else { panic!("skipped") };
    assert_eq!((held.problems, left()), (vec!["row 7 missing from index".to_owned()], 0));
    // No room: nothing is done.
    let requests = machine.components.quota.clone();
    machine.components.quota = Arc::new(LocalQuota::new("store", 50 * 4096 - 1));
    let skipped = drill(&machine.log(), &machine.components, fine()).await.unwrap();
    assert!(matches!(&skipped, Drill::Skipped(why) if why.contains("no room") && why.contains("quota")), "{skipped:?}");
    assert_eq!(machine.components.quota.used(), 0, "what was asked for is given back");
    machine.components.quota = requests;
    // A blob that is damaged proves nothing.
    let chunk = paths(&remote).into_iter().find(|path| path.contains("/chunk/")).unwrap();
    remote.delete(&[ObjectPath::parse(&chunk).unwrap()]).await.unwrap();
    let Drill::Held(held) = drill(&machine.log(), &machine.components, fine()).await.unwrap() else {
        panic!("skipped")
    };
    assert!(held.problems[0].contains("cannot be restored"), "{held:?}");
    assert_eq!((held.position, left()), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_of_what_is_not_there_or_holds_nothing_yet_is_said_to_be_so() {
    let remote = Arc::new(MemoryRemote::new("empty"));
    let machine = Machine::new(remote);
    let folder = tempfile::tempdir().unwrap();
    let done = drill(&machine.log(), &machine.components, order(folder.path(), Examined::default())).await;
    assert!(matches!(done, Err(EngineError::NoVolume(_))), "{done:?}");
    drop(machine.open().await.unwrap());
    let done = drill(&machine.log(), &machine.components, order(folder.path(), Examined::default())).await;
    assert!(matches!(&done, Ok(Drill::Skipped(why)) if why.contains("nothing was published")), "{done:?}");
}

/// A disk that takes its time with everything: each named point comes after something durable.
#[derive(Debug)]
struct SlowDisk;

impl Faults for SlowDisk {
    fn reach(&self, _: &'static str) -> Result<(), Crash> {
        std::thread::sleep(std::time::Duration::from_millis(25));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_everything_slower_and_nothing_wrong() {
    let remote = Arc::new(MemoryRemote::new("slow"));
    let mut machine = Machine::new(remote.clone());
    machine.components.faults = Arc::new(SlowDisk);
    let mut pages = Pages::new(4096, 400);
    for value in 0..8 {
        (0..30).for_each(|at| pages.write(at * 9, 40 + value));
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
    }
    let mut session = machine.open().await.unwrap();
    repack(&mut session.writer, &session.scratch, Compression::Zstd, ANY, &mut Nothing).await.unwrap();
    drop(session);
    pruned(&machine, How::default()).await.unwrap();
    assert_eq!(sound(&machine).await.orphans, 0);
    newest_is(&machine, &pages).await;
}
