//! The logs that are tables of a database, on their way to its copies.

use super::{Known, One, known};
use crate::components::Components;
use crate::error::EngineError;
use crate::exec::replicate::Replicated;
use crate::log::{Glance, Log};
use crate::logs::tables::{counted_at, folder_of, volume_of};
use crate::open::Place;
use crate::settings::{Origin, Setting, Settings};
use littoral_types::{CountedLog, VolumeName, VolumeRow};

/// What came of a log at a place.
#[derive(Clone, Debug)]
pub struct LogCopied {
    /// The table.
    pub table: String,
    /// Its volume.
    pub volume: VolumeName,
    /// What was done; `None` where the primary has no such volume, and so no row of it.
    pub did: Option<Replicated>,
}

/// What is copied before a database.
#[derive(Debug, Default)]
pub(super) struct Along {
    /// How far the database was when it was looked which logs those are; where this store writes it, its own row says that.
    pub(super) seen: Option<Glance>,
    pub(super) logs: Vec<TablesLog>,
}

/// A log that is copied before its database.
#[derive(Debug)]
pub(super) struct TablesLog {
    counted: CountedLog,
    place: Place,
    settings: Settings,
}

/// Looks which logs a database counts rows of. Where it lies here and has had none, the folder of such logs tells: whoever ships rows has made it.
/// Then nothing is asked of the object store.
pub(super) async fn along(
    place: &Place,
    settings: &Settings,
    components: &Components,
    (from, row): (&Log, Option<&VolumeRow>),
    has_none: bool,
) -> Result<Along, EngineError> {
    if has_none && place.database.as_deref().is_some_and(|database| !folder_of(database).is_dir()) {
        return Ok(Along::default());
    }
    let Some(mut opened) = from.open().await? else { return Ok(Along::default()) };
    match row {
        // Of a newer state it might not be told any more.
        Some(row) if row.tail.seq != opened.tail.seq => opened = from.open_at(row.tail.seq).await?.unwrap_or(opened),
        _ => {}
    }
    let seen = row.is_none().then(|| opened.glance());
    let counted = counted_at(from, &opened).await?;
    let logs = counted.into_iter().map(|counted| TablesLog::of(place, settings, counted)).collect::<Result<_, _>>()?;
    components.faults.reach("replicate.noted")?;
    Ok(Along { seen, logs })
}

impl TablesLog {
    /// By the database's settings, in the store that ships it, where one does.
    fn of(database: &Place, settings: &Settings, counted: CountedLog) -> Result<Self, EngineError> {
        let name = volume_of(&database.volume.value, &counted.folder)?;
        let mut settings = Settings { takeover: None, at: None, remote: None, volume: None, ..settings.clone() };
        if let (Some(store), Some(found)) = (&database.store, &database.found) {
            settings.store = Some(Setting { value: store.root().to_owned(), origin: Origin::Argument });
            let is_it = |volume: &VolumeName, remote: &str| *volume == name && remote == found.binding.remote;
            let all = store.bindings()?;
            if let Some(binding) = all.into_iter().find(|binding| is_it(&binding.volume, &binding.remote)) {
                let place = Place::of_database(&binding.path, &settings)?;
                return Ok(Self { counted, place, settings });
            }
        }
        let place = Place {
            database: None,
            found: None,
            volume: Setting { value: name, origin: Origin::Argument },
            ..database.clone()
        };
        Ok(Self { counted, place, settings })
    }

    /// Copies it to its end. `None`: another process copies it there just now.
    pub(super) async fn copy(
        &self,
        database: &One<'_>,
        url: &str,
        standing: &mut Known,
    ) -> Result<Option<LogCopied>, EngineError> {
        let (table, volume) = (self.counted.table.clone(), self.place.volume.value.clone());
        let (from, _) = self.place.log(&self.settings, database.components)?;
        let row = known(&self.place)?;
        let (place, settings, components, spool) = (&self.place, &self.settings, database.components, database.spool);
        let one = One { place, settings, components, from: &from, row: row.as_ref(), seen: None, spool };
        match one.copy(url, standing).await {
            Ok(Some(did)) => Ok(Some(LogCopied { table, volume, did: Some(did) })),
            Ok(None) => Ok(None),
            Err(EngineError::NoVolume(_)) => Ok(Some(LogCopied { table, volume, did: None })),
            Err(error) => Err(error),
        }
    }
}
