//! The network's weather, one fault after the other, as a client without any patience sees it, and what the real server has afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_test_s3::S3Server;
use littoral_test_s3::network::{Fault, Proxy, Weather};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, RetryConfig};
use std::time::{Duration, Instant};

struct World {
    proxy: Proxy,
    /// Through the weather, and past it.
    far: AmazonS3,
    near: AmazonS3,
}

fn store(bucket: &str, endpoint: String, [key, secret]: [&str; 2]) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_access_key_id(key)
        .with_secret_access_key(secret)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap()
}

const KEYS: [&str; 2] = ["testkey", "testsecret"];

impl World {
    async fn new() -> (Self, String) {
        let server = S3Server::shared();
        let bucket = server.bucket();
        let proxy = Proxy::start(server.authority(), Duration::ZERO, None).await;
        let far = store(&bucket, proxy.endpoint(), KEYS);
        let near = store(&bucket, server.endpoint(), KEYS);
        (Self { proxy, far, near }, bucket)
    }

    /// Puts an object through the weather: what the client was told, and whether the server has it.
    async fn put(&self, name: &str) -> (Result<(), String>, bool) {
        let told = self.far.put(&Path::from(name), vec![7; 10_000].into()).await;
        (told.map(drop).map_err(|error| format!("{error:?}")), self.near.head(&Path::from(name)).await.is_ok())
    }

    async fn get(&self, name: &str) -> Result<usize, String> {
        let got = async { self.far.get(&Path::from(name)).await?.bytes().await };
        got.await.map(|bytes| bytes.len()).map_err(|error| format!("{error:?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_what_it_says_and_is_counted() {
    let (world, _) = World::new().await;
    for (fault, words, is_done) in [
        (Fault::SlowDown, &["503", "SlowDown"][..], false),
        (Fault::TooMany, &["429"], false),
        (Fault::Failed, &["500", "InternalError"], false),
        (Fault::Reset, &["reset"], false),
        (Fault::Full, &["507", "XMinioStorageFull"], false),
        (Fault::Denied, &["403", "InvalidAccessKeyId"], false),
        (Fault::DoneAndFailed, &["500"], true),
        (Fault::DoneAndSlowDown, &["503"], true),
        (Fault::DoneAndReset, &[], true),
    ] {
        world.proxy.weather(Weather::calm().with(fault, 1000));
        let name = format!("{fault:?}");
        let (told, has) = world.put(&name).await;
        let told = told.unwrap_err();
        assert!(words.iter().all(|word| told.to_lowercase().contains(&word.to_lowercase())), "{fault:?}: {told}");
        assert_eq!(has, is_done, "{fault:?}: {told}");
        assert_eq!(world.proxy.befell()[&fault], 1, "{fault:?}");
        // On the same connection, or on another, the next one goes through.
        world.proxy.weather(Weather::calm());
        assert_eq!(world.put(&name).await, (Ok(()), true));
        assert_eq!(world.get(&name).await, Ok(10_000));
    }
    world.proxy.weather(Weather::calm().with(Fault::Truncated, 1000));
    let told = world.get("Reset").await.unwrap_err();
    assert_eq!(world.proxy.befell()[&Fault::Truncated], 1, "{told}");
    assert_eq!(world.put("not truncated").await, (Ok(()), true), "a write's answer has nothing to break off");
    world.proxy.weather(Weather::calm().with(Fault::Late, 1000).late(Duration::from_millis(400)));
    let begun = Instant::now();
    assert_eq!(world.get("Reset").await, Ok(10_000));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(world.proxy.befell()[&Fault::Late], 1);
    assert_eq!(world.proxy.befell().len(), Fault::ALL.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_brings_the_same_weather() {
    let (world, _) = World::new().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        world.proxy.seed(7);
        world.proxy.weather(Weather::calm().with(Fault::Failed, 300).with(Fault::DoneAndFailed, 300));
        let mut told = Vec::new();
        for nth in 0..30 {
            let (told_one, has) = world.put(&format!("{}-{nth}", seen.len())).await;
            told.push((told_one.is_ok(), has));
        }
        seen.push(told);
    }
    assert_eq!(seen[0], seen[1]);
    for what in [(true, true), (false, true), (false, false)] {
        assert!(seen[0].contains(&what), "{what:?} is not among {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_keys_that_the_server_knows_only_one_is_let_through() {
    let (world, bucket) = World::new().await;
    let rotated = store(&bucket, world.proxy.endpoint(), ["rotatedkey", "rotatedsecret"]);
    assert_eq!(world.put("before").await, (Ok(()), true));
    rotated.put(&Path::from("both"), "bytes".into()).await.unwrap();
    world.proxy.weather(Weather::calm().only_key("rotatedkey"));
    let (told, has) = world.put("after").await;
    assert!(told.unwrap_err().contains("InvalidAccessKeyId") && !has);
    rotated.put(&Path::from("after"), "bytes".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_as_far_and_as_wide_as_it_is_said_to_be_while_it_runs() {
    let (world, _) = World::new().await;
    let took = async |world: &World| {
        let begun = Instant::now();
        assert_eq!(world.put("wide").await.0, Ok(()));
        begun.elapsed()
    };
    took(&world).await;
    world.proxy.far(Duration::from_millis(300), None);
    assert!(took(&world).await >= Duration::from_millis(300));
    world.proxy.far(Duration::ZERO, Some(20_000));
    assert!(took(&world).await >= Duration::from_millis(500), "10,000 bytes at 20,000 a second");
    world.proxy.is_down(true);
    assert!(world.put("down").await.0.is_err());
    world.proxy.is_down(false);
    world.proxy.far(Duration::ZERO, None);
    assert_eq!(world.put("up").await, (Ok(()), true));
    let traffic = world.proxy.traffic();
    assert!(traffic.writes >= 4 && traffic.up >= 40_000, "{traffic:?}");
}
