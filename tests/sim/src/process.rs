//! Processes that die: at a request, at a named fault point, before or after the manifest's disk said so.

use crate::mutation::Mutation;
use crate::net::Net;
use crate::oracle::Oracle;
use crate::trace::Trace;
use littoral_ports::{Batch, Chunks, Crash, Faults, Manifest, ManifestError, MemoryManifest};
use littoral_types::{
    Change, ChangeSeq, ChunkId, DeltaId, Intent, PageIdentity, PageNo, Seq, StagedBlob, VolumeId, VolumeName, VolumeRow,
};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Where a process is to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// When it is about to send its n-th request from now.
    BeforeRequest(u64),
    /// When its n-th request from now is on its way: what was sent may land when nobody is left to hear of it.
    AfterRequest(u64),
    /// Just before its n-th write to the manifest from now.
    BeforeCommit(u64),
    /// Just after it.
    AfterCommit(u64),
    /// When it reaches a named point for the n-th time from now.
    Point(&'static str, u64),
}

/// One process on one machine.
pub struct Process {
    /// Machine and number: `a.3`.
    pub name: String,
    trace: Arc<Trace>,
    alive: AtomicBool,
    death: Mutex<Option<Death>>,
    killed: Notify,
    /// Manifest writes from now until the disk is full for one; zero for never.
    full_in: AtomicU64,
    /// What happens once it reaches a named point.
    meanwhile: Mutex<Option<(&'static str, Meanwhile)>>,
}

/// Done by somebody else.
type Meanwhile = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.name)
    }
}

impl Process {
    /// One that lives until told otherwise.
    pub fn new(name: String, trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self {
            name,
            trace,
            alive: AtomicBool::new(true),
            death: Mutex::default(),
            killed: Notify::new(),
            full_in: AtomicU64::new(0),
            meanwhile: Mutex::default(),
        })
    }

    /// Sets, or takes back, where it dies.
    pub fn doom(&self, death: Option<Death>) {
        *self.death.lock().unwrap_or_else(PoisonError::into_inner) = death;
    }

    /// Its n-th write to the manifest from now finds the disk full.
    pub fn fill_disk_at(&self, commit: u64) {
        self.full_in.store(commit, Ordering::Relaxed);
    }

    /// When it reaches this point for the first time from now, somebody else does something.
    pub fn meanwhile_at(&self, point: &'static str, does: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = Some((point, Box::new(does)));
    }

    fn passes(&self, point: &'static str) {
        let mut meanwhile = self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, does)) = meanwhile.take_if(|(at, _)| *at == point) {
            does();
        }
    }

    /// Dies now.
    pub fn kill(&self, why: &str) {
        if self.alive.swap(false, Ordering::Relaxed) {
            self.trace.line(&self.name, format_args!("killed: {why}"));
            self.killed.notify_one();
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Returns when it is dead.
    pub async fn death(&self) {
        while self.is_alive() {
            self.killed.notified().await;
        }
    }

    /// Counts down; whether this is the place where it dies. `before` and `after` are asked for one event.
    pub(crate) fn meets(&self, event: Event) -> bool {
        let mut death = self.death.lock().unwrap_or_else(PoisonError::into_inner);
        let left = match (&mut *death, event) {
            (Some(Death::BeforeRequest(left)), Event::BeforeRequest)
            | (Some(Death::AfterRequest(left)), Event::AfterRequest)
            | (Some(Death::BeforeCommit(left)), Event::BeforeCommit)
            | (Some(Death::AfterCommit(left)), Event::AfterCommit) => left,
            (Some(Death::Point(name, left)), Event::Point(reached)) if *name == reached => left,
            _ => return false,
        };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        *death = None;
        true
    }
}

/// What a process comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    BeforeRequest,
    AfterRequest,
    BeforeCommit,
    AfterCommit,
    Point(&'static str),
}

/// Every named point of the engine that a writer comes by: a seed chooses among them, and a test sees that all were met.
pub const POINTS: [&str; 18] = [
    "checkpoint.planned",
    "checkpoint.begun",
    "checkpoint.staged",
    "checkpoint.blob-uploaded",
    "checkpoint.uploaded",
    "checkpoint.cleaned",
    "coalesce.uploaded",
    "publish.body",
    "publish.drafted",
    "publish.intended",
    "publish.landed",
    "publish.committed",
    "snapshot.shards",
    "snapshot.stored",
    "snapshot.head",
    "prune.planned",
    "prune.published",
    "pin.put",
];

/// A process as the engine's fault points see it.
#[derive(Debug)]
pub struct SimFaults(pub Arc<Process>);

impl Faults for SimFaults {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if self.0.is_alive() {
            self.0.passes(point);
            if self.0.meets(Event::Point(point)) {
                self.0.kill(point);
            }
        }
        if self.0.is_alive() { Ok(()) } else { Err(Crash(point)) }
    }
}

/// A machine's manifest as one process of it sees it: durable beyond the process, deaf to the dead.
#[derive(Debug)]
pub struct SimManifest {
    /// What survives.
    pub kept: MemoryManifest,
    /// Whose.
    pub process: Arc<Process>,
    /// Told of every intent, so that it knows which content a record stands for.
    pub oracle: Arc<Oracle>,
    /// Knows which step the process does wrongly.
    pub net: Arc<Net>,
}

impl SimManifest {
    fn dead(&self) -> Result<(), ManifestError> {
        if self.process.is_alive() { Ok(()) } else { Err(ManifestError::Failed("its process is dead".to_owned())) }
    }
}

impl Manifest for SimManifest {
    fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, ManifestError> {
        self.kept.volume(name)
    }

    fn volumes(&self) -> Result<Vec<VolumeRow>, ManifestError> {
        self.kept.volumes()
    }

    fn commit(&self, volume: &VolumeId, batch: &Batch) -> Result<Option<ChangeSeq>, ManifestError> {
        self.dead()?;
        if self.process.meets(Event::BeforeCommit) {
            self.process.kill("before a commit to its manifest");
            return Err(ManifestError::Failed("killed".to_owned()));
        }
        match self.process.full_in.load(Ordering::Relaxed) {
            0 => {}
            left => {
                self.process.full_in.store(left - 1, Ordering::Relaxed);
                if left == 1 {
                    return Err(ManifestError::Full("as a seed asked".to_owned()));
                }
            }
        }
        if let Some(Some(intent)) = &batch.intent {
            self.oracle.intended(&self.process, &intent.record);
        }
        let stood = self.kept.leases()?;
        let lost = batch.lease.filter(|token| stood.iter().all(|lease| lease.token != *token));
        let change = match lost {
            Some(_) if self.net.does(&self.process.name, Mutation::IntentWithoutLease) => {
                self.kept.commit(volume, &Batch { lease: None, ..batch.clone() })?
            }
            _ => self.kept.commit(volume, batch)?,
        };
        if let Some(token) = lost {
            let name = &self.process.name;
            self.oracle
                .violated(format!("{name} decided what is published under lease {token}, which was not its any more"));
        }
        if self.process.meets(Event::AfterCommit) {
            self.process.kill("after a commit to its manifest");
            return Err(ManifestError::Failed("killed".to_owned()));
        }
        Ok(change)
    }

    fn row(&self, volume: &VolumeId, chunk: ChunkId) -> Result<Option<littoral_types::ChunkRow>, ManifestError> {
        self.kept.row(volume, chunk)
    }

    fn has_base(&self, volume: &VolumeId, chunk: ChunkId) -> Result<bool, ManifestError> {
        self.kept.has_base(volume, chunk)
    }

    fn rows(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        self.kept.rows(volume, from, max)
    }

    fn deltas(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        self.kept.deltas(volume, from, max)
    }

    fn newest_delta(&self, volume: &VolumeId, page: PageNo) -> Result<Option<DeltaId>, ManifestError> {
        self.kept.newest_delta(volume, page)
    }

    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError> {
        self.kept.identities(volume, from, max)
    }

    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError> {
        self.kept.intent(volume)
    }

    fn sessions(&self, volume: &VolumeId) -> Result<Vec<littoral_types::SessionMark>, ManifestError> {
        self.kept.sessions(volume)
    }

    fn objects(&self, volume: &VolumeId) -> Result<Vec<littoral_types::ObjectMark>, ManifestError> {
        self.kept.objects(volume)
    }

    fn owners(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<littoral_types::PageOwner>, ManifestError> {
        self.kept.owners(volume, from, max)
    }

    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError> {
        self.kept.job(volume)
    }

    fn leases(&self) -> Result<Vec<littoral_types::Lease>, ManifestError> {
        self.kept.leases()
    }

    fn lease(&self, change: &littoral_ports::LeaseChange) -> Result<littoral_ports::Leased, ManifestError> {
        self.dead()?;
        self.kept.lease(change)
    }

    fn taken_away(&self, max: usize) -> Result<Vec<littoral_types::TakenAway>, ManifestError> {
        self.kept.taken_away(max)
    }

    fn jobs_told(&self) -> Result<Vec<littoral_types::Job>, ManifestError> {
        self.kept.jobs_told()
    }

    fn tell_job(&self, id: littoral_types::JobId, job: Option<&littoral_types::Job>) -> Result<(), ManifestError> {
        self.dead()?;
        self.kept.tell_job(id, job)
    }

    fn tell_jobs(&self, all: &[littoral_types::Job]) -> Result<(), ManifestError> {
        self.dead()?;
        self.kept.tell_jobs(all)
    }

    fn changes(&self, after: ChangeSeq, max: usize) -> Result<Vec<Change>, ManifestError> {
        self.kept.changes(after, max)
    }

    fn changes_since(&self, volume: &VolumeId, after: Seq) -> Result<Vec<Change>, ManifestError> {
        self.kept.changes_since(volume, after)
    }

    fn subscribe(&self, cursor: &str) -> Result<ChangeSeq, ManifestError> {
        self.dead()?;
        self.kept.subscribe(cursor)
    }

    fn acknowledge(&self, cursor: &str, change: ChangeSeq) -> Result<(), ManifestError> {
        self.dead()?;
        self.kept.acknowledge(cursor, change)
    }

    fn unsubscribe(&self, cursor: &str) -> Result<(), ManifestError> {
        self.dead()?;
        self.kept.unsubscribe(cursor)
    }

    fn trim(&self) -> Result<u64, ManifestError> {
        self.dead()?;
        self.kept.trim()
    }
}
