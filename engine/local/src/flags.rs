//! Switches of a store that are thrown while it works, for one volume, for a tenant's or for all: `STORE/flags.toml`.
//!
//! What this room promises:
//! 1. Whoever works looks at them before each publication: nobody has to be begun anew.
//! 2. A volume's own beat its tenant's, and those beat the ones of all. What nobody has said is as it is by default.
//! 3. A file that cannot be read or understood switches nothing off by mistake and nothing on: it is an error with its line, and work waits
//!    until it is mended.

use crate::durable::replace;
use crate::error::{LocalError, on};
use littoral_types::VolumeName;
use littoral_types::limits::CHECKPOINT_INTERVAL_S;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Its name in the store.
const NAME: &str = "flags.toml";
/// The table of volumes in it.
const VOLUMES: &str = "volume";
/// The table of tenants.
const TENANTS: &str = "tenant";

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// Whether checkpoints are made.
    EnableCheckpoints,
    /// Whether changed pages may travel as deltas, instead of whole chunks.
    EnableChunkDeltas,
    /// Whether the beginning of a log may be let go of.
    EnableAppendOnlyTruncation,
    /// Whether cold scans are begun.
    EnableColdScan,
    /// After so many seconds what was shipped is folded into a checkpoint, however little it is.
    CheckpointIntervalSeconds,
}

impl Flag {
    /// All of them.
    pub const ALL: [Flag; 5] = [
        Flag::EnableCheckpoints,
        Flag::EnableChunkDeltas,
        Flag::EnableAppendOnlyTruncation,
        Flag::EnableColdScan,
        Flag::CheckpointIntervalSeconds,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Flag::EnableCheckpoints => "enable_checkpoints",
            Flag::EnableChunkDeltas => "enable_chunk_deltas",
            Flag::EnableAppendOnlyTruncation => "enable_append_only_truncation",
            Flag::EnableColdScan => "enable_cold_scan",
            Flag::CheckpointIntervalSeconds => "checkpoint_interval_seconds",
        }
    }

    /// What there is where it is on.
    pub const fn what(self) -> &'static str {
        match self {
            Flag::EnableCheckpoints => "checkpoints",
            Flag::EnableChunkDeltas => "deltas",
            Flag::EnableAppendOnlyTruncation => "truncations of logs",
            Flag::EnableColdScan => "cold scans",
            Flag::CheckpointIntervalSeconds => "checkpoints because of time",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Flag::CheckpointIntervalSeconds)
    }

    /// What it can be.
    pub const fn takes(self) -> &'static str {
        match self.is_number() {
            false => "true or false",
            true => "a number of seconds; 0 for never because of time alone",
        }
    }

    /// What it is where nobody has said so.
    pub const fn default(self) -> Switch {
        match self.is_number() {
            false => Switch::Is(true),
            true => Switch::Every(CHECKPOINT_INTERVAL_S),
        }
    }

    /// Reads what it is to be.
    pub fn read(self, text: &str) -> Option<Switch> {
        match self.is_number() {
            false => text.parse().ok().map(Switch::Is),
            true => text.parse().ok().map(Switch::Every),
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Flag {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Flag::ALL.into_iter().find(|flag| flag.name() == text).ok_or(())
    }
}

/// How a switch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On or off.
    Is(bool),
    /// Seconds.
    Every(u64),
}

impl Switch {
    /// Whether it is on.
    pub const fn is_on(self) -> bool {
        matches!(self, Switch::Is(true))
    }

    /// Milliseconds; `None` for never.
    pub const fn every_ms(self) -> Option<u64> {
        match self {
            Switch::Every(seconds @ 1..) => Some(seconds.saturating_mul(1_000)),
            Switch::Is(_) | Switch::Every(0) => None,
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Switch::Is(is) => write!(f, "{is}"),
            Switch::Every(seconds) => write!(f, "{seconds}"),
        }
    }
}

/// Whose a switch is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Of all volumes of the store.
    All,
    /// Of a tenant's.
    Tenant(String),
    /// Of one.
    Volume(VolumeName),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::All => f.write_str("all"),
            Whose::Tenant(name) => write!(f, "tenant {name}"),
            Whose::Volume(name) => write!(f, "{name}"),
        }
    }
}

/// What was said of a store's switches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    said: toml::Table,
}

impl Flags {
    /// Where a store has them.
    pub fn path_of(root: &Path) -> PathBuf {
        root.join(NAME)
    }

    /// Reads them. A store without the file has said nothing.
    pub fn of(root: &Path) -> Result<Self, LocalError> {
        let path = Self::path_of(root);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(on("read", &path)(error)),
        };
        let broken = |detail: String| LocalError::Corrupt {
            path: path.as_path().into(),
            detail: format!("{detail}; mend it, or remove it: then everything is as by default"),
        };
        let said: toml::Table = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text.get(..at).unwrap_or_default().matches('\n').count();
            broken(format!("line {line} is not TOML: {}", error.message()))
        })?;
        let flags = Self { said };
        flags.check().map_err(broken)?;
        Ok(flags)
    }

    fn check(&self) -> Result<(), String> {
        for (name, value) in &self.said {
            match value {
                toml::Value::Table(whose) if name == VOLUMES || name == TENANTS => {
                    for (one, said) in whose {
                        // Tenants are called as volumes are.
                        let _: VolumeName = one.parse().map_err(|_| format!("{one:?} is no {name}'s name"))?;
                        let said = said.as_table().ok_or_else(|| format!("[{name}.\"{one}\"] is no table"))?;
                        said.iter().try_for_each(|(name, value)| check(name, value))?;
                    }
                }
                value => check(name, value)?,
            }
        }
        Ok(())
    }

    /// How a switch stands for a volume, which may be a tenant's, and who said so; nobody, where it is as by default.
    pub fn of_volume(&self, flag: Flag, volume: &VolumeName, tenant: Option<&str>) -> (Switch, Option<Whose>) {
        let of = |table: &str, name: &str| switch(flag, self.said.get(table)?.get(name)?.get(flag.name())?);
        let own = of(VOLUMES, volume.as_str()).map(|own| (own, Whose::Volume(volume.clone())));
        let tenants = || tenant.and_then(|tenant| Some((of(TENANTS, tenant)?, Whose::Tenant(tenant.to_owned()))));
        let all = || Some((switch(flag, self.said.get(flag.name())?)?, Whose::All));
        match own.or_else(tenants).or_else(all) {
            Some((switch, whose)) => (switch, Some(whose)),
            None => (flag.default(), None),
        }
    }

    /// Throws a switch, or takes back what was said of it.
    pub fn throw(&mut self, whose: &Whose, flag: Flag, to: Option<Switch>) {
        let table = match whose {
            Whose::All => Some(&mut self.said),
            Whose::Tenant(name) => self.own(TENANTS, name),
            Whose::Volume(name) => self.own(VOLUMES, name.as_str()),
        };
        let Some(table) = table else { return };
        match to {
            Some(Switch::Is(is)) => drop(table.insert(flag.name().to_owned(), toml::Value::Boolean(is))),
            Some(Switch::Every(seconds)) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                table.insert(flag.name().to_owned(), toml::Value::Integer(seconds));
            }
            None => drop(table.remove(flag.name())),
        }
    }

    fn own(&mut self, table: &str, name: &str) -> Option<&mut toml::Table> {
        let empty = || toml::Value::Table(toml::Table::new());
        let whose = self.said.entry(table).or_insert_with(empty).as_table_mut()?;
        whose.entry(name).or_insert_with(empty).as_table_mut()
    }

    /// Keeps them, whole or not at all.
    pub fn keep(&self, root: &Path) -> Result<(), LocalError> {
        let path = Self::path_of(root);
        replace(&path, self.said.to_string().as_bytes())
    }
}

fn switch(flag: Flag, value: &toml::Value) -> Option<Switch> {
    match (flag.is_number(), value) {
        (false, toml::Value::Boolean(is)) => Some(Switch::Is(*is)),
        (true, toml::Value::Integer(seconds)) => u64::try_from(*seconds).ok().map(Switch::Every),
        _ => None,
    }
}

fn check(name: &str, value: &toml::Value) -> Result<(), String> {
    let known = || Flag::ALL.map(Flag::name).join(", ");
    let flag: Flag = name.parse().map_err(|()| format!("there is no flag {name:?}; there are {}", known()))?;
    switch(flag, value).map(drop).ok_or_else(|| format!("{name} is {}", flag.takes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_volumes_own_beat_those_of_all_and_what_is_taken_back_is_as_by_default() {
        let dir = tempfile::tempdir().unwrap();
        let (app, other) = (name("app.db"), name("other.db"));
        let flag = Flag::EnableCheckpoints;
        let mut flags = Flags::of(dir.path()).unwrap();
        let of = |flags: &Flags, flag, volume: &VolumeName| flags.of_volume(flag, volume, Some("acme"));
        assert_eq!(of(&flags, flag, &app), (Switch::Is(true), None));
        flags.throw(&Whose::All, flag, Some(Switch::Is(false)));
        flags.throw(&Whose::Volume(app.clone()), flag, Some(Switch::Is(true)));
        flags.throw(&Whose::Volume(app.clone()), Flag::CheckpointIntervalSeconds, Some(Switch::Every(0)));
        flags.keep(dir.path()).unwrap();
        let mut flags = Flags::of(dir.path()).unwrap();
        assert_eq!(of(&flags, flag, &app), (Switch::Is(true), Some(Whose::Volume(app.clone()))));
        assert_eq!(of(&flags, flag, &other), (Switch::Is(false), Some(Whose::All)));
        assert_eq!(of(&flags, Flag::CheckpointIntervalSeconds, &app).0.every_ms(), None);
        assert_eq!(of(&flags, Flag::CheckpointIntervalSeconds, &other).0.every_ms(), Some(900_000));
        // A tenant's stand in between, and are those of nobody else.
        let acme = Whose::Tenant("acme".to_owned());
        flags.throw(&acme, flag, Some(Switch::Is(true)));
        flags.throw(&acme, Flag::CheckpointIntervalSeconds, Some(Switch::Every(7)));
        flags.keep(dir.path()).unwrap();
        let mut flags = Flags::of(dir.path()).unwrap();
        assert_eq!(of(&flags, flag, &other), (Switch::Is(true), Some(acme)));
        assert_eq!(flags.of_volume(flag, &other, None), (Switch::Is(false), Some(Whose::All)));
        assert_eq!(of(&flags, Flag::CheckpointIntervalSeconds, &app).0.every_ms(), None, "its own");
        flags.throw(&Whose::All, flag, None);
        flags.keep(dir.path()).unwrap();
        assert_eq!(Flags::of(dir.path()).unwrap().of_volume(flag, &other, None), (Switch::Is(true), None));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        for (text, word) in [
            ("enable_checkpoints = 1", "true or false"),
            ("enable_checkpoint = true", "there is no flag"),
            ("checkpoint_interval_seconds = -1", "number of seconds"),
            ("\nenable_checkpoints =", "line 2"),
            ("[volume.\"a/b\"]\n", "no volume's name"),
            ("[volume.\"a\"]\nenable_it = true", "there is no flag"),
            ("volume.a = 3", "no table"),
            ("[tenant.\"a/b\"]\n", "no tenant's name"),
        ] {
            std::fs::write(Flags::path_of(dir.path()), text).unwrap();
            let error = Flags::of(dir.path()).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("mend it"), "{text}: {error}");
        }
    }
}
