//! An upstream that behaves by the path it is asked for, over HTTP/1.1 or HTTP/2 in the clear: for what scripts of
//! bytes cannot say.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

type Body = BoxBody<Bytes, io::Error>;

/// A running server; stops, with its connections, when dropped.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    accepted: AtomicUsize,
    /// Requests whose handler or answer has not ended.
    running: AtomicUsize,
    requests: AtomicUsize,
    /// What `/healthz` answers.
    health: AtomicU16,
    fields: Mutex<http::HeaderMap>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen {
            accepted: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            health: AtomicU16::new(200),
            fields: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    pub fn running(&self) -> usize {
        self.seen.running.load(Ordering::Relaxed)
    }

    /// Requests so far, health checks apart.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    pub fn set_health(&self, status: u16) {
        self.seen.health.store(status, Ordering::Relaxed);
    }

    /// A field of the last request.
    pub fn field(&self, name: &str) -> Option<String> {
        let fields = self.seen.fields.lock().expect("no holder panics");
        fields.get(name).map(|value| value.to_str().expect("plain text").to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("loopback connections can be accepted");
        seen.accepted.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let seen = Arc::clone(&seen);
                async move { Ok::<_, Infallible>(answer(request, seen).await) }
            });
            // An error means that the peer has gone.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Counts a request while its handler runs and its body is not complete.
struct Running(Arc<Seen>);

impl Running {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Response<Body> {
    if request.uri().path() == "/healthz" {
        return with_status(seen.health.load(Ordering::Relaxed), "");
    }
    let running = Running::new(&seen);
    seen.requests.fetch_add(1, Ordering::Relaxed);
    *seen.fields.lock().expect("no holder panics") = request.headers().clone();
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/stall" => std::future::pending().await,
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            with_status(200, "ok")
        }
        "/drip" => Response::new(drip(running, usize::MAX)),
        "/silent" => Response::new(drip(running, 2)),
        "/reset" => Response::new(broken()),
        "/trailers" => Response::new(with_trailers()),
        "/large" => with_status(200, &"x".repeat(20 * 1024)),
        "/error" => with_status(500, "failed"),
        "/read" => {
            let length = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
            with_status(200, &length.to_string())
        }
        "/unread" => {
            // Holds the request's body without reading it.
            let _body = request.into_body();
            std::future::pending().await
        }
        _ => with_status(200, "ok"),
    }
}

fn with_status(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(status).expect("a valid status");
    response
}

/// A byte each 100 ms, so many; then silence.
fn drip(running: Running, count: usize) -> Body {
    let bytes = stream::unfold((running, 0), move |(running, sent)| async move {
        if sent == count {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), (running, sent + 1)))
    });
    BodyExt::boxed(StreamBody::new(Box::pin(bytes) as std::pin::Pin<Box<dyn stream::Stream<Item = _> + Send + Sync>>))
}

/// Five bytes, then the stream or connection breaks.
fn broken() -> Body {
    let frames = stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        match sent {
            0 => Some((Ok(Frame::data(Bytes::from_static(b"hello"))), 1)),
            _ => Some((Err(io::Error::other("broken on purpose")), 2)),
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(frames) as std::pin::Pin<Box<dyn stream::Stream<Item = _> + Send + Sync>>))
}

fn with_trailers() -> Body {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("7"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"ok"))), Ok(Frame::trailers(trailers))];
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}
