//! Connections: how many, how long, how much.

use super::answer::Answer;
use super::{Server, gate, routes};
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

/// Connections at once; whoever comes beyond is told to come again.
const CONNECTIONS_MAX: usize = 64;
/// Requests that are worked on at once; the others wait for their turn.
const WORK_MAX: usize = 8;
/// And of those that wait for the object store or for work; the others are told to come again, and keep nobody from the metrics.
const WAITING_MAX: usize = 4;
/// A request's head is sent within this time.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// And so is its body.
const BODY_MAX: Duration = Duration::from_secs(10);
/// Bytes of a head, and of a body: none of ours needs one.
const HEAD_BYTES: usize = 16 << 10;
const BODY_BYTES: usize = 4 << 10;
const HEADERS_MAX: usize = 64;
/// A connection begins nothing new after this, and ends after twice as long, whoever reads slowly.
const LIFE: Duration = Duration::from_secs(60);
/// Whoever guesses waits.
const WRONG: Duration = Duration::from_millis(250);
/// SQLite's own code runs on it.
const STACK: usize = 2 << 20;
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 1\r\ncontent-length: 33\r\nconnection: close\r\n\r\ntoo many connections: come again\n";

/// A server at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it answers.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // Whoever broke down in there has been heard of.
            let _ = thread.join();
        }
    }
}

/// Begins to answer, on a thread of its own.
pub fn start(address: SocketAddr, server: impl FnOnce(SocketAddr) -> Server) -> anyhow::Result<Running> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("{address} cannot be listened on"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let server = Arc::new(server(address));
    let (stop, stops) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, server, stops).await,
                Err(error) => tracing::error!(%error, "nobody who watches is answered"),
            }
        });
        // Work that somebody waits for may take long: nobody waits for it now.
        runtime.shutdown_background();
    };
    let thread = std::thread::Builder::new().name("littoral-serve".to_owned()).spawn(run)?;
    Ok(Running { address, stop, thread: Some(thread) })
}

/// Who may work.
#[derive(Clone)]
struct Work {
    quick: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, server: Arc<Server>, mut stops: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let work = Work { quick: Arc::new(Semaphore::new(WORK_MAX)), waiting: Arc::new(Semaphore::new(WAITING_MAX)) };
    loop {
        let accepted = tokio::select! {
            // It fails only when nobody can stop it any more.
            _ = stops.wait_for(|stops| *stops) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptors are left, mostly: those who are here give theirs back.
                tracing::debug!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            let _ = stream.try_write(FULL);
            continue;
        };
        let (server, work) = (server.clone(), work.clone());
        tokio::spawn(async move {
            serve(stream, peer, server, work).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, server: Arc<Server>, work: Work) {
    let service = service_fn(move |request| {
        let (server, work) = (server.clone(), work.clone());
        async move { Ok::<_, Infallible>(respond(request, peer, server, work).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES).max_headers(HEADERS_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let done = tokio::select! {
        done = connection.as_mut() => Some(done),
        () = sleep(LIFE) => None,
    };
    let done = match done {
        Some(done) => done,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(LIFE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = done {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    server: Arc<Server>,
    work: Work,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let method = if is_head { Method::GET } else { head.method };
    let answer = match routes::find(&method, head.uri.path()) {
        Err(refused) => refused,
        Ok((route, rest)) => match gate::refuses(server.token.as_ref(), server.address, route.who, &head.headers) {
            Some(refused) => {
                if route.who == routes::Who::Administrator {
                    tracing::warn!(%peer, path = route.path, status = refused.status.as_u16(), "an administrator's call was refused");
                }
                if refused.status == StatusCode::UNAUTHORIZED {
                    sleep(WRONG).await;
                }
                refused
            }
            None => match understood(route, rest, head.uri.query(), body).await {
                Err(refused) => {
                    if route.who == routes::Who::Administrator {
                        tracing::warn!(%peer, path = route.path, status = refused.status.as_u16(), "an administrator's call was not understood");
                    }
                    refused
                }
                Ok(asked) => {
                    let is_trusted = gate::trusts(server.token.as_ref(), server.address, &head.headers);
                    answered(route, asked.by(is_trusted), peer, server, work).await
                }
            },
        },
    };
    spelled(answer, is_head)
}

/// What is asked for, whole: nothing is done of what is understood in part.
async fn understood(
    route: &'static routes::Route,
    rest: Option<String>,
    query: Option<&str>,
    body: Incoming,
) -> Result<routes::Asked, Answer> {
    let asked = routes::Asked::read(route, rest, query)?;
    let body = timeout(BODY_MAX, Limited::new(body, BODY_BYTES).collect()).await;
    let refuse = |status, text: &str| {
        Answer::refused(status, text, "leave the body out: what there is to say stands in the address")
    };
    match body {
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        Ok(Err(_)) => Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or came cut off")),
        Ok(Ok(body)) => match body.to_bytes().is_empty() {
            true => Ok(asked),
            false => Err(refuse(StatusCode::BAD_REQUEST, "there is a body, and it says nothing here")),
        },
    }
}

/// Files are read and SQLite may be asked: on a thread that may wait.
async fn answered(
    route: &'static routes::Route,
    asked: routes::Asked,
    peer: SocketAddr,
    server: Arc<Server>,
    work: Work,
) -> Answer {
    let broken = || {
        Answer::refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "it broke down inside of littoral: see the log",
            "please report it",
        )
    };
    let turn = if route.waits { work.waiting.try_acquire_owned().ok() } else { work.quick.acquire_owned().await.ok() };
    let Some(turn) = turn else {
        let text = "too many wait for an answer of this kind";
        let refused = Answer::refused(StatusCode::SERVICE_UNAVAILABLE, text, "come again in a moment");
        return refused.with("retry-after", "1".to_owned());
    };
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("littoral-answer".to_owned()).stack_size(STACK);
    let begun = thread.spawn(move || {
        // Whoever asked may have gone.
        let _ = tell.send((route.does)(&server, &asked));
        drop(turn);
    });
    if let Err(error) = begun {
        return Answer::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("no thread can be started: {error}"),
            "come again",
        );
    }
    let answer = told.await.unwrap_or_else(|_| broken());
    if route.who == routes::Who::Administrator {
        tracing::warn!(%peer, path = route.path, status = answer.status.as_u16(), "an administrator called");
    }
    answer
}

fn spelled(answer: Answer, is_head: bool) -> Response<Full<Bytes>> {
    let Answer { status, kind, body, header } = answer;
    let length = body.len();
    let mut response = Response::new(Full::new(if is_head { Bytes::new() } else { Bytes::from(body) }));
    *response.status_mut() = status;
    let all = [
        ("content-type", kind.to_owned()),
        ("content-length", length.to_string()),
        ("cache-control", "no-store".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
        ("x-frame-options", "DENY".to_owned()),
    ];
    for (name, value) in all.into_iter().chain(header) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
