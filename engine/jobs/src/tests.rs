//! The promises on a real disk, and what damage does.

#![allow(clippy::unwrap_used, clippy::panic)] // A test is one.

use crate::RocksJobs;
use littoral_ports::conformance::jobs::{Subject, all};
use littoral_ports::{JobError, JobQueue};
use littoral_types::{Job, JobNote, JobState, Task, Wish};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

struct OnDisk(TempDir);

impl Subject for OnDisk {
    fn open(&mut self) -> Arc<dyn JobQueue> {
        Arc::new(RocksJobs::open(&self.0.path().join("jobs")).unwrap())
    }
}

#[test]
fn a_job_queue_on_rocksdb_keeps_every_promise() {
    all(&mut || Box::new(OnDisk(tempfile::tempdir().unwrap())));
}

fn wish(name: &str) -> Wish {
    Wish {
        task: Task::VerifyCheckpoint { restore: false },
        database: format!("/data/{name}").into(),
        volume: format!("file:///there/{name}"),
    }
}

/// Some jobs, part of them in RocksDB's tables and part in its log.
fn filled(folder: &Path) -> Vec<Job> {
    for round in 0..3u64 {
        let queue = RocksJobs::open(folder).unwrap();
        for nth in 0..8 {
            let (job, _) = queue.add(&wish(&format!("{round}-{nth}")), round * 10 + nth).unwrap();
            let note = JobNote { blob: format!("b{nth}"), bytes: nth, frames: 1, pages: 9 };
            queue.note(job.id, &[note]).unwrap();
            if nth == 3 {
                queue.put(&Job { state: JobState::Cancelled, ..job }).unwrap();
            }
        }
    }
    RocksJobs::open(folder).unwrap().all().unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copied(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Damage is told, or does not matter: no job is there that was not, and none says what it did not say.
#[test]
fn flipped_bits_and_missing_ends_are_told_or_harmless_and_never_become_a_job() {
    let top = tempfile::tempdir().unwrap();
    let (whole, hurt) = (top.path().join("whole"), top.path().join("hurt"));
    let jobs = filled(&whole);
    let (mut told, mut harmless) = (0, 0);
    for file in files(&whole) {
        let name = file.file_name().unwrap().to_owned();
        let bytes = fs::read(&file).unwrap();
        let mut damages: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), Some(bytes[..bytes.len() / 2].to_vec())];
        for part in 0..6 {
            let mut flipped = bytes.clone();
            if let Some(byte) = flipped.get_mut(bytes.len() * part / 6) {
                *byte ^= 0x10;
            }
            damages.push(Some(flipped));
        }
        for damage in damages {
            copied(&whole, &hurt);
            match &damage {
                None => fs::remove_file(hurt.join(&name)).unwrap(),
                Some(bytes) => fs::write(hurt.join(&name), bytes).unwrap(),
            }
            let read = RocksJobs::open(&hurt).and_then(|queue| {
                let found = queue.all()?;
                for job in &found {
                    queue.notes(job.id)?;
                }
                queue.due(u64::MAX)?;
                queue.add(&wish("new"), 99)?;
                Ok(found)
            });
            match read {
                Ok(found) => {
                    harmless += 1;
                    for job in &found {
                        let before = jobs.iter().find(|known| known.id == job.id);
                        let same =
                            before.is_some_and(|before| before.wish == job.wish && before.created_ms == job.created_ms);
                        assert!(same, "{name:?}: {job:?} was never there");
                    }
                }
                Err(error) => {
                    told += 1;
                    assert!(matches!(error, JobError::Corrupt(_) | JobError::Failed(_)), "{name:?}: {error}");
                }
            }
        }
    }
    println!("{told} told, {harmless} harmless");
    assert!(told > 10 && harmless > 0, "{told} told, {harmless} harmless: this damages nothing");
}

#[test]
fn a_look_beside_whoever_works_sees_what_was_done_and_changes_nothing() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("jobs");
    assert!(RocksJobs::look(&folder).is_err() && !folder.exists(), "a look made a queue");
    let queue = RocksJobs::open(&folder).unwrap();
    let (job, _) = queue.add(&wish("a"), 5).unwrap();
    let note = JobNote { blob: "b".to_owned(), bytes: 1, frames: 1, pages: 1 };
    queue.note(job.id, &[note]).unwrap();
    let before = files(&folder);
    assert_eq!(RocksJobs::look(&folder).unwrap(), [(job.clone(), 1)]);
    assert_eq!(files(&folder), before);
    queue.put(&Job { state: JobState::Cancelled, ..job.clone() }).unwrap();
    assert_eq!(RocksJobs::look(&folder).unwrap()[0].0.state, JobState::Cancelled);
    drop(queue);
    assert_eq!(RocksJobs::look(&folder).unwrap()[0].1, 0);
}

#[test]
fn opened_often_it_does_not_grow() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("jobs");
    let mut most = 0;
    for round in 0..60u64 {
        let queue = RocksJobs::open(&folder).unwrap();
        let (job, _) = queue.add(&wish("a"), round).unwrap();
        queue.put(&Job { state: JobState::Cancelled, ..job.clone() }).unwrap();
        queue.forget(job.id).unwrap();
        drop(queue);
        most = most.max(files(&folder).len());
    }
    let bytes: u64 = files(&folder).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(most < 60 && bytes < 4 << 20, "{most} files, {bytes} bytes: {:?}", files(&folder));
}

/// Making a queue and opening one removes and makes files that a look reads.
#[test]
fn a_look_while_a_queue_is_made_and_opened_anew_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("jobs");
    std::fs::create_dir(&folder).unwrap();
    // Whoever made it was killed before its end.
    std::fs::write(folder.join("LOCK"), b"").unwrap();
    assert_eq!(RocksJobs::look(&folder).unwrap(), []);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                seen = seen.max(RocksJobs::look(&folder).unwrap().len());
            }
            seen
        });
        for round in 0..40 {
            let queue = RocksJobs::open(&folder).unwrap();
            queue.add(&wish(&round.to_string()), round).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        assert!(looking.join().unwrap() > 0);
    });
}
