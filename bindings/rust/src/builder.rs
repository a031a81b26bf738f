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

    /// How long the last connection to close waits for a checkpoint of what changed. By default none is made. It waits on the
    /// thread that drops the connection.
    pub fn close_wait(self, wait: Duration) -> Self {
        self.say(Key::CloseWait, millis(wait))
    }

    /// Whether writing goes on here, unpublished, when another machine has taken the volume over. It does not, unless this says
    /// `true`.
    pub fn write_on_when_fenced(self, on: bool) -> Self {
        self.say(Key::Fenced, if on { "continue" } else { "stop" })
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
            Key::Grace => builder.grace(Duration::from_secs(3600)),
            Key::Endpoint => builder.endpoint("http://localhost:9000"),
            Key::Region => builder.region("eu-central-1"),
            Key::Addressing => builder.addressing("path"),
            Key::Compression => builder.compression("lz4"),
            Key::CloseWait => builder.close_wait(Duration::from_millis(1500)),
            Key::Fenced => builder.write_on_when_fenced(true),
        };
        let builder = Key::ALL.into_iter().fold(Builder::new("app.db"), all);
        let keys: Vec<Key> = builder.said.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, Key::ALL);
        let settings = littoral_engine::settings::Settings::of_uri(&builder.said, [], None).unwrap();
        assert_eq!(settings.close_wait_ms.value, 1500);
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
