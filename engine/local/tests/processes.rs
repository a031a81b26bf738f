//! What only shows with more than one process, with a kill, and with a disk that is really full.

#![allow(clippy::unwrap_used, clippy::panic)]

use littoral_local::{LocalError, LocalQuota, OutputFile, OutputState, Store, StoreOptions, WorkerLock};
use littoral_ports::Entropy;
use littoral_types::{ByteSpan, RecordHash, Seq, VolumeId};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const ROLE: &str = "LITTORAL_LOCAL_TEST_ROLE";
const PLACE: &str = "LITTORAL_LOCAL_TEST_PLACE";
const LEN: u64 = 64 << 20;
const PART: u64 = 64 << 10;

#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn store(dir: &Path) -> Store {
    Store::open_or_create(dir, &Zeros, StoreOptions::default()).unwrap()
}

fn state() -> OutputState {
    OutputState { volume: VolumeId([1; 16]), record: RecordHash([2; 32]), len: LEN, zeros: 0 }
}

fn part(at: u64) -> Vec<u8> {
    (0..PART).map(|byte| (byte * 7 + at * 13 + 1) as u8).collect()
}

/// Starts this very test again in another process, with a role to play, and waits for the line it says first.
fn start(role: &str, place: &Path) -> (Child, impl Iterator<Item = String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture", "--include-ignored"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.filter_map(|line| line.split_once("says ").map(|(_, said)| said.to_owned()));
    assert_eq!(lines.next().as_deref(), Some("ready"));
    (child, lines)
}

#[test]
#[ignore = "the other half of the tests below, which start it"]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    match role.as_str() {
        "worker" => {
            let _lock = store(&place).lock_worker().unwrap();
            println!("\nsays ready");
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        "restore" => {
            let output = OutputFile::create(&place, false, state()).unwrap();
            println!("\nsays ready");
            for at in 0..LEN / PART {
                let span = ByteSpan { offset: at * PART, len: PART };
                if !output.is_done(span) {
                    output.write_at(span.offset, &part(at)).unwrap();
                    output.complete(span).unwrap();
                    println!("\nsays {at}");
                }
            }
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn p12_a_second_process_is_told_who_works_and_takes_over_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = start("worker", dir.path());
    let refused = store(dir.path()).lock_worker().unwrap_err();
    let LocalError::Busy { holder, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*holder, format!("process {}", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let _lock: WorkerLock = store(dir.path()).lock_worker().unwrap();
}

#[test]
fn a_killed_restore_goes_on_with_everything_it_had_completed() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("app.db");
    let mut said = 0;
    for stop_after in [3, 40, 200] {
        let (mut child, lines) = start("restore", &dest);
        said += lines.take(stop_after).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!dest.exists());
    }
    let output = OutputFile::create(&dest, false, state()).unwrap();
    let done = (0..LEN / PART).filter(|at| output.is_done(ByteSpan { offset: at * PART, len: PART })).count();
    assert!(done >= said && said == 243, "{done} done, {said} acknowledged");
    for at in 0..LEN / PART {
        let span = ByteSpan { offset: at * PART, len: PART };
        if !output.is_done(span) {
            output.write_at(span.offset, &part(at)).unwrap();
            output.complete(span).unwrap();
        }
    }
    output.finish().unwrap();
    let found = std::fs::read(&dest).unwrap();
    assert!((0..LEN / PART).all(|at| found[(at * PART) as usize..][..PART as usize] == part(at)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A file system of a few megabytes, where the machine lets us have one. It goes whatever happens: lazily, because another
/// test's child may hold a copy of a descriptor between its fork and its exec.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()).status();
        mount.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_named_error_in_every_step_and_nothing_is_half_written() {
    let Some(disk) = Small::mount(4) else {
        eprintln!("not allowed to mount a small file system here: the full disk is not tested");
        return;
    };
    let root = disk.0.path();
    let full = |error: LocalError| assert!(matches!(error, LocalError::Full { .. }), "{error:?}");
    let store = store(&root.join("store"));
    let volume = "app".parse().unwrap();
    store.bind(&root.join("app.db"), &volume, VolumeId([1; 16]), "s3://b").unwrap();
    let before = store.bindings().unwrap();

    // A restore that was promised room, and then others took it.
    let dest = root.join("app.db");
    full(OutputFile::create(&dest, false, OutputState { len: 16 << 20, ..state() }).unwrap_err());
    let output = OutputFile::create(&dest, false, OutputState { len: 3 << 20, ..state() }).unwrap();
    let filler = root.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    full(output.preallocate(ByteSpan { offset: 0, len: 3 << 20 }).unwrap_err());
    full(output.write_at(0, &vec![1; 3 << 20]).unwrap_err());
    assert!(!dest.exists());
    drop(output); // Without progress its file goes, and others take that room too.
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}

    // Bindings.
    full(store.bind(&root.join("b.db"), &"b".parse().unwrap(), VolumeId([2; 16]), "s3://b").unwrap_err());
    assert_eq!(store.bindings().unwrap(), before);
    full(Store::open_or_create(&root.join("other"), &Zeros, StoreOptions::default()).unwrap_err());

    // Scratch.
    let quota = LocalQuota::unlimited();
    let job = store.scratch(Arc::new(quota.clone())).job(&VolumeId([1; 16]), Seq(1)).unwrap();
    let mut writer = job.begin(&[1; 32]).unwrap();
    full(writer.write(&vec![1; 2 << 20]).unwrap_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(job.path_of_dir()).unwrap().count(), 0);
    assert_eq!(littoral_ports::Quota::used(&quota), 0);

    // With room again, everything goes on.
    // Cut, not only removed: another test's child may hold a copy of the descriptor between its fork and its exec, and a
    // removed file keeps its room as long as anyone holds it.
    file.set_len(0).unwrap();
    std::fs::remove_file(&filler).unwrap();
    store.bind(&root.join("b.db"), &"b".parse().unwrap(), VolumeId([2; 16]), "s3://b").unwrap();
    assert_eq!(store.bindings().unwrap().len(), 2);
}

#[test]
fn a_read_only_directory_is_a_named_error() {
    let Some(disk) = Small::mount(4) else {
        eprintln!("not allowed to mount a small file system here: the read-only directory is not tested");
        return;
    };
    let root = disk.0.path();
    let store = store(&root.join("store"));
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(root).status().unwrap().success());
    let denied = |error: LocalError| assert!(matches!(error, LocalError::Denied { .. }), "{error:?}");
    denied(Store::open_or_create(&root.join("other"), &Zeros, StoreOptions::default()).unwrap_err());
    denied(store.bind(&root.join("a.db"), &"a".parse().unwrap(), VolumeId([1; 16]), "s3://b").unwrap_err());
    denied(store.lock_worker().unwrap_err());
    denied(store.scratch(Arc::new(LocalQuota::unlimited())).job(&VolumeId([1; 16]), Seq(1)).unwrap_err());
    denied(OutputFile::create(&root.join("a.db"), false, OutputState { len: 4, ..state() }).unwrap_err());
    assert_eq!(store.bindings().unwrap(), []);
}
