//! The account of a store: what its processes asked the object store for this month, how far ahead of their pace they are, and what is
//! counted of their work.
//!
//! What this room promises:
//! 1. All processes of a store share it, without a lock: what one adds the others see, and none waits for another.
//! 2. It is a hint that nothing depends on but a price and a pace: lost, it begins anew; whatever it says, nobody rests for longer than a
//!    bound. What is counted in the moment in which a month begins may be counted in either.
//! 3. What is counted of work only ever grows, and outlives whoever counted it: to count is to add to a word that is mapped, and asks nothing
//!    of the kernel.
//! 4. A cold scan takes of the store's pace and of its tenant's, and gives way to whatever else is read, in whichever process: at which
//!    pace the newest scan goes is a word, too.

use crate::durable::{create_dirs, parent};
use crate::error::{LocalError, on};
use crate::tracker::map::Map;
use crate::tracker::{allocate, boot};
use littoral_ports::meters::WORDS;
use littoral_ports::{Clock, Counter, Meters, Paced, Spending, Spendings, Spent, Timed};
use littoral_types::Pace;
use littoral_types::moment::Month;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Its name in the store, with its version.
const NAME: &str = "account1";
const BYTES: u64 = 4096;

mod at {
    pub(super) const MONTH: usize = 0;
    pub(super) const SINCE: usize = 1;
    pub(super) const SPENT: usize = 2;
    pub(super) const BOOT: usize = 8;
    pub(super) const UPLOAD: usize = 10;
    pub(super) const IO: usize = 11;
    pub(super) const SCAN_BYTES: usize = 12;
    pub(super) const SCAN_REQUESTS: usize = 13;
    pub(super) const SCAN_BYTES_PACE: usize = 14;
    pub(super) const SCAN_REQUESTS_PACE: usize = 15;
    pub(super) const METERS: usize = 32;
}

const _: () =
    assert!((at::METERS + WORDS) * size_of::<u64>() <= BYTES as usize, "what is counted does not fit into the account");

/// How fast a store's work may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paces {
    /// Bytes a second that blobs are sent with; zero for no bound.
    pub upload: u64,
    /// Bytes a second that are read and written here; zero for no bound.
    pub io: u64,
    /// Bytes a second that cold scans read; zero for no bound.
    pub scan_bytes: u64,
    /// Requests a second that they make; zero for no bound.
    pub scan_requests: u64,
}

/// Accounts of this process alone, by whose they are.
static OF_THIS_PROCESS: Mutex<BTreeMap<String, Arc<Map>>> = Mutex::new(BTreeMap::new());

/// The account, open.
#[derive(Debug)]
pub struct Account {
    map: Arc<Map>,
    paces: Paces,
    clock: Arc<dyn Clock>,
    /// What the tenant's scans take of, beside the store's.
    tenant: Option<Box<Account>>,
}

impl Account {
    /// Where a store has it.
    pub fn path_of(root: &Path) -> PathBuf {
        root.join(NAME)
    }

    /// Opens it, or begins it.
    pub fn open(root: &Path, paces: Paces, clock: Arc<dyn Clock>) -> Result<Self, LocalError> {
        let path = Self::path_of(root);
        create_dirs(parent(&path))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(on("open", &path))?;
        allocate(&file, BYTES).map_err(on("allocate", &path))?;
        let map = Arc::new(Map::new(&file, 0, BYTES as usize).map_err(on("map", &path))?);
        let account = Self { map, paces, clock, tenant: None };
        account.begins_with_this_boot();
        Ok(account)
    }

    /// Where a store keeps the pace of a tenant's scans.
    pub fn of_tenant(root: &Path, tenant: &str) -> PathBuf {
        root.join("tenants").join(format!("tenant-{tenant}"))
    }

    /// One that this process shares with nobody, where there is no store: `whose` tells it apart from others.
    pub fn of_this_process(whose: &str, paces: Paces, clock: Arc<dyn Clock>) -> Result<Self, LocalError> {
        let mut all = OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        let map = match all.get(whose) {
            Some(map) => map.clone(),
            None => {
                let map = Map::of_memory(BYTES as usize).map_err(on("map", Path::new(NAME)))?;
                all.entry(whose.to_owned()).or_insert(Arc::new(map)).clone()
            }
        };
        Ok(Self { map, paces, clock, tenant: None })
    }

    /// The same, of which a tenant's scans take no more than the tenant's own pace allows either.
    pub fn with_tenant(self, tenant: Account) -> Self {
        Self { tenant: Some(Box::new(tenant)), ..self }
    }

    /// What is counted in time since the machine began means nothing after it began anew.
    fn begins_with_this_boot(&self) {
        let now = boot().unwrap_or_default();
        let [one, two] = [self.word(at::BOOT), self.word(at::BOOT + 1)];
        if [one, two].map(|word| word.load(Ordering::SeqCst)) != now {
            for nth in [at::UPLOAD, at::IO, at::SCAN_BYTES, at::SCAN_REQUESTS] {
                self.word(nth).store(0, Ordering::SeqCst);
            }
            one.store(now[0], Ordering::SeqCst);
            two.store(now[1], Ordering::SeqCst);
        }
    }

    fn word(&self, nth: usize) -> &AtomicU64 {
        self.map.word(nth)
    }

    fn now_us(&self) -> u64 {
        self.clock.boot_ms().saturating_mul(1_000)
    }

    /// Changes until when what has a pace is paid for. What it was changed to.
    fn pay(&self, nth: usize, paid: impl Fn(u64) -> u64) -> u64 {
        let mut until = self.word(nth).load(Ordering::SeqCst);
        loop {
            let now = paid(until);
            match self.word(nth).compare_exchange_weak(until, now, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return now,
                Err(other) => until = other,
            }
        }
    }

    /// The month that it is now. Who finds another one there begins it.
    fn month(&self) -> Month {
        let now_ms = self.clock.wall_ms();
        let month = Month::of(now_ms);
        let counted = self.word(at::MONTH).load(Ordering::SeqCst);
        let begins = self.word(at::MONTH).compare_exchange(counted, month.number, Ordering::SeqCst, Ordering::SeqCst);
        if counted != month.number && begins.is_ok() {
            // Nobody counted before, or all of the month is counted.
            let since = if counted + 1 == month.number { month.from_ms } else { now_ms };
            self.word(at::SINCE).store(since, Ordering::SeqCst);
            (0..4).for_each(|nth| self.word(at::SPENT + nth).store(0, Ordering::SeqCst));
        }
        month
    }
}

impl Spending for Account {
    fn spend(&self, spent: Spent) {
        self.month();
        for (nth, more) in [spent.writes, spent.reads, spent.bytes_up, spent.bytes_down].into_iter().enumerate() {
            self.word(at::SPENT + nth).fetch_add(more, Ordering::SeqCst);
        }
    }

    fn take(&self, what: Paced, count: u64) -> u64 {
        let (nth, per_second) = match what {
            Paced::Upload => (at::UPLOAD, self.paces.upload),
            Paced::Io => (at::IO, self.paces.io),
            Paced::ScanBytes => (at::SCAN_BYTES, self.paces.scan_bytes),
            Paced::ScanRequests => (at::SCAN_REQUESTS, self.paces.scan_requests),
        };
        let of_tenant = self.tenant.as_ref().map_or(0, |tenant| tenant.take(what, count));
        if per_second == 0 {
            return of_tenant;
        }
        let now_us = self.now_us();
        let taken = self.pay(nth, |until| Pace::per_second(per_second).taken(until, now_us, count));
        Pace::rest_ms(taken, now_us).max(of_tenant)
    }

    fn scan_begins(&self) {
        let now_us = self.now_us();
        let paces = [
            (at::SCAN_BYTES, at::SCAN_BYTES_PACE, self.paces.scan_bytes),
            (at::SCAN_REQUESTS, at::SCAN_REQUESTS_PACE, self.paces.scan_requests),
        ];
        for (nth, pace, per_second) in paces {
            self.word(pace).store(per_second, Ordering::SeqCst);
            self.pay(nth, |until| until.max(now_us));
        }
        if let Some(tenant) = &self.tenant {
            tenant.scan_begins();
        }
    }

    fn read_first(&self, requests: u64, bytes: u64) {
        let taken =
            [(at::SCAN_BYTES, at::SCAN_BYTES_PACE, bytes), (at::SCAN_REQUESTS, at::SCAN_REQUESTS_PACE, requests)];
        for (nth, pace, count) in taken {
            let pace = Pace::per_second(self.word(pace).load(Ordering::SeqCst));
            if pace.per_second > 0 && count > 0 {
                let now_us = self.now_us();
                self.pay(nth, |until| pace.taken_first(until, now_us, count));
            }
        }
        if let Some(tenant) = &self.tenant {
            tenant.read_first(requests, bytes);
        }
    }

    fn this_month(&self) -> Spendings {
        let month = self.month();
        let spent = |nth: usize| self.word(at::SPENT + nth).load(Ordering::SeqCst);
        let since_ms = self.word(at::SINCE).load(Ordering::SeqCst).max(month.from_ms);
        Spendings {
            month,
            since_ms,
            spent: Spent { writes: spent(0), reads: spent(1), bytes_up: spent(2), bytes_down: spent(3) },
        }
    }

    fn count(&self, counter: Counter, more: u64) {
        self.word(at::METERS + counter.place()).fetch_add(more, Ordering::Relaxed);
    }

    fn took(&self, timed: Timed, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (bucket, sum) = timed.places(us);
        self.word(at::METERS + sum).fetch_add(us, Ordering::Relaxed);
        self.word(at::METERS + bucket).fetch_add(1, Ordering::Relaxed);
    }

    fn meters(&self) -> Meters {
        Meters::of(|at| self.word(at::METERS + at).load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::Pin;

    #[derive(Debug, Default)]
    struct Hands {
        wall_ms: AtomicU64,
        boot_ms: AtomicU64,
    }

    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.wall_ms.load(Ordering::SeqCst)
        }

        fn boot_ms(&self) -> u64 {
            self.boot_ms.load(Ordering::SeqCst)
        }

        fn sleep_ms<'a, 'b>(&'a self, ms: u64) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
        where
            'a: 'b,
        {
            self.boot_ms.fetch_add(ms, Ordering::SeqCst);
            Box::pin(std::future::ready(()))
        }
    }

    const MONTH_MS: u64 = 31 * 86_400_000;

    #[test]
    fn what_all_processes_spend_is_one_sum_and_each_month_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands::default());
        clock.wall_ms.store(5_000, Ordering::SeqCst);
        let open = || Account::open(dir.path(), Paces::default(), clock.clone()).unwrap();
        let (one, two) = (open(), open());
        std::thread::scope(|scope| {
            for account in [&one, &two] {
                scope.spawn(|| {
                    (0..1_000).for_each(|_| account.spend(Spent { writes: 1, bytes_up: 3, ..Spent::default() }))
                });
            }
        });
        let told = one.this_month();
        assert_eq!((told.month.to_string().as_str(), told.since_ms), ("1970-01", 5_000));
        assert_eq!(told.spent, Spent { writes: 2_000, reads: 0, bytes_up: 6_000, bytes_down: 0 });
        assert_eq!(open().this_month(), told, "it outlives who counted");
        clock.wall_ms.store(MONTH_MS + 7, Ordering::SeqCst);
        assert_eq!(two.this_month().spent, Spent::default());
        assert_eq!(two.this_month().since_ms, MONTH_MS, "all of it is counted");
        clock.wall_ms.store(MONTH_MS * 5, Ordering::SeqCst);
        one.spend(Spent { reads: 1, ..Spent::default() });
        assert_eq!(two.this_month().since_ms, MONTH_MS * 5, "nobody counted what came before");
        assert_eq!(two.this_month().spent.reads, 1);
    }

    #[test]
    fn what_is_counted_is_one_sum_of_all_processes_and_outlives_them() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands::default());
        let open = || Account::open(dir.path(), Paces::default(), clock.clone()).unwrap();
        let (one, two) = (open(), open());
        std::thread::scope(|scope| {
            for account in [&one, &two] {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        account.count(Counter::CheckpointsFailed, 2);
                        account.took(Timed::Checkpoint, Duration::from_millis(3));
                    }
                });
            }
        });
        // A month that begins takes nothing away.
        clock.wall_ms.store(MONTH_MS * 3, Ordering::SeqCst);
        one.spend(Spent { writes: 1, ..Spent::default() });
        drop((one, two));
        let meters = open().meters();
        assert_eq!(meters.counted(Counter::CheckpointsFailed), 4_000);
        assert_eq!(meters.counted(Counter::CheckpointsSucceeded), 0);
        let timed = meters.timed(Timed::Checkpoint);
        assert_eq!((timed.count(), timed.sum_us), (2_000, 6_000_000));
        assert_eq!(open().this_month().spent.writes, 1);
    }

    #[test]
    fn one_pace_is_shared_by_all_who_take_and_nobody_rests_who_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands::default());
        clock.boot_ms.store(100_000, Ordering::SeqCst);
        let open = |upload| Account::open(dir.path(), Paces { upload, ..Paces::default() }, clock.clone()).unwrap();
        let (one, two) = (open(1_000), open(1_000));
        assert_eq!(one.take(Paced::Io, u64::MAX), 0);
        assert_eq!(one.take(Paced::Upload, 600), 0, "a second was saved");
        assert_eq!(two.take(Paced::Upload, 600), 200);
        assert_eq!(one.take(Paced::Upload, 1_000), 1_200);
        assert_eq!(open(0).take(Paced::Upload, 5_000), 0);
        clock.boot_ms.store(200_000, Ordering::SeqCst);
        assert_eq!(two.take(Paced::Upload, 1_000), 0);
        // A word that says nothing true.
        one.word(at::UPLOAD).store(u64::MAX, Ordering::SeqCst);
        assert!(one.take(Paced::Upload, 1) <= 1);
        // Another boot: its clock began anew.
        two.take(Paced::Upload, 1_000_000);
        two.word(at::BOOT).store(7, Ordering::SeqCst);
        clock.boot_ms.store(10, Ordering::SeqCst);
        assert_eq!(open(1_000).take(Paced::Upload, 1), 0);
    }

    #[test]
    fn a_scan_takes_of_its_tenants_pace_and_of_the_stores_and_gives_way_to_other_processes() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands::default());
        clock.boot_ms.store(100_000, Ordering::SeqCst);
        let paces = |scan_bytes, scan_requests| Paces { scan_bytes, scan_requests, ..Paces::default() };
        let open = |tenant: &str, (store, own)| {
            let folder = Account::of_tenant(dir.path(), tenant);
            let tenant = Account::open(&folder, paces(own, 10), clock.clone()).unwrap();
            Account::open(dir.path(), paces(store, 0), clock.clone()).unwrap().with_tenant(tenant)
        };
        let (acme, blue) = (open("acme", (1_000, 500)), open("..", (1_000, 500)));
        let other = Account::open(dir.path(), Paces::default(), clock.clone()).unwrap();
        other.read_first(5, 50_000);
        acme.scan_begins();
        blue.scan_begins();
        assert_eq!(
            acme.take(Paced::ScanBytes, 100),
            200,
            "its tenant's pace is the narrower one, and nothing was saved"
        );
        assert_eq!(blue.take(Paced::ScanBytes, 100), 200, "each tenant has its own, and the store's is for both");
        assert_eq!(acme.take(Paced::ScanBytes, 300), 800);
        assert_eq!(blue.take(Paced::ScanBytes, 300), 800);
        assert_eq!(acme.take(Paced::ScanRequests, 1), 100);
        // When all that is paid for, one that knows of no pace reads: 200 of the store's 1,000 a second.
        clock.boot_ms.store(100_800, Ordering::SeqCst);
        other.read_first(1, 200);
        assert_eq!(acme.take(Paced::ScanBytes, 100), 200 + 100);
        other.read_first(1, 1_000_000);
        assert_eq!(blue.take(Paced::ScanBytes, 100), 1_000 + 100, "much that is read before keeps nobody for long");
        // Those of one process share what they take, of whichever store.
        let here = |whose: &str| Account::of_this_process(whose, paces(100, 0), clock.clone()).unwrap();
        here("test").scan_begins();
        assert_eq!(here("test").take(Paced::ScanBytes, 100), 1_000);
        assert_eq!(here("test").take(Paced::ScanBytes, 100), 2_000);
        here("others").scan_begins();
        assert_eq!(here("others").take(Paced::ScanBytes, 100), 1_000);
    }
}
