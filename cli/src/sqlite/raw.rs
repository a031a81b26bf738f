//! SQLite's C interface, as far as reading a database needs it: all unsafe code of this crate.
//!
//! Rules; each block cites the one that makes it sound:
//! - U1 A handle is made here, is not null, belongs to one value and is given back once, by its `drop`.
//! - U2 The library runs serialised: `serialised` sees to it before the first handle is made. So a handle may move to another thread.
//! - U3 What SQLite lends (messages, names, blobs) is copied, or borrowed from a value that the next call on that handle needs mutably.
//! - U4 What is passed in outlives the call, and SQLite keeps none of it.
//! - U5 Connections are closed by `sqlite3_close_v2`, which waits for the last statement: the order of drops is free.

#![allow(unsafe_code)]

use libsql::ffi;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Once;
use std::time::Duration;

/// What SQLite says when it does not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    /// The extended result code.
    pub(super) code: c_int,
    /// In SQLite's words.
    pub(super) message: String,
    /// What the system call said, when it was one that failed.
    pub(super) os: Option<io::Error>,
}

impl Failure {
    /// An answer that SQLite should not have given.
    pub(super) fn new(message: &str) -> Self {
        Self { code: ffi::SQLITE_INTERNAL, message: message.to_owned(), os: None }
    }

    /// The result code without its extension.
    pub(super) const fn primary(&self) -> c_int {
        self.code & 0xff
    }

    /// Reads what the connection says of its last call, which answered `code`.
    fn of(db: *mut ffi::sqlite3, code: c_int) -> Self {
        // SAFETY: U3, U4; both calls take any connection, even one that failed to open or is null.
        let (message, errno) = unsafe { (text(ffi::sqlite3_errmsg(db)), ffi::sqlite3_system_errno(db)) };
        // The number is of the connection's last failed system call, which for other codes may be long ago.
        let from_system = matches!(code & 0xff, ffi::SQLITE_CANTOPEN | ffi::SQLITE_IOERR | ffi::SQLITE_FULL);
        let os = (from_system && errno != 0).then(|| io::Error::from_raw_os_error(errno));
        Self { code, message, os }
    }
}

/// Copies a C string; nothing for null.
///
/// # Safety
/// `lent` is null or a C string that lives for the call.
unsafe fn text(lent: *const c_char) -> String {
    if lent.is_null() {
        return String::new();
    }
    // SAFETY: not null; the rest is the caller's promise.
    unsafe { CStr::from_ptr(lent) }.to_string_lossy().into_owned()
}

/// Lets libsql configure the library, which it insists on doing before anything else uses it.
fn serialised() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The builder that replaces this constructor is async, for a database that is never connected to.
        #[allow(deprecated)]
        if let Err(error) = libsql::Database::open_in_memory() {
            tracing::warn!(%error, "libsql did not open an empty database in memory");
        }
    });
}

/// The byte whose page SQLite locks and never writes, in this process at this time: tests move it.
pub(super) fn pending_byte() -> u64 {
    serialised();
    // SAFETY: U4; this operation takes one unsigned integer, and zero asks without changing.
    let byte = unsafe { ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PENDING_BYTE, 0 as c_uint) };
    u64::from(byte.cast_unsigned())
}

/// How long a connection through the VFS waits for a lock.
const VFS_BUSY_MS: c_int = 5_000;

/// A connection that never writes.
#[derive(Debug)]
pub(super) struct Connection {
    db: NonNull<ffi::sqlite3>,
}

// SAFETY: U2.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens a database file that is there; none is made. Nothing is read yet.
    pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Self, Failure> {
        serialised();
        let name = c_path(path).map_err(Failure::new)?;
        // Not read-only: the WAL of a crashed writer is recovered, and a hot journal rolled back, only by who may write.
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_EXRESCODE;
        let mut db = ptr::null_mut();
        // SAFETY: U4.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &mut db, flags, ptr::null()) };
        let Some(db) = NonNull::new(db) else {
            return Err(Failure { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned(), os: None });
        };
        if code != ffi::SQLITE_OK {
            let failure = Failure::of(db.as_ptr(), code);
            // SAFETY: U1: a handle that did not open is given back here.
            unsafe { ffi::sqlite3_close_v2(db.as_ptr()) };
            return Err(failure);
        }
        let connection = Self { db };
        let millis = c_int::try_from(busy_timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: U1.
        connection.ok(unsafe { ffi::sqlite3_busy_timeout(db.as_ptr(), millis) })?;
        // A look does not backfill (see `drop`), does not write pages even by mistake, and runs no code that a schema names.
        connection.configure(ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.configure(ffi::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.configure(ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        Ok(connection)
    }

    /// Opens a database through the VFS, by its whole URI. It need not be there where a volume has it.
    pub(super) fn through_vfs(uri: &str) -> Result<Self, Failure> {
        littoral::register().map_err(|error| Failure::new(&error.to_string()))?;
        let name = CString::new(uri).map_err(|_| Failure::new("a name with a zero in it"))?;
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_URI | ffi::SQLITE_OPEN_EXRESCODE;
        let mut db = ptr::null_mut();
        // SAFETY: U4.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &mut db, flags, ptr::null()) };
        let Some(db) = NonNull::new(db) else {
            return Err(Failure { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned(), os: None });
        };
        let connection = Self { db };
        connection.ok(code)?;
        connection.waits(true)?;
        connection.keep_wal(true)?;
        Ok(connection)
    }

    /// Whether it waits for locks that others hold.
    pub(super) fn waits(&self, waits: bool) -> Result<(), Failure> {
        // SAFETY: U1.
        self.ok(unsafe { ffi::sqlite3_busy_timeout(self.db.as_ptr(), if waits { VFS_BUSY_MS } else { 0 }) })
    }

    /// Whether it leaves a WAL where it is, even as the last one to close.
    pub(super) fn keep_wal(&self, keeps: bool) -> Result<(), Failure> {
        self.configure(ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps)
    }

    /// Makes this connection's database a copy of a file that nobody writes, in one transaction; `told` how many pages of how many were
    /// copied. What others read meanwhile is the state before.
    pub(super) fn copy_of(&self, uri: &str, told: &mut dyn FnMut(u64, u64)) -> Result<(), Failure> {
        const STEP: c_int = 1024;
        let name = CString::new(uri).map_err(|_| Failure::new("a name with a zero in it"))?;
        let flags = ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_URI | ffi::SQLITE_OPEN_EXRESCODE;
        let mut from = ptr::null_mut();
        // SAFETY: U4.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &mut from, flags, ptr::null()) };
        let Some(from) = NonNull::new(from) else {
            return Err(Failure { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned(), os: None });
        };
        let from = Self { db: from };
        from.ok(code)?;
        let main = c"main".as_ptr();
        // SAFETY: U1, U4: both handles live until the copy is finished below.
        let copy = unsafe { ffi::sqlite3_backup_init(self.db.as_ptr(), main, from.db.as_ptr(), main) };
        if copy.is_null() {
            return Err(Failure::of(self.db.as_ptr(), ffi::SQLITE_ERROR));
        }
        let code = loop {
            // SAFETY: U1: made above, and finished below.
            let code = unsafe { ffi::sqlite3_backup_step(copy, STEP) };
            // SAFETY: U1.
            let (left, all) = unsafe { (ffi::sqlite3_backup_remaining(copy), ffi::sqlite3_backup_pagecount(copy)) };
            let count = |pages: c_int| u64::try_from(pages).unwrap_or(0);
            told(count(all.saturating_sub(left)), count(all));
            if code != ffi::SQLITE_OK {
                break code;
            }
        };
        // SAFETY: U1: given back once. What was not finished is undone.
        let finished = unsafe { ffi::sqlite3_backup_finish(copy) };
        match (code, finished) {
            (ffi::SQLITE_DONE, finished) => self.ok(finished),
            (failed, _) => Err(Failure::of(self.db.as_ptr(), failed)),
        }
    }

    fn ok(&self, code: c_int) -> Result<(), Failure> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(Failure::of(self.db.as_ptr(), code)) }
    }

    fn configure(&self, switch: c_int, on: bool) -> Result<(), Failure> {
        // SAFETY: U1, U4; each of these switches takes an int and a pointer to an int, which may be null.
        self.ok(unsafe { ffi::sqlite3_db_config(self.db.as_ptr(), switch, c_int::from(on), ptr::null_mut::<c_int>()) })
    }

    /// Prepares one statement.
    pub(super) fn prepare(&self, sql: &CStr) -> Result<Statement, Failure> {
        let mut statement = ptr::null_mut();
        // SAFETY: U1, U4; a length of -1 means up to the string's end.
        let code =
            unsafe { ffi::sqlite3_prepare_v2(self.db.as_ptr(), sql.as_ptr(), -1, &mut statement, ptr::null_mut()) };
        self.ok(code)?;
        let Some(statement) = NonNull::new(statement) else {
            return Err(Failure::new("an empty statement"));
        };
        Ok(Statement { statement })
    }

    /// Prepares the first statement of a text; `None` when there is none in it. And where the next one begins.
    pub(super) fn first(&self, sql: &CStr) -> Result<(Option<Statement>, usize), Failure> {
        let (mut statement, mut tail) = (ptr::null_mut(), ptr::null());
        // SAFETY: U1, U4; the tail points into what was passed in.
        let code = unsafe { ffi::sqlite3_prepare_v2(self.db.as_ptr(), sql.as_ptr(), -1, &mut statement, &mut tail) };
        self.ok(code)?;
        let behind = tail.addr().saturating_sub(sql.as_ptr().addr());
        Ok((NonNull::new(statement).map(|statement| Statement { statement }), behind))
    }

    /// Whether a text ends with a whole statement.
    pub(super) fn is_complete(sql: &CStr) -> bool {
        // SAFETY: U4.
        unsafe { ffi::sqlite3_complete(sql.as_ptr()) != 0 }
    }

    /// Runs one statement to its end, whatever rows it answers.
    pub(super) fn run(&self, sql: &CStr) -> Result<(), Failure> {
        let mut statement = self.prepare(sql)?;
        while statement.step()? {}
        Ok(())
    }

    /// The first column of the first row, as a number.
    pub(super) fn number(&self, sql: &CStr) -> Result<i64, Failure> {
        let mut statement = self.prepare(sql)?;
        if statement.step()? { Ok(statement.number()) } else { Err(Failure::new(&format!("no answer to {sql:?}"))) }
    }

    /// Lets a schema name collations that nobody here knows: bytes are compared in their place.
    ///
    /// For checks that do not depend on an order, and for nothing else.
    pub(super) fn stand_in_for_collations(&self) -> Result<(), Failure> {
        // SAFETY: U1, U4; a function without state.
        self.ok(unsafe { ffi::sqlite3_collation_needed(self.db.as_ptr(), ptr::null_mut(), Some(stand_in)) })
    }

    /// Where SQLite keeps this database's WAL, symbolic links resolved.
    fn wal(&self) -> Option<PathBuf> {
        // SAFETY: U1, U3, U4; the second call takes only names that the first answers, which are never null for a file.
        let name = unsafe {
            let file = ffi::sqlite3_db_filename(self.db.as_ptr(), c"main".as_ptr());
            if file.is_null() || *file == 0 {
                return None;
            }
            let wal = ffi::sqlite3_filename_wal(file);
            if wal.is_null() {
                return None;
            }
            CStr::from_ptr(wal)
        };
        rust_path(name)
    }
}

/// Called by SQLite for a collation it does not know.
unsafe extern "C" fn stand_in(_: *mut c_void, db: *mut ffi::sqlite3, encoding: c_int, name: *const c_char) {
    // A refusal needs no handling: then the statement that wants the collation does not find it.
    // SAFETY: U4; SQLite passes its own connection and name, and the comparison has no state.
    unsafe { ffi::sqlite3_create_collation_v2(db, name, encoding, ptr::null_mut(), Some(by_bytes), None) };
}

/// Compares as memory does. Does not panic: this is called from C.
unsafe extern "C" fn by_bytes(_: *mut c_void, a_len: c_int, a: *const c_void, b_len: c_int, b: *const c_void) -> c_int {
    // SAFETY: U4; SQLite passes two values with their lengths.
    let (a, b) = unsafe { (lent(a, a_len), lent(b, b_len)) };
    a.cmp(b) as c_int
}

/// # Safety
/// `bytes` is null or that many bytes, which live as long as the caller uses them.
unsafe fn lent<'a>(bytes: *const c_void, len: c_int) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: the caller's promise.
        Ok(len) if len > 0 && !bytes.is_null() => unsafe { slice::from_raw_parts(bytes.cast(), len) },
        _ => &[],
    }
}

impl Drop for Connection {
    /// Leaves the folder as it was found.
    ///
    /// The last connection to a WAL database backfills it and deletes the WAL. A WAL with something in it was not ours to
    /// fold: it stays as it is. One that is empty was made by our opening the database, or serves nobody: then SQLite's
    /// usual end removes it, and the -shm with it, without touching the database.
    fn drop(&mut self) {
        let empty = self.wal().is_some_and(|wal| std::fs::metadata(wal).is_ok_and(|wal| wal.len() == 0));
        if empty && let Err(failure) = self.configure(ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false) {
            tracing::debug!(?failure, "an empty WAL stays behind");
        }
        // SAFETY: U1, U5.
        unsafe { ffi::sqlite3_close_v2(self.db.as_ptr()) };
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Number(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

impl Cell {
    /// As SQL spells it, text as it is.
    pub fn shown(&self) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Number(number) => number.to_string(),
            Cell::Real(number) => number.to_string(),
            Cell::Text(text) => text.clone(),
            Cell::Blob(bytes) => format!("x'{}'", hex(bytes)),
        }
    }
}

/// Bytes as two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A prepared statement and the row it stands on.
#[derive(Debug)]
pub(super) struct Statement {
    statement: NonNull<ffi::sqlite3_stmt>,
}

// SAFETY: U2, U5.
unsafe impl Send for Statement {}

impl Statement {
    /// Goes to the next row; false at the end, where the next step would begin anew.
    pub(super) fn step(&mut self) -> Result<bool, Failure> {
        // SAFETY: U1.
        match unsafe { ffi::sqlite3_step(self.statement.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => {
                self.reset();
                Ok(false)
            }
            code => {
                // SAFETY: U1, U5: while its statement lives, so does the connection.
                let failure = Failure::of(unsafe { ffi::sqlite3_db_handle(self.statement.as_ptr()) }, code);
                self.reset();
                Err(failure)
            }
        }
    }

    /// The names of its columns.
    pub(super) fn columns(&self) -> Vec<String> {
        let statement = self.statement.as_ptr();
        // SAFETY: U1, U3.
        unsafe {
            let count = ffi::sqlite3_column_count(statement);
            (0..count).map(|nth| text(ffi::sqlite3_column_name(statement, nth))).collect()
        }
    }

    /// The row it stands on.
    pub(super) fn row(&mut self) -> Vec<Cell> {
        let statement = self.statement.as_ptr();
        // SAFETY: U1, U3: copied before the next call; a blob is asked for before its length.
        unsafe {
            (0..ffi::sqlite3_column_count(statement))
                .map(|nth| match ffi::sqlite3_column_type(statement, nth) {
                    ffi::SQLITE_NULL => Cell::Null,
                    ffi::SQLITE_INTEGER => Cell::Number(ffi::sqlite3_column_int64(statement, nth)),
                    ffi::SQLITE_FLOAT => Cell::Real(ffi::sqlite3_column_double(statement, nth)),
                    ffi::SQLITE_BLOB => {
                        let bytes = ffi::sqlite3_column_blob(statement, nth);
                        Cell::Blob(lent(bytes, ffi::sqlite3_column_bytes(statement, nth)).to_vec())
                    }
                    _ => Cell::Text(text(ffi::sqlite3_column_text(statement, nth).cast())),
                })
                .collect()
        }
    }

    /// Back to before the first row.
    pub(super) fn reset(&mut self) {
        // What it answers repeats the last step's result, which was handled there.
        // SAFETY: U1.
        unsafe { ffi::sqlite3_reset(self.statement.as_ptr()) };
    }

    /// Sets the only parameter; the statement is before its first row.
    pub(super) fn bind(&mut self, value: i64) -> Result<(), Failure> {
        // SAFETY: U1.
        match unsafe { ffi::sqlite3_bind_int64(self.statement.as_ptr(), 1, value) } {
            ffi::SQLITE_OK => Ok(()),
            // SAFETY: U1, U5.
            code => Err(Failure::of(unsafe { ffi::sqlite3_db_handle(self.statement.as_ptr()) }, code)),
        }
    }

    /// The row's first column as a number.
    pub(super) fn number(&mut self) -> i64 {
        // SAFETY: U1; without a row the answer is zero.
        unsafe { ffi::sqlite3_column_int64(self.statement.as_ptr(), 0) }
    }

    /// The row's first column as bytes, lent until the next call.
    pub(super) fn blob(&mut self) -> &[u8] {
        let statement = self.statement.as_ptr();
        // SAFETY: U1, U3; the blob is asked for before its length, as the documentation wants it, and both are of the same
        // value. An empty blob is null.
        unsafe {
            let bytes = ffi::sqlite3_column_blob(statement, 0);
            lent(bytes, ffi::sqlite3_column_bytes(statement, 0))
        }
    }

    /// The row's first column as text.
    pub(super) fn text(&mut self) -> String {
        // SAFETY: U1, U3; what is answered is null or ends with a zero.
        unsafe { text(ffi::sqlite3_column_text(self.statement.as_ptr(), 0).cast()) }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: U1.
        unsafe { ffi::sqlite3_finalize(self.statement.as_ptr()) };
    }
}

#[cfg(unix)]
fn c_path(path: &Path) -> Result<CString, &'static str> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "the path has a zero byte in it")
}

#[cfg(not(unix))]
fn c_path(path: &Path) -> Result<CString, &'static str> {
    let path = path.to_str().ok_or("the path is not Unicode")?;
    CString::new(path).map_err(|_| "the path has a zero byte in it")
}

#[cfg(unix)]
fn rust_path(name: &CStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

#[cfg(not(unix))]
fn rust_path(name: &CStr) -> Option<PathBuf> {
    name.to_str().ok().map(PathBuf::from)
}
