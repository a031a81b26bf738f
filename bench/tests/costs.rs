//! Cost follows change (I12): requests and bytes, counted, on real databases. `bench/README.md` has the figures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::{Cost, Machine, text};
use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource};
use littoral_engine::exec::checkpoint::Checkpointed;
use std::path::Path;
use tempfile::TempDir;

struct Rig {
    dir: TempDir,
    machine: Machine,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(dir.path(), Machine::folder(&dir.path().join("remote")));
        Self { dir, machine }
    }

    async fn checkpoint(&self) -> (Option<Checkpointed>, Cost) {
        let mut source = SqliteSource::open(&self.machine.database(), BUSY_TIMEOUT).unwrap();
        let (done, cost, jobs) = self.machine.checkpoint(&mut source).await.unwrap();
        if let Some(snapshot) = jobs.snapshot {
            println!("    besides: {snapshot:?}");
        }
        if jobs.coalesced.records > 0 {
            println!("    besides: {:?}", jobs.coalesced);
        }
        (done, cost)
    }

    async fn opening(&self) -> Cost {
        self.machine.remote.reset();
        let glance = self.machine.log().glance().await.unwrap().unwrap();
        let page = self.machine.log().history(&glance, glance.tail.seq.next(), 20).await.unwrap();
        assert!(!page.is_empty());
        self.machine.cost()
    }
}

/// Every page that an update changed, compressed by itself: what cannot be avoided without knowing its neighbours.
fn compressed(before: &Path, after: &Path, page_size: usize) -> (u64, u64) {
    let (before, after) = (std::fs::read(before).unwrap(), std::fs::read(after).unwrap());
    let changed = before.chunks(page_size).zip(after.chunks(page_size)).filter(|(a, b)| a != b);
    changed.fold((0, 0), |(pages, bytes), (_, page)| {
        (pages + 1, bytes + zstd::bulk::compress(page, 3).unwrap().len() as u64)
    })
}

async fn after_an_update(rig: &Rig, seed: u64, what: &str) -> Cost {
    let copy = rig.dir.path().join("before.db");
    std::fs::copy(rig.machine.database(), &copy).unwrap();
    text::update(&rig.machine.database(), 100, seed);
    let (done, cost) = rig.checkpoint().await;
    let done = done.unwrap();
    let (pages, bytes) = compressed(&copy, &rig.machine.database(), 4096);
    println!("{what}: {pages} changed pages, {bytes} B compressed one by one; {cost}");
    assert_eq!(done.plan.changed_pages(), pages);
    // A record and a pack; opening for writing looks at the tail and at the name behind it.
    assert!(cost.puts <= 4 && cost.gets <= 2, "{cost}");
    assert!(cost.up <= 2 * bytes, "{cost}, twice the changed pages is {}", 2 * bytes);
    cost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_costs_what_changed_whatever_the_size_of_the_database() {
    let mut openings = Vec::new();
    let mut updates = Vec::new();
    for (name, bytes) in [("100 MB", 100 << 20), ("1 GB", 1 << 30)] {
        let rig = Rig::new();
        let path = rig.machine.database();
        text::database(&path, bytes);
        let size = std::fs::metadata(rig.machine.database()).unwrap().len();
        let (_, first) = rig.checkpoint().await;
        println!("{name}: first checkpoint of {size} B: {first}, {:.2} of its size", first.up as f64 / size as f64);
        assert!(first.up * 10 <= size * 6, "{first}");
        updates.push(after_an_update(&rig, 5, name).await);
        let (done, nothing) = rig.checkpoint().await;
        println!("{name}: unchanged: {nothing}");
        assert!(done.is_none() && nothing.puts == 0 && nothing.up == 0, "{nothing}");
        openings.push(rig.opening().await);
        println!("{name}: opening the history: {}", openings[openings.len() - 1]);
    }
    assert_eq!(openings[0].gets, openings[1].gets, "opening grows with size");
    assert!(openings[1].down <= openings[0].down * 2, "opening grows with size: {openings:?}");
    assert!(openings[0].depth <= 4 && openings[1].depth <= 4);
    assert_eq!(updates[0].puts, updates[1].puts, "an update's checkpoint grows with size");
    assert!(updates[1].gets <= updates[0].gets, "{updates:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_costs_what_changed_however_long_the_history() {
    let rig = Rig::new();
    let path = rig.machine.database();
    text::database(&path, 20 << 20);
    rig.checkpoint().await;
    let mut deepest = 0;
    for round in 1..=200 {
        if [1, 10, 200].contains(&round) {
            after_an_update(&rig, round, &format!("checkpoint {round}")).await;
            let opening = rig.opening().await;
            println!("after {round} checkpoints, opening the history: {opening}");
            // A listing, the newest index, and the records since; one more index where those are few.
            assert!(opening.gets <= 64 + 6, "{opening}");
            deepest = deepest.max(opening.depth);
        } else {
            text::update(&rig.machine.database(), 100, round);
            rig.checkpoint().await;
        }
    }
    assert!(deepest <= 6, "{deepest}");
}
