//! A network: some milliseconds away, and as wide as it is said to be.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes read at once.
const BUFFER: usize = 64 << 10;
/// Buffers under way in one direction of one connection: a fat pipe.
const UNDER_WAY: usize = 1024;

/// One gigabit a second, as a small machine in a data centre has.
pub const GIGABIT: u64 = 125_000_000;

/// The way back from the server, shared by all connections.
#[derive(Debug)]
struct Link {
    delay: Duration,
    bytes_per_second: Option<u64>,
    free_from: Mutex<Instant>,
}

impl Link {
    /// When so many bytes that come now arrive.
    fn due(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(width) = self.bytes_per_second else { return now + self.delay };
        let mut free_from = self.free_from.lock().unwrap();
        *free_from = now.max(*free_from) + Duration::from_secs_f64(bytes as f64 / width as f64);
        *free_from + self.delay
    }
}

/// Forwards connections; whatever comes from the server arrives later by the link's delay and width.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, as `host:port`.
    pub async fn start(target: String, delay: Duration, bytes_per_second: Option<u64>) -> Self {
        let link = Arc::new(Link { delay, bytes_per_second, free_from: Mutex::new(Instant::now()) });
        let open =
            Arc::new(Link { delay: Duration::ZERO, bytes_per_second: None, free_from: Mutex::new(Instant::now()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, open.clone()));
                tokio::spawn(forward(from_server, to_client, link.clone()));
            }
        });
        Self { address, accepting }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    link: Arc<Link>,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let writing = tokio::spawn(async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The peer is told that nothing more comes; that it has gone already is no news.
        let _ = to.shutdown().await;
    });
    let mut buffer = vec![0; BUFFER];
    while let Ok(len) = from.read(&mut buffer).await {
        if len == 0 || sender.send((link.due(len), buffer[..len].to_vec())).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writing.await;
}
