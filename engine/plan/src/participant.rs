//! Who takes part in a checkpoint.
//!
//! | participant | begins with | is prepared when | brings into the record |
//! |---|---|---|---|
//! | transaction-fence | the marks of what changed are taken, within a read transaction | all that was read is of one commit | how many commits it is, and why they cannot be told apart, where they cannot |
//! | wal-pin | | that commit's place in the WAL is known | that place: from there on segments follow |
//! | schema-catalogue | | the schema's cookie and trees of that commit are known | the cookie and what else page 1 says |
//! | sessions | | the serials of that commit are known | the sessions that moved |
//! | index-registry | what is known of pages' owners | as the schema's trees are | what each table and index has, and what was taken of it |
//! | page-set | pages are compared, and it is planned what follows | pages are staged, and on their way | where pages are from then on |
//!
//! Each begins, is prepared, commits, and is told that it is published; or is aborted, in the opposite order, if it had begun. The list is
//! here once: whoever adds to it is asked by a test what is missed without it.

use std::fmt;

/// One of those who take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Participant {
    /// Draws the line between this checkpoint and the next one.
    TransactionFence,
    /// Says where in the WAL that line is.
    WalPin,
    /// Knows the schema.
    SchemaCatalogue,
    /// Knows how far named sessions are.
    Sessions,
    /// Knows whose pages are.
    IndexRegistry,
    /// Has the pages.
    PageSet,
}

impl Participant {
    /// All of them, in the order in which they begin.
    pub const ALL: [Participant; 6] = [
        Participant::TransactionFence,
        Participant::WalPin,
        Participant::SchemaCatalogue,
        Participant::Sessions,
        Participant::IndexRegistry,
        Participant::PageSet,
    ];

    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            Participant::TransactionFence => "transaction-fence",
            Participant::WalPin => "wal-pin",
            Participant::SchemaCatalogue => "schema-catalogue",
            Participant::Sessions => "sessions",
            Participant::IndexRegistry => "index-registry",
            Participant::PageSet => "page-set",
        }
    }
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
