//! A restore drill: the newest state is restored beside everything else, SQLite is asked what it thinks of it, and it goes again. What is
//! not tried is hoped for.
//!
//! What this room promises:
//! 1. A drill restores as `restore` does: every frame is verified, every page of the database is there; of a log every record.
//! 2. It takes as much local room as the database, or the log, asked of the quota first. Where there is none nothing is done, and it is said.
//! 3. What is wrong with the data is an answer; what is wrong with the way there is an error, and proves nothing.
//! 4. Nothing of it stays, however it ends: what a dead one left goes with the next.

use super::restore::{At, restore_alone};
use crate::components::Components;
use crate::error::EngineError;
use crate::log::Log;
use crate::logs;
use littoral_local::LocalError;
use littoral_local::log::LogError;
use littoral_ports::Unit;
use littoral_types::{Position, VolumeKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What SQLite said of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// What the probe answered, where one was asked.
    pub answer: Option<String>,
}

/// Asks SQLite of a copy, and asks it the probe. An error where it could not be asked at all.
pub type Examine = Arc<dyn Fn(&Path, Option<&str>) -> Result<Examined, String> + Send + Sync>;

/// What is to be done.
#[derive(Clone)]
pub struct Order {
    /// Where the copy is made: a folder that is nobody else's, made and removed.
    pub folder: PathBuf,
    /// What it is asked beside its integrity.
    pub probe: Option<String>,
    /// Who asks.
    pub examine: Examine,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drill {
    /// It was held.
    Held(Held),
    /// It was not, and why.
    Skipped(String),
}

/// A drill that was held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Up to which commit; `None` where it did not come so far.
    pub position: Option<Position>,
    /// Bytes of the copy.
    pub bytes: u64,
    /// Milliseconds from the first request to the last answer.
    pub took_ms: u64,
    /// What is wrong: nothing where a restore works.
    pub problems: Vec<String>,
    /// What the probe answered.
    pub answer: Option<String>,
    /// Of a log: no SQLite was asked.
    pub is_log: bool,
}

/// Removes the copy, whatever became of it.
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> Result<Self, EngineError> {
        let told = |error| EngineError::from(LocalError::from_io("make", &path, error));
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(told)?;
        }
        std::fs::create_dir_all(&path).map_err(told)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a drill's copy could not be removed: the next drill does it");
        }
    }
}

/// Whether it is the restored records that are wrong, and not the way there.
fn is_of_the_log(error: &EngineError) -> bool {
    let EngineError::Log(error) = error else { return false };
    matches!(error, LogError::Damaged { .. } | LogError::Broken { .. } | LogError::Serials { .. }) && !error.is_newer()
}

/// Holds a drill.
pub async fn drill(log: &Log, components: &Components, order: Order) -> Result<Drill, EngineError> {
    let clock = components.clock.clone();
    let began = clock.boot_ms();
    let opened = match log.open().await {
        Ok(opened) => opened.ok_or_else(|| EngineError::NoVolume(log.url()))?,
        Err(error) if error.is_damage() => {
            let took_ms = clock.boot_ms().saturating_sub(began);
            return Ok(Drill::Held(Held { took_ms, problems: vec![error.to_string()], ..Held::default() }));
        }
        Err(error) => return Err(error),
    };
    let is_log = opened.meta.kind == VolumeKind::Log;
    let figures = opened.tail.figures;
    let bytes = match figures.page_size {
        _ if is_log => logs::room_of(log, &opened).await?,
        Some(page_size) => page_size.bytes().saturating_mul(figures.page_count.0),
        None => return Ok(Drill::Skipped("nothing was published yet".to_owned())),
    };
    drop(opened);
    let _room = match components.quota.reserve("a restore drill", bytes) {
        Ok(room) => room,
        Err(full) => return Ok(Drill::Skipped(format!("no room for a copy: {full}"))),
    };
    let folder = Folder::make(order.folder)?;
    let mut held = Held { is_log, ..Held::default() };
    let (copy, done) = if is_log {
        let copy = folder.0.join("log");
        let done = Box::pin(logs::restore(log, components, &At::Newest, &copy)).await;
        (None, done.map(|done| (done.position, done.bytes)))
    } else {
        let copy = folder.0.join("copy.db");
        let done = Box::pin(restore_alone(log, components, &At::Newest, &copy, false)).await;
        (Some(copy), done.map(|done| (done.position, done.bytes)))
    };
    match done {
        Ok((position, bytes)) => (held.position, held.bytes) = (Some(position), bytes),
        Err(
            EngineError::Local(LocalError::Full { detail, .. })
            | EngineError::Log(LogError::Local(LocalError::Full { detail, .. })),
        ) => return Ok(Drill::Skipped(format!("no room for a copy: {detail}"))),
        Err(error) if error.is_damage() || is_of_the_log(&error) => {
            held.problems.push(format!("it cannot be restored: {error}"));
        }
        Err(error) => return Err(error),
    }
    // Of a log every entry was verified, and there is no SQLite to ask.
    if let (Some(_), Some(copy)) = (held.position, copy) {
        components.progress.phase("checking", 0, Unit::Pages);
        let asking = tokio::task::spawn_blocking(move || (order.examine)(&copy, order.probe.as_deref()));
        match asking.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(examined) => {
                held.problems.extend(examined.problems);
                held.answer = examined.answer;
            }
            Err(why) => held.problems.push(format!("the copy cannot be opened: {why}")),
        }
    }
    held.took_ms = clock.boot_ms().saturating_sub(began);
    Ok(Drill::Held(held))
}
