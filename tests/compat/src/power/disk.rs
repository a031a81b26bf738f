//! The disk of a machine whose power can fail.
//!
//! The machine's folder is its page cache: what its processes read and write, mapped memory included. Behind it, this keeps what is
//! durable: the bytes and the change time of each file, and the names in each folder.
//!
//! 1. A sync makes durable what the file, or the folder, holds at that moment, before it returns (`preload.c` asks for it). One of the data
//!    alone leaves the change time as it was, unless the length is another.
//! 2. At any other moment the system may write out any block of any file, and commit names: all folders' at one moment, as the journal of
//!    a file system does.
//! 3. A file does not become shorter before names are gone that went earlier: SQLite cuts a database after it has deleted the journal that
//!    holds what it cuts off, and syncs neither.
//! 4. When the power fails, of each block that was not synced either version stays, whole or torn at a sector; so do lengths, change
//!    times and names.

use crate::chance::Chance;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;
/// What a page cache writes at once.
const BLOCK: usize = 4096;

/// How a sync of all there is to a file is asked for, in place of a length.
const ALL: i64 = -1;

/// A change time.
type Stamp = (i64, i64);

/// A file or folder as it is durably.
#[derive(Debug)]
struct Kept {
    /// Open as long as the disk knows it, so that its number is nobody else's.
    held: File,
    bytes: Vec<u8>,
    stamp: Stamp,
}

/// Names in a folder: the number of what has them, and whether it is a folder.
type Names = BTreeMap<OsString, (u64, bool)>;

#[derive(Debug)]
struct Image {
    root: PathBuf,
    chance: Chance,
    kept: HashMap<u64, Kept>,
    names: HashMap<u64, Names>,
    /// Change times that are not what the file system says: of files that were put back and not changed since.
    shown: HashMap<u64, (Stamp, Stamp)>,
    /// Syncing a folder makes durable what is in that folder alone.
    is_strict: bool,
    is_on: bool,
    /// Something is written out now and then that nobody asked for.
    writes_back: bool,
    /// Syncs that were answered.
    syncs: u64,
    /// Syncs after which the power fails.
    left: Option<u64>,
}

/// The disk, and the line on which it is asked.
#[derive(Debug)]
pub struct Disk {
    image: Arc<Mutex<Image>>,
    line: PathBuf,
}

impl Disk {
    /// The disk of a machine's folder; its files lie beside that.
    pub fn new(root: &Path, chance: Chance, is_strict: bool) -> Self {
        let line = root.with_extension("disk");
        let image = Image {
            root: root.to_owned(),
            chance,
            kept: HashMap::new(),
            names: HashMap::new(),
            shown: HashMap::new(),
            is_strict,
            is_on: true,
            writes_back: true,
            syncs: 0,
            left: None,
        };
        let disk = Self { image: Arc::new(Mutex::new(image)), line };
        disk.image().everything_is_durable();
        let (image, listener) = (disk.image.clone(), UnixListener::bind(&disk.line).unwrap());
        std::thread::spawn(move || {
            for asked in listener.incoming() {
                let Ok(asked) = asked else { return };
                if answer(&image, asked).is_none() {
                    return;
                }
            }
        });
        disk
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap()
    }

    /// Where it is asked.
    pub fn line(&self) -> &Path {
        &self.line
    }

    /// How often it was asked.
    pub fn syncs(&self) -> u64 {
        self.image().syncs
    }

    /// The system writes something out, as it does now and then.
    pub fn write_back(&self) {
        self.image().write_back();
    }

    /// Everything is written out.
    pub fn all_is_durable(&self) {
        self.image().everything_is_durable();
    }

    /// From now on nothing is written out unless somebody asks for it.
    pub fn is_lazy(&self) {
        self.image().writes_back = false;
    }

    /// All names are what they are now.
    pub fn commits_names(&self) {
        self.image().commit_all_names();
    }

    /// Some files are written out.
    pub fn writes_out(&self, which: impl Fn(&Path) -> bool) {
        let mut image = self.image();
        let root = image.root.clone();
        let mut found = HashMap::new();
        list(&root, &mut found);
        for (number, path) in found {
            if let Some(kept) = image.kept.get_mut(&number).filter(|_| which(&path)) {
                kept.bytes = read(&kept.held);
            }
        }
    }

    /// The power fails after so many more syncs.
    pub fn cut_after(&self, syncs: u64) {
        self.image().left = Some(syncs);
    }

    /// Whether it has.
    pub fn is_cut(&self) -> bool {
        !self.image().is_on
    }

    /// No sync is answered any more. The processes are to be killed before [`Disk::put_back`].
    pub fn cut(&self) {
        self.image().is_on = false;
    }

    /// The machine's folder becomes what the disk holds, and the disk answers again. What is told of change times goes to a file.
    /// `is_all_lost`: nothing that was not synced came to be written by chance.
    pub fn put_back(&self, times: &Path, is_all_lost: bool) {
        let mut image = self.image();
        if !is_all_lost {
            image.fail();
        }
        image.rebuild();
        fs::write(times, image.times()).unwrap();
        image.left = None;
        image.is_on = true;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.image.lock().unwrap().root = PathBuf::new();
        // The one who answers finds out and goes.
        let _ = UnixStream::connect(&self.line);
    }
}

/// One question: which process syncs which of its files, from where on and how much. `None` when the disk is gone.
fn answer(image: &Mutex<Image>, mut asked: UnixStream) -> Option<()> {
    let mut text = String::new();
    let _ = BufReader::new(&asked).read_line(&mut text);
    let mut image = image.lock().unwrap();
    if image.root.as_os_str().is_empty() {
        return None;
    }
    image.is_on &= image.left != Some(0);
    let words: Vec<i64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if let ([process, file, offset, len], true) = (words.as_slice(), image.is_on) {
        let path = PathBuf::from(format!("/proc/{process}/fd/{file}"));
        if image.writes_back && image.chance.once_in(8) {
            image.write_back();
        }
        // Who died meanwhile is told nothing.
        if image.sync(&path, *offset, *len).is_some() {
            image.syncs += 1;
            image.left = image.left.map(|left| left.saturating_sub(1));
            let _ = asked.write_all(b"k");
        }
    }
    Some(())
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.ctime(), meta.ctime_nsec())
}

fn read(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().map_or(0, |meta| meta.len())).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => done += count,
        }
    }
    bytes.truncate(done);
    bytes
}

impl Image {
    fn stamp_of(&self, meta: &Metadata) -> Stamp {
        match self.shown.get(&meta.ino()) {
            Some((is, shown)) if *is == stamp(meta) => *shown,
            _ => stamp(meta),
        }
    }

    fn sync(&mut self, path: &Path, offset: i64, len: i64) -> Option<()> {
        let target = fs::read_link(path).ok()?;
        if !target.starts_with(&self.root) {
            return Some(());
        }
        let meta = fs::metadata(path).ok()?;
        if meta.is_dir() {
            match self.is_strict {
                true => self.commit_names(&target, false),
                false => self.commit_all_names(),
            }
            return Some(());
        }
        // Opened by number: a file that has lost its name is one too.
        let file = File::open(path).ok()?;
        let stamp = self.stamp_of(&meta);
        let now = read(&file);
        if self.kept.get(&meta.ino()).is_some_and(|kept| now.len() < kept.bytes.len()) {
            self.commit_all_names();
        }
        let kept = self.kept.entry(meta.ino()).or_insert_with(|| Kept { held: file, bytes: Vec::new(), stamp });
        if let (Ok(start), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) {
            let end = (start + len).min(now.len());
            kept.bytes.resize(kept.bytes.len().max(end), 0);
            kept.bytes[start..end].copy_from_slice(&now[start..end]);
        } else {
            let is_all = len == ALL || now.len() != kept.bytes.len();
            kept.bytes = now;
            if is_all || !self.is_strict && self.chance.once_in(2) {
                kept.stamp = stamp;
            }
        }
        Some(())
    }

    fn everything_is_durable(&mut self) {
        self.commit_all_names();
        for kept in self.kept.values_mut() {
            kept.bytes = read(&kept.held);
        }
    }

    fn commit_all_names(&mut self) {
        let root = self.root.clone();
        self.commit_names(&root, true);
    }

    fn commit_names(&mut self, folder: &Path, is_deep: bool) {
        let Ok(number) = fs::metadata(folder).map(|meta| meta.ino()) else { return };
        let mut names = Names::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if !(meta.is_dir() || meta.is_file()) {
                continue;
            }
            // Its name may have become another's in between; what is open is what counts.
            let Ok(held) = File::open(&path) else { continue };
            let Ok(meta) = held.metadata() else { continue };
            let stamp = self.stamp_of(&meta);
            names.insert(entry.file_name(), (meta.ino(), meta.is_dir()));
            self.kept.entry(meta.ino()).or_insert_with(|| Kept { held, bytes: Vec::new(), stamp });
            if meta.is_dir() && (is_deep || !self.names.contains_key(&meta.ino())) {
                match is_deep {
                    true => self.commit_names(&path, true),
                    false => drop(self.names.insert(meta.ino(), Names::new())),
                }
            }
        }
        // Taken away meanwhile: whoever named it has another set of names by now.
        let Ok(held) = File::open(folder) else { return };
        self.kept.entry(number).or_insert_with(|| Kept { held, bytes: Vec::new(), stamp: (0, 0) });
        self.names.insert(number, names);
    }

    fn write_back(&mut self) {
        if self.chance.once_in(3) {
            self.commit_all_names();
        }
        let mut numbers: Vec<u64> = self.kept.keys().copied().collect();
        numbers.sort_unstable();
        let share = 1 + self.chance.under(4);
        for number in numbers {
            if self.chance.once_in(2) {
                self.land(number, share, BLOCK);
            }
        }
    }

    /// Some blocks of a file become durable: one in so many; all for one, none for zero.
    fn land(&mut self, number: u64, share: u64, block: usize) {
        let Some(kept) = self.kept.get(&number) else { return };
        let Ok(meta) = kept.held.metadata() else { return };
        if !meta.is_file() || share == 0 {
            return;
        }
        let (now, stamp) = (read(&kept.held), self.stamp_of(&meta));
        if now.len() < kept.bytes.len() {
            if self.chance.once_in(2) {
                return;
            }
            self.commit_all_names();
        }
        let (chance, kept) = (&mut self.chance, self.kept.get_mut(&number).unwrap());
        if now.len() != kept.bytes.len() {
            // Cut at once, or not; but what grows does so block by block.
            let more = now.len().saturating_sub(kept.bytes.len());
            let between = kept.bytes.len() + chance.under(more as u64 + 1) as usize;
            let len = match more {
                0 => now.len(),
                _ => *chance.pick(&[kept.bytes.len(), now.len(), between.next_multiple_of(BLOCK).min(now.len())]),
            };
            kept.bytes.resize(len, 0);
        }
        for (old, new) in kept.bytes.chunks_mut(block).zip(now.chunks(block)) {
            let len = old.len().min(new.len());
            if old[..len] != new[..len] && chance.once_in(share) {
                old[..len].copy_from_slice(&new[..len]);
            }
        }
        if chance.once_in(2) {
            kept.stamp = stamp;
        }
    }

    fn fail(&mut self) {
        if self.chance.once_in(2) {
            self.commit_all_names();
        }
        let mut numbers: Vec<u64> = self.kept.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let share = *self.chance.pick(&[0, 0, 1, 2, 2, 4]);
            let block = *self.chance.pick(&[SECTOR, BLOCK]);
            self.land(number, share, block);
        }
    }

    /// The folder becomes what is durable. Files keep their numbers as far as they still have a name to be found by.
    fn rebuild(&mut self) {
        let root = self.root.clone();
        let aside = root.with_extension("aside");
        let number = fs::metadata(&root).unwrap().ino();
        let mut found = HashMap::new();
        fs::create_dir(&aside).unwrap();
        gather(&root, &aside, &mut found);
        let kept = std::mem::take(&mut self.kept);
        let names = std::mem::take(&mut self.names);
        self.shown.clear();
        let mut stamps = Vec::new();
        place(&root, number, &kept, &names, &mut found, &mut stamps);
        drop(kept);
        fs::remove_dir_all(&aside).unwrap();
        for (path, shown) in stamps {
            let meta = fs::metadata(path).unwrap();
            self.shown.insert(meta.ino(), (stamp(&meta), shown));
        }
        self.everything_is_durable();
    }

    fn times(&self) -> String {
        let mut text = String::new();
        for (number, (is, shown)) in &self.shown {
            writeln!(text, "{number} {} {} {} {}", is.0, is.1, shown.0, shown.1).unwrap();
        }
        text
    }
}

/// All files of a folder, by number.
fn list(folder: &Path, found: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        match meta.is_dir() {
            true => list(&path, found),
            false => drop(found.insert(meta.ino(), path)),
        }
    }
}

/// Takes all files of a folder out of it, and its folders away.
fn gather(folder: &Path, aside: &Path, found: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            gather(&path, aside, found);
            fs::remove_dir(&path).unwrap();
        } else if meta.is_file() && !found.contains_key(&meta.ino()) {
            let to = aside.join(meta.ino().to_string());
            fs::rename(&path, &to).unwrap();
            found.insert(meta.ino(), to);
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
}

fn place(
    folder: &Path,
    number: u64,
    kept: &HashMap<u64, Kept>,
    names: &HashMap<u64, Names>,
    found: &mut HashMap<u64, PathBuf>,
    stamps: &mut Vec<(PathBuf, Stamp)>,
) {
    let mut placed = HashSet::new();
    for (name, (number, is_folder)) in names.get(&number).into_iter().flatten() {
        let path = folder.join(name);
        if *is_folder {
            fs::create_dir(&path).unwrap();
            place(&path, *number, kept, names, found, stamps);
            continue;
        }
        let Some(one) = kept.get(number) else { continue };
        if let Some(from) = found.remove(number) {
            fs::rename(from, &path).unwrap();
        }
        let file = File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        file.set_len(one.bytes.len() as u64).unwrap();
        file.write_all_at(&one.bytes, 0).unwrap();
        if placed.insert(*number) {
            stamps.push((path, one.stamp));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(disk: &Disk, path: &Path) -> Option<Vec<u8>> {
        disk.cut();
        disk.put_back(&path.with_extension("times"), false);
        fs::read(path).ok()
    }

    /// A sync as a process of the machine asks for it.
    fn sync(disk: &Disk, path: &Path) {
        use std::os::fd::AsRawFd;
        let file = File::open(path).unwrap();
        let mut line = UnixStream::connect(disk.line()).unwrap();
        writeln!(line, "{} {} 0 -1", std::process::id(), file.as_raw_fd()).unwrap();
        let mut answer = [0];
        std::io::Read::read_exact(&mut line, &mut answer).unwrap();
    }

    #[test]
    fn what_was_synced_stays_and_of_the_rest_each_block_may_be_either() {
        let (mut kept, mut lost, mut torn, mut unnamed) = (0, 0, 0, 0);
        for seed in 0..60 {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("machine");
            fs::create_dir(&root).unwrap();
            let disk = Disk::new(&root, Chance::new(seed), seed % 2 == 0);
            let (path, other) = (root.join("file"), root.join("other"));
            fs::write(&path, vec![1; 8 * BLOCK]).unwrap();
            sync(&disk, &path);
            sync(&disk, &root);
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(&vec![2; 4 * BLOCK], 0).unwrap();
            sync(&disk, &path);
            file.write_all_at(&vec![3; 2 * BLOCK], BLOCK as u64).unwrap();
            fs::write(&other, b"never synced").unwrap();
            let number = file.metadata().unwrap().ino();
            let found = durable(&disk, &path).expect("its name was synced");
            assert_eq!(fs::metadata(&path).unwrap().ino(), number);
            assert_eq!(found.len(), 8 * BLOCK);
            assert!(found[..BLOCK].iter().all(|byte| *byte == 2) && found[4 * BLOCK..].iter().all(|byte| *byte == 1));
            let middle = &found[BLOCK..3 * BLOCK];
            assert!(middle.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            match middle.iter().filter(|byte| **byte == 3).count() {
                0 => lost += 1,
                all if all == 2 * BLOCK => kept += 1,
                _ => torn += 1,
            }
            unnamed += usize::from(!other.exists());
        }
        assert!(kept > 3 && lost > 3 && torn > 3 && unnamed > 3, "{kept} {lost} {torn} {unnamed}");
    }
}
