//! The network and the object store behind it: latency, loss, reordering, answers that never come, and writes that land when
//! nobody waits for them any more. All drawn from the seed.

use crate::chance::Chance;
use crate::mutation::Lies;
use crate::oracle::Oracle;
use crate::process::{Event, Process};
use crate::time::DAY_MS;
use crate::trace::Trace;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use littoral_format::hash::crc64;
use littoral_ports::{BlobBody, Clock, MemoryRemote, ObjectMeta, Remote, RemoteError};
use littoral_remote::Op;
use littoral_types::{ByteSpan, ObjectPath};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// What a caller waits for an answer before it gives up.
const PATIENCE_MS: u64 = 30_000;

/// How bad the network is; chances in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// One way, at most.
    pub latency_ms_max: u64,
    /// Nothing is sent.
    pub not_sent: u64,
    /// What was sent is lost on the way.
    pub lost_before: u64,
    /// What was sent lands, now or much later, and nobody hears of it.
    pub lost_after: u64,
    /// The whole process stands still for days, before it sends or before it hears.
    pub stopped: u64,
}

impl Weather {
    /// All is well.
    pub const CALM: Weather = Weather { latency_ms_max: 20, not_sent: 0, lost_before: 0, lost_after: 0, stopped: 0 };

    /// What a seed draws for a while.
    pub fn drawn(chance: &Chance) -> Self {
        let bad = |share: u64, most: u64| if chance.per_mille(share) { chance.between(1, most) } else { 0 };
        Self {
            latency_ms_max: if chance.per_mille(200) { 5_000 } else { 40 },
            not_sent: bad(400, 30),
            lost_before: bad(400, 30),
            lost_after: bad(500, 60),
            stopped: bad(300, 4),
        }
    }
}

/// Requests that are held back until a test lets them go.
struct Gate {
    machine: String,
    op: Op,
    part: String,
    when: When,
    arrived: Option<oneshot::Sender<()>>,
    release: Option<oneshot::Receiver<()>>,
}

/// What a test has become of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is sent.
    NotSent,
    /// It is lost on the way.
    Before,
    /// It is done after so many milliseconds, and nobody hears of it.
    After(u64),
}

/// On which side of the store a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the store sees it.
    Before,
    /// After: it is done, and its answer is on the way.
    After,
}

/// A test's hand on one request.
#[derive(Debug)]
pub struct Held {
    arrived: Option<oneshot::Receiver<()>>,
    release: Option<oneshot::Sender<()>>,
}

impl Held {
    /// Returns when the request is there. False when it never will be: a month without it is never.
    pub async fn arrived(&mut self) -> bool {
        match self.arrived.take() {
            Some(arrived) => matches!(timeout(ms(30 * DAY_MS), arrived).await, Ok(Ok(()))),
            None => true,
        }
    }

    /// Lets it go on.
    pub fn release(mut self) {
        if let Some(release) = self.release.take() {
            // Whoever was held may be dead.
            let _ = release.send(());
        }
    }
}

/// The object store and the way to it.
pub struct Net {
    /// What the store holds.
    pub server: MemoryRemote,
    /// Who watches.
    pub oracle: Arc<Oracle>,
    trace: Arc<Trace>,
    chance: Chance,
    state: Mutex<State>,
    lies: Mutex<Lies>,
}

#[derive(Default)]
struct State {
    weather: Weather,
    gates: Vec<Gate>,
    losses: Vec<(String, Op, String, Loss)>,
    counts: BTreeMap<(String, Op), u64>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Net({:?})", self.server)
    }
}

/// What befalls one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    NotSent,
    LostBefore,
    LostAfter,
}

struct Plan {
    fate: Fate,
    there_ms: u64,
    back_ms: u64,
    stopped_before_ms: u64,
    stopped_after_ms: u64,
}

impl Net {
    /// An empty store in calm weather.
    pub fn new(oracle: Arc<Oracle>, trace: Arc<Trace>, clock: Arc<dyn Clock>, chance: Chance) -> Arc<Self> {
        let state = State { weather: Weather::CALM, ..State::default() };
        Arc::new(Self {
            server: MemoryRemote::with_clock("sim", clock),
            oracle,
            trace,
            chance,
            state: Mutex::new(state),
            lies: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lies(&self) -> MutexGuard<'_, Lies> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Holds the next request of this machine of this kind whose path has this part.
    pub fn hold(&self, machine: &str, op: Op, part: &str, when: When) -> Held {
        let (arrive, arrived) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.state().gates.push(Gate {
            machine: machine.to_owned(),
            op,
            part: part.to_owned(),
            when,
            arrived: Some(arrive),
            release: Some(released),
        });
        Held { arrived: Some(arrived), release: Some(release) }
    }

    /// The next request of this machine of this kind whose path has this part is lost.
    pub fn lose(&self, machine: &str, op: Op, part: &str, loss: Loss) {
        self.state().losses.push((machine.to_owned(), op, part.to_owned(), loss));
    }

    fn loss(&self, machine: &str, op: Op, path: &str) -> Option<Loss> {
        let mut state = self.state();
        let meant = |(who, what, part, _): &(String, Op, String, Loss)| {
            who == machine && *what == op && path.contains(part.as_str())
        };
        let at = state.losses.iter().position(meant)?;
        Some(state.losses.remove(at).3)
    }

    /// Requests of a machine so far, by kind; of all machines for an empty name.
    pub fn requests(&self, machine: &str) -> BTreeMap<Op, u64> {
        let mut counts = BTreeMap::new();
        for ((who, op), count) in &self.state().counts {
            if machine.is_empty() || who == machine {
                *counts.entry(*op).or_default() += count;
            }
        }
        counts
    }

    async fn gate(&self, process: &Process, op: Op, path: &str, when: When) {
        let held = {
            let machine = process.name.split('.').next().unwrap_or_default();
            let mut state = self.state();
            let at = state.gates.iter().position(|gate| {
                gate.machine == machine && gate.op == op && gate.when == when && path.contains(&gate.part)
            });
            at.map(|at| state.gates.remove(at))
        };
        let Some(mut gate) = held else { return };
        if let Some(arrived) = gate.arrived.take() {
            // The test may have lost interest.
            let _ = arrived.send(());
        }
        if let Some(release) = gate.release.take() {
            let _ = release.await;
        }
    }

    fn plan(&self, op: Op) -> Plan {
        let weather = self.state().weather;
        let chance = &self.chance;
        let fate = match chance.between(0, 1000) {
            drawn if drawn < weather.not_sent => Fate::NotSent,
            drawn if drawn < weather.not_sent + weather.lost_before => Fate::LostBefore,
            drawn if drawn < weather.not_sent + weather.lost_before + weather.lost_after => Fate::LostAfter,
            _ => Fate::Well,
        };
        let stopped_ms = |share: u64| if chance.per_mille(share) { chance.between(DAY_MS / 8, 4 * DAY_MS) } else { 0 };
        let stopped = if op == Op::Get || op == Op::List { 0 } else { weather.stopped };
        let there_ms = match fate {
            // What nobody waits for any more may lie in a buffer for long.
            Fate::LostAfter if chance.per_mille(300) => chance.between(0, 20 * 60_000),
            _ => chance.between(0, weather.latency_ms_max + 1),
        };
        Plan {
            fate,
            there_ms,
            back_ms: chance.between(0, weather.latency_ms_max + 1),
            stopped_before_ms: stopped_ms(stopped),
            stopped_after_ms: stopped_ms(stopped),
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The object store as one process sees it.
#[derive(Clone, Debug)]
pub struct SimRemote {
    net: Arc<Net>,
    process: Arc<Process>,
}

impl SimRemote {
    /// What this process talks to.
    pub fn new(net: Arc<Net>, process: Arc<Process>) -> Self {
        Self { net, process }
    }

    fn what(op: Op, path: &str, detail: &str) -> RemoteError {
        RemoteError::Unavailable { what: path.to_owned(), tries: 1, detail: format!("{}: {detail}", op.word()) }
    }

    /// One request: there, done, and back. What is done is done by the store, whatever becomes of the caller.
    async fn request<T: Send + 'static>(
        &self,
        op: Op,
        path: &str,
        serve: impl FnOnce(&Net) -> Result<T, RemoteError> + Send + 'static,
        shown: impl Fn(&T) -> String + Send + 'static,
    ) -> Result<T, RemoteError> {
        let process = &self.process;
        if process.is_alive() && process.meets(Event::BeforeRequest) {
            process.kill(&format!("before {} {path}", op.word()));
        }
        if !process.is_alive() {
            // The dead send nothing, and whoever waits for them is dropped.
            futures::future::pending::<()>().await;
        }
        if op != Op::PutNew && op != Op::Upload {
            self.net.before_request(&process.name);
        }
        self.net.gate(process, op, path, When::Before).await;
        let mut plan = self.net.plan(op);
        let machine = process.name.split('.').next().unwrap_or_default().to_owned();
        match self.net.loss(&machine, op, path) {
            Some(Loss::NotSent) => plan.fate = Fate::NotSent,
            Some(Loss::Before) => plan.fate = Fate::LostBefore,
            Some(Loss::After(ms)) => (plan.fate, plan.there_ms) = (Fate::LostAfter, ms),
            None => {}
        }
        *self.net.state().counts.entry((machine, op)).or_default() += 1;
        if plan.stopped_before_ms > 0 {
            self.net.trace.line(&process.name, format_args!("stopped for {} ms", plan.stopped_before_ms));
            sleep(ms(plan.stopped_before_ms)).await;
        }
        let timed_out = |fate: &str| Self::what(op, path, fate);
        let lines = (self.net.clone(), process.name.clone(), path.to_owned());
        let run = async move {
            let (net, who, path) = lines;
            sleep(ms(plan.there_ms)).await;
            let served = serve(&net);
            let outcome = match &served {
                Ok(answer) => shown(answer),
                Err(error) => error.to_string(),
            };
            net.trace.line(&who, format_args!("{} {path}: {outcome}", op.word()));
            served
        };
        let answer = match plan.fate {
            Fate::NotSent => {
                sleep(ms(plan.back_ms)).await;
                return Err(timed_out("nothing was sent"));
            }
            Fate::LostBefore => {
                sleep(ms(PATIENCE_MS)).await;
                return Err(timed_out("Lost before it landed"));
            }
            Fate::Well | Fate::LostAfter => tokio::spawn(run),
        };
        if process.meets(Event::AfterRequest) {
            process.kill(&format!("after sending {} {path}", op.word()));
            futures::future::pending::<()>().await;
        }
        if plan.fate == Fate::LostAfter {
            sleep(ms(PATIENCE_MS)).await;
            return Err(timed_out("Lost after it was sent"));
        }
        let answer = answer.await.unwrap_or_else(|error| Err(timed_out(&error.to_string())));
        sleep(ms(plan.back_ms + plan.stopped_after_ms)).await;
        self.net.gate(process, op, path, When::After).await;
        answer
    }

    async fn read(
        &self,
        path: &ObjectPath,
        read: impl FnOnce(&Net, &ObjectPath) -> Result<(Bytes, u64), RemoteError> + Send + 'static,
    ) -> Result<(Bytes, u64), RemoteError> {
        let own = path.clone();
        self.request(
            Op::Get,
            path.as_str(),
            move |net| read(net, &own),
            |(bytes, _)| format!("{} bytes, {:016x}", bytes.len(), crc64(bytes)),
        )
        .await
    }

    async fn write(&self, op: Op, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        let (own, who) = (path.clone(), self.process.name.clone());
        let shown = format!("wrote {} bytes, {:016x}", bytes.len(), crc64(&bytes));
        let serve = move |net: &Net| {
            let written = match op {
                Op::PutNew if !net.goes_over(&who, &own) => now(net.server.put_new(&own, bytes.clone())),
                _ => now(net.server.put(&own, bytes.clone())),
            };
            if written.is_ok() {
                net.oracle.wrote(&net.server, &own, &bytes, &who);
            }
            written
        };
        self.request(op, path.as_str(), serve, move |()| shown.clone()).await
    }
}

/// The answer of a store in memory, which never waits.
pub(crate) fn now<T>(answer: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
    let waits = || Err(RemoteError::Settings("a store in memory waited".to_owned()));
    answer.now_or_never().unwrap_or_else(waits)
}

#[async_trait]
impl Remote for SimRemote {
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        Ok(self.read(path, |net, path| now(net.server.get(path)).map(|bytes| (bytes, 0))).await?.0)
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        let read = move |net: &Net, path: &ObjectPath| now(net.server.get_range(path, span)).map(|bytes| (bytes, 0));
        Ok(self.read(path, read).await?.0)
    }

    async fn get_suffix(&self, path: &ObjectPath, len: u64) -> Result<(Bytes, u64), RemoteError> {
        self.read(path, move |net, path| now(net.server.get_suffix(path, len))).await
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, RemoteError> {
        let own = path.clone();
        self.request(Op::Head, path.as_str(), move |net| now(net.server.size(&own)), u64::to_string).await
    }

    async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.write(Op::Put, path, bytes).await
    }

    async fn put_new(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), RemoteError> {
        self.net.before_put_new(&self.process.name, path, &bytes);
        match self.write(Op::PutNew, path, bytes).await {
            Err(RemoteError::Unavailable { detail, .. }) if detail.contains("Lost") => {
                Err(RemoteError::Unknown { path: path.clone(), detail })
            }
            done => done,
        }
    }

    async fn upload(&self, path: &ObjectPath, body: &dyn BlobBody) -> Result<(), RemoteError> {
        let unreadable = |error| RemoteError::unreadable(path, &error);
        let whole = body.read(ByteSpan { offset: 0, len: body.len() }).map_err(unreadable)?;
        if crc64(&whole) != body.crc64() {
            return Err(RemoteError::changed_before_upload(path));
        }
        let bytes = BytesMut::from(&whole[..]).freeze();
        if self.net.uploads_later(&self.process.name, path, &bytes) {
            return Ok(());
        }
        self.write(Op::Upload, path, bytes).await?;
        self.net.uploaded(&self.process.name, path);
        Ok(())
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        let (own, after) = (folder.to_owned(), after.cloned());
        let (who, is_newest) = (self.process.name.clone(), after.is_none());
        let serve = move |net: &Net| {
            let listed = match net.shows(&who, &own) {
                Some(shown) => shown,
                None => now(net.server.list(&own, after.as_ref(), max))?,
            };
            if is_newest {
                net.looked(&who, &own, &listed);
            }
            Ok(listed)
        };
        self.request(Op::List, folder, serve, |listed| format!("{} names", listed.len())).await
    }

    async fn delete(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        // A store deletes many names one after another: a failure may leave any part of the work done.
        let mut paths = paths.to_vec();
        let part = self.net.chance.between(0, paths.len() as u64 + 1) as usize;
        if self.net.chance.per_mille(500) {
            paths.reverse();
        }
        let rest = paths.split_off(part.min(paths.len()));
        for some in [paths, rest] {
            let Some(first) = some.first().cloned() else { continue };
            let who = self.process.name.clone();
            let shown = some.iter().map(ObjectPath::as_str).collect::<Vec<_>>().join(" ");
            let serve = move |net: &Net| {
                some.iter().for_each(|path| net.oracle.deletes(path, &who));
                now(net.server.delete(&some))?;
                net.deleted(&some)
            };
            self.request(Op::Delete, first.as_str(), serve, move |()| shown.clone()).await?;
        }
        Ok(())
    }

    fn url(&self) -> String {
        "mem://sim".to_owned()
    }

    fn distrust(&self, _path: &ObjectPath, _wrong_before: usize) -> bool {
        false
    }

    fn copies(&self) -> Vec<Arc<dyn Remote>> {
        Vec::new()
    }
}
