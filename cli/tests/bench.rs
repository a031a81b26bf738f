//! `littoral bench` on real object stores: what it measures is so, what it suggests can be said, and nothing of it stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_test_s3::S3Server;
use littoral_test_s3::network::Proxy;
use rig::{BINARY, Rig};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const QUICK: [&str; 4] = ["--seconds", "3", "--bytes", "24MB"];

/// The files below a folder of the rig; what a killed process has not written to its end, a later writer sweeps.
fn files(rig: &Rig, folder: &str) -> Vec<String> {
    let folder = rig.path(folder);
    let is_whole = |path: &Path| !path.starts_with(folder.join("~tmp"));
    let all = rig
        .tree()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.is_file() && path.starts_with(&folder) && is_whole(path));
    all.map(|path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned()).collect()
}

fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} is not in {json}"))
}

#[test]
fn a_folder_is_measured_what_is_suggested_can_be_said_and_nothing_stays() {
    let rig = Rig::new();
    fs::create_dir(rig.path("store")).unwrap();
    fs::write(rig.path("store/other"), "somebody's").unwrap();
    let url = rig.url("store");
    let told = rig.json([&["bench", url.as_str()], &QUICK[..]].concat());
    for kind in ["conditional_put", "put", "get", "get_range", "list"] {
        let of = |what: &str| number(&told, &format!("/latency/{kind}/{what}"));
        assert!(of("p50_ms") > 0.0 && of("p50_ms") <= of("p99_ms") && of("p99_ms") < 3_000.0, "{kind}: {told}");
        assert!(of("requests") >= 1.0, "{kind}: {told}");
    }
    assert_eq!(told["conditional_put"]["honoured"], true, "{told}");
    assert!(told["left"].is_null() && told["swept"] == 0 && number(&told, "/deleted") > 8.0, "{told}");
    assert!(number(&told, "/cost/bytes_up") < 24e6 && number(&told, "/cost/bytes_down") < 24e6, "{told}");
    // A folder costs nothing, unless somebody says so.
    assert_eq!(told["month"]["prices"], "0/0", "{told}");
    assert_eq!(files(&rig, "store"), ["other"]);

    let advice = told["advice"].as_array().unwrap();
    let names: Vec<&str> = advice.iter().map(|one| one["setting"].as_str().unwrap()).collect();
    assert_eq!(names, ["sync_interval", "durability", "close_wait", "poll", "upload_rate"]);
    let line = |one: &Value| format!("{} = {}\n", one["setting"].as_str().unwrap(), one["value"]);
    let mut lines: String = advice.iter().map(line).collect();
    lines.push_str("remote = \"file:///nowhere\"\n");
    rig.database("app.db");
    fs::write(rig.path("littoral.toml"), &lines).unwrap();
    let doctor =
        rig.command(BINARY).env_remove("LITTORAL_SYNC_INTERVAL").args(["doctor", "app.db", "--read-only"]).output();
    let doctor = String::from_utf8(doctor.unwrap().stdout).unwrap();
    for one in advice {
        // Sizes are shown in bytes.
        let (name, value) = (one["setting"].as_str().unwrap(), one["value"].as_str().unwrap());
        let said = doctor.lines().find(|line| line.contains(&format!(" {name} = "))).unwrap_or_default();
        assert!(said.starts_with("ok ") && said.contains(&format!("littoral.toml: {name}")), "{name}: {doctor}");
        assert!(value.ends_with("MB") || said.contains(&format!(" {name} = {value} (")), "{name}: {doctor}");
    }
}

#[test]
fn people_read_a_page_and_a_databases_own_store_is_measured_by_its_file() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["bench", "app.db", "--seconds", "1"]).fails(5, &["no such bucket or folder", "make the bucket or folder"]);
    rig.run(["checkpoint", "app.db"]).succeeds();
    let before = files(&rig, ".littoral/remote");
    let told =
        rig.run(["bench", "app.db", "--seconds", "1", "--bytes", "16MB", "--prices", "5/0.4", "--sync_interval", "2s"]);
    told.succeeds();
    for words in [
        "conditional PUT is honoured: of 8 writers of one name one won, 4 times",
        "PUT if absent, 4.1 kB",
        "GET of a range, 32.8 kB",
        "sync_interval=2s",
        "1,296,000",
        "6.48",
        "suggested\n  sync_interval=1s",
        "close_wait=2s",
        "that were written are deleted",
    ] {
        assert!(told.stdout.contains(words), "{words:?} is not in {told:?}");
    }
    assert_eq!(files(&rig, ".littoral/remote"), before);
    rig.run(["verify", "app.db"]).succeeds();
}

#[test]
fn a_store_thirty_milliseconds_away_takes_that_long_and_more_at_once_is_more() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let far = Duration::from_millis(30);
    let proxy = runtime.block_on(Proxy::start(server.authority(), far, None));
    let mut rig = Rig::with(server.env());
    rig.set("AWS_ENDPOINT_URL_S3", &proxy.endpoint());
    let url = format!("s3://{bucket}/x");
    let told = rig.json(["bench", url.as_str(), "--seconds", "8", "--bytes", "24MB"]);
    for kind in ["conditional_put", "put", "get", "get_range", "list"] {
        let median = number(&told, &format!("/latency/{kind}/p50_ms"));
        assert!((30.0..1_000.0).contains(&median), "{kind}: {median} ms in {told}");
    }
    // One after the other each waits; eight at once are far more than twice as much.
    for way in ["up", "down"] {
        let rate = |nth: usize| number(&told, &format!("/throughput/{way}/{nth}/bytes_per_s"));
        assert!(rate(3) > 2.0 * rate(0), "{way}: {told}");
        assert!(number(&told, &format!("/throughput/{way}_pays")) >= 4.0, "{way}: {told}");
    }
    assert_eq!(told["month"]["intervals"][0]["price"], "12.96", "{told}");
    let suggested = told["advice"][0].clone();
    assert_eq!(suggested["setting"], "sync_interval");
    assert!(suggested["why"].as_str().unwrap().contains("writes a month cost"), "{suggested}");
    // What went through is what it says it cost.
    let traffic = proxy.traffic();
    let requests = number(&told, "/cost/requests") as u64;
    assert!(traffic.writes + traffic.reads >= requests, "{traffic:?}: {told}");
    let list = rig.json(["bench", &url, "--clean"]);
    assert_eq!((list["deleted"].clone(), list["left"].clone()), (0.into(), Value::Null), "something stayed");
}

/// Passes everything on to a server but what deletes, which is refused as a policy does.
fn without_deletes(server: &'static S3Server) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || pass(client, &server.authority()));
        }
    });
    port
}

fn pass(mut client: TcpStream, upstream: &str) {
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    let (mut answers, mut asker) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut asker);
        let _ = asker.shutdown(Shutdown::Both);
    });
    let refused = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    let refused = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{refused}", refused.len());
    let mut chunk = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut chunk) {
        let is_delete = chunk.starts_with(b"DELETE ");
        let passed = if is_delete { client.write_all(refused.as_bytes()) } else { server.write_all(&chunk[..count]) };
        if passed.is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn credentials_that_may_not_delete_are_told_what_stays_and_whoever_may_deletes_it() {
    let server = S3Server::shared();
    let url = format!("s3://{}/x", server.bucket());
    let mut rig = Rig::with(server.env());
    let port = without_deletes(server);
    rig.set("AWS_ENDPOINT_URL_S3", &format!("http://127.0.0.1:{port}"));
    let told = rig.json([&["bench", url.as_str()], &QUICK[..]].concat());
    let left = told["left"].clone();
    assert!(number(&left, "/objects") > 8.0 && left["folder"] == "littoral-bench", "{told}");
    assert!(told["warnings"][0].as_str().unwrap().contains("--clean"), "{told}");
    assert!(
        told["advice"].as_array().unwrap().iter().any(|one| one["setting"] == "prune_deletes" && one["value"] == "off")
    );
    let refused = rig.run(["bench", &url, "--clean"]);
    assert!(refused.code == Some(1) && refused.stdout.contains("could not be deleted"), "{refused:?}");
    for (name, value) in server.env() {
        rig.set(name, &value);
    }
    assert_eq!(rig.json(["bench", &url, "--clean"])["deleted"], left["objects"]);
    assert_eq!(rig.json(["bench", &url, "--clean"])["deleted"], 0);
}

/// A bench of a folder that has begun to write there.
fn under_way(rig: &Rig) -> Child {
    let arguments = ["bench", &rig.url("store"), "--seconds", "60", "--bytes", "1GB"];
    let mut command = rig.command(BINARY);
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while files(rig, "store").len() < 20 {
        assert!(since.elapsed() < Duration::from_secs(60), "it writes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn killed_it_leaves_its_own_folder_alone_and_clean_removes_that() {
    let rig = Rig::new();
    fs::create_dir(rig.path("store")).unwrap();
    fs::write(rig.path("store/other"), "somebody's").unwrap();
    let mut child = under_way(&rig);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let mut left = files(&rig, "store");
    left.retain(|name| !name.starts_with("littoral-bench/"));
    assert_eq!(left, ["other"]);
    // Whether its run goes on elsewhere nobody can know yet: the next one leaves it alone.
    let url = rig.url("store");
    let told = rig.json([&["bench", url.as_str()], &QUICK[..]].concat());
    assert_eq!(told["swept"], 0, "{told}");
    assert!(number(&rig.json(["bench", &url, "--clean"]), "/deleted") >= 19.0);
    assert_eq!(files(&rig, "store"), ["other"]);
}

#[test]
fn a_signal_stops_it_and_what_was_written_goes_with_it() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let rig = Rig::new();
        fs::create_dir(rig.path("store")).unwrap();
        let child = under_way(&rig);
        let since = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("stopped by a signal") && said.contains("all that was written is deleted"), "{said}");
        assert!(ended.stdout.is_empty() && since.elapsed() < Duration::from_secs(30));
        assert_eq!(files(&rig, "store"), Vec::<String>::new());
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let server = S3Server::shared();
    let mut rig = Rig::with(server.env());
    let bucket = server.bucket();
    let url = format!("s3://{bucket}/x");
    for (arguments, words) in [
        (&["--seconds", "0"][..], &["--seconds"][..]),
        (&["--seconds", "3601"], &["--seconds"]),
        (&["--seconds", "soon"], &["--seconds"]),
        (&["--bytes", "1MB"], &["16MB at least"]),
        (&["--bytes", "lots"], &["16MB at least"]),
        (&["--clean", "--seconds", "3"], &["--seconds", "--clean"]),
        (&["--remote", "s3://other"], &["--remote and a URL"]),
        (&["--at", "-5m"], &["newest state"]),
    ] {
        rig.run([&["bench", url.as_str()], arguments].concat()).fails(2, words);
    }
    rig.run(["bench", "gs://bucket"]).fails(2, &["gs:// is not known", "s3://bucket/prefix"]);
    rig.run(["bench", "s3://AKIAHUSH:HUSHHUSH@bucket/x"]).fails(2, &["credentials do not belong in a URL"]);
    rig.run(["bench"]).fails(2, &["URL|FILE"]);
    rig.run(["bench", "nothing.db"]).fails(5, &["no such bucket or folder"]);
    rig.run(["bench", "s3://no-such-bucket-anywhere/x"]).fails(5, &["no-such-bucket-anywhere", "make the bucket"]);
    rig.run(["bench", &rig.url("nowhere/deeper")]).fails(5, &["make the bucket or folder"]);
    assert_eq!(rig.json(["bench", &url, "--clean"])["deleted"], 0);
    for (name, value) in server.read_only_env() {
        rig.set(name, &value);
    }
    rig.run(["bench", &url]).fails(1, &["refused by the object store", "credentials"]);
}
