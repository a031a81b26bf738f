//! What may befall a request on its way to the object store and back, by chance that a seed decides.

use crate::http::Head;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What befalls a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It takes as long as [`Weather::late`] says, at most.
    Late,
    /// The connection is reset before the server has the request.
    Reset,
    /// Nothing is done, and the answer is 503 `SlowDown`.
    SlowDown,
    /// Nothing is done, and the answer is 429 `TooManyRequests`.
    TooMany,
    /// Nothing is done, and the answer is 500 `InternalError`.
    Failed,
    /// A write is done, and the connection is reset before its answer.
    DoneAndReset,
    /// A write is done, and the answer is 500.
    DoneAndFailed,
    /// A write is done, and the answer is 503.
    DoneAndSlowDown,
    /// The answer to a read breaks off in the middle of its body.
    Truncated,
    /// The store has no room for a write, and says so as one of several stores do.
    Full,
    /// The store does not know the access key (any more).
    Denied,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 11] = [
        Fault::Late,
        Fault::Reset,
        Fault::SlowDown,
        Fault::TooMany,
        Fault::Failed,
        Fault::DoneAndReset,
        Fault::DoneAndFailed,
        Fault::DoneAndSlowDown,
        Fault::Truncated,
        Fault::Full,
        Fault::Denied,
    ];

    /// Whether it can befall a request of this method.
    fn fits(self, method: &str) -> bool {
        match self {
            Fault::DoneAndReset | Fault::DoneAndFailed | Fault::DoneAndSlowDown | Fault::Full => {
                matches!(method, "PUT" | "POST")
            }
            Fault::Truncated => method == "GET",
            Fault::Late | Fault::Reset | Fault::SlowDown | Fault::TooMany | Fault::Failed | Fault::Denied => true,
        }
    }

    /// Status, code and message of the answer that the proxy gives, where it does; `nth` chooses among stores.
    pub(crate) fn answer(self, nth: u64) -> Option<(u16, &'static str, &'static str)> {
        // MinIO's disks, a bucket's quota of Ceph's, MinIO's, and a proxy that knows HTTP alone.
        const FULL: [(u16, &str, &str); 4] = [
            (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
            (403, "QuotaExceeded", "The quota of the bucket is exceeded."),
            (400, "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded"),
            (507, "", ""),
        ];
        match self {
            Fault::SlowDown | Fault::DoneAndSlowDown => Some((503, "SlowDown", "Please reduce your request rate.")),
            Fault::TooMany => Some((429, "TooManyRequests", "Too many requests.")),
            Fault::Failed | Fault::DoneAndFailed => {
                Some((500, "InternalError", "We encountered an internal error. Please try again."))
            }
            Fault::Full => Some(FULL[nth as usize % FULL.len()]),
            Fault::Denied => {
                Some((403, "InvalidAccessKeyId", "The access key ID you provided does not exist in our records."))
            }
            Fault::Late | Fault::Reset | Fault::DoneAndReset | Fault::Truncated => None,
        }
    }

    /// Whether the server is asked all the same.
    pub(crate) fn is_done(self) -> bool {
        matches!(
            self,
            Fault::Late | Fault::DoneAndReset | Fault::DoneAndFailed | Fault::DoneAndSlowDown | Fault::Truncated
        )
    }
}

/// How likely what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    per_mille: BTreeMap<Fault, u64>,
    late: Duration,
    retry_after: Option<u32>,
    only_key: Option<String>,
}

impl Weather {
    /// Nothing befalls anybody.
    pub fn calm() -> Self {
        Self::default()
    }

    /// So many of a thousand requests that it can befall. Together they are a thousand at most.
    pub fn with(mut self, fault: Fault, per_mille: u64) -> Self {
        self.per_mille.insert(fault, per_mille);
        assert!(self.per_mille.values().sum::<u64>() <= 1000, "{:?}", self.per_mille);
        self
    }

    /// How late an answer comes at most.
    pub fn late(mut self, at_most: Duration) -> Self {
        self.late = at_most;
        self
    }

    /// After how many seconds whoever was told 503 or 429 is asked to come again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Whoever comes with another access key than this is denied.
    pub fn only_key(mut self, key: &str) -> Self {
        self.only_key = Some(key.to_owned());
        self
    }
}

/// The weather of a network, and what has come of it.
#[derive(Debug)]
pub(crate) struct Sky(Mutex<State>);

#[derive(Debug)]
struct State {
    chance: u64,
    weather: Weather,
    befell: BTreeMap<Fault, u64>,
}

/// What is to become of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) fault: Option<Fault>,
    /// How long everything of it takes more.
    pub(crate) late: Duration,
    /// Which answer of those that a fault has.
    pub(crate) nth: u64,
    pub(crate) retry_after: Option<u32>,
}

impl Sky {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(State { chance: scattered(seed), weather: Weather::calm(), befell: BTreeMap::new() }))
    }

    pub(crate) fn seed(&self, seed: u64) {
        self.lock().chance = scattered(seed);
    }

    pub(crate) fn becomes(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub(crate) fn befell(&self) -> BTreeMap<Fault, u64> {
        self.lock().befell.clone()
    }

    /// What becomes of this request.
    pub(crate) fn fate(&self, request: &Head) -> Fate {
        let mut state = self.lock();
        let state = &mut *state;
        let weather = &state.weather;
        if let Some(only) = &weather.only_key {
            let signed = request.header("authorization").and_then(|sign| sign.split_once("Credential="));
            if signed.is_some_and(|(_, rest)| !rest.starts_with(&format!("{only}/"))) {
                return Fate { fault: Some(Fault::Denied), ..Fate::default() };
            }
        }
        if weather.per_mille.is_empty() {
            return Fate::default();
        }
        let mut draw = below(&mut state.chance, 1000);
        let method = request.method();
        let mut fault = None;
        for (one, per_mille) in weather.per_mille.iter().filter(|(one, _)| one.fits(method)) {
            if draw < *per_mille {
                fault = Some(*one);
                break;
            }
            draw -= per_mille;
        }
        let late = match fault {
            Some(Fault::Late) => {
                let most = u64::try_from(weather.late.as_millis()).unwrap_or(u64::MAX);
                Duration::from_millis(most / 2 + below(&mut state.chance, most / 2 + 1))
            }
            _ => Duration::ZERO,
        };
        let nth = fault.map_or(0, |fault| state.befell.get(&fault).copied().unwrap_or_default());
        Fate { fault, late, nth, retry_after: weather.retry_after }
    }

    /// It has become of it.
    pub(crate) fn count(&self, fault: Fault) {
        *self.lock().befell.entry(fault).or_default() += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scattered(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn below(chance: &mut u64, bound: u64) -> u64 {
    *chance ^= *chance << 13;
    *chance ^= *chance >> 7;
    *chance ^= *chance << 17;
    (*chance >> 16) % bound.max(1)
}
