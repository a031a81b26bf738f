//! What several verbs show the same way.

use crate::door::Door;
use crate::sqlite::{BUSY_TIMEOUT, examine};
use crate::words;
use littoral_engine::exec::drill::Examine;
use littoral_engine::open::{self, Counting, Place, Totals};
use littoral_engine::preview::{Preview, preview};
use littoral_engine::settings::Settings;
use littoral_engine::volume::open_log;
use littoral_engine::{Components, EngineError, Session, open_for_writing};
use littoral_types::VolumeKind;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::sync::Arc;

/// Counts what each step of a command cost.
pub(super) struct Meter {
    remote: Arc<Counting>,
}

impl Meter {
    pub(super) fn new(remote: Arc<Counting>) -> Self {
        Self { remote }
    }

    /// Everything so far.
    pub(super) fn all(&self) -> Totals {
        self.remote.totals()
    }
}

/// A moment for machines.
pub(crate) fn moment(ms: u64) -> Value {
    json!({ "ms": ms, "utc": words::time(ms) })
}

/// Asks this program's SQLite of a copy.
pub(crate) fn examiner() -> Examine {
    Arc::new(|copy, probe| examine(copy, BUSY_TIMEOUT, probe).map_err(|error| error.to_string()))
}

/// A volume that is there, opened for writing: unlike a checkpoint, the verbs that use this never begin one.
pub(super) struct Opened {
    pub(super) place: Place,
    pub(super) settings: Settings,
    pub(super) session: Session,
    pub(super) meter: Meter,
}

/// Opens a database's volume for writing.
pub(super) async fn session(door: &Door, file: &OsStr) -> anyhow::Result<Opened> {
    let Known { place, settings, components, preview } = known(door, file).await?;
    let (stores, remote) = open::stores(&place, &settings, &components)?;
    let meter = Meter::new(remote);
    let (meta, target) = (&preview.row.meta, place.target(&settings)?);
    let session = match meta.kind {
        VolumeKind::Database => Box::pin(open_for_writing(&stores, &components, &target)).await?,
        VolumeKind::Log => Box::pin(open_log(&stores, &components, &target, (meta.log(), meta.created_ms))).await?,
    };
    Ok(Opened { place, settings, session, meter })
}

/// A volume that is there, and what a writer would find.
pub(super) struct Known {
    pub(super) place: Place,
    pub(super) settings: Settings,
    pub(super) components: Components,
    pub(super) preview: Preview,
}

/// Looks at a database's volume as a writer would, changing nothing.
pub(super) async fn known(door: &Door, file: &OsStr) -> anyhow::Result<Known> {
    let file = door.file_or_log(file)?;
    let settings = door.settings(Some(&file))?;
    let place = Place::of_database(&file, &settings)?;
    let components = door.components(&settings)?;
    let (existing, _) = place.existing(&settings, &components)?;
    let preview = Box::pin(preview(&existing, &components, &place.target(&settings)?)).await?;
    if preview.is_new && !preview.unfinished {
        return Err(EngineError::NoVolume(place.url()).into());
    }
    Ok(Known { place, settings, components, preview })
}
