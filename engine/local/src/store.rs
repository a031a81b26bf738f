//! A store: a local directory with what one or many databases need beside them.
//!
//! `store.toml` (the binding), `manifest/`, `checkpoint_scratch/{job}/`, `worker.lock`, `tracker/` (of each database: what is known of it,
//! and the locks of who ships and who publishes), `upkeep/` (what was pruned, verified and proved, of each volume), `remote/` (the default
//! remote), `jobs/` (the queue), `job_marks/` (who is at which job, and which are to stop),
//! `lease_marks/` (who lives of those who hold leases).

use crate::binding::{Binding, Bindings};
use crate::copies::CopyFile;
use crate::durable::{create_dirs, create_new, parent, remove_if_there, replace};
use crate::error::{LocalError, on};
use crate::filesystem::{FileId, file_id, require_local};
use crate::lock::{ChangeLock, WorkerLock};
use crate::scratch::Scratch;
use crate::tracker::Tracker;
use crate::upkeep::UpkeepFile;
use littoral_ports::{Entropy, Quota};
use littoral_types::{JobId, StoreId, VolumeId, VolumeName};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of a store's directory where none is given.
pub const DEFAULT_NAME: &str = ".littoral";
/// In it, logs that are tables of the databases beside it.
const LOGS: &str = "logs";

const BINDING: &str = "store.toml";
const BINDING_LOCK: &str = "store.lock";
const MANIFEST: &str = "manifest";
const SCRATCH: &str = "checkpoint_scratch";
const WORKER_LOCK: &str = "worker.lock";
const REMOTE: &str = "remote";
const JOBS: &str = "jobs";
const JOBS_ASIDE: &str = "jobs.damaged";
const JOB_MARKS: &str = "job_marks";
const LEASE_MARKS: &str = "lease_marks";
/// How far copies have come.
const COPIES: &str = "copies";
const UPKEEP: &str = "upkeep";

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// The user said by name that the store may lie on a network file system.
    pub allow_network: bool,
}

/// A store's directory, and what it says it is.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    id: StoreId,
}

/// What lies at a bound database's path now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// The file that was bound.
    Same,
    /// Another file, put there by someone (a restore, a copy): its content must be looked at as a foreign writer's.
    Replaced,
    /// The file that was bound, under another name now.
    Moved,
    /// No file.
    Gone,
}

/// A binding, and what became of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As it is written.
    pub binding: Binding,
    /// As it is.
    pub file: FileState,
}

impl Store {
    /// The store that a database has where none is given: `.littoral/` beside it. A log that is a table lies in that of its database.
    pub fn default_root(database: &Path) -> PathBuf {
        let is_of_logs = |dir: &&Path| dir.ends_with(Path::new(DEFAULT_NAME).join(LOGS));
        match database.ancestors().skip(1).find(is_of_logs) {
            Some(logs) => parent(logs).to_owned(),
            None => parent(database).join(DEFAULT_NAME),
        }
    }

    /// Opens the store in this directory. `None` where there is none; nothing is made.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Option<Self>, LocalError> {
        let binding = root.join(BINDING);
        match fs::symlink_metadata(&binding) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(on("look at", &binding)(error)),
        }
        let root = root.canonicalize().map_err(on("find", root))?;
        if !options.allow_network {
            require_local(&root)?;
        }
        let id = read(&root.join(BINDING))?.store;
        Ok(Some(Self { root, id }))
    }

    /// Opens the store in this directory, or makes one there.
    pub fn open_or_create(root: &Path, entropy: &dyn Entropy, options: StoreOptions) -> Result<Self, LocalError> {
        if let Some(store) = Self::open(root, options)? {
            return Ok(store);
        }
        if !options.allow_network {
            // Before anything is made there: the folder is where the nearest one above it is.
            let there = |dir: &&Path| dir.is_dir();
            require_local(root.ancestors().find(there).unwrap_or(Path::new(".")))?;
        }
        create_dirs(root)?;
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let fresh = Bindings { store: StoreId(id), databases: Vec::new() };
        let binding = root.join(BINDING);
        // Of two who make it at once one is first, and both open that one's.
        create_new(&binding, fresh.print(&binding)?.as_bytes())?;
        Self::open(root, options)?.ok_or(LocalError::Missing { path: binding, action: "open" })
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its id.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Where its manifest lies. Not made here.
    pub fn manifest_dir(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// The default remote's directory. Not made here.
    pub fn remote_dir(&self) -> PathBuf {
        Self::remote_dir_of(&self.root)
    }

    /// The default remote's directory of the store that is, or would be, in this directory.
    pub fn remote_dir_of(root: &Path) -> PathBuf {
        root.join(REMOTE)
    }

    /// Its scratch, which asks this quota.
    pub fn scratch(&self, quota: Arc<dyn Quota>) -> Scratch {
        Scratch::new(self.root.join(SCRATCH), self.lease_marks(), quota)
    }

    /// Where the locks are of those who hold leases. Not made here.
    pub fn lease_marks(&self) -> PathBuf {
        self.root.join(LEASE_MARKS)
    }

    /// The right to extend the log of a database's volume from here, or who has it. Whoever also wants to be the store's worker is that
    /// first: who has this one only tries for that.
    pub fn lock_volume(&self, database: &Path) -> Result<WorkerLock, LocalError> {
        WorkerLock::take(Tracker::publisher_of(&self.root, &absolute(database)?))
    }

    /// Elects the caller as the store's worker, who alone stages blobs, or says who is.
    pub fn lock_worker(&self) -> Result<WorkerLock, LocalError> {
        WorkerLock::take(self.root.join(WORKER_LOCK))
    }

    /// Where its job queue lies. Not made here.
    pub fn jobs_dir(&self) -> PathBuf {
        self.root.join(JOBS)
    }

    /// Moves a job queue that cannot be read out of the way, in place of one that was moved before. Where to.
    pub fn set_jobs_aside(&self) -> Result<PathBuf, LocalError> {
        let aside = self.root.join(JOBS_ASIDE);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(on("remove", &aside)(error)),
            _ => {}
        }
        let jobs = self.jobs_dir();
        fs::rename(&jobs, &aside).map_err(on("move", &jobs))?;
        Ok(aside)
    }

    /// The lock of whoever is at a job.
    pub fn job_mark(&self, job: JobId) -> PathBuf {
        self.root.join(JOB_MARKS).join(format!("{job}.lock"))
    }

    fn job_cancel(&self, job: JobId) -> PathBuf {
        self.root.join(JOB_MARKS).join(format!("{job}.cancel"))
    }

    /// Whoever is at a job is to stop. He looks now and then.
    pub fn ask_to_cancel(&self, job: JobId) -> Result<(), LocalError> {
        create_dirs(&self.root.join(JOB_MARKS))?;
        create_new(&self.job_cancel(job), b"").map(drop)
    }

    /// Whether that was asked for.
    pub fn is_to_cancel(&self, job: JobId) -> bool {
        self.job_cancel(job).exists()
    }

    /// What was asked of an earlier attempt is over.
    pub fn forget_to_cancel(&self, job: JobId) -> Result<(), LocalError> {
        remove_if_there(&self.job_cancel(job))
    }

    /// A job is over: nobody needs its mark any more.
    pub fn forget_mark(&self, job: JobId) {
        for path in [self.job_cancel(job), self.job_mark(job)] {
            if let Err(error) = remove_if_there(&path) {
                tracing::debug!(%error, "the mark of a job that is over stays");
            }
        }
    }

    /// Who works for the store that is in this directory, where somebody does.
    pub fn worked_by(root: &Path) -> Option<String> {
        WorkerLock::held_by(&root.join(WORKER_LOCK))
    }

    /// The process that extends the log of a database's volume just now, where one does, without opening the store.
    pub fn published_by(root: &Path, database: &Path) -> Option<String> {
        WorkerLock::held_by(&Tracker::publisher_of(root, &absolute(database).ok()?))
    }

    /// Where it is kept what was done for a volume while nobody asked.
    pub fn upkeep(&self, volume: &VolumeId) -> UpkeepFile {
        UpkeepFile::new(self.root.join(UPKEEP).join(format!("{volume}.toml")))
    }

    /// Where it is kept how far a copy of a volume has come, and what is spent on it: `place` tells its places apart.
    pub fn copy(&self, volume: &VolumeId, place: &str) -> CopyFile {
        CopyFile::new(self.root.join(COPIES).join(format!("{volume}-{place}.toml")))
    }

    /// Where it is counted what a place with copies costs.
    pub fn copy_account(root: &Path, place: &str) -> PathBuf {
        root.join(COPIES).join(place)
    }

    /// All databases it is bound to.
    pub fn bindings(&self) -> Result<Vec<Binding>, LocalError> {
        self.read().map(|bindings| bindings.databases)
    }

    /// The binding of the database at a path, also where the file was moved there.
    pub fn find_path(&self, database: &Path) -> Result<Option<Found>, LocalError> {
        let path = absolute(database)?;
        let bindings = self.read()?;
        found(&bindings.databases, &path, file_id(&path)?)
    }

    /// The binding of a volume.
    pub fn find_volume(&self, volume: &VolumeName, remote: &str) -> Result<Option<Found>, LocalError> {
        let remote = plain(remote);
        let bindings = self.read()?;
        let binding = bindings.databases.into_iter().find(|known| known.volume == *volume && known.remote == remote);
        let Some(binding) = binding else { return Ok(None) };
        let file = state(&binding, file_id(&binding.path)?);
        Ok(Some(Found { binding, file }))
    }

    /// The binding of the database at a path, if a caller who wants this volume of this remote may use it. `None`: the path
    /// is not bound, and the volume is free.
    ///
    /// Refused are a path that is bound to another volume or remote, and a volume that is another database's (rule P14).
    pub fn resolve(
        &self,
        database: &Path,
        volume: Option<&VolumeName>,
        remote: &str,
    ) -> Result<Option<Found>, LocalError> {
        let remote = plain(remote);
        if let Some(found) = self.find_path(database)? {
            let known = &found.binding;
            if volume.is_some_and(|volume| known.volume != *volume) || known.remote != remote {
                return Err(bound_elsewhere(database, known));
            }
            return Ok(Some(found));
        }
        if let Some(volume) = volume {
            let path = absolute(database)?;
            let taken =
                self.read()?.databases.into_iter().find(|known| known.volume == *volume && known.remote == remote);
            if let Some(taken) = taken {
                return Err(name_taken(&path, &taken));
            }
        }
        Ok(None)
    }

    /// Binds the database at a path to a volume. Bound so already: its file is noted anew, and nothing else happens.
    ///
    /// Refused as in [`Store::resolve`], and also a volume id that is another database's.
    pub fn bind(
        &self,
        database: &Path,
        volume: &VolumeName,
        id: VolumeId,
        remote: &str,
    ) -> Result<Binding, LocalError> {
        let path = absolute(database)?;
        let remote = plain(remote);
        self.change(|bindings| {
            let file = file_id(&path)?;
            let own = found(&bindings.databases, &path, file)?.map(|found| found.binding);
            if let Some(own) = &own
                && (own.volume != *volume || own.id != id || own.remote != remote)
            {
                return Err(bound_elsewhere(database, own));
            }
            let others = bindings.databases.iter().filter(|known| Some(*known) != own.as_ref());
            let same = |known: &&Binding| known.id == id || (known.volume == *volume && known.remote == remote);
            if let Some(taken) = others.clone().find(same) {
                return Err(name_taken(&path, taken));
            }
            let binding = Binding { path: path.clone(), file, volume: volume.clone(), id, remote: remote.to_owned() };
            let mut databases: Vec<_> = others.cloned().collect();
            databases.push(binding.clone());
            databases.sort_by(|one, other| one.path.cmp(&other.path));
            bindings.databases = databases;
            Ok(binding)
        })
    }

    /// Forgets a database. The volume stays where it is.
    pub fn unbind(&self, id: VolumeId) -> Result<(), LocalError> {
        self.change(|bindings| {
            bindings.databases.retain(|known| known.id != id);
            Ok(())
        })
    }

    fn read(&self) -> Result<Bindings, LocalError> {
        let path = self.root.join(BINDING);
        let bindings = read(&path)?;
        if bindings.store != self.id {
            let detail = format!("another store ({}) was put in place of {}: open it again", bindings.store, self.id);
            return Err(LocalError::Conflict(format!("{}: {detail}", path.display())));
        }
        Ok(bindings)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Bindings) -> Result<T, LocalError>) -> Result<T, LocalError> {
        let _lock = ChangeLock::take(&self.root.join(BINDING_LOCK))?;
        let path = self.root.join(BINDING);
        let before = self.read()?;
        let mut after = before.clone();
        let answer = change(&mut after)?;
        if after != before {
            replace(&path, after.print(&path)?.as_bytes())?;
        }
        Ok(answer)
    }
}

fn read(path: &Path) -> Result<Bindings, LocalError> {
    let bytes = fs::read(path).map_err(on("read", path))?;
    Bindings::parse(&String::from_utf8_lossy(&bytes), path)
}

/// The path without links on the way, so that one file has one path. The file itself need not exist.
fn absolute(database: &Path) -> Result<PathBuf, LocalError> {
    match database.canonicalize() {
        Ok(path) => return Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(on("find", database)(error)),
    }
    let dir = parent(database);
    let dir = dir.canonicalize().map_err(on("find", dir))?;
    match database.file_name() {
        Some(name) => Ok(dir.join(name)),
        None => Err(LocalError::Missing { path: database.into(), action: "find" }),
    }
}

fn plain(remote: &str) -> &str {
    remote.trim_end_matches('/')
}

fn state(binding: &Binding, now: Option<FileId>) -> FileState {
    match now {
        None => FileState::Gone,
        Some(_) if binding.file == now => FileState::Same,
        Some(_) => FileState::Replaced,
    }
}

fn found(databases: &[Binding], path: &Path, file: Option<FileId>) -> Result<Option<Found>, LocalError> {
    if let Some(binding) = databases.iter().find(|known| known.path == path) {
        return Ok(Some(Found { binding: binding.clone(), file: state(binding, file) }));
    }
    let Some(file) = file else { return Ok(None) };
    let Some(binding) = databases.iter().find(|known| known.file == Some(file)) else { return Ok(None) };
    // Numbers of files are used again: it was moved here only if it is not where it was. A hard link is the same file.
    let file = match file_id(&binding.path)? {
        Some(there) if there == file => FileState::Same,
        Some(_) => return Ok(None),
        None => FileState::Moved,
    };
    Ok(Some(Found { binding: binding.clone(), file }))
}

fn bound_elsewhere(database: &Path, known: &Binding) -> LocalError {
    LocalError::Conflict(format!(
        "{} belongs to volume {} ({}) at {}: use that volume and remote, give this database another store= directory, \
         or remove its binding",
        database.display(),
        known.volume,
        known.id,
        known.remote
    ))
}

fn name_taken(database: &Path, taken: &Binding) -> LocalError {
    LocalError::Conflict(format!(
        "{}: volume {} ({}) at {} is that of {}: two databases are never merged; give this one a name of its own (volume=NAME) \
         or another remote",
        database.display(),
        taken.volume,
        taken.id,
        taken.remote,
        taken.path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    #[derive(Debug, Default)]
    struct Counting(AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        }
    }

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    fn store(dir: &Path) -> Store {
        Store::open_or_create(&dir.join(DEFAULT_NAME), &Counting::default(), StoreOptions::default()).unwrap()
    }

    fn conflict<T: std::fmt::Debug>(answer: Result<T, LocalError>) -> String {
        match answer {
            Err(LocalError::Conflict(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_store_keeps_its_id_and_of_racing_makers_one_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        assert!(Store::open(&root, StoreOptions::default()).unwrap().is_none());
        assert!(!root.exists(), "looking makes nothing");
        let entropy = Counting::default();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let make = || Store::open_or_create(&root, &entropy, StoreOptions::default()).unwrap().id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(Store::open(&root, StoreOptions::default()).unwrap().unwrap().id(), ids[0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn p12_a_store_on_a_network_file_system_is_refused_unless_the_user_says_so_by_name() {
        use crate::filesystem::PRETENDED;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a").join(DEFAULT_NAME);
        let make = |options| Store::open_or_create(&root, &Counting::default(), options);
        let by_name = StoreOptions { allow_network: true };
        PRETENDED.set(Some(0x6969));
        let refused = make(StoreOptions::default()).unwrap_err();
        assert!(matches!(&refused, LocalError::NetworkFileSystem { kind, .. } if kind == "nfs"), "{refused:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
        let id = make(by_name).unwrap().id();
        // One that is there already is refused as well: it may have been moved.
        for refused in [make(StoreOptions::default()).map(Some), Store::open(&root, StoreOptions::default())] {
            assert!(matches!(refused, Err(LocalError::NetworkFileSystem { .. })), "{refused:?}");
        }
        assert_eq!(Store::open(&root, by_name).unwrap().unwrap().id(), id);
        PRETENDED.set(None);
        assert_eq!(make(StoreOptions::default()).unwrap().id(), id);
    }

    #[test]
    fn a_database_is_found_by_path_and_by_volume_also_after_it_moved() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let path = dir.path().join("app.db");
        fs::write(&path, b"one").unwrap();
        assert_eq!(store.find_path(&path).unwrap(), None);
        let binding = store.bind(&path, &name("app"), VolumeId([1; 16]), "s3://b/p/").unwrap();
        assert_eq!(binding.remote, "s3://b/p");
        assert_eq!(store.bind(&path, &name("app"), VolumeId([1; 16]), "s3://b/p").unwrap(), binding, "twice is once");
        let same = Found { binding: binding.clone(), file: FileState::Same };
        assert_eq!(store.find_path(&path).unwrap().unwrap(), same);
        assert_eq!(store.find_path(&dir.path().join("./sub/../app.db")).ok(), None, "sub does not exist");
        assert_eq!(store.find_volume(&name("app"), "s3://b/p/").unwrap().unwrap(), same);
        assert_eq!(store.find_volume(&name("app"), "s3://b/q").unwrap(), None);

        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(store.find_path(&link).unwrap().unwrap(), same, "one file has one path");
        let hard = dir.path().join("hard.db");
        fs::hard_link(&path, &hard).unwrap();
        assert_eq!(store.find_path(&hard).unwrap().unwrap(), same);
        fs::remove_file(&hard).unwrap();

        let moved = dir.path().join("moved.db");
        fs::rename(&path, &moved).unwrap();
        assert_eq!(store.find_path(&moved).unwrap().unwrap().file, FileState::Moved);
        assert_eq!(store.find_path(&path).unwrap().unwrap().file, FileState::Gone);
        // A file that someone put in its place is not it; the moved one is a stranger then.
        fs::write(&path, b"two").unwrap();
        assert_eq!(store.find_path(&path).unwrap().unwrap().file, FileState::Replaced);
        assert_eq!(store.find_path(&moved).unwrap(), None);
        fs::remove_file(&path).unwrap();
        let again = store.bind(&moved, &name("app"), VolumeId([1; 16]), "s3://b/p").unwrap();
        assert_eq!(store.bindings().unwrap(), [again]);
        store.unbind(VolumeId([1; 16])).unwrap();
        assert_eq!(store.bindings().unwrap(), []);
    }

    #[test]
    fn p14_two_databases_are_never_one_volume() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (one, two) = (dir.path().join("one/app.db"), dir.path().join("two/app.db"));
        for path in [&one, &two] {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(path, b"db").unwrap();
        }
        store.bind(&one, &name("app.db"), VolumeId([1; 16]), "s3://b/p").unwrap();
        let before = fs::read(store.root().join(BINDING)).unwrap();

        let text = conflict(store.resolve(&two, Some(&name("app.db")), "s3://b/p/"));
        assert!(text.contains("one/app.db") && text.contains("volume=NAME"), "{text}");
        conflict(store.bind(&two, &name("app.db"), VolumeId([2; 16]), "s3://b/p"));
        conflict(store.bind(&two, &name("other"), VolumeId([1; 16]), "s3://b/p"));
        assert_eq!(fs::read(store.root().join(BINDING)).unwrap(), before, "a refusal changes nothing");

        // A name of its own, or another remote, is the way out.
        assert_eq!(store.resolve(&two, Some(&name("other")), "s3://b/p").unwrap(), None);
        assert_eq!(store.resolve(&two, Some(&name("app.db")), "s3://b/q").unwrap(), None);
        store.bind(&two, &name("other"), VolumeId([2; 16]), "s3://b/p").unwrap();
        assert_eq!(store.bindings().unwrap().len(), 2);
    }

    #[test]
    fn a_database_of_another_volume_or_remote_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let path = dir.path().join("app.db");
        store.bind(&path, &name("app.db"), VolumeId([1; 16]), "s3://b/p").unwrap();
        assert_eq!(store.resolve(&path, None, "s3://b/p").unwrap().unwrap().file, FileState::Gone);
        for (volume, remote) in [(Some("other"), "s3://b/p"), (None, "s3://b/q"), (Some("app.db"), "s3://b/pp")] {
            let text = conflict(store.resolve(&path, volume.map(name).as_ref(), remote));
            assert!(text.contains("belongs to volume app.db"), "{text}");
        }
        conflict(store.bind(&path, &name("app.db"), VolumeId([2; 16]), "s3://b/p"));
        assert_eq!(store.bindings().unwrap()[0].id, VolumeId([1; 16]));
    }

    #[test]
    fn racing_bindings_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                let store = &store;
                let path = dir.path().join(format!("{number}.db"));
                scope.spawn(move || {
                    store.bind(&path, &name(&format!("v{number}")), VolumeId([number; 16]), "s3://b").unwrap();
                });
            }
        });
        assert_eq!(store.bindings().unwrap().len(), 8);
    }

    #[test]
    fn a_newer_or_damaged_or_exchanged_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let path = store.root().join(BINDING);
        let options = StoreOptions::default();
        for (text, newer) in [("format = 9\nx = 1\n", true), ("format = 1\n", false), ("\u{0}", false)] {
            fs::write(&path, text).unwrap();
            for refused in [
                Store::open(store.root(), options).unwrap_err(),
                Store::open_or_create(store.root(), &Counting::default(), options).unwrap_err(),
                store.bind(&dir.path().join("a.db"), &name("a"), VolumeId([1; 16]), "s3://b").unwrap_err(),
            ] {
                assert_eq!(matches!(refused, LocalError::Newer { .. }), newer, "{refused:?}");
                assert_eq!(matches!(refused, LocalError::Corrupt { .. }), !newer, "{refused:?}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "format = 1\nstore = \"ffffffffffffffffffffffffffffffff\"\n").unwrap();
        conflict(store.bindings());
    }
}
