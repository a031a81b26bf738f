//! A database that really reaches across SQLite's lock page, at one gibibyte: many chunks, shrinking, deaths in the middle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_engine::Log;
use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::exec::restore::{At, Restored, restore};
use littoral_engine::exec::verify::verify;
use littoral_ports::{MemoryRemote, PageSource as _, Remote};
use littoral_tests::chance::Chance;
use littoral_tests::clock::TestClock;
use littoral_tests::database::{Bounds, assert_sound, source};
use littoral_tests::machine::Machine;
use littoral_tests::world::folder;
use littoral_types::{Lsn, PageNo};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

const PENDING_BYTE: u64 = 1 << 30;

fn digest(path: &Path) -> (u64, [u8; 32]) {
    let mut file = File::open(path).unwrap();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 4 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            len => hasher.update(&buffer[..len]),
        };
    }
    (file.metadata().unwrap().len(), *hasher.finalize().as_bytes())
}

struct Rig {
    machine: Machine,
    log: Log,
    out: std::path::PathBuf,
}

impl Rig {
    /// A checkpoint, after as many attempts as die.
    async fn checkpoint(&mut self) -> Checkpointed {
        for _ in 0..5 {
            let mut session = self.machine.open(None).await.unwrap();
            let mut source = source(self.machine.database.path());
            match checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await {
                Ok(done) => return done.unwrap(),
                Err(error) => assert!(error.is_crash(), "{error:?}"),
            }
            drop(session);
            self.machine.end_process();
        }
        panic!("died again and again");
    }

    async fn restore(&self, lsn: u64) -> Restored {
        for _ in 0..5 {
            match restore(&self.log, &self.machine.components, &At::Lsn(Lsn(lsn)), &self.out, true).await {
                Ok(done) => return done,
                Err(error) => assert!(error.is_crash(), "{error:?}"),
            }
        }
        panic!("died again and again");
    }

    async fn run(&mut self, sql: &str) -> (u64, [u8; 32]) {
        self.machine.database.run(sql).await;
        self.machine.database.close();
        digest(self.machine.database.path())
    }
}

#[test]
fn a_database_across_the_lock_page_at_one_gibibyte_comes_back_byte_for_byte() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let remote: Arc<dyn Remote> = Arc::new(MemoryRemote::new("gigabyte"));
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let clock = Arc::new(TestClock::new());
        let machine = Machine::new(folder.path().join("a"), remote.clone(), clock, Chance::new(1), bounds, true);
        let log = Log::new(remote, "app.db".parse().unwrap());
        let mut rig = Rig { machine, log, out: folder.path().join("restored.db") };
        let first = rig
            .run(
                "PRAGMA page_size = 65536; PRAGMA journal_mode = OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, b);
                 INSERT INTO t VALUES (1, zeroblob(540000000)), (2, zeroblob(540000000)), (3, 'beyond the lock page')",
            )
            .await;
        let lock_page = source(rig.machine.database.path()).lock_page();
        assert_eq!(lock_page, Some(PageNo::new(PENDING_BYTE / 65536 + 1).unwrap()), "it does not reach there");

        rig.machine.faults.arm("checkpoint.blob-uploaded", 5);
        let done = rig.checkpoint().await;
        assert!(done.resumed >= 5, "{} of {} blobs were made again", done.blobs - done.resumed, done.blobs);

        let second = rig
            .run("INSERT INTO t VALUES (4, randomblob(300000)); UPDATE t SET b = 'x' WHERE id = 3; DELETE FROM t WHERE id = 1")
            .await;
        assert_eq!(rig.checkpoint().await.position.lsn, Lsn(2));
        // The end moves to before the lock page, and back behind it.
        let third = rig.run("PRAGMA journal_mode = WAL; VACUUM").await;
        assert!(third.0 < PENDING_BYTE);
        rig.checkpoint().await;
        let fourth = rig.run("INSERT INTO t VALUES (5, zeroblob(560000000))").await;
        assert!(fourth.0 > PENDING_BYTE);
        rig.checkpoint().await;

        // Where everything is written and nothing has its name: whoever dies earlier may have finished no chunk yet.
        rig.machine.faults.arm("restore.written", 0);
        let restored = rig.restore(1).await;
        assert!(restored.resumed > 0, "a restore that died began from the start");
        assert!(digest(&rig.out) == first, "LSN 1");
        for (lsn, expected) in [(2, second), (3, third), (4, fourth)] {
            rig.restore(lsn).await;
            assert!(digest(&rig.out) == expected, "LSN {lsn}");
        }
        assert_sound(&rig.out, "LSN 4");
        let verified = verify(&rig.log, &rig.machine.components).await.unwrap();
        assert_eq!(verified.problems, Vec::<String>::new());
    });
}
