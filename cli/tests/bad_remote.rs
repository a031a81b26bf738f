//! Bad remotes at the door, on a real S3 server: each is a clear error with its way out, without a secret, and the database and
//! what was published before stay what they were.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_test_s3::S3Server;
use rig::{Rig, Untouched, assert_same, sql};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A rig whose environment is this identity's.
fn rig(environment: Vec<(&'static str, String)>) -> Rig {
    Rig::with(environment)
}

#[test]
fn the_main_job_over_s3_and_minio_urls() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let rig = rig(server.env());
    let file = rig.database("app.db");
    let s3 = format!("s3://{bucket}/one");
    let minio = format!("minio://{}/{bucket}/two", server.authority());
    for (name, remote) in [("s3.db", s3), ("minio.db", minio)] {
        std::fs::copy(&file, rig.path(name)).unwrap();
        let done = rig.json(["checkpoint", name, "--remote", &remote]);
        assert_eq!(done["position"], "1.1");
        sql(&rig.path(name), "UPDATE t SET body = 'x' WHERE id = 9; PRAGMA wal_checkpoint(TRUNCATE)");
        let done = rig.json(["checkpoint", name]);
        assert_eq!(done["cost"]["checkpoint"]["writes"], 2, "{done}");
        rig.run(["snapshot", "create", name, "v1"]).succeeds();
        let out = format!("out-{name}");
        rig.run(["restore", &format!("{remote}/{name}"), &out]).succeeds();
        assert_same(&rig.path(&out), &rig.path(name));
        rig.run(["verify", name]).succeeds();
        let doctor = rig.json(["doctor", name]);
        assert_eq!(doctor["worst"], "ok", "{doctor}");
        rig.run(["prune", name, "--keep-last", "1", "--grace", "0"]).succeeds();
        rig.run(["verify", &format!("{remote}/{name}")]).succeeds();
        // A fork, and the volume handed over: another machine goes on without a word, and the fork does not notice.
        let forked = rig.json(["fork", &format!("{remote}/{name}@v1"), &format!("fork-{name}")]);
        assert!(forked["cost"]["requests"].as_u64().is_none_or(|requests| requests < 16), "{forked}");
        rig.run(["release", name]).succeeds();
        std::fs::create_dir(rig.path(&format!("machine-{name}"))).unwrap();
        let there = format!("machine-{name}/app.db");
        let on_there =
            ["shell", &there, "--remote", &remote, "--volume", name, "DELETE FROM t", "PRAGMA littoral_release"];
        rig.run(on_there).succeeds();
        let fork = format!("{remote}/fork-{name}");
        rig.run(["restore", &fork, &out, "--force"]).succeeds();
        assert_same(&rig.path(&out), &rig.path(name));
        rig.run(["verify", &fork]).succeeds();
        let terms = rig.json(["status", &format!("{remote}/{name}"), "--terms"])["terms"].clone();
        assert_eq!(
            (terms[0]["how"].as_str(), terms[1]["how"].as_str()),
            (Some("released"), Some("released")),
            "{terms}"
        );
    }
}

/// Every verb that asks the remote fails with this code and these words, and nothing here moves.
fn all_fail(rig: &Rig, remote: &str, code: i32, words: &[&str]) {
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    let url = format!("{remote}/app.db");
    rig.run(["checkpoint", "app.db", "--remote", remote]).fails(code, words);
    rig.run(["checkpoint", "app.db", "--remote", remote, "--dry-run"]).fails(code, words);
    for verb in ["status", "history", "verify"] {
        rig.run([verb, &url]).fails(code, words);
    }
    rig.run(["restore", &url, "out.db"]).fails(code, words);
    let doctor = rig.run(["doctor", &url]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("FAIL") && doctor.stdout.contains("way out: "), "{doctor:?}");
    untouched.check();
    assert!(!rig.path("out.db").exists());
    // The failed attempt stands in nobody's way.
    rig.run(["checkpoint", "app.db"]).succeeds();
    std::fs::remove_dir_all(rig.path(".littoral")).unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn without_credentials_the_places_that_were_looked_at_are_named() {
    let server = S3Server::shared();
    let remote = format!("s3://{}/x", server.bucket());
    let mut rig = rig(server.env());
    rig.unset("AWS_ACCESS_KEY_ID");
    rig.unset("AWS_SECRET_ACCESS_KEY");
    // No cloud gives this machine a role.
    rig.set("AWS_EC2_METADATA_DISABLED", "true");
    all_fail(&rig, &remote, 1, &["no credentials", "AWS_ACCESS_KEY_ID", "way out"]);
    // Half of a pair is a mistake of its own.
    rig.set("AWS_ACCESS_KEY_ID", "testkey");
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db", "--remote", &remote]).fails(2, &["AWS_SECRET_ACCESS_KEY is not"]);
    drop(file);
}

#[test]
fn wrong_credentials_are_refused_by_the_store_and_not_repeated() {
    let server = S3Server::shared();
    let remote = format!("s3://{}/x", server.bucket());
    for environment in [server.wrong_secret_env(), server.unknown_key_env()] {
        all_fail(&rig(environment), &remote, 1, &["refused", "credentials", "AWS_ACCESS_KEY_ID"]);
    }
    let minio = format!("minio://{}/{}/x", server.authority(), server.bucket());
    all_fail(&rig(server.wrong_secret_env()), &minio, 1, &["refused", "credentials"]);
}

#[test]
fn a_missing_bucket_is_named_and_not_made() {
    let server = S3Server::shared();
    all_fail(&rig(server.env()), "s3://no-such-bucket-anywhere/x", 5, &["no-such-bucket-anywhere", "make the bucket"]);
}

#[test]
fn a_bucket_that_may_only_be_read_refuses_checkpoints_and_serves_restores() {
    let server = S3Server::shared();
    let remote = format!("s3://{}/x", server.bucket());
    let mut rig = rig(server.env());
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db", "--remote", &remote]).succeeds();
    for (name, value) in server.read_only_env() {
        rig.set(name, &value);
    }
    rig.run(["restore", "app.db", "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &file);
    rig.run(["verify", "app.db"]).succeeds();
    let doctor = rig.run(["doctor", "app.db"]);
    assert!(doctor.code == Some(0) && doctor.stdout.contains("warn  conditional PUT"), "{doctor:?}");

    sql(&file, "UPDATE t SET body = 'x' WHERE id = 9; PRAGMA wal_checkpoint(TRUNCATE)");
    let untouched = Untouched::note(&file);
    let before = rig.json(["history", "app.db"])["records"].clone();
    rig.run(["checkpoint", "app.db"]).fails(1, &["refused", "write"]);
    rig.run(["snapshot", "create", "app.db", "v1"]).fails(1, &["refused"]);
    rig.run(["prune", "app.db", "--keep-last", "1", "--grace", "0"]).fails(1, &["refused"]);
    std::fs::create_dir(rig.path("new")).unwrap();
    rig.database("new/other.db");
    rig.run(["checkpoint", "new/other.db", "--remote", &remote]).fails(1, &["refused"]);
    untouched.check();
    assert_eq!(rig.json(["history", "app.db"])["records"], before);
    for (name, value) in server.env() {
        rig.set(name, &value);
    }
    assert_eq!(rig.json(["checkpoint", "app.db"])["position"], "1.2");
}

#[test]
fn an_endpoint_that_nobody_answers_is_named_in_bounded_time() {
    let server = S3Server::shared();
    let mut rig = rig(server.env());
    // A port that was free a moment ago.
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    rig.set("AWS_ENDPOINT_URL_S3", &format!("http://127.0.0.1:{port}"));
    let began = Instant::now();
    all_fail(&rig, "s3://some-bucket/x", 1, &["cannot be reached", "endpoint="]);
    assert!(began.elapsed() < Duration::from_secs(240), "took {:?}", began.elapsed());
    rig.set("AWS_ENDPOINT_URL_S3", "http://no-such-host.invalid");
    let file = rig.database("app.db");
    rig.run(["status", "s3://some-bucket/x/app.db"]).fails(1, &["cannot be reached"]);
    rig.run(["status", "s3://some-bucket/x/app.db", "--endpoint", "ftp://x"]).fails(2, &["--endpoint", "http://"]);
    drop(file);
}

/// Passes bytes on to a server, as a store would that takes a PUT's condition for an ornament: whatever stands in the way of a
/// conditional PUT is deleted first. (A condition is signed, so it cannot be taken out on the way.)
fn without_conditions(server: &'static S3Server, bucket: &str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let bucket = bucket.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let bucket = bucket.clone();
            let clear = move |path: &str| {
                server.delete(&bucket, path.strip_prefix(&format!("/{bucket}/")).unwrap());
            };
            std::thread::spawn(move || pass(client, &server.authority(), clear));
        }
    });
    port
}

fn pass(mut client: TcpStream, upstream: &str, clear: impl Fn(&str)) {
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    let (mut answers, mut asker) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut asker);
        let _ = asker.shutdown(std::net::Shutdown::Both);
    });
    let mut chunk = vec![0; 1 << 20];
    while let Ok(count) = client.read(&mut chunk) {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&chunk[..count]);
        let mut words = text.split(' ');
        if words.next() == Some("PUT") && text.to_lowercase().contains("\r\nif-none-match:") {
            clear(words.next().unwrap());
        }
        if server.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_store_that_does_not_honour_a_condition_is_refused_unless_fencing_is_off() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let remote = format!("s3://{bucket}/x");
    let mut rig = rig(server.env());
    let port = without_conditions(server, &bucket);
    rig.set("AWS_ENDPOINT_URL_S3", &format!("http://127.0.0.1:{port}"));
    let file = rig.database("app.db");
    let untouched = Untouched::note(&file);
    let refused = rig.run(["checkpoint", "app.db", "--remote", &remote]);
    refused.fails(3, &["conditional PUT is not honoured", "fencing=off"]);
    let doctor = rig.run(["doctor", &format!("{remote}/app.db")]);
    assert!(doctor.code == Some(1) && doctor.stdout.contains("FAIL  conditional PUT"), "{doctor:?}");
    rig.run(["status", &format!("{remote}/app.db")]).fails(5, &["no Littoral volume"]);
    let measured = rig.run(["bench", &remote, "--seconds", "2"]);
    measured.fails(
        3,
        &["conditional PUT is not honoured", "writers of one fresh name", "use a store with conditional PUT"],
    );
    assert_eq!(rig.json(["bench", &remote, "--clean"])["deleted"], 0, "it leaves something");
    untouched.check();
    let allowed = rig.run(["checkpoint", "app.db", "--remote", &remote, "--fencing", "off"]);
    allowed.succeeds();
    assert!(allowed.stderr.contains("fencing is off"), "{allowed:?}");
    rig.run(["restore", "app.db", "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &file);
}
