//! The application's own connection, for as long as it asks us something: what is to be in its transaction is said on it.

use super::abi::{self, code};
use super::api::transient;
use super::library::Library;
use crate::sql::{Cell, Refusal};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

/// `SQLITE_INTEGER`, `SQLITE_NULL`.
const INTEGER: c_int = 1;
const NULL: c_int = 5;
/// `SQLITE_DONE`.
const DONE: c_int = 101;

/// The connection that asks, within the call in which it does.
#[derive(Clone, Copy)]
pub(crate) struct Asking {
    library: &'static Library,
    db: *mut abi::Connection,
}

impl Asking {
    /// # Safety
    /// `db` is null, or the connection that calls us now; what this makes is not kept beyond that call (rule R10).
    pub(crate) const unsafe fn of(library: &'static Library, db: *mut abi::Connection) -> Self {
        Self { library, db }
    }

    /// Whether it is in a transaction that it has begun by itself.
    pub(crate) fn is_in_transaction(self) -> bool {
        // SAFETY: R3, R10.
        !self.db.is_null() && unsafe { (self.library.api.get_autocommit)(self.db) == 0 }
    }

    /// Runs one statement with these values, and gives its rows.
    pub(crate) fn rows(self, sql: &CStr, values: &[Cell]) -> Result<Vec<Vec<Cell>>, Refusal> {
        let api = &self.library.api;
        if self.db.is_null() {
            return Err(Refusal::usage("this is asked as a function: SELECT littoral_serial()"));
        }
        let mut statement = ptr::null_mut();
        let mut rows = Vec::new();
        // SAFETY: R3, R10: the connection's own thread is in this call; the statement is finalised before it ends, and what it lends is copied.
        unsafe {
            let mut answer = (api.prepare_v2)(self.db, sql.as_ptr(), -1, &mut statement, ptr::null_mut());
            if answer == code::OK {
                for (nth, value) in (1..).zip(values) {
                    self.bind(statement, nth, value);
                }
                loop {
                    answer = (api.step)(statement);
                    if answer != code::ROW {
                        break;
                    }
                    let mut row = Vec::new();
                    for column in 0..(api.column_count)(statement) {
                        row.push(self.cell(statement, column));
                    }
                    rows.push(row);
                }
            }
            let failure = (answer != DONE).then(|| self.refusal(answer));
            (api.finalize)(statement);
            failure.map_or(Ok(rows), Err)
        }
    }

    unsafe fn bind(self, statement: *mut abi::Statement, nth: c_int, value: &Cell) {
        let api = &self.library.api;
        // SAFETY: R3: a statement of this connection's; text is copied.
        unsafe {
            match value {
                Cell::Null => {}
                Cell::Number(number) => drop((api.bind_int64)(statement, nth, *number)),
                Cell::Text(text) => {
                    let len = c_int::try_from(text.len()).unwrap_or(0);
                    (api.bind_text)(statement, nth, text.as_ptr().cast::<c_char>(), len, transient());
                }
            }
        }
    }

    unsafe fn cell(self, statement: *mut abi::Statement, column: c_int) -> Cell {
        let api = &self.library.api;
        // SAFETY: R3: a statement that stands on a row; text is copied before the next call on it.
        unsafe {
            match (api.column_type)(statement, column) {
                NULL => Cell::Null,
                INTEGER => Cell::Number((api.column_int64)(statement, column)),
                _ => {
                    let text = (api.column_text)(statement, column);
                    let len = usize::try_from((api.column_bytes)(statement, column)).unwrap_or(0);
                    match text.is_null() {
                        true => Cell::Null,
                        false => {
                            Cell::Text(String::from_utf8_lossy(std::slice::from_raw_parts(text, len)).into_owned())
                        }
                    }
                }
            }
        }
    }

    /// SQLite's own words.
    unsafe fn refusal(self, answer: c_int) -> Refusal {
        // SAFETY: R1, R3: copied before anything else is called.
        let message = unsafe { CStr::from_ptr((self.library.api.errmsg)(self.db)) }.to_string_lossy().into_owned();
        Refusal { code: answer & 0xff, message }
    }

    /// Whether it has a table of this name in its main schema.
    pub(crate) fn has_table(self, name: &str) -> Result<bool, Refusal> {
        let sql = c"SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        Ok(!self.rows(sql, &[Cell::Text(name.to_owned())])?.is_empty())
    }

    /// Runs one statement that takes no values.
    pub(crate) fn run(self, sql: &str) -> Result<(), Refusal> {
        let sql = CString::new(sql).map_err(|_| Refusal::usage("a zero byte in a statement"))?;
        self.rows(&sql, &[]).map(drop)
    }
}
