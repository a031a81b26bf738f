//! Object stores that cannot be used, through SQLite: a database that is here is read and written as before, and whoever asks for the
//! object store is told why not, without a secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_hosts::told::{CANTOPEN, ERROR, IOERR, Rig};
use littoral_test_s3::S3Server;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// A rig whose remote is a bucket; the database is here, and was never published.
fn with_bucket(environment: Vec<(&'static str, String)>) -> Rig {
    let mut rig = Rig::new();
    rig.environment = environment;
    rig.place.stock("app.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    rig
}

/// A remote that cannot be used: a database that is here is read and written, its checkpoint says why, and a cold opening too.
fn unusable(rig: &Rig, remote: &str, code: i64, words: &[&str]) {
    let parameters = format!("&remote={remote}");
    let told =
        rig.ask(&parameters, &["INSERT INTO t VALUES (2)", "SELECT count(*) FROM t", "PRAGMA littoral_checkpoint"]);
    told.answered(1, &serde_json::json!([[2]]));
    told.denied(2, code, words);
    let secrets = rig.environment.iter().filter(|(name, _)| name.contains("SECRET"));
    secrets.for_each(|(_, secret)| assert!(!told.all.contains(secret), "a secret was repeated: {told:?}"));
    assert_eq!(rig.place.stock("app.db", "SELECT count(*) FROM t; PRAGMA integrity_check"), "2\nok");
    let told = rig.ask_uri(&rig.uri("cold.db", &parameters), &[]);
    told.refused(words);
    assert!(!rig.place.machine().join("cold.db").exists());
}

#[test]
fn remotes_that_cannot_be_used_are_named_with_the_reason() {
    let server = S3Server::shared();
    let remote = format!("s3://{}/x", server.bucket());
    for environment in [server.wrong_secret_env(), server.unknown_key_env()] {
        unusable(
            &with_bucket(environment),
            &remote,
            CANTOPEN,
            &["refused", "check the credentials", "AWS_ACCESS_KEY_ID"],
        );
    }
    unusable(&with_bucket(Vec::new()), &remote, CANTOPEN, &["no credentials", "AWS_ACCESS_KEY_ID"]);
    let missing = "s3://no-such-bucket-anywhere/x";
    unusable(&with_bucket(server.env()), missing, CANTOPEN, &["no-such-bucket-anywhere", "make the bucket"]);
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut nobody = with_bucket(server.env());
    nobody.environment.push(("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{port}")));
    unusable(&nobody, &remote, IOERR, &["cannot be reached", "endpoint="]);
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
            std::thread::spawn(move || pass(client, server, &bucket));
        }
    });
    port
}

fn pass(mut client: TcpStream, server: &S3Server, bucket: &str) {
    let Ok(mut upstream) = TcpStream::connect(server.authority()) else { return };
    let (mut answers, mut asker) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
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
            server.delete(bucket, words.next().unwrap().strip_prefix(&format!("/{bucket}/")).unwrap());
        }
        if upstream.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_store_that_does_not_honour_a_condition_is_refused_unless_fencing_is_off() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let mut rig = with_bucket(server.env());
    rig.environment.push(("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{}", without_conditions(server, &bucket))));
    let parameters = format!("&remote=s3://{bucket}/x");
    let words = ["conditional PUT is not honoured", "fencing=off"];
    rig.ask(&parameters, &["PRAGMA littoral_checkpoint"]).denied(0, ERROR, &words);
    let told = rig.ask(&format!("{parameters}&fencing=off"), &["PRAGMA littoral_checkpoint"]);
    told.answered(0, &serde_json::json!([["1.1"]]));
}
