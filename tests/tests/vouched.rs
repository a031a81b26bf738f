//! Whole blobs in the wrong place, met by a writer: what he learns from them would hide changes, or publish the wrong pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use bytes::Bytes;
use littoral_engine::exec::checkpoint::Options;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::{EngineError, Log};
use littoral_ports::{MemoryRemote, Remote};
use littoral_tests::chance::Chance;
use littoral_tests::clock::TestClock;
use littoral_tests::database::{Bounds, source, stock};
use littoral_tests::machine::Machine;
use littoral_tests::world::folder;
use littoral_types::{Compression, ObjectPath};
use std::sync::Arc;
use tempfile::TempDir;

struct Rig {
    folder: TempDir,
    remote: Arc<MemoryRemote>,
    machine: Machine,
    values: [String; 2],
}

impl Rig {
    /// A database whose one row goes back and forth between two values, each published twice; its packs differ in nothing but
    /// what they hold.
    async fn new() -> Self {
        let folder = folder();
        let remote = Arc::new(MemoryRemote::new("vouched"));
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let chance = Chance::new(3);
        let noise = || (0..50).map(|_| format!("{:016x}", chance.number())).collect::<String>();
        let values = [noise(), noise()];
        let machine = Machine::new(
            folder.path().join("a"),
            remote.clone(),
            Arc::new(TestClock::new()),
            Chance::new(4),
            bounds,
            false,
        );
        let mut rig = Self { folder, remote, machine, values };
        rig.machine.database.run("PRAGMA page_size = 512; CREATE TABLE t(id INTEGER PRIMARY KEY, b)").await;
        for id in 0..20 {
            rig.machine.database.run(&format!("INSERT INTO t VALUES ({id}, randomblob(400))")).await;
        }
        for which in [0, 1, 0, 1] {
            rig.set(which).await;
            rig.checkpoint().await.unwrap();
        }
        rig
    }

    async fn set(&mut self, which: usize) {
        let sql = format!("UPDATE t SET b = x'{}' WHERE id = 3", self.values[which]);
        self.machine.database.run(&sql).await;
    }

    async fn checkpoint(&mut self) -> Result<u64, EngineError> {
        let mut session = self.machine.open(None).await?;
        let mut source = source(self.machine.database.path());
        let held = Arc::new(stock(&mut source));
        let options = Options { compression: Compression::None, ..Options::default() };
        let done = self.machine.publish(&mut session, &mut source, &held, &options).await?;
        Ok(done.expect("something had changed").plan.changed_pages())
    }

    fn packs(&self) -> Vec<(ObjectPath, Bytes)> {
        let mut packs: Vec<_> =
            self.remote.objects().into_iter().filter(|(path, _)| path.as_str().contains("/pack/")).collect();
        // By birth, which is what comes after the dot of their names.
        packs.sort_by_key(|(path, _)| path.as_str().rsplit('.').next().unwrap().parse::<u64>().unwrap());
        packs
    }

    async fn assert_published(&mut self) {
        let log = Log::new(self.remote.clone(), "app.db".parse().unwrap());
        let out = self.folder.path().join("out.db");
        restore(&log, &self.machine.components, &At::Newest, &out, true).await.unwrap();
        let file = self.machine.database.quiescent();
        assert!(std::fs::read(&out).unwrap() == file, "WRONG BYTES");
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_rebuild_does_not_learn_from_a_blob_in_the_place_of_another() {
    run(async {
        let mut rig = Rig::new().await;
        let packs = rig.packs();
        let [.., (_, older), (newest, original)] = packs.as_slice() else { panic!("no packs") };
        assert_eq!(older.len(), original.len(), "nothing but what they hold tells them apart");
        // The database goes back to what the older pack holds; by that one, the row's page would not have changed.
        rig.set(0).await;
        rig.remote.tamper(newest, older.clone());
        rig.machine.lose_manifest();
        let refused = rig.checkpoint().await.err();
        assert!(matches!(refused, Some(EngineError::Inconsistent { .. })), "{refused:?}");
        rig.remote.tamper(newest, original.clone());
        assert!(rig.checkpoint().await.unwrap() > 1);
        rig.assert_published().await;
    });
}

#[test]
fn a_checkpoint_that_goes_on_does_not_take_another_blob_for_the_one_it_uploaded() {
    run(async {
        for damage in ["another blob", "a flipped bit", "a missing end"] {
            let mut rig = Rig::new().await;
            let before = rig.packs();
            rig.set(0).await;
            rig.machine.faults.arm("checkpoint.uploaded", 0);
            assert!(rig.checkpoint().await.err().unwrap().is_crash());
            rig.machine.end_process();
            let packs = rig.packs();
            let (uploaded, original) = packs.iter().find(|pack| !before.contains(pack)).unwrap();
            let damaged = match damage {
                "another blob" => before.last().unwrap().1.clone(),
                "a flipped bit" => {
                    let mut bytes = original.to_vec();
                    let at = bytes.len() - 30;
                    bytes[at] ^= 1;
                    Bytes::from(bytes)
                }
                _ => original.slice(..original.len() - 1),
            };
            rig.remote.tamper(uploaded, damaged);
            rig.checkpoint().await.unwrap();
            rig.assert_published().await;
            assert!(rig.remote.get(uploaded).await.unwrap() == *original, "{damage} stayed");
        }
    });
}
