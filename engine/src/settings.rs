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
use littoral_types::limits::{
    CLOSE_WAIT_MS, COPIES_MAX, POLL_MS, POLL_MS_MIN, PRUNE_GRACE_MS, PRUNE_INTERVAL_MS, SYNC_INTERVAL_MS,
};
use littoral_types::{Compression, Epoch, Moment, Retention, VolumeName};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The settings file's name, beside the database.
pub const FILE_NAME: &str = "littoral.toml";
/// Names the settings file instead of the one beside the database.
pub const CONFIG_VARIABLE: &str = "LITTORAL_CONFIG";
/// What every variable of ours begins with.
const PREFIX: &str = "LITTORAL_";
/// The token that administers `littoral serve`: a secret, and so no setting.
pub const TOKEN_VARIABLE: &str = "LITTORAL_ADMIN_TOKEN";
/// Variables of ours that are no settings: the settings file, the log filter, the token, where the scripts of this repository compile.
const OTHER_VARIABLES: [&str; 4] = [CONFIG_VARIABLE, "LITTORAL_LOG", TOKEN_VARIABLE, "LITTORAL_CACHE"];
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
    /// Whose database it is: what it takes counts against that tenant's bound too.
    Tenant,
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
    /// How long at most commits wait for others before they travel together.
    SyncInterval,
    /// When a commit counts as done.
    Durability,
    /// How long the last one to close a database waits for what it committed to be published.
    CloseWait,
    /// What writers do whose volume was taken over.
    Fenced,
    /// Which moment of its history a database is opened at.
    At,
    /// Which restore points a prune leaves.
    Retention,
    /// Whether a database that is only read follows its volume's log.
    Follow,
    /// How often it looks for news.
    Poll,
    /// How fast blobs are sent.
    UploadRate,
    /// How fast a checkpoint reads and writes here.
    IoRate,
    /// How many requests that write are to be enough for a month.
    RequestBudget,
    /// How much of a database changes before a checkpoint is made.
    CheckpointDirty,
    /// What the object store asks for.
    Prices,
    /// How often a worker prunes, where a retention is set.
    PruneInterval,
    /// Whether prunes delete, or only say what may go.
    PruneDeletes,
    /// How much of a volume a worker verifies a day.
    VerifyDaily,
    /// How often a worker holds a restore drill.
    DrillInterval,
    /// What a drill asks the restored database.
    DrillProbe,
    /// Other object stores that hold copies.
    Copy,
    /// Where a worker answers those who watch it.
    MetricsListen,
    /// Whether a database is read where it is published, past every cache, and nothing of it is kept.
    Cold,
    /// How fast cold scans read.
    ScanRate,
    /// How many requests a second they make.
    ScanRequests,
}

impl Key {
    /// All of them, as they are listed to users.
    pub const ALL: [Key; 35] = [
        Key::Remote,
        Key::Volume,
        Key::Store,
        Key::Takeover,
        Key::Fencing,
        Key::Quota,
        Key::Tenant,
        Key::Grace,
        Key::Endpoint,
        Key::Region,
        Key::Addressing,
        Key::Compression,
        Key::SyncInterval,
        Key::Durability,
        Key::CloseWait,
        Key::Fenced,
        Key::At,
        Key::Retention,
        Key::Follow,
        Key::Poll,
        Key::UploadRate,
        Key::IoRate,
        Key::RequestBudget,
        Key::CheckpointDirty,
        Key::Prices,
        Key::PruneInterval,
        Key::PruneDeletes,
        Key::VerifyDaily,
        Key::DrillInterval,
        Key::DrillProbe,
        Key::Copy,
        Key::MetricsListen,
        Key::Cold,
        Key::ScanRate,
        Key::ScanRequests,
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
            Key::Tenant => "tenant",
            Key::Grace => "grace",
            Key::Endpoint => "endpoint",
            Key::Region => "region",
            Key::Addressing => "addressing",
            Key::Compression => "compression",
            Key::SyncInterval => "sync_interval",
            Key::Durability => "durability",
            Key::CloseWait => "close_wait",
            Key::Fenced => "fenced",
            Key::At => "at",
            Key::Retention => "retention",
            Key::Follow => "follow",
            Key::Poll => "poll",
            Key::UploadRate => "upload_rate",
            Key::IoRate => "io_rate",
            Key::RequestBudget => "request_budget",
            Key::CheckpointDirty => "checkpoint_dirty",
            Key::Prices => "prices",
            Key::PruneInterval => "prune_interval",
            Key::PruneDeletes => "prune_deletes",
            Key::VerifyDaily => "verify_daily",
            Key::DrillInterval => "drill_interval",
            Key::DrillProbe => "drill_probe",
            Key::Copy => "copy",
            Key::MetricsListen => "metrics_listen",
            Key::Cold => "cold",
            Key::ScanRate => "scan_rate",
            Key::ScanRequests => "scan_requests",
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
            Key::Tenant => "a name of 1 to 64 letters, digits, '.', '_' and '-'",
            Key::Grace => "a duration such as 24h or 7d",
            Key::Endpoint => "a URL such as https://s3.example.com or http://localhost:9000",
            Key::Region => "a region such as eu-central-1",
            Key::Addressing => "path or virtual",
            Key::Compression => "zstd, lz4 or none",
            Key::SyncInterval => "a duration such as 1s or 200ms, or off: then nothing is published unasked",
            Key::Durability => "local or remote",
            Key::CloseWait => "a duration such as 5s, or 0 for no waiting at the last close",
            Key::Fenced => "stop or continue",
            Key::At => littoral_types::moment::TAKES,
            Key::Retention => "how long every restore point stays, then one in so long, as in 24h,1h:30d,1d:1y",
            Key::Follow => "on or off",
            Key::Poll => "a duration such as 1s or 250ms, of 20ms at least",
            Key::Cold => "on or off",
            Key::ScanRequests => "a number of requests a second such as 50, or none",
            Key::UploadRate | Key::IoRate | Key::ScanRate => "bytes a second such as 5MB, or none",
            Key::RequestBudget => "a number of requests a month such as 500000, or none",
            Key::CheckpointDirty => "a size such as 64MB, or none",
            Key::Prices => "two prices, of a million writes and of a million reads, as in 5/0.4",
            Key::PruneInterval => "a duration such as 6h, or off: then nothing is pruned unasked",
            Key::PruneDeletes => "on, or off for credentials that may not delete",
            Key::VerifyDaily => "a size such as 1GiB, or off",
            Key::DrillInterval => "a duration such as 7d, or off",
            Key::DrillProbe => "one SQL query, such as SELECT count(*) FROM orders",
            Key::Copy => {
                "one to eight URLs of other object stores, such as s3://other/prefix, with commas between them, or none"
            }
            Key::MetricsListen => "an address and a port such as 127.0.0.1:9464, or none",
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

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When SQLite says so: it travels within the interval.
    #[default]
    Local,
    /// When the object store has it.
    Remote,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Local => "local",
            Durability::Remote => "remote",
        })
    }
}

impl FromStr for Durability {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.trim().to_ascii_lowercase().as_str() {
            "local" => Ok(Durability::Local),
            "remote" => Ok(Durability::Remote),
            _ => Err(()),
        }
    }
}

/// What an object store asks for requests, in millionths of whatever the bill is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// For a million that write or list.
    pub writes: u64,
    /// For a million that read.
    pub reads: u64,
}

impl Prices {
    /// What these requests come to, in millionths.
    pub fn of(&self, writes: u64, reads: u64) -> u64 {
        let sum = u128::from(writes) * u128::from(self.writes) + u128::from(reads) * u128::from(self.reads);
        u64::try_from(sum / 1_000_000).unwrap_or(u64::MAX)
    }
}

impl Default for Prices {
    /// Those of Amazon's S3, in dollars.
    fn default() -> Self {
        Self { writes: 5_000_000, reads: 400_000 }
    }
}

impl fmt::Display for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Money(self.writes), Money(self.reads))
    }
}

impl FromStr for Prices {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (writes, reads) = text.split_once('/').ok_or(())?;
        Ok(Self { writes: millionths(writes)?, reads: millionths(reads)? })
    }
}

fn millionths(text: &str) -> Result<u64, ()> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 6 {
        return Err(());
    }
    let whole: u64 = whole.parse().map_err(|_| ())?;
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| ())?;
    whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(part)).ok_or(())
}

/// Millionths as people write them, no finer than to a hundredth of what they come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money(pub u64);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000, format!("{:06}", self.0 % 1_000_000));
        // What is less than a hundredth shows its first two digits.
        let digits = if whole > 0 { 2 } else { (part.len() - part.trim_start_matches('0').len() + 2).min(6) };
        let part = part.get(..digits).unwrap_or_default().trim_end_matches('0');
        if part.is_empty() { write!(f, "{whole}") } else { write!(f, "{whole}.{part}") }
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
    /// Whose database it is.
    pub tenant: Option<Setting<String>>,
    /// The bounds of each tenant that has some: `[tenants]` of the settings file.
    pub tenants: BTreeMap<String, TenantBounds>,
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
    /// Milliseconds for which commits wait for others before they travel together; `None`: nothing is published unasked.
    pub sync_interval_ms: Setting<Option<u64>>,
    /// When a commit counts as done.
    pub durability: Setting<Durability>,
    /// Milliseconds that the last close waits for what it committed to be published, where that was said.
    pub close_wait_ms: Option<Setting<u64>>,
    /// What writers do whose volume was taken over (rule P4).
    pub fenced: Setting<Fenced>,
    /// Which moment a database is opened at; `None` for the newest, which alone can be written.
    pub at: Option<Setting<Moment>>,
    /// Which restore points a prune leaves.
    pub retention: Setting<Retention>,
    /// Whether a database that is only read follows its volume's log.
    pub follow: Setting<bool>,
    /// Milliseconds from one look for news to the next.
    pub poll_ms: Setting<u64>,
    /// Bytes a second that blobs are sent with; `None` for no bound.
    pub upload_rate: Setting<Option<u64>>,
    /// Bytes a second that a checkpoint reads and writes here; `None` for no bound.
    pub io_rate: Setting<Option<u64>>,
    /// Requests that write which are to be enough for a month; `None` where nobody said so.
    pub request_budget: Setting<Option<u64>>,
    /// Bytes of changed pages after which a checkpoint is made; `None`: because of other things alone.
    pub checkpoint_dirty: Setting<Option<u64>>,
    /// What the object store asks for.
    pub prices: Setting<Prices>,
    /// Milliseconds from one prune of a worker's to the next, where a retention is set; `None`: nothing is pruned unasked.
    pub prune_interval_ms: Setting<Option<u64>>,
    /// Whether prunes delete what they name.
    pub prune_deletes: Setting<bool>,
    /// Bytes that a worker verifies a day; `None` for none.
    pub verify_daily: Setting<Option<u64>>,
    /// Milliseconds from one restore drill of a worker's to the next; `None` for none.
    pub drill_interval_ms: Setting<Option<u64>>,
    /// What a drill asks the restored database.
    pub drill_probe: Option<Setting<String>>,
    /// Other object stores that hold copies. Their syntax is checked where they are opened.
    pub copy: Option<Setting<Vec<String>>>,
    /// Where a worker answers those who watch it; `None`: nowhere.
    pub metrics_listen: Setting<Option<SocketAddr>>,
    /// Whether a database is read where it is published, past every cache, and nothing of it is kept.
    pub cold: Setting<bool>,
    /// Bytes a second that cold scans of the store read; `None` for no bound.
    pub scan_rate: Setting<Option<u64>>,
    /// Requests a second that they make; `None` for no bound.
    pub scan_requests: Setting<Option<u64>>,
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
            tenant: None,
            tenants: BTreeMap::new(),
            grace_ms: Setting::default_of(PRUNE_GRACE_MS),
            endpoint: None,
            region: None,
            addressing: None,
            compression: Setting::default_of(Compression::default()),
            sync_interval_ms: Setting::default_of(Some(SYNC_INTERVAL_MS)),
            durability: Setting::default_of(Durability::Local),
            close_wait_ms: None,
            fenced: Setting::default_of(Fenced::Stop),
            at: None,
            retention: Setting::default_of(Retention::default()),
            follow: Setting::default_of(false),
            poll_ms: Setting::default_of(POLL_MS),
            upload_rate: Setting::default_of(None),
            io_rate: Setting::default_of(None),
            request_budget: Setting::default_of(None),
            checkpoint_dirty: Setting::default_of(None),
            prices: Setting::default_of(Prices::default()),
            prune_interval_ms: Setting::default_of(Some(PRUNE_INTERVAL_MS)),
            prune_deletes: Setting::default_of(true),
            verify_daily: Setting::default_of(None),
            drill_interval_ms: Setting::default_of(None),
            drill_probe: None,
            copy: None,
            metrics_listen: Setting::default_of(None),
            cold: Setting::default_of(false),
            scan_rate: Setting::default_of(None),
            scan_requests: Setting::default_of(None),
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
            if name == TENANTS {
                self.tenants = tenants(path, value)?;
                continue;
            }
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

    /// Whose database it is, where that was said.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(|tenant| tenant.value.as_str())
    }

    /// What the tenant's databases may take together, where that was said.
    pub fn tenant_limit(&self) -> Option<u64> {
        self.tenant_bounds().quota
    }

    /// All bounds of the tenant, none where none were said.
    pub fn tenant_bounds(&self) -> TenantBounds {
        self.tenant().and_then(|tenant| self.tenants.get(tenant)).copied().unwrap_or_default()
    }

    /// The other object stores, in the order in which they are asked.
    pub fn copies(&self) -> &[String] {
        self.copy.as_ref().map_or(&[], |copy| &copy.value)
    }

    /// Local bytes that may be used, by whichever bound is the narrower.
    pub fn room(&self) -> Option<u64> {
        [self.quota.value, self.tenant_limit()].into_iter().flatten().min()
    }

    /// How long the last close waits. Where nobody said so: a moment, if commits travel by themselves; else not at all.
    pub fn close_wait(&self) -> Duration {
        let streams = self.sync_interval_ms.value.is_some();
        let default = if streams { CLOSE_WAIT_MS } else { 0 };
        Duration::from_millis(self.close_wait_ms.as_ref().map_or(default, |said| said.value))
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
            Key::Tenant => {
                let value = Some(text).filter(|text| is_tenant(text)).ok_or_else(refuse)?.to_owned();
                self.tenant = Some(Setting { value, origin });
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
            Key::SyncInterval => {
                let value =
                    if text == "off" { None } else { Some(duration_ms(text).filter(|ms| *ms > 0).ok_or_else(refuse)?) };
                self.sync_interval_ms = Setting { value, origin };
            }
            Key::Durability => {
                let value = text.parse().map_err(|()| refuse())?;
                self.durability = Setting { value, origin };
            }
            Key::CloseWait => {
                let value = duration_ms(text).ok_or_else(refuse)?;
                self.close_wait_ms = Some(Setting { value, origin });
            }
            Key::Fenced => {
                let value = match text {
                    "stop" => Fenced::Stop,
                    "continue" => Fenced::Continue,
                    _ => return Err(refuse()),
                };
                self.fenced = Setting { value, origin };
            }
            Key::At => {
                let value = text.parse().map_err(|error| wrong(format!("{origin}: {error}")))?;
                self.at = Some(Setting { value, origin });
            }
            Key::Retention => {
                let value =
                    text.parse().map_err(|why| wrong(format!("{origin}: {} is {}: {why}", key.name(), key.takes())))?;
                self.retention = Setting { value, origin };
            }
            Key::Follow => {
                let value = switch(text).ok_or_else(refuse)?;
                self.follow = Setting { value, origin };
            }
            Key::Poll => {
                let value = duration_ms(text).filter(|poll| *poll >= POLL_MS_MIN).ok_or_else(refuse)?;
                self.poll_ms = Setting { value, origin };
            }
            Key::UploadRate => {
                let value = rate(text).ok_or_else(refuse)?;
                self.upload_rate = Setting { value, origin };
            }
            Key::IoRate => {
                let value = rate(text).ok_or_else(refuse)?;
                self.io_rate = Setting { value, origin };
            }
            Key::RequestBudget => {
                let value = if text == "none" { None } else { Some(text.parse().map_err(|_| refuse())?) };
                self.request_budget = Setting { value, origin };
            }
            Key::CheckpointDirty => {
                let value = rate(text).ok_or_else(refuse)?;
                self.checkpoint_dirty = Setting { value, origin };
            }
            Key::Prices => {
                let value = text.parse().map_err(|()| refuse())?;
                self.prices = Setting { value, origin };
            }
            Key::PruneInterval => {
                let value = unless_off(text, |text| duration_ms(text).filter(|ms| *ms > 0)).ok_or_else(refuse)?;
                self.prune_interval_ms = Setting { value, origin };
            }
            Key::PruneDeletes => {
                let value = switch(text).ok_or_else(refuse)?;
                self.prune_deletes = Setting { value, origin };
            }
            Key::VerifyDaily => {
                let value = unless_off(text, |text| size(text).filter(|bytes| *bytes > 0)).ok_or_else(refuse)?;
                self.verify_daily = Setting { value, origin };
            }
            Key::DrillInterval => {
                let value = unless_off(text, |text| duration_ms(text).filter(|ms| *ms > 0)).ok_or_else(refuse)?;
                self.drill_interval_ms = Setting { value, origin };
            }
            Key::DrillProbe if text.is_empty() => return Err(refuse()),
            Key::DrillProbe => self.drill_probe = Some(Setting { value: text.to_owned(), origin }),
            Key::Copy => {
                let value = copies(text).ok_or_else(refuse)?;
                self.copy = Some(Setting { value, origin });
            }
            Key::MetricsListen => {
                let value = if text == "none" { None } else { Some(text.parse().map_err(|_| refuse())?) };
                self.metrics_listen = Setting { value, origin };
            }
            Key::Cold => {
                let value = switch(text).ok_or_else(refuse)?;
                self.cold = Setting { value, origin };
            }
            Key::ScanRate => {
                let value = rate(text).ok_or_else(refuse)?;
                self.scan_rate = Setting { value, origin };
            }
            Key::ScanRequests => {
                let value = requests(text).ok_or_else(refuse)?;
                self.scan_requests = Setting { value, origin };
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
                    Key::Tenant => told(&self.tenant),
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
                    Key::SyncInterval => {
                        let shown = |ms| format!("{:?}", Duration::from_millis(ms));
                        let value = self.sync_interval_ms.value.map_or_else(|| "off".to_owned(), shown);
                        (value, self.sync_interval_ms.origin.clone())
                    }
                    Key::Durability => (self.durability.value.to_string(), self.durability.origin.clone()),
                    Key::CloseWait => {
                        let origin = self.close_wait_ms.as_ref().map_or(Origin::Default, |said| said.origin.clone());
                        (format!("{:?}", self.close_wait()), origin)
                    }
                    Key::Fenced => (self.fenced.value.to_string(), self.fenced.origin.clone()),
                    Key::At => told(&self.at),
                    Key::Retention => (self.retention.value.to_string(), self.retention.origin.clone()),
                    Key::Follow => {
                        let on = if self.follow.value { "on" } else { "off" };
                        (on.to_owned(), self.follow.origin.clone())
                    }
                    Key::Poll => {
                        let poll = Duration::from_millis(self.poll_ms.value);
                        (format!("{poll:?}"), self.poll_ms.origin.clone())
                    }
                    Key::UploadRate => (a_second(self.upload_rate.value), self.upload_rate.origin.clone()),
                    Key::IoRate => (a_second(self.io_rate.value), self.io_rate.origin.clone()),
                    Key::RequestBudget => {
                        let none = || "none".to_owned();
                        let budget = self.request_budget.value.map_or_else(none, |budget| format!("{budget} a month"));
                        (budget, self.request_budget.origin.clone())
                    }
                    Key::CheckpointDirty => {
                        let none = || "none".to_owned();
                        let bytes = self.checkpoint_dirty.value.map_or_else(none, |bytes| format!("{bytes} bytes"));
                        (bytes, self.checkpoint_dirty.origin.clone())
                    }
                    Key::Prices => (self.prices.value.to_string(), self.prices.origin.clone()),
                    Key::PruneInterval => {
                        let value = or_off(self.prune_interval_ms.value, |ms| format!("{} s", ms / 1000));
                        (value, self.prune_interval_ms.origin.clone())
                    }
                    Key::PruneDeletes => {
                        let on = if self.prune_deletes.value { "on" } else { "off" };
                        (on.to_owned(), self.prune_deletes.origin.clone())
                    }
                    Key::VerifyDaily => {
                        let value = or_off(self.verify_daily.value, |bytes| format!("{bytes} bytes"));
                        (value, self.verify_daily.origin.clone())
                    }
                    Key::DrillInterval => {
                        let value = or_off(self.drill_interval_ms.value, |ms| format!("{} s", ms / 1000));
                        (value, self.drill_interval_ms.origin.clone())
                    }
                    Key::DrillProbe => told(&self.drill_probe),
                    Key::Copy => told(&self.copy.as_ref().map(|copy| Setting {
                        value: if copy.value.is_empty() {
                            "none".to_owned()
                        } else {
                            copy.value.iter().map(|url| crate::open::told_url(url)).collect::<Vec<_>>().join(",")
                        },
                        origin: copy.origin.clone(),
                    })),
                    Key::MetricsListen => {
                        let none = || "none".to_owned();
                        let address = self.metrics_listen.value.map_or_else(none, |address| address.to_string());
                        (address, self.metrics_listen.origin.clone())
                    }
                    Key::Cold => {
                        let on = if self.cold.value { "on" } else { "off" };
                        (on.to_owned(), self.cold.origin.clone())
                    }
                    Key::ScanRate => (a_second(self.scan_rate.value), self.scan_rate.origin.clone()),
                    Key::ScanRequests => {
                        let none = || "none".to_owned();
                        let pace = self.scan_requests.value.map_or_else(none, |count| format!("{count} a second"));
                        (pace, self.scan_requests.origin.clone())
                    }
                };
                (key, value, origin)
            })
            .collect()
    }
}

/// Where copies are, each place once.
fn copies(text: &str) -> Option<Vec<String>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let mut urls: Vec<String> = Vec::new();
    for url in text.split(',').map(|url| url.trim().trim_end_matches('/')) {
        if !url.contains("://") {
            return None;
        }
        if !urls.iter().any(|known| known == url) {
            urls.push(url.to_owned());
        }
    }
    (urls.len() <= COPIES_MAX).then_some(urls)
}

/// The table of the settings file that bounds tenants.
const TENANTS: &str = "tenants";

/// What bounds a tenant: all of its databases and logs of one store, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantBounds {
    /// Local bytes.
    pub quota: Option<u64>,
    /// Bytes a second that its cold scans read.
    pub scan_rate: Option<u64>,
    /// Requests a second that they make.
    pub scan_requests: Option<u64>,
}

fn is_tenant(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_fit)
}

fn tenants(path: &Path, value: toml::Value) -> Result<BTreeMap<String, TenantBounds>, EngineError> {
    let path = path.display();
    let toml::Value::Table(table) = value else {
        return Err(wrong(format!("{path}: {TENANTS} is a table of names and sizes, as in [{TENANTS}] acme = '2GB'")));
    };
    let bound = |(name, value): (String, toml::Value)| {
        if !is_tenant(&name) {
            return Err(wrong(format!("{path}: {TENANTS}: {name:?}: a tenant is {}", Key::Tenant.takes())));
        }
        let refuse = || {
            wrong(format!(
                "{path}: {TENANTS}: {name} is a size such as 500MB or 10GiB, or of bounds, as in {{ quota = '2GB', scan_rate = '5MB', \
                 scan_requests = 20 }}"
            ))
        };
        let bounds = tenant_bounds(&value).ok_or_else(refuse)?;
        Ok((name, bounds))
    };
    table.into_iter().map(bound).collect()
}

/// A size alone is a tenant's quota.
fn tenant_bounds(value: &toml::Value) -> Option<TenantBounds> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.trim().to_owned()),
        toml::Value::Integer(number) => Some(number.to_string()),
        _ => None,
    };
    let toml::Value::Table(table) = value else {
        return Some(TenantBounds { quota: Some(size(&text(value)?)?), ..TenantBounds::default() });
    };
    let mut bounds = TenantBounds::default();
    for (name, value) in table {
        let text = text(value)?;
        match name.as_str() {
            "quota" => bounds.quota = Some(size(&text)?),
            "scan_rate" => bounds.scan_rate = rate(&text)?,
            "scan_requests" => bounds.scan_requests = requests(&text)?,
            _ => return None,
        }
    }
    Some(bounds)
}

const CREDENTIALS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws/credentials";

fn wrong(what: String) -> EngineError {
    EngineError::Settings(what)
}

/// A value that its key does not take. Values of keys in which a secret could stand by mistake are not repeated.
fn bad(origin: &Origin, key: Key, text: Option<&str>) -> EngineError {
    let repeated = text.filter(|text| !matches!(key, Key::Remote | Key::Endpoint | Key::Copy) && text.len() <= 40);
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

/// A rate: `none` is none.
fn rate(text: &str) -> Option<Option<u64>> {
    if text == "none" { Some(None) } else { size(text).filter(|rate| *rate > 0).map(Some) }
}

/// Requests a second: `none` is none.
fn requests(text: &str) -> Option<Option<u64>> {
    if text == "none" { Some(None) } else { text.parse().ok().filter(|count| *count > 0).map(Some) }
}

fn a_second(rate: Option<u64>) -> String {
    rate.map_or_else(|| "none".to_owned(), |rate| format!("{rate} bytes a second"))
}

/// `off`, or what the rest reads: `None` where it cannot.
fn unless_off(text: &str, read: impl Fn(&str) -> Option<u64>) -> Option<Option<u64>> {
    if text == "off" { Some(None) } else { read(text).map(Some) }
}

fn or_off(value: Option<u64>, shown: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| "off".to_owned(), shown)
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
            (Some("wormhole = 'x'"), None, ["wormhole", "there are remote, volume"]),
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
            (Key::Tenant, "a/b", "1 to 64"),
            (Key::Tenant, "", "1 to 64"),
            (Key::Quota, "99999999999TB", "500MB"),
            (Key::Grace, "24", "24h"),
            (Key::Endpoint, "s3.example.com", "https://"),
            (Key::Addressing, "Path", "path or virtual"),
            (Key::Compression, "gzip", "zstd, lz4 or none"),
            (Key::CloseWait, "soon", "5s"),
            (Key::Fenced, "maybe", "stop or continue"),
            (Key::At, "last tuesday", "a time such as"),
            (Key::At, "-5", "no unit"),
            (Key::Retention, "24h,30d", "24h,1h:30d,1d:1y"),
            (Key::Follow, "maybe", "on or off"),
            (Key::Poll, "1ms", "20ms at least"),
            (Key::Poll, "often", "250ms"),
            (Key::UploadRate, "0", "5MB"),
            (Key::IoRate, "fast", "5MB"),
            (Key::Cold, "frozen", "on or off"),
            (Key::ScanRate, "0", "5MB"),
            (Key::ScanRequests, "0", "such as 50"),
            (Key::ScanRequests, "5MB", "such as 50"),
            (Key::RequestBudget, "-1", "a month"),
            (Key::CheckpointDirty, "0", "64MB"),
            (Key::CheckpointDirty, "much", "64MB"),
            (Key::Prices, "5", "5/0.4"),
            (Key::Prices, "5/0.4000001", "5/0.4"),
            (Key::Prices, "5/.4", "5/0.4"),
            (Key::MetricsListen, "9464", "127.0.0.1:9464"),
            (Key::MetricsListen, "localhost:9464", "127.0.0.1:9464"),
            (Key::Store, "", "directory"),
        ] {
            let error = gather(&[(key, value)], &[], None).unwrap_err();
            assert!(error.starts_with(&format!("--{}", key.name())) && error.contains(word), "{error}");
            // A variable that is set to nothing is none.
            if value.is_empty() {
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
    fn tenants_have_bounds_of_their_own_and_the_narrower_one_counts() {
        let file = "quota = '1GB'\ntenant = 'acme'\n[tenants]\nacme = '200MB'\nblue = 5000";
        let settings = gather(&[], &[], Some(file)).unwrap();
        assert_eq!((settings.tenant_limit(), settings.room()), (Some(200_000_000), Some(200_000_000)));
        let settings = gather(&[(Key::Tenant, "blue"), (Key::Quota, "1kB")], &[], Some(file)).unwrap();
        assert_eq!((settings.tenant_limit(), settings.room()), (Some(5000), Some(1000)));
        let settings = gather(&[(Key::Tenant, "other")], &[], Some(file)).unwrap();
        assert_eq!((settings.tenant_limit(), settings.room()), (None, Some(1_000_000_000)));
        let file = "[tenants]\nacme = { scan_rate = '5MB', scan_requests = 20 }\n[tenants.blue]\nquota = '1kB'\nscan_rate = 'none'";
        let bounds = |tenant| gather(&[(Key::Tenant, tenant)], &[], Some(file)).unwrap().tenant_bounds();
        let acme = TenantBounds { quota: None, scan_rate: Some(5_000_000), scan_requests: Some(20) };
        assert_eq!(bounds("acme"), acme);
        assert_eq!(bounds("blue"), TenantBounds { quota: Some(1000), ..TenantBounds::default() });
        assert_eq!(bounds("other"), TenantBounds::default());
        for (file, words) in [
            ("[tenants]\nacme = { scan_rat = '5MB' }", "acme is a size"),
            ("[tenants]\nacme = { scan_requests = 0 }", "acme is a size"),
            ("tenants = 5", "a table of names and sizes"),
            ("[tenants]\nacme = 'lots'", "acme is a size"),
            ("[tenants]\n'a b' = '1MB'", "1 to 64"),
            ("[tenants]\nacme = -1", "acme is a size"),
        ] {
            let error = gather(&[], &[], Some(file)).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("littoral.toml"), "{error}");
        }
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
    fn prices_read_back_as_they_print_and_money_shows_what_matters() {
        for (text, shown) in [("5/0.4", "5/0.4"), ("5.00/0.40", "5/0.4"), ("0/0", "0/0"), ("4.5/0.36", "4.5/0.36")] {
            assert_eq!(text.parse::<Prices>().unwrap().to_string(), shown);
        }
        for (millionths, shown) in
            [(0, "0"), (1, "0.000001"), (1_234, "0.0012"), (12_345, "0.012"), (1_230_000, "1.23"), (9_999_999, "9.99")]
        {
            assert_eq!(Money(millionths).to_string(), shown);
        }
        assert_eq!(Prices::default().of(2_592_000, 1_000_000), 13_360_000);
        assert_eq!(Prices { writes: u64::MAX, reads: 1 }.of(u64::MAX, 1), u64::MAX);
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
