//! One copy of us in a process. Two would not know of each other: through one SQLite library each, they would have the same database
//! open, and drop each other's locks (rule S9).

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

/// A file that each process has its own of, and that nobody writes.
const OF_THIS_PROCESS: &str = "/proc/self/cmdline";

/// Whether no other copy of us is in this process. Where that cannot be told, there is none.
pub(crate) fn is_alone() -> bool {
    /// Held until the process ends; a forked child claims its own.
    static CLAIM: Mutex<Option<(u32, File)>> = Mutex::new(None);
    let mut claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if claim.as_ref().is_some_and(|(whose, _)| *whose == process) {
        return true;
    }
    let Ok(file) = File::open(OF_THIS_PROCESS) else { return true };
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return false;
    }
    *claim = Some((process, file));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s09_another_copy_finds_the_process_taken() {
        assert!(is_alone());
        assert!(is_alone(), "it is no other copy");
        let theirs = File::open(OF_THIS_PROCESS).unwrap();
        assert_eq!(flock(&theirs, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
    }
}
