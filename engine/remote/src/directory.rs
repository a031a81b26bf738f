//! A folder as an object store: the embedded default, and what `file://` names.
//!
//! What it promises beyond the port, rule P15:
//! 1. A file is written under another name and synced before it gets its own, so nobody ever sees half of one.
//! 2. Its folder is synced after it got its name, and every folder above that was made for it, before the write returns.
//! 3. `put_new` gives the name by `link(2)` (or a rename that does not replace): of many processes one succeeds.
//! 4. The root is made on the first write if its parent exists; reading never makes anything.
//!
//! Unfinished files lie in `~tmp` below the root, which is no object's name. A writer holds a lock on its own; what a dead
//! one left is removed after an hour.

use crate::disk::{Disk, RealDisk};
use crate::url;
use async_trait::async_trait;
use bytes::Bytes;
use crc64fast_nvme::Digest;
use littoral_ports::{BlobBody, Clock, Entropy, ObjectMeta, Remote, RemoteError};
use littoral_types::{ByteSpan, ObjectPath};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// Unfinished files. No part of an [`ObjectPath`] has a tilde.
const TEMP_FOLDER: &str = "~tmp";
/// A file that nobody locks is younger than this while its writer is about to lock it.
const TEMP_AGE_MS: u64 = 3600 * 1000;
/// Bytes of a blob copied at a time.
const COPY_STEP: u64 = 4 << 20;

/// A folder's URL, as [`open`](crate::open()) reads it. `None` for a path that is not text or does not begin at the root.
pub fn directory_url(root: &Path) -> Option<String> {
    url::of_directory(root)
}

/// A folder as an object store. It wants a tokio runtime around its calls: the disk is asked on threads that may wait.
pub struct Directory {
    keeper: Arc<Keeper>,
}

struct Keeper {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Folders whose names are known to survive the power.
    synced: Mutex<HashSet<PathBuf>>,
    swept: AtomicBool,
}

impl Directory {
    /// A store below `root`, an absolute path. Nothing is touched before the first call.
    pub fn new(root: &Path, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self::on_disk(root, Arc::new(RealDisk), clock, entropy)
    }

    fn on_disk(root: &Path, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let (synced, swept) = Default::default();
        Self { keeper: Arc::new(Keeper { root: root.to_owned(), disk, clock, entropy, synced, swept }) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keeper) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let keeper = Arc::clone(&self.keeper);
        match tokio::task::spawn_blocking(move || work(&keeper)).await {
            Ok(done) => done,
            Err(error) => {
                let detail = format!("the thread that asked the disk ended: {error}");
                Err(RemoteError::Unavailable { what: self.url(), tries: 1, detail })
            }
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({})", self.keeper.root.display())
    }
}

/// A file under a name of its own until it gets the right one; removed when it never does.
struct Temp {
    path: PathBuf,
    file: File,
    disk: Arc<dyn Disk>,
    named: bool,
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is removed when it is old.
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl Keeper {
    fn place(&self, path: &ObjectPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    /// What a failed call means.
    fn told(&self, path: &Path, error: io::Error) -> RemoteError {
        let what = path.display().to_string();
        let detail = error.to_string();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => RemoteError::Denied { what, detail },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                RemoteError::Full { what, detail }
            }
            ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::InvalidFilename => {
                RemoteError::Settings(format!("{what} cannot hold an object: {detail}"))
            }
            _ => RemoteError::Unavailable { what, tries: 1, detail },
        }
    }

    /// No such file: is it the object that is missing, or everything?
    fn missing(&self, path: &ObjectPath) -> RemoteError {
        match self.parent_missing() {
            Some(error) => error,
            None => RemoteError::Missing { path: path.to_string() },
        }
    }

    fn parent_missing(&self) -> Option<RemoteError> {
        let parent = self.root.parent()?;
        (!self.root.exists() && !parent.is_dir()).then(|| RemoteError::NoBucket { what: parent.display().to_string() })
    }

    fn open(&self, path: &ObjectPath) -> Result<(File, u64), RemoteError> {
        let place = self.place(path);
        let opened = File::open(&place).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((meta, file)) if meta.is_file() => Ok((file, meta.len())),
            // A folder is not an object.
            Ok(_) => Err(RemoteError::Missing { path: path.to_string() }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(self.missing(path))
            }
            Err(error) => Err(self.told(&place, error)),
        }
    }

    fn read(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let (file, len) = self.open(path)?;
        let beyond = || RemoteError::beyond_the_end(path, span, len);
        if span.end().is_none_or(|end| end > len) {
            return Err(beyond());
        }
        self.read_at(path, &file, span)
    }

    fn read_at(&self, path: &ObjectPath, file: &File, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let mut bytes = vec![0; usize::try_from(span.len).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, span.offset).map_err(|error| self.told(&self.place(path), error))?;
        Ok(bytes.into())
    }

    /// Makes the folder and those above it, down from the root's parent, so that their names survive the power.
    fn folder(&self, folder: &Path) -> Result<(), RemoteError> {
        if self.synced.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(folder);
        let is_root = folder == self.root;
        if !is_root {
            self.folder(above)?;
        }
        let made = match self.disk.make_folder(folder) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            // Some systems say so of a folder that is there.
            Err(_) if folder.is_dir() => false,
            Err(error) if is_root && error.kind() == ErrorKind::NotFound => {
                return Err(self.parent_missing().unwrap_or_else(|| self.told(folder, error)));
            }
            Err(error) => return Err(self.told(folder, error)),
        };
        // Another process may have made it and not have synced it yet. The root's parent is not ours to open unless we
        // made the root in it.
        if made || !is_root {
            self.disk.sync_folder(above).map_err(|error| self.told(above, error))?;
        }
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    /// Somebody removed folders behind our back: forget what is known of them.
    fn forget_folders(&self) {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn temp(&self) -> Result<Temp, RemoteError> {
        let folder = self.root.join(TEMP_FOLDER);
        self.folder(&self.root)?;
        self.folder(&folder)?;
        if !self.swept.swap(true, Ordering::Relaxed) {
            self.sweep(&folder);
        }
        let mut remade = false;
        loop {
            let mut name = [0; 16];
            self.entropy.fill(&mut name);
            let path = folder.join(format!("{:032x}", u128::from_le_bytes(name)));
            match self.disk.create(&path) {
                Ok(file) => {
                    // Tells the sweeper of another process that the writer lives. Without locks, age alone tells.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Temp { path, file, disk: Arc::clone(&self.disk), named: false });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound && !remade => {
                    remade = true;
                    self.forget_folders();
                    self.folder(&self.root)?;
                    self.folder(&folder)?;
                }
                Err(error) => return Err(self.told(&path, error)),
            }
        }
    }

    /// Removes what dead writers left. What cannot be removed stays: it costs room, not safety.
    fn sweep(&self, folder: &Path) {
        let now_ms = self.clock.wall_ms();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let old = entry.metadata().is_ok_and(|meta| now_ms.saturating_sub(modified_ms(&meta)) > TEMP_AGE_MS);
            let orphaned = || {
                let file = File::open(entry.path());
                file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
            };
            if old && orphaned() {
                tracing::debug!(path = %entry.path().display(), "removing what a dead writer left");
                let _ = self.disk.remove(&entry.path());
            }
        }
    }

    fn write(&self, temp: &mut Temp, bytes: &[u8]) -> Result<(), RemoteError> {
        self.disk.write(&temp.path, &mut temp.file, bytes).map_err(|error| self.told(&temp.path, error))
    }

    fn sync(&self, temp: &Temp) -> Result<(), RemoteError> {
        self.disk.sync_file(&temp.path, &temp.file).map_err(|error| self.told(&temp.path, error))
    }

    /// Gives a finished file its name by `give`, with its folder made before and synced after.
    fn name(
        &self,
        temp: &mut Temp,
        place: &Path,
        give: impl Fn(&Path, &Path) -> io::Result<bool>,
    ) -> Result<(), io::Result<RemoteError>> {
        let folder = place.parent().unwrap_or(&self.root);
        self.folder(folder).map_err(Ok)?;
        let given = match give(&temp.path, place) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.forget_folders();
                self.folder(folder).map_err(Ok)?;
                give(&temp.path, place)
            }
            given => given,
        };
        // Whether it still has its first name too, to be taken away by its drop.
        temp.named = !given.map_err(Err)?;
        Ok(())
    }

    fn replace(&self, path: &ObjectPath, mut temp: Temp) -> Result<(), RemoteError> {
        let place = self.place(path);
        self.sync(&temp)?;
        let renamed = self.name(&mut temp, &place, |from, to| self.disk.rename_over(from, to).map(|()| false));
        match renamed {
            Ok(()) => {}
            Err(Ok(error)) => return Err(error),
            Err(Err(error)) => return Err(self.told(&place, error)),
        }
        let folder = place.parent().unwrap_or(&self.root);
        self.disk.sync_folder(folder).map_err(|error| self.told(folder, error))
    }

    fn put_new(&self, path: &ObjectPath, bytes: &[u8]) -> Result<(), RemoteError> {
        let place = self.place(path);
        let folder = place.parent().unwrap_or(&self.root);
        let exists = || {
            // Who is told that it exists builds on it: its name must survive the power too, whoever gave it.
            self.disk.sync_folder(folder).map_err(|error| self.told(folder, error))?;
            Err(RemoteError::Exists { path: path.clone() })
        };
        if fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_file()) {
            return exists();
        }
        let mut temp = self.temp()?;
        self.write(&mut temp, bytes)?;
        self.sync(&temp)?;
        let given = self.name(&mut temp, &place, |from, to| match self.disk.link(from, to) {
            Ok(()) => Ok(true),
            // File systems that know no second name may know a rename that does not replace.
            Err(error) if unsupported(&error) => self.disk.rename_new(from, to).map(|()| false),
            Err(error) => Err(error),
        });
        match given {
            Ok(()) => {}
            Err(Ok(error)) => return Err(error),
            Err(Err(error)) if error.kind() == ErrorKind::AlreadyExists => return exists(),
            Err(Err(error)) if unsupported(&error) => {
                let detail = format!("this file system has neither link nor a rename that does not replace: {error}");
                return Err(RemoteError::NotFencing { what: self.root.display().to_string(), detail });
            }
            Err(Err(error)) => return Err(self.told(&place, error)),
        }
        // It has its name: from here on nobody can say that it was not written.
        self.disk.sync_folder(folder).map_err(|error| {
            let detail = format!("{} cannot be synced: {error}", folder.display());
            RemoteError::Unknown { path: path.clone(), detail }
        })
    }

    fn list(&self, folder: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        if let Some(error) = self.parent_missing() {
            return Err(error);
        }
        let (place, prefix) = match folder {
            "" => (self.root.clone(), String::new()),
            folder => (self.root.join(folder), format!("{folder}/")),
        };
        let mut listed = Vec::new();
        self.walk(&place, &prefix, after.unwrap_or_default(), max, &mut listed)?;
        Ok(listed)
    }

    fn walk(
        &self,
        folder: &Path,
        prefix: &str,
        after: &str,
        max: usize,
        listed: &mut Vec<ObjectMeta>,
    ) -> Result<(), RemoteError> {
        let told = |error| self.told(folder, error);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(told(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(told)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| ObjectPath::join([*name]).is_some()) else { continue };
            let kind = entry.file_type().map_err(told)?;
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            // With its slash, a folder sorts where the names below it do.
            let key = format!("{prefix}{name}{}", if is_folder { "/" } else { "" });
            let wanted = if is_folder { key.as_str() > after || after.starts_with(&key) } else { key.as_str() > after };
            if wanted {
                keys.push((key, entry.path(), is_folder));
            }
        }
        keys.sort();
        for (key, place, is_folder) in keys {
            if listed.len() >= max {
                break;
            }
            if is_folder {
                self.walk(&place, &key, after, max, listed)?;
                continue;
            }
            match fs::metadata(&place) {
                Ok(meta) => {
                    if let Some(path) = ObjectPath::parse(&key).filter(|_| meta.is_file()) {
                        listed.push(ObjectMeta { path, len: meta.len(), modified_ms: modified_ms(&meta) });
                    }
                }
                // Deleted meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.told(&place, error)),
            }
        }
        Ok(())
    }

    fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let mut folders = HashSet::new();
        for path in paths {
            let place = self.place(path);
            match self.disk.remove(&place) {
                Ok(()) => {
                    folders.extend(place.parent().map(Path::to_owned));
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(_) if place.is_dir() => {}
                Err(error) => return Err(self.told(&place, error)),
            }
        }
        folders.iter().try_for_each(|folder| self.disk.sync_folder(folder).map_err(|error| self.told(folder, error)))
    }
}

/// The call, not the disk, is what fails: another call may do.
fn unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let codes = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL, Errno::MLINK];
    error.kind() == ErrorKind::Unsupported || codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

fn modified_ms(meta: &fs::Metadata) -> u64 {
    let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).unwrap_or_default()
}

#[async_trait]
impl Remote for Directory {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        let path = path.clone();
        self.blocking(move |keeper| {
            let (mut file, len) = keeper.open(&path)?;
            let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default());
            file.read_to_end(&mut bytes).map_err(|error| keeper.told(&keeper.place(&path), error))?;
            Ok(bytes.into())
        })
        .await
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let path = path.clone();
        self.blocking(move |keeper| keeper.read(&path, span)).await
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        let path = path.clone();
        self.blocking(move |keeper| {
            let (file, whole) = keeper.open(&path)?;
            let len = len.min(whole);
            Ok((keeper.read_at(&path, &file, ByteSpan { offset: whole - len, len })?, whole))
        })
        .await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        let path = path.clone();
        self.blocking(move |keeper| Ok(keeper.open(&path)?.1)).await
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let path = path.clone();
        self.blocking(move |keeper| {
            let mut temp = keeper.temp()?;
            keeper.write(&mut temp, &bytes)?;
            keeper.replace(&path, temp)
        })
        .await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let keeper = Arc::clone(&self.keeper);
        let place = path.clone();
        match tokio::task::spawn_blocking(move || keeper.put_new(&place, &bytes)).await {
            Ok(done) => done,
            Err(error) => {
                let detail = format!("the thread that asked the disk ended: {error}");
                Err(RemoteError::Unknown { path: path.clone(), detail })
            }
        }
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        let mut temp = self.blocking(|keeper| keeper.temp()).await?;
        let mut digest = Digest::new();
        let mut offset = 0;
        while offset < body.len() {
            let len = COPY_STEP.min(body.len() - offset);
            let bytes = body.read(ByteSpan { offset, len }).map_err(|error| RemoteError::unreadable(path, &error))?;
            if bytes.len() as u64 != len {
                return Err(RemoteError::unreadable(path, &ErrorKind::UnexpectedEof.into()));
            }
            digest.write(&bytes);
            offset += len;
            temp = self
                .blocking(move |keeper| {
                    keeper.write(&mut temp, &bytes)?;
                    Ok(temp)
                })
                .await?;
        }
        if digest.sum64() != body.crc64() {
            return Err(RemoteError::changed_before_upload(path));
        }
        let place = path.clone();
        self.blocking(move |keeper| keeper.replace(&place, temp)).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        let (folder, after) = (folder.to_owned(), after.cloned());
        self.blocking(move |keeper| keeper.list(&folder, after.as_ref().map(ObjectPath::as_str), max)).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let paths = paths.to_vec();
        self.blocking(move |keeper| keeper.delete(&paths)).await
    }

    fn url(&self) -> String {
        url::of_directory(&self.keeper.root).unwrap_or_else(|| format!("file://{}", self.keeper.root.display()))
    }

    fn distrust(&self, _path: &ObjectPath, _wrong_before: usize) -> bool {
        false
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
