//! The verbs: one file each, one line of the table each.

use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use clap::Subcommand;
use littoral_engine::settings::Key;

pub(crate) mod shown;

pub(crate) use shown::examiner;

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
    /// Named sessions: how far each is here and in the object store, and who holds it
    Sessions = sessions,
    /// Named states that no prune takes away
    Snapshot = snapshot,
    /// Make a volume that begins as another one was, without copying anything
    Fork = fork,
    /// Make an earlier state the newest one, and give the state before a name
    Rewind = rewind,
    /// Read and check everything: records, blobs, pages, and a restored copy
    Verify = verify,
    /// Restore a copy beside everything else, ask SQLite, and keep what that proves
    Drill = drill,
    /// Delete what no kept state needs
    Prune = prune,
    /// Merge small deltas now, which checkpoints do by themselves
    Coalesce = coalesce,
    /// Bring other object stores that hold copies up to the primary
    Copy = copy,
    /// Make a volume of a copy, because its primary is lost or is to be left
    Promote = promote,
    /// Give the volume up in order, so that another machine can go on without a takeover
    Release = release,
    /// What is here and not in the volume, after a takeover or an outage; write it out, or publish it under another name
    Salvage = salvage,
    /// The work that waits, runs or is over: list, show, cancel, retry, run, clear
    Jobs = jobs,
    /// Append-only logs: create, append, read, tail, stats, truncate
    Log = log,
    /// Who works on which chunks: list, release, audit
    Leases = leases,
    /// Answer who watches: metrics, health, how databases stand, and a page with all of it
    Serve = serve,
    /// Ship what others commit to databases, for as long as it is not told to stop
    Worker = worker,
    /// Switches that are thrown while everything works: whether checkpoints are made, and how often
    Flags = flags,
    /// Try everything that a checkpoint needs, and say what is wrong
    Doctor = doctor,
    /// Measure an object store: does it fence, how fast it is, what a month costs, which settings fit
    Bench = bench,
    /// The main job told step by step, in a temporary folder
    Demo = demo,
}

impl Verb {
    /// Whether it tells by itself what becomes of publishing, so that the log need not.
    pub fn tells_itself(&self) -> bool {
        match self {
            Verb::Worker(_) | Verb::Serve(_) => true,
            Verb::Log(args) => args.is_endless(),
            _ => false,
        }
    }

    /// Refuses a moment of the past where only the newest state is looked at.
    pub fn refuse_past(&self, door: &Door) -> anyhow::Result<()> {
        let looks_back = matches!(
            self,
            Verb::Restore(_) | Verb::Sessions(_) | Verb::Snapshot(_) | Verb::Fork(_) | Verb::Shell(_) | Verb::Open(_)
        );
        if looks_back || door.said().iter().all(|(key, _)| *key != Key::At) {
            return Ok(());
        }
        let way_out = "leave it out; restore, fork, snapshot create, shell and open take it, and littoral rewind --to moves the newest state";
        Err(Fault::usage("--at names a moment of the past, and this command is about the newest state", way_out).into())
    }
}
