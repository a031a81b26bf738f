//! The file that a restore makes: whole at its place, or not there at all.
//!
//! 1. Bytes go to `.{name}.littoral-restore` beside the destination; what is done is noted in a journal beside that, so that
//!    a restore of exactly the same state goes on where a killed one stopped. A partial file of another state is discarded.
//! 2. Nothing that stands at the destination is touched before [`OutputFile::finish`], and nothing ever without `force`.
//! 3. `-wal`, `-journal` and `-shm` files of an older database would be applied to the new one by SQLite (rule S8): they
//!    count as standing there, and are moved aside, not deleted, before the new file gets its name.

use crate::durable::{parent, remove_if_there, rename_new, replace, suffixed, sync_dir};
use crate::error::{LocalError, on};
use crate::filesystem::require_free;
use crate::inherited::LockFile;
use crate::journal::{self, Purpose, Runs};
use littoral_types::{ByteSpan, RecordHash, VolumeId};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes after which what is done is made to survive a power loss too.
const SYNC_EVERY: u64 = 256 << 20;
/// What SQLite keeps beside a database.
const LEFTOVERS: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Which state of which volume a restore makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputState {
    /// The volume.
    pub volume: VolumeId,
    /// The record whose state it is.
    pub record: RecordHash,
    /// How long the file will be.
    pub len: u64,
    /// How many of its bytes are known to be zeros and need no room on the disk.
    pub zeros: u64,
}

/// What became of things that stood in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Whether a file was replaced.
    pub replaced: bool,
    /// Where leftovers of an older database were moved.
    pub quarantined: Vec<PathBuf>,
}

/// A file in the making. Dropped before it is finished, it stays for a later restore of the same state, unless nothing of
/// it was done.
#[derive(Debug)]
pub struct OutputFile {
    dest: PathBuf,
    partial: PathBuf,
    journal_path: PathBuf,
    force: bool,
    state: OutputState,
    file: LockFile,
    /// Whether an earlier restore wrote into it: then zeros must be made, not assumed.
    resumed: bool,
    progress: Mutex<Progress>,
    syncing: AtomicBool,
    finished: bool,
}

#[derive(Debug)]
struct Progress {
    journal: File,
    runs: Runs,
    /// Done lines in the journal.
    lines: usize,
    /// Bytes done since what is done was last synced.
    since_sync: u64,
}

impl OutputFile {
    /// Begins, or goes on with what an earlier restore of the same state did.
    ///
    /// Refused are a destination where something stands (unless forced), one that another restore is writing right now,
    /// and a disk without room for what is still to come.
    pub fn create(dest: &Path, force: bool, state: OutputState) -> Result<Self, LocalError> {
        let dest = resolve(dest)?;
        refuse_what_stands(&dest, force)?;
        let dir = parent(&dest);
        let name = dest.file_name().map(|name| name.to_os_string()).unwrap_or_default();
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".littoral-restore");
        let partial = dir.join(hidden);
        let journal_path = suffixed(&partial, "-progress");

        let file = open_alone(&partial)?;
        let found = file.metadata().map_err(on("look at", &partial))?;
        let purpose = Purpose { volume: state.volume, record: state.record, len: state.len, inode: found.ino() };
        let known = if found.len() == state.len { read_journal(&journal_path, &purpose)? } else { None };
        let resumed = known.is_some();
        let runs = known.unwrap_or_default();
        let begin = || {
            if !resumed {
                file.set_len(0).map_err(on("discard", &partial))?;
            }
            require_free(dir, state.len.saturating_sub(state.zeros).saturating_sub(runs.total()))?;
            file.set_len(state.len).map_err(on("extend", &partial))?;
            // What the last boot handed to the system is written out now, so that the new journal may call it synced.
            file.sync_data().map_err(on("sync", &partial))?;
            let mut text = journal::header(&purpose);
            runs.spans().for_each(|span| text.push_str(&journal::done(span)));
            text.push_str(&journal::synced(runs.spans().count()));
            text.push_str(&journal::boot(&boot_id()));
            replace(&journal_path, text.as_bytes())?;
            OpenOptions::new().append(true).open(&journal_path).map_err(on("open", &journal_path))
        };
        let journal = match begin() {
            Ok(journal) => journal,
            Err(error) => {
                if runs.total() == 0 {
                    remove_if_there(&partial)?;
                    remove_if_there(&journal_path)?;
                }
                return Err(error);
            }
        };
        let lines = runs.spans().count();
        let progress = Mutex::new(Progress { journal, runs, lines, since_sync: 0 });
        let syncing = AtomicBool::new(false);
        Ok(Self { dest, partial, journal_path, force, state, file, resumed, progress, syncing, finished: false })
    }

    /// Whether all of these bytes are there already.
    pub fn is_done(&self, span: ByteSpan) -> bool {
        self.progress().runs.holds(span)
    }

    /// How many bytes are there already.
    pub fn done_bytes(&self) -> u64 {
        self.progress().runs.total()
    }

    /// The destination, without links.
    pub fn dest(&self) -> &Path {
        &self.dest
    }

    /// Writes at a place, from any thread.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), LocalError> {
        self.within(ByteSpan { offset, len: bytes.len() as u64 })?;
        self.file.write_all_at(bytes, offset).map_err(on("write", &self.partial))
    }

    /// Reads back what was written.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// Makes zeros without taking room, from any thread.
    pub fn zero(&self, span: ByteSpan) -> Result<(), LocalError> {
        self.within(span)?;
        if !self.resumed || span.len == 0 {
            return Ok(()); // A file that was extended is zeros where nothing was written.
        }
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, span.offset, span.len) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => self.write_zeros(span),
            Err(error) => Err(on("punch a hole into", &self.partial)(error)),
        }
    }

    fn write_zeros(&self, span: ByteSpan) -> Result<(), LocalError> {
        const STEP: usize = 1 << 16;
        let zeros = vec![0; STEP];
        let mut at = 0;
        while at < span.len {
            let step = (span.len - at).min(STEP as u64);
            self.write_at(span.offset + at, &zeros[..step as usize])?;
            at += step;
        }
        Ok(())
    }

    /// Takes room for bytes that will be written, so that they lie together and a full disk shows early.
    pub fn preallocate(&self, span: ByteSpan) -> Result<(), LocalError> {
        self.within(span)?;
        if span.len == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, span.offset, span.len) {
            // Not every file system can; writing takes the room then.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(on("take room for", &self.partial)(error)),
        }
    }

    /// Notes that all of these bytes were written: a later restore of this state need not do them again.
    pub fn complete(&self, span: ByteSpan) -> Result<(), LocalError> {
        self.within(span)?;
        let mut progress = self.progress();
        progress.note(&journal::done(span), &self.journal_path)?;
        progress.lines += 1;
        progress.runs.add(span);
        progress.since_sync += span.len;
        let due = progress.since_sync >= SYNC_EVERY;
        drop(progress);
        self.hand_over(span);
        // One thread syncs; the others go on writing meanwhile.
        if due && !self.syncing.swap(true, Ordering::AcqRel) {
            let synced = self.sync();
            self.syncing.store(false, Ordering::Release);
            synced?;
        }
        Ok(())
    }

    /// Lets the system begin to write these bytes to the disk, so that little is left for the sync at the end.
    fn hand_over(&self, span: ByteSpan) {
        if let Some(len) = NonZeroU64::new(span.len) {
            // What this says, on Linux, is that the bytes are not read soon: those that are not on the disk yet are sent there,
            // and are kept until they are. Advice that is not taken costs nothing but the time at the end.
            let _ = fadvise(&self.file, span.offset, Some(len), Advice::DontNeed);
        }
    }

    /// Makes what is done survive a power loss too.
    pub fn sync(&self) -> Result<(), LocalError> {
        let mut progress = self.progress();
        let lines = progress.lines;
        progress.since_sync = 0;
        drop(progress);
        // Only what was noted before the sync began is known to be in it.
        self.file.sync_data().map_err(on("sync", &self.partial))?;
        let mut progress = self.progress();
        progress.note(&journal::synced(lines), &self.journal_path)?;
        progress.journal.sync_data().map_err(on("sync", &self.journal_path))
    }

    /// Gives the file its name: after this it stands at the destination, whole and durable. Before, and after an error, what
    /// stood there stands there.
    pub fn finish(mut self) -> Result<Finished, LocalError> {
        if let Some(gap) = self.progress().runs.first_gap(self.state.len) {
            let detail = format!("not finished: nothing was written at {gap} of {} bytes", self.state.len);
            return Err(LocalError::Misuse { path: self.partial.clone(), detail });
        }
        // Room that was taken beyond the end goes back.
        self.file.set_len(self.state.len).map_err(on("trim", &self.partial))?;
        let old = fs::metadata(&self.dest).ok();
        if let Some(old) = old.as_ref().filter(|_| self.force) {
            self.file.set_permissions(old.permissions()).map_err(on("set the permissions of", &self.partial))?;
        }
        self.file.sync_all().map_err(on("sync", &self.partial))?;

        // Looked at again: hours may have passed.
        refuse_what_stands(&self.dest, self.force)?;
        let quarantined = if self.force { quarantine(&self.dest)? } else { Vec::new() };
        if self.force {
            fs::rename(&self.partial, &self.dest).map_err(on("rename into place", &self.dest))?;
        } else if !rename_new(&self.partial, &self.dest)? {
            return Err(LocalError::WouldOverwrite { path: self.dest.clone(), what: STANDS });
        }
        self.finished = true;
        sync_dir(parent(&self.dest))?;
        remove_if_there(&self.journal_path)?;
        Ok(Finished { replaced: old.is_some(), quarantined })
    }

    /// Gives up, and keeps nothing for later.
    pub fn discard(mut self) -> Result<(), LocalError> {
        self.finished = true;
        remove_if_there(&self.partial)?;
        remove_if_there(&self.journal_path)
    }

    fn within(&self, span: ByteSpan) -> Result<(), LocalError> {
        if span.end().is_none_or(|end| end > self.state.len) {
            let detail = format!("{} bytes at {} of a file of {}", span.len, span.offset, self.state.len);
            return Err(LocalError::Misuse { path: self.partial.clone(), detail });
        }
        Ok(())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Its invariant (no more runs than lines) holds after every statement.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn note(&mut self, line: &str, path: &Path) -> Result<(), LocalError> {
        self.journal.write_all(line.as_bytes()).map_err(on("write", path))
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.finished && self.progress().runs.total() == 0 {
            // Best effort, on the way out of an error: a partial file without progress is of no use to anyone.
            let _ = fs::remove_file(&self.partial);
            let _ = fs::remove_file(&self.journal_path);
        }
    }
}

const STANDS: &str = "a file is there";
const LEFT_OVER: &str = "left over from another database, and SQLite would apply it to this one";

/// The path that the file's name will be given at: links are followed, as SQLite does.
fn resolve(dest: &Path) -> Result<PathBuf, LocalError> {
    let Some(name) = dest.file_name() else {
        return Err(LocalError::Missing { path: dest.into(), action: "write a file called" });
    };
    if fs::symlink_metadata(dest).is_ok_and(|found| found.is_symlink()) {
        return dest.canonicalize().map_err(on("follow the link", dest));
    }
    let dir = parent(dest);
    Ok(dir.canonicalize().map_err(on("write into the directory", dir))?.join(name))
}

fn stands(path: &Path) -> Result<bool, LocalError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(on("look at", path)(error)),
    }
}

fn refuse_what_stands(dest: &Path, force: bool) -> Result<(), LocalError> {
    match fs::symlink_metadata(dest) {
        Ok(found) if !found.is_file() => {
            // Never replaced, whatever the user says.
            return Err(LocalError::Conflict(format!(
                "{}: not an ordinary file: choose another place",
                dest.display()
            )));
        }
        Ok(_) if !force => return Err(LocalError::WouldOverwrite { path: dest.into(), what: STANDS }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(on("look at", dest)(error)),
    }
    for leftover in LEFTOVERS.map(|suffix| suffixed(dest, suffix)) {
        if !force && stands(&leftover)? {
            return Err(LocalError::WouldOverwrite { path: leftover, what: LEFT_OVER });
        }
    }
    Ok(())
}

/// Moves leftovers of an older database where SQLite does not find them, and where a person does.
pub(crate) fn quarantine(dest: &Path) -> Result<Vec<PathBuf>, LocalError> {
    const TRIES: u32 = 10_000;
    let mut moved = Vec::new();
    for leftover in LEFTOVERS.map(|suffix| suffixed(dest, suffix)) {
        if !stands(&leftover)? {
            continue;
        }
        let mut names = (1..TRIES).map(|number| suffixed(&leftover, &format!(".quarantined-{number}")));
        let place = names.find_map(|name| match rename_new(&leftover, &name) {
            Ok(true) => Some(Ok(name)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        });
        match place {
            Some(name) => moved.push(name?),
            None => {
                let detail = format!("{}: {TRIES} quarantined files beside it: remove some", leftover.display());
                return Err(LocalError::Conflict(detail));
            }
        }
    }
    if !moved.is_empty() {
        // Durable before the new file gets its name: else a power cut could bring an old journal back beside it.
        sync_dir(parent(dest))?;
    }
    Ok(moved)
}

/// Opens the partial file, alone: of two restores to one place one is refused.
fn open_alone(partial: &Path) -> Result<LockFile, LocalError> {
    loop {
        let file = LockFile::create(partial).map_err(on("create", partial))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LocalError::Busy {
                    path: partial.into(),
                    holder: "another restore to the same place".into(),
                });
            }
            Err(error) => return Err(on("lock", partial)(error)),
        }
        // The one who held the lock before may have given this very file its final name.
        let held = file.metadata().map_err(on("look at", partial))?;
        if fs::metadata(partial).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())) {
            return Ok(file);
        }
    }
}

fn read_journal(path: &Path, purpose: &Purpose) -> Result<Option<Runs>, LocalError> {
    match fs::read(path) {
        Ok(bytes) => Ok(journal::read(&bytes, purpose, &boot_id())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(on("read", path)(error)),
    }
}

/// Changes when the machine starts. Where the system does not tell, every process counts as a new start.
fn boot_id() -> String {
    let told = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let plain = told.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && !text.contains(' '));
    plain.unwrap_or_else(|| format!("process-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(len: u64) -> OutputState {
        OutputState { volume: VolumeId([1; 16]), record: RecordHash([2; 32]), len, zeros: 0 }
    }

    fn span(offset: u64, len: u64) -> ByteSpan {
        ByteSpan { offset, len }
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(output: &OutputFile, content: &[u8], parts: impl IntoIterator<Item = u64>, part: u64) {
        for at in parts {
            let span = span(at * part, part.min(content.len() as u64 - at * part));
            let bytes = &content[span.offset as usize..(span.offset + span.len) as usize];
            output.write_at(span.offset, bytes).unwrap();
            output.complete(span).unwrap();
        }
    }

    #[test]
    fn a_file_appears_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("app.db");
        let content = content(100_000);
        let output = OutputFile::create(&dest, false, state(100_000)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (output, content) = (&output, &content);
                scope.spawn(move || write(output, content, (0..25).filter(|at| at % 4 == thread), 4096));
            }
        });
        output.sync().unwrap();
        assert!(!dest.exists());
        assert_eq!(output.finish().unwrap(), Finished::default());
        assert_eq!(fs::read(&dest).unwrap(), content);
        assert_eq!(names(dir.path()), ["app.db"]);
    }

    #[test]
    fn zeros_take_no_room_and_an_unfinished_file_never_gets_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("app.db");
        let len = 64 << 20;
        let output = OutputFile::create(&dest, false, OutputState { zeros: len - 4096, ..state(len) }).unwrap();
        output.zero(span(4096, len - 4096)).unwrap();
        output.complete(span(4096, len - 4096)).unwrap();
        let refused = output.finish().unwrap_err();
        assert!(refused.to_string().contains("nothing was written at 0"), "{refused}");
        assert!(!dest.exists());

        let output = OutputFile::create(&dest, false, OutputState { zeros: len - 4096, ..state(len) }).unwrap();
        assert!(output.is_done(span(4096, len - 4096)) && !output.is_done(span(0, 4097)));
        output.preallocate(span(0, 4096)).unwrap();
        output.write_at(0, &[7; 4096]).unwrap();
        output.zero(span(8192, 4096)).unwrap();
        output.complete(span(0, 4096)).unwrap();
        for beyond in [span(len, 1), span(0, len + 1), span(u64::MAX, 2)] {
            assert!(output.zero(beyond).is_err() && output.complete(beyond).is_err());
        }
        assert!(output.write_at(len - 1, &[1; 2]).is_err());
        output.finish().unwrap();
        let found = fs::metadata(&dest).unwrap();
        assert_eq!(found.len(), len);
        assert!(found.blocks() * 512 < len / 4, "{} blocks", found.blocks());
        let empty = dir.path().join("empty.db");
        OutputFile::create(&empty, false, state(0)).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
    }

    #[test]
    fn a_restore_of_the_same_state_goes_on_and_of_another_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("app.db");
        let content = content(40_960);
        let output = OutputFile::create(&dest, false, state(40_960)).unwrap();
        write(&output, &content, [0, 3, 4], 4096);
        output.write_at(8192, &[0xff; 100]).unwrap(); // Begun and not completed.
        drop(output);

        let output = OutputFile::create(&dest, false, state(40_960)).unwrap();
        assert_eq!(output.done_bytes(), 3 * 4096);
        assert!(output.is_done(span(0, 4096)) && output.is_done(span(12_288, 8192)) && !output.is_done(span(8192, 1)));
        output.zero(span(8192, 4096)).unwrap();
        let mut begun = [1; 100];
        output.file.read_exact_at(&mut begun, 8192).unwrap();
        assert_eq!(begun, [0; 100], "zeros are made where something was begun");
        write(&output, &content, [1, 2, 5, 6, 7, 8, 9], 4096);
        output.finish().unwrap();
        assert_eq!(fs::read(&dest).unwrap(), content);
        fs::remove_file(&dest).unwrap();

        for other in [
            OutputState { volume: VolumeId([9; 16]), ..state(40_960) },
            OutputState { record: RecordHash([9; 32]), ..state(40_960) },
            state(40_961),
        ] {
            let output = OutputFile::create(&dest, false, state(40_960)).unwrap();
            write(&output, &content, [0, 3, 4], 4096);
            drop(output);
            let output = OutputFile::create(&dest, false, other).unwrap();
            assert_eq!(output.done_bytes(), 0, "{other:?}");
            let mut stale = [1; 4096];
            output.file.read_exact_at(&mut stale, 0).unwrap();
            assert_eq!(stale, [0; 4096], "nothing of the other state shines through");
            output.discard().unwrap();
            assert_eq!(names(dir.path()), [""; 0]);
        }
    }

    #[test]
    fn nothing_is_replaced_unless_asked_and_leftovers_are_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("app.db");
        for standing in ["app.db", "app.db-wal", "app.db-journal", "app.db-shm"] {
            let path = dir.path().join(standing);
            fs::write(&path, standing).unwrap();
            let refused = OutputFile::create(&dest, false, state(4)).unwrap_err();
            assert!(
                matches!(&refused, LocalError::WouldOverwrite { path: found, .. } if found.ends_with(standing)),
                "{refused:?}"
            );
            assert_eq!(names(dir.path()), [standing]);
            fs::remove_file(path).unwrap();
        }

        // Something may come to stand there while the restore runs.
        let output = OutputFile::create(&dest, false, state(4)).unwrap();
        write(&output, b"new!", [0], 4);
        fs::write(&dest, "late").unwrap();
        assert!(matches!(output.finish(), Err(LocalError::WouldOverwrite { .. })));
        assert_eq!(fs::read(&dest).unwrap(), b"late");
        assert_eq!(OutputFile::create(&dest, true, state(4)).unwrap().done_bytes(), 4, "the work is not lost");

        // A journal that comes late is as dangerous as one that was there: SQLite would apply it.
        let other = dir.path().join("other.db");
        let output = OutputFile::create(&other, false, state(4)).unwrap();
        write(&output, b"new!", [0], 4);
        let late = dir.path().join("other.db-journal");
        fs::write(&late, "late").unwrap();
        let refused = output.finish().unwrap_err();
        assert!(matches!(&refused, LocalError::WouldOverwrite { path, .. } if *path == late), "{refused:?}");
        assert!(!other.exists());
        fs::remove_file(&late).unwrap();
        OutputFile::create(&other, false, state(4)).unwrap().finish().unwrap();
        fs::remove_file(&other).unwrap();

        for old in ["app.db-wal", "app.db-journal", "app.db-wal.quarantined-1"] {
            fs::write(dir.path().join(old), old).unwrap();
        }
        let output = OutputFile::create(&dest, true, state(4)).unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"late", "nothing is touched before the end");
        let finished = output.finish().unwrap();
        assert!(finished.replaced);
        assert_eq!(fs::read(&dest).unwrap(), b"new!");
        assert_eq!(
            names(dir.path()),
            ["app.db", "app.db-journal.quarantined-1", "app.db-wal.quarantined-1", "app.db-wal.quarantined-2"]
        );
        assert_eq!(fs::read_to_string(&finished.quarantined[0]).unwrap(), "app.db-wal");
    }

    #[test]
    fn bad_places_are_named_errors_and_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let missing = OutputFile::create(&dir.path().join("no/app.db"), false, state(4)).unwrap_err();
        assert!(matches!(missing, LocalError::Missing { .. }), "{missing:?}");
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for force in [false, true] {
            assert!(matches!(OutputFile::create(&folder, force, state(4)), Err(LocalError::Conflict(_))));
        }
        let huge = OutputFile::create(&dir.path().join("huge.db"), false, state(1 << 60)).unwrap_err();
        assert!(matches!(&huge, LocalError::Full { detail, .. } if detail.contains("are free")), "{huge:?}");
        assert_eq!(names(dir.path()), ["folder"]);

        let dest = dir.path().join("app.db");
        let link = dir.path().join("link.db");
        fs::write(&dest, "old").unwrap();
        std::os::unix::fs::symlink(&dest, &link).unwrap();
        let output = OutputFile::create(&link, true, state(4)).unwrap();
        let second = OutputFile::create(&dest, true, state(4)).unwrap_err();
        assert!(matches!(second, LocalError::Busy { .. }), "{second:?}");
        write(&output, b"new!", [0], 4);
        output.finish().unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"new!");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
