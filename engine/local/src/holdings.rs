//! What all processes of a store have taken of its room, together.
//!
//! What this room promises:
//! 1. What is taken never exceeds the store's bound, its tenant's or its job's, whatever other processes do meanwhile: one lock for all of
//!    them, which dies with its owner. What could not be taken everywhere is taken nowhere, and arithmetic never wraps.
//! 2. Copies of frames that lie in the store are counted as they lie there, by whomever and whenever they were made.
//! 3. Who dies keeps what he had, until somebody has removed what he left ([`Holdings::swept`]): a restart frees nothing that is still there.
//! 4. Who is refused is told who has what.
//!
//! Each process that has taken something has a file in `quota/`, `{process}-{nth}.held`, a line for each purpose; beside it lies the lock that
//! says that it lives.

use crate::durable::{create_dirs, suffixed};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use crate::lock::WorkerLock;
use littoral_ports::{Job, Quota, QuotaExhausted, Reservation};
use littoral_types::limits::HOLDERS_TOLD_MAX;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

const FOLDER: &str = "quota";
const HELD: &str = "held";

static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Holdings>>>> = Mutex::new(None);
static NTH: AtomicU64 = AtomicU64::new(0);

/// How much may be taken by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// By all of a store; `None` for no bound.
    pub store: Option<u64>,
    /// Whose work it is.
    pub tenant: Option<String>,
    /// By all of that tenant's.
    pub tenant_limit: Option<u64>,
}

/// What somebody has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which process; `None` for one that has ended and left it on the disk.
    pub process: Option<String>,
    /// Whose work.
    pub tenant: String,
    /// For which database.
    pub job: String,
    /// For what.
    pub what: String,
    /// How much.
    pub bytes: u64,
}

/// For whom and what bytes are taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Purpose {
    tenant: String,
    job: String,
    what: String,
}

/// A store's, in this process.
#[derive(Debug)]
pub struct Holdings {
    store: PathBuf,
    mine: Mutex<Option<Mine>>,
}

/// What this process has taken.
#[derive(Debug)]
struct Mine {
    process: u32,
    path: PathBuf,
    _lives: WorkerLock,
    held: BTreeMap<Purpose, u64>,
}

impl Holdings {
    /// That of a store: all of this process share one.
    pub fn of(store: &Path) -> Arc<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(known) = open.get(store).and_then(Weak::upgrade) {
            return known;
        }
        open.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Self { store: store.to_owned(), mine: Mutex::default() });
        open.insert(store.to_owned(), Arc::downgrade(&new));
        new
    }

    fn folder(&self) -> PathBuf {
        self.store.join(FOLDER)
    }

    /// The right to count, in all processes.
    fn alone(&self) -> Result<LockFile, LocalError> {
        let folder = self.folder();
        create_dirs(&folder)?;
        let path = folder.join("lock");
        let file = LockFile::create(&path).map_err(on("open", &path))?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).map_err(on("lock", &path))?;
        Ok(file)
    }

    /// What everybody has taken.
    pub fn held(&self) -> Result<Vec<Held>, LocalError> {
        let mut all = self.copies();
        let folder = self.folder();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(all),
            Err(error) => return Err(on("list", &folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(on("list", &folder))?.path();
            if path.extension().is_none_or(|extension| extension != HELD) {
                continue;
            }
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(on("read", &path)(error)),
            };
            let process = WorkerLock::held_by(&lock_of(&path));
            all.extend(text.lines().filter_map(|line| read(line, process.as_ref())));
        }
        Ok(all)
    }

    /// Copies of frames that wait to be shipped.
    fn copies(&self) -> Vec<Held> {
        let bytes = on_disk(&self.store.join("wal"));
        let what = "copies of frames that wait to be shipped".to_owned();
        let held = Held { process: None, tenant: String::new(), job: String::new(), what, bytes };
        if bytes == 0 { Vec::new() } else { vec![held] }
    }

    fn take(&self, limits: &[Limit], purpose: &Purpose, bytes: u64) -> Result<(), TakeError> {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.alone()?;
        let all = self.held()?;
        for Limit { name, level, limit } in limits {
            let used =
                all.iter().filter(|held| level.counts(held)).map(|held| held.bytes).fold(0_u64, u64::saturating_add);
            if used.checked_add(bytes).is_none_or(|sum| sum > *limit) {
                let what = format!("{} (quota of {name})", purpose.what);
                let holders = told(&all, level);
                return Err(TakeError::Exhausted(QuotaExhausted { what, asked: bytes, used, limit: *limit, holders }));
            }
        }
        let mine = self.mine(&mut mine)?;
        let before = mine.held.get(purpose).copied();
        mine.held.insert(purpose.clone(), before.unwrap_or(0).saturating_add(bytes));
        // What could not be written down was not taken.
        mine.write().inspect_err(|_| {
            match before {
                Some(before) => mine.held.insert(purpose.clone(), before),
                None => mine.held.remove(purpose),
            };
        })?;
        Ok(())
    }

    fn mine<'a>(&self, mine: &'a mut Option<Mine>) -> Result<&'a mut Mine, LocalError> {
        let process = std::process::id();
        // A forked child has its parent's memory, and has taken nothing.
        if mine.as_ref().is_some_and(|mine| mine.process != process) {
            std::mem::forget(mine.take());
        }
        match mine {
            Some(mine) => Ok(mine),
            none => {
                // One of that name may have been a dead process's of the same number: what it held is swept, and not forgotten.
                let path = loop {
                    let nth = NTH.fetch_add(1, Ordering::SeqCst);
                    let path = self.folder().join(format!("{process}-{nth}.{HELD}"));
                    if !path.exists() {
                        break path;
                    }
                };
                let lives = WorkerLock::take(lock_of(&path))?;
                Ok(none.insert(Mine { process, path, _lives: lives, held: BTreeMap::new() }))
            }
        }
    }

    fn give_back(&self, purpose: &Purpose, bytes: u64) {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mine) = mine.as_mut().filter(|mine| mine.process == std::process::id()) else { return };
        let given = self.alone().and_then(|_alone| {
            if let Some(held) = mine.held.get_mut(purpose) {
                *held = held.saturating_sub(bytes);
            }
            mine.held.retain(|_, held| *held > 0);
            mine.write()
        });
        if let Err(error) = given {
            tracing::warn!(%error, "what was given back still counts, until this process takes or gives back more");
        }
    }

    /// What the dead left on the disk was removed: it counts no more.
    pub fn swept(&self) -> Result<(), LocalError> {
        let folder = self.folder();
        if !folder.exists() {
            return Ok(());
        }
        let _alone = self.alone()?;
        for entry in std::fs::read_dir(&folder).map_err(on("list", &folder))? {
            let path = entry.map_err(on("list", &folder))?.path();
            let is_held = path.extension().is_some_and(|extension| extension == HELD);
            if is_held && WorkerLock::held_by(&lock_of(&path)).is_none() {
                crate::durable::remove_if_there(&path)?;
                crate::durable::remove_if_there(&lock_of(&path))?;
            }
        }
        Ok(())
    }
}

impl Mine {
    /// Whole or not at all: who dies while he writes has what he had.
    fn write(&self) -> Result<(), LocalError> {
        let line =
            |(Purpose { tenant, job, what }, bytes): (&Purpose, &u64)| format!("{bytes}\t{tenant}\t{job}\t{what}\n");
        let text: String = self.held.iter().map(line).collect();
        let fresh = suffixed(&self.path, ".new");
        std::fs::write(&fresh, text).map_err(on("write", &fresh))?;
        std::fs::rename(&fresh, &self.path).map_err(on("rename", &self.path))
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        if self.process == std::process::id() && self.held.is_empty() {
            // Nobody misses them; who finds them counts nothing.
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(lock_of(&self.path));
        }
    }
}

fn lock_of(held: &Path) -> PathBuf {
    held.with_extension("lives")
}

fn read(line: &str, process: Option<&String>) -> Option<Held> {
    let mut parts = line.splitn(4, '\t');
    let bytes = parts.next()?.parse().ok()?;
    let mut next = || parts.next().map(str::to_owned);
    Some(Held { process: process.cloned(), bytes, tenant: next()?, job: next()?, what: next()? })
}

/// Bytes that a folder's files take.
fn on_disk(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => on_disk(&entry.path()),
        _ => crate::holes::bytes_on_disk(&entry.path()),
    });
    bytes.fold(0, u64::saturating_add)
}

/// Who has what, the largest first.
fn told(all: &[Held], level: &Level) -> String {
    let mut all: Vec<&Held> = all.iter().filter(|held| level.counts(held)).collect();
    all.sort_by_key(|held| std::cmp::Reverse(held.bytes));
    let rest = all.len().saturating_sub(HOLDERS_TOLD_MAX);
    let one = |held: &&Held| {
        let Held { process, tenant, job, what, bytes } = held;
        let who = process.as_deref().unwrap_or(if job.is_empty() { "the store" } else { "a process that has ended" });
        let of = if job.is_empty() { String::new() } else { format!(" of {job}") };
        let tenant = if tenant.is_empty() { String::new() } else { format!(" (tenant {tenant})") };
        format!("{who} has {bytes} for {what}{of}{tenant}")
    };
    let mut lines: Vec<String> = all.iter().take(HOLDERS_TOLD_MAX).map(one).collect();
    if rest > 0 {
        lines.push(format!("{rest} more"));
    }
    lines.join("; ")
}

/// One bound: whose, and which of what is taken counts against it.
#[derive(Clone, Debug)]
struct Limit {
    name: String,
    level: Level,
    limit: u64,
}

#[derive(Clone, Debug)]
enum Level {
    Store,
    Tenant(String),
    Job(String),
}

impl Level {
    fn counts(&self, held: &Held) -> bool {
        match self {
            Level::Store => true,
            Level::Tenant(tenant) => held.tenant == *tenant,
            Level::Job(job) => held.job == *job,
        }
    }
}

enum TakeError {
    Exhausted(QuotaExhausted),
    Local(LocalError),
}

impl From<LocalError> for TakeError {
    fn from(error: LocalError) -> Self {
        TakeError::Local(error)
    }
}

/// The bounds that were said, for whichever store.
#[derive(Clone, Debug)]
pub struct SaidQuota {
    limits: Limits,
    /// Where no store is: one process's alone.
    own: crate::LocalQuota,
}

impl SaidQuota {
    /// As they were said.
    pub fn new(limits: Limits) -> Self {
        let narrowest = [limits.store, limits.tenant_limit].into_iter().flatten().min();
        let own = narrowest.map_or_else(crate::LocalQuota::unlimited, |limit| crate::LocalQuota::new("store", limit));
        Self { limits, own }
    }
}

impl Quota for SaidQuota {
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted> {
        self.own.reserve(what, bytes)
    }

    fn used(&self) -> u64 {
        self.own.used()
    }

    fn limit(&self) -> u64 {
        self.own.limit()
    }

    fn of_store(&self, root: &Path, job: Job<'_>) -> Option<Arc<dyn Quota>> {
        let Limits { store, tenant, tenant_limit } = self.limits.clone();
        let clean = |text: String| text.replace(['\t', '\n'], " ");
        let (tenant, database) = (clean(tenant.unwrap_or_default()), clean(job.database.display().to_string()));
        let mut limits = Vec::new();
        if let Some(limit) = store {
            limits.push(Limit { name: "store".to_owned(), level: Level::Store, limit });
        }
        if let Some(limit) = tenant_limit {
            limits.push(Limit { name: format!("tenant {tenant}"), level: Level::Tenant(tenant.clone()), limit });
        }
        if limits.is_empty() {
            return None;
        }
        if let Some(limit) = job.limit {
            limits.push(Limit { name: format!("job of {database}"), level: Level::Job(database.clone()), limit });
        }
        Some(Arc::new(StoreQuota { holdings: Holdings::of(root), limits: limits.into(), tenant, job: database }))
    }
}

/// One job's room in a store.
pub struct StoreQuota {
    holdings: Arc<Holdings>,
    limits: Arc<[Limit]>,
    tenant: String,
    job: String,
}

impl fmt::Debug for StoreQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreQuota({}: {} of {})", self.job, self.used(), self.limit())
    }
}

impl Quota for StoreQuota {
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted> {
        let purpose = Purpose { tenant: self.tenant.clone(), job: self.job.clone(), what: what.to_owned() };
        match self.holdings.take(&self.limits, &purpose, bytes) {
            Ok(()) => {
                let holdings = self.holdings.clone();
                Ok(Reservation::new(bytes, Arc::new(move |bytes| holdings.give_back(&purpose, bytes))))
            }
            Err(TakeError::Exhausted(error)) => Err(error),
            // What cannot be counted cannot be bounded.
            Err(TakeError::Local(error)) => {
                let (used, limit) = (self.used(), self.limit());
                Err(QuotaExhausted { what: what.to_owned(), asked: bytes, used, limit, holders: error.to_string() })
            }
        }
    }

    fn used(&self) -> u64 {
        let held = self.holdings.held().unwrap_or_default();
        held.iter().map(|held| held.bytes).fold(0, u64::saturating_add)
    }

    fn limit(&self) -> u64 {
        self.limits.iter().map(|limit| limit.limit).min().unwrap_or(u64::MAX)
    }

    fn swept(&self) {
        if let Err(error) = self.holdings.swept() {
            tracing::warn!(%error, "what the dead had taken still counts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use std::sync::atomic::AtomicBool;

    #[derive(Debug)]
    struct Zeros;

    impl littoral_ports::Entropy for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    fn quota(root: &Path, tenant: &str, limits: (u64, u64, Option<u64>), database: &str) -> Arc<dyn Quota> {
        let (store, tenant_limit, limit) = limits;
        let said = SaidQuota::new(Limits {
            store: Some(store),
            tenant: Some(tenant.to_owned()),
            tenant_limit: Some(tenant_limit),
        });
        said.of_store(root, Job { database: Path::new(database), limit }).unwrap()
    }

    #[test]
    fn what_one_bound_refuses_is_taken_from_none_and_who_has_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let one = quota(dir.path(), "acme", (100, 60, Some(50)), "/a.db");
        let other = quota(dir.path(), "blue", (100, 60, None), "/b.db");
        let refused = one.reserve("staging", 51).unwrap_err();
        assert!(refused.what.contains("quota of job of /a.db"), "{refused}");
        let held = one.reserve("staging", 45).unwrap();
        let same = quota(dir.path(), "acme", (100, 60, None), "/c.db");
        let refused = same.reserve("staging", 16).unwrap_err();
        assert!(refused.what.contains("quota of tenant acme"), "{refused}");
        assert_eq!((refused.asked, refused.used, refused.limit), (16, 45, 60));
        let more = other.reserve("merging", 55).unwrap();
        let refused = other.reserve("merging", 1).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("quota of store") && text.contains("has 45 for staging of /a.db (tenant acme)"),
            "{text}"
        );
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert_eq!((one.used(), other.used()), (100, 100));
        drop((held, more));
        assert_eq!((one.used(), one.limit(), other.limit()), (0, 50, 60));
    }

    #[test]
    fn what_could_not_be_written_down_was_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let one = quota(dir.path(), "acme", (100, 100, None), "/a.db");
        let held = one.reserve("staging", 10).unwrap();
        let mut files =
            std::fs::read_dir(Holdings::of(dir.path()).folder()).unwrap().map(|entry| entry.unwrap().path());
        let mine = files.find(|path| path.extension().is_some_and(|end| end == HELD)).unwrap();
        // As on a full disk.
        std::fs::create_dir(suffixed(&mine, ".new")).unwrap();
        for _ in 0..3 {
            one.reserve("staging", 20).unwrap_err();
        }
        std::fs::remove_dir(suffixed(&mine, ".new")).unwrap();
        let more = one.reserve("staging", 5).unwrap();
        assert_eq!(one.used(), 15);
        drop((held, more));
        assert_eq!(one.used(), 0);
    }

    #[test]
    fn sixty_four_racing_takers_never_take_more_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let over = AtomicBool::new(false);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..64_u64 {
                let (over, taken) = (&over, &taken);
                let tenant = ["acme", "blue", "cyan"][thread as usize % 3];
                let mine = quota(dir.path(), tenant, (1000, 500, None), &format!("/{thread}.db"));
                scope.spawn(move || {
                    for step in 0..40_u64 {
                        let bytes = (step * 31 + thread * 17) % 190 + 1;
                        if let Ok(held) = mine.reserve("race", bytes) {
                            if taken.fetch_add(bytes, Ordering::SeqCst) + bytes > 1000 {
                                over.store(true, Ordering::SeqCst);
                            }
                            std::thread::yield_now();
                            taken.fetch_sub(bytes, Ordering::SeqCst);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert!(!over.load(Ordering::SeqCst), "overcommitted");
        assert_eq!(Holdings::of(dir.path()).held().unwrap(), []);
    }

    #[test]
    fn numbers_at_the_edge_never_wrap() {
        let dir = tempfile::tempdir().unwrap();
        let all = quota(dir.path(), "acme", (u64::MAX, u64::MAX, None), "/a.db");
        let held = all.reserve("x", u64::MAX - 1).unwrap();
        assert!(all.reserve("x", 2).is_err());
        let last = all.reserve("x", 1).unwrap();
        assert!(all.reserve("x", u64::MAX).is_err());
        drop((held, last));
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn what_a_process_had_that_died_counts_until_what_it_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let quota = quota(dir.path(), "acme", (100, 100, None), "/a.db");
        drop(quota.reserve("staging", 1).unwrap());
        // Of one that nobody holds the lock of any more.
        let left = dir.path().join("quota/4711-0.held");
        std::fs::write(&left, "70\tacme\t/a.db\tcheckpoint scratch\n").unwrap();
        let refused = quota.reserve("staging", 31).unwrap_err();
        assert!(refused.holders.contains("a process that has ended has 70"), "{refused}");
        let held = quota.reserve("staging", 30).unwrap();
        quota.swept();
        assert_eq!((left.exists(), quota.used()), (false, 30), "what lives stays");
        drop(held);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn copies_are_counted_as_they_lie_there_and_a_blob_that_is_staged_twice_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = crate::Store::open_or_create(&root, &Zeros, StoreOptions::default()).unwrap();
        let quota = quota(&root, "acme", (1 << 20, 1 << 20, None), "/a.db");
        std::fs::create_dir_all(root.join("wal/x")).unwrap();
        std::fs::write(root.join("wal/x/copy"), vec![1; 100_000]).unwrap();
        let copies = quota.used();
        assert!((100_000..200_000).contains(&copies), "{copies}");
        let scratch = store.scratch(quota.clone());
        let job = scratch.job(&littoral_types::VolumeId([1; 16]), littoral_types::Seq(7)).unwrap();
        let stage = || {
            let mut writer = job.begin(&[1; 32]).unwrap();
            writer.write(&[7; 50_000]).unwrap();
            writer.finish().unwrap()
        };
        let first = stage();
        drop(first);
        let again = stage();
        assert_eq!(quota.used(), copies + 50_000);
        again.remove().unwrap();
        assert_eq!(quota.used(), copies);
    }
}
