//! Named sessions (rule P10, invariant I11): who they are, what serials are kept of them, and that each goes on exactly where the state
//! that it finds ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, python, room, said};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A process with connections, which does what it is told.
struct Peer {
    child: Child,
    told: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn new(place: &Place) -> Self {
        let mut python = place.host(python());
        python.arg(room().join("scripts/peer.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let (told, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, told, answers }
    }

    fn tell(&mut self, what: &Value) -> Value {
        self.say(what);
        self.hear()
    }

    fn say(&mut self, what: &Value) {
        writeln!(self.told, "{what}").unwrap();
        self.told.flush().unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn open(&mut self, name: &str, uri: &str) {
        assert_eq!(self.tell(&json!({ "conn": name, "open": uri })), json!([]));
    }

    fn ask(&mut self, name: &str, sql: &str) -> Value {
        self.tell(&json!({ "conn": name, "sql": sql }))
    }

    /// The first value of the first row.
    fn one(&mut self, name: &str, sql: &str) -> Value {
        let answer = self.ask(name, sql);
        answer.get(0).and_then(|row| row.get(0)).cloned().unwrap_or_else(|| panic!("{sql}: {answer}"))
    }

    /// What a statement that must fail says.
    fn refused(&mut self, name: &str, sql: &str) -> String {
        let answer = self.ask(name, sql);
        answer["text"].as_str().unwrap_or_else(|| panic!("{sql} was not refused: {answer}")).to_owned()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn uri(place: &Place, more: &str) -> String {
    let file = place.machine().join("app.db");
    format!("file:{}?vfs=littoral&volume=app.db&remote={}{more}", file.display(), place.remote())
}

fn url(place: &Place) -> String {
    format!("{}/app.db", place.remote())
}

fn littoral(place: &Place, arguments: &[&str]) -> Command {
    let mut littoral = command(&built().littoral);
    littoral.current_dir(place.machine()).args(arguments);
    littoral
}

fn told(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(littoral(place, arguments).arg("--json"))).unwrap()
}

/// What a command says that must fail.
fn complaint(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(!done.status.success(), "{command:?} was not refused");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// The recorded serials of a state.
fn recorded(place: &Place, at: Option<&str>) -> BTreeMap<String, u64> {
    let url = url(place);
    let mut arguments = vec!["sessions", &url];
    arguments.extend(at.iter().flat_map(|at| ["--at", at]));
    let told = told(place, &arguments);
    let sessions = told["sessions"].as_array().unwrap();
    sessions
        .iter()
        .map(|row| (row["session"].as_str().unwrap().to_owned(), row["durable_serial"].as_u64().unwrap()))
        .collect()
}

const MAKE: &str = "PRAGMA journal_mode = WAL";
const TABLE: &str = "CREATE TABLE done(session TEXT, n INTEGER, what TEXT)";

#[test]
fn p10_a_session_is_one_connections_alone_and_whoever_else_wants_it_is_told_whose_it_is() {
    let place = Place::new();
    let (mut one, mut other) = (Peer::new(&place), Peer::new(&place));
    one.open("a", &uri(&place, ""));
    one.ask("a", MAKE);
    assert_eq!(one.one("a", "SELECT littoral_serial()"), "unknown", "a connection without a name only counts");
    assert_eq!(one.one("a", "PRAGMA littoral_session='worker-7'"), "worker-7");
    assert_eq!(one.one("a", "PRAGMA littoral_session"), "worker-7");
    assert_eq!(one.one("a", "SELECT littoral_serial()"), Value::Null, "nothing was done yet");
    let pid = one.child.id();
    // Another process, and another connection of this one.
    other.open("b", &uri(&place, ""));
    let why = other.refused("b", "PRAGMA littoral_session='worker-7'");
    assert!(why.contains(&format!("session worker-7 is held by process {pid}")), "{why}");
    one.open("c", &uri(&place, ""));
    let why = one.refused("c", "PRAGMA littoral_session='worker-7'");
    assert!(why.contains(&format!("held by process {pid} (this one)")), "{why}");
    assert_eq!(other.one("b", "PRAGMA littoral_session='worker-8'"), "worker-8");
    let held = other.ask("b", "SELECT session, holder FROM littoral_sessions");
    let other_pid = other.child.id();
    assert_eq!(
        held,
        json!([["worker-7", format!("process {pid}")], ["worker-8", format!("process {other_pid} (this one)")]])
    );
    // It is free when its connection becomes another one, is closed, or dies with its process.
    one.ask("a", "PRAGMA littoral_session='worker-9'");
    assert_eq!(other.one("b", "PRAGMA littoral_session='worker-7'"), "worker-7");
    assert_eq!(one.one("c", "PRAGMA littoral_session='worker-8'"), "worker-8");
    one.tell(&json!({ "conn": "a", "close": true }));
    assert_eq!(one.one("c", "PRAGMA littoral_session='worker-9'"), "worker-9");
    other.kill();
    assert_eq!(one.one("c", "PRAGMA littoral_session='worker-7'"), "worker-7");
    let why = one.refused("c", "PRAGMA littoral_session='a\nb'");
    assert!(why.contains("not a session's name"), "{why}");
    assert_eq!(one.one("c", "PRAGMA littoral_session=''"), "", "none any more");
}

#[test]
fn p10_a_serial_belongs_into_its_transaction_and_goes_up() {
    let place = Place::new();
    let mut one = Peer::new(&place);
    one.open("a", &uri(&place, ""));
    one.ask("a", MAKE);
    one.ask("a", TABLE);
    one.ask("a", "BEGIN");
    let why = one.refused("a", "SELECT littoral_serial(1)");
    assert!(why.contains("no named session") && why.contains("PRAGMA littoral_session='NAME'"), "{why}");
    one.ask("a", "COMMIT");
    one.ask("a", "PRAGMA littoral_session='w'");
    let why = one.refused("a", "SELECT littoral_serial(1)");
    assert!(why.contains("BEGIN, do it, SELECT littoral_serial(1), COMMIT"), "{why}");
    assert_eq!(one.ask("a", "SELECT count(*) FROM sqlite_master WHERE name LIKE 'littoral%'"), json!([[0]]));
    let why = one.refused("a", "PRAGMA littoral_serial=1");
    assert!(why.contains("SELECT littoral_serial(1)"), "{why}");
    for (serial, ends) in [("5", "COMMIT"), ("6", "ROLLBACK"), ("9", "COMMIT")] {
        one.ask("a", "BEGIN");
        assert_eq!(one.one("a", &format!("SELECT littoral_serial({serial})")), json!(serial.parse::<u64>().unwrap()));
        one.ask("a", ends);
    }
    assert_eq!(one.one("a", "SELECT littoral_serial()"), 9);
    assert_eq!(one.one("a", "PRAGMA littoral_serial"), "9");
    one.ask("a", "BEGIN");
    one.ask("a", "INSERT INTO done VALUES ('w', 9, 'again')");
    for serial in ["9", "8"] {
        let why = one.refused("a", &format!("SELECT littoral_serial({serial})"));
        assert!(why.contains("session w is at serial 9") && why.contains(serial), "{why}");
    }
    for nonsense in ["-1", "'x'", "1.5", "NULL"] {
        let why = one.refused("a", &format!("SELECT littoral_serial({nonsense})"));
        assert!(why.contains("not a serial"), "{nonsense}: {why}");
    }
    // The application's own statements keep to the same rule.
    for sql in [
        "UPDATE littoral_serials SET serial = 9",
        "UPDATE littoral_serials SET serial = 3 WHERE session = 'w'",
        "INSERT OR REPLACE INTO littoral_serials VALUES ('w', 4)",
        "INSERT INTO littoral_serials VALUES ('w', 9) ON CONFLICT(session) DO UPDATE SET serial = excluded.serial",
    ] {
        let why = one.refused("a", sql);
        assert!(why.contains("a serial must be above the last one of its session"), "{sql}: {why}");
    }
    one.ask("a", "ROLLBACK");
    one.ask("a", "BEGIN");
    one.ask("a", "UPDATE littoral_serials SET serial = 12 WHERE session = 'w'");
    one.ask("a", "INSERT INTO littoral_serials VALUES ('other', 1)");
    one.ask("a", "COMMIT");
    assert_eq!(one.one("a", "SELECT littoral_serial()"), 12);
    assert_eq!(one.one("a", "SELECT littoral_durable_serial()"), Value::Null);
    one.ask("a", "PRAGMA littoral_checkpoint");
    assert_eq!(one.one("a", "SELECT littoral_durable_serial()"), 12);
    assert_eq!(one.one("a", "SELECT littoral_durable_serial('other')"), 1);
    assert_eq!(one.one("a", "SELECT littoral_durable_serial('nobody')"), Value::Null);
}

#[test]
fn p10_what_a_record_says_of_sessions_is_what_the_table_of_its_own_state_says() {
    // However the table was made, whatever it holds, and in whatever the database spells its text.
    let tables = [
        ("UTF-8", "CREATE TABLE littoral_serials(session TEXT PRIMARY KEY, serial INTEGER)"),
        ("UTF-8", "CREATE TABLE littoral_serials(session TEXT PRIMARY KEY, serial INTEGER) WITHOUT ROWID"),
        ("UTF-16le", "CREATE TABLE Littoral_Serials(session TEXT PRIMARY KEY, serial INTEGER)"),
        ("UTF-16be", "CREATE TABLE littoral_serials(session TEXT PRIMARY KEY, serial INTEGER) WITHOUT ROWID"),
    ];
    for (encoding, table) in tables {
        let place = Place::new();
        let mut one = Peer::new(&place);
        one.open("a", &uri(&place, ""));
        for sql in ["PRAGMA page_size = 512", &format!("PRAGMA encoding = '{encoding}'"), MAKE, TABLE] {
            one.ask("a", sql);
        }
        // A schema of more than one page, before and behind it.
        for nth in 0..30 {
            one.ask(
                "a",
                &format!(
                    "CREATE TABLE t{nth}(a INTEGER PRIMARY KEY, b TEXT DEFAULT 'a word or two, so that it is long')"
                ),
            );
            if nth == 14 {
                one.ask("a", table);
            }
        }
        one.ask("a", "PRAGMA littoral_checkpoint");
        // More of them than one page holds.
        one.ask(
            "a",
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
             INSERT INTO littoral_serials SELECT 'größe ' || i, i * 3 FROM n",
        );
        one.ask("a", "INSERT INTO littoral_serials VALUES ('no serial', NULL), ('neither', 'x'), ('nor', -4), ('', 3)");
        let first = one.one("a", "SELECT littoral_sync()").as_str().unwrap().to_owned();
        one.ask("a", "UPDATE littoral_serials SET serial = serial + 1 WHERE typeof(serial) = 'integer' AND serial % 2 = 0 AND serial > 0");
        one.ask("a", "DELETE FROM littoral_serials WHERE session = 'größe 7'");
        one.ask("a", "UPDATE littoral_serials SET serial = 1 WHERE session = 'größe 8'");
        let second = one.one("a", "SELECT littoral_sync()").as_str().unwrap().to_owned();
        one.ask("a", "VACUUM");
        one.ask("a", "UPDATE littoral_serials SET serial = 1000 WHERE session = 'größe 9'");
        one.ask("a", "PRAGMA littoral_checkpoint");
        let here = |one: &mut Peer| -> BTreeMap<String, u64> {
            let rows = one.ask("a", "SELECT session, serial FROM littoral_serials WHERE session LIKE 'gr%'");
            let rows = rows.as_array().unwrap();
            rows.iter().map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_u64().unwrap())).collect()
        };
        let now = here(&mut one);
        assert_eq!(recorded(&place, None), now, "{encoding}, {table}");
        assert_eq!((now.len(), now["größe 8"], now["größe 9"]), (199, 1, 1000));
        let before = recorded(&place, Some(&second));
        assert_eq!((before.len(), before["größe 8"], before["größe 9"], before["größe 2"]), (199, 1, 27, 7));
        let at_first = recorded(&place, Some(&first));
        assert_eq!((at_first.len(), at_first["größe 7"], at_first["größe 8"]), (200, 21, 24));
        drop(one);
        place.lose_machine();
        for at in [&first, &second] {
            said(&mut littoral(&place, &["restore", &url(&place), "back.db", "--force", "--at", at]));
        }
        said(&mut littoral(&place, &["verify", &url(&place)]));
    }
}

/// What a stock SQLite finds of each session in a restored file: how many operations, how many different ones, the last one, and the serial.
fn found(place: &Place, file: &str) -> Vec<(String, [u64; 4])> {
    let sql = "SELECT session, (SELECT count(*) FROM done d WHERE d.session = s.session), \
               (SELECT count(DISTINCT n) FROM done d WHERE d.session = s.session), \
               (SELECT max(n) FROM done d WHERE d.session = s.session), serial FROM littoral_serials s ORDER BY session";
    let rows = place.stock(file, sql);
    rows.lines()
        .map(|line| {
            let words: Vec<&str> = line.split('|').collect();
            (words[0].to_owned(), [1, 2, 3, 4].map(|at| words[at].parse().unwrap()))
        })
        .collect()
}

struct Consumer {
    session: String,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Consumer {
    fn begin(place: &Place, session: &str, last: u64, more: &str) -> Self {
        let mut python = place.host(python());
        python.arg(room().join("scripts/consumer.py")).arg(uri(place, more)).arg(session).arg(last.to_string());
        python.env_remove("LITTORAL_SYNC_INTERVAL");
        let mut child = python.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { session: session.to_owned(), child, lines }
    }

    /// Its next word, and the number behind it.
    fn word(&mut self) -> Option<(String, u64)> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let (word, number) = line.trim().split_once(' ')?;
        Some((word.to_owned(), number.parse().unwrap()))
    }

    fn until(&mut self, least: u64) {
        while let Some((_, done)) = self.word() {
            if done >= least {
                return;
            }
        }
        panic!("{} ended before {least}", self.session);
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn chance(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    usize::try_from(*seed >> 33).unwrap() % below
}

/// The seeds' `test_checkpoint_cpr_prefix_guarantee`, `test_concurrent_checkpoint_under_write_load`,
/// `test_multiple_concurrent_checkpoints`, `test_checkpoint_with_concurrent_reads` and `test_recovery_validates_serial_numbers`.
#[test]
fn i11_every_state_has_of_each_session_all_operations_up_to_its_serial_and_none_beyond_and_each_goes_on_exactly_once() {
    const LAST: u64 = 4000;
    let place = Place::new();
    let sessions = ["worker-0", "worker-1", "worker-2", "worker-3"];
    {
        let mut one = Peer::new(&place);
        one.open("a", &uri(&place, ""));
        one.ask("a", MAKE);
        one.ask("a", TABLE);
        one.ask("a", "CREATE INDEX by_session ON done(session, n)");
        one.ask("a", "PRAGMA littoral_checkpoint");
    }
    // They ship by themselves, others checkpoint and read meanwhile, and now and then one is killed and begun again.
    let every = "&sync_interval=100ms";
    let mut running: Vec<Consumer> = sessions.iter().map(|name| Consumer::begin(&place, name, LAST, every)).collect();
    let mut seed = 11;
    let mut reader = Peer::new(&place);
    reader.open("r", &uri(&place, "&sync_interval=off"));
    let mut generations = Vec::new();
    for round in 0..6 {
        for consumer in &mut running {
            // One that has done all of it has ended.
            if let Some((word, done)) = consumer.word()
                && word != "ends"
            {
                consumer.until((done + 60).min(LAST));
            }
        }
        let killed = running.remove(chance(&mut seed, running.len()));
        let name = killed.session.clone();
        killed.kill();
        let done = told(&place, &["checkpoint", "app.db", &format!("--remote={}", place.remote()), "--volume=app.db"]);
        generations.push(done["checkpoint"]["generation"].as_u64().unwrap_or_default());
        // A reader sees of each session a prefix, whatever is made meanwhile.
        let sql = "SELECT s.session, s.serial, count(*), max(n) FROM littoral_serials s JOIN done d USING (session) GROUP BY 1";
        for row in reader.ask("r", sql).as_array().unwrap() {
            assert!(row[1] == row[2] && row[1] == row[3], "round {round}: {row}");
        }
        running.push(Consumer::begin(&place, &name, LAST, every));
    }
    assert!(generations.windows(2).all(|pair| pair[0] < pair[1]), "versions go up: {generations:?}");
    // The machine dies.
    running.into_iter().for_each(Consumer::kill);
    reader.kill();
    let history = told(&place, &["history", &url(&place), "--limit", "2000"]);
    let points: Vec<String> = history["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["restorable"] == true && record["kind"] != "claim")
        .map(|record| record["position"].as_str().unwrap().to_owned())
        .collect();
    assert!(points.len() > 10, "too few states to choose from: {points:?}");
    place.lose_machine();
    // Somewhere else, at states that chance chooses, and at the newest.
    let mut chosen = vec![points[0].clone()];
    chosen.extend((0..9).map(|_| points[chance(&mut seed, points.len())].clone()));
    for at in &chosen {
        said(&mut littoral(&place, &["restore", &url(&place), "back.db", "--force", "--at", at]));
        let recorded = recorded(&place, Some(at));
        // Before the first of them the table may not be there.
        if recorded.is_empty() {
            continue;
        }
        let found = found(&place, "back.db");
        assert_eq!(found.len(), recorded.len(), "{at}");
        for (session, [count, distinct, last, serial]) in found {
            assert!(
                [count, distinct, last, serial] == [serial; 4] && recorded[&session] == serial,
                "{at}: {session} has {count} operations, {distinct} of them different, up to {last}, and is at {serial}; its record says {}",
                recorded[&session]
            );
        }
    }
    // The past can be asked, too, and so can whoever goes on: from where the newest state ends.
    let newest = recorded(&place, None);
    let mut one = Peer::new(&place);
    one.open("past", &uri(&place, &format!("&at={}", chosen[1])));
    let of_past = recorded(&place, Some(&chosen[1]));
    for name in sessions {
        assert_eq!(one.one("past", &format!("PRAGMA littoral_session='{name}'")), name);
        let expected = of_past.get(name).map_or(Value::Null, |serial| json!(serial));
        let serials = "SELECT count(*) FROM sqlite_master WHERE name = 'littoral_serials'";
        assert_eq!(one.one("past", "SELECT littoral_serial()"), expected, "{}", one.one("past", serials));
    }
    drop(one);
    let mut going: Vec<Consumer> = sessions
        .iter()
        .map(|name| Consumer::begin(&place, name, newest[*name] + 50, &format!("{every}&takeover=1")))
        .collect();
    for consumer in &mut going {
        let session = consumer.session.clone();
        assert_eq!(consumer.word(), Some(("resumes".to_owned(), newest[&session])), "{session}");
        while consumer.word().is_some_and(|(word, _)| word != "ends") {}
        assert!(consumer.child.wait().unwrap().success());
    }
    said(&mut littoral(&place, &["checkpoint", "app.db", &format!("--remote={}", place.remote()), "--volume=app.db"]));
    place.lose_machine();
    said(&mut littoral(&place, &["restore", &url(&place), "back.db"]));
    for (session, [count, distinct, last, serial]) in found(&place, "back.db") {
        assert_eq!([count, distinct, last, serial], [newest[&session] + 50; 4], "{session}: a gap, or a double");
    }
    said(&mut littoral(&place, &["verify", &url(&place)]));
}

/// The seeds' `test_wait_pending_timeout`.
#[test]
fn p10_a_checkpoint_that_is_kept_waiting_is_given_up_by_name_and_the_next_one_brings_all_of_it() {
    let place = Place::new();
    let mut one = Peer::new(&place);
    one.open("a", &uri(&place, ""));
    one.ask("a", "PRAGMA journal_mode = DELETE");
    one.ask("a", TABLE);
    one.ask("a", "PRAGMA littoral_checkpoint");
    one.ask("a", "PRAGMA littoral_session='worker-7'");
    one.ask("a", "BEGIN EXCLUSIVE");
    one.ask("a", "INSERT INTO done VALUES ('worker-7', 1, 'x')");
    one.ask("a", "SELECT littoral_serial(1)");
    let begun = Instant::now();
    let remote = format!("--remote={}", place.remote());
    let arguments = ["checkpoint", "app.db", &remote, "--volume=app.db", "--no-check"];
    let why = complaint(littoral(&place, &arguments).args(["--wait", "2"]));
    let pid = one.child.id();
    for word in ["given up in phase prepare", &format!("worker-7 is process {pid}"), "Nothing was published", "--wait"]
    {
        assert!(why.contains(word), "{word}: {why}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "it had patience");
    assert_eq!(recorded(&place, None), BTreeMap::new());
    assert_eq!(one.ask("a", "COMMIT"), json!([]), "whoever was waited for was kept from nothing");
    let done = told(&place, &arguments);
    assert_eq!(done["changed"], true);
    assert_eq!(recorded(&place, None), BTreeMap::from([("worker-7".to_owned(), 1)]));
}

/// The seeds' `test_wait_pending_drains_operations` and `test_checkpoint_thread_coordination`.
#[test]
fn p10_a_checkpoint_waits_for_the_commit_that_is_on_its_way_and_brings_it() {
    let place = Place::new();
    let mut one = Peer::new(&place);
    one.open("a", &uri(&place, ""));
    one.ask("a", "PRAGMA journal_mode = DELETE");
    one.ask("a", TABLE);
    one.ask("a", "PRAGMA littoral_checkpoint");
    one.ask("a", "PRAGMA littoral_session='worker-7'");
    one.ask("a", "BEGIN EXCLUSIVE");
    one.ask("a", "INSERT INTO done VALUES ('worker-7', 1, 'x')");
    one.ask("a", "SELECT littoral_serial(1)");
    let remote = format!("--remote={}", place.remote());
    let mut waiting = littoral(&place, &["checkpoint", "app.db", &remote, "--volume=app.db", "--no-check", "--json"]);
    let waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
    // Longer than what opens it waits, and shorter than a checkpoint's patience.
    std::thread::sleep(Duration::from_secs(22));
    one.ask("a", "COMMIT");
    let done = waiting.wait_with_output().unwrap();
    assert!(done.status.success());
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    let phases = done["checkpoint"]["phases"].as_array().unwrap();
    let words: Vec<&str> = phases.iter().map(|passed| passed["phase"].as_str().unwrap()).collect();
    assert_eq!(words, ["prepare", "in-progress", "wait-pending", "wait-flush"], "{done}");
    let who = phases[0]["waited_for"].as_str().unwrap();
    assert!(who.contains("worker-7 is process"), "{who}");
    assert_eq!(recorded(&place, None), BTreeMap::from([("worker-7".to_owned(), 1)]));
}

#[test]
fn p10_a_rewound_volume_begins_its_sessions_anew_and_a_fork_has_its_parents() {
    let place = Place::new();
    let remote = format!("--remote={}", place.remote());
    let mut positions = Vec::new();
    {
        let mut one = Peer::new(&place);
        one.open("a", &uri(&place, ""));
        one.ask("a", MAKE);
        one.ask("a", TABLE);
        one.ask("a", "PRAGMA littoral_session='w'");
        for n in 1..=5 {
            one.ask("a", "BEGIN");
            one.ask("a", &format!("INSERT INTO done VALUES ('w', {n}, 'x')"));
            one.ask("a", &format!("SELECT littoral_serial({n})"));
            one.ask("a", "COMMIT");
            positions.push(one.one("a", "SELECT littoral_sync()").as_str().unwrap().to_owned());
        }
    }
    let lsn = positions[1].split_once('.').unwrap().1;
    said(&mut littoral(&place, &["rewind", "app.db", "--to", lsn, &remote, "--volume=app.db"]));
    assert_eq!(recorded(&place, None)["w"], 2);
    assert_eq!(recorded(&place, Some(&positions[4]))["w"], 5, "the past stays as it was");
    {
        let mut one = Peer::new(&place);
        one.open("a", &uri(&place, ""));
        one.ask("a", "PRAGMA littoral_session='w'");
        assert_eq!(one.one("a", "SELECT littoral_serial()"), 2);
        assert_eq!(one.one("a", "SELECT littoral_durable_serial()"), 2);
        one.ask("a", "BEGIN");
        one.ask("a", "SELECT littoral_serial(3)");
        one.ask("a", "COMMIT");
        one.ask("a", "PRAGMA littoral_checkpoint");
    }
    said(&mut littoral(&place, &["fork", &format!("{}@{}", url(&place), positions[3]), "child"]));
    let child = told(&place, &["sessions", &format!("{}/child", place.remote())]);
    assert_eq!(child["sessions"][0]["durable_serial"], 4, "{child}");
    let position = child["sessions"][0]["position"].as_str().unwrap();
    assert!(position.starts_with("1."), "{position}");
    for volume in ["app.db", "child"] {
        said(&mut littoral(&place, &["verify", &format!("{}/{volume}", place.remote())]));
    }
    // Of a file also what is here, and who holds it.
    let of_file = told(&place, &["sessions", "app.db", &remote, "--volume=app.db"]);
    let row = &of_file["sessions"][0];
    assert_eq!(
        (&row["session"], &row["serial"], &row["durable_serial"]),
        (&json!("w"), &json!(3), &json!(3)),
        "{of_file}"
    );
    assert_eq!(row["holder"], Value::Null);
}
