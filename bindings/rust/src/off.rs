//! Off the caller's thread: SQLite's calls return when they are done, and some of ours ask an object store.

use crate::error::Error;
use futures::channel::oneshot;

/// Runs what may wait on a thread of its own. Whoever drops the future leaves the work to end by itself.
pub(crate) async fn thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("littoral-door".to_owned());
    thread.spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(work());
    })?;
    answered.await.map_err(|_| Error::Broken)?
}

/// Waits for one of libsql's futures. On local databases they are done when they are asked: they only wait as long as SQLite does.
pub(crate) fn done<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}
