//! A log in the care of a worker: what its appender left when it died goes to its volume, and what it need not keep goes, while nobody appends.
//!
//! What this room promises:
//! 1. Whoever appends ships by himself, and is never kept waiting for longer than it takes to look at what a dead one left (`littoral_local::log::settle`):
//!    while something travels, nobody has the right to append.
//! 2. Nothing is begun and nobody's term ends: a log without a volume is left alone, so is one that was released, or taken over.
//! 3. Where nothing changed, nothing is asked of the object store, and no segment is read again.

use super::ship::{Carrier, Said, Shipped};
use super::truncation::all_rows;
use crate::components::Components;
use crate::error::EngineError;
use crate::open::{Place, store_root};
use crate::settings::{Origin, Setting, Settings};
use littoral_local::log::schema::columns;
use littoral_local::log::{LogError, Settled, Truncated, appended, appender, identity, settle};
use littoral_local::{Binding, Store, StoreOptions};
use littoral_ports::Manifest;
use littoral_types::{ChunkId, Epoch, Position, Seq};
use std::path::{Path, PathBuf};

/// How a log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tended {
    /// No log is there any more that is bound here.
    Gone,
    /// Somebody appends, who ships by himself: his process.
    Appends(String),
    /// Somebody of this store is at its volume just now.
    AtWork,
    /// Another machine appends, from this term on.
    Fenced(Epoch, String),
    /// It was released: nothing is shipped until somebody claims it anew.
    Released(Epoch),
    /// Nobody appends, and all that it holds is in its volume. What went there just now, and what was let go of.
    Whole(Option<Position>, Shipped, Option<Truncated>),
}

/// What is remembered of a log from one look to the next.
#[derive(Debug)]
pub struct Tender {
    path: PathBuf,
    settings: Settings,
    components: Components,
    carrier: Option<Carrier>,
    /// Who had taken it to append when it was made sound last.
    mark: Option<String>,
    /// What is not known to be in its volume.
    waits: Option<Settled>,
}

impl Tender {
    /// Of a log. Whoever does this unasked takes over from nobody.
    pub fn of(path: &Path, settings: &Settings, components: &Components) -> Self {
        let settings = Settings { takeover: None, at: None, ..settings.clone() };
        let (path, components) = (path.to_owned(), components.clone());
        Self { path, settings, components, carrier: None, mark: None, waits: None }
    }

    /// Looks how it stands, and does what is to be done.
    pub async fn look(&mut self) -> Result<Tended, EngineError> {
        let place = Place::of_database(&self.path, &self.settings)?;
        let is_it = match (&place.found, identity(&self.path)) {
            (Some(found), Ok((id, _))) => found.binding.id == id,
            (None, _) | (Some(_), Err(LogError::NoLog(_))) => false,
            (Some(_), Err(error)) => return Err(error.into()),
        };
        if !is_it {
            self.forget();
            return Ok(Tended::Gone);
        }
        if let Some(tended) = not_ours(&place)? {
            self.forget();
            return Ok(tended);
        }
        if let Some((holder, _)) = appender(&self.path) {
            self.forget();
            return Ok(Tended::Appends(holder));
        }
        if self.mark.as_ref() != Some(&appended(&self.path)) {
            let (now_ms, faults) = (self.components.clock.wall_ms(), &*self.components.faults);
            let Some(settled) = settle(&self.path, now_ms, faults)? else {
                return Ok(Tended::Appends("another process".to_owned()));
            };
            if settled.cut_bytes > 0 {
                tracing::warn!(
                    log = %self.path.display(),
                    bytes = settled.cut_bytes,
                    "an end that was torn was cut: nothing in it had been acknowledged as durable"
                );
            }
            (self.mark, self.waits) = (Some(settled.mark.clone()), Some(settled));
        }
        if self.waits.as_ref().is_some_and(|settled| is_there(&place, settled).unwrap_or(false)) {
            self.waits = None;
        }
        let carrier = match &mut self.carrier {
            Some(carrier) => carrier,
            None => match Carrier::of(&self.path, &self.settings, &self.components)? {
                Some(carrier) => self.carrier.insert(carrier),
                None => return Ok(Tended::Gone),
            },
        };
        let done = match &self.waits {
            Some(settled) => Box::pin(carrier.ship_alone(&settled.prefix)).await,
            None => Ok(Shipped::default()),
        };
        let shipped = match done {
            Ok(shipped) => shipped,
            // Its end was rolled back, or somebody else shipped: it is looked at anew.
            Err(EngineError::Interrupted(_)) => {
                self.forget();
                return Ok(Tended::AtWork);
            }
            Err(EngineError::AtWork(_)) => return Ok(Tended::AtWork),
            Err(error) => {
                // What it is now, the store may know by now.
                return not_ours(&place)?.ok_or(error);
            }
        };
        self.waits = None;
        let gone = Box::pin(carrier.retain_if_due(shipped.sealed > 0)).await?;
        let position = known(&place)?.map(|row| Position { epoch: row.tail.epoch, lsn: row.tail.lsn });
        Ok(Tended::Whole(position, shipped, gone.filter(|gone| gone.segments > 0)))
    }

    fn forget(&mut self) {
        (self.carrier, self.mark, self.waits) = (None, None, None);
    }
}

/// What this store knows of a log's volume.
fn known(place: &Place) -> Result<Option<littoral_types::VolumeRow>, EngineError> {
    let Some((found, manifest)) = place.found.as_ref().zip(place.manifest()?) else { return Ok(None) };
    Ok(manifest.volume(&place.volume.value)?.filter(|row| row.meta.id == found.binding.id))
}

/// Whose term it is, where it is known that it is not ours.
fn not_ours(place: &Place) -> Result<Option<Tended>, EngineError> {
    let Some(row) = known(place)? else { return Ok(None) };
    Ok(match row.fenced {
        Some((epoch, owner)) => Some(Tended::Fenced(epoch, owner.label)),
        None if row.tail.owner.is_none() && row.tail.seq > Seq::ZERO => Some(Tended::Released(row.tail.epoch)),
        None => None,
    })
}

/// Whether a log's volume has all of it, sealed what is sealed here, and says what is void, as far as this store knows.
fn is_there(place: &Place, settled: &Settled) -> Result<bool, EngineError> {
    let (Some(row), Some(manifest)) = (known(place)?, place.manifest()?) else { return Ok(false) };
    let id = row.meta.id;
    if row.tail.lsn < settled.prefix.last() || manifest.intent(&id)?.is_some() {
        return Ok(false);
    }
    let open = manifest.row(&id, ChunkId(row.tail.figures.generation.0))?.and_then(|row| row.segment);
    let rows = all_rows(&*manifest, &id)?;
    // What a truncation that was killed had said in the volume is done here by whoever opens that.
    let is_cut = match rows.first() {
        Some((_, first)) => first.first > settled.prefix.start()?,
        None => false,
    };
    // And one of the end that was killed had said it here.
    let is_said = Said::TakenBack(settled.prefix.voids()?).is_said(&rows, row.tail.lsn);
    Ok(!is_cut && is_said && open.is_none_or(|open| open.first == settled.open))
}

/// The store in which a database, a log, or what else lies in a folder is bound, where there is one.
pub fn store_of(path: &Path, settings: &Settings) -> Result<Option<PathBuf>, EngineError> {
    let root = store_root(path, settings);
    Ok(Store::open(&root, StoreOptions::default())?.map(|store| store.root().to_owned()))
}

/// The logs of a store that have volumes and are no tables: the path of each.
pub fn logs_of(root: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let all = logs(root, None)?;
    let alone = all.into_iter().filter(|binding| matches!(columns(&binding.path), Ok(None)));
    Ok(alone.map(|binding| binding.path).collect())
}

/// The logs of a database's tables that have volumes, each with the settings by which it is looked after: those of its database.
pub fn tables_of(database: &Path, settings: &Settings) -> Result<Vec<(PathBuf, Settings)>, EngineError> {
    if !super::tables::folder_of(database).is_dir() {
        return Ok(Vec::new());
    }
    let place = Place::of_database(database, settings)?;
    let (Some(store), Some(found)) = (&place.store, &place.found) else { return Ok(Vec::new()) };
    let begins = format!("{}.", found.binding.volume);
    let is_its = |binding: &Binding| {
        binding.remote == found.binding.remote
            && binding.volume.as_str().starts_with(&begins)
            && matches!(columns(&binding.path), Ok(Some(_)))
    };
    let mut settings = Settings { takeover: None, at: None, remote: None, volume: None, ..settings.clone() };
    settings.store = Some(Setting { value: store.root().to_owned(), origin: Origin::Argument });
    let its = logs(store.root(), place.manifest()?.as_deref())?.into_iter().filter(is_its);
    Ok(its.map(|binding| (binding.path, settings.clone())).collect())
}

/// The bindings of a store whose logs lie where they say. What a volume was forked from its manifest tells.
fn logs(root: &Path, manifest: Option<&dyn Manifest>) -> Result<Vec<Binding>, EngineError> {
    let Some(store) = Store::open(root, StoreOptions::default())? else { return Ok(Vec::new()) };
    let began_as = |binding: &Binding| {
        let row = manifest.and_then(|manifest| manifest.volume(&binding.volume).ok().flatten());
        row.filter(|row| row.meta.id == binding.id).map(|row| row.meta.log())
    };
    let is_there = |binding: &Binding| match identity(&binding.path) {
        Ok((id, _)) => id == binding.id || began_as(binding) == Some(id),
        Err(LogError::NoLog(_)) => false,
        // What cannot be read is told when it is looked at.
        Err(_) => true,
    };
    Ok(store.bindings()?.into_iter().filter(is_there).collect())
}
