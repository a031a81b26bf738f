//! Which of SQLite's codes an error is: by what the caller does next, with no wildcard.

use crate::raw::abi::code;
use crate::work::WorkError;
use littoral_engine::runtime::BridgeError;
use littoral_engine::{EngineError, LocalError};
use littoral_ports::{ManifestError, RemoteError, SourceError};
use std::ffi::c_int;

/// The code of an error of the engine's.
pub(crate) fn of(error: &EngineError) -> c_int {
    match error {
        EngineError::Settings(_) | EngineError::NoSuchPosition { .. } | EngineError::Refused(_) => code::ERROR,
        EngineError::WrongTakeover { .. } | EngineError::NotBound { .. } => code::ERROR,
        EngineError::Remote(error) => of_remote(error),
        EngineError::Manifest(ManifestError::Corrupt(_) | ManifestError::Newer { .. }) => code::ERROR,
        // Never on the way of a statement: work goes on without a queue.
        EngineError::Jobs(_) => code::ERROR,
        EngineError::Manifest(ManifestError::Full(_)) | EngineError::Quota(_) => code::FULL,
        EngineError::Manifest(ManifestError::Misuse(_) | ManifestError::Failed(_)) => code::IOERR,
        EngineError::Manifest(ManifestError::NoLease(_)) => code::ERROR,
        EngineError::Local(error) | EngineError::AtWork(error) => of_local(error),
        EngineError::Source(error) => of_source(error),
        EngineError::Interrupted(_) | EngineError::Crash(_) => code::IOERR,
        EngineError::Damaged { .. } | EngineError::Chain { .. } | EngineError::Inconsistent { .. } => code::IOERR,
        EngineError::Serials { .. } => code::IOERR,
        EngineError::Waited { .. } | EngineError::Leased { .. } => code::BUSY,
        EngineError::SwitchedOff { .. } => code::ERROR,
        EngineError::Superseded { .. } | EngineError::Diverged { .. } | EngineError::RemoteBehind { .. } => {
            code::READONLY
        }
        EngineError::NoVolume(_) | EngineError::NotAVolume { .. } | EngineError::OtherKind { .. } => code::CANTOPEN,
        EngineError::Log(_) => code::IOERR,
    }
}

/// The code of what keeps a database from being read.
pub(crate) fn of_source(error: &SourceError) -> c_int {
    match error {
        SourceError::NotADatabase(_) => code::NOTADB,
        SourceError::Corrupt(_) => code::CORRUPT,
        SourceError::Busy(_) => code::BUSY,
        SourceError::Failed(_) => code::IOERR,
    }
}

/// The code of an error that the bridge may have added to.
pub(crate) fn of_work(error: &WorkError) -> c_int {
    match error {
        WorkError::Engine(error) => of(error),
        WorkError::Bridge(BridgeError::Late(_)) => code::BUSY,
        WorkError::Bridge(BridgeError::Threads(_)) => code::NOMEM,
        WorkError::Bridge(BridgeError::Broken) => code::ERROR,
    }
}

fn of_remote(error: &RemoteError) -> c_int {
    match error {
        RemoteError::Missing { .. } | RemoteError::Corrupt { .. } | RemoteError::Unavailable { .. } => code::IOERR,
        RemoteError::Throttled { .. } => code::IOERR,
        RemoteError::Exists { .. } | RemoteError::Unknown { .. } => code::IOERR,
        RemoteError::Denied { .. } | RemoteError::NoBucket { .. } => code::CANTOPEN,
        RemoteError::Full { .. } => code::FULL,
        RemoteError::NotFencing { .. } | RemoteError::Settings(_) => code::ERROR,
    }
}

fn of_local(error: &LocalError) -> c_int {
    match error {
        LocalError::Busy { .. } => code::BUSY,
        LocalError::Full { .. } | LocalError::Quota(_) => code::FULL,
        LocalError::Denied { .. } | LocalError::Missing { .. } => code::CANTOPEN,
        LocalError::Newer { .. } | LocalError::Conflict(_) | LocalError::WouldOverwrite { .. } => code::ERROR,
        LocalError::NetworkFileSystem { .. } | LocalError::Misuse { .. } => code::ERROR,
        LocalError::Corrupt { .. } | LocalError::Failed { .. } => code::IOERR,
    }
}
