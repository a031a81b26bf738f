//! The main job through the door, over `file://`: every verb, on real databases made by the stock sqlite3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{Rig, Untouched, assert_same, sql, stock_copy};
use serde_json::Value;
use std::fs;

fn position(document: &Value) -> &str {
    document["position"].as_str().unwrap()
}

#[test]
fn a_database_comes_back_byte_for_byte_at_every_checkpoint() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let mut stock = Vec::new();
    for step in 1..=5 {
        sql(
            &file,
            &format!(
                "UPDATE t SET body = 'step {step}' WHERE id % 100 = {step}; DELETE FROM t WHERE id > {}",
                5000 - step * 500
            ),
        );
        let copy = rig.path(&format!("stock-{step}.db"));
        stock_copy(&file, &copy);
        let done = rig.json(["checkpoint", "app.db"]);
        assert_eq!(done["changed"], true);
        stock.push((position(&done).to_owned(), copy));
    }
    for (at, (position, copy)) in stock.iter().enumerate() {
        let out = rig.path(&format!("out-{at}.db"));
        rig.run(["restore", "app.db", out.to_str().unwrap(), "--at", position]).succeeds();
        assert_same(&out, copy);
        let lsn = position.split('.').next_back().unwrap();
        let by_url = rig.path(&format!("url-{at}.db"));
        rig.run(["restore", &rig.url(".littoral/remote/app.db"), by_url.to_str().unwrap(), "--at", lsn]).succeeds();
        assert_same(&by_url, copy);
    }
    let verified = rig.json(["verify", "app.db"]);
    assert_eq!(verified["problems"], Value::Array(vec![]));
    assert_eq!(verified["restored"], stock.last().unwrap().0.as_str());
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing_anywhere() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let before = rig.tree();
    let plan = rig.json(["checkpoint", "app.db", "--dry-run"]);
    assert_eq!(plan["new_volume"], true);
    assert_eq!(plan["chunks"][0]["action"], "rewrite");
    assert_eq!(plan["chunks"][0]["reason"], "no base yet");
    assert!(plan["estimate"]["bytes"].as_u64().unwrap() > 0 && plan["estimate"]["puts"].as_u64().unwrap() >= 2);
    // SQLite itself may leave an empty -wal and a -shm of its own beside a WAL database.
    let ours = |tree: Vec<(std::path::PathBuf, Vec<u8>)>| -> Vec<_> {
        tree.into_iter()
            // The account counts what looking costs, too, and LMDB who reads.
            .filter(|(path, _)| {
                let path = path.to_string_lossy();
                !["-shm", "-wal", "account1", "lock.mdb"].iter().any(|end| path.ends_with(end))
            })
            .collect()
    };
    assert_eq!(ours(rig.tree()), ours(before), "a dry run left something");

    let done = rig.json(["checkpoint", "app.db"]);
    assert_eq!(done["checkpoint"]["pages_changed"], plan["pages_changed"]);
    sql(&file, "UPDATE t SET body = 'x' WHERE id = 77");
    let before = Untouched::note(&rig.path(".littoral/store.toml"));
    let tree = ours(rig.tree());
    let records = fs::read_dir(rig.path(".littoral/remote/app.db/log")).unwrap().count();
    let plan = rig.json(["checkpoint", "app.db", "--dry-run"]);
    assert_eq!(plan["new_volume"], false);
    assert_eq!(plan["chunks"][0]["action"], "delta");
    // It went all the way, with all who take part, and left every byte here and there as it was.
    let words = |list: &Value, what: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one[what].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(words(&plan["phases"], "phase"), ["prepare", "in-progress", "wait-pending", "wait-flush"]);
    assert_eq!(words(&plan["participants"], "participant"), words(&done["checkpoint"]["participants"], "participant"));
    let all = ["transaction-fence", "wal-pin", "schema-catalogue", "sessions", "index-registry", "page-set"];
    assert_eq!(words(&plan["participants"], "participant"), all);
    assert_eq!(ours(rig.tree()), tree, "a dry run left something");
    assert_eq!(fs::read_dir(rig.path(".littoral/remote/app.db/log")).unwrap().count(), records);
    before.check();
    // A plan needs no local manifest either: it is read from the object store, into memory.
    fs::remove_dir_all(rig.path(".littoral/manifest")).unwrap();
    let again = rig.json(["checkpoint", "app.db", "--dry-run"]);
    assert_eq!(again["chunks"], plan["chunks"]);
    assert!(!rig.path(".littoral/manifest").exists());
    let done = rig.json(["checkpoint", "app.db"]);
    assert_eq!(done["checkpoint"]["chunks"], plan["chunks"]);
}

#[test]
fn an_unchanged_database_costs_no_write() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let done = rig.json(["checkpoint", "app.db"]);
    assert_eq!(done["changed"], false);
    assert_eq!(done["cost"]["total"]["writes"], 0);
    let said = rig.run(["checkpoint", "app.db"]);
    assert!(said.stdout.contains("nothing changed") && said.stdout.contains("(0 writes)"), "{said:?}");
}

#[test]
fn rollback_journals_and_every_page_size_are_restored_as_they_were() {
    let rig = Rig::new();
    for size in [512, 1024, 8192, 65536] {
        let name = format!("app-{size}.db");
        let file = rig.path(&name);
        sql(
            &file,
            &format!("PRAGMA page_size = {size}; CREATE TABLE t(a, b); INSERT INTO t VALUES (1, zeroblob(300000))"),
        );
        rig.run(["checkpoint", &name]).succeeds();
        sql(&file, "INSERT INTO t VALUES (2, randomblob(1000)); DELETE FROM t WHERE a = 1; VACUUM");
        rig.run(["checkpoint", &name]).succeeds();
        let out = rig.path(&format!("out-{size}.db"));
        rig.run(["restore", &name, out.to_str().unwrap()]).succeeds();
        assert_same(&out, &file);
    }
}

#[test]
fn a_new_machine_goes_on_from_the_remote_alone_by_taking_over() {
    let rig = Rig::new();
    let file = rig.database("one/../app.db".trim_start_matches("one/../"));
    let remote = rig.url("shared");
    rig.run(["checkpoint", "app.db", "--remote", &remote]).succeeds();
    fs::create_dir(rig.path("two")).unwrap();
    let other = rig.path("two/app.db");
    rig.run(["restore", &format!("{remote}/app.db"), other.to_str().unwrap()]).succeeds();
    sql(&other, "UPDATE t SET body = 'on the second machine' WHERE id = 1");
    rig.run(["checkpoint", "two/app.db", "--remote", &remote]).fails(3, &["not bound", "--takeover=1", "--volume"]);
    let done = rig.json(["checkpoint", "two/app.db", "--remote", &remote, "--takeover", "1"]);
    assert_eq!(position(&done), "2.2");
    // The first machine learns who won, keeps its data and publishes nothing.
    sql(&file, "UPDATE t SET body = 'on the first machine' WHERE id = 2");
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db"]).fails(3, &["took over", "two/.littoral", "--takeover=2"]);
    rig.run(["checkpoint", "app.db", "--dry-run"]).fails(3, &["took over"]);
    untouched.check();
    assert_eq!(rig.json(["status", "app.db"])["here"], "superseded");
    // A position of the first term stays what it was; one that the takeover cut off is none.
    let out = rig.path("first.db");
    rig.run(["restore", "app.db", out.to_str().unwrap(), "--at", "1.1"]).succeeds();
    rig.run(["restore", "app.db", rig.path("x.db").to_str().unwrap(), "--at", "1.2"]).fails(5, &["1", "epoch 2"]);
}

#[test]
fn a_released_volume_is_claimed_again_and_its_positions_stay_valid() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(rig.json(["release", "app.db"])["released"], true);
    assert_eq!(rig.json(["release", "app.db"])["released"], false);
    assert_eq!(rig.json(["status", "app.db"])["here"], "released");
    assert_eq!(rig.json(["checkpoint", "app.db"])["changed"], false);
    for (at, name) in [("1.1", "a.db"), ("2.1", "b.db"), ("1", "c.db")] {
        rig.run(["restore", "app.db", name, "--at", at]).succeeds();
        assert_same(&rig.path(name), &file);
    }
    rig.run(["restore", "app.db", "d.db", "--at", "3.1"]).fails(5, &["epoch"]);
}

#[test]
fn a_snapshot_keeps_its_state_through_prunes_until_it_is_dropped() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let named = rig.path("named.db");
    stock_copy(&file, &named);
    rig.run(["snapshot", "create", "app.db", "before"]).succeeds();
    rig.run(["snapshot", "create", "app.db", "before"]).fails(3, &["already"]);
    rig.run(["snapshot", "create", &rig.url(".littoral/remote/app.db"), "by-url"]).succeeds();
    for name in ["12", "1.2"] {
        rig.run(["snapshot", "create", "app.db", name]).fails(2, &["letter"]);
    }
    for step in 0..3 {
        sql(&file, &format!("UPDATE t SET body = hex(randomblob(50)) WHERE id % 3 = {step}"));
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    let plan = rig.json(["prune", "app.db", "--keep-last", "1", "--grace", "0", "--dry-run"]);
    let records = fs::read_dir(rig.path(".littoral/remote/app.db/log")).unwrap().count();
    assert!(plan["records"].as_u64().unwrap() > 0, "{plan}");
    let done = rig.json(["prune", "app.db", "--keep-last", "1", "--grace", "0"]);
    assert_eq!([&plan["records"], &plan["blobs"]], [&done["records"], &done["blobs"]]);
    assert!(fs::read_dir(rig.path(".littoral/remote/app.db/log")).unwrap().count() < records);
    // Nothing is young enough to go by default.
    assert_eq!(rig.json(["prune", "app.db"])["records"], 0);
    let snapshots = rig.json(["snapshot", "list", "app.db"]);
    assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), 2);
    assert_eq!(rig.json(["verify", "app.db"])["problems"], Value::Array(vec![]));
    rig.run(["restore", "app.db", "then.db", "--at", "before"]).succeeds();
    assert_same(&rig.path("then.db"), &named);
    rig.run(["restore", "app.db", "first.db", "--at", "1"]).succeeds();
    assert_same(&rig.path("first.db"), &named);
    rig.run(["restore", "app.db", "none.db", "--at", "2"])
        .fails(5, &["LSN 2 was pruned", "1.1 of", "1.4 of", "history"]);
    rig.run(["snapshot", "drop", "app.db", "before"]).succeeds();
    rig.run(["snapshot", "drop", "app.db", "before"]).fails(5, &["no snapshot", "before"]);
    rig.run(["restore", "app.db", "gone.db", "--at", "before"]).fails(5, &["before", "snapshot list"]);
    assert!(!rig.path("gone.db").exists() && !rig.path("none.db").exists());
}

#[test]
fn a_history_is_read_in_pages() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    for step in 0..7 {
        sql(&file, &format!("UPDATE t SET body = 'x' WHERE id = {}", step + 1));
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    let whole = rig.json(["history", "app.db"]);
    let mut seen = Vec::new();
    let mut before: Option<u64> = None;
    loop {
        let mut arguments = vec!["history".to_owned(), "app.db".to_owned(), "--limit".to_owned(), "3".to_owned()];
        arguments.extend(before.map(|before| format!("--before={before}")));
        let page = rig.json(&arguments);
        seen.extend(page["records"].as_array().unwrap().clone());
        match page["next_before"].as_u64() {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    assert_eq!(&seen, whole["records"].as_array().unwrap());
    assert_eq!(seen.last().unwrap()["kind"], "claim");
    let said = rig.run(["history", "app.db", "--limit", "2"]);
    assert!(said.stdout.contains("older: --before"), "{said:?}");
}

#[test]
fn settings_come_from_the_file_the_environment_and_flags_in_that_order() {
    let mut rig = Rig::new();
    rig.database("app.db");
    fs::write(rig.path("littoral.toml"), format!("remote = '{}'\nvolume = 'from-file'\n", rig.url("toml"))).unwrap();
    let volume = |rig: &Rig, flags: &[&str]| {
        let plan = rig.json(["checkpoint", "app.db", "--dry-run"].iter().chain(flags));
        plan["volume"].as_str().unwrap().to_owned()
    };
    assert_eq!(volume(&rig, &[]), rig.url("toml/from-file"));
    rig.set("LITTORAL_VOLUME", "from-env");
    assert_eq!(volume(&rig, &[]), rig.url("toml/from-env"));
    assert_eq!(volume(&rig, &["--volume", "from-flag"]), rig.url("toml/from-flag"));
    fs::write(rig.path("other.toml"), "compression = 'none'").unwrap();
    rig.set("LITTORAL_CONFIG", &rig.text("other.toml"));
    assert_eq!(volume(&rig, &[]), rig.url(".littoral/remote/from-env"));
    // One remote for everything, from the environment: names are kept apart by the path.
    rig.unset("LITTORAL_VOLUME");
    rig.unset("LITTORAL_CONFIG");
    fs::remove_file(rig.path("littoral.toml")).unwrap();
    rig.set("LITTORAL_REMOTE", &rig.url("all"));
    let one = volume(&rig, &[]);
    assert!(one.starts_with(&rig.url("all/app.db-")), "{one}");
    fs::create_dir(rig.path("sub")).unwrap();
    rig.database("sub/app.db");
    let plan = rig.json(["checkpoint", "sub/app.db", "--dry-run"]);
    assert_ne!(plan["volume"].as_str().unwrap(), one);
    // Once bound, a database stays where it is, whatever the environment says later.
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.unset("LITTORAL_REMOTE");
    assert_eq!(rig.json(["status", "app.db"])["volume"], one.as_str());
}

#[test]
fn a_folder_that_is_moved_goes_on_where_it_is() {
    let rig = Rig::new();
    fs::create_dir(rig.path("here")).unwrap();
    let file = rig.database("here/app.db");
    rig.run(["checkpoint", "here/app.db"]).succeeds();
    sql(&file, "UPDATE t SET body = 'x' WHERE id = 1");
    fs::rename(rig.path("here"), rig.path("there")).unwrap();
    let done = rig.json(["checkpoint", "there/app.db"]);
    assert_eq!(done["position"], "1.2");
    assert_eq!(done["volume"], rig.url("there/.littoral/remote/app.db").as_str());
    rig.run(["restore", "there/app.db", "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("there/app.db"));
}

#[test]
fn a_copied_folder_whose_original_is_gone_goes_on_by_taking_over() {
    let rig = Rig::new();
    fs::create_dir(rig.path("here")).unwrap();
    rig.database("here/app.db");
    rig.run(["checkpoint", "here/app.db"]).succeeds();
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(rig.path("here"))
            .arg(rig.path("there"))
            .status()
            .unwrap()
            .success()
    );
    rig.run(["checkpoint", "there/app.db"]).fails(3, &["copied folder", "--volume"]);
    fs::remove_dir_all(rig.path("here")).unwrap();
    rig.run(["checkpoint", "there/app.db"]).fails(3, &["gone", "--takeover=1"]);
    sql(&rig.path("there/app.db"), "UPDATE t SET body = 'x' WHERE id = 1");
    let done = rig.json(["checkpoint", "there/app.db", "--takeover", "1"]);
    assert_eq!(done["position"], "2.2");
    assert_eq!(rig.json(["checkpoint", "there/app.db"])["changed"], false);
}

#[test]
fn a_restore_replaces_only_by_force_and_moves_leftovers_aside() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let expected = rig.path("expected.db");
    stock_copy(&file, &expected);
    let other = rig.path("other.db");
    fs::write(&other, "something dear").unwrap();
    rig.run(["restore", "app.db", "other.db"]).fails(3, &["--force", "another destination"]);
    assert_eq!(fs::read(&other).unwrap(), b"something dear");
    fs::write(rig.path("other.db-wal"), "an old WAL").unwrap();
    let done = rig.json(["restore", "app.db", "other.db", "--force"]);
    assert_eq!(done["replaced"], true);
    assert_eq!(done["moved_aside"].as_array().unwrap().len(), 1);
    assert_same(&other, &expected);
    assert_eq!(sql(&other, "PRAGMA integrity_check"), "ok");
}

#[test]
fn each_verb_answers_one_json_document_and_nothing_else() {
    let rig = Rig::new();
    rig.database("app.db");
    for arguments in [
        &["checkpoint", "app.db"][..],
        &["status", "app.db"],
        &["history", "app.db"],
        &["snapshot", "create", "app.db", "v1"],
        &["snapshot", "list", "app.db"],
        &["verify", "app.db"],
        &["restore", "app.db", "out.db"],
        &["coalesce", "app.db"],
        &["prune", "app.db", "--dry-run"],
        &["doctor", "app.db"],
        &["doctor"],
        &["snapshot", "drop", "app.db", "v1"],
        &["release", "app.db"],
        &["demo", "--rows", "2000"],
    ] {
        let document = rig.json(arguments);
        assert_eq!(document["exit"], "done", "{arguments:?}");
        assert!(document["verb"].as_str().unwrap().starts_with(arguments[0]), "{document}");
        assert_eq!(document["warnings"], Value::Array(vec![]), "{arguments:?}");
    }
    let failed = rig.run(["status", "nothing.db", "--json"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(5), ""));
    let document: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((&document["exit"], &document["code"]), (&"nothing".into(), &5.into()));
    let failed = rig.run(["status", "--json", "--nonsense"]);
    let document: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!((failed.code, &document["exit"]), (Some(2), &"usage".into()));
}

#[test]
fn a_quiet_command_says_nothing_when_all_is_well() {
    let rig = Rig::new();
    rig.database("app.db");
    let said = rig.run(["checkpoint", "app.db", "--quiet"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn the_demo_tells_its_story_without_a_terminal_and_leaves_nothing() {
    let mut rig = Rig::new();
    fs::create_dir(rig.path("tmp")).unwrap();
    rig.set("TMPDIR", &rig.text("tmp"));
    // Nobody's settings lead the demo elsewhere.
    rig.set("LITTORAL_REMOTE", "s3://not-a-bucket-of-mine/x");
    let said = rig.run(["demo", "--rows", "3000"]);
    said.succeeds();
    for words in ["first checkpoint", "machine is lost", "byte for byte", "requests", "history"] {
        assert!(said.stdout.contains(words), "{words:?} is not in {said:?}");
    }
    assert_eq!(fs::read_dir(rig.path("tmp")).unwrap().count(), 0, "the demo left something");
    let told = rig.json(["demo", "--rows", "3000", "--keep"]);
    let folder = told["folder"].as_str().unwrap();
    assert!(std::path::Path::new(folder).join("rescued.db").exists());
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 13);
    // Nobody else wrote to the files that the demo made: neither when a fetched one was written to, nor when it became a plain one.
    let records = steps[12]["told"]["records"].as_array().unwrap();
    assert!(records.len() >= 6, "{records:?}");
    for record in records {
        assert!(record["gap"].is_null() || record["gap"]["reason"] == "lost", "{record}");
    }
}

#[test]
fn doctor_finds_what_is_wrong_and_says_the_way_out() {
    let rig = Rig::new();
    let said = rig.run(["doctor", "nothing.db"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("FAIL  database") && said.stdout.contains("no such file"), "{said:?}");
    rig.database("app.db");
    let before = rig.tree().len();
    let said = rig.run(["doctor", "app.db"]);
    said.succeeds();
    for words in ["SQLite 3.", "record 1", "WAL", "first checkpoint makes it", "local file system", "all is well"] {
        assert!(said.stdout.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(rig.tree().len() <= before + 2, "doctor made more than SQLite's own -wal and -shm");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let checks = rig.json(["doctor", "app.db"]);
    for name in [
        "versions",
        "settings",
        "database",
        "store",
        "manifest",
        "disk",
        "remote",
        "reachable",
        "conditional PUT",
        "clock",
        "volume",
    ] {
        let check = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        assert_eq!(check.unwrap_or_else(|| panic!("{name} in {checks}"))["answer"], "ok", "{name}");
    }
    fs::write(rig.path("littoral.toml"), "remotee = 'x'").unwrap();
    let said = rig.run(["doctor", "app.db"]);
    assert!(said.code == Some(1) && said.stdout.contains("did you mean \"remote\""), "{said:?}");
}

#[test]
fn a_fork_is_opened_and_written_and_neither_side_sees_the_other() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let then = rig.path("then.db");
    stock_copy(&file, &then);
    rig.run(["snapshot", "create", "app.db", "before"]).succeeds();
    sql(&file, "UPDATE t SET body = 'later' WHERE id < 40");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let remote = rig.url(".littoral/remote");
    // By URL and by file, the newest state and one of the past, by name and by position.
    let done = rig.json(["fork", &format!("{remote}/app.db@before"), "test"]);
    assert_eq!((done["position"].as_str(), done["parent"]["position"].as_str()), (Some("1.1"), Some("1.1")));
    assert!(done["bytes_written"].as_u64().unwrap() < 100_000 && done["bytes"].as_u64().unwrap() > 400_000, "{done}");
    rig.run(["fork", "app.db@1.1", &format!("{remote}/again")]).succeeds();
    rig.run(["fork", "app.db", "newest", "--at", "2"]).succeeds();
    // As of a moment: that of the first checkpoint.
    let history = rig.json(["history", "app.db"]);
    let records = history["records"].as_array().unwrap();
    let is_first = |record: &&Value| record["position"] == "1.1" && record["restorable"] == true;
    let first = records.iter().rfind(is_first).unwrap();
    let (utc, ms) = (first["time"]["utc"].as_str().unwrap(), first["time"]["ms"].as_u64().unwrap());
    let moment = format!("{}.{:03}Z", utc.trim_end_matches('Z'), ms % 1000);
    let then_again = rig.json(["fork", &format!("{remote}/app.db@{moment}"), "moment"]);
    assert_eq!(then_again["parent"]["position"], "1.1", "{moment}");
    rig.run(["fork", "app.db@1", "x", "--at", "2"]).fails(2, &["twice"]);
    rig.run(["fork", "app.db", "test"]).fails(3, &["/test", "exists already", "another name"]);
    rig.run(["fork", "app.db@77", "x"]).fails(5, &["LSN 77", "1.2"]);
    rig.run(["fork", "app.db", &format!("{}/x", rig.url("elsewhere"))]).fails(2, &["another remote"]);
    rig.run(["fork", &format!("{remote}/nobody"), "x"]).fails(5, &["nobody"]);
    for (volume, is) in [("test", &then), ("again", &then), ("newest", &file)] {
        let out = rig.path(&format!("out-{volume}.db"));
        rig.run(["restore", &format!("{remote}/{volume}"), out.to_str().unwrap()]).succeeds();
        assert_same(&out, is);
    }
    // Opened lazily, written, published; then a fork of the fork.
    fs::create_dir(rig.path("two")).unwrap();
    let mine = |more: &[&str]| {
        let said = ["shell", "two/test.db", "--remote", &remote, "--volume", "test"];
        rig.run(said.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let run =
        mine(&["SELECT count(*) FROM t", "UPDATE t SET body = 'mine' WHERE id = 1", "PRAGMA littoral_checkpoint"]);
    assert!(run.succeeds().stdout.contains("5000"), "{run:?}");
    rig.run(["fork", &format!("{remote}/test"), "deeper"]).succeeds();
    sql(&file, "DELETE FROM t; VACUUM");
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["snapshot", "drop", "app.db", "before"]).succeeds();
    rig.run(["prune", "app.db", "--keep-last", "1", "--grace", "0s"]).succeeds();
    for (volume, body) in [("test", "mine"), ("deeper", "mine"), ("again", "row")] {
        let out = rig.path(&format!("after-{volume}.db"));
        rig.run(["restore", &format!("{remote}/{volume}"), out.to_str().unwrap()]).succeeds();
        assert!(sql(&out, "SELECT body FROM t WHERE id = 1").starts_with(body), "{volume}");
        assert_eq!(sql(&out, "SELECT count(*) FROM t; PRAGMA integrity_check").trim(), "5000\nok", "{volume}");
        let verified = rig.json(["verify", &format!("{remote}/{volume}"), "--no-restore"]);
        assert!(verified["problems"].as_array().unwrap().is_empty(), "{volume}: {verified}");
    }
    let history = rig.json(["history", &format!("{remote}/test")]);
    let oldest = history["records"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((oldest["kind"].as_str(), oldest["restorable"].as_bool()), (Some("fork"), Some(true)));
}

#[test]
fn a_moment_is_said_in_one_way_to_every_command() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let first = rig.path("as-first.db");
    stock_copy(&file, &first);
    let published = rig.json(["history", "app.db", "--points"])["records"][0]["time"]["ms"].as_u64().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    sql(&file, "UPDATE t SET body = 'later' WHERE id = 1");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let time = |ms: u64| littoral_types::moment::Utc(ms).to_string();
    for (nth, at) in [time(published), time(published + 900), "1".to_owned(), "1.1".to_owned()].iter().enumerate() {
        let dest = format!("{nth}.db");
        let done = rig.json(["restore", "app.db", &dest, "--at", at]);
        assert_eq!((&done["position"], &done["published"]["ms"]), (&"1.1".into(), &published.into()), "{at}");
        assert_same(&rig.path(&dest), &first);
    }
    assert_eq!(rig.json(["restore", "app.db", "now.db", "--at", "-0s"])["position"], "1.2");
    assert_eq!(rig.json(["restore", "app.db", "now2.db", "--at=-10ms"])["position"], "1.2");
    rig.run(["restore", "app.db", "x.db", "--at", "-1h"]).fails(5, &["before history begins", "1.1 of"]);
    rig.run(["restore", "app.db", "x.db", "--at", "7"]).fails(5, &["LSN 7 is not published", "1.2 of"]);
    for (at, word) in [("yesterday noon", "-5m"), ("2026-11-20T12:00:00", "time zone"), ("-5", "no unit")] {
        rig.run(["restore", "app.db", "x.db", "--at", at]).fails(2, &["--at", word]);
    }
    // A name for the past, and the past by its name.
    rig.run(["snapshot", "create", "app.db", "then", "--at", "1"]).succeeds();
    rig.run(["snapshot", "create", "app.db", "then"]).fails(3, &["already"]);
    let done = rig.json(["restore", "app.db", "then.db", "--at", "then"]);
    assert_eq!(done["position"], "1.1");
    rig.run(["restore", "app.db", "x.db", "--at", "thne"])
        .fails(5, &["no snapshot is called thne", "did you mean then?"]);
    rig.run(["snapshot", "drop", "app.db", "thn"]).fails(5, &["did you mean then?"]);
    rig.run(["snapshot", "create", "app.db", "-5m"]).fails(2, &[]);
    for verb in
        [&["checkpoint", "app.db"][..], &["prune", "app.db"], &["status", "app.db"], &["snapshot", "list", "app.db"]]
    {
        let said: Vec<&str> = verb.iter().copied().chain(["--at", "1"]).collect();
        rig.run(said).fails(2, &["--at", "leave it out"]);
    }
    let mut rig = rig;
    rig.set("LITTORAL_AT", "1");
    rig.run(["checkpoint", "app.db"]).fails(2, &["LITTORAL_AT", "newest state"]);
    assert_eq!(rig.json(["restore", "app.db", "by-variable.db"])["position"], "1.1");
    assert!(!rig.path("x.db").exists());
}

#[test]
fn a_rewound_database_is_what_it_was_and_the_rewind_can_be_taken_back() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let dump =
        || sql(&file, "SELECT count(*), sum(length(body)), max(id) FROM t; SELECT name FROM sqlite_schema ORDER BY 1;");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let first = dump();
    sql(&file, "DELETE FROM t WHERE id > 100; VACUUM;");
    rig.run(["checkpoint", "app.db"]).succeeds();
    // Nobody has published this yet.
    sql(&file, "CREATE TABLE more(x); INSERT INTO more VALUES (1); INSERT INTO t VALUES (9999, 'kept by its name');");
    let second = dump();
    rig.run(["rewind", "app.db", "--to", "99"]).fails(5, &["LSN 99 is not published"]);
    rig.run(["rewind", "app.db", "--to", "-5"]).fails(2, &["no unit"]);
    rig.run(["rewind", "none.db", "--to", "1"]).fails(6, &["no such file"]);
    assert_eq!(dump(), second, "what is refused moves nothing");

    let done = rig.json(["rewind", "app.db", "--to", "1.1"]);
    assert_eq!([&done["to"], &done["before"], &done["position"]], ["1.1", "1.3", "1.4"]);
    assert_eq!(dump(), first);
    assert_eq!(sql(&file, "PRAGMA integrity_check").trim(), "ok");
    rig.run(["restore", "app.db", "now.db"]).succeeds();
    assert_eq!(
        sql(&rig.path("now.db"), "SELECT count(*), max(id) FROM t"),
        sql(&file, "SELECT count(*), max(id) FROM t")
    );
    assert_eq!(rig.json(["checkpoint", "app.db"])["changed"], false, "all of it is published");
    // Nothing is rewritten: every state of before is there as it was.
    rig.run(["restore", "app.db", "before.db", "--at", "1.3"]).succeeds();
    assert_eq!(sql(&rig.path("before.db"), "SELECT body FROM t WHERE id = 9999").trim(), "kept by its name");

    let undo = done["undo"].as_str().unwrap();
    assert_eq!(undo, "before-rewind-1.3");
    assert_eq!(rig.json(["rewind", "app.db", "--to", undo])["moved"], true);
    assert_eq!(dump(), second);
    assert_eq!(rig.json(["rewind", "app.db", "--to", "-0s"])["moved"], false);
    assert_eq!(rig.json(["verify", "app.db"])["problems"], Value::Array(vec![]));
    assert!(!rig.path(".littoral/rewind").exists());
}
