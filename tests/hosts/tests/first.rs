//! What an opening finds: a database that nothing binds to the volume of its name, a connection that keeps all others out, another
//! checkpoint under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built};
use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Starts a shell on `app.db` through the VFS. Each line is an argument of its own, so that some may be the shell's commands.
fn shell(place: &Place, parameters: &str, sql: &str) -> Child {
    let open = format!("file:app.db?vfs=littoral&remote={}{parameters}", place.remote());
    let mut command: Command = place.host("sqlite3");
    command.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
    command.args(["-cmd", &format!(".open {open}"), ":memory:"]).args(sql.lines());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(place: &Place, parameters: &str, sql: &str) -> Output {
    shell(place, parameters, sql).wait_with_output().unwrap()
}

fn told(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

fn good(place: &Place, sql: &str) -> String {
    let done = run(place, "", sql);
    assert!(done.status.success() && done.stderr.is_empty(), "{sql}: {}", told(&done));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn p14_a_database_that_nothing_binds_to_the_volume_of_its_name_is_refused_when_it_is_opened() {
    let place = Place::new();
    good(&place, "CREATE TABLE t(a); INSERT INTO t VALUES (1); PRAGMA littoral_checkpoint;");
    place.lose_machine();
    // Another database of that name, and nothing says that the two belong together.
    place.stock("app.db", "CREATE TABLE mine(a); INSERT INTO mine VALUES (7)");
    let before = fs::read(place.machine().join("app.db")).unwrap();
    let refused = run(&place, "", "SELECT littoral_last_error();");
    let why = told(&refused);
    assert!(why.contains("exists already") && why.contains("takeover=1"), "{why}");
    assert_eq!(place.files(), ["app.db"], "nothing is bound");
    assert!(fs::read(place.machine().join("app.db")).unwrap() == before);
    // Every choice that it names is one.
    assert_eq!(told(&run(&place, "&volume=other", "SELECT * FROM mine;")).trim(), "7");
    let taken = told(&run(&place, "&takeover=1", "PRAGMA littoral_checkpoint;"));
    assert!(taken.starts_with("2."), "{taken}");
    assert_eq!(good(&place, "SELECT * FROM mine;").trim(), "7", "bound by now");
}

#[test]
fn a_database_that_is_here_is_opened_though_its_remote_cannot_be_asked() {
    let place = Place::new();
    place.stock("app.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let mut command = place.host("sqlite3");
    command.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
    command.args([
        "-cmd",
        ".open file:app.db?vfs=littoral&remote=s3://bucket/prefix&endpoint=http://127.0.0.1:1",
        ":memory:",
    ]);
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    command.arg("SELECT a FROM t; SELECT value FROM littoral_status WHERE name = 'last_error';");
    let done = command.output().unwrap();
    let told = told(&done);
    assert!(told.starts_with("1\n") && told.contains("cannot be asked"), "{told}");
}

#[test]
fn a_connection_that_keeps_all_others_out_is_told_so_at_once() {
    let place = Place::new();
    good(&place, "PRAGMA journal_mode = WAL; CREATE TABLE t(a);");
    for mode in ["WAL", "DELETE"] {
        let since = Instant::now();
        let done = run(
            &place,
            "",
            &format!(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = {mode}; INSERT INTO t VALUES (1); PRAGMA littoral_checkpoint;"
            ),
        );
        let why = told(&done);
        assert!(why.contains("keeps every other one out") && why.contains("locking_mode=NORMAL"), "{mode}: {why}");
        assert!(since.elapsed() < Duration::from_secs(4), "{mode}: it waited for itself");
    }
    let sql = "PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES (1); PRAGMA locking_mode = NORMAL; SELECT count(*) FROM t; \
               PRAGMA littoral_checkpoint;";
    assert!(good(&place, sql).contains("1."), "the way out that it names is one");
}

#[test]
fn checkpoints_that_are_asked_for_at_once_follow_one_another() {
    let place = Place::new();
    good(&place, "PRAGMA journal_mode = WAL; CREATE TABLE t(a, b); PRAGMA littoral_checkpoint;");
    let sql = |nth: u32| {
        format!(
            "PRAGMA busy_timeout = 20000; INSERT INTO t VALUES ({nth}, randomblob(200000)); SELECT '@' || littoral_checkpoint();"
        )
    };
    let running: Vec<Child> = (0..6).map(|nth| shell(&place, "", &sql(nth))).collect();
    for one in running {
        let done = one.wait_with_output().unwrap();
        assert!(done.status.success() && told(&done).contains("@1."), "{}", told(&done));
    }
    place.lose_machine();
    assert_eq!(good(&place, "SELECT count(*) FROM t;").trim(), "6");
}

#[test]
fn status_tells_of_a_database_that_somebody_writes_and_of_one_that_is_not_all_here() {
    let place = Place::new();
    good(
        &place,
        "PRAGMA journal_mode = WAL; CREATE TABLE t(a, b); WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
         INSERT INTO t SELECT i, randomblob(400) FROM n; PRAGMA littoral_checkpoint;",
    );
    let status = |more: &[&str]| {
        let mut command = littoral_hosts::command(&built().littoral);
        command.current_dir(place.machine()).args(["status", "app.db", "--remote", &place.remote()]).args(more);
        littoral_hosts::said(&mut command)
    };
    assert!(status(&[]).contains("no commit was counted"), "{}", status(&[]));
    let cli = format!("{} status app.db --remote {}", built().littoral.display(), place.remote());
    // While the shell has it open, and its commits are in the WAL alone.
    let told = good(
        &place,
        &format!("INSERT INTO t VALUES (1, 2); INSERT INTO t VALUES (3, 4);\n.system {cli}\nSELECT 'still here';"),
    );
    assert!(told.contains("since     2 commits, "), "{told}");
    assert!(told.trim_end().ends_with("still here"), "{told}");
    place.lose_machine();
    good(&place, "SELECT length(b) FROM t WHERE a = 17;");
    let told = status(&["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let (here, pages) = (told["sparse"]["pages_here"].as_u64().unwrap(), told["sparse"]["pages"].as_u64().unwrap());
    assert!(here > 0 && here <= pages && pages > 500, "{told}");
    assert!(status(&[]).contains("are here, of 1."), "{}", status(&[]));
}
