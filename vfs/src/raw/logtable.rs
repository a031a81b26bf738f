//! The module `littoral_log`, as SQLite calls it: a table whose rows are a log's records.

use super::abi::{self, Context, Cursor, IndexInfo, Int64, Module, Value, Vtab, code};
use super::api::transient;
use super::asking::Asking;
use super::guard::guard;
use super::library::Library;
use super::sql::{Meant, target};
use crate::logtable::{LogTable, refused};
use crate::sql::Refusal;
use littoral_engine::logs::schema::Affinity;
use littoral_engine::logs::table::{Ask, ROW_LEADS, Scan, of_row, put_cell};
use littoral_engine::logs::zone::{Comparison, Condition};
use littoral_types::{LogCell, Lsn};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Range;
use std::path::PathBuf;
use std::ptr;

/// Registers the module.
///
/// # Safety
/// `db` is an open connection of the library's.
pub(super) unsafe fn register(library: &'static Library, db: *mut abi::Connection) -> c_int {
    let data = ptr::from_ref(library).cast_mut().cast();
    // SAFETY: R3, R4.
    unsafe { (library.api.create_module_v2)(db, c"littoral_log".as_ptr(), &raw const MODULE, data, None) }
}

/// The file of a schema; none in memory.
///
/// # Safety
/// `db` is an open connection of the library's.
pub(super) unsafe fn path_of(library: &Library, db: *mut abi::Connection, schema: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let schema = CString::new(schema).ok()?;
    // SAFETY: R1, R3: null, or a name that stays as long as the database is attached; copied here.
    unsafe {
        let name = (library.api.db_filename)(db, schema.as_ptr());
        let name = (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())?;
        (!name.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
    }
}

static MODULE: Module = Module {
    version: 2,
    create: Some(made::<true>),
    connect: Some(made::<false>),
    best_index: Some(best_index),
    disconnect: Some(disconnect),
    destroy: Some(destroy),
    open: Some(open),
    close: Some(close),
    filter: Some(filter),
    next: Some(next),
    eof: Some(eof),
    column: Some(column),
    rowid: Some(rowid),
    update: Some(update),
    begin: Some(begin),
    sync: Some(sync),
    commit: Some(end),
    rollback: Some(end),
    find_function: None,
    rename: Some(rename),
    savepoint: Some(savepoint),
    release: Some(release),
    rollback_to: Some(rollback_to),
    rest: [None; 2],
};

/// A table on a connection.
#[repr(C)]
struct OurTable {
    base: Vtab,
    library: &'static Library,
    db: *mut abi::Connection,
    place: String,
    table: LogTable,
}

/// A reading of it: what is committed, and what the transaction has added.
#[repr(C)]
struct OurCursor {
    base: Cursor,
    scan: Option<Scan>,
    stands: Stands,
    ask: Ask,
    /// The values of the row that it stands on, once one was asked for.
    cells: Vec<LogCell<Range<usize>>>,
    is_split: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stands {
    /// On a row of the log.
    Committed,
    /// On a row that the transaction has added.
    Added(usize),
    /// Behind the last one.
    Over,
}

impl OurTable {
    /// Says why in SQLite's own variable.
    ///
    /// # Safety
    /// In a call that SQLite makes on this table.
    unsafe fn refuse(&mut self, refusal: &Refusal) -> c_int {
        // SAFETY: R5.
        unsafe {
            (self.library.api.free)(self.base.message.cast());
            self.base.message = self.library.api.text(&refusal.message);
        }
        refusal.code
    }

    /// # Safety
    /// In a call that SQLite makes on this table; not kept beyond it.
    unsafe fn asking(&self) -> Asking {
        // SAFETY: R10.
        unsafe { Asking::of(self.library, self.db) }
    }
}

// SAFETY for all that follow: R1 to R5, R10, in calls that SQLite makes on a table of this module.

unsafe extern "C" fn made<const IS_NEW: bool>(
    db: *mut abi::Connection,
    data: *mut c_void,
    count: c_int,
    arguments: *const *const c_char,
    table: *mut *mut Vtab,
    message: *mut *mut c_char,
) -> c_int {
    guard(code::ERROR, || unsafe {
        let library = &*data.cast::<Library>();
        let all: Vec<String> = (0..usize::try_from(count).unwrap_or(0))
            .map(|nth| CStr::from_ptr(*arguments.add(nth)).to_string_lossy().into_owned())
            .collect();
        let [_, place, name, columns @ ..] = all.as_slice() else { return code::ERROR };
        let file = path_of(library, db, place);
        let made = match IS_NEW {
            true => LogTable::create(Asking::of(library, db), place, name, columns, file),
            false => LogTable::connect(place, name, columns, file),
        };
        let made = made.and_then(|made| {
            Ok((CString::new(made.schema.declared()).map_err(|_| Refusal::usage("a zero byte in a name"))?, made))
        });
        match made {
            Ok((sql, made)) => {
                let answer = (library.api.declare_vtab)(db, sql.as_ptr());
                if answer == code::OK {
                    let base = Vtab { module: ptr::null(), references: 0, message: ptr::null_mut() };
                    let ours = OurTable { base, library, db, place: place.clone(), table: made };
                    *table = Box::into_raw(Box::new(ours)).cast();
                }
                answer
            }
            Err(refusal) => {
                *message = library.api.text(&refusal.message);
                refusal.code
            }
        }
    })
}

unsafe extern "C" fn disconnect(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        drop(Box::from_raw(table.cast::<OurTable>()));
        code::OK
    })
}

unsafe extern "C" fn destroy(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *table.cast::<OurTable>();
        match ours.table.destroy(ours.asking()) {
            Ok(()) => {
                drop(Box::from_raw(table.cast::<OurTable>()));
                code::OK
            }
            Err(refusal) => ours.refuse(&refusal),
        }
    })
}

unsafe extern "C" fn rename(table: *mut Vtab, name: *const c_char) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *table.cast::<OurTable>();
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        match ours.table.rename(ours.asking(), &name) {
            Ok(()) => code::OK,
            Err(refusal) => ours.refuse(&refusal),
        }
    })
}

unsafe extern "C" fn begin(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *table.cast::<OurTable>();
        ours.table.end();
        if let Meant::Now(Some(target)) = target(ours.library, ours.db, Some(&ours.place)) {
            ours.table.session = target.seat.name().map(|name| name.to_string());
        }
        code::OK
    })
}

unsafe extern "C" fn sync(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *table.cast::<OurTable>();
        match ours.table.sync(ours.asking()) {
            Ok(()) => code::OK,
            Err(refusal) => ours.refuse(&refusal),
        }
    })
}

unsafe extern "C" fn end(table: *mut Vtab) -> c_int {
    guard(code::ERROR, || unsafe {
        (*table.cast::<OurTable>()).table.end();
        code::OK
    })
}

unsafe extern "C" fn savepoint(table: *mut Vtab, number: c_int) -> c_int {
    guard(code::ERROR, || unsafe {
        (*table.cast::<OurTable>()).table.draft.savepoint(number);
        code::OK
    })
}

unsafe extern "C" fn release(table: *mut Vtab, number: c_int) -> c_int {
    guard(code::ERROR, || unsafe {
        (*table.cast::<OurTable>()).table.draft.release(number);
        code::OK
    })
}

unsafe extern "C" fn rollback_to(table: *mut Vtab, number: c_int) -> c_int {
    guard(code::ERROR, || unsafe {
        (*table.cast::<OurTable>()).table.draft.rollback_to(number);
        code::OK
    })
}

/// A value as a column of this affinity keeps it. SQLite converts text and numbers; whole numbers become what they are by its rules.
unsafe fn kept<'a>(library: &Library, value: *mut Value, affinity: Affinity) -> LogCell<&'a [u8]> {
    let api = &library.api;
    unsafe {
        let kind = if affinity.is_number() { (api.value_numeric_type)(value) } else { (api.value_type)(value) };
        match kind {
            code::INTEGER | code::FLOAT if affinity == Affinity::Text => LogCell::Text(text(library, value)),
            code::INTEGER if affinity == Affinity::Real => LogCell::Real((api.value_int64)(value) as f64),
            code::INTEGER => LogCell::Integer((api.value_int64)(value)),
            code::FLOAT => {
                let number = (api.value_double)(value);
                match (affinity, whole(number)) {
                    (Affinity::Integer | Affinity::Numeric, Some(whole)) => LogCell::Integer(whole),
                    (Affinity::Real, Some(whole)) => LogCell::Real(whole as f64),
                    _ => LogCell::Real(number),
                }
            }
            code::TEXT => LogCell::Text(text(library, value)),
            code::BLOB => {
                let bytes = (api.value_blob)(value).cast::<u8>();
                LogCell::Blob(slice(bytes, (api.value_bytes)(value)))
            }
            _ => LogCell::Null,
        }
    }
}

/// A number that is whole, and that an INTEGER holds as SQLite has it.
fn whole(number: f64) -> Option<i64> {
    let whole = number as i64;
    (whole as f64 == number && whole > i64::MIN && whole < i64::MAX).then_some(whole)
}

unsafe fn text<'a>(library: &Library, value: *mut Value) -> &'a [u8] {
    unsafe {
        let text = (library.api.value_text)(value);
        slice(text, (library.api.value_bytes)(value))
    }
}

unsafe fn slice<'a>(bytes: *const u8, len: c_int) -> &'a [u8] {
    if bytes.is_null() {
        return &[];
    }
    // SAFETY: R1: a value's bytes stay until something else is asked of it.
    unsafe { std::slice::from_raw_parts(bytes, usize::try_from(len).unwrap_or(0)) }
}

unsafe extern "C" fn update(table: *mut Vtab, count: c_int, values: *mut *mut Value, row: *mut Int64) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *table.cast::<OurTable>();
        match insert(ours, usize::try_from(count).unwrap_or(0), values) {
            Ok(lsn) => {
                *row = i64::try_from(lsn.0).unwrap_or(i64::MAX);
                code::OK
            }
            Err(refusal) => ours.refuse(&refusal),
        }
    })
}

unsafe fn insert(ours: &mut OurTable, count: usize, values: *mut *mut Value) -> Result<Lsn, Refusal> {
    let library = ours.library;
    let columns = ours.table.schema.columns.len();
    let is_null = |nth: usize| unsafe { (library.api.value_type)(*values.add(nth)) == code::NULL };
    if count < 2 + columns + 4 || !is_null(0) {
        return Err(ours.table.stays());
    }
    let (lsn, session, serial, time) = (2 + columns, 3 + columns, 4 + columns, 5 + columns);
    if !is_null(1) || !is_null(lsn) || !is_null(time) {
        let message = format!("{}: the log itself gives a row its lsn and its time: leave them out", ours.table.name());
        return Err(Refusal::usage(message));
    }
    if !is_null(serial) {
        let kind = unsafe { (library.api.value_numeric_type)(*values.add(serial)) };
        if kind != code::INTEGER {
            return Err(Refusal::usage(format!("{}: a serial is a whole number", ours.table.name())));
        }
    }
    for (nth, column) in ours.table.schema.columns.iter().enumerate().filter(|(_, column)| column.is_required) {
        if is_null(2 + nth) {
            let message = format!("NOT NULL constraint failed: {}.{}", ours.table.name(), column.name);
            return Err(Refusal { code: code::CONSTRAINT_NOTNULL, message });
        }
    }
    // SAFETY: this call's.
    unsafe {
        let asking = ours.asking();
        ours.table.begin(asking)?;
        let LogTable { draft, schema, session: named, .. } = &mut ours.table;
        let added = draft.add(|out| {
            match named {
                Some(named) if is_null(session) => put_cell(out, &LogCell::Text(named.as_bytes())),
                _ => put_cell(out, &kept(library, *values.add(session), Affinity::Text)),
            }
            put_cell(out, &kept(library, *values.add(serial), Affinity::Integer));
            for (nth, column) in schema.columns.iter().enumerate() {
                put_cell(out, &kept(library, *values.add(2 + nth), column.affinity));
            }
        });
        added.map_err(refused)
    }
}

/// Which of the conditions are passed on, and how: a letter or a cell's number, a comparison, a semicolon, for each.
unsafe extern "C" fn best_index(table: *mut Vtab, info: *mut IndexInfo) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &*table.cast::<OurTable>();
        let columns = ours.table.schema.columns.len();
        let found = &mut *info;
        let mut plan = String::new();
        let mut arguments = 0;
        let mut rows = ours.table.rows.max(1000) as f64;
        for nth in 0..usize::try_from(found.constraints).unwrap_or(0) {
            let constraint = &*found.constraint.add(nth);
            let comparison = match constraint.operator {
                code::INDEX_CONSTRAINT_EQ => '=',
                code::INDEX_CONSTRAINT_GT => '>',
                code::INDEX_CONSTRAINT_LE => 'l',
                code::INDEX_CONSTRAINT_LT => '<',
                code::INDEX_CONSTRAINT_GE => 'g',
                _ => continue,
            };
            if constraint.usable == 0 {
                continue;
            }
            let of = match usize::try_from(constraint.column) {
                Err(_) => "L".to_owned(),
                Ok(column) if column == columns => "L".to_owned(),
                Ok(column) if column == columns + 3 => "T".to_owned(),
                Ok(column) => {
                    let collation =
                        (ours.library.api.vtab_collation)(ptr::from_mut(found), c_int::try_from(nth).unwrap_or(0));
                    if collation.is_null() || !CStr::from_ptr(collation).to_bytes().eq_ignore_ascii_case(b"BINARY") {
                        continue;
                    }
                    let cell = if column > columns { column - columns - 1 } else { column + ROW_LEADS };
                    cell.to_string()
                }
            };
            rows = match (of.as_str(), comparison) {
                ("L", '=') => 1.0,
                (_, '=') => rows / 10.0,
                _ => rows / 4.0,
            };
            plan.push_str(&of);
            plan.push(comparison);
            plan.push(';');
            arguments += 1;
            (*found.usage.add(nth)).argument = arguments;
        }
        if found.orders == 1 {
            let order = &*found.order;
            let is_of_lsn = usize::try_from(order.column).map_or(true, |column| column == columns);
            if is_of_lsn {
                found.order_consumed = 1;
                found.index_number = c_int::from(order.is_descending != 0);
            }
        }
        found.rows = rows.max(1.0) as Int64;
        // Finding a block costs something, rows in order little.
        found.cost = 50.0 + rows.max(1.0);
        found.index_text = ours.library.api.text(&plan);
        found.free_index_text = 1;
        if found.index_text.is_null() { code::NOMEM } else { code::OK }
    })
}

unsafe extern "C" fn open(_: *mut Vtab, cursor: *mut *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        let base = Cursor { table: ptr::null_mut() };
        let (scan, stands, ask) = (None, Stands::Over, Ask::ALL);
        *cursor =
            Box::into_raw(Box::new(OurCursor { base, scan, stands, ask, cells: Vec::new(), is_split: false })).cast();
        code::OK
    })
}

unsafe extern "C" fn close(cursor: *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        drop(Box::from_raw(cursor.cast::<OurCursor>()));
        code::OK
    })
}

/// Numbers between which a condition holds; both ends are included, and a little too much is.
fn narrow(low: &mut u64, high: &mut u64, comparison: Comparison, value: &LogCell<Vec<u8>>) {
    let clamp = |number: f64| number.clamp(0.0, u64::MAX as f64) as u64;
    let (least, greatest, is_whole) = match value {
        // No comparison with NULL holds.
        LogCell::Null => {
            (*low, *high) = (1, 0);
            return;
        }
        LogCell::Integer(number) if *number < 0 => match comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => return,
            Comparison::Equal | Comparison::Less | Comparison::LessOrEqual => {
                (*low, *high) = (1, 0);
                return;
            }
        },
        LogCell::Integer(number) => (number.unsigned_abs(), number.unsigned_abs(), true),
        LogCell::Real(number) => (clamp(number.floor()), clamp(number.ceil()), false),
        LogCell::Text(_) | LogCell::Blob(_) => return,
    };
    let next = |is_next: bool| u64::from(is_next && is_whole);
    match comparison {
        Comparison::Equal => (*low, *high) = ((*low).max(least), (*high).min(greatest)),
        Comparison::Greater => *low = (*low).max(least.saturating_add(next(true))),
        Comparison::GreaterOrEqual => *low = (*low).max(least),
        Comparison::Less if is_whole && greatest == 0 => (*low, *high) = (1, 0),
        Comparison::Less => *high = (*high).min(greatest - next(true)),
        Comparison::LessOrEqual => *high = (*high).min(greatest),
    }
}

unsafe fn asked(library: &Library, plan: &str, values: *mut *mut Value, is_backward: bool) -> Ask {
    let mut ask = Ask { is_backward, ..Ask::ALL };
    for (nth, said) in plan.split(';').filter(|said| !said.is_empty()).enumerate() {
        let (of, comparison) = said.split_at(said.len() - 1);
        let comparison = match comparison {
            "=" => Comparison::Equal,
            ">" => Comparison::Greater,
            "l" => Comparison::LessOrEqual,
            "<" => Comparison::Less,
            _ => Comparison::GreaterOrEqual,
        };
        // SAFETY: R1: as many values as the plan has conditions.
        let value = match unsafe { kept(library, *values.add(nth), Affinity::Blob) } {
            LogCell::Null => LogCell::Null,
            LogCell::Integer(number) => LogCell::Integer(number),
            LogCell::Real(number) => LogCell::Real(number),
            LogCell::Text(bytes) => LogCell::Text(bytes.to_vec()),
            LogCell::Blob(bytes) => LogCell::Blob(bytes.to_vec()),
        };
        match of {
            "L" => narrow(&mut ask.from.0, &mut ask.to.0, comparison, &value),
            "T" => narrow(&mut ask.since_ms, &mut ask.until_ms, comparison, &value),
            cell => {
                if let Ok(cell) = cell.parse() {
                    ask.conditions.push(Condition { cell, comparison, value });
                }
            }
        }
    }
    ask
}

unsafe extern "C" fn filter(
    cursor: *mut Cursor,
    number: c_int,
    plan: *const c_char,
    _: c_int,
    values: *mut *mut Value,
) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *cursor.cast::<OurCursor>();
        let table = &mut *ours.base.table.cast::<OurTable>();
        let plan = if plan.is_null() { "" } else { CStr::from_ptr(plan).to_str().unwrap_or_default() };
        ours.ask = asked(table.library, plan, values, number != 0);
        let asking = table.asking();
        // Text of two bytes a letter has another order than the bytes that the log keeps.
        if !ours.ask.conditions.is_empty() && !table.table.is_in_order_of_bytes(asking) {
            let is_safe = |condition: &Condition| {
                condition.comparison == Comparison::Equal || !matches!(condition.value, LogCell::Text(_))
            };
            ours.ask.conditions.retain(is_safe);
        }
        match table.table.scan(asking, ours.ask.clone()) {
            Ok(scan) => ours.scan = Some(scan),
            Err(refusal) => return table.refuse(&refusal),
        }
        // The newest rows are those that are not committed yet.
        let added = table.table.draft.len();
        ours.stands = match (number != 0, added.checked_sub(1)) {
            (true, Some(last)) => Stands::Added(last),
            _ => Stands::Committed,
        };
        go(ours, table, true)
    })
}

unsafe extern "C" fn next(cursor: *mut Cursor) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *cursor.cast::<OurCursor>();
        let table = &mut *ours.base.table.cast::<OurTable>();
        go(ours, table, false)
    })
}

/// Goes to the next row that is asked for; at the first one it may stand already.
unsafe fn go(ours: &mut OurCursor, table: &mut OurTable, is_first: bool) -> c_int {
    ours.is_split = false;
    let mut is_there = is_first;
    let (asks, db) = (table.library.api.is_interrupted, table.db);
    // SAFETY: R3, R4: the connection of this call. An older host sees it when the call is over.
    let ends = || asks.is_some_and(|is_interrupted| unsafe { is_interrupted(db) } != 0);
    loop {
        match ours.stands {
            Stands::Over => return code::OK,
            Stands::Committed => match ours.scan.as_mut().map_or(Ok(false), |scan| scan.advance_unless(&ends)) {
                Ok(true) => return code::OK,
                Ok(false) if ours.ask.is_backward => ours.stands = Stands::Over,
                Ok(false) => {
                    ours.stands = Stands::Added(0);
                    is_there = true;
                }
                // SAFETY: this call's.
                Err(error) => return unsafe { table.refuse(&refused(error)) },
            },
            Stands::Added(nth) => {
                let next = match (is_there, ours.ask.is_backward) {
                    (true, _) => Some(nth),
                    (false, false) => Some(nth + 1),
                    (false, true) => nth.checked_sub(1),
                };
                is_there = false;
                let draft = &table.table.draft;
                match next {
                    Some(nth) if nth < draft.len() => {
                        ours.stands = Stands::Added(nth);
                        let lsn = Lsn(draft.first().0 + nth as u64);
                        if (ours.ask.from..=ours.ask.to).contains(&lsn) {
                            return code::OK;
                        }
                    }
                    _ => ours.stands = if ours.ask.is_backward { Stands::Committed } else { Stands::Over },
                }
            }
        }
    }
}

unsafe extern "C" fn eof(cursor: *mut Cursor) -> c_int {
    guard(1, || unsafe { c_int::from((*cursor.cast::<OurCursor>()).stands == Stands::Over) })
}

/// The row that a cursor stands on: its LSN, its time where it has one already, its bytes.
fn stands<'a>(ours: &'a OurCursor, table: &'a OurTable) -> Option<(Lsn, Option<u64>, &'a [u8])> {
    match ours.stands {
        Stands::Over => None,
        Stands::Committed => ours.scan.as_ref()?.row().map(|(lsn, time_ms, bytes)| (lsn, Some(time_ms), bytes)),
        Stands::Added(nth) => {
            let draft = &table.table.draft;
            Some((Lsn(draft.first().0 + nth as u64), None, draft.row(nth)?))
        }
    }
}

unsafe extern "C" fn column(cursor: *mut Cursor, context: *mut Context, column: c_int) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &mut *cursor.cast::<OurCursor>();
        let table = &mut *ours.base.table.cast::<OurTable>();
        let columns = table.table.schema.columns.len();
        let api = &table.library.api;
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        if column == columns || column == columns + 3 {
            let found = stands(ours, table);
            let number = match column == columns {
                true => found.map(|(lsn, ..)| lsn.0),
                false => found.and_then(|(_, time_ms, _)| time_ms),
            };
            match number {
                Some(number) => (api.result_int64)(context, i64::try_from(number).unwrap_or(i64::MAX)),
                None => (api.result_null)(context),
            }
            return code::OK;
        }
        if !ours.is_split {
            let mut cells = std::mem::take(&mut ours.cells);
            let split = stands(ours, table)
                .zip(ours.scan.as_ref())
                .map(|((lsn, _, bytes), scan)| scan.cells(lsn, bytes, &mut cells));
            ours.cells = cells;
            match split {
                Some(Ok(())) => ours.is_split = true,
                Some(Err(error)) => return table.refuse(&refused(error)),
                None => {
                    (api.result_null)(context);
                    return code::OK;
                }
            }
        }
        let cell = if column > columns { column - columns - 1 } else { column + ROW_LEADS };
        let bytes = stands(ours, table).map_or(&[][..], |(_, _, bytes)| bytes);
        let len = |bytes: &[u8]| c_int::try_from(bytes.len()).unwrap_or(0);
        match ours.cells.get(cell).map_or(LogCell::Null, |cell| of_row(cell, bytes)) {
            LogCell::Null => (api.result_null)(context),
            LogCell::Integer(number) => (api.result_int64)(context, number),
            LogCell::Real(number) => (api.result_double)(context, number),
            LogCell::Text(text) => (api.result_text)(context, text.as_ptr().cast(), len(text), transient()),
            LogCell::Blob(blob) => (api.result_blob)(context, blob.as_ptr().cast(), len(blob), transient()),
        }
        code::OK
    })
}

unsafe extern "C" fn rowid(cursor: *mut Cursor, row: *mut Int64) -> c_int {
    guard(code::ERROR, || unsafe {
        let ours = &*cursor.cast::<OurCursor>();
        let table = &*ours.base.table.cast::<OurTable>();
        *row = stands(ours, table).map_or(0, |(lsn, ..)| i64::try_from(lsn.0).unwrap_or(i64::MAX));
        code::OK
    })
}
