//! Where a checkpoint's pages come from.

use littoral_types::{PageCount, PageNo, PageSize};

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not a SQLite database, or is encrypted. Nothing was read.
    #[error("not a SQLite database, or encrypted: {0}")]
    NotADatabase(String),
    /// SQLite says that the database is damaged. Publishing it would replace a good copy by a bad one.
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
    /// Another connection holds a lock that readers must wait for. Try again.
    #[error("the database is locked: {0}")]
    Busy(String),
    /// Anything else that reading a file can meet.
    #[error("cannot read the database: {0}")]
    Failed(String),
}

/// Which pages may differ from the last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nobody watched: compare all of them.
    Unknown,
    /// At most these, ascending.
    Pages(Vec<PageNo>),
}

/// A database standing still: every read answers as of one commit, whatever others write meanwhile.
pub trait PageSource: Send {
    /// The page size.
    fn page_size(&self) -> PageSize;

    /// The database's size.
    fn page_count(&self) -> PageCount;

    /// SQLite's lock page, which is never written and reads as zeros; `None` when the database ends before it.
    fn lock_page(&self) -> Option<PageNo>;

    /// Which pages to look at.
    fn changed(&self) -> Changed;

    /// Reads one whole page; `into` is one page long. Ascending reads are the fast ones.
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError>;
}
