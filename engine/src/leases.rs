//! Who of a store works on which chunks: leases, taken before long work begins, renewed at each of its steps, and ended by the record that
//! says what came of it.
//!
//! What this room promises:
//! 1. Of two kinds of work that exclude each other on a chunk ([`Work::excludes`]) one holds it, in whatever processes and threads.
//! 2. A lease ends with its holder: by his word, by his death (a lock of the kernel's), or by a clock that counts suspend and that nobody
//!    sets. What is taken over so is written down, as what is taken by force is.
//! 3. A holder whose lease is gone publishes nothing: the intent of a record counts only where its lease stands, and ends it, in one step
//!    (`Batch::lease`). He learns of it at his next step, and his process goes on.
//! 4. Who has to wait is told who holds what, and for how long, and how to take it away.
//!
//! What is right never rests on them: a publication is put if absent (rule P3), and whoever merges looks at the rows again before he
//! publishes. They keep work from being done twice or for nothing, and let somebody else end it.

use crate::components::Components;
use crate::error::EngineError;
use crate::open::Place;
use littoral_local::{LocalError, Store, WorkerLock};
use littoral_ports::{Clock, Ended, LeaseChange, Leased, Manifest, ManifestError};
use littoral_types::limits::{HOLDERS_TOLD_MAX, LEASE_MS, TEXT_LEN_MAX};
use littoral_types::{ChunkRuns, Generation, Lease, LeaseToken, LeaseWish, TakenAway, VolumeId, Work};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often it is looked whether what stands in the way is gone.
const PAUSE_MS: u64 = 50;
/// How often it is looked whether a lease still stands under which nothing takes steps of its own.
const LOOK_MS: u64 = 200;
/// A holder renews his lease when so much of its time has passed; in between he only looks. Who waits for something looks as often.
pub(crate) const STEP_MS: u64 = LEASE_MS / 20;

static NTH: AtomicU64 = AtomicU64::new(0);

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its holder lives, and has time left.
    Held,
    /// Its holder lives and has not renewed it in time: he is stopped, or hangs. Whoever wants it takes it.
    RunOut,
    /// Its holder has died. Whoever wants it takes it.
    Dead,
}

impl Standing {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Standing::Held => "held",
            Standing::RunOut => "run out",
            Standing::Dead => "dead",
        }
    }

    const fn why(self) -> Option<&'static str> {
        match self {
            Standing::Held => None,
            Standing::RunOut => Some("its time had run out"),
            Standing::Dead => Some("its process had ended"),
        }
    }
}

/// The leases of a store.
#[derive(Clone, Debug)]
pub struct Leases {
    manifest: Arc<dyn Manifest>,
    marks: PathBuf,
    clock: Arc<dyn Clock>,
}

/// What somebody wants to work on.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which volume.
    pub volume: VolumeId,
    /// What he does.
    pub work: Work,
    /// To which chunks; `None` for all.
    pub chunks: Option<ChunkRuns>,
    /// The generation that he stands on.
    pub generation: Generation,
}

impl Leases {
    /// Those of a store.
    pub fn new(store: &Store, manifest: Arc<dyn Manifest>, components: &Components) -> Self {
        Self { manifest, marks: store.lease_marks(), clock: components.clock.clone() }
    }

    /// Those of a database's store, where there is one.
    pub fn of(place: &Place, components: &Components) -> Result<Option<Self>, EngineError> {
        let Some(store) = &place.store else { return Ok(None) };
        Ok(place.manifest()?.map(|manifest| Self::new(store, manifest, components)))
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Result<Vec<(Lease, Standing)>, EngineError> {
        Ok(self.manifest.leases()?.into_iter().map(|lease| (lease.clone(), self.standing(&lease))).collect())
    }

    /// Those that were taken away, the oldest of the newest `max` first.
    pub fn taken_away(&self, max: usize) -> Result<Vec<TakenAway>, EngineError> {
        Ok(self.manifest.taken_away(max)?)
    }

    /// Those that whoever wants them takes.
    fn over(&self) -> Result<Vec<Ended>, EngineError> {
        let ended = |(lease, standing): (Lease, Standing)| {
            let why = standing.why()?.to_owned();
            Some(Ended { token: lease.token, why, is_dead: standing == Standing::Dead })
        };
        Ok(self.all()?.into_iter().filter_map(ended).collect())
    }

    fn standing(&self, lease: &Lease) -> Standing {
        if WorkerLock::held_by(&self.mark(&lease.wish.mark)).is_none() {
            return Standing::Dead;
        }
        // One that lasts for longer than any does was given before the machine was booted.
        match lease.wish.until_boot_ms.checked_sub(self.clock.boot_ms()) {
            Some(1..=LEASE_MS) => Standing::Held,
            _ => Standing::RunOut,
        }
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.marks.join(format!("{name}.lock"))
    }

    /// A lock that dies with this process, under a name that no lease bears.
    fn lives(&self) -> Result<(String, WorkerLock), EngineError> {
        loop {
            let name = format!("{}-{}", std::process::id(), NTH.fetch_add(1, Ordering::SeqCst));
            let path = self.mark(&name);
            if path.exists() {
                continue;
            }
            match WorkerLock::take(path) {
                Ok(lock) => return Ok((name, lock)),
                Err(LocalError::Busy { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a lease at once, or says what stands in the way.
    pub fn take(&self, wanted: Wanted) -> Result<Result<Held, Vec<Lease>>, EngineError> {
        let Wanted { volume, work, chunks, generation } = wanted;
        let (mark, lives) = self.lives()?;
        let now = self.clock.boot_ms();
        let wish = LeaseWish {
            volume,
            work,
            chunks,
            generation,
            process: std::process::id(),
            mark: mark.clone(),
            taken_ms: self.clock.wall_ms(),
            until_boot_ms: now + LEASE_MS,
        };
        let answer = self.again_over_the_dead(|over| {
            let (wish, by) = (wish.clone(), by_this_process());
            self.manifest.lease(&LeaseChange::Take { wish, over, by })
        });
        match answer {
            Ok(Leased::Held(lease)) => Ok(Ok(Held {
                leases: self.clone(),
                token: lease.token,
                mark,
                _lives: lives,
                renewed_boot_ms: AtomicU64::new(now),
                is_over: AtomicBool::new(false),
            })),
            answer => {
                let _ = std::fs::remove_file(self.mark(&mark));
                match answer? {
                    Leased::Refused(held) => Ok(Err(held)),
                    _ => Ok(Err(Vec::new())),
                }
            }
        }
    }

    /// Asks for a lease over those whose time is over, and once more where one of them stood in the way all the same: what was written by
    /// who was killed just then is seen by readers when somebody has written after him.
    fn again_over_the_dead(
        &self,
        ask: impl Fn(Vec<Ended>) -> Result<Leased, ManifestError>,
    ) -> Result<Leased, EngineError> {
        let answer = ask(self.over()?)?;
        match &answer {
            Leased::Refused(held) if held.iter().any(|lease| self.standing(lease) != Standing::Held) => {
                Ok(ask(self.over()?)?)
            }
            _ => Ok(answer),
        }
    }

    /// Waits until nothing stands in the way of some work on chunks (all, where none are said), before its holder takes any lock that others
    /// need to get done. Where it waits for too long it is refused, or takes away what stands there, for this reason.
    pub async fn wait(
        &self,
        (volume, url): (VolumeId, &str),
        (work, chunks): (Work, Option<&ChunkRuns>),
        patience_ms: u64,
        cancels: Option<&str>,
    ) -> Result<(), EngineError> {
        let since = self.clock.boot_ms();
        loop {
            let in_the_way = |(lease, standing): &(Lease, Standing)| {
                let meets = match (&lease.wish.chunks, chunks) {
                    (Some(these), Some(those)) => these.meets(those),
                    _ => true,
                };
                *standing == Standing::Held && meets && lease.wish.volume == volume && lease.wish.work.excludes(work)
            };
            let held: Vec<Lease> = self.all()?.into_iter().filter(in_the_way).map(|(lease, _)| lease).collect();
            if held.is_empty() {
                return Ok(());
            }
            if self.clock.boot_ms().saturating_sub(since) < patience_ms {
                self.clock.sleep_ms(PAUSE_MS).await;
                continue;
            }
            let Some(why) = cancels else { return Err(self.refused(url, work, patience_ms, &held)) };
            for lease in held {
                self.take_away(&lease, why)?;
            }
        }
    }

    /// What whoever is refused is told.
    pub fn refused(&self, volume: &str, work: Work, waited_ms: u64, held: &[Lease]) -> EngineError {
        let now = self.clock.wall_ms();
        let one = |lease: &Lease| {
            let LeaseWish { work, process, taken_ms, .. } = &lease.wish;
            let seconds = now.saturating_sub(*taken_ms) / 1000;
            format!(
                "process {process} has had chunks {} for {seconds} s ({work}, lease {})",
                lease.chunks(),
                lease.token
            )
        };
        let mut who: Vec<String> = held.iter().take(HOLDERS_TOLD_MAX).map(one).collect();
        if let Some(rest) = held.len().checked_sub(HOLDERS_TOLD_MAX).filter(|rest| *rest > 0) {
            who.push(format!("{rest} more"));
        }
        EngineError::Leased { volume: volume.to_owned(), work, waited_ms, who: who.join("; ") }
    }

    /// Takes a lease from its holder. `None` where it was over by then.
    pub fn take_away(&self, lease: &Lease, why: &str) -> Result<Option<Lease>, EngineError> {
        let change = LeaseChange::TakeAway {
            token: lease.token,
            at_ms: self.clock.wall_ms(),
            by: format!("user {}, process {}", rustix::process::getuid().as_raw(), std::process::id()),
            why: why.chars().take(TEXT_LEN_MAX / 4).collect(),
            is_forced: self.standing(lease) == Standing::Held,
        };
        match self.manifest.lease(&change)? {
            Leased::Over(lease) => Ok(Some(lease)),
            _ => Ok(None),
        }
    }
}

fn by_this_process() -> String {
    format!("process {}", std::process::id())
}

/// A lease that is held for as long as this lives.
#[derive(Debug)]
pub struct Held {
    leases: Leases,
    token: LeaseToken,
    mark: String,
    _lives: WorkerLock,
    renewed_boot_ms: AtomicU64,
    is_over: AtomicBool,
}

impl Held {
    /// Its number.
    pub const fn token(&self) -> LeaseToken {
        self.token
    }

    /// The name of the lock that says that its holder lives.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Its holder is about to go on: renewed where that is due. Refused where it was taken away.
    pub fn step(&self) -> Result<(), EngineError> {
        let now = self.leases.clock.boot_ms();
        if now.saturating_sub(self.renewed_boot_ms.load(Ordering::Relaxed)) < STEP_MS {
            let stands = self.leases.manifest.leases()?.iter().any(|lease| lease.token == self.token);
            return if stands { Ok(()) } else { Err(ManifestError::NoLease(self.token).into()) };
        }
        match self.renewed(self.renew(&ChunkRuns::default(), Vec::new())?)? {
            Ok(()) => Ok(()),
            // It asked for nothing that it had not.
            Err(_) => Err(ManifestError::NoLease(self.token).into()),
        }
    }

    /// Does what is right only for as long as it stands, and stops in the middle once it was taken away.
    pub async fn during<T>(&self, work: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.leases.clock.sleep_ms(LOOK_MS) => self.step()?,
            }
        }
    }

    /// Its holder works on these, too: at once, over those whose time is over, or these stand in the way.
    pub fn widen(&self, chunks: &ChunkRuns) -> Result<Result<(), Vec<Lease>>, EngineError> {
        let answer = self.leases.again_over_the_dead(|over| self.renew(chunks, over))?;
        self.renewed(answer)
    }

    fn renew(&self, more: &ChunkRuns, over: Vec<Ended>) -> Result<Leased, ManifestError> {
        let (token, more, by) = (self.token, more.clone(), by_this_process());
        let until_boot_ms = self.leases.clock.boot_ms() + LEASE_MS;
        let at_ms = self.leases.clock.wall_ms();
        self.leases.manifest.lease(&LeaseChange::Renew { token, until_boot_ms, more, over, by, at_ms })
    }

    fn renewed(&self, answer: Leased) -> Result<Result<(), Vec<Lease>>, EngineError> {
        match answer {
            Leased::Held(lease) => {
                let renewed = lease.wish.until_boot_ms.saturating_sub(LEASE_MS);
                self.renewed_boot_ms.store(renewed, Ordering::Relaxed);
                Ok(Ok(()))
            }
            Leased::Refused(held) => Ok(Err(held)),
            Leased::Over(_) | Leased::Gone => Err(ManifestError::NoLease(self.token).into()),
        }
    }

    /// What was done under it is decided: the intent that says so has ended it.
    pub(crate) fn decided(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed)
            && let Err(error) = self.leases.manifest.lease(&LeaseChange::End { token: self.token })
        {
            tracing::debug!(%error, "a lease that is over stays until somebody wants it");
        }
        // It is nobody's by now: who looks for it finds a lease without a holder, at most.
        let _ = std::fs::remove_file(self.leases.mark(&self.mark));
    }
}
