//! One SQLite library in this process, and what we are to it.

use super::abi::Vfs;
use super::api::Api;
use std::ffi::CStr;

/// Our name.
pub(crate) const NAME: &CStr = c"littoral";

/// What is carried along instead of statics (rule R3). Never freed (rule R4).
pub(crate) struct Library {
    pub(crate) api: Api,
    /// The platform's own VFS, which every call goes to.
    pub(crate) inner: *mut Vfs,
}

// SAFETY: R4: nothing in it changes after it was made, and SQLite lets any thread call a VFS.
unsafe impl Send for Library {}
// SAFETY: R4.
unsafe impl Sync for Library {}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({:#x})", self.id())
    }
}

impl Library {
    /// Tells one library of this process from another.
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether it can be used by several threads at all.
    pub(crate) fn has_threads(&self) -> bool {
        // SAFETY: R3.
        unsafe { (self.api.threadsafe)() != 0 }
    }

    /// Whether databases are opened with ours where nobody names a VFS.
    pub(crate) fn is_default(&self) -> bool {
        // SAFETY: R3: null asks for the default.
        let default = unsafe { (self.api.vfs_find)(std::ptr::null()) };
        // SAFETY: R1: a registered VFS has a name.
        !default.is_null() && unsafe { CStr::from_ptr((*default).name) } == NAME
    }
}
