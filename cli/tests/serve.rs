//! `littoral serve`, and a worker with `metrics_listen=`: what they tell under a live load, what they refuse, and whom they outlast.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;
mod served;

use littoral_test_s3::S3Server;
use rig::{Rig, sql};
use serde_json::Value;
use served::{LONG, Served, TOKEN, series, sum};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

/// The names that were promised before there was a line of code.
const PROMISED: [&str; 14] = [
    "checkpoint_duration_seconds",
    "checkpoint_bytes_written_local",
    "checkpoint_bytes_written_remote",
    "checkpoint_queue_depth",
    "checkpoint_success_total",
    "checkpoint_failure_total",
    "storage_quota_exhausted_total",
    "page_fetch_latency_seconds",
    "remote_bytes_read_total",
    "remote_requests_total",
    "manifest_write_errors_total",
    "wal_lag_lsn",
    "wal_lag_seconds",
    "delta_chain_length",
];

fn commit(rig: &Rig, nth: u32) {
    let sql = format!("UPDATE t SET body = 'commit {nth} ' || hex(randomblob(30)) WHERE id % 50 = {}", nth % 50);
    rig.run(["shell", "app.db", &sql]).succeeds();
}

#[test]
fn every_promised_metric_is_there_under_a_live_load_agrees_with_status_and_outlives_the_worker() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let mut rig = Rig::with(server.env());
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    rig.set("LITTORAL_REMOTE", &format!("s3://{bucket}/served"));
    rig.set("LITTORAL_VOLUME", "app");
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let worker = ["worker", "app.db", "--metrics_listen=127.0.0.1:0", "--sync_interval=200ms"];
    let served = Served::start(&rig, &worker);
    served.until("it ships", |served| sum(&served.metrics(), "littoral_shipping", &["volume=\"app\""]) == 1.0);
    // What nobody saw coming is brought by a checkpoint; what comes after it, commit by commit.
    commit(&rig, 99);
    served.until("the first commit is shipped", |served| sum(&served.metrics(), "littoral_position_lsn", &[]) == 2.0);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| (0..12).for_each(|nth| commit(&rig, nth)));
        // It answers while others write, and what is told is whole each time.
        while !load.is_finished() {
            let metrics = served.metrics();
            assert!(sum(&metrics, "littoral_safety", &[]) == 1.0, "it is in one state: {metrics:?}");
            served.get("/healthz").is(200);
        }
    });
    // A checkpoint and thirteen commits.
    served.until("everything is shipped", |served| {
        let metrics = served.metrics();
        sum(&metrics, "littoral_position_lsn", &[]) == 14.0 && sum(&metrics, "wal_lag_lsn", &[]) == 0.0
    });
    let text = served.get("/metrics").is(200).body;
    for name in PROMISED.into_iter().chain(["recovery_phase_seconds"]) {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not there");
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name}_count{{"))),
            "{name} has no series"
        );
    }
    let (metrics, status) = (series(&text), rig.json(["status", "app.db"]));
    let told = served.get("/status").is(200).json();
    for field in [
        "volume",
        "id",
        "position",
        "epoch",
        "lsn",
        "record",
        "owner",
        "written",
        "page_size",
        "pages",
        "schema",
        "here",
        "exit",
    ] {
        assert_eq!(told[field], status[field], "{field}");
    }
    let overview = served.get("/overview").is(200).json();
    let of = &overview["databases"][0];
    assert_eq!(of["position_remote"], status["position"], "{overview}");
    assert_eq!(
        (&of["lag_lsn"], &of["owner"], &of["safety"]["word"]),
        (&0.into(), &status["owner"], &"safe".into()),
        "{overview}"
    );
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(sum(&metrics, "littoral_position_lsn", &[]), number(&status["lsn"]));
    assert_eq!(sum(&metrics, "littoral_position_epoch", &[]), number(&status["epoch"]));
    assert_eq!(sum(&metrics, "delta_chain_length", &[]), number(&status["debt"]["deltas_deepest"]));
    // What is counted is what the volume's history tells; a gap is closed by a checkpoint.
    let checkpoints = |rig: &Rig| {
        let history = rig.json(["history", "app.db"]);
        let is_one = |record: &&Value| record["kind"] == "checkpoint" || record["kind"] == "gap";
        history["records"].as_array().unwrap().iter().filter(is_one).count() as f64
    };
    let made = checkpoints(&rig);
    assert_eq!(sum(&metrics, "checkpoint_success_total", &[]), made);
    assert_eq!(sum(&metrics, "checkpoint_duration_seconds_count", &[]), made);
    // Where a WAL began anew before its commits were seen, a checkpoint brought some of the twelve; newest first.
    let history = rig.json(["history", "app.db", "--limit", "100"]);
    let lsn = |record: &Value| record["position"].as_str().unwrap().rsplit('.').next().unwrap().parse::<f64>().unwrap();
    let records = history["records"].as_array().unwrap();
    let brought = records.windows(2).filter(|pair| pair[0]["kind"] == "segment");
    let one_by_one: f64 = brought.map(|pair| lsn(&pair[0]) - lsn(&pair[1])).sum();
    assert!((1.0..=12.0).contains(&one_by_one), "{history}");
    assert_eq!(sum(&metrics, "littoral_commits_shipped_total", &[]), one_by_one);
    assert!(sum(&metrics, "littoral_segments_published_total", &[]) >= 1.0);
    assert!(sum(&metrics, "checkpoint_bytes_written_remote", &[]) > 1000.0);
    assert!(sum(&metrics, "checkpoint_bytes_written_local", &[]) > 1000.0);
    // The account of the month counts the same requests by their price; what came since is counted since.
    let writes: f64 = ["put", "put_new", "upload", "multipart", "part", "list"]
        .map(|op| sum(&metrics, "remote_requests_total", &[&format!("op=\"{op}\"")]))
        .iter()
        .sum();
    assert_eq!(sum(&metrics, "littoral_requests_this_month", &["price=\"write\""]), writes);
    assert!(number(&status["spent"]["writes"]) >= writes);
    served.get("/readyz").is(200);
    // A checkpoint by an administrator, in the process that ships.
    let told = served.post("/admin/checkpoint").is(200).json();
    assert_eq!((&told["verb"], &told["exit"]), (&"checkpoint".into(), &"done".into()));
    served.until("it is counted", |served| sum(&served.metrics(), "checkpoint_success_total", &[]) == made + 1.0);
    let before = served.metrics();
    drop(served);
    commit(&rig, 77);
    let served = Served::start(&rig, &worker);
    served.until("the next one ships", |served| {
        let metrics = served.metrics();
        sum(&metrics, "littoral_shipping", &[]) == 1.0 && sum(&metrics, "wal_lag_lsn", &[]) == 0.0
    });
    let after = served.metrics();
    for (key, before) in before.iter().filter(|(key, _)| {
        key.split('{').next().is_some_and(|name| name.ends_with("_total") || name.ends_with("_count"))
    }) {
        assert!(
            after.get(key).is_some_and(|after| after >= before),
            "{key} fell from {before} to {:?}",
            after.get(key)
        );
    }
    assert_eq!(sum(&after, "checkpoint_success_total", &[]), checkpoints(&rig));
    assert!(
        sum(&after, "recovery_phase_seconds_count", &["phase=\"tail\""])
            > sum(&before, "recovery_phase_seconds_count", &["phase=\"tail\""])
    );
}

#[test]
fn what_is_not_understood_is_refused_with_a_reason_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    rig.database("app.db");
    rig.database("other.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = Served::start(&rig, &["serve", "app.db", "other.db", "--listen", "127.0.0.1:0"]);
    let stands = || {
        (
            rig.json(["history", "app.db"])["records"].clone(),
            rig.json(["flags", "app.db"])["flags"].clone(),
            rig.json(["leases", "audit", "app.db"])["taken_away"].clone(),
        )
    };
    let before = stands();
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "//metrics", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/admin/checkpoint", 405),
        ("GET", "/admin/checkpoint", 405),
        ("GET", "/metrics?x=1", 400),
        ("GET", "/healthz?verbose=1", 400),
        ("GET", "/status", 400),
        ("GET", "/status?database=nothing.db", 404),
        ("GET", "/status?database=../../etc/passwd", 404),
        ("GET", "/status?database=app.db&database=app.db", 400),
        ("GET", "/status?database=app.db&terms=perhaps", 400),
        ("GET", "/status?database=%", 400),
        ("GET", "/status?database=%00", 400),
        ("GET", "/debug/checkpoint/leases", 400),
        ("GET", "/debug/checkpoint/leases?chunk=1", 400),
        ("GET", "/debug/checkpoint/active_jobs?database=", 400),
        ("GET", "/debug/manifest/change_log?database=app.db&limit=0", 400),
        ("GET", "/debug/manifest/change_log?database=app.db&limit=1001", 400),
        ("GET", "/debug/manifest/change_log?database=app.db&limit=-1", 400),
        ("GET", "/debug/manifest/change_log?database=app.db&limit=1e3", 400),
        ("GET", "/debug/manifest/change_log?database=app.db&lmit=5", 400),
        ("GET", "/debug/flags?database=app.db&enable_checkpoints=false", 400),
        ("POST", "/admin/checkpoint", 400),
        ("POST", "/admin/checkpoint?database=nothing.db", 404),
        ("POST", "/admin/checkpoint?database=app.db&wait=forever", 400),
        ("POST", "/admin/checkpoint?database=app.db&wait=51", 400),
        ("POST", "/admin/checkpoint?database=app.db&dry_run=true", 400),
        ("POST", "/admin/checkpoint/lease/release/", 404),
        ("POST", "/admin/checkpoint/lease/release/seven?database=app.db", 400),
        ("POST", "/admin/checkpoint/lease/release/-1?database=app.db", 400),
        ("POST", "/admin/checkpoint/lease/release/99999999999999999999?database=app.db", 400),
        ("POST", "/admin/checkpoint/lease/release/7?database=app.db", 404),
        ("POST", "/admin/checkpoint/lease/release/7?database=app.db&force=true", 400),
        ("POST", "/admin/checkpoint/lease/release/7?database=app.db&force=yes&reason=x", 400),
        ("POST", "/admin/flags?database=app.db", 400),
        ("POST", "/admin/flags?database=app.db&enable_checkpoints=perhaps", 400),
        ("POST", "/admin/flags?database=app.db&enable_magic=true", 400),
        ("POST", "/admin/flags?database=app.db&checkpoint_interval_seconds=-5", 400),
        ("POST", "/admin/flags?database=app.db&enable_checkpoints=false&checkpoint_interval_seconds=soon", 400),
    ] {
        let answer = if method == "POST" { served.post(path) } else { served.ask(method, path, "") };
        assert_eq!(answer.status, status, "{method} {path}: {}{}", answer.head, answer.body);
        let json = answer.json();
        assert!(json["error"].as_str().is_some_and(|error| !error.is_empty()), "{method} {path}: {json}");
    }
    // Bytes that are no request, and requests that are too much.
    for (bytes, statuses) in [
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), vec![400]),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), vec![400, 505]),
        ("GET /metrics HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), vec![421]),
        ("GET /metrics HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_owned(), vec![421]),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(20_000)), vec![431, 414, 400]),
        (format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(100)), vec![431, 400]),
        ("POST /admin/checkpoint?database=app.db HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc".to_owned(), vec![400]),
    ] {
        let answer = served.send(bytes.as_bytes());
        assert!(statuses.contains(&answer.status), "{:?}: {}", &bytes[..bytes.len().min(60)], answer.head);
    }
    let auth = format!("authorization: Bearer {TOKEN}\r\n");
    for (length, status) in [(10, 400), (5_000, 413)] {
        let head = format!(
            "POST /admin/checkpoint?database=app.db HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{auth}content-length: {length}\r\n\r\n"
        );
        served.send(&[head.as_bytes(), &vec![b'x'; length]].concat()).is(status);
    }
    assert_eq!(stands(), before, "something changed");
    // What is right is done all the same.
    let log = served.get("/debug/manifest/change_log?database=app.db&limit=1000").is(200).json();
    assert_eq!(log["changes"][0]["records"][0]["kind"], "claim", "{log}");
    let one = served.get("/debug/manifest/change_log?database=app.db&limit=1").is(200).json();
    assert_eq!(one["changes"].as_array().unwrap().len(), 1);
    assert_eq!(served.get("/status?database=app.db").is(200).json()["position"], "1.1");
    assert_eq!(served.get(&format!("/status?database={}", rig.text("app.db"))).is(200).json()["position"], "1.1");
    served.get("/status?database=other.db").is(404);
    // One of them was never published: that is no failure of this process, and no readiness.
    let ready = served.get("/readyz").is(503).json();
    assert!(ready["reasons"][0].as_str().unwrap().contains("other.db: nothing of it was ever published"), "{ready}");
    served.get("/healthz").is(200);
    assert!(served.get("/openapi.json").is(200).json()["paths"]["/admin/checkpoint"]["post"].is_object());
    let head = served.ask("HEAD", "/metrics", "").is(200);
    assert!(head.body.is_empty() && head.head.contains("content-length"), "{}", head.head);
}

#[test]
fn an_administrator_has_the_token_and_whoever_has_not_is_refused_and_logged() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "127.0.0.1:0"]);
    let none = served.post("/admin/checkpoint").is(403).json();
    assert!(none["way_out"].as_str().unwrap().contains("LITTORAL_ADMIN_TOKEN"), "{none}");
    drop(served);
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "127.0.0.1:0"]);
    for headers in ["", "authorization: Bearer wrong-token-of-some-length\r\n", "authorization: Basic eDp5\r\n"] {
        for path in
            ["/admin/checkpoint", "/admin/flags?enable_checkpoints=false", "/admin/checkpoint/lease/release/all"]
        {
            served.ask("POST", path, headers).is(401);
        }
    }
    served.until_logged(&["an administrator's call was refused", "/admin/flags", "401", "127.0.0.1"]);
    assert_eq!(rig.json(["flags", "app.db"])["flags"]["enable_checkpoints"]["said_of"], "default");
    // With it, switches are thrown, and leases of the dead are taken away.
    let thrown = served.post("/admin/flags?enable_checkpoints=false").is(200).json();
    assert_eq!(thrown["flags"]["enable_checkpoints"]["value"], false);
    assert_eq!(rig.json(["flags", "app.db"])["flags"]["enable_checkpoints"]["value"], false);
    assert_eq!(served.get("/debug/flags").is(200).json()["flags"]["enable_checkpoints"]["value"], false);
    sql(&rig.path("app.db"), "UPDATE t SET body = 'x' WHERE id < 99");
    let refused = served.post("/admin/checkpoint").is(409).json();
    assert!(refused["error"].as_str().unwrap().contains("switched off"), "{refused}");
    served.post("/admin/flags?enable_checkpoints=default").is(200);
    assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    let held = served.get("/debug/checkpoint/leases").is(200).json();
    assert_eq!(held["leases"][0]["stands"], "dead", "{held}");
    assert_eq!(sum(&served.metrics(), "littoral_leases", &["state=\"dead\""]), 1.0);
    let jobs = served.get("/debug/checkpoint/active_jobs").is(200).json();
    assert_eq!(
        (&jobs["jobs"][0]["task"], &jobs["jobs"][0]["interrupted"]),
        (&"create-checkpoint".into(), &true.into()),
        "{jobs}"
    );
    assert_eq!(sum(&served.metrics(), "checkpoint_queue_depth", &[]), 1.0);
    let released = served.post("/admin/checkpoint/lease/release/all").is(200).json();
    assert_eq!(released["released"].as_array().unwrap().len(), 1, "{released}");
    served.post("/admin/checkpoint/lease/release/all").is(404);
    let made = served.post("/admin/checkpoint?wait=50").is(200).json();
    assert_eq!(made["exit"], "done", "{made}");
    assert!(served.get("/debug/checkpoint/active_jobs").is(200).json()["jobs"].as_array().unwrap().is_empty());
    served.until_logged(&["an administrator called", "/admin/checkpoint", "200"]);
    // Nothing that was logged holds the token.
    assert!(!served.stderr.lock().unwrap().contains(TOKEN));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_begun() {
    let mut rig = Rig::new();
    rig.database("app.db");
    rig.run(["serve", "app.db", "--listen", "0.0.0.0:0"]).fails(2, &["beyond this machine", "LITTORAL_ADMIN_TOKEN"]);
    rig.run(["worker", "app.db", "--metrics_listen=[::]:0"]).fails(2, &["beyond this machine", "LITTORAL_ADMIN_TOKEN"]);
    rig.run(["serve", "app.db", "--listen", "9464"]).fails(2, &["invalid value", "--listen"]);
    rig.run(["worker", "app.db", "--metrics_listen=9464"]).fails(2, &["--metrics_listen", "127.0.0.1:9464"]);
    rig.run(["serve"]).fails(2, &["FILE"]);
    rig.run(["serve", "s3://bucket/app"]).fails(2, &["takes a database file"]);
    rig.run(["serve", "--dir", "nowhere"]).fails(2, &["no such folder"]);
    rig.run(["serve", "app.db", "--token-file", "nowhere"]).fails(2, &["--token-file", "nowhere"]);
    std::fs::write(rig.path("token"), "short\n").unwrap();
    rig.run(["serve", "app.db", "--token-file", "token"]).fails(2, &["fewer than 16 letters", "urandom"]);
    rig.run(["serve", "app.db", "--log-format", "xml"]).fails(2, &["text, json"]);
    rig.set("LITTORAL_ADMIN_TOKEN", "HUSHHUSH");
    rig.run(["serve", "app.db"]).fails(2, &["LITTORAL_ADMIN_TOKEN", "fewer than 16 letters"]);
    rig.set("LITTORAL_ADMIN_TOKEN", TOKEN);
    // One port, two servers.
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "127.0.0.1:0"]);
    let taken = served.address.to_string();
    rig.run(["serve", "app.db", "--listen", &taken]).fails(1, &["cannot be listened on"]);
    // With the token others may be answered, and have to show it: but for health.
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "0.0.0.0:0"]);
    let port = served.address.port();
    let elsewhere = Served {
        process: std::process::Command::new("true").spawn().unwrap(),
        address: ([127, 0, 0, 1], port).into(),
        stderr: Arc::default(),
    };
    elsewhere.get("/healthz").is(200);
    // Whoever has not shown it learns that something is wrong, and not what of whom.
    let ready = elsewhere.get("/readyz").is(503).json();
    assert_eq!((&ready["failing"], &ready["reasons"]), (&1.into(), &serde_json::json!([])), "{ready}");
    let told = elsewhere.ask("GET", "/readyz", &format!("authorization: Bearer {TOKEN}\r\n")).is(503).json();
    assert!(told["reasons"][0].as_str().unwrap().contains("app.db"), "{told}");
    let asked = elsewhere.get("/metrics").is(401);
    assert!(asked.head.to_lowercase().contains("www-authenticate: basic"), "{}", asked.head);
    elsewhere.ask("GET", "/metrics", &format!("authorization: Bearer {TOKEN}\r\n")).is(200);
    assert!(!rig.path(".littoral").exists(), "to watch makes nothing");
}

#[test]
fn whoever_is_slow_or_many_keeps_nobody_from_being_answered() {
    let rig = Rig::new();
    rig.database("app.db");
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "127.0.0.1:0"]);
    // Those who say a word now and then, those who say nothing, and those who ask and do not read.
    let mut slow: Vec<TcpStream> = (0..50).map(|_| served.connect()).collect();
    let since = Instant::now();
    for (nth, stream) in slow.iter_mut().enumerate() {
        match nth % 3 {
            0 => stream.write_all(b"GET /met").unwrap(),
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap(),
            _ => {}
        }
    }
    for _ in 0..20 {
        served.get("/healthz").is(200);
    }
    // Beyond the bound they are told to come again, at once.
    let more: Vec<TcpStream> = (0..60).map(|_| served.connect()).collect();
    served.until("there are too many", |served| served.get("/healthz").status == 503);
    drop(more);
    served.until("there is room again", |served| served.get("/healthz").status == 200);
    // A head that does not come is waited for, and not for long.
    let mut end = Vec::new();
    slow[0].read_to_end(&mut end).unwrap();
    assert!(since.elapsed() < LONG);
    served.get("/metrics").is(200);
}

#[test]
fn the_log_tells_the_life_of_a_checkpoint_in_documents() {
    let rig = Rig::new();
    rig.database("app.db");
    let log = |arguments: &[&str], code: i32| -> Vec<Value> {
        let run = rig.run(["--log-format", "json", "--quiet"].iter().chain(arguments));
        assert_eq!(run.code, Some(code), "{run:?}");
        let lines = run.stderr.lines().filter(|line| line.starts_with('{') && line.contains("\"level\""));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let names = |log: &[Value]| -> Vec<String> {
        log.iter().filter_map(|line| Some(line["event"].as_str()?.to_owned())).collect()
    };
    let first = log(&["checkpoint", "app.db"], 0);
    let told = names(&first);
    let life = [
        "checkpoint.started",
        "checkpoint.staged",
        "checkpoint.uploaded",
        "checkpoint.cleaned_up",
        "checkpoint.published",
    ];
    let places: Vec<usize> = life
        .iter()
        .map(|name| told.iter().position(|told| told == name).unwrap_or_else(|| panic!("{name} is not in {told:?}")))
        .collect();
    assert!(places.is_sorted(), "{told:?}");
    assert!(told.contains(&"fence.claimed".to_owned()) && told.contains(&"job.ended".to_owned()), "{told:?}");
    let published = first.iter().find(|line| line["event"] == "checkpoint.published").unwrap();
    assert_eq!((&published["fields"]["position"], &published["level"]), (&"1.1".into(), &"INFO".into()), "{published}");
    assert!(published["fields"]["bytes"].as_u64().unwrap() > 0 && published["time_ms"].as_u64().unwrap() > 0);
    // One that fails says so, and why.
    sql(&rig.path("app.db"), "UPDATE t SET body = hex(randomblob(60)) WHERE id BETWEEN 100 AND 2000");
    let failed = log(&["checkpoint", "app.db", "--quota", "1kB"], 1);
    let failed =
        failed.iter().find(|line| line["event"] == "checkpoint.failed").unwrap_or_else(|| panic!("{failed:?}"));
    assert!(failed["fields"]["error"].as_str().unwrap().contains("quota"), "{failed}");
    let served = Served::start(&rig, &["serve", "app.db", "--listen", "127.0.0.1:0"]);
    let metrics = served.metrics();
    assert_eq!(sum(&metrics, "checkpoint_failure_total", &[]), 1.0);
    assert!(sum(&metrics, "storage_quota_exhausted_total", &[]) >= 1.0);
    // Without the flag the log is as quiet as ever.
    let quiet = rig.run(["checkpoint", "app.db"]);
    assert!(quiet.succeeds().stderr.is_empty(), "{quiet:?}");
}
