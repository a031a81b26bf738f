//! Which table and which index costs what: `littoral status --by-object`, against the `dbstat` of the stock sqlite3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{Rig, sql};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// What `status --by-object` says of a target.
fn by_object(rig: &Rig, target: &str) -> Value {
    rig.json(["status", target, "--by-object"])["objects"].clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn sum(told: &Value, of: impl Fn(&Value) -> u64) -> u64 {
    told["objects"].as_array().unwrap().iter().map(of).sum()
}

fn find<'a>(told: &'a Value, name: &str) -> &'a Value {
    told["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|object| object["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {told}"))
}

/// The rows of what has no name of its own.
fn kind(told: &Value, kind: &str) -> u64 {
    let of_kind = told["objects"].as_array().unwrap().iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| number(&object["pages"])).sum()
}

/// What is told is what SQLite says, and its sum is the database.
fn agrees(told: &Value, file: &Path) {
    let names = |told: &Value| -> BTreeMap<String, u64> {
        let named = told["objects"].as_array().unwrap().iter().filter(|object| !object["name"].is_null());
        named.map(|object| (object["name"].as_str().unwrap().to_owned(), number(&object["pages"]))).collect()
    };
    let said = sql(file, "SELECT name || '|' || count(*) FROM dbstat GROUP BY name");
    let said: BTreeMap<String, u64> = said
        .lines()
        .map(|line| line.rsplit_once('|').map(|(name, pages)| (name.to_owned(), pages.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(names(told), said);
    let pages: u64 = sql(file, "PRAGMA page_count").parse().unwrap();
    let free: u64 = sql(file, "PRAGMA freelist_count").parse().unwrap();
    assert_eq!(
        (sum(told, |object| number(&object["pages"])), kind(told, "free"), kind(told, "unattributed")),
        (pages, free, 0)
    );
    assert_eq!(sum(told, |object| number(&object["open_pages"])), 0);
}

#[test]
fn each_table_and_index_is_told_with_its_pages_and_what_checkpoints_took_of_it() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    sql(
        &file,
        "CREATE INDEX by_body ON t(body); CREATE TABLE w(a TEXT PRIMARY KEY, b) WITHOUT ROWID; CREATE TABLE big(a, b);
         CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES('one two three');
         INSERT INTO w SELECT body, id FROM t WHERE id < 900; INSERT INTO big VALUES(1, randomblob(300000));",
    );
    let done = rig.json(["checkpoint", "app.db"]);
    let first = by_object(&rig, "app.db");
    agrees(&first, &file);
    // All of it was taken, and all bytes of its blobs are somebody's.
    let taken = |what: &'static str| move |object: &Value| number(&object["last_checkpoint"][what]);
    assert_eq!(sum(&first, taken("bytes")), number(&done["checkpoint"]["bytes"]));
    assert_eq!(sum(&first, taken("pages")), number(&done["checkpoint"]["pages_changed"]));
    assert_eq!(find(&first, "by_body")["table"], "t");
    // From anywhere else it is told the same.
    assert_eq!(by_object(&rig, &rig.url(".littoral/remote/app.db")), first);

    // The next checkpoint costs what was changed, and says whose it was.
    sql(&file, "UPDATE big SET a = 2; DELETE FROM w;");
    let done = rig.json(["checkpoint", "app.db"]);
    let second = by_object(&rig, "app.db");
    agrees(&second, &file);
    assert_ne!(second["checkpoint"], first["checkpoint"]);
    assert_eq!(sum(&second, taken("bytes")), number(&done["checkpoint"]["bytes"]));
    assert_eq!(number(&find(&second, "t")["last_checkpoint"]["pages"]), 0);
    assert_eq!(number(&find(&second, "by_body")["last_checkpoint"]["pages"]), 0);
    assert_eq!(find(&second, "t")["all_checkpoints"], find(&first, "t")["all_checkpoints"]);
    assert!(number(&find(&second, "big")["last_checkpoint"]["pages"]) > 0);
    assert!(kind(&second, "free") > 0, "what was deleted is free");

    // A table that is dropped is gone, and a new one is told.
    sql(&file, "DROP TABLE big; CREATE TABLE \"a new one\"(x); INSERT INTO \"a new one\" VALUES(1);");
    rig.json(["checkpoint", "app.db"]);
    let third = by_object(&rig, "app.db");
    agrees(&third, &file);
    let run = rig.run(["status", "app.db", "--by-object"]);
    let shown = run.succeeds();
    assert!(shown.stdout.contains("a new one") && shown.stdout.contains("index of t") && !shown.stdout.contains("big"));
    assert_eq!(rig.json(["status", "app.db"])["objects"], Value::Null, "who does not ask is not told");
}

#[test]
fn whoever_has_lost_his_store_or_took_a_database_over_tells_the_same_after_his_next_checkpoint() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    sql(&file, "CREATE INDEX by_body ON t(body);");
    rig.json(["checkpoint", "app.db"]);
    std::fs::remove_dir_all(rig.path(".littoral/manifest")).unwrap();
    sql(&file, "UPDATE t SET body = 'another' WHERE id = 7;");
    rig.json(["checkpoint", "app.db"]);
    agrees(&by_object(&rig, "app.db"), &file);

    // Opened elsewhere from the object store alone, and written there: only what is here by then can be told apart.
    let fork = rig.url(".littoral/remote/app.db");
    rig.run(["fork", &fork, "branch"]).succeeds();
    let told = by_object(&rig, &rig.url(".littoral/remote/branch"));
    agrees(&told, &file);
}

#[test]
fn pointer_maps_and_a_damaged_schema_are_told_as_what_they_are() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    sql(
        &file,
        "PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL; CREATE TABLE t(a, b); CREATE INDEX i ON t(b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, hex(randomblob(40)) FROM n;",
    );
    rig.json(["checkpoint", "app.db"]);
    let told = by_object(&rig, "app.db");
    agrees(&told, &file);
    assert!(kind(&told, "pointers") >= 3);
    // A root that the schema no longer names: its tree is nobody's, and the checkpoint is made all the same.
    sql(&file, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 0 WHERE name = 'i';");
    let done = rig.json(["checkpoint", "app.db"]);
    assert_eq!(done["changed"], true);
    let told = by_object(&rig, "app.db");
    assert_eq!(sum(&told, |object| number(&object["pages"])), sql(&file, "PRAGMA page_count").parse::<u64>().unwrap());
    assert!(kind(&told, "unattributed") > 100, "{told}");
}
