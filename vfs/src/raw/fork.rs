//! What a forked child does with the locks that it inherited: `flock`'s belong to the open file, and would stay held by the child after
//! its parent's death. Its copies of them are exchanged for nothing, which lets nothing go in the parent.

use super::guard::guard;
use crate::forking;
use littoral_engine::held_locks;
use std::ffi::{CStr, c_char, c_int};
use std::sync::Once;

unsafe extern "C" {
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn close(file: c_int) -> c_int;
}

const NOTHING: &CStr = c"/dev/null";

/// From here on a child of this process lets go of what it inherits.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: R4: we stay loaded, and so does the function.
        if unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) } != 0 {
            tracing::warn!("a forked child will keep locks that it inherits: fork before a database is opened");
        }
    });
}

unsafe extern "C" fn prepare() {
    guard((), forking::begins);
}

unsafe extern "C" fn parent() {
    guard((), forking::is_over);
}

/// Runs in a child that has one thread, perhaps in the middle of anything that its parent's other threads did: no memory is asked for, no
/// lock is taken.
unsafe extern "C" fn child() {
    for held in held_locks() {
        // SAFETY: only what POSIX allows in this place. The number stays taken, so that whoever closes it later closes this.
        unsafe {
            let nothing = open(NOTHING.as_ptr(), 0);
            if nothing >= 0 && nothing != held {
                dup2(nothing, held);
                close(nothing);
            }
        }
    }
    guard((), forking::is_over);
}
