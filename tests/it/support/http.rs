//! A small HTTP/1.1 client that sends exactly the bytes it is told to and reports exactly what came back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::PATIENCE;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names lower-case, in the order received.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// False: the connection ended before the body did.
    pub complete: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// Why Forebay ended the request, as it says in its header.
    pub fn reason(&self) -> Option<&str> {
        self.header("x-forebay-reason")
    }
}

/// A connection and what has been read from it but not used.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = within(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(self.stream.write_all(bytes.as_ref())).await
    }

    /// Reads the next answer, after any `100 Continue`.
    pub async fn response(&mut self) -> io::Result<Response> {
        self.response_to("GET").await
    }

    /// Reads the next answer to a request with this method (an answer to HEAD has no body).
    pub async fn response_to(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let head = self.until(b"\r\n\r\n").await?;
            let (status, headers) = parse_head(&head)?;
            if status == 100 {
                continue;
            }
            let mut response = Response { status, headers, body: Vec::new(), complete: true };
            let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
            if !bodiless {
                response.complete = self.body_into(&mut response).await?;
            }
            return Ok(response);
        }
    }

    /// Reads all that comes until the peer closes or resets.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// True: the body came whole.
    async fn body_into(&mut self, response: &mut Response) -> io::Result<bool> {
        if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return unless_ended(self.chunked(&mut response.body).await);
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| invalid("content-length"))?;
            return self.exactly(length, &mut response.body).await;
        }
        response.body = self.rest().await?;
        Ok(true)
    }

    async fn chunked(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = line.split(|byte| matches!(byte, b';' | b'\r')).next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
            let size = size.ok_or_else(|| invalid("chunk size"))?;
            if size == 0 {
                // Trailers, up to the empty line.
                while self.until(b"\r\n").await? != b"\r\n" {}
                return Ok(());
            }
            if !self.exactly(size, body).await? || self.until(b"\r\n").await? != b"\r\n" {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Moves so many bytes into `out`; false when the connection ends before.
    async fn exactly(&mut self, length: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        let end = out.len() + length;
        loop {
            let take = self.buffer.len().min(end - out.len());
            out.extend(self.buffer.drain(..take));
            if out.len() == end {
                return Ok(true);
            }
            if !unless_ended(self.fill_or_eof().await)? {
                return Ok(false);
            }
        }
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill_or_eof().await?;
        }
    }

    async fn fill_or_eof(&mut self) -> io::Result<()> {
        if self.fill().await? { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// False: the peer has closed.
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(within(self.stream.read_buf(&mut self.buffer)).await? > 0)
    }
}

/// A connection that ends inside a body is a finding, not a failure of the client.
fn unless_ended(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has a wrong {what}"))
}

fn parse_head(head: &[u8]) -> io::Result<(u16, Vec<(String, String)>)> {
    let text = std::str::from_utf8(head).map_err(|_| invalid("head"))?;
    let mut lines = text.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split_once(' '));
    let status = status.and_then(|(_minor, rest)| rest.get(..3)).and_then(|digits| digits.parse().ok());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("header line"))?;
        Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok((status.ok_or_else(|| invalid("status line"))?, headers.collect::<io::Result<_>>()?))
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, target: &str) -> io::Result<Response> {
    request(address, "GET", target, &[], b"").await
}

/// One request on a connection of its own.
pub async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    let mut connection = Connection::open(address).await?;
    connection.send([head.as_bytes(), b"\r\n", body].concat()).await?;
    connection.response_to(method).await
}

/// One GET, and how long it took.
pub async fn timed_get(address: SocketAddr, target: &str) -> (io::Result<Response>, Duration) {
    let started = Instant::now();
    let response = get(address, target).await;
    (response, started.elapsed())
}

/// Sends a GET and leaves its answer unread; the request ends when the connection is dropped.
pub async fn hold(address: SocketAddr, target: &str) -> Connection {
    let mut connection = Connection::open(address).await.expect("a connection");
    connection.send(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n")).await.expect("the request is sent");
    connection
}

/// The value at `quantile` (nearest rank).
pub fn quantile(values: &[Duration], quantile: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
