//! What was said of a database when it was opened, and whether it is ours at all (rule S19).
//!
//! A database is ours when somebody says so: a VFS named by the caller, `vfs=littoral` or a setting in its URI, a variable, a
//! settings file beside it. Being the default VFS alone makes no database ours. An unknown parameter is refused in a URI that speaks
//! to us, and everywhere when it is nearly one of ours.

use littoral_engine::open::Place;
use littoral_engine::settings::{Key, Origin, Setting, Settings, nearest};
use littoral_types::limits;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// The parameter that a reader of our own names itself with.
pub(crate) const READER: &str = "littoral_reader";

/// SQLite's own parameters.
const SQLITES: &[&str] =
    &["vfs", "mode", "cache", "psow", "nolock", "immutable", "modeof", "readonly_shm", "8_3_names"];

/// What a URI said, and what that makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Together with variables and the settings file, as it was at the opening.
    pub(crate) settings: Arc<Settings>,
}

impl Said {
    /// Whether somebody named the volume that is meant, or the remote for this very database.
    pub(crate) fn names_volume(&self) -> bool {
        let by_uri = |remote: &Setting<String>| matches!(remote.origin, Origin::Uri(_));
        self.settings.volume.is_some() || self.settings.remote.as_ref().is_some_and(by_uri)
    }

    /// Refuses, before anything is opened or made, what was said and cannot be. What a store cannot do keeps nobody from a database
    /// that is here: its next checkpoint says so.
    pub(crate) fn refuse_impossible(&self, database: &Path) -> Result<(), String> {
        use littoral_engine::{EngineError, LocalError};
        match self.place(database).and_then(|place| place.refuse_impossible(&self.settings)) {
            Err(
                error @ (EngineError::Settings(_)
                | EngineError::Refused(_)
                | EngineError::Local(LocalError::Conflict(_))),
            ) => Err(crate::remedy::told(&error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where its volume is, as of now.
    pub(crate) fn place(&self, database: &Path) -> Result<Place, littoral_engine::EngineError> {
        Place::of_database(database, &self.settings)
    }
}

/// Reads what was said of a database. `None` when nobody made it ours.
pub(crate) fn read(path: &Path, parameters: &[(String, String)], is_default: bool) -> Result<Option<Said>, String> {
    let mut keys = Vec::new();
    let mut spoken = false;
    for (name, value) in parameters {
        if let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) {
            keys.push((key, OsString::from(value)));
            spoken = true;
        } else if name == "vfs" {
            spoken |= value == "littoral";
        }
    }
    let named = spoken || !is_default;
    let settings = gather(&keys, path);
    if !named {
        match &settings {
            // A variable or a file that makes no sense says at least that somebody meant to say something.
            Ok(settings) if settings.remote.is_none() && settings.file.is_none() => return Ok(None),
            Ok(_) | Err(_) => {}
        }
    }
    for (name, _) in parameters {
        let known = Key::ALL.iter().any(|key| key.name() == name) || SQLITES.contains(&name.as_str());
        // A URI that was not written for us may say anything, except what was probably meant for us.
        let meant = spoken || nearest(name, Key::ALL.iter().map(|key| key.name())).is_some();
        if !known && meant {
            return Err(unknown(name));
        }
    }
    let settings = settings.map_err(|error| error.to_string())?;
    Ok(Some(Said { settings: Arc::new(settings) }))
}

fn gather(keys: &[(Key, OsString)], path: &Path) -> Result<Settings, littoral_engine::EngineError> {
    Settings::of_uri(keys, std::env::vars_os(), path.parent())
}

/// Refuses a name that says nothing to us: no setting, and not the VFS, which says that a database is ours.
pub(crate) fn refuse_unknown(name: &str) -> Result<(), String> {
    let known = name == "vfs" || Key::ALL.iter().any(|key| key.name() == name);
    if known { Ok(()) } else { Err(unknown(name)) }
}

fn unknown(name: &str) -> String {
    let shown: String = name.chars().take(limits::NAME_LEN_MAX).collect();
    let known = Key::ALL.iter().map(|key| key.name()).chain(SQLITES.iter().copied());
    match nearest(name, known.clone()) {
        Some(near) => format!("the URI's parameter {shown:?} is no setting; did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("the URI's parameter {shown:?} is no setting; there are {}", known.join(", "))
        }
    }
}
