//! Logs as tables in SQL (rule P11): beside an ordinary table with the same rows, through libsql and through `littoral shell`, with kills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::logs::table::FAULT_POINTS;
use rig::{BINARY, Rig};
use std::path::Path;
use std::process::{Command, Stdio};

/// A connection to a database, through libsql's SQLite, which the VFS's entry point has registered our module with.
struct Db {
    runtime: tokio::runtime::Runtime,
    conn: libsql::Connection,
}

impl Db {
    fn open(path: &Path) -> Self {
        littoral::register().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let conn =
            runtime.block_on(async { libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap() });
        Self { runtime, conn }
    }

    fn run(&self, sql: &str) -> Result<(), String> {
        self.runtime.block_on(self.conn.execute_batch(sql)).map(drop).map_err(|error| error.to_string())
    }

    fn does(&self, sql: &str) {
        self.run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn refuses(&self, sql: &str, words: &[&str]) {
        let refused = self.run(sql).expect_err(sql);
        assert!(words.iter().all(|word| refused.contains(word)), "{sql}: {refused}");
    }

    /// All rows, spelled as SQLite spells them, each value with its type.
    fn rows(&self, sql: &str) -> Vec<String> {
        let read = async {
            let mut rows = self.conn.query(sql, ()).await.map_err(|error| error.to_string())?;
            let mut all = Vec::new();
            while let Some(row) = rows.next().await.map_err(|error| error.to_string())? {
                let cells = (0..row.column_count()).map(|at| format!("{:?}", row.get_value(at).unwrap()));
                all.push(cells.collect::<Vec<String>>().join(" | "));
            }
            Ok::<_, String>(all)
        };
        self.runtime.block_on(read).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql);
        let digits = |text: &str| text.trim_start_matches("Integer(").trim_end_matches(')').parse().ok();
        rows.first().and_then(|row| digits(row)).unwrap_or_else(|| panic!("{sql}: {rows:?}"))
    }

    /// Blocks of the log that this process has read so far, and those that it has passed over.
    fn blocks(&self) -> (i64, i64) {
        let of = |column: &str| self.number(&format!("SELECT {column} FROM littoral_log_stats('events')"));
        (of("blocks_read"), of("blocks_skipped"))
    }
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn under(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.under(from.len() as u64) as usize]
    }
}

const VALUES: [&str; 32] = [
    "NULL",
    "0",
    "1",
    "-1",
    "7",
    "300",
    "-70000",
    "9223372036854775807",
    "-9223372036854775808",
    "1e300",
    "2.0",
    "-0.0",
    "3.25",
    "1e15",
    "9007199254740993",
    "''",
    "'abc'",
    "'5'",
    "' 5'",
    "'5.0'",
    "'1e3'",
    "'0x10'",
    "'9223372036854775808'",
    "'-'",
    "'größe'",
    "'a' || char(0) || 'b'",
    "x''",
    "x'00ff'",
    "zeroblob(9)",
    "CAST(x'ff35' AS TEXT)",
    "replace(hex(zeroblob(40)), '0', 'long')",
    "4294967296",
];
const COLUMNS: &str = "i INTEGER, t TEXT, r REAL, n NUMERIC, b BLOB, a, v VARCHAR(10), d DATE";
const NAMES: [&str; 8] = ["i", "t", "r", "n", "b", "a", "v", "d"];

/// All values, with their types and to the last bit. Some text is no UTF-8, which libsql does not show.
fn shown() -> String {
    let shown =
        |name: &str| format!("typeof({name}), hex({name}), CASE typeof({name}) WHEN 'real' THEN quote({name}) END");
    NAMES.map(shown).join(", ")
}

fn a_row(chance: &mut Chance) -> String {
    let values: Vec<&str> = NAMES.iter().map(|_| chance.pick(&VALUES)).collect();
    format!("({})", values.join(", "))
}

/// An insert, the same for both tables but for the name. One in some fails in its middle.
fn an_insert(chance: &mut Chance) -> String {
    match chance.under(6) {
        0 => {
            let fails_at = chance.under(12);
            format!(
                "INSERT INTO TABLE_ SELECT x, x, x * 1.5, CASE WHEN x = {fails_at} THEN abs(-9223372036854775808) ELSE x END, x, x, x, x \
                 FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 9) SELECT x FROM c)"
            )
        }
        1 => "INSERT INTO TABLE_ SELECT i, t, r, n, b, a, v, d FROM TABLE_ LIMIT 5".to_owned(),
        2 => {
            let rows: Vec<String> = (0..=chance.under(20)).map(|_| a_row(chance)).collect();
            format!("INSERT INTO TABLE_ VALUES {}", rows.join(", "))
        }
        _ => format!("INSERT INTO TABLE_ VALUES {}", a_row(chance)),
    }
}

fn assert_equal(db: &Db, what: &str) {
    let of = |table: &str, order: &str| db.rows(&format!("SELECT {} FROM {table} ORDER BY {order}", shown()));
    assert_eq!(of("events", "lsn"), of("plain", "rowid"), "{what}");
    assert_eq!(of("events", "lsn DESC"), of("plain", "rowid DESC"), "{what}, backwards");
}

#[test]
fn p11_whatever_transactions_savepoints_and_failures_do_the_rows_are_those_of_an_ordinary_table() {
    for seed in 1..=5 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.db");
        let mut chance = Chance(seed);
        let mut db = Db::open(&file);
        db.does("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
        db.does(&format!("CREATE VIRTUAL TABLE events USING littoral_log({COLUMNS}); CREATE TABLE plain({COLUMNS})"));
        let mut savepoints = 0;
        let mut is_open = false;
        for step in 0..120 {
            let what = format!("seed {seed}, step {step}");
            match chance.under(12) {
                0 if !is_open => {
                    db.does("BEGIN");
                    is_open = true;
                }
                1 if is_open => {
                    db.does(if chance.under(2) == 0 { "COMMIT" } else { "ROLLBACK" });
                    (is_open, savepoints) = (false, 0);
                }
                2 if is_open => {
                    savepoints += 1;
                    db.does(&format!("SAVEPOINT s{savepoints}"));
                }
                3 if savepoints > 0 => {
                    let to = 1 + chance.under(savepoints);
                    db.does(&format!("ROLLBACK TO s{to}"));
                    savepoints = to;
                }
                4 if savepoints > 0 => {
                    let to = 1 + chance.under(savepoints);
                    db.does(&format!("RELEASE s{to}"));
                    savepoints = to - 1;
                }
                5 if !is_open => {
                    drop(db);
                    db = Db::open(&file);
                    db.does("PRAGMA synchronous = OFF");
                }
                6 => {
                    let (column, value) = (chance.pick(&NAMES), chance.pick(&VALUES));
                    let comparison = chance.pick(&["=", "<", "<=", ">", ">=", "IS"]);
                    let more = chance.pick(&["", " COLLATE NOCASE"]);
                    let of = |table: &str| {
                        db.rows(&format!(
                            "SELECT {} FROM {table} WHERE {column} {comparison} {value}{more} ORDER BY rowid",
                            shown()
                        ))
                    };
                    assert_eq!(of("events"), of("plain"), "{what}: {column} {comparison} {value}{more}");
                }
                7 => {
                    let of = |table: &str| {
                        let on = "e.t = p.n OR e.a = p.t OR e.i > p.d";
                        let sql = format!(
                            "SELECT p.id, count(*) FROM (SELECT rowid AS id, * FROM plain LIMIT 25) p JOIN {table} e ON {on} GROUP BY 1 ORDER BY 1"
                        );
                        db.rows(&sql)
                    };
                    assert_eq!(of("events"), of("plain"), "{what}: a join");
                }
                _ => {
                    let insert = an_insert(&mut chance);
                    let done = [
                        db.run(&insert.replace("TABLE_", "events")).is_ok(),
                        db.run(&insert.replace("TABLE_", "plain")).is_ok(),
                    ];
                    assert_eq!(done[0], done[1], "{what}: {insert}");
                    assert_eq!(db.conn.is_autocommit(), !is_open, "{what}: {insert}");
                }
            }
            if step % 10 == 0 {
                assert_equal(&db, &what);
            }
        }
        if is_open {
            db.does("COMMIT");
        }
        assert_equal(&db, &format!("seed {seed}, at its end"));
        drop(db);
        assert_equal(&Db::open(&file), &format!("seed {seed}, opened again"));
    }
}

fn shell(rig: &Rig, statements: &[&str]) -> Vec<String> {
    let mut arguments = vec!["shell".to_owned(), rig.text("app.db")];
    arguments.extend(statements.iter().map(|sql| (*sql).to_owned()));
    rig.run(arguments).succeeds().stdout.lines().map(str::to_owned).collect()
}

const MAKE: &str = "CREATE VIRTUAL TABLE events USING littoral_log(n INTEGER, body TEXT); CREATE TABLE plain(n INTEGER, body TEXT); \
                    BEGIN; INSERT INTO events VALUES (1, 'a'), (2, 'b'); INSERT INTO plain VALUES (1, 'a'), (2, 'b'); COMMIT";
/// How many rows each of the tables has, and how many of the one are not in the other.
const COUNTS: &str = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM plain), \
                      (SELECT count(*) FROM (SELECT n, body FROM events EXCEPT SELECT n, body FROM plain)), \
                      (SELECT count(*) FROM (SELECT n, body FROM plain EXCEPT SELECT n, body FROM events)), \
                      (SELECT count(*) FROM (SELECT lsn, lag(lsn) OVER (ORDER BY rowid) AS before FROM events) WHERE before >= lsn)";

fn both(numbers: std::ops::Range<u64>) -> String {
    let rows: Vec<String> = numbers.map(|number| format!("({number}, 'row {number}')")).collect();
    let rows = rows.join(", ");
    format!(
        "BEGIN; INSERT INTO events VALUES {rows}; SAVEPOINT s; INSERT INTO events VALUES (0, 'never'); ROLLBACK TO s; INSERT INTO plain VALUES {rows}; COMMIT"
    )
}

/// How many rows there are, in both.
fn sound(rig: &Rig, what: &str) -> u64 {
    let told = rig.json(["shell", &rig.text("app.db"), COUNTS]);
    let row: Vec<u64> =
        told["answers"][0]["rows"][0].as_array().unwrap().iter().map(|cell| cell.as_u64().unwrap()).collect();
    assert_eq!(row[1..], [row[0], 0, 0, 0], "{what}: {told}");
    row[0]
}

/// How many records who reads the log itself is given.
fn records(rig: &Rig) -> usize {
    let log = rig.path(".littoral/logs/app.db/events");
    rig.run(["log", "read", &log.display().to_string(), "--format", "csv"])
        .succeeds()
        .stdout
        .lines()
        .filter(|line| line.contains("Z,"))
        .count()
}

#[test]
fn p11_a_commit_that_is_killed_at_any_point_is_in_the_log_and_in_the_database_or_in_neither() {
    for point in FAULT_POINTS {
        let rig = Rig::new();
        Db::open(&rig.path("app.db")).does(MAKE);
        let first = both(10..15);
        if point == "log.void.said" {
            // There is something to be said of what one before left.
            assert!(rig.crash("log.table.synced", ["shell", &rig.text("app.db"), &first]));
        }
        assert!(rig.crash(point, ["shell", &rig.text("app.db"), &first]), "{point} was not reached");
        assert_eq!(sound(&rig, point), 2, "{point}: SQLite had not committed");
        shell(&rig, &[&both(20..23)]);
        assert_eq!(sound(&rig, point), 5, "{point}: the next one");
        // Who reads the log itself is not given what never committed, either.
        assert_eq!(records(&rig), 5, "{point}");
        // Once more, behind what is void already.
        let again = if point == "log.void.said" { "log.table.synced" } else { point };
        assert!(rig.crash(again, ["shell", &rig.text("app.db"), &both(30..32)]), "{again} was not reached");
        assert_eq!(sound(&rig, point), 5, "{point}: after the second one");
        shell(&rig, &[&both(40..41)]);
        assert_eq!((sound(&rig, point), records(&rig)), (6, 6), "{point}: at the end");
    }
}

#[test]
fn blocks_are_read_only_where_they_may_hold_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let db = Db::open(&file);
    db.does(
        "PRAGMA journal_mode = WAL; CREATE VIRTUAL TABLE events USING littoral_log(ts INTEGER, level TEXT, body TEXT)",
    );
    db.does(
        "INSERT INTO events SELECT x * 10, CASE WHEN x BETWEEN 9000 AND 9009 THEN 'error' ELSE 'info' END, printf('%0100d', x) \
         FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) SELECT x FROM c)",
    );
    let all = db.number("SELECT bytes / 65536 FROM littoral_log_stats('events')");
    assert!(all > 40, "{all}");
    let cost = |sql: &str, rows: usize| {
        let before = db.blocks().0;
        assert_eq!(db.rows(sql).len(), rows, "{sql}");
        db.blocks().0 - before
    };
    assert_eq!(cost("SELECT * FROM events WHERE lsn = 12345", 1), 1);
    assert_eq!(cost("SELECT * FROM events WHERE rowid = 1", 1), 1);
    assert_eq!(cost("SELECT * FROM events WHERE lsn = 0 OR lsn = 20001", 0), 0);
    assert_eq!(cost("SELECT * FROM events ORDER BY lsn DESC LIMIT 5", 5), 1);
    assert_eq!(cost("SELECT * FROM events ORDER BY lsn LIMIT 5 OFFSET 3", 5), 1);
    assert_eq!(cost("SELECT * FROM events WHERE lsn > 19990 ORDER BY lsn", 10), 1);
    assert!(cost("SELECT * FROM events WHERE lsn BETWEEN 5000 AND 5100 ORDER BY lsn DESC", 101) <= 2);
    assert_eq!(cost("SELECT * FROM events WHERE appended_ms < 1000", 0), 0);
    // The first question about a column's values reads all, and knows then what each block is between.
    assert!(cost("SELECT * FROM events WHERE ts BETWEEN 100000 AND 100500", 51) >= all);
    assert!(cost("SELECT * FROM events WHERE ts BETWEEN 50000 AND 50500", 51) <= 3);
    assert!(cost("SELECT * FROM events WHERE ts = 777770", 0) <= 1);
    assert!(cost("SELECT * FROM events WHERE level = 'error'", 10) <= 3);
    assert!(cost("SELECT * FROM events WHERE level > 'info'", 0) <= 1);
    let skipped = db.blocks().1;
    assert!(skipped > 3 * all, "{skipped}");
    // As the inner side of a join, too.
    db.does("CREATE TABLE wanted(lsn INTEGER); INSERT INTO wanted VALUES (5), (10000), (15000)");
    assert!(cost("SELECT w.lsn, e.ts FROM wanted w CROSS JOIN events e ON e.lsn = w.lsn", 3) <= 3);
}

#[test]
fn what_a_log_does_not_take_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let db = Db::open(&file);
    db.does("CREATE VIRTUAL TABLE events USING littoral_log(ts INTEGER NOT NULL, body TEXT)");
    db.does("INSERT INTO events VALUES (1, 'a')");
    db.refuses("INSERT INTO events VALUES (1)", &["2 columns"]);
    db.refuses("INSERT INTO events VALUES (NULL, 'b')", &["NOT NULL constraint failed: events.ts"]);
    db.refuses("UPDATE events SET body = 'b'", &["littoral_log_truncate('events'"]);
    db.refuses("DELETE FROM events", &["littoral_log_truncate('events'"]);
    db.refuses("INSERT INTO events(rowid, ts) VALUES (9, 9)", &["gives a row its lsn"]);
    db.refuses("INSERT INTO events(lsn, ts) VALUES (9, 9)", &["gives a row its lsn"]);
    db.refuses("INSERT INTO events VALUES (2, zeroblob(17 << 20))", &["too large"]);
    db.refuses("CREATE VIRTUAL TABLE x USING littoral_log(id INTEGER PRIMARY KEY)", &["PRIMARY"]);
    db.refuses("CREATE VIRTUAL TABLE x USING littoral_log()", &["columns"]);
    db.refuses("CREATE VIRTUAL TABLE temp.x USING littoral_log(a)", &["temp"]);
    db.refuses("SELECT littoral_log_cursor('nothing', 'c')", &["nothing", "neither"]);
    db.refuses("SELECT littoral_log_ack('events', 'c', 1)", &["no cursor c"]);
    db.refuses("SELECT littoral_log_truncate('events', 99)", &["99", "beyond"]);
    db.refuses("SELECT littoral_log_truncate('events', 'x')", &["not an LSN"]);
    let log = folder.path().join(".littoral/logs/app.db/events");
    let log = log.display();
    let again = format!("CREATE VIRTUAL TABLE x USING littoral_log(ts INTEGER, log='{log}')");
    db.refuses(&again, &["log of table events", "their volumes would have one name"]);
    Db::open(&folder.path().join("other.db")).refuses(&again, &["column 1", "NOT NULL", "body"]);
    assert_eq!(db.rows("SELECT lsn, ts, body FROM events"), ["Integer(1) | Integer(1) | Text(\"a\")"]);
    // Rows go on, and the schema is compared where the log says another one.
    db.does("INSERT INTO events(session, serial, ts) VALUES ('worker', 7, 2)");
    assert_eq!(
        db.rows("SELECT session, serial FROM events WHERE session = 'worker'"),
        ["Text(\"worker\") | Integer(7)"]
    );
    assert_eq!(db.number("SELECT last_insert_rowid()"), 2);
    drop(db);
    let toml = folder.path().join(".littoral/logs/app.db/events/table.toml");
    std::fs::write(&toml, std::fs::read_to_string(&toml).unwrap().replace("body", "text")).unwrap();
    let db = Db::open(&file);
    db.refuses("INSERT INTO events VALUES (1, 'x')", &["column 2", "\"body\" TEXT", "\"text\" TEXT"]);
}

#[test]
fn a_table_is_renamed_dropped_and_taken_up_again_and_a_rollback_takes_all_of_that_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let db = Db::open(&file);
    db.does("CREATE VIRTUAL TABLE events USING littoral_log(n)");
    db.does("INSERT INTO events VALUES (1), (2)");
    db.does("BEGIN; DROP TABLE events; ROLLBACK");
    db.does("BEGIN; ALTER TABLE events RENAME TO other; INSERT INTO other VALUES (9); ROLLBACK");
    db.does("BEGIN; CREATE VIRTUAL TABLE never USING littoral_log(n); INSERT INTO never VALUES (1); ROLLBACK");
    assert_eq!(db.rows("SELECT n FROM events"), ["Integer(1)", "Integer(2)"]);
    db.does("ALTER TABLE events RENAME TO \"old events\"; INSERT INTO \"old events\" VALUES (3)");
    // A new one of the name has a log of its own.
    db.does("CREATE VIRTUAL TABLE events USING littoral_log(n); INSERT INTO events VALUES (10)");
    assert_eq!(db.rows("SELECT n FROM \"old events\" ORDER BY lsn DESC"), ["Integer(3)", "Integer(2)", "Integer(1)"]);
    assert_eq!(db.rows("SELECT n FROM events"), ["Integer(10)"]);
    db.does("DROP TABLE events; CREATE VIRTUAL TABLE events USING littoral_log(n)");
    assert_eq!(db.rows("SELECT n FROM events").len(), 0, "a new table is empty");
    // The log of one that was dropped is there, and is taken up by its name.
    let log = folder.path().join(".littoral/logs/app.db/events");
    db.does("DROP TABLE \"old events\"");
    db.does(&format!("CREATE VIRTUAL TABLE again USING littoral_log(n, log='{}')", log.display()));
    assert_eq!(db.rows("SELECT n FROM again"), ["Integer(1)", "Integer(2)", "Integer(3)"]);
}

#[test]
fn readers_see_what_their_transaction_sees_and_a_second_process_that_appends_is_told_who_does() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    let db = Db::open(&file);
    db.does(
        "PRAGMA journal_mode = WAL; CREATE VIRTUAL TABLE events USING littoral_log(n); INSERT INTO events VALUES (1)",
    );
    let other = Db::open(&file);
    other.does("BEGIN");
    assert_eq!(other.rows("SELECT n FROM events").len(), 1);
    db.does("INSERT INTO events VALUES (2)");
    db.does("BEGIN; INSERT INTO events VALUES (3)");
    assert_eq!(db.rows("SELECT n FROM events").len(), 3, "its own");
    assert_eq!(other.rows("SELECT n FROM events").len(), 1, "as of its transaction");
    other.does("COMMIT");
    assert_eq!(other.rows("SELECT n FROM events").len(), 2, "what is committed");
    db.does("COMMIT");
    other.does("INSERT INTO events VALUES (4)");
    assert_eq!(db.rows("SELECT n FROM events ORDER BY lsn").len(), 4, "both connections of a process append");
    // Another process reads, and is told who appends.
    let mut command: Command = rig.command(BINARY);
    let done = command.args([
        "shell",
        &rig.text("app.db"),
        "SELECT 'seen', count(*) FROM events",
        "INSERT INTO events VALUES (5)",
    ]);
    let done = done.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(
        out.contains('4') && err.contains("appends to this log") && err.contains(&std::process::id().to_string()),
        "{out}{err}"
    );
    // As soon as no connection has the table any more, it may.
    drop((db, other));
    shell(&rig, &["INSERT INTO events VALUES (5)"]);
    assert_eq!(Db::open(&file).rows("SELECT n FROM events").len(), 5);
}

#[test]
fn p11_a_database_that_counts_rows_which_its_log_does_not_have_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let db = Db::open(&file);
    db.does("CREATE VIRTUAL TABLE events USING littoral_log(n); INSERT INTO events VALUES (1), (2)");
    db.does("UPDATE littoral_logs SET last = 7");
    let read = db.runtime.block_on(async {
        let mut rows = db.conn.query("SELECT * FROM events", ()).await?;
        rows.next().await.map(drop)
    });
    let refused = read.unwrap_err().to_string();
    assert!(refused.contains("ends at LSN 2") && refused.contains("up to LSN 7"), "{refused}");
    db.refuses("INSERT INTO events VALUES (3)", &["ends at LSN 2", "restore"]);
}

#[test]
fn a_cursor_is_moved_by_the_transaction_that_did_what_it_stands_for_and_keeps_what_it_has_not_done() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    let db = Db::open(&file);
    db.does(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE VIRTUAL TABLE events USING littoral_log(n, body)",
    );
    // Some segments.
    for _ in 0..10 {
        db.does("INSERT INTO events SELECT value, zeroblob(1 << 20) FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 20) SELECT value FROM c)");
    }
    db.does("CREATE TABLE done(lsn INTEGER PRIMARY KEY, n)");
    assert_eq!(db.number("SELECT littoral_log_cursor('events', 'sums')"), 0);
    let next = "INSERT INTO done SELECT lsn, n FROM events WHERE lsn > littoral_log_cursor('events', 'sums') ORDER BY lsn LIMIT 30";
    // Rolled back, it was not done.
    db.does(&format!(
        "BEGIN; {next}; SELECT littoral_log_ack('events', 'sums', (SELECT max(lsn) FROM done)); ROLLBACK"
    ));
    assert_eq!(db.number("SELECT littoral_log_cursor('events', 'sums')"), 0);
    for _ in 0..3 {
        db.does(&format!(
            "BEGIN; {next}; SELECT littoral_log_ack('events', 'sums', (SELECT max(lsn) FROM done)); COMMIT"
        ));
    }
    assert_eq!(db.number("SELECT littoral_log_cursor('events', 'sums')"), 90);
    assert_eq!(db.number("SELECT count(*) FROM done WHERE n IS (lsn - 1) % 20 + 1"), 90, "each once");
    db.refuses("SELECT littoral_log_ack('events', 'sums', 201)", &["201", "beyond"]);
    let log = rig.path(".littoral/logs/app.db/events").display().to_string();
    // A log that is no table's may have a volume, which lets go first.
    rig.run(["log", "create", "plain"]).succeeds();
    let plain = rig.text("plain");
    db.refuses(
        &format!("SELECT littoral_log_truncate('{plain}', 1)"),
        &["no table's log", &format!("littoral log truncate {plain}")],
    );
    // The command line sees it, may not move it, and has cursors of its own.
    let listed = rig.run(["log", "cursors", "list", &log]).succeeds().stdout.clone();
    assert!(listed.contains("sums") && listed.contains("90") && listed.contains("app.db"), "{listed}");
    rig.run(["log", "cursors", "ack", &log, "sums", "95"]).fails(3, &["app.db"]);
    rig.run(["log", "cursors", "create", &log, "files", "--acked", "70"]).succeeds();
    rig.run(["log", "cursors", "ack", &log, "nobody", "1"]).fails(5, &["nobody"]);
    // Nothing goes that has not been acknowledged: of segments of some sixty records, the first one.
    let begins = db.number("SELECT littoral_log_truncate('events', 190)");
    assert!(begins > 1 && begins <= 71, "{begins}");
    assert_eq!(db.number("SELECT min(lsn) FROM events"), begins);
    rig.run(["log", "cursors", "ack", &log, "files", "200"]).succeeds();
    let begins = db.number("SELECT littoral_log_truncate('events', 190)");
    assert!(begins <= 91, "{begins}: the database's own holds it");
    let begins = db.number("SELECT littoral_log_truncate('events', 190, 'past-cursors')");
    assert!(begins > 91, "{begins}");
    rig.run(["log", "cursors", "drop", &log, "files"]).succeeds();
    db.number("SELECT littoral_log_drop_cursor('events', 'sums')");
    assert!(rig.run(["log", "cursors", "list", &log]).succeeds().stdout.contains("no cursors"));
    // Which of its records are rows the database says: it travels with that, and never alone.
    drop(db);
    rig.run(["log", "ship", &log, "--remote", &rig.url("logs")]).succeeds();
    assert!(rig.path("logs").join("app.db").exists() && rig.path("logs").join("app.db.events").exists());
    rig.run(["log", "append", &log, "--create"]).fails(3, &["is a database's table"]);
}

#[test]
fn of_a_log_that_is_no_tables_sql_counts_what_was_not_rolled_back_and_a_database_s_cursor_stands_where_it_stood() {
    let rig = Rig::new();
    let remote = rig.url("logs");
    rig.run(["log", "create", "plain", "--remote", &remote]).succeeds();
    std::fs::write(rig.path("input"), "x\n".repeat(20)).unwrap();
    rig.run(["log", "append", "plain", "input"]).succeeds();
    let db = Db::open(&rig.path("app.db"));
    let plain = rig.text("plain");
    db.does("PRAGMA journal_mode = WAL");
    assert_eq!(db.number(&format!("SELECT littoral_log_cursor('{plain}', 'sums', 15)")), 15);
    rig.run(["log", "truncate", "plain", "--after", "10"])
        .fails(3, &["cursor sums is done up to LSN 15", "--past-cursors"]);
    rig.run(["log", "truncate", "plain", "--after", "10", "--past-cursors"]).succeeds();
    let said = format!("SELECT rows, first, last, void FROM littoral_log_stats('{plain}')");
    assert_eq!(db.rows(&said), ["Integer(10) | Integer(1) | Integer(20) | Integer(10)"]);
    assert_eq!(db.number(&format!("SELECT littoral_log_cursor('{plain}', 'sums')")), 15);
    rig.run(["log", "append", "plain", "input"]).succeeds();
    assert_eq!(db.rows(&said), ["Integer(30) | Integer(1) | Integer(40) | Integer(10)"]);
    assert_eq!(db.number(&format!("SELECT littoral_log_ack('{plain}', 'sums', 35)")), 35);
    // What is not there yet is cut off: what it has done of that it has to let go of itself.
    assert!(rig.crash("carry.walked", ["log", "append", "plain", "input"]));
    assert_eq!(db.number(&format!("SELECT littoral_log_ack('{plain}', 'sums', 55)")), 55);
    assert_eq!(db.number(&format!("SELECT littoral_log_cursor('{plain}', 'sums')")), 55, "and the folder is told");
    let refused = rig.run(["log", "truncate", "plain", "--after", "30", "--past-cursors"]);
    refused.fails(3, &["app.db is done up to LSN 55", "littoral_log_drop_cursor", "Nothing was changed"]);
    assert_eq!(db.number(&format!("SELECT littoral_log_drop_cursor('{plain}', 'sums')")), 55);
    rig.run(["log", "truncate", "plain", "--after", "30", "--past-cursors"]).succeeds();
    assert_eq!(db.rows(&said), ["Integer(20) | Integer(1) | Integer(40) | Integer(20)"]);
}
