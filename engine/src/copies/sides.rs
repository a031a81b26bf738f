//! A volume read from its primary, and from a copy where that cannot answer.
//!
//! What this room promises:
//! 1. While the primary answers, it alone says where the log ends. An object that it has lost, or whose bytes were found wrong, is taken from
//!    a copy, one by one.
//! 2. When the primary cannot be reached, or has nothing of the volume any more, everything is taken from the first copy that is one:
//!    what is read is the copy's prefix, and it is told so. After half a minute the primary is asked again, and sooner for what the copy
//!    has not got: a failure that passes ties nobody to a copy.
//! 3. A copy that is being filled is not read. Nothing is written to a copy but pins, which keep its prunes away.

use crate::error::EngineError;
use crate::exec::replicate::mark_of;
use crate::log::Log;
use async_trait::async_trait;
use bytes::Bytes;
use littoral_format::keys::ObjectKey;
use littoral_ports::{Clock, ObjectMeta, Remote, RemoteError, passes_on};
use littoral_types::limits::SIDES_MS_MAX;
use littoral_types::{ByteSpan, CopyState, ObjectPath, VolumeName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was taken from copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Objects that the primary had lost, or had wrong bytes of, with the copy that had them.
    pub objects: BTreeMap<String, String>,
    /// Why the primary was not asked at some time, and the copy that was asked instead.
    pub instead: Option<(String, String)>,
}

/// The primary and its copies.
pub struct Sides {
    primary: Arc<dyn Remote>,
    copies: Vec<Arc<dyn Remote>>,
    volume: VolumeName,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The copy that is read instead of the primary, and since when.
    instead: Option<(usize, u64)>,
    /// The last one that was, and why.
    told: Option<(usize, String)>,
    /// Of each object how many sides had it wrong: those are not asked for it again.
    wrong: BTreeMap<ObjectPath, usize>,
    /// Copies that were found to be ones, or not, and when.
    usable: BTreeMap<usize, (bool, u64)>,
    /// Pins that were put at a copy.
    pins: BTreeMap<ObjectPath, usize>,
    objects: BTreeMap<String, String>,
}

impl Sides {
    /// Reads `volume` at `primary`, and at `copies` in their order.
    pub fn new(
        primary: Arc<dyn Remote>,
        copies: Vec<Arc<dyn Remote>>,
        volume: VolumeName,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { primary, copies, volume, clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was taken from copies so far.
    pub fn taken(&self) -> Taken {
        let state = self.state();
        let url = |nth: usize| self.copies.get(nth).map(|copy| copy.url()).unwrap_or_default();
        Taken {
            objects: state.objects.clone(),
            instead: state.told.as_ref().map(|(nth, why)| (why.clone(), url(*nth))),
        }
    }

    /// Whether a copy can be read: it is one, it is whole, and it answers.
    async fn is_usable(&self, nth: usize) -> bool {
        if let Some((known, since)) = self.state().usable.get(&nth)
            && !self.is_over(*since)
        {
            return *known;
        }
        let Some(copy) = self.copies.get(nth) else { return false };
        let is_usable = match mark_of(&Log::new(copy.clone(), self.volume.clone())).await {
            Ok(Some(mark)) if matches!(mark.state, CopyState::Follows) => true,
            Ok(Some(mark)) if matches!(mark.state, CopyState::Promoted { .. }) => {
                tracing::warn!(copy = copy.url(), "was promoted, and is a volume of its own: nothing is taken from it");
                false
            }
            Ok(Some(_)) => {
                tracing::warn!(copy = copy.url(), "is being filled: nothing is taken from it before that is done");
                false
            }
            Ok(None) => {
                tracing::warn!(copy = copy.url(), "holds no copy of {}", self.volume);
                false
            }
            Err(error) => {
                tracing::warn!(copy = copy.url(), %error, "cannot be read either");
                false
            }
        };
        self.found(nth, is_usable);
        is_usable
    }

    fn found(&self, nth: usize, is_usable: bool) {
        let now = self.clock.boot_ms();
        self.state().usable.insert(nth, (is_usable, now));
    }

    /// Whether what was found then is to be found out anew.
    fn is_over(&self, since: u64) -> bool {
        self.clock.boot_ms().saturating_sub(since) >= SIDES_MS_MAX
    }

    /// The side that is asked first: none for the primary.
    fn active(&self) -> Option<usize> {
        let instead = self.state().instead;
        instead.filter(|(_, since)| !self.is_over(*since)).map(|(nth, _)| nth)
    }

    /// For a while a copy is read instead of the primary: which. `None` where none can be.
    async fn turn_away(&self, why: &str) -> Option<(usize, &Arc<dyn Remote>)> {
        for (nth, copy) in self.copies.iter().enumerate() {
            if self.is_usable(nth).await {
                let now = self.clock.boot_ms();
                self.state().told = Some((nth, why.to_owned()));
                if self.state().instead.replace((nth, now)).is_none() {
                    tracing::warn!(primary = self.primary.url(), copy = copy.url(), "the copy is read instead: {why}");
                }
                return Some((nth, copy));
            }
        }
        None
    }

    /// The primary answers.
    fn turn_back(&self) {
        if self.state().instead.take().is_some() {
            tracing::info!(primary = self.primary.url(), "the primary is read again");
        }
    }

    async fn read<T, F>(&self, path: &ObjectPath, ask: impl Fn(Arc<dyn Remote>) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let wrong = self.state().wrong.get(path).copied().unwrap_or(0);
        let lacks = |error: &RemoteError| is_lost(error) && keeps_its_bytes(path);
        let (mut first, active) = (None, self.active().filter(|_| wrong == 0));
        if wrong == 0 {
            if let Some((nth, copy)) = active.and_then(|nth| Some((nth, self.copies.get(nth)?))) {
                match ask(copy.clone()).await {
                    Err(error) if is_away(&error) => {
                        self.found(nth, false);
                        first = Some(error);
                    }
                    // It may be newer than the copy is, of a time when the primary was read.
                    Err(error) if lacks(&error) => first = Some(error),
                    answer => return answer,
                }
            }
            match ask(self.primary.clone()).await {
                Err(error) if is_away(&error) => {
                    let turned = self.turn_away(&error.to_string()).await;
                    let Some((nth, copy)) = turned else { return Err(first.unwrap_or(error)) };
                    // A blob that nobody has who answers may be where nobody answers: whether it is lost is not known.
                    let is_blob = matches!(ObjectKey::parse(path), Some((_, ObjectKey::Blob(_))));
                    if active != Some(nth) {
                        match ask(copy.clone()).await {
                            Err(missing) if lacks(&missing) => first = Some(if is_blob { error } else { missing }),
                            answer => return answer,
                        }
                    } else if is_blob {
                        first = Some(error);
                    }
                }
                Err(error) if lacks(&error) => first = Some(error),
                Ok(answer) => {
                    self.turn_back();
                    return Ok(answer);
                }
                Err(error) => return Err(error),
            }
        }
        for nth in wrong.saturating_sub(1)..self.copies.len() {
            let Some(copy) = self.copies.get(nth).filter(|_| active != Some(nth)) else { continue };
            if self.is_usable(nth).await
                && let Ok(answer) = ask(copy.clone()).await
            {
                if self.state().objects.insert(path.to_string(), copy.url()).is_none() {
                    let why = first.as_ref().map_or_else(|| "its bytes are wrong".to_owned(), ToString::to_string);
                    tracing::warn!(%path, copy = copy.url(), "is taken from the copy: {why}");
                }
                return Ok(answer);
            }
        }
        match first {
            Some(error) => Err(error),
            // Nobody has it right: the primary's own answer is what is told.
            None => ask(self.primary.clone()).await,
        }
    }

    /// An error of whoever found no state to read, where a copy was asked instead of the primary: the primary may hold one.
    pub fn explained(&self, error: EngineError) -> EngineError {
        match (self.taken().instead, error) {
            (Some((why, url)), error @ (EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. })) => {
                EngineError::Refused(format!(
                    "{error}. That is what the copy at {url} says, which has not come that far; the primary was not asked: {why}. Try again when \
                     it answers, or ask it alone (copy=none)"
                ))
            }
            (_, error) => error,
        }
    }

    /// Where a pin goes: to whichever side is read.
    fn pins_at(&self, path: &ObjectPath) -> Arc<dyn Remote> {
        let is_pin = matches!(ObjectKey::parse(path), Some((_, ObjectKey::Pin(_))));
        let active = self.active().filter(|_| is_pin);
        if let Some(nth) = active {
            self.state().pins.insert(path.clone(), nth);
        }
        active.and_then(|nth| self.copies.get(nth)).unwrap_or(&self.primary).clone()
    }

    /// Where what is deleted lies: a pin goes from where it was put.
    fn lies_at(&self, path: &ObjectPath) -> Arc<dyn Remote> {
        let nth = self.state().pins.remove(path);
        nth.and_then(|nth| self.copies.get(nth)).unwrap_or(&self.primary).clone()
    }
}

/// Nobody is there, or nobody who lets us in: nothing is known of what he has.
fn is_away(error: &RemoteError) -> bool {
    matches!(
        error,
        RemoteError::Unavailable { .. }
            | RemoteError::Throttled { .. }
            | RemoteError::NoBucket { .. }
            | RemoteError::Denied { .. }
    )
}

/// He is there, and has not got it, or not whole.
fn is_lost(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Missing { .. } | RemoteError::Corrupt { .. })
}

/// Whether whatever has this name anywhere is the same: a hint is not.
fn keeps_its_bytes(path: &ObjectPath) -> bool {
    matches!(ObjectKey::parse(path), Some((_, ObjectKey::Record(_) | ObjectKey::Snapshot(_) | ObjectKey::Blob(_))))
}

impl fmt::Debug for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sides({:?}, {:?})", self.primary, self.copies)
    }
}

#[async_trait]
impl Remote for Sides {
    passes_on!(primary: put, upload, url);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        self.read(path, |remote| async move { remote.get(path).await }).await
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        self.read(path, |remote| async move { remote.get_range(path, span).await }).await
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.read(path, |remote| async move { remote.get_suffix(path, len).await }).await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        self.read(path, |remote| async move { remote.size(path).await }).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.pins_at(path).put_new(path, bytes).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        if let Some((nth, copy)) = self.active().and_then(|nth| Some((nth, self.copies.get(nth)?))) {
            match copy.list(folder, after, max).await {
                Err(error) if is_away(&error) => self.found(nth, false),
                answer => return answer,
            }
        }
        let why = match self.primary.list(folder, after, max).await {
            Err(error) if is_away(&error) => Err(error),
            // A log that is empty is no log: the primary has lost it, if a copy has one.
            Ok(listed) if listed.is_empty() && after.is_none() && folder == format!("{}/log", self.volume) => {
                Ok(listed)
            }
            Ok(listed) => {
                if !listed.is_empty() {
                    self.turn_back();
                }
                return Ok(listed);
            }
            Err(error) => return Err(error),
        };
        let told = match &why {
            Err(error) => error.to_string(),
            Ok(_) => format!("{} holds nothing of {} any more", self.primary.url(), self.volume),
        };
        match self.turn_away(&told).await {
            Some((_, copy)) => copy.list(folder, after, max).await,
            None => why,
        }
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let by_side: BTreeSet<&ObjectPath> = paths.iter().collect();
        for path in by_side {
            self.lies_at(path).delete(std::slice::from_ref(path)).await?;
        }
        Ok(())
    }

    fn distrust(&self, path: &ObjectPath, wrong_before: usize) -> bool {
        if !keeps_its_bytes(path) {
            return false;
        }
        let active = self.active();
        let mut state = self.state();
        // Others who read the same at the same time may have found out already: whoever asks counts by himself.
        let first = active.map_or(1, |nth| nth + 2);
        let sides = first + wrong_before;
        let wrong = state.wrong.entry(path.clone()).or_insert(0);
        *wrong = (*wrong).max(sides.min(self.copies.len() + 1));
        sides <= self.copies.len()
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        self.copies.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_format as format;
    use littoral_format::keys;
    use littoral_ports::{BlobBody, MemoryRemote};
    use littoral_types::{BlobKind, BlobName, CopyMark, Seq, VolumeId};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn volume() -> VolumeName {
        "app.db".parse().unwrap()
    }

    /// A clock that stands until somebody moves it.
    #[derive(Debug, Default)]
    struct Hand(AtomicU64);

    #[async_trait]
    impl Clock for Hand {
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

    fn clock() -> Arc<dyn Clock> {
        Arc::new(Hand::default())
    }

    /// Answers, or not.
    #[derive(Debug)]
    struct Comes(Arc<dyn Remote>, AtomicBool);

    impl Comes {
        fn goes(&self, is_away: bool) {
            self.1.store(is_away, Ordering::SeqCst);
        }
        fn there(&self) -> Result<&dyn Remote, RemoteError> {
            match self.1.load(Ordering::SeqCst) {
                true => Err(RemoteError::Unavailable { what: self.url(), tries: 1, detail: "away".to_owned() }),
                false => Ok(&*self.0),
            }
        }
    }

    #[async_trait]
    impl Remote for Comes {
        passes_on!(0: url, distrust, copies);

        async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
            self.there()?.get(path).await
        }
        async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
            self.there()?.get_range(path, span).await
        }
        async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
            self.there()?.get_suffix(path, len).await
        }
        async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
            self.there()?.size(path).await
        }
        async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
            self.there()?.put(path, bytes).await
        }
        async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
            self.there()?.put_new(path, bytes).await
        }
        async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
            self.there()?.upload(path, body).await
        }
        async fn list(
            &self,
            folder: &str,
            after: Option<&ObjectPath>,
            max: usize,
        ) -> Result<Vec<ObjectMeta>, RemoteError> {
            self.there()?.list(folder, after, max).await
        }
        async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
            self.there()?.delete(paths).await
        }
    }

    fn path() -> ObjectPath {
        let name = BlobName { kind: BlobKind::Pack, hash: format::hash::blob(b"right"), birth: Seq(1) };
        keys::blob(&volume(), &name)
    }

    async fn remote(name: &str, bytes: Option<&'static [u8]>, state: Option<CopyState>) -> Arc<dyn Remote> {
        let remote = MemoryRemote::new(name);
        if let Some(bytes) = bytes {
            remote.put(&path(), Bytes::from_static(bytes)).await.unwrap();
        }
        if let Some(state) = state {
            let of = "mem://primary".to_owned();
            let mark = CopyMark { volume: VolumeId([1; 16]), of, began_ms: 0, state, pins: Vec::new() };
            remote.put(&keys::copy(&volume()), format::copy::encode(&mark).unwrap().into()).await.unwrap();
        }
        Arc::new(remote)
    }

    #[tokio::test]
    async fn what_is_wrong_at_one_side_is_asked_of_the_next_whoever_else_found_that_out() {
        let primary = remote("sides-primary", Some(b"wrong"), None).await;
        let one = remote("sides-one", Some(b"wrong too"), Some(CopyState::Follows)).await;
        let two = remote("sides-two", Some(b"right"), Some(CopyState::Follows)).await;
        let sides = Sides::new(primary, vec![one, two], volume(), clock());
        assert_eq!(sides.get(&path()).await.unwrap(), "wrong");
        // Three who read it at once, each for himself.
        for _ in 0..3 {
            assert!(sides.distrust(&path(), 0));
        }
        assert_eq!(sides.get(&path()).await.unwrap(), "wrong too");
        assert!(sides.distrust(&path(), 1));
        assert_eq!(sides.get(&path()).await.unwrap(), "right");
        assert!(!sides.distrust(&path(), 2), "there is nobody else to ask");
        assert!(!sides.distrust(&keys::head(&volume()), 0), "a hint has no right bytes");
        assert_eq!(sides.taken().objects.len(), 1);
    }

    #[tokio::test]
    async fn a_copy_that_is_none_or_not_whole_or_promoted_serves_nobody() {
        let fills = remote("sides-fills", Some(b"right"), Some(CopyState::Fills(Seq(3)))).await;
        let promoted = CopyState::Promoted { at_ms: 1, fenced: true, by: "me".to_owned() };
        let promoted = remote("sides-promoted", Some(b"right"), Some(promoted)).await;
        let none = remote("sides-none", Some(b"right"), None).await;
        let primary = remote("sides-empty", None, None).await;
        let sides = Sides::new(primary.clone(), vec![fills, promoted, none], volume(), clock());
        assert!(matches!(sides.get(&path()).await, Err(RemoteError::Missing { .. })));
        assert!(sides.list("app.db/log", None, 1).await.unwrap().is_empty());
        assert_eq!(sides.taken(), Taken::default());
        let whole = remote("sides-whole", Some(b"right"), Some(CopyState::Follows)).await;
        let sides = Sides::new(primary, vec![whole], volume(), clock());
        assert_eq!(sides.get(&path()).await.unwrap(), "right");
        assert_eq!(sides.taken().instead, None, "the primary answers");
    }

    #[tokio::test]
    async fn a_failure_that_passes_ties_nobody_to_a_copy() {
        let hand = Arc::new(Hand::default());
        let comes = Arc::new(Comes(remote("sides-comes", Some(b"right"), None).await, AtomicBool::new(false)));
        let log = keys::record(&volume(), Seq(2));
        comes.put(&log, Bytes::from_static(b"newer")).await.unwrap();
        let copy = remote("sides-behind", None, Some(CopyState::Follows)).await;
        copy.put(&keys::record(&volume(), Seq(1)), Bytes::from_static(b"older")).await.unwrap();
        let sides = Sides::new(comes.clone(), vec![copy], volume(), hand.clone());
        let newest = async || sides.list("app.db/log", None, 1).await.unwrap().pop().map(|meta| meta.path);
        assert_eq!(newest().await, Some(log.clone()));
        comes.goes(true);
        assert_eq!(newest().await, Some(keys::record(&volume(), Seq(1))));
        // Whether the blob is lost nobody knows who is not asked.
        assert!(matches!(sides.get(&path()).await, Err(RemoteError::Unavailable { .. })));
        comes.goes(false);
        // What the copy has not got is asked of the primary at once, and what else there is after a while.
        assert_eq!(newest().await, Some(keys::record(&volume(), Seq(1))));
        assert_eq!(sides.get(&path()).await.unwrap(), "right");
        assert_eq!(newest().await, Some(log.clone()));
        comes.goes(true);
        assert_eq!(newest().await, Some(keys::record(&volume(), Seq(1))));
        comes.goes(false);
        hand.sleep_ms(SIDES_MS_MAX - 1).await;
        assert_eq!(newest().await, Some(keys::record(&volume(), Seq(1))));
        hand.sleep_ms(1).await;
        assert_eq!(newest().await, Some(log));
        assert!(sides.taken().instead.is_some(), "it is told all the same");
    }

    #[tokio::test]
    async fn what_was_found_of_a_copy_is_found_out_again_after_a_while() {
        let hand = Arc::new(Hand::default());
        let copy = remote("sides-late", Some(b"right"), None).await;
        let comes = Arc::new(Comes(copy.clone(), AtomicBool::new(true)));
        let sides = Sides::new(comes, vec![copy.clone()], volume(), hand.clone());
        assert!(sides.get(&path()).await.is_err());
        let mark = |state| CopyMark {
            volume: VolumeId([1; 16]),
            of: "mem://primary".to_owned(),
            began_ms: 0,
            state,
            pins: Vec::new(),
        };
        let follows = format::copy::encode(&mark(CopyState::Follows)).unwrap();
        copy.put(&keys::copy(&volume()), follows.into()).await.unwrap();
        assert!(sides.get(&path()).await.is_err());
        hand.sleep_ms(SIDES_MS_MAX).await;
        assert_eq!(sides.get(&path()).await.unwrap(), "right");
        // And it is nobody's copy any more once it was promoted, whatever its mark says.
        let promoted = mark(CopyState::Promoted { at_ms: 1, fenced: false, by: "me".to_owned() });
        copy.put(&keys::promoted(&volume()), format::copy::encode(&promoted).unwrap().into()).await.unwrap();
        hand.sleep_ms(SIDES_MS_MAX).await;
        assert!(sides.get(&path()).await.is_err());
    }
}
