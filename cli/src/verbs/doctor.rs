//! `littoral doctor [FILE|URL]`: everything that a checkpoint needs is tried, each with a plain answer.

use super::shown::Meter;
use crate::door::{Door, Target};
use crate::exit::{Exit, Explained, explain};
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, SqliteSource};
use crate::words;
use littoral_engine::exec::replicate::{mark_of, position_of};
use littoral_engine::open::{self, Place};
use littoral_engine::settings::{Origin, Settings};
use littoral_engine::{Components, EngineError, Log};
use littoral_ports::{PageSource as _, RemoteError};
use littoral_types::limits::{CHUNK_BYTES, TRANSFERS_IN_FLIGHT};
use littoral_types::{CopyState, JournalMode, Position};
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A database, or a volume's URL; without one, the machine and the settings alone
    #[arg(value_name = "FILE|URL")]
    target: Option<OsString>,
    /// Write nothing to the remote: no test of conditional PUT, no look at its clock
    #[arg(long)]
    read_only: bool,
}

/// A clock this far off makes S3 refuse requests.
const SKEW_REFUSED_MS: u64 = 15 * 60_000;
/// A clock this far off makes times in a history misleading.
const SKEW_ODD_MS: u64 = 60_000;
/// Less room than this is odd whatever the database.
const FREE_LOW: u64 = 200_000_000;
/// What a checkpoint may have staged at once, however large the database is.
const STAGED_MAX: u64 = (TRANSFERS_IN_FLIGHT as u64 + 1) * CHUNK_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ok,
    Warn,
    Fail,
}

impl Answer {
    const fn word(self) -> &'static str {
        match self {
            Answer::Ok => "ok",
            Answer::Warn => "warn",
            Answer::Fail => "FAIL",
        }
    }
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    answer: Answer,
    what: String,
    way_out: Option<String>,
}

#[derive(Debug, Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn ok(&mut self, name: &'static str, what: impl Into<String>) {
        self.0.push(Check { name, answer: Answer::Ok, what: what.into(), way_out: None });
    }

    fn warn(&mut self, name: &'static str, what: impl Into<String>, way_out: &str) {
        let way_out = Some(way_out.to_owned());
        self.0.push(Check { name, answer: Answer::Warn, what: what.into(), way_out });
    }

    fn fail(&mut self, name: &'static str, error: impl Into<anyhow::Error>) {
        let Explained { cause, way_out, .. } = explain(&error.into());
        self.0.push(Check { name, answer: Answer::Fail, what: cause, way_out });
    }

    fn worst(&self) -> Answer {
        let has = |answer| self.0.iter().any(|check| check.answer == answer);
        if has(Answer::Fail) {
            Answer::Fail
        } else if has(Answer::Warn) {
            Answer::Warn
        } else {
            Answer::Ok
        }
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let mut checks = Checks::default();
    versions(&mut checks);
    look(&args, door, &mut checks).await;
    let worst = checks.worst();
    let json = json!({
        "verb": "doctor",
        "worst": worst.word(),
        "checks": checks.0.iter().map(|check| json!({
            "name": check.name,
            "answer": check.answer.word(),
            "what": check.what,
            "way_out": check.way_out,
        })).collect::<Vec<_>>(),
    });
    let mut text = String::new();
    for check in &checks.0 {
        text.push_str(&format!("{:<4}  {:<16}{}\n", check.answer.word(), check.name, check.what));
        if let Some(way_out) = &check.way_out {
            text.push_str(&format!("{:<22}way out: {way_out}\n", ""));
        }
    }
    text.push_str(match worst {
        Answer::Ok => "all is well\n",
        Answer::Warn => "nothing that stops a checkpoint\n",
        Answer::Fail => "a checkpoint would fail\n",
    });
    Ok(Told { json, text, exit: if worst == Answer::Fail { Exit::Failed } else { Exit::Done } })
}

/// Goes as far as there is something to stand on.
async fn look(args: &Args, door: &Door, checks: &mut Checks) {
    let Some(target) = &args.target else {
        if let Some(settings) = settings(door, None, checks) {
            let folder = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
            disk(&settings.store.as_ref().map_or(folder, |store| store.value.clone()), None, checks);
            checks.ok("remote", "not asked: give a database or a volume's URL");
        }
        return;
    };
    let file = match Target::read(target) {
        Target::File(file) => Some(file),
        Target::Url(_) => None,
    };
    let Some(settings) = settings(door, file.as_deref(), checks) else { return };
    let size = file.as_deref().and_then(|file| database(file, checks));
    let place = match door.place(target, None) {
        Ok((place, _)) => place,
        Err(error) => return checks.fail("place", error),
    };
    if place.database.is_some() {
        store(&place, checks);
        let folder = place.store_root.clone().unwrap_or_default();
        disk(&folder, size, checks);
    }
    let components = match door.components(&settings) {
        Ok(components) => components,
        Err(error) => return checks.fail("settings", error),
    };
    remote(args, &place, &settings, &components, checks).await;
}

fn versions(checks: &mut Checks) {
    let sqlite = String::from_utf8_lossy(libsql::ffi::SQLITE_VERSION);
    let formats: Vec<String> = open::VERSIONS.iter().map(|(what, version)| format!("{what} {version}")).collect();
    checks.ok(
        "versions",
        format!(
            "littoral {}, SQLite {} (libsql); formats: {}",
            env!("CARGO_PKG_VERSION"),
            sqlite.trim_end_matches('\0'),
            formats.join(", ")
        ),
    );
}

fn settings(door: &Door, file: Option<&Path>, checks: &mut Checks) -> Option<Settings> {
    let settings = match door.settings(file) {
        Ok(settings) => settings,
        Err(error) => {
            checks.fail("settings", error);
            return None;
        }
    };
    match &settings.file {
        Some(path) => checks.ok("settings", format!("{} is read", path.display())),
        None => checks.ok("settings", "no littoral.toml"),
    }
    for (key, value, origin) in settings.shown() {
        if origin == Origin::Default {
            continue;
        }
        // A URL is repeated only after what reads it found no secret in it; `remote` below shows it.
        let value = if value.contains("://") { "a URL".to_owned() } else { value };
        checks.ok("setting", format!("{} = {value} ({origin})", key.name()));
    }
    if !settings.fencing.value {
        checks.warn(
            "setting",
            "fencing is off: two writers of one volume can both win",
            "leave fencing on wherever the store honours a conditional PUT",
        );
    }
    Some(settings)
}

/// The database's size, where it can be read.
fn database(file: &Path, checks: &mut Checks) -> Option<u64> {
    match SqliteSource::open(file, BUSY_TIMEOUT) {
        Ok(source) => {
            let size = source.page_count().0 * source.page_size().bytes();
            let mode = match source.schema().journal {
                JournalMode::Wal => "WAL",
                JournalMode::Rollback => "rollback journal",
            };
            let pages = words::some(source.page_count().0, "page");
            checks.ok(
                "database",
                format!("{}: {} ({pages} of {} bytes), {mode}", file.display(), words::bytes(size), source.page_size()),
            );
            Some(size)
        }
        Err(error) => {
            checks.fail("database", error);
            None
        }
    }
}

fn store(place: &Place, checks: &mut Checks) {
    let root = place.store_root.as_deref().unwrap_or(Path::new("")).display().to_string();
    let Some(store) = &place.store else {
        return checks.ok("store", format!("{root}: none yet; the first checkpoint makes it"));
    };
    match (&place.found, store.bindings()) {
        (_, Err(error)) => return checks.fail("store", EngineError::from(error)),
        (Some(found), _) => {
            let binding = &found.binding;
            checks.ok("store", format!("{root}: bound to {}/{} ({})", binding.remote, binding.volume, binding.id));
        }
        (None, Ok(bindings)) => {
            let others = words::some(bindings.len() as u64, "other database");
            checks.ok("store", format!("{root}: this database is not bound yet ({others})"));
        }
    }
    match open::worker_of(store) {
        Ok(None) => {}
        Ok(Some(holder)) => {
            checks.warn("store", format!("somebody works on it right now: {holder}"), "wait until that is done");
        }
        Err(error) => checks.fail("store", error),
    }
    match place.manifest() {
        Ok(Some(manifest)) => match manifest.volume(&place.volume.value).map_err(EngineError::from) {
            Ok(Some(row)) => match row.fenced {
                None => checks.ok("manifest", format!("knows the volume up to record {}", row.tail.seq)),
                Some((epoch, owner)) => checks.warn(
                    "manifest",
                    format!("another writer took over in epoch {epoch}: {}", owner.label),
                    "leave the volume to that writer, or take it back with --takeover",
                ),
            },
            Ok(None) => checks.ok("manifest", "does not know the volume yet"),
            Err(error) => checks.fail("manifest", error),
        },
        Ok(None) => checks.ok("manifest", "none yet"),
        Err(error) => checks.fail("manifest", error),
    }
}

fn disk(folder: &Path, database: Option<u64>, checks: &mut Checks) {
    match open::disk(folder) {
        Err(error) => checks.fail("disk", error),
        Ok(disk) => {
            let (at, free) = (disk.folder.display(), words::bytes(disk.free));
            match disk.network {
                Some(kind) => checks.fail(
                    "disk",
                    crate::exit::Fault {
                        exit: Exit::Refused,
                        message: format!("{at} is on a network file system ({kind}), where locks cannot be trusted"),
                        way_out: Some("put the store on a local disk: store=DIR".to_owned()),
                    },
                ),
                None if disk.free < FREE_LOW || database.is_some_and(|size| disk.free < size.min(STAGED_MAX)) => checks.warn(
                    "disk",
                    format!("{at}: only {free} free"),
                    "make room, or put the store elsewhere with store=DIR",
                ),
                None => checks.ok("disk", format!("{at}: a local file system ({}), {free} free", disk.kind)),
            }
            if let Err(error) = tempfile::tempfile_in(&disk.folder) {
                checks.fail("disk", EngineError::from(littoral_engine::LocalError::from_io("write", &disk.folder, error)));
            }
        }
    }
}

async fn remote(args: &Args, place: &Place, settings: &Settings, components: &Components, checks: &mut Checks) {
    if place.is_unmade {
        return checks.ok("remote", format!("{}: none yet; the first checkpoint makes it", place.remote.value));
    }
    let (log, counting) = match place.log(settings, components) {
        Ok(opened) => opened,
        Err(error) => return checks.fail("remote", error),
    };
    checks.ok("remote", format!("{} ({}), volume {}", place.remote.value, place.remote.origin, place.volume.value));
    if !place.remote.value.starts_with("file:") {
        checks.ok("credentials", credentials());
    }
    let meter = Meter::new(counting);
    let began = Instant::now();
    match log.newest().await {
        Ok(_) => {
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            checks.ok("reachable", format!("answers in {took} ms"));
        }
        Err(error) => return checks.fail("reachable", error),
    }
    if !args.read_only {
        writing(place, &log, components, checks).await;
    }
    volume(place, &log, components, checks).await;
    for url in settings.copies() {
        copy(url, place, settings, components, checks).await;
    }
    checks.ok("cost", words::cost(&meter.all()));
}

async fn copy(url: &str, place: &Place, settings: &Settings, components: &Components, checks: &mut Checks) {
    let at = url;
    let url = open::told_url(at);
    let found = async {
        let destination = open::destination(at, place, settings, components)?;
        let position = position_of(&destination.log).await?.map(|(position, _)| position);
        Ok::<_, EngineError>((mark_of(&destination.log).await?, position))
    };
    match found.await {
        Err(error) => checks.fail("copy", error),
        Ok((None, None)) => checks.ok("copy", format!("{url}: none yet; the first copy makes it")),
        Ok((None, Some(_))) => checks.warn(
            "copy",
            format!("{url} holds a volume of that name, and it is no copy"),
            "name another place (copy=URL): nothing is copied there",
        ),
        Ok((Some(mark), position)) => {
            let position = position.map_or_else(|| "nothing".to_owned(), |position| position.to_string());
            match mark.state {
                CopyState::Follows => checks.ok("copy", format!("{url}: up to {position}")),
                CopyState::Fills(seq) => checks.warn(
                    "copy",
                    format!("{url} is being filled at record {seq}"),
                    "littoral copy goes on with it; until then it cannot be restored from",
                ),
                CopyState::Promoted { by, .. } => checks.warn(
                    "copy",
                    format!("{url} was promoted by {by}, and ends at {position}"),
                    "it is a volume of its own: name another place (copy=URL), or go on there",
                ),
            }
        }
    }
}

/// Where keys would come from. Whether they are right is what the next answer says.
fn credentials() -> String {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY") {
        let token = if set("AWS_SESSION_TOKEN") { " and AWS_SESSION_TOKEN" } else { "" };
        return format!("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{token} are set");
    }
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".aws/credentials"));
    let file = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(Into::into).or(home);
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    match file.filter(|file| file.exists()) {
        Some(file) => format!("profile {profile} of {}", file.display()),
        None if set("AWS_WEB_IDENTITY_TOKEN_FILE") => "a web identity".to_owned(),
        None if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") => {
            "the container's role".to_owned()
        }
        None => "none in the environment or in ~/.aws; the machine's role is tried".to_owned(),
    }
}

async fn writing(place: &Place, log: &Log, components: &Components, checks: &mut Checks) {
    match open::probe(log, components).await {
        Ok(()) => checks.ok("conditional PUT", "of two writers one wins, and the other is told"),
        Err(EngineError::Remote(RemoteError::Denied { what, detail })) => {
            return checks.warn(
                "conditional PUT",
                format!("not tried: {what}: {detail}"),
                "enough for restoring; a checkpoint needs credentials that may write and delete",
            );
        }
        Err(error) => return checks.fail("conditional PUT", error),
    }
    match open::clock_skew_ms(log, components).await {
        Err(error) => checks.fail("clock", error),
        Ok(None) => checks.warn("clock", format!("{} does not say when it wrote", place.remote.value), "nothing to do"),
        Ok(Some(skew)) => {
            let (off, side) = (skew.unsigned_abs(), if skew > 0 { "behind" } else { "ahead of" });
            let told = format!("this machine's clock is {} {side} the store's", words::span(off));
            if off > SKEW_ODD_MS {
                let way_out = if off > SKEW_REFUSED_MS {
                    "set the clock (NTP): S3 refuses requests that are more than 15 minutes off"
                } else {
                    "set the clock (NTP): times in a history and prune's grace follow it"
                };
                checks.warn("clock", told, way_out);
            } else {
                checks.ok("clock", "agrees with the store's to a minute");
            }
        }
    }
}

async fn volume(place: &Place, log: &Log, components: &Components, checks: &mut Checks) {
    match log.open().await {
        Ok(None) => checks.ok("volume", format!("{}: none yet; the first checkpoint makes it", place.url())),
        Ok(Some(opened)) => {
            let tail = &opened.tail;
            let position = Position { epoch: tail.epoch, lsn: tail.lsn };
            let age = words::span(components.clock.wall_ms().saturating_sub(tail.time_ms));
            let owner = tail.owner.as_ref().map_or("nobody (released)", |owner| owner.label.as_str());
            checks.ok("volume", format!("at {position}, {age} ago, written by {owner}"));
        }
        Err(error) => checks.fail("volume", error),
    }
}
