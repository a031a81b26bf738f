//! A database that goes from one machine to another: in order, and by force, from an owner that is dead or only asleep. What an
//! owner had not shipped is kept, shown and saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::open::Place;
use littoral_engine::settings::Settings;
use littoral_engine::tracker::{Trace, Tracker};
use rig::{Rig, sql};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Two machines, a folder each, and a remote that both reach.
struct Machines {
    rig: Rig,
    remote: String,
}

impl Machines {
    fn new() -> Self {
        // Nothing is shipped but what is asked for.
        let rig = Rig::with([("LITTORAL_SYNC_INTERVAL", "off".to_owned())]);
        for folder in ["one", "two", "three"] {
            fs::create_dir(rig.path(folder)).unwrap();
        }
        rig.database("one/app.db");
        let remote = rig.url("shared");
        rig.run(["checkpoint", "one/app.db", "--remote", &remote]).succeeds();
        Self { rig, remote }
    }

    fn file(&self, machine: &str) -> String {
        format!("{machine}/app.db")
    }

    fn arguments<'a>(&'a self, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["shell", file, "--remote", &self.remote, "--volume", "app.db"], more].concat()
    }

    /// SQL on a machine, in a process of its own.
    fn sql(&self, machine: &str, more: &[&str]) -> rig::Run {
        let file = self.file(machine);
        self.rig.run(self.arguments(&file, more))
    }

    fn terms(&self) -> Vec<(u64, String, String, u64)> {
        let status = self.rig.json(["status", &format!("{}/app.db", self.remote), "--terms"]);
        let term = |term: &Value| {
            let text = |key: &str| term[key].as_str().unwrap_or_default().to_owned();
            (term["epoch"].as_u64().unwrap(), text("owner"), text("how"), term["last_lsn"].as_u64().unwrap())
        };
        status["terms"].as_array().unwrap().iter().map(term).collect()
    }

    fn restored(&self, question: &str) -> String {
        let out = self.rig.path("restored.db");
        self.rig.run(["restore", &format!("{}/app.db", self.remote), out.to_str().unwrap(), "--force"]).succeeds();
        sql(&out, question).trim().to_owned()
    }
}

/// A process that has a database open and does what it is told.
struct Talk {
    child: Child,
    say: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Talk {
    fn open(machines: &Machines, machine: &str) -> Self {
        Self::at(machines, machine, "off")
    }

    /// In a process that ships by itself, this often.
    fn at(machines: &Machines, machine: &str, interval: &str) -> Self {
        let file = machines.file(machine);
        let mut child = Command::new(env!("CARGO_BIN_EXE_littoral"))
            .args(machines.arguments(&file, &[]))
            .current_dir(machines.rig.path(""))
            .env("HOME", machines.rig.path(""))
            .env("LITTORAL_SYNC_INTERVAL", interval)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, hear) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, say, hear }
    }

    /// Runs a statement, and waits until it is done.
    fn run(&mut self, sql: &str) {
        let say = self.say.as_mut().unwrap();
        writeln!(say, "{sql}; SELECT 'done';").unwrap();
        say.flush().unwrap();
        let mut line = String::new();
        while line.trim() != "done" {
            line.clear();
            assert!(self.hear.read_line(&mut line).unwrap() > 0, "it ended: {sql}");
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Runs a statement that ends it, and gives what it said then.
    fn last(mut self, sql: &str) -> String {
        writeln!(self.say.take().unwrap(), "{sql};").unwrap();
        let output = self.child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{sql} was done");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_release_ships_everything_first_and_the_next_machine_needs_no_takeover() {
    let machines = Machines::new();
    machines.sql("one", &["UPDATE t SET body = 'last words' WHERE id = 1"]).succeeds();
    let released = machines.rig.json(["release", "one/app.db"]);
    assert_eq!((released["position"].as_str(), released["released"].as_bool()), (Some("1.2"), Some(true)));
    assert_eq!(machines.restored("SELECT body FROM t WHERE id = 1"), "last words");
    // Here nobody writes behind its back, whoever has the database open.
    let refused = machines.sql("one", &["UPDATE t SET body = 'too late' WHERE id = 1"]);
    refused.fails(1, &["read-only here", "released", "littoral_sync"]);
    let said = machines.rig.run(["status", "one/app.db"]);
    assert!(said.succeeds().stdout.contains("released here (epoch 1)"), "{said:?}");
    machines.rig.run(["release", "one/app.db"]).succeeds();
    // There it is opened and written, without a word.
    machines.sql("two", &["UPDATE t SET body = 'on two' WHERE id = 1", "PRAGMA littoral_release"]).succeeds();
    assert_eq!(machines.restored("SELECT body FROM t WHERE id = 1"), "on two");
    machines.sql("two", &["UPDATE t SET body = 'x' WHERE id = 1"]).fails(1, &["released"]);
    // Who was first has to begin anew: somebody has gone on.
    machines.sql("one", &["PRAGMA littoral_sync"]).fails(1, &["took over", "two/.littoral"]);
    let terms = machines.terms();
    assert_eq!(terms.len(), 2, "{terms:?}");
    assert!(terms[0].0 == 2 && terms[0].1.contains("two/.littoral") && terms[0].2 == "released", "{terms:?}");
    assert!(terms[1].0 == 1 && terms[1].1.contains("one/.littoral") && terms[1].2 == "released", "{terms:?}");
    assert!(terms[1].3 == 2 && terms[0].3 > 2, "{terms:?}");
    let table = machines.sql("two", &["SELECT epoch, how, last_lsn FROM littoral_terms"]);
    assert!(table.succeeds().stdout.contains("released"), "{table:?}");
}

/// Nor does the one who ships by himself, in the process that released or in another one that has the database open.
#[test]
fn who_ships_by_himself_does_not_claim_what_was_released() {
    let mut machines = Machines::new();
    machines.rig.set("LITTORAL_SYNC_INTERVAL", "50ms");
    let mut other = Talk::at(&machines, "one", "50ms");
    other.run("UPDATE t SET body = 'by himself' WHERE id = 1");
    machines.sql("one", &["UPDATE t SET body = 'and asked' WHERE id = 2", "PRAGMA littoral_release"]).succeeds();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let said = other.last("UPDATE t SET body = 'too late' WHERE id = 3");
    assert!(said.contains("read-only here") && said.contains("released"), "{said}");
    assert_eq!(machines.restored("SELECT group_concat(body) FROM t WHERE id < 3"), "by himself,and asked");
    let terms = machines.terms();
    assert!(terms.len() == 1 && terms[0].2 == "released", "{terms:?}");
    machines.sql("two", &["UPDATE t SET body = 'on two' WHERE id = 3"]).succeeds();
    assert_eq!(machines.terms()[0].0, 2);
}

#[test]
fn who_released_may_claim_anew_as_long_as_nobody_else_has() {
    let machines = Machines::new();
    machines.sql("one", &["PRAGMA littoral_release"]).succeeds();
    machines.sql("one", &["DELETE FROM t WHERE id = 1"]).fails(1, &["released"]);
    machines.sql("one", &["PRAGMA littoral_sync", "DELETE FROM t WHERE id = 1", "PRAGMA littoral_sync"]).succeeds();
    assert_eq!(machines.restored("SELECT count(*) FROM t"), "4999");
    let terms = machines.terms();
    assert_eq!((terms.len(), terms[0].2.as_str(), terms[1].2.as_str()), (2, "current", "released"), "{terms:?}");
}

/// The one takes over while the other is dead, or sleeps and wakes up.
#[test]
fn what_an_owner_had_not_shipped_when_it_was_taken_over_from_is_kept_shown_and_saved() {
    for asleep in [false, true] {
        let machines = Machines::new();
        let mut old = Talk::open(&machines, "one");
        old.run("UPDATE t SET body = 'shipped' WHERE id = 1");
        old.run("PRAGMA littoral_sync");
        old.run("UPDATE t SET body = 'kept' WHERE id = 2");
        old.run("INSERT INTO t VALUES (9000, 'kept too')");
        old.signal(if asleep { "-STOP" } else { "-KILL" });
        let refused = machines.sql("two", &["UPDATE t SET body = 'on two' WHERE id = 3"]);
        refused.fails(1, &["takeover=1"]);
        let file = machines.file("two");
        let mut taking = machines.arguments(&file, &["--takeover", "1"]);
        taking.extend(["UPDATE t SET body = 'on two' WHERE id = 3", "PRAGMA littoral_sync"]);
        machines.rig.run(taking).succeeds();
        if asleep {
            old.signal("-CONT");
            old.run("UPDATE t SET body = 'kept as well' WHERE id = 4");
            let said = old.last("PRAGMA littoral_sync");
            assert!(said.contains("took over") && said.contains("two/.littoral"), "{said}");
            machines.sql("one", &["DELETE FROM t"]).fails(1, &["read-only here", "took over"]);
        } else {
            drop(old);
            machines.sql("one", &["PRAGMA littoral_sync"]).fails(1, &["took over"]);
        }
        assert_eq!(machines.restored("SELECT group_concat(body) FROM t WHERE id IN (1, 3, 9000)"), "shipped,on two");
        let kept = machines.rig.json(["salvage", "one/app.db"]);
        assert_eq!((kept["published"].as_str(), kept["certain"].as_bool()), (Some("1.2"), Some(true)), "{kept}");
        assert_eq!(kept["commits"].as_u64(), Some(if asleep { 3 } else { 2 }), "{kept}");
        let pages = kept["pages_changed"].as_u64().unwrap();
        assert!((2..=6).contains(&pages), "{kept}");
        assert!(kept["taken_over_by"].as_str().unwrap().contains("two/.littoral"), "{kept}");
        let before = fs::read(machines.rig.path("one/app.db")).unwrap();
        let said = machines.rig.run(["salvage", "one/app.db", "--list"]);
        assert!(said.succeeds().stdout.contains("--export") && said.stdout.contains("taken over by"), "{said:?}");
        machines.rig.run(["salvage", "one/app.db", "--export", "saved.db"]).succeeds();
        machines.rig.run(["salvage", "one/app.db", "--export", "saved.db"]).fails(2, &["exists"]);
        let is_saved = |file: PathBuf| {
            let kept = sql(&file, "SELECT group_concat(body) FROM t WHERE id IN (1, 2, 9000)");
            assert_eq!(kept.trim(), "shipped,kept,kept too");
            assert_eq!(sql(&file, "PRAGMA integrity_check").trim(), "ok");
            let woken = sql(&file, "SELECT body = 'kept as well' FROM t WHERE id = 4");
            assert_eq!(woken.trim(), if asleep { "1" } else { "0" });
        };
        is_saved(machines.rig.path("saved.db"));
        // As a volume of its own.
        machines.rig.run(["salvage", "one/app.db", "--as", "mine"]).succeeds();
        let out = machines.rig.path("mine-restored.db");
        machines.rig.run(["restore", &format!("{}/mine", machines.remote), out.to_str().unwrap()]).succeeds();
        is_saved(out);
        assert!(fs::read(machines.rig.path("one/app.db")).unwrap() == before, "salvage wrote to the database");
        let terms = machines.terms();
        assert_eq!(terms[1].2, "taken over", "{terms:?}");
        assert_eq!((terms[0].2.as_str(), terms[1].3), ("current", 2), "{terms:?}");
        // Rejoining: the file goes, and is opened anew.
        for leftover in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(machines.rig.path(&format!("one/app.db{leftover}")));
        }
        let joined = machines.sql("one", &["SELECT body FROM t WHERE id = 3"]);
        assert!(joined.succeeds().stdout.contains("on two"), "{joined:?}");
    }
}

#[test]
fn a_dry_run_of_a_database_that_is_not_all_here_waits_for_whoever_is_at_work_and_sets_none_of_his_marks_aside() {
    let machines = Machines::new();
    machines.rig.run(["release", "one/app.db"]).succeeds();
    machines.sql("two", &["UPDATE t SET body = 'shipped' WHERE id = 1", "PRAGMA littoral_sync"]).succeeds();
    machines.sql("two", &["UPDATE t SET body = 'kept' WHERE id = 2"]).succeeds();
    let file = machines.rig.path("two/app.db");
    let place = Place::of_database(&file, &Settings::default()).unwrap();
    let (store, database) = (place.store.unwrap(), place.database.unwrap());
    // Attached as whoever makes a checkpoint is, in the middle of which it is his turn.
    let tracker = Tracker::attach(&Tracker::path_of(store.root(), &database), Trace::of(&database)).unwrap();
    let at_work = store.lock_volume(&database).unwrap();
    let (drains, marked) = (tracker.drains(), tracker.marked_bytes());
    assert!(marked > 0);
    let dry = ["checkpoint", "two/app.db", "--dry-run", "--wait", "1"];
    let me = format!("process {}", std::process::id());
    machines.rig.run(dry).fails(1, &[&me, "wait until it is done"]);
    assert_eq!((tracker.drains(), tracker.marked_bytes()), (drains, marked), "marks were set aside");
    let salvage = ["salvage", "two/app.db", "--export", "saved.db"];
    machines.rig.run(salvage).fails(1, &[&me]);
    assert_eq!((tracker.drains(), tracker.marked_bytes()), (drains, marked), "marks were set aside");
    drop(at_work);
    let told = machines.rig.run(dry);
    assert!(told.succeeds().stdout.contains("nothing was written"), "{told:?}");
    assert!(tracker.drains() > drains, "it looks at the marks");
    tracker.leave(Trace::of(&database));
}

#[test]
fn what_a_lazily_opened_database_had_not_shipped_is_saved_with_the_pages_that_were_never_here() {
    let machines = Machines::new();
    machines.rig.run(["release", "one/app.db"]).succeeds();
    machines.sql("two", &["UPDATE t SET body = 'shipped' WHERE id = 1", "PRAGMA littoral_sync"]).succeeds();
    machines.sql("two", &["UPDATE t SET body = 'kept' WHERE id = 2"]).succeeds();
    assert!(machines.rig.json(["status", "two/app.db"])["sparse"].is_object(), "all of it is here");
    let file = machines.file("three");
    let mut taking = machines.arguments(&file, &["--takeover", "2"]);
    taking.extend(["UPDATE t SET body = 'on three'", "PRAGMA littoral_checkpoint"]);
    machines.rig.run(taking).succeeds();
    machines.sql("two", &["PRAGMA littoral_sync"]).fails(1, &["took over"]);
    let kept = machines.rig.json(["salvage", "two/app.db", "--export", "saved.db"]);
    assert_eq!((kept["commits"].as_u64(), kept["certain"].as_bool()), (Some(1), Some(true)), "{kept}");
    assert!((1..=3).contains(&kept["pages_changed"].as_u64().unwrap()), "{kept}");
    let saved = machines.rig.path("saved.db");
    assert_eq!(sql(&saved, "SELECT group_concat(body) FROM t WHERE id IN (1, 2)").trim(), "shipped,kept");
    assert_eq!(sql(&saved, "SELECT count(*), sum(body = 'on three') FROM t").trim(), "5000|0");
    assert_eq!(sql(&saved, "PRAGMA integrity_check").trim(), "ok");
}
