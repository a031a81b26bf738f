//! A remote as a cold scan reads it: no faster than the store's pace and its tenant's, behind whoever else reads.
//!
//! What this room promises:
//! 1. Each request waits for its turn before it is made, for the bytes that are known to come as well; what came beyond them is waited for
//!    before it is handed on. So what was handed on never exceeds the pace, as of when the scan began.
//! 2. Nothing is kept: what is asked for twice is fetched twice.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_ports::{BlobBody, Clock, Counter, ObjectMeta, Paced, Remote, RemoteError, Spending, passes_on};
use littoral_types::{ByteSpan, ObjectPath};
use std::sync::Arc;

/// A remote that a cold scan reads.
#[derive(Debug)]
pub struct Scanned {
    inner: Arc<dyn Remote>,
    account: Arc<dyn Spending>,
    clock: Arc<dyn Clock>,
}

impl Scanned {
    /// Begins a scan at the account's pace.
    pub fn new(inner: Arc<dyn Remote>, account: Arc<dyn Spending>, clock: Arc<dyn Clock>) -> Self {
        account.scan_begins();
        Self { inner, account, clock }
    }

    /// Waits for the turn of a request that brings so many bytes, as far as that is known.
    async fn turn(&self, bytes: u64) {
        let request = self.account.take(Paced::ScanRequests, 1);
        self.rest(request.max(self.account.take(Paced::ScanBytes, bytes))).await;
    }

    /// Waits for bytes that were not known to come.
    async fn came(&self, bytes: usize) {
        self.rest(self.account.take(Paced::ScanBytes, bytes as u64)).await;
    }

    async fn rest(&self, ms: u64) {
        if ms > 0 {
            self.account.count(Counter::ColdRestMs, ms);
            self.clock.sleep_ms(ms).await;
        }
    }
}

#[async_trait]
impl Remote for Scanned {
    passes_on!(inner: url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.turn(0).await;
        let bytes = self.inner.get(path).await?;
        self.came(bytes.len()).await;
        Ok(bytes)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        self.turn(span.len).await;
        self.inner.get_range(path, span).await
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.turn(0).await;
        let (bytes, whole) = self.inner.get_suffix(path, len).await?;
        self.came(bytes.len()).await;
        Ok((bytes, whole))
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        self.turn(0).await;
        self.inner.size(path).await
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.turn(0).await;
        self.inner.put(path, bytes).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.turn(0).await;
        self.inner.put_new(path, bytes).await
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.turn(0).await;
        self.inner.upload(path, body).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        self.turn(0).await;
        self.inner.list(folder, after, max).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        self.turn(0).await;
        self.inner.delete(paths).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_ports::{MemoryRemote, Spendings, Spent, Uncounted};
    use littoral_types::Pace;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that goes when somebody sleeps, or takes long.
    #[derive(Debug, Default)]
    struct Hands(AtomicU64);

    #[async_trait]
    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.boot_ms()
        }

        fn boot_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        async fn sleep_ms(&self, ms: u64) {
            self.0.fetch_add(ms, Ordering::SeqCst);
        }
    }

    const BYTES: u64 = 1_000_000;
    const REQUESTS: u64 = 50;

    #[derive(Debug)]
    struct Paces {
        clock: Arc<Hands>,
        bytes: Mutex<u64>,
        requests: Mutex<u64>,
        rested: AtomicU64,
    }

    impl Spending for Paces {
        fn spend(&self, _: Spent) {}

        fn take(&self, what: Paced, count: u64) -> u64 {
            let (word, pace) = match what {
                Paced::ScanBytes => (&self.bytes, Pace::per_second(BYTES)),
                Paced::ScanRequests => (&self.requests, Pace::per_second(REQUESTS)),
                other => unreachable!("{other:?} is no scan's"),
            };
            let (mut until, now) = (word.lock().unwrap(), self.clock.boot_ms() * 1_000);
            *until = pace.taken(*until, now, count);
            Pace::rest_ms(*until, now)
        }

        fn scan_begins(&self) {
            let now = self.clock.boot_ms() * 1_000;
            for word in [&self.bytes, &self.requests] {
                *word.lock().unwrap() = now;
            }
        }

        fn this_month(&self) -> Spendings {
            Uncounted.this_month()
        }

        fn count(&self, counter: Counter, more: u64) {
            assert_eq!(counter, Counter::ColdRestMs);
            self.rested.fetch_add(more, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_is_handed_on_never_exceeds_the_pace_and_hardly_falls_behind_it_however_it_is_asked_for() {
        for (least, most) in [(1, 2_000), (100_000, 900_000), (1, 200_000)] {
            let clock = Arc::new(Hands::default());
            clock.sleep_ms(100_000).await;
            let account = Arc::new(Paces {
                clock: clock.clone(),
                bytes: Mutex::default(),
                requests: Mutex::default(),
                rested: AtomicU64::default(),
            });
            let memory = Arc::new(MemoryRemote::new("scanned"));
            let path = ObjectPath::parse("a").unwrap();
            memory.put_new(&path, vec![7; 1_000_000].into()).await.unwrap();
            let scanned = Scanned::new(memory, account.clone(), clock.clone());
            let began = clock.boot_ms();
            let (mut bytes, mut chance) = (0, 0x5ca11_u64);
            for requests in 1..=2_000 {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let len = least + (chance >> 33) % (most - least);
                let came = match chance >> 20 & 7 {
                    0 => scanned.get_suffix(&path, len).await.unwrap().0.len(),
                    1 if least > 2_000 => scanned.get(&path).await.unwrap().len(),
                    _ => scanned.get_range(&path, ByteSpan { offset: 0, len }).await.unwrap().len(),
                };
                bytes += came as u64;
                let took = clock.boot_ms() - began;
                assert!(bytes <= BYTES * (took + 1) / 1_000, "{bytes} bytes in {took} ms");
                assert!(requests <= REQUESTS * (took + 1) / 1_000 + 1, "{requests} requests in {took} ms");
                // A store that is slow now and then.
                clock.sleep_ms(if chance >> 40 & 15 == 0 { 60 } else { 1 }).await;
            }
            let took = clock.boot_ms() - began;
            let part = (bytes * 1_000 / BYTES).max(2_000 * 1_000 / REQUESTS) as f64 / took as f64;
            assert!((0.95..1.005).contains(&part) && account.rested.load(Ordering::SeqCst) > took / 2, "{part}");
        }
    }
}
