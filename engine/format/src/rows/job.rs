//! A job.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{Cut, Job, JobId, JobState, Lsn, Task, Wish};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "job row";
/// As long as the longest path that Linux takes.
const PATH_MAX: usize = 4096;

/// Spells it.
pub fn encode(job: &Job) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, job)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Job, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for Job {
    fn put(&self, out: &mut Out) {
        out.varint("job", self.id.0);
        self.wish.put(out);
        self.state.put(out);
        out.varint("times begun", u64::from(self.attempts));
        out.varint("times failed", u64::from(self.failures));
        out.optional("failed last because", self.error.as_ref(), |out, error| out.text("why", error));
        out.varint("created, ms", self.created_ms);
        out.optional("was begun", self.started_ms, |out, ms| out.varint("begun first, ms", ms));
        out.varint("changed, ms", self.changed_ms);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let times = |input: &mut In<'_>| {
            let times = input.varint()?;
            u32::try_from(times).map_err(|_| input.invalid("a count beyond 32 bits"))
        };
        Ok(Self {
            id: JobId(input.varint()?),
            wish: Wish::get(input)?,
            state: JobState::get(input)?,
            attempts: times(input)?,
            failures: times(input)?,
            error: input.optional(|input| Ok(input.text()?.to_owned()))?,
            created_ms: input.varint()?,
            started_ms: input.optional(In::varint)?,
            changed_ms: input.varint()?,
        })
    }
}

impl Spell for Wish {
    fn put(&self, out: &mut Out) {
        self.task.put(out);
        let path = self.database.as_os_str().as_bytes();
        out.limit(path.len(), PATH_MAX);
        out.blob("database: its path", path);
        out.text("volume: its URL", &self.volume);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let task = Task::get(input)?;
        let database = OsString::from_vec(input.blob(PATH_MAX)?.to_vec()).into();
        Ok(Self { task, database, volume: input.text()?.to_owned() })
    }
}

impl Spell for Task {
    fn put(&self, out: &mut Out) {
        let kind = match self {
            Task::CreateCheckpoint => 1,
            Task::VerifyCheckpoint { .. } => 2,
            Task::DownloadCheckpoint => 3,
            Task::PruneCheckpoint { .. } => 4,
            Task::Replicate => 5,
            Task::TruncateAppendOnly { .. } => 6,
        };
        out.u8("task (1 create, 2 verify, 3 download, 4 prune, 5 replicate, 6 truncate)", kind);
        match self {
            Task::CreateCheckpoint | Task::DownloadCheckpoint | Task::Replicate => {}
            Task::VerifyCheckpoint { restore } => out.u8("verify: restores a copy", u8::from(*restore)),
            Task::PruneCheckpoint { keep_last, keep_within_ms } => {
                out.optional("prune: keeps the last", *keep_last, |out, last| out.varint("so many", last));
                out.optional("prune: keeps what is young", *keep_within_ms, |out, ms| out.varint("below, ms", ms));
            }
            Task::TruncateAppendOnly { cut, past_cursors } => {
                let (kind, what) = match cut {
                    Cut::Before(lsn) => (1, lsn.0),
                    Cut::OlderThan(ms) => (2, *ms),
                    Cut::KeepBytes(bytes) => (3, *bytes),
                };
                out.u8("truncate: what goes (1 before an LSN, 2 before a time, 3 all but so many bytes)", kind);
                out.varint("truncate: which", what);
                out.u8("truncate: past cursors", u8::from(*past_cursors));
            }
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        match input.u8()? {
            1 => Ok(Task::CreateCheckpoint),
            2 => Ok(Task::VerifyCheckpoint { restore: input.flag()? }),
            3 => Ok(Task::DownloadCheckpoint),
            4 => Ok(Task::PruneCheckpoint {
                keep_last: input.optional(In::varint)?,
                keep_within_ms: input.optional(In::varint)?,
            }),
            5 => Ok(Task::Replicate),
            6 => {
                let (kind, what) = (input.u8()?, input.varint()?);
                let cut = match kind {
                    1 => Cut::Before(Lsn(what)),
                    2 => Cut::OlderThan(what),
                    3 => Cut::KeepBytes(what),
                    other => return Err(input.invalid(format!("a truncation of kind {other}"))),
                };
                Ok(Task::TruncateAppendOnly { cut, past_cursors: input.flag()? })
            }
            other => Err(input.invalid(format!("task {other}"))),
        }
    }
}

impl Spell for JobState {
    fn put(&self, out: &mut Out) {
        let kind = match self {
            JobState::Ready { .. } => 1,
            JobState::Running { .. } => 2,
            JobState::Done { .. } => 3,
            JobState::Cancelled => 4,
            JobState::Dead { .. } => 5,
        };
        out.u8("state (1 ready, 2 running, 3 done, 4 cancelled, 5 dead)", kind);
        match self {
            JobState::Ready { not_before_ms } => out.varint("not before, ms", *not_before_ms),
            JobState::Running { by } => out.text("by", by),
            JobState::Done { outcome } => out.text("outcome", outcome),
            JobState::Cancelled => {}
            JobState::Dead { reason } => out.text("reason", reason),
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        match input.u8()? {
            1 => Ok(JobState::Ready { not_before_ms: input.varint()? }),
            2 => Ok(JobState::Running { by: input.text()?.to_owned() }),
            3 => Ok(JobState::Done { outcome: input.text()?.to_owned() }),
            4 => Ok(JobState::Cancelled),
            5 => Ok(JobState::Dead { reason: input.text()?.to_owned() }),
            other => Err(input.invalid(format!("state {other}"))),
        }
    }
}
