//! What opening a volume for writing would find, found without writing anything anywhere: what a dry run stands on.

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::partial::is_known;
use crate::exec::rebuild::rebuild;
use crate::log::publish::{new_volume, somebody};
use crate::log::{Log, Opened};
use crate::volume::{Target, bound as bound_in, name_of, refuse_foreign};
use littoral_format as format;
use littoral_local::Store;
use littoral_ports::{Manifest, MemoryManifest, Remote};
use littoral_types::{IdentityKey, Seq, VolumeId, VolumeKind, VolumeMeta, VolumeRow};
use std::sync::Arc;

/// What there is already.
#[derive(Clone, Debug)]
pub struct Existing {
    /// The database's store, where it has one.
    pub store: Option<Store>,
    /// The store's manifest, where it has one.
    pub manifest: Option<Arc<dyn Manifest>>,
    /// The object store; `None` where it is a folder that nobody has made yet.
    pub remote: Option<Arc<dyn Remote>>,
    /// Its URL.
    pub url: String,
}

/// A volume as a writer would find it.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Its state: the store's own manifest, or one in memory.
    pub manifest: Arc<dyn Manifest>,
    /// Its row.
    pub row: VolumeRow,
    /// Whether it would begin with this.
    pub is_new: bool,
    /// Whether an interrupted publication would be finished first.
    pub unfinished: bool,
}

/// Looks at a database's volume as [`crate::open_for_writing`] would, with the same refusals.
pub async fn preview(existing: &Existing, components: &Components, target: &Target) -> Result<Preview, EngineError> {
    let bound = match &existing.store {
        Some(store) => bound_in(store, target, &existing.url)?,
        None => None,
    };
    let name = match &bound {
        Some(found) => found.binding.volume.clone(),
        None => name_of(None, &target.database, target.volume.as_ref())?,
    };
    let bound = bound.map(|found| found.binding.id);
    let row = existing.manifest.as_ref().map(|manifest| manifest.volume(&name)).transpose()?.flatten();
    if let (None, Some(store), Some(row)) = (bound, &existing.store, &row) {
        refuse_foreign(store, target, row)?;
    }
    let Some(remote) = &existing.remote else {
        if let Some(row) = row.filter(|row| Some(row.meta.id) == bound && row.tail.seq > Seq::ZERO) {
            let volume = format!("{}/{name}", existing.url);
            return Err(EngineError::RemoteBehind { volume, local: row.tail.seq, remote: Seq::ZERO });
        }
        return Ok(begun(components, VolumeId(components.bits()), name));
    };
    let looking = Looking { existing, components, target, log: Log::new(remote.clone(), name), bound };
    looking.preview(row).await
}

fn begun(components: &Components, id: VolumeId, name: littoral_types::VolumeName) -> Preview {
    let meta = VolumeMeta {
        id,
        name,
        kind: VolumeKind::Database,
        identity_key: IdentityKey(components.bits()),
        created_ms: components.clock.wall_ms(),
        began_as: None,
    };
    Preview { manifest: Arc::new(MemoryManifest::default()), row: new_volume(meta), is_new: true, unfinished: false }
}

struct Looking<'a> {
    existing: &'a Existing,
    components: &'a Components,
    target: &'a Target,
    log: Log,
    bound: Option<VolumeId>,
}

impl Looking<'_> {
    async fn preview(&self, row: Option<VolumeRow>) -> Result<Preview, EngineError> {
        let opened = self.log.open().await?;
        let (row, manifest) = match (row, &self.existing.manifest) {
            (Some(row), Some(manifest)) if Some(row.meta.id) == self.bound => (row, manifest.clone()),
            _ => return self.without_manifest(opened).await,
        };
        let intent = manifest.intent(&row.meta.id)?;
        if (row.tail.seq == Seq::ZERO || row.tail.seen_ms == 0) && intent.is_none() {
            return self.without_manifest(opened).await;
        }
        let local = row.tail.seq;
        let Some(opened) = opened else {
            return match intent.filter(|_| local == Seq::ZERO) {
                Some(_) => Ok(Preview { manifest, row, is_new: true, unfinished: true }),
                None => Err(EngineError::RemoteBehind { volume: self.log.url(), local, remote: Seq::ZERO }),
            };
        };
        let tail = &opened.tail;
        if tail.seq < local {
            return Err(EngineError::RemoteBehind { volume: self.log.url(), local, remote: tail.seq });
        }
        let ours = |owner: &littoral_types::Owner| self.is_our_store(owner);
        if row.fenced.is_none() && tail.hash == row.tail.hash && tail.owner.as_ref().is_none_or(ours) {
            // What is compared here must be known here: nothing is written to the store's own manifest.
            if !is_known(&*manifest, &row)? {
                return self.rebuilt(&opened, intent.is_some()).await;
            }
            return Ok(Preview { manifest, row, is_new: false, unfinished: intent.is_some() });
        }
        // Ours has landed, and the manifest does not know it yet.
        let intended = intent.and_then(|intent| format::record::open(&intent.record).ok());
        if row.fenced.is_none() && intended.is_some_and(|intended| intended.hash == tail.hash) {
            return self.rebuilt(&opened, true).await;
        }
        self.taken_over(opened, |opened| {
            let (volume, tail) = (self.log.url(), &opened.tail);
            let is_newer = tail.epoch > row.tail.epoch || opened.meta.id != row.meta.id;
            let owner = match &tail.owner {
                Some(owner) => Some(owner.clone()),
                None if is_newer => Some(somebody()),
                None => row.tail.owner.clone(),
            };
            match owner.filter(|owner| !ours(owner)) {
                Some(owner) => EngineError::Superseded { volume, owner, epoch: tail.epoch, seq: tail.seq },
                None => EngineError::Diverged { volume, local, remote: tail.seq, epoch: tail.epoch },
            }
        })
        .await
    }

    fn is_our_store(&self, owner: &littoral_types::Owner) -> bool {
        self.existing.store.as_ref().is_some_and(|store| store.id() == owner.store)
    }

    async fn without_manifest(&self, opened: Option<Opened>) -> Result<Preview, EngineError> {
        let Some(opened) = opened else {
            if let Some(epoch) = self.target.takeover {
                let detail = format!("there is nothing to take over (--takeover={epoch})");
                return Err(EngineError::NoSuchPosition { volume: self.log.url(), detail });
            }
            let id = self.bound.unwrap_or_else(|| VolumeId(self.components.bits()));
            return Ok(begun(self.components, id, self.log.name().clone()));
        };
        let ours = self.bound == Some(opened.meta.id)
            && opened.tail.owner.as_ref().is_none_or(|owner| self.is_our_store(owner));
        if ours && self.target.takeover.is_none() {
            return self.rebuilt(&opened, false).await;
        }
        self.taken_over(opened, |opened| EngineError::NotBound {
            volume: self.log.url(),
            owner: label(opened),
            epoch: opened.tail.epoch,
            lsn: opened.tail.lsn,
        })
        .await
    }

    /// What a takeover would stand on, where one was asked for; else the refusal.
    async fn taken_over(
        &self,
        opened: Opened,
        refusal: impl FnOnce(&Opened) -> EngineError,
    ) -> Result<Preview, EngineError> {
        match self.target.takeover {
            None => Err(refusal(&opened)),
            Some(epoch) if epoch == opened.tail.epoch => self.rebuilt(&opened, false).await,
            Some(said) => Err(EngineError::WrongTakeover {
                volume: self.log.url(),
                said,
                found: opened.tail.epoch,
                owner: label(&opened),
            }),
        }
    }

    async fn rebuilt(&self, opened: &Opened, unfinished: bool) -> Result<Preview, EngineError> {
        let manifest = Arc::new(MemoryManifest::default());
        let row = rebuild(&self.log, opened, &*manifest, self.components).await?;
        Ok(Preview { manifest, row, is_new: false, unfinished })
    }
}

fn label(opened: &Opened) -> String {
    opened.tail.owner.as_ref().map_or_else(|| "nobody: it was released".to_owned(), |owner| owner.label.clone())
}
