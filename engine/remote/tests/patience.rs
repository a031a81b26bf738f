//! What patience makes of a network's answers, through both libraries, against a store that answers what the test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Answer, Came, Scripted, at, clock, env, error, fresh, impatient, object, stored};
use littoral_ports::conformance::remote::pattern;
use littoral_ports::{MemoryBody, Remote, RemoteError};
use littoral_remote::{Counting, Environment, Op, RemoteSettings, Tuning, open_in};
use littoral_types::ByteSpan;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One remote a library, each with a store of its own that follows the script.
fn by_each(script: impl Fn() -> Vec<Answer>) -> Vec<(&'static str, Scripted, Arc<dyn Remote>)> {
    by_each_with(impatient(), || Scripted::new(script()))
}

fn by_each_with(
    settings: RemoteSettings,
    store: impl Fn() -> Scripted,
) -> Vec<(&'static str, Scripted, Arc<dyn Remote>)> {
    let mut all = Vec::new();
    let libraries: &[&str] = if cfg!(feature = "minio") { &["object_store", "minio"] } else { &["object_store"] };
    for library in libraries {
        let store = store();
        let url = match *library {
            "minio" => format!("minio://{}/bucket/prefix", store.authority()),
            _ => "s3://bucket/prefix".to_owned(),
        };
        let remote = open_in(&url, &settings, &env(&store.env()), clock(), fresh()).unwrap();
        all.push((*library, store, remote));
    }
    all
}

fn taken() -> Answer {
    error(412, "PreconditionFailed", "at least one of the preconditions did not hold")
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_a_conflict_on_a_conditional_put_is_tried_again_and_says_nothing() {
    let conflict = || error(409, "ConditionalRequestConflict", "a conflicting operation is under way");
    // With and without a document: one library makes "no such bucket" of a 409 without.
    for conflict in [conflict(), Answer::Say(409, vec![], vec![])] {
        for (library, store, remote) in by_each(|| vec![conflict.clone(), conflict.clone(), stored()]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(done.is_ok(), "{library}: {done:?}");
            assert_eq!(store.came().len(), 3, "{library}");
        }
        for (library, _, remote) in by_each(|| vec![conflict.clone(), taken()]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(matches!(done, Err(RemoteError::Exists { .. })), "{library}: a conflict did nothing: {done:?}");
        }
        // Conflicts alone, to the end: nothing was written, and that is what is said.
        for (library, _, remote) in by_each(|| vec![conflict.clone(); 20]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(matches!(done, Err(RemoteError::Unavailable { tries: 6, .. })), "{library}: {done:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_a_lost_answer_makes_what_comes_after_it_unknown_never_exists() {
    let lost = [
        ("a reset", Answer::Hang),
        ("a timeout", Answer::Wait(700)),
        ("500", error(500, "InternalError", "we failed")),
        ("502 of a proxy", Answer::Say(502, vec![("Content-Type", "text/html".into())], b"<html>bad gateway".to_vec())),
        ("503", error(503, "SlowDown", "please")),
        ("503 of a proxy", Answer::Say(503, vec![], vec![])),
        ("504", Answer::Say(504, vec![], vec![])),
        ("request timeout", error(400, "RequestTimeout", "your socket was idle")),
        ("a broken error", Answer::Cut(500, 1000, b"<Error><Co".to_vec())),
    ];
    for (what, lost) in lost {
        let then = [
            ("taken", taken()),
            ("denied", error(403, "AccessDenied", "no")),
            ("no bucket", error(404, "NoSuchBucket", "gone")),
        ];
        for (after, then) in then {
            for (library, store, remote) in by_each(|| vec![lost.clone(), then.clone()]) {
                let done = remote.put_new(&at("v/log/1"), "record".into()).await;
                let unknown = matches!(&done, Err(RemoteError::Unknown { path, .. }) if *path == at("v/log/1"));
                assert!(unknown, "{library}: {what}, then {after}: {done:?}");
                assert_eq!(store.came().len(), 2, "{library}: {what}, then {after}");
            }
        }
        // A later success is one: nobody could have won after us, and had the first landed, the second would not have.
        for (library, _, remote) in by_each(|| vec![lost.clone(), stored()]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(done.is_ok(), "{library}: {what}, then stored: {done:?}");
        }
        // A conflict in between changes nothing.
        let conflict = error(409, "ConditionalRequestConflict", "under way");
        for (library, _, remote) in by_each(|| vec![lost.clone(), conflict.clone(), taken()]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(matches!(done, Err(RemoteError::Unknown { .. })), "{library}: {what}, conflict, taken: {done:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_answers_lost_to_the_end_are_unknown() {
    for (library, store, remote) in by_each(|| vec![Answer::Hang; 20]) {
        let done = remote.put_new(&at("v/log/1"), "record".into()).await;
        assert!(matches!(done, Err(RemoteError::Unknown { .. })), "{library}: {done:?}");
        assert_eq!(store.came().len(), 6, "{library}: tries are bounded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p05_what_did_nothing_leaves_exists_and_ok_as_they_are() {
    let harmless = [
        ("429", error(429, "TooManyRequests", "slowly")),
        ("a bad digest", error(400, "BadDigest", "not what you sent")),
    ];
    for (what, harmless) in harmless {
        for (library, _, remote) in by_each(|| vec![harmless.clone(), taken()]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            assert!(matches!(done, Err(RemoteError::Exists { .. })), "{library}: {what}: {done:?}");
        }
    }
    for (library, store, remote) in by_each(|| vec![taken()]) {
        let done = remote.put_new(&at("v/log/1"), "record".into()).await;
        assert!(matches!(done, Err(RemoteError::Exists { .. })), "{library}: {done:?}");
        assert_eq!(store.came().len(), 1, "{library}: a plain answer is not asked for twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_goes_round_in_circles_ends() {
    let page = || {
        let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>bucket</Name><Prefix>prefix/v/</Prefix>\
            <KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated>\
            <NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
        Answer::Say(200, vec![("Content-Type", "application/xml".into())], document.as_bytes().to_vec())
    };
    for (library, store, remote) in by_each(|| vec![page(); 50]) {
        let done = remote.list("v", None, usize::MAX).await;
        let Err(RemoteError::Unavailable { detail, .. }) = &done else { panic!("{library}: {done:?}") };
        assert!(detail.contains("circles"), "{library}: {detail}");
        assert_eq!(store.came().len(), 2, "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unavailable_and_nothing_is_unknown_about_it() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let variables = [
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "a-secret".to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
    ];
    let mut urls = vec!["s3://bucket".to_owned()];
    if cfg!(feature = "minio") {
        urls.push(format!("minio://127.0.0.1:{port}/bucket"));
    }
    for url in urls {
        let remote = open_in(&url, &impatient(), &env(&variables), clock(), fresh()).unwrap();
        let done = remote.put_new(&at("v/log/1"), "record".into()).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { tries: 6, .. })), "{url}: {done:?}");
        let done = remote.get(&at("v/log/1")).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { .. })), "{url}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_carries_its_condition_and_its_checksum() {
    for (library, store, remote) in by_each(|| vec![stored(), stored(), stored()]) {
        remote.put_new(&at("v/log/1"), "123456789".into()).await.unwrap();
        remote.put(&at("v/head"), "123456789".into()).await.unwrap();
        remote.upload(&at("v/chunk/1"), &MemoryBody::new("123456789")).await.unwrap();
        let came = store.came();
        for request in &came {
            assert_eq!(request.header("x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="), "{library}");
            assert_eq!(request.body, b"123456789", "{library}");
            assert!(
                request.header("authorization").is_some_and(|sign| sign.contains("x-amz-checksum-crc64nvme")),
                "{library}"
            );
        }
        assert_eq!(came[0].header("if-none-match"), Some("*"), "{library}");
        assert_eq!(came[0].path, "/bucket/prefix/v/log/1", "{library}");
        assert_eq!((came[1].header("if-none-match"), came[2].header("if-none-match")), (None, None), "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_tried_again_and_counted() {
    let throttled = || error(503, "SlowDown", "please reduce your request rate");
    for (library, _, remote) in by_each(|| vec![throttled(), error(429, "", ""), Answer::Hang, object(b"bytes")]) {
        let counting = Counting::new(remote);
        assert_eq!(counting.get(&at("v/head")).await.unwrap(), "bytes", "{library}");
        let got = counting.totals().of(Op::Get);
        assert_eq!((got.requests, got.errors, got.bytes_down), (4, 3, 5), "{library}");
    }
    for (library, store, remote) in by_each(|| vec![throttled(); 20]) {
        let done = remote.put(&at("v/head"), "bytes".into()).await;
        let said = matches!(&done, Err(RemoteError::Throttled { tries: 6, detail, .. }) if detail.to_lowercase().contains("slowdown"));
        assert!(said, "{library}: {done:?}");
        assert_eq!(store.came().len(), 6, "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_when_to_come_again_is_not_asked_before() {
    let later = |status, code: &str| {
        let Answer::Say(status, mut headers, body) = error(status, code, "not now") else { unreachable!() };
        headers.push(("Retry-After", "1".into()));
        Answer::Say(status, headers, body)
    };
    for (status, code) in [(503, "SlowDown"), (429, "TooManyRequests")] {
        for (library, store, remote) in by_each(|| vec![later(status, code), stored()]) {
            let since = Instant::now();
            remote.put(&at("v/head"), "bytes".into()).await.unwrap();
            // Pauses are of a few milliseconds otherwise.
            assert!(since.elapsed() >= Duration::from_secs(1), "{library}: came again after {:?}", since.elapsed());
            assert_eq!(store.came().len(), 2, "{library}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_keys_are_refused_is_said_with_how_to_change_them() {
    for (library, _, remote) in by_each(|| vec![error(403, "InvalidAccessKeyId", "nobody of that name"); 3]) {
        let Err(RemoteError::Denied { detail, .. }) = remote.get(&at("v/head")).await else { panic!("{library}") };
        assert!(
            detail.contains("this process's environment") && detail.contains("start it anew"),
            "{library}: {detail}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_never_taken_for_the_object() {
    for (library, _, remote) in by_each(|| vec![Answer::Cut(200, 1000, vec![7; 999]), object(&[7; 1000])]) {
        assert_eq!(remote.get(&at("v/chunk/1")).await.unwrap(), vec![7; 1000], "{library}");
    }
    for (library, _, remote) in by_each(|| vec![Answer::Cut(200, 1000, vec![7; 999]); 20]) {
        let done = remote.get(&at("v/chunk/1")).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { .. })), "{library}: {done:?}");
    }
    let part = |bytes: &[u8], range: &str| {
        let headers = vec![
            ("ETag", "\"t\"".into()),
            ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT".into()),
            ("Content-Range", range.to_owned()),
        ];
        Answer::Say(206, headers, bytes.to_vec())
    };
    let span = ByteSpan { offset: 10, len: 5 };
    // Another run than the one asked for, then fewer bytes than it says, then the right one.
    let answers =
        || vec![part(b"wrong", "bytes 0-4/100"), part(b"shor", "bytes 10-14/100"), part(b"right", "bytes 10-14/100")];
    for (library, _, remote) in by_each(answers) {
        assert_eq!(remote.get_range(&at("v/chunk/1"), span).await.unwrap(), "right", "{library}");
    }
    // The object ends within the run: an error, not fewer bytes.
    let answers =
        || vec![part(b"ab", "bytes 10-11/12"), Answer::Say(200, vec![("Content-Length", "12".into())], vec![])];
    for (library, _, remote) in by_each(answers) {
        let done = remote.get_range(&at("v/chunk/1"), span).await;
        assert!(done.is_err(), "{library}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_in_time_whatever_the_store_does() {
    for (library, store, remote) in by_each(|| vec![Answer::Wait(60_000); 20]) {
        let since = Instant::now();
        let done = remote.size(&at("v/head")).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { .. })), "{library}: {done:?}");
        assert!(since.elapsed() < Duration::from_secs(10), "{library}: six tries of 400 ms took {:?}", since.elapsed());
        assert_eq!(store.came().len(), 6, "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_has_the_time_of_a_transfer_and_a_stalled_download_has_not() {
    // Twice a small request's patience: enough for neither a small write nor a body that stops coming.
    let late = || Answer::Late(800, Box::new(stored()));
    let large = MemoryBody::new(pattern(3 << 20, 1));
    for (library, store, remote) in by_each(|| vec![late()]) {
        remote.upload(&at("v/chunk/1"), &large).await.unwrap();
        assert_eq!(store.came().len(), 1, "{library}: one try was enough");
    }
    for (library, store, remote) in by_each(|| vec![late(), stored()]) {
        remote.put(&at("v/head"), "small".into()).await.unwrap();
        assert_eq!(store.came().len(), 2, "{library}: a small write was waited for too long");
    }
    for (library, _, remote) in by_each(|| vec![Answer::Stall(3 << 20, vec![7; 1000]), object(b"whole")]) {
        let since = Instant::now();
        assert_eq!(remote.get(&at("v/chunk/1")).await.unwrap(), "whole", "{library}");
        assert!(since.elapsed() < Duration::from_millis(1500), "{library}: stalled for {:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_refuses_is_said_plainly_and_without_secrets() {
    let cases = [
        (error(403, "InvalidAccessKeyId", "scripted-key is not in our records"), "wrong credentials"),
        (error(403, "SignatureDoesNotMatch", "check scripted-secret"), "wrong credentials"),
        (error(403, "AccessDenied", "Access Denied"), "no permission"),
        (error(400, "ExpiredToken", "the token has expired"), "expired"),
        (error(403, "RequestTimeTooSkewed", "too large"), "clock is wrong"),
        (Answer::Say(403, vec![], vec![]), "wrong credentials or no permission"),
    ];
    for (answer, words) in cases {
        for (library, store, remote) in by_each(|| vec![answer.clone(); 3]) {
            let done = remote.put_new(&at("v/log/1"), "record".into()).await;
            let Err(RemoteError::Denied { detail, what }) = &done else { panic!("{library}: {done:?}") };
            assert!(detail.contains(words), "{library}: {detail}");
            assert!(what.contains("bucket"), "{library}: {what}");
            let shown = format!("{done:?} {remote:?} {}", remote.url());
            assert!(!shown.contains("scripted-"), "{library} shows a secret: {shown}");
            assert_eq!(store.came().len(), 1, "{library}: a refusal is not asked for twice");
        }
    }
    for (library, _, remote) in by_each(|| vec![error(404, "NoSuchBucket", "no such bucket")]) {
        let done = remote.get(&at("v/head")).await;
        assert!(matches!(&done, Err(RemoteError::NoBucket { what }) if what == "bucket"), "{library}: {done:?}");
    }
    for (library, _, remote) in by_each(|| vec![error(507, "XMinioStorageFull", "no room")]) {
        let done = remote.put(&at("v/head"), "x".into()).await;
        assert!(matches!(done, Err(RemoteError::Full { .. })), "{library}: {done:?}");
    }
    let elsewhere = || {
        let headers = vec![("x-amz-bucket-region", "eu-west-3".to_owned()), ("Content-Type", "application/xml".into())];
        vec![Answer::Say(
            301,
            headers,
            b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>".to_vec(),
        )]
    };
    for (library, _, remote) in by_each(elsewhere) {
        let done = remote.get(&at("v/head")).await;
        assert!(matches!(&done, Err(RemoteError::Settings(why)) if why.contains("eu-west-3")), "{library}: {done:?}");
    }
    // A store that does not know the condition says so, and is not one to publish to.
    for (library, _, remote) in by_each(|| vec![error(501, "NotImplemented", "a header you provided")]) {
        let done = remote.put_new(&at("v/log/1"), "record".into()).await;
        assert!(matches!(done, Err(RemoteError::NotFencing { .. })), "{library}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_is_said_before_anything_is_sent() {
    let store = Scripted::new(vec![]);
    let home = tempfile::tempdir().unwrap();
    let variables = [
        ("HOME", home.path().to_str().unwrap().to_owned()),
        ("AWS_ENDPOINT_URL", format!("http://{}", store.authority())),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    let mut urls = vec!["s3://bucket".to_owned()];
    if cfg!(feature = "minio") {
        urls.push(format!("minio://{}/bucket", store.authority()));
    }
    for url in urls {
        let remote = open_in(&url, &impatient(), &env(&variables), clock(), fresh()).unwrap();
        let done = remote.get(&at("v/head")).await;
        let said = matches!(&done, Err(RemoteError::Denied { detail, .. }) if detail.contains("no credentials"));
        assert!(said, "{url}: {done:?}");
    }
    assert_eq!(store.came().len(), 0);
    let half = Environment::from_pairs([("AWS_ACCESS_KEY_ID", "x")]);
    let done = open_in("s3://bucket", &impatient(), &half, clock(), fresh());
    assert!(matches!(&done, Err(RemoteError::Settings(why)) if why.contains("AWS_SECRET_ACCESS_KEY")), "{done:?}");
}

/// A store that takes parts, and does to what completes them what the test says.
fn parts(
    complete: impl Fn(usize) -> Answer + Send + Sync + 'static,
    head: impl Fn() -> Answer + Send + Sync + 'static,
) -> Scripted {
    let completed = std::sync::atomic::AtomicUsize::new(0);
    Scripted::by(move |_, came: &Came| {
        let xml =
            |text: &str| Answer::Say(200, vec![("Content-Type", "application/xml".into())], text.as_bytes().to_vec());
        match came.method.as_str() {
            "POST" if came.path.contains("uploads") => xml(
                "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>",
            ),
            "POST" => complete(completed.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            "PUT" => {
                let sum = came.header("x-amz-checksum-crc64nvme").unwrap_or("none").to_owned();
                Answer::Say(200, vec![("ETag", "\"part\"".into()), ("x-amz-checksum-crc64nvme", sum)], vec![])
            }
            "HEAD" => head(),
            _ => Answer::Say(204, vec![], vec![]),
        }
    })
}

fn whole_object(len: usize, crc64: Option<&str>) -> Answer {
    let mut headers = vec![
        ("Content-Length", len.to_string()),
        ("ETag", "\"whole-3\"".into()),
        ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT".into()),
    ];
    headers.extend(crc64.map(|sum| ("x-amz-checksum-crc64nvme", sum.to_owned())));
    Answer::Say(200, headers, vec![])
}

fn completed() -> Answer {
    let document = "<CompleteMultipartUploadResult><Location>l</Location><Bucket>bucket</Bucket><Key>k</Key><ETag>\"whole-3\"</ETag></CompleteMultipartUploadResult>";
    Answer::Say(200, vec![("Content-Type", "application/xml".into())], document.as_bytes().to_vec())
}

fn failed_inside_a_success() -> Answer {
    let document = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We failed</Message></Error>";
    Answer::Say(200, vec![("Content-Type", "application/xml".into())], document.as_bytes().to_vec())
}

fn in_parts() -> RemoteSettings {
    let settings = impatient();
    RemoteSettings { tuning: Tuning { part_bytes: 1000, single_put_max: 1500, ..settings.tuning }, ..settings }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_put_together_are_looked_at_before_they_are_believed() {
    let body = MemoryBody::new(pattern(2500, 1));
    let missing = || Answer::Say(404, vec![], vec![]);
    let upload = |store: fn() -> Scripted| by_each_with(in_parts(), store);

    for (library, store, remote) in upload(|| parts(|_| completed(), || whole_object(2500, None))) {
        remote.upload(&at("v/chunk/1"), &body).await.unwrap();
        let came = store.came();
        let sent: Vec<usize> = came.iter().filter(|came| came.method == "PUT").map(|came| came.body.len()).collect();
        let mut sorted = sent.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [500, 1000, 1000], "{library}");
        assert_eq!(came.last().unwrap().method, "HEAD", "{library}");
    }
    // A success that is not what was sent.
    for head in [|| whole_object(2499, None), || whole_object(2500, Some("AAAAAAAAAAA="))] {
        for (library, _, remote) in by_each_with(in_parts(), || parts(|_| completed(), head)) {
            let done = remote.upload(&at("v/chunk/1"), &body).await;
            assert!(matches!(done, Err(RemoteError::Corrupt { .. })), "{library}: {done:?}");
        }
    }
    // An error inside a success, all the way: never taken for one.
    for (library, store, remote) in by_each_with(in_parts(), || parts(|_| failed_inside_a_success(), missing)) {
        let done = remote.upload(&at("v/chunk/1"), &body).await;
        assert!(done.is_err(), "{library}: an error inside a 200 was believed");
        let aborted =
            store.came().iter().any(|came| came.method == "DELETE" && came.path.contains("uploadId=upload-1"));
        assert!(aborted, "{library}: parts stay and are paid for");
    }
    // Once, then well.
    let once = || parts(|n| if n == 0 { failed_inside_a_success() } else { completed() }, || whole_object(2500, None));
    for (library, _, remote) in by_each_with(in_parts(), once) {
        let done = remote.upload(&at("v/chunk/1"), &body).await;
        assert!(done.is_ok(), "{library}: {done:?}");
    }
    // The answer lost after it was done: the second try finds no upload, the object is there.
    let lost = || {
        let complete = |n| if n == 0 { Answer::Hang } else { error(404, "NoSuchUpload", "no such upload") };
        parts(complete, || whole_object(2500, None))
    };
    for (library, store, remote) in by_each_with(in_parts(), lost) {
        let done = remote.upload(&at("v/chunk/1"), &body).await;
        assert!(done.is_ok(), "{library}: {done:?}");
        let puts = store.came().iter().filter(|came| came.method == "PUT").count();
        assert_eq!(puts, 3, "{library}: nothing is sent twice");
    }
    // The store forgot the upload: begun anew, and not for ever.
    let forgotten = || parts(|_| error(404, "NoSuchUpload", "no such upload"), missing);
    for (library, store, remote) in by_each_with(in_parts(), forgotten) {
        let done = remote.upload(&at("v/chunk/1"), &body).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { .. })), "{library}: {done:?}");
        let begun = store.came().iter().filter(|came| came.method == "POST" && came.path.contains("uploads")).count();
        assert_eq!(begun, 3, "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_is_sent_again_alone() {
    let store = || {
        let failed = std::sync::atomic::AtomicBool::new(false);
        let inner = |came: &Came| came.method == "PUT" && came.path.contains("partNumber=2");
        let rest = parts_answers();
        Scripted::by(move |n, came| {
            if inner(came) && !failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
                Answer::Hang
            } else {
                rest(n, came)
            }
        })
    };
    for (library, store, remote) in by_each_with(in_parts(), store) {
        remote.upload(&at("v/chunk/1"), &MemoryBody::new(pattern(2500, 1))).await.unwrap();
        let puts = store.came().iter().filter(|came| came.method == "PUT").count();
        assert_eq!(puts, 4, "{library}");
    }
}

fn parts_answers() -> impl Fn(usize, &Came) -> Answer + Send + Sync {
    |_, came: &Came| {
        let xml =
            |text: &str| Answer::Say(200, vec![("Content-Type", "application/xml".into())], text.as_bytes().to_vec());
        match came.method.as_str() {
            "POST" if came.path.contains("uploads") => {
                xml("<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>")
            }
            "POST" => completed(),
            "HEAD" => whole_object(2500, None),
            _ => stored(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_share_few_connections() {
    let bytes = pattern(50_000, 2);
    let answered = bytes.clone();
    let store = Scripted::by(move |_, _| object(&answered));
    let remote = open_in("s3://bucket", &RemoteSettings::default(), &env(&store.env()), clock(), fresh()).unwrap();
    for _ in 0..10 {
        let names: Vec<_> = (0..16).map(|n| at(&format!("v/chunk/{n}"))).collect();
        for got in futures::future::join_all(names.iter().map(|name| remote.get(name))).await {
            assert_eq!(got.unwrap(), bytes);
        }
    }
    assert_eq!(store.came().len(), 160);
    assert!(store.connections() <= 40, "{} connections for 160 requests, 16 at once", store.connections());
}
