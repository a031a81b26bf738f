//! What can go wrong, by what the caller does next.

use littoral_format::FormatError;
use littoral_local::log::LogError;
use littoral_local::{Flag, LocalError};
use littoral_plan::ChainBreak;
use littoral_plan::phase::Phase;
use littoral_plan::sessions::SerialBreak;
use littoral_ports::{Crash, JobError, ManifestError, QuotaExhausted, RemoteError, SourceError};
use littoral_types::{Epoch, Lsn, Owner, Seq, VolumeKind, Work};

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
    /// The job queue. The work itself goes on without it.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// The local store's files.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Somebody of this store extends the volume's log just now. He ships what he is asked to; or try again.
    #[error(transparent)]
    AtWork(LocalError),
    /// The database that is read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Local room.
    #[error(transparent)]
    Quota(#[from] QuotaExhausted),
    /// A test's crash.
    #[error(transparent)]
    Crash(#[from] Crash),
    /// A log's folder.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The volume holds something else than this is about. Nothing was done: take the way that is named.
    #[error("{volume} is the volume of a {kind}: {way}")]
    OtherKind {
        /// Which volume.
        volume: String,
        /// What it holds.
        kind: VolumeKind,
        /// What does it for that.
        way: &'static str,
    },
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
    /// Serials of sessions that cannot be right: whoever resumed by them would lose operations, or do them twice.
    #[error("{volume}: the recorded serials are not to be believed: {source}")]
    Serials {
        /// Which volume.
        volume: String,
        /// Which session, and what is wrong.
        source: SerialBreak,
    },
    /// A checkpoint was given up because somebody kept it waiting. Nothing was published, and what changed counts for the next one.
    #[error(
        "{volume}: the checkpoint was given up in phase {phase} after {waited_ms} ms: it waited for {who}. Nothing was published, and nothing is lost. Let that transaction end, and try again, or wait for longer (littoral checkpoint --wait SECONDS)"
    )]
    Waited {
        /// Which volume.
        volume: String,
        /// In which phase.
        phase: Phase,
        /// For how long.
        waited_ms: u64,
        /// For whom.
        who: String,
    },
    /// Others work on chunks that this work needs alone. Nothing was done: wait, or take their leases away.
    #[error(
        "{volume}: the {work} waited {waited_ms} ms, and others are at work: {who}. Nothing was done. Wait for longer (--wait), or take it away from \
         them: littoral leases release FILE CHUNK --force --reason TEXT"
    )]
    Leased {
        /// Of which volume.
        volume: String,
        /// What was to be done.
        work: Work,
        /// For how long it waited.
        waited_ms: u64,
        /// Who holds what, and since when.
        who: String,
    },
    /// Somebody has switched that off.
    #[error(
        "{volume}: {what} are switched off ({file}): littoral flags FILE {flag}=true switches them on",
        what = flag.what(),
        file = file.display()
    )]
    SwitchedOff {
        /// What.
        flag: Flag,
        /// Of which volume.
        volume: String,
        /// Where that was said.
        file: std::path::PathBuf,
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
                | EngineError::Jobs(JobError::Newer { .. })
                | EngineError::Local(LocalError::Newer { .. })
        )
    }

    /// Refuses what is about databases, where the volume holds a log.
    pub(crate) fn unless_database(volume: &str, kind: VolumeKind, way: &'static str) -> Result<(), EngineError> {
        match kind {
            VolumeKind::Database => Ok(()),
            VolumeKind::Log => Err(EngineError::OtherKind { volume: volume.to_owned(), kind, way }),
        }
    }

    /// Refuses what is about logs, where the volume holds a database.
    pub(crate) fn unless_log(volume: &str, kind: VolumeKind) -> Result<(), EngineError> {
        let way = "the commands without `log` in front are for it (littoral help)";
        match kind {
            VolumeKind::Log => Ok(()),
            VolumeKind::Database => Err(EngineError::OtherKind { volume: volume.to_owned(), kind, way }),
        }
    }

    /// Whether what lies in the object store is at fault, and not the way there or the machine: trying again does not help.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            EngineError::Damaged { .. }
                | EngineError::Chain { .. }
                | EngineError::Inconsistent { .. }
                | EngineError::Serials { .. }
                | EngineError::Remote(RemoteError::Missing { .. } | RemoteError::Corrupt { .. })
        )
    }

    /// Whether bytes were found that are not what their name says: another place may have the right ones.
    pub fn is_wrong(&self) -> bool {
        self.is_damage() && !matches!(self, EngineError::Remote(RemoteError::Missing { .. }))
    }

    /// Whether a test's crash is behind it.
    pub fn is_crash(&self) -> bool {
        matches!(self, EngineError::Crash(_) | EngineError::Log(LogError::Crash(_)))
    }
}
