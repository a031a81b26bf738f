//! How a command ended, as a number that scripts can rely on, and the way out of each error.

use littoral_engine::EngineError;
use littoral_engine::logs::LogError;
use littoral_ports::{JobError, ManifestError, RemoteError, SourceError};

/// Exit codes. Documented in `docs/cli.md` and `littoral help`; never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The remote, the disk, or something unexpected failed. Trying again may help.
    Failed = 1,
    /// The command line or a setting makes no sense.
    Usage = 2,
    /// Refused, because it could lose or mix up data: fenced, not bound, would overwrite, a store without conditional PUT, a
    /// newer format.
    Refused = 3,
    /// Corrupt data was found.
    Corrupt = 4,
    /// What was named is not there: bucket or folder, volume, snapshot, position.
    Nothing = 5,
    /// The database file is not one that can be used.
    Source = 6,
}

impl Exit {
    /// All of them.
    pub const ALL: [Exit; 7] =
        [Exit::Done, Exit::Failed, Exit::Usage, Exit::Refused, Exit::Corrupt, Exit::Nothing, Exit::Source];

    /// One word, as `--json` has it.
    pub const fn word(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Refused => "refused",
            Exit::Corrupt => "corrupt",
            Exit::Nothing => "nothing",
            Exit::Source => "source",
        }
    }

    /// What it means, in a line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "the remote, the disk or something unexpected failed; trying again may help",
            Exit::Usage => "the command line or a setting makes no sense",
            Exit::Refused => "refused, because it could lose or mix up data; the message holds the choices",
            Exit::Corrupt => "corrupt data was found",
            Exit::Nothing => "what was named is not there: bucket, folder, volume, snapshot or position",
            Exit::Source => "the database file cannot be used: missing, not SQLite, encrypted or corrupt",
        }
    }
}

/// An error of the command line's own: what happened, the way out, and how the command ends.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// How the command ends.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do.
    pub way_out: Option<String>,
}

impl Fault {
    /// Something that makes no sense on the command line.
    pub fn usage(message: impl Into<String>, way_out: &str) -> Self {
        Self { exit: Exit::Usage, message: message.into(), way_out: Some(way_out.to_owned()) }
    }
}

/// An error as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// How the command ends.
    pub exit: Exit,
    /// What happened.
    pub cause: String,
    /// What to do, where the cause does not say it already.
    pub way_out: Option<String>,
}

/// Sorts an error by what its reader does next.
pub fn explain(error: &anyhow::Error) -> Explained {
    let cause = error.to_string();
    let (exit, way_out) = error.chain().find_map(known).unwrap_or((Exit::Failed, None));
    Explained { exit, cause, way_out }
}

type Way = (Exit, Option<String>);

fn known(error: &(dyn std::error::Error + 'static)) -> Option<Way> {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return Some((fault.exit, fault.way_out.clone()));
    }
    if let Some(error) = error.downcast_ref::<EngineError>() {
        return Some(engine(error));
    }
    if let Some(error) = error.downcast_ref::<LogError>() {
        return Some(log(error));
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return Some(source(error));
    }
    error.downcast_ref::<RemoteError>().map(remote)
}

fn say(exit: Exit, way_out: &str) -> Way {
    (exit, Some(way_out.to_owned()))
}

fn engine(error: &EngineError) -> Way {
    match error {
        EngineError::Settings(_) => (Exit::Usage, None),
        EngineError::Remote(error) => remote(error),
        EngineError::Manifest(error) => match error {
            ManifestError::Newer { .. } => (Exit::Refused, None),
            ManifestError::NoLease(_) => {
                say(Exit::Failed, "try again, unless whoever took it away wanted it not to be done")
            }
            ManifestError::Corrupt(_) => (Exit::Corrupt, None),
            ManifestError::Full(_) => {
                say(Exit::Failed, "make room on the store's disk and try again; nothing was lost")
            }
            ManifestError::Misuse(_) => say(Exit::Failed, "this is a bug of littoral: please report it"),
            ManifestError::Failed(_) => say(Exit::Failed, "look at the store's folder with `littoral doctor FILE`"),
        },
        EngineError::Jobs(error) => match error {
            JobError::Newer { .. } => (Exit::Refused, None),
            JobError::Misuse(_) => (Exit::Usage, None),
            JobError::Corrupt(_) | JobError::Failed(_) => {
                say(Exit::Failed, "remove the store's folder jobs: it is filled again, and no data is lost by it")
            }
            JobError::Full(_) => say(Exit::Failed, "make room on the store's disk, or `littoral jobs clear FILE`"),
        },
        EngineError::Local(error) | EngineError::AtWork(error) => local(error),
        EngineError::Source(error) => source(error),
        EngineError::Quota(_) => say(Exit::Failed, "raise quota=, or let running work finish first"),
        EngineError::Crash(_) => (Exit::Failed, None),
        EngineError::Damaged { .. } if error.is_newer() => say(Exit::Refused, "nothing was changed"),
        EngineError::Waited { .. } => (Exit::Source, None),
        EngineError::SwitchedOff { .. } => (Exit::Refused, None),
        EngineError::Leased { .. } => (Exit::Failed, None),
        EngineError::Damaged { .. }
        | EngineError::Chain { .. }
        | EngineError::Inconsistent { .. }
        | EngineError::Serials { .. } => say(
            Exit::Corrupt,
            "`littoral verify` lists all damage; an undamaged position may be restored with --at (`littoral history`)",
        ),
        EngineError::Superseded { .. }
        | EngineError::Diverged { .. }
        | EngineError::RemoteBehind { .. }
        | EngineError::NotBound { .. }
        | EngineError::WrongTakeover { .. }
        | EngineError::Refused(_) => (Exit::Refused, None),
        EngineError::OtherKind { .. } => (Exit::Refused, None),
        EngineError::Log(error) => log(error),
        EngineError::Interrupted(_) => say(Exit::Failed, "try again: what was begun is finished first"),
        EngineError::NoVolume(_) => say(
            Exit::Nothing,
            "check the URL (remote plus /NAME); `littoral checkpoint FILE` makes a database's volume",
        ),
        EngineError::NotAVolume { .. } => {
            say(Exit::Nothing, "check the URL (remote plus /NAME), or choose another name with --volume=NAME")
        }
        EngineError::NoSuchPosition { .. } => {
            say(Exit::Nothing, "`littoral history` and `littoral snapshot list` show what there is")
        }
    }
}

fn local(error: &littoral_engine::LocalError) -> Way {
    use littoral_engine::LocalError;
    match error {
        LocalError::Newer { .. }
        | LocalError::Conflict(_)
        | LocalError::WouldOverwrite { .. }
        | LocalError::NetworkFileSystem { .. } => (Exit::Refused, None),
        LocalError::Busy { .. } => say(Exit::Failed, "wait until it is done, or end that process"),
        LocalError::Full { .. } => {
            say(Exit::Failed, "make room there and try again; nothing half-written was left in place")
        }
        LocalError::Quota(_) => say(Exit::Failed, "raise quota=, or let running work finish first"),
        LocalError::Denied { .. } => say(
            Exit::Failed,
            "make the folder writable for this user, or choose another (store=DIR for the store, another destination for a restore)",
        ),
        LocalError::Missing { .. } => say(Exit::Failed, "check the path; folders are not made for you"),
        LocalError::Corrupt { .. } => (Exit::Corrupt, None),
        LocalError::Misuse { .. } => say(Exit::Failed, "this is a bug of littoral: please report it"),
        LocalError::Failed { .. } => say(Exit::Failed, "look at that disk, then try again; nothing was lost"),
    }
}

fn log(error: &LogError) -> Way {
    match error {
        LogError::Local(error) => local(error),
        _ if error.is_newer() => say(Exit::Refused, "nothing was changed"),
        LogError::NoLog(_) => say(Exit::Nothing, "check the path; `littoral log create PATH` makes a log"),
        LogError::Exists { .. } => say(Exit::Refused, "choose another path"),
        LogError::Busy { .. } => say(Exit::Refused, "end that process, or append through it"),
        LogError::Held(_) | LogError::TooMany { .. } => (Exit::Refused, None),
        LogError::TooLarge { .. } | LogError::Anonymous => (Exit::Usage, None),
        LogError::Behind { .. } => {
            say(Exit::Refused, "go on after the session's last serial: `littoral log stats` shows it")
        }
        LogError::Truncated { .. } => say(Exit::Nothing, "go on from there, or leave the beginning out"),
        LogError::RolledBack { .. } => say(Exit::Nothing, "go on from there"),
        LogError::NotRolledBack { .. } => (Exit::Refused, None),
        LogError::Beyond { .. } => say(Exit::Nothing, "`littoral log stats PATH` shows where it ends"),
        LogError::NoCursor { .. } => say(Exit::Nothing, "`littoral log cursors list PATH` shows those that there are"),
        LogError::OthersCursor { .. } => (Exit::Refused, None),
        LogError::Stopped { .. } => say(Exit::Failed, "look at that disk, then open the log again"),
        LogError::Fenced { .. } => (Exit::Refused, None),
        LogError::Closed | LogError::Crash(_) => (Exit::Failed, None),
        LogError::Damaged { .. } | LogError::Broken { .. } | LogError::Serials { .. } => say(
            Exit::Corrupt,
            "nothing was changed; what is not damaged can be read on from behind it (littoral log read PATH --from LSN)",
        ),
    }
}

fn source(error: &SourceError) -> Way {
    match error {
        SourceError::NotADatabase(_) => say(
            Exit::Source,
            "give a SQLite database file; an encrypted one must be decrypted, or copied with its own tools, first",
        ),
        SourceError::Corrupt(_) => say(
            Exit::Source,
            "nothing was published, so that the last good version stays: repair it (sqlite3 FILE .recover) or restore it \
             (littoral restore)",
        ),
        SourceError::Busy(_) => say(Exit::Failed, "wait until the other connection has committed, and try again"),
        SourceError::Failed(_) => (Exit::Source, None),
    }
}

fn remote(error: &RemoteError) -> Way {
    match error {
        RemoteError::Missing { .. } => say(Exit::Corrupt, "`littoral verify` lists what is missing"),
        RemoteError::Corrupt { .. } => say(Exit::Corrupt, "`littoral verify` lists all damage"),
        RemoteError::Exists { .. } | RemoteError::Unknown { .. } => {
            say(Exit::Failed, "try again: what may have been written is settled first")
        }
        RemoteError::Denied { .. } => say(
            Exit::Failed,
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and that they may read and \
             write this bucket or folder; `littoral doctor` tries each",
        ),
        RemoteError::NoBucket { .. } => {
            say(Exit::Nothing, "make the bucket or folder first, or correct remote=; neither is made for you")
        }
        RemoteError::Unavailable { .. } => say(
            Exit::Failed,
            "check the network and endpoint= (or AWS_ENDPOINT_URL_S3), then try again; nothing is lost meanwhile",
        ),
        RemoteError::Throttled { .. } => {
            say(Exit::Failed, "try again later, or raise what the provider allows; nothing is lost meanwhile")
        }
        RemoteError::Full { .. } => {
            say(Exit::Failed, "make room in the object store and try again; nothing was published")
        }
        RemoteError::NotFencing { .. } => say(
            Exit::Refused,
            "use a store with conditional PUT; or, where only one writer can ever exist, fencing=off",
        ),
        RemoteError::Settings(_) => (Exit::Usage, None),
    }
}
