//! Each host, as its users use it: open, write, checkpoint, lose the machine, restore, and the same rows are there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, QUESTION, ROWS, WRITTEN, built, command, program, python, room, said};
use littoral_test_s3::S3Server;
use std::fs;
use std::process::Command;

fn comes_back(place: &Place, volume: &str) {
    place.lose_machine();
    place.restore(volume, "back.db");
    assert_eq!(place.stock("back.db", QUESTION), WRITTEN);
}

fn shell(place: &Place, script: &str) -> String {
    let script = fs::read_to_string(room().join("scripts").join(script)).unwrap();
    let script =
        script.replace("${EXTENSION}", built().extension.to_str().unwrap()).replace("${REMOTE}", &place.remote());
    fs::write(place.machine().join("script.sql"), script).unwrap();
    said(place.host("sqlite3").args(["-batch", "-cmd", ".read script.sql", ":memory:", ""]))
}

#[test]
fn the_sqlite3_shell() {
    let place = Place::new();
    let told = shell(&place, "shell.sql");
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[0], "wal", "{told:?}");
    assert!(told[1].starts_with("1."), "{told:?}");
    assert_eq!(told[2..], ["1", "1", "1"], "{told:?}");
    comes_back(&place, "app.db");
}

#[test]
fn the_shells_backup_and_restore_and_vacuum_into() {
    let place = Place::new();
    shell(&place, "copies.sql");
    for copy in ["backup.db", "vacuumed.db"] {
        assert_eq!(place.stock(copy, QUESTION), WRITTEN, "{copy}");
    }
    comes_back(&place, "app.db");
}

#[test]
fn pythons_own_sqlite3() {
    let place = Place::new();
    place.python("python.py");
    comes_back(&place, "app.db");
}

#[test]
fn apsw() {
    let place = Place::new();
    place.python("apsw_host.py");
    comes_back(&place, "app.db");
}

#[test]
fn an_s3_bucket_with_credentials_from_the_environment() {
    let place = Place::new();
    let server = S3Server::shared();
    let remote = format!("s3://{}/prefix", server.bucket());
    let run = |credentials: Vec<(&'static str, String)>| {
        let mut script = place.host(python());
        script
            .arg(room().join("scripts/python.py"))
            .env("REMOTE", &remote)
            .env("LITTORAL_LOG", "error")
            .envs(credentials);
        script.output().unwrap()
    };
    let refused = run(server.wrong_secret_env());
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("the secret key does not fit the access key"), "{why}");
    assert!(!why.contains("not-the-secret-at-all"), "{why}");
    place.lose_machine();
    let done = run(server.env());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    place.lose_machine();
    let mut restore = command(&built().littoral);
    restore.current_dir(place.machine()).envs(server.env());
    said(restore.args(["restore", &format!("{remote}/app.db"), "back.db"]));
    assert_eq!(place.stock("back.db", QUESTION), WRITTEN);
}

fn node(place: &Place) -> Command {
    let folder = program("node");
    let mut node = place.host(folder.join("bin/node"));
    node.env("NODE_PATH", folder.join("node_modules"));
    node
}

#[test]
fn s19_better_sqlite3_by_the_default_vfs_and_databases_that_nobody_names_are_left_alone() {
    let place = Place::new();
    said(node(&place).arg(room().join("scripts/better_sqlite3.js")));
    assert_eq!(place.files(), ["configured", "other"]);
    comes_back(&place, "app.db");
}

#[test]
fn better_sqlite3_in_worker_threads() {
    let place = Place::new();
    said(
        node(&place)
            .env("LITTORAL_REMOTE", place.remote())
            .env("LITTORAL_VOLUME", "workers")
            .arg(room().join("scripts/workers.js")),
    );
    place.lose_machine();
    place.restore("workers", "back.db");
    assert_eq!(place.stock("back.db", "SELECT count(*), sum(n) FROM t; PRAGMA integrity_check"), "200|9900\nok");
}

#[test]
fn better_sqlite3_with_a_variable() {
    let place = Place::new();
    let script = room().join("scripts/variable.js");
    let volume = said(node(&place).env("LITTORAL_REMOTE", place.remote()).arg(&script));
    let volume = volume.trim_end().strip_prefix(&format!("{}/", place.remote())).expect("in the remote that was named");
    assert!(volume.starts_with("app.db"), "{volume}");
    comes_back(&place, volume);
    // A name that every database could have is told apart by its path.
    assert_ne!(volume, "app.db");
}

#[tokio::test]
async fn libsql_by_the_binding() {
    let place = Place::new();
    {
        let path = place.machine().join("app.db");
        let conn = littoral::Builder::new(path).remote(place.remote()).open().await.unwrap();
        conn.execute("CREATE TABLE t(n INTEGER, text TEXT)", ()).await.unwrap();
        let transaction = conn.transaction().await.unwrap();
        for n in 1..=ROWS {
            transaction.execute("INSERT INTO t VALUES (?1, ?2)", (n, format!("text {n}"))).await.unwrap();
        }
        transaction.commit().await.unwrap();
        littoral::checkpoint(&conn).await.unwrap();
    }
    comes_back(&place, "app.db");
}

#[tokio::test]
async fn the_extension_beside_the_binding_is_refused_with_the_reason() {
    let place = Place::new();
    let conn = littoral::Builder::new(place.machine().join("app.db")).open().await.unwrap();
    conn.load_extension_enable().unwrap();
    let error = conn.load_extension(&built().extension, Some("sqlite3_littoral_init")).unwrap_err().to_string();
    assert!(error.contains("another copy of the extension is loaded in this process"), "{error}");
    littoral::checkpoint(&conn).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_has_nothing_opens_it_from_the_object_store_in_every_host() {
    let place = Place::new();
    place.python("python.py");
    let wanted = WRITTEN.lines().next().unwrap();
    let script = |name: &str| room().join("scripts").join(name);
    for library in ["sqlite3", "apsw"] {
        place.lose_machine();
        let told = said(place.host(python()).arg(script("elsewhere.py")).arg(library));
        assert_eq!(told.trim_end(), wanted, "{library}");
    }
    place.lose_machine();
    let told = said(node(&place).arg(script("elsewhere.js")));
    assert_eq!(told.trim_end(), wanted, "better-sqlite3");
    place.lose_machine();
    let conn = littoral::Builder::new(place.machine().join("app.db")).remote(place.remote()).open().await.unwrap();
    let mut rows = conn.query("SELECT count(*), sum(n) FROM t", ()).await.unwrap();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!((row.get::<u32>(0).unwrap(), row.get::<u32>(1).unwrap()), (ROWS, 500_500), "libsql");
}
