//! Databases that are not all here, through the stock `sqlite3` shell: opened from their volume, read, written on, made whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, python, room, said};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A volume with a table of five thousand rows, whose writer has gone without a word.
struct Rig {
    place: Place,
}

const SUM: &str = "SELECT count(*), sum(length(b)), sum(a) FROM t";

impl Rig {
    fn new() -> Self {
        let rig = Self { place: Place::new() };
        let told = rig.run(
            "first",
            "",
            "PRAGMA journal_mode = WAL;
             CREATE TABLE t(a INTEGER PRIMARY KEY, b);
             CREATE INDEX i ON t(b);
             WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i, hex(randomblob(200)) FROM n;
             PRAGMA littoral_checkpoint;",
        );
        assert!(told.contains("1."), "{told}");
        rig
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.place.machine().parent().unwrap().join(machine);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn command(&self, machine: &str, parameters: &str, sql: &str) -> Command {
        let mut command = self.place.host("sqlite3");
        let script = format!(
            ".load {} sqlite3_littoral_init\n.open 'file:app.db?vfs=littoral&remote={}{parameters}'\n{sql}\n",
            built().extension.to_str().unwrap(),
            self.place.remote()
        );
        let folder = self.folder(machine);
        let path = folder.join(format!("script-{}.sql", std::process::id()));
        fs::write(&path, script).unwrap();
        command.current_dir(folder).args(["-batch", ":memory:"]).stdin(fs::File::open(path).unwrap());
        command
    }

    fn output(&self, machine: &str, parameters: &str, sql: &str) -> Output {
        self.command(machine, parameters, sql).output().unwrap()
    }

    fn run(&self, machine: &str, parameters: &str, sql: &str) -> String {
        let done = self.output(machine, parameters, sql);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && complaint.is_empty(), "{sql}: {complaint}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn stock(&self, machine: &str, sql: &str) -> Output {
        Command::new("sqlite3").arg(self.folder(machine).join("app.db")).arg(sql).output().unwrap()
    }
}

#[test]
fn s05_no_other_sqlite_takes_a_sparse_file_for_a_database_nor_finds_its_wal() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    assert_eq!(
        rig.run("far", "", "SELECT length(b) FROM t WHERE a = 77; SELECT here FROM (SELECT 1 AS here);"),
        "400\n1"
    );
    let refused = rig.stock("far", SUM);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not a database"), "{refused:?}");
    // While it is written, its WAL lies where no other SQLite looks.
    let told =
        rig.run("far", "&takeover=1", "INSERT INTO t VALUES (9000, 'x');\n.system ls\nSELECT b FROM t WHERE a = 9000;");
    assert!(told.contains("app.db-wal.littoral") && !told.lines().any(|line| line == "app.db-wal"), "{told}");
    assert_eq!(rig.run("far", "", "DELETE FROM t WHERE a = 9000; "), "");
    assert_eq!(rig.run("far", "", SUM), sum);
    assert_eq!(rig.run("far", "", "PRAGMA integrity_check"), "ok");
}

#[test]
fn of_processes_that_open_it_at_once_one_makes_the_file_and_all_read_the_same() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    for round in 0..3 {
        let machine = format!("far-{round}");
        // Whoever comes while the last one closes is told to wait, as by any SQLite.
        let mut first = rig.command(&machine, "", &format!(".timeout 30000\n{SUM}"));
        let running: Vec<_> = (0..8)
            .map(|_| {
                let script =
                    fs::File::open(rig.folder(&machine).join(format!("script-{}.sql", std::process::id()))).unwrap();
                first.stdin(script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for one in running {
            let done = one.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), sum, "{done:?}");
        }
    }
}

#[test]
fn p04_the_first_write_is_refused_with_the_choices_and_a_takeover_fences_the_other_side() {
    let rig = Rig::new();
    let refused = rig.output(
        "far",
        "",
        "INSERT INTO t VALUES (9000, 'x');\nSELECT value FROM littoral_status WHERE name = 'last_error';",
    );
    assert!(String::from_utf8_lossy(&refused.stderr).contains("readonly"), "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(why.contains("takeover=1") && !why.contains("--takeover"), "{why}");
    // A wrong epoch takes nothing over.
    assert!(!rig.output("far", "&takeover=7", "INSERT INTO t VALUES (9000, 'x');").stderr.is_empty());
    let told = rig.run("far", "&takeover=1", "INSERT INTO t VALUES (9000, 'x'); PRAGMA littoral_checkpoint;");
    assert!(told.starts_with("2."), "{told}");

    // The other side learns of it at its next checkpoint; from then on it is read-only, and keeps what it has.
    let learnt = rig.output("first", "", "INSERT INTO t VALUES (9001, 'kept'); PRAGMA littoral_checkpoint;");
    assert!(String::from_utf8_lossy(&learnt.stderr).contains("took over"), "{learnt:?}");
    assert!(String::from_utf8_lossy(&rig.output("first", "", "DELETE FROM t;").stderr).contains("readonly"));
    assert_eq!(rig.run("first", "", "SELECT b FROM t WHERE a = 9001"), "kept");
    assert!(rig.run("first", "", "PRAGMA littoral_status").contains("took over"));
    assert_eq!(rig.run("first", "&fenced=continue", "DELETE FROM t WHERE a = 9001; SELECT changes();"), "1");
}

#[test]
fn p04_a_sparse_database_that_takes_back_a_volume_which_moved_on_is_not_mixed_with_it() {
    let rig = Rig::new();
    // More than anybody reads ahead.
    rig.run(
        "first",
        "",
        "CREATE TABLE big(x);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO big SELECT randomblob(2000) FROM n;
         PRAGMA littoral_checkpoint;",
    );
    rig.run("far", "&takeover=1", "UPDATE t SET b = 'far' WHERE a = 1; PRAGMA littoral_checkpoint;");
    assert!(!rig.run("far", "", "SELECT value FROM littoral_status WHERE name = 'here'").contains("everything"));
    // The first machine takes it back and publishes over all of it; the far one has not read most of its pages.
    rig.run("first", "&takeover=2", "UPDATE t SET b = 'first'; PRAGMA littoral_checkpoint;");
    let refused =
        rig.output("far", "&takeover=3", "UPDATE t SET b = 'far again' WHERE a = 2; PRAGMA littoral_checkpoint;");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("would mix both"), "{refused:?}");
    assert_eq!(rig.run("reader", "", "SELECT DISTINCT b FROM t"), "first");
    // Whole, it is its own version again, and says so.
    rig.run("far", "", "PRAGMA littoral_hydrate;");
    rig.run("far", "", "SELECT count(*) FROM t;");
    let sum = rig.run("far", "&takeover=4", &format!("PRAGMA littoral_checkpoint; {SUM};"));
    assert_eq!(rig.run("another", "", SUM), sum.lines().last().unwrap());
    assert_eq!(rig.run("another", "", "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_reader_that_owns_nothing_sees_the_newest_state_each_time_and_a_writer_what_it_wrote() {
    let rig = Rig::new();
    assert_eq!(rig.run("far", "", "SELECT count(*) FROM t"), "5000");
    rig.run("first", "", "DELETE FROM t WHERE a > 10; VACUUM; PRAGMA littoral_checkpoint;");
    assert_eq!(rig.run("far", "", "SELECT count(*) FROM t"), "10");
    // What somebody put in its place is not removed, whatever the volume holds.
    let far = rig.folder("far");
    fs::remove_file(far.join("app.db")).unwrap();
    Command::new("sqlite3")
        .arg(far.join("app.db"))
        .arg("CREATE TABLE mine(a); INSERT INTO mine VALUES (1)")
        .status()
        .unwrap();
    rig.run("first", "", "INSERT INTO t VALUES (11, 'x'); PRAGMA littoral_checkpoint;");
    assert_eq!(rig.run("far", "", "SELECT count(*) FROM mine"), "1");
}

#[test]
fn s11_growing_and_shrinking_and_other_page_sizes_on_a_sparse_database() {
    let rig = Rig::new();
    for (step, sql) in [
        "DELETE FROM t WHERE a % 3 = 0; VACUUM;",
        "CREATE TABLE u AS SELECT * FROM t; DELETE FROM t;",
        "PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM; PRAGMA journal_mode = WAL;",
        "DROP TABLE u; VACUUM; CREATE TABLE v(x); INSERT INTO v VALUES (zeroblob(300000));",
    ]
    .into_iter()
    .enumerate()
    {
        let machine = format!("far-{step}");
        rig.run(&machine, &format!("&takeover={}", step + 1), sql);
        let told = rig.run(
            &machine,
            "",
            "PRAGMA integrity_check; PRAGMA littoral_checkpoint; SELECT count(*) FROM sqlite_schema;",
        );
        assert!(told.starts_with("ok\n"), "{step}: {told}");
        let dump = "SELECT count(*), sum(length(b)) FROM t;";
        let here = rig.run(&machine, "", dump);
        assert_eq!(rig.run(&format!("reader-{step}"), "", dump), here, "{step}");
        assert_eq!(rig.run(&format!("reader-{step}"), "", "PRAGMA integrity_check"), "ok", "{step}");
    }
}

#[test]
fn s04_a_reader_sees_pages_as_of_its_own_transaction_whatever_the_volume_has_by_now() {
    let rig = Rig::new();
    let mut script = rig.place.host(python());
    said(script.current_dir(rig.folder("far")).arg(room().join("scripts/two_readers.py")));
    assert_eq!(rig.run("another", "", "SELECT DISTINCT b FROM t"), "new");
}

#[test]
fn s08_what_an_older_database_left_is_moved_aside_and_never_applied() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    let far = rig.folder("far");
    // A hot WAL of another database of the same name, as a machine's image may have it.
    let old = Command::new("sqlite3")
        .arg(far.join("app.db"))
        .arg("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 'old'); .system kill -9 $PPID")
        .output()
        .unwrap();
    assert!(!old.status.success());
    let wal = fs::read(far.join("app.db-wal")).unwrap();
    assert!(!wal.is_empty());
    fs::remove_file(far.join("app.db")).unwrap();
    assert_eq!(rig.run("far", "", SUM), sum);
    let kept: Vec<_> =
        fs::read_dir(&far).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap_or_default()).collect();
    assert!(kept.contains(&wal), "it was somebody's: moved aside, not deleted");
}

#[test]
fn s12_nothing_is_mapped_where_pages_may_be_missing() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    let told = rig.run(
        "far",
        "&takeover=1",
        &format!("PRAGMA mmap_size = 268435456; {SUM}; UPDATE t SET b = 'x' WHERE a % 7 = 0; {SUM};"),
    );
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[1], sum);
    assert_eq!(
        rig.run("far", "", &format!("PRAGMA mmap_size = 268435456; {SUM};")).lines().last(),
        told.last().copied()
    );
}

#[test]
fn hydration_makes_a_plain_file_that_any_sqlite_opens() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    assert!(rig.run("far", "", "PRAGMA littoral_hydrate;").contains("pages are here"));
    assert_eq!(rig.run("far", "", SUM), sum);
    let stock = rig.stock("far", SUM);
    assert_eq!(String::from_utf8_lossy(&stock.stdout).trim(), sum, "{stock:?}");
    assert_eq!(String::from_utf8_lossy(&rig.stock("far", "PRAGMA integrity_check").stdout).trim(), "ok");
}

#[test]
fn what_cannot_be_fetched_is_an_error_with_its_reason_and_never_a_wrong_row() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    assert_eq!(rig.run("far", "", "SELECT length(b) FROM t WHERE a = 1"), "400");
    // The volume's chunks are damaged in the middle: some rows can be had, others are errors.
    let remote = PathBuf::from(rig.place.remote().strip_prefix("file://").unwrap()).join("app.db").join("chunk");
    for chunk in fs::read_dir(&remote).unwrap() {
        let path = chunk.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 20_000].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&path, bytes).unwrap();
    }
    let done = rig.output("far", "", &format!("{SUM};\nSELECT value FROM littoral_status WHERE name = 'last_error';"));
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(!told.contains(&sum) && String::from_utf8_lossy(&done.stderr).contains("disk I/O error"), "{done:?}");
    assert!(told.contains("cannot be fetched"), "{told}");
}

#[test]
fn who_may_only_read_opens_it_lazily_too_and_writes_nothing() {
    let rig = Rig::new();
    let sum = rig.run("first", "", SUM);
    assert_eq!(rig.run("far", "&mode=ro", "SELECT length(b) FROM t WHERE a = 77"), "400");
    let refused = rig.output("far", "&mode=ro&takeover=1", "DELETE FROM t;");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("readonly"), "{refused:?}");
    assert_eq!(rig.run("far", "&mode=ro", SUM), sum);
    // Complete by now: it becomes plain under a reader as well.
    rig.run("far", "&mode=ro", "PRAGMA littoral_hydrate;");
    assert_eq!(rig.run("far", "&mode=ro", SUM), sum);
    assert_eq!(String::from_utf8_lossy(&rig.stock("far", SUM).stdout).trim(), sum);
}

#[test]
fn what_was_only_foreseen_keeps_nobody_from_what_was_asked_for() {
    let rig = Rig::new();
    let remote = PathBuf::from(rig.place.remote().strip_prefix("file://").unwrap()).join("app.db").join("chunk");
    for chunk in fs::read_dir(&remote).unwrap() {
        let path = chunk.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(&path, bytes).unwrap();
    }
    // Rows in order: more and more is read ahead. What is refused is what lies in the damaged frame, and nothing else: whoever asks
    // again, for each row alone, is refused the same.
    let sql: String = (1..=5000).map(|row| format!("SELECT a FROM t WHERE a = {row} AND length(b) > 0;\n")).collect();
    let answered = |machine: &str| String::from_utf8_lossy(&rig.output(machine, "", &sql).stdout).into_owned();
    let first = answered("far");
    let count = first.lines().count();
    assert!((4000..5000).contains(&count), "one frame is damaged, and {count} of 5000 rows are had");
    assert!(answered("far") == first, "refused for what was only foreseen");
}

#[test]
fn a_killed_writer_of_a_sparse_database_loses_nothing_that_was_committed() {
    let rig = Rig::new();
    rig.run("far", "&takeover=1", "INSERT INTO t VALUES (10000, 'before');");
    for round in 0..6_u32 {
        let sql = format!(
            "PRAGMA wal_autocheckpoint = 5;\n{}\n.print done\n.system kill -9 $PPID\n",
            (0..40)
                .map(|nth| format!("INSERT INTO t VALUES ({}, hex(randomblob(1500)));", 20_000 + round * 100 + nth))
                .collect::<String>()
        );
        let done = rig.output("far", "", &sql);
        assert!(!done.status.success() && String::from_utf8_lossy(&done.stdout).contains("done"), "{done:?}");
        let told = rig.run("far", "", "SELECT count(*) FROM t WHERE a >= 20000; PRAGMA integrity_check;");
        assert_eq!(told, format!("{}\nok", (round + 1) * 40));
    }
    let here = rig.run("far", "", &format!("PRAGMA littoral_checkpoint; {SUM};"));
    let sum = here.lines().last().unwrap();
    assert_eq!(rig.run("elsewhere", "", SUM), sum);
}
