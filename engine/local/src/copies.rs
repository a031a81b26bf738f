//! How far each copy of a volume has come, as this store knows it: `copies/{volume}-{place}.toml`.
//!
//! TOML, only ever replaced whole. It is derived: where it is lost or cannot be read, the copy itself is asked.

use crate::durable::{create_dirs, parent, replace, suffixed};
use crate::error::{LocalError, on};
use crate::lock::WorkerLock;
use littoral_types::limits::COPY_PRUNE_MS_MAX;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// The newest format this version reads and writes.
const FORMAT: u64 = 1;

/// How far one copy has come. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Copied {
    /// Where it is.
    pub url: String,
    /// The newest record that is there.
    pub record: u64,
    /// Its term.
    pub epoch: u64,
    /// Its last commit.
    pub lsn: u64,
    /// What it is labelled with.
    pub time_ms: u64,
    /// The newest manifest snapshot that is there.
    pub snapshot: u64,
    /// When it was last found to hold everything that was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole_ms: Option<u64>,
    /// When something was tried.
    pub tried_ms: u64,
    /// Since when nothing could be copied, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_since_ms: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Prunes that are to be done there still, by their records.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prunes: Vec<u64>,
    /// When those were looked at last, or the first of them came.
    pub pruned_ms: u64,
    /// Bytes that were sent there, blobs and records, from here.
    pub sent: u64,
    /// Bytes of those that were read from the primary for it.
    pub fetched: u64,
}

impl Copied {
    /// Whether prunes are to be done there, that are not looked at more often than this.
    pub fn prunes_are_due(&self, now_ms: u64, grace_ms: u64) -> bool {
        let rests = grace_ms.min(COPY_PRUNE_MS_MAX);
        !self.prunes.is_empty() && !(self.pruned_ms..self.pruned_ms.saturating_add(rests)).contains(&now_ms)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    #[serde(flatten)]
    copied: Copied,
}

/// Where it is kept, of one volume and one place.
#[derive(Clone, Debug)]
pub struct CopyFile {
    path: PathBuf,
}

impl CopyFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is kept; `None` where nothing is, or where it cannot be read.
    pub fn read(&self) -> Result<Option<Copied>, LocalError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => match toml::from_str::<Document>(&text) {
                Ok(document) if document.format <= FORMAT => Ok(Some(document.copied)),
                _ => {
                    tracing::warn!(path = %self.path.display(), "cannot be read: the copy is asked how far it has come");
                    Ok(None)
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(on("read", &self.path)(error)),
        }
    }

    /// Keeps this. For who has the [`CopyFile::turn`].
    pub fn write(&self, copied: &Copied) -> Result<(), LocalError> {
        create_dirs(parent(&self.path))?;
        let print = |error: toml::ser::Error| LocalError::Misuse {
            path: self.path.clone(),
            detail: format!("cannot be spelled: {error}"),
        };
        let text = toml::to_string(&Document { format: FORMAT, copied: copied.clone() }).map_err(print)?;
        replace(&self.path, text.as_bytes())
    }

    /// The right to copy there: one process of this store has it at a time.
    pub fn turn(&self) -> Result<WorkerLock, LocalError> {
        create_dirs(parent(&self.path))?;
        WorkerLock::take(suffixed(&self.path, ".turn"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_copy_reads_back_and_looks_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let file = CopyFile::new(dir.path().join("copies/07-ab.toml"));
        assert_eq!(file.read().unwrap(), None);
        let url = "s3://other/prefix".to_owned();
        let copied = Copied { url, record: 7, epoch: 1, lsn: 12, time_ms: 5, prunes: vec![6], ..Copied::default() };
        file.write(&copied).unwrap();
        assert_eq!(file.read().unwrap(), Some(copied));
        let golden = "format = 1\nurl = \"s3://other/prefix\"\nrecord = 7\nepoch = 1\nlsn = 12\ntime_ms = 5\nsnapshot = 0\n\
                      tried_ms = 0\nprunes = [6]\npruned_ms = 0\nsent = 0\nfetched = 0\n";
        assert_eq!(fs::read_to_string(dir.path().join("copies/07-ab.toml")).unwrap(), golden);
        assert!(include_str!("../../../docs/format.md").contains(&format!("```toml\n{golden}```\n")));
    }

    #[test]
    fn prunes_that_wait_are_looked_at_once_an_hour_at_most_whatever_the_clock_says() {
        let copied = Copied { prunes: vec![4], pruned_ms: 10_000_000, ..Copied::default() };
        let (hour, day) = (3_600_000, 86_400_000);
        for (now, grace, is_due) in [
            (10_000_000, 0, true),
            (10_000_000, day, false),
            (10_000_000 + hour - 1, day, false),
            (10_000_000 + hour, day, true),
            (10_001_000, 1_000, true),
            // A clock that was ahead then.
            (9_000_000, day, true),
        ] {
            assert_eq!(copied.prunes_are_due(now, grace), is_due, "{now} {grace}");
        }
        assert!(!Copied::default().prunes_are_due(0, 0));
    }

    #[test]
    fn a_damaged_or_newer_file_is_none_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("07-ab.toml");
        let file = CopyFile::new(path.clone());
        for text in ["", "format = 2\n", "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.read().unwrap(), None, "{text:?}");
            file.write(&Copied::default()).unwrap();
            assert_eq!(file.read().unwrap(), Some(Copied::default()));
        }
    }

    #[test]
    fn p12_two_processes_never_copy_to_one_place_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = CopyFile::new(dir.path().join("07-ab.toml"));
        let turn = file.turn().unwrap();
        assert!(matches!(file.turn(), Err(LocalError::Busy { .. })));
        drop(turn);
        file.turn().unwrap();
    }
}
