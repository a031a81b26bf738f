//! Where a checkpoint's pages come from.

use littoral_types::{CountedLog, Epoch, Gap, PageCount, PageNo, PageSize, Sessions, Tree, VolumeRow, WalMark};

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

/// Whether what was read so far is of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// It is: of the one that [`PageSource::page_count`] speaks of.
    Still,
    /// The source has moved to a newer commit, and these pages, ascending, may have changed since they were read.
    Moved(Vec<PageNo>),
}

/// A database's pages at a commit. One that stands still answers every read as of one commit, whatever others write meanwhile; one
/// that cannot (rule S16: no reader stands still for long) answers each read as of some commit, and says at the end which pages
/// are to be read again.
pub trait PageSource: Send {
    /// The page size.
    fn page_size(&self) -> PageSize;

    /// The database's size.
    fn page_count(&self) -> PageCount;

    /// SQLite's lock page, which is never written and reads as zeros; `None` when the database ends before it.
    fn lock_page(&self) -> Option<PageNo>;

    /// Which pages to look at.
    fn changed(&self) -> Changed;

    /// Commits that no record has, as far as anybody counted; none only where all of them were shipped since the last checkpoint.
    fn commits(&self) -> u64 {
        1
    }

    /// Why the commits that no record has cannot be told apart, where they ought to have been (rule P9).
    fn gap(&self) -> Option<Gap> {
        None
    }

    /// When that commit was made, milliseconds since 1970; `None` where nobody noted it.
    fn committed_ms(&self) -> Option<u64> {
        None
    }

    /// Where its WAL stands at that commit; `None` where there is none, or nobody can say.
    fn wal(&self) -> Option<WalMark> {
        None
    }

    /// How far each named session is at that commit (rule P10). `None` where that is to be read out of its pages, which all stand still.
    fn sessions(&mut self) -> Option<Sessions> {
        None
    }

    /// The trees that its schema names at that commit. `None` where that is to be read out of its pages, which all stand still; of a source
    /// that tells its sessions, where it was not at hand: then they are as they were.
    fn trees(&mut self) -> Option<Vec<Tree>> {
        None
    }

    /// Whether a page is read without asking anybody for it. Where it costs a request, nobody does who only would like to know.
    fn has(&self, _page: PageNo) -> bool {
        false
    }

    /// Asked when everything was read. Size and number of pages may be others afterwards; the page size stays. Whoever reads
    /// again what is named, and asks again, gets to [`CaughtUp::Still`] after a bounded number of rounds.
    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        Ok(CaughtUp::Still)
    }

    /// Nothing is read for a while: something slow comes next. A source that moves holds nothing up meanwhile.
    fn rest(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Reads one whole page; `into` is one page long. Ascending reads are the fast ones.
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError>;

    /// The same source, where its commits can travel while it is read.
    fn live(&mut self) -> Option<&mut dyn LiveSource> {
        None
    }
}

/// One commit, before it has an LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// When, milliseconds since 1970, as its writer's clock said: what it is labelled with never goes back.
    pub time_ms: u64,
    /// The database's size after it.
    pub page_count: PageCount,
    /// Nothing: how far sessions are is told of the last of a batch ([`LiveSource::sessions_gathered`]).
    pub session: Option<(String, u64)>,
}

/// Commits that follow one another, and what they changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commits {
    /// Of every page.
    pub page_size: PageSize,
    /// In order.
    pub commits: Vec<Noted>,
    /// The last version of each page that they wrote and that the last one still has, by ascending number.
    pub pages: Vec<(PageNo, Vec<u8>)>,
    /// Where the WAL stands after the last one.
    pub wal: Option<WalMark>,
    /// Whether there were no more than these.
    pub is_all: bool,
}

impl Commits {
    /// Whether one of them cuts a database that was so large before.
    pub fn cuts(&self, before: PageCount) -> bool {
        let mut largest = before;
        self.commits.iter().any(|commit| {
            largest = largest.max(commit.page_count);
            commit.page_count < largest
        })
    }
}

/// A database that is open and written, and of which somebody keeps track of what changed.
pub trait LiveSource: PageSource {
    /// A checkpoint begins: what changed since this state of its volume? Before it, nothing else may be asked.
    fn begin(&mut self, row: &VolumeRow) -> Result<(), SourceError>;

    /// What was read is in the object store as of this state, or was found to be what is there.
    fn published(&mut self, row: &VolumeRow);

    /// The checkpoint that was begun comes to nothing: no read transaction stays open. What changed counts for the next one.
    fn given_up(&mut self);

    /// Somebody else's term began: whoever has the database open is to know (rule P4).
    fn superseded(&mut self, epoch: Epoch, owner: &str);

    /// All that was committed since this state of its volume, to travel commit by commit: no commits where nothing was. `None` where
    /// that cannot be told apart, or is too much: then a checkpoint is due. Asked between [`LiveSource::begin`] and
    /// [`LiveSource::published`], the source has moved if commits travelled ([`PageSource::catch_up`] says so), and none that
    /// [cuts](Commits::cuts) the database is given: what was read by then would come back.
    fn commits_since(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError>;

    /// Whether more waits than travels in one batch: then a checkpoint, which would bring all of it as one restore point, is put off.
    fn lags(&self) -> bool {
        false
    }

    /// What may be a page's version before those commits.
    fn before(&mut self, page: PageNo) -> Option<Vec<u8>>;

    /// How far each named session is at the last of those commits (rule P10). `None` where that was not at hand: then it is found out by
    /// what the volume has.
    fn sessions_gathered(&mut self) -> Option<Sessions> {
        Some(Sessions::new())
    }

    /// The logs that the database counts rows of, as of the commits that were read last, or of newer ones: what they hold travels first.
    fn logs(&mut self) -> Result<Vec<CountedLog>, SourceError> {
        Ok(Vec::new())
    }

    /// Nothing more is read of those commits: what was opened for that may be closed while they travel.
    fn has_read(&mut self) {}

    /// Those commits are in the object store, as of this state.
    fn shipped(&mut self, row: &VolumeRow);

    /// Commits that nobody has published yet, as far as anybody counted.
    fn commits_left(&self) -> u64;

    /// Whether somebody waits for what is committed to travel, to be [answered](LiveSource::answered).
    fn asked(&self) -> Option<u64> {
        None
    }

    /// What had been committed when that was asked has travelled.
    fn answered(&mut self, _asked: u64) {}
}
