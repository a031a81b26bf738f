//! The verbs: one file each, one line of the table each.

use crate::door::Door;
use crate::screen::Told;
use clap::Subcommand;

mod shown;

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $file:ident,)*) => {
        $(pub mod $file;)*

        /// Every verb.
        #[derive(Debug, Subcommand)]
        pub enum Verb {
            $($(#[$doc])* $name($file::Args),)*
        }

        impl Verb {
            /// Does it.
            pub async fn run(self, door: &Door) -> anyhow::Result<Told> {
                match self {
                    $(Verb::$name(args) => Box::pin($file::run(args, door)).await,)*
                }
            }
        }
    };
}

verbs! {
    /// Publish what changed in a database
    Checkpoint = checkpoint,
    /// Run SQL on a database, opened from its volume where it is not here
    Shell = shell,
    /// Open a database from its volume, and say what is here
    Open = open,
    /// Fetch everything that is not here, until the database is a plain file
    Hydrate = hydrate,
    /// Make a plain database file of a published state
    Restore = restore,
    /// Where a volume stands, and whose it is
    Status = status,
    /// The records of a volume, newest first
    History = history,
    /// Named states that no prune takes away
    Snapshot = snapshot,
    /// Read and check everything: records, blobs, pages, and a restored copy
    Verify = verify,
    /// Delete what no kept state needs
    Prune = prune,
    /// Merge small deltas now, which checkpoints do by themselves
    Coalesce = coalesce,
    /// Give the volume up in order, so that another machine can go on without a takeover
    Release = release,
    /// Try everything that a checkpoint needs, and say what is wrong
    Doctor = doctor,
    /// The main job told step by step, in a temporary folder
    Demo = demo,
}
