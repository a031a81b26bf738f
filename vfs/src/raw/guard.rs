//! The border: what panics on our side is an error on the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a callback's body; `failed` when it panics (rule R6).
#[inline]
pub(crate) fn guard<T>(failed: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(answer) => answer,
        Err(panic) => {
            said(&panic);
            failed
        }
    }
}

#[cold]
fn said(panic: &(dyn std::any::Any + Send)) {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(%text, "a mistake inside of littoral: the call fails, the process goes on");
}
