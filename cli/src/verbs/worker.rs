//! `littoral worker FILE ...`: ships what others commit, until it is told to stop.

use super::serve;
use crate::caretaker::{Caretaker, Charges};
use crate::door::Door;
use crate::errands;
use crate::exit::{Exit, Fault};
use crate::keeper::{Event, Keeper, Stop, TICK};
use crate::notify::notify;
use crate::screen::Told;
use crate::serve::Running;
use crate::words;
use littoral_engine::open::Place;
use littoral_engine::runtime::{self, Cut};
use littoral_engine::settings::{Key, Origin};
use littoral_types::limits::SYNC_INTERVAL_MS;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many databases one worker keeps: each has threads of its own.
const DATABASES_MAX: usize = 1_000;
/// How often it is looked for jobs where nobody has touched the queue: those that failed rest for a while.
const LOOK: Duration = Duration::from_secs(10);
/// How soon a signal is heard.
pub(super) const HEARS: Duration = Duration::from_millis(100);
/// For so long whoever started it is not told that it is ready, if some database takes its time.
const READY_MAX: Duration = Duration::from_secs(10);
/// SQLite's own code runs on it.
const STACK: usize = 2 << 20;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
}

/// Which databases.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// The databases; one that is not there is waited for
    #[arg(value_name = "FILE", required_unless_present = "dirs")]
    files: Vec<OsString>,
    /// A folder whose databases are kept, also those that come later
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Which files of the folders are databases: * stands for any letters, ? for one
    #[arg(long = "match", value_name = "PATTERN", default_value = "*.db", requires = "dirs")]
    pattern: String,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    refuse(&args, door)?;
    // Kept until the end.
    let served = serves(&args, door)?;
    let stops = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it as if nobody listened: whatever was committed is kept where it is.
        flag::register_conditional_default(signal, stops.clone())?;
        flag::register(signal, stops.clone())?;
    }
    let crew = Crew {
        args: &args,
        door,
        tell: &|path: &Path, event: Event| door.screen.event(&as_json(path, &event), &as_text(path, &event)),
        stops: &stops,
        stop: &Stop::default(),
        charges: &Charges::default(),
        tried: &AtomicUsize::new(0),
        kept: &Mutex::default(),
        cut: &Cut::default(),
    };
    let kept = thread::scope(|scope| {
        let worked = crew.work(scope);
        notify("STOPPING=1");
        // However it ends: whoever waits for the threads waits for them to hear of it.
        crew.stop.now();
        crew.cut.now();
        worked
    })?;
    drop(served);
    let text = format!("stopped: {} left in order\n", words::some(kept as u64, "database"));
    Ok(Told::done(json!({ "verb": "worker", "databases": kept }), text))
}

/// Answers who watches, where that is asked for.
fn serves(args: &Args, door: &Door) -> anyhow::Result<Option<Running>> {
    let said = door.settings(args.which.first().as_deref())?.metrics_listen;
    let Some(address) = said.value else { return Ok(None) };
    let which = args.which.clone();
    let running = serve::begin(door, address, serve::token(door, None)?, Box::new(move || which.wanted()))?;
    serve::told_where(door, &running);
    Ok(Some(running))
}

/// Those who keep databases, a thread each, and what they share.
struct Crew<'a> {
    args: &'a Args,
    door: &'a Door,
    tell: &'a (dyn Fn(&Path, Event) + Sync),
    /// Whether a signal came.
    stops: &'a AtomicBool,
    stop: &'a Stop,
    /// Whose volumes are pruned, verified and proved from here.
    charges: &'a Charges,
    /// How many databases were looked at once.
    tried: &'a AtomicUsize,
    /// Those that are kept.
    kept: &'a Mutex<BTreeSet<PathBuf>>,
    /// Ends whatever job is done just now.
    cut: &'a Cut,
}

/// Whether a database's queue may have changed since: somebody opened it, or some time has passed.
fn is_to_be_looked_at(looked: &mut BTreeMap<PathBuf, (SystemTime, Instant)>, door: &Door, path: &Path) -> bool {
    let folder = door.settings(Some(path)).ok().and_then(|settings| Place::of_database(path, &settings).ok());
    let folder = folder.and_then(|place| place.store).map(|store| store.jobs_dir());
    let Some(changed) = folder.and_then(|folder| folder.metadata().ok()?.modified().ok()) else { return false };
    match looked.get(path) {
        Some((then, when)) if *then == changed && when.elapsed() < LOOK => false,
        _ => {
            looked.insert(path.to_owned(), (changed, Instant::now()));
            true
        }
    }
}

impl<'a> Crew<'a> {
    /// Keeps what there is and what comes, until a signal comes. Gives how many databases that were.
    fn work<'scope>(&self, scope: &'scope Scope<'scope, 'a>) -> anyhow::Result<usize> {
        let begun = Instant::now();
        let caretaker = Caretaker { charges: self.charges, tell: self.tell, stop: self.stop };
        let thread = thread::Builder::new().name("littoral-care".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, move || caretaker.run())?;
        let mut kept = BTreeSet::new();
        self.do_jobs(scope)?;
        let (mut is_ready, mut is_full) = (false, false);
        while !self.stops.load(Ordering::SeqCst) {
            for path in self.args.which.wanted() {
                if kept.contains(&path) {
                    continue;
                }
                if kept.len() >= DATABASES_MAX {
                    if !std::mem::replace(&mut is_full, true) {
                        let path = path.display();
                        self.door.screen.warn(&format!(
                            "{path}: is not kept, nor any more: one worker keeps {DATABASES_MAX} databases; begin another one"
                        ));
                    }
                    break;
                }
                self.keep(scope, path.clone())?;
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
                kept.insert(path);
            }
            let looked = Instant::now();
            while looked.elapsed() < TICK && !self.stops.load(Ordering::SeqCst) {
                let is_settled = self.tried.load(Ordering::SeqCst) >= kept.len() || begun.elapsed() >= READY_MAX;
                if is_settled && !std::mem::replace(&mut is_ready, true) {
                    notify("READY=1");
                }
                thread::sleep(HEARS);
            }
        }
        Ok(kept.len())
    }

    /// Does the jobs of the databases that are kept, those that others left too, beside those who ship.
    fn do_jobs<'scope>(&self, scope: &'scope Scope<'scope, 'a>) -> anyhow::Result<()> {
        let (door, kept, stop, cut) = (self.door, self.kept, self.stop, self.cut);
        let thread = thread::Builder::new().name("littoral-jobs".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, move || {
            runtime::step_back();
            let Ok(runtime) = runtime::shared() else { return };
            let mut looked = BTreeMap::new();
            while !stop.within(TICK) {
                let paths: Vec<PathBuf> = kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
                for path in paths {
                    if !is_to_be_looked_at(&mut looked, door, &path) {
                        continue;
                    }
                    let door = match said(door, &path) {
                        Ok(said) => door.behind(said),
                        Err(_) => continue,
                    };
                    // Cut off, it is a job like one whose worker was killed: the next one goes on.
                    match runtime.run_unless(cut, errands::run_due(&door, &path)) {
                        Some(Err(error)) => tracing::warn!(database = %path.display(), "its jobs are not done: {error}"),
                        Some(Ok(_)) => {}
                        None => return,
                    }
                }
            }
        })?;
        Ok(())
    }

    fn keep<'scope>(&self, scope: &'scope Scope<'scope, 'a>, path: PathBuf) -> anyhow::Result<()> {
        let (tried, tell, stop) = (self.tried, self.tell, self.stop);
        let settings = Arc::new(self.door.settings(Some(&path))?);
        let keeper = Keeper { said: said(self.door, &path)?, path, tell, stop, settings, charges: self.charges };
        let thread = thread::Builder::new().name("littoral-keep".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, move || {
            keeper.run(|| {
                tried.fetch_add(1, Ordering::SeqCst);
            });
        })?;
        Ok(())
    }
}

/// What makes no sense for somebody who ships.
fn refuse(args: &Args, door: &Door) -> anyhow::Result<()> {
    let said = |key: Key| door.said().iter().find(|(said, _)| *said == key).map(|(_, value)| value);
    if said(Key::SyncInterval).is_some_and(|value| value == "off") {
        return Err(Fault::usage("--sync_interval=off, and a worker is there to ship", "leave it out").into());
    }
    if said(Key::Follow).is_some_and(|value| value == "on") {
        return Err(Fault::usage("--follow is for who reads, and a worker ships", "leave it out").into());
    }
    args.which.refuse(door)
}

impl Which {
    /// The first of them that is there, or is named: what is said beside it counts for the whole command.
    pub(super) fn first(&self) -> Option<PathBuf> {
        self.wanted().into_iter().next()
    }

    /// What makes no sense for several databases, or for what stands in a database's place.
    pub(super) fn refuse(&self, door: &Door) -> anyhow::Result<()> {
        let is_volume_said = door.said().iter().any(|(key, _)| *key == Key::Volume);
        if (self.files.len() > 1 || !self.dirs.is_empty()) && is_volume_said {
            return Err(Fault::usage(
                "--volume names one volume, and several databases cannot be one",
                "leave it out, or write volume= into a littoral.toml beside each database",
            )
            .into());
        }
        for file in &self.files {
            if door.file(file)?.is_dir() {
                let message = format!("{} is a folder", Path::new(file).display());
                return Err(Fault::usage(message, "--dir DIR keeps the databases in it").into());
            }
        }
        if let Some(dir) = self.dirs.iter().find(|dir| !dir.is_dir()) {
            let message = format!("{}: no such folder", dir.display());
            return Err(Fault { exit: Exit::Usage, message, way_out: Some("make it first, or correct --dir".to_owned()) }.into());
        }
        for path in self.wanted() {
            // What makes no sense is said before anything is begun.
            door.settings(Some(&path))?;
        }
        Ok(())
    }

    /// Them, by their whole names, as of now.
    pub(super) fn wanted(&self) -> BTreeSet<PathBuf> {
        let named = self.files.iter().map(PathBuf::from);
        let found = self.dirs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten()).filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // What SQLite and we keep beside a database is none.
            let is_beside = ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end)) || name.starts_with(".littoral");
            let is_one = matches(self.pattern.as_bytes(), name.as_bytes()) && !is_beside;
            (is_one && entry.path().is_file()).then(|| entry.path())
        });
        named.chain(found).filter_map(|path| whole(&path)).take(DATABASES_MAX + 1).collect()
    }
}

/// As SQLite will name it: one database by two names is kept once.
fn whole(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let whole = std::path::absolute(path).ok()?;
    // It is not there yet, and its folder may be.
    match whole.parent().map(Path::canonicalize) {
        Some(Ok(folder)) => Some(folder.join(whole.file_name()?)),
        _ => Some(whole),
    }
}

/// Whether a name is what a pattern says.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        (Some((b'?', rest)), Some((_, left))) => matches(rest, left),
        (Some((one, rest)), Some((other, left))) => one == other && matches(rest, left),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// What is said of a database: the command line, and that its commits are shipped, whatever its own programs were told.
fn said(door: &Door, path: &Path) -> anyhow::Result<Vec<(Key, OsString)>> {
    let mut said = door.said().to_vec();
    let interval = door.settings(Some(path))?.sync_interval_ms;
    if interval.value.is_none() && !matches!(interval.origin, Origin::Flag(_)) {
        said.push((Key::SyncInterval, OsString::from(format!("{SYNC_INTERVAL_MS}ms"))));
    }
    Ok(said)
}

fn as_text(path: &Path, event: &Event) -> String {
    let path = path.display();
    let upto = |position: &Option<littoral_types::Position>| {
        position.map_or_else(String::new, |position| format!(" (the object store has it up to {position})"))
    };
    match event {
        Event::Waits => format!("{path}: is not there yet, and is waited for"),
        Event::Ships(position) => format!("{path}: ships{}", upto(position)),
        Event::StandsBy => format!("{path}: another process ships; stands by"),
        Event::Fails(why) => format!("{path}: fails, and is tried again: {why}"),
        Event::Recovers(position) => format!("{path}: ships again{}", upto(position)),
        Event::Fenced(epoch, owner) => format!(
            "{path}: fenced: {owner} took over (epoch {epoch}). What was committed since and not published is kept here, and nothing is \
             shipped; littoral salvage shows it"
        ),
        Event::Released(epoch) => format!("{path}: was released (epoch {epoch}); nothing is shipped until it is claimed anew"),
        Event::Gone => format!("{path}: is gone"),
        Event::Left(0, position, _) => format!("{path}: left; everything is published{}", upto(position)),
        Event::Pruned { objects, bytes, packs } => {
            let packs = if *packs > 0 { format!("; {} written anew", words::some(*packs, "pack")) } else { String::new() };
            format!("{path}: pruned {}, {}{packs}", words::some(*objects, "object"), words::bytes(*bytes))
        }
        Event::MayNotDelete(why) => format!(
            "{path}: the credentials may not delete ({why}): what may go is named in the log and stays; littoral prune --no-delete --export \
             FILE lists it for somebody who may"
        ),
        Event::Verified { blobs, bytes } => {
            format!("{path}: verified, all is well ({} at last, {})", words::some(*blobs, "blob"), words::bytes(*bytes))
        }
        Event::Proved { position, took_ms, answer } => {
            let answer = answer.as_ref().map_or_else(String::new, |answer| format!("; the probe says {}", answer.replace('\n', ", ")));
            format!("{path}: proved up to {position}, restored in {:.1} s{answer}", *took_ms as f64 / 1000.0)
        }
        Event::NotSound(problems) => format!("{path}: NOT SOUND: {}", problems.join("; ")),
        Event::ChoreFails(what, why) => format!("{path}: {what} failed, and is tried again: {why}"),
        Event::Left(left, _, why) => {
            let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            format!("{path}: left; {} kept here and not published{why}", words::some(*left, "commit"))
        }
    }
}

fn as_json(path: &Path, event: &Event) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let told = |word: &str, more: Value| {
        let mut line = json!({ "event": word, "database": path.display().to_string(), "time": { "ms": now, "utc": words::time(now) } });
        if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
            line.extend(more);
        }
        line
    };
    let at = |position: &Option<littoral_types::Position>| position.map(|position| position.to_string());
    match event {
        Event::Waits => told("waits", json!({})),
        Event::Ships(position) => told("ships", json!({ "position": at(position) })),
        Event::StandsBy => told("stands-by", json!({})),
        Event::Fails(why) => told("fails", json!({ "why": why })),
        Event::Recovers(position) => told("recovers", json!({ "position": at(position) })),
        Event::Fenced(epoch, owner) => told("fenced", json!({ "epoch": epoch.0, "owner": owner })),
        Event::Released(epoch) => told("released", json!({ "epoch": epoch.0 })),
        Event::Gone => told("gone", json!({})),
        Event::Pruned { objects, bytes, packs } => {
            told("pruned", json!({ "objects": objects, "bytes": bytes, "packs": packs }))
        }
        Event::MayNotDelete(why) => told("may-not-delete", json!({ "why": why })),
        Event::Verified { blobs, bytes } => told("verified", json!({ "blobs": blobs, "bytes": bytes })),
        Event::Proved { position, took_ms, answer } => {
            told("proved", json!({ "position": position.to_string(), "took_ms": took_ms, "answer": answer }))
        }
        Event::NotSound(problems) => told("not-sound", json!({ "problems": problems })),
        Event::ChoreFails(what, why) => told("chore-fails", json!({ "chore": what, "why": why })),
        Event::Left(left, position, why) => {
            told("left", json!({ "commits_left": left, "position": at(position), "why": why }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_says_which_files_are_databases() {
        for (pattern, name, is) in [
            ("*.db", "app.db", true),
            ("*.db", ".db", true),
            ("*.db", "app.db-wal", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*", "abc", true),
            ("b*", "abc", false),
            ("", "a", false),
            ("*.sqlite*", "x.sqlite3", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), is, "{pattern} {name}");
        }
    }
}
