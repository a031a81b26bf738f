//! A database that changes while a checkpoint reads it (rule S16): what is published is one commit, and not a mixture.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_engine::exec::verify::verify;
use littoral_engine::{Log, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_ports::{CaughtUp, Changed, MemoryManifest, MemoryRemote, NoFaults, PageSource, Silent, SourceError};
use littoral_types::{Compression, PageCount, PageNo, PageSize, Sessions};
use std::collections::BTreeSet;
use std::sync::Arc;

const PAGE: usize = 65536;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// A database to which somebody commits after every few pages that are read, until they have had enough.
struct Moving {
    pages: Vec<u8>,
    chance: Chance,
    /// Commits that will still come.
    left: usize,
    reads: usize,
    changed: BTreeSet<PageNo>,
    commits: u64,
    /// Its size as of when it was last asked to catch up.
    count: u64,
}

impl Moving {
    fn commit(&mut self) {
        self.commits += 1;
        match self.chance.below(12) {
            0 => self.resize(900 + self.chance.0 as usize % 1400),
            1 => {
                let at = self.chance.below(self.pages.len());
                self.write(at, 0);
            }
            _ => {
                for _ in 0..1 + self.chance.below(6) {
                    // Few values, so that pages go back to what they held before.
                    let (at, value) = (self.chance.below(self.pages.len()), self.chance.below(3) as u8);
                    self.write(at, value);
                }
            }
        }
    }

    fn write(&mut self, at: usize, value: u8) {
        self.pages[at] = value;
        self.changed.insert(PageNo::from_index(at as u64));
    }

    fn resize(&mut self, count: usize) {
        let before = self.pages.len();
        self.pages.resize(count, 0);
        (before..count).for_each(|at| self.write(at, (at % 3) as u8));
    }

    fn image(&self, at: usize) -> Vec<u8> {
        let mut image = vec![self.pages[at]; PAGE];
        if self.pages[at] != 0 {
            image[..8].copy_from_slice(&(at as u64).to_le_bytes());
        }
        image
    }

    fn bytes(&self) -> Vec<u8> {
        (0..self.pages.len()).flat_map(|at| self.image(at)).collect()
    }
}

impl PageSource for Moving {
    // Whoever moves tells what he was asked for, and is not read for it.
    fn sessions(&mut self) -> Option<Sessions> {
        Some(Sessions::new())
    }
    fn page_size(&self) -> PageSize {
        PageSize::new(PAGE as u64).unwrap()
    }
    fn page_count(&self) -> PageCount {
        PageCount(self.count)
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Unknown
    }
    fn commits(&self) -> u64 {
        self.commits
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.reads += 1;
        if self.left > 0 && self.reads.is_multiple_of(97) {
            self.left -= 1;
            self.commit();
        }
        // A page that is gone by now reads as anything: it is named as changed, or lies beyond the end.
        match (page.index() as usize) < self.pages.len() {
            true => into.copy_from_slice(&self.image(page.index() as usize)),
            false => into.fill(0xee),
        }
        Ok(())
    }
    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        let resized = self.count != self.pages.len() as u64;
        self.count = self.pages.len() as u64;
        match std::mem::take(&mut self.changed) {
            changed if changed.is_empty() && !resized => Ok(CaughtUp::Still),
            changed => Ok(CaughtUp::Moved(changed.into_iter().collect())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_checkpoint_of_a_database_that_moves_is_one_commit_of_it() {
    let remote = Arc::new(MemoryRemote::new("moving"));
    let dir = tempfile::tempdir().unwrap();
    let components = Components {
        clock: Arc::new(MachineClock),
        entropy: Arc::new(MachineEntropy),
        faults: Arc::new(NoFaults),
        quota: Arc::new(LocalQuota::unlimited()),
        progress: Arc::new(Silent),
        account: Arc::new(littoral_ports::Uncounted),
    };
    let store = Store::open_or_create(&dir.path().join("store"), &MachineEntropy, StoreOptions::default()).unwrap();
    let stores = Stores { store, manifest: Arc::new(MemoryManifest::new()), remote: remote.clone() };
    let database = dir.path().join("app.db");
    std::fs::write(&database, b"").unwrap();
    let target = Target { database, volume: None, takeover: None, fencing: true };
    let log = Log::new(remote.clone(), "app.db".parse().unwrap());
    let mut source = Moving {
        pages: (0..1500).map(|at| (at % 3) as u8).collect(),
        chance: Chance(7),
        left: 0,
        reads: 0,
        changed: BTreeSet::new(),
        commits: 0,
        count: 0,
    };
    let (mut published, mut moved) = (0, 0);
    for step in 0..24 {
        source.left = step % 5 * 9;
        source.commits = 0;
        source.changed.clear();
        (0..3).for_each(|_| source.commit());
        source.changed.clear();
        source.count = source.pages.len() as u64;
        let mut session = open_for_writing(&stores, &components, &target).await.unwrap();
        let before = session.writer.row().tail.lsn;
        let done = checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap();
        // Whoever had no turn comes after all: nobody moves while it is compared.
        source.left = 0;
        if let Some(done) = done {
            published += 1;
            assert_eq!(done.position.lsn.0, before.0 + source.commits, "step {step}: every commit counts");
        }
        moved += u64::from(source.commits > 3);
        snapshot_if_due(&mut session.writer, Some(&mut source)).await.unwrap();
        coalesce(&mut session.writer, &session.scratch, None, Compression::Zstd).await.unwrap();
        let dest = dir.path().join("restored.db");
        restore(&log, &components, &At::Newest, &dest, true).await.unwrap();
        assert!(std::fs::read(&dest).unwrap() == source.bytes(), "step {step}: a mixture of commits");
    }
    assert!(published > 20 && moved > 10, "{published} {moved}");
    assert_eq!(verify(&log, &components).await.unwrap().problems, Vec::<String>::new());
}
