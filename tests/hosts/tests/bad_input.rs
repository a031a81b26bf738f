//! Bad input through SQLite: each reaches who asked as the right code, with a message that names the cause and the way out, here where
//! SQLite lets a message through, and always in `littoral_last_error()`, `littoral_status` and the log. Nothing moves that was there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_hosts::told::{CANTOPEN, ERROR, FULL, IOERR, IOERR_READ, READONLY, Rig, damage, files};
use littoral_hosts::{built, said};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn words_that_make_no_sense_are_refused_at_the_opening_with_the_reason_and_nothing_moves() {
    let rig = Rig::published();
    let before = rig.everything();
    let elsewhere = rig.folder().join("elsewhere").display().to_string();
    let cases: &[(&str, &[&str])] = &[
        ("&remoet=x", &["remoet", "did you mean \"remote\""]),
        ("&volum=x", &["volum", "did you mean \"volume\""]),
        ("&zzz=1", &["zzz", "there are remote, volume"]),
        ("&volume=a/b", &["volume", "1 to 128", "a/b"]),
        ("&quota=lots", &["quota", "500MB", "lots"]),
        ("&grace=soon", &["grace", "24h", "soon"]),
        ("&fencing=maybe", &["fencing", "on or off"]),
        ("&fenced=maybe", &["fenced", "stop or continue"]),
        ("&takeover=soon", &["takeover", "epoch"]),
        ("&close_wait=soon", &["close_wait", "5s"]),
        ("&endpoint=ftp", &["endpoint", "http://"]),
        ("&addressing=x", &["addressing", "path or virtual"]),
        ("&compression=x", &["compression", "zstd, lz4 or none"]),
        ("&region=", &["region", "eu-central-1"]),
        ("&store=", &["store", "local directory"]),
        ("&remote=", &["remote", "s3://bucket/prefix"]),
        ("&remote=bucket/prefix", &["remote", "no scheme", "s3://bucket/prefix"]),
        ("&remote=gs://bucket", &["gs://", "s3://bucket/prefix"]),
        ("&remote=s3://", &["no bucket", "s3://bucket/prefix"]),
        ("&remote=file://relative", &["three slashes", "file:///"]),
        ("&remote=s3://AKIAHUSH:HUSHHUSH@bucket/x", &["credentials do not belong", "AWS_ACCESS_KEY_ID"]),
        ("&remote=s3://bucket/x%3Fsecret=HUSHHUSH", &["credentials come from the environment"]),
        ("&endpoint=http://AKIAHUSH:HUSHHUSH@host", &["endpoint", "credentials"]),
        ("&store=other", &["is bound to volume app.db", "Leave store= out"]),
        ("&volume=other", &["belongs to volume app.db", "use that volume"]),
        (&format!("&remote=file://{elsewhere}"), &["belongs to volume app.db", "use that volume and remote"]),
    ];
    for (parameters, words) in cases {
        let told = rig.ask(parameters, &["SELECT count(*) FROM t"]);
        told.refused(words);
        assert!(!told.all.contains("HUSH"), "a secret was repeated: {told:?}");
        assert!(rig.everything() == before, "{parameters}: something moved");
    }
    // A word nearly SQLite's own is one too; a VFS of another name is SQLite's to refuse.
    rig.ask("&imutable=1", &[]).refused(&["imutable", "did you mean \"immutable\""]);

    // Variables and the settings file say where the word stands.
    let mut rig = rig;
    rig.environment = vec![("LITTORAL_VOLUMN", "x".to_owned())];
    rig.ask("", &[]).refused(&["LITTORAL_VOLUMN", "did you mean LITTORAL_VOLUME"]);
    rig.environment.clear();
    fs::write(rig.place.machine().join("littoral.toml"), "quota = 'lots'").unwrap();
    rig.ask("", &[]).refused(&["littoral.toml", "quota", "500MB"]);
    fs::remove_file(rig.place.machine().join("littoral.toml")).unwrap();
    rig.ask("", &["SELECT count(*) FROM t"]).answered(0, &serde_json::json!([[301]]));
    assert!(rig.everything().keys().eq(before.keys()), "something was made");
}

#[test]
fn what_is_not_there_is_named() {
    let rig = Rig::published();
    rig.ask_uri(&rig.uri("nowhere/app.db", ""), &[]).refused(&["nowhere", "folders are not made for you"]);
    rig.place.lose_machine();
    let before = files(&rig.remote());
    let nowhere = rig.folder().join("no/such/folder").display().to_string();
    rig.ask(&format!("&remote=file://{nowhere}"), &[]).refused(&["no/such", "make the bucket or folder first"]);
    let told = rig.ask("&volume=nothing&mode=ro", &[]);
    told.refused(&["app.db", "no such database here", "/nothing", "volume="]);
    assert!(files(&rig.remote()) == before && !rig.place.machine().join("app.db").exists(), "something was made");
    // Who may write begins a new one.
    rig.ask("&volume=nothing", &["SELECT count(*) FROM sqlite_schema"]).answered(0, &serde_json::json!([[0]]));
}

#[test]
fn questions_that_make_no_sense_are_answered_with_the_right_ones() {
    let rig = Rig::published();
    let published = files(&rig.remote());
    let cases: &[(&str, &[&str])] = &[
        ("PRAGMA littoral_chekpoint", &["littoral_chekpoint", "did you mean littoral_checkpoint"]),
        ("PRAGMA littoral_zzz", &["littoral_zzz", "there are littoral_at, littoral_checkpoint"]),
        ("PRAGMA littoral_checkpoint('x')", &["littoral_checkpoint takes no value", "leave it out"]),
        ("PRAGMA littoral_status = 7", &["littoral_status takes no value"]),
        ("PRAGMA littoral_snapshot", &["a snapshot has a name", "littoral_snapshot = "]),
        ("PRAGMA littoral_snapshot = '7'", &["cannot be called 7", "a letter in it"]),
        ("PRAGMA littoral_snapshot = 'a/b'", &["not a snapshot's name", "1 to 128"]),
        ("SELECT littoral_snapshot(NULL)", &["a snapshot has a name"]),
        ("SELECT littoral_snapshot(x'00ff')", &["not a snapshot's name"]),
        ("SELECT littoral_snapshot(1.5)", &["cannot be called 1.5"]),
        ("SELECT * FROM littoral_status('nothing')", &["no such database here", "vfs=littoral"]),
        ("SELECT * FROM littoral_chunks(7)", &["no such database here"]),
    ];
    for (question, words) in cases {
        rig.ask("", &[question]).denied(0, ERROR, words);
        assert!(files(&rig.remote()) == published, "{question}: something was published");
    }
    // What SQLite itself refuses before we are asked.
    for question in ["SELECT littoral_checkpoint(1, 2)", "SELECT littoral_snap('x')", "PRAGMA nothing.littoral_status"]
    {
        let told = rig.ask("", &[question]);
        assert!(matches!(&told.answers[0], Err(wrong) if wrong.code == ERROR), "{told:?}");
    }
}

#[test]
fn damage_in_the_object_store_is_an_error_with_its_reason_and_never_a_wrong_row() {
    // What is damaged, whether the opening shows it, and what is said. Pages that the damage does not touch are read.
    let way_out = ["checksum mismatch", "littoral verify", "littoral restore --at"];
    for (kind, at_opening) in [("log", true), ("chunk", false)] {
        let rig = Rig::published();
        let whole = files(&rig.remote());
        // The head says the same as what it points at, and would do.
        fs::remove_file(rig.remote().join("app.db/head")).unwrap();
        damage(&rig.remote().join("app.db").join(kind));
        let damaged = files(&rig.remote());
        rig.place.lose_machine();
        let told = rig.ask("", &["SELECT count(*) FROM t", "PRAGMA integrity_check"]);
        match at_opening {
            true => {
                told.refused(&way_out);
                assert!(!rig.place.machine().join("app.db").exists());
            }
            false if told.opened.is_some() => assert_eq!(told.opened.as_ref().unwrap().code, IOERR_READ, "{told:?}"),
            false => told.failed(0, IOERR_READ, &[&way_out[..], &["cannot be fetched", kind]].concat()),
        }
        // A reader's pin is all that comes.
        let mut after = files(&rig.remote());
        after.retain(|path, _| !path.starts_with(rig.remote().join("app.db/pins")));
        assert!(after == damaged, "{kind}: something moved in the object store");
        for (path, bytes) in whole {
            fs::write(path, bytes).unwrap();
        }
        let told = rig.ask("", &["SELECT count(*) FROM t", "PRAGMA integrity_check"]);
        told.answered(0, &serde_json::json!([[300]]));
        told.answered(1, &serde_json::json!([["ok"]]));
    }
    // Hints, and what has a twin in the log, may be damaged: something else says the same.
    for kind in ["head", "snap"] {
        let rig = Rig::published();
        rig.place.lose_machine();
        let hint = rig.remote().join("app.db").join(kind);
        match hint.is_dir() {
            true => damage(&hint),
            false => fs::write(&hint, "no head").unwrap(),
        }
        rig.ask("", &["SELECT count(*) FROM t"]).answered(0, &serde_json::json!([[300]]));
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let rig = Rig::published();
    rig.place.lose_machine();
    fs::remove_file(rig.remote().join("app.db/head")).unwrap();
    // Where a version stands: docs/format.md.
    for (path, mut bytes) in files(&rig.remote().join("app.db/log")) {
        assert_eq!(bytes[4..6], [1, 0]);
        bytes[4..6].copy_from_slice(&[9, 9]);
        fs::write(path, bytes).unwrap();
    }
    rig.ask("", &[]).refused(&["newer littoral", "reads up to 1"]);
    assert!(!rig.place.machine().join("app.db").exists());
}

#[test]
fn damage_on_this_machine_names_the_file_and_the_way_out() {
    // A database that is all here is read and written whatever its store has become.
    let store = |name: &str| format!(".littoral/{name}");
    let cases: &[(&str, Option<&str>, i64, &[&str])] = &[
        (&store("store.toml"), Some("format = 9\n"), ERROR, &["store.toml", "newer littoral"]),
        (&store("store.toml"), Some("xyz["), IOERR, &["store.toml", "damaged", "restore the file"]),
        (&store("manifest/data.mdb"), None, ERROR, &["manifest is damaged", "delete the store's manifest folder"]),
    ];
    for (file, bytes, code, words) in cases {
        let rig = Rig::published();
        let published = files(&rig.remote());
        let file = rig.place.machine().join(file);
        match bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::File::options().write(true).open(&file).unwrap().set_len(5000).unwrap(),
        }
        let told = rig.ask("", &["INSERT INTO t VALUES (2)", "SELECT count(*) FROM t", "PRAGMA littoral_checkpoint"]);
        told.answered(1, &serde_json::json!([[302]]));
        told.denied(2, *code, words);
        assert!(files(&rig.remote()) == published, "{file:?}: something was published");
        assert_eq!(rig.place.stock("app.db", "SELECT count(*) FROM t; PRAGMA integrity_check"), "302\nok", "{file:?}");
        if bytes.is_none() {
            // The way out is one.
            fs::remove_dir_all(rig.place.machine().join(".littoral/manifest")).unwrap();
            let told = rig.ask("", &["PRAGMA littoral_checkpoint"]);
            assert!(told.answers[0].is_ok(), "{told:?}");
        }
    }

    // A sparse one is nothing without the map of what is here.
    let of_map = |rig: &Rig| {
        let tracker = rig.place.machine().join(".littoral/tracker");
        let maps = files(&tracker).into_keys().filter(|path| path.extension().is_some_and(|end| end == "sparse2"));
        maps.collect::<Vec<_>>()
    };
    let rig = Rig::published();
    rig.reopened();
    of_map(&rig).iter().for_each(|map| fs::write(map, "no map").unwrap());
    rig.ask("", &[]).refused(&["damaged", "which pages are here is not known", "open it anew"]);
    of_map(&rig).iter().for_each(|map| fs::remove_file(map).unwrap());
    rig.ask("", &[]).refused(&["what is here is not known", "Remove the database file and open it anew"]);
    fs::remove_file(rig.place.machine().join("app.db")).unwrap();
    rig.ask("", &["SELECT count(*) FROM t"]).answered(0, &serde_json::json!([[300]]));
}

#[test]
fn folders_that_may_not_be_written_are_named() {
    let mut rig = Rig::published();
    if rustix::process::getuid().is_root() {
        // Root may write everywhere, unless that right is given away.
        rig.below = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"].map(str::to_owned).to_vec();
        let gives_it_away =
            Command::new(&rig.below[0]).args([&rig.below[1], "true"]).status().is_ok_and(|s| s.success());
        if !gives_it_away {
            eprintln!("root may not give its rights away here: not shown on this machine");
            return;
        }
    }
    let permit = |folder: &Path, mode: &str| {
        said(Command::new("chmod").args(["-R", mode]).arg(folder));
    };
    let store = rig.place.machine().join(".littoral");
    let checkpoint = ["INSERT INTO t VALUES (2)", "PRAGMA littoral_checkpoint"];
    permit(&store, "a-w");
    rig.ask("", &checkpoint).denied(1, IOERR, &["manifest", "Permission denied", "littoral doctor"]);
    permit(&store, "u+w");
    let published = files(&rig.remote());
    permit(&rig.remote(), "a-w");
    rig.ask("", &checkpoint).denied(1, CANTOPEN, &["refused by the object store", "littoral doctor"]);
    permit(&rig.remote(), "u+w");
    assert!(files(&rig.remote()) == published);
    assert_eq!(rig.place.stock("app.db", "SELECT count(*) FROM t"), "303", "what was committed stays");

    rig.place.lose_machine();
    permit(&rig.place.machine(), "a-w");
    rig.ask("", &[]).refused(&[".littoral", "make the folder writable", "store="]);
    permit(&rig.place.machine(), "u+w");
    assert!(rig.place.files().is_empty());
    rig.ask("", &["SELECT count(*) FROM t"]).answered(0, &serde_json::json!([[300]]));
}

#[test]
fn a_full_disk_is_named_and_the_next_checkpoint_goes_on() {
    let mut rig = Rig::published();
    rig.ask("", &["INSERT INTO t SELECT hex(randomblob(3000)) FROM t"]);
    let published = files(&rig.remote());
    let mut failures = 0;
    // Ever more room: whichever step it ends in, it is named. Python ignores the signal, so the write fails.
    for blocks in [0, 1, 8, 64, 128, 256, 512, 1024, 1 << 20] {
        rig.below = vec!["bash".to_owned(), "-c".to_owned(), format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")];
        let told = rig.ask("", &["PRAGMA littoral_checkpoint"]);
        if told.answers[0].is_ok() {
            assert!(blocks == 1 << 20, "{told:?}");
            break;
        }
        failures += 1;
        told.denied(0, FULL, &["room"]);
        assert!(files(&rig.remote().join("app.db/log")).len() == 2, "a record was published: {told:?}");
    }
    assert!(failures > 2, "only {failures} limits were too low");
    rig.below.clear();
    assert!(files(&rig.remote()).len() > published.len());
    rig.place.lose_machine();
    rig.ask("", &["SELECT count(*) FROM t"]).answered(0, &serde_json::json!([[602]]));
}

#[test]
fn a_fenced_writer_is_told_who_took_over() {
    let rig = Rig::published();
    let other = rig.folder().join("other");
    let there =
        format!("file://{}?vfs=littoral&remote={}&takeover=1", other.join("app.db").display(), rig.place.remote());
    fs::create_dir(&other).unwrap();
    let taken = rig.ask_uri(&there, &["INSERT INTO t VALUES ('theirs')", "PRAGMA littoral_checkpoint"]);
    assert!(taken.answers.iter().all(Result::is_ok), "{taken:?}");
    let words = ["another writer took over", "epoch 2", "the local database is untouched", "takeover=2"];
    rig.ask("", &["PRAGMA littoral_checkpoint"]).denied(0, READONLY, &words);
    let told = rig.ask("", &["INSERT INTO t VALUES (3)", "SELECT count(*) FROM t"]);
    told.failed(0, READONLY, &["read-only here", "took over (epoch 2)", "fenced=continue", "takeover=2"]);
    told.answered(1, &serde_json::json!([[301]]));
}

#[test]
fn whatever_a_file_is_called_it_is_opened_and_published_under_a_name_of_its_own() {
    let long = "l".repeat(240);
    for (name, escaped) in [
        ("with space.db", "with%20space.db"),
        ("100%.db", "100%25.db"),
        ("what?.db", "what%3F.db"),
        ("a#b.db", "a%23b.db"),
        ("a&b=c.db", "a%26b=c.db"),
        ("grüße-✓.db", "gr%C3%BC%C3%9Fe-%E2%9C%93.db"),
        (&long, &long),
    ] {
        let rig = Rig::new();
        let write = ["CREATE TABLE t(a)", "INSERT INTO t VALUES (7)", "PRAGMA littoral_checkpoint"];
        let told = rig.ask_uri(&rig.uri(escaped, ""), &write);
        assert!(told.answers.iter().all(Result::is_ok), "{name}: {told:?}");
        assert!(rig.place.machine().join(name).exists(), "{name}: {:?}", rig.place.files());
        rig.place.lose_machine();
        rig.ask_uri(&rig.uri(escaped, ""), &["SELECT a FROM t"]).answered(0, &serde_json::json!([[7]]));
    }
    // Two names that a volume's would make the same of are two volumes.
    let rig = Rig::new();
    for (name, row) in [("a%23b.db", 1), ("a%3Fb.db", 2)] {
        let insert = format!("INSERT INTO t VALUES ({row})");
        let told = rig.ask_uri(&rig.uri(name, ""), &["CREATE TABLE t(a)", &insert, "PRAGMA littoral_checkpoint"]);
        assert!(told.answers.iter().all(Result::is_ok), "{name}: {told:?}");
    }
    rig.place.lose_machine();
    for (name, row) in [("a%23b.db", 1), ("a%3Fb.db", 2)] {
        rig.ask_uri(&rig.uri(name, ""), &["SELECT a FROM t"]).answered(0, &serde_json::json!([[row]]));
    }
}

#[test]
fn the_shell_shows_the_same_words() {
    let rig = Rig::published();
    let mut shell = rig.place.host("sqlite3");
    shell.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
    shell.args(["-cmd", &format!(".open {}", rig.uri("app.db", "")), ":memory:", "PRAGMA littoral_chekpoint"]);
    let done = shell.output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("did you mean littoral_checkpoint"), "{told}");
}
