//! What a program was told when something went wrong: the rig of the tests of bad input.

use crate::{Place, python, room};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// `SQLITE_ERROR`.
pub const ERROR: i64 = 1;
/// `SQLITE_READONLY`.
pub const READONLY: i64 = 8;
/// `SQLITE_IOERR`.
pub const IOERR: i64 = 10;
/// `SQLITE_IOERR_READ`.
pub const IOERR_READ: i64 = 266;
/// `SQLITE_FULL`.
pub const FULL: i64 = 13;
/// `SQLITE_CANTOPEN`.
pub const CANTOPEN: i64 = 14;

/// What a program was told.
#[derive(Debug)]
pub struct Told {
    /// The error of the opening.
    pub opened: Option<Wrong>,
    /// What each statement answered.
    pub answers: Vec<Result<Value, Wrong>>,
    /// `last_error` of `littoral_status`.
    pub status: Option<String>,
    /// `littoral_last_error()` on another connection.
    pub last: Option<String>,
    /// All that was said, the log with it.
    pub all: String,
}

/// An error of SQLite's.
#[derive(Debug)]
pub struct Wrong {
    /// Its extended code.
    pub code: i64,
    /// Its message.
    pub text: String,
}

impl Told {
    fn of(output: &Output) -> Self {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{out}{err}", output.status);
        let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        let wrong = |value: &Value| {
            let (code, text) = (value.get("code")?.as_i64()?, value.get("text")?.as_str()?.to_owned());
            Some(Wrong { code, text })
        };
        let answers = told["answers"].as_array().unwrap().iter();
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        Self {
            opened: wrong(&told["opened"]),
            answers: answers.map(|answer| wrong(answer).map_or_else(|| Ok(answer.clone()), Err)).collect(),
            status: text("status"),
            last: text("last"),
            all: format!("{out}{err}"),
        }
    }

    /// The opening was refused: SQLite allows no message there, so it is asked for, and logged.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        let opened = self.opened.as_ref().unwrap_or_else(|| panic!("{words:?}: it was opened: {self:?}"));
        assert_eq!(opened.code, CANTOPEN, "{self:?}");
        self.names(self.last.as_deref(), words);
    }

    /// A question was refused, and its message is the whole reason.
    #[track_caller]
    pub fn denied(&self, nth: usize, code: i64, words: &[&str]) {
        let Err(wrong) = &self.answers[nth] else { panic!("{words:?}: answer {nth} of {self:?}") };
        assert_eq!(wrong.code, code, "{words:?}: {self:?}");
        self.names(Some(&wrong.text), words);
        self.names(self.last.as_deref(), words);
        self.names(self.status.as_deref(), words);
    }

    /// SQLite had to answer with a code alone.
    #[track_caller]
    pub fn failed(&self, nth: usize, code: i64, words: &[&str]) {
        let Err(wrong) = &self.answers[nth] else { panic!("{words:?}: answer {nth} of {self:?}") };
        assert_eq!(wrong.code, code, "{words:?}: {self:?}");
        self.names(self.last.as_deref(), words);
        self.names(self.status.as_deref(), words);
    }

    /// A statement answered this.
    #[track_caller]
    pub fn answered(&self, nth: usize, value: &Value) {
        assert!(self.answers[nth].as_ref().is_ok_and(|answer| answer == value), "not {value} but {self:?}");
    }

    #[track_caller]
    fn names(&self, text: Option<&str>, words: &[&str]) {
        let text = text.unwrap_or_else(|| panic!("{words:?}: nothing was kept: {self:?}"));
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
        assert!(self.all.contains("WARN") || self.all.contains("ERROR"), "nothing was logged: {self:?}");
    }
}

/// A machine, and what is set on it.
#[derive(Debug)]
pub struct Rig {
    /// The machine and the object store.
    pub place: Place,
    /// Variables.
    pub environment: Vec<(&'static str, String)>,
    /// What the program runs below.
    pub below: Vec<String>,
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// A machine without anything.
    pub fn new() -> Self {
        Self { place: Place::new(), environment: Vec::new(), below: Vec::new() }
    }

    /// With a published database of some pages, and something that was not published yet.
    pub fn published() -> Self {
        let rig = Self::new();
        let told = rig.ask(
            "",
            &[
                "CREATE TABLE t(a)",
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                 INSERT INTO t SELECT hex(randomblob(1000)) FROM n",
                "PRAGMA littoral_checkpoint",
                "INSERT INTO t VALUES (1)",
            ],
        );
        assert!(told.answers.iter().all(Result::is_ok), "{told:?}");
        rig
    }

    /// A database's name, with our VFS and the object store unless the parameters name another.
    pub fn uri(&self, name: &str, parameters: &str) -> String {
        let remote =
            if parameters.contains("remote=") { String::new() } else { format!("&remote={}", self.place.remote()) };
        format!("file:{name}?vfs=littoral{remote}{parameters}")
    }

    /// Opens `app.db` and asks.
    pub fn ask(&self, parameters: &str, statements: &[&str]) -> Told {
        self.ask_uri(&self.uri("app.db", parameters), statements)
    }

    /// Opens whatever it is, and asks.
    pub fn ask_uri(&self, uri: &str, statements: &[&str]) -> Told {
        let script = room().join("scripts/ask.py");
        let mut words: Vec<OsString> = self.below.iter().map(Into::into).collect();
        words.extend([python().into(), script.into(), uri.into()]);
        let mut command = self.place.host(&words[0]);
        command.args(&words[1..]).args(statements).env("LITTORAL_LOG", "warn").env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Told::of(&command.output().unwrap())
    }

    /// Where the machine and the object store lie.
    pub fn folder(&self) -> PathBuf {
        self.place.machine().parent().unwrap().to_owned()
    }

    /// The object store's folder.
    pub fn remote(&self) -> PathBuf {
        self.folder().join("remote")
    }

    /// Every file of the machine and of the object store.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.folder())
    }

    /// Loses the machine, and opens the database again from the remote without reading its pages.
    pub fn reopened(&self) {
        self.place.lose_machine();
        let told = self.ask("", &["SELECT count(*) FROM sqlite_schema"]);
        told.answered(0, &serde_json::json!([[1]]));
    }
}

/// Every file of a folder.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

/// Turns one bit in the middle of each file of a folder.
pub fn damage(folder: &Path) {
    let all = files(folder);
    assert!(!all.is_empty(), "{}", folder.display());
    for (path, mut bytes) in all {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }
}
