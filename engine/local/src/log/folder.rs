//! A log's folder: what lies in it under which name, and what it says of itself.

use super::error::LogError;
use super::retain::Keep;
use super::void::{Void, end_behind};
use crate::durable::{create_new, remove_if_there, replace, sync_dir};
use crate::error::{LocalError, on};
use crate::lock::ChangeLock;
use littoral_types::{Lsn, Serial, Sessions, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The newest. One that keeps everything and whose end was never rolled back is of format 2, which knew nothing of that; one without voids, too, of
/// format 1.
const FORMAT: u64 = 3;
const META: &str = "log.toml";
const APPENDER: &str = "appender.lock";
const KEEPER: &str = "keeper.lock";
const CHANGE: &str = "change.lock";
const NEXT: &str = "next";
const CURSORS: &str = "cursors";
const ZONES: &str = "zones";
const SEGMENT: &str = ".seg";

/// Which log it is, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) id: VolumeId,
    pub(super) created_ms: u64,
    /// The LSN of its first record that was not truncated.
    pub(super) start: Lsn,
    /// How far each session was before that.
    pub(super) sessions: Sessions,
    /// Records that no reader is given: of transactions that never committed, or rolled back where they were sealed or had been shipped.
    pub(super) voids: Vec<Void>,
    /// The ends to which it was rolled back, the newest last: the how manieth time that was, and its last record then. Each ends behind
    /// the one before it.
    pub(super) cuts: Vec<(u64, Lsn)>,
    /// The newest of them is said, and not done in the segment yet.
    pub(super) is_cutting: bool,
    /// What it keeps.
    pub(super) keep: Keep,
}

impl Meta {
    /// Of a log that has just begun there.
    pub(super) const fn new(id: VolumeId, created_ms: u64, start: Lsn, sessions: Sessions) -> Self {
        Self {
            id,
            created_ms,
            start,
            sessions,
            voids: Vec::new(),
            cuts: Vec::new(),
            is_cutting: false,
            keep: Keep::ALL,
        }
    }

    /// How often its end was rolled back.
    pub(super) fn newest_cut(&self) -> u64 {
        self.cuts.last().map_or(0, |(nth, _)| *nth)
    }

    /// The last record that may be given out: what stands behind it is about to go.
    pub(super) fn limit(&self) -> Lsn {
        self.cuts.last().filter(|_| self.is_cutting).map_or(Lsn(u64::MAX), |(_, last)| self.stays_up_to(*last))
    }

    /// Where the log is rolled back to a record, the last one that stays in its place all the same, and is void.
    pub(super) fn stays_up_to(&self, last: Lsn) -> Lsn {
        end_behind(&self.voids, last)
    }
}

/// What a log said of itself when it was looked, to know whether it has said anything else since. Its file is never changed, only replaced; and as long
/// as this one is open, no other has its number.
#[derive(Debug)]
pub(super) struct Said {
    _file: File,
    number: (u64, u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    id: String,
    created_ms: u64,
    start: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voids: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cuts: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_cutting: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    keeps_past_cursors: bool,
    #[serde(default)]
    sessions: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn meta_path(&self) -> PathBuf {
        self.path.join(META)
    }

    pub(super) fn appender_lock(&self) -> PathBuf {
        self.path.join(APPENDER)
    }

    /// Held by who takes the appender's lock for a moment, and appends nothing.
    pub(super) fn keeper_lock(&self) -> PathBuf {
        self.path.join(KEEPER)
    }

    pub(super) fn next(&self) -> PathBuf {
        self.path.join(NEXT)
    }

    pub(super) fn segment(&self, first: Lsn) -> PathBuf {
        self.path.join(format!("{:020}{SEGMENT}", first.0))
    }

    /// What is kept of a segment's values.
    pub(super) fn zones(&self, first: Lsn) -> PathBuf {
        self.path.join(ZONES).join(format!("{:020}", first.0))
    }

    /// Up to where who is done.
    pub(super) fn cursors(&self) -> PathBuf {
        self.path.join(CURSORS)
    }

    /// Held while it is changed where the log begins, and while it is found out.
    pub(super) fn lock_change(&self) -> Result<ChangeLock, LocalError> {
        ChangeLock::take(&self.path.join(CHANGE))
    }

    /// What it says of itself. No log is there without it.
    pub(super) fn meta(&self) -> Result<Meta, LogError> {
        self.meta_said().map(|(meta, _)| meta)
    }

    /// The same, for who looks again whenever it is said anew.
    pub(super) fn meta_said(&self) -> Result<(Meta, Said), LogError> {
        let path = self.meta_path();
        let read = || -> io::Result<(String, Said)> {
            let mut file = File::open(&path)?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let meta = file.metadata()?;
            Ok((text, Said { number: (meta.dev(), meta.ino()), _file: file }))
        };
        match read() {
            Ok((text, said)) => Ok((parse(&text, &path)?, said)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(LogError::NoLog(self.path.clone()))
            }
            Err(error) => Err(on("read", &path)(error).into()),
        }
    }

    /// Whether it has said anything since. Whoever reads a log that is moved away or removed reads on in the segment that he has open.
    pub(super) fn says_more_than(&self, said: &Said) -> bool {
        fs::metadata(self.meta_path()).is_ok_and(|meta| (meta.dev(), meta.ino()) != said.number)
    }

    /// Says it for the first time. False where there is a log already.
    pub(super) fn create_meta(&self, meta: &Meta) -> Result<bool, LocalError> {
        let path = self.meta_path();
        create_new(&path, print(meta, &path)?.as_bytes())
    }

    /// Says it anew, whole.
    pub(super) fn replace_meta(&self, meta: &Meta) -> Result<(), LocalError> {
        let path = self.meta_path();
        replace(&path, print(meta, &path)?.as_bytes())
    }

    /// Its segments, by the LSN of the first record of each.
    pub(super) fn segments(&self) -> Result<Vec<(Lsn, PathBuf)>, LocalError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(on("list", &self.path))? {
            let name = entry.map_err(on("list", &self.path))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT)).filter(|number| number.len() == 20);
            if let Some(first) = number.and_then(|number| number.parse().ok()) {
                found.push((Lsn(first), self.path.join(&name)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether nothing lies there but what a log that was never finished leaves.
    pub(super) fn is_fresh(&self) -> Result<bool, LocalError> {
        let ours = |name: &str| name == CHANGE || name == NEXT || name.ends_with(".tmp") || name == self_name(Lsn(1));
        for entry in fs::read_dir(&self.path).map_err(on("list", &self.path))? {
            let name = entry.map_err(on("list", &self.path))?.file_name();
            if !name.to_str().is_some_and(ours) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), LocalError> {
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(SEGMENT));
        if let Some(first) = number.and_then(|number| number.parse().ok()) {
            remove_if_there(&self.zones(Lsn(first)))?;
        }
        remove_if_there(path)
    }

    pub(super) fn sync(&self) -> Result<(), LocalError> {
        sync_dir(&self.path)
    }
}

fn self_name(first: Lsn) -> String {
    format!("{:020}{SEGMENT}", first.0)
}

fn print(meta: &Meta, path: &Path) -> Result<String, LocalError> {
    let document = Document {
        format: match (meta.cuts.is_empty() && meta.keep == Keep::ALL, meta.voids.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, _) => FORMAT,
        },
        id: meta.id.to_string(),
        created_ms: meta.created_ms,
        start: meta.start.0,
        voids: meta.voids.iter().map(|(from, to)| (from.0, to.0)).collect(),
        cuts: meta.cuts.iter().map(|(nth, last)| (*nth, last.0)).collect(),
        is_cutting: meta.is_cutting,
        keep_ms: meta.keep.within_ms,
        keep_bytes: meta.keep.bytes,
        keeps_past_cursors: meta.keep.past_cursors,
        sessions: meta.sessions.iter().map(|(name, serial)| (name.to_string(), serial.get())).collect(),
    };
    toml::to_string(&document)
        .map_err(|error| LocalError::Misuse { path: path.into(), detail: format!("cannot be spelled: {error}") })
}

fn parse(text: &str, path: &Path) -> Result<Meta, LocalError> {
    let corrupt = |detail: String| LocalError::Corrupt { path: path.into(), detail };
    let format: Format = toml::from_str(text).map_err(|error| corrupt(error.to_string()))?;
    if format.format > FORMAT {
        return Err(LocalError::Newer { path: path.into(), what: "log", found: format.format, known: FORMAT });
    }
    let document: Document = toml::from_str(text).map_err(|error| corrupt(error.to_string()))?;
    let id = VolumeId::from_hex(&document.id).ok_or_else(|| corrupt(format!("{:?} is no id", document.id)))?;
    let session = |(name, serial): (String, u64)| {
        let named = name.parse().map_err(|error| corrupt(format!("{error}")))?;
        Ok((named, Serial::new(serial).ok_or_else(|| corrupt(format!("session {name}: {serial} is no serial")))?))
    };
    let sessions = document.sessions.into_iter().map(session).collect::<Result<_, LocalError>>()?;
    if document.start == 0 {
        return Err(corrupt("it begins at LSN 0".to_owned()));
    }
    let voids: Vec<Void> = document.voids.iter().map(|(from, to)| (Lsn(*from), Lsn(*to))).collect();
    if !voids.iter().all(|(from, to)| from <= to) || !voids.is_sorted_by(|one, other| one.1 < other.0) {
        return Err(corrupt("voids out of their order".to_owned()));
    }
    let cuts: Vec<(u64, Lsn)> = document.cuts.iter().map(|(nth, last)| (*nth, Lsn(*last))).collect();
    let ascends = cuts.is_sorted_by(|one, other| one.0 < other.0 && one.1 < other.1);
    if !ascends || (document.is_cutting && cuts.is_empty()) {
        return Err(corrupt("ends out of their order".to_owned()));
    }
    let is_cutting = document.is_cutting;
    let (within_ms, bytes) = (document.keep_ms, document.keep_bytes);
    let keep = Keep { within_ms, bytes, past_cursors: document.keeps_past_cursors };
    Ok(Meta { voids, cuts, is_cutting, keep, ..Meta::new(id, document.created_ms, Lsn(document.start), sessions) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let sessions = [("größe 3/4", 7), ("a", 1)];
        let sessions = sessions.map(|(name, serial)| (name.parse().unwrap(), Serial::new(serial).unwrap()));
        Meta::new(VolumeId([0xab; 16]), 5, Lsn(3), sessions.into())
    }

    #[test]
    fn what_a_log_says_of_itself_is_pinned() {
        let text = "format = 1\nid = \"abababababababababababababababab\"\ncreated_ms = 5\nstart = 3\n\n[sessions]\na = 1\n\"größe 3/4\" = 7\n";
        assert_eq!(print(&meta(), Path::new("x")).unwrap(), text);
        assert_eq!(parse(text, Path::new("x")).unwrap(), meta());
        let page = include_str!("../../../../docs/format.md");
        assert!(page.contains(text), "docs/format.md shows another log.toml");
        let voids = vec![(Lsn(4), Lsn(4)), (Lsn(9), Lsn(20))];
        let text =
            text.replace("format = 1", "format = 2").replace("start = 3\n", "start = 3\nvoids = [[4, 4], [9, 20]]\n");
        assert_eq!(print(&Meta { voids: voids.clone(), ..meta() }, Path::new("x")).unwrap(), text);
        assert_eq!(parse(&text, Path::new("x")).unwrap(), Meta { voids, ..meta() });
        let cut = Meta { cuts: vec![(2, Lsn(7)), (5, Lsn(30))], is_cutting: true, ..meta() };
        let text = print(&cut, Path::new("x")).unwrap();
        let said = "format = 3\n";
        let cuts = "start = 3\ncuts = [[2, 7], [5, 30]]\nis_cutting = true\n";
        assert!(text.starts_with(said) && text.contains(cuts), "{text}");
        assert_eq!(parse(&text, Path::new("x")).unwrap(), cut);
        assert_eq!(cut.limit(), Lsn(30));
        let keeps = Meta { keep: Keep { within_ms: Some(9), bytes: Some(7), past_cursors: true }, ..meta() };
        let kept = print(&keeps, Path::new("x")).unwrap();
        let lines = "start = 3\nkeep_ms = 9\nkeep_bytes = 7\nkeeps_past_cursors = true\n";
        assert!(kept.starts_with(said) && kept.contains(lines), "{kept}");
        assert_eq!(parse(&kept, Path::new("x")).unwrap(), keeps);
        for wrong in ["[[2, 7], [5, 7]]", "[[5, 7], [5, 30]]", "[]"] {
            let text = text.replace("[[2, 7], [5, 30]]", wrong);
            assert!(matches!(parse(&text, Path::new("x")), Err(LocalError::Corrupt { .. })), "{text}");
        }
    }

    #[test]
    fn a_newer_log_is_told_from_a_damaged_one() {
        assert!(matches!(
            parse("format = 4\nmore = 1\n", Path::new("x")),
            Err(LocalError::Newer { found: 4, known: 3, .. })
        ));
        let whole = print(&meta(), Path::new("x")).unwrap();
        for (from, to) in
            [("ab", "zz"), ("start = 3", "start = 0"), ("a = 1", "a = -1"), ("format = 1", ""), ("start", "begin")]
        {
            let text = whole.replacen(from, to, 1);
            assert!(matches!(parse(&text, Path::new("x")), Err(LocalError::Corrupt { .. })), "{text}");
        }
    }
}
