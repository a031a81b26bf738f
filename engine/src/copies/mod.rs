//! Copies of a volume in other object stores: kept in step, read where the primary cannot be, promoted where it is lost.
//!
//! What this room promises:
//! 1. The primary never waits for a copy: what is published is published when the primary has it, and what a copy needs of it waits in the
//!    spool, or at the primary.
//! 2. One process of a store copies to a place at a time; each place has an account and a pace of its own.
//! 3. Who reads may be answered by a copy where the primary cannot answer, or answers wrongly; every byte is verified all the same, and it
//!    is told. Who writes is answered about the log by the primary alone.
//! 4. Nobody claims a volume at a copy that was not promoted by name.
//! 5. The logs that are tables of a database are copied before it (rule P11): how far the database is is noted first, then they are copied to
//!    their ends, then the database as far as was noted. No copy counts rows that its logs do not have.
//!
//! What may never enter: how a copy is kept (`exec/replicate.rs`), the brand names.
//! Read next: `exec/replicate.rs`, then [`sides`].

mod logs;
pub mod promote;
pub mod sides;
pub mod spooling;

pub use logs::LogCopied;
pub use promote::{Promoted, promote};
pub use sides::{Sides, Taken};
pub use spooling::Spooling;

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::replicate::{Lag, Order, Replicated, Standing, lag, replicate};
use crate::log::{Glance, Log};
use crate::open::{self, Place};
use crate::settings::Settings;
use littoral_local::{Copied, CopyFile, LocalError, Spool};
use littoral_types::limits::{SPOOL_MS_MAX, SPOOL_SWEEP_MS};
use littoral_types::{Seq, VolumeId, VolumeName, VolumeRow};
use logs::Along;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What came of one place.
#[derive(Debug)]
pub struct Outcome {
    /// Where.
    pub url: String,
    /// What was done; `None` where another process copies there just now.
    pub did: Result<Option<Replicated>, EngineError>,
    /// The logs that are tables of it, which went before.
    pub logs: Vec<LogCopied>,
}

/// Copies a volume, and remembers between two times what it learnt of its copies.
#[derive(Debug, Default)]
pub struct Copier {
    standing: BTreeMap<String, Known>,
    /// It was looked which logs are tables of the database, and there were none.
    has_no_logs: bool,
    /// When the spool was swept last, by the clock that never goes back.
    swept_ms: Option<u64>,
}

impl Copier {
    /// Brings these copies up to the primary. One that fails keeps no other from it; this returns when the last one is done.
    pub async fn copy_to(
        &mut self,
        place: &Place,
        settings: &Settings,
        components: &Components,
        urls: &[String],
    ) -> Result<Vec<Outcome>, EngineError> {
        let (from, _) = place.log(settings, components)?;
        let row = known(place)?;
        let has_no_logs = self.has_no_logs || was_copied(place, urls)?;
        let along = logs::along(place, settings, components, (&from, row.as_ref()), has_no_logs).await?;
        self.has_no_logs = along.logs.is_empty();
        let (spool, _temporary) = match &place.store {
            Some(store) => (Spool::of(store.root(), settings.room()), None),
            None => {
                let folder = Temporary::new(components);
                (Spool::at(folder.0.clone(), u64::MAX), Some(folder))
            }
        };
        let now_ms = components.clock.boot_ms();
        if self.swept_ms.is_none_or(|swept| now_ms.saturating_sub(swept) >= SPOOL_SWEEP_MS) {
            spool.sweep(Duration::from_millis(SPOOL_MS_MAX));
            self.swept_ms = Some(now_ms);
        }
        let mut known: Vec<Known> = urls.iter().map(|url| self.standing.remove(url).unwrap_or_default()).collect();
        let one = One {
            place,
            settings,
            components,
            from: &from,
            row: row.as_ref(),
            seen: along.seen.as_ref(),
            spool: &spool,
        };
        // One that does not answer keeps no other waiting.
        let all = urls.iter().zip(&mut known).map(|(url, known)| one.copy_all(url, &along, known));
        let all = futures::future::join_all(all).await;
        let mut outcomes = Vec::with_capacity(urls.len());
        for ((url, known), (did, logs)) in urls.iter().zip(known).zip(all) {
            self.standing.insert(url.clone(), known);
            match did {
                Err(error) if error.is_crash() => return Err(error),
                did => outcomes.push(Outcome { url: open::told_url(url), did, logs }),
            }
        }
        Ok(outcomes)
    }
}

/// What is known of the volumes at a place: a database's logs are some, too.
type Known = BTreeMap<VolumeName, Standing>;

/// Whether this store has copied to all of these places, and so has looked.
fn was_copied(place: &Place, urls: &[String]) -> Result<bool, EngineError> {
    let Some((store, found)) = place.store.as_ref().zip(place.found.as_ref()) else { return Ok(false) };
    for url in urls {
        let copied = store.copy(&found.binding.id, &open::place_of(url)?).read()?;
        if copied.is_none_or(|copied| copied.record == 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What this store has published, where it writes the volume.
fn known(place: &Place) -> Result<Option<VolumeRow>, EngineError> {
    let row = match place.found {
        Some(_) => place.manifest()?.map(|manifest| manifest.volume(&place.volume.value)).transpose()?.flatten(),
        None => None,
    };
    Ok(row.filter(|row| row.tail.seq > Seq::ZERO && row.tail.seen_ms > 0 && row.fenced.is_none()))
}

/// One volume, on its way to several places.
struct One<'a> {
    place: &'a Place,
    settings: &'a Settings,
    components: &'a Components,
    from: &'a Log,
    row: Option<&'a VolumeRow>,
    /// How far it goes, where it is not this store that writes it.
    seen: Option<&'a Glance>,
    spool: &'a Spool,
}

impl One<'_> {
    /// First its logs.
    async fn copy_all(
        &self,
        url: &str,
        along: &Along,
        known: &mut Known,
    ) -> (Result<Option<Replicated>, EngineError>, Vec<LogCopied>) {
        let mut logs = Vec::new();
        for log in &along.logs {
            match log.copy(self, url, known).await {
                Ok(Some(copied)) => logs.push(copied),
                Ok(None) => return (Ok(None), logs),
                Err(error) => return (Err(error), logs),
            }
        }
        (self.copy(url, known).await, logs)
    }

    async fn copy(&self, url: &str, known: &mut Known) -> Result<Option<Replicated>, EngineError> {
        let Self { place, settings, components, from, row, seen, spool } = *self;
        let of: Option<VolumeId> = place.found.as_ref().map(|found| found.binding.id);
        let mut standing = known.remove(from.name());
        let destination = open::destination(url, place, settings, components)?;
        refuse_itself(from, &destination.log)?;
        let file = place.store.as_ref().zip(of).map(|(store, of)| store.copy(&of, &destination.place));
        let _turn = match file.as_ref().map(CopyFile::turn).transpose() {
            Ok(turn) => turn,
            Err(LocalError::Busy { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut others: Vec<CopyFile> = Vec::new();
        if let Some((store, of)) = place.store.as_ref().zip(of) {
            let places = settings.copies().iter().filter_map(|other| open::place_of(other).ok());
            others.extend(places.filter(|other| *other != destination.place).map(|other| store.copy(&of, &other)));
        }
        let grace_ms = settings.grace_ms.value;
        let to = &destination.log;
        let order = Order { from, row, seen, to, spool, file: file.as_ref(), others: &others, grace_ms };
        let components = components.charged_to(destination.meter.account());
        let did = Box::pin(replicate(&order, &components, &mut standing)).await.map(Some);
        known.extend(standing.map(|standing| (from.name().clone(), standing)));
        did
    }
}

/// A folder for what passes by, gone when it is dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Temporary {
    fn new(components: &Components) -> Self {
        let name = format!("littoral-copy-{:032x}", u128::from_le_bytes(components.bits()));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refuse_itself(from: &Log, to: &Log) -> Result<(), EngineError> {
    if from.url() == to.url() {
        return Err(EngineError::Settings(format!("{}: a volume is not copied onto itself", to.url())));
    }
    Ok(())
}

/// How a copy stands, as far as this store knows without asking anybody.
#[derive(Clone, Debug)]
pub struct Stand {
    /// Where it is.
    pub url: String,
    /// How far it has come; `None` where nothing was copied there from here.
    pub copied: Option<Copied>,
    /// How far it is behind; `None` where this store does not know how far the primary is.
    pub lag: Option<Lag>,
}

/// How the copies stand that the settings name.
pub fn stands(place: &Place, settings: &Settings, now_ms: u64) -> Result<Vec<Stand>, EngineError> {
    stands_of(place, settings.copies(), now_ms)
}

fn stands_of(place: &Place, urls: &[String], now_ms: u64) -> Result<Vec<Stand>, EngineError> {
    let manifest = place.manifest()?;
    let row = manifest.as_ref().map(|manifest| manifest.volume(&place.volume.value)).transpose()?.flatten();
    let of = place.found.as_ref().map(|found| found.binding.id);
    let mut stands = Vec::new();
    for url in urls {
        let copied = match (&place.store, of) {
            (Some(store), Some(of)) => store.copy(&of, &open::place_of(url)?).read()?,
            _ => None,
        };
        let behind = match (&manifest, &row) {
            (Some(manifest), Some(row)) => {
                Some(lag(&**manifest, row, copied.as_ref().unwrap_or(&Copied::default()), now_ms)?)
            }
            _ => None,
        };
        stands.push(Stand { url: open::told_url(url), copied, lag: behind });
    }
    Ok(stands)
}

/// Whether a copy lacks something that this store has published, or has something to delete. What its logs have besides comes with the next of these.
pub fn is_behind(place: &Place, settings: &Settings, url: &str, now_ms: u64) -> Result<bool, EngineError> {
    let waits = |stand: &Stand| {
        let behind = stand.lag.is_some_and(|lag| lag.records > 0);
        let copied = stand.copied.as_ref();
        behind || copied.is_some_and(|copied| copied.prunes_are_due(now_ms, settings.grace_ms.value))
    };
    Ok(stands_of(place, &[url.to_owned()], now_ms)?.iter().any(waits))
}

/// Refuses to begin a volume at a primary that is empty, where a copy has one of that name.
pub async fn refuse_lost(place: &Place, settings: &Settings, components: &Components) -> Result<(), EngineError> {
    let (log, _, sides) = place.log_or_copy(settings, components)?;
    match sides {
        Some(_) => promote::refuse_lost(&log).await,
        None => Ok(()),
    }
}

/// How often a copy is made where requests are bounded: as rarely as its place's budget of the month asks for. `None` where nothing is
/// published unasked.
pub fn interval_ms(database: &Path, url: &str, settings: &Settings, components: &Components) -> Option<u64> {
    let asked = settings.sync_interval_ms.value?;
    let account = open::copy_account(&open::store_root(database, settings), url, settings, components).ok()?;
    Some(open::interval_ms(asked, settings, &*account, components.clock.wall_ms()))
}
