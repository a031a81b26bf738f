//! What a user says: the settings, where each came from, and what is wrong with them.
//!
//! What this room promises:
//! 1. One table of keys. The same key is a flag (`--remote`), a variable (`LITTORAL_REMOTE`) and a line of `littoral.toml`
//!    (`remote = "…"`); a flag beats a variable, a variable beats the file, and two files are never merged.
//! 2. A key that is not in the table is refused with the nearest one that is, wherever it stands.
//! 3. A value is parsed once, into a type that cannot be wrong; a bad one is named together with where it came from.
//! 4. Credentials are no settings: they are refused here, and what was written in their place is not repeated.
//!
//! What may never enter: I/O beyond reading the one file, brand names, what a setting does.

use crate::error::EngineError;
use littoral_types::limits::PRUNE_GRACE_MS;
use littoral_types::{Compression, Epoch, VolumeName};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The settings file's name, beside the database.
pub const FILE_NAME: &str = "littoral.toml";
/// Names the settings file instead of the one beside the database.
pub const CONFIG_VARIABLE: &str = "LITTORAL_CONFIG";
/// What every variable of ours begins with.
const PREFIX: &str = "LITTORAL_";
/// Variables of ours that are no settings: the settings file, the log filter, where the scripts of this repository compile.
const OTHER_VARIABLES: [&str; 3] = [CONFIG_VARIABLE, "LITTORAL_LOG", "LITTORAL_CACHE"];
/// Variables with which tests talk to themselves.
const TEST_PREFIX: &str = "LITTORAL_TEST_";

/// A setting's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The object store.
    Remote,
    /// The volume's name there.
    Volume,
    /// The local directory.
    Store,
    /// Whose term is ended.
    Takeover,
    /// Whether a store without conditional PUT is refused.
    Fencing,
    /// Local bytes.
    Quota,
    /// How young a record is safe from pruning.
    Grace,
    /// Where an S3 service is.
    Endpoint,
    /// The bucket's region.
    Region,
    /// How the bucket is addressed.
    Addressing,
    /// How frames are made smaller.
    Compression,
    /// How long the last one to close a database waits for a checkpoint of it.
    CloseWait,
    /// What writers do whose volume was taken over.
    Fenced,
}

impl Key {
    /// All of them, as they are listed to users.
    pub const ALL: [Key; 13] = [
        Key::Remote,
        Key::Volume,
        Key::Store,
        Key::Takeover,
        Key::Fencing,
        Key::Quota,
        Key::Grace,
        Key::Endpoint,
        Key::Region,
        Key::Addressing,
        Key::Compression,
        Key::CloseWait,
        Key::Fenced,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Key::Remote => "remote",
            Key::Volume => "volume",
            Key::Store => "store",
            Key::Takeover => "takeover",
            Key::Fencing => "fencing",
            Key::Quota => "quota",
            Key::Grace => "grace",
            Key::Endpoint => "endpoint",
            Key::Region => "region",
            Key::Addressing => "addressing",
            Key::Compression => "compression",
            Key::CloseWait => "close_wait",
            Key::Fenced => "fenced",
        }
    }

    /// What a value looks like.
    pub const fn takes(self) -> &'static str {
        match self {
            Key::Remote => "a URL such as s3://bucket/prefix or file:///folder",
            Key::Volume => "a name of 1 to 128 letters, digits, '.', '_' and '-'",
            Key::Store => "a local directory",
            Key::Takeover => "the epoch that is taken over from, as `littoral status` shows it",
            Key::Fencing => "on or off",
            Key::Quota => "a size such as 500MB or 10GiB, or none",
            Key::Grace => "a duration such as 24h or 7d",
            Key::Endpoint => "a URL such as https://s3.example.com or http://localhost:9000",
            Key::Region => "a region such as eu-central-1",
            Key::Addressing => "path or virtual",
            Key::Compression => "zstd, lz4 or none",
            Key::CloseWait => "a duration such as 5s, or 0 for no checkpoint at the last close",
            Key::Fenced => "stop or continue",
        }
    }

    /// The variable of the same meaning.
    pub fn variable(self) -> String {
        format!("{PREFIX}{}", self.name().to_uppercase())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The command line.
    Flag(Key),
    /// A database's URI, or a builder.
    Uri(Key),
    /// A URL or a name that stood in the command itself.
    Argument,
    /// A variable.
    Environment(Key),
    /// A line of the settings file.
    File(PathBuf, Key),
    /// What the database was bound to before.
    Binding,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Flag(key) => write!(f, "--{}", key.name()),
            Origin::Uri(key) => write!(f, "{}=", key.name()),
            Origin::Argument => f.write_str("the command"),
            Origin::Environment(key) => f.write_str(&key.variable()),
            Origin::File(path, key) => write!(f, "{}: {}", path.display(), key.name()),
            Origin::Binding => f.write_str("the store's binding"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub origin: Origin,
}

impl<T> Setting<T> {
    const fn default_of(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

/// What writers do whose volume another machine has taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fenced {
    /// Their database is read-only.
    #[default]
    Stop,
    /// They write on, here alone: nothing of it is published.
    Continue,
}

impl Fenced {
    /// Whether writing goes on.
    pub const fn goes_on(self) -> bool {
        matches!(self, Fenced::Continue)
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.goes_on() { "continue" } else { "stop" })
    }
}

/// Everything that was said, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The remote's URL. Its syntax is checked where it is opened, and named after its origin there.
    pub remote: Option<Setting<String>>,
    /// The volume's name.
    pub volume: Option<Setting<VolumeName>>,
    /// The store's directory.
    pub store: Option<Setting<PathBuf>>,
    /// The epoch that is taken over from.
    pub takeover: Option<Setting<Epoch>>,
    /// Whether a store that does not honour a conditional PUT is refused.
    pub fencing: Setting<bool>,
    /// Local bytes; `None` for no bound.
    pub quota: Setting<Option<u64>>,
    /// Records younger than so many milliseconds are not pruned.
    pub grace_ms: Setting<u64>,
    /// The S3 endpoint.
    pub endpoint: Option<Setting<String>>,
    /// The region.
    pub region: Option<Setting<String>>,
    /// The addressing, checked.
    pub addressing: Option<Setting<String>>,
    /// The compression.
    pub compression: Setting<Compression>,
    /// Milliseconds that the last close waits for a checkpoint; zero makes none.
    pub close_wait_ms: Setting<u64>,
    /// What writers do whose volume was taken over (rule P4).
    pub fenced: Setting<Fenced>,
    /// The settings file that was read.
    pub file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            remote: None,
            volume: None,
            store: None,
            takeover: None,
            fencing: Setting::default_of(true),
            quota: Setting::default_of(None),
            grace_ms: Setting::default_of(PRUNE_GRACE_MS),
            endpoint: None,
            region: None,
            addressing: None,
            compression: Setting::default_of(Compression::default()),
            close_wait_ms: Setting::default_of(0),
            fenced: Setting::default_of(Fenced::Stop),
            file: None,
        }
    }
}

impl Settings {
    /// Gathers what was said on the command line, in the environment and in the settings file: `LITTORAL_CONFIG`, else
    /// `littoral.toml` in the folder `beside`, where there is one.
    pub fn gather(
        flags: &[(Key, OsString)],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        beside: Option<&Path>,
    ) -> Result<Self, EngineError> {
        Self::said(flags, Origin::Flag, environment, beside)
    }

    /// Gathers what was said in a database's URI, or to a builder, in the environment and in the settings file.
    pub fn of_uri(
        said: &[(Key, OsString)],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        beside: Option<&Path>,
    ) -> Result<Self, EngineError> {
        Self::said(said, Origin::Uri, environment, beside)
    }

    fn said(
        said: &[(Key, OsString)],
        origin: fn(Key) -> Origin,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        beside: Option<&Path>,
    ) -> Result<Self, EngineError> {
        let mut variables: BTreeMap<Key, OsString> = BTreeMap::new();
        let mut config: Option<PathBuf> = None;
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if name.starts_with(TEST_PREFIX) || (name != CONFIG_VARIABLE && OTHER_VARIABLES.contains(&name)) {
                continue;
            }
            // A variable that is set to nothing is a variable that was unset in a hurry.
            let value = Some(value).filter(|value| !value.is_empty());
            if name == CONFIG_VARIABLE {
                config = value.map(PathBuf::from);
                continue;
            }
            match Key::ALL.into_iter().find(|key| key.variable() == name) {
                Some(key) => drop(value.map(|value| variables.insert(key, value))),
                None => return Err(unknown_variable(name)),
            }
        }
        let mut settings = Settings::default();
        if let Some((path, text)) = file(config, beside)? {
            settings.read(&path, &text)?;
            settings.file = Some(path);
        }
        for (key, value) in variables {
            settings.put(key, &value, Origin::Environment(key), None)?;
        }
        for (key, value) in said {
            settings.put(*key, value, origin(*key), None)?;
        }
        Ok(settings)
    }

    fn read(&mut self, path: &Path, text: &str) -> Result<(), EngineError> {
        // The parser's message would repeat the line, which may hold anything.
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| 1 + text.get(..span.start).unwrap_or_default().matches('\n').count());
            wrong(format!("{}: line {line} is not TOML: {}", path.display(), error.message()))
        })?;
        for (name, value) in table {
            let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
                return Err(unknown_key(path, &name));
            };
            let origin = Origin::File(path.to_owned(), key);
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(yes) => yes.to_string(),
                _ => return Err(bad(&origin, key, None)),
            };
            self.put(key, OsStr::new(&text), origin, path.parent())?;
        }
        Ok(())
    }

    /// Parses one value. A relative directory counts from `base`, else from where the process stands.
    fn put(&mut self, key: Key, value: &OsStr, origin: Origin, base: Option<&Path>) -> Result<(), EngineError> {
        if key == Key::Store {
            if value.is_empty() {
                return Err(bad(&origin, key, None));
            }
            let value = base.map_or_else(|| PathBuf::from(value), |base| base.join(value));
            self.store = Some(Setting { value, origin });
            return Ok(());
        }
        let Some(text) = value.to_str() else { return Err(bad(&origin, key, None)) };
        let text = text.trim();
        let refuse = || bad(&origin, key, Some(text));
        match key {
            Key::Store => {}
            Key::Remote if text.is_empty() => return Err(refuse()),
            Key::Remote => self.remote = Some(Setting { value: text.to_owned(), origin }),
            Key::Volume => {
                let value = text.parse().map_err(|_| refuse())?;
                self.volume = Some(Setting { value, origin });
            }
            Key::Takeover => {
                let value = text.parse::<u64>().ok().filter(|epoch| *epoch > 0).ok_or_else(refuse)?;
                self.takeover = Some(Setting { value: Epoch(value), origin });
            }
            Key::Fencing => {
                let value = switch(text).ok_or_else(refuse)?;
                self.fencing = Setting { value, origin };
            }
            Key::Quota => {
                let value = if text == "none" { None } else { Some(size(text).ok_or_else(refuse)?) };
                self.quota = Setting { value, origin };
            }
            Key::Grace => {
                let value = duration_ms(text).ok_or_else(refuse)?;
                self.grace_ms = Setting { value, origin };
            }
            Key::Endpoint if !text.contains("://") => return Err(refuse()),
            Key::Endpoint if text.contains('@') => {
                return Err(wrong(format!("{origin}: credentials do not belong in a URL; {CREDENTIALS}")));
            }
            Key::Endpoint => self.endpoint = Some(Setting { value: text.to_owned(), origin }),
            Key::Region if text.is_empty() => return Err(refuse()),
            Key::Region => self.region = Some(Setting { value: text.to_owned(), origin }),
            Key::Addressing if matches!(text, "path" | "virtual") => {
                self.addressing = Some(Setting { value: text.to_owned(), origin });
            }
            Key::Addressing => return Err(refuse()),
            Key::Compression => {
                let value = match text {
                    "zstd" => Compression::Zstd,
                    "lz4" => Compression::Lz4,
                    "none" => Compression::None,
                    _ => return Err(refuse()),
                };
                self.compression = Setting { value, origin };
            }
            Key::CloseWait => {
                let value = duration_ms(text).ok_or_else(refuse)?;
                self.close_wait_ms = Setting { value, origin };
            }
            Key::Fenced => {
                let value = match text {
                    "stop" => Fenced::Stop,
                    "continue" => Fenced::Continue,
                    _ => return Err(refuse()),
                };
                self.fenced = Setting { value, origin };
            }
        }
        Ok(())
    }

    /// Each setting as `doctor` shows it: what it is, and where it came from.
    pub fn shown(&self) -> Vec<(Key, String, Origin)> {
        fn told<T: ToString>(setting: &Option<Setting<T>>) -> (String, Origin) {
            match setting {
                Some(setting) => (setting.value.to_string(), setting.origin.clone()),
                None => ("not set".to_owned(), Origin::Default),
            }
        }
        Key::ALL
            .into_iter()
            .map(|key| {
                let (value, origin) = match key {
                    Key::Remote => told(&self.remote),
                    Key::Volume => told(&self.volume),
                    Key::Store => told(&self.store.as_ref().map(|store| Setting {
                        value: store.value.display().to_string(),
                        origin: store.origin.clone(),
                    })),
                    Key::Takeover => told(&self.takeover),
                    Key::Fencing => {
                        let on = if self.fencing.value { "on" } else { "off" };
                        (on.to_owned(), self.fencing.origin.clone())
                    }
                    Key::Quota => {
                        let bytes =
                            self.quota.value.map_or_else(|| "none".to_owned(), |bytes| format!("{bytes} bytes"));
                        (bytes, self.quota.origin.clone())
                    }
                    Key::Grace => (format!("{} s", self.grace_ms.value / 1000), self.grace_ms.origin.clone()),
                    Key::Endpoint => told(&self.endpoint),
                    Key::Region => told(&self.region),
                    Key::Addressing => told(&self.addressing),
                    Key::Compression => {
                        let word = match self.compression.value {
                            Compression::None => "none",
                            Compression::Lz4 => "lz4",
                            Compression::Zstd => "zstd",
                        };
                        (word.to_owned(), self.compression.origin.clone())
                    }
                    Key::CloseWait => {
                        let wait = Duration::from_millis(self.close_wait_ms.value);
                        (format!("{wait:?}"), self.close_wait_ms.origin.clone())
                    }
                    Key::Fenced => (self.fenced.value.to_string(), self.fenced.origin.clone()),
                };
                (key, value, origin)
            })
            .collect()
    }
}

const CREDENTIALS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws/credentials";

fn wrong(what: String) -> EngineError {
    EngineError::Settings(what)
}

/// A value that its key does not take. Values of keys in which a secret could stand by mistake are not repeated.
fn bad(origin: &Origin, key: Key, text: Option<&str>) -> EngineError {
    let repeated = text.filter(|text| !matches!(key, Key::Remote | Key::Endpoint) && text.len() <= 40);
    let said = repeated.map(|text| format!(", not {text:?}")).unwrap_or_default();
    wrong(format!("{origin}: {} is {}{said}", key.name(), key.takes()))
}

fn names() -> String {
    Key::ALL.map(Key::name).join(", ")
}

fn is_credential(name: &str) -> bool {
    let name = name.to_lowercase();
    ["secret", "access_key", "accesskey", "password", "token", "credential"].iter().any(|word| name.contains(word))
}

fn unknown_key(path: &Path, name: &str) -> EngineError {
    let path = path.display();
    if is_credential(name) {
        return wrong(format!("{path}: {name}: credentials never stand in a settings file; {CREDENTIALS}"));
    }
    match nearest(name, Key::ALL.iter().map(|key| key.name())) {
        Some(near) => wrong(format!("{path}: there is no setting {name:?}; did you mean {near:?}?")),
        None => wrong(format!("{path}: there is no setting {name:?}; there are {}", names())),
    }
}

fn unknown_variable(name: &str) -> EngineError {
    if is_credential(name) {
        return wrong(format!("{name} is no setting: {CREDENTIALS}"));
    }
    let known: Vec<String> =
        Key::ALL.iter().map(|key| key.variable()).chain(OTHER_VARIABLES.map(str::to_owned)).collect();
    // What all of them begin with says nothing of how near they are.
    let rest = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let rests: Vec<String> = known.iter().map(|known| rest(known)).collect();
    match nearest(&rest(name), rests.iter().map(String::as_str)) {
        Some(near) => wrong(format!("the variable {name} is no setting; did you mean {PREFIX}{near}?")),
        None => wrong(format!("the variable {name} is no setting; there are {}: unset it", known.join(", "))),
    }
}

fn file(config: Option<PathBuf>, beside: Option<&Path>) -> Result<Option<(PathBuf, String)>, EngineError> {
    let (path, asked_for) = match (config, beside) {
        (Some(path), _) => (path, true),
        (None, Some(folder)) => (folder.join(FILE_NAME), false),
        (None, None) => return Ok(None),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if !asked_for && is_absent(&error) => Ok(None),
        Err(error) => {
            let by = if asked_for { format!(" ({CONFIG_VARIABLE} names it)") } else { String::new() };
            Err(wrong(format!("{}: the settings file cannot be read{by}: {error}", path.display())))
        }
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

/// Bytes: a number, perhaps with a unit of a thousand (`kB`, `MB`, `GB`, `TB`) or of 1,024 (`KiB`, `MiB`, `GiB`, `TiB`).
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Milliseconds: a number with a unit (`ms`, `s`, `m`, `h`, `d`, `w`). A bare zero needs none.
pub fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "" if number == 0 => 1,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A duration as [`duration_ms`] reads it, for parsers that want a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milliseconds(pub u64);

impl FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration_ms(text).map(Self).ok_or_else(|| "write a duration such as 24h or 7d".to_owned())
    }
}

/// The name that was probably meant: the one that the fewest single-letter changes make of it, when they are few.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (name.len() / 3).max(1);
    known
        .into_iter()
        .map(|known| (distance(name, known), known))
        .filter(|(d, _)| *d <= far)
        .min()
        .map(|(_, known)| known)
}

/// Letters to insert, drop, replace or swap with their neighbour to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut least = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(flags: &[(Key, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
        }
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, value.into())).collect();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        Settings::gather(&flags, environment, Some(folder.path())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
        let file = Some("remote = 's3://from-file/x'\nvolume = 'file'\nquota = '1GiB'");
        let env = [("LITTORAL_REMOTE", "s3://from-env/x"), ("LITTORAL_VOLUME", "env")];
        let settings = gather(&[(Key::Remote, "s3://from-flag/x")], &env, file).unwrap();
        let remote = settings.remote.unwrap();
        assert_eq!((remote.value.as_str(), remote.origin), ("s3://from-flag/x", Origin::Flag(Key::Remote)));
        let volume = settings.volume.unwrap();
        assert_eq!((volume.value.as_str(), volume.origin), ("env", Origin::Environment(Key::Volume)));
        assert_eq!(settings.quota.value, Some(1 << 30));
        assert!(matches!(settings.quota.origin, Origin::File(_, Key::Quota)));
        assert_eq!(settings.fencing, Setting { value: true, origin: Origin::Default });
    }

    #[test]
    fn the_file_that_is_named_replaces_the_one_beside_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("other.toml");
        std::fs::write(&named, "region = 'eu-central-1'\nstore = 'here'").unwrap();
        let env = [(CONFIG_VARIABLE, named.to_str().unwrap())];
        let settings = gather(&[], &env, Some("volume = 'beside'")).unwrap();
        assert_eq!(settings.volume, None);
        assert_eq!(settings.region.unwrap().value, "eu-central-1");
        assert_eq!(settings.store.unwrap().value, folder.path().join("here"), "relative to the file");
        let error = gather(&[], &[(CONFIG_VARIABLE, "/nowhere/at/all.toml")], None).unwrap_err();
        assert!(error.contains("/nowhere/at/all.toml") && error.contains(CONFIG_VARIABLE), "{error}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one_wherever_it_stands() {
        for (file, env, words) in [
            (Some("remot = 'x'"), None, ["remot", "did you mean \"remote\""]),
            (Some("volmue = 'x'"), None, ["volmue", "did you mean \"volume\""]),
            (Some("durability = 'x'"), None, ["durability", "there are remote, volume"]),
            (None, Some(("LITTORAL_REMOT", "x")), ["LITTORAL_REMOT", "did you mean LITTORAL_REMOTE"]),
            (None, Some(("LITTORAL_CONFGI", "x")), ["LITTORAL_CONFGI", "did you mean LITTORAL_CONFIG"]),
            (None, Some(("LITTORAL_XYZ", "x")), ["LITTORAL_XYZ", "unset it"]),
        ] {
            let error = gather(&[], &env.into_iter().collect::<Vec<_>>(), file).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_where_it_came_from_and_what_would_be_right() {
        for (key, value, word) in [
            (Key::Volume, "a/b", "1 to 128"),
            (Key::Takeover, "0", "littoral status"),
            (Key::Takeover, "-1", "littoral status"),
            (Key::Fencing, "maybe", "on or off"),
            (Key::Quota, "lots", "500MB"),
            (Key::Quota, "99999999999TB", "500MB"),
            (Key::Grace, "24", "24h"),
            (Key::Endpoint, "s3.example.com", "https://"),
            (Key::Addressing, "Path", "path or virtual"),
            (Key::Compression, "gzip", "zstd, lz4 or none"),
            (Key::CloseWait, "soon", "5s"),
            (Key::Fenced, "maybe", "stop or continue"),
            (Key::Store, "", "directory"),
        ] {
            let error = gather(&[(key, value)], &[], None).unwrap_err();
            assert!(error.starts_with(&format!("--{}", key.name())) && error.contains(word), "{error}");
            if key == Key::Store {
                continue;
            }
            let error = gather(&[], &[(&key.variable(), value)], None).unwrap_err();
            assert!(error.starts_with(&key.variable()) && error.contains(word), "{error}");
            let error = gather(&[], &[], Some(&format!("{} = '{value}'", key.name()))).unwrap_err();
            assert!(error.contains("littoral.toml") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn credentials_are_refused_everywhere_and_never_repeated() {
        for (file, env) in [
            (Some("secret_access_key = 'HUSHHUSH'"), None),
            (Some("aws_access_key_id = 'HUSHHUSH'"), None),
            (Some("endpoint = 'https://me:HUSHHUSH@host'"), None),
            (Some("remote = HUSHHUSH"), None),
            (None, Some(("LITTORAL_SECRET_ACCESS_KEY", "HUSHHUSH"))),
            (None, Some(("LITTORAL_ENDPOINT", "HUSHHUSH"))),
        ] {
            let error = gather(&[], &env.into_iter().collect::<Vec<_>>(), file).unwrap_err();
            assert!(!error.contains("HUSHHUSH"), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_not_toml_is_named_by_its_number() {
        let error = gather(&[], &[], Some("volume = 'x'\nquota 5\n")).unwrap_err();
        assert!(error.contains("littoral.toml: line 2"), "{error}");
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(
            [size("0"), size("5kB"), size("2GiB"), size("1 MB")],
            [Some(0), Some(5000), Some(2 << 30), Some(1_000_000)]
        );
        assert_eq!([size(""), size("-1"), size("1XB"), size("1.5GB")], [None; 4]);
        assert_eq!(
            [duration_ms("0"), duration_ms("90m"), duration_ms("30d")],
            [Some(0), Some(5_400_000), Some(2_592_000_000)]
        );
        assert_eq!([duration_ms("5"), duration_ms("h"), duration_ms("1y")], [None; 3]);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["remote", "region", "volume"];
        assert_eq!(nearest("remtoe", known), Some("remote"));
        assert_eq!(nearest("regoin", known), Some("region"));
        assert_eq!(nearest("Volume", known), Some("volume"));
        assert_eq!(nearest("durability", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
