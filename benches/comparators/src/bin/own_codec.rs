//! The candidate: an own HTTP/1 codec (httparse, lent buffers) over connections made by pingora-core's
//! `TransportConnector`, kept in an own pool, each request under one absolute deadline.
//!
//! A prototype of the data path's cost, not of its correctness: bodies of requests are refused, answers must have a
//! `Content-Length`.

#![forbid(unsafe_code)]

use std::future::poll_fn;
use std::io::{self, Error, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use forebay_comparators::buffer::Buffer;
use forebay_comparators::{Options, accept_loop, block_on};
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
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
    let mut request = Buffer::head();
    let received = Instant::now();
    let Ok(filled) = timeout_at(received + forwarder.head_deadline, read_request_head(downstream, &mut request)).await
    else {
        return refuse(downstream, b"HTTP/1.1 408 Request Timeout\r\n").await;
    };
    let Some(head) = filled? else { return Ok(false) };
    let mut answering = false;
    let work = exchange(downstream, &forwarder.pool, &request[..head], &mut answering);
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

/// Reads up to the blank line; the length of the head, or `None` when the client left between two requests.
async fn read_request_head(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return if filled == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        filled += read;
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(head) = request.parse(&buffer[..filled]).map_err(Error::other)? {
            // Neither bodies nor pipelining in the prototype.
            return if head == filled { Ok(Some(head)) } else { Err(ErrorKind::Unsupported.into()) };
        }
    }
}

async fn exchange(downstream: &mut TcpStream, pool: &Pool, head: &[u8], answering: &mut bool) -> io::Result<()> {
    let mut upstream = pool.take().await?;
    let mut buffer = Buffer::head();
    let request = write_request_head(head, &mut buffer)?;
    upstream.write_all(&buffer[..request]).await?;

    let (answer, filled) = read_response_head(&mut upstream, &mut buffer).await?;
    let mut out = Buffer::head();
    let mut length = write_response_head(&buffer[..answer.head], &mut out)?;
    let part = filled - answer.head;
    // A small body leaves with its head in one system call.
    if part <= out.len() - length {
        out[length..length + part].copy_from_slice(&buffer[answer.head..filled]);
        length += part;
        *answering = true;
        downstream.write_all(&out[..length]).await?;
    } else {
        *answering = true;
        downstream.write_all(&out[..length]).await?;
        downstream.write_all(&buffer[answer.head..filled]).await?;
    }
    let rest = answer.body.checked_sub(part as u64).ok_or(ErrorKind::InvalidData)?;
    stream_body(&mut upstream, downstream, rest).await?;
    if answer.keep_alive {
        pool.give_back(upstream);
    }
    Ok(())
}

struct Answer {
    head: usize,
    body: u64,
    keep_alive: bool,
}

async fn read_response_head(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<(Answer, usize)> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut fields);
        if let httparse::Status::Complete(head) = response.parse(&buffer[..filled]).map_err(Error::other)? {
            let body = content_length(response.headers).ok_or(ErrorKind::Unsupported)?;
            return Ok((Answer { head, body, keep_alive: keeps_alive(response.headers) }, filled));
        }
    }
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
        write_all(downstream, &buffer[..read]).await?;
        rest -= read as u64;
    }
    Ok(())
}

async fn write_all<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await
}

/// The head for the upstream: the same request line, the same fields without the hop-by-hop ones.
fn write_request_head(head: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).map_err(Error::other)?;
    let mut writer = Writer { out, length: 0 };
    writer.put(request.method.unwrap_or("GET").as_bytes())?;
    writer.put(b" ")?;
    writer.put(request.path.unwrap_or("/").as_bytes())?;
    writer.put(b" HTTP/1.1\r\n")?;
    writer.fields(request.headers)?;
    Ok(writer.length)
}

fn write_response_head(head: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).map_err(Error::other)?;
    let mut writer = Writer { out, length: 0 };
    writer.put(b"HTTP/1.1 ")?;
    writer.put(itoa::Buffer::new().format(response.code.unwrap_or(502)).as_bytes())?;
    writer.put(b" ")?;
    writer.put(response.reason.unwrap_or("").as_bytes())?;
    writer.put(b"\r\n")?;
    writer.fields(response.headers)?;
    Ok(writer.length)
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
