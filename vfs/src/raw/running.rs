//! Which statements a connection runs, asked from inside of a read that one of them makes.

use super::abi::Connection;
use super::library::Library;
use std::ffi::CStr;
use std::ptr;

/// Statements that are looked at: a pool may keep thousands.
const LOOKED_AT_MAX: usize = 512;
/// Statements that are told.
const TOLD_MAX: usize = 8;
/// Text beyond which a statement is not told.
const TEXT_MAX: usize = 64 << 10;

/// Where a B-tree keeps the connection that uses it now (rule R9).
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    library: &'static Library,
    place: *mut *mut Connection,
}

impl Owner {
    /// Nobody told yet.
    pub(crate) const fn unknown(library: &'static Library) -> Self {
        Self { library, place: ptr::null_mut() }
    }

    /// SQLite tells, by a file control of an open file.
    ///
    /// # Safety
    /// `place` is what SQLite passed with `FCNTL_PDB` for this file.
    pub(crate) unsafe fn told(&mut self, place: *mut *mut Connection) {
        self.place = place;
    }

    /// The connection that uses it now; null where that is not known.
    ///
    /// # Safety
    /// In a call that SQLite makes on the file that this belongs to (rule R9).
    pub(crate) unsafe fn connection(&self) -> *mut Connection {
        // SAFETY: R9: valid as long as the file is open, and null before the B-tree is complete.
        if self.place.is_null() { ptr::null_mut() } else { unsafe { *self.place } }
    }

    /// The texts of the statements that run now.
    ///
    /// # Safety
    /// In a call that SQLite makes on the file that this belongs to (rule R9).
    pub(crate) unsafe fn running(&self) -> Vec<String> {
        let api = &self.library.api;
        let mut told: Vec<String> = Vec::new();
        // SAFETY: the caller's promise.
        let db = unsafe { self.connection() };
        if db.is_null() {
            return told;
        }
        let mut at = ptr::null_mut();
        for _ in 0..LOOKED_AT_MAX {
            // SAFETY: R3, R9: this thread holds the connection's mutex, so that no statement comes or goes meanwhile.
            unsafe {
                at = (api.next_stmt)(db, at);
                if at.is_null() || told.len() >= TOLD_MAX {
                    break;
                }
                if (api.stmt_busy)(at) == 0 {
                    continue;
                }
                let text = (api.sql)(at);
                if !text.is_null()
                    && let Ok(text) = CStr::from_ptr(text).to_str()
                    && text.len() <= TEXT_MAX
                    && !told.iter().any(|known| known == text)
                {
                    told.push(text.to_owned());
                }
            }
        }
        told
    }
}
