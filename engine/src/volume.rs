//! A database's volume opened for writing: whose it is, and what follows when it is not ours.
//!
//! | the database is | the remote has | what happens |
//! |---|---|---|
//! | bound, its manifest known | our tail | goes on |
//! | bound, its manifest known | more, with a newer claim | refused: superseded, by whom (I3) |
//! | bound, its manifest known | more, without one | refused: diverged, as after restoring a machine's image (P3) |
//! | bound, its manifest known | less | refused: the remote lost records |
//! | bound, its manifest lost | our volume, our term | the manifest begins anew from the object store alone |
//! | not bound | nothing | a new volume: probe, bind, claim |
//! | not bound | a volume | refused with the choices (P3, P14), unless `takeover` names its epoch |

use crate::components::Components;
use crate::copies::promote::{refuse_copy, refuse_lost};
use crate::error::EngineError;
use crate::exec::rebuild::{begin, rebuild};
use crate::exec::segment;
use crate::jobs::Desk;
use crate::leases::{Held, Leases};
use crate::log::publish::new_volume;
use crate::log::{Draft, Log, Opened, Writer};
use crate::open::{Place, policy};
use crate::telemetry::{self, CountedQuota};
use littoral_format::keys::{self, Folder};
use littoral_local::tracker::residency::Residency;
use littoral_local::{FileState, Flag, Flags, Found, LocalError, Scratch, Store, WorkerLock};
use littoral_plan::CheckpointPolicy;
use littoral_plan::room::Shares;
use littoral_ports::{Job, Manifest, Recovery, Remote};
use littoral_types::limits::{LEASE_MS, WORKER_WAIT_MS};
use littoral_types::{
    Claim, Epoch, Generation, IdentityKey, Owner, RecordBody, Release, Seq, VolumeId, VolumeKind, VolumeMeta,
    VolumeName, VolumeRow,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a takeover begins again because the owner published meanwhile.
const TAKEOVERS_MAX: u32 = 5;
/// How often it is looked whether whoever is at work is done.
const WORKER_PAUSE_MS: u64 = 50;

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct Target {
    /// The database file.
    pub database: PathBuf,
    /// The volume's name, where it is given; else the binding's, else the file's base name.
    pub volume: Option<VolumeName>,
    /// The epoch that the user takes over from, by name.
    pub takeover: Option<Epoch>,
    /// Whether a store that does not honour a conditional PUT is refused.
    pub fencing: bool,
}

/// The stores that a volume lies in.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The local directory.
    pub store: Store,
    /// Its manifest.
    pub manifest: Arc<dyn Manifest>,
    /// The object store.
    pub remote: Arc<dyn Remote>,
}

/// A volume that may be written, for as long as this lives.
#[derive(Debug)]
pub struct Session {
    /// Extends its log.
    pub writer: Writer,
    /// Where blobs are built.
    pub scratch: Scratch,
    /// Whether an interrupted publication was finished on the way.
    pub finished_intent: bool,
    /// The volume's, so that nobody else on this machine extends its log.
    _volume: WorkerLock,
    /// The store's, where blobs may be staged.
    worker: Option<WorkerLock>,
    store: Store,
}

/// A volume that was open for writing and will be again; meanwhile others of this store may write it.
#[derive(Debug)]
pub struct Rested {
    writer: Writer,
    scratch: Scratch,
    store: Store,
    database: PathBuf,
}

impl Session {
    /// Lets others of this store write the volume, and keeps what was learnt by opening it.
    pub fn rest(self, database: &Path) -> Rested {
        Rested { writer: self.writer, scratch: self.scratch, store: self.store, database: database.to_owned() }
    }

    /// The store's lock, where this is its worker.
    pub(crate) const fn worker(&self) -> Option<&WorkerLock> {
        self.worker.as_ref()
    }

    /// The store's queue, where this process keeps jobs.
    pub(crate) fn desk(&self) -> Option<Desk> {
        Desk::of(&self.store, Some(self.writer.manifest().clone()), self.writer.components())
    }

    /// Becomes the store's worker, where nobody is it now. Not waited for: who is it may wait for this volume.
    pub fn becomes_worker(&mut self) -> Result<(), EngineError> {
        if self.worker.is_none() {
            self.worker = Some(self.store.lock_worker()?);
            self.scratch.sweep()?;
        }
        Ok(())
    }

    /// What a checkpoint may do, as switches stand just now; refused where they are switched off.
    pub(crate) fn may_checkpoint(&self, tenant: Option<&str>) -> Result<Switched, EngineError> {
        switched(&self.store, &self.writer, tenant)
    }
}

/// How a volume's switches stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switched {
    /// Where a checkpoint draws its lines.
    pub(crate) policy: CheckpointPolicy,
    /// After so long what was shipped is folded.
    pub(crate) folds_every_ms: Option<u64>,
}

fn switched(store: &Store, writer: &Writer, tenant: Option<&str>) -> Result<Switched, EngineError> {
    let (flags, volume) = (Flags::of(store.root())?, &writer.row().meta.name);
    let of = |flag| flags.of_volume(flag, volume, tenant).0;
    match of(Flag::EnableCheckpoints).is_on() {
        true => Ok(Switched {
            policy: policy(&flags, volume, tenant),
            folds_every_ms: of(Flag::CheckpointIntervalSeconds).every_ms(),
        }),
        false => Err(EngineError::SwitchedOff {
            flag: Flag::EnableCheckpoints,
            volume: writer.log().url(),
            file: Flags::path_of(store.root()),
        }),
    }
}

impl Rested {
    /// The right to extend the log, after whoever has it now; or at once, or not.
    pub async fn turn(&self, components: &Components, waits: bool) -> Result<WorkerLock, EngineError> {
        publisher(&self.store, components, &self.database, waits).await
    }

    /// Looks and works apart: what needs no lock.
    pub(crate) fn writer_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Goes on as soon as whoever is at work lets it, for as long as what is done meanwhile stands.
    pub(crate) async fn again(self, components: &Components, held: Option<&Held>) -> Result<Session, EngineError> {
        let since = components.clock.boot_ms();
        loop {
            held.map_or(Ok(()), Held::step)?;
            match self.turn(components, true).await {
                Ok(lock) => return self.resume(lock),
                Err(EngineError::AtWork(_)) if components.clock.boot_ms().saturating_sub(since) < LEASE_MS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The generation of what was seen last.
    pub(crate) const fn generation(&self) -> Generation {
        self.writer.row().tail.figures.generation
    }

    /// In how many milliseconds what was shipped has lain there for as long as it is to, where it may be folded then.
    pub(crate) fn folds_in_ms(
        &self,
        tenant: Option<&str>,
        stretch: u64,
        now_ms: u64,
    ) -> Result<Option<u64>, EngineError> {
        let every = switched(&self.store, &self.writer, tenant)?.folds_every_ms;
        let every = every.map(|every| every.saturating_mul(stretch));
        if every.is_none() {
            return Ok(None);
        }
        Ok(segment::pressure(&self.writer)?.older_in_ms(every, now_ms))
    }

    /// Goes on. The object store is not asked: whoever else extended the log from here has told the manifest, and whoever did from
    /// elsewhere wins the next name (rule P3).
    pub fn resume(self, volume: WorkerLock) -> Result<Session, EngineError> {
        let Self { mut writer, scratch, store, .. } = self;
        writer.look_again()?;
        Ok(Session { writer, scratch, finished_intent: false, _volume: volume, worker: None, store })
    }
}

/// The volume's name that a database gets when nobody chooses one: its file's base name.
pub fn default_name(database: &Path) -> Result<VolumeName, EngineError> {
    let base = database.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    base.parse().map_err(|error| {
        EngineError::Settings(format!("the file's name cannot name a volume: {error}: say --volume=NAME"))
    })
}

/// The volume's name for reading: given, bound, or derived; in that order.
pub fn name_of(store: Option<&Store>, database: &Path, volume: Option<&VolumeName>) -> Result<VolumeName, EngineError> {
    if let Some(volume) = volume {
        return Ok(volume.clone());
    }
    match store.map(|store| store.find_path(database)).transpose()?.flatten() {
        Some(found) => Ok(found.binding.volume),
        None => default_name(database),
    }
}

/// How a database is bound, if it may use the volume it wants. A binding whose database is gone stands in nobody's way when
/// the user takes over by name: that is how a folder that was copied to another machine goes on there.
pub(crate) fn bound(store: &Store, target: &Target, url: &str) -> Result<Option<Found>, EngineError> {
    if target.takeover.is_some()
        && let Some(volume) = &target.volume
        && store.find_path(&target.database)?.is_none()
        && store.find_volume(volume, url)?.is_some_and(|found| found.file == FileState::Gone)
    {
        return Ok(None);
    }
    Ok(store.resolve(&target.database, target.volume.as_ref(), url)?)
}

/// Refuses a volume that is another database's in this store (rule P14). One whose database is gone may be taken over.
pub(crate) fn refuse_foreign(store: &Store, target: &Target, row: &VolumeRow) -> Result<(), EngineError> {
    let Some(other) = store.bindings()?.into_iter().find(|binding| binding.id == row.meta.id) else { return Ok(()) };
    let (name, path, epoch) = (&row.meta.name, other.path.display(), row.tail.epoch);
    if other.path.exists() {
        return Err(EngineError::Refused(format!(
            "this store knows volume {name} as that of {path}: two databases are never merged, and a copied folder is not the \
             original. Nothing was published. Choose: a name of its own (--volume=NAME), or a store of its own (--store=DIR) and \
             another remote"
        )));
    }
    match target.takeover {
        Some(_) => Ok(()),
        None => Err(EngineError::Refused(format!(
            "this store knows volume {name} as that of {path}, which is gone: this looks like a copied folder or a restored disk. \
             Nothing was published. Choose: if the database goes on here and nowhere else, --takeover={epoch}; else a name of its \
             own (--volume=NAME)"
        ))),
    }
}

/// What a volume that is opened for writing holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Database,
    /// The log of this id, which was made then: a volume that begins with it has that id.
    Log {
        id: VolumeId,
        created_ms: u64,
    },
}

impl Holds {
    const fn kind(self) -> VolumeKind {
        match self {
            Holds::Database => VolumeKind::Database,
            Holds::Log { .. } => VolumeKind::Log,
        }
    }
}

/// Opens a log's volume to ship its records: the database of the target is the log's folder.
pub async fn open_log(
    stores: &Stores,
    components: &Components,
    target: &Target,
    (id, created_ms): (VolumeId, u64),
) -> Result<Session, EngineError> {
    open_beside_the_worker(stores, components, target, true, Holds::Log { id, created_ms }).await
}

/// The same for who has the volume of the database open whose table it is: nobody else begins one, and he may be the store's worker himself.
pub(crate) async fn open_tables_log(
    stores: &Stores,
    components: &Components,
    target: &Target,
    (id, created_ms): (VolumeId, u64),
) -> Result<Session, EngineError> {
    let volume = publisher(&stores.store, components, &target.database, true).await?;
    opened(stores, components, target, volume, Holds::Log { id, created_ms }).await
}

/// Opens a database's volume for writing whatever there is to write.
pub async fn open_for_writing(
    stores: &Stores,
    components: &Components,
    target: &Target,
) -> Result<Session, EngineError> {
    let worker = waited(components, true, || stores.store.lock_worker()).await?;
    let volume = publisher(&stores.store, components, &target.database, true).await?;
    let mut session = opened(stores, components, target, volume, Holds::Database).await?;
    session.scratch.sweep()?;
    session.worker = Some(worker);
    Ok(session)
}

/// Opens it for what needs no blobs: others of this store may stage theirs meanwhile. Who does not wait is told who is at work. What is
/// not bound yet is opened by the store's worker all the same: of two that begin a volume one comes first.
pub async fn open_for_shipping(
    stores: &Stores,
    components: &Components,
    target: &Target,
    waits: bool,
) -> Result<Session, EngineError> {
    open_beside_the_worker(stores, components, target, waits, Holds::Database).await
}

async fn open_beside_the_worker(
    stores: &Stores,
    components: &Components,
    target: &Target,
    waits: bool,
    holds: Holds,
) -> Result<Session, EngineError> {
    let worker = match stores.store.find_path(&target.database)? {
        Some(_) => None,
        None => Some(waited(components, waits, || stores.store.lock_worker()).await?),
    };
    let volume = publisher(&stores.store, components, &target.database, waits).await?;
    let mut session = opened(stores, components, target, volume, holds).await?;
    session.worker = worker;
    Ok(session)
}

async fn opened(
    stores: &Stores,
    components: &Components,
    target: &Target,
    volume: WorkerLock,
    holds: Holds,
) -> Result<Session, EngineError> {
    let url = stores.remote.url();
    let bound = bound(&stores.store, target, &url)?;
    let name = match &bound {
        Some(found) => found.binding.volume.clone(),
        None => name_of(None, &target.database, target.volume.as_ref())?,
    };
    let id = bound.map(|found| found.binding.id);
    let opening = Opening { stores, components, target, holds, log: Log::new(stores.remote.clone(), name) };
    let (writer, finished_intent) = opening.writer(id).await?;
    let writer = writer.with_leases(Leases::new(&stores.store, stores.manifest.clone(), components));
    // Of a database that is not all here most of its quota is its pages'.
    let is_sparse = Residency::path_of(stores.store.root(), &target.database).exists();
    let limit = is_sparse.then(|| Shares::of(components.quota.limit()).staged);
    let job = Job { database: &target.database, limit };
    let quota = components.quota.of_store(stores.store.root(), job).unwrap_or_else(|| components.quota.clone());
    let quota = Arc::new(CountedQuota { quota, account: components.account.clone() });
    let scratch = stores.store.scratch(quota);
    Ok(Session { writer, scratch, finished_intent, _volume: volume, worker: None, store: stores.store.clone() })
}

/// The right to extend the log of a database's volume.
async fn publisher(
    store: &Store,
    components: &Components,
    database: &Path,
    waits: bool,
) -> Result<WorkerLock, EngineError> {
    waited(components, waits, || store.lock_volume(database)).await.map_err(at_work)
}

fn at_work(error: EngineError) -> EngineError {
    match error {
        EngineError::Local(error @ LocalError::Busy { .. }) => EngineError::AtWork(error),
        error => error,
    }
}

/// The same right for who extends nothing, and looks at what is marked of an open database as a checkpoint does: by setting it aside, which
/// two cannot do at once. After whoever has it now, as for a checkpoint, where nobody says for how long; none is needed where there is no
/// store.
pub async fn alone(
    place: &Place,
    components: &Components,
    wait_ms: Option<u64>,
) -> Result<Option<WorkerLock>, EngineError> {
    let Some((store, database)) = place.store.as_ref().zip(place.database.as_ref()) else { return Ok(None) };
    let wait_ms = wait_ms.unwrap_or(WORKER_WAIT_MS);
    waited_for(components, wait_ms, || store.lock_volume(database)).await.map(Some).map_err(at_work)
}

/// A lock, after whoever has it now: two checkpoints at once follow one another.
async fn waited(
    components: &Components,
    waits: bool,
    take: impl Fn() -> Result<WorkerLock, LocalError>,
) -> Result<WorkerLock, EngineError> {
    waited_for(components, if waits { WORKER_WAIT_MS } else { 0 }, take).await
}

/// The same for who waits so long at most.
pub(crate) async fn waited_for(
    components: &Components,
    at_most_ms: u64,
    take: impl Fn() -> Result<WorkerLock, LocalError>,
) -> Result<WorkerLock, EngineError> {
    let since = components.clock.boot_ms();
    loop {
        match take() {
            Err(LocalError::Busy { .. }) if components.clock.boot_ms().saturating_sub(since) < at_most_ms => {
                components.clock.sleep_ms(WORKER_PAUSE_MS).await;
            }
            locked => return Ok(locked?),
        }
    }
}

/// Ends our term in order, so that the next writer needs no takeover.
pub async fn release(writer: &mut Writer) -> Result<Seq, EngineError> {
    writer.settle().await?;
    let tail = writer.row().tail.clone();
    let Some(owner) = tail.owner.clone() else { return Ok(tail.seq) };
    let seq = writer.publish(Draft::of(RecordBody::Release(Release { owner }), tail.figures)).await?;
    telemetry::fence_released(&writer.log().url(), tail.epoch);
    Ok(seq)
}

struct Opening<'a> {
    stores: &'a Stores,
    components: &'a Components,
    target: &'a Target,
    holds: Holds,
    log: Log,
}

impl Opening<'_> {
    async fn writer(&self, bound: Option<VolumeId>) -> Result<(Writer, bool), EngineError> {
        let manifest = &self.stores.manifest;
        let known = match (bound, manifest.volume(self.log.name())?) {
            (Some(id), Some(row)) if row.meta.id == id && self.is_begun(&row)? => Some(row),
            (None, Some(row)) => {
                refuse_foreign(&self.stores.store, self.target, &row)?;
                None
            }
            _ => None,
        };
        let Some(row) = known else { return self.without_manifest(bound).await.map(|writer| (writer, false)) };
        self.refuse_other(&row.meta)?;
        let id = row.meta.id;
        let going_on = self.go_on(row).await;
        let begun = manifest.volume(self.log.name())?.is_some_and(|row| row.tail.seq > Seq::ZERO);
        if !begun && matches!(going_on, Err(EngineError::Superseded { .. } | EngineError::Diverged { .. })) {
            self.give_up(id)?;
        }
        match (going_on, self.target.takeover) {
            (Err(EngineError::Superseded { .. } | EngineError::Diverged { .. }), Some(epoch)) => {
                let Some(opened) = self.log.open().await? else { return Err(EngineError::NoVolume(self.log.url())) };
                self.take_over(opened, epoch, bound).await.map(|writer| (writer, false))
            }
            (going_on, _) => going_on,
        }
    }

    /// A row whose first claim never landed, and is not about to, is no volume; nor is one whose rebuilding was cut off.
    fn is_begun(&self, row: &VolumeRow) -> Result<bool, EngineError> {
        let whole = row.tail.seq > Seq::ZERO && row.tail.seen_ms > 0;
        Ok(whole || self.stores.manifest.intent(&row.meta.id)?.is_some())
    }

    fn writer_at(&self, row: VolumeRow) -> Writer {
        let (manifest, components) = (self.stores.manifest.clone(), self.components.clone());
        Writer::new(self.log.clone(), manifest, components, self.stores.store.id(), row)
    }

    fn owner(&self) -> Owner {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let label = format!("{host}:{}", self.stores.store.root().display());
        let label = label.chars().take(littoral_types::limits::TEXT_LEN_MAX / 4).collect();
        Owner { store: self.stores.store.id(), label }
    }

    fn recovered(&self, phase: Recovery, began_ms: u64) {
        let took_ms = self.components.clock.boot_ms().saturating_sub(began_ms);
        telemetry::recovery_phase(self.components, &self.log.url(), phase, took_ms);
    }

    async fn go_on(&self, row: VolumeRow) -> Result<(Writer, bool), EngineError> {
        let fenced = row.fenced.clone();
        let mut writer = self.writer_at(row);
        if let Some((epoch, owner)) = fenced {
            // Others may have followed the one that was seen first: the user is told whose term it is now.
            return Err(match writer.find_out_who_won().await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "whose term it is now cannot be read");
                    let seq = writer.row().tail.seq;
                    EngineError::Superseded { volume: self.log.url(), owner, epoch, seq }
                }
            });
        }
        let began_ms = self.components.clock.boot_ms();
        let finished = writer.finish_intent().await?;
        if finished {
            self.recovered(Recovery::Intent, began_ms);
        }
        let began_ms = self.components.clock.boot_ms();
        let newest = self.log.newest().await?;
        if newest == Some(writer.row().tail.seq.next()) {
            writer.adopt_index().await?;
        }
        let ours = writer.row().tail.seq;
        match newest {
            Some(newest) if newest == ours => self.same_record(&writer).await?,
            Some(newest) if newest > ours => return Err(writer.find_out_who_won().await?),
            newest => {
                let remote = newest.unwrap_or(Seq::ZERO);
                return Err(EngineError::RemoteBehind { volume: self.log.url(), local: ours, remote });
            }
        }
        self.recovered(Recovery::Tail, began_ms);
        self.bind(writer.row().meta.id)?;
        match &writer.row().tail.owner {
            Some(owner) if owner.store == self.stores.store.id() => {}
            // Released: the next term begins without a takeover.
            None => self.claim(&mut writer, None).await?,
            Some(owner) => {
                let (owner, tail) = (owner.clone(), &writer.row().tail);
                return Err(EngineError::Superseded {
                    volume: self.log.url(),
                    owner,
                    epoch: tail.epoch,
                    seq: tail.seq,
                });
            }
        }
        Ok((writer, finished))
    }

    /// Counts agree where a volume was made anew under its name with as many records: only the hash tells.
    async fn same_record(&self, writer: &Writer) -> Result<(), EngineError> {
        let (row, url) = (writer.row(), self.log.url());
        let tail = &row.tail;
        match self.log.envelope(tail.seq).await? {
            Some(envelope) if envelope.hash == tail.hash => Ok(()),
            Some(envelope) if envelope.header.volume == row.meta.id => Err(EngineError::Diverged {
                volume: url,
                local: tail.seq,
                remote: envelope.header.seq,
                epoch: envelope.header.epoch,
            }),
            Some(_) => Err(EngineError::NotAVolume {
                volume: url,
                detail: "another volume was made under this name since: publish under another one (--volume=NAME)"
                    .to_owned(),
            }),
            None => Err(EngineError::RemoteBehind { volume: url, local: tail.seq, remote: Seq::ZERO }),
        }
    }

    async fn without_manifest(&self, bound: Option<VolumeId>) -> Result<Writer, EngineError> {
        let Some(opened) = self.log.open().await? else { return self.begin(bound).await };
        self.refuse_other(&opened.meta)?;
        let tail = &opened.tail;
        let ours = bound == Some(opened.meta.id)
            && tail.owner.as_ref().is_none_or(|owner| owner.store == self.stores.store.id());
        match self.target.takeover {
            // Whoever was taken over from once: the term is ours by now.
            _ if ours => {
                tracing::info!(volume = %self.log.name(), "the local manifest is gone: beginning it anew from the object store");
                let mut writer = self.begun(&opened).await?;
                if writer.row().tail.owner.is_none() {
                    self.claim(&mut writer, None).await?;
                }
                Ok(writer)
            }
            None => Err(EngineError::NotBound {
                volume: self.log.url(),
                owner: tail
                    .owner
                    .as_ref()
                    .map_or_else(|| "nobody: it was released".to_owned(), |owner| owner.label.clone()),
                epoch: tail.epoch,
                lsn: tail.lsn,
            }),
            Some(epoch) => self.take_over(opened, epoch, bound).await,
        }
    }

    /// A database's volume is no log's, and a log's is no other one's: whatever was said, the two are never merged.
    fn refuse_other(&self, meta: &VolumeMeta) -> Result<(), EngineError> {
        let (url, said) = (self.log.url(), self.holds.kind());
        match self.holds {
            _ if meta.kind != said => {
                let way = "nothing was published: choose a name of its own (--volume=NAME)";
                Err(EngineError::OtherKind { volume: url, kind: meta.kind, way })
            }
            Holds::Log { id, .. } if id != meta.log() => Err(EngineError::Refused(format!(
                "{url} is the volume of another log: two logs are never merged. Nothing was published. Choose a name of its own \
                 (--volume=NAME)"
            ))),
            Holds::Database | Holds::Log { .. } => Ok(()),
        }
    }

    /// A writer at the end of a log of which this store's manifest knows nothing yet, or something else.
    async fn begun(&self, opened: &Opened) -> Result<Writer, EngineError> {
        let began_ms = self.components.clock.boot_ms();
        let row = match self.holds {
            Holds::Database => begin(&self.log, opened, &*self.stores.manifest, self.components).await?,
            // Its rows are few: whoever ships knows all of them.
            Holds::Log { .. } => rebuild(&self.log, opened, &*self.stores.manifest, self.components).await?,
        };
        self.recovered(Recovery::Manifest, began_ms);
        let mut writer = self.writer_at(row);
        if let Some(snapshot) = &opened.snapshot {
            writer.remember_shards(snapshot.seq, snapshot.shards.clone());
        }
        Ok(writer)
    }

    async fn take_over(
        &self,
        mut opened: Opened,
        epoch: Epoch,
        bound: Option<VolumeId>,
    ) -> Result<Writer, EngineError> {
        self.named(&opened, epoch)?;
        let store = &self.stores.store;
        let foreign = store.bindings()?.into_iter().find(|known| known.id == opened.meta.id && bound != Some(known.id));
        if let Some(foreign) = &foreign
            && foreign.path.exists()
        {
            // Asked before anything is claimed: this store binds a volume once (rule P14).
            return Err(EngineError::Refused(format!(
                "{} is the volume of {} in this store: two databases are never merged. Nothing was published. Choose a name of \
                 its own (--volume=NAME)",
                self.log.url(),
                foreign.path.display()
            )));
        }
        self.probe().await?;
        let old = bound.filter(|old| *old != opened.meta.id).or(foreign.map(|foreign| foreign.id));
        for left in (0..TAKEOVERS_MAX).rev() {
            let mut writer = self.begun(&opened).await?;
            if let Some(old) = old.filter(|_| left + 1 == TAKEOVERS_MAX) {
                store.unbind(old)?;
            }
            // Bound before it is claimed: a crash between the two is finished at the next open, without being told again.
            self.bind(opened.meta.id)?;
            let claimed = self.claim(&mut writer, opened.tail.owner.is_some().then_some(epoch)).await;
            if bound != Some(opened.meta.id)
                && matches!(claimed, Err(EngineError::Superseded { .. } | EngineError::Diverged { .. }))
            {
                // It was never ours: whoever comes here next is no copy of a machine that it was.
                self.give_up(opened.meta.id)?;
            }
            match claimed {
                Ok(()) => return Ok(writer),
                // Its owner published meanwhile. The term is still the one that was named.
                Err(EngineError::Superseded { epoch: found, .. } | EngineError::Diverged { epoch: found, .. })
                    if found == epoch && left > 0 => {}
                Err(error) => return Err(error),
            }
            opened = self.log.open().await?.ok_or_else(|| EngineError::NoVolume(self.log.url()))?;
            self.named(&opened, epoch)?;
        }
        Err(EngineError::NoVolume(self.log.url()))
    }

    /// Whether the term that the user takes over from is the one that is.
    fn named(&self, opened: &Opened, epoch: Epoch) -> Result<(), EngineError> {
        let tail = &opened.tail;
        if tail.epoch == epoch {
            return Ok(());
        }
        Err(EngineError::WrongTakeover {
            volume: self.log.url(),
            said: epoch,
            found: tail.epoch,
            owner: tail.owner.as_ref().map_or_else(|| "released".to_owned(), |owner| owner.label.clone()),
        })
    }

    /// A new volume. Bound before it is claimed, so that a crash between the two leaves a name that only this database uses.
    async fn begin(&self, bound: Option<VolumeId>) -> Result<Writer, EngineError> {
        if let Some(epoch) = self.target.takeover {
            let detail = format!("there is nothing to take over (--takeover={epoch})");
            return Err(EngineError::NoSuchPosition { volume: self.log.url(), detail });
        }
        refuse_lost(&self.log).await?;
        self.probe().await?;
        let (id, created_ms) = match self.holds {
            Holds::Database => {
                (bound.unwrap_or_else(|| VolumeId(self.components.bits())), self.components.clock.wall_ms())
            }
            Holds::Log { id, created_ms } => (id, created_ms),
        };
        let meta = VolumeMeta {
            id,
            name: self.log.name().clone(),
            kind: self.holds.kind(),
            identity_key: IdentityKey(self.components.bits()),
            created_ms,
            began_as: None,
        };
        self.bind(meta.id)?;
        let id = meta.id;
        let mut writer = self.writer_at(new_volume(meta));
        let claimed = self.claim(&mut writer, None).await;
        if matches!(claimed, Err(EngineError::Superseded { .. } | EngineError::Diverged { .. })) {
            self.give_up(id)?;
        }
        claimed?;
        Ok(writer)
    }

    /// Somebody else's first claim was faster: the name is theirs, and nothing of ours was published under it.
    fn give_up(&self, id: VolumeId) -> Result<(), EngineError> {
        self.stores.store.unbind(id)?;
        self.stores.manifest.commit(&id, &littoral_ports::Batch { reset: true, ..Default::default() })?;
        Ok(())
    }

    fn bind(&self, id: VolumeId) -> Result<(), EngineError> {
        self.stores.store.bind(&self.target.database, self.log.name(), id, &self.stores.remote.url())?;
        Ok(())
    }

    async fn claim(&self, writer: &mut Writer, takes_over: Option<Epoch>) -> Result<(), EngineError> {
        let claim = Claim { owner: self.owner(), takes_over, volume: writer.row().meta.clone() };
        let tail = writer.row().tail.clone();
        writer.publish(Draft::of(RecordBody::Claim(claim), tail.figures)).await?;
        telemetry::fence_claimed(&self.log.url(), writer.row().tail.epoch, takes_over);
        Ok(())
    }

    /// Two writers, one winner: or the user is told, before anything depends on it.
    async fn probe(&self) -> Result<(), EngineError> {
        refuse_copy(&self.log).await?;
        if self.target.fencing {
            let folder = keys::folder(self.log.name(), Folder::Probe);
            littoral_remote::probe(&*self.stores.remote, &folder, &*self.components.entropy).await?;
        } else {
            tracing::warn!(volume = %self.log.name(), "fencing is off: two writers of this volume can both win");
        }
        Ok(())
    }
}
