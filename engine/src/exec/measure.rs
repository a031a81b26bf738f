//! How fast an object store is for one database, and whether it fences: asked by doing what Littoral does, below a folder of its own.
//!
//! 1. Nothing is written but below [`FOLDER`], under names that no volume has; all of it is deleted in the end, however that comes.
//! 2. Of a run that was killed the names say when it is over: a later one deletes them. What cannot be deleted is told.
//! 3. Whether the store fences is asked first. One that does not is no store for us, and nothing else is asked of it.
//! 4. Who stops a run waits for the requests that are under way: what lands later would stay.

use crate::components::Components;
use crate::error::EngineError;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use littoral_plan::measure::{RACERS, Race, Rung, Times, WIDTHS, forks, goes_on};
use littoral_ports::{MemoryBody, ObjectMeta, Remote, RemoteError, Unit};
use littoral_types::{ByteSpan, ObjectPath};
use std::cell::Cell;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where everything is written, below the remote.
pub const FOLDER: &str = "littoral-bench";
/// Races for a fresh name, one after the other.
pub const RACES: usize = 4;
/// Requests of one kind, one after the other, at most.
pub const SAMPLES: usize = 200;
/// Bytes of a small object: a commit's segment has about as many.
pub const SMALL_BYTES: usize = 4 << 10;
/// Bytes of a run out of an object: a frame of pages has about as many.
pub const RANGE_BYTES: u64 = 32 << 10;
/// Bytes of the object that runs are read of.
const RANGED_BYTES: usize = 1 << 20;
/// Listings.
const LISTINGS: usize = 50;
/// Objects that go through with each width.
const OBJECTS: usize = 64;
/// Bytes of such an object, at least and at most.
const OBJECT_BYTES: (u64, u64) = (16 << 10, 4 << 20);
/// What all but the widths moves.
const SMALL_ALL: u64 = 9_000_000;
/// A run takes so much longer than it was asked to at most, before others delete what it wrote.
const GRACE_MS: u64 = 3_600_000;
/// Objects that are deleted with one call.
const DELETED_AT_ONCE: usize = 64;

/// What is asked for.
#[derive(Debug)]
pub struct Order<'a> {
    /// For how long it is measured, cleaning not counted.
    pub seconds: u64,
    /// Bytes that go up and down, about.
    pub bytes: u64,
    /// Set by whoever wants it to end now.
    pub stop: &'a AtomicBool,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// A small object, put if absent: a publication.
    pub commit: Times,
    /// A small object, put.
    pub put: Times,
    /// A small object, fetched.
    pub get: Times,
    /// [`RANGE_BYTES`] out of a larger one.
    pub get_range: Times,
    /// A listing, and how many objects it found at most.
    pub list: (Times, usize),
    /// Bytes of the objects that went through with each width.
    pub object_bytes: u64,
    /// Sent, with one width after the other.
    pub up: Vec<Rung>,
    /// Fetched, the same.
    pub down: Vec<Rung>,
}

/// What lies there still, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many objects; `None` where they cannot be listed either.
    pub objects: Option<u64>,
    /// Their bytes.
    pub bytes: u64,
    /// In the store's words.
    pub why: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// What was measured; `None` where somebody stopped it.
    pub measured: Result<Option<Measured>, EngineError>,
    /// Objects of earlier runs, which were killed, that were deleted.
    pub swept: u64,
    /// Objects of this one.
    pub deleted: u64,
    /// What could not be deleted.
    pub left: Option<Left>,
}

/// Measures, and deletes what that took.
pub async fn measure(remote: &dyn Remote, order: &Order<'_>, components: &Components) -> Result<Ended, EngineError> {
    let now_ms = components.clock.wall_ms();
    let swept = sweep(remote, components, |name| name.until_ms < now_ms).await?;
    let run = Run::begin(remote, order, components, now_ms);
    let measured = Box::pin(run.all()).await;
    let (deleted, left) = match sweep(remote, components, |name| name.run == run.name.run).await {
        Ok(Swept { deleted, left }) => (deleted, left),
        // What was measured counts all the same.
        Err(error) => (0, Some(Left { objects: None, bytes: 0, why: error.to_string() })),
    };
    Ok(Ended { measured, swept: swept.deleted, deleted, left })
}

/// Deletes what runs have left, those that go on elsewhere too. How many objects, and what could not be deleted.
pub async fn clean(remote: &dyn Remote, components: &Components) -> Result<(u64, Option<Left>), EngineError> {
    let swept = sweep(remote, components, |_| true).await?;
    Ok((swept.deleted, swept.left))
}

/// What an object's name says: of which run, which may be over from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    until_ms: u64,
    run: String,
}

impl Name {
    fn prefix(&self) -> String {
        format!("{FOLDER}/{:013}-{}", self.until_ms, self.run)
    }

    /// Reads one that a store listed. `None` of what no run has written.
    fn read(path: &ObjectPath) -> Option<Self> {
        let mut parts = path.parts();
        let (FOLDER, object, None) = (parts.next()?, parts.next()?, parts.next()) else { return None };
        let words: Vec<&str> = object.split('-').collect();
        let [until, run, _kind, _number] = words.as_slice() else { return None };
        let is_run = run.len() == 32 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        let until_ms = until.parse().ok().filter(|_| until.len() == 13 && is_run)?;
        Some(Self { until_ms, run: (*run).to_owned() })
    }
}

#[derive(Debug)]
struct Swept {
    deleted: u64,
    left: Option<Left>,
}

/// Deletes the objects of runs with such names.
async fn sweep(
    remote: &dyn Remote,
    components: &Components,
    whose: impl Fn(&Name) -> bool,
) -> Result<Swept, EngineError> {
    let listed = async || {
        let all = remote.list(FOLDER, None, usize::MAX).await?;
        let ours = |object: &ObjectMeta| Name::read(&object.path).is_some_and(|name| whose(&name));
        Ok::<Vec<ObjectMeta>, RemoteError>(all.into_iter().filter(ours).collect())
    };
    let found = listed().await?;
    if found.is_empty() {
        return Ok(Swept { deleted: 0, left: None });
    }
    components.progress.phase("cleaning", found.len() as u64, Unit::Objects);
    let mut refused = None;
    for some in found.chunks(DELETED_AT_ONCE) {
        let paths: Vec<ObjectPath> = some.iter().map(|object| object.path.clone()).collect();
        match remote.delete(&paths).await {
            Ok(()) => components.progress.advance(some.len() as u64),
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
    }
    let left = listed().await?;
    let deleted = found.len().saturating_sub(left.len()) as u64;
    if left.is_empty() {
        return Ok(Swept { deleted, left: None });
    }
    let why = refused.unwrap_or_else(|| "it was deleted, and is listed still".to_owned());
    let bytes = left.iter().map(|object| object.len).sum();
    Ok(Swept { deleted, left: Some(Left { objects: Some(left.len() as u64), bytes, why }) })
}

/// A run: what it writes, and until when.
struct Run<'a> {
    remote: &'a dyn Remote,
    stop: &'a AtomicBool,
    components: &'a Components,
    name: Name,
    noise: Bytes,
    object_bytes: u64,
    time: Duration,
    until: Instant,
}

impl<'a> Run<'a> {
    fn begin(remote: &'a dyn Remote, order: &Order<'a>, components: &'a Components, now_ms: u64) -> Self {
        let time = Duration::from_secs(order.seconds);
        let until_ms = now_ms + order.seconds.saturating_mul(1_000) + GRACE_MS;
        let run = format!("{:032x}", u128::from_le_bytes(components.bits()));
        // Each width of each direction has its share.
        let share = order.bytes.saturating_sub(SMALL_ALL) / (2 * WIDTHS.len() * OBJECTS) as u64;
        let object_bytes = share.clamp(OBJECT_BYTES.0, OBJECT_BYTES.1);
        let mut noise = vec![0; (object_bytes as usize).max(RANGED_BYTES)];
        components.entropy.fill(&mut noise);
        Self {
            remote,
            stop: order.stop,
            components,
            name: Name { until_ms, run },
            noise: noise.into(),
            object_bytes,
            time,
            until: Instant::now() + time,
        }
    }

    fn path(&self, kind: &str, number: usize) -> Result<ObjectPath, RemoteError> {
        let name = format!("{}-{kind}-{number}", self.name.prefix());
        ObjectPath::parse(&name).ok_or_else(|| RemoteError::Settings(format!("{name}: not a name for an object")))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The end of a part that takes so many hundredths of all the time.
    fn share(&self, in_a_hundred: u32) -> Instant {
        (Instant::now() + self.time * in_a_hundred / 100).min(self.until)
    }

    async fn all(&self) -> Result<Option<Measured>, EngineError> {
        self.components.progress.phase("racing", RACES as u64, Unit::Objects);
        for nth in 0..RACES {
            self.race(nth).await?;
            self.components.progress.advance(1);
        }
        let small = self.noise.slice(..SMALL_BYTES);
        let commit = self
            .timed("commits", 15, SAMPLES, async |nth| {
                match self.remote.put_new(&self.path("commit", nth)?, small.clone()).await {
                    // It took its time. Whether it landed is nobody's business here.
                    Err(RemoteError::Unknown { .. }) => Ok(()),
                    done => done,
                }
            })
            .await?;
        let put = self
            .timed("writing", 10, SAMPLES, async |nth| self.remote.put(&self.path("put", nth)?, small.clone()).await);
        let put = put.await?;
        let get = self.timed("reading", 10, SAMPLES, async |nth| {
            self.remote.get(&self.path("put", nth % put.count())?).await.map(drop)
        });
        let get = get.await?;
        let ranged = self.path("ranged", 0)?;
        self.remote.put(&ranged, self.noise.slice(..RANGED_BYTES)).await?;
        let runs = RANGED_BYTES as u64 / RANGE_BYTES;
        let get_range = self.timed("ranges", 10, SAMPLES, async |nth| {
            let span = ByteSpan { offset: nth as u64 % runs * RANGE_BYTES, len: RANGE_BYTES };
            self.remote.get_range(&ranged, span).await.map(drop)
        });
        let get_range = get_range.await?;
        let most = Cell::new(0);
        let list = self.timed("listing", 5, LISTINGS, async |_| {
            let found = self.remote.list(FOLDER, None, usize::MAX).await?;
            most.set(found.len().max(most.get()));
            Ok(())
        });
        let list = (list.await?, most.get());
        let body = MemoryBody::new(self.noise.slice(..self.object_bytes as usize));
        let sent = Cell::new(0);
        let up = self.climb("sending", 25, async |nth| {
            self.remote.upload(&self.path("object", nth % OBJECTS)?, &body).await?;
            sent.set((nth + 1).min(OBJECTS).max(sent.get()));
            Ok(())
        });
        let up = up.await?;
        let down = self.climb("fetching", 25, async |nth| {
            let path = self.path("object", nth % sent.get().max(1))?;
            let bytes = self.remote.get(&path).await?;
            match bytes.len() as u64 == self.object_bytes {
                true => Ok(()),
                false => {
                    let detail = format!("{} bytes came of {}", bytes.len(), self.object_bytes);
                    Err(RemoteError::Corrupt { path: path.to_string(), detail })
                }
            }
        });
        let down = down.await?;
        if self.is_stopped() {
            return Ok(None);
        }
        let object_bytes = self.object_bytes;
        Ok(Some(Measured { commit, put, get, get_range, list, object_bytes, up, down }))
    }

    /// Several writers of one fresh name, all at once, and one more afterwards.
    async fn race(&self, nth: usize) -> Result<(), EngineError> {
        let path = self.path("race", nth)?;
        let body = |writer: usize| Bytes::from(format!("writer {writer} of race {nth} of {}", self.name.run));
        let answers = join_all((0..RACERS).map(|writer| self.remote.put_new(&path, body(writer)))).await;
        let mut race = Race::default();
        for (writer, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(()) => race.won.push(writer),
                Err(RemoteError::Exists { .. }) => {}
                Err(RemoteError::Unknown { .. }) => race.unknown.push(writer),
                Err(error) => return Err(error.into()),
            }
        }
        let found = match self.remote.get(&path).await {
            Ok(found) => Some(found),
            Err(RemoteError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        race.found = (0..RACERS).find(|writer| found.as_ref() == Some(&body(*writer)));
        let not_fencing =
            |detail: String| EngineError::from(RemoteError::NotFencing { what: self.remote.url(), detail });
        if let Some(why) = forks(&race) {
            return Err(not_fencing(why));
        }
        match self.remote.put_new(&path, body(RACERS)).await {
            Err(RemoteError::Exists { .. }) => {}
            // Nothing had landed, and now nobody knows.
            Ok(()) | Err(RemoteError::Unknown { .. }) if found.is_none() => return Ok(()),
            Err(RemoteError::Unknown { .. }) => {}
            Ok(()) => return Err(not_fencing("a writer was told that it won a name that was taken".to_owned())),
            Err(error) => return Err(error.into()),
        }
        match self.remote.get(&path).await {
            Ok(now) if Some(&now) == found.as_ref() => Ok(()),
            Ok(_) if found.is_none() => Ok(()),
            Ok(_) => Err(not_fencing("a writer that was refused replaced what was there".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// One request after the other, as long as its share lasts; one at least.
    async fn timed(
        &self,
        phase: &'static str,
        in_a_hundred: u32,
        most: usize,
        request: impl AsyncFn(usize) -> Result<(), RemoteError>,
    ) -> Result<Times, EngineError> {
        self.components.progress.phase(phase, most as u64, Unit::Objects);
        let until = self.share(in_a_hundred);
        let mut times = Vec::new();
        while times.is_empty() || (times.len() < most && Instant::now() < until && !self.is_stopped()) {
            let began = Instant::now();
            request(times.len()).await?;
            times.push(micros(began));
            self.components.progress.advance(1);
        }
        Ok(Times::of(times))
    }

    /// One width after the other, as long as that pays. A request that fails ends it when those beside it have ended.
    async fn climb(
        &self,
        phase: &'static str,
        in_a_hundred: u32,
        request: impl AsyncFn(usize) -> Result<(), RemoteError>,
    ) -> Result<Vec<Rung>, EngineError> {
        let all = (WIDTHS.len() * OBJECTS) as u64 * self.object_bytes;
        self.components.progress.phase(phase, all, Unit::Bytes);
        let mut rungs: Vec<Rung> = Vec::new();
        for width in WIDTHS {
            if self.is_stopped() || !goes_on(&rungs) {
                break;
            }
            let until = self.share(in_a_hundred / WIDTHS.len() as u32);
            let failed = Cell::new(false);
            let goes = |nth: &usize| !failed.get() && (*nth < width || (Instant::now() < until && !self.is_stopped()));
            let began = Instant::now();
            let answers: Vec<_> = stream::iter((0..OBJECTS).take_while(goes))
                .map(|nth| {
                    observed(request(nth), |answer: &Result<(), RemoteError>| match answer {
                        Ok(()) => self.components.progress.advance(self.object_bytes),
                        Err(_) => failed.set(true),
                    })
                })
                .buffer_unordered(width)
                .collect()
                .await;
            let (us, count) = (micros(began), answers.len() as u64);
            answers.into_iter().collect::<Result<(), RemoteError>>()?;
            rungs.push(Rung { width, bytes: count * self.object_bytes, us });
        }
        Ok(rungs)
    }
}

/// Work whose end is looked at.
async fn observed<T>(work: impl Future<Output = T>, look: impl Fn(&T)) -> T {
    let done = work.await;
    look(&done);
    done
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
