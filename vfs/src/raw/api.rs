//! The host's own functions, carried along.

use super::abi::{Connection, Context, IndexInfo, Int64, Module, Statement, Value, Vfs};
use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};

/// The version from which on everything that is asked for below is in the host's table: 3.32.0, of May 2020.
const OLDEST: c_int = 3_032_000;

/// The version from which on a host can be asked whether a statement is to end, 3.41.0, and where that function is in its table.
const CAN_BE_ASKED: c_int = 3_041_000;
const IS_INTERRUPTED: usize = 266;

/// What an auto-extension is called as.
pub(crate) type EntryPoint = unsafe extern "C" fn(*mut Connection, *mut *mut c_char, *const c_void) -> c_int;
type Destructor = Option<unsafe extern "C" fn(*mut c_void)>;
type ScalarFunction = unsafe extern "C" fn(*mut Context, c_int, *mut *mut Value);
type Destroy = Option<unsafe extern "C" fn(*mut c_void)>;

/// `SQLITE_TRANSIENT`: SQLite copies what it is given.
pub(crate) fn transient() -> Destructor {
    // SAFETY: SQLite compares this value and never calls it.
    unsafe { std::mem::transmute::<isize, Destructor>(-1) }
}

macro_rules! api {
    ($($name:ident: $at:literal = $type:ty;)*) => {
        /// Pointers into one SQLite library (rule R3).
        #[derive(Clone, Copy)]
        #[allow(missing_docs, reason = "SQLite documents them under the same names")]
        pub(crate) struct Api {
            $(pub(crate) $name: $type,)*
            /// Whether a statement is to end; `None` in a host that is older than 3.41.
            pub(crate) is_interrupted: Option<unsafe extern "C" fn(*mut Connection) -> c_int>,
        }

        impl Api {
            /// Reads the host's table (`sqlite3_api_routines`). `None` when the host is older than what we need.
            ///
            /// # Safety
            /// `routines` is what a host passed to an extension's entry point.
            pub(crate) unsafe fn read(routines: *const c_void) -> Option<Self> {
                let table = routines.cast::<*const c_void>();
                if table.is_null() {
                    return None;
                }
                // SAFETY: R3: the table only ever grew, and `libversion_number` is in it since 2006.
                let version: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(*table.add(67)) };
                // SAFETY: R3.
                let version = unsafe { version() };
                if version < OLDEST {
                    return None;
                }
                // SAFETY: R3: this place of the table is there from that version on.
                let is_interrupted = if version >= CAN_BE_ASKED { unsafe { *table.add(IS_INTERRUPTED) } } else { std::ptr::null() };
                $(
                    // SAFETY: R3: in the table of every version that passed.
                    let $name = unsafe { *table.add($at) };
                    if $name.is_null() {
                        return None;
                    }
                )*
                Some(Self {
                    $(
                        // SAFETY: R3: this place of the table holds a function of this type, and it is not null.
                        $name: unsafe { std::mem::transmute::<*const c_void, $type>($name) },
                    )*
                    // SAFETY: R3: null, which is none, or a function of this type.
                    is_interrupted: unsafe { std::mem::transmute::<*const c_void, Option<unsafe extern "C" fn(*mut Connection) -> c_int>>(is_interrupted) },
                })
            }
        }
    };
}

api! {
    bind_int64: 5 = unsafe extern "C" fn(*mut Statement, c_int, Int64) -> c_int;
    bind_text: 10 = unsafe extern "C" fn(*mut Statement, c_int, *const c_char, c_int, Destructor) -> c_int;
    busy_timeout: 14 = unsafe extern "C" fn(*mut Connection, c_int) -> c_int;
    column_bytes: 20 = unsafe extern "C" fn(*mut Statement, c_int) -> c_int;
    column_count: 22 = unsafe extern "C" fn(*mut Statement) -> c_int;
    column_int64: 29 = unsafe extern "C" fn(*mut Statement, c_int) -> Int64;
    column_text: 36 = unsafe extern "C" fn(*mut Statement, c_int) -> *const c_uchar;
    column_type: 38 = unsafe extern "C" fn(*mut Statement, c_int) -> c_int;
    declare_vtab: 50 = unsafe extern "C" fn(*mut Connection, *const c_char) -> c_int;
    errmsg: 53 = unsafe extern "C" fn(*mut Connection) -> *const c_char;
    finalize: 57 = unsafe extern "C" fn(*mut Statement) -> c_int;
    free: 58 = unsafe extern "C" fn(*mut c_void);
    get_autocommit: 60 = unsafe extern "C" fn(*mut Connection) -> c_int;
    malloc: 68 = unsafe extern "C" fn(c_int) -> *mut c_void;
    result_blob: 78 = unsafe extern "C" fn(*mut Context, *const c_void, c_int, Destructor);
    result_double: 79 = unsafe extern "C" fn(*mut Context, f64);
    result_error: 80 = unsafe extern "C" fn(*mut Context, *const c_char, c_int);
    result_int64: 83 = unsafe extern "C" fn(*mut Context, Int64);
    result_null: 84 = unsafe extern "C" fn(*mut Context);
    result_text: 85 = unsafe extern "C" fn(*mut Context, *const c_char, c_int, Destructor);
    step: 94 = unsafe extern "C" fn(*mut Statement) -> c_int;
    user_data: 101 = unsafe extern "C" fn(*mut Context) -> *mut c_void;
    value_blob: 102 = unsafe extern "C" fn(*mut Value) -> *const c_void;
    value_bytes: 103 = unsafe extern "C" fn(*mut Value) -> c_int;
    value_double: 105 = unsafe extern "C" fn(*mut Value) -> f64;
    value_int64: 107 = unsafe extern "C" fn(*mut Value) -> Int64;
    value_numeric_type: 108 = unsafe extern "C" fn(*mut Value) -> c_int;
    value_text: 109 = unsafe extern "C" fn(*mut Value) -> *const c_uchar;
    value_type: 113 = unsafe extern "C" fn(*mut Value) -> c_int;
    prepare_v2: 116 = unsafe extern "C" fn(*mut Connection, *const c_char, c_int, *mut *mut Statement, *mut *const c_char) -> c_int;
    create_module_v2: 119 = unsafe extern "C" fn(*mut Connection, *const c_char, *const Module, *mut c_void, Destroy) -> c_int;
    file_control: 127 = unsafe extern "C" fn(*mut Connection, *const c_char, c_int, *mut c_void) -> c_int;
    open_v2: 135 = unsafe extern "C" fn(*const c_char, *mut *mut Connection, c_int, *const c_char) -> c_int;
    vfs_find: 141 = unsafe extern "C" fn(*const c_char) -> *mut Vfs;
    vfs_register: 142 = unsafe extern "C" fn(*mut Vfs, c_int) -> c_int;
    threadsafe: 144 = unsafe extern "C" fn() -> c_int;
    result_error_code: 146 = unsafe extern "C" fn(*mut Context, c_int);
    test_control: 147 = unsafe extern "C" fn(c_int, ...) -> c_int;
    context_db_handle: 149 = unsafe extern "C" fn(*mut Context) -> *mut Connection;
    next_stmt: 152 = unsafe extern "C" fn(*mut Connection, *mut Statement) -> *mut Statement;
    sql: 153 = unsafe extern "C" fn(*mut Statement) -> *const c_char;
    create_function_v2: 162 = unsafe extern "C" fn(
        *mut Connection, *const c_char, c_int, c_int, *mut c_void, Option<ScalarFunction>,
        Option<ScalarFunction>, Option<unsafe extern "C" fn(*mut Context)>, Destroy) -> c_int;
    db_config: 163 = unsafe extern "C" fn(*mut Connection, c_int, ...) -> c_int;
    extended_errcode: 166 = unsafe extern "C" fn(*mut Connection) -> c_int;
    log: 167 = unsafe extern "C" fn(c_int, *const c_char, ...);
    close_v2: 179 = unsafe extern "C" fn(*mut Connection) -> c_int;
    db_filename: 180 = unsafe extern "C" fn(*mut Connection, *const c_char) -> *const c_char;
    stmt_busy: 184 = unsafe extern "C" fn(*mut Statement) -> c_int;
    uri_parameter: 189 = unsafe extern "C" fn(*const c_char, *const c_char) -> *const c_char;
    auto_extension: 192 = unsafe extern "C" fn(Option<EntryPoint>) -> c_int;
    vtab_collation: 224 = unsafe extern "C" fn(*mut IndexInfo, c_int) -> *const c_char;
    uri_key: 245 = unsafe extern "C" fn(*const c_char, c_int) -> *const c_char;
}

/// Tells a host that is too old what is missing.
///
/// # Safety
/// Both are what a host passed to an extension's entry point.
pub(crate) unsafe fn refuse(routines: *const c_void, message: *mut *mut c_char) {
    let table = routines.cast::<*const c_void>();
    if table.is_null() || message.is_null() {
        return;
    }
    // SAFETY: R3: both are in the table since 2006.
    let (version, malloc) = unsafe {
        let version: unsafe extern "C" fn() -> c_int = std::mem::transmute(*table.add(67));
        let malloc: unsafe extern "C" fn(c_int) -> *mut c_void = std::mem::transmute(*table.add(68));
        (version(), malloc)
    };
    let shown = |version: c_int| format!("{}.{}.{}", version / 1_000_000, version / 1000 % 1000, version % 1000);
    let why = if version < OLDEST {
        format!("littoral: SQLite {} or newer is needed, and this program has {}", shown(OLDEST), shown(version))
    } else {
        "littoral: this program's SQLite was built without something that extensions need".to_owned()
    };
    // SAFETY: R1, R5: SQLite's own variable, and memory that it frees.
    unsafe { *message = copied(malloc, &why) };
}

/// Copies text into memory of the host's (rule R5). Null when there is none left.
unsafe fn copied(malloc: unsafe extern "C" fn(c_int) -> *mut c_void, text: &str) -> *mut c_char {
    // A zero inside would end it: what is behind is left out.
    let bytes = text.as_bytes().split(|byte| *byte == 0).next().unwrap_or_default();
    let Ok(room) = c_int::try_from(bytes.len() + 1) else { return std::ptr::null_mut() };
    // SAFETY: R3, R5: room for the text and the zero behind it, checked before it is written.
    unsafe {
        let copy = malloc(room).cast::<u8>();
        if !copy.is_null() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
            *copy.add(bytes.len()) = 0;
        }
        copy.cast()
    }
}

impl Api {
    /// Copies text into memory that SQLite frees (rule R5). Null when there is none left.
    pub(crate) fn text(&self, text: &str) -> *mut c_char {
        // SAFETY: R3.
        unsafe { copied(self.malloc, text) }
    }

    /// Writes a line into the host's error log.
    pub(crate) fn say(&self, code: c_int, text: &str) {
        let line: Vec<u8> = text.bytes().filter(|byte| *byte != 0).chain([0]).collect();
        // SAFETY: R1, R3: the format takes one string, which ends in a zero and outlives the call.
        unsafe { (self.log)(code, c"littoral: %s".as_ptr(), line.as_ptr().cast::<c_char>()) };
    }

    /// The value of a URI parameter.
    ///
    /// # Safety
    /// `name` is null or a file name that SQLite passed to `xOpen` of a main database.
    pub(crate) unsafe fn parameter(&self, name: *const c_char, key: &CStr) -> Option<String> {
        if name.is_null() {
            return None;
        }
        // SAFETY: R1, R3.
        let found = unsafe { (self.uri_parameter)(name, key.as_ptr()) };
        // SAFETY: R1: null, or a string beside the name, copied here.
        (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
    }

    /// All URI parameters, in order.
    ///
    /// # Safety
    /// As for [`Api::parameter`].
    pub(crate) unsafe fn parameters(&self, name: *const c_char) -> Vec<(String, String)> {
        let mut found = Vec::new();
        // SQLite takes no more than these; a name without end is no name of SQLite's.
        for nth in 0..1000 {
            // SAFETY: R1, R3.
            let key = unsafe { (self.uri_key)(name, nth) };
            if key.is_null() {
                break;
            }
            // SAFETY: R1: a string beside the name.
            let key = unsafe { CStr::from_ptr(key) };
            // SAFETY: the caller's promise.
            let value = unsafe { self.parameter(name, key) };
            found.push((key.to_string_lossy().into_owned(), value.unwrap_or_default()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{Layout, alloc, dealloc};

    unsafe extern "C" fn old() -> c_int {
        3_022_000
    }

    unsafe extern "C" fn room(bytes: c_int) -> *mut c_void {
        let layout = Layout::array::<u8>(usize::try_from(bytes).unwrap()).unwrap();
        // SAFETY: a message is never empty.
        unsafe { alloc(layout) }.cast()
    }

    #[test]
    fn a_host_that_is_too_old_is_told_so_and_nothing_else_of_its_table_is_read() {
        let mut table = [std::ptr::null::<c_void>(); 69];
        (table[67], table[68]) = (old as *const c_void, room as *const c_void);
        let routines: *const c_void = table.as_ptr().cast();
        let mut message = std::ptr::null_mut();
        // SAFETY: a table of a host's of that age, as far as it is read.
        let text = unsafe {
            assert!(Api::read(routines).is_none());
            refuse(routines, &mut message);
            let text = CStr::from_ptr(message).to_str().unwrap().to_owned();
            dealloc(message.cast(), Layout::array::<u8>(text.len() + 1).unwrap());
            text
        };
        assert_eq!(text, "littoral: SQLite 3.32.0 or newer is needed, and this program has 3.22.0");
    }
}
