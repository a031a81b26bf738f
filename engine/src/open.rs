//! From settings to stores: the one file that knows the brand names.
//!
//! What this room promises:
//! 1. [`Place`] finds out where a database's volume is and makes nothing: no store, no folder, no file.
//! 2. [`stores`] makes what is missing locally, and only after everything that can be refused was refused.
//! 3. Every remote is counted: what a command cost can always be said.

use crate::components::Components;
use crate::copies::{Sides, Spooling};
use crate::error::EngineError;
use crate::log::Log;
use crate::preview::Existing;
use crate::settings::{Origin, Setting, Settings};
use crate::telemetry::{CountedManifest, manifest_write_failed};
use crate::volume::{Stores, Target};
use littoral_format as format;
use littoral_local::holdings::{Held, Holdings, Limits, SaidQuota};
use littoral_local::tracker::Tracker;
use littoral_local::tracker::residency::Residency;
use littoral_local::{
    Account, FileState, Flag, Flags, Found, LocalError, LocalQuota, Paces, Spool, Store, StoreOptions, WorkerLock,
    filesystem,
};
use littoral_manifest::LmdbManifest;
use littoral_plan::{Budget, CheckpointPolicy};
use littoral_ports::{Manifest, Quota, Remote, RemoteError, Spending, Spendings, Uncounted};
use littoral_remote::{RemoteSettings, Scanned};
use littoral_types::limits::SPOOL_MS_MAX;
use littoral_types::{ObjectPath, VolumeName};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "jobs")]
use {
    littoral_jobs::RocksJobs,
    littoral_ports::{JobError, JobQueue},
    littoral_types::Job,
};

pub use littoral_format::VERSIONS;
pub use littoral_local::Binding;
pub use littoral_remote::{Counting, Op, OpTotals, Totals, directory_url};

/// Digits of the path's hash in a name that was made up from a path.
const PATH_DIGITS: usize = 8;

/// This process keeps its work as jobs, on RocksDB. Never in a program of others: RocksDB starts threads, and a forked child would wait for
/// them when it ends.
#[cfg(feature = "jobs")]
pub fn keep_jobs() {
    crate::jobs::keep(Arc::new(Rocks));
}

#[cfg(feature = "jobs")]
#[derive(Debug)]
struct Rocks;

#[cfg(feature = "jobs")]
impl crate::jobs::Shelf for Rocks {
    fn open(&self, folder: &Path) -> Result<Arc<dyn JobQueue>, JobError> {
        Ok(Arc::new(RocksJobs::open(folder)?))
    }

    fn look(&self, folder: &Path) -> Result<Vec<(Job, usize)>, JobError> {
        RocksJobs::look(folder)
    }
}

/// Who extends the log of a database's volume, or works for its store otherwise; nobody where that cannot be told.
pub fn worked_by(store_root: &Path, database: &Path) -> Option<String> {
    Store::published_by(store_root, database).or_else(|| Store::worked_by(store_root))
}

/// Who makes a checkpoint in a store just now, or works there otherwise.
pub fn at_work(store_root: &Path) -> Option<String> {
    Store::worked_by(store_root)
}

/// Where a checkpoint draws its lines, as switches stand.
pub(crate) fn policy(flags: &Flags, volume: &VolumeName, tenant: Option<&str>) -> CheckpointPolicy {
    let mut policy = CheckpointPolicy::default();
    if !flags.of_volume(Flag::EnableChunkDeltas, volume, tenant).0.is_on() {
        policy.delta_bytes_max = 0;
    }
    policy
}

/// Where a database's store is, or would be.
pub fn store_root(database: &Path, settings: &Settings) -> PathBuf {
    settings.store.as_ref().map_or_else(|| Store::default_root(database), |store| store.value.clone())
}

/// Whether a database file is one of which not everything is here.
pub fn is_sparse(place: &Place) -> bool {
    let paths = place.store_root.as_ref().zip(place.database.as_ref());
    paths.is_some_and(|(store, database)| Residency::path_of(store, database).exists())
}

/// Whether somebody on this machine has a database open through us.
pub fn is_open(place: &Place) -> Result<bool, EngineError> {
    match place.store_root.as_ref().zip(place.database.as_ref()) {
        Some((store, database)) => Ok(Tracker::is_attached(&Tracker::path_of(store, database))?),
        None => Ok(false),
    }
}

/// A log for who only reads, what reading the primary costs, and, where there are copies, what is taken from them.
pub type Readable = (Log, Arc<Counting>, Option<Arc<Sides>>);

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
        for copy in settings.copies() {
            place_of(copy)?;
        }
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

    /// The folder of its account: its store's, or, where there is no store, that in which somebody who only reads it has begun one.
    pub fn account_root(&self) -> Option<PathBuf> {
        let of_readers = || self.store_root.clone().filter(|root| Account::path_of(root).exists());
        self.store.as_ref().map(|store| store.root().to_owned()).or_else(of_readers)
    }

    /// Its account, where there is one.
    pub fn account(&self, settings: &Settings, components: &Components) -> Option<Arc<dyn Spending>> {
        Some(account(&self.account_root()?, settings, components))
    }

    /// The volume's log, and the meter of what reading it costs.
    pub fn log(&self, settings: &Settings, components: &Components) -> Result<(Log, Arc<Counting>), EngineError> {
        if self.is_unmade {
            return Err(EngineError::NoVolume(self.url()));
        }
        let remote = self.counted(remote(&self.remote, settings, components)?, settings, components);
        Ok((Log::new(remote.clone(), self.volume.value.clone()), remote))
    }

    /// The same for who only reads, and is served by a copy where the primary cannot: see [`Sides`].
    pub fn log_or_copy(&self, settings: &Settings, components: &Components) -> Result<Readable, EngineError> {
        let (log, meter) = self.log(settings, components)?;
        let copies = copies(settings, components)?;
        if copies.is_empty() {
            return Ok((log, meter, None));
        }
        let clock = components.clock.clone();
        let sides = Arc::new(Sides::new(meter.clone(), copies, self.volume.value.clone(), clock));
        Ok((Log::new(sides.clone(), self.volume.value.clone()), meter, Some(sides)))
    }

    /// The same for a cold scan: past every cache of ours, no faster than the store's pace and the tenant's, behind whoever else reads.
    pub fn log_for_scan(&self, settings: &Settings, components: &Components) -> Result<Readable, EngineError> {
        if self.is_unmade {
            return Err(EngineError::NoVolume(self.url()));
        }
        self.allows(Flag::EnableColdScan, settings)?;
        let is_kept = |root: &Path| {
            Ok::<_, EngineError>(
                Account::path_of(root).exists() || Store::open(root, StoreOptions::default())?.is_some(),
            )
        };
        let account = match (self.account_root(), &settings.store) {
            (Some(root), _) => account_or_own(&root, settings, components)?,
            // Of a volume that is no database of this store's: its pace all the same.
            (None, Some(said)) if is_kept(&said.value)? => account_or_own(&said.value, settings, components)?,
            (None, Some(said)) => {
                return Err(EngineError::Settings(format!(
                    "{}: there is no store at {} whose pace a cold scan could share: leave it out, and this process has one of its own",
                    said.origin,
                    said.value.display()
                )));
            }
            (None, None) => account_of_this_process(settings, components)?,
        };
        let opened = remote(&self.remote, settings, components)?;
        let meter = Arc::new(Counting::new(opened).of_cold_scan(account.clone()));
        let copies = copies(settings, components)?;
        let (clock, name) = (components.clock.clone(), self.volume.value.clone());
        let sides = (!copies.is_empty())
            .then(|| Arc::new(Sides::new(meter.clone(), copies, name.clone(), components.clock.clone())));
        let read: Arc<dyn Remote> = match &sides {
            Some(sides) => sides.clone(),
            None => meter.clone(),
        };
        Ok((Log::new(Arc::new(Scanned::new(read, account, clock)), name), meter, sides))
    }

    /// What opening it for writing wants to know.
    pub fn target(&self, settings: &Settings) -> Result<Target, EngineError> {
        if let Some(at) = &settings.at {
            return Err(EngineError::Settings(format!(
                "{}: {} is the past, which only reads: leave at= out to go on from the newest state (littoral rewind moves the newest state \
                 back)",
                at.origin, at.value
            )));
        }
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
        let opened = if self.is_unmade { None } else { Some(remote(&self.remote, settings, components)?) };
        let counting = opened.map(|remote| self.counted(remote, settings, components));
        let existing = Existing {
            store: self.store.clone(),
            manifest: self.manifest()?,
            remote: counting.clone().map(|remote| remote as Arc<dyn Remote>),
            url: counting.as_ref().map_or_else(|| self.remote.value.clone(), |remote| remote.url()),
        };
        Ok((existing, counting))
    }

    /// A remote that is charged to its account, where there is one.
    fn counted(&self, remote: Arc<dyn Remote>, settings: &Settings, components: &Components) -> Arc<Counting> {
        let counting = Counting::new(remote);
        Arc::new(match self.account(settings, components) {
            Some(account) => counting.charged_to(account),
            None => counting,
        })
    }

    /// Where a checkpoint of it draws its lines, as its store's switches stand.
    pub fn policy(&self, settings: &Settings) -> Result<CheckpointPolicy, EngineError> {
        let flags = self.store.as_ref().map(|store| Flags::of(store.root())).transpose()?.unwrap_or_default();
        Ok(policy(&flags, &self.volume.value, settings.tenant()))
    }

    /// Refuses what a switch of its store has switched off for it.
    pub(crate) fn allows(&self, flag: Flag, settings: &Settings) -> Result<(), EngineError> {
        let of_it = self.store.as_ref().map(Store::root);
        let Some(root) = of_it.or(settings.store.as_ref().map(|said| said.value.as_path())) else { return Ok(()) };
        match Flags::of(root)?.of_volume(flag, &self.volume.value, settings.tenant()).0.is_on() {
            true => Ok(()),
            false => Err(EngineError::SwitchedOff { flag, volume: self.url(), file: Flags::path_of(root) }),
        }
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
    let limits = limits(settings);
    match limits.store.or(limits.tenant_limit) {
        Some(_) => Arc::new(SaidQuota::new(limits)),
        None => Arc::new(LocalQuota::unlimited()),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        store: settings.quota.value,
        tenant: settings.tenant.as_ref().map(|tenant| tenant.value.clone()),
        tenant_limit: settings.tenant_limit(),
    }
}

/// What is taken of a quota by all processes of a store.
#[derive(Clone, Debug)]
pub struct QuotaUse {
    /// The bounds.
    pub limits: Limits,
    /// Bytes that all together have taken.
    pub used: u64,
    /// Those of the tenant among them.
    pub used_by_tenant: u64,
    /// Who has what.
    pub held: Vec<Held>,
}

/// Who has taken what of a store's room. `None` where there is no store.
pub fn quota_use(place: &Place, settings: &Settings) -> Result<Option<QuotaUse>, EngineError> {
    let Some(store) = &place.store else { return Ok(None) };
    let (limits, held) = (limits(settings), Holdings::of(store.root()).held()?);
    let sum = |of: &dyn Fn(&&Held) -> bool| held.iter().filter(of).map(|held| held.bytes).fold(0, u64::saturating_add);
    let used = sum(&|_| true);
    let used_by_tenant = sum(&|held| limits.tenant.as_ref() == Some(&held.tenant));
    Ok(Some(QuotaUse { limits, used, used_by_tenant, held }))
}

/// The stores of a place, made where they are missing.
pub fn stores(
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<(Stores, Arc<Counting>), EngineError> {
    let database = place.need_database()?;
    let opened = remote(&place.remote, settings, components)?;
    let root = place.store_root.clone().unwrap_or_else(|| Store::default_root(database));
    let store = Store::open_or_create(&root, &*components.entropy, StoreOptions::default())?;
    let account = account(&root, settings, components);
    let remote = Arc::new(Counting::new(opened).charged_to(account.clone()));
    let spool = Spool::of(&root, settings.room());
    let copies = copies(settings, components)?;
    let written: Arc<dyn Remote> = match copies.is_empty() {
        true => {
            spool.sweep(Duration::from_millis(SPOOL_MS_MAX));
            remote.clone()
        }
        false => Arc::new(Spooling::new(remote.clone(), spool, copies)),
    };
    if let Some(found) = &place.found
        && settings.remote.is_none()
        && has_moved_along(found, &store)
    {
        let Binding { volume, id, .. } = &found.binding;
        tracing::info!(database = %database.display(), "its folder was moved, and its remote with it: bound anew");
        store.unbind(*id)?;
        store.bind(database, volume, *id, &remote.url())?;
    }
    let manifest = LmdbManifest::open(&store.manifest_dir());
    // To open it is to write, too: its tables are made.
    let manifest = Arc::new(manifest.inspect_err(|error| manifest_write_failed(&*account, error))?);
    let manifest = Arc::new(CountedManifest { manifest, account });
    Ok((Stores { store, manifest, remote: written }, remote))
}

/// Another object store that a volume is copied to.
#[derive(Debug)]
pub struct Destination {
    /// What tells it apart from others in the store's folder.
    pub place: String,
    /// The copy.
    pub log: Log,
    /// What it costs: charged to an account of its own.
    pub meter: Arc<Counting>,
}

/// Opens a place with copies. Its requests and its pace are its own.
pub fn destination(
    url: &str,
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<Destination, EngineError> {
    let (remote, name) = (copy_at(url, settings, components)?, place_of(url)?);
    let counting = Counting::new(remote);
    let counting = Arc::new(match &place.store {
        Some(store) => counting.charged_to(copy_account(store.root(), url, settings, components)?),
        None => counting,
    });
    Ok(Destination { place: name, log: Log::new(counting.clone(), place.volume.value.clone()), meter: counting })
}

/// The account of a place with copies, of all volumes of a store.
pub fn copy_account(
    root: &Path,
    url: &str,
    settings: &Settings,
    components: &Components,
) -> Result<Arc<dyn Spending>, EngineError> {
    Ok(account(&Store::copy_account(root, &place_of(url)?), settings, components))
}

/// What tells a place with copies apart from others.
pub fn place_of(url: &str) -> Result<String, EngineError> {
    let spelled = littoral_remote::spell(url).map_err(|error| EngineError::Settings(format!("copy=: {error}")))?;
    let hash = format::hash::blob(spelled.as_bytes()).to_string();
    Ok(hash.get(..2 * PATH_DIGITS).unwrap_or_default().to_owned())
}

/// A copy's URL as it may be shown: one that cannot be read may hold a secret in the wrong place.
pub fn told_url(url: &str) -> String {
    littoral_remote::spell(url).unwrap_or_else(|_| "copy= (a URL that cannot be read)".to_owned())
}

fn copy_at(url: &str, settings: &Settings, components: &Components) -> Result<Arc<dyn Remote>, EngineError> {
    let origin = settings.copy.as_ref().map_or(Origin::Argument, |copy| copy.origin.clone());
    remote(&Setting { value: plain(url), origin }, settings, components)
}

fn copies(settings: &Settings, components: &Components) -> Result<Vec<Arc<dyn Remote>>, EngineError> {
    settings.copies().iter().map(|url| copy_at(url, settings, components)).collect()
}

/// The log of a volume of this name at another URL, as the settings reach it.
pub fn log_at(url: &str, name: &VolumeName, settings: &Settings, components: &Components) -> Result<Log, EngineError> {
    let said = Setting { value: plain(url), origin: Origin::Argument };
    Ok(Log::new(remote(&said, settings, components)?, name.clone()))
}

/// The account of a store: what its processes spend, and how fast they may work. One that cannot be kept keeps nobody from his work.
pub fn account(root: &Path, settings: &Settings, components: &Components) -> Arc<dyn Spending> {
    match kept_account(root, settings, components) {
        Ok(account) => account,
        Err(error) => {
            tracing::warn!(%error, "what is asked of the object store is not counted, and nothing keeps to a pace");
            Arc::new(Uncounted)
        }
    }
}

fn kept_account(root: &Path, settings: &Settings, components: &Components) -> Result<Arc<dyn Spending>, LocalError> {
    let clock = &components.clock;
    let account = Account::open(root, paces(settings), clock.clone())?;
    let Some((tenant, paces)) = tenant_paces(settings) else { return Ok(Arc::new(account)) };
    Ok(Arc::new(account.with_tenant(Account::open(&Account::of_tenant(root, tenant), paces, clock.clone())?)))
}

/// Begins the account of those who keep pages of a place here and have no store, as readers do: from then on they are counted together, and
/// whoever is asked here can tell. Nothing is begun where there is a store, which has one, or nothing that could be read.
pub fn begin_account(place: &Place, settings: &Settings, components: &Components) {
    if let (None, Some(root), false) = (&place.store, &place.store_root, place.is_unmade) {
        account(root, settings, components);
    }
}

/// The account of a store for who keeps a pace: where it cannot be kept, as on a medium that is only read, this process has a pace of its own.
fn account_or_own(root: &Path, settings: &Settings, components: &Components) -> Result<Arc<dyn Spending>, EngineError> {
    kept_account(root, settings, components).or_else(|error| {
        tracing::warn!(%error, "what this scan asks of the object store is not counted, and its pace is its own");
        account_of_this_process(settings, components)
    })
}

/// The same where there is no store: all of this process that have none share it.
fn account_of_this_process(settings: &Settings, components: &Components) -> Result<Arc<dyn Spending>, EngineError> {
    let clock = &components.clock;
    let account = Account::of_this_process("", paces(settings), clock.clone())?;
    let Some((tenant, paces)) = tenant_paces(settings) else { return Ok(Arc::new(account)) };
    Ok(Arc::new(account.with_tenant(Account::of_this_process(tenant, paces, clock.clone())?)))
}

fn paces(settings: &Settings) -> Paces {
    Paces {
        upload: settings.upload_rate.value.unwrap_or(0),
        io: settings.io_rate.value.unwrap_or(0),
        scan_bytes: settings.scan_rate.value.unwrap_or(0),
        scan_requests: settings.scan_requests.value.unwrap_or(0),
    }
}

/// At which pace a tenant's cold scans read, where one was said.
fn tenant_paces(settings: &Settings) -> Option<(&str, Paces)> {
    let bounds = settings.tenant_bounds();
    let is_bounded = bounds.scan_rate.is_some() || bounds.scan_requests.is_some();
    let (scan_bytes, scan_requests) = (bounds.scan_rate.unwrap_or(0), bounds.scan_requests.unwrap_or(0));
    Some((settings.tenant()?, Paces { scan_bytes, scan_requests, ..Paces::default() })).filter(|_| is_bounded)
}

/// How often commits travel where `asked_ms` was asked for, and requests are bounded.
pub fn interval_ms(asked_ms: u64, settings: &Settings, account: &dyn Spending, now_ms: u64) -> u64 {
    budget(settings, &account.this_month(), now_ms).map_or(asked_ms, |budget| budget.interval_ms(asked_ms))
}

/// What is left of a month's requests; `None` where nobody bounded them.
pub fn budget(settings: &Settings, told: &Spendings, now_ms: u64) -> Option<Budget> {
    let month = (told.month.from_ms, told.month.until_ms);
    Some(Budget::since(settings.request_budget.value?, told.spent.writes, told.since_ms, now_ms, month))
}

/// The object store at a URL, whatever volumes it has; charged to nobody.
pub fn store_at(
    url: &Setting<String>,
    settings: &Settings,
    components: &Components,
) -> Result<Arc<Counting>, EngineError> {
    Ok(Arc::new(Counting::new(remote(url, settings, components)?)))
}

/// Opens a remote.
fn remote(url: &Setting<String>, settings: &Settings, components: &Components) -> Result<Arc<dyn Remote>, EngineError> {
    let said = RemoteSettings {
        endpoint: settings.endpoint.as_ref().map(|endpoint| endpoint.value.clone()),
        region: settings.region.as_ref().map(|region| region.value.clone()),
        addressing: settings.addressing.as_ref().and_then(|addressing| addressing.value.parse().ok()),
        ..RemoteSettings::default()
    };
    littoral_remote::open(&url.value, &said, components.clock.clone(), components.entropy.clone())
        .map_err(|error| said_wrong(error, url, settings))
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
