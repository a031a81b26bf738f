//! A folder with a database and its volume, and what stands in them.

use crate::built::built;
use crate::shell::{How, Shell, without_settings};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The database's name.
pub const NAME: &str = "app.db";

/// A folder of a test.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("littoral-compat").tempdir().unwrap() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A shell that has the database open.
    pub fn shell(&self, how: How) -> Shell {
        let mut shell = Shell::start(self.path(), how);
        shell.quietly(".timeout 60000");
        assert_eq!(shell.open(NAME, ""), Vec::<String>::new());
        shell
    }

    /// Restores a position into a file, and says what went wrong.
    pub fn restore(&self, position: &str, into: &str) -> Result<PathBuf, String> {
        let dest = self.file(into);
        let mut command = Command::new(&built().littoral);
        command.current_dir(self.path()).env("HOME", self.path());
        without_settings(&mut command);
        command.args(["restore", NAME, into, "--force", "--quiet", "--at", position]);
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(dest),
            false => Err(format!("{:?} {}", output.status, String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// The database as a stock SQLite reads it, while nobody commits: a plain file without a WAL.
    pub fn as_read_by_stock(&self) -> Vec<u8> {
        let copy = tempfile::tempdir_in(self.path()).unwrap();
        for suffix in ["", "-wal", "-journal"] {
            let from = self.file(&format!("{NAME}{suffix}"));
            if from.exists() {
                fs::copy(from, copy.path().join(format!("{NAME}{suffix}"))).unwrap();
            }
        }
        let mut shell = Shell::start(copy.path(), How::Stock);
        assert_eq!(shell.open(NAME, ""), Vec::<String>::new());
        let lines = shell.run("PRAGMA wal_checkpoint(TRUNCATE); SELECT count(*) FROM sqlite_schema;");
        assert!(lines.len() == 2 && lines[0].starts_with("0|"), "{lines:?}");
        shell.quit();
        fs::read(copy.path().join(NAME)).unwrap()
    }

    /// Restores a position, and compares it with the database, to which nobody commits meanwhile.
    pub fn assert_restores(&self, position: &str, what: &str) {
        let restored = self.restore(position, "restored.db").unwrap_or_else(|why| panic!("{what}: {why}"));
        let (found, wanted) = (fs::read(restored).unwrap(), self.as_read_by_stock());
        if let Some(difference) = difference(&found, &wanted) {
            panic!("{what}: restored {position} differs from what stock SQLite reads: {difference}");
        }
    }
}

/// Where two databases differ.
pub fn difference(found: &[u8], wanted: &[u8]) -> Option<String> {
    if found == wanted {
        return None;
    }
    let size = match wanted.get(16..18) {
        Some([0, 1]) => 65536,
        Some([high, low]) => usize::from(*high) << 8 | usize::from(*low),
        _ => 4096,
    };
    let count = |bytes: &[u8]| bytes.len() / size;
    let pages: Vec<usize> = found
        .chunks(size)
        .zip(wanted.chunks(size))
        .enumerate()
        .filter(|(_, (f, w))| f != w)
        .map(|(at, _)| at + 1)
        .collect();
    let (some, all) = (&pages[..pages.len().min(20)], pages.len());
    Some(format!("{} pages for {}, of which {all} differ: {some:?}", count(found), count(wanted)))
}

/// The position that a checkpoint answered.
pub fn position(answer: &[String]) -> Result<String, String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match answer {
        [line] if line.split_once('.').is_some_and(|(epoch, lsn)| is_number(epoch) && is_number(lsn)) => {
            Ok(line.clone())
        }
        lines => Err(lines.join(" / ")),
    }
}
