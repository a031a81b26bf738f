//! Bad input at the door: each is a clear error with its way out, nothing is lost, nothing is half-written, and the database's
//! bytes stay what they were.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{Rig, Run, Tiny, Untouched, assert_same, is_root, sql, stock_copy};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A checkpoint that must fail before anything is made.
#[track_caller]
fn refused(rig: &Rig, flags: &[&str], code: i32, words: &[&str]) {
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    let arguments = ["checkpoint", "app.db"].iter().chain(flags);
    rig.run(arguments).fails(code, words);
    untouched.check();
    assert!(!rig.path(".littoral").exists(), "something was made");
    fs::remove_file(&file).unwrap();
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_one() {
    let mut rig = Rig::new();
    refused(&rig, &["--remoet", "x"], 2, &["--remoet", "--remote"]);
    fs::write(rig.path("littoral.toml"), "remoet = 's3://b'").unwrap();
    refused(&rig, &[], 2, &["littoral.toml", "remoet", "did you mean \"remote\""]);
    fs::write(rig.path("littoral.toml"), "volume = [1, 2]").unwrap();
    refused(&rig, &[], 2, &["littoral.toml", "volume", "1 to 128"]);
    fs::remove_file(rig.path("littoral.toml")).unwrap();
    rig.set("LITTORAL_VOLUMN", "x");
    refused(&rig, &[], 2, &["LITTORAL_VOLUMN", "did you mean LITTORAL_VOLUME"]);
}

#[test]
fn a_bad_value_is_named_with_its_origin() {
    let mut rig = Rig::new();
    refused(&rig, &["--quota", "lots"], 2, &["--quota", "500MB"]);
    refused(&rig, &["--volume", "a/b"], 2, &["--volume", "1 to 128"]);
    refused(&rig, &["--takeover", "soon"], 2, &["--takeover", "epoch"]);
    rig.set("LITTORAL_FENCING", "maybe");
    refused(&rig, &[], 2, &["LITTORAL_FENCING", "on or off"]);
    rig.unset("LITTORAL_FENCING");
    rig.set("LITTORAL_CONFIG", "/nowhere/littoral.toml");
    refused(&rig, &[], 2, &["/nowhere/littoral.toml", "LITTORAL_CONFIG"]);
}

#[test]
fn a_malformed_url_is_refused_with_a_right_one_and_its_secrets_are_not_repeated() {
    let rig = Rig::new();
    for (url, words) in [
        ("bucket/prefix", ["--remote", "no scheme"]),
        ("gs://bucket", ["gs://", "s3://bucket/prefix"]),
        ("s3://", ["no bucket", "s3://bucket/prefix"]),
        ("file://relative", ["three slashes", "file:///"]),
        ("s3://AKIAHUSH:HUSHHUSH@bucket/x", ["credentials do not belong", "AWS_ACCESS_KEY_ID"]),
        ("s3://bucket/x?secret=HUSHHUSH", ["credentials come from the environment", "--remote"]),
    ] {
        refused(&rig, &["--remote", url], 2, &words);
    }
    for url in ["s3://", "s3://bucket", "file:///", "s3://bucket/a b"] {
        rig.run(["status", url]).fails(2, &["://"]);
    }
    rig.run(["status", "s3://AKIAHUSH:HUSHHUSH@bucket/app.db"]).fails(2, &["credentials"]);
    rig.run(["status", "s3://bucket/prefix/app.db", "--remote", "s3://other"]).fails(2, &["--remote", "leave one"]);
    rig.run(["checkpoint", "s3://bucket/prefix/app.db"]).fails(2, &["database file", "--remote"]);
    rig.run(["restore", "app.db", "out.db", "--at", "a b"]).fails(2, &["LSN", "snapshot"]);
}

#[test]
fn a_missing_folder_is_named_and_not_made() {
    let rig = Rig::new();
    refused_but_store(&rig, &["--remote", &rig.url("no/such/folder")], 5, &["no/such", "make the bucket or folder"]);
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "no/such/app.db"]).fails(6, &["no/such/app.db", "no such file"]);
    rig.run(["checkpoint", "nothing.db"]).fails(6, &["nothing.db", "no such file"]);
    rig.run(["checkpoint", "."]).fails(6, &["folder"]);
    rig.run(["status", &rig.url("no/such/folder/app.db")]).fails(5, &["no/such"]);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["restore", "app.db", "no/such/out.db"]).fails(1, &["no/such", "folders are not made"]);
    untouched.check();
    assert!(!rig.path("no").exists());
}

/// As [`refused`], where only the object store can say no: a local store may be there by then, and must hurt nobody.
#[track_caller]
fn refused_but_store(rig: &Rig, flags: &[&str], code: i32, words: &[&str]) {
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db"].iter().chain(flags)).fails(code, words);
    untouched.check();
    rig.run(["checkpoint", "app.db"]).succeeds();
    fs::remove_dir_all(rig.path(".littoral")).unwrap();
    fs::remove_file(&file).unwrap();
}

#[test]
fn what_is_no_volume_is_not_taken_for_one() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    fs::create_dir_all(rig.path("photos/app.db")).unwrap();
    fs::write(rig.path("photos/app.db/summer.jpg"), "not a record").unwrap();
    let url = format!("{}/app.db", rig.url("photos"));
    for verb in [&["status"][..], &["history"], &["verify"], &["snapshot", "list"]] {
        rig.run(verb.iter().copied().chain([url.as_str()])).fails(5, &["photos/app.db", "URL"]);
    }
    rig.run(["restore", &url, "out.db"]).fails(5, &["photos/app.db"]);
    rig.run(["status", "app.db"]).fails(5, &["littoral checkpoint"]);
    for verb in ["prune", "release", "coalesce"] {
        rig.run([verb, "app.db"]).fails(5, &["no Littoral volume"]);
    }
    rig.run(["snapshot", "create", "app.db", "v1"]).fails(5, &["no Littoral volume"]);
    assert!(!rig.path(".littoral").exists() && !rig.path("out.db").exists());

    // Records that are none: damage, named as such.
    rig.run(["checkpoint", "app.db"]).succeeds();
    let log = rig.path(".littoral/remote/app.db/log");
    let newest = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    fs::write(&newest, "<html>not found</html>").unwrap();
    fs::remove_file(rig.path(".littoral/remote/app.db/head")).unwrap();
    let untouched = Untouched::note(&file);
    rig.run(["restore", "app.db", "out.db"]).fails(4, &["record", "littoral verify"]);
    let verified = rig.run(["verify", "app.db"]);
    assert!(verified.code == Some(4) && verified.stdout.contains("WRONG"), "{verified:?}");
    rig.run(["checkpoint", "app.db", "--takeover", "1"]).fails(4, &["record"]);
    untouched.check();
    assert!(!rig.path("out.db").exists());
}

#[test]
fn a_volume_copied_under_another_name_is_refused() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let remote = rig.path(".littoral/remote");
    assert!(
        Command::new("cp").arg("-a").arg(remote.join("app.db")).arg(remote.join("copy.db")).status().unwrap().success()
    );
    rig.run(["restore", &rig.url(".littoral/remote/copy.db"), "out.db"]).fails(5, &["not a Littoral volume", "app.db"]);
    assert!(!rig.path("out.db").exists());
}

/// Raises the schema version that stands at a place in every object with this magic.
fn make_newer(folder: &Path, magic: &[u8], at: usize, written: u8) -> usize {
    let mut changed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            changed += make_newer(&path, magic, at, written);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(magic) {
            assert_eq!(bytes[at..at + 2], [written, 0], "where a version stands: docs/format.md");
            bytes[at..at + 2].copy_from_slice(&[9, 9]);
            fs::write(&path, bytes).unwrap();
            changed += 1;
        }
    }
    changed
}

#[test]
fn a_newer_format_is_refused_and_never_called_damage() {
    let magic = |path: &Path| fs::read(path).unwrap()[..4].to_vec();
    // A newer head is only a hint less: what it hints at says the same.
    for kind in ["log", "snap", "chunk"] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        rig.run(["checkpoint", "app.db"]).succeeds();
        // The second record names the snapshot that followed the first.
        sql(&file, "UPDATE t SET body = 'x' WHERE id = 1");
        rig.run(["checkpoint", "app.db"]).succeeds();
        let volume = rig.path(".littoral/remote/app.db");
        let sample = fs::read_dir(volume.join(kind)).unwrap().next().unwrap().unwrap().path();
        let magic = magic(&sample);
        // A chunk's first frame stands behind the blob's header; a restore reads frames alone.
        let at = if kind == "chunk" { 16 } else { 4 };
        // Every checkpoint says what its tables and indexes are: its manifest snapshot is of the newest version.
        let (written, known) = if kind == "snap" { (4, 4) } else { (1, 1) };
        assert!(make_newer(&volume.join(kind), &magic, at, written) > 0, "{kind}");
        if kind == "snap" || kind == "log" {
            // The head holds the snapshot, and with it all that a restore needs.
            fs::remove_file(volume.join("head")).unwrap();
        }
        let untouched = Untouched::note(&file);
        rig.run(["restore", "app.db", "out.db"]).fails(3, &["newer littoral", &format!("reads up to {known}")]);
        assert!(!rig.path("out.db").exists());
        untouched.check();
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused_before_anything_is_written() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let binding = rig.path(".littoral/store.toml");
    let text = fs::read_to_string(&binding).unwrap();
    fs::write(&binding, text.replace("format = 1", "format = 9")).unwrap();
    let before = rig.tree();
    rig.run(["checkpoint", "app.db"]).fails(3, &["store.toml", "newer littoral"]);
    assert_eq!(rig.tree(), before);
    fs::write(&binding, "format = 1\nstore = 'xyz'").unwrap();
    rig.run(["checkpoint", "app.db"]).fails(4, &["store.toml", "restore the file"]);
}

#[test]
fn what_is_no_sound_database_is_refused_before_anything_is_published() {
    let rig = Rig::new();
    let text = rig.path("letter.db");
    fs::write(&text, "Dear database,\n".repeat(500)).unwrap();
    let random: Vec<u8> = (0..40_960u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let encrypted = rig.path("encrypted.db");
    fs::write(&encrypted, &random).unwrap();
    for name in ["letter.db", "encrypted.db"] {
        let untouched = Untouched::note(&rig.path(name));
        rig.run(["checkpoint", name]).fails(6, &[name, "not a SQLite database, or encrypted"]);
        rig.run(["checkpoint", name, "--dry-run"]).fails(6, &[name]);
        untouched.check();
    }
    // Damage in the middle of a page shows only when SQLite is asked: a new volume asks.
    let corrupt = rig.database("corrupt.db");
    let mut bytes = fs::read(&corrupt).unwrap();
    for page in 3..30 {
        bytes[page * 4096..page * 4096 + 64].copy_from_slice(&random[..64]);
    }
    fs::write(&corrupt, bytes).unwrap();
    let untouched = Untouched::note(&corrupt);
    rig.run(["checkpoint", "corrupt.db"]).fails(6, &["corrupt", "nothing was published"]);
    rig.run(["checkpoint", "corrupt.db", "--dry-run"]).fails(6, &["corrupt"]);
    // A file that ends too early.
    let short = rig.database("short.db");
    let bytes = fs::read(&short).unwrap();
    fs::write(&short, &bytes[..bytes.len() / 2]).unwrap();
    rig.run(["checkpoint", "short.db"]).fails(6, &["short.db"]);
    untouched.check();
    assert!(!rig.path(".littoral").exists(), "something was made for a database that is none");
}

#[test]
fn damage_that_comes_later_is_found_by_a_check_and_the_good_version_stays() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let good = rig.path("good.db");
    stock_copy(&file, &good);
    let mut bytes = fs::read(&file).unwrap();
    for page in 3..30 {
        bytes[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    fs::write(&file, bytes).unwrap();
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db", "--check"]).fails(6, &["corrupt", "littoral restore"]);
    untouched.check();
    rig.run(["restore", "app.db", "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &good);
}

#[test]
fn a_locked_database_is_waited_for_and_then_named() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    sql(&file, "PRAGMA journal_mode = delete; CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let mut shell = Command::new("sqlite3")
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    use std::io::{Read as _, Write as _};
    stdin.write_all(b"BEGIN EXCLUSIVE;\n.print held\n").unwrap();
    shell.stdout.take().unwrap().read_exact(&mut [0; 5]).unwrap();
    rig.run(["checkpoint", "app.db"]).fails(1, &["locked", "try again"]);
    drop(stdin);
    shell.wait().unwrap();
    rig.run(["checkpoint", "app.db"]).succeeds();
}

#[test]
fn a_store_that_another_process_works_on_is_named() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    sql(&file, "UPDATE t SET body = 'x' WHERE id = 1");
    let lock = fs::File::options().write(true).open(rig.path(".littoral/worker.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db"]).fails(1, &["worker.lock", "held by", "wait until"]);
    let doctor = rig.run(["doctor", "app.db"]);
    assert!(doctor.code == Some(0) && doctor.stdout.contains("somebody works on it"), "{doctor:?}");
    // Whoever only looks does not wait.
    rig.run(["status", "app.db"]).succeeds();
    rig.run(["checkpoint", "app.db", "--dry-run"]).succeeds();
    untouched.check();
    drop(lock);
    rig.run(["checkpoint", "app.db"]).succeeds();
}

/// Makes a folder one that cannot be written, for root too; undone when dropped.
struct ReadOnly(PathBuf, bool);

impl ReadOnly {
    fn make(folder: &Path) -> Self {
        if is_root() {
            let bind = Command::new("mount").args(["--bind"]).arg(folder).arg(folder).status().unwrap();
            if bind.success() {
                assert!(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(folder).status().unwrap().success());
                return Self(folder.to_owned(), true);
            }
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        Self(folder.to_owned(), false)
    }

    /// Root without mounts must also do without the right to pass over permissions.
    fn run(&self, rig: &Rig, arguments: &[&str]) -> Run {
        if is_root() && !self.1 {
            return rig.run_below(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"], arguments);
        }
        rig.run(arguments)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if self.1 {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        } else {
            let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755));
        }
    }
}

#[test]
fn a_read_only_directory_is_named_wherever_it_is() {
    let rig = Rig::new();
    let file = rig.path("app.db");
    sql(&file, "CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(100000))");
    for name in ["store", "remote", "dest", "db"] {
        fs::create_dir(rig.path(name)).unwrap();
    }
    fs::copy(&file, rig.path("db/app.db")).unwrap();
    let untouched = Untouched::note(&file);

    let store = ReadOnly::make(&rig.path("store"));
    store.run(&rig, &["checkpoint", "app.db", "--store", &rig.text("store/s")]).fails(1, &["store", "writable"]);
    drop(store);

    let remote = ReadOnly::make(&rig.path("remote"));
    let url = rig.url("remote");
    remote.run(&rig, &["checkpoint", "app.db", "--remote", &url]).fails(1, &["remote", "refused", "doctor"]);
    let doctor = remote.run(&rig, &["doctor", "app.db", "--remote", &url]);
    assert!(doctor.stdout.contains("warn  conditional PUT"), "{doctor:?}");
    drop(remote);
    fs::remove_dir_all(rig.path(".littoral")).unwrap();

    // The database's own folder: its store has no place there, but may be elsewhere.
    let folder = ReadOnly::make(&rig.path("db"));
    folder.run(&rig, &["checkpoint", "db/app.db"]).fails(1, &["store=DIR", "db"]);
    let flags = ["checkpoint", "db/app.db", "--store", &rig.text("store"), "--remote", &url];
    folder.run(&rig, &flags).succeeds();
    drop(folder);

    let dest = ReadOnly::make(&rig.path("dest"));
    let from = format!("{url}/app.db");
    dest.run(&rig, &["restore", &from, &rig.text("dest/out.db")]).fails(1, &["dest", "another destination"]);
    drop(dest);
    assert_eq!(fs::read_dir(rig.path("dest")).unwrap().count(), 0);
    untouched.check();

    // A remote that may only be read is enough for a restore.
    let remote = ReadOnly::make(&rig.path("remote"));
    remote.run(&rig, &["restore", &from, &rig.text("dest/out.db")]).succeeds();
    assert_same(&rig.path("dest/out.db"), &file);
}

#[test]
fn p14_two_databases_on_one_remote_are_refused_and_not_merged() {
    let rig = Rig::new();
    for name in ["one", "two"] {
        fs::create_dir(rig.path(name)).unwrap();
    }
    let (one, two) = (rig.database("one/app.db"), rig.database("two/app.db"));
    let remote = rig.url("shared");
    rig.run(["checkpoint", "one/app.db", "--remote", &remote]).succeeds();
    let first = rig.tree().into_iter().filter(|(path, _)| path.starts_with(rig.path("shared"))).collect::<Vec<_>>();
    let untouched = [Untouched::note(&one), Untouched::note(&two)];
    for _ in 0..2 {
        rig.run(["checkpoint", "two/app.db", "--remote", &remote]).fails(
            3,
            &[
                "app.db exists already",
                "not bound",
                "Nothing was published",
                "--volume=NAME",
                "littoral restore",
                "--takeover=1",
            ],
        );
    }
    let after = rig.tree().into_iter().filter(|(path, _)| path.starts_with(rig.path("shared"))).collect::<Vec<_>>();
    assert_eq!(after, first, "the first one's volume was touched");
    untouched.iter().for_each(Untouched::check);
    rig.run(["checkpoint", "two/app.db", "--remote", &remote, "--volume", "other.db"]).succeeds();
    for (name, file) in [("app.db", &one), ("other.db", &two)] {
        let out = rig.path(&format!("out-{name}"));
        rig.run(["restore", &format!("{remote}/{name}"), out.to_str().unwrap()]).succeeds();
        assert_same(&out, file);
    }
    // In one store too.
    let beside = rig.database("one/second.db");
    let untouched = Untouched::note(&beside);
    rig.run(["checkpoint", "one/second.db", "--remote", &remote, "--volume", "app.db"])
        .fails(3, &["never merged", "volume=NAME", "one/app.db"]);
    untouched.check();
    rig.run(["checkpoint", "one/app.db", "--volume", "third.db"]).fails(3, &["belongs to volume app.db"]);
    rig.run(["checkpoint", "one/app.db", "--store", &rig.text("two/.littoral")])
        .fails(3, &["bound", "cannot be opened through"]);
    assert_eq!(rig.json(["checkpoint", "one/app.db"])["changed"], false);
}

#[test]
fn a_store_directory_of_another_volume_is_refused() {
    let rig = Rig::new();
    for name in ["one", "two"] {
        fs::create_dir(rig.path(name)).unwrap();
    }
    rig.database("one/app.db");
    let two = rig.database("two/app.db");
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    let copied = Command::new("cp").arg("-a").arg(rig.path("one/.littoral")).arg(rig.path("two/.littoral")).status();
    assert!(copied.unwrap().success());
    let untouched = Untouched::note(&two);
    let before = rig.tree();
    rig.run(["checkpoint", "two/app.db"]).fails(3, &["one/app.db", "never merged", "--volume"]);
    rig.run(["checkpoint", "two/app.db", "--dry-run"]).fails(3, &["one/app.db"]);
    untouched.check();
    let objects = |tree: Vec<(PathBuf, Vec<u8>)>| {
        tree.into_iter().filter(|(path, _)| path.to_string_lossy().contains("remote")).collect::<Vec<_>>()
    };
    assert_eq!(objects(rig.tree()), objects(before));
    rig.run(["checkpoint", "two/app.db", "--volume", "two.db"]).succeeds();
}

#[test]
fn p03_a_restored_machine_image_is_refused_with_the_choices_and_nothing_is_lost() {
    let rig = Rig::new();
    let machine = rig.path("machine");
    fs::create_dir(&machine).unwrap();
    let file = rig.database("machine/app.db");
    let remote = rig.url("shared");
    rig.run(["checkpoint", "machine/app.db", "--remote", &remote]).succeeds();
    // An image is taken; the machine goes on; the image is restored in its place.
    let image = rig.path("image");
    assert!(Command::new("cp").arg("-a").arg(&machine).arg(&image).status().unwrap().success());
    sql(&file, "UPDATE t SET body = 'after the image' WHERE id <= 10");
    rig.run(["checkpoint", "machine/app.db"]).succeeds();
    let newest = rig.path("newest.db");
    stock_copy(&file, &newest);
    fs::remove_dir_all(&machine).unwrap();
    fs::rename(&image, &machine).unwrap();
    sql(&file, "UPDATE t SET body = 'on the restored image' WHERE id = 4000; PRAGMA wal_checkpoint(TRUNCATE)");

    let objects =
        || rig.tree().into_iter().filter(|(path, _)| path.starts_with(rig.path("shared"))).collect::<Vec<_>>();
    let (untouched, before) = (Untouched::note(&file), objects());
    for arguments in [&["checkpoint", "machine/app.db"][..], &["checkpoint", "machine/app.db", "--dry-run"]] {
        rig.run(arguments).fails(
            3,
            &[
                "restored copy of a machine",
                "Nothing was published",
                "littoral restore",
                "--volume=NAME",
                "--takeover=1",
            ],
        );
    }
    assert_eq!(rig.json(["status", "machine/app.db"])["here"], "behind");
    untouched.check();
    assert_eq!(objects(), before, "the remote was touched");

    // Each choice works, and neither loses the other's work.
    rig.run(["restore", "machine/app.db", "remote-state.db"]).succeeds();
    assert_same(&rig.path("remote-state.db"), &newest);
    let done = rig.json(["checkpoint", "machine/app.db", "--takeover", "1"]);
    assert_eq!(done["position"], "2.3");
    rig.run(["restore", "machine/app.db", "image-state.db"]).succeeds();
    assert_same(&rig.path("image-state.db"), &file);
    rig.run(["restore", "machine/app.db", "before.db", "--at", "1.2"]).succeeds();
    assert_same(&rig.path("before.db"), &newest);
}

#[test]
fn a_remote_that_lost_its_records_is_refused() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    fs::remove_dir_all(rig.path(".littoral/remote/app.db")).unwrap();
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db"]).fails(3, &["lost records", "--volume=NAME"]);
    rig.run(["checkpoint", "app.db", "--dry-run"]).fails(3, &["lost records"]);
    untouched.check();
}

#[test]
fn a_quota_is_kept_and_named() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    rig.run(["checkpoint", "app.db", "--quota", "10kB"]).fails(1, &["quota", "raise quota="]);
    untouched.check();
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["restore", "app.db", "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &file);
}

/// Runs with ever more room until it succeeds: whichever step the room ends in, it says so, and leaves nothing half-made.
/// How often it failed.
fn with_ever_more_room(
    what: &str,
    rooms: impl IntoIterator<Item = u64>,
    mut run: impl FnMut(u64) -> Run,
    mut after_failure: impl FnMut(),
) -> usize {
    for (failures, room) in rooms.into_iter().enumerate() {
        let run = run(room);
        if run.code == Some(0) {
            return failures;
        }
        let said = run.stderr.to_lowercase();
        let named = ["no room", "no space", "is full", "too large", "full"].iter().any(|word| said.contains(word));
        assert!(run.code == Some(1) && named, "{what} with {room}: {run:?}");
        assert!(said.contains("way out: ") && said.contains("room"), "{what} with {room}: {run:?}");
        after_failure();
    }
    panic!("{what}: never had enough room");
}

/// Bytes that do not compress, so that room matters.
fn wide_database(rig: &Rig, name: &str) -> PathBuf {
    let file = rig.path(name);
    sql(
        &file,
        "CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO t SELECT randomblob(3000) FROM n",
    );
    file
}

#[test]
fn a_full_disk_is_named_in_each_step_and_the_next_run_goes_on() {
    let rig = Rig::new();
    let file = wide_database(&rig, "app.db");
    let disk = rig.path("disk");
    let Some(tiny) = Tiny::mount(&disk, 4) else {
        eprintln!(
            "no file system can be mounted here: the file-size limit of the other test stands in for a full disk"
        );
        return;
    };
    let untouched = Untouched::note(&file);
    let rooms = (1..400).map(|step| step * 12);

    // The store's disk: binding, manifest, scratch.
    let remote = rig.url("remote");
    let store = rig.text("disk/store");
    let flags = ["checkpoint", "app.db", "--store", &store, "--remote", &remote];
    let failures = with_ever_more_room(
        "store",
        rooms.clone(),
        |room| {
            tiny.resize(room);
            rig.run(flags)
        },
        || untouched.check(),
    );
    assert!(failures > 10, "only {failures} steps were without room");
    rig.run(["restore", &format!("{remote}/app.db"), "from-store.db"]).succeeds();
    assert_same(&rig.path("from-store.db"), &file);
    assert_eq!(rig.json(["verify", &format!("{remote}/app.db")])["problems"].as_array().unwrap().len(), 0);
    drop(tiny);

    // The remote's disk.
    let tiny = Tiny::mount(&disk, 4).unwrap();
    let remote = rig.url("disk/remote");
    let flags = ["checkpoint", "app.db", "--remote", &remote];
    let failures = with_ever_more_room(
        "remote",
        rooms.clone(),
        |room| {
            tiny.resize(room);
            rig.run(flags)
        },
        || untouched.check(),
    );
    assert!(failures > 10, "only {failures} steps were without room");
    rig.run(["restore", "app.db", "from-remote.db"]).succeeds();
    assert_same(&rig.path("from-remote.db"), &file);
    let verified = rig.run(["verify", "app.db"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    drop(tiny);
    fs::remove_dir_all(rig.path(".littoral")).unwrap();

    // A restore's disk.
    let tiny = Tiny::mount(&disk, 4).unwrap();
    rig.run(["checkpoint", "app.db"]).succeeds();
    let dest = rig.text("disk/out.db");
    let failures = with_ever_more_room(
        "restore",
        rooms,
        |room| {
            tiny.resize(room);
            rig.run(["restore", "app.db", &dest])
        },
        || assert!(!rig.path("disk/out.db").exists()),
    );
    assert!(failures > 10, "only {failures} steps were without room");
    assert_same(&rig.path("disk/out.db"), &file);
    untouched.check();
}

#[test]
fn a_file_size_limit_is_named_in_each_step_and_the_next_run_goes_on() {
    let rig = Rig::new();
    let file = wide_database(&rig, "app.db");
    let untouched = Untouched::note(&file);
    // Ignoring the signal turns the limit into an error of the write.
    let below = |blocks: u64, arguments: &[&str]| {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        rig.run_below(&["bash", "-c", &script], arguments)
    };
    let rooms = [0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 768, 1024, 1536, 2048, 4096, 16384, 1 << 20];
    let flags = ["checkpoint", "app.db"];
    let failures = with_ever_more_room("checkpoint", rooms, |room| below(room, &flags), || untouched.check());
    assert!(failures > 3, "only {failures} limits were too low");
    let dest = rig.text("out.db");
    let flags = ["restore", "app.db", dest.as_str()];
    let failures =
        with_ever_more_room("restore", rooms, |room| below(room, &flags), || assert!(!rig.path("out.db").exists()));
    assert!(failures > 3, "only {failures} limits were too low");
    assert_same(&rig.path("out.db"), &file);
    untouched.check();
    assert_eq!(rig.json(["verify", "app.db"])["problems"].as_array().unwrap().len(), 0);
}
