//! What can go wrong with local files, by what the caller does next.

use littoral_ports::QuotaExhausted;
use std::io;
use std::path::{Path, PathBuf};

/// Why a local file could not be what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A newer Littoral wrote it. Upgrade; nothing was changed.
    #[error("{path}: {what} of format {found}, this version reads up to {known}: use a newer littoral", path = path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What kind of file.
        what: &'static str,
        /// Its format.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// Someone else has it right now. Wait, or end the holder.
    #[error("{path}: held by {holder}", path = path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
        /// Who, as far as the file says.
        holder: String,
    },
    /// It belongs to something else. The message holds the choices; tell the user.
    #[error("{0}")]
    Conflict(String),
    /// Something stands where the file was to go. Ask for it by name (`--force`), or choose another place.
    #[error("{path}: {what}: use --force to replace it, or another destination", path = path.display())]
    WouldOverwrite {
        /// What stands there.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// On a network file system locks and shared memory cannot be trusted (rule P12). Put the store on a local disk.
    #[error("{path}: on a network file system ({kind}), where locks cannot be trusted: use a local disk, or allow it by name", path = path.display())]
    NetworkFileSystem {
        /// Which directory.
        path: PathBuf,
        /// Which file system.
        kind: String,
    },
    /// The disk has no room. Make some, and try again: nothing half-written stands at its final place.
    #[error("{path}: no room on the disk: {detail}", path = path.display())]
    Full {
        /// Which file.
        path: PathBuf,
        /// How it was noticed, with figures where there are any.
        detail: String,
    },
    /// The quota has no room. Wait for others to finish, or raise it.
    #[error(transparent)]
    Quota(#[from] QuotaExhausted),
    /// Permissions, or a read-only file system. Tell the user.
    #[error("{path}: cannot {action}: not allowed here ({source})", path = path.display())]
    Denied {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// In the system's words.
        source: io::Error,
    },
    /// It, or the directory it should be in, is not there. Tell the user.
    #[error("{path}: cannot {action}: no such file or directory", path = path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// The file does not say what such a file says. The message holds what to do.
    #[error("{path}: damaged: {detail}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A caller broke the contract. A bug, not a state.
    #[error("{path}: {detail}", path = path.display())]
    Misuse {
        /// Which file.
        path: PathBuf,
        /// What was wrong.
        detail: String,
    },
    /// Anything else the disk says.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// In the system's words.
        source: io::Error,
    },
}

impl LocalError {
    /// Sorts an error of the system's by what the caller does next.
    pub fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                LocalError::Full { path, detail: format!("cannot {action}: {source}") }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                LocalError::Denied { path, action, source }
            }
            io::ErrorKind::NotFound => LocalError::Missing { path, action },
            _ => LocalError::Failed { path, action, source },
        }
    }
}

/// For `map_err`: what was tried, and on which file.
pub(crate) fn on<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> LocalError {
    move |source| LocalError::from_io(action, path, source.into())
}
