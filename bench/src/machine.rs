//! A machine with a store on disk, a real manifest, and a remote whose requests are counted.

use littoral_engine::components::{MachineClock, MachineEntropy};
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::exec::coalesce::{Coalesced, coalesce};
use littoral_engine::exec::snapshot::{Written, snapshot_if_due};
use littoral_engine::{Components, EngineError, Log, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_manifest::LmdbManifest;
use littoral_ports::{PageSource, Remote};
use littoral_remote::{Counting, Environment, Op, RemoteSettings, open, open_in};
use littoral_test_s3::S3Server;
use littoral_types::{ChunkId, Compression};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// What it counts with.
    pub remote: Arc<Counting>,
    /// Its stores.
    pub stores: Stores,
    /// What it opens.
    pub target: Target,
    /// Time, chance and the rest.
    pub components: Components,
}

/// What something cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// PUT requests, of whatever kind.
    pub puts: u64,
    /// Bytes sent.
    pub up: u64,
    /// All other requests.
    pub gets: u64,
    /// Bytes received.
    pub down: u64,
    /// Requests that waited for one another.
    pub depth: usize,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { puts, up, gets, down, depth } = self;
        write!(f, "{puts} PUT {up} B up, {gets} other {down} B down, {depth} deep")
    }
}

impl Machine {
    /// A machine that keeps its store in `dir`, beside its database `app.db`.
    pub fn new(dir: &Path, remote: Arc<dyn Remote>) -> Self {
        let remote = Arc::new(Counting::new(remote));
        let store = Store::open_or_create(&dir.join(".littoral"), &MachineEntropy, StoreOptions::default()).unwrap();
        let manifest = Arc::new(LmdbManifest::open(&store.manifest_dir()).unwrap());
        let components = Components::of_this_machine(Arc::new(LocalQuota::unlimited()));
        let database = dir.join("app.db");
        let target = Target { database, volume: None, takeover: None, fencing: true };
        Self { stores: Stores { store, manifest, remote: remote.clone() }, remote, target, components }
    }

    /// A remote in a folder.
    pub fn folder(dir: &Path) -> Arc<dyn Remote> {
        let url = littoral_remote::directory_url(dir).unwrap();
        let settings = RemoteSettings::default();
        open(&url, &settings, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap()
    }

    /// A remote in a bucket of a server, reached at another address where one is given.
    pub fn s3(server: &S3Server, bucket: &str, endpoint: Option<String>) -> Arc<dyn Remote> {
        let settings = RemoteSettings { endpoint, ..RemoteSettings::default() };
        let env = Environment::from_pairs(server.env());
        let url = format!("s3://{bucket}/bench");
        open_in(&url, &settings, &env, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap()
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.target.database.clone()
    }

    /// Its log.
    pub fn log(&self) -> Log {
        Log::new(self.remote.clone(), "app.db".parse().unwrap())
    }

    /// Opens for writing.
    pub async fn open(&self) -> Session {
        open_for_writing(&self.stores, &self.components, &self.target).await.unwrap()
    }

    /// A checkpoint and what it cost, opening included and coalescing left out; then the jobs that follow it.
    pub async fn checkpoint(
        &self,
        source: &mut dyn PageSource,
    ) -> Result<(Option<Checkpointed>, Cost, Jobs), EngineError> {
        self.remote.reset();
        let mut session = open_for_writing(&self.stores, &self.components, &self.target).await?;
        let done = checkpoint(&mut session.writer, &session.scratch, source, &Options::default()).await?;
        let cost = self.cost();
        let snapshot = snapshot_if_due(&mut session.writer, Some(source)).await?;
        let chunks: Vec<ChunkId> = done.iter().flat_map(|done| &done.plan.chunks).map(|chunk| chunk.chunk).collect();
        let coalesced = coalesce(&mut session.writer, &session.scratch, Some(&chunks), Compression::Zstd).await?;
        Ok((done, cost, Jobs { snapshot, coalesced }))
    }

    /// What went over the wire since the count was reset.
    pub fn cost(&self) -> Cost {
        let totals = self.remote.totals();
        let (all, writes) = (totals.all(), totals.writes());
        Cost {
            puts: writes.requests - totals.of(Op::Delete).requests,
            up: all.bytes_up,
            gets: all.requests - writes.requests + totals.of(Op::Delete).requests,
            down: all.bytes_down,
            depth: self.remote.depth(),
        }
    }
}

/// What was done besides.
#[derive(Debug)]
pub struct Jobs {
    /// A manifest snapshot, if one was due.
    pub snapshot: Option<Written>,
    /// Deltas that became fewer.
    pub coalesced: Coalesced,
}
