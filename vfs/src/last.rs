//! The last thing that went wrong, for those who ask after SQLite has answered with a code alone.

use std::sync::{Mutex, PoisonError};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps it, and logs it.
pub(crate) fn error(why: &str) {
    tracing::error!("{why}");
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
}

/// What it was.
pub(crate) fn last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
