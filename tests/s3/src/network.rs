//! A network: some milliseconds away, as wide as it is said to be, down when it is told to, and with whatever weather it is given. What
//! goes through it is counted, and so is what befell it. Requests are real ones, to a real server; some of their answers are not.

use crate::http::{Body, Head};
use crate::weather::{Fate, Sky};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

pub use crate::weather::{Fault, Weather};

/// Bytes read at once.
const BUFFER: usize = 64 << 10;
/// Buffers under way in one direction of one connection: a fat pipe.
const UNDER_WAY: usize = 1024;
/// What chance begins with, where nobody says otherwise.
const SEED: u64 = 1;

/// One gigabit a second, as a small machine in a data centre has.
pub const GIGABIT: u64 = 125_000_000;

/// A way to or from the server, shared by all connections.
#[derive(Debug)]
struct Link(Mutex<Width>);

#[derive(Debug)]
struct Width {
    delay: Duration,
    bytes_per_second: Option<u64>,
    free_from: Instant,
}

impl Link {
    fn new(delay: Duration, bytes_per_second: Option<u64>) -> Self {
        Self(Mutex::new(Width { delay, bytes_per_second, free_from: Instant::now() }))
    }

    fn becomes(&self, delay: Duration, bytes_per_second: Option<u64>) {
        *self.0.lock().unwrap() = Width { delay, bytes_per_second, free_from: Instant::now() };
    }

    /// When so many bytes that come now arrive.
    fn due(&self, bytes: usize) -> Instant {
        let mut width = self.0.lock().unwrap();
        let now = Instant::now();
        if let Some(bytes_per_second) = width.bytes_per_second {
            let took = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
            width.free_from = now.max(width.free_from) + took;
            return width.free_from + width.delay;
        }
        now + width.delay
    }
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that write.
    pub writes: u64,
    /// Requests that read.
    pub reads: u64,
    /// Bytes from clients.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
}

#[derive(Debug, Default)]
struct Meter {
    writes: AtomicU64,
    reads: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    fn asked(&self, request: &Head) {
        let writes = matches!(request.method(), "PUT" | "POST" | "DELETE");
        let counter = if writes { &self.writes } else { &self.reads };
        counter.fetch_add(1, Ordering::Relaxed);
        self.sent(request.bytes());
    }

    fn sent(&self, bytes: &[u8]) {
        self.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    fn came(&self, bytes: &[u8]) {
        self.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// What all connections share.
#[derive(Debug)]
struct Network {
    target: String,
    up: Link,
    down: Link,
    meter: Meter,
    sky: Sky,
}

/// Forwards requests; whatever comes from the server arrives later by the link's delay and width.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    network: Arc<Network>,
    is_down: watch::Sender<bool>,
}

impl Proxy {
    /// Forwards to `target`, as `host:port`.
    pub async fn start(target: String, delay: Duration, bytes_per_second: Option<u64>) -> Self {
        let network = Arc::new(Network {
            target,
            up: Link::new(Duration::ZERO, None),
            down: Link::new(delay, bytes_per_second),
            meter: Meter::default(),
            sky: Sky::new(SEED),
        });
        let (is_down, down) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = network.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *down.borrow() {
                    continue;
                }
                let network = shared.clone();
                tokio::spawn(until_down(down.clone(), async move {
                    // How a connection ends is the business of its two ends.
                    let _ = network.connect(client).await;
                }));
            }
        });
        Self { address, accepting, network, is_down }
    }

    /// Cuts all connections and takes no more, or lets them in again.
    pub fn is_down(&self, is_down: bool) {
        self.is_down.send_replace(is_down);
    }

    /// From now on it is so far, and so wide in each direction.
    pub fn far(&self, delay: Duration, bytes_per_second: Option<u64>) {
        self.network.up.becomes(Duration::ZERO, bytes_per_second);
        self.network.down.becomes(delay, bytes_per_second);
    }

    /// From now on this befalls requests.
    pub fn weather(&self, weather: Weather) {
        self.network.sky.becomes(weather);
    }

    /// What decides which.
    pub fn seed(&self, seed: u64) {
        self.network.sky.seed(seed);
    }

    /// What befell how many.
    pub fn befell(&self) -> BTreeMap<Fault, u64> {
        self.network.sky.befell()
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Meter { writes, reads, up, down } = &self.network.meter;
        Traffic { writes: read(writes), reads: read(reads), up: read(up), down: read(down) }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.is_down.send_replace(true);
    }
}

async fn until_down(mut down: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = down.wait_for(|is_down| *is_down) => {}
    }
}

/// The way back to a client: what is written arrives when it is due.
struct Back<'a> {
    network: &'a Network,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Back<'_> {
    async fn say(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.network.meter.came(&bytes);
        let due = self.network.down.due(bytes.len());
        self.sender.send((due, bytes)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn written(
    mut to: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
) -> io::Result<OwnedWriteHalf> {
    while let Some((due, bytes)) = receiver.recv().await {
        sleep_until(due).await;
        to.write_all(&bytes).await?;
    }
    Ok(to)
}

/// How a connection goes on after a request.
enum Then {
    /// With the next one.
    On,
    /// It is closed, after what was said has arrived.
    Closed,
    /// It is reset, after what was said has arrived.
    Reset,
}

impl Network {
    async fn connect(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let mut from_client = BufReader::with_capacity(BUFFER, from_client);
        let mut from_server = BufReader::with_capacity(BUFFER, from_server);
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        let back = Back { network: self, sender };
        let conversation = async move {
            let then = loop {
                tokio::select! {
                    more = from_client.fill_buf() => if !more.is_ok_and(|more| !more.is_empty()) { break Then::Closed },
                    // It closes a connection that rests, or says what nobody asked.
                    _ = from_server.fill_buf() => break Then::Closed,
                }
                match self.exchange(&mut from_client, &mut to_server, &mut from_server, &back).await {
                    Ok(Then::On) => {}
                    Ok(then) => break then,
                    Err(_) => break Then::Closed,
                }
            };
            // Nothing more is said; what was said is still under way. The half that was read from goes with the other one.
            drop(back);
            (then, from_client)
        };
        let ((then, _from_client), to_client) = tokio::join!(conversation, written(to_client, receiver));
        let mut to_client = to_client?;
        match then {
            // Whatever is unread or unsent is thrown away, and the peer is told so.
            Then::Reset => to_client.as_ref().set_zero_linger()?,
            // The peer is told that nothing more comes; that it has gone already is no news.
            Then::On | Then::Closed => drop(to_client.shutdown().await),
        }
        Ok(())
    }

    async fn exchange(
        &self,
        from_client: &mut (impl AsyncBufRead + Unpin),
        to_server: &mut OwnedWriteHalf,
        from_server: &mut (impl AsyncBufRead + Unpin),
        back: &Back<'_>,
    ) -> io::Result<Then> {
        let Some(request) = Head::read(from_client).await? else { return Ok(Then::Closed) };
        self.meter.asked(&request);
        let fate = self.sky.fate(&request);
        let mut sent = request.request_body();
        if let Some(fault) = fate.fault.filter(|fault| !fault.is_done()) {
            let answer = answer(&request, fate);
            self.sky.count(fault);
            let Some(answer) = answer else { return Ok(Then::Reset) };
            while let Some(piece) = sent.next(from_client).await? {
                self.meter.sent(&piece);
                sleep_until(self.up.due(piece.len())).await;
            }
            back.say(answer).await?;
            return Ok(Then::On);
        }
        sleep(fate.late).await;
        let asking = async {
            to_server.write_all(request.bytes()).await?;
            while let Some(piece) = sent.next(from_client).await? {
                self.meter.sent(&piece);
                sleep_until(self.up.due(piece.len())).await;
                to_server.write_all(&piece).await?;
            }
            Ok(())
        };
        let ((), then) = tokio::try_join!(asking, self.answered(&request, fate, from_server, back))?;
        Ok(then)
    }

    async fn answered(
        &self,
        request: &Head,
        fate: Fate,
        from_server: &mut (impl AsyncBufRead + Unpin),
        back: &Back<'_>,
    ) -> io::Result<Then> {
        let head = loop {
            let Some(head) = Head::read(from_server).await? else { return Ok(Then::Closed) };
            if !(100..=199).contains(&head.status()) {
                break head;
            }
            back.say(head.bytes().to_vec()).await?;
        };
        let mut body = head.answer_body(request.method());
        let is_good = (200..=299).contains(&head.status());
        match fate.fault {
            Some(fault @ (Fault::DoneAndReset | Fault::DoneAndFailed | Fault::DoneAndSlowDown)) if is_good => {
                while body.next(from_server).await?.is_some() {}
                self.sky.count(fault);
                match answer(request, fate) {
                    Some(answer) => back.say(answer).await?,
                    None => return Ok(Then::Reset),
                }
                return Ok(Then::On);
            }
            Some(Fault::Truncated) if is_good && body.length().is_some_and(|length| length > 1) => {
                self.sky.count(Fault::Truncated);
                return cut(head, body, from_server, back).await;
            }
            Some(Fault::Late) => self.sky.count(Fault::Late),
            _ => {}
        }
        back.say(head.bytes().to_vec()).await?;
        while let Some(piece) = body.next(from_server).await? {
            back.say(piece).await?;
        }
        Ok(if body.ends_the_connection() { Then::Closed } else { Then::On })
    }
}

/// Half of a body, under a head that promises all of it.
async fn cut(
    head: Head,
    mut body: Body,
    from_server: &mut (impl AsyncBufRead + Unpin),
    back: &Back<'_>,
) -> io::Result<Then> {
    let mut left = body.length().unwrap_or_default() / 2;
    back.say(head.bytes().to_vec()).await?;
    while left > 0
        && let Some(mut piece) = body.next(from_server).await?
    {
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= piece.len() as u64;
        back.say(piece).await?;
    }
    Ok(Then::Closed)
}

/// The answer that is given in place of the server's; `None` where the connection is reset instead.
fn answer(request: &Head, fate: Fate) -> Option<Vec<u8>> {
    let (status, code, message) = fate.fault?.answer(fate.nth)?;
    let document = match code {
        "" => String::new(),
        code => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        ),
    };
    let again = match fate.retry_after {
        Some(seconds) if matches!(status, 429 | 503) => format!("Retry-After: {seconds}\r\n"),
        _ => String::new(),
    };
    let document = if request.method() == "HEAD" { "" } else { document.as_str() };
    let len = document.len();
    let head =
        format!("HTTP/1.1 {status} Weather\r\nContent-Type: application/xml\r\n{again}Content-Length: {len}\r\n\r\n");
    Some([head.as_bytes(), document.as_bytes()].concat())
}
