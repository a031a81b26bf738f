//! A record whose body is an object of its own, and deaths on its way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_engine::exec::verify::verify;
use littoral_engine::log::Draft;
use littoral_engine::{EngineError, Log, Session};
use littoral_format::keys::ObjectKey;
use littoral_ports::{MemoryRemote, Remote};
use littoral_tests::chance::Chance;
use littoral_tests::clock::TestClock;
use littoral_tests::database::{Bounds, source, stock};
use littoral_tests::machine::Machine;
use littoral_tests::world::folder;
use littoral_types::{BlobKind, Checkpoint, Lsn, RecordBody};
use std::sync::Arc;

fn large(chance: &Chance, session: &Session) -> Draft {
    let tail = &session.writer.row().tail;
    // Names of sessions that nothing makes smaller than the record they travel in may be.
    let name = || (0..60).map(|_| format!("{:016x}", chance.number())).collect::<String>();
    let sessions = (0..2600).map(|serial| (name(), serial)).collect();
    let body = RecordBody::Checkpoint(Checkpoint { sessions, ..Checkpoint::default() });
    Draft { commits: 1, ..Draft::of(body, tail.figures) }
}

#[test]
fn a_death_on_the_way_of_a_large_record_leaves_it_whole_or_not_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for point in ["publish.body", "publish.drafted", "publish.intended", "publish.landed", "publish.committed"] {
            let folder = folder();
            let remote = Arc::new(MemoryRemote::new("large"));
            let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
            let (clock, chance) = (Arc::new(TestClock::new()), Chance::new(7));
            let mut machine = Machine::new(folder.path().join("a"), remote.clone(), clock, chance.fork(), bounds, true);
            machine.database.run("CREATE TABLE t(a); INSERT INTO t VALUES ('before')").await;
            let mut session = machine.open(None).await.unwrap();
            let mut source = source(machine.database.path());
            let held = Arc::new(stock(&mut source));
            machine.publish(&mut session, &mut source, &held, &Default::default()).await.unwrap().unwrap();

            machine.faults.arm(point, 0);
            let died = session.writer.publish(large(&chance, &session)).await.err();
            assert!(died.as_ref().is_some_and(EngineError::is_crash), "{point}: {died:?}");
            drop(session);
            machine.end_process();
            let mut session = machine.open(None).await.unwrap();
            let landed = session.writer.row().tail.lsn == Lsn(2);
            assert_eq!(landed, !matches!(point, "publish.body" | "publish.drafted"), "{point}");
            if !landed {
                session.writer.publish(large(&chance, &session)).await.unwrap();
            }
            let log = Log::new(remote.clone(), "app.db".parse().unwrap());
            let opened = log.open().await.unwrap().unwrap();
            assert_eq!(opened.tail.lsn, Lsn(2), "{point}");
            let found = verify(&log, &machine.components).await.unwrap();
            assert_eq!(found.problems, Vec::<String>::new(), "{point}");
            let bodies = remote.list("app.db/seg", None, 10).await.unwrap();
            let named = |path| matches!(ObjectKey::parse(path), Some((_, ObjectKey::Blob(name))) if name.kind == BlobKind::Segment);
            assert!(bodies.iter().all(|meta| named(&meta.path)), "{point}: {bodies:?}");
            assert!(!bodies.is_empty(), "{point}: its body travelled inside");
        }
    });
}

#[test]
fn an_interrupted_record_is_not_put_where_the_log_has_lost_what_it_follows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let remote = Arc::new(MemoryRemote::new("behind"));
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let (clock, chance) = (Arc::new(TestClock::new()), Chance::new(7));
        let mut machine = Machine::new(folder.path().join("a"), remote.clone(), clock, chance.fork(), bounds, true);
        machine.database.run("CREATE TABLE t(a); INSERT INTO t VALUES ('before')").await;
        let mut session = machine.open(None).await.unwrap();
        let mut source = source(machine.database.path());
        let held = Arc::new(stock(&mut source));
        machine.publish(&mut session, &mut source, &held, &Default::default()).await.unwrap().unwrap();
        machine.faults.arm("publish.intended", 0);
        let died = session.writer.publish(large(&chance, &session)).await.err();
        assert!(died.is_some_and(|error| error.is_crash()));
        drop(session);
        machine.end_process();

        let newest = remote.list("app.db/log", None, 1).await.unwrap().remove(0).path;
        remote.delete(&[newest]).await.unwrap();
        let before = remote.objects();
        let refused = machine.open(None).await.err();
        assert!(matches!(refused, Some(EngineError::RemoteBehind { .. })), "{refused:?}");
        assert!(remote.objects() == before, "something was written");
    });
}
