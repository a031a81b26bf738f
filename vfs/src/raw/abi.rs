//! The C interface's types, as SQLite has fixed them for good.

use std::ffi::{c_char, c_double, c_int, c_void};

/// `sqlite3_int64`.
pub(crate) type Int64 = i64;

/// Codes and flags, under SQLite's own names.
#[allow(missing_docs, reason = "SQLite's documentation is theirs")]
pub(crate) mod code {
    use std::ffi::c_int;
    pub(crate) const OK: c_int = 0;
    pub(crate) const ERROR: c_int = 1;
    pub(crate) const BUSY: c_int = 5;
    pub(crate) const NOMEM: c_int = 7;
    pub(crate) const READONLY: c_int = 8;
    pub(crate) const INTERRUPT: c_int = 9;
    pub(crate) const IOERR: c_int = 10;
    pub(crate) const IOERR_READ: c_int = IOERR | 1 << 8;
    pub(crate) const IOERR_SHORT_READ: c_int = IOERR | 2 << 8;
    pub(crate) const IOERR_WRITE: c_int = IOERR | 3 << 8;
    pub(crate) const IOERR_FSYNC: c_int = IOERR | 4 << 8;
    pub(crate) const IOERR_TRUNCATE: c_int = IOERR | 6 << 8;
    pub(crate) const CORRUPT: c_int = 11;
    pub(crate) const NOTFOUND: c_int = 12;
    pub(crate) const FULL: c_int = 13;
    pub(crate) const CANTOPEN: c_int = 14;
    pub(crate) const MISUSE: c_int = 21;
    pub(crate) const NOTADB: c_int = 26;
    pub(crate) const ROW: c_int = 100;
    pub(crate) const OK_LOAD_PERMANENTLY: c_int = 256;

    pub(crate) const OPEN_READONLY: c_int = 0x1;
    pub(crate) const OPEN_READWRITE: c_int = 0x2;
    pub(crate) const OPEN_CREATE: c_int = 0x4;
    pub(crate) const OPEN_DELETEONCLOSE: c_int = 0x8;
    pub(crate) const OPEN_EXCLUSIVE: c_int = 0x10;
    pub(crate) const OPEN_URI: c_int = 0x40;
    pub(crate) const OPEN_MAIN_DB: c_int = 0x100;
    pub(crate) const OPEN_TEMP_DB: c_int = 0x200;
    pub(crate) const OPEN_MAIN_JOURNAL: c_int = 0x800;
    pub(crate) const OPEN_WAL: c_int = 0x80000;
    pub(crate) const SYNC_FULL: c_int = 3;
    pub(crate) const OPEN_FULLMUTEX: c_int = 0x10000;
    pub(crate) const OPEN_PRIVATECACHE: c_int = 0x40000;

    pub(crate) const LOCK_NONE: c_int = 0;
    pub(crate) const LOCK_RESERVED: c_int = 2;
    pub(crate) const LOCK_EXCLUSIVE: c_int = 4;

    /// Of a file that nobody changes: no locks, no journal, no WAL.
    pub(crate) const IOCAP_IMMUTABLE: c_int = 0x2000;
    pub(crate) const NOTICE: c_int = 27;

    pub(crate) const SHM_UNLOCK: c_int = 1;
    pub(crate) const SHM_LOCK: c_int = 2;
    pub(crate) const SHM_SHARED: c_int = 4;
    pub(crate) const SHM_EXCLUSIVE: c_int = 8;

    pub(crate) const FCNTL_FILE_POINTER: c_int = 7;
    pub(crate) const FCNTL_VFSNAME: c_int = 12;
    pub(crate) const FCNTL_PRAGMA: c_int = 14;
    pub(crate) const FCNTL_COMMIT_PHASETWO: c_int = 22;
    pub(crate) const FCNTL_JOURNAL_POINTER: c_int = 28;
    pub(crate) const FCNTL_PDB: c_int = 30;

    pub(crate) const DBCONFIG_NO_CKPT_ON_CLOSE: c_int = 1006;
    pub(crate) const TESTCTRL_PENDING_BYTE: c_int = 11;

    pub(crate) const UTF8: c_int = 1;
    pub(crate) const DIRECTONLY: c_int = 0x80000;
    pub(crate) const INDEX_CONSTRAINT_EQ: u8 = 2;
    pub(crate) const INDEX_CONSTRAINT_GT: u8 = 4;
    pub(crate) const INDEX_CONSTRAINT_LE: u8 = 8;
    pub(crate) const INDEX_CONSTRAINT_LT: u8 = 16;
    pub(crate) const INDEX_CONSTRAINT_GE: u8 = 32;

    pub(crate) const TOOBIG: c_int = 18;
    pub(crate) const CONSTRAINT_NOTNULL: c_int = 19 | 5 << 8;

    pub(crate) const INTEGER: c_int = 1;
    pub(crate) const FLOAT: c_int = 2;
    pub(crate) const TEXT: c_int = 3;
    pub(crate) const BLOB: c_int = 4;
    pub(crate) const NULL: c_int = 5;
}

/// `sqlite3_file`: what SQLite sees of an open file.
#[repr(C)]
pub(crate) struct File {
    pub(crate) methods: *const IoMethods,
}

type FileCall<A> = Option<A>;

/// `sqlite3_io_methods`, version 3.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct IoMethods {
    pub(crate) version: c_int,
    pub(crate) close: FileCall<unsafe extern "C" fn(*mut File) -> c_int>,
    pub(crate) read: FileCall<unsafe extern "C" fn(*mut File, *mut c_void, c_int, Int64) -> c_int>,
    pub(crate) write: FileCall<unsafe extern "C" fn(*mut File, *const c_void, c_int, Int64) -> c_int>,
    pub(crate) truncate: FileCall<unsafe extern "C" fn(*mut File, Int64) -> c_int>,
    pub(crate) sync: FileCall<unsafe extern "C" fn(*mut File, c_int) -> c_int>,
    pub(crate) file_size: FileCall<unsafe extern "C" fn(*mut File, *mut Int64) -> c_int>,
    pub(crate) lock: FileCall<unsafe extern "C" fn(*mut File, c_int) -> c_int>,
    pub(crate) unlock: FileCall<unsafe extern "C" fn(*mut File, c_int) -> c_int>,
    pub(crate) check_reserved_lock: FileCall<unsafe extern "C" fn(*mut File, *mut c_int) -> c_int>,
    pub(crate) file_control: FileCall<unsafe extern "C" fn(*mut File, c_int, *mut c_void) -> c_int>,
    pub(crate) sector_size: FileCall<unsafe extern "C" fn(*mut File) -> c_int>,
    pub(crate) device_characteristics: FileCall<unsafe extern "C" fn(*mut File) -> c_int>,
    pub(crate) shm_map: FileCall<unsafe extern "C" fn(*mut File, c_int, c_int, c_int, *mut *mut c_void) -> c_int>,
    pub(crate) shm_lock: FileCall<unsafe extern "C" fn(*mut File, c_int, c_int, c_int) -> c_int>,
    pub(crate) shm_barrier: FileCall<unsafe extern "C" fn(*mut File)>,
    pub(crate) shm_unmap: FileCall<unsafe extern "C" fn(*mut File, c_int) -> c_int>,
    pub(crate) fetch: FileCall<unsafe extern "C" fn(*mut File, Int64, c_int, *mut *mut c_void) -> c_int>,
    pub(crate) unfetch: FileCall<unsafe extern "C" fn(*mut File, Int64, *mut c_void) -> c_int>,
}

/// A symbol out of a library that SQLite loaded.
pub(crate) type Symbol = Option<unsafe extern "C" fn()>;
/// A system call, as SQLite lets tests replace them.
pub(crate) type SystemCall = Option<unsafe extern "C" fn()>;

/// `sqlite3_vfs`, version 3.
#[repr(C)]
pub(crate) struct Vfs {
    pub(crate) version: c_int,
    pub(crate) os_file: c_int,
    pub(crate) max_pathname: c_int,
    pub(crate) next: *mut Vfs,
    pub(crate) name: *const c_char,
    pub(crate) app_data: *mut c_void,
    pub(crate) open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int>,
    pub(crate) delete: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int) -> c_int>,
    pub(crate) access: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_int) -> c_int>,
    pub(crate) full_pathname: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, c_int, *mut c_char) -> c_int>,
    pub(crate) dl_open: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *mut c_void>,
    pub(crate) dl_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char)>,
    pub(crate) dl_sym: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void, *const c_char) -> Symbol>,
    pub(crate) dl_close: Option<unsafe extern "C" fn(*mut Vfs, *mut c_void)>,
    pub(crate) randomness: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub(crate) sleep: Option<unsafe extern "C" fn(*mut Vfs, c_int) -> c_int>,
    pub(crate) current_time: Option<unsafe extern "C" fn(*mut Vfs, *mut c_double) -> c_int>,
    pub(crate) get_last_error: Option<unsafe extern "C" fn(*mut Vfs, c_int, *mut c_char) -> c_int>,
    pub(crate) current_time_int64: Option<unsafe extern "C" fn(*mut Vfs, *mut Int64) -> c_int>,
    pub(crate) set_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char, SystemCall) -> c_int>,
    pub(crate) get_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> SystemCall>,
    pub(crate) next_system_call: Option<unsafe extern "C" fn(*mut Vfs, *const c_char) -> *const c_char>,
}

/// A connection, a statement, a value, a call's context: SQLite's own, never looked into.
#[repr(C)]
pub(crate) struct Opaque {
    _private: [u8; 0],
}

pub(crate) type Connection = Opaque;
pub(crate) type Statement = Opaque;
pub(crate) type Value = Opaque;
pub(crate) type Context = Opaque;

/// `sqlite3_vtab`, with what is ours behind it.
#[repr(C)]
pub(crate) struct Vtab {
    pub(crate) module: *const Module,
    pub(crate) references: c_int,
    pub(crate) message: *mut c_char,
}

/// `sqlite3_vtab_cursor`.
#[repr(C)]
pub(crate) struct Cursor {
    pub(crate) table: *mut Vtab,
}

/// `sqlite3_index_info`, as far as we look.
#[repr(C)]
pub(crate) struct IndexInfo {
    pub(crate) constraints: c_int,
    pub(crate) constraint: *const IndexConstraint,
    pub(crate) orders: c_int,
    pub(crate) order: *const IndexOrder,
    pub(crate) usage: *mut IndexUsage,
    pub(crate) index_number: c_int,
    pub(crate) index_text: *mut c_char,
    pub(crate) free_index_text: c_int,
    pub(crate) order_consumed: c_int,
    pub(crate) cost: c_double,
    pub(crate) rows: Int64,
}

#[repr(C)]
pub(crate) struct IndexConstraint {
    pub(crate) column: c_int,
    pub(crate) operator: u8,
    pub(crate) usable: u8,
    pub(crate) term: c_int,
}

#[repr(C)]
pub(crate) struct IndexOrder {
    pub(crate) column: c_int,
    pub(crate) is_descending: u8,
}

#[repr(C)]
pub(crate) struct IndexUsage {
    pub(crate) argument: c_int,
    pub(crate) omit: u8,
}

type Connect = unsafe extern "C" fn(
    *mut Connection,
    *mut c_void,
    c_int,
    *const *const c_char,
    *mut *mut Vtab,
    *mut *mut c_char,
) -> c_int;

type OnTable = Option<unsafe extern "C" fn(*mut Vtab) -> c_int>;
type OnSavepoint = Option<unsafe extern "C" fn(*mut Vtab, c_int) -> c_int>;

/// `sqlite3_module`, version 2.
#[repr(C)]
pub(crate) struct Module {
    pub(crate) version: c_int,
    pub(crate) create: Option<Connect>,
    pub(crate) connect: Option<Connect>,
    pub(crate) best_index: Option<unsafe extern "C" fn(*mut Vtab, *mut IndexInfo) -> c_int>,
    pub(crate) disconnect: Option<unsafe extern "C" fn(*mut Vtab) -> c_int>,
    pub(crate) destroy: Option<unsafe extern "C" fn(*mut Vtab) -> c_int>,
    pub(crate) open: Option<unsafe extern "C" fn(*mut Vtab, *mut *mut Cursor) -> c_int>,
    pub(crate) close: Option<unsafe extern "C" fn(*mut Cursor) -> c_int>,
    pub(crate) filter: Option<unsafe extern "C" fn(*mut Cursor, c_int, *const c_char, c_int, *mut *mut Value) -> c_int>,
    pub(crate) next: Option<unsafe extern "C" fn(*mut Cursor) -> c_int>,
    pub(crate) eof: Option<unsafe extern "C" fn(*mut Cursor) -> c_int>,
    pub(crate) column: Option<unsafe extern "C" fn(*mut Cursor, *mut Context, c_int) -> c_int>,
    pub(crate) rowid: Option<unsafe extern "C" fn(*mut Cursor, *mut Int64) -> c_int>,
    pub(crate) update: Option<unsafe extern "C" fn(*mut Vtab, c_int, *mut *mut Value, *mut Int64) -> c_int>,
    pub(crate) begin: OnTable,
    pub(crate) sync: OnTable,
    pub(crate) commit: OnTable,
    pub(crate) rollback: OnTable,
    pub(crate) find_function: Option<unsafe extern "C" fn()>,
    pub(crate) rename: Option<unsafe extern "C" fn(*mut Vtab, *const c_char) -> c_int>,
    pub(crate) savepoint: OnSavepoint,
    pub(crate) release: OnSavepoint,
    pub(crate) rollback_to: OnSavepoint,
    /// Of later versions.
    pub(crate) rest: [Option<unsafe extern "C" fn()>; 2],
}
