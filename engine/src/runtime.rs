//! One small runtime of our own: whoever needs the engine from outside of async code makes one and keeps it.

use std::future::Future;
use std::io;

/// Threads that drive requests. Compressing and hashing happen on the caller's, disk waits on others that come and go.
const THREADS: usize = 2;

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
}
