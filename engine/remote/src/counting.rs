//! Counts what a remote costs: requests, bytes, failures, and how deep requests wait for one another.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_ports::{BlobBody, ObjectMeta, Remote, RemoteError};
use littoral_types::{ByteSpan, ObjectPath};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// All or some bytes of an object.
    Get,
    /// An object's size.
    Head,
    /// A write that replaces.
    Put,
    /// A write that does not.
    PutNew,
    /// A blob in one piece.
    Upload,
    /// Beginning, completing or aborting a blob in parts.
    Multipart,
    /// One part of a blob.
    Part,
    /// One step of a listing.
    List,
    /// A deletion.
    Delete,
}

impl Op {
    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Head => "head",
            Op::Put => "put",
            Op::PutNew => "put_new",
            Op::Upload => "upload",
            Op::Multipart => "multipart",
            Op::Part => "part",
            Op::List => "list",
            Op::Delete => "delete",
        }
    }

    /// Whether it writes: what stores ask the higher price for.
    pub const fn writes(self) -> bool {
        matches!(self, Op::Put | Op::PutNew | Op::Upload | Op::Multipart | Op::Part)
    }
}

/// What one kind of request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTotals {
    /// How many, tries that failed included.
    pub requests: u64,
    /// Bytes of bodies sent.
    pub bytes_up: u64,
    /// Bytes of bodies received.
    pub bytes_down: u64,
    /// How many failed.
    pub errors: u64,
}

impl OpTotals {
    fn add(&mut self, other: &OpTotals) {
        self.requests += other.requests;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.errors += other.errors;
    }
}

/// What all requests cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By kind; kinds that never came are left out.
    pub by_op: BTreeMap<Op, OpTotals>,
}

impl Totals {
    /// Of one kind.
    pub fn of(&self, op: Op) -> OpTotals {
        self.by_op.get(&op).copied().unwrap_or_default()
    }

    /// Of all kinds.
    pub fn all(&self) -> OpTotals {
        self.sum(|_| true)
    }

    /// Of those that write.
    pub fn writes(&self) -> OpTotals {
        self.sum(Op::writes)
    }

    /// What came since an earlier look.
    pub fn since(&self, earlier: &Totals) -> Totals {
        let mut by_op = BTreeMap::new();
        for (op, now) in &self.by_op {
            let then = earlier.of(*op);
            let more = OpTotals {
                requests: now.requests - then.requests,
                bytes_up: now.bytes_up - then.bytes_up,
                bytes_down: now.bytes_down - then.bytes_down,
                errors: now.errors - then.errors,
            };
            if more != OpTotals::default() {
                by_op.insert(*op, more);
            }
        }
        Totals { by_op }
    }

    fn sum(&self, wanted: impl Fn(Op) -> bool) -> OpTotals {
        let mut sum = OpTotals::default();
        self.by_op.iter().filter(|(op, _)| wanted(**op)).for_each(|(_, totals)| sum.add(totals));
        sum
    }
}

/// One request, as it was under way between two ticks of a common count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which kind.
    pub op: Op,
    /// The tick at which it began.
    pub began: u64,
    /// The tick at which it ended.
    pub ended: u64,
}

/// The longest chain of requests of which each began after the one before had ended: how many round trips one after
/// another the work waited for, at most.
pub fn depth(exchanges: &[Exchange]) -> usize {
    let mut by_end = exchanges.to_vec();
    by_end.sort_by_key(|exchange| exchange.ended);
    let mut depth = 0;
    let mut free_from = None;
    // The classic choice: always the one that ends first leaves most room for the rest.
    for exchange in by_end {
        if free_from.is_none_or(|free_from| exchange.began > free_from) {
            depth += 1;
            free_from = Some(exchange.ended);
        }
    }
    depth
}

/// How many exchanges are kept for [`Counting::depth`]; totals go on beyond.
const EXCHANGES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct Meter {
    tick: AtomicU64,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    totals: Totals,
    exchanges: Vec<Exchange>,
}

impl Meter {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> u64 {
        self.tick.fetch_add(1, Ordering::Relaxed)
    }

    fn enter(&self, op: Op, began: u64, cost: OpTotals) {
        let ended = self.tick();
        let mut ledger = self.ledger();
        ledger.totals.by_op.entry(op).or_default().add(&cost);
        if ledger.exchanges.len() < EXCHANGES_MAX {
            ledger.exchanges.push(Exchange { op, began, ended });
        }
    }
}

/// The call of a [`Counting`] under way in this task: stores that know their single requests report them here.
struct Call {
    meter: Arc<Meter>,
    reported: AtomicU64,
}

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// A single request of a store: counted by whichever [`Counting`] the call came through, if it came through one.
pub(crate) async fn counted<T, E>(
    op: Op,
    bytes_up: u64,
    request: impl Future<Output = Result<T, E>>,
    bytes_down: impl FnOnce(&T) -> u64,
) -> Result<T, E> {
    let Ok(call) = CALL.try_with(Arc::clone) else { return request.await };
    call.reported.fetch_add(1, Ordering::Relaxed);
    let began = call.meter.tick();
    let answer = request.await;
    let bytes_down = answer.as_ref().map(bytes_down).unwrap_or_default();
    call.meter.enter(op, began, OpTotals { requests: 1, bytes_up, bytes_down, errors: u64::from(answer.is_err()) });
    answer
}

/// Counts what goes through it. Over a network every try and every part counts as one request; stores that have no such
/// notion count one for each call.
pub struct Counting {
    inner: Arc<dyn Remote>,
    meter: Arc<Meter>,
}

impl Counting {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Remote>) -> Self {
        Self { inner, meter: Arc::default() }
    }

    /// What everything so far cost.
    pub fn totals(&self) -> Totals {
        self.meter.ledger().totals.clone()
    }

    /// All requests so far, in the order in which they ended.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.meter.ledger().exchanges.clone()
    }

    /// How many requests waited for one another. Requests that could have been under way at once but were not count as a
    /// chain: with a store that answers at once, give it some latency first.
    pub fn depth(&self) -> usize {
        depth(&self.exchanges())
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        *self.meter.ledger() = Ledger::default();
    }

    async fn call<T>(
        &self,
        op: Op,
        bytes_up: u64,
        call: impl Future<Output = Result<T, RemoteError>>,
        bytes_down: impl FnOnce(&T) -> u64,
    ) -> Result<T, RemoteError> {
        let began = self.meter.tick();
        // Lets requests that were made together begin together, even when the first would be answered at once.
        yield_once().await;
        let under_way = Arc::new(Call { meter: Arc::clone(&self.meter), reported: AtomicU64::new(0) });
        let answer = CALL.scope(Arc::clone(&under_way), call).await;
        if under_way.reported.load(Ordering::Relaxed) == 0 {
            let bytes_down = answer.as_ref().map(bytes_down).unwrap_or_default();
            let cost = OpTotals { requests: 1, bytes_up, bytes_down, errors: u64::from(answer.is_err()) };
            self.meter.enter(op, began, cost);
        }
        answer
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counting({:?})", self.inner)
    }
}

fn len(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

#[async_trait]
impl Remote for Counting {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.call(Op::Get, 0, self.inner.get(path), len).await
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        self.call(Op::Get, 0, self.inner.get_range(path, span), len).await
    }

    async fn get_suffix(&self, path: &ObjectPath, length: u64) -> Result<(Bytes, u64), RemoteError> {
        self.call(Op::Get, 0, self.inner.get_suffix(path, length), |(bytes, _)| len(bytes)).await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        self.call(Op::Head, 0, self.inner.size(path), |_| 0).await
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.call(Op::Put, len(&bytes), self.inner.put(path, bytes), |()| 0).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.call(Op::PutNew, len(&bytes), self.inner.put_new(path, bytes), |()| 0).await
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.call(Op::Upload, body.len(), self.inner.upload(path, body), |()| 0).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        self.call(Op::List, 0, self.inner.list(folder, after, max), |_| 0).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        self.call(Op::Delete, 0, self.inner.delete(paths), |()| 0).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_ports::{MemoryBody, MemoryRemote};

    fn at(name: &str) -> ObjectPath {
        ObjectPath::parse(name).unwrap()
    }

    #[tokio::test]
    async fn requests_bytes_and_errors_are_counted_by_kind() {
        let counting = Counting::new(Arc::new(MemoryRemote::new("counted")));
        counting.put_new(&at("a"), Bytes::from_static(b"12345")).await.unwrap();
        counting.put_new(&at("a"), Bytes::from_static(b"123")).await.unwrap_err();
        counting.get_range(&at("a"), ByteSpan { offset: 1, len: 2 }).await.unwrap();
        counting.upload(&at("b"), &MemoryBody::new(vec![0; 100])).await.unwrap();
        let totals = counting.totals();
        assert_eq!(totals.of(Op::PutNew), OpTotals { requests: 2, bytes_up: 8, bytes_down: 0, errors: 1 });
        assert_eq!(totals.of(Op::Get), OpTotals { requests: 1, bytes_up: 0, bytes_down: 2, errors: 0 });
        assert_eq!(totals.writes(), OpTotals { requests: 3, bytes_up: 108, bytes_down: 0, errors: 1 });
        assert_eq!(totals.all().requests, 4);
        counting.delete(&[at("a")]).await.unwrap();
        assert_eq!(counting.totals().since(&totals).all(), OpTotals { requests: 1, ..OpTotals::default() });
        counting.reset();
        assert_eq!(counting.totals(), Totals::default());
    }

    #[tokio::test]
    async fn depth_is_the_longest_chain_of_requests_that_waited() {
        let counting = Counting::new(Arc::new(MemoryRemote::new("depth")));
        for name in ["a", "b", "c"] {
            counting.put(&at(name), Bytes::new()).await.unwrap();
        }
        assert_eq!(counting.depth(), 3);
        counting.reset();
        let (a, b, c) = (at("a"), at("b"), at("c"));
        let _ = futures::join!(counting.get(&a), counting.get(&b), counting.get(&c));
        assert_eq!(counting.depth(), 1, "{:?}", counting.exchanges());
        let _ = futures::join!(counting.get(&a), counting.get(&b));
        assert_eq!(counting.depth(), 2);
    }

    #[test]
    fn depth_agrees_with_trying_every_chain() {
        let mut state = 1u64;
        for _ in 0..200 {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state >> 33
            };
            let exchanges: Vec<Exchange> = (0..9)
                .map(|_| {
                    let began = next() % 30;
                    Exchange { op: Op::Get, began, ended: began + 1 + next() % 10 }
                })
                .collect();
            fn longest(after: Option<u64>, all: &[Exchange]) -> usize {
                let next = all.iter().filter(|e| after.is_none_or(|after| e.began > after));
                next.map(|e| 1 + longest(Some(e.ended), all)).max().unwrap_or(0)
            }
            assert_eq!(depth(&exchanges), longest(None, &exchanges), "{exchanges:?}");
        }
    }
}
