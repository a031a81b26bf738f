//! A remote that fails on request, for tests: by script, or by a seed's chance. The same seed and the same calls fail the
//! same way.
//!
//! It fails as a [`Remote`] fails towards its callers, after all patience: for what happens within the patience, tests speak
//! HTTP.

use crate::counting::Op;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use littoral_ports::{BlobBody, Clock, Entropy, ObjectMeta, Remote, RemoteError, passes_on};
use littoral_types::{ByteSpan, ObjectPath};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is sent: nobody answers.
    NotSent,
    /// Nothing is done, and the caller cannot know: `put_new` says `Unknown`, the rest `Unavailable`.
    LostBefore,
    /// It is done, and the caller cannot know: `put_new` says `Unknown`, the rest `Unavailable`.
    LostAfter,
    /// So many milliseconds pass first; then it works.
    Latency(u64),
    /// The bytes that come are cut at a random place. A write is refused as damaged.
    Truncated,
    /// One random bit of the bytes that come is the other way round. A write is refused as damaged.
    Flipped,
    /// The store asks for patience until the caller has none left.
    Throttled,
    /// The store has no room. Only writes fail.
    Full,
    /// The store refuses.
    Denied,
}

/// When to fail.
#[derive(Clone, Debug)]
struct Rule {
    op: Option<Op>,
    path_part: String,
    after: u64,
    times: u64,
    fault: Fault,
}

/// A remote with faults: see the module.
pub struct Faulty {
    inner: Arc<dyn Remote>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    rules: Vec<Rule>,
    chances: Vec<(Fault, u64)>,
    happened: Vec<(Op, String, Fault)>,
}

impl Faulty {
    /// A remote that does not fail yet.
    pub fn new(inner: Arc<dyn Remote>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { inner, clock, entropy, plan: Mutex::default() }
    }

    /// The next request of this kind fails so.
    pub fn next(&self, op: Op, fault: Fault) {
        self.at(Some(op), "", 0, 1, fault);
    }

    /// Of the requests of this kind (or any) whose path has this part: `after` go well, then so many fail.
    pub fn at(&self, op: Option<Op>, path_part: &str, after: u64, times: u64, fault: Fault) {
        let rule = Rule { op, path_part: path_part.to_owned(), after, times, fault };
        self.plan().rules.push(rule);
    }

    /// From now on each request fails so with this chance, in thousandths. Chances are tried in the order they were given.
    pub fn chance(&self, fault: Fault, per_mille: u64) {
        self.plan().chances.push((fault, per_mille));
    }

    /// Nothing fails any more.
    pub fn calm(&self) {
        let mut plan = self.plan();
        plan.rules.clear();
        plan.chances.clear();
    }

    /// Which faults came true so far, and where.
    pub fn happened(&self) -> Vec<(Op, String, Fault)> {
        self.plan().happened.clone()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, op: Op, path: &str) -> Vec<Fault> {
        let mut plan = self.plan();
        let mut faults = Vec::new();
        for rule in &mut plan.rules {
            let meant = rule.op.is_none_or(|wanted| wanted == op) && path.contains(&rule.path_part);
            if !meant || rule.times == 0 {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
            } else {
                rule.times -= 1;
                faults.push(rule.fault);
            }
        }
        for (fault, per_mille) in &plan.chances {
            if self.entropy.below(1000) < *per_mille {
                faults.push(*fault);
            }
        }
        faults.retain(|fault| *fault != Fault::Full || op.writes());
        plan.happened.extend(faults.iter().map(|fault| (op, path.to_owned(), *fault)));
        faults
    }

    /// Waits out latencies; the fault that is left, if any.
    async fn meet(&self, op: Op, path: &str) -> Option<Fault> {
        let mut left = None;
        for fault in self.draw(op, path) {
            match fault {
                Fault::Latency(ms) => self.clock.sleep_ms(ms).await,
                fault => left = left.or(Some(fault)),
            }
        }
        left
    }

    fn damage(&self, bytes: Bytes, fault: Fault) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let place = self.entropy.below(bytes.len() as u64) as usize;
        if fault == Fault::Truncated {
            return bytes.slice(..place);
        }
        let mut bytes = BytesMut::from(&bytes[..]);
        bytes[place] ^= 1 << self.entropy.below(8);
        bytes.freeze()
    }

    async fn read(
        &self,
        op: Op,
        path: &str,
        read: impl Future<Output = Result<(Bytes, u64), RemoteError>>,
    ) -> Result<(Bytes, u64), RemoteError> {
        match self.meet(op, path).await {
            None => read.await,
            Some(fault @ (Fault::Truncated | Fault::Flipped)) => {
                let (bytes, whole) = read.await?;
                Ok((self.damage(bytes, fault), whole))
            }
            Some(fault) => Err(outcome(path, fault)),
        }
    }

    async fn write<T>(
        &self,
        op: Op,
        path: &str,
        write: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        match self.meet(op, path).await {
            None => write.await,
            Some(Fault::LostAfter) => {
                // Whatever became of it, nobody hears.
                let _ = write.await;
                Err(outcome(path, Fault::LostAfter))
            }
            Some(fault) => Err(outcome(path, fault)),
        }
    }
}

fn outcome(path: &str, fault: Fault) -> RemoteError {
    let what = path.to_owned();
    let detail = format!("{fault:?}, as a test asked");
    match fault {
        Fault::Full => RemoteError::Full { what, detail },
        Fault::Denied => RemoteError::Denied { what, detail },
        Fault::Truncated | Fault::Flipped => RemoteError::Corrupt { path: what, detail },
        _ => RemoteError::Unavailable { what, tries: 1, detail },
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

#[async_trait]
impl Remote for Faulty {
    passes_on!(inner: url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        let read = async { Ok((self.inner.get(path).await?, 0)) };
        Ok(self.read(Op::Get, path.as_str(), read).await?.0)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let read = async { Ok((self.inner.get_range(path, span).await?, 0)) };
        Ok(self.read(Op::Get, path.as_str(), read).await?.0)
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.read(Op::Get, path.as_str(), self.inner.get_suffix(path, len)).await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        let read = async { Ok((Bytes::new(), self.inner.size(path).await?)) };
        Ok(self.read(Op::Head, path.as_str(), read).await?.1)
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.write(Op::Put, path.as_str(), self.inner.put(path, bytes)).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        match self.write(Op::PutNew, path.as_str(), self.inner.put_new(path, bytes)).await {
            Err(RemoteError::Unavailable { detail, .. }) if detail.starts_with("Lost") => {
                Err(RemoteError::Unknown { path: path.clone(), detail })
            }
            done => done,
        }
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        self.write(Op::Upload, path.as_str(), self.inner.upload(path, body)).await
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        self.write(Op::List, folder, self.inner.list(folder, after, max)).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let first = paths.first().map(ObjectPath::as_str).unwrap_or_default();
        self.write(Op::Delete, first, self.inner.delete(paths)).await
    }
}
