//! The last thing that went wrong, for those who ask after SQLite has answered with a code alone.

use littoral_engine::settings::Key;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

static LAST: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    /// SQLite calls us on the thread of whoever called SQLite: what went wrong here is theirs, whatever others do meanwhile.
    static HERE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What the engine says, in the words of who speaks SQL: a setting is a parameter here, not a flag.
pub(crate) fn in_sql(why: &str) -> String {
    Key::ALL
        .iter()
        .fold(why.to_owned(), |text, key| text.replace(&format!("--{}=", key.name()), &format!("{}=", key.name())))
}

/// Keeps it, and logs it.
pub(crate) fn error(why: &str) {
    let why = &in_sql(why);
    tracing::error!("{why}");
    keep(why);
}

/// The same for a question that makes no sense: nobody has to be woken for it.
pub(crate) fn refused(why: &str) {
    let why = &in_sql(why);
    tracing::warn!("{why}");
    keep(why);
}

fn keep(why: &str) {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    // A thread that is ending has nobody left to ask.
    let _ = HERE.try_with(|here| *here.borrow_mut() = Some(why.to_owned()));
}

/// What it was, in this process.
pub(crate) fn last() -> Option<String> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What it was on this thread.
pub(crate) fn here() -> Option<String> {
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

/// What went wrong on this thread since it was asked last.
pub(crate) fn take() -> Option<String> {
    HERE.try_with(|here| here.borrow_mut().take()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_of_its_own_errors_whatever_others_do() {
        error("mine");
        let other = std::thread::spawn(|| {
            assert_eq!(here(), None);
            error("theirs");
            here()
        });
        assert_eq!(other.join().unwrap().as_deref(), Some("theirs"));
        assert_eq!(last().as_deref(), Some("theirs"));
        assert_eq!(here().as_deref(), Some("mine"));
        assert_eq!((take().as_deref(), take()), (Some("mine"), None));
    }
}
