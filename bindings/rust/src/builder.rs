//! What is said of a database before it is opened.

use crate::database::{self, Database};
use crate::error::Error;
use littoral_engine::settings::Key;
use littoral_vfs::uri;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection waits for another one's transaction, where nobody says.
const BUSY: Duration = Duration::from_secs(5);

/// Opens a database. What is not said here comes from `LITTORAL_…` variables, then from `littoral.toml` beside the database.
///
/// ```no_run
/// # async fn program() -> Result<(), littoral::Error> {
/// let conn = littoral::Builder::new("app.db")
///     .remote("s3://bucket/prefix")
///     .close_wait(std::time::Duration::from_secs(10))
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder opens nothing before it is asked to"]
pub struct Builder {
    path: PathBuf,
    said: Vec<(Key, OsString)>,
    busy: Duration,
}

impl Builder {
    /// For the database file at a path. It is made, in WAL mode, if it is not there.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), said: Vec::new(), busy: BUSY }
    }

    fn say(mut self, key: Key, value: impl Into<OsString>) -> Self {
        self.said.retain(|(known, _)| *known != key);
        self.said.push((key, value.into()));
        self
    }

    /// The object store: `s3://bucket/prefix`, `minio://host:9000/bucket`, `file:///folder`. By default `.littoral/remote` beside
    /// the database, so that everything works without an account.
    pub fn remote(self, url: impl Into<String>) -> Self {
        self.say(Key::Remote, url.into())
    }

    /// The volume's name in the object store; by default the file's name.
    pub fn volume(self, name: impl Into<String>) -> Self {
        self.say(Key::Volume, name.into())
    }

    /// The local folder for what is kept beside the database; by default `.littoral` beside it.
    pub fn store(self, folder: impl AsRef<Path>) -> Self {
        self.say(Key::Store, folder.as_ref())
    }

    /// Takes over from the writer of this epoch, whoever that is: what it committed and did not publish stays with it.
    pub fn takeover(self, epoch: u64) -> Self {
        self.say(Key::Takeover, epoch.to_string())
    }

    /// Whether an object store without conditional PUT is refused. It is, unless this says `false`: then nothing keeps two
    /// writers apart.
    pub fn fencing(self, on: bool) -> Self {
        self.say(Key::Fencing, if on { "on" } else { "off" })
    }

    /// How many local bytes may be used beside the database.
    pub fn quota(self, bytes: u64) -> Self {
        self.say(Key::Quota, bytes.to_string())
    }

    /// Whose database it is: what it takes counts against that tenant's bound too, where `littoral.toml` has one.
    pub fn tenant(self, name: &str) -> Self {
        self.say(Key::Tenant, name)
    }

    /// How young a record is safe from pruning.
    pub fn grace(self, young: Duration) -> Self {
        self.say(Key::Grace, millis(young))
    }

    /// Where an S3 service is that is not AWS's.
    pub fn endpoint(self, url: impl Into<String>) -> Self {
        self.say(Key::Endpoint, url.into())
    }

    /// The bucket's region.
    pub fn region(self, region: impl Into<String>) -> Self {
        self.say(Key::Region, region.into())
    }

    /// How the bucket is addressed: `path` or `virtual`.
    pub fn addressing(self, way: impl Into<String>) -> Self {
        self.say(Key::Addressing, way.into())
    }

    /// How pages are made smaller: `zstd`, `lz4` or `none`.
    pub fn compression(self, codec: impl Into<String>) -> Self {
        self.say(Key::Compression, codec.into())
    }

    /// For how long at most commits wait for others before they travel together; a second by default.
    pub fn sync_interval(self, interval: Duration) -> Self {
        self.say(Key::SyncInterval, millis(interval.max(Duration::from_millis(1))))
    }

    /// Commits travel only when they are asked to.
    pub fn sync_on_request(self) -> Self {
        self.say(Key::SyncInterval, "off")
    }

    /// Whether a commit returns only when the object store has it. It does not wait, unless this says `true`.
    pub fn durable_remotely(self, on: bool) -> Self {
        self.say(Key::Durability, if on { "remote" } else { "local" })
    }

    /// How long the last connection to close waits for what was committed to be published; two seconds by default, where commits
    /// travel by themselves. It waits on the thread that drops the connection.
    pub fn close_wait(self, wait: Duration) -> Self {
        self.say(Key::CloseWait, millis(wait))
    }

    /// Whether writing goes on here, unpublished, when another machine has taken the volume over. It does not, unless this says
    /// `true`.
    pub fn write_on_when_fenced(self, on: bool) -> Self {
        self.say(Key::Fenced, if on { "continue" } else { "stop" })
    }

    /// Opens a moment of the database's history, to read: a time (`2026-11-20T17:34:02Z`), how long ago (`-5m`), an LSN or a snapshot.
    pub fn at(self, moment: impl Into<String>) -> Self {
        self.say(Key::At, moment.into())
    }

    /// Which restore points a prune leaves: all for so long, then one in so long, as in `24h,1h:30d,1d:1y`.
    pub fn retention(self, spans: impl Into<String>) -> Self {
        self.say(Key::Retention, spans.into())
    }

    /// Whether connections only read, and follow what the volume's writer publishes: each read transaction sees the newest state that was
    /// known here when it began. The file at the path is a replica's then, and nobody's to write.
    pub fn follow(self, on: bool) -> Self {
        self.say(Key::Follow, if on { "on" } else { "off" })
    }

    /// How often a database that follows looks for news; once a second by default.
    pub fn poll(self, every: Duration) -> Self {
        self.say(Key::Poll, millis(every))
    }

    /// With how many bytes a second blobs are sent at most; without a bound by default.
    pub fn upload_rate(self, bytes: u64) -> Self {
        self.say(Key::UploadRate, bytes.to_string())
    }

    /// How many bytes a second a checkpoint reads and writes here at most; without a bound by default.
    pub fn io_rate(self, bytes: u64) -> Self {
        self.say(Key::IoRate, bytes.to_string())
    }

    /// Whether connections read where the volume is, past every cache, and keep nothing: for scans of much that is read once. They only read,
    /// and see the newest state that is published, or that of [`Builder::at`].
    pub fn cold(self, on: bool) -> Self {
        self.say(Key::Cold, if on { "on" } else { "off" })
    }

    /// How many bytes a second all cold scans of the store read at most; without a bound by default.
    pub fn scan_rate(self, bytes: u64) -> Self {
        self.say(Key::ScanRate, bytes.to_string())
    }

    /// How many requests a second they make at most; without a bound by default.
    pub fn scan_requests(self, a_second: u64) -> Self {
        self.say(Key::ScanRequests, a_second.to_string())
    }

    /// How many requests that write are to be enough for a month: where more were made than its even share, commits travel more rarely.
    pub fn request_budget(self, a_month: u64) -> Self {
        self.say(Key::RequestBudget, a_month.to_string())
    }

    /// After how many bytes of changed pages a checkpoint is made; because of other things alone by default.
    pub fn checkpoint_dirty(self, bytes: u64) -> Self {
        self.say(Key::CheckpointDirty, bytes.to_string())
    }

    /// What the object store asks for a million requests that write and a million that read, as in `5/0.4`: for the estimate of the bill.
    pub fn prices(self, prices: impl Into<String>) -> Self {
        self.say(Key::Prices, prices.into())
    }

    /// How often a worker prunes the volume, where a retention is set; every six hours by default. Zero: nothing is pruned unasked.
    pub fn prune_interval(self, every: Duration) -> Self {
        self.say(Key::PruneInterval, if every.is_zero() { "off".to_owned() } else { millis(every) })
    }

    /// Whether prunes delete what they name. `false` for credentials that may not.
    pub fn prune_deletes(self, on: bool) -> Self {
        self.say(Key::PruneDeletes, if on { "on" } else { "off" })
    }

    /// Bytes of the volume that a worker reads and checks a day; none by default.
    pub fn verify_daily(self, bytes: u64) -> Self {
        self.say(Key::VerifyDaily, if bytes == 0 { "off".to_owned() } else { bytes.to_string() })
    }

    /// How often a worker holds a restore drill; never by default.
    pub fn drill_interval(self, every: Duration) -> Self {
        self.say(Key::DrillInterval, if every.is_zero() { "off".to_owned() } else { millis(every) })
    }

    /// A query that every drill asks the restored database; its answer is kept.
    pub fn drill_probe(self, sql: impl Into<String>) -> Self {
        self.say(Key::DrillProbe, sql.into())
    }

    /// Another object store that holds a copy, as `s3://bucket/prefix`; several with commas between them. What is published goes there
    /// too, without anybody waiting for it, and is read from there where the first one cannot be.
    pub fn copy(self, urls: impl Into<String>) -> Self {
        self.say(Key::Copy, urls.into())
    }

    /// Where a [worker](https://github.com/littoral-db/littoral/blob/main/docs/cli.md) of this database answers those who watch it; this
    /// program opens no port.
    pub fn metrics_listen(self, address: std::net::SocketAddr) -> Self {
        self.say(Key::MetricsListen, address.to_string())
    }

    /// How long a connection waits for another one's transaction before SQLite answers that the database is locked; five
    /// seconds by default.
    pub fn busy_timeout(mut self, wait: Duration) -> Self {
        self.busy = wait;
        self
    }

    /// Opens the database, for as many connections as are wanted. A file that is not there is made, in WAL mode.
    pub async fn build(self) -> Result<Database, Error> {
        let name = self.name()?;
        Database::open(self.path, name, self.busy).await
    }

    /// Opens the database, and gives a connection to it. Others come from another `open` of the same path, or from
    /// [`Database::connect`].
    pub async fn open(self) -> Result<libsql::Connection, Error> {
        let name = self.name()?;
        database::first(self.path, name, self.busy).await
    }

    /// As SQLite takes it.
    fn name(&self) -> Result<String, Error> {
        let path = self.path.as_os_str();
        if path.is_empty() || path == ":memory:" {
            return Err(Error::Usage(format!(
                "{path:?} is no file: what lives in memory alone is not kept anywhere. Give a path, or open it with libsql itself"
            )));
        }
        uri::spell(&self.path, &self.said).ok_or_else(|| {
            Error::Usage("a path or a setting has a zero byte in it: no file name can have one".to_owned())
        })
    }
}

fn millis(time: Duration) -> String {
    match time.as_millis() {
        // Less than can be said is still not nothing.
        0 if !time.is_zero() => "1ms".to_owned(),
        0 => "0".to_owned(),
        millis => format!("{}ms", millis.min(u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_said_and_is_understood() {
        let all = |builder: Builder, key| match key {
            Key::Remote => builder.remote("s3://bucket/a b"),
            Key::Volume => builder.volume("app"),
            Key::Store => builder.store("/var/lib/x y"),
            Key::Takeover => builder.takeover(3),
            Key::Fencing => builder.fencing(false),
            Key::Quota => builder.quota(1 << 30),
            Key::Tenant => builder.tenant("acme"),
            Key::Grace => builder.grace(Duration::from_secs(3600)),
            Key::Endpoint => builder.endpoint("http://localhost:9000"),
            Key::Region => builder.region("eu-central-1"),
            Key::Addressing => builder.addressing("path"),
            Key::Compression => builder.compression("lz4"),
            Key::SyncInterval => builder.sync_interval(Duration::from_millis(200)),
            Key::Durability => builder.durable_remotely(true),
            Key::CloseWait => builder.close_wait(Duration::from_millis(1500)),
            Key::Fenced => builder.write_on_when_fenced(true),
            Key::At => builder.at("-1h30m"),
            Key::Retention => builder.retention("24h,1h:30d"),
            Key::Follow => builder.follow(true),
            Key::Poll => builder.poll(Duration::from_millis(250)),
            Key::UploadRate => builder.upload_rate(5_000_000),
            Key::IoRate => builder.io_rate(50_000_000),
            Key::RequestBudget => builder.request_budget(500_000),
            Key::CheckpointDirty => builder.checkpoint_dirty(64_000_000),
            Key::Prices => builder.prices("5/0.4"),
            Key::PruneInterval => builder.prune_interval(Duration::from_secs(3600)),
            Key::PruneDeletes => builder.prune_deletes(false),
            Key::VerifyDaily => builder.verify_daily(1 << 30),
            Key::DrillInterval => builder.drill_interval(Duration::from_secs(7 * 86_400)),
            Key::DrillProbe => builder.drill_probe("SELECT count(*) FROM t"),
            Key::Copy => builder.copy("s3://elsewhere/prefix"),
            Key::MetricsListen => builder.metrics_listen(([127, 0, 0, 1], 9464).into()),
            Key::Cold => builder.cold(true),
            Key::ScanRate => builder.scan_rate(5_000_000),
            Key::ScanRequests => builder.scan_requests(50),
        };
        let builder = Key::ALL.into_iter().fold(Builder::new("app.db"), all);
        let keys: Vec<Key> = builder.said.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, Key::ALL);
        let settings = littoral_engine::settings::Settings::of_uri(&builder.said, [], None).unwrap();
        assert_eq!(settings.close_wait(), Duration::from_millis(1500));
        assert_eq!(settings.sync_interval_ms.value, Some(200));
        assert_eq!(settings.quota.value, Some(1 << 30));
        assert!(settings.fenced.value.goes_on());
    }

    #[test]
    fn what_is_said_twice_counts_as_it_was_said_last() {
        let builder = Builder::new("app.db").volume("a").volume("b").close_wait(Duration::from_nanos(1));
        assert_eq!(builder.name().unwrap(), "file:app.db?vfs=littoral&volume=b&close_wait=1ms");
    }

    #[test]
    fn memory_is_refused_with_the_way_out() {
        for path in ["", ":memory:"] {
            let error = Builder::new(path).name().unwrap_err().to_string();
            assert!(error.contains("open it with libsql itself"), "{error}");
        }
    }
}
