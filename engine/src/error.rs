//! What can go wrong, by what the caller does next.

use littoral_format::FormatError;
use littoral_local::LocalError;
use littoral_plan::ChainBreak;
use littoral_ports::{Crash, ManifestError, QuotaExhausted, RemoteError, SourceError};
use littoral_types::{Epoch, Lsn, Owner, Seq};

/// Why the engine stopped. Nothing that was durable before is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The user's words make no sense. Say which.
    #[error("{0}")]
    Settings(String),
    /// The object store.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The local manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The local store's files.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The database that is read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Local room.
    #[error(transparent)]
    Quota(#[from] QuotaExhausted),
    /// A test's crash.
    #[error(transparent)]
    Crash(#[from] Crash),
    /// An object is not what its name says. Never used, always reported.
    #[error("{object}: {source}")]
    Damaged {
        /// Which object.
        object: String,
        /// How.
        source: FormatError,
    },
    /// Records do not follow one from another.
    #[error("{volume}: the log is broken: {source}")]
    Chain {
        /// Which volume.
        volume: String,
        /// Where.
        source: ChainBreak,
    },
    /// Something that a record names is not there, or is not what the record says.
    #[error("{volume}: {detail}")]
    Inconsistent {
        /// Which volume.
        volume: String,
        /// What.
        detail: String,
    },
    /// Somebody else took over. Nothing is published any more from here; local data is untouched.
    #[error(
        "{volume}: another writer took over: {} (epoch {epoch}, record {seq}). Nothing was published and the local database is \
         untouched. To take it back on purpose: --takeover={epoch}", owner.label
    )]
    Superseded {
        /// Which volume.
        volume: String,
        /// Whose term it is now.
        owner: Owner,
        /// That term.
        epoch: Epoch,
        /// The record that began it, or the newest seen.
        seq: Seq,
    },
    /// The remote holds records of our own term that this store did not write: a copy of this store did, as after restoring
    /// a machine's image.
    #[error(
        "{volume}: the remote is ahead by records that this store did not write (local record {local}, remote record {remote}): this \
         looks like a restored copy of a machine, or a second copy of its disk. Nothing was published. Choose: restore the remote's \
         state beside it (littoral restore), publish under another name (--volume=NAME), or, to make this database the newest \
         version on top of what is there, --takeover={epoch}"
    )]
    Diverged {
        /// Which volume.
        volume: String,
        /// The newest record here.
        local: Seq,
        /// The newest record there.
        remote: Seq,
        /// The term there.
        epoch: Epoch,
    },
    /// The remote's log ends before ours, or is gone.
    #[error(
        "{volume}: the remote has lost records that this store published (local record {local}, remote record {remote}). Nothing was \
         published. If the remote was emptied on purpose, publish under another name (--volume=NAME)"
    )]
    RemoteBehind {
        /// Which volume.
        volume: String,
        /// The newest record here.
        local: Seq,
        /// The newest record there.
        remote: Seq,
    },
    /// There is a local database and a remote volume, and nothing says that they belong together.
    #[error(
        "{volume} exists already and this database is not bound to it (its writer: {owner}, epoch {epoch}, LSN {lsn}). Nothing was \
         published. Choose: another name (--volume=NAME); the remote's state (littoral restore); or, to make this database its \
         newest version, --takeover={epoch}"
    )]
    NotBound {
        /// Which volume.
        volume: String,
        /// Whose term it is.
        owner: String,
        /// That term.
        epoch: Epoch,
        /// Its last commit.
        lsn: Lsn,
    },
    /// A takeover named another term than the one that is.
    #[error(
        "{volume}: --takeover={said} names epoch {said}, but the volume is at epoch {found} ({owner}): look again, then say --takeover={found}"
    )]
    WrongTakeover {
        /// Which volume.
        volume: String,
        /// What was said.
        said: Epoch,
        /// What is.
        found: Epoch,
        /// Whose term that is.
        owner: String,
    },
    /// There is no such volume.
    #[error("no Littoral volume at {0}")]
    NoVolume(String),
    /// There is something else.
    #[error("{volume} is not a Littoral volume: {detail}")]
    NotAVolume {
        /// Where.
        volume: String,
        /// What was found.
        detail: String,
    },
    /// There is a volume, but nothing to restore at that place.
    #[error("{volume}: {detail}")]
    NoSuchPosition {
        /// Which volume.
        volume: String,
        /// What was asked and what there is.
        detail: String,
    },
    /// Work was cut off inside this process, or the state it stood on moved. Nothing came of it: try again.
    #[error("{0}")]
    Interrupted(String),
    /// The operation asks for something that the user must allow first.
    #[error("{0}")]
    Refused(String),
}

impl EngineError {
    /// For `map_err` on decoders.
    pub(crate) fn damaged(object: impl ToString) -> impl FnOnce(FormatError) -> EngineError {
        let object = object.to_string();
        move |source| EngineError::Damaged { object, source }
    }

    /// Whether a newer Littoral wrote what could not be read: no damage, but this version must not touch it.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            EngineError::Damaged { source: FormatError::Newer { .. }, .. }
                | EngineError::Manifest(ManifestError::Newer { .. })
                | EngineError::Local(LocalError::Newer { .. })
        )
    }

    /// Whether a test's crash is behind it.
    pub fn is_crash(&self) -> bool {
        matches!(self, EngineError::Crash(_))
    }
}
