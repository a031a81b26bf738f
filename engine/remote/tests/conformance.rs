//! Every store passes the one suite: memory, a folder, and on a real server S3 by both of its libraries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{at, clock, env, fresh};
use littoral_ports::conformance::remote::{Sizes, check, check_sized};
use littoral_ports::{Remote, RemoteError};
use littoral_remote::{Counting, Directory, Op, RemoteSettings, Tuning, directory_url, open, open_in, probe};
use littoral_test_s3::S3Server;
use std::sync::Arc;

/// The least that S3 takes for a part, so that a blob of some megabytes has several.
fn small_parts() -> RemoteSettings {
    let tuning = Tuning { part_bytes: 5 << 20, single_put_max: 6 << 20, ..Tuning::default() };
    RemoteSettings { tuning, ..RemoteSettings::default() }
}

/// Enough to go over every seam and no more. This server looks at a lock anew each second: many writers of one name are slow.
fn over_a_network() -> Sizes {
    Sizes { listed: 1_234, racers: 4, races: 8, ..Sizes::default() }
}

fn s3(prefix: &str) -> Arc<dyn Remote> {
    let server = S3Server::shared();
    let url = format!("s3://{}{prefix}", server.bucket());
    open_in(&url, &small_parts(), &env(&server.env()), clock(), fresh()).unwrap()
}

#[cfg(feature = "minio")]
fn minio(prefix: &str) -> Arc<dyn Remote> {
    let server = S3Server::shared();
    let url = format!("minio://{}/{}{prefix}", server.authority(), server.bucket());
    open_in(&url, &small_parts(), &env(&server.env()), clock(), fresh()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_keeps_every_promise() {
    let remote = open("mem://conformance", &RemoteSettings::default(), clock(), fresh()).unwrap();
    check(&*remote, "deep/below").await;
    probe(&*remote, "volume/probe", &*fresh()).await.unwrap();
    let again = open("mem://conformance", &RemoteSettings::default(), clock(), fresh()).unwrap();
    assert!(!again.list("deep", None, 10).await.unwrap().is_empty(), "one name is one store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_every_promise() {
    let folder = tempfile::tempdir().unwrap();
    let url = directory_url(&folder.path().join("my remote")).unwrap();
    let remote = open(&url, &RemoteSettings::default(), clock(), fresh()).unwrap();
    check(&*remote, "deep/below").await;
    probe(&*remote, "volume/probe", &*fresh()).await.unwrap();
    assert_eq!(remote.url(), url);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("my remote/~tmp")).unwrap().collect();
    assert!(left.is_empty(), "unfinished files stay: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_every_promise() {
    let remote = s3("/some/prefix");
    check_sized(&*remote, "deep/below", over_a_network()).await;
    probe(&*remote, "volume/probe", &*fresh()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_them_without_a_prefix_too() {
    let remote = s3("");
    check_sized(&*remote, "below", Sizes { listed: 20, large: 100_000, racers: 4, races: 4 }).await;
    let all = remote.list("", None, 10_000).await.unwrap();
    assert!(all.len() > 50, "the empty folder is the whole remote: {}", all.len());
}

#[cfg(feature = "minio")]
#[tokio::test(flavor = "multi_thread")]
async fn minio_keeps_every_promise() {
    let remote = minio("/some/prefix");
    check_sized(&*remote, "deep/below", over_a_network()).await;
    probe(&*remote, "volume/probe", &*fresh()).await.unwrap();
}

#[cfg(feature = "minio")]
#[tokio::test(flavor = "multi_thread")]
async fn what_one_library_writes_the_other_reads() {
    let server = S3Server::shared();
    let bucket = server.bucket();
    let open = |url: String| open_in(&url, &small_parts(), &env(&server.env()), clock(), fresh()).unwrap();
    let s3 = open(format!("s3://{bucket}/p"));
    let minio = open(format!("minio://{}/{bucket}/p", server.authority()));
    let body = littoral_ports::MemoryBody::new(littoral_ports::conformance::remote::pattern(13 << 20, 5));
    s3.upload(&at("v/chunk/a"), &body).await.unwrap();
    minio.upload(&at("v/chunk/b"), &body).await.unwrap();
    assert_eq!(minio.get(&at("v/chunk/a")).await.unwrap(), s3.get(&at("v/chunk/b")).await.unwrap());
    assert!(matches!(minio.put_new(&at("v/chunk/a"), "x".into()).await, Err(RemoteError::Exists { .. })));
    assert_eq!(s3.list("v", None, 10).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_beyond_a_single_put_arrives_in_parts() {
    let server = S3Server::shared();
    let url = format!("s3://{}", server.bucket());
    let settings = RemoteSettings::default();
    let counting = Counting::new(open_in(&url, &settings, &env(&server.env()), clock(), fresh()).unwrap());
    let len = (settings.tuning.single_put_max + (3 << 20) + 7) as usize;
    let bytes = littoral_ports::conformance::remote::pattern(len, 3);
    counting.upload(&at("v/chunk/large"), &littoral_ports::MemoryBody::new(bytes.clone())).await.unwrap();
    let totals = counting.totals();
    let parts = (len as u64).div_ceil(settings.tuning.part_bytes);
    assert_eq!(totals.of(Op::Part).requests, parts, "{totals:?}");
    assert_eq!(totals.of(Op::Part).bytes_up, len as u64);
    assert_eq!(totals.of(Op::Multipart).requests, 2, "begun and completed: {totals:?}");
    assert_eq!(totals.of(Op::Head).requests, 1, "looked at afterwards: {totals:?}");
    assert!(counting.get(&at("v/chunk/large")).await.unwrap() == bytes, "it arrived changed");
    assert_eq!(counting.totals().of(Op::Get).bytes_down, len as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_network_every_request_counts() {
    let counting = Counting::new(s3("/counted"));
    for n in 0..3 {
        counting.put_new(&at(&format!("v/log/{n}")), "12345".into()).await.unwrap();
    }
    counting.delete(&[at("v/log/0"), at("v/log/1")]).await.unwrap();
    let totals = counting.totals();
    assert_eq!((totals.of(Op::PutNew).requests, totals.of(Op::PutNew).bytes_up), (3, 15));
    assert_eq!(totals.of(Op::Delete).requests, 2, "one by one");
    counting.reset();
    let names: Vec<_> = (0..20).map(|n| at(&format!("v/chunk/{n}"))).collect();
    futures::future::join_all(names.iter().map(|name| counting.put(name, "1".into()))).await;
    assert!(counting.depth() < 20, "twenty writes at once waited for one another");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_many_processes_race_for_a_name_in_a_folder_and_one_wins() {
    const RACES: usize = 100;
    const RACERS: usize = 4;
    if let Ok(root) = std::env::var("LITTORAL_TEST_RACER_ROOT") {
        let me = std::env::var("LITTORAL_TEST_RACER").unwrap();
        let remote = Directory::new(root.as_ref(), clock(), fresh());
        // All begin together: each waits until every racer has raised its hand.
        std::fs::write(format!("{root}/hand{me}"), "").unwrap();
        while (0..RACERS).any(|racer| !std::path::Path::new(&format!("{root}/hand{racer}")).exists()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        for race in 0..RACES {
            match remote.put_new(&at(&format!("v/log/{race}")), me.clone().into()).await {
                Ok(()) => remote.put_new(&at(&format!("won/{race}/{me}")), me.clone().into()).await.unwrap(),
                Err(RemoteError::Exists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writers_of_many_processes_race_for_a_name_in_a_folder_and_one_wins"])
                .env("LITTORAL_TEST_RACER_ROOT", folder.path())
                .env("LITTORAL_TEST_RACER", racer.to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut racer in racers {
        assert!(racer.wait().unwrap().success(), "a racer failed");
    }
    let remote = Directory::new(folder.path(), clock(), fresh());
    for race in 0..RACES {
        let won = remote.list(&format!("won/{race}"), None, 10).await.unwrap();
        assert_eq!(won.len(), 1, "race {race} was won by {won:?}");
        let winner = remote.get(&at(&format!("v/log/{race}"))).await.unwrap();
        assert_eq!(won[0].path.parts().last().unwrap().as_bytes(), winner, "race {race}");
    }
}
