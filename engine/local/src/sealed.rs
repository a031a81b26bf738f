//! Copies of WALs whose frames were about to vanish before anybody had shipped them (rule S14).
//!
//! What this room promises:
//! 1. A copy has the WAL's bytes at the WAL's places: whoever copies a frame twice, or at the same time as another, changes nothing.
//! 2. A frame is copied only if it follows from the one before, by SQLite's own checksum: what was overwritten while it was read is not.
//! 3. A copy's name says which WAL it is, in the order of all that were witnessed, and where the one before it ended: a reader who
//!    follows them finds every commit, or finds that one is missing.
//!
//! They are not synced: after a power failure nothing is believed that does not follow.
//!
//! What may never enter: what is done with them, and when.

use crate::durable::create_dirs;
use crate::error::{LocalError, on};
use crate::tracker::WalPlace;
use littoral_format::wal::{self, FRAME_BYTES, FrameHead, HEADER_BYTES, WalHeader};
use std::fs::{self, File, OpenOptions};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Frames that are copied at once, in bytes.
const STEP_BYTES: u64 = 256 << 10;

/// The copies of a database's WALs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedWals {
    folder: PathBuf,
}

/// One copy.
#[derive(Debug)]
pub struct SealedWal {
    /// Which WAL, in the order of all that were witnessed.
    pub wals: u64,
    /// Where the one before it ended.
    pub previous: WalPlace,
    /// What it begins with.
    pub header: WalHeader,
    /// Its last frame.
    pub frames: u64,
    file: File,
}

/// How far a copy went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The last frame that is copied.
    pub frame: u64,
    /// Bytes that came by it.
    pub bytes: u64,
}

impl SealedWals {
    /// Where a database's lie.
    pub fn of(store_root: &Path, database: &Path) -> Self {
        let hash = littoral_format::hash::blob(database.as_os_str().as_encoded_bytes()).to_string();
        Self { folder: store_root.join("wal").join(hash.get(..16).unwrap_or_default()) }
    }

    /// How much of a WAL's file a frame of it takes; `None` where none can be read there.
    pub fn frame_bytes(wal: &Path) -> Option<u64> {
        let mut bytes = [0; HEADER_BYTES as usize];
        File::open(wal).ok()?.read_exact_at(&mut bytes, 0).ok()?;
        Some(WalHeader::decode(&bytes).ok()?.frame_bytes())
    }

    /// Copies the frames after `from` and up to `to` of a WAL, and tells which page each holds. It stops before one that does not follow
    /// from the one before it, and copies nothing where another WAL lies there by now.
    pub fn copy(
        &self,
        wal: &Path,
        (wals, salts): (u64, [u32; 2]),
        previous: WalPlace,
        frames: Range<u64>,
        told: &mut dyn FnMut(WalHeader, u32),
    ) -> Result<Copied, LocalError> {
        let Range { start: from, end: to } = frames;
        let nothing = Copied { frame: from, bytes: 0 };
        let source = match File::open(wal) {
            // It was taken away meanwhile, and what was in it with it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(nothing),
            opened => opened.map_err(on("open", wal))?,
        };
        let mut bytes = [0; HEADER_BYTES as usize];
        if source.read_exact_at(&mut bytes, 0).is_err() {
            return Ok(nothing);
        }
        let corrupt =
            |error: littoral_format::FormatError| LocalError::Corrupt { path: wal.into(), detail: error.to_string() };
        let header = WalHeader::decode(&bytes).map_err(corrupt)?;
        if header.salts != salts {
            // It has started over meanwhile.
            return Ok(nothing);
        }
        let mut checksum = header.checksum;
        if from > 0 {
            let mut head = [0; FRAME_BYTES as usize];
            source.read_exact_at(&mut head, wal::frame_at(header.page_size, from)).map_err(on("read", wal))?;
            let head = FrameHead::decode(&head);
            if head.salts != header.salts {
                return Ok(nothing);
            }
            checksum = head.checksum;
        }
        let path = self.folder.join(spelled(wals, previous));
        let options = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let copy = match options() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_dirs(&self.folder)?;
                options()
            }
            opened => opened,
        };
        let copy = copy.map_err(on("open", &path))?;
        copy.write_all_at(&bytes, 0).map_err(on("write", &path))?;
        let each = header.frame_bytes();
        let step = (STEP_BYTES / each).max(1);
        let mut copied = Copied { frame: from, bytes: 0 };
        let mut frames = Vec::new();
        while copied.frame < to {
            let count = step.min(to - copied.frame);
            frames.resize((count * each) as usize, 0);
            let at = wal::frame_at(header.page_size, copied.frame + 1);
            source.read_exact_at(&mut frames, at).map_err(on("read", wal))?;
            let mut good = 0;
            for frame in frames.chunks_exact(each as usize) {
                let Some(head) = header.following(checksum, frame) else { break };
                checksum = head.checksum;
                told(header, head.page);
                good += 1;
            }
            let whole = frames.get(..(good * each) as usize).unwrap_or_default();
            copy.write_all_at(whole, at).map_err(on("write", &path))?;
            copied = Copied { frame: copied.frame + good, bytes: copied.bytes + whole.len() as u64 };
            if good < count {
                break;
            }
        }
        Ok(copied)
    }

    /// All copies, in their order. What cannot be read is left out: who follows them finds that something is missing.
    pub fn list(&self) -> Result<Vec<SealedWal>, LocalError> {
        let mut found = Vec::new();
        for (path, wals, previous) in self.names()? {
            if let Some(sealed) = open(&path, wals, previous) {
                found.push(sealed);
            }
        }
        found.sort_by_key(|sealed| sealed.wals);
        Ok(found)
    }

    /// Copies of other WALs than these go: of earlier ones, and what a tracker left that counted otherwise.
    pub fn keep_only(&self, wals: RangeInclusive<u64>) -> Result<(), LocalError> {
        for (path, ..) in self.names()?.into_iter().filter(|(_, of, _)| !wals.contains(of)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(on("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> Result<u64, LocalError> {
        use std::os::unix::fs::MetadataExt;
        let names = self.names()?;
        Ok(names.iter().filter_map(|(path, ..)| fs::metadata(path).ok()).map(|found| found.blocks() * 512).sum())
    }

    fn names(&self) -> Result<Vec<(PathBuf, u64, WalPlace)>, LocalError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(on("list", &self.folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(on("list", &self.folder))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some((wals, previous)) = parsed(&name) {
                names.push((path, wals, previous));
            }
        }
        Ok(names)
    }
}

impl SealedWal {
    /// The frames after one and up to another, in order, each with its page: as long as each follows from the one before, the first from
    /// `checksum`. Whatever does not is the end.
    pub fn frames(
        &self,
        after: u64,
        mut checksum: [u32; 2],
        mut each: impl FnMut(u64, FrameHead, &[u8]) -> bool,
    ) -> Result<(), LocalError> {
        let mut bytes = vec![0; self.header.frame_bytes() as usize];
        for frame in after + 1..=self.frames {
            let at = wal::frame_at(self.header.page_size, frame);
            if self.file.read_exact_at(&mut bytes, at).is_err() {
                return Ok(());
            }
            let Some(head) = self.header.following(checksum, &bytes) else { return Ok(()) };
            checksum = head.checksum;
            if !each(frame, head, bytes.get(FRAME_BYTES as usize..).unwrap_or_default()) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn open(path: &Path, wals: u64, previous: WalPlace) -> Option<SealedWal> {
    let file = File::open(path).ok()?;
    let mut bytes = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let header = WalHeader::decode(&bytes).ok()?;
    let frames = file.metadata().ok()?.len().saturating_sub(HEADER_BYTES) / header.frame_bytes();
    Some(SealedWal { wals, previous, header, frames, file })
}

fn spelled(wals: u64, previous: WalPlace) -> String {
    format!("{wals:016x}-{:016x}-{:016x}", previous.salts, previous.frame)
}

fn parsed(name: &str) -> Option<(u64, WalPlace)> {
    let mut parts = name.split('-').map(|part| u64::from_str_radix(part, 16));
    let (wals, salts, frame) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let place = WalPlace { salts, frame };
    (spelled(wals, place) == name).then_some((wals, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;
    const BEFORE: WalPlace = WalPlace { salts: 7, frame: 3 };

    fn sum([mut one, mut two]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| u32::from_be_bytes(pair[at..at + 4].try_into().unwrap());
            one = one.wrapping_add(word(0)).wrapping_add(two);
            two = two.wrapping_add(word(4)).wrapping_add(one);
        }
        [one, two]
    }

    fn spell(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// A WAL as SQLite writes it, each frame a commit of the page of its number.
    fn wal(salts: [u32; 2], frames: u32, fill: u8) -> Vec<u8> {
        let mut bytes = spell(&[0x377f_0683, 3_007_000, PAGE as u32, 0, salts[0], salts[1]]);
        let mut checksum = sum([0, 0], &bytes);
        bytes.extend(spell(&checksum));
        for frame in 1..=frames {
            let (head, page) = (spell(&[frame, frame]), vec![fill ^ frame as u8; PAGE]);
            checksum = sum(sum(checksum, &head), &page);
            bytes.extend([head, spell(&salts), spell(&checksum), page].concat());
        }
        bytes
    }

    struct Rig {
        dir: tempfile::TempDir,
        sealed: SealedWals,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sealed = SealedWals::of(dir.path(), &dir.path().join("app.db"));
            Self { dir, sealed }
        }

        fn copy(&self, bytes: &[u8], of: (u64, [u32; 2]), frames: Range<u64>) -> Copied {
            let wal = self.dir.path().join("app.db-wal");
            fs::write(&wal, bytes).unwrap();
            self.sealed.copy(&wal, of, BEFORE, frames, &mut |_, _| ()).unwrap()
        }

        /// The pages that follow from the beginning, by their first bytes.
        fn follows(&self) -> Vec<u8> {
            let mut found = Vec::new();
            for sealed in self.sealed.list().unwrap() {
                let checksum = sealed.header.checksum;
                sealed
                    .frames(0, checksum, |_, _, page| {
                        found.push(page[0]);
                        true
                    })
                    .unwrap();
            }
            found
        }
    }

    #[test]
    fn s14_whoever_copies_again_or_in_pieces_makes_the_same_copy() {
        let (rig, salts) = (Rig::new(), [1, 2]);
        let bytes = wal(salts, 9, 0);
        assert_eq!(rig.copy(&bytes, (5, salts), 0..4).frame, 4);
        assert_eq!(rig.copy(&bytes, (5, salts), 2..9).frame, 9);
        assert_eq!(rig.copy(&bytes, (5, salts), 0..9).frame, 9);
        assert_eq!(rig.follows(), (1..=9).collect::<Vec<u8>>());
        let sealed = &rig.sealed.list().unwrap()[0];
        assert_eq!((sealed.wals, sealed.previous, sealed.frames), (5, BEFORE, 9));
        rig.sealed.keep_only(6..=9).unwrap();
        assert!(rig.sealed.list().unwrap().is_empty());
    }

    #[test]
    fn s14_a_wal_that_has_started_over_is_never_copied_as_the_one_before() {
        let (rig, salts) = (Rig::new(), [1, 2]);
        let before = wal(salts, 6, 0);
        rig.copy(&before, (5, salts), 0..6);
        let over = wal([2, 99], 8, 0x40);
        for from in [0, 3] {
            assert_eq!(rig.copy(&over, (5, salts), from..8), Copied { frame: from, bytes: 0 });
        }
        assert_eq!(rig.follows(), [1, 2, 3, 4, 5, 6]);
        // The header is still the old one, and frames are new already.
        let mut torn = before.clone();
        let at = HEADER_BYTES as usize + 2 * (FRAME_BYTES as usize + PAGE);
        torn[at..].copy_from_slice(&over[at..before.len()]);
        assert_eq!(rig.copy(&torn, (5, salts), 0..6).frame, 2);
        assert_eq!(rig.follows(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn s14_no_frame_is_copied_or_read_of_which_a_bit_is_wrong() {
        let salts = [1, 2];
        let good = wal(salts, 4, 0);
        for at in (HEADER_BYTES as usize..good.len()).step_by(61) {
            let frame = (at - HEADER_BYTES as usize) as u64 / (FRAME_BYTES + PAGE as u64);
            let mut bad = good.clone();
            bad[at] ^= 4;
            let rig = Rig::new();
            assert_eq!(rig.copy(&bad, (5, salts), 0..4).frame, frame, "{at}");
            // And the same in the copy.
            let rig = Rig::new();
            rig.copy(&good, (5, salts), 0..4);
            let (path, ..) = rig.sealed.names().unwrap().remove(0);
            fs::write(path, &bad).unwrap();
            assert_eq!(rig.follows().len() as u64, frame, "{at}");
        }
    }
}
