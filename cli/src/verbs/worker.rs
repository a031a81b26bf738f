//! `littoral worker FILE ...`: ships what others commit, and what who appended to a log has left, until it is told to stop.

use super::serve;
use crate::caretaker::{Caretaker, Charges};
use crate::door::Door;
use crate::errands;
use crate::exit::{Exit, Fault};
use crate::keeper::{Event, Keeper, Stop, TICK};
use crate::log_keeper::LogKeeper;
use crate::notify::notify;
use crate::screen::Told;
use crate::serve::Running;
use crate::words;
use littoral_engine::logs::{identity, logs_of, store_of};
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// The databases, and logs by their folders; one that is not there is waited for
    #[arg(value_name = "FILE", required_unless_present = "dirs")]
    files: Vec<OsString>,
    /// A folder whose databases are kept, also those that come later, and its logs that have volumes
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Which files of the folders are databases: * stands for any letters, ? for one
    #[arg(long = "match", value_name = "PATTERN", default_value = "*.db", requires = "dirs")]
    pattern: String,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    refuse(&args, door)?;
    let logs = Arc::<Mutex<BTreeSet<PathBuf>>>::default();
    // Kept until the end.
    let served = serves(&args, door, logs.clone())?;
    let stops = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it as if nobody listened: whatever was committed is kept where it is.
        flag::register_conditional_default(signal, stops.clone())?;
        flag::register(signal, stops.clone())?;
    }
    let crew = Crew {
        args: &args,
        door,
        tell: &|path: &Path, event: Event| {
            let is_log = all(&logs).contains(path) || identity(path).is_ok();
            door.screen.event(&as_json(path, &event, is_log), &as_text(path, &event, is_log));
        },
        stops: &stops,
        stop: &Stop::default(),
        charges: &Charges::default(),
        tried: &AtomicUsize::new(0),
        kept: &Mutex::default(),
        logs: &logs,
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
    let kept_logs = all(&logs).len();
    let and = match kept_logs {
        0 => String::new(),
        some => format!(" and {}", words::some(some as u64, "log")),
    };
    let text = format!("stopped: {}{and} left in order\n", words::some(kept as u64, "database"));
    Ok(Told::done(json!({ "verb": "worker", "databases": kept, "logs": kept_logs }), text))
}

/// Answers who watches, where that is asked for.
fn serves(args: &Args, door: &Door, logs: Arc<Mutex<BTreeSet<PathBuf>>>) -> anyhow::Result<Option<Running>> {
    let said = door.settings(args.which.first().as_deref())?.metrics_listen;
    let Some(address) = said.value else { return Ok(None) };
    let which = args.which.clone();
    let paths = Box::new(move || which.wanted().into_iter().chain(all(&logs).iter().cloned()).collect());
    let running = serve::begin(door, address, serve::token(door, None)?, paths)?;
    serve::told_where(door, &running);
    Ok(Some(running))
}

fn all<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who keep databases and logs, a thread each, and what they share.
struct Crew<'a> {
    args: &'a Args,
    door: &'a Door,
    tell: &'a (dyn Fn(&Path, Event) + Sync),
    /// Whether a signal came.
    stops: &'a AtomicBool,
    stop: &'a Stop,
    /// Whose volumes are pruned, verified and proved from here.
    charges: &'a Charges,
    /// How many databases and logs were looked at once.
    tried: &'a AtomicUsize,
    /// The databases that are kept.
    kept: &'a Mutex<BTreeSet<PathBuf>>,
    /// The logs that are. One that is gone is none any more.
    logs: &'a Mutex<BTreeSet<PathBuf>>,
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
        // How many were begun to be kept, logs that are gone included.
        let mut begun_all = 0;
        self.do_jobs(scope)?;
        let (mut is_ready, mut is_full) = (false, false);
        while !self.stops.load(Ordering::SeqCst) {
            let databases = self.args.which.wanted();
            let logs = self.args.which.logs(self.door, &databases);
            let named = self.args.which.named_logs();
            for path in databases.into_iter().chain(logs) {
                let is_log = identity(&path).is_ok() || named.contains(&path);
                if kept.contains(&path) || all(self.logs).contains(&path) {
                    continue;
                }
                if kept.len() + all(self.logs).len() >= DATABASES_MAX {
                    if !std::mem::replace(&mut is_full, true) {
                        let path = path.display();
                        self.door.screen.warn(&format!(
                            "{path}: is not kept, nor any more: one worker keeps {DATABASES_MAX} databases and logs; begin another one"
                        ));
                    }
                    break;
                }
                begun_all += 1;
                if is_log {
                    all(self.logs).insert(path.clone());
                    self.keep_log(scope, path.clone(), named.contains(&path))?;
                } else {
                    self.keep(scope, path.clone())?;
                    all(self.kept).insert(path.clone());
                    kept.insert(path);
                }
            }
            let looked = Instant::now();
            while looked.elapsed() < TICK && !self.stops.load(Ordering::SeqCst) {
                let is_settled = self.tried.load(Ordering::SeqCst) >= begun_all || begun.elapsed() >= READY_MAX;
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
        let (door, kept, logs, stop, cut) = (self.door, self.kept, self.logs, self.stop, self.cut);
        let thread = thread::Builder::new().name("littoral-jobs".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, move || {
            runtime::step_back();
            let Ok(runtime) = runtime::shared() else { return };
            let mut looked = BTreeMap::new();
            while !stop.within(TICK) {
                let databases: Vec<PathBuf> = all(kept).iter().cloned().collect();
                let logs: Vec<PathBuf> = all(logs).iter().cloned().collect();
                let paths = databases.into_iter().map(|path| (path, false)).chain(logs.into_iter().map(|path| (path, true)));
                for (path, is_log) in paths {
                    if !is_to_be_looked_at(&mut looked, door, &path) {
                        continue;
                    }
                    let Ok(mut said) = said(door, &path) else { continue };
                    // A log's are those of where it is bound.
                    said.retain(|(key, _)| !is_log || !matches!(key, Key::Remote | Key::Volume));
                    let door = door.behind(said);
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

    /// The same of a log, until it is gone.
    fn keep_log<'scope>(&self, scope: &'scope Scope<'scope, 'a>, path: PathBuf, is_named: bool) -> anyhow::Result<()> {
        let (tried, tell, stop, logs, charges) = (self.tried, self.tell, self.stop, self.logs, self.charges);
        let door = self.door.behind(self.door.said().to_vec());
        let mut settings = door.settings(Some(&path))?;
        if !is_named {
            // It was found where it is bound: what is said of remotes is about databases.
            (settings.remote, settings.volume) = (None, None);
        }
        let (settings, components) = (Arc::new(settings.clone()), door.components(&settings)?);
        let keeper = LogKeeper { path: path.clone(), is_named, settings, components, tell, stop, charges };
        let thread = thread::Builder::new().name("littoral-log".to_owned()).stack_size(STACK);
        let runtime = runtime::shared()?;
        thread.spawn_scoped(scope, move || {
            keeper.run(&runtime, || {
                tried.fetch_add(1, Ordering::SeqCst);
            });
            // The next one who stops counts it among those that were left.
            if !stop.within(Duration::ZERO) {
                all(logs).remove(&path);
            }
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
        self.wanted().into_iter().chain(self.named_logs()).next()
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
            let path = door.file_or_log(file)?;
            if path.is_dir() && identity(&path).is_err() {
                let message = format!("{} is a folder", Path::new(file).display());
                return Err(Fault::usage(message, "--dir DIR keeps the databases in it").into());
            }
        }
        if let Some(dir) = self.dirs.iter().find(|dir| !dir.is_dir()) {
            let message = format!("{}: no such folder", dir.display());
            return Err(Fault { exit: Exit::Usage, message, way_out: Some("make it first, or correct --dir".to_owned()) }.into());
        }
        for path in self.wanted().into_iter().chain(self.named_logs()) {
            // What makes no sense is said before anything is begun.
            door.settings(Some(&path))?;
        }
        Ok(())
    }

    /// The logs among what was named.
    pub(super) fn named_logs(&self) -> BTreeSet<PathBuf> {
        let named = self.files.iter().map(PathBuf::from).filter(|path| identity(path).is_ok());
        named.filter_map(|path| whole(&path)).collect()
    }

    /// The logs: those that were named, and those with volumes of the stores in which these databases are bound, or those of the folders.
    fn logs(&self, door: &Door, databases: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        // A folder's own store is that of whatever lies in it.
        let in_folders = self.dirs.iter().filter_map(|dir| whole(dir)).map(|dir| dir.join("any"));
        let folders: BTreeMap<PathBuf, PathBuf> = databases
            .iter()
            .cloned()
            .chain(in_folders)
            .filter_map(|path| Some((path.parent()?.to_owned(), path)))
            .collect();
        let roots: BTreeSet<PathBuf> = folders
            .into_values()
            .filter_map(|path| store_of(&path, &door.settings(Some(&path)).ok()?).ok()?)
            .collect();
        let found = roots.iter().flat_map(|root| match logs_of(root) {
            Ok(logs) => logs,
            Err(error) => {
                tracing::warn!(store = %root.display(), %error, "which logs it has cannot be told");
                Vec::new()
            }
        });
        self.named_logs().into_iter().chain(found).collect()
    }

    /// The databases, by their whole names, as of now.
    pub(super) fn wanted(&self) -> BTreeSet<PathBuf> {
        let named = self.files.iter().map(PathBuf::from).filter(|path| identity(path).is_err());
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

fn as_text(path: &Path, event: &Event, is_log: bool) -> String {
    let path = path.display();
    let upto = |position: &Option<littoral_types::Position>| {
        position.map_or_else(String::new, |position| format!(" (the object store has it up to {position})"))
    };
    match event {
        Event::Waits if is_log => format!("{path}: a log that has no volume, and is waited for: littoral log ship {path} --remote URL makes it"),
        Event::Waits => format!("{path}: is not there yet, and is waited for"),
        Event::Ships(position) if is_log => format!("{path}: nobody appends; ships what is left{}", upto(position)),
        Event::StandsBy if is_log => format!("{path}: another process appends, and ships; stands by"),
        Event::Fenced(epoch, owner) if is_log => format!(
            "{path}: fenced: {owner} appends elsewhere (epoch {epoch}). What was appended here and not shipped stays here, and nothing is shipped; \
             littoral log read {path} shows it"
        ),
        Event::Shipped { records, bytes, position } => {
            format!("{path}: shipped {}, {}{}", words::some(*records, "record"), words::bytes(*bytes), upto(position))
        }
        Event::LetGo { segments, bytes, start } => format!(
            "{path}: let go of {}, {}: it begins at LSN {start} now",
            words::some(*segments, "segment"),
            words::bytes(*bytes)
        ),
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
        Event::Left(0, position, None) => format!("{path}: left; everything is published{}", upto(position)),
        Event::Left(0, position, Some(why)) => {
            format!("{path}: left; whether everything is published is not known{}: {why}", upto(position))
        }
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

fn as_json(path: &Path, event: &Event, is_log: bool) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let told = |word: &str, more: Value| {
        let mut line = json!({ "event": word, "time": { "ms": now, "utc": words::time(now) } });
        line[if is_log { "log" } else { "database" }] = json!(path.display().to_string());
        if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
            line.extend(more);
        }
        line
    };
    let at = |position: &Option<littoral_types::Position>| position.map(|position| position.to_string());
    match event {
        Event::Waits => told("waits", json!({})),
        Event::Shipped { records, bytes, position } => {
            told("shipped", json!({ "records": records, "bytes": bytes, "position": at(position) }))
        }
        Event::LetGo { segments, bytes, start } => {
            told("let-go", json!({ "segments": segments, "bytes": bytes, "start": start.0 }))
        }
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
