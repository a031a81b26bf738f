//! The past through the stock `sqlite3` shell: opened beside the live database and without it, compared with now, kept while it is open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, said};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

const SUM: &str = "SELECT count(*), sum(length(b)), sum(a) FROM";

struct Rig {
    place: Place,
    /// Where the first state was published.
    first: String,
}

impl Rig {
    /// A volume of two states: five thousand rows, then half of them and a few others.
    fn new() -> Self {
        let mut rig = Self { place: Place::new(), first: String::new() };
        let told = rig.run(
            "here",
            "",
            "PRAGMA journal_mode = WAL;
             CREATE TABLE t(a INTEGER PRIMARY KEY, b);
             CREATE INDEX i ON t(b);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;
             PRAGMA littoral_checkpoint;
             DELETE FROM t WHERE a % 2 = 0;
             INSERT INTO t VALUES (9000, 'later');
             PRAGMA littoral_sync;",
        );
        rig.first = told.lines().find(|line| line.starts_with("1.")).unwrap().to_owned();
        rig
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.place.machine().parent().unwrap().join(machine);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn uri(&self, parameters: &str) -> String {
        format!("file:app.db?vfs=littoral&remote={}{parameters}", self.place.remote())
    }

    fn attach(&self, at: &str) -> String {
        format!("ATTACH '{}' AS past;", self.uri(&format!("&at={at}")))
    }

    fn opening(&self, parameters: &str) -> String {
        let extension = built().extension.to_str().unwrap();
        format!(".load {extension} sqlite3_littoral_init\n.open '{}'\n", self.uri(parameters))
    }

    fn shell(&self, machine: &str) -> Command {
        let mut command = self.place.host("sqlite3");
        command.current_dir(self.folder(machine)).args(["-batch", ":memory:"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, machine: &str, parameters: &str, sql: &str) -> Output {
        let mut child = self.shell(machine).spawn().unwrap();
        let script = format!("{}{sql}\n", self.opening(parameters));
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn run(&self, machine: &str, parameters: &str, sql: &str) -> String {
        let done = self.output(machine, parameters, sql);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && complaint.is_empty(), "{sql}: {complaint}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// What it complained of.
    fn refused(&self, machine: &str, parameters: &str, sql: &str) -> String {
        let done = self.output(machine, parameters, sql);
        String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout)
    }

    fn littoral(&self, arguments: &[&str]) -> Output {
        let mut command = command(&built().littoral);
        command.current_dir(self.folder("here")).args(arguments).args(["--remote", &self.place.remote()]);
        command.output().unwrap()
    }

    fn pins(&self) -> usize {
        fs::read_dir(self.place.machine().parent().unwrap().join("remote/app.db/pins")).map_or(0, |pins| pins.count())
    }

    fn pasts(&self, machine: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder(machine).join(".littoral/past")).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "db"));
        files
    }
}

/// A shell that is asked one thing after another.
struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn new(rig: &Rig, machine: &str, parameters: &str) -> Self {
        let mut child = rig.shell(machine).stderr(Stdio::inherit()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut talk = Self { child, stdin, stdout };
        talk.ask(&rig.opening(parameters));
        talk
    }

    fn ask(&mut self, sql: &str) -> String {
        let end = if sql.trim_end().starts_with('.') || sql.trim_end().ends_with(';') { "" } else { ";" };
        self.stdin.write_all(format!("{sql}{end}\n.print ---\n").as_bytes()).unwrap();
        self.stdin.flush().unwrap();
        let mut told = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the shell ended: {told}");
            if line.trim() == "---" {
                return told.trim().to_owned();
            }
            told.push_str(&line);
        }
    }

    fn kill(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn then_and_now_are_compared_on_one_connection_while_others_write() {
    let rig = Rig::new();
    let mut talk = Talk::new(&rig, "here", "");
    let before = "5000|1000000|12502500";
    talk.ask(&rig.attach(&rig.first));
    assert_eq!(talk.ask(&format!("{SUM} past.t")), before);
    assert_eq!(talk.ask(&format!("{SUM} main.t")), "2501|500005|6259000");
    let changed = "SELECT count(*) FROM past.t WHERE a NOT IN (SELECT a FROM main.t)";
    assert_eq!(talk.ask(changed), "2500");
    assert_eq!(
        talk.ask("SELECT littoral_at('past'), littoral_at('main') IS NULL, littoral_at() IS NULL"),
        format!("{}|1|1", rig.first)
    );
    assert_eq!(talk.ask("PRAGMA past.littoral_at"), rig.first);
    assert_eq!(talk.ask("PRAGMA past.journal_mode"), "delete");
    // Another process writes and publishes, and this one does, while the past stands still.
    let script = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t(b) SELECT hex(randomblob(300)) FROM n;
                  UPDATE t SET b = hex(randomblob(90)) WHERE a % 10 = 1;
                  PRAGMA littoral_sync;
                  PRAGMA wal_checkpoint(TRUNCATE);";
    let mut writer = rig.shell("here").spawn().unwrap();
    let all = format!("{}.timeout 20000\n{}", rig.opening(""), script.repeat(8));
    writer.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    talk.ask(".timeout 20000");
    let mut rounds = 0;
    let mut seen = Vec::new();
    while writer.try_wait().unwrap().is_none() || rounds < 3 {
        assert_eq!(talk.ask(&format!("{SUM} past.t")), before);
        seen.push(talk.ask("SELECT count(*) FROM main.t"));
        talk.ask(&format!("INSERT INTO main.t(b) SELECT b FROM past.t WHERE a = {}", 1 + rounds));
        rounds += 1;
    }
    let done = writer.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert_eq!(talk.ask("SELECT count(*) FROM main.t"), (2501 + 400 + rounds).to_string());
    seen.dedup();
    assert!(seen.len() > 1, "nobody wrote meanwhile");
    assert_eq!(talk.ask("PRAGMA past.integrity_check"), "ok");
    assert_eq!(talk.ask("PRAGMA main.integrity_check"), "ok");
    drop(talk);
}

#[test]
fn the_past_of_a_database_that_is_not_here_is_read_lazily_and_leaves_no_database() {
    let rig = Rig::new();
    let at = format!("&at={}", rig.first);
    let row = "SELECT length(b) FROM t WHERE a = 78; SELECT value FROM littoral_status WHERE name IN ('at', 'here');";
    let told = rig.run("far", &at, row);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..2], ["200", rig.first.as_str()], "{told}");
    let here: u64 = lines[2].split(' ').next().unwrap().parse().unwrap();
    let all: u64 = lines[2].split(' ').nth(2).unwrap().parse().unwrap();
    assert!(here < all / 2, "{told}");
    // What one process has fetched is here for the next; nothing but the store was made.
    assert_eq!(rig.run("far", &at, &format!("{SUM} t; PRAGMA integrity_check;")), "5000|1000000|12502500\nok");
    let none = "SELECT value FROM littoral_status WHERE name = 'here'; SELECT count(*) FROM t;";
    assert_eq!(rig.run("far", &at, none), format!("{all} of {all} pages\n5000"));
    let mut left: Vec<_> = fs::read_dir(rig.folder("far")).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".littoral"]);
    assert_eq!(rig.pins(), 0, "who closes takes the pin back");
    // The newest state is opened beside it as ever.
    assert_eq!(rig.run("far", "", "SELECT count(*) FROM t"), "2501");
}

#[test]
fn the_past_is_read_only_and_says_why() {
    let rig = Rig::new();
    let at = format!("&at={}", rig.first);
    for sql in ["INSERT INTO t VALUES (1, 2)", "DROP TABLE t", "PRAGMA user_version = 4; SELECT 1/0", "VACUUM"] {
        let told = rig.refused("far", &at, &format!("{sql};\nSELECT littoral_last_error();\n{SUM} t;"));
        assert!(told.contains("readonly") && told.contains("the past, which only reads"), "{sql}: {told}");
        assert!(told.contains("5000|1000000|12502500"), "{sql}: {told}");
    }
    let told = rig.refused("far", &at, "PRAGMA littoral_checkpoint;\nSELECT * FROM littoral_chunks;");
    assert_eq!(told.matches("the past, which only reads").count(), 2, "{told}");
    // A copy may be written.
    assert_eq!(rig.run("far", &at, "VACUUM INTO 'copy.db'"), "");
    let copy = Command::new("sqlite3").arg(rig.folder("far").join("copy.db")).arg(format!("{SUM} t")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&copy.stdout).trim(), "5000|1000000|12502500");
}

#[test]
fn a_moment_that_cannot_be_opened_is_refused_with_what_can() {
    let rig = Rig::new();
    for (at, word) in [
        ("yesterday", "no snapshot is called yesterday: there are none"),
        ("20:15", "RFC 3339"),
        ("2026-11-20T12:00:00", "time zone is missing"),
        ("-5", "no unit"),
        ("-3y", "before history begins: the oldest restore point is 1."),
        ("999", "LSN 999 is not published: the newest restore point is 1."),
        (&rig.first.replace("1.", "7."), "cut off"),
        (&format!("{}&cache=shared", rig.first), "cache=shared"),
    ] {
        let opening = format!("SELECT littoral_last_error();\n{}\nSELECT littoral_last_error();", rig.attach(at));
        let told = rig.refused("here", "", &opening);
        assert!(told.contains("unable to open") && told.contains(word), "{at}: {told}");
    }
    let told = rig.refused("far", "&at=1&volume=nothing", "SELECT 1 FROM t;\nSELECT littoral_last_error();");
    assert!(told.contains("unable to open") && !told.contains("panicked"), "{told}");
    assert!(!rig.folder("far").join("app.db").exists());
    // The database itself is none the worse.
    assert_eq!(rig.run("here", "", &format!("{SUM} t; PRAGMA integrity_check")), "2501|500005|6259000\nok");
}

#[test]
fn a_live_journal_and_a_live_wal_of_the_same_name_are_left_alone() {
    let rig = Rig::new();
    for mode in ["DELETE", "WAL"] {
        let mut live = Talk::new(&rig, "here", "");
        live.ask(&format!("PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5;"));
        // Spilled: the file holds pages of a transaction that is not committed, and the journal what they were.
        live.ask("BEGIN IMMEDIATE; UPDATE t SET b = hex(randomblob(120));");
        let beside = if mode == "WAL" { "app.db-wal" } else { "app.db-journal" };
        let before = fs::metadata(rig.folder("here").join(beside)).unwrap().len();
        assert!(before > 100_000, "{mode}: {before}");
        let at = format!("&at={}", rig.first);
        assert_eq!(rig.run("here", &at, &format!("{SUM} t; PRAGMA integrity_check;")), "5000|1000000|12502500\nok");
        assert_eq!(fs::metadata(rig.folder("here").join(beside)).unwrap().len(), before);
        live.ask("ROLLBACK;");
        assert_eq!(live.ask(&format!("{SUM} t; PRAGMA integrity_check;")), "2501|500005|6259000\nok");
    }
}

#[test]
fn p02_what_is_open_is_read_to_its_end_whatever_is_pruned_and_is_gone_after_it_was_closed() {
    let rig = Rig::new();
    let mut talk = Talk::new(&rig, "far", &format!("&at={}", rig.first));
    assert_eq!(talk.ask("SELECT length(b) FROM t WHERE a = 78"), "200");
    for round in 0..2 {
        let sql = format!("UPDATE t SET b = hex(randomblob(110)) WHERE a % 2 = {round}; PRAGMA littoral_checkpoint;");
        rig.run("here", "", &sql);
    }
    let prune = ["prune", "app.db", "--keep-last", "1", "--grace", "0"];
    let done = rig.littoral(&prune);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(talk.ask(&format!("{SUM} t; PRAGMA integrity_check;")), "5000|1000000|12502500\nok");
    assert_eq!(rig.pins(), 1);
    talk.ask(".open :memory:");
    assert_eq!(rig.pins(), 0);
    let gone = rig.littoral(&prune);
    assert!(gone.status.success(), "{gone:?}");
    let told = rig.refused("far", &format!("&at={}", rig.first), "SELECT 1 FROM t;");
    assert!(told.contains("unable to open"), "{told}");
    let told = said(command(&built().littoral).current_dir(rig.folder("here")).args(["history", "app.db", "--points"]));
    assert!(!told.contains(&format!(" {} ", rig.first)), "{told}");
}

#[test]
fn i08_a_process_that_was_killed_with_the_past_open_leaves_what_the_next_one_goes_on_with() {
    let rig = Rig::new();
    let at = format!("&at={}", rig.first);
    for round in 0..6 {
        let mut talk = Talk::new(&rig, "far", &at);
        talk.ask(&format!("SELECT length(b) FROM t WHERE a = {}; ", 700 * round + 1));
        // In the middle of whatever it does.
        talk.stdin.write_all(format!("{SUM} t;\n").as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3 * round));
        talk.kill();
        assert_eq!(rig.run("far", &at, &format!("{SUM} t;")), "5000|1000000|12502500");
    }
    assert_eq!(rig.run("far", &at, "PRAGMA integrity_check;"), "ok");
    assert_eq!(rig.pasts("far").len(), 1);
    // What the killed ones had pinned expires; nobody else's file is in the way of others.
    assert!(rig.pins() <= 6);
}

#[test]
fn eight_processes_that_open_one_moment_at_once_share_one_file() {
    let rig = Rig::new();
    let script = format!("{}{SUM} t;\nSELECT littoral_at();\n", rig.opening(&format!("&at={}", rig.first)));
    let mut running: Vec<Child> = (0..8).map(|_| rig.shell("far").spawn().unwrap()).collect();
    for child in &mut running {
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    }
    for child in running {
        let done = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        assert_eq!(told, format!("5000|1000000|12502500\n{}", rig.first), "{done:?}");
    }
    assert_eq!((rig.pasts("far").len(), rig.pins()), (1, 0));
}

#[test]
fn i07_moments_that_nobody_reads_any_more_do_not_pile_up() {
    let rig = Rig::new();
    let mut positions = vec![rig.first.clone()];
    for round in 0..12 {
        let told = rig.run("here", "", &format!("UPDATE t SET b = {round} WHERE a = 1; PRAGMA littoral_sync;"));
        positions.push(told.lines().last().unwrap().to_owned());
    }
    for (nth, position) in positions.iter().enumerate() {
        let must = if nth == 0 { "5000|" } else { "2501|" };
        let told = rig.run("far", &format!("&at={position}"), &format!("{SUM} t;"));
        assert!(told.starts_with(must), "{position}: {told}");
    }
    let left = rig.pasts("far").len();
    assert!(left <= 9, "{left} files are left");
}

#[test]
fn a_rewind_waits_for_nobody_who_has_the_database_open_and_reaches_all_who_open_it_next() {
    let rig = Rig::new();
    let mut talk = Talk::new(&rig, "here", "");
    let now = talk.ask(&format!("{SUM} t"));
    let refused = rig.littoral(&["rewind", "app.db", "--to", &rig.first]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("app.db is open") && why.contains("close it"), "{why}");
    assert_eq!(talk.ask(&format!("{SUM} t")), now, "nothing moved");
    talk.ask(".open :memory:");
    let done = rig.littoral(&["rewind", "app.db", "--to", &rig.first]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        rig.run("here", "", &format!("{SUM} t; PRAGMA integrity_check; PRAGMA journal_mode;")),
        "5000|1000000|12502500\nok\nwal"
    );
    assert_eq!(rig.run("far", "", &format!("{SUM} t")), "5000|1000000|12502500");
    // What was there before is the past now, by the name that the answer told.
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let undo = told.split("snapshot ").nth(1).unwrap().split(':').next().unwrap();
    assert_eq!(rig.run("far", &format!("&at={undo}"), &format!("{SUM} t")), now);
}
