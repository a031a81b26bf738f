//! A process forks while threads of ours read its databases: the child must not find SQLite in the middle of what they do.
//!
//! Whoever of us is inside of SQLite says so for as long as that takes, a slice at most. A fork waits for that, and takes back what was
//! lent: at that moment no connection of ours is open, and no lock of SQLite's is held for us, in the parent or in the child's memory of it.
//! And every lock of ours is known that the child must let go of.

use crate::database::Database;
use littoral_engine::AllRemembered;
use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static INSIDE: RwLock<()> = RwLock::new(());

thread_local! {
    static FORKS: RefCell<Option<(RwLockWriteGuard<'static, ()>, AllRemembered)>> = const { RefCell::new(None) };
}

/// Says that a thread of ours is inside of SQLite.
pub(crate) fn inside() -> RwLockReadGuard<'static, ()> {
    INSIDE.read().unwrap_or_else(PoisonError::into_inner)
}

/// This thread is about to fork: nobody of us is inside of SQLite from here on.
pub(crate) fn begins() {
    let nobody = INSIDE.write().unwrap_or_else(PoisonError::into_inner);
    for database in Database::all() {
        database.recall_all();
    }
    let _ = FORKS.try_with(|forks| *forks.borrow_mut() = Some((nobody, AllRemembered::wait())));
}

/// It has forked; this is the parent, or the child.
pub(crate) fn is_over() {
    let _ = FORKS.try_with(|forks| drop(forks.borrow_mut().take()));
}
