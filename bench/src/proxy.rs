//! A network that is as fast as the machine and 30 ms away.

use std::net::SocketAddr;
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

/// Forwards connections; whatever comes from the server arrives `delay` later. Throughput is not bounded.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, as `host:port`.
    pub async fn start(target: String, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, Duration::ZERO));
                tokio::spawn(forward(from_server, to_client, delay));
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

async fn forward(mut from: impl AsyncReadExt + Unpin + Send + 'static, mut to: impl AsyncWriteExt + Unpin + Send + 'static, delay: Duration) {
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
        if len == 0 || sender.send((Instant::now() + delay, buffer[..len].to_vec())).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writing.await;
}
