//! What a real S3 server says to those who may not, or ask for what is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{at, clock, env, fresh, impatient};
use littoral_ports::{MemoryBody, Remote, RemoteError};
use littoral_remote::{Addressing, RemoteSettings, open_in, probe};
use littoral_test_s3::S3Server;
use std::sync::Arc;

type Variables = Vec<(&'static str, String)>;

/// The bucket through each library, as somebody.
fn by_each(bucket: &str, variables: &Variables) -> Vec<Arc<dyn Remote>> {
    let server = S3Server::shared();
    let mut urls = vec![format!("s3://{bucket}/p")];
    if cfg!(feature = "minio") {
        urls.push(format!("minio://{}/{bucket}/p", server.authority()));
    }
    let settings = RemoteSettings { tuning: impatient().tuning, ..RemoteSettings::default() };
    urls.iter().map(|url| open_in(url, &settings, &env(variables), clock(), fresh()).unwrap()).collect()
}

/// Everything a remote can be asked for, and what each answers.
async fn everything(remote: &dyn Remote) -> Vec<(&'static str, RemoteError)> {
    let path = at("v/log/1");
    let mut refused = Vec::new();
    refused.extend(remote.get(&path).await.err().map(|error| ("get", error)));
    refused.extend(remote.list("v", None, 10).await.err().map(|error| ("list", error)));
    refused.extend(remote.put(&path, "x".into()).await.err().map(|error| ("put", error)));
    refused.extend(remote.put_new(&at("v/log/2"), "x".into()).await.err().map(|error| ("put_new", error)));
    refused.extend(remote.upload(&path, &MemoryBody::new("x")).await.err().map(|error| ("upload", error)));
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_named_so_and_not_shown() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    for variables in [server.wrong_secret_env(), server.unknown_key_env()] {
        for remote in by_each(&bucket, &variables) {
            let refused = everything(&*remote).await;
            assert_eq!(refused.len(), 5, "{}: {refused:?}", remote.url());
            for (what, error) in refused {
                let RemoteError::Denied { detail, .. } = &error else { panic!("{} {what}: {error:?}", remote.url()) };
                assert!(detail.contains("wrong credentials"), "{} {what}: {detail}", remote.url());
                let shown = format!("{error} {error:?} {remote:?}");
                assert!(!shown.contains("secret-at-all") && !shown.contains("nobodys-"), "{shown}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_only_be_read_is_read_and_refuses_writes() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let writer = by_each(&bucket, &server.env()).remove(0);
    writer.put_new(&at("v/log/1"), "record".into()).await.unwrap();
    for remote in by_each(&bucket, &server.read_only_env()) {
        assert_eq!(remote.get(&at("v/log/1")).await.unwrap(), "record");
        assert_eq!(remote.list("v", None, 10).await.unwrap().len(), 1);
        let refused = everything(&*remote).await;
        let ops: Vec<&str> = refused.iter().map(|(what, _)| *what).collect();
        assert_eq!(ops, ["put", "put_new", "upload"], "{}: {refused:?}", remote.url());
        for (what, error) in refused {
            assert!(matches!(error, RemoteError::Denied { .. }), "{} {what}: {error:?}", remote.url());
        }
        let probed = probe(&*remote, "v/probe", &*fresh()).await;
        assert!(matches!(probed, Err(RemoteError::Denied { .. })), "{probed:?}");
    }
    assert_eq!(writer.get(&at("v/log/1")).await.unwrap(), "record", "nothing moved");
    assert_eq!(writer.list("", None, 10).await.unwrap().len(), 1, "nothing was added");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named() {
    let server = S3Server::shared();
    for remote in by_each("no-such-bucket-here", &server.env()) {
        for (what, error) in everything(&*remote).await {
            let named = matches!(&error, RemoteError::NoBucket { what } if what == "no-such-bucket-here");
            assert!(named, "{} {what}: {error:?}", remote.url());
        }
        let probed = probe(&*remote, "v/probe", &*fresh()).await;
        assert!(matches!(probed, Err(RemoteError::NoBucket { .. })), "{probed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_unavailable() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let mut urls = vec![format!("s3://{bucket}")];
    if cfg!(feature = "minio") {
        urls.push(format!("minio://{}/{bucket}", server.authority()));
    }
    let open = |url: &String| open_in(url, &impatient(), &env(&server.env()), clock(), fresh()).unwrap();
    let remotes: Vec<_> = urls.iter().map(open).collect();
    for remote in &remotes {
        remote.put(&at("v/head"), "x".into()).await.unwrap();
    }
    drop(server);
    for remote in &remotes {
        let done = remote.get(&at("v/head")).await;
        assert!(matches!(done, Err(RemoteError::Unavailable { .. })), "{}: {done:?}", remote.url());
        // The first of its tries may have met a connection that closed under it.
        let done = remote.put_new(&at("v/log/1"), "x".into()).await;
        let honest = matches!(done, Err(RemoteError::Unavailable { .. } | RemoteError::Unknown { .. }));
        assert!(honest, "{}: {done:?}", remote.url());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_may_be_a_setting() {
    let server = S3Server::shared();
    let mut variables = server.env();
    variables.retain(|(name, _)| *name != "AWS_ENDPOINT_URL_S3");
    let settings = RemoteSettings {
        endpoint: Some(server.endpoint()),
        addressing: Some(Addressing::Path),
        ..RemoteSettings::default()
    };
    let remote = open_in(&format!("s3://{}", server.bucket()), &settings, &env(&variables), clock(), fresh()).unwrap();
    remote.put_new(&at("v/log/1"), "x".into()).await.unwrap();
    probe(&*remote, "v/probe", &*fresh()).await.unwrap();
    assert_eq!(remote.list("v/probe", None, 10).await.unwrap(), vec![], "the probe leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_itself_refuses_bytes_that_do_not_match_their_checksum() {
    // Our own check comes first, so this one is asked for by hand: it is why a PUT is believed.
    use object_store::aws::AmazonS3Builder;
    use object_store::{ClientOptions, HeaderMap, HeaderValue, ObjectStore, PutPayload};
    let server = S3Server::shared();
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-checksum-crc64nvme", HeaderValue::from_static("AAAAAAAAAAA="));
    let store = AmazonS3Builder::new()
        .with_bucket_name(server.bucket())
        .with_endpoint(server.endpoint())
        .with_access_key_id("testkey")
        .with_secret_access_key("testsecret")
        .with_client_options(ClientOptions::new().with_allow_http(true).with_default_headers(headers))
        .build()
        .unwrap();
    let place = object_store::path::Path::from("v/log/1");
    let refused = store.put_opts(&place, PutPayload::from_static(b"bytes"), Default::default()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("BadDigest")), "a wrong checksum was taken");
}
