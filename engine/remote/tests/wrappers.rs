//! The probe tells stores that fence from stores that do not; the faulty wrapper fails as it is told, twice alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Seeded, at, clock, fresh};
use littoral_ports::{MemoryBody, MemoryRemote, Remote, RemoteError, passes_on};
use littoral_remote::{Counting, Fault, Faulty, Op, PROBE_RACES, probe};
use littoral_types::{ByteSpan, ObjectPath};
use std::sync::Arc;

/// How a store may take the condition of a put_new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Honoured,
    /// Everyone wins, the last bytes stay.
    Ignored,
    /// Looked at before, not while writing: two at once both win.
    LookedAt,
    /// Refused to all but the first, and written all the same.
    RefusedAndDone,
    /// Everyone is refused.
    NeverMet,
    /// The first answer of each name is lost.
    FirstLost,
    /// The store does not know it.
    NotImplemented,
}

#[derive(Debug)]
struct Store(MemoryRemote, Condition);

#[async_trait]
impl Remote for Store {
    passes_on!(0: get, get_range, get_suffix, size, put, upload, list, delete, url, distrust, copies);

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        match self.1 {
            Condition::Honoured => self.0.put_new(path, bytes).await,
            Condition::Ignored => self.0.put(path, bytes).await,
            Condition::LookedAt => {
                let there = self.0.size(path).await.is_ok();
                tokio::task::yield_now().await;
                if there { Err(RemoteError::Exists { path: path.clone() }) } else { self.0.put(path, bytes).await }
            }
            Condition::RefusedAndDone => {
                let done = self.0.put_new(path, bytes.clone()).await;
                self.0.put(path, bytes).await?;
                done
            }
            Condition::NeverMet => Err(RemoteError::Exists { path: path.clone() }),
            Condition::FirstLost => match self.0.put_new(path, bytes).await {
                Ok(()) => Err(RemoteError::Unknown { path: path.clone(), detail: "lost".into() }),
                refused => refused,
            },
            Condition::NotImplemented => {
                Err(RemoteError::NotFencing { what: self.url(), detail: "501 NotImplemented".into() })
            }
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_fence_is_found_out_and_one_that_does_is_not_accused() {
    let probed = async |condition| {
        let store = Store(MemoryRemote::new("probed"), condition);
        let probed = probe(&store, "volume/probe", &*fresh()).await;
        assert_eq!(store.0.objects(), vec![], "{condition:?}: the probe leaves something");
        probed
    };
    probed(Condition::Honoured).await.unwrap();
    use Condition::*;
    for condition in [Ignored, LookedAt, RefusedAndDone, NeverMet, NotImplemented] {
        let found = probed(condition).await;
        assert!(matches!(found, Err(RemoteError::NotFencing { .. })), "{condition:?}: {found:?}");
    }
    // What nobody knows is not an accusation.
    let unknown = probed(FirstLost).await;
    assert!(matches!(unknown, Err(RemoteError::Unknown { .. })), "{unknown:?}");
}

#[tokio::test]
async fn the_probe_costs_four_round_trips_and_settles_what_was_lost_once() {
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryRemote::new("probed")), clock(), Seeded::new(1)));
    let counting = Counting::new(Arc::clone(&faulty) as _);
    probe(&counting, "volume/probe", &*fresh()).await.unwrap();
    let totals = counting.totals();
    assert_eq!(totals.of(Op::PutNew).requests, 3 * PROBE_RACES as u64);
    assert_eq!(totals.of(Op::Get).requests, 2 * PROBE_RACES as u64);
    faulty.next(Op::PutNew, Fault::LostAfter);
    probe(&counting, "volume/probe", &*fresh()).await.unwrap();
    faulty.next(Op::PutNew, Fault::NotSent);
    let asked = probe(&counting, "volume/probe", &*fresh()).await;
    assert!(matches!(asked, Err(RemoteError::Unavailable { .. })), "{asked:?}");
}

#[tokio::test]
async fn faults_by_script_come_true_where_they_were_put() {
    let memory = Arc::new(MemoryRemote::new("faulty"));
    let faulty = Faulty::new(Arc::clone(&memory) as _, clock(), Seeded::new(7));
    let path = at("v/log/1");
    let bytes = Bytes::from(vec![0u8; 1000]);

    faulty.next(Op::PutNew, Fault::NotSent);
    let done = faulty.put_new(&path, bytes.clone()).await;
    assert!(matches!(done, Err(RemoteError::Unavailable { .. })) && memory.objects().is_empty(), "{done:?}");
    faulty.next(Op::PutNew, Fault::LostBefore);
    let done = faulty.put_new(&path, bytes.clone()).await;
    assert!(matches!(done, Err(RemoteError::Unknown { .. })) && memory.objects().is_empty(), "{done:?}");
    faulty.next(Op::PutNew, Fault::LostAfter);
    let done = faulty.put_new(&path, bytes.clone()).await;
    assert!(matches!(done, Err(RemoteError::Unknown { .. })) && memory.objects().len() == 1, "{done:?}");
    let done = faulty.put_new(&path, bytes.clone()).await;
    assert!(matches!(done, Err(RemoteError::Exists { .. })), "{done:?}");

    faulty.next(Op::Get, Fault::Flipped);
    let flipped = faulty.get(&path).await.unwrap();
    let bits: u32 = flipped.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!((flipped.len(), bits), (1000, 1), "one bit");
    faulty.next(Op::Get, Fault::Truncated);
    assert!(faulty.get_range(&path, ByteSpan { offset: 0, len: 500 }).await.unwrap().len() < 500);
    assert_eq!(faulty.get(&path).await.unwrap(), bytes, "the object itself is whole");

    faulty.at(None, "chunk", 1, 2, Fault::Full);
    let body = MemoryBody::new("x");
    let mut full = Vec::new();
    for n in 0..4 {
        faulty.put(&path, bytes.clone()).await.unwrap();
        full.push(matches!(faulty.upload(&at(&format!("v/chunk/{n}")), &body).await, Err(RemoteError::Full { .. })));
    }
    assert_eq!(full, [false, true, true, false], "one goes well, two fail, of those that were meant");
    faulty.next(Op::List, Fault::Throttled);
    assert!(matches!(faulty.list("v", None, 9).await, Err(RemoteError::Unavailable { .. })));
    faulty.next(Op::Delete, Fault::Denied);
    let done = faulty.delete(std::slice::from_ref(&path)).await;
    assert!(matches!(done, Err(RemoteError::Denied { .. })), "{done:?}");
    assert_eq!(faulty.happened().len(), 9);
}

#[tokio::test]
async fn faults_by_chance_are_the_same_for_the_same_seed() {
    let run = async |seed: u64| {
        let faulty = Faulty::new(Arc::new(MemoryRemote::new("chance")), clock(), Seeded::new(seed));
        faulty.chance(Fault::LostAfter, 200);
        faulty.chance(Fault::Flipped, 100);
        for n in 0..200 {
            // Whatever comes: the trace is what is compared.
            let _ = faulty.put_new(&at(&format!("v/log/{n}")), "record".into()).await;
            let _ = faulty.get(&at(&format!("v/log/{n}"))).await;
        }
        faulty.happened()
    };
    let (first, again, other) = (run(5).await, run(5).await, run(6).await);
    assert!(first.len() > 60 && first.len() < 200, "{}", first.len());
    assert_eq!(first, again);
    assert_ne!(first, other);
}
