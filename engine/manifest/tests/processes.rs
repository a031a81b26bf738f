//! What only shows with more than one process, with a kill, and with a disk that is really full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_manifest::{LmdbManifest, Options};
use littoral_ports::conformance::manifest::{Dice, delta, id, record, row};
use littoral_ports::{Batch, Manifest, ManifestError};
use littoral_types::{ChangeSeq, ChunkId, DeltaId, Intent, ManifestOp, PageIdentity, PageNo, Seq};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROLE: &str = "LITTORAL_MANIFEST_TEST_ROLE";
const PLACE: &str = "LITTORAL_MANIFEST_TEST_PLACE";
const CHUNKS: u64 = 3;

fn open(place: &Path) -> LmdbManifest {
    LmdbManifest::open_with(place, Options { map_bytes: 1 }).unwrap()
}

/// A batch of which every part says `seq`.
fn batch(seq: u64) -> Batch {
    let page = |chunk| PageNo::new(chunk * 1024 + 1 + seq % 7).unwrap();
    let ops = (0..CHUNKS).map(|chunk| ManifestOp::ReplaceDeltas {
        chunk: ChunkId(chunk),
        replaced: vec![DeltaId(seq - 1)],
        delta: Some(delta(seq, [page(chunk)], page(chunk))),
    });
    let identity = PageIdentity([seq as u8; 16]);
    Batch {
        identities: (0..200).map(|index| (PageNo::from_index(index), identity)).collect(),
        intent: Some(Some(Intent {
            seq: Seq(seq + 1),
            record: vec![seq as u8; 5000],
            body: None,
            identities: vec![],
            owners: None,
        })),
        job: Some(Some(Seq(seq))),
        ..record(1, seq, ops.collect())
    }
}

/// Asserts that exactly the first `seq` batches happened.
fn assert_at(manifest: &LmdbManifest, seq: u64) {
    assert_eq!(manifest.volumes().unwrap(), [row(1, seq)]);
    let rows = manifest.rows(&id(1), ChunkId(0), 99).unwrap();
    assert_eq!(rows.len() as u64, CHUNKS);
    for row in rows {
        assert_eq!(row.deltas.iter().map(|delta| delta.id).collect::<Vec<_>>(), [DeltaId(seq)]);
        let page = row.deltas[0].last_live;
        assert_eq!(manifest.newest_delta(&id(1), page).unwrap(), Some(DeltaId(seq)));
    }
    let known = manifest.identities(&id(1), PageNo::FIRST, 200).unwrap();
    assert!(known.iter().all(|identity| *identity == Some(PageIdentity([seq as u8; 16]))));
    assert_eq!(manifest.intent(&id(1)).unwrap().unwrap().seq, Seq(seq + 1));
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(seq), vec![])));
    let changes = manifest.changes_since(&id(1), Seq(0)).unwrap();
    assert_eq!(changes.iter().map(|change| change.seq().0).collect::<Vec<_>>(), (1..=seq).collect::<Vec<_>>());
    assert_eq!(manifest.changes(ChangeSeq(0), usize::MAX).unwrap(), changes);
}

fn start(role: &str, place: &Path) -> (Child, impl Iterator<Item = String>) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (child, lines.filter_map(|line| line.split_once("says ").map(|(_, said)| said.to_owned())))
}

#[test]
#[ignore = "the other half of the tests below, which start it"]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    match role.as_str() {
        "commits" => {
            let manifest = open(&place);
            let tail = manifest.volumes().unwrap().first().map_or(0, |row| row.tail.seq.0);
            for seq in tail + 1.. {
                manifest.commit(&id(1), &batch(seq)).unwrap();
                println!("\nsays {seq}");
            }
        }
        "fills" => {
            let manifest = open(&place);
            let before = manifest.volumes().unwrap();
            let large = (1..3000).map(|at| ManifestOp::PutDelta {
                chunk: ChunkId(at),
                delta: delta(
                    9,
                    (1..400).map(|page| PageNo::new(at * 1024 + page).unwrap()),
                    PageNo::new(1 << 40).unwrap(),
                ),
            });
            let large = record(1, 5, large.collect());
            assert!(!before.is_empty());
            let answer = manifest.commit(&id(1), &Batch { log: Some((Seq(4), large.log.clone().unwrap().1)), ..large });
            println!("\nsays {answer:?}");
        }
        "fills until it is full" => {
            until_full(&place);
            println!("\nsays it was");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn after_a_kill_every_batch_is_there_whole_or_not_at_all_and_none_that_was_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(20);
    for round in 0..12 {
        let (mut child, mut lines) = start("commits", dir.path());
        let mut acknowledged: u64 = lines.next().unwrap().parse().unwrap();
        let wait = Duration::from_micros(dice.below(60_000));
        std::thread::sleep(wait);
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = lines.last().map_or(acknowledged, |last| last.parse().unwrap());
        let manifest = open(dir.path());
        let tail = manifest.volumes().unwrap()[0].tail.seq.0;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&tail),
            "round {round}: {acknowledged} acknowledged, {tail} found"
        );
        assert_at(&manifest, tail);
    }
}

#[test]
fn a_map_that_another_process_grew_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = open(dir.path());
    for seq in 1..=4 {
        manifest.commit(&id(1), &batch(seq)).unwrap();
    }
    let (mut child, mut lines) = start("fills", dir.path());
    assert_eq!(lines.next().as_deref(), Some("Ok(Some(ChangeSeq(5)))"));
    assert!(child.wait().unwrap().success());
    assert_eq!(manifest.volumes().unwrap(), [row(1, 5)]);
    assert!(manifest.rows(&id(1), ChunkId(0), usize::MAX).unwrap().len() > 2900);
    manifest.commit(&id(1), &record(1, 6, vec![])).unwrap();
}

/// Commits ever more until the disk is full: from then on the batch that failed did nothing, and nothing else was harmed.
fn until_full(place: &Path) {
    let manifest = open(place);
    for seq in 1..=3 {
        manifest.commit(&id(1), &batch(seq)).unwrap();
    }
    let large = |seq: u64| {
        let ops = (0..300).map(|at| ManifestOp::PutDelta {
            chunk: ChunkId(at + 10),
            delta: delta(
                seq,
                (1..100).map(|page| PageNo::new((at + 10) * 1024 + page).unwrap()),
                PageNo::new(1 << 40).unwrap(),
            ),
        });
        Batch { volume: None, log: None, ..record(1, seq, ops.collect()) }
    };
    let mut seq = 4;
    let refused = loop {
        let before = (manifest.rows(&id(1), ChunkId(10), 3).unwrap(), manifest.volumes().unwrap());
        match manifest.commit(&id(1), &large(seq)) {
            Ok(_) => seq += 1,
            Err(error) => {
                let after = (manifest.rows(&id(1), ChunkId(10), 3).unwrap(), manifest.volumes().unwrap());
                assert_eq!(after, before, "nothing was changed");
                break error;
            }
        }
        assert!(seq < 2000, "the disk never became full");
    };
    assert!(matches!(refused, ManifestError::Full(_)), "{refused:?}");
    assert!(seq > 4, "something fitted before");
    let again = manifest.commit(&id(1), &large(seq)).unwrap_err();
    assert!(matches!(again, ManifestError::Full(_)), "{again:?}");
    // Everything of before is there, also for someone who comes later.
    drop(manifest);
    let manifest = open(place);
    let rows = manifest.rows(&id(1), ChunkId(10), usize::MAX).unwrap();
    assert_eq!(rows.len(), 300);
    assert!(rows.iter().all(|row| row.deltas.len() as u64 == seq - 4));
}

/// A small file system. It goes whatever happens: lazily, because another test's child may hold a copy of a descriptor
/// between its fork and its exec.
struct Small(tempfile::TempDir);

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("not allowed to mount a small file system here: only the limited file below is tested");
        return;
    }
    let disk = Small(dir);
    let place = disk.0.path().join("manifest");
    until_full(&place);
    // With room again, everything goes on.
    let remount = Command::new("mount").args(["-o", "remount,size=60m"]).arg(disk.0.path()).status();
    assert!(remount.unwrap().success());
    let manifest = open(&place);
    manifest.commit(&id(1), &record(1, 4, vec![])).unwrap();
    assert_eq!(manifest.volumes().unwrap(), [row(1, 4)]);
}

#[test]
fn a_file_that_may_not_grow_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The shell sets the limit, and leaves the signal ignored that would kill instead of failing the write.
    let script = "trap '' XFSZ; ulimit -f 8000; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(ROLE, "fills until it is full")
        .env(PLACE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("says it was"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
