//! Cold scans through the stock `sqlite3` shell: what they read, what they leave as it was, how fast they go, and that they write nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Instant;

const SUM: &str = "SELECT count(*), sum(length(b)), sum(a) FROM t;";
/// Its answer, of the first state and of the second.
const FIRST: &str = "20000|4000000|200010000";
const SECOND: &str = "20001|4000005|200070000";

struct Rig {
    place: Place,
    first: String,
}

/// What lies at a place: bytes, when they were written, how much of the disk they take.
type Seen = BTreeMap<PathBuf, (Vec<u8>, i64, i64, u64)>;

impl Rig {
    /// A volume of two states, of some 8 MB in random letters, on a machine called `here`.
    fn new() -> Self {
        let mut rig = Self { place: Place::new(), first: String::new() };
        let told = rig.run(
            "here",
            "",
            "PRAGMA journal_mode = WAL;
             CREATE TABLE t(a INTEGER PRIMARY KEY, b);
             CREATE INDEX i ON t(b);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;
             PRAGMA littoral_checkpoint;
             INSERT INTO t VALUES (60000, 'later');
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
        let volume = if parameters.contains("volume=") { "" } else { "&volume=app.db" };
        format!("file:app.db?vfs=littoral{volume}&remote={}{parameters}", self.place.remote())
    }

    fn output(&self, machine: &str, parameters: &str, sql: &str) -> Output {
        let mut command = self.place.host("sqlite3");
        command.current_dir(self.folder(machine)).args(["-batch", ":memory:"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let extension = built().extension.to_str().unwrap();
        let script = format!(".load {extension} sqlite3_littoral_init\n.open '{}'\n{sql}\n", self.uri(parameters));
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn run(&self, machine: &str, parameters: &str, sql: &str) -> String {
        let done = self.output(machine, parameters, sql);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && complaint.is_empty(), "{sql}: {complaint}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn refused(&self, machine: &str, parameters: &str, sql: &str) -> String {
        let done = self.output(machine, parameters, sql);
        String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout)
    }

    /// All that lies on a machine, except what is counted there.
    fn seen(&self, machine: &str) -> Seen {
        fn walk(folder: &Path, seen: &mut Seen) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let about = fs::symlink_metadata(&path).unwrap();
                if about.is_dir() {
                    walk(&path, seen);
                } else if !path.ends_with("account1") {
                    let written = (about.mtime(), about.mtime_nsec());
                    seen.insert(path.clone(), (fs::read(&path).unwrap(), written.0, written.1, about.blocks()));
                }
            }
        }
        let mut seen = Seen::new();
        walk(&self.folder(machine), &mut seen);
        seen
    }

    fn pins(&self) -> usize {
        fs::read_dir(self.place.machine().parent().unwrap().join("remote/app.db/pins")).map_or(0, |pins| pins.count())
    }
}

/// Which files differ.
fn changed(before: &Seen, after: &Seen) -> Vec<PathBuf> {
    let paths = before.keys().chain(after.keys());
    let mut changed: Vec<PathBuf> = paths.filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
    changed.dedup();
    changed
}

#[test]
fn a_scan_of_a_sparse_database_leaves_its_file_what_is_here_and_what_was_read_last_as_they_were() {
    let rig = Rig::new();
    // Under a quota it is told which pages were read, and some go; then it is left alone.
    let told = rig.run("far", "&quota=3MB", "SELECT length(b) FROM t WHERE a IN (5, 9000, 15000);");
    assert_eq!(told, "200\n200\n200");
    let (before, pins) = (rig.seen("far"), rig.pins());
    let sidecar = before.keys().find(|path| path.to_str().unwrap().contains("tracker")).unwrap();
    assert!(!before[sidecar].0.is_empty());
    let script = format!("{SUM} SELECT count(*) FROM t INDEXED BY i WHERE b > ''; PRAGMA integrity_check;");
    assert_eq!(rig.run("far", "&quota=3MB&cold=1", &script), format!("{SECOND}\n20001\nok"));
    assert_eq!(rig.pins(), pins, "who closes takes the pin back");
    let after = rig.seen("far");
    assert_eq!(changed(&before, &after), Vec::<PathBuf>::new());
    // While somebody has it open and reads it, too: what he has is not touched by others.
    let both = format!(
        "SELECT b = 'later' FROM t WHERE a = 60000; ATTACH '{}' AS cold;
         SELECT count(*), sum(length(b)), sum(a) FROM cold.t;
         SELECT value FROM littoral_status WHERE name = 'here';",
        rig.uri("&cold=1")
    );
    let here = |told: &str| told.lines().last().unwrap().to_owned();
    let alone = rig.run(
        "far",
        "&quota=3MB",
        "SELECT b = 'later' FROM t WHERE a = 60000; SELECT value FROM littoral_status WHERE name = 'here';",
    );
    let together = rig.run("far", "&quota=3MB", &both);
    assert!(together.contains(SECOND), "{together}");
    assert_eq!(here(&together), here(&alone));
    // Whoever scans it otherwise changes all of that: this test would see it.
    assert_eq!(rig.run("far", "&quota=3MB", SUM), SECOND);
    assert!(changed(&after, &rig.seen("far")).len() >= 2);
}

#[test]
fn a_scan_of_a_database_that_is_not_here_leaves_nothing_and_shows_the_newest_state_or_a_moment() {
    let rig = Rig::new();
    let all = format!("{SUM} SELECT value FROM littoral_status WHERE name IN ('here', 'writable');");
    let told = rig.run("far", "&cold=1", &all);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], SECOND);
    assert!(lines[1].contains("for a cold scan, which only reads"), "{told}");
    assert!(lines[2].ends_with("bytes, in memory"), "{told}");
    assert_eq!(rig.run("far", &format!("&cold=1&at={}", rig.first), SUM), FIRST);
    assert_eq!(rig.run("far", &format!("&cold=1&at={}", rig.first), "SELECT littoral_at();"), rig.first);
    assert_eq!(rig.run("far", "&cold=1&mode=ro", "PRAGMA integrity_check; PRAGMA journal_mode;"), "ok\ndelete");
    assert_eq!(fs::read_dir(rig.folder("far")).unwrap().count(), 0, "nothing is kept");
    // What is written and published meanwhile is seen by who opens it then.
    rig.run("here", "", "INSERT INTO t VALUES (1000000, 'x'); PRAGMA littoral_sync;");
    assert_eq!(rig.run("far", "&cold=1", "SELECT count(*) FROM t;"), "20002");
    // Beside the live database: what is not published is not seen.
    let told = rig.run(
        "here",
        "&sync_interval=off",
        &format!("INSERT INTO t VALUES (1000001, 'x'); ATTACH '{}' AS cold; SELECT (SELECT count(*) FROM main.t), (SELECT count(*) FROM cold.t);", rig.uri("&cold=1")),
    );
    assert_eq!(told, "20003|20002");
    assert_eq!(rig.pins(), 0);
    // A copy of it may be written.
    assert_eq!(rig.run("far", "&cold=1", "VACUUM INTO 'copy.db';"), "");
    assert!(rig.folder("far").join("copy.db").exists() && !rig.folder("far").join("app.db").exists());
}

#[test]
fn a_scan_writes_nothing_and_says_why() {
    let rig = Rig::new();
    for sql in ["INSERT INTO t VALUES (1, 2)", "DROP TABLE t", "PRAGMA user_version = 4; SELECT 1/0", "VACUUM"] {
        let told = rig.refused("far", "&cold=1", &format!("{sql};\nSELECT littoral_last_error();\n{SUM}"));
        assert!(told.contains("readonly") && told.contains("open it without cold="), "{sql}: {told}");
        assert!(told.contains(SECOND), "{sql}: {told}");
    }
    let told = rig.refused("far", "&cold=1", "PRAGMA littoral_checkpoint;\nSELECT * FROM littoral_chunks;");
    assert_eq!(told.matches("open it without cold=").count(), 2, "{told}");
    for (parameters, words) in [
        ("&cold=1&follow=1&mode=ro", "leave out cold="),
        ("&cold=1&cache=shared", "cache=shared"),
        ("&cold=1&volume=nothing", "cold=1: "),
        ("&cold=icy", "on or off"),
    ] {
        let told = rig.refused("far", parameters, "SELECT 1 FROM t;\nSELECT littoral_last_error();");
        assert!(told.contains("unable to open") && told.contains(words), "{parameters}: {told}");
    }
}

#[test]
fn a_scan_goes_at_the_pace_of_its_store_and_of_its_tenant() {
    let rig = Rig::new();
    let file = "scan_requests = 1000\ntenant = 'acme'\n[tenants]\nacme = { scan_rate = '1MB' }\n";
    // Where no account can be kept, as on a medium that is only read, the pace is that of the process.
    fs::create_dir_all(rig.folder("three").join(".littoral/account1")).unwrap();
    let rate = "&cold=1&scan_rate=1MB";
    for (machine, parameters, settings) in [("one", rate, ""), ("two", "&cold=1", file), ("three", rate, "")] {
        fs::write(rig.folder(machine).join("littoral.toml"), settings).unwrap();
        let script = format!("{SUM} SELECT value FROM littoral_status WHERE name = 'fetched';");
        let began = Instant::now();
        let told = rig.run(machine, parameters, &script);
        let took = began.elapsed().as_secs_f64();
        let lines: Vec<&str> = told.lines().collect();
        let bytes: f64 = lines[1].split(' ').next().unwrap().parse().unwrap();
        assert!(lines[0] == SECOND && bytes > 3e6, "{told}");
        let least = bytes / 1e6;
        // How far it may fall behind its pace is for a quiet machine to show (bench `--test scans`); here it only may not hang.
        assert!(took > 0.95 * least && took < least + 60.0, "{bytes} bytes in {took} s");
    }
}

/// Requests that read, as an account has counted them this month.
fn reads(account: &Path) -> u64 {
    u64::from_le_bytes(fs::read(account).unwrap()[24..32].try_into().unwrap())
}

#[test]
fn whoever_only_reads_and_keeps_pages_is_counted_beside_them_and_a_scan_begins_no_account_and_is_charged_to_one() {
    let rig = Rig::new();
    assert_eq!(rig.run("nobody", "&cold=1", SUM), SECOND);
    assert_eq!(fs::read_dir(rig.folder("nobody")).unwrap().count(), 0, "nothing is kept");
    for (machine, parameters, sum) in [
        ("lazy", "", SECOND),
        ("past", &*format!("&at={}", rig.first), FIRST),
        ("replica", "&mode=ro&follow=1", SECOND),
    ] {
        assert_eq!(rig.run(machine, parameters, SUM), sum, "{machine}");
        let folder = rig.folder(machine).join(".littoral");
        assert!(!folder.join("store.toml").exists(), "{machine}: who reads needs no store");
        let account = folder.join("account1");
        let first = reads(&account);
        assert!(first > 2, "{machine}: {first} requests of the first process");
        // Another process. A replica asks for nothing where there is no news.
        let mut count = sum.split('|').next().unwrap();
        if machine == "replica" {
            rig.run("here", "", "INSERT INTO t VALUES (70000, 'x'); PRAGMA littoral_sync;");
            count = "20002";
        }
        assert_eq!(rig.run(machine, parameters, "SELECT count(*) FROM t;"), count, "{machine}");
        let then = reads(&account);
        assert!(then > first, "{machine}: {then} requests of two processes");
        if machine == "lazy" {
            assert_eq!(rig.run(machine, "&cold=1", SUM), SECOND);
            let scanned = reads(&account);
            assert!(scanned > then + 4, "{scanned} requests with those of a scan");
        }
    }
}

#[test]
fn a_scan_of_more_than_it_may_hold_takes_no_more_memory_than_that() {
    let rig = Rig { place: Place::new(), first: String::new() };
    let made = rig.run(
        "here",
        "",
        "PRAGMA journal_mode = WAL;
         CREATE TABLE t(a INTEGER PRIMARY KEY, b);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 240000) INSERT INTO t SELECT i, printf('%01000d', i) FROM n;
         PRAGMA littoral_checkpoint;",
    );
    assert!(made.contains("1."), "{made}");
    let most = ".system grep VmHWM /proc/$PPID/status";
    let part = "SELECT count(*) FROM t WHERE a <= 120000 AND length(b) = 1000;";
    let script = format!("{part}\n{most}\n{SUM}\n{most}\nSELECT value FROM littoral_status WHERE name = 'here';");
    let told = rig.run("far", "&cold=1", &script);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines[0], lines[2]), ("120000", "240000|240000000|28800120000"));
    let number = |line: &str, word: usize| line.split_whitespace().nth(word).unwrap().parse::<u64>().unwrap();
    let (half, all, held) = (number(lines[1], 1), number(lines[3], 1), number(lines[4], 0));
    println!("{half} kB at most after half of it, {all} kB after all of it; {held} B at hand");
    assert!(held <= 64 << 20 && all < half + 64_000, "{told}");
}
