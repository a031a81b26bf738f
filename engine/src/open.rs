//! From settings to stores: the one file that knows the brand names.
//!
//! What this room promises:
//! 1. [`Place`] finds out where a database's volume is and makes nothing: no store, no folder, no file.
//! 2. [`stores`] makes what is missing locally, and only after everything that can be refused was refused.
//! 3. Every remote is counted: what a command cost can always be said.

use crate::components::Components;
use crate::error::EngineError;
use crate::log::Log;
use crate::preview::Existing;
use crate::settings::{Origin, Setting, Settings};
use crate::volume::{Stores, Target};
use littoral_format as format;
use littoral_local::tracker::residency::Residency;
use littoral_local::{FileState, Found, LocalError, LocalQuota, Store, StoreOptions, WorkerLock, filesystem};
use littoral_manifest::LmdbManifest;
use littoral_ports::{Manifest, Quota, Remote, RemoteError};
use littoral_remote::RemoteSettings;
use littoral_types::{ObjectPath, VolumeName};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use littoral_format::VERSIONS;
pub use littoral_local::Binding;
pub use littoral_remote::{Counting, Op, OpTotals, Totals, directory_url};

/// Digits of the path's hash in a name that was made up from a path.
const PATH_DIGITS: usize = 8;

/// Where a database's store is, or would be.
pub fn store_root(database: &Path, settings: &Settings) -> PathBuf {
    settings.store.as_ref().map_or_else(|| Store::default_root(database), |store| store.value.clone())
}

/// Whether a database file is one of which not everything is here.
pub fn is_sparse(place: &Place) -> bool {
    let paths = place.store_root.as_ref().zip(place.database.as_ref());
    paths.is_some_and(|(store, database)| Residency::path_of(store, database).exists())
}

/// Where a volume is, and which database it belongs to here.
#[derive(Clone, Debug)]
pub struct Place {
    /// The database file, absolute; `None` where only a URL was given.
    pub database: Option<PathBuf>,
    /// Where its store is or would be.
    pub store_root: Option<PathBuf>,
    /// Its store, where there is one.
    pub store: Option<Store>,
    /// Its binding, where there is one.
    pub found: Option<Found>,
    /// The remote's URL, and why it is this one.
    pub remote: Setting<String>,
    /// The volume's name, and why it is this one.
    pub volume: Setting<VolumeName>,
    /// The embedded default remote that nobody has made yet.
    pub is_unmade: bool,
}

impl Place {
    /// Where a database's volume is: as the settings say, else as its store is bound, else by default.
    pub fn of_database(database: &Path, settings: &Settings) -> Result<Self, EngineError> {
        let database = absolute(database)?;
        let default_root = Store::default_root(&database);
        let store_root = store_root(&database, settings);
        let store = Store::open(&store_root, StoreOptions::default())?;
        if settings.store.is_some() && !same_folder(&store_root, &default_root) {
            refuse_second_store(&database, &default_root, &store_root)?;
        }
        let found = store.as_ref().map(|store| store.find_path(&database)).transpose()?.flatten();
        let default_url = || url_of(&Store::remote_dir_of(&store_root));
        let remote = match (&settings.remote, &found, &store) {
            (Some(remote), _, _) => Setting { value: plain(&remote.value), origin: remote.origin.clone() },
            (None, Some(found), Some(store)) if !has_moved_along(found, store) => {
                Setting { value: found.binding.remote.clone(), origin: Origin::Binding }
            }
            _ => Setting { value: default_url()?, origin: Origin::Default },
        };
        let volume = match (&settings.volume, &found) {
            (Some(volume), _) => volume.clone(),
            (None, Some(found)) => Setting { value: found.binding.volume.clone(), origin: Origin::Binding },
            (None, None) => Setting { value: made_up(&database, &remote.origin)?, origin: Origin::Default },
        };
        let is_unmade = remote.origin == Origin::Default && !Store::remote_dir_of(&store_root).exists();
        Ok(Self { database: Some(database), store_root: Some(store_root), store, found, remote, volume, is_unmade })
    }

    /// Refuses what was said and cannot be, without asking the network: a remote that is none or that holds a secret, a volume or a
    /// remote that is not the one that the database is bound to.
    pub fn refuse_impossible(&self, settings: &Settings) -> Result<(), EngineError> {
        let url =
            littoral_remote::spell(&self.remote.value).map_err(|error| said_wrong(error, &self.remote, settings))?;
        let is_said = settings.remote.is_some() || settings.volume.is_some();
        if let (Some(store), Some(database), true, None) =
            (&self.store, &self.database, is_said, settings.takeover.as_ref())
        {
            store.resolve(database, settings.volume.as_ref().map(|volume| &volume.value), &url)?;
        }
        Ok(())
    }

    /// Where a URL's volume is: the remote plus `/NAME`.
    pub fn of_url(url: &str) -> Result<Self, EngineError> {
        let wrong = |why: &str| {
            EngineError::Settings(format!(
                "a volume's URL is its remote plus /NAME, as in s3://bucket/prefix/app.db: {why}"
            ))
        };
        let trimmed = url.trim_end_matches('/');
        let (remote, name) = trimmed.rsplit_once('/').ok_or_else(|| wrong("this is none"))?;
        if remote.ends_with('/') || remote.ends_with(':') {
            return Err(wrong("there is no name in it"));
        }
        // The rest of a URL may hold a secret in the wrong place: what reads it says so, this does not repeat it.
        let volume = name.parse().map_err(|_| wrong("its last part is no name"))?;
        Ok(Self {
            database: None,
            store_root: None,
            store: None,
            found: None,
            remote: Setting { value: plain(remote), origin: Origin::Argument },
            volume: Setting { value: volume, origin: Origin::Argument },
            is_unmade: false,
        })
    }

    /// The volume's URL.
    pub fn url(&self) -> String {
        format!("{}/{}", self.remote.value, self.volume.value)
    }

    /// The volume's log, and the meter of what reading it costs.
    pub fn log(&self, settings: &Settings, components: &Components) -> Result<(Log, Arc<Counting>), EngineError> {
        if self.is_unmade {
            return Err(EngineError::NoVolume(self.url()));
        }
        let remote = remote(&self.remote, settings, components)?;
        Ok((Log::new(remote.clone(), self.volume.value.clone()), remote))
    }

    /// What opening it for writing wants to know.
    pub fn target(&self, settings: &Settings) -> Result<Target, EngineError> {
        Ok(Target {
            database: self.need_database()?.to_owned(),
            // A binding speaks for itself; a name that was made up must be said.
            volume: (self.volume.origin != Origin::Binding).then(|| self.volume.value.clone()),
            takeover: settings.takeover.as_ref().map(|takeover| takeover.value),
            fencing: settings.fencing.value,
        })
    }

    /// What there is, without making what is not.
    pub fn existing(
        &self,
        settings: &Settings,
        components: &Components,
    ) -> Result<(Existing, Option<Arc<Counting>>), EngineError> {
        let counting = if self.is_unmade { None } else { Some(remote(&self.remote, settings, components)?) };
        let existing = Existing {
            store: self.store.clone(),
            manifest: self.manifest()?,
            remote: counting.clone().map(|remote| remote as Arc<dyn Remote>),
            url: counting.as_ref().map_or_else(|| self.remote.value.clone(), |remote| remote.url()),
        };
        Ok((existing, counting))
    }

    /// The store's manifest, where there is one.
    pub fn manifest(&self) -> Result<Option<Arc<dyn Manifest>>, EngineError> {
        match self.store.as_ref().map(Store::manifest_dir).filter(|dir| dir.exists()) {
            Some(dir) => Ok(Some(Arc::new(LmdbManifest::open(&dir)?))),
            None => Ok(None),
        }
    }

    fn need_database(&self) -> Result<&Path, EngineError> {
        self.database.as_deref().ok_or_else(|| {
            EngineError::Settings(
                "this command writes a database's volume: give the database's file, not a URL".to_owned(),
            )
        })
    }
}

/// Local room as the settings bound it.
pub fn quota(settings: &Settings) -> Arc<dyn Quota> {
    match settings.quota.value {
        Some(bytes) => Arc::new(LocalQuota::new("store", bytes)),
        None => Arc::new(LocalQuota::unlimited()),
    }
}

/// The stores of a place, made where they are missing.
pub fn stores(
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<(Stores, Arc<Counting>), EngineError> {
    let database = place.need_database()?;
    let remote = remote(&place.remote, settings, components)?;
    let root = place.store_root.clone().unwrap_or_else(|| Store::default_root(database));
    let store = Store::open_or_create(&root, &*components.entropy, StoreOptions::default())?;
    if let Some(found) = &place.found
        && settings.remote.is_none()
        && has_moved_along(found, &store)
    {
        let Binding { volume, id, .. } = &found.binding;
        tracing::info!(database = %database.display(), "its folder was moved, and its remote with it: bound anew");
        store.unbind(*id)?;
        store.bind(database, volume, *id, &remote.url())?;
    }
    let manifest = Arc::new(LmdbManifest::open(&store.manifest_dir())?);
    Ok((Stores { store, manifest, remote: remote.clone() }, remote))
}

/// Opens a remote and counts what it is asked.
fn remote(url: &Setting<String>, settings: &Settings, components: &Components) -> Result<Arc<Counting>, EngineError> {
    let said = RemoteSettings {
        endpoint: settings.endpoint.as_ref().map(|endpoint| endpoint.value.clone()),
        region: settings.region.as_ref().map(|region| region.value.clone()),
        addressing: settings.addressing.as_ref().and_then(|addressing| addressing.value.parse().ok()),
        ..RemoteSettings::default()
    };
    let opened = littoral_remote::open(&url.value, &said, components.clock.clone(), components.entropy.clone());
    match opened {
        Ok(remote) => Ok(Arc::new(Counting::new(remote))),
        Err(error) => Err(said_wrong(error, url, settings)),
    }
}

/// An error about a setting is told with where that was said.
fn said_wrong(error: RemoteError, url: &Setting<String>, settings: &Settings) -> EngineError {
    let RemoteError::Settings(why) = error else { return error.into() };
    let origin = [
        ("remote URL", Some(&url.origin)),
        ("endpoint=", settings.endpoint.as_ref().map(|endpoint| &endpoint.origin)),
        ("region=", settings.region.as_ref().map(|region| &region.origin)),
    ];
    let origin = origin.into_iter().find(|(word, _)| why.starts_with(word)).and_then(|(_, origin)| origin);
    EngineError::Settings(origin.map_or(why.clone(), |origin| format!("{origin}: {why}")))
}

/// Whether a remote honours a conditional PUT: asked by writing and deleting a few objects below a volume's probe folder.
pub async fn probe(log: &Log, components: &Components) -> Result<(), EngineError> {
    let folder = probe_folder(log.name());
    Ok(littoral_remote::probe(&**log.remote(), folder.as_str(), &*components.entropy).await?)
}

/// How far the store's clock is ahead of ours, in milliseconds; `None` where the store did not say when it wrote.
pub async fn clock_skew_ms(log: &Log, components: &Components) -> Result<Option<i64>, EngineError> {
    let folder = probe_folder(log.name());
    let bits: [u8; 16] = components.bits();
    let path = ObjectPath::below(log.name(), &format!("probe/{:032x}", u128::from_le_bytes(bits)));
    let before = components.clock.wall_ms();
    log.remote().put_new(&path, bytes::Bytes::from_static(b"what time is it there?")).await?;
    let after = components.clock.wall_ms();
    let listed = log.remote().list(folder.as_str(), None, usize::MAX).await;
    log.remote().delete(std::slice::from_ref(&path)).await?;
    let written = listed?.into_iter().find(|meta| meta.path == path).map(|meta| meta.modified_ms);
    let here = before.midpoint(after);
    Ok(written.map(|there| i64::try_from(there).unwrap_or(i64::MAX) - i64::try_from(here).unwrap_or(i64::MAX)))
}

fn probe_folder(volume: &VolumeName) -> ObjectPath {
    ObjectPath::below(volume, "probe")
}

/// What a store's disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The folder that was asked: the store's, or the nearest one above it that is there.
    pub folder: PathBuf,
    /// Bytes that may still be written.
    pub free: u64,
    /// The file system it is on.
    pub kind: String,
    /// The network file system it is on, where it is on one.
    pub network: Option<String>,
}

/// Asks the disk on which a folder lies or would lie.
pub fn disk(folder: &Path) -> Result<Disk, EngineError> {
    let folder = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let network = match filesystem::require_local(&folder) {
        Ok(()) => None,
        Err(LocalError::NetworkFileSystem { kind, .. }) => Some(kind),
        Err(error) => return Err(error.into()),
    };
    Ok(Disk { free: filesystem::free_bytes(&folder)?, kind: filesystem::kind(&folder)?, folder, network })
}

/// Whether somebody works on a store right now: who, as far as is known.
pub fn worker_of(store: &Store) -> Result<Option<String>, EngineError> {
    match store.lock_worker().map(drop::<WorkerLock>) {
        Ok(()) => Ok(None),
        Err(LocalError::Busy { holder, .. }) => Ok(Some(holder)),
        Err(error) => Err(error.into()),
    }
}

/// The path without links on the way, as SQLite sees it. The file need not exist, its folder must.
fn absolute(database: &Path) -> Result<PathBuf, EngineError> {
    match database.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let whole = std::path::absolute(database).map_err(|error| LocalError::from_io("find", database, error))?;
            let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
                return Err(LocalError::Missing { path: database.to_owned(), action: "find" }.into());
            };
            let folder = folder.canonicalize().map_err(|error| LocalError::from_io("find", folder, error))?;
            Ok(folder.join(name))
        }
        Err(error) => Err(LocalError::from_io("find", database, error).into()),
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    real(a) == real(b)
}

/// A database is bound once: one that its own folder's store knows is not opened through another store.
fn refuse_second_store(database: &Path, own: &Path, said: &Path) -> Result<(), EngineError> {
    let Some(store) = Store::open(own, StoreOptions::default())? else { return Ok(()) };
    match store.find_path(database)? {
        None => Ok(()),
        Some(found) => Err(EngineError::Refused(format!(
            "{} is bound to volume {} through the store {}: it cannot be opened through {} too. Leave store= out, or end \
             that binding first (littoral release, then remove the store's directory)",
            database.display(),
            found.binding.volume,
            own.display(),
            said.display()
        ))),
    }
}

/// Whether the embedded default remote went with its database when their folder was moved.
fn has_moved_along(found: &Found, store: &Store) -> bool {
    let old = Store::remote_dir_of(&Store::default_root(&found.binding.path));
    let was_default = littoral_remote::directory_url(&old).is_some_and(|url| url == found.binding.remote);
    found.file == FileState::Moved && was_default && !old.exists() && store.remote_dir().exists()
}

/// A name for a database that nobody named: its file's name. Where the environment gives one remote to all databases, the
/// path's hash keeps two `app.db` apart.
fn made_up(database: &Path, remote: &Origin) -> Result<VolumeName, EngineError> {
    let (base, is_whole) = match crate::volume::default_name(database) {
        Ok(name) => (name.to_string(), true),
        // What a name cannot hold stands for itself as a line, and the hash tells such names apart.
        Err(_) => (spelled(database), false),
    };
    if is_whole && !matches!(remote, Origin::Environment(_)) {
        return base.parse().map_err(|error| EngineError::Settings(format!("{error}: say --volume=NAME")));
    }
    let hash = format::hash::blob(database.as_os_str().as_encoded_bytes()).to_string();
    let room = littoral_types::limits::NAME_LEN_MAX - PATH_DIGITS - 1;
    let base: String = base.chars().take(room).collect();
    let name = format!("{base}-{}", hash.get(..PATH_DIGITS).unwrap_or_default());
    name.parse()
        .map_err(|error| EngineError::Settings(format!("no name can be made of the path: {error}: say --volume=NAME")))
}

/// A file's name in letters that a volume's name may have.
fn spelled(database: &Path) -> String {
    let name = database.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect()
}

fn url_of(folder: &Path) -> Result<String, EngineError> {
    let whole = std::path::absolute(folder).map_err(|error| LocalError::from_io("find", folder, error))?;
    littoral_remote::directory_url(&whole).ok_or_else(|| {
        EngineError::Settings(format!(
            "{}: a folder whose name is not text needs a remote= of its own",
            folder.display()
        ))
    })
}

/// Without slashes at its end, except those of an empty place: what is wrong with that is said where it is read.
fn plain(url: &str) -> String {
    let plain = url.trim_end_matches('/');
    if plain.ends_with(':') { url.to_owned() } else { plain.to_owned() }
}
