//! Databases that are larger than their quota: read and written by several processes, some of which are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, python, room, said};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(240);
const QUOTA: u64 = 4 << 20;
/// Beyond the quota: what one fetch brings before others go, and what the file system keeps of a file.
const SLACK: u64 = 1 << 20;
/// Of 3,500 bytes: ten times the quota, and a page each.
const ROWS: u64 = 10_240;
const PROCESSES: usize = 4;

/// A volume, and a machine with a small disk.
struct World {
    place: Place,
}

impl World {
    /// A volume that a large machine made and released.
    fn new(rows: u64) -> Self {
        let world = Self { place: Place::new() };
        let mut first = world.asker("first", "&sync_interval=off");
        assert_eq!(first.ask(&format!("make {rows}")), "made");
        assert!(first.ask("PRAGMA littoral_checkpoint").contains("1."));
        first.end();
        world
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.place.machine().parent().unwrap().join(machine);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn uri(&self, said: &str) -> String {
        format!("file:app.db?vfs=littoral&volume=app.db&remote={}{said}", self.place.remote())
    }

    fn python(&self, machine: &str, script: &str, said: &str) -> Command {
        let mut command = self.place.host(python());
        command.env_remove("LITTORAL_SYNC_INTERVAL").current_dir(self.folder(machine));
        command.arg(room().join("scripts").join(script)).arg(self.uri(said));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn asker(&self, machine: &str, said: &str) -> Asker {
        Asker::start(&mut self.python(machine, "small_disk_ask.py", said))
    }

    /// The command line's word on the small machine.
    fn status(&self, machine: &str) -> Value {
        let mut littoral = command(&built().littoral);
        littoral
            .current_dir(self.folder(machine))
            .args(["status", "app.db", "--json", "--quota", "4MiB", "--tenant", "acme"]);
        let done = littoral.output().unwrap();
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
    }
}

struct Asker {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    fn start(command: &mut Command) -> Self {
        let mut process = command.spawn().unwrap();
        let (orders, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, orders, answers }
    }

    fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{order}: it has ended");
        line.trim().to_owned()
    }

    fn end(mut self) {
        drop(self.orders);
        assert!(self.process.wait().unwrap().success());
    }
}

/// Bytes of the disk that a file, or all in a folder, takes.
fn taken(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| taken(&entry.path())).sum::<u64>();
    if found.is_dir() { inside } else { found.blocks() * 512 }
}

/// What counts against the quota: the database, copies of frames, what is staged. The WAL does not.
fn counted(machine: &Path) -> u64 {
    let store = machine.join(".littoral");
    taken(&machine.join("app.db")) + taken(&store.join("wal")) + taken(&store.join("checkpoint_scratch"))
}

/// Looks at a machine's disk until it is dropped.
struct Watch {
    peak: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn of(machine: PathBuf) -> Self {
        let (peak, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (peak.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                seen.fetch_max(counted(&machine), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { peak, is_over, thread: Some(thread) }
    }

    fn peak(mut self) -> u64 {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.peak.load(Ordering::SeqCst)
    }
}

/// Versions of rows, as they are said: `id:version`.
fn versions(text: &str) -> impl Iterator<Item = (u64, u64)> + '_ {
    text.split(' ').filter_map(|pair| {
        let (row, version) = pair.split_once(':')?;
        Some((row.parse().unwrap(), version.parse().unwrap()))
    })
}

/// What was acknowledged, and what perhaps came on top of it when somebody was killed.
#[derive(Default)]
struct Model {
    committed: BTreeMap<u64, u64>,
    begun: BTreeMap<u64, u64>,
}

/// Hears a process out. False where it was not killed and ended all the same.
fn hear(process: &mut Child, model: &Arc<Mutex<Model>>) -> JoinHandle<u64> {
    let (answers, model) = (BufReader::new(process.stdout.take().unwrap()), model.clone());
    std::thread::spawn(move || {
        let mut commits = 0;
        for line in answers.lines().map_while(Result::ok) {
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let mut model = model.lock().unwrap();
            match word {
                "begun" => model.begun.extend(versions(rest)),
                "committed" => {
                    commits += 1;
                    model.committed.extend(versions(rest));
                }
                _ => {}
            }
        }
        commits
    })
}

/// Each row has the last version that was acknowledged, or the one that was on its way when its process was killed.
fn is_as_told(told: &str, model: &Model, rows: u64) {
    let found: BTreeMap<u64, u64> = versions(told).collect();
    assert_eq!(found.len() as u64, rows);
    for (row, version) in found {
        let committed = model.committed.get(&row).copied().unwrap_or(0);
        let begun = model.begun.get(&row).copied().unwrap_or(0);
        assert!(
            version == committed || version == begun.max(committed),
            "row {row} is {version}: {committed}, {begun}"
        );
    }
}

#[test]
fn i07_a_database_ten_times_its_quota_is_read_and_written_by_four_processes_that_are_killed() {
    let world = World::new(ROWS);
    let far = world.folder("far");
    let said = format!("&quota={QUOTA}&takeover=1&sync_interval=200ms");
    let watch = Watch::of(far.clone());
    // Ours from here on.
    let mut asker = world.asker("far", &said);
    assert_eq!(asker.ask("UPDATE t SET version = version WHERE id = 1"), "");
    asker.end();

    let said = format!("&quota={QUOTA}&sync_interval=200ms");
    let model = Arc::new(Mutex::new(Model::default()));
    let start = |who: usize| {
        let mut command = world.python("far", "small_disk.py", &said);
        let mut process = command.args([who.to_string(), PROCESSES.to_string()]).spawn().unwrap();
        let heard = hear(&mut process, &model);
        (process, heard)
    };
    let mut running: Vec<(Child, JoinHandle<u64>)> = (0..PROCESSES).map(start).collect();
    let mut commits = 0;
    for round in 0..12 {
        std::thread::sleep(Duration::from_millis(2500));
        let victim = round % PROCESSES;
        let (mut process, heard) = running.remove(victim);
        assert!(process.try_wait().unwrap().is_none(), "process {victim} ended by itself in round {round}");
        process.kill().unwrap();
        process.wait().unwrap();
        commits += heard.join().unwrap();
        running.insert(victim, start(victim));
    }
    // Everybody at once.
    for (mut process, heard) in running {
        assert!(process.try_wait().unwrap().is_none(), "one ended by itself");
        process.kill().unwrap();
        process.wait().unwrap();
        commits += heard.join().unwrap();
    }
    assert!(commits > 20, "{commits} commits");

    let mut asker = world.asker("far", &said);
    let model = model.lock().unwrap();
    is_as_told(&asker.ask("check"), &model, ROWS);
    assert_eq!(asker.ask("PRAGMA integrity_check"), "ok");
    let room = asker.ask("SELECT value FROM littoral_status WHERE name = 'room'");
    assert!(room.contains(&format!("quota={QUOTA}")) && !room.contains(" 0 pages evicted"), "{room}");
    assert!(asker.ask("PRAGMA littoral_sync").contains('.'));
    let status = world.status("far");
    assert!(status["sparse"]["pages_evicted"].as_u64().unwrap() > 1000, "{status}");
    assert!(status["sparse"]["bytes_on_disk"].as_u64().unwrap() <= QUOTA, "{status}");
    assert_eq!(status["quota"]["limit"], QUOTA, "{status}");
    assert_eq!(
        (&status["quota"]["tenant"]["name"], &status["quota"]["tenant"]["used"]),
        (&"acme".into(), &0.into()),
        "{status}"
    );
    asker.end();
    let peak = watch.peak();
    assert!(peak <= QUOTA + SLACK, "{peak} bytes of a quota of {QUOTA}");
    assert!(peak > QUOTA / 4, "it was used: {peak}");

    // What the object store has is the same, and any SQLite reads it.
    let url = format!("{}/app.db", world.place.remote());
    said_of_restored(&world, &url);
    let mut there = world.asker("there", "&sync_interval=off");
    is_as_told(&there.ask("check"), &model, ROWS);
    there.end();
}

fn said_of_restored(world: &World, url: &str) {
    let file = world.folder("restored").join("app.db");
    said(command(&built().littoral).args(["restore", url, "--quiet"]).arg(&file));
    assert_eq!(said(command("sqlite3").arg(&file).arg("PRAGMA integrity_check")).trim(), "ok");
}

#[test]
fn s05_a_whole_database_that_has_no_room_becomes_sparse_when_one_alone_opens_it() {
    let world = World { place: Place::new() };
    let mut large = world.asker("far", "&sync_interval=off");
    assert_eq!(large.ask("make 2600"), "made");
    assert!(large.ask("PRAGMA wal_checkpoint(TRUNCATE)").starts_with("0|"));
    assert!(large.ask("PRAGMA littoral_checkpoint").contains("1."));
    let far = world.folder("far");
    assert!(taken(&far.join("app.db")) > 2 * QUOTA);

    // Not while somebody else has it open.
    let small = format!("&quota={QUOTA}&sync_interval=200ms");
    let mut beside = world.asker("far", &small);
    assert_eq!(beside.ask("SELECT count(*) FROM t"), "2600");
    assert!(taken(&far.join("app.db")) > 2 * QUOTA);
    beside.end();
    large.end();

    let mut alone = world.asker("far", &small);
    assert_eq!(alone.ask("SELECT count(*) FROM t"), "2600");
    assert!(counted(&far) <= QUOTA + SLACK, "{}", counted(&far));
    assert_eq!(alone.ask("check").split(' ').count(), 2600);
    assert!(counted(&far) <= QUOTA + SLACK, "{}", counted(&far));
    assert_eq!(alone.ask("bulk 500"), "bulk");
    assert_eq!(alone.ask("PRAGMA integrity_check"), "ok");
    until("everything is published", || {
        alone.ask("SELECT value FROM littoral_status WHERE name = 'safe'").starts_with("yes")
    });
    alone.end();
    let stock = Command::new("sqlite3").arg(far.join("app.db")).arg("SELECT count(*) FROM t").output().unwrap();
    assert!(String::from_utf8_lossy(&stock.stderr).contains("not a database"), "{stock:?}");
    // Somebody with more room makes it whole again.
    let mut large = world.asker("far", "&sync_interval=off");
    assert!(large.ask("PRAGMA littoral_hydrate").contains("pages are here"));
    large.end();
    let mut large = world.asker("far", "&sync_interval=off");
    assert_eq!(large.ask("check").split(' ').count(), 3100);
    large.end();
    assert_eq!(said(command("sqlite3").arg(far.join("app.db")).arg("PRAGMA integrity_check")).trim(), "ok");
    said_of_restored(&world, &format!("{}/app.db", world.place.remote()));
}

/// Waits for what takes its time.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANGS, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn p02_what_is_not_here_is_fetched_although_a_prune_took_its_state_while_nobody_had_it_open() {
    let world = World::new(800);
    let mut asker = world.asker("far", "&takeover=1&sync_interval=off");
    assert_eq!(asker.ask("SELECT version FROM t WHERE id = 7"), "0");
    for _ in 0..2 {
        assert_eq!(asker.ask("bulk 30"), "bulk");
        assert!(asker.ask("PRAGMA littoral_checkpoint").contains("2."));
    }
    asker.end();
    let prune = || {
        // A day later no pin of a reader is left.
        let pins = Path::new(world.place.remote().strip_prefix("file://").unwrap()).join("app.db/pins");
        fs::remove_dir_all(pins).unwrap();
        let done = command(&built().littoral)
            .current_dir(world.folder("far"))
            .args(["prune", "app.db", "--keep-last", "1", "--grace", "0", "--json"])
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        assert!(told["records"].as_u64().unwrap() > 1, "{told}");
    };
    prune();
    let mut asker = world.asker("far", "&sync_interval=off");
    assert_eq!(asker.ask("SELECT count(*) FROM t WHERE id IN (400, 500, 600)"), "3");
    assert_eq!(asker.ask("bulk 30"), "bulk");
    assert!(asker.ask("PRAGMA littoral_checkpoint").contains("2."));
    assert_eq!(asker.ask("UPDATE t SET version = version WHERE id > 880"), "");
    asker.process.kill().unwrap();
    asker.process.wait().unwrap();
    prune();

    // A page that the WAL has anew might be wanted as it was before: nobody guesses.
    let mut asker = world.asker("far", "&sync_interval=off");
    let told = asker.ask("SELECT sum(length(body)) FROM t WHERE id < 700");
    assert!(told.starts_with("error"), "{told}");
    assert!(asker.ask("SELECT littoral_last_error()").contains("PRAGMA wal_checkpoint(TRUNCATE)"));
    assert_eq!(asker.ask("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
    let told = asker.ask("check");
    assert_eq!(versions(&told).count(), 890);
    assert_eq!(asker.ask("PRAGMA integrity_check"), "ok");
    asker.end();
}

#[test]
fn i07_a_transaction_larger_than_the_quota_goes_through_the_wal_and_leaves_the_disk_when_it_is_published() {
    let world = World::new(500);
    let far = world.folder("far");
    let watch = Watch::of(far.clone());
    let mut asker = world.asker("far", &format!("&quota={QUOTA}&takeover=1&sync_interval=200ms"));
    for _ in 0..3 {
        assert_eq!(asker.ask("bulk 3000"), "bulk");
    }
    until("everything is published", || {
        asker.ask("SELECT value FROM littoral_status WHERE name = 'safe'").starts_with("yes")
    });
    // Somebody else's backfill is never in the way of this one for good.
    until("the WAL is in the file", || asker.ask("PRAGMA wal_checkpoint(TRUNCATE)").starts_with("0|0|0"));
    let told = asker.ask("check");
    assert_eq!(told.split(' ').count(), 9500);
    assert_eq!(asker.ask("PRAGMA integrity_check"), "ok");
    asker.end();
    let peak = watch.peak();
    assert!(peak <= QUOTA + SLACK, "{peak} bytes of a quota of {QUOTA}");
    said_of_restored(&world, &format!("{}/app.db", world.place.remote()));
}

#[test]
fn i05_pages_that_a_backfill_lets_go_are_no_zeros_behind_the_end_of_the_file() {
    let world = World::new(500);
    let parameters = format!("&quota={QUOTA}&sync_interval=200ms");
    let mut bulk = world.asker("far", &format!("{parameters}&takeover=1"));
    let mut reader = world.asker("far", &parameters);
    for round in 0..4 {
        assert_eq!(bulk.ask("bulk 2500"), "bulk");
        until("everything is published", || {
            bulk.ask("SELECT value FROM littoral_status WHERE name = 'safe'").starts_with("yes")
        });
        // A backfill that does not come to the WAL's end leaves the file as long as it came: somebody reads what was before the newest commit.
        assert_eq!(reader.ask("BEGIN"), "");
        assert!(!reader.ask("SELECT count(*) FROM t").starts_with("error"));
        assert_eq!(bulk.ask(&format!("UPDATE t SET version = {round} WHERE id = -1")), "");
        assert_eq!(bulk.ask("DELETE FROM t WHERE id = 0"), "");
        assert_eq!(bulk.ask("bulk 1"), "bulk");
        bulk.ask("PRAGMA wal_checkpoint(PASSIVE)");
        let mut fresh = world.asker("far", &parameters);
        assert_eq!(fresh.ask("PRAGMA integrity_check"), "ok", "round {round}");
        assert_eq!(fresh.ask("check").split(' ').count(), 500 + (round + 1) * 2501, "round {round}");
        fresh.end();
        assert_eq!(reader.ask("COMMIT"), "");
    }
    reader.end();
    bulk.end();
}
