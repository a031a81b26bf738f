//! What was done for a volume while nobody asked, and what it showed: the last prune, how far verification has come, the last drill, and the
//! last proof that a restore works. `upkeep/{volume}.toml` in the store.
//!
//! TOML, only ever replaced whole. It is derived: where it is lost or cannot be read, everything counts as never done, and is done again.

use crate::durable::{create_dirs, parent, replace, suffixed};
use crate::error::{LocalError, on};
use crate::lock::{ChangeLock, WorkerLock};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The newest format this version reads and writes.
const FORMAT: u64 = 1;
/// Problems that are kept of a check: enough to know where to begin.
pub const PROBLEMS_KEPT: usize = 8;
/// Letters of an answer, or of a reason.
pub const TEXT_KEPT: usize = 500;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// The last prune.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<Pruning>,
    /// Verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verifying>,
    /// The last drill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drilled>,
    /// The last drill that went well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proved: Option<Proved>,
}

/// What came of the last prune. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pruning {
    /// When it was tried.
    pub at_ms: u64,
    /// The newest record then, where it came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Whether nothing could go.
    pub nothing: bool,
    /// Objects and bytes that went.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The record that names what may go and lies there still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<u64>,
    /// How many objects that are.
    pub marked_objects: u64,
    /// Their bytes.
    pub marked_bytes: u64,
    /// The object store refused to delete, in its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// How far verification has come: a pass goes over all blobs, a part at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verifying {
    /// When a part was tried.
    pub at_ms: u64,
    /// When this pass began.
    pub began_ms: u64,
    /// The last blob that was read in it; none at its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Blobs that were read in it.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the last whole pass ended in which nothing was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole_ms: Option<u64>,
    /// When something was found wrong, last; gone when a whole pass found nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong_ms: Option<u64>,
    /// What was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Why the last part could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What came of the last drill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drilled {
    /// When.
    pub at_ms: u64,
    /// What was found wrong: nothing, where it went well or was not held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Why it was not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A restore that worked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proved {
    /// When it was done.
    pub at_ms: u64,
    /// Up to which commit: epoch and LSN.
    pub position: String,
    /// Milliseconds from the first request to SQLite's last answer.
    pub took_ms: u64,
    /// Bytes of the restored file.
    pub bytes: u64,
    /// What was asked of it beside its integrity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl Upkeep {
    /// What a person must look at: what the last check of each kind found wrong.
    pub fn alarms(&self) -> impl Iterator<Item = &str> {
        let verify = self.verify.iter().flat_map(|verify| &verify.problems);
        let drill = self.drill.iter().flat_map(|drill| &drill.problems);
        verify.chain(drill).map(String::as_str)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    #[serde(flatten)]
    upkeep: Upkeep,
}

/// Where it is kept, of one volume.
#[derive(Clone, Debug)]
pub struct UpkeepFile {
    path: PathBuf,
}

impl UpkeepFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is kept; as if nothing ever was where it cannot be read.
    pub fn read(&self) -> Result<Upkeep, LocalError> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes), &self.path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Upkeep::default()),
            Err(error) => Err(on("read", &self.path)(error)),
        }
    }

    /// Changes it, whoever else does meanwhile.
    pub fn change(&self, change: impl FnOnce(&mut Upkeep)) -> Result<Upkeep, LocalError> {
        create_dirs(parent(&self.path))?;
        let _lock = ChangeLock::take(&suffixed(&self.path, ".lock"))?;
        let before = self.read()?;
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            let print = |error: toml::ser::Error| LocalError::Misuse {
                path: self.path.clone(),
                detail: format!("cannot be spelled: {error}"),
            };
            let text = toml::to_string(&Document { format: FORMAT, upkeep: after.clone() }).map_err(print)?;
            replace(&self.path, text.as_bytes())?;
        }
        Ok(after)
    }

    /// The right to do what is due: one process has it at a time.
    pub fn turn(&self) -> Result<WorkerLock, LocalError> {
        WorkerLock::take(suffixed(&self.path, ".turn"))
    }
}

fn parse(text: &str, path: &Path) -> Upkeep {
    match toml::from_str::<Document>(text) {
        Ok(document) if document.format <= FORMAT => document.upkeep,
        // A newer one is replaced, too: nothing is lost but when things were done.
        _ => {
            tracing::warn!(path = %path.display(), "cannot be read: prunes, checks and drills count as never done");
            Upkeep::default()
        }
    }
}

/// A text that is kept: as much of it as there is room for.
pub fn kept(text: impl ToString) -> String {
    let text = text.to_string();
    match text.char_indices().nth(TEXT_KEPT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir) -> UpkeepFile {
        UpkeepFile::new(dir.path().join("upkeep/07.toml"))
    }

    fn full() -> Upkeep {
        Upkeep {
            prune: Some(Pruning {
                at_ms: 1,
                record: Some(2),
                nothing: false,
                objects: 3,
                bytes: 4,
                marked: Some(5),
                marked_objects: 6,
                marked_bytes: 7,
                denied: Some("no".to_owned()),
                failed: None,
            }),
            verify: Some(Verifying {
                at_ms: 8,
                began_ms: 9,
                cursor: Some("app.db/packs/x".to_owned()),
                blobs: 10,
                bytes: 11,
                whole_ms: Some(12),
                wrong_ms: None,
                problems: vec!["one".to_owned(), "two".to_owned()],
                failed: None,
            }),
            drill: Some(Drilled { at_ms: 13, problems: vec!["three".to_owned()], skipped: None }),
            proved: Some(Proved {
                at_ms: 14,
                position: "2.41".to_owned(),
                took_ms: 15,
                bytes: 16,
                probe: Some("SELECT 1".to_owned()),
                answer: Some("1".to_owned()),
            }),
        }
    }

    #[test]
    fn what_is_kept_reads_back_and_what_is_not_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert_eq!(file.read().unwrap(), Upkeep::default());
        assert_eq!(file.change(|upkeep| *upkeep = full()).unwrap(), full());
        assert_eq!(file.read().unwrap(), full());
        assert_eq!(full().alarms().collect::<Vec<_>>(), ["one", "two", "three"]);
    }

    #[test]
    fn the_file_looks_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let proved = Proved { at_ms: 5, position: "1.2".to_owned(), took_ms: 7, bytes: 8, ..Proved::default() };
        file.change(|upkeep| {
            upkeep.drill = Some(Drilled { at_ms: 5, ..Drilled::default() });
            upkeep.proved = Some(proved);
        })
        .unwrap();
        let text = fs::read_to_string(&file.path).unwrap();
        let golden =
            "format = 1\n\n[drill]\nat_ms = 5\n\n[proved]\nat_ms = 5\nposition = \"1.2\"\ntook_ms = 7\nbytes = 8\n";
        assert_eq!(text, golden);
        assert!(include_str!("../../../docs/format.md").contains(&format!("```toml\n{golden}```\n")));
    }

    #[test]
    fn a_lost_damaged_or_newer_file_costs_nothing_but_doing_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        file.change(|upkeep| *upkeep = full()).unwrap();
        let whole = fs::read_to_string(&file.path).unwrap();
        for text in ["", "format = 2\n", "\u{0}\u{0}", &whole.replacen('"', "", 1)] {
            fs::write(&file.path, text).unwrap();
            assert_eq!(file.read().unwrap(), Upkeep::default(), "{text:?}");
            file.change(|upkeep| *upkeep = full()).unwrap();
            assert_eq!(file.read().unwrap(), full());
        }
    }

    #[test]
    fn p12_two_workers_never_have_one_volumes_turn_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        let turn = file.turn().unwrap();
        assert!(matches!(file.turn(), Err(LocalError::Busy { .. })));
        drop(turn);
        file.turn().unwrap();
    }

    #[test]
    fn racing_changes_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        file.change(|upkeep| upkeep.prune.get_or_insert_default().objects += 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.read().unwrap().prune.unwrap().objects, 100);
    }

    #[test]
    fn a_long_text_is_kept_in_part() {
        assert_eq!(kept("short"), "short");
        assert_eq!(kept("ü".repeat(TEXT_KEPT + 9)).chars().count(), TEXT_KEPT + 1);
    }
}
