//! Counts what a remote costs: requests, bytes, failures, and how deep requests wait for one another.

use crate::failure::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use littoral_ports::{
    BlobBody, Counter, ObjectMeta, Outcome, Reading, Remote, RemoteError, Spending, Spent, Uncounted, passes_on,
};

pub use littoral_ports::Op;
use littoral_types::{ByteSpan, ObjectPath};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

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

/// What a request costs, by the price lists that object stores have: listing costs as much as writing, deleting nothing.
fn price(op: Op, cost: &OpTotals) -> Spent {
    let writes = if op.writes() || op == Op::List { cost.requests } else { 0 };
    let reads = if matches!(op, Op::Get | Op::Head) { cost.requests } else { 0 };
    Spent { writes, reads, bytes_up: cost.bytes_up, bytes_down: cost.bytes_down }
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
    /// Who pays.
    account: Option<Arc<dyn Spending>>,
    /// Whether a cold scan reads.
    is_cold: bool,
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

    fn enter(&self, op: Op, began: u64, cost: OpTotals, outcome: Outcome) {
        let ended = self.tick();
        if let Some(account) = &self.account {
            account.spend(price(op, &cost));
            account.count(Counter::Requests(op, outcome), cost.requests);
            account.count(Counter::BytesSent, cost.bytes_up);
            if self.is_cold {
                account.count(Counter::ColdRequests(outcome), cost.requests);
            } else if !op.writes() && op != Op::Delete {
                account.read_first(cost.requests, cost.bytes_down);
            }
        }
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

/// An error that tells what came of a request.
pub(crate) trait Answered {
    fn outcome(&self) -> Outcome;
}

impl Answered for RemoteError {
    fn outcome(&self) -> Outcome {
        match self {
            RemoteError::Missing { .. } | RemoteError::Exists { .. } => Outcome::Refused,
            RemoteError::Throttled { .. } => Outcome::Throttled,
            RemoteError::Denied { .. } | RemoteError::NoBucket { .. } => Outcome::Denied,
            _ => Outcome::Failed,
        }
    }
}

impl Answered for Failure {
    fn outcome(&self) -> Outcome {
        match self {
            Failure::Later { failure, .. } => failure.outcome(),
            Failure::Taken | Failure::Missing | Failure::NoUpload | Failure::OutOfRange => Outcome::Refused,
            Failure::Throttled(_) | Failure::Overloaded(_) => Outcome::Throttled,
            Failure::Denied(_) | Failure::Keys(_) | Failure::NoBucket => Outcome::Denied,
            _ => Outcome::Failed,
        }
    }
}

fn outcome<T, E: Answered>(answer: &Result<T, E>) -> Outcome {
    answer.as_ref().err().map_or(Outcome::Done, Answered::outcome)
}

/// A single request of a store: counted by whichever [`Counting`] the call came through, if it came through one.
pub(crate) async fn counted<T, E: Answered>(
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
    let cost = OpTotals { requests: 1, bytes_up, bytes_down, errors: u64::from(answer.is_err()) };
    call.meter.enter(op, began, cost, outcome(&answer));
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

    /// The same, and charges what it counts to an account.
    pub fn charged_to(self, account: Arc<dyn Spending>) -> Self {
        Self { meter: Arc::new(Meter { account: Some(account), ..Meter::default() }), ..self }
    }

    /// The same for a cold scan, which is told apart from what else is read, and goes first for nobody.
    pub fn of_cold_scan(self, account: Arc<dyn Spending>) -> Self {
        Self { meter: Arc::new(Meter { account: Some(account), is_cold: true, ..Meter::default() }), ..self }
    }

    /// Who pays.
    pub fn account(&self) -> Arc<dyn Spending> {
        self.meter.account.clone().unwrap_or_else(|| Arc::new(Uncounted))
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
            self.meter.enter(op, began, cost, outcome(&answer));
        }
        answer
    }

    /// What was read counts by how it was read.
    async fn read<T>(
        &self,
        reading: Reading,
        call: impl Future<Output = Result<T, RemoteError>>,
        bytes: impl Fn(&T) -> u64,
    ) -> Result<T, RemoteError> {
        let answer = self.call(Op::Get, 0, call, &bytes).await?;
        if let Some(account) = &self.meter.account {
            let reading = if self.meter.is_cold { Reading::Cold } else { reading };
            account.count(Counter::BytesRead(reading), bytes(&answer));
        }
        Ok(answer)
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
    passes_on!(inner: url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.read(Reading::Whole, self.inner.get(path), len).await
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        self.read(Reading::Part, self.inner.get_range(path, span), len).await
    }

    async fn get_suffix(&self, path: &ObjectPath, length: u64) -> Result<(Bytes, u64), RemoteError> {
        self.read(Reading::Part, self.inner.get_suffix(path, length), |(bytes, _)| len(bytes)).await
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

    #[derive(Debug, Default)]
    struct Account(Mutex<Spent>);

    impl Spending for Account {
        fn spend(&self, spent: Spent) {
            let mut all = self.0.lock().unwrap();
            all.writes += spent.writes;
            all.reads += spent.reads;
            all.bytes_up += spent.bytes_up;
            all.bytes_down += spent.bytes_down;
        }

        fn take(&self, _: littoral_ports::Paced, _: u64) -> u64 {
            unreachable!("who counts takes nothing")
        }

        fn this_month(&self) -> littoral_ports::Spendings {
            littoral_ports::Uncounted.this_month()
        }
    }

    #[tokio::test]
    async fn each_request_is_charged_once_by_what_it_costs() {
        let account = Arc::new(Account::default());
        let counting = Counting::new(Arc::new(MemoryRemote::new("charged"))).charged_to(account.clone());
        counting.put_new(&at("a"), Bytes::from_static(b"12345")).await.unwrap();
        counting.put_new(&at("a"), Bytes::from_static(b"123")).await.unwrap_err();
        counting.get(&at("a")).await.unwrap();
        counting.list("", None, usize::MAX).await.unwrap();
        counting.upload(&at("b"), &MemoryBody::new(vec![0; 250])).await.unwrap();
        counting.delete(&[at("b")]).await.unwrap();
        assert_eq!(*account.0.lock().unwrap(), Spent { writes: 4, reads: 1, bytes_up: 258, bytes_down: 5 });
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
