//! A machine: a store's directory, a manifest, a database, and one process at a time that works on them.

use crate::chance::Chance;
use crate::database::{Image, Shape, Source};
use crate::net::{Net, SimRemote};
use crate::oracle::Oracle;
use crate::process::{Process, SimFaults, SimManifest};
use crate::time::SimClock;
use crate::trace::Trace;
use anyhow::Context;
use littoral_engine::exec::beside::Nothing;
use littoral_engine::exec::checkpoint::{self, Checkpointed};
use littoral_engine::exec::coalesce::{Coalesced, coalesce};
use littoral_engine::exec::prune::{self, How, Pruned};
use littoral_engine::exec::repack::{Repacked, repack};
use littoral_engine::exec::snapshot::{Written, snapshot_if_due, write_snapshot};
use littoral_engine::log::Draft;
use littoral_engine::log::pins::{Pinned, Wish};
use littoral_engine::volume::release;
use littoral_engine::{Components, EngineError, Log, RepackPolicy, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_ports::{Changed, Clock, Crash, LeaseChange, Leased, Manifest, MemoryManifest, Silent};
use littoral_types::{
    Checkpoint, Compression, Epoch, Lease, ManifestOp, PageNo, PinPurpose, RecordBody, Retention, Seq, SnapshotName,
    VolumeName,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use tokio::time::Instant;

/// What all machines share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The object store.
    pub net: Arc<Net>,
    /// Who watches.
    pub oracle: Arc<Oracle>,
    /// What happened.
    pub trace: Arc<Trace>,
    /// When the world began.
    pub start: Instant,
    /// Where machines have their directories.
    pub base: PathBuf,
    /// The seed.
    pub seed: u64,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// A letter or two.
    pub name: String,
    /// Its database now.
    pub database: Image,
    /// What kind of database.
    pub shape: Shape,
    /// Its clocks.
    pub clock: Arc<SimClock>,
    /// Its decisions.
    pub chance: Chance,
    /// It was copied, or is a copy, or lost its directory: the remote may hold records of its own store that it does not know.
    pub excused: bool,
    /// Whether its prunes are followed by moves out of packs that are mostly dead, and some of them delete nothing.
    pub repacks: bool,
    around: Surroundings,
    dir: PathBuf,
    manifest: MemoryManifest,
    entropy: Arc<Chance>,
    watched: Option<BTreeSet<PageNo>>,
    open: Option<Open>,
    processes: u64,
}

#[derive(Debug)]
struct Open {
    session: Session,
    process: Arc<Process>,
}

/// A machine's disk as a backup of the whole machine has it.
#[derive(Clone, Debug)]
pub struct DiskImage {
    binding: Option<String>,
    dir: PathBuf,
    manifest: MemoryManifest,
    database: Image,
}

/// The volume of every simulation: named after the database file.
pub fn volume() -> anyhow::Result<VolumeName> {
    Ok("app.db".parse()?)
}

impl Machine {
    /// A fresh machine with a database and no store yet.
    pub fn new(around: &Surroundings, name: &str, shape: Shape) -> anyhow::Result<Self> {
        let chance = Chance::stream(around.seed, &format!("machine {name}"));
        let dir = around.base.join(name);
        fs::create_dir_all(&dir).context("a machine's directory")?;
        Ok(Self {
            name: name.to_owned(),
            database: Image::new(shape, &chance),
            shape,
            clock: Arc::new(SimClock::new(around.start)),
            entropy: Arc::new(Chance::stream(around.seed, &format!("entropy {name}"))),
            chance,
            excused: false,
            repacks: false,
            around: around.clone(),
            dir,
            manifest: MemoryManifest::new(),
            watched: None,
            open: None,
            processes: 0,
        })
    }

    /// What it shares with others.
    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// One more process, not yet doing anything.
    pub fn start(&mut self) -> Arc<Process> {
        self.processes += 1;
        Process::new(format!("{}.{}", self.name, self.processes), self.around.trace.clone())
    }

    /// What the engine runs on in this process.
    pub fn components(&self, process: &Arc<Process>) -> Components {
        Components {
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            faults: Arc::new(SimFaults(process.clone())),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        }
    }

    /// The volume's log as a process sees it.
    pub fn log(&self, process: &Arc<Process>) -> Log {
        let remote = SimRemote::new(self.around.net.clone(), process.clone());
        Log::new(Arc::new(remote), self.around.oracle.volume().clone())
    }

    /// The store, made where there is none.
    pub fn store(&self) -> Result<Store, EngineError> {
        Ok(Store::open_or_create(&self.store_dir(), &*self.entropy, StoreOptions { allow_network: true })?)
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.join(".littoral")
    }

    /// The running process.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.open.as_ref().map(|open| open.process.clone())
    }

    /// Opens the volume for writing in a new process.
    pub async fn open(&mut self, takeover: Option<Epoch>) -> Result<bool, EngineError> {
        let process = self.start();
        self.open_in(process, takeover).await
    }

    /// Opens the volume for writing in this process. True when an interrupted publication was finished.
    pub async fn open_in(&mut self, process: Arc<Process>, takeover: Option<Epoch>) -> Result<bool, EngineError> {
        self.open = None;
        let (oracle, kept) = (self.around.oracle.clone(), self.manifest.clone());
        let stores = Stores {
            store: self.store()?,
            manifest: Arc::new(SimManifest { kept, process: process.clone(), oracle, net: self.around.net.clone() }),
            remote: Arc::new(SimRemote::new(self.around.net.clone(), process.clone())),
        };
        let target = Target { database: self.dir.join("app.db"), volume: None, takeover, fencing: true };
        let components = self.components(&process);
        let session = unless_killed(&process, open_for_writing(&stores, &components, &target)).await?;
        let finished = session.finished_intent;
        self.watched = None;
        self.open = Some(Open { session, process });
        Ok(finished)
    }

    /// When the running process reaches this point, somebody takes away whatever leases there are.
    pub fn loses_leases_at(&self, point: &'static str) {
        let (kept, at_ms) = (self.manifest.clone(), self.clock.wall_ms());
        let takes = move || {
            for Lease { token, .. } in kept.leases().into_iter().flatten() {
                let (by, why) = ("a test".to_owned(), "it hangs".to_owned());
                let taken = kept.lease(&LeaseChange::TakeAway { token, at_ms, by, why, is_forced: true });
                assert!(matches!(taken, Ok(Leased::Over(_))), "{taken:?}");
            }
        };
        if let Some(process) = self.process() {
            process.meanwhile_at(point, takes);
        }
    }

    /// Ends the process in order.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(open) = self.open.take() {
            open.process.kill("at once");
        }
    }

    /// The session, or why there is none.
    pub fn session(&mut self) -> Result<(&mut Session, Arc<Process>), EngineError> {
        match &mut self.open {
            Some(open) => Ok((&mut open.session, open.process.clone())),
            None => Err(EngineError::Refused("a test's machine has no process".to_owned())),
        }
    }

    /// Whether a process has the volume open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The record that the running process stands on.
    pub fn tail(&self) -> Option<Seq> {
        self.open.as_ref().map(|open| open.session.writer.row().tail.seq)
    }

    /// What was done in a process ends with it when it died.
    fn buried<T>(&mut self, done: Result<T, EngineError>) -> Result<T, EngineError> {
        if self.open.as_ref().is_some_and(|open| !open.process.is_alive()) {
            self.open = None;
            return Err(EngineError::Crash(Crash("killed")));
        }
        done
    }

    /// One transaction of the database's.
    pub fn commit(&mut self) {
        match (self.database.commit(self.shape, &self.chance), &mut self.watched) {
            (Some(touched), Some(watched)) => watched.extend(touched),
            _ => self.watched = None,
        }
    }

    /// Another database in place of this one: a restored one, say.
    pub fn replace_database(&mut self, image: Image) {
        self.database = image;
        self.watched = None;
    }

    fn source(&self, changed: Changed) -> Source {
        Source { image: self.database.clone(), changed }
    }

    /// A checkpoint of the database as it is, and nothing else.
    pub async fn checkpoint(
        &mut self,
        options: &checkpoint::Options,
        watched: bool,
    ) -> Result<Option<Checkpointed>, EngineError> {
        let changed = match &self.watched {
            Some(pages) if watched => {
                Changed::Pages(pages.iter().copied().filter(|page| self.database.page_count().holds(*page)).collect())
            }
            _ => Changed::Unknown,
        };
        let mut source = self.source(changed);
        self.around.oracle.works_on(&self.name, &self.database);
        let (session, process) = self.session()?;
        let doing = checkpoint::checkpoint(&mut session.writer, &session.scratch, &mut source, options);
        let done = unless_killed(&process, doing).await;
        let done = self.buried(done)?;
        match &done {
            Some(done) => {
                self.around.oracle.acknowledged(&self.name, done.seq, done.position.lsn, &self.database);
                self.watched = Some(BTreeSet::new());
            }
            None => self.expect_unchanged(),
        }
        Ok(done)
    }

    /// Nothing to publish means that the record this writer stands on holds this very content.
    fn expect_unchanged(&self) {
        let tail = self.tail();
        let records = self.around.oracle.records();
        let stands_on = records.iter().find(|landed| Some(landed.seq) == tail);
        if stands_on.and_then(|landed| landed.image.as_ref()) != Some(&self.database) {
            let name = &self.name;
            self.around.oracle.violated(format!("{name} had nothing to publish, and its database differs"));
        }
    }

    /// A checkpoint with default settings.
    pub async fn publish(&mut self) -> Result<Option<Checkpointed>, EngineError> {
        self.checkpoint(&checkpoint::Options::default(), false).await
    }

    /// A commit without pages whose record is so large that its body is a blob of its own.
    pub async fn publish_large_record(&mut self) -> Result<Seq, EngineError> {
        let tail = self.tail();
        let stands_on = self.around.oracle.records().into_iter().find(|landed| Some(landed.seq) == tail);
        let Some(image) = stands_on.and_then(|landed| landed.image) else { return Ok(Seq::ZERO) };
        self.around.oracle.works_on(&self.name, &image);
        let name = |_| (0..60).map(|_| format!("{:016x}", self.chance.next())).collect::<String>();
        let sessions = (0..2300).map(name).zip(1..).collect();
        let (session, process) = self.session()?;
        let figures = session.writer.row().tail.figures;
        let ops = vec![ManifestOp::Resize { page_count: figures.page_count }];
        let draft = Draft {
            commits: 1,
            ..Draft::of(RecordBody::Checkpoint(Checkpoint { ops, sessions, ..Checkpoint::default() }), figures)
        };
        let done = unless_killed(&process, session.writer.publish(draft)).await;
        let seq = self.buried(done)?;
        let lsn = self.around.oracle.records().iter().find(|landed| landed.seq == seq).map(|landed| landed.lsn);
        self.around.oracle.acknowledged(&self.name, seq, lsn.unwrap_or_default(), &image);
        Ok(seq)
    }

    /// A manifest snapshot, due or not.
    pub async fn snapshot(&mut self, forced: bool) -> Result<Option<Written>, EngineError> {
        let tail = self.tail();
        let records = self.around.oracle.records();
        let stands_on = records.iter().find(|landed| Some(landed.seq) == tail).and_then(|landed| landed.image.clone());
        // The skeleton must be of the state that is summed up.
        let mut source = stands_on.map(|image| Source { image, changed: Changed::Unknown });
        let with_source = self.chance.per_mille(700);
        let (session, process) = self.session()?;
        let source =
            source.as_mut().filter(|_| with_source).map(|source| source as &mut dyn littoral_ports::PageSource);
        let writer = &mut session.writer;
        let done = match forced {
            true => unless_killed(&process, async { write_snapshot(writer, source).await.map(Some) }).await,
            false => unless_killed(&process, snapshot_if_due(writer, source)).await,
        };
        self.buried(done)
    }

    /// Merges deltas where the plan says so.
    pub async fn coalesce(&mut self, compression: Compression) -> Result<Coalesced, EngineError> {
        let (session, process) = self.session()?;
        let doing = coalesce(&mut session.writer, &session.scratch, None, compression);
        let done = unless_killed(&process, doing).await;
        self.buried(done)
    }

    /// Prunes.
    pub async fn prune(&mut self, options: &prune::Options) -> Result<Option<Pruned>, EngineError> {
        let (session, process) = self.session()?;
        let done = unless_killed(&process, prune::prune(&mut session.writer, options)).await;
        self.buried(done)
    }

    /// Prunes as who may not delete: what may go is left.
    pub async fn mark(&mut self, options: &prune::Options) -> Result<Option<Pruned>, EngineError> {
        let how = How { deletes: false, marked: None };
        let retention = Retention::all_within(0);
        let (session, process) = self.session()?;
        let done = unless_killed(&process, prune::prune_as(&mut session.writer, options, &retention, how)).await;
        self.buried(done)
    }

    /// Moves what lives in packs that are mostly dead, however small.
    pub async fn repack(&mut self) -> Result<Repacked, EngineError> {
        let policy = RepackPolicy { dead_bytes_min: 1 };
        let (session, process) = self.session()?;
        let mut nothing = Nothing;
        let doing = repack(&mut session.writer, &session.scratch, Compression::Zstd, policy, &mut nothing);
        let done = unless_killed(&process, doing).await;
        self.buried(done)
    }

    /// Ends the term.
    pub async fn release(&mut self) -> Result<Seq, EngineError> {
        let (session, process) = self.session()?;
        let done = unless_killed(&process, release(&mut session.writer)).await;
        self.buried(done)
    }

    /// A named snapshot of the tail. `None` when a pruner was faster, or nothing is there yet.
    pub async fn name_snapshot(&mut self, name: &SnapshotName) -> Result<Option<Pinned>, EngineError> {
        let (session, _) = self.session()?;
        if session.writer.row().tail.figures.page_size.is_none() {
            return Ok(None);
        }
        self.snapshot(true).await?;
        let wish = Wish {
            purpose: PinPurpose::Snapshot(name.clone()),
            holder: format!("machine {}", self.name),
            life_ms: None,
        };
        let (session, process) = self.session()?;
        let log = session.writer.log().clone();
        let (components, seq) = (session.writer.components().clone(), session.writer.row().tail.seq);
        let doing = async {
            let opened = log.open_snapshot(seq).await?;
            let gone = || EngineError::Refused(format!("the snapshot of record {seq} is gone again"));
            log.pin(&components, &opened.ok_or_else(gone)?, wish).await
        };
        let done = unless_killed(&process, doing).await;
        let pinned = self.buried(done)?;
        if let Some(pinned) = &pinned {
            self.around.oracle.named(name, Some(pinned.pin.lsn));
        }
        Ok(pinned)
    }

    /// What a backup of the whole machine holds.
    pub fn disk(&self) -> DiskImage {
        DiskImage {
            binding: fs::read_to_string(self.store_dir().join("store.toml")).ok(),
            dir: self.dir.clone(),
            manifest: self.manifest.image(),
            database: self.database.clone(),
        }
    }

    /// The machine's disk as it was when the backup was made; or the backup's, on another machine.
    pub fn restore_disk(&mut self, image: &DiskImage) -> anyhow::Result<()> {
        self.kill();
        self.lose_directory()?;
        self.manifest = image.manifest.image();
        self.replace_database(image.database.clone());
        if let Some(binding) = &image.binding {
            // On the other machine the same file lies at the same path: here paths differ by the machine's name.
            let path = |dir: &Path| format!("{}/", dir.display());
            let dir = self.dir.canonicalize().context("a machine's directory")?;
            let from = image.dir.canonicalize().context("a machine's directory")?;
            fs::create_dir_all(self.store_dir()).context("a store's directory")?;
            fs::write(self.store_dir().join("store.toml"), binding.replace(&path(&from), &path(&dir)))
                .context("a binding")?;
        }
        Ok(())
    }

    /// The store's directory goes, manifest and all.
    pub fn lose_directory(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.manifest = MemoryManifest::new();
        self.watched = None;
        match fs::remove_dir_all(self.store_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("a store's directory"),
            _ => Ok(()),
        }
    }

    /// What was staged goes.
    pub fn lose_scratch(&mut self) -> anyhow::Result<()> {
        self.kill();
        match fs::remove_dir_all(self.store_dir().join("checkpoint_scratch")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the scratch"),
            _ => Ok(()),
        }
    }

    /// The manifest goes, the binding stays.
    pub fn lose_manifest(&mut self) {
        self.kill();
        self.manifest = MemoryManifest::new();
        self.watched = None;
    }
}

/// Does something for as long as its process lives.
pub async fn unless_killed<T>(
    process: &Process,
    doing: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    use futures::future::{Either, select};
    match select(pin!(doing), pin!(process.death())).await {
        Either::Left((done, _)) if process.is_alive() => done,
        _ => Err(EngineError::Crash(Crash("killed"))),
    }
}
