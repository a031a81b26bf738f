//! A plain database file becomes a sparse one: once, when it has no room to stay whole (rule S5).
//!
//! What this room promises:
//! 1. What may differ from the state that its pages will be fetched as of is in the new file, durably, before that has the database's name.
//! 2. At every moment the name is that of one or the other, whole: dying anywhere leaves a plain database, or a sparse one that has all that it
//!    needs. What lies beside it then is removed by the next one who tries.
//!
//! The caller holds SQLite's EXCLUSIVE lock on the plain file, so that nobody has it open, and the right to make another of it.

use super::peek::words_of;
use super::residency::{Origin, Residency};
use super::{
    BANK_WORDS, BLOCK_BYTES, BLOCK_UNITS, Basis, HEADER_BYTES, MAGIC, Trace, Tracker, WORD, WalPlace, at, bits, boot,
    commits_left,
};
use crate::durable::{parent, remove_if_there, suffixed, sync_dir};
use crate::error::{LocalError, on};
use littoral_ports::Faults;
use littoral_types::{Generation, PageNo, VolumeId};
use std::fs::OpenOptions;
use std::io::{Error, Result as IoResult};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Points at which a test makes the process die meanwhile.
pub const FAULT_POINTS: [&str; 3] = ["convert.copied", "convert.noted", "convert.renamed"];

/// What a tracker knows of a database that nobody has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Since when.
    pub basis: Basis,
    /// Places that were written since, in units.
    pub units: Vec<u64>,
}

/// What may differ from the last checkpoint, where everything that changed since is known, was published, and the file is as the last one left
/// it. `None` where anything of that is not so.
pub fn settled(store_root: &Path, database: &Path, trace: &Trace) -> Result<Option<Settled>, LocalError> {
    let Some(words) = words_of(&Tracker::path_of(store_root, database))? else { return Ok(None) };
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let is_known =
        word(at::MAGIC) == MAGIC && word(at::UNKNOWN) | word(at::UNKNOWN + 1) == 0 && word(at::BASE_SET) == 1;
    let is_cut = word(at::CUT) | word(at::CUT + 1) != 0;
    let now = boot().unwrap_or_default();
    let is_as_left = word(at::DETACHED) == 1
        && [word(at::BOOT), word(at::BOOT + 1)] == now
        && (0..trace.words.len()).all(|nth| trace.words[nth] == word(at::TRACE + nth));
    if !is_known || is_cut || !is_as_left || word(at::FENCED) != 0 || commits_left(word) > 0 {
        return Ok(None);
    }
    let mut id = [0; 16];
    for (half, at) in id.chunks_exact_mut(WORD).zip(at::BASE_VOLUME..) {
        half.copy_from_slice(&word(at).to_le_bytes());
    }
    let wal = WalPlace { salts: word(at::BASE_WAL), frame: word(at::BASE_WAL + 1) };
    let basis = Basis { volume: VolumeId(id), generation: Generation(word(at::BASE_GENERATION)), wal };
    let blocks =
        words.get(HEADER_BYTES as usize / WORD..).unwrap_or_default().chunks_exact(BLOCK_BYTES as usize / WORD);
    let blocks = blocks.take(usize::try_from(word(at::BLOCKS)).unwrap_or(usize::MAX)).zip(0..);
    let units = blocks.flat_map(|(block, nth)| {
        let (one, other) = block.split_at(BANK_WORDS);
        let words = one.iter().zip(other).zip(0..);
        words
            .flat_map(move |((one, other), word)| bits(one | other).map(move |bit| nth * BLOCK_UNITS + word * 64 + bit))
    });
    Ok(Some(Settled { basis, units: units.collect() }))
}

/// Makes it. `pages` are those that the new file is to hold, as `read` gives them; `magic` is what it begins with instead of the database's
/// own words.
pub fn convert(
    database: &Path,
    sidecar: &Path,
    origin: &Origin,
    magic: &[u8; 16],
    pages: &[PageNo],
    read: &mut dyn FnMut(PageNo, &mut [u8]) -> IoResult<()>,
    faults: &dyn Faults,
) -> Result<(), LocalError> {
    let reach = |point| faults.reach(point).map_err(|crash| on("convert", database)(Error::other(crash)));
    let found = std::fs::metadata(database).map_err(on("look at", database))?;
    let fresh = suffixed(database, ".littoral-new");
    remove_if_there(&fresh)?;
    let options = OpenOptions::new().write(true).create_new(true).open(&fresh);
    let file = options.map_err(on("create", &fresh))?;
    let write = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).map_err(on("write", &fresh));
    file.set_len(found.len()).map_err(on("make room in", &fresh))?;
    file.set_permissions(found.permissions()).map_err(on("set the permissions of", &fresh))?;
    let mut image = vec![0; origin.page_size.len()];
    for page in pages {
        read(*page, &mut image).map_err(on("read", database))?;
        write(&image, page.index() * origin.page_size.bytes())?;
    }
    write(magic, 0)?;
    file.sync_all().map_err(on("sync", &fresh))?;
    reach("convert.copied")?;
    // Beside a plain database it says nothing: whoever dies here leaves one.
    Residency::create_holding(sidecar, origin, pages)?;
    reach("convert.noted")?;
    std::fs::rename(&fresh, database).map_err(on("rename into place", database))?;
    sync_dir(parent(database))?;
    reach("convert.renamed")
}

/// The file is another one than the tracker knew, and holds the same: what it knew holds on.
pub fn tell(store_root: &Path, database: &Path, before: &Trace) -> Result<(), LocalError> {
    let tracker = Tracker::attach(&Tracker::path_of(store_root, database), Some(*before))?;
    tracker.leave(Trace::of(database));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_ports::{Crash, NoFaults};
    use littoral_types::{Epoch, Lsn, PageCount, PageSize, Position};

    #[derive(Debug)]
    struct At(&'static str);

    impl Faults for At {
        fn reach(&self, point: &'static str) -> Result<(), Crash> {
            if point == self.0 { Err(Crash(point)) } else { Ok(()) }
        }
    }

    #[test]
    fn s05_dying_anywhere_while_a_database_becomes_sparse_leaves_a_whole_one_of_either_kind() {
        let magic = *b"Littoral sparse\0";
        for point in FAULT_POINTS {
            let dir = tempfile::tempdir().unwrap();
            let (database, sidecar) = (dir.path().join("app.db"), dir.path().join("app.sparse2"));
            let image = |page: PageNo| vec![page.get() as u8; 4096];
            let all: Vec<u8> = (1..=10).filter_map(PageNo::new).flat_map(image).collect();
            std::fs::write(&database, &all).unwrap();
            let origin = Origin {
                volume: VolumeId([7; 16]),
                position: Position { epoch: Epoch(1), lsn: Lsn(5) },
                page_size: PageSize::new(4096).unwrap(),
                page_count: PageCount(10),
            };
            let kept: Vec<PageNo> = [1, 4].into_iter().filter_map(PageNo::new).collect();
            let run = |faults: &dyn Faults| {
                let mut read = |page: PageNo, into: &mut [u8]| {
                    into.copy_from_slice(&image(page));
                    Ok(())
                };
                convert(&database, &sidecar, &origin, &magic, &kept, &mut read, faults)
            };
            assert!(run(&At(point)).is_err(), "{point}");
            let found = std::fs::read(&database).unwrap();
            if point != "convert.renamed" {
                assert!(found == all, "{point}: it is not what it was");
                run(&NoFaults).unwrap();
            }
            let found = std::fs::read(&database).unwrap();
            assert_eq!((found.len(), &found[..16]), (all.len(), &magic[..]), "{point}");
            assert_eq!((&found[16..4096], &found[3 * 4096..4 * 4096]), (&[1; 4080][..], &[4; 4096][..]), "{point}");
            assert!(crate::holes::bytes_on_disk(&database) < 10 * 4096);
            let residency = Residency::attach(&sidecar).unwrap().unwrap();
            assert_eq!((residency.written_pages(), residency.count_here()), (kept, 2), "{point}");
            assert_eq!(
                std::fs::read_dir(dir.path())
                    .unwrap()
                    .flatten()
                    .filter(|entry| { entry.file_name().to_string_lossy().contains("littoral-new") })
                    .count(),
                0
            );
        }
    }

    #[test]
    fn only_what_is_known_and_published_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("app.db");
        std::fs::write(&database, vec![0; 40 * 4096]).unwrap();
        let trace = || Trace::of(&database).unwrap();
        let open = || Tracker::attach(&Tracker::path_of(dir.path(), &database), Some(trace())).unwrap();
        let found = || settled(dir.path(), &database, &trace()).unwrap();
        assert_eq!(found(), None, "nobody has ever looked at it");
        let basis = Basis { volume: VolumeId([3; 16]), generation: Generation(4), wal: WalPlace::default() };
        let tracker = open();
        tracker.begin();
        tracker.published(basis, 0);
        tracker.mark(5 * 4096, 4096);
        assert_eq!(found(), None, "somebody has it open");
        tracker.leave(Some(trace()));
        assert_eq!(found(), Some(Settled { basis, units: vec![5] }));
        let tracker = open();
        tracker.count_commit();
        tracker.leave(Some(trace()));
        assert_eq!(found(), None, "a commit was not published");
        let tracker = open();
        tracker.shipped(1, true);
        tracker.leave(Some(trace()));
        assert_eq!(found(), Some(Settled { basis, units: vec![5] }));
        // Another file under the same name, which holds the same.
        let before = trace();
        std::fs::copy(&database, dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), &database).unwrap();
        assert_eq!(found(), None, "somebody wrote past us");
        tell(dir.path(), &database, &before).unwrap();
        assert_eq!(found(), Some(Settled { basis, units: vec![5] }));
        std::fs::write(&database, vec![1; 40 * 4096]).unwrap();
        assert_eq!(found(), None);
    }
}
