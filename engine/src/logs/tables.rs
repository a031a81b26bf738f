//! Logs that are tables of a database (rule P11), on their way to the object store and back.
//!
//! What this room promises:
//! 1. The log goes first: no record of a database's volume counts a row that the log's volume does not have. Whoever dies in between leaves a log
//!    that has more than anybody counts.
//! 2. What no committed state of the database counts is not shipped, and what it does not count any more is said to be void.
//! 3. Whose the database's term is, his are those of its logs: they are taken over by nobody else.
//! 4. A database is restored after its logs were.

use super::remote::{bytes_of, rows_of, segments};
use super::restore::{RestoredLog, restore_as};
use super::ship::{Carrier, Rows};
use super::{ack, cursor, keep_cursor, stats};
use crate::components::Components;
use crate::error::EngineError;
use crate::follow::Place as Following;
use crate::lazy::Lazy;
use crate::log::{Log as VolumeLog, Opened, Writer};
use crate::open::{Place, store_root};
use crate::settings::{Origin, Setting, Settings};
use bytes::Bytes;
use littoral_local::Flag;
use littoral_local::log::schema::columns;
use littoral_local::log::{LogError, Prefix, Restoring, Stand, identity};
use littoral_plan::counted::{Looked, TABLE, look};
use littoral_types::limits::LOG_HEAD_BYTES;
use littoral_types::{At, CountedLog, Lsn, PageNo, SessionName, Sessions, VolumeId, VolumeKind, VolumeName};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a test may make a process die that ships a database, after its logs and before itself.
pub const TABLES_POINTS: [&str; 1] = ["carry.tables"];

/// So many bytes before the end of what is counted are compared with the volume's.
const COMPARED_BYTES: u64 = 1 << 20;

/// The cursor by which a table's log keeps what its volume does not have sealed.
const SHIPPED: &str = "littoral.volume";

/// The folder of all logs of the databases in a folder. Whoever appends rows makes it, and whoever ships some: where it is not, no database here has
/// any that was not brought from elsewhere.
pub fn folder_of(database: &Path) -> PathBuf {
    database.parent().unwrap_or(Path::new("")).join(".littoral/logs")
}

/// A log's name among those of its database, as the last part of its folder says it.
pub fn key_of(folder: &str) -> String {
    let last = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '_' };
    last.chars().map(plain).collect()
}

/// Where a table's log is that was made or restored for this very file.
pub fn own_place(database: &Path, folder: &str) -> PathBuf {
    folder_of(database).join(database.file_name().unwrap_or_default()).join(key_of(folder))
}

/// Where a table's log is: the one that is this file's own, else where the database says, unless that is another one's that lies beside it.
pub fn found(database: &Path, folder: &str, log: VolumeId) -> PathBuf {
    let own = own_place(database, folder);
    match identity(&own) {
        Ok((id, _)) if id == log => own,
        _ => {
            let said = database.parent().unwrap_or(Path::new("")).join(folder);
            if is_of_another(database, &said) { own } else { said }
        }
    }
}

/// Whether a log lies among those of another file, and that file is there. What was renamed takes its logs along.
fn is_of_another(database: &Path, log: &Path) -> bool {
    let Ok(among) = log.strip_prefix(folder_of(database)) else { return false };
    let whose = among.iter().next().filter(|_| among.iter().count() > 1);
    let beside = whose.filter(|whose| database.file_name() != Some(whose));
    beside.is_some_and(|whose| database.with_file_name(whose).exists())
}

/// Where it is noted that logs lie there from before the database was opened from its volume. No log has such a name.
fn doubt_of(database: &Path) -> PathBuf {
    folder_of(database).join(database.file_name().unwrap_or_default()).join("unproven~")
}

/// For who opens a database from its volume where none was: logs that lie in its place already may have gone on apart, and are not used before
/// somebody has looked ([`bring`]).
pub fn doubt(database: &Path) -> std::io::Result<()> {
    let note = doubt_of(database);
    match note.parent().is_some_and(Path::is_dir) {
        true => std::fs::write(
            &note,
            "littoral log bring looks whether these logs are those of the database beside, and removes this file\n",
        ),
        false => Ok(()),
    }
}

/// Whether nobody has looked yet if a log that lies in a database's place is its own.
pub fn is_doubted(database: &Path, log: &Path) -> bool {
    let note = doubt_of(database);
    note.parent().is_some_and(|place| log.starts_with(place)) && note.exists()
}

/// The volume of a table's log: that of its database, a dot, and the log's name.
pub fn volume_of(database: &VolumeName, folder: &str) -> Result<VolumeName, EngineError> {
    let name = format!("{database}.{}", key_of(folder));
    name.parse().map_err(|error| EngineError::Settings(format!("the log of a table cannot be shipped: {error}")))
}

/// What is said of a table where its database is a replica: that moves on by itself, and a log that was brought once would be behind it.
pub const NOT_IN_A_REPLICA: &str = "a replica has no logs of its tables. Their rows are read in the log's volume (littoral log read URL.TABLE and \
                                    littoral log tail URL.TABLE, with the URL of the volume that it follows), or in a copy that stands still \
                                    (littoral restore URL DEST)";

/// Whether a database is a replica here, as the environment and the settings file say where its store is.
pub fn is_replica(database: &Path) -> bool {
    let settings = Settings::of_uri(&[], std::env::vars_os(), database.parent());
    settings.is_ok_and(|settings| Following::of(&store_root(database, &settings), database).is_replica())
}

/// Up to which record the volume of a table's log has it sealed, where it has a volume: what is beyond is not let go of here.
pub fn shipped_up_to(log: &Path) -> Result<Option<Lsn>, LogError> {
    match SHIPPED.parse::<SessionName>().map(|name| cursor(log, &name)) {
        Ok(Ok(found)) => Ok(Some(found.acked)),
        Ok(Err(LogError::NoCursor { .. })) | Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
    }
}

/// Refuses to let go of a table's oldest rows where that is switched off for its log's volume, as the environment and the settings file say where the
/// store is.
pub fn may_truncate(database: &Path, log: &Path) -> Result<(), EngineError> {
    let mut settings = Settings::of_uri(&[], std::env::vars_os(), database.parent())?;
    let store = store_root(database, &settings);
    settings.store = Some(Setting { value: store, origin: Origin::Argument });
    let place = Place::of_database(log, &settings)?;
    match place.found {
        Some(_) => place.allows(Flag::EnableAppendOnlyTruncation, &settings),
        None => Ok(()),
    }
}

/// The way of a database's logs to their volumes, kept open between two times.
#[derive(Debug)]
pub(crate) struct Tables {
    database: PathBuf,
    store: PathBuf,
    remote: String,
    volume: VolumeName,
    settings: Settings,
    components: Components,
    carriers: BTreeMap<VolumeId, Carrier>,
    /// What their volumes have.
    shipped: BTreeMap<VolumeId, CountedLog>,
}

impl Tables {
    /// Of a database that is here.
    pub(crate) fn of(place: &Place, settings: &Settings, components: &Components) -> Option<Self> {
        let database = place.database.clone()?;
        let store = place.store_root.clone().unwrap_or_else(|| store_root(&database, settings));
        Some(Self {
            database,
            store,
            remote: place.remote.value.clone(),
            volume: place.volume.value.clone(),
            settings: settings.clone(),
            components: components.clone(),
            carriers: BTreeMap::new(),
            shipped: BTreeMap::new(),
        })
    }

    /// Ships what the database counts. Its volume is open, and whoever has that knows whose term it is.
    pub(crate) async fn ship(&mut self, logs: &[CountedLog], database: &mut Writer) -> Result<(), EngineError> {
        self.tell_of_logs()?;
        for log in logs {
            if self.shipped.get(&log.log) != Some(log) {
                self.ship_one(log, database).await?;
                self.shipped.insert(log.log, log.clone());
            }
        }
        self.components.faults.reach("carry.tables")?;
        Ok(())
    }

    /// Who copies the database looks for logs where this folder is, as who ships it does.
    fn tell_of_logs(&self) -> Result<(), EngineError> {
        let folder = folder_of(&self.database);
        std::fs::create_dir_all(&folder)
            .map_err(|error| EngineError::Refused(format!("{}: cannot be made: {error}", folder.display())))
    }

    async fn ship_one(&mut self, log: &CountedLog, database: &mut Writer) -> Result<(), EngineError> {
        let path = found(&self.database, &log.folder, log.log);
        if is_doubted(&self.database, &path) {
            return self.is_there(log, &path, database.log()).await;
        }
        match identity(&path) {
            Ok((id, _)) if id == log.log => {}
            Ok(_) => {
                return Err(EngineError::Refused(format!(
                    "{}: is another log than the one that table {} of {} was made with: rows of it would be shipped that are none. Put the log \
                     back that belongs to the database, or let go of the table (DROP TABLE)",
                    path.display(),
                    log.table,
                    self.database.display()
                )));
            }
            Err(LogError::NoLog(_)) => return self.is_there(log, &path, database.log()).await,
            Err(error) => return Err(error.into()),
        }
        let prefix = Prefix::counted(&path, log.last)?;
        let rows = Rows { columns: columns(&path)?.unwrap_or_default(), counted: log.clone() };
        let mut carrier = match self.carriers.remove(&log.log) {
            Some(carrier) => carrier,
            None => self.carrier(&path, log)?,
        };
        if carrier.has_shipped(&prefix, &rows)? {
            self.carriers.insert(log.log, carrier);
            return Ok(());
        }
        let mut done = Box::pin(carrier.ship_rows(&prefix, &rows)).await;
        if let Err(
            EngineError::Superseded { epoch, .. }
            | EngineError::NotBound { epoch, .. }
            | EngineError::Diverged { epoch, .. },
        ) = done
        {
            // Whoever took the log took the database, or had it before us.
            if database.log().newest().await? != Some(database.row().tail.seq) {
                return Err(database.find_out_who_won().await?);
            }
            tracing::info!(log = %path.display(), %epoch, "the log of a table goes on where its database does");
            carrier.takes_over(epoch);
            done = Box::pin(carrier.ship_rows(&prefix, &rows)).await;
            carrier.has_taken_over();
        }
        let (shipped, sealed) = done.map_err(|error| self.explained(error, log))?;
        if prefix.last() > shipped.position.map_or(Lsn::ZERO, |position| position.lsn) {
            let detail =
                format!("its volume ends before LSN {}, which {} counts", prefix.last(), self.database.display());
            return Err(LogError::Broken { path, detail }.into());
        }
        if let Ok(name) = SHIPPED.parse::<SessionName>()
            && keep_cursor(&path, &name, None, None)?.acked < sealed
        {
            ack(&path, &name, sealed, None)?;
        }
        self.carriers.insert(log.log, carrier);
        Ok(())
    }

    /// Where the two went on apart there is one way out that leaves nobody's records behind.
    fn explained(&self, error: EngineError, log: &CountedLog) -> EngineError {
        match error {
            EngineError::Refused(why) => EngineError::Refused(format!(
                "{why}. What {} commits waits here for the log of its table {table}: CREATE VIRTUAL TABLE another USING littoral_log(…), INSERT \
                 INTO another SELECT … FROM {table}, and DROP TABLE {table} go on without it",
                self.database.display(),
                table = log.table
            )),
            error => error,
        }
    }

    /// A log that is not here may be in its volume, as far as the database counts it: then it was never brought.
    async fn is_there(&self, log: &CountedLog, path: &Path, database: &VolumeLog) -> Result<(), EngineError> {
        if log.last < log.first {
            return Ok(());
        }
        let volume = VolumeLog::new(database.remote().clone(), volume_of(&self.volume, &log.folder)?);
        let opened = volume.open().await?;
        if opened.is_some_and(|opened| opened.meta.log() == log.log && opened.tail.lsn >= log.last) {
            return Ok(());
        }
        Err(EngineError::Refused(format!(
            "{}: the log of table {} is not here, and {} does not have all of its rows: put it back, or let go of the table (DROP TABLE). Nothing \
             was published",
            path.display(),
            log.table,
            volume.url()
        )))
    }

    fn carrier(&self, path: &Path, log: &CountedLog) -> Result<Carrier, EngineError> {
        let name = volume_of(&self.volume, &log.folder)?;
        let url = format!("{}/{name}", self.remote);
        let mut settings = self.settings.clone();
        (settings.at, settings.takeover, settings.remote, settings.volume) = (None, None, None, None);
        settings.store = Some(Setting { value: self.store.clone(), origin: Origin::Argument });
        let bound = Place::of_database(path, &settings)?;
        if bound.found.is_none() {
            settings.remote = Some(Setting { value: self.remote.clone(), origin: Origin::Argument });
            settings.volume = Some(Setting { value: name, origin: Origin::Argument });
        } else if bound.url() != url {
            return Err(EngineError::Refused(format!(
                "{}: the log of table {} is bound to {}, and its database to {}/{}: its rows would be looked for at {url}. Let go of the table and \
                 make another one (DROP TABLE, CREATE VIRTUAL TABLE)",
                path.display(),
                log.table,
                bound.url(),
                self.remote,
                self.volume
            )));
        }
        Carrier::of_table(path, &settings, &self.components)
    }
}

/// What became of a table's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is here now.
    Restored(RestoredLog),
    /// It was here.
    Here,
    /// The object store does not have all rows that are counted, and why: a fork's, or a copy's that was made without. The table says so.
    Missing(String),
}

/// The logs that a state of a database counts rows of, out of pages that came with it; others are fetched. Whoever cannot tell does nothing.
pub(crate) async fn counted_at(volume: &VolumeLog, opened: &Opened) -> Result<Vec<CountedLog>, EngineError> {
    let (true, Some(page_size)) = (opened.meta.kind == VolumeKind::Database, opened.tail.figures.page_size) else {
        return Ok(Vec::new());
    };
    let count = opened.tail.figures.page_count;
    let pages = Lazy::unheld(volume, opened.clone())?;
    let mut fetched: HashMap<PageNo, Bytes> = HashMap::new();
    loop {
        let mut given = |page| {
            let zeros = || (!count.holds(page)).then(|| vec![0; page_size.len()]);
            let known = fetched.get(&page).cloned().or_else(|| pages.resident(page));
            Ok::<_, Infallible>(known.map(|image| image.to_vec()).or_else(zeros))
        };
        let page = match look(page_size, &mut given) {
            Ok(Ok(Looked::Found(logs))) => return Ok(logs),
            Ok(Ok(Looked::Unreadable(what))) => {
                return Err(EngineError::Refused(format!(
                    "{}: its table {TABLE} says nothing that can be read of {what}: which logs belong to it cannot be told. Nothing was done",
                    volume.url()
                )));
            }
            Ok(Err(page)) => page,
            Err(never) => match never {},
        };
        let shared = |error: Arc<EngineError>| EngineError::Interrupted(error.to_string());
        let frame = pages.fetch(page).await.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(shared))?;
        let gone = || volume.inconsistent(format!("page {page} is not in its own frame"));
        fetched.insert(page, frame.page(page).cloned().ok_or_else(gone)?);
    }
}

/// Brings logs that a database counts rows of to where it finds them, from beside its volume.
pub async fn bring(
    volume: &VolumeLog,
    components: &Components,
    database: &Path,
    logs: &[CountedLog],
) -> Result<Vec<(CountedLog, PathBuf, Brought)>, EngineError> {
    let mut all = Vec::new();
    for log in logs {
        let own = own_place(database, &log.folder);
        let path = found(database, &log.folder, log.log);
        // One that lies among those of another file is that file's.
        let is_its_own = path == own || !path.starts_with(folder_of(database));
        let is_here = is_its_own && holds(&path, log)?;
        let (dest, brought) = match is_here {
            true => {
                refuse_apart(volume, database, &path, log).await?;
                (path, Brought::Here)
            }
            false => {
                let brought = Box::pin(bring_one(volume, components, &own, log)).await?;
                (own, brought)
            }
        };
        all.push((log.clone(), dest, brought));
    }
    // All that it counts rows of was compared.
    match std::fs::remove_file(doubt_of(database)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let note = doubt_of(database);
            Err(EngineError::Refused(format!("{}: all is here, and this cannot be removed: {error}", note.display())))
        }
        _ => Ok(all),
    }
}

/// Whether a log that is counted lies in a folder, with all that is counted.
fn holds(path: &Path, log: &CountedLog) -> Result<bool, EngineError> {
    match identity(path) {
        Ok((id, _)) if id != log.log => Ok(false),
        Ok(_) if stats(path)?.last >= log.last => Ok(true),
        Ok(_) => Err(EngineError::Refused(format!(
            "{}: an older state of the log of table {} lies there. Nothing was done. Move it away, and try again",
            path.display(),
            log.table
        ))),
        Err(LogError::NoLog(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a log that lies here and went on apart from its volume: somebody else took its database over, and gave the numbers of its rows to others.
async fn refuse_apart(volume: &VolumeLog, database: &Path, path: &Path, log: &CountedLog) -> Result<(), EngineError> {
    let from = VolumeLog::new(volume.remote().clone(), volume_of(volume.name(), &log.folder)?);
    let Some(opened) = from.open().await? else { return Ok(()) };
    if opened.meta.log() != log.log || is_alike(&from, &opened, path, log).await? {
        return Ok(());
    }
    let (name, here) = (key_of(&log.folder), path.display());
    let kept = folder_of(database).join("OUT.db").join(&name);
    Err(EngineError::Refused(format!(
        "{here}: what lies there as the log of table {} went on apart from {}: its rows are not those that the database counts. Nothing was done. \
         Move it away, and try again. Where it has rows that are to be kept: littoral salvage FILE --export OUT.db of the database that it was \
         made with, and move it to {}, where OUT.db has its rows",
        log.table,
        from.url(),
        kept.display()
    )))
}

/// Whether a log's last counted records are here what they are in its volume: later ones tell each log from any other, by their times.
async fn is_alike(from: &VolumeLog, opened: &Opened, path: &Path, log: &CountedLog) -> Result<bool, EngineError> {
    let rows = rows_of(from, opened).await?;
    let prefix = Prefix::counted(path, log.last)?;
    let start = prefix.start()?;
    let counted = segments(&rows).map(|(_, row)| row).filter(|row| row.first <= log.last && row.first >= start);
    let Some(row) = counted.last() else { return Ok(true) };
    let Some(piece) = row.pieces.iter().rfind(|piece| piece.first <= log.last) else { return Ok(true) };
    // Up to where the last one that is counted ends.
    let to = match prefix.walk(Stand { first: row.first, offset: piece.from.max(LOG_HEAD_BYTES), next: piece.first }) {
        Ok(Some(walked)) => walked.to.min(piece.to),
        Ok(None) => return Ok(true),
        Err(LogError::Damaged { .. } | LogError::Broken { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let at = piece.from.max(to.saturating_sub(COMPARED_BYTES));
    let there = bytes_of(from, row, at, to).await?;
    Ok(prefix.bytes(row.first, at, to)? == there)
}

async fn bring_one(
    volume: &VolumeLog,
    components: &Components,
    dest: &Path,
    log: &CountedLog,
) -> Result<Brought, EngineError> {
    let from = VolumeLog::new(volume.remote().clone(), volume_of(volume.name(), &log.folder)?);
    let Some(opened) = from.open().await? else {
        if log.last >= log.first {
            return Ok(Brought::Missing(format!("there is no volume {}", from.url())));
        }
        // A table without rows whose log was never shipped.
        Restoring::begin(dest, log.log, components.clock.wall_ms(), log.first, Sessions::new())?.finish()?;
        return Ok(Brought::Here);
    };
    if opened.meta.log() != log.log || opened.tail.lsn < log.last {
        return Ok(Brought::Missing(format!(
            "{} ends at LSN {} of log {}, and rows are counted up to LSN {} of log {}",
            from.url(),
            opened.tail.lsn,
            opened.meta.log(),
            log.last,
            log.log
        )));
    }
    restore_as(&from, components, &At::Newest, dest, Some(log)).await.map(Brought::Restored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_log_has_its_volume_and_its_own_place_by_the_last_part_of_its_folder() {
        assert_eq!(key_of(".littoral/logs/app.db/events"), "events");
        assert_eq!(key_of("/var/some log/"), "some_log");
        let volume: VolumeName = "app.db".parse().unwrap();
        assert_eq!(volume_of(&volume, "x/events-2").unwrap().as_str(), "app.db.events-2");
        assert!(volume_of(&"x".repeat(128).parse().unwrap(), "events").is_err());
        let own = own_place(Path::new("/data/copy.db"), ".littoral/logs/app.db/events");
        assert_eq!(own, Path::new("/data/.littoral/logs/copy.db/events"));
        // What is not there is looked for where the database says.
        let found = found(Path::new("/nowhere/copy.db"), ".littoral/logs/app.db/events", VolumeId([1; 16]));
        assert_eq!(found, Path::new("/nowhere/.littoral/logs/app.db/events"));
    }
}
