//! The candidate: an own HTTP/1 codec (httparse, lent buffers) over connections made by pingora-core's
//! `TransportConnector`, kept in an own pool, each request under one absolute deadline.
//!
//! A prototype of the data path's cost, not of its correctness: bodies of requests are refused, answers must have a
//! `Content-Length`.

#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::io::{self, Error, ErrorKind};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;

use forebay_comparators::buffer::{self, Buffer};
use forebay_comparators::{Options, accept_loop, block_on};
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

const MAX_HEADERS: usize = 100;

struct Forwarder {
    pool: Pool,
    deadline: Duration,
    head_deadline: Duration,
}

fn main() -> io::Result<()> {
    let options = Options::from_args();
    if let Some(kib) = options.get::<usize>("body-kib") {
        buffer::set_body_bytes(kib * 1024);
    }
    let forwarder = Arc::new(Forwarder {
        pool: Pool::new(HttpPeer::new(options.upstream(), false, String::new())),
        deadline: options.deadline(),
        head_deadline: options.head_deadline(),
    });
    block_on(accept_loop(options.listen(), move |stream| serve(stream, Arc::clone(&forwarder))))
}

/// Idle upstream connections, the last used on top: it is the likeliest to be alive, and the rest can age out.
struct Pool {
    connector: TransportConnector,
    peer: HttpPeer,
    idle: Mutex<Vec<Stream>>,
}

impl Pool {
    fn new(peer: HttpPeer) -> Self {
        Self { connector: TransportConnector::new(None), peer, idle: Mutex::new(Vec::new()) }
    }

    async fn take(&self) -> io::Result<Stream> {
        while let Some(mut stream) = self.pop() {
            if is_quiet(&mut stream).await {
                return Ok(stream);
            }
        }
        self.connector.new_stream(&self.peer).await.map_err(Error::other)
    }

    fn pop(&self) -> Option<Stream> {
        self.idle.lock().expect("nothing panics under the lock").pop()
    }

    fn give_back(&self, stream: Stream) {
        self.idle.lock().expect("nothing panics under the lock").push(stream);
    }
}

/// True when the upstream has neither closed the connection nor sent anything unasked.
async fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    poll_fn(|cx| {
        let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_pending())
    })
    .await
}

async fn serve(mut downstream: TcpStream, forwarder: Arc<Forwarder>) {
    // An idle connection owns no buffer: it waits for readiness, not for bytes.
    while downstream.readable().await.is_ok() {
        match one_request(&mut downstream, &forwarder).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// One request and its answer; `false` when the connection has to end.
async fn one_request(downstream: &mut TcpStream, forwarder: &Forwarder) -> io::Result<bool> {
    let received = Instant::now();
    let Ok(request) = timeout_at(received + forwarder.head_deadline, read_request(downstream)).await else {
        return refuse(downstream, b"HTTP/1.1 408 Request Timeout\r\n").await;
    };
    let Some(request) = request? else { return Ok(false) };
    let mut answering = false;
    let work = exchange(downstream, &forwarder.pool, request, &mut answering);
    match timeout_at(received + forwarder.deadline, work).await {
        Ok(Ok(())) => Ok(true),
        // After the head nothing but a broken connection tells the client that it has only a part.
        _ if answering => Ok(false),
        Ok(Err(_)) => refuse(downstream, b"HTTP/1.1 502 Bad Gateway\r\n").await,
        Err(_) => refuse(downstream, b"HTTP/1.1 504 Gateway Timeout\r\n").await,
    }
}

async fn refuse(downstream: &mut TcpStream, status_line: &[u8]) -> io::Result<bool> {
    downstream.write_all(&[status_line, b"Content-Length: 0\r\nConnection: close\r\n\r\n"].concat()).await?;
    Ok(false)
}

/// A head as it goes out, with what of the body had already come.
struct Outgoing {
    buffer: Buffer,
    length: usize,
}

impl Outgoing {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Reads up to the blank line and makes the upstream's head of it; `None` when the client left between two requests.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Outgoing>> {
    let mut buffer = Buffer::head();
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return if filled == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        filled += read;
        if let Some(request) = convert_request(&buffer[..filled])? {
            return Ok(Some(request));
        }
    }
}

/// The head for the upstream: the same request line, the same fields without the hop-by-hop ones.
fn convert_request(received: &[u8]) -> io::Result<Option<Outgoing>> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let httparse::Status::Complete(head) =
        request.parse_with_uninit_headers(received, &mut fields).map_err(Error::other)?
    else {
        return Ok(None);
    };
    if head != received.len() {
        // Neither bodies nor pipelining in the prototype.
        return Err(ErrorKind::Unsupported.into());
    }
    let mut buffer = Buffer::head();
    let mut writer = Writer { out: &mut buffer, length: 0 };
    writer.put(request.method.unwrap_or("GET").as_bytes())?;
    writer.put(b" ")?;
    writer.put(request.path.unwrap_or("/").as_bytes())?;
    writer.put(b" HTTP/1.1\r\n")?;
    writer.fields(request.headers)?;
    let length = writer.length;
    Ok(Some(Outgoing { buffer, length }))
}

async fn exchange(downstream: &mut TcpStream, pool: &Pool, request: Outgoing, answering: &mut bool) -> io::Result<()> {
    let mut upstream = pool.take().await?;
    upstream.write_all(request.bytes()).await?;
    // The longest wait starts here: nothing of the request is kept for it.
    drop(request);

    let answer = read_response(&mut upstream).await?;
    *answering = true;
    downstream.write_all(answer.out.bytes()).await?;
    drop(answer.out);
    stream_body(&mut upstream, downstream, answer.rest).await?;
    if answer.keep_alive {
        pool.give_back(upstream);
    }
    Ok(())
}

struct Answer {
    out: Outgoing,
    /// Bytes of the body that are still to come.
    rest: u64,
    keep_alive: bool,
}

async fn read_response(stream: &mut Stream) -> io::Result<Answer> {
    let (mut buffer, mut filled) = read_first(stream).await?;
    loop {
        if let Some(answer) = convert_response(&buffer[..filled])? {
            return Ok(answer);
        }
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
}

/// Waits for the first bytes without owning a buffer: one is lent for each try only.
async fn read_first(stream: &mut Stream) -> io::Result<(Buffer, usize)> {
    let (buffer, filled) = poll_fn(|cx| {
        let mut buffer = Buffer::head();
        let mut space = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut space))?;
        let filled = space.filled().len();
        Poll::Ready(Ok::<_, io::Error>((buffer, filled)))
    })
    .await?;
    if filled == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok((buffer, filled)) }
}

/// The head for the client, and the body as far as it has come: a small answer leaves in one system call.
fn convert_response(received: &[u8]) -> io::Result<Option<Answer>> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, received, &mut fields)
        .map_err(Error::other)?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let length = content_length(response.headers).ok_or(ErrorKind::Unsupported)?;
    let body = &received[head..];
    let rest = length.checked_sub(body.len() as u64).ok_or(ErrorKind::InvalidData)?;

    let mut buffer = Buffer::head();
    let mut writer = Writer { out: &mut buffer, length: 0 };
    writer.put(b"HTTP/1.1 ")?;
    writer.put(itoa::Buffer::new().format(response.code.unwrap_or(502)).as_bytes())?;
    writer.put(b" ")?;
    writer.put(response.reason.unwrap_or("").as_bytes())?;
    writer.put(b"\r\n")?;
    writer.fields(response.headers)?;
    writer.put(body)?;
    let length = writer.length;
    let keep_alive = keeps_alive(response.headers);
    Ok(Some(Answer { out: Outgoing { buffer, length }, rest, keep_alive }))
}

fn content_length(headers: &[httparse::Header<'_>]) -> Option<u64> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(header.value).ok()?.parse().ok()
}

fn keeps_alive(headers: &[httparse::Header<'_>]) -> bool {
    !headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close"))
}

async fn stream_body(upstream: &mut Stream, downstream: &mut TcpStream, mut rest: u64) -> io::Result<()> {
    if rest == 0 {
        return Ok(());
    }
    let mut buffer = Buffer::body();
    while rest > 0 {
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let read = upstream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        downstream.write_all(&buffer[..read]).await?;
        rest -= read as u64;
    }
    Ok(())
}

/// Appends to a fixed buffer; a head that does not fit is an error.
struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.length + bytes.len();
        self.out.get_mut(self.length..end).ok_or(ErrorKind::OutOfMemory)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn fields(&mut self, headers: &[httparse::Header<'_>]) -> io::Result<()> {
        for header in headers.iter().filter(|header| !is_hop_by_hop(header.name)) {
            self.put(header.name.as_bytes())?;
            self.put(b": ")?;
            self.put(header.value)?;
            self.put(b"\r\n")?;
        }
        self.put(b"\r\n")
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 7] =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}
