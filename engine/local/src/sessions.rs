//! Who holds which named session of a database (rule P10): a lock on a file of ours for each, which dies with its holder.
//!
//! What this room promises:
//! 1. A session is held once, whoever asks: another process, another connection of this one, or a forked child.
//! 2. A lock's file goes with the lock, so that their folder does not grow; one that a killed holder left is taken by the next one.

use crate::error::{LocalError, on};
use crate::lock::WorkerLock;
use littoral_types::SessionName;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is tried: whoever lists holders has a look at each lock, for a moment.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// A session that is held, as long as this lives.
#[derive(Debug)]
pub struct HeldSession {
    name: SessionName,
    lock: WorkerLock,
}

impl HeldSession {
    /// Takes a session, or says who has it. `folder` is [`crate::tracker::Tracker::sessions_of`] of the database.
    pub fn take(folder: &Path, name: &SessionName) -> Result<Self, LocalError> {
        let path = folder.join(spelled(name));
        let mut tries = TRIES;
        loop {
            match WorkerLock::take(path.clone()) {
                Err(LocalError::Busy { .. }) if tries > 1 => {
                    tries -= 1;
                    std::thread::sleep(PAUSE);
                }
                taken => {
                    let mut lock = taken?;
                    lock.also_say(name.as_str())?;
                    return Ok(Self { name: name.clone(), lock });
                }
            }
        }
    }

    /// Which.
    pub const fn name(&self) -> &SessionName {
        &self.name
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        // While it is locked: whoever finds it gone makes another one. What cannot be removed is taken by the next one.
        self.lock.remove();
    }
}

/// All sessions of a database that are held now, by name, and by whom each.
pub fn holders(folder: &Path) -> Result<Vec<(SessionName, String)>, LocalError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(on("list", folder)(error)),
    };
    let mut held = Vec::new();
    for entry in entries {
        let path: PathBuf = entry.map_err(on("list", folder))?.path();
        let Some(holder) = WorkerLock::held_by(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap_or_default();
        // It may be just about to say which.
        if let Some(name) = text.lines().nth(1).and_then(|name| name.parse().ok()) {
            held.push((name, holder));
        }
    }
    held.sort();
    Ok(held)
}

/// A file's name for any session's: names may hold what no file's may, and be longer.
fn spelled(name: &SessionName) -> String {
    let hash = littoral_format::hash::blob(name.as_str().as_bytes());
    hash.0.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_session_is_held_once_and_whoever_is_refused_is_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sessions");
        let (one, other): (SessionName, SessionName) = ("größe 3/4".parse().unwrap(), "worker-8".parse().unwrap());
        assert_eq!(holders(&folder).unwrap(), []);
        let held = HeldSession::take(&folder, &one).unwrap();
        let refused = HeldSession::take(&folder, &one).unwrap_err();
        let own = format!("process {} (this one)", std::process::id());
        assert!(matches!(&refused, LocalError::Busy { holder, .. } if *holder == own), "{refused:?}");
        let _second = HeldSession::take(&folder, &other).unwrap();
        assert_eq!(holders(&folder).unwrap(), [(one.clone(), own.clone()), (other.clone(), own)]);
        assert_eq!(held.name(), &one);
        drop(held);
        assert_eq!(holders(&folder).unwrap().len(), 1);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "its file went with it");
        HeldSession::take(&folder, &one).unwrap();
    }
}
