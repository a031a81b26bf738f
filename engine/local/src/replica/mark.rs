//! The file that stands where a replica's database would: no SQLite takes it for one (rule S5). It says whose replica it is; the pages
//! lie in the store.

use crate::durable::create_new;
use crate::error::{LocalError, on};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What it begins with.
const MAGIC: &str = "Littoral replica\n";
/// It is no larger.
const LEN_MAX: u64 = 64 << 10;

/// What stands at a database's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing, or what SQLite makes by opening what is not there.
    Nothing,
    /// A replica of the volume with this URL.
    Replica(String),
    /// Something else.
    Other,
}

impl Mark {
    /// Makes it. False where something stands there.
    pub fn create(database: &Path, url: &str) -> Result<bool, LocalError> {
        if std::fs::metadata(database).is_ok_and(|found| found.is_file() && found.len() == 0) {
            std::fs::remove_file(database).map_err(on("remove", database))?;
        }
        let text = format!(
            "{MAGIC}{url}\n\nThis is no database file but stands for one that follows this volume.\nOpen it as \
             file:NAME?vfs=littoral&mode=ro&follow=1; its pages lie in the store (.littoral) and come from the volume.\nIt may be deleted: \
             nothing is lost.\n"
        );
        create_new(database, text.as_bytes())
    }
}

/// Looks. Of a database that somebody may have open, no descriptor is closed here (rule S9).
pub fn mark_at(database: &Path) -> Result<Mark, LocalError> {
    let found = match std::fs::metadata(database) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Mark::Nothing),
        Err(error) => return Err(on("look at", database)(error)),
    };
    if found.len() == 0 {
        return Ok(Mark::Nothing);
    }
    if !found.is_file() || found.len() > LEN_MAX {
        return Ok(Mark::Other);
    }
    let mut text = Vec::new();
    let mut file = File::open(database).map_err(on("open", database))?;
    let read = Read::by_ref(&mut file).take(LEN_MAX).read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap_or_default();
    let url = text.strip_prefix(MAGIC).and_then(|rest| rest.lines().next()).map(str::to_owned);
    if url.is_none() {
        // Closing it would drop the locks of whoever has a database open here past us (rule S9).
        std::mem::forget(file);
    }
    read.map_err(on("read", database))?;
    Ok(url.map_or(Mark::Other, Mark::Replica))
}
