//! Replicas, in real processes with the SQLite that Python has: one machine writes, others follow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::told::{CANTOPEN, ERROR, READONLY, Rig};
use littoral_hosts::{Place, built, command, python, room};
use littoral_test_s3::S3Server;
use littoral_test_s3::network::Proxy;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// `SQLITE_BUSY`.
const BUSY: i64 = 5;

/// A process on a machine, with connections.
struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Machines around one object store.
struct World {
    place: Place,
    remote: String,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        Self { remote: place.remote(), place }
    }

    fn folder(&self, machine: &str) -> PathBuf {
        let folder = self.place.machine().parent().unwrap().join(machine);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn peer(&self, machine: &str) -> Peer {
        self.peer_with(machine, Vec::new())
    }

    fn peer_with(&self, machine: &str, environment: Vec<(&'static str, String)>) -> Peer {
        let mut command = self.place.host(python());
        command.envs(environment).env("AWS_EC2_METADATA_DISABLED", "true");
        command.current_dir(self.folder(machine)).arg(room().join("scripts/peer.py")).env("LITTORAL_LOG", "warn");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, ask, answers }
    }

    /// The database where it is written.
    fn writer(&self) -> String {
        format!("file:app.db?vfs=littoral&remote={}", self.remote)
    }

    /// A replica of it.
    fn replica(&self, more: &str) -> String {
        format!("file:replica.db?vfs=littoral&mode=ro&follow=1&volume=app.db&poll=50ms&remote={}{more}", self.remote)
    }
}

impl Peer {
    fn told(&mut self, asked: &Value) -> Value {
        writeln!(self.ask, "{asked}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{asked}: {error}: {line:?}"))
    }

    fn open(&mut self, conn: &str, uri: &str) {
        let told = self.told(&json!({"conn": conn, "open": uri}));
        assert_eq!(told, json!([]), "{uri}");
    }

    fn close(&mut self, conn: &str) {
        assert_eq!(self.told(&json!({"conn": conn, "close": true})), json!([]));
    }

    fn maybe(&mut self, conn: &str, sql: &str) -> Value {
        self.told(&json!({"conn": conn, "sql": sql}))
    }

    /// The rows.
    #[track_caller]
    fn ask(&mut self, conn: &str, sql: &str) -> Value {
        let told = self.maybe(conn, sql);
        assert!(told.is_array(), "{sql}: {told}");
        told
    }

    /// The one value.
    #[track_caller]
    fn one(&mut self, conn: &str, sql: &str) -> Value {
        self.ask(conn, sql)[0][0].clone()
    }

    #[track_caller]
    fn denied(&mut self, conn: &str, sql: &str, code: i64, words: &[&str]) {
        let told = self.maybe(conn, sql);
        assert_eq!(told["code"], json!(code), "{sql}: {told}");
        for word in words {
            assert!(told["text"].as_str().unwrap().contains(word), "{word:?}: {told}");
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A bank: whatever is transferred, the sum is the same in every state that was committed.
fn bank(writer: &mut Peer, uri: &str) {
    writer.open("w", uri);
    writer.ask("w", "PRAGMA journal_mode = WAL");
    writer.ask("w", "CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT, amount INTEGER, note TEXT)");
    writer.ask("w", "CREATE INDEX by_amount ON account(amount)");
    writer.ask(
        "w",
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO account SELECT i, 'owner ' || i, 1000, hex(randomblob(100)) FROM n",
    );
    writer.ask("w", "CREATE TABLE step(n INTEGER)");
    writer.ask("w", "INSERT INTO step VALUES (0)");
    writer.ask("w", "PRAGMA littoral_checkpoint");
}

/// A transfer; answers where the volume stands with it.
fn transfer(writer: &mut Peer, step: i64) -> String {
    writer.ask("w", "BEGIN");
    writer.ask("w", &format!("UPDATE account SET amount = amount - 7 WHERE id = {}", 1 + step * 37 % 2000));
    writer.ask(
        "w",
        &format!(
            "UPDATE account SET amount = amount + 7, note = hex(randomblob(90)) WHERE id = {}",
            1 + step * 91 % 2000
        ),
    );
    writer.ask("w", &format!("UPDATE step SET n = {step}"));
    writer.ask("w", "COMMIT");
    let how = if step % 7 == 0 { "littoral_checkpoint" } else { "littoral_sync" };
    writer.one("w", &format!("PRAGMA {how}")).as_str().unwrap().to_owned()
}

const SUM: &str = "SELECT sum(amount) || ' ' || count(*) FROM account";

#[test]
fn s18_processes_follow_each_transaction_sees_one_state_and_whoever_follows_may_be_killed() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let mut far: Vec<Peer> = ["far", "far", "farther"].iter().map(|machine| world.peer(machine)).collect();
    for (nth, peer) in far.iter_mut().enumerate() {
        // The second machine has little room.
        let uri = world.replica(if nth == 2 { "&quota=300kB" } else { "" });
        peer.open("short", &uri);
        peer.open("long", &uri);
    }
    let mut long = vec![None; far.len()];
    let mut killed = 0;
    for step in 1..=60 {
        let position = transfer(&mut writer, step);
        for (nth, peer) in far.iter_mut().enumerate() {
            // What was written elsewhere is read here.
            let shown = peer.one("short", &format!("SELECT littoral_wait('{position}', 20000)"));
            assert_eq!(shown, json!(position), "{step}");
            assert_eq!(peer.one("short", "SELECT n FROM step"), json!(step));
            assert_eq!(peer.one("short", SUM), json!("2000000 2000"));
            // Who reads for long sees what it began with.
            match long[nth] {
                None => {
                    peer.ask("long", "BEGIN");
                    long[nth] = Some((
                        step,
                        peer.one("long", "SELECT n FROM step"),
                        peer.one("long", "SELECT sum(amount * id) FROM account"),
                    ));
                }
                Some((began, ref n, ref sum)) => {
                    assert_eq!(peer.one("long", "SELECT n FROM step"), *n, "{step}");
                    assert_eq!(peer.one("long", "SELECT sum(amount * id) FROM account NOT INDEXED"), *sum, "{step}");
                    if step - began > 8 + nth as i64 * 5 {
                        assert_eq!(peer.ask("long", "PRAGMA integrity_check"), json!([["ok"]]));
                        peer.ask("long", "COMMIT");
                        long[nth] = None;
                    }
                }
            }
        }
        if step % 12 == 0 {
            // Whoever follows on the first machine dies in the middle of whatever it does.
            let follows = |peer: &mut Peer| {
                let sql = "SELECT value FROM littoral_status WHERE name = 'follower'";
                peer.one("short", sql) == json!("this process")
            };
            let nth = usize::from(!follows(&mut far[0]));
            let mut next = world.peer("far");
            let uri = world.replica("");
            next.open("short", &uri);
            next.open("long", &uri);
            std::mem::replace(&mut far[nth], next).kill();
            long[nth] = None;
            killed += 1;
        }
    }
    assert_eq!(killed, 5);
    for peer in &mut far {
        assert_eq!(peer.ask("short", "PRAGMA integrity_check"), json!([["ok"]]));
        assert_eq!(peer.ask("short", "PRAGMA journal_mode"), json!([["delete"]]));
        let lag: Value = serde_json::from_str(peer.one("short", "SELECT littoral_lag()").as_str().unwrap()).unwrap();
        assert_eq!((&lag["lsns"], &lag["trouble"]), (&json!(0), &Value::Null), "{lag}");
        assert!(lag["seconds"].as_f64().unwrap() < 20.0, "{lag}");
    }
    // A replica's pins, journals and locks leave nothing where SQLite would look.
    for machine in ["far", "farther"] {
        let names =
            fs::read_dir(world.folder(machine)).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        assert_eq!(names, [".littoral", "replica.db"]);
        let refused = command("sqlite3")
            .arg(world.folder(machine).join("replica.db"))
            .arg("SELECT 1 FROM account")
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not a database"), "{refused:?}");
    }
}

#[test]
fn s18_readers_that_are_killed_at_any_moment_leave_a_replica_that_others_read_right() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let hammer = |quota: &str| {
        let mut command = world.place.host(python());
        command.current_dir(world.folder("far")).arg(room().join("scripts/hammer.py")).arg(world.replica(quota));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let quotas = ["&quota=400kB", "&quota=400kB", "", "&quota=2MB"];
    let mut hammers: Vec<Child> = quotas.iter().map(|quota| hammer(quota)).collect();
    let mut killed = 0;
    for step in 1..=150 {
        transfer(&mut writer, step);
        for (nth, child) in hammers.iter_mut().enumerate() {
            if let Some(ended) = child.try_wait().unwrap() {
                let mut why = String::new();
                child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
                panic!("{ended}: {why}");
            }
            // Whoever it is, in the middle of whatever it does.
            if (step * 7 + nth as i64 * 3) % 13 == 0 {
                child.kill().unwrap();
                child.wait().unwrap();
                *child = hammer(quotas[nth]);
                killed += 1;
            }
        }
    }
    assert!(killed > 30, "{killed}");
    let position = writer.one("w", "PRAGMA littoral_sync").as_str().unwrap().to_owned();
    let mut far = world.peer("far");
    far.open("a", &world.replica(""));
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}', 30000)")), json!(position));
    assert_eq!((far.one("a", "SELECT n FROM step"), far.one("a", SUM)), (json!(150), json!("2000000 2000")));
    let mut steps = 0;
    for mut child in hammers {
        child.kill().unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        steps += String::from_utf8_lossy(&done.stdout).lines().count();
    }
    assert!(steps > 10, "{steps}");
    assert_eq!(far.ask("a", "PRAGMA integrity_check"), json!([["ok"]]));
}

#[test]
fn a_statement_that_runs_on_keeps_its_state_while_the_replica_moves_on_by_far() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let mut far = world.peer("far");
    far.open("a", &world.replica(""));
    far.open("b", &world.replica(""));
    far.ask("a", "BEGIN");
    // One page of it; the others are fetched when the volume has long moved on.
    assert_eq!(far.one("a", "SELECT n FROM step"), json!(0));
    writer.ask("w", "DELETE FROM account WHERE id > 100");
    writer.ask("w", "VACUUM");
    writer.ask("w", "PRAGMA littoral_checkpoint");
    writer.ask("w", "CREATE TABLE other AS SELECT hex(randomblob(2000)) AS x FROM account");
    writer.ask("w", "ALTER TABLE account ADD COLUMN more TEXT");
    let position = writer.one("w", "PRAGMA littoral_checkpoint");
    let position = position.as_str().unwrap();
    assert_eq!(far.one("b", &format!("SELECT littoral_wait('{position}')")), json!(position));
    assert_eq!(far.one("b", "SELECT count(*) || ' ' || count(more) FROM account"), json!("100 0"));
    assert_eq!(far.one("b", "SELECT count(*) FROM other"), json!(100));
    assert_eq!(far.one("a", SUM), json!("2000000 2000"));
    assert_eq!(far.ask("a", "PRAGMA integrity_check"), json!([["ok"]]));
    // It is told that it would not see it.
    far.denied(
        "a",
        &format!("SELECT littoral_wait('{position}', 1000)"),
        ERROR,
        &["in a read transaction that shows 1.", "end it"],
    );
    let lag: Value = serde_json::from_str(far.one("a", "SELECT littoral_lag()").as_str().unwrap()).unwrap();
    assert!(lag["lsns"].as_u64().unwrap() > 0 && lag["newest"] == json!(position), "{lag}");
    far.ask("a", "COMMIT");
    assert_eq!(far.one("a", "SELECT count(*) FROM other"), json!(100));
    far.close("a");
    far.close("b");
    // Closed and opened again, with what is here.
    far.open("a", &world.replica(""));
    assert_eq!(far.one("a", "SELECT count(*) FROM other"), json!(100));
}

#[test]
fn a_takeover_is_followed_and_what_it_cut_off_is_never_waited_for_in_vain() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let mut far = world.peer("far");
    far.open("a", &world.replica(""));
    let position = transfer(&mut writer, 1);
    let lsn: u64 = position.strip_prefix("1.").unwrap().parse().unwrap();
    far.denied("a", &format!("SELECT littoral_wait('1.{}', 50)", lsn + 2), BUSY, &["is not shown here after 50 ms"]);
    let mut next = world.peer("next");
    next.open("w", &format!("{}&takeover=1", world.writer()));
    let taken = transfer(&mut next, 2);
    assert!(taken.starts_with("2."), "{taken}");
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{taken}')")), json!(taken));
    assert_eq!(far.one("a", "SELECT n FROM step"), json!(2));
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}')")), json!(taken));
    let began = Instant::now();
    far.denied(
        "a",
        &format!("SELECT littoral_wait('1.{}')", lsn + 2),
        ERROR,
        &["was cut off", "another writer took over"],
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// The requests that the object store sees, over a network that can be down, from a machine that may only read.
#[test]
fn p08_followers_ask_a_real_store_once_a_look_and_write_nothing() {
    let server = S3Server::shared();
    let world = World { remote: format!("s3://{}/x", server.bucket()), ..World::new() };
    let mut writer = world.peer_with("machine", server.env());
    bank(&mut writer, &format!("{}&sync_interval=off", world.writer()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let network = runtime.block_on(Proxy::start(server.authority(), Duration::from_millis(5), None));
    let environment: Vec<(&str, String)> = server
        .read_only_env()
        .into_iter()
        .map(|(name, value)| (name, if name == "AWS_ENDPOINT_URL_S3" { network.endpoint() } else { value }))
        .collect();
    let uri = world.replica("").replace("poll=50ms", "poll=250ms");
    let mut far: Vec<Peer> = (0..2).map(|_| world.peer_with("far", environment.clone())).collect();
    for peer in &mut far {
        peer.open("a", &uri);
        peer.open("b", &uri);
        assert_eq!(peer.one("a", SUM), json!("2000000 2000"));
        assert_eq!(peer.one("b", SUM), json!("2000000 2000"));
    }
    let (before, began) = (network.traffic(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let (after, looks) = (network.traffic(), began.elapsed().as_millis() as u64 / 250 + 1);
    let asked = after.reads - before.reads;
    assert!((4..=looks).contains(&asked), "{asked} requests in {looks} looks of two processes");
    assert_eq!(after.writes, 0, "a replica writes nothing");
    // News, and a network that goes away and comes back.
    let position = transfer(&mut writer, 1);
    assert_eq!(far[1].one("a", &format!("SELECT littoral_wait('{position}')")), json!(position));
    // What was read is here, for all processes.
    assert_eq!(far[1].one("a", "SELECT n FROM step"), json!(1));
    network.is_down(true);
    let position = transfer(&mut writer, 2);
    assert_eq!(far[0].one("a", "SELECT n FROM step"), json!(1));
    far[0].denied("a", &format!("SELECT littoral_wait('{position}', 300)"), BUSY, &["is not shown here"]);
    network.is_down(false);
    assert_eq!(far[0].one("a", &format!("SELECT littoral_wait('{position}', 60000)")), json!(position));
    assert_eq!(far[0].one("a", "SELECT n FROM step"), json!(2));
    assert_eq!(far[1].ask("a", "PRAGMA integrity_check"), json!([["ok"]]));
    assert_eq!(network.traffic().writes, 0);
}

#[test]
fn a_volume_that_was_forked_is_followed_as_any_other() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let url = format!("{}/app.db", world.remote);
    littoral_hosts::said(
        command(&built().littoral).current_dir(world.folder("machine")).args(["fork", &url, "branch"]),
    );
    let replica = world.replica("").replace("volume=app.db", "volume=branch");
    let mut far = world.peer("far");
    far.open("a", &replica);
    assert_eq!(far.one("a", SUM), json!("2000000 2000"));
    let mut child = world.peer("child");
    child.open("w", &format!("file:branch.db?vfs=littoral&volume=branch&remote={}", world.remote));
    child.ask("w", "DELETE FROM account WHERE id > 10");
    let position = child.one("w", "PRAGMA littoral_sync");
    let position = position.as_str().unwrap();
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}')")), json!(position));
    assert_eq!(far.one("a", SUM), json!("10000 10"));
    // The parent goes its own way.
    transfer(&mut writer, 1);
    assert_eq!(far.one("a", "SELECT n FROM step"), json!(0));
    assert_eq!(far.ask("a", "PRAGMA integrity_check"), json!([["ok"]]));
}

#[test]
fn s19_a_process_that_is_forked_holds_nothing_of_its_parents() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let script = "
import os, sqlite3, sys, time
loader = sqlite3.connect(':memory:'); loader.enable_load_extension(True); loader.load_extension(os.environ['EXTENSION'])
conn = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None)
conn.execute('BEGIN'); conn.execute('SELECT n FROM step').fetchall()
if os.fork() == 0:
    time.sleep(60); os._exit(0)
print('ready', flush=True)
time.sleep(60)
";
    let mut parent = world.place.host(python());
    let mut parent = parent
        .current_dir(world.folder("far"))
        .args(["-c", script, &world.replica("")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    parent.kill().unwrap();
    parent.wait().unwrap();
    // Its child lives, and neither follows nor reads.
    let mut far = world.peer("far");
    far.open("a", &world.replica(""));
    let position = transfer(&mut writer, 1);
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}', 20000)")), json!(position));
    let position = transfer(&mut writer, 2);
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}', 20000)")), json!(position));
    let value =
        |far: &mut Peer, name: &str| far.one("a", &format!("SELECT value FROM littoral_status WHERE name = '{name}'"));
    assert_eq!(value(&mut far, "follower"), json!("this process"));
    let began = Instant::now();
    while value(&mut far, "oldest_record") != value(&mut far, "record") {
        assert!(began.elapsed() < Duration::from_secs(20), "a dead process reads");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_way_out() {
    let rig = Rig::published();
    let follow = "&follow=1&volume=app.db";
    let replica = |more: &str| rig.uri("replica.db", &format!("{follow}&mode=ro{more}"));
    // Not for reading alone, and nothing to follow.
    rig.ask_uri(&rig.uri("replica.db", follow), &[]).refused(&["only read", "mode=ro&follow=1"]);
    rig.ask_uri(&rig.uri("replica.db", "&follow=1&mode=ro&volume=nobody"), &[])
        .refused(&["no Littoral volume", "volume="]);
    rig.ask_uri(&rig.uri("replica.db", "&follow=1&mode=ro&remote=file:///nowhere/at/all"), &[]).refused(&["/nowhere"]);
    rig.ask_uri(&replica("&poll=1ms"), &[]).refused(&["poll", "20ms at least"]);
    rig.ask_uri(&rig.uri("replica.db", "&follow=perhaps&mode=ro"), &[]).refused(&["follow", "on or off"]);
    rig.ask_uri(&replica("&at=-5m"), &[]).refused(&["at=", "follow=", "leave out"]);
    rig.ask_uri(&replica("&nolock=1"), &[]).refused(&["nolock", "leave out"]);
    rig.ask_uri(&replica("&immutable=1"), &[]).refused(&["immutable", "leave out"]);
    assert!(!rig.place.machine().join("replica.db").exists(), "nothing was made");
    // What is written here is not followed, and other files are not replaced.
    rig.ask_uri(&rig.uri("app.db", "&follow=1&mode=ro"), &[]).refused(&["written here", "another path"]);
    fs::write(rig.place.machine().join("mine.db"), "mine").unwrap();
    rig.ask_uri(&rig.uri("mine.db", &format!("{follow}&mode=ro")), &[]).refused(&["is not replaced", "another path"]);
    assert_eq!(fs::read(rig.place.machine().join("mine.db")).unwrap(), b"mine");
    // One that follows, and what it does not do.
    let told = rig.ask_uri(
        &replica(""),
        &[
            "SELECT count(*) FROM t",
            "PRAGMA littoral_checkpoint",
            "PRAGMA littoral_snapshot = 'x'",
            "SELECT littoral_wait('soon')",
            "SELECT littoral_wait('1.99', 30)",
            "PRAGMA littoral_wait = '1.1'",
        ],
    );
    told.answered(0, &json!([[300]]));
    told.answered(5, &json!([["1.2"]]));
    let denied = |nth: usize, code: i64, word: &str| {
        let wrong = told.answers[nth].as_ref().unwrap_err();
        assert!(wrong.code == code && wrong.text.contains(word), "{nth}: {told:?}");
    };
    denied(1, READONLY, "is a replica");
    denied(2, READONLY, "is a replica");
    denied(3, ERROR, "epoch.lsn");
    denied(4, BUSY, "is not shown here after 30 ms");
    let told = rig.ask_uri(&replica(""), &["INSERT INTO t VALUES (9)"]);
    assert_eq!(told.answers[0].as_ref().unwrap_err().code, READONLY);
    // Taken for something else, or made to follow another volume.
    rig.ask_uri(&rig.uri("replica.db", ""), &[]).refused(&["is a replica", "mode=ro&follow=1"]);
    rig.ask_uri(&rig.uri("replica.db", "&follow=1&mode=ro&volume=other"), &[]).refused(&["is a replica of", "delete"]);
    // Where nobody follows there is no lag.
    let told = rig.ask("", &["SELECT littoral_lag()", "SELECT littoral_wait('1.1')", "SELECT littoral_wait('7.1')"]);
    told.answered(1, &json!([["1.2"]]));
    told.denied(2, ERROR, &["another term", "littoral_terms"]);
    let all = rig.everything();
    let written = all.keys().filter(|path| path.to_string_lossy().contains("replica.db-")).count();
    assert_eq!(written, 0, "{:?}", all.keys());
}

#[test]
fn a_volume_that_vanishes_keeps_nobody_from_what_is_here() {
    let world = World::new();
    let mut writer = world.peer("machine");
    bank(&mut writer, &world.writer());
    let mut far = world.peer("far");
    far.open("a", &world.replica(""));
    let sum = far.one("a", SUM);
    let (remote, aside) = (world.folder("remote"), world.folder("machine").parent().unwrap().join("aside"));
    fs::rename(&remote, &aside).unwrap();
    let trouble = |far: &mut Peer| far.one("a", "SELECT value FROM littoral_status WHERE name = 'trouble'");
    let began = Instant::now();
    while trouble(&mut far).is_null() {
        assert!(began.elapsed() < Duration::from_secs(30), "it is not noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(far.one("a", SUM), sum);
    // Opened again meanwhile, what is here is read.
    far.close("a");
    far.open("a", &world.replica(""));
    assert_eq!(far.one("a", SUM), sum);
    fs::rename(&aside, &remote).unwrap();
    let position = transfer(&mut writer, 1);
    assert_eq!(far.one("a", &format!("SELECT littoral_wait('{position}')")), json!(position));
    assert_eq!(trouble(&mut far), Value::Null);
    // One that nobody ever opened cannot be opened then.
    fs::rename(&remote, &aside).unwrap();
    let told = world.peer("other").told(&json!({"conn": "a", "open": world.replica("")}));
    assert_eq!(told["code"], json!(CANTOPEN), "{told}");
}
