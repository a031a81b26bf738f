//! Pages read one by one from a machine that has nothing: every page of every state is the one that a restore gives, in few
//! requests, and what is damaged or gone is said, never made up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use bytes::Bytes;
use littoral_engine::EngineError;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::At;
use littoral_engine::exec::snapshot::write_snapshot;
use littoral_engine::lazy::{Budget, Held, Lazy};
use littoral_engine::log::pins::Wish;
use littoral_plan::KeepPolicy;
use littoral_ports::{MemoryRemote, Remote, RemoteError};
use littoral_types::{Lsn, ObjectPath, PageNo, PinPurpose};
use rig::{Chance, Machine, Pages, components, cost, counted, log};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn all(pages: &Pages) -> Vec<PageNo> {
    (0..pages.pages.len() as u64).map(PageNo::from_index).collect()
}

async fn lazy(remote: Arc<dyn Remote>, at: &At) -> Lazy {
    Lazy::open(&log(remote), &components(), at).await.unwrap()
}

/// As a large database is read: its rows stay in their shards.
async fn by_shards(remote: Arc<dyn Remote>) -> Lazy {
    let mut opened = log(remote.clone()).open().await.unwrap().unwrap();
    opened.snapshot.iter_mut().for_each(|snapshot| snapshot.rows.clear());
    Lazy::from_opened(&log(remote), &components(), &At::Newest, opened).unwrap()
}

/// Every page, in few requests, in steps of a budget.
async fn same_at_once(lazy: &Lazy, expected: &Pages, budget: Budget, what: &str) {
    assert_eq!(lazy.page_count().0, expected.pages.len() as u64, "{what}");
    let mut left = all(expected);
    let mut seen = BTreeMap::new();
    while !left.is_empty() {
        let fetched = lazy.fetch_many(&left, budget).await.unwrap();
        assert!(fetched.left.len() < left.len(), "{what}: no step forward");
        for frame in &fetched.frames {
            for (page, image) in &frame.pages {
                assert!(image[..] == *expected.page(*page), "{what}: page {page}");
                seen.insert(*page, ());
            }
        }
        left = fetched.left;
    }
    assert_eq!(seen.len(), expected.pages.len(), "{what}");
}

async fn same_one_by_one(lazy: &Lazy, expected: &Pages, what: &str) {
    for page in all(expected) {
        let frame = lazy.fetch(page).await.unwrap();
        assert!(frame.page(page).is_some_and(|image| image[..] == *expected.page(page)), "{what}: page {page}");
        for (other, image) in &frame.pages {
            assert!(image[..] == *expected.page(*other), "{what}: page {other}, which came along with page {page}");
        }
    }
    let beyond = PageNo::from_index(expected.pages.len() as u64);
    assert!(lazy.fetch(beyond).await.is_err() && lazy.fetch_many(&[beyond], Budget::default()).await.is_err());
}

/// A history of growing, shrinking, reshaping, coalescing and pruning; each state is read as it was.
async fn history(remote: Arc<dyn Remote>, seed: u64, steps: u64) {
    let machine = Machine::new(remote.clone());
    let mut chance = Chance(seed);
    let mut pages = Pages::new(65536, 1100);
    let mut states: BTreeMap<Lsn, Pages> = BTreeMap::new();
    for step in 0..steps {
        match chance.below(12) {
            0 => pages.resize(100 + chance.below(1000) as usize),
            1 => pages.resize(pages.pages.len() + chance.below(900) as usize),
            2 => {
                let at = chance.below(pages.pages.len() as u64) as usize;
                pages.pages[at].fill(0);
            }
            3 if step % 5 == 4 => pages = Pages::new(if pages.page_size.bytes() == 65536 { 32768 } else { 65536 }, 700),
            _ => {}
        }
        for _ in 0..=chance.below(6) {
            let at = chance.below(pages.pages.len() as u64) as usize;
            pages.write(at, chance.next());
        }
        let done = machine.checkpoint(&mut pages).await.unwrap();
        if let Some(done) = done {
            states.insert(done.position.lsn, pages.clone());
        }
        if chance.below(9) == 0 {
            let mut session = machine.open().await.unwrap();
            write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
        }
        if chance.below(14) == 0 {
            let mut session = machine.open().await.unwrap();
            let options = prune::Options { keep: KeepPolicy { last: 6, within_ms: 0 }, grace_ms: 0, dry_run: false };
            if let Some(pruned) = prune(&mut session.writer, &options).await.unwrap() {
                let history = machine
                    .log()
                    .history(&machine.log().glance().await.unwrap().unwrap(), littoral_types::Seq(u64::MAX), usize::MAX)
                    .await
                    .unwrap();
                let kept: Vec<Lsn> =
                    history.iter().filter(|record| record.seq >= pruned.floor).map(|record| record.lsns.last).collect();
                states.retain(|lsn, _| kept.contains(lsn));
            }
        }
        // The newest state, page by page, now and then: skeletons and records since the manifest snapshot are part of it.
        if step % 6 == 0 {
            let reader = lazy(remote.clone(), &At::Newest).await;
            same_one_by_one(&reader, &pages, &format!("seed {seed}, step {step}, newest")).await;
            reader.close().await;
        }
    }
    for (lsn, expected) in &states {
        let reader = lazy(remote.clone(), &At::Lsn(*lsn)).await;
        assert_eq!((reader.position().lsn, reader.page_size()), (*lsn, expected.page_size));
        let budget = Budget { bytes: 1 + chance.below(400_000), in_flight: 4 };
        same_at_once(&reader, expected, budget, &format!("seed {seed}, LSN {lsn}")).await;
        reader.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_every_page_of_every_state_is_read_as_it_was() {
    let seeds = std::env::var("LITTORAL_LAZY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        history(Arc::new(MemoryRemote::new(&format!("history-{seed}"))), seed, 30).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_read_from_a_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    history(folder(dir.path()), 77, 14).await;
}

fn folder(dir: &Path) -> Arc<dyn Remote> {
    let url = littoral_remote::directory_url(dir).unwrap();
    let components = components();
    littoral_remote::open(&url, &littoral_remote::RemoteSettings::default(), components.clock, components.entropy)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_costs_three_round_trips_on_an_empty_machine_and_few_bytes() {
    let inner: Arc<dyn Remote> = Arc::new(MemoryRemote::new("cost"));
    let machine = Machine::new(inner.clone());
    let mut pages = Pages::new(4096, 40_000);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let remote = counted(inner);
    let reader = lazy(remote.clone(), &At::Newest).await;
    assert_eq!(reader.held().await, Held::Pinned);
    let opening = cost(&remote);
    println!("opening, its pin included: {opening:?}");
    // The head and the newest name at once; the pin's own requests come after and nobody waits for them.
    assert!(remote.exchanges().len() <= 2 + 3, "{:?}", remote.exchanges());
    remote.reset();
    reader.fetch(page(33_333)).await.unwrap();
    let query = cost(&remote);
    println!("a page: {query:?}");
    // Its rows travel with the head: one round trip less than for a large one.
    assert!(query.depth <= 1 && query.gets <= 1 && query.down < 64 << 10, "{query:?}");
    let large = by_shards(remote.clone()).await;
    large.held().await;
    remote.reset();
    large.fetch(page(33_333)).await.unwrap();
    let query = cost(&remote);
    println!("a page of a large one: {query:?}");
    assert!(query.depth <= 2 && query.gets <= 2 && query.down < 64 << 10, "{query:?}");
    remote.reset();
    large.fetch(page(33_300)).await.unwrap();
    assert_eq!(cost(&remote).gets, 1, "the row is known");
    remote.reset();
    let mut scanned = 0;
    let scan: Vec<PageNo> = (1..=25_000).map(page).collect();
    for frame in reader.fetch_many(&scan, Budget::default()).await.unwrap().frames {
        scanned += frame.pages.len();
    }
    let scan = cost(&remote);
    println!("{scanned} pages at once: {scan:?}");
    assert!(scan.requests <= 20 && scan.depth <= 3, "{scan:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_readers_of_one_frame_are_one_request() {
    let inner: Arc<dyn Remote> = Arc::new(MemoryRemote::new("flight"));
    let machine = Machine::new(inner.clone());
    let mut pages = Pages::new(4096, 20_000);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let remote = counted(inner);
    let reader = by_shards(remote.clone()).await;
    reader.held().await;
    remote.reset();
    let first = reader.fetch(page(5_000)).await.unwrap();
    let warm = cost(&remote).gets;
    remote.reset();
    // Sixty-four of a frame, half of them going away before it comes.
    let target: Vec<PageNo> = reader.fetch(page(9_000)).await.unwrap().pages.iter().map(|(page, _)| *page).collect();
    assert_eq!((cost(&remote).gets, target.len(), first.pages.len()), (1, 16, 16));
    remote.reset();
    let readers: Vec<_> = (0..64usize)
        .map(|at| {
            let (reader, page) = (reader.clone(), target[at % target.len()]);
            tokio::spawn(async move {
                let fetch = reader.fetch(page);
                if at % 2 == 1 {
                    let _ = tokio::time::timeout(std::time::Duration::from_micros(300), fetch).await;
                    return None;
                }
                Some((page, fetch.await.unwrap()))
            })
        })
        .collect();
    let mut answered = 0;
    for reader in readers {
        if let Some((page, frame)) = reader.await.unwrap() {
            assert!(frame.page(page).unwrap()[..] == *pages.page(page));
            answered += 1;
        }
    }
    assert_eq!((answered, cost(&remote).gets), (32, 1));
    assert!(warm <= 2);
    // Rows too: nobody has the second chunk's yet.
    remote.reset();
    let readers: Vec<_> = (0..64u64)
        .map(|at| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.fetch(page(17_000 + at % 8)).await.unwrap() })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(cost(&remote).gets <= 3, "one row, and one or two frames: {:?}", cost(&remote));
}

fn blobs(remote: &MemoryRemote, folder: &str) -> Vec<(ObjectPath, Bytes)> {
    remote.objects().into_iter().filter(|(path, _)| path.as_str().contains(folder)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_gone_is_named_and_never_read_as_something_else() {
    let remote = Arc::new(MemoryRemote::new("damage"));
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 20_000);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let mut session = machine.open().await.unwrap();
    write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    drop(session);
    pages.write(40, 4711);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let wanted = page(41);
    let chance = &mut Chance(5);
    for folder in ["/chunk/", "/pack/", "/shard/"] {
        for (path, good) in blobs(&remote, folder) {
            let others: Vec<Bytes> = blobs(&remote, folder)
                .into_iter()
                .filter(|(other, _)| *other != path)
                .map(|(_, bytes)| bytes)
                .collect();
            for attempt in 0..30 {
                let mut bad = good.to_vec();
                match attempt % 4 {
                    0 => bad.truncate(chance.below(bad.len() as u64) as usize),
                    1 if !others.is_empty() => bad = others[chance.below(others.len() as u64) as usize].to_vec(),
                    _ => {
                        let at = chance.below(bad.len() as u64) as usize;
                        bad[at] ^= 1 << chance.below(8);
                    }
                }
                remote.tamper(&path, bad.into());
                let reader = by_shards(remote.clone()).await;
                for wanted in [wanted, page(1 + chance.below(20_000))] {
                    match reader.fetch(wanted).await {
                        Ok(frame) => {
                            for (page, image) in &frame.pages {
                                assert!(image[..] == *pages.page(*page), "{path}: page {page} is wrong");
                            }
                        }
                        Err(error) => {
                            let text = error.to_string();
                            assert!(text.contains(folder.trim_matches('/')), "{path}: {text}");
                        }
                    }
                }
                reader.close().await;
            }
            remote.tamper(&path, good);
        }
    }
    // The rows of an earlier state in the place of the newest: as long, whole, and wrong.
    let mut session = machine.open().await.unwrap();
    for value in [4712, 4713] {
        pages.write(40, value);
        let options = littoral_engine::exec::checkpoint::Options::default();
        littoral_engine::exec::checkpoint::checkpoint(&mut session.writer, &session.scratch, &mut pages, &options)
            .await
            .unwrap();
        write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    }
    drop(session);
    let newest = log(remote.clone()).open().await.unwrap().unwrap().snapshot.unwrap();
    let name = newest.shards[0].blob.name.to_string();
    let shards = blobs(&remote, "/shard/");
    let (path, good) = shards.iter().find(|(path, _)| path.as_str().ends_with(&name)).unwrap().clone();
    let mut wrong = 0;
    for (_, other) in shards.iter().filter(|(other, _)| *other != path) {
        remote.tamper(&path, other.clone());
        let error = by_shards(remote.clone()).await.fetch(wanted).await;
        wrong += u32::from(error.is_err_and(|error| error.to_string().contains("shard")));
    }
    assert_eq!(wrong, shards.len() as u32 - 1);
    remote.tamper(&path, good);
    // Gone altogether: the error names the object.
    let opened = log(remote.clone()).open().await.unwrap().unwrap();
    let rows = littoral_engine::exec::rebuild::rows(&log(remote.clone()), &opened).await.unwrap();
    let holder = rows[&littoral_types::ChunkId(0)].find(wanted).unwrap().blob.name.to_string();
    let packs = blobs(&remote, "/pack/");
    let (path, good) = packs.into_iter().find(|(path, _)| path.as_str().ends_with(&holder)).unwrap();
    remote.delete(std::slice::from_ref(&path)).await.unwrap();
    let reader = lazy(remote.clone(), &At::Newest).await;
    let error = reader.fetch(wanted).await.unwrap_err();
    assert!(
        matches!(&*error, EngineError::Remote(RemoteError::Missing { path: named }) if *named == path.to_string()),
        "{error}"
    );
    // What failed for one is no obstacle for the next.
    remote.tamper(&path, good);
    assert!(reader.fetch(wanted).await.unwrap().page(wanted).unwrap()[..] == *pages.page(wanted));
    // A page that no version holds is never zeros.
    let (path, _) = blobs(&remote, "/head").remove(0);
    remote.delete(&[path]).await.unwrap();
    let mut opened = log(remote.clone()).open().await.unwrap().unwrap();
    let snapshot = opened.snapshot.as_mut().unwrap();
    (snapshot.shards, snapshot.rows) = (Vec::new(), Vec::new());
    let reader = Lazy::from_opened(&log(remote), &components(), &At::Newest, opened).unwrap();
    let error = reader.fetch(page(19_000)).await.unwrap_err();
    assert!(error.to_string().contains("page 19000 of chunk 1 is in no version"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p02_a_reader_whose_blobs_were_coalesced_and_pruned_reads_the_same_state_elsewhere() {
    let remote = Arc::new(MemoryRemote::new("coalesced"));
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 3_000);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let mut session = machine.open().await.unwrap();
    write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    let options = littoral_engine::exec::checkpoint::Options::default();
    for round in 0..3 {
        pages.write(100 + round, 9_000 + round as u64);
        littoral_engine::exec::checkpoint::checkpoint(&mut session.writer, &session.scratch, &mut pages, &options)
            .await
            .unwrap()
            .unwrap();
    }
    // Three deltas; nobody has coalesced them yet.
    let reader = lazy(remote.clone(), &At::Newest).await;
    assert_eq!(reader.held().await, Held::Pinned);
    assert!(reader.fetch(page(101)).await.unwrap().page(page(101)).unwrap()[..] == *pages.page(page(101)));
    let done = littoral_engine::exec::coalesce::coalesce(
        &mut session.writer,
        &session.scratch,
        None,
        littoral_types::Compression::Zstd,
    );
    assert_eq!(done.await.unwrap().deltas, 3);
    write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
    prune(&mut session.writer, &options).await.unwrap();
    // The pin keeps the state, not the manifest snapshot that it was read from: another stands at it now.
    let far = page(2_999);
    assert!(reader.fetch(far).await.unwrap().page(far).unwrap()[..] == *pages.page(far));
    reader.close().await;
    assert!(blobs(&remote, "/pins/").is_empty());
    // A reader that has read no row yet; then the manifest snapshot that it started from goes, and so do the deltas that were
    // merged.
    let late = lazy(remote.clone(), &At::Lsn(reader.position().lsn)).await;
    late.close().await;
    prune(&mut session.writer, &options).await.unwrap();
    let named: Vec<String> = session
        .writer
        .manifest()
        .rows(&session.writer.row().meta.id, littoral_types::ChunkId(0), 9)
        .unwrap()
        .iter()
        .flat_map(|row| row.blobs().map(|blob| blob.name.to_string()).collect::<Vec<_>>())
        .collect();
    let merged: Vec<ObjectPath> = blobs(&remote, "/pack/")
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !named.iter().any(|name| path.as_str().ends_with(name.as_str())))
        .collect();
    assert_eq!(merged.len(), 3);
    remote.delete(&merged).await.unwrap();
    for reader in [late, reader] {
        for round in 0..3u64 {
            let wanted = page(101 + round);
            assert!(reader.fetch(wanted).await.unwrap().page(wanted).unwrap()[..] == *pages.page(wanted));
        }
        same_at_once(&reader, &pages, Budget::default(), "from the coalesced state").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_snapshot_is_read_without_a_pin_of_ones_own() {
    let remote = Arc::new(MemoryRemote::new("named"));
    let machine = Machine::new(remote.clone());
    let mut pages = Pages::new(4096, 500);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let then = pages.clone();
    let mut session = machine.open().await.unwrap();
    write_snapshot(&mut session.writer, Some(&mut pages)).await.unwrap();
    let opened = machine.log().open().await.unwrap().unwrap();
    let wish = Wish { purpose: PinPurpose::Snapshot("then".parse().unwrap()), holder: String::new(), life_ms: None };
    machine.log().pin(&machine.components, &opened, wish).await.unwrap().unwrap();
    drop(session);
    for round in 0..5 {
        pages.write(round, 77 + round as u64);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
    }
    let reader = lazy(remote.clone(), &At::Snapshot("then".parse().unwrap())).await;
    assert_eq!(reader.held().await, Held::Named);
    same_one_by_one(&reader, &then, "named").await;
    let newest = lazy(remote, &At::Newest).await;
    same_one_by_one(&newest, &pages, "newest").await;
}
