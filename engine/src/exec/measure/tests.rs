use super::*;
use async_trait::async_trait;
use littoral_ports::{MemoryRemote, passes_on};
use littoral_remote::{Fault, Faulty, Op};
use std::sync::Arc;

fn components() -> Components {
    Components::of_this_machine(Arc::new(littoral_local::LocalQuota::unlimited()))
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

const BYTES: u64 = 20_000_000;

async fn run(remote: &dyn Remote) -> Ended {
    let stop = AtomicBool::new(false);
    measure(remote, &Order { seconds: 2, bytes: BYTES, stop: &stop }, &components()).await.unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// The condition is an ornament.
    Ignored,
    /// The loser is told that it lost, and replaces what was there.
    Told,
    /// Nobody is told that he won.
    Refused,
}

/// A store that does not fence.
#[derive(Debug)]
struct Forking(MemoryRemote, Condition);

#[async_trait]
impl Remote for Forking {
    passes_on!(0: get, get_range, get_suffix, size, put, upload, list, delete, url, distrust, copies);

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let is_taken = self.0.size(path).await.is_ok();
        self.0.put(path, bytes).await?;
        match self.1 {
            Condition::Ignored => Ok(()),
            Condition::Told if !is_taken => Ok(()),
            Condition::Told | Condition::Refused => Err(RemoteError::Exists { path: path.clone() }),
        }
    }
}

#[tokio::test]
async fn everything_is_measured_and_nothing_is_left() {
    let remote = MemoryRemote::new("bucket");
    remote.put(&path("app.db/head"), Bytes::from_static(b"head")).await.unwrap();
    let ended = run(&remote).await;
    let measured = ended.measured.unwrap().unwrap();
    for times in [&measured.commit, &measured.put, &measured.get, &measured.get_range] {
        assert!((1..=SAMPLES).contains(&times.count()) && times.at(50) <= times.at(99), "{times:?}");
    }
    assert!(measured.list.1 >= measured.commit.count() + measured.put.count(), "{measured:?}");
    for rungs in [&measured.up, &measured.down] {
        assert!(rungs.len() >= 3 && rungs.iter().map(|rung| rung.width).eq(WIDTHS.into_iter().take(rungs.len())));
        assert!(rungs.iter().all(|rung| rung.bytes >= rung.width as u64 * measured.object_bytes));
        let all: u64 = rungs.iter().map(|rung| rung.bytes).sum();
        assert!(all <= BYTES / 2, "{all} bytes went one way");
    }
    assert_eq!((ended.swept, ended.left), (0, None));
    assert!(ended.deleted > measured.put.count() as u64);
    assert_eq!(remote.objects(), [(path("app.db/head"), Bytes::from_static(b"head"))]);
}

#[tokio::test]
async fn a_store_that_does_not_fence_is_found_however_it_does_not() {
    for (condition, why) in [
        (Condition::Ignored, "8 were told that they won"),
        (Condition::Told, "had not written what is there"),
        (Condition::Refused, "was refused, and its bytes are there"),
    ] {
        let remote = Forking(MemoryRemote::new("bucket"), condition);
        let ended = run(&remote).await;
        let error = ended.measured.unwrap_err();
        assert!(matches!(error, EngineError::Remote(RemoteError::NotFencing { .. })), "{condition:?}: {error}");
        assert!(error.to_string().contains(why), "{condition:?}: {error}");
        assert_eq!((ended.deleted, ended.left), (1, None));
        assert!(remote.0.objects().is_empty());
    }
}

#[tokio::test]
async fn whoever_may_not_delete_is_told_what_stays() {
    let inner = Arc::new(MemoryRemote::new("bucket"));
    let Components { clock, entropy, .. } = components();
    let remote = Faulty::new(inner.clone(), clock, entropy);
    remote.at(Some(Op::Delete), "", 0, u64::MAX, Fault::Denied);
    let ended = run(&remote).await;
    assert!(ended.measured.unwrap().is_some());
    let (objects, left) = (inner.objects(), ended.left.unwrap());
    assert_eq!(left.objects, Some(objects.len() as u64));
    assert_eq!(left.bytes, objects.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    assert!(
        left.why.contains("refused") && objects.iter().all(|(path, _)| path.as_str().starts_with("littoral-bench/"))
    );
    // Whoever may deletes them, and those of a run that is not over yet only on demand.
    assert_eq!(run(&*inner).await.swept, 0);
    assert_eq!(clean(&*inner, &components()).await.unwrap(), (objects.len() as u64, None));
    assert!(inner.objects().is_empty());
}

#[tokio::test]
async fn a_failure_in_the_middle_is_told_and_leaves_nothing() {
    let inner = Arc::new(MemoryRemote::new("bucket"));
    let Components { clock, entropy, .. } = components();
    let remote = Faulty::new(inner.clone(), clock, entropy);
    for (op, part) in
        [(Op::PutNew, "race"), (Op::PutNew, "commit"), (Op::Get, "ranged"), (Op::Upload, "object"), (Op::Get, "object")]
    {
        remote.at(Some(op), part, 2, 1, Fault::NotSent);
        let ended = run(&remote).await;
        assert!(matches!(ended.measured, Err(EngineError::Remote(RemoteError::Unavailable { .. }))), "{op:?} {part}");
        assert!(ended.deleted > 0 && ended.left.is_none() && inner.objects().is_empty(), "{op:?} {part}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_no_fork() {
    let inner = Arc::new(MemoryRemote::new("bucket"));
    let Components { clock, entropy, .. } = components();
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        let remote = Faulty::new(inner.clone(), clock.clone(), entropy.clone());
        remote.at(Some(Op::PutNew), "race-0", 0, 1, fault);
        remote.at(Some(Op::PutNew), "race-1", 0, RACERS as u64, fault);
        remote.at(Some(Op::PutNew), "race-2", RACERS as u64, 1, fault);
        remote.at(Some(Op::PutNew), "commit", 0, 3, fault);
        let ended = run(&remote).await;
        assert!(ended.measured.unwrap().is_some(), "{fault:?}");
        assert!(remote.happened().len() >= RACERS + 2 && inner.objects().is_empty());
    }
}

#[tokio::test]
async fn whoever_stops_it_gets_no_figures_and_nothing_stays() {
    let remote = MemoryRemote::new("bucket");
    let stop = AtomicBool::new(true);
    let order = Order { seconds: 60, bytes: BYTES, stop: &stop };
    let ended = measure(&remote, &order, &components()).await.unwrap();
    assert!(ended.measured.unwrap().is_none() && ended.deleted > 0 && ended.left.is_none());
    assert!(remote.objects().is_empty());
}

#[tokio::test]
async fn what_a_killed_run_has_left_goes_and_nothing_else() {
    let remote = MemoryRemote::new("bucket");
    let now_ms = components().clock.wall_ms();
    let of = |until_ms: u64| format!("littoral-bench/{until_ms:013}-{:032x}-put-7", 5);
    let (over, young) = (of(now_ms - 1), of(now_ms + 600_000));
    // Not ours, whatever their folder is called.
    let others = [
        "littoral-bench/log/00ff",
        "littoral-bench/head",
        "littoral-bench/1-2-put-7",
        "littoral-bench2/a",
        "app.db/head",
    ];
    for name in [over.as_str(), &young].into_iter().chain(others) {
        remote.put(&path(name), Bytes::from_static(b"x")).await.unwrap();
    }
    let names = || remote.objects().into_iter().map(|(path, _)| path.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(run(&remote).await.swept, 1);
    assert!(!names().contains(&over) && names().contains(&young));
    assert_eq!(clean(&remote, &components()).await.unwrap(), (1, None));
    let mut others: Vec<String> = others.map(str::to_owned).into();
    others.sort();
    assert_eq!(names(), others);
}
