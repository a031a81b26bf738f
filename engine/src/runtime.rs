//! One small runtime of our own: whoever needs the engine from outside of async code makes one and keeps it, or crosses the bridge.
//!
//! The bridge is for threads that are not ours, and that may stand inside of a runtime of their own: the work runs on our threads, and
//! the caller waits for its answer at a channel, up to a deadline.

use std::future::Future;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Threads that drive requests. Compressing and hashing happen on the caller's, disk waits on others that come and go.
const THREADS: usize = 2;

/// By how much work that steps back is nicer: it gets a third of what others get of a processor that all of them want. Far less would
/// let it hold what others wait for, a slice of reading or the store's lock, for as long as they are busy.
const BEHIND: i32 = 5;

/// How long work that is cut off may take to notice.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the engine's futures on threads of its own.
#[derive(Debug)]
pub struct Runtime(tokio::runtime::Runtime);

impl Runtime {
    /// Starts its threads.
    pub fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("littoral").enable_all().build().map(Self)
    }

    /// Runs one future to its end. For a caller that is no async code itself: the command line, a test.
    pub fn run<F: Future>(&self, work: F) -> F::Output {
        self.0.block_on(work)
    }

    /// The same for work that somebody else may cut off, wherever it stands: for whoever goes on later that is a crash like any other.
    /// `None` where that happened.
    pub fn run_unless<F: Future>(&self, cut: &Cut, work: F) -> Option<F::Output> {
        let mut told = cut.0.subscribe();
        self.run(async {
            tokio::select! {
                biased;
                // It fails only when nobody can cut it off any more.
                Ok(_) = told.wait_for(|is_cut| *is_cut) => None,
                done = work => Some(done),
            }
        })
    }
}

/// Cuts work off from another thread.
#[derive(Clone, Debug)]
pub struct Cut(watch::Sender<bool>);

impl Default for Cut {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Cut {
    /// What runs ends now, and what would begin does not.
    pub fn now(&self) {
        self.0.send_replace(true);
    }
}

/// Nobody answered in time. What was begun is cut off where it stands: for whoever goes on later that is a crash like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it took longer than {} s and was cut off: nothing is lost, the next attempt goes on", .0.as_secs())]
pub struct Late(pub Duration);

/// This process's runtime, made when it is first needed: a forked child has its own, since threads are not inherited.
pub fn shared() -> io::Result<Arc<Runtime>> {
    static SHARED: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match &*shared {
        Some((whose, runtime)) if *whose == process => Ok(runtime.clone()),
        _ => {
            let runtime = Arc::new(Runtime::start()?);
            if let Some((_, inherited)) = shared.replace((process, runtime.clone())) {
                // Its threads are the parent's: waiting for them to end would take forever.
                std::mem::forget(inherited);
            }
            Ok(runtime)
        }
    }
}

/// Why the bridge brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The deadline passed.
    #[error(transparent)]
    Late(#[from] Late),
    /// No thread can be had.
    #[error("no thread can be started: {0}")]
    Threads(#[from] io::Error),
    /// The work ended without an answer: a mistake of ours, which was logged where it happened.
    #[error("the work broke down inside of littoral: see the log; nothing that was durable is lost")]
    Broken,
}

/// Runs work on a thread of ours, in this process's runtime, and waits for its answer up to a deadline.
pub fn cross<T, F>(deadline: Duration, work: impl FnOnce() -> F + Send + 'static) -> Result<T, BridgeError>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    across(deadline, work, || ())
}

/// The same for long work that compares and compresses beside others who commit: where processors are scarce they come first.
pub fn cross_behind<T, F>(deadline: Duration, work: impl FnOnce() -> F + Send + 'static) -> Result<T, BridgeError>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    across(deadline, work, step_back)
}

/// Makes this thread, and those that it starts, step back for others. Where that is not granted it goes on as it is.
pub fn step_back() {
    // Nobody named means who asks, and on Linux that is the thread, not its process.
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, now + BEHIND));
    if let Err(error) = lowered {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

fn across<T, F>(
    deadline: Duration,
    work: impl FnOnce() -> F + Send + 'static,
    begin: impl FnOnce() + Send + 'static,
) -> Result<T, BridgeError>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let runtime = shared()?;
    let (answer, answered) = sync_channel(1);
    let thread = std::thread::Builder::new().name("littoral-bridge".to_owned());
    thread.spawn(move || {
        begin();
        let done = runtime.run(async { tokio::time::timeout(deadline, work()).await });
        // Whoever waited may have gone.
        let _ = answer.send(done.map_err(|_| Late(deadline)));
    })?;
    // The work is cut off at its deadline, and says so; a little later at most, when it was busy computing.
    match answered.recv_timeout(deadline.saturating_add(GRACE)) {
        Ok(done) => Ok(done?),
        Err(RecvTimeoutError::Timeout) => Err(Late(deadline).into()),
        Err(RecvTimeoutError::Disconnected) => Err(BridgeError::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn work_is_cut_off_where_it_stands_and_done_work_is_done() {
        let runtime = shared().unwrap();
        let cut = Cut::default();
        assert_eq!(runtime.run_unless(&cut, async { 7 }), Some(7));
        let other = cut.clone();
        let begun = std::time::Instant::now();
        let cutting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.now();
        });
        let done = runtime.run_unless(&cut, async { tokio::time::sleep(Duration::from_secs(60)).await });
        assert!(done.is_none() && begun.elapsed() < Duration::from_secs(30));
        cutting.join().unwrap();
        assert_eq!(runtime.run_unless(&cut, async { 7 }), None, "nothing begins after that");
    }

    #[test]
    fn work_that_steps_back_is_nicer_than_its_caller_and_leaves_the_caller_as_it_is() {
        let before = priority();
        let deadline = Duration::from_secs(60);
        assert_eq!(cross(deadline, || async { priority() }).unwrap(), before);
        assert_eq!(cross_behind(deadline, || async { priority() }).unwrap(), (before + BEHIND).min(19));
        assert_eq!(priority(), before);
        assert_eq!(cross(deadline, || async { priority() }).unwrap(), before, "what came before holds nobody back");
    }
}
