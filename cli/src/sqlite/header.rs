//! What page 1 says, and which page SQLite never writes.

use littoral_types::{JournalMode, PageNo, PageSize, SchemaSummary};

/// Where SQLite's locks lie, unless a test moved them.
pub const PENDING_BYTE: u64 = 0x4000_0000;

/// The page that holds the pending byte: SQLite locks there and never writes it.
pub const fn lock_page(page_size: PageSize, pending_byte: u64) -> PageNo {
    PageNo::from_index(pending_byte / page_size.bytes())
}

/// The schema summary that page 1 holds. Bytes that are missing count as zeros: a database without pages has neither schema
/// nor encoding.
pub fn schema_summary(page_1: &[u8]) -> SchemaSummary {
    SchemaSummary {
        cookie: number(page_1, 40),
        user_version: number(page_1, 60),
        application_id: number(page_1, 68),
        encoding: number(page_1, 56),
        // The read version: the one by which SQLite decides whether to look for a WAL.
        journal: if page_1.get(19) == Some(&2) { JournalMode::Wal } else { JournalMode::Rollback },
    }
}

/// The file change counter that page 1 holds. Moves with every commit in rollback mode, and hardly in WAL mode: another
/// value proves a change, the same value nothing.
pub fn change_counter(page_1: &[u8]) -> u32 {
    number(page_1, 24)
}

fn number(page_1: &[u8], at: usize) -> u32 {
    page_1.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_page_is_where_sqlite_documents_it() {
        for (size, page) in [(512, 2_097_153), (4096, 262_145), (65536, 16_385)] {
            assert_eq!(lock_page(PageSize::new(size).unwrap(), PENDING_BYTE).get(), page, "page size {size}");
        }
    }

    #[test]
    fn a_page_1_that_ends_early_reads_as_zeros() {
        for len in 0..72 {
            let summary = schema_summary(&vec![0xff; len]);
            assert_eq!(summary.application_id, 0);
            assert_eq!(summary.journal, JournalMode::Rollback);
        }
    }
}
