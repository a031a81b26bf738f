//! A pin on what is read, put and renewed behind the reader's back (rule P2).

use crate::components::Components;
use crate::error::EngineError;
use crate::log::pins::Wish;
use crate::log::{Log, Opened};
use littoral_format::keys::PinKey;
use littoral_ports::RemoteError;
use littoral_types::PinPurpose;
use littoral_types::limits::PIN_LIFE_MS;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a pin that could not be put is left alone.
const AGAIN_MS: u64 = 60_000;

/// How long a pin that is on its way is waited for before it is left to expire.
const PUT_PATIENCE: Duration = Duration::from_secs(5);

/// What keeps pruners away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A pin of this reader's.
    Pinned,
    /// The named snapshot that it reads.
    Named,
    /// Nothing: a prune came first. What it took will be missed when it is read, and said.
    Overtaken,
    /// Nothing, and why: this reader may not write, or the object store is full. Retention alone keeps what it reads.
    Unpinned(String),
}

/// Holds a state for as long as it lives.
#[derive(Debug)]
pub(super) struct Holding {
    task: Mutex<Option<JoinHandle<()>>>,
    outcome: watch::Receiver<Option<Held>>,
    key: Arc<Mutex<Option<PinKey>>>,
}

impl Holding {
    pub(super) fn not_needed() -> Self {
        let (_, outcome) = watch::channel(Some(Held::Named));
        Self { task: Mutex::new(None), outcome, key: Arc::default() }
    }

    /// Begins to hold, without waiting for it.
    pub(super) fn begin(log: &Log, components: &Components, opened: &Opened) -> Self {
        let (tell, outcome) = watch::channel(None);
        let key: Arc<Mutex<Option<PinKey>>> = Arc::default();
        // A pin says which record: the rest of what was opened is the reader's.
        let opened = Opened {
            meta: opened.meta.clone(),
            tail: opened.tail.clone(),
            snapshot: None,
            ops: Vec::new(),
            recent: Vec::new(),
            brought: Vec::new(),
            sessions: opened.sessions.clone(),
            seen: opened.seen,
        };
        let task = tokio::spawn(hold(log.clone(), components.clone(), opened, tell, key.clone()));
        Self { task: Mutex::new(Some(task)), outcome, key }
    }

    pub(super) async fn outcome(&self) -> Held {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(held) => held.clone().unwrap_or(Held::Overtaken),
            Err(_) => Held::Unpinned("the reader was closed".to_owned()),
        }
    }

    pub(super) async fn end(&self, log: &Log) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A pin that is on its way lands, whoever gives up: it can be taken back once it is known.
            let _ = tokio::time::timeout(PUT_PATIENCE, self.outcome()).await;
            task.abort();
            // Joined, so that no pin is put behind our back any more.
            drop(task.await);
        }
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(key) = key
            && let Err(error) = log.unpin(&key).await
        {
            tracing::warn!(%error, "the reader's pin was not taken back: it expires by itself");
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn hold(
    log: Log,
    components: Components,
    mut opened: Opened,
    tell: watch::Sender<Option<Held>>,
    key: Arc<Mutex<Option<PinKey>>>,
) {
    let holder = rustix::system::uname().nodename().to_string_lossy().into_owned();
    loop {
        let wish = Wish { purpose: PinPurpose::Reader, holder: holder.clone(), life_ms: Some(PIN_LIFE_MS) };
        let rest = match log.pin(&components, &opened, wish).await {
            Ok(Some(pinned)) => {
                let old = key.lock().unwrap_or_else(PoisonError::into_inner).replace(pinned.key);
                tell.send_replace(Some(Held::Pinned));
                if let Some(old) = old
                    && let Err(error) = log.unpin(&old).await
                {
                    tracing::warn!(%error, "a reader's old pin was not taken back: it expires by itself");
                }
                PIN_LIFE_MS / 2
            }
            Ok(None) => {
                tracing::warn!(volume = %log.name(), "a prune came between: reading without a pin");
                tell.send_replace(Some(Held::Overtaken));
                return;
            }
            Err(EngineError::Remote(error @ (RemoteError::Denied { .. } | RemoteError::Full { .. }))) => {
                tracing::info!(volume = %log.name(), %error, "reading without a pin");
                tell.send_replace(Some(Held::Unpinned(error.to_string())));
                return;
            }
            Err(error) => {
                tracing::warn!(volume = %log.name(), %error, "the reader's pin was not put: trying again");
                AGAIN_MS
            }
        };
        components.clock.sleep_ms(rest).await;
        // What is held already was spared by every prune so far: the next look begins here.
        let held = key.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if held && let Ok(Some(newest)) = log.newest().await {
            opened.seen = newest;
        }
    }
}
