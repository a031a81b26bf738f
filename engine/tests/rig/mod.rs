//! Machines with a store on disk and a manifest in memory, databases that are arrays of bytes, and a remote that is counted and
//! not at once.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use async_trait::async_trait;
use bytes::Bytes;
use littoral_engine::components::{Components, MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_engine::{EngineError, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_ports::{
    BlobBody, Changed, Manifest, MemoryManifest, NoFaults, ObjectMeta, PageSource, Remote, RemoteError, Silent,
    SourceError, passes_on,
};
use littoral_remote::{Counting, Op};
use littoral_types::{ByteSpan, ChunkId, Compression, Gap, ObjectPath, PageCount, PageNo, PageSize};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Numbers that a seed decides.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A database in memory.
#[derive(Clone)]
pub struct Pages {
    pub page_size: PageSize,
    pub pages: Vec<Vec<u8>>,
    pub changed: Option<Vec<PageNo>>,
    /// What the next checkpoint brings: so many commits, and why they cannot be told apart, where they cannot; made then.
    pub commits: u64,
    pub gap: Option<Gap>,
    pub committed_ms: Option<u64>,
}

impl Pages {
    pub fn new(page_size: u64, count: usize) -> Self {
        let page_size = PageSize::new(page_size).unwrap();
        let mut new = Self { page_size, pages: Vec::new(), changed: None, commits: 1, gap: None, committed_ms: None };
        new.resize(count);
        new
    }

    pub fn resize(&mut self, count: usize) {
        let len = self.page_size.len();
        let first = self.pages.len();
        self.pages.resize(count, vec![0; len]);
        (first..count).for_each(|at| self.write(at, at as u64));
    }

    /// Text-like content that differs from page to page and value to value.
    pub fn write(&mut self, at: usize, value: u64) {
        for (place, byte) in self.pages[at].iter_mut().enumerate() {
            *byte = b'a' + ((value.wrapping_mul(31).wrapping_add(place as u64 / 7)) % 23) as u8;
        }
        self.pages[at][..8].copy_from_slice(&value.to_le_bytes());
        self.pages[at][8] = b'x';
    }

    pub fn page(&self, page: PageNo) -> &[u8] {
        &self.pages[page.index() as usize]
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
        self.changed.clone().map_or(Changed::Unknown, Changed::Pages)
    }
    fn commits(&self) -> u64 {
        self.commits
    }
    fn gap(&self) -> Option<Gap> {
        self.gap
    }
    fn committed_ms(&self) -> Option<u64> {
        self.committed_ms
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        into.copy_from_slice(&self.pages[page.index() as usize]);
        Ok(())
    }
}

/// Answers later, so that what could be under way at once is seen to be.
#[derive(Debug)]
pub struct Slow(pub Arc<dyn Remote>);

impl Slow {
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

#[async_trait]
impl Remote for Slow {
    passes_on!(0: url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.rest().await;
        self.0.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        self.rest().await;
        self.0.get_range(path, span).await
    }
    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.rest().await;
        self.0.get_suffix(path, len).await
    }
    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        self.rest().await;
        self.0.size(path).await
    }
    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.rest().await;
        self.0.put(path, bytes).await
    }
    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.rest().await;
        self.0.put_new(path, bytes).await
    }
    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.rest().await;
        self.0.upload(path, body).await
    }
    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        self.rest().await;
        self.0.list(folder, after, max).await
    }
    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        self.rest().await;
        self.0.delete(paths).await
    }
}

/// A remote that is counted, with answers that take their time.
pub fn counted(inner: Arc<dyn Remote>) -> Arc<Counting> {
    Arc::new(Counting::new(Arc::new(Slow(inner))))
}

/// What was asked for, and what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub requests: u64,
    pub gets: u64,
    pub down: u64,
    pub depth: usize,
}

pub fn cost(remote: &Counting) -> Cost {
    let totals = remote.totals();
    let all = totals.all();
    Cost { requests: all.requests, gets: totals.of(Op::Get).requests, down: all.bytes_down, depth: remote.depth() }
}

pub struct Machine {
    pub dir: TempDir,
    pub stores: Stores,
    pub target: Target,
    pub components: Components,
}

pub fn components() -> Components {
    Components {
        clock: Arc::new(MachineClock),
        entropy: Arc::new(MachineEntropy),
        faults: Arc::new(NoFaults),
        quota: Arc::new(LocalQuota::unlimited()),
        progress: Arc::new(Silent),
        account: Arc::new(littoral_ports::Uncounted),
    }
}

pub fn log(remote: Arc<dyn Remote>) -> Log {
    Log::new(remote, "app.db".parse().unwrap())
}

impl Machine {
    pub fn new(remote: Arc<dyn Remote>) -> Self {
        Self::with(remote, Arc::new(MemoryManifest::new()))
    }

    pub fn with(remote: Arc<dyn Remote>, manifest: Arc<dyn Manifest>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open_or_create(&dir.path().join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let stores = Stores { store, manifest, remote };
        let database = dir.path().join("app.db");
        std::fs::write(&database, b"").unwrap();
        let target = Target { database, volume: None, takeover: None, fencing: true };
        Self { dir, stores, target, components: components() }
    }

    pub async fn open(&self) -> Result<Session, EngineError> {
        open_for_writing(&self.stores, &self.components, &self.target).await
    }

    /// A checkpoint, and the jobs that follow it.
    pub async fn checkpoint(&self, pages: &mut Pages) -> Result<Option<Checkpointed>, EngineError> {
        let mut session = self.open().await?;
        let done = checkpoint(&mut session.writer, &session.scratch, pages, &Options::default()).await?;
        snapshot_if_due(&mut session.writer, Some(pages)).await?;
        let chunks: Vec<ChunkId> = done.iter().flat_map(|done| &done.plan.chunks).map(|chunk| chunk.chunk).collect();
        coalesce(&mut session.writer, &session.scratch, Some(&chunks), Compression::Zstd).await?;
        Ok(done)
    }

    pub fn log(&self) -> Log {
        log(self.stores.remote.clone())
    }
}
