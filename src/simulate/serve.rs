//! One simulated upstream at work: accepting connections, and one request from its head to its answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::answer::{AnswerBody, Control, Pace, fill_template, json_escaped, stall};
use super::model::Arrival;
use super::raw::{Broken, Handback, LentStream, RawAnswer};
use super::settings::{FaultKind, Upstream};
use super::workers::{Counted, Counters, Held, Workers};

/// Connections of one upstream at once; further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// A request's head and its body must have arrived after this time each.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A body up to this size goes to the kernel in one step, whoever reads it: its worker is free when the latency is over.
/// A larger one keeps its worker until it is sent.
const SENT_AT_ONCE: usize = 64 * 1024;
/// The pause after a failed accept: a shortage of descriptors does not end by asking again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// One upstream, shared by its connections.
#[derive(Debug)]
pub struct Server {
    pub upstream: Arc<Upstream>,
    pub workers: Arc<Workers>,
    pub counters: Arc<Counters>,
}

/// Serves every connection at once; ends only by being dropped, which ends its connections too.
pub async fn serve_concurrently(server: Arc<Server>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = acquire(&places).await;
        let stream = accept(&server, &listener).await;
        let server = Arc::clone(&server);
        connections.spawn(async move {
            serve_connection(&server, stream, true).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection after the other, as a synchronous server does: `queue` more are accepted and wait unread.
///
/// Each connection carries one request (Python's `http.server` speaks HTTP/1.0 by default): with keep-alive, the
/// first client could keep all others out for as long as it liked.
pub async fn serve_one_at_a_time(server: Arc<Server>, listener: TcpListener, queue: usize) {
    let places = Arc::new(Semaphore::new(queue.saturating_add(1).min(MAX_CONNECTIONS)));
    let (waiting, mut next) = mpsc::unbounded_channel::<Waiting>(); // bounded by `places`
    let accept_all = async {
        loop {
            let place = acquire(&places).await;
            let stream = accept(&server, &listener).await;
            let queued = server.counters.enter_queue();
            if waiting.send(Waiting { stream, _queued: queued, place }).is_err() {
                return;
            }
        }
    };
    let serve_all = async {
        while let Some(Waiting { stream, _queued: queued, place }) = next.recv().await {
            drop(queued);
            let in_service = server.counters.enter_service();
            serve_connection(&server, stream, false).await;
            drop((in_service, place));
        }
    };
    tokio::join!(accept_all, serve_all);
}

/// A connection that the only worker has not come to.
struct Waiting {
    stream: TcpStream,
    _queued: Counted,
    place: OwnedSemaphorePermit,
}

async fn acquire(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")
}

async fn accept(server: &Server, listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                server.counters.accepted.fetch_add(1, Ordering::Relaxed);
                return stream;
            }
            Err(error) => {
                tracing::warn!(upstream = server.upstream.name, %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(server: &Arc<Server>, stream: TcpStream, keep_alive: bool) {
    // Without it, a dripped body would arrive in lumps.
    let _ = stream.set_nodelay(true);
    let handback = Arc::new(Handback::default());
    let io = TokioIo::new(LentStream::new(stream, Arc::clone(&handback)));
    let service = service_fn(|request| answer(Arc::clone(server), Arc::clone(&handback), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().keep_alive(keep_alive).timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let builder = if keep_alive { builder } else { builder.http1_only() };
    // An error means a client that left or a fault that was wanted; neither is anyone's business here.
    let _ = builder.serve_connection(io, service).await;
    if let Some((answer, held, stream)) = handback.take() {
        let _: io::Result<()> = answer.send(stream).await;
        drop(held);
    }
}

/// One request: read it, wait for a worker, hold it for its latency, answer as drawn.
async fn answer(
    server: Arc<Server>,
    handback: Arc<Handback>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Broken> {
    let upstream = &*server.upstream;
    let number = server.counters.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    discard(body).await?;
    let control = match control(upstream, &head) {
        Ok(control) => control,
        Err(problem) => return Ok(plain(StatusCode::BAD_REQUEST, &problem)),
    };
    let keeps_worker = upstream.body_size > SENT_AT_ONCE;
    let Ok(mut held) = server.workers.enter(Arrival { number, hold: control.delay, keeps_worker }) else {
        return Ok(refusal());
    };
    let drawn = held.over().await.draw;
    let status = control.status.unwrap_or(drawn.status);
    let text = body_text(upstream, head.uri.path(), number);
    match drawn.fault {
        None => Ok(respond(status, headers(upstream), AnswerBody::padded(text, upstream.body_size, Some(held)))),
        Some(fault) => {
            let wrong = Wrong { fault, status, headers: headers(upstream), body: filled(&text, upstream.body_size) };
            wrong.answer(head.version, &handback, held).await
        }
    }
}

/// An answer with a fault.
struct Wrong {
    fault: FaultKind,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Wrong {
    async fn answer(self, version: Version, handback: &Handback, held: Held) -> Result<Response<AnswerBody>, Broken> {
        let Self { fault, status, headers, mut body } = self;
        if let Some(raw) = RawAnswer::for_fault(fault, status, &headers, &body) {
            if version < Version::HTTP_2 {
                handback.set_answer(raw, held);
                return Err(Broken);
            }
            if !matches!(fault, FaultKind::SlowHead { .. }) {
                return Err(Broken);
            }
            tokio::time::sleep(raw.time_of_head()).await;
        }
        let pace = match fault {
            FaultKind::Drip { bytes, interval } => Pace::Drip { bytes: bytes.get(), interval },
            FaultKind::StallMidBody => Pace::StallMidway,
            FaultKind::StallBeforeHead => {
                stall().await;
                return Err(Broken);
            }
            FaultKind::BadJson => {
                body.truncate(body.len() / 2);
                Pace::AtOnce
            }
            _ => Pace::AtOnce,
        };
        Ok(respond(status, headers, AnswerBody::new(body, pace, Some(held))))
    }
}

/// Reads the request's body, as an application does before it works.
async fn discard(mut body: Incoming) -> Result<(), Broken> {
    let read = async {
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| Broken)?;
        }
        Ok(())
    };
    tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| Broken)?
}

fn control(upstream: &Upstream, head: &Parts) -> Result<Control, String> {
    if upstream.allow_control { Control::parse(head.uri.query(), &head.headers) } else { Ok(Control::default()) }
}

fn body_text(upstream: &Upstream, path: &str, n: u64) -> Bytes {
    let is_json = upstream.content_type.as_bytes().ends_with(b"json");
    let (name, path) = if is_json {
        (json_escaped(&upstream.name), json_escaped(path))
    } else {
        (upstream.name.clone(), path.to_owned())
    };
    Bytes::from(fill_template(&upstream.body, &name, &path, n))
}

/// The whole body in one piece, as faults need it.
fn filled(text: &Bytes, size: usize) -> Bytes {
    if text.len() >= size {
        return text.clone();
    }
    let mut body = text.to_vec();
    body.resize(size, b' ');
    Bytes::from(body)
}

fn headers(upstream: &Upstream) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, upstream.content_type.clone())])
}

fn respond(status: StatusCode, headers: HeaderMap, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn plain(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    respond(status, headers, AnswerBody::new(Bytes::from(format!("{text}\n")), Pace::AtOnce, None))
}

fn refusal() -> Response<AnswerBody> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "the simulated server's queue is full");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
