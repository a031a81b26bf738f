//! The tables, and what each call reads and writes.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `jobs` | job | job row |
//! | `ready` | not before, job | job's number |
//! | `tokens` | token's hash | number of the job that is not over |
//! | `progress` | job, blob's name | note row |
//! | `default` | `last` | the last number given |

use littoral_format::FormatError;
use littoral_format::rows::{job as job_row, job_note, keys, number};
use littoral_ports::jobs::{check_forget, check_put, ready_at};
use littoral_ports::{JobError, JobQueue};
use littoral_types::limits::{JOB_NOTES_MAX, JOBS_MAX};
use littoral_types::{Job, JobId, JobNote, Wish};
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, BoundColumnFamily, ColumnFamilyDescriptor, CompactOptions,
    DBCompressionType, DBRecoveryMode, DBWithThreadMode, DEFAULT_COLUMN_FAMILY_NAME, Direction, ErrorKind,
    IteratorMode, LogLevel, MultiThreaded, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const JOBS: &str = "jobs";
const READY: &str = "ready";
const TOKENS: &str = "tokens";
const PROGRESS: &str = "progress";
const FAMILIES: [&str; 4] = [JOBS, READY, TOKENS, PROGRESS];
const LAST: &[u8] = b"last";
/// Of each column family, in memory: a queue holds few small rows.
const BUFFER_BYTES: usize = 256 << 10;
/// So much is set aside for the list of files.
const MANIFEST_BYTES: usize = 64 << 10;
const CACHE_BYTES: usize = 1 << 20;
const FILES_MAX: i32 = 64;
/// Files of one table, from which on they are merged.
const TIDY_FILES: usize = 4;
/// How often a look begins again, and how long it waits before it does.
const LOOKS_MAX: u32 = 20;
const LOOK_PAUSE: Duration = Duration::from_millis(25);
const LOG_BYTES_MAX: usize = 64 << 10;

type Rocks = DBWithThreadMode<MultiThreaded>;

/// Keeps jobs in a folder.
#[derive(Debug)]
pub struct RocksJobs {
    db: Rocks,
    /// Whoever reads in order to write is alone.
    writes: Mutex<()>,
}

impl RocksJobs {
    /// Opens the queue in a folder, or makes one there. Only for who holds the store's worker lock.
    pub fn open(folder: &Path) -> Result<Self, JobError> {
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, options()));
        let db = Rocks::open_cf_descriptors(&options(), folder, families).map_err(failed)?;
        let queue = Self { db, writes: Mutex::new(()) };
        // What is damaged is found here, and not in the middle of something.
        queue.all()?;
        queue.last()?;
        queue.tidy()?;
        Ok(queue)
    }

    /// The jobs in a folder as they stand just now, each with how many blobs are noted of it, whoever else has it open. Nothing is
    /// changed there, nor made.
    pub fn look(folder: &Path) -> Result<Vec<(Job, usize)>, JobError> {
        // The library makes the folder otherwise.
        if !folder.is_dir() {
            return Err(JobError::Failed(format!("{}: there is no job queue", folder.display())));
        }
        // Whoever makes it writes this last, and whoever died before is forgotten by the next one: nothing waits there yet.
        if !folder.join("CURRENT").exists() {
            return Ok(Vec::new());
        }
        let mut read_only = options();
        read_only.create_if_missing(false);
        let mut looks = 0;
        let db = loop {
            let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, options()));
            looks += 1;
            match Rocks::open_cf_descriptors_read_only(&read_only, folder, families, false) {
                Ok(db) => break db,
                // Whoever has it open may have removed a file that was about to be read, or not have made a table yet.
                Err(_) if looks < LOOKS_MAX => std::thread::sleep(LOOK_PAUSE),
                Err(error) => return Err(failed(error)),
            }
        };
        let queue = Self { db, writes: Mutex::new(()) };
        queue.all()?.into_iter().map(|job| Ok((queue.notes(job.id)?.len(), job))).map(swapped).collect()
    }

    /// Every opening leaves small files, and whoever opens it for a moment gives nobody the time to merge them.
    fn tidy(&self) -> Result<(), JobError> {
        let files = self.db.live_files().map_err(failed)?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for name in FAMILIES.into_iter().chain([DEFAULT_COLUMN_FAMILY_NAME]) {
            if files.iter().filter(|file| file.column_family_name == name).count() >= TIDY_FILES {
                let family = self.family(name)?;
                self.db.compact_range_cf_opt(&family, None::<&[u8]>, None::<&[u8]>, &options);
            }
        }
        Ok(())
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>, JobError> {
        self.db.cf_handle(name).ok_or_else(|| JobError::Corrupt(format!("it has no table {name}")))
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Result<JobId, JobError> {
        match self.db.get(LAST).map_err(failed)? {
            Some(bytes) => Ok(JobId(number::decode(&bytes).map_err(damaged)?)),
            None => Ok(JobId(0)),
        }
    }

    fn of_token(&self, wish: &Wish) -> Result<Option<JobId>, JobError> {
        let key = keys::token(&wish.token());
        match self.db.get_cf(&self.family(TOKENS)?, key).map_err(failed)? {
            Some(bytes) => Ok(Some(JobId(number::decode(&bytes).map_err(damaged)?))),
            None => Ok(None),
        }
    }

    fn write(&self, batch: WriteBatch) -> Result<(), JobError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(failed)
    }

    /// The job's row, and where it is found by.
    fn put_into(&self, batch: &mut WriteBatch, before: Option<&Job>, job: &Job) -> Result<(), JobError> {
        if let Some(at) = before.and_then(ready_at) {
            batch.delete_cf(&self.family(READY)?, keys::ready(at, job.id));
        }
        if let Some(at) = ready_at(job) {
            batch.put_cf(&self.family(READY)?, keys::ready(at, job.id), number::encode(job.id.0));
        }
        let token = keys::token(&job.wish.token());
        match (before.is_some_and(|before| !before.state.is_over()), job.state.is_over()) {
            (_, false) => batch.put_cf(&self.family(TOKENS)?, token, number::encode(job.id.0)),
            (true, true) => batch.delete_cf(&self.family(TOKENS)?, token),
            (false, true) => {}
        }
        let row = job_row::encode(job).map_err(|error| JobError::Misuse(error.to_string()))?;
        batch.put_cf(&self.family(JOBS)?, keys::job(job.id), row);
        Ok(())
    }
}

impl JobQueue for RocksJobs {
    fn add(&self, wish: &Wish, now_ms: u64) -> Result<(Job, bool), JobError> {
        let _alone = self.alone();
        if let Some(id) = self.of_token(wish)? {
            let job = self.get(id)?.ok_or_else(|| JobError::Corrupt(format!("job {id} is not there")))?;
            return Ok((job, false));
        }
        let mut waiting = 0;
        for row in self.db.iterator_cf_opt(&self.family(TOKENS)?, checked(), IteratorMode::Start) {
            row.map_err(failed)?;
            waiting += 1;
        }
        if waiting >= JOBS_MAX {
            return Err(JobError::Full(format!("{JOBS_MAX} jobs wait already")));
        }
        let id = JobId(self.last()?.0.saturating_add(1));
        let job = Job::new(id, wish.clone(), now_ms);
        let mut batch = WriteBatch::default();
        batch.put(LAST, number::encode(id.0));
        self.put_into(&mut batch, None, &job)?;
        self.write(batch)?;
        Ok((job, true))
    }

    fn get(&self, id: JobId) -> Result<Option<Job>, JobError> {
        let found = self.db.get_cf(&self.family(JOBS)?, keys::job(id)).map_err(failed)?;
        found.map(|bytes| job_of(&keys::job(id), &bytes)).transpose()
    }

    fn all(&self) -> Result<Vec<Job>, JobError> {
        let rows = self.db.iterator_cf_opt(&self.family(JOBS)?, checked(), IteratorMode::Start);
        rows.map(|row| row.map_err(failed).and_then(|(key, bytes)| job_of(&key, &bytes))).collect()
    }

    fn due(&self, now_ms: u64) -> Result<Option<Job>, JobError> {
        let Some(first) = self.db.iterator_cf_opt(&self.family(READY)?, checked(), IteratorMode::Start).next() else {
            return Ok(None);
        };
        let (key, _) = first.map_err(failed)?;
        let (at, id) = keys::parse_ready(&key).map_err(damaged)?;
        if at > now_ms {
            return Ok(None);
        }
        let job = self.get(id)?.filter(|job| ready_at(job) == Some(at));
        job.map(Some).ok_or_else(|| JobError::Corrupt(format!("job {id} is not ready, and its order says so")))
    }

    fn put(&self, job: &Job) -> Result<(), JobError> {
        let _alone = self.alone();
        let before = self.get(job.id)?;
        check_put(before.as_ref(), job, self.of_token(&job.wish)?)?;
        let mut batch = WriteBatch::default();
        self.put_into(&mut batch, before.as_ref(), job)?;
        if job.state.is_over() {
            let family = self.family(PROGRESS)?;
            for note in self.notes(job.id)? {
                batch.delete_cf(&family, keys::job_note(job.id, &note.blob));
            }
        }
        self.write(batch)
    }

    fn forget(&self, id: JobId) -> Result<(), JobError> {
        let _alone = self.alone();
        check_forget(self.get(id)?.as_ref(), id)?;
        let mut batch = WriteBatch::default();
        batch.delete_cf(&self.family(JOBS)?, keys::job(id));
        self.write(batch)
    }

    fn note(&self, id: JobId, notes: &[JobNote]) -> Result<(), JobError> {
        if notes.len() > JOB_NOTES_MAX {
            return Err(JobError::Full(format!("{} notes at once", notes.len())));
        }
        let _alone = self.alone();
        if self.get(id)?.is_none_or(|job| job.state.is_over()) {
            return Err(JobError::Misuse(format!("job {id} is over, or there is none")));
        }
        let family = self.family(PROGRESS)?;
        let mut batch = WriteBatch::default();
        for note in notes {
            let row = job_note::encode(note).map_err(|error| JobError::Misuse(error.to_string()))?;
            batch.put_cf(&family, keys::job_note(id, &note.blob), row);
        }
        // Not synced: a note that a power loss takes costs a blob's work.
        self.db.write(batch).map_err(failed)
    }

    fn notes(&self, id: JobId) -> Result<Vec<JobNote>, JobError> {
        let first = keys::job(id);
        let from = IteratorMode::From(&first, Direction::Forward);
        let mut notes = Vec::new();
        for row in self.db.iterator_cf_opt(&self.family(PROGRESS)?, checked(), from) {
            let (key, bytes) = row.map_err(failed)?;
            if !key.starts_with(&first) {
                break;
            }
            let note = job_note::decode(&bytes).map_err(damaged)?;
            if *key != keys::job_note(id, &note.blob) {
                return Err(JobError::Corrupt(format!("a note of {} lies under another name", note.blob)));
            }
            notes.push(note);
        }
        Ok(notes)
    }
}

fn swapped(counted: Result<(usize, Job), JobError>) -> Result<(Job, usize), JobError> {
    counted.map(|(notes, job)| (job, notes))
}

fn job_of(key: &[u8], bytes: &[u8]) -> Result<Job, JobError> {
    let job = job_row::decode(bytes).map_err(damaged)?;
    match keys::parse_job(key) {
        Ok(id) if id == job.id => Ok(job),
        _ => Err(JobError::Corrupt(format!("job {} lies under another number", job.id))),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A log that a kill cut off ends there; one that is damaged before its end is damage.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(BUFFER_BYTES);
    // What is set aside beforehand for a list of files is four megabytes otherwise, on a disk that may have none.
    options.set_manifest_preallocation_size(MANIFEST_BYTES);
    options.set_max_open_files(FILES_MAX);
    options.set_max_background_jobs(1);
    // No thread that wakes up by itself.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Error);
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(LOG_BYTES_MAX);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&rocksdb::Cache::new_lru_cache(CACHE_BYTES));
    options.set_block_based_table_factory(&blocks);
    options
}

fn checked() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

fn damaged(error: FormatError) -> JobError {
    match error {
        FormatError::Newer { what, found, known } => JobError::Newer { what, found, known },
        error => JobError::Corrupt(error.to_string()),
    }
}

fn failed(error: rocksdb::Error) -> JobError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => JobError::Corrupt(text),
        // A file that its manifest names and that is gone, or a manifest that is.
        ErrorKind::InvalidArgument | ErrorKind::NotFound => JobError::Corrupt(text),
        ErrorKind::IOError if text.contains("No such file") => JobError::Corrupt(text),
        ErrorKind::IOError if text.contains("No space left") => JobError::Full(text),
        _ => JobError::Failed(text),
    }
}
