//! How exactly do the foundations keep an absolute deadline? The measurement behind `docs/decisions/0001-data-path.md`.
//!
//! `deadlines upstream --listen A` serves misbehaving HTTP/1.1 answers: `/stall` (no answer), `/drip-head` and `/drip-body`
//! (a byte each second), `/late` (1 KiB after 2 ms: whoever asks has gone to sleep by then, so callgrind's counts repeat).
//! `deadlines http1 --target A` asks a proxy in front of it; `deadlines head --target A` sends a head, a byte each 200 ms.
//! `deadlines http2` needs neither: pingora's HTTP/2 client under `timeout_at` against an in-process hyper server.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use forebay_comparators::{Options, accept_loop, block_on, usage};
use futures_util::future::join_all;
use http_body_util::Either;
use hyper::body::{Body, Frame};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::connectors::http::v2::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval, sleep, timeout, timeout_at};

const RUNS: u32 = 20;
/// Runs start this far apart, so that they do not all fall on the same tick of anybody's timer.
const STAGGER: Duration = Duration::from_millis(37);
const DRIP: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_millis(2);
const LATE_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1024\r\n\
    Last-Modified: Sun, 22 Nov 2026 17:00:00 GMT\r\nETag: \"6742-400\"\r\nAccept-Ranges: bytes\r\n\r\n";
/// What is not over by then counts as "has no bound".
const GIVE_UP: Duration = Duration::from_secs(8);

fn main() -> io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_else(|| usage("a mode is missing"));
    let options = Options::from_args_after(1);
    match mode.as_str() {
        "upstream" => block_on(accept_loop(options.listen(), |stream| async move {
            // The proxy hanging up is how every run ends.
            let _ = misbehave(stream).await;
        })),
        "http1" => block_on(probe_http1(options.require("target"), options.deadline())),
        "head" => block_on(probe_head(options.require("target"), options.head_deadline())),
        "http2" => block_on(probe_http2(options.deadline())),
        other => usage(&format!("`{other}` is not one of upstream, http1, head, http2")),
    }
}

/// One misbehaving HTTP/1.1 answer.
async fn misbehave(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await?;
    let path = String::from_utf8_lossy(&request[..read]);
    if path.starts_with("GET /drip-head ") {
        drip(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
    } else if path.starts_with("GET /drip-body ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n").await?;
        drip(&mut stream, &[b'.'; 30]).await
    } else if path.starts_with("GET /late ") {
        sleep(LATE).await;
        stream.write_all(&[LATE_HEAD.as_bytes(), &[b'.'; 1024]].concat()).await
    } else {
        stream.read(&mut request).await.map(|_| ())
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        sleep(DRIP).await;
        stream.write_all(&[*byte]).await?;
    }
    Ok(())
}

async fn probe_http1(target: SocketAddr, deadline: Duration) -> io::Result<()> {
    for path in ["/stall", "/drip-head", "/drip-body"] {
        let runs = (0..RUNS).map(|run| async move {
            sleep(STAGGER * run).await;
            let started = Instant::now();
            let _ = timeout(GIVE_UP, exchange_http1(target, path)).await;
            started.elapsed()
        });
        report(path, deadline, &join_all(runs).await);
    }
    Ok(())
}

/// Ends with the proxy's answer (504) or when it breaks the connection.
async fn exchange_http1(target: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.read_to_end(&mut Vec::new()).await.map(|_| ())
}

async fn probe_head(target: SocketAddr, deadline: Duration) -> io::Result<()> {
    let runs = (0..RUNS).map(|run| async move {
        sleep(STAGGER * run).await;
        let mut stream = TcpStream::connect(target).await?;
        // The bound counts from the first byte of the head.
        stream.write_all(b"G").await?;
        let started = Instant::now();
        let _ = timeout(GIVE_UP, drip_request(stream)).await;
        Ok(started.elapsed())
    });
    let taken: io::Result<Vec<_>> = join_all(runs).await.into_iter().collect();
    report("request head, a byte each 200 ms", deadline, &taken?);
    Ok(())
}

async fn drip_request(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for byte in b"ET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a-very-patient-client\r\n" {
            sleep(Duration::from_millis(200)).await;
            writer.write_all(&[*byte]).await?;
        }
        Ok::<_, io::Error>(())
    };
    let mut answer = Vec::new();
    tokio::select! {
        read = reader.read_to_end(&mut answer) => read.map(|_| ()),
        written = write => written,
    }
}

/// pingora's HTTP/2 client: how late is the caller told, and how late does the upstream see its stream reset?
async fn probe_http2(deadline: Duration) -> io::Result<()> {
    let (dropped, mut cancelled) = mpsc::unbounded_channel();
    let upstream = serve_http2(dropped).await?;
    let connector = Connector::new(None);
    let mut peer = HttpPeer::new(upstream, false, String::new());
    peer.options.set_http_version(2, 2);
    peer.options.max_h2_streams = 100;
    for path in ["/stall", "/drip-body"] {
        let started = Instant::now();
        let runs = (0..RUNS).map(|run| {
            let (connector, peer) = (&connector, &peer);
            async move {
                sleep(STAGGER * run).await;
                let started = Instant::now();
                let _ = timeout_at(started + deadline, exchange_http2(connector, peer, path)).await;
                started.elapsed()
            }
        });
        report(&format!("{path} (caller)"), deadline, &join_all(runs).await);
        let mut seen = Vec::new();
        for run in 0..RUNS {
            let Ok(Some(at)) = timeout(GIVE_UP, cancelled.recv()).await else { break };
            seen.push(at.duration_since(started + STAGGER * run));
        }
        report(&format!("{path} (reset seen upstream)"), deadline, &seen);
    }
    Ok(())
}

async fn exchange_http2(connector: &Connector, peer: &HttpPeer, path: &str) -> pingora::Result<()> {
    let mut session = match connector.reused_http_session(peer).await? {
        Some(session) => session,
        None => match connector.new_http_session::<_, ()>(peer).await? {
            HttpSession::H2(session) => session,
            _ => unreachable!("the peer allows HTTP/2 only"),
        },
    };
    let mut request = RequestHeader::build("GET", path.as_bytes(), None)?;
    request.insert_header("Host", "a")?;
    session.write_request_header(Box::new(request), true)?;
    session.read_response_header().await?;
    while session.read_response_body().await?.is_some() {}
    Ok(())
}

async fn serve_http2(dropped: mpsc::UnboundedSender<Instant>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let dropped = dropped.clone();
            let service = service_fn(move |request| answer_http2(request, Dropped(dropped.clone())));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

async fn answer_http2(
    request: Request<hyper::body::Incoming>,
    guard: Dropped,
) -> Result<Response<Either<Drip, String>>, Infallible> {
    if request.uri().path() == "/drip-body" {
        return Ok(Response::new(Either::Left(Drip { ticks: interval(DRIP), _guard: guard })));
    }
    std::future::pending::<()>().await;
    Ok(Response::new(Either::Right(String::new())))
}

/// Tells when the server let go of a request, which it does when the stream is reset.
struct Dropped(mpsc::UnboundedSender<Instant>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(Instant::now());
    }
}

/// A body that never ends, a byte each second.
struct Drip {
    ticks: Interval,
    _guard: Dropped,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.ticks.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

fn report(what: &str, deadline: Duration, taken: &[Duration]) {
    let bounded = taken.iter().filter(|taken| **taken < GIVE_UP).count();
    let error = |taken: &Duration| taken.as_secs_f64() * 1e3 - deadline.as_secs_f64() * 1e3;
    let errors: Vec<f64> = taken.iter().map(error).collect();
    let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let most = errors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!("{what}: {bounded} of {} ended; error {least:+.1} to {most:+.1} ms", taken.len());
}
