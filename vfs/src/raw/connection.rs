//! A connection of our own in the host's SQLite, on a database that others use: it only reads, and SQLite's own locks keep it right.

use super::abi::{self, File, code};
use super::file::{self, Shm};
use super::library::Library;
use super::walindex::{self, Header};
use crate::said;
use crate::uri;
use littoral_engine::program::Instruction;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;

/// Steps of a program that are read.
const PROGRAM_MAX: usize = 1 << 14;
/// Reading beyond the file's end: the rest is zeros.
const SHORT_READ: c_int = code::IOERR_SHORT_READ;

/// What SQLite says when it does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The extended code.
    pub(crate) code: c_int,
    /// In SQLite's words.
    pub(crate) message: String,
}

impl Failure {
    fn new(code: c_int, message: &str) -> Self {
        Self { code, message: message.to_owned() }
    }

    /// The code without its extension.
    pub(crate) fn primary(&self) -> c_int {
        self.code & 0xff
    }
}

/// A connection that reads.
pub(crate) struct Connection {
    library: &'static Library,
    db: *mut abi::Connection,
    main: *mut File,
    shim: *mut File,
}

// SAFETY: R8: one value owns it, and it was opened with a mutex of its own.
unsafe impl Send for Connection {}

impl Connection {
    /// Opens a database file that is there.
    pub(crate) fn open(library: &'static Library, path: &Path, busy_ms: u32) -> Result<Self, Failure> {
        let api = &library.api;
        let name = uri::spell(path, &[]).map(|uri| format!("{uri}&{}=1", said::READER));
        let name = name
            .and_then(|name| CString::new(name).ok())
            .ok_or_else(|| Failure::new(code::CANTOPEN, "a name with a zero in it"))?;
        // Never together with the application's connections, whatever it has switched on for all of them.
        let flags = code::OPEN_READWRITE | code::OPEN_URI | code::OPEN_FULLMUTEX | code::OPEN_PRIVATECACHE;
        let mut db = ptr::null_mut();
        // SAFETY: R3, R8; the name outlives the call.
        let answer = unsafe { (api.open_v2)(name.as_ptr(), &mut db, flags, ptr::null()) };
        let mut connection = Self { library, db, main: ptr::null_mut(), shim: ptr::null_mut() };
        connection.ok(answer)?;
        // SAFETY: R3, R8; this switch takes a number and a pointer that may be null.
        unsafe {
            (api.busy_timeout)(db, c_int::try_from(busy_ms).unwrap_or(c_int::MAX));
            // A look does not backfill, not even as the last one to leave.
            let off = ptr::null_mut::<c_int>();
            connection.ok((api.db_config)(db, code::DBCONFIG_NO_CKPT_ON_CLOSE, 1 as c_int, off))?;
        }
        connection.run(c"PRAGMA query_only = ON")?;
        connection.shim = connection.pointer(code::FCNTL_FILE_POINTER)?;
        // SAFETY: R2: SQLite's own answer to where the connection's main file is.
        match unsafe { file::reader(connection.shim) } {
            Some((inner, _)) => connection.main = inner,
            None => return Err(Failure::new(code::MISUSE, "the database was opened past the VFS littoral")),
        }
        Ok(connection)
    }

    fn ok(&self, answer: c_int) -> Result<(), Failure> {
        if answer == code::OK { Ok(()) } else { Err(self.failure(answer)) }
    }

    fn failure(&self, answer: c_int) -> Failure {
        let api = &self.library.api;
        if self.db.is_null() {
            return Failure::new(answer, "the connection is closed");
        }
        // SAFETY: R1, R3: copied before anything else is called.
        let (extended, text) = unsafe {
            let text = CStr::from_ptr((api.errmsg)(self.db)).to_string_lossy().into_owned();
            ((api.extended_errcode)(self.db), text)
        };
        Failure { code: if extended & 0xff == answer & 0xff { extended } else { answer }, message: text }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.db.is_null()
    }

    /// For how long it waits from now on for whoever has the file for himself.
    pub(crate) fn waits(&self, busy_ms: u32) {
        if !self.db.is_null() {
            // SAFETY: R3: a connection that is open.
            unsafe { (self.library.api.busy_timeout)(self.db, c_int::try_from(busy_ms).unwrap_or(c_int::MAX)) };
        }
    }

    /// One that was closed answers nothing.
    fn is_open(&self) -> Result<(), Failure> {
        if self.db.is_null() { Err(self.failure(code::BUSY)) } else { Ok(()) }
    }

    fn pointer(&self, which: c_int) -> Result<*mut File, Failure> {
        self.is_open()?;
        let mut found: *mut File = ptr::null_mut();
        // SAFETY: R3: this operation answers a pointer to an open file.
        let answer =
            unsafe { (self.library.api.file_control)(self.db, c"main".as_ptr(), which, (&raw mut found).cast()) };
        self.ok(answer).map(|()| found)
    }

    /// Runs one statement, and gives the first number that it answers.
    pub(crate) fn number(&self, sql: &CStr) -> Result<Option<i64>, Failure> {
        self.is_open()?;
        let api = &self.library.api;
        let mut statement = ptr::null_mut();
        // SAFETY: R3, R8: the statement is finalised before this returns, and nothing it lends is kept.
        unsafe {
            self.ok((api.prepare_v2)(self.db, sql.as_ptr(), -1, &mut statement, ptr::null_mut()))?;
            let mut first = None;
            let answer = loop {
                match (api.step)(statement) {
                    code::ROW if first.is_none() => first = Some((api.column_int64)(statement, 0)),
                    code::ROW => {}
                    answer => break answer,
                }
            };
            let failure = (answer != 101).then(|| self.failure(answer));
            (api.finalize)(statement);
            failure.map_or(Ok(first), Err)
        }
    }

    /// Runs one statement.
    pub(crate) fn run(&self, sql: &CStr) -> Result<(), Failure> {
        self.number(sql).map(drop)
    }

    /// The program of a statement, which is not run.
    pub(crate) fn explain(&self, sql: &str) -> Result<Vec<Instruction>, Failure> {
        self.is_open()?;
        let api = &self.library.api;
        let sql = CString::new(format!("EXPLAIN {sql}")).map_err(|_| Failure::new(code::MISUSE, "a zero in it"))?;
        let mut statement = ptr::null_mut();
        let mut program = Vec::new();
        // SAFETY: R3, R8: the statement is finalised before this returns, and what it lends is copied before the next call on it.
        unsafe {
            self.ok((api.prepare_v2)(self.db, sql.as_ptr(), -1, &mut statement, ptr::null_mut()))?;
            let text = |column| {
                let text = (api.column_text)(statement, column);
                let len = usize::try_from((api.column_bytes)(statement, column)).unwrap_or(0);
                if text.is_null() {
                    return String::new();
                }
                String::from_utf8_lossy(std::slice::from_raw_parts(text, len)).into_owned()
            };
            let number = |column| (api.column_int64)(statement, column);
            while program.len() < PROGRAM_MAX && !statement.is_null() && (api.step)(statement) == code::ROW {
                program.push(Instruction {
                    address: number(0),
                    opcode: text(1),
                    p1: number(2),
                    p2: number(3),
                    p3: number(4),
                    p4: text(5),
                    p5: number(6),
                });
            }
            (api.finalize)(statement);
        }
        Ok(program)
    }

    /// What this connection knows of the WAL's index; nothing in rollback mode.
    fn shm(&self) -> Option<Shm> {
        // SAFETY: R2.
        unsafe { file::reader(self.shim) }.map(|(_, shm)| shm)
    }

    /// What the WAL's index says now.
    pub(crate) fn header(&self) -> Option<Header> {
        self.shm()?.header()
    }

    /// Whether it has a WAL's index.
    pub(crate) fn has_index(&self) -> bool {
        self.shm().is_some_and(|shm| shm.is_mapped())
    }

    /// How many frames are in the database file.
    pub(crate) fn backfilled(&self) -> Option<u64> {
        self.shm()?.backfilled()
    }

    /// Up to which frame a backfill was begun: after nobody read anything older any more.
    pub(crate) fn backfill_begun(&self) -> Option<u64> {
        self.shm()?.backfill_begun()
    }

    /// Writes what is in the WAL to the database file, as far as nobody is in the way.
    pub(crate) fn backfill(&self) -> Result<(), Failure> {
        self.run(c"PRAGMA wal_checkpoint(PASSIVE)")
    }

    /// The same, and leaves an empty WAL.
    pub(crate) fn empty_wal(&self) -> Result<(), Failure> {
        self.run(c"PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Which reader's lock the transaction holds: `None` in rollback mode.
    pub(crate) fn reader(&self) -> Option<u32> {
        self.shm()?.reader()
    }

    /// Which pages the WAL's frames after `from` and up to `to` hold. To be asked inside of a transaction.
    pub(crate) fn frames(&self, from: u64, to: u64) -> Option<Vec<u32>> {
        // SAFETY: R7: inside of a transaction that holds a reader's lock; otherwise there is nothing to be asked.
        self.reader().and_then(|_| unsafe { walindex::pages(self.main, from, to) })
    }

    /// Reads from the database file itself; what is not here is fetched.
    pub(crate) fn read_main(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.is_open()?;
        read(self.shim, offset, into)
    }

    /// The bytes of the inner database file, past all that is fetched.
    pub(crate) fn bytes(&self) -> file::Bytes {
        // SAFETY: R2, R8: this connection's own open file; what borrows it does not outlive the call it is made for.
        unsafe { file::Bytes::of(self.main) }
    }

    /// Reads from the WAL itself.
    pub(crate) fn read_wal(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        let wal = self.pointer(code::FCNTL_JOURNAL_POINTER)?;
        if wal.is_null() {
            return Err(Failure::new(code::IOERR, "there is no WAL"));
        }
        // SAFETY: R2: an open file of this connection's.
        read(unsafe { file::inner_of(wal) }, offset, into)
    }

    /// Makes the WAL durable. False where there is none.
    pub(crate) fn sync_wal(&self) -> Result<bool, Failure> {
        let wal = self.pointer(code::FCNTL_JOURNAL_POINTER)?;
        // SAFETY: R1, R2: a file of this connection's, perhaps not open; then it has no methods.
        let synced = unsafe {
            let inner = if wal.is_null() { wal } else { file::inner_of(wal) };
            if inner.is_null() || (*inner).methods.is_null() {
                return Ok(false);
            }
            file::Bytes::of(inner).sync()
        };
        synced
            .map(|()| true)
            .map_err(|failed| Failure::new(failed, &format!("the WAL cannot be synced (code {failed})")))
    }

    /// The byte whose page SQLite locks and never writes.
    pub(crate) fn pending_byte(&self) -> u64 {
        // SAFETY: R3: this operation takes one unsigned integer, and zero asks without changing.
        let byte = unsafe { (self.library.api.test_control)(code::TESTCTRL_PENDING_BYTE, 0 as c_uint) };
        u64::from(byte.cast_unsigned())
    }
}

fn read(file: *mut File, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
    let (Ok(len), Ok(offset)) = (c_int::try_from(into.len()), i64::try_from(offset)) else {
        return Err(Failure::new(code::MISUSE, "a read beyond what a file can hold"));
    };
    // SAFETY: R1, R2: an open inner file of a connection that this thread owns; the buffer has `len` bytes.
    let answer = unsafe {
        match (*file).methods.as_ref().and_then(|methods| methods.read) {
            Some(read) => read(file, into.as_mut_ptr().cast::<c_void>(), len, offset),
            None => code::IOERR,
        }
    };
    match answer {
        code::OK | SHORT_READ => Ok(()),
        failed => Err(Failure::new(failed, &format!("reading {len} bytes at {offset} failed (code {failed})"))),
    }
}

impl Connection {
    /// Whether there is a WAL, and nothing in it.
    fn wal_is_empty(&self) -> bool {
        let Ok(wal) = self.pointer(code::FCNTL_JOURNAL_POINTER) else { return false };
        if wal.is_null() {
            return false;
        }
        // SAFETY: R1, R2: a file of this connection's, perhaps not open; then it has no methods.
        unsafe {
            let wal = file::inner_of(wal);
            let size = (*wal).methods.as_ref().and_then(|methods| methods.file_size);
            let mut found = -1;
            size.is_some_and(|size| size(wal, &mut found) == code::OK && found == 0)
        }
    }
}

impl Connection {
    /// Closes it: from here on every question is refused.
    pub(crate) fn close(&mut self) {
        if self.db.is_null() {
            return;
        }
        // Who leaves last takes an empty WAL along, as SQLite does: there is nothing to be backfilled.
        if self.wal_is_empty() {
            let off = ptr::null_mut::<c_int>();
            // SAFETY: R3, R8: this switch takes a number and a pointer that may be null.
            unsafe { (self.library.api.db_config)(self.db, code::DBCONFIG_NO_CKPT_ON_CLOSE, 0 as c_int, off) };
        }
        (self.main, self.shim) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: R8: closed once.
        unsafe { (self.library.api.close_v2)(std::mem::replace(&mut self.db, ptr::null_mut())) };
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// The file of a connection's schema, as a host's call names it.
///
/// # Safety
/// `db` is an open connection of the library's.
pub(crate) unsafe fn file_of(library: &'static Library, db: *mut abi::Connection, schema: &str) -> *mut File {
    let Ok(schema) = CString::new(schema) else { return ptr::null_mut() };
    let mut found: *mut File = ptr::null_mut();
    // SAFETY: R3.
    unsafe {
        (library.api.file_control)(
            db,
            schema.as_ptr().cast::<c_char>(),
            code::FCNTL_FILE_POINTER,
            (&raw mut found).cast(),
        )
    };
    found
}
