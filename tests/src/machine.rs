//! A machine: a database, the store beside it, and what dies with it.

use crate::chance::Chance;
use crate::clock::TestClock;
use crate::crash::CrashAt;
use crate::database::{Bounds, Database, Stock};
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::{Components, EngineError, Session, Stores, Target, open_for_writing};
use littoral_local::{LocalQuota, Store, StoreOptions};
use littoral_manifest::LmdbManifest;
use littoral_ports::{Manifest, MemoryManifest, PageSource, Remote, Silent};
use littoral_types::{Epoch, StoreId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One machine of a world.
pub struct Machine {
    root: PathBuf,
    remote: Arc<dyn Remote>,
    /// Where its engine dies.
    pub faults: Arc<CrashAt>,
    /// Its database.
    pub database: Database,
    /// What its engine asks.
    pub components: Components,
    chance: Arc<Chance>,
    /// A manifest that only lives as long as this: for worlds that have no time for LMDB.
    memory: Option<MemoryManifest>,
    stores: Option<Stores>,
    /// What it tried to publish, the last at the end: a publication that was interrupted may still come true, before the next.
    pub attempted: Vec<Arc<Stock>>,
    /// Whether it has yet to learn again what it knew of the log: until then nothing ties its database to a place there.
    pub ignorant: bool,
}

impl Machine {
    /// A machine with nothing on it, in this folder.
    pub fn new(
        root: PathBuf,
        remote: Arc<dyn Remote>,
        clock: Arc<TestClock>,
        chance: Chance,
        bounds: Bounds,
        durable: bool,
    ) -> Self {
        std::fs::create_dir_all(&root).unwrap();
        let database = Database::new(root.join("app.db"), bounds);
        std::fs::write(database.path(), b"").unwrap();
        let (chance, faults) = (Arc::new(chance), Arc::new(CrashAt::default()));
        let components = Components {
            clock,
            entropy: chance.clone(),
            faults: faults.clone(),
            quota: Arc::new(LocalQuota::unlimited()),
            progress: Arc::new(Silent),
            account: Arc::new(littoral_ports::Uncounted),
        };
        let memory = (!durable).then(MemoryManifest::new);
        Self {
            root,
            remote,
            faults,
            database,
            components,
            chance,
            memory,
            stores: None,
            attempted: Vec::new(),
            ignorant: true,
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn store_root(&self) -> PathBuf {
        self.root.join(".littoral")
    }

    /// Its stores, opened as a process opens them.
    pub fn stores(&mut self) -> Result<&Stores, EngineError> {
        if self.stores.is_none() {
            let store = Store::open_or_create(&self.store_root(), &*self.chance, StoreOptions::default())?;
            let manifest: Arc<dyn Manifest> = match &self.memory {
                Some(memory) => Arc::new(memory.clone()),
                None => Arc::new(LmdbManifest::open(&store.manifest_dir())?),
            };
            self.stores = Some(Stores { store, manifest, remote: self.remote.clone() });
        }
        Ok(self.stores.as_ref().unwrap())
    }

    /// Who it is.
    pub fn id(&mut self) -> StoreId {
        self.stores().unwrap().store.id()
    }

    /// Whether a publication was interrupted that its next start will finish.
    pub fn intends(&mut self) -> bool {
        let manifest = &self.stores().unwrap().manifest;
        let rows = manifest.volumes().unwrap();
        rows.iter().any(|row| manifest.intent(&row.meta.id).unwrap().is_some())
    }

    /// Its process ends, at whatever point.
    pub fn end_process(&mut self) {
        self.stores = None;
    }

    /// Its whole `.littoral` is gone.
    pub fn lose_store(&mut self) {
        self.end_process();
        if let Some(memory) = &mut self.memory {
            *memory = MemoryManifest::new();
        }
        let _ = std::fs::remove_dir_all(self.store_root());
        self.attempted.clear();
        self.ignorant = true;
    }

    /// Only its manifest is gone.
    pub fn lose_manifest(&mut self) {
        self.end_process();
        match &mut self.memory {
            Some(memory) => *memory = MemoryManifest::new(),
            None => {
                let _ = std::fs::remove_dir_all(self.store_root().join("manifest"));
            }
        }
        self.attempted.clear();
        self.ignorant = true;
    }

    /// Copies all of it, as an image of a disk does. Needs a manifest on the disk.
    pub fn image(&mut self, to: &Path) {
        assert!(self.memory.is_none());
        self.end_process();
        self.database.close();
        copy(&self.root, to);
    }

    /// Puts an image back.
    pub fn restore_image(&mut self, from: &Path) {
        self.end_process();
        self.database.close();
        std::fs::remove_dir_all(&self.root).unwrap();
        copy(from, &self.root);
    }

    /// Whether it can be copied.
    pub const fn has_disk(&self) -> bool {
        self.memory.is_none()
    }

    /// Opens the volume for writing.
    pub async fn open(&mut self, takeover: Option<Epoch>) -> Result<Session, EngineError> {
        let target = Target { database: self.database.path().to_owned(), volume: None, takeover, fencing: true };
        let components = self.components.clone();
        let stores = self.stores()?.clone();
        let session = open_for_writing(&stores, &components, &target).await;
        self.ignorant &= session.is_err();
        session
    }

    /// Publishes what a source holds.
    pub async fn publish(
        &mut self,
        session: &mut Session,
        source: &mut dyn PageSource,
        stock: &Arc<Stock>,
        options: &Options,
    ) -> Result<Option<Checkpointed>, EngineError> {
        self.attempted.push(stock.clone());
        checkpoint(&mut session.writer, &session.scratch, source, options).await
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &there);
        } else {
            std::fs::copy(entry.path(), there).unwrap();
        }
    }
}
