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
use crate::error::EngineError;
use crate::exec::rebuild::begin;
use crate::log::publish::new_volume;
use crate::log::{Draft, Log, Opened, Writer};
use littoral_format::keys::{self, Folder};
use littoral_local::{FileState, Found, LocalError, Scratch, Store, WorkerLock};
use littoral_ports::{Manifest, Remote};
use littoral_types::limits::WORKER_WAIT_MS;
use littoral_types::{
    Claim, Epoch, FooterFigures, IdentityKey, Owner, RecordBody, Release, Seq, TailRow, VolumeId, VolumeKind,
    VolumeMeta, VolumeName, VolumeRow,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a takeover begins again because the owner published meanwhile.
const TAKEOVERS_MAX: u32 = 5;
/// How often it is looked whether the store's worker is done.
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
    /// The store's, so that nobody else in this machine works on it.
    _lock: WorkerLock,
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

/// Opens a database's volume for writing.
pub async fn open_for_writing(
    stores: &Stores,
    components: &Components,
    target: &Target,
) -> Result<Session, EngineError> {
    let lock = worker(&stores.store, components).await?;
    let url = stores.remote.url();
    let bound = bound(&stores.store, target, &url)?;
    let name = match &bound {
        Some(found) => found.binding.volume.clone(),
        None => name_of(None, &target.database, target.volume.as_ref())?,
    };
    let id = bound.map(|found| found.binding.id);
    let opening = Opening { stores, components, target, log: Log::new(stores.remote.clone(), name) };
    let (writer, finished_intent) = opening.writer(id).await?;
    let scratch = stores.store.scratch(components.quota.clone());
    scratch.sweep()?;
    Ok(Session { writer, scratch, finished_intent, _lock: lock })
}

/// Becomes the store's worker, after whoever is it now: two checkpoints at once follow one another.
async fn worker(store: &Store, components: &Components) -> Result<WorkerLock, EngineError> {
    let since = components.clock.boot_ms();
    loop {
        match store.lock_worker() {
            Err(LocalError::Busy { .. }) if components.clock.boot_ms().saturating_sub(since) < WORKER_WAIT_MS => {
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
    writer.publish(plain(RecordBody::Release(Release { owner }), &tail)).await
}

fn plain(body: RecordBody, tail: &TailRow) -> Draft {
    Draft { body, commits: 0, figures: tail.figures, added: FooterFigures::default(), identities: Vec::new() }
}

struct Opening<'a> {
    stores: &'a Stores,
    components: &'a Components,
    target: &'a Target,
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
        let finished = writer.finish_intent().await?;
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

    /// A writer at the end of a log of which this store's manifest knows nothing yet, or something else.
    async fn begun(&self, opened: &Opened) -> Result<Writer, EngineError> {
        let row = begin(&self.log, opened, &*self.stores.manifest, self.components).await?;
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
            match self.claim(&mut writer, opened.tail.owner.is_some().then_some(epoch)).await {
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
        self.probe().await?;
        let meta = VolumeMeta {
            id: bound.unwrap_or_else(|| VolumeId(self.components.bits())),
            name: self.log.name().clone(),
            kind: VolumeKind::Database,
            identity_key: IdentityKey(self.components.bits()),
            created_ms: self.components.clock.wall_ms(),
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
        writer.publish(plain(RecordBody::Claim(claim), &tail)).await?;
        Ok(())
    }

    /// Two writers, one winner: or the user is told, before anything depends on it.
    async fn probe(&self) -> Result<(), EngineError> {
        if self.target.fencing {
            let folder = keys::folder(self.log.name(), Folder::Probe);
            littoral_remote::probe(&*self.stores.remote, &folder, &*self.components.entropy).await?;
        } else {
            tracing::warn!(volume = %self.log.name(), "fencing is off: two writers of this volume can both win");
        }
        Ok(())
    }
}
