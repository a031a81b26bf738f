//! `littoral log cursors list|create|ack|drop PATH [NAME] [LSN]`: who reads a log, and up to where he is done.

use crate::screen::Told;
use crate::words;
use littoral_engine::logs::{self, Cursor};
use littoral_types::{Lsn, SessionName};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All cursors of a log
    List {
        /// The log's folder
        path: PathBuf,
    },
    /// Make a cursor: nothing that it has not acknowledged is truncated from now on
    Create {
        /// The log's folder
        path: PathBuf,
        /// What it is called
        name: SessionName,
        /// Up to here all is done with; without it, nothing is
        #[arg(long, value_name = "LSN")]
        acked: Option<u64>,
    },
    /// Say that everything up to a record is done with: after it is, so that after a crash it may come once more, and never not
    Ack {
        /// The log's folder
        path: PathBuf,
        /// Which cursor
        name: SessionName,
        /// The last record that is done with
        lsn: u64,
    },
    /// Let a cursor go: it keeps nothing any more
    Drop {
        /// The log's folder
        path: PathBuf,
        /// Which cursor
        name: SessionName,
    },
}

/// Does it.
pub(super) fn run(args: Args) -> anyhow::Result<Told> {
    match args.what {
        What::List { path } => {
            let cursors = logs::cursors(&path)?;
            let json: Vec<Value> = cursors.iter().map(as_json).collect();
            let row = |cursor: &Cursor| {
                let database = cursor.database.as_ref().map_or_else(String::new, |database| database.display().to_string());
                vec![cursor.name.to_string(), cursor.acked.to_string(), database]
            };
            let rows: Vec<Vec<String>> = cursors.iter().map(row).collect();
            let text = match rows.is_empty() {
                true => "no cursors\n".to_owned(),
                false => words::table(&["cursor", "done up to LSN", "kept by"], &rows),
            };
            Ok(Told::done(json!({ "verb": "log", "log": path.display().to_string(), "cursors": json }), text))
        }
        What::Create { path, name, acked } => {
            let cursor = logs::keep_cursor(&path, &name, acked.map(Lsn), None)?;
            Ok(told(&path, &cursor, format!("cursor {name} goes on after LSN {}\n", cursor.acked)))
        }
        What::Ack { path, name, lsn } => {
            let cursor = logs::ack(&path, &name, Lsn(lsn), None)?;
            Ok(told(&path, &cursor, format!("cursor {name} is done up to LSN {}\n", cursor.acked)))
        }
        What::Drop { path, name } => {
            let cursor = logs::drop_cursor(&path, &name)?;
            Ok(told(&path, &cursor, format!("cursor {name} is gone; it was done up to LSN {}\n", cursor.acked)))
        }
    }
}

fn as_json(cursor: &Cursor) -> Value {
    json!({ "cursor": cursor.name.to_string(), "acked": cursor.acked.0, "database": cursor.database })
}

fn told(path: &Path, cursor: &Cursor, text: String) -> Told {
    let mut json = as_json(cursor);
    json["verb"] = "log".into();
    json["log"] = path.display().to_string().into();
    Told::done(json, text)
}
