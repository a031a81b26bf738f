//! A checkpoint's pages, out of a SQLite read transaction.

use super::raw::{self, Connection, Failure, Statement};
use super::{check, error, header};
use littoral_ports::{Changed, PageSource, SourceError};
use littoral_types::{PageCount, PageNo, PageSize, SchemaSummary};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a lock is waited for unless the caller says otherwise.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A database file at one commit, until it is dropped or ended.
#[derive(Debug)]
pub struct SqliteSource {
    path: PathBuf,
    /// Answers one page. SQLite's `sqlite_dbpage` knows the WAL, the cache and the lock page.
    pages: Statement,
    connection: Connection,
    page_size: PageSize,
    page_count: PageCount,
    lock_page: Option<PageNo>,
    schema: SchemaSummary,
    change_counter: u32,
    data_version: i64,
}

impl SqliteSource {
    /// Begins to read a database. From here on, and until the source is gone, nothing that others commit is seen.
    ///
    /// An empty file is a database without pages. Refused: what is missing or not a file or may not be read
    /// ([`SourceError::Failed`]), what is not SQLite's or is encrypted ([`SourceError::NotADatabase`]), a database that ends
    /// before its last page or whose schema does not parse ([`SourceError::Corrupt`]), one that others keep locked for
    /// longer than `busy_timeout` ([`SourceError::Busy`]). Damage inside of pages shows only in [`SqliteSource::check`].
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self, SourceError> {
        let connection = connect(path, busy_timeout)?;
        let source = Self::begin(path, connection).map_err(|failure| error::reading(path, &failure))?;
        // The table counts pages in an i32. SQLite's own limit is twice that.
        if i32::try_from(source.page_count.0).is_err() {
            let (path, pages) = (path.display(), source.page_count);
            return Err(SourceError::Failed(format!("{path}: has {pages} pages, more than can be read one by one")));
        }
        Ok(source)
    }

    fn begin(path: &Path, connection: Connection) -> Result<Self, Failure> {
        connection.run(c"BEGIN")?;
        // The transaction is a promise until its first read: this one takes the lock or the mark in the WAL.
        connection.run(c"SELECT 1 FROM sqlite_schema LIMIT 1")?;
        let data_version = connection.number(c"PRAGMA data_version")?;
        let page_count = PageCount(u64::try_from(connection.number(c"PRAGMA page_count")?).unwrap_or(0));
        let page_size = connection.number(c"PRAGMA page_size")?;
        let page_size = u64::try_from(page_size).ok().and_then(|size| PageSize::new(size).ok());
        let Some(page_size) = page_size else {
            return Err(Failure::new("a page size that is not SQLite's"));
        };
        let mut pages = connection.prepare(c"SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut page_1 = Vec::new();
        if page_count > PageCount::ZERO {
            page_1.resize(page_size.len(), 0);
            page_into(&mut pages, PageNo::FIRST, &mut page_1)?;
        }
        // Asked of SQLite itself, so that both agree wherever a test has moved it.
        let lock_page = header::lock_page(page_size, raw::pending_byte());
        Ok(Self {
            path: path.to_owned(),
            pages,
            connection,
            page_size,
            page_count,
            lock_page: page_count.holds(lock_page).then_some(lock_page),
            schema: header::schema_summary(&page_1),
            change_counter: header::change_counter(&page_1),
            data_version,
        })
    }

    /// What page 1 says of the schema.
    pub const fn schema(&self) -> SchemaSummary {
        self.schema
    }

    /// The file change counter at this commit: see [`header::change_counter`].
    pub const fn change_counter(&self) -> u32 {
        self.change_counter
    }

    /// Runs SQLite's `quick_check` over the pages as this source sees them: reads all of them.
    ///
    /// A schema whose columns are computed by an application's own functions cannot be checked without that application:
    /// then the answer is [`SourceError::Failed`], which says nothing against the database.
    pub fn check(&mut self) -> Result<(), SourceError> {
        let problems = check::quick_check(&self.connection, c"PRAGMA quick_check(1)")
            .map_err(|failure| error::reading(&self.path, &failure))?;
        match problems.first() {
            None => Ok(()),
            Some(problem) => Err(SourceError::Corrupt(format!("{}: {problem}", self.path.display()))),
        }
    }

    /// Ends the read transaction and says whether somebody committed since it began. False is certain; true may also be a
    /// WAL's index that was made anew.
    pub fn end(self) -> Result<bool, SourceError> {
        let Self { path, pages, connection, data_version, .. } = self;
        // A statement under way would keep the transaction open.
        drop(pages);
        connection
            .run(c"COMMIT")
            .and_then(|()| connection.number(c"PRAGMA data_version"))
            .map(|now| now != data_version)
            .map_err(|failure| error::reading(&path, &failure))
    }

    fn misuse(&self, what: &str) -> SourceError {
        SourceError::Failed(format!("{}: {what}", self.path.display()))
    }
}

impl PageSource for SqliteSource {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn page_count(&self) -> PageCount {
        self.page_count
    }

    fn lock_page(&self) -> Option<PageNo> {
        self.lock_page
    }

    fn changed(&self) -> Changed {
        Changed::Unknown
    }

    fn has(&self, _page: PageNo) -> bool {
        true
    }

    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        if into.len() != self.page_size.len() {
            return Err(self.misuse(&format!("{} bytes asked for a page of {}", into.len(), self.page_size)));
        }
        if !self.page_count.holds(page) {
            return Err(self.misuse(&format!("page {page} asked for, the last is {}", self.page_count)));
        }
        if self.lock_page == Some(page) {
            into.fill(0);
            return Ok(());
        }
        page_into(&mut self.pages, page, into).map_err(|failure| error::reading(&self.path, &failure))
    }
}

/// Opens a file that is there, once it has passed the questions that SQLite answers with one code for all.
pub(super) fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection, SourceError> {
    // Absolute, because SQLite gives some relative names a meaning of their own: `:memory:`, `file:…?…`, the empty one.
    let whole = std::path::absolute(path).map_err(|error| error::unreadable(path, &error))?;
    // This asks for the name only: opening the file here, and closing it, would drop other connections' locks.
    let meta = fs::metadata(&whole).map_err(|error| error::unreadable(path, &error))?;
    if meta.is_dir() {
        return Err(error::unreadable(path, &io::Error::other("a folder, not a database file")));
    }
    if !meta.is_file() {
        return Err(error::unreadable(path, &io::Error::other("not a file")));
    }
    let connection = Connection::open(&whole, busy_timeout).map_err(|failure| error::opening(path, &failure))?;
    // Checks of rows are the application's business, and may call functions that only it has.
    for pragma in [c"PRAGMA query_only = ON", c"PRAGMA ignore_check_constraints = ON"] {
        connection.run(pragma).map_err(|failure| error::reading(path, &failure))?;
    }
    Ok(connection)
}

fn page_into(pages: &mut Statement, page: PageNo, into: &mut [u8]) -> Result<(), Failure> {
    pages.reset();
    pages.bind(i64::try_from(page.get()).unwrap_or(i64::MAX))?;
    if !pages.step()? {
        return Err(Failure::new(&format!("SQLite knows no page {page}")));
    }
    let bytes = pages.blob();
    if bytes.len() != into.len() {
        return Err(Failure::new(&format!("SQLite answered {} bytes for page {page}", bytes.len())));
    }
    into.copy_from_slice(bytes);
    Ok(())
}
