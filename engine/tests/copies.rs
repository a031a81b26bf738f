//! A copy that is cut off before any write of its own: always a state that the volume had, gone on with, nothing sent twice.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

mod rig;

use async_trait::async_trait;
use bytes::Bytes;
use littoral_engine::copies::{Sides, Spooling, promote};
use littoral_engine::exec::prune::{Options, prune};
use littoral_engine::exec::replicate::{Order, Replicated, Standing, mark_of, replicate};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::{EngineError, Spool};
use littoral_ports::{BlobBody, MemoryRemote, Remote, RemoteError, passes_on};
use littoral_types::{CopyMark, CopyState, ObjectPath, VolumeName};
use rig::{Machine, Pages, components, counted, log};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Takes so many more writes, and is away then; remembers which blobs were sent how often.
#[derive(Debug)]
struct Stops {
    inner: Arc<MemoryRemote>,
    left: AtomicUsize,
    sent: Mutex<BTreeMap<String, usize>>,
}

impl Stops {
    fn new(name: &str) -> Arc<Self> {
        let inner = Arc::new(MemoryRemote::new(name));
        Arc::new(Self { inner, left: AtomicUsize::new(0), sent: Mutex::default() })
    }

    fn writes(&self) -> Result<(), RemoteError> {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let away = |_| RemoteError::Unavailable { what: self.url(), tries: 1, detail: "away".to_owned() };
        taken.map(drop).map_err(away)
    }
}

#[async_trait]
impl Remote for Stops {
    passes_on!(inner: get, get_range, get_suffix, size, list, url, distrust, copies);

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.writes()?;
        self.inner.put(path, bytes).await
    }
    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.writes()?;
        self.inner.put_new(path, bytes).await
    }
    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.writes()?;
        *self.sent.lock().unwrap().entry(path.to_string()).or_default() += 1;
        self.inner.upload(path, body).await
    }
    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        // One by one, so that it may be away in the middle.
        for path in paths {
            if self.inner.size(path).await.is_err() {
                continue;
            }
            self.writes()?;
            self.inner.delete(std::slice::from_ref(path)).await?;
        }
        Ok(())
    }
}

/// What a volume was, by its commits.
type States = BTreeMap<u64, Vec<u8>>;

async fn lives(machine: &Machine, pages: &mut Pages, states: &mut States, count: u64) {
    for _ in 0..count {
        let nth = states.len() as u64;
        pages.write(nth as usize % pages.pages.len(), 1_000 + nth);
        machine.checkpoint(pages).await.unwrap().unwrap();
        let row = machine.open().await.unwrap().writer.row().clone();
        states.insert(row.tail.lsn.0, pages.pages.concat());
    }
}

/// The copy's newest state is one that the volume had. Its commit; `None` where it holds nothing yet.
async fn holds(copy: &Arc<MemoryRemote>, states: &States, what: &str) -> Option<u64> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("copy.db");
    match restore(&log(copy.clone()), &components(), &At::Newest, &file, false).await {
        Ok(restored) => {
            let lsn = restored.position.lsn.0;
            assert!(std::fs::read(&file).unwrap() == states[&lsn], "{what}: not what the volume was at {lsn}");
            Some(lsn)
        }
        Err(EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. }) => None,
        Err(error) => panic!("{what}: {error}"),
    }
}

struct Copying<'a> {
    machine: &'a Machine,
    to: Arc<Stops>,
    spool: Spool,
    standing: Option<Standing>,
}

impl Copying<'_> {
    async fn once(&mut self) -> Result<Replicated, EngineError> {
        let (from, to) = (self.machine.log(), log(self.to.clone()));
        let row = self.machine.open().await.unwrap().writer.row().clone();
        let order = Order {
            from: &from,
            row: Some(&row),
            seen: None,
            to: &to,
            spool: &self.spool,
            file: None,
            others: &[],
            grace_ms: 0,
        };
        replicate(&order, &components(), &mut self.standing).await
    }

    /// With so many writes at a time, until it is done. Where `fills`, nobody may be served before it is.
    async fn step_by_step(&mut self, step: usize, states: &States, may_be_unreadable: bool) {
        let mut last = None;
        for turn in 0.. {
            assert!(turn < 2_000, "it never ends");
            self.to.left.store(step, Ordering::SeqCst);
            let done = self.once().await;
            let what = format!("turn {turn} of {step} writes");
            if may_be_unreadable && done.is_err() {
                // What is being filled says so, and nobody is served from it.
                let empty: Arc<dyn Remote> = Arc::new(MemoryRemote::new("empty"));
                let (volume, clock) = ("app.db".parse().unwrap(), components().clock);
                let sides = Arc::new(Sides::new(empty, vec![self.to.inner.clone()], volume, clock));
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("copy.db");
                match restore(&log(sides), &components(), &At::Newest, &file, false).await {
                    Ok(restored) => {
                        assert!(std::fs::read(&file).unwrap() == states[&restored.position.lsn.0], "{what}");
                    }
                    Err(EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. }) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
            } else {
                let lsn = holds(&self.to.inner, states, &what).await;
                assert!(lsn >= last, "{what}: it went back from {last:?} to {lsn:?}");
                last = lsn;
            }
            match done {
                Ok(_) => break,
                Err(EngineError::Remote(RemoteError::Unavailable { .. })) => {}
                Err(error) => panic!("{what}: {error}"),
            }
            if turn % 3 == 2 {
                // Another process goes on.
                self.standing = None;
            }
        }
        assert_eq!(holds(&self.to.inner, states, "at the end").await, states.keys().last().copied());
        let found = verify(&log(self.to.inner.clone()), &components()).await.unwrap();
        assert_eq!(found.problems, Vec::<String>::new());
        let sent = self.to.sent.lock().unwrap();
        let twice: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "sent twice: {twice:?}");
    }
}

fn names(remote: &MemoryRemote) -> BTreeSet<String> {
    let names = remote.objects().into_iter().map(|(path, _)| path.to_string());
    let is_of_both =
        |name: &String| ["/log/", "/chunk/", "/pack/", "/seg/", "/pins/"].iter().any(|folder| name.contains(folder));
    names.filter(is_of_both).collect()
}

fn newest_only() -> Options {
    Options { grace_ms: 0, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_copy_that_is_cut_off_before_any_write_is_a_prefix_goes_on_and_sends_nothing_twice() {
    for step in [1, 7] {
        let remote = Arc::new(MemoryRemote::new("primary"));
        let machine = Machine::new(remote.clone());
        let (mut pages, mut states) = (Pages::new(4096, 12), States::new());
        // Beyond an index record and a manifest snapshot.
        lives(&machine, &mut pages, &mut states, 50).await;
        let to = Stops::new("copy");
        let spool = Spool::at(machine.dir.path().join("spool"), u64::MAX);
        let mut copying = Copying { machine: &machine, to: to.clone(), spool, standing: None };
        copying.step_by_step(step, &states, false).await;
        assert_eq!(names(&to.inner), names(&remote), "{step}");

        // What a prune has doomed goes there, too, and in between it is whole.
        let mut session = machine.open().await.unwrap();
        prune(&mut session.writer, &newest_only()).await.unwrap().unwrap();
        drop(session);
        copying.step_by_step(step, &states, false).await;
        lives(&machine, &mut pages, &mut states, 3).await;
        copying.step_by_step(step, &states, false).await;
        assert!(names(&to.inner).is_subset(&names(&remote)), "left over after a prune, {step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p01_a_copy_that_is_filled_serves_nobody_before_it_is_whole() {
    for step in [1, 3] {
        let remote = Arc::new(MemoryRemote::new("pruned"));
        let machine = Machine::new(remote.clone());
        let (mut pages, mut states) = (Pages::new(4096, 12), States::new());
        lives(&machine, &mut pages, &mut states, 9).await;
        let to = Stops::new("filled");
        let spool = Spool::at(machine.dir.path().join("spool"), u64::MAX);
        let mut copying = Copying { machine: &machine, to: to.clone(), spool, standing: None };
        if step == 3 {
            // One that had followed for a while.
            copying.step_by_step(50, &states, false).await;
        }
        lives(&machine, &mut pages, &mut states, 9).await;
        let mut session = machine.open().await.unwrap();
        prune(&mut session.writer, &newest_only()).await.unwrap().unwrap();
        drop(session);
        lives(&machine, &mut pages, &mut states, 2).await;
        copying.standing = None;
        copying.step_by_step(step, &states, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_uploaded_is_copied_without_reading_the_primary() {
    let primary = counted(Arc::new(MemoryRemote::new("spooled")));
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::at(folder.path().join("spool"), u64::MAX);
    let machine = Machine::new(Arc::new(Spooling::new(primary.clone(), spool.clone(), Vec::new())));
    let (mut pages, mut states) = (Pages::new(4096, 300), States::new());
    let to = Stops::new("copy");
    to.left.store(usize::MAX, Ordering::SeqCst);
    let mut copying = Copying { machine: &machine, to: to.clone(), spool: spool.clone(), standing: None };
    for _ in 0..4 {
        lives(&machine, &mut pages, &mut states, 5).await;
        let row = machine.open().await.unwrap().writer.row().clone();
        let (from, copy) = (machine.log(), log(to.clone()));
        let order = Order {
            from: &from,
            row: Some(&row),
            seen: None,
            to: &copy,
            spool: &spool,
            file: None,
            others: &[],
            grace_ms: 0,
        };
        let before = primary.totals().all().bytes_down;
        let did = replicate(&order, &components(), &mut copying.standing).await.unwrap();
        assert!(did.records >= 5 && did.blobs >= 5, "{did:?}");
        assert_eq!((did.fetched, primary.totals().all().bytes_down - before), (0, 0), "{did:?}");
        assert_eq!(holds(&to.inner, &states, "spooled").await, states.keys().last().copied());
    }
    // What everybody has is let go of; what no record names yet stays for the next one.
    let (files, _) = spool.taken().unwrap();
    assert!(files <= 3, "{files} files stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p03_whoever_copied_to_a_place_before_it_was_promoted_neither_writes_nor_deletes_there_after() {
    let remote = Arc::new(MemoryRemote::new("left"));
    let machine = Machine::new(remote.clone());
    let (mut pages, mut states) = (Pages::new(4096, 12), States::new());
    lives(&machine, &mut pages, &mut states, 6).await;
    let to = Stops::new("promoted");
    to.left.store(usize::MAX, Ordering::SeqCst);
    let spool = Spool::at(machine.dir.path().join("spool"), u64::MAX);
    let mut copying = Copying { machine: &machine, to: to.clone(), spool: spool.clone(), standing: None };
    copying.once().await.unwrap();
    assert!(copying.standing.is_some());
    let away = |_: &CopyMark, _: &VolumeName| Err(EngineError::Refused("away".to_owned()));
    let done = promote(&log(to.clone()), &away, &spool, &components(), true).await.unwrap();
    assert!(!done.fenced && !done.was_promoted);
    let there = to.inner.objects();
    lives(&machine, &mut pages, &mut states, 2).await;
    let mut session = machine.open().await.unwrap();
    prune(&mut session.writer, &newest_only()).await.unwrap().unwrap();
    drop(session);
    // What was known of the copy is not asked again; that it is one is.
    for _ in 0..2 {
        match copying.once().await {
            Err(EngineError::Refused(why)) => assert!(why.contains("was promoted"), "{why}"),
            done => panic!("{done:?}"),
        }
    }
    assert!(to.inner.objects() == there, "something was written or deleted at a volume of its own");
    assert!(promote(&log(to.clone()), &away, &spool, &components(), true).await.unwrap().was_promoted);
}

/// A primary whose listings name a manifest snapshot that it has lost.
#[derive(Debug)]
struct Lists(Arc<MemoryRemote>);

#[async_trait]
impl Remote for Lists {
    passes_on!(0: get_range, get_suffix, size, put, put_new, upload, list, delete, url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        match path.as_str().contains("/snap/") {
            true => Err(RemoteError::Missing { path: path.to_string() }),
            false => self.0.get(path).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_not_whole_without_the_manifest_snapshot_that_it_begins_with() {
    let remote = Arc::new(MemoryRemote::new("holey"));
    let machine = Machine::new(remote.clone());
    let (mut pages, mut states) = (Pages::new(4096, 12), States::new());
    lives(&machine, &mut pages, &mut states, 9).await;
    let mut session = machine.open().await.unwrap();
    prune(&mut session.writer, &newest_only()).await.unwrap().unwrap();
    let row = session.writer.row().clone();
    drop(session);
    let to = Stops::new("begun");
    to.left.store(usize::MAX, Ordering::SeqCst);
    let spool = Spool::at(machine.dir.path().join("spool"), u64::MAX);
    let (from, copy) = (log(Arc::new(Lists(remote))), log(to.clone()));
    let order = Order {
        from: &from,
        row: Some(&row),
        seen: None,
        to: &copy,
        spool: &spool,
        file: None,
        others: &[],
        grace_ms: 0,
    };
    let mut standing = None;
    let done = replicate(&order, &components(), &mut standing).await;
    assert!(matches!(done, Err(EngineError::Interrupted(_))), "{done:?}");
    let mark = mark_of(&copy).await.unwrap().unwrap();
    assert!(matches!(mark.state, CopyState::Fills(_)), "nobody may be served from it: {mark:?}");
    let mut copying = Copying { machine: &machine, to, spool, standing: None };
    copying.step_by_step(50, &states, true).await;
}
