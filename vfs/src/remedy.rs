//! What whoever speaks SQL does about an error of the engine's: one remedy for each that does not name its own.

use littoral_engine::{EngineError, LocalError};
use littoral_ports::{ManifestError, RemoteError, SourceError};

/// An error and its remedy, in one sentence each.
pub(crate) fn told(error: &EngineError) -> String {
    match of(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// The same for a local file's.
pub(crate) fn told_of_local(error: &LocalError) -> String {
    match of_local(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

/// The same for what keeps a database from being read.
pub(crate) fn told_of_source(error: &SourceError) -> String {
    match of_source(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        None => error.to_string(),
    }
}

fn of(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::Remote(error) => of_remote(error),
        EngineError::Manifest(error) => match error {
            ManifestError::Newer { .. } | ManifestError::Corrupt(_) | ManifestError::NoLease(_) => None,
            ManifestError::Full(_) => Some("make room on the store's disk and try again: nothing was lost"),
            ManifestError::Misuse(_) => Some("this is a bug of littoral: please report it"),
            ManifestError::Failed(_) => Some("look at the store's folder with littoral doctor FILE"),
        },
        EngineError::Jobs(_) => Some("remove the store's folder jobs: it is filled again, and no data is lost by it"),
        EngineError::Local(error) | EngineError::AtWork(error) => of_local(error),
        EngineError::Source(error) => of_source(error),
        EngineError::Quota(_) => Some("raise quota=, or let running work finish first"),
        EngineError::Damaged { .. } if error.is_newer() => Some("nothing was changed: use a newer littoral"),
        EngineError::Damaged { .. }
        | EngineError::Chain { .. }
        | EngineError::Inconsistent { .. }
        | EngineError::Serials { .. } => {
            Some("littoral verify lists all damage, and littoral restore --at brings back an undamaged state")
        }
        EngineError::NoVolume(_) => {
            Some("check remote= and volume=; PRAGMA littoral_checkpoint makes a database's volume")
        }
        EngineError::NotAVolume { .. } => Some("check remote=, or choose another name with volume="),
        EngineError::NoSuchPosition { .. } => Some("littoral history shows what there is"),
        EngineError::Interrupted(_) => Some("try again: what was begun is finished first"),
        // Their own words name the choices.
        EngineError::Settings(_) | EngineError::Refused(_) | EngineError::Crash(_) => None,
        EngineError::Waited { .. } | EngineError::Leased { .. } | EngineError::SwitchedOff { .. } => None,
        EngineError::Superseded { .. } | EngineError::Diverged { .. } | EngineError::RemoteBehind { .. } => None,
        EngineError::NotBound { .. } | EngineError::WrongTakeover { .. } => None,
        EngineError::OtherKind { .. } | EngineError::Log(_) => None,
    }
}

fn of_local(error: &LocalError) -> Option<&'static str> {
    match error {
        LocalError::Newer { .. } | LocalError::Conflict(_) | LocalError::WouldOverwrite { .. } => None,
        LocalError::NetworkFileSystem { .. } => None,
        LocalError::Busy { .. } => Some("wait until it is done, or end that process"),
        LocalError::Full { .. } => Some("make room there and try again: nothing half-written was left in place"),
        LocalError::Quota(_) => Some("raise quota=, or let running work finish first"),
        LocalError::Denied { .. } => Some("make the folder writable for this user, or choose another with store="),
        LocalError::Missing { .. } => Some("check the path: folders are not made for you"),
        LocalError::Corrupt { .. } => None,
        LocalError::Misuse { .. } => Some("this is a bug of littoral: please report it"),
        LocalError::Failed { .. } => Some("look at that disk, then try again: nothing was lost"),
    }
}

fn of_source(error: &SourceError) -> Option<&'static str> {
    match error {
        SourceError::NotADatabase(_) => Some("decrypt it, or copy it with its own tools, first"),
        SourceError::Corrupt(_) => Some(
            "nothing was published, so that the last good version stays: repair it (sqlite3 FILE .recover) or restore it (littoral restore)",
        ),
        SourceError::Busy(_) => Some("wait until the other connection has committed, and try again"),
        SourceError::Failed(_) => None,
    }
}

fn of_remote(error: &RemoteError) -> Option<&'static str> {
    match error {
        RemoteError::Missing { .. } | RemoteError::Corrupt { .. } => {
            Some("littoral verify lists all damage, and littoral restore --at brings back an undamaged state")
        }
        RemoteError::Exists { .. } | RemoteError::Unknown { .. } => {
            Some("try again: what may have been written is settled first")
        }
        RemoteError::Denied { .. } => Some(
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and that they may read and write \
             this bucket or folder: littoral doctor tries each",
        ),
        RemoteError::NoBucket { .. } => {
            Some("make the bucket or folder first, or correct remote=: neither is made for you")
        }
        RemoteError::Unavailable { .. } => {
            Some("check the network and endpoint= (or AWS_ENDPOINT_URL_S3), then try again: nothing is lost meanwhile")
        }
        RemoteError::Throttled { .. } => Some(
            "it is asked less often meanwhile, and nothing is lost; where that is not enough, raise sync_interval= or what the \
             provider allows",
        ),
        RemoteError::Full { .. } => Some("make room in the object store and try again: nothing was published"),
        RemoteError::NotFencing { .. } => {
            Some("use a store with conditional PUT or, where only one writer can ever exist, fencing=off")
        }
        RemoteError::Settings(_) => None,
    }
}
