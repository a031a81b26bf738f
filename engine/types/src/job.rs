//! Work that is kept until it is done: what is to be done to which database, and how far that has come.

use crate::Cut;
use std::fmt;
use std::path::PathBuf;

/// A job's number in its store. Numbers ascend and are never used again while the queue lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// What changed goes to the object store.
    CreateCheckpoint,
    /// Everything that the volume holds is read and checked.
    VerifyCheckpoint {
        /// Whether a copy is restored and SQLite asked about it.
        restore: bool,
    },
    /// Everything that is not here is fetched.
    DownloadCheckpoint,
    /// What no kept state needs goes.
    PruneCheckpoint {
        /// So many of the newest restore points stay, and none of before them.
        keep_last: Option<u64>,
        /// What was current within so many milliseconds stays; what the settings say where neither is said.
        keep_within_ms: Option<u64>,
    },
    /// What is published goes to every other object store that the settings name.
    Replicate,
    /// A log's beginning goes, here and in its volume.
    TruncateAppendOnly {
        /// Which.
        cut: Cut,
        /// Whether also what cursors have not acknowledged.
        past_cursors: bool,
    },
}

/// The words of all kinds.
pub const TASK_WORDS: [&str; 6] = [
    "create-checkpoint",
    "verify-checkpoint",
    "download-checkpoint",
    "prune-checkpoint",
    "replicate",
    "truncate-append-only",
];

impl Task {
    /// Its kind in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Task::CreateCheckpoint => TASK_WORDS[0],
            Task::VerifyCheckpoint { .. } => TASK_WORDS[1],
            Task::DownloadCheckpoint => TASK_WORDS[2],
            Task::PruneCheckpoint { .. } => TASK_WORDS[3],
            Task::Replicate => TASK_WORDS[4],
            Task::TruncateAppendOnly { .. } => TASK_WORDS[5],
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Task::CreateCheckpoint
            | Task::DownloadCheckpoint
            | Task::Replicate
            | Task::VerifyCheckpoint { restore: false } => Ok(()),
            Task::VerifyCheckpoint { restore: true } => f.write_str(" and restore"),
            Task::PruneCheckpoint { keep_last, keep_within_ms } => {
                keep_last.iter().try_for_each(|last| write!(f, " keep {last}"))?;
                keep_within_ms.iter().try_for_each(|within| write!(f, " keep {within} ms"))
            }
            Task::TruncateAppendOnly { cut, past_cursors } => {
                write!(f, " {cut}")?;
                f.write_str(if *past_cursors { ", past cursors" } else { "" })
            }
        }
    }
}

/// Somebody wants something done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub task: Task,
    /// Of which database.
    pub database: PathBuf,
    /// Of which volume: its URL, which holds no secret.
    pub volume: String,
}

impl Wish {
    /// Two wishes of one token are one job, as long as that is not done.
    pub fn token(&self) -> String {
        format!("{} of {} from {}", self.task, self.volume, self.database.display())
    }
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for somebody to take it, and is not to be taken before this moment (milliseconds since 1970).
    Ready {
        /// That moment.
        not_before_ms: u64,
    },
    /// Somebody is at it.
    Running {
        /// Who, for people.
        by: String,
    },
    /// It is done.
    Done {
        /// What came of it, for people.
        outcome: String,
    },
    /// Somebody did not want it any more.
    Cancelled,
    /// It will not be tried again by itself.
    Dead {
        /// Why.
        reason: String,
    },
}

impl JobState {
    /// In one word.
    pub const fn word(&self) -> &'static str {
        match self {
            JobState::Ready { .. } => "ready",
            JobState::Running { .. } => "running",
            JobState::Done { .. } => "done",
            JobState::Cancelled => "cancelled",
            JobState::Dead { .. } => "dead",
        }
    }

    /// Whether nothing follows by itself.
    pub const fn is_over(&self) -> bool {
        matches!(self, JobState::Done { .. } | JobState::Cancelled | JobState::Dead { .. })
    }
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What was wished.
    pub wish: Wish,
    /// Where it stands.
    pub state: JobState,
    /// How often it was begun.
    pub attempts: u32,
    /// How often it failed since it was wished for or asked for again.
    pub failures: u32,
    /// Why it failed last.
    pub error: Option<String>,
    /// When it was wished for, milliseconds since 1970. Never changes.
    pub created_ms: u64,
    /// When it was begun for the first time. Once said it never changes.
    pub started_ms: Option<u64>,
    /// When it changed last.
    pub changed_ms: u64,
}

impl Job {
    /// As it begins, to be taken at once.
    pub const fn new(id: JobId, wish: Wish, now_ms: u64) -> Self {
        Self {
            id,
            wish,
            state: JobState::Ready { not_before_ms: now_ms },
            attempts: 0,
            failures: 0,
            error: None,
            created_ms: now_ms,
            started_ms: None,
            changed_ms: now_ms,
        }
    }
}

/// One blob that a job is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobNote {
    /// Which one.
    pub blob: String,
    /// Its bytes.
    pub bytes: u64,
    /// Frames that were checked in it.
    pub frames: u64,
    /// Pages in those.
    pub pages: u64,
}
