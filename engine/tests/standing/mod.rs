//! A database in memory that stands still.

use littoral_ports::{Changed, PageSource, SourceError};
use littoral_types::{Gap, PageCount, PageNo, PageSize, WalMark};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A database's pages.
pub(crate) type State = Vec<Arc<Vec<u8>>>;

/// A database in memory, as a checkpoint sees it.
pub(crate) struct Source<'a> {
    pub(crate) state: &'a State,
    pub(crate) wal: WalMark,
    /// What changed since the checkpoint before; `None` where nobody kept track.
    pub(crate) changed: Option<&'a BTreeSet<PageNo>>,
    /// Why its commits cannot be told apart, where they cannot.
    pub(crate) gap: Option<Gap>,
}

impl PageSource for Source<'_> {
    fn page_size(&self) -> PageSize {
        PageSize::new(self.state[0].len() as u64).unwrap()
    }
    fn page_count(&self) -> PageCount {
        PageCount(self.state.len() as u64)
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        match self.changed {
            None => Changed::Unknown,
            Some(pages) => {
                Changed::Pages(pages.iter().copied().filter(|page| self.page_count().holds(*page)).collect())
            }
        }
    }
    fn gap(&self) -> Option<Gap> {
        self.gap
    }
    fn wal(&self) -> Option<WalMark> {
        Some(self.wal)
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        into.copy_from_slice(&self.state[page.index() as usize]);
        Ok(())
    }
}
