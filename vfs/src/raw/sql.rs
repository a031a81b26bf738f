//! Functions and tables, as SQLite calls them.

use super::abi::{self, Context, Cursor, IndexInfo, Int64, Module, Value, Vtab, code};
use super::api::transient;
use super::asking::Asking;
use super::connection::file_of;
use super::file::{self, Known};
use super::guard::guard;
use super::library::Library;
use super::logtable::{self, path_of};
use crate::past::Past;
use crate::seat::Seat;
use crate::sql::{self, Cell, FUNCTIONS, Function, Rows, Run, TABLES, Table, Target};
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// What a function's or a table's callback is given: whose library, and which one it is. Never freed (rule R4).
struct Bound<T: 'static> {
    library: &'static Library,
    what: &'static T,
}

/// Registers all functions and tables on a connection.
///
/// # Safety
/// `db` is an open connection of the library's.
pub(crate) unsafe fn register(library: &'static Library, db: *mut abi::Connection) -> c_int {
    let (place, bound) = bound(library);
    // Beyond the last callback there are pragmas and tables only.
    for function in bound.functions.iter().filter(|_| place < CALLS.len()) {
        let Ok(name) = CString::new(function.what.name) else { return code::ERROR };
        let (data, flags) = (ptr::from_ref(function).cast_mut().cast(), code::UTF8 | code::DIRECTONLY);
        for arguments in 0..=function.what.arguments_max {
            // SAFETY: R3, R4.
            let answer = unsafe {
                let create = library.api.create_function_v2;
                create(db, name.as_ptr(), arguments, flags, data, CALLS.get(place).copied(), None, None, None)
            };
            match answer {
                code::OK => {}
                // It is there already, and the statement that loads us is running: `SELECT load_extension(...)`.
                code::BUSY => return code::OK,
                failed => return failed,
            }
        }
    }
    // SAFETY: the caller's promise.
    match unsafe { logtable::register(library, db) } {
        code::OK => {}
        failed => return failed,
    }
    for table in &bound.tables {
        let Ok(name) = CString::new(table.what.name) else { return code::ERROR };
        let data = ptr::from_ref(table).cast_mut().cast();
        // SAFETY: R3, R4.
        let answer = unsafe { (library.api.create_module_v2)(db, name.as_ptr(), &raw const MODULE, data, None) };
        if answer != code::OK {
            return answer;
        }
    }
    code::OK
}

struct All {
    library: &'static Library,
    functions: Vec<Bound<Function>>,
    tables: Vec<Bound<Table>>,
}

type Call = unsafe extern "C" fn(*mut Context, c_int, *mut *mut Value);

/// A function's callback must know its library before it can ask anything, even for its own data: so there is one callback for
/// each library of this process, up to as many as anybody has seen (rule R3).
const CALLS: [Call; 4] = [call::<0>, call::<1>, call::<2>, call::<3>];

static ALL: Mutex<Vec<&'static All>> = Mutex::new(Vec::new());

/// One list for each library, made once; and its place among them.
fn bound(library: &'static Library) -> (usize, &'static All) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, known)) = all.iter().enumerate().find(|(_, known)| known.library.id() == library.id()) {
        return (at, known);
    }
    let made: &'static All = Box::leak(Box::new(All {
        library,
        functions: FUNCTIONS.iter().map(|what| Bound { library, what }).collect(),
        tables: TABLES.iter().map(|what| Bound { library, what }).collect(),
    }));
    all.push(made);
    (all.len() - 1, made)
}

/// The database that a schema's name stands for.
///
/// # Safety
/// `db` is an open connection of the library's.
pub(super) unsafe fn target(library: &'static Library, db: *mut abi::Connection, schema: Option<&str>) -> Meant {
    // SAFETY: R9: the connection that asks.
    let asking = unsafe { Asking::of(library, db) };
    // SAFETY: the caller's promise, then R2.
    match unsafe { file::known(file_of(library, db, schema.unwrap_or("main"))) } {
        Known::Ours(target) => Meant::Now(Some(Target { asking, ..target })),
        Known::Past(past, seat) => Meant::Past(past, asking, seat),
        Known::Foreign => Meant::Now(None),
    }
}

/// What a question is about.
pub(super) enum Meant {
    /// A database of ours, or none.
    Now(Option<Target>),
    /// A moment of one's history.
    Past(Arc<Past>, Asking, Arc<Seat>),
}

unsafe fn text_of(library: &Library, value: *mut Value) -> Option<String> {
    // SAFETY: R1, R3: the value's text, copied before the next call on it.
    unsafe {
        let text = (library.api.value_text)(value);
        let len = usize::try_from((library.api.value_bytes)(value)).unwrap_or(0);
        (!text.is_null()).then(|| String::from_utf8_lossy(std::slice::from_raw_parts(text, len)).into_owned())
    }
}

unsafe extern "C" fn call<const PLACE: usize>(context: *mut Context, count: c_int, values: *mut *mut Value) {
    guard((), || {
        let known = ALL.lock().unwrap_or_else(PoisonError::into_inner).get(PLACE).copied();
        let Some(All { library, .. }) = known else { return };
        // SAFETY: R1, R3, R4: the context is this library's, and its data is what the function was registered with.
        unsafe {
            let bound = &*(library.api.user_data)(context).cast::<Bound<Function>>();
            let arguments: Vec<Option<String>> =
                (0..usize::try_from(count).unwrap_or(0)).map(|nth| text_of(library, *values.add(nth))).collect();
            let db = (library.api.context_db_handle)(context);
            let answered = match bound.what.run {
                Run::OfLogs(run) => run(Asking::of(library, db), path_of(library, db, "main"), &arguments),
                Run::OfDatabase(run) => match target(library, db, sql::schema_of(bound.what, &arguments)) {
                    Meant::Now(target) => run(target.as_ref(), &arguments),
                    Meant::Past(past, asking, seat) => {
                        sql::session::of_past(asking, &seat, bound.what.name, &arguments)
                            .unwrap_or_else(|| past.answer(bound.what.name))
                    }
                },
            };
            match answered {
                Ok(cell) => answer(library, context, &cell),
                Err(refusal) => {
                    let text = CString::new(refusal.message.replace('\0', " ")).unwrap_or_default();
                    (library.api.result_error)(context, text.as_ptr(), -1);
                    (library.api.result_error_code)(context, refusal.code);
                }
            }
        }
    });
}

unsafe fn answer(library: &Library, context: *mut Context, cell: &Cell) {
    let api = &library.api;
    // SAFETY: R3: text is copied by SQLite.
    unsafe {
        match cell {
            Cell::Null => (api.result_null)(context),
            Cell::Number(number) => (api.result_int64)(context, *number),
            Cell::Text(text) => match c_int::try_from(text.len()) {
                Ok(len) => (api.result_text)(context, text.as_ptr().cast::<c_char>(), len, transient()),
                Err(_) => (api.result_null)(context),
            },
        }
    }
}

/// A table on a connection.
#[repr(C)]
struct OurTable {
    base: Vtab,
    bound: &'static Bound<Table>,
    db: *mut abi::Connection,
}

/// A reading of it: all rows at once, since none of these tables is large.
#[repr(C)]
struct OurCursor {
    base: Cursor,
    rows: Vec<Vec<Cell>>,
    at: usize,
}

static MODULE: Module = Module {
    version: 1,
    // Without a `create`: there without being made.
    create: None,
    connect: Some(connect),
    best_index: Some(best_index),
    disconnect: Some(disconnect),
    destroy: None,
    open: Some(open),
    close: Some(close),
    filter: Some(filter),
    next: Some(next),
    eof: Some(eof),
    column: Some(column),
    rowid: Some(rowid),
    update: None,
    begin: None,
    sync: None,
    commit: None,
    rollback: None,
    find_function: None,
    rename: None,
    savepoint: None,
    release: None,
    rollback_to: None,
    rest: [None; 2],
};

// SAFETY for all that follow: R1 to R5, in calls that SQLite makes on a table of this module.

unsafe extern "C" fn connect(
    db: *mut abi::Connection,
    data: *mut c_void,
    _: c_int,
    _: *const *const c_char,
    table: *mut *mut Vtab,
    _: *mut *mut c_char,
) -> c_int {
    guard(code::ERROR, || unsafe {
        let bound = &*data.cast::<Bound<Table>>();
        let columns = bound.what.columns.join(", ");
        let Ok(sql) = CString::new(format!("CREATE TABLE t({columns}, schema HIDDEN)")) else { return code::ERROR };
        let answer = (bound.library.api.declare_vtab)(db, sql.as_ptr());
        if answer == code::OK {
            let base = Vtab { module: ptr::null(), references: 0, message: ptr::null_mut() };
            *table = Box::into_raw(Box::new(OurTable { base, bound, db })).cast();
        }
        answer
    })
}

unsafe extern "C" fn disconnect(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        drop(Box::from_raw(table.cast::<OurTable>()));
        code::OK
    })
}

/// The one question that a table takes: of which schema.
unsafe extern "C" fn best_index(table: *mut Vtab, info: *mut IndexInfo) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &*table.cast::<OurTable>();
        let hidden = ours.bound.what.columns.len();
        let info = &mut *info;
        for nth in 0..usize::try_from(info.constraints).unwrap_or(0) {
            let constraint = &*info.constraint.add(nth);
            let asks =
                usize::try_from(constraint.column) == Ok(hidden) && constraint.operator == code::INDEX_CONSTRAINT_EQ;
            if asks && constraint.usable != 0 {
                let usage = &mut *info.usage.add(nth);
                (usage.argument, usage.omit) = (1, 1);
                break;
            }
        }
        info.cost = 1000.0;
        code::OK
    })
}

unsafe extern "C" fn open(_: *mut Vtab, cursor: *mut *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        let base = Cursor { table: ptr::null_mut() };
        *cursor = Box::into_raw(Box::new(OurCursor { base, rows: Vec::new(), at: 0 })).cast();
        code::OK
    })
}

unsafe extern "C" fn close(cursor: *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        drop(Box::from_raw(cursor.cast::<OurCursor>()));
        code::OK
    })
}

unsafe extern "C" fn filter(
    cursor: *mut Cursor,
    _: c_int,
    _: *const c_char,
    count: c_int,
    values: *mut *mut Value,
) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *cursor.cast::<OurCursor>();
        let table = &mut *ours.base.table.cast::<OurTable>();
        let library = table.bound.library;
        let schema = if count > 0 { text_of(library, *values) } else { None };
        let answered = match table.bound.what.rows {
            Rows::OfLogs(rows) => {
                rows(Asking::of(library, table.db), path_of(library, table.db, "main"), schema.as_deref())
            }
            Rows::OfDatabase(rows) => match target(library, table.db, schema.as_deref()) {
                Meant::Now(target) => rows(target.as_ref()),
                Meant::Past(past, ..) => past.rows(table.bound.what.name),
            },
        };
        ours.at = 0;
        match answered {
            Ok(rows) => {
                ours.rows = rows;
                code::OK
            }
            Err(refusal) => {
                (library.api.free)(table.base.message.cast());
                table.base.message = library.api.text(&refusal.message);
                refusal.code
            }
        }
    })
}

unsafe extern "C" fn next(cursor: *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        (*cursor.cast::<OurCursor>()).at += 1;
        code::OK
    })
}

unsafe extern "C" fn eof(cursor: *mut Cursor) -> c_int {
    guard(1, || unsafe {
        let ours = &*cursor.cast::<OurCursor>();
        c_int::from(ours.at >= ours.rows.len())
    })
}

unsafe extern "C" fn column(cursor: *mut Cursor, context: *mut Context, column: c_int) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &*cursor.cast::<OurCursor>();
        let library = (*ours.base.table.cast::<OurTable>()).bound.library;
        let cell = ours.rows.get(ours.at).zip(usize::try_from(column).ok()).and_then(|(row, at)| row.get(at));
        answer(library, context, cell.unwrap_or(&Cell::Null));
        code::OK
    })
}

unsafe extern "C" fn rowid(cursor: *mut Cursor, row: *mut Int64) -> c_int {
    guard(code::ERROR, || unsafe {
        *row = i64::try_from((*cursor.cast::<OurCursor>()).at).unwrap_or(i64::MAX);
        code::OK
    })
}
