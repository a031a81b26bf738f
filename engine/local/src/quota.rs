//! Counting local bytes against a bound, and against the bounds above it.

use littoral_ports::{Quota, QuotaExhausted, Reservation};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bound, perhaps within another: what a job takes is taken from its tenant and from the store too.
///
/// What is promised: the sum of what is taken never exceeds any bound above it, whatever others do meanwhile; what could
/// not be taken everywhere is taken nowhere; arithmetic never wraps.
#[derive(Clone)]
pub struct LocalQuota {
    level: Arc<Level>,
    give_back: Arc<dyn Fn(u64) + Send + Sync>,
}

struct Level {
    name: String,
    limit: u64,
    used: AtomicU64,
    above: Option<LocalQuota>,
}

impl LocalQuota {
    /// A bound of its own. `name` says whose it is, for those who are told that it is exhausted.
    pub fn new(name: &str, limit: u64) -> Self {
        Self::level(Level { name: name.to_owned(), limit, used: AtomicU64::new(0), above: None })
    }

    /// No bound: bytes are counted and never refused (short of `u64::MAX`).
    pub fn unlimited() -> Self {
        Self::new("unlimited", u64::MAX)
    }

    /// A bound within this one.
    pub fn within(&self, name: &str, limit: u64) -> Self {
        Self::level(Level { name: name.to_owned(), limit, used: AtomicU64::new(0), above: Some(self.clone()) })
    }

    fn level(level: Level) -> Self {
        let level = Arc::new(level);
        let mine = Arc::clone(&level);
        Self { level, give_back: Arc::new(move |bytes| mine.put_back(bytes)) }
    }
}

impl Level {
    fn take(&self, what: &str, bytes: u64) -> Result<(), QuotaExhausted> {
        if let Some(above) = &self.above {
            above.level.take(what, bytes)?;
        }
        // The bound is checked in the same step that takes: two takers cannot both see the last free byte.
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        taken.map(drop).map_err(|used| {
            if let Some(above) = &self.above {
                above.level.put_back(bytes);
            }
            let what = format!("{what} (quota of {})", self.name);
            QuotaExhausted { what, asked: bytes, used, limit: self.limit, holders: String::new() }
        })
    }

    fn put_back(&self, bytes: u64) {
        // Only what was taken comes back, so this cannot go below zero; were it to, the quota stays usable.
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(bytes)));
        if let Some(above) = &self.above {
            above.level.put_back(bytes);
        }
    }
}

impl Quota for LocalQuota {
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted> {
        self.level.take(what, bytes)?;
        Ok(Reservation::new(bytes, Arc::clone(&self.give_back)))
    }

    fn used(&self) -> u64 {
        self.level.used.load(Ordering::Acquire)
    }

    fn limit(&self) -> u64 {
        self.level.above.as_ref().map_or(self.level.limit, |above| above.limit().min(self.level.limit))
    }
}

impl fmt::Debug for LocalQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalQuota({}: {} of {})", self.level.name, self.used(), self.level.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_reservation_is_all_or_nothing_and_comes_back() {
        let quota = LocalQuota::new("store", 100);
        let first = quota.reserve("staging", 60).unwrap();
        let refused = quota.reserve("staging", 41).unwrap_err();
        assert_eq!((refused.asked, refused.used, refused.limit), (41, 60, 100));
        assert_eq!(refused.what, "staging (quota of store)");
        let second = quota.reserve("staging", 40).unwrap();
        assert_eq!(quota.used(), 100);
        drop((first, second));
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn numbers_at_the_edge_never_wrap() {
        let quota = LocalQuota::unlimited();
        let held = quota.reserve("x", u64::MAX - 1).unwrap();
        assert!(quota.reserve("x", 2).is_err());
        let last = quota.reserve("x", 1).unwrap();
        assert!(quota.reserve("x", u64::MAX).is_err());
        drop((held, last));
        assert_eq!(quota.used(), 0);
        assert!(LocalQuota::new("nothing", 0).reserve("x", 1).is_err());
        LocalQuota::new("nothing", 0).reserve("x", 0).unwrap();
    }

    #[test]
    fn what_one_bound_refuses_is_taken_from_none() {
        let store = LocalQuota::new("store", 100);
        let tenant = store.within("tenant", 50);
        let job = tenant.within("job", 80);
        assert!(job.reserve("staging", 60).unwrap_err().what.contains("tenant"));
        assert_eq!((store.used(), tenant.used(), job.used()), (0, 0, 0));
        let other = store.reserve("staging", 70).unwrap();
        assert!(job.reserve("staging", 40).unwrap_err().what.contains("store"));
        assert_eq!((store.used(), tenant.used(), job.used()), (70, 0, 0));
        drop(other);
        let held = job.reserve("staging", 50).unwrap();
        assert_eq!((store.used(), tenant.used(), job.used()), (50, 50, 50));
        drop(held);
        assert_eq!((store.used(), tenant.used(), job.used()), (0, 0, 0));
    }

    #[test]
    fn racing_threads_never_take_more_than_there_is() {
        let store = LocalQuota::new("store", 1000);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (store, over) = (&store, &over);
                let mine = store.within("job", 400);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..5000_u64 {
                        let bytes = (step * 31 + thread * 17) % 190 + 1;
                        match mine.reserve("race", bytes) {
                            Ok(reservation) => held.push(reservation),
                            Err(_) => held.clear(),
                        }
                        let sum: u64 = held.iter().map(Reservation::bytes).sum();
                        if sum > 400 || store.used() > 1000 {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(!over.load(Ordering::Relaxed), "overcommitted");
        assert_eq!(store.used(), 0);
    }
}
