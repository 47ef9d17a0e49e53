//! An upstream that does exactly what its script says: for the fault matrix.
//!
//! Each connection follows the next script, the last one for all that follow.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{PATIENCE, eventually};

/// One thing that a connection does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Read until the end of a request's head.
    ReadHead,
    /// Read so many bytes (of a body).
    Read(usize),
    Send(Vec<u8>),
    /// Send the bytes one by one, one per interval.
    Drip(Vec<u8>, Duration),
    Pause(Duration),
    /// Do nothing until the peer has gone.
    Stall,
    /// RST.
    Reset,
    /// FIN, then read what still comes.
    Close,
    /// From the first step again: keep-alive.
    Repeat,
}

pub type Script = Vec<Step>;

/// A running upstream; stops when dropped.
#[derive(Debug)]
pub struct FaultUpstream {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    accepted: AtomicUsize,
    open: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl FaultUpstream {
    pub async fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let scripts: Vec<Script> = scripts.into_iter().collect();
        assert!(!scripts.is_empty(), "an upstream needs a script");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(listener, scripts, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// Each connection: read a request, send these bytes, again.
    pub async fn answering(answer: impl AsRef<[u8]>) -> Self {
        Self::start([vec![Step::ReadHead, Step::Send(answer.as_ref().to_vec()), Step::Repeat]]).await
    }

    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }

    /// The heads of the requests received so far.
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().expect("no holder panics").clone()
    }

    /// Waits until every connection has ended: nobody holds one that he no longer needs.
    pub async fn abandoned(&self) {
        eventually("the connections to the upstream have ended", async || (self.open() == 0).then_some(())).await;
    }
}

impl Drop for FaultUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, scripts: Vec<Script>, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("loopback connections can be accepted");
        let n = seen.accepted.fetch_add(1, Ordering::Relaxed);
        let script = scripts[n.min(scripts.len() - 1)].clone();
        seen.open.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            // An error means that the peer has gone, which ends the script.
            let _ = follow(stream, &script, &seen).await;
            seen.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn follow(mut stream: TcpStream, script: &[Step], seen: &Seen) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        for step in script {
            match step {
                Step::ReadHead => {
                    let head = read_head(&mut stream).await?;
                    seen.heads.lock().expect("no holder panics").push(head);
                }
                Step::Read(length) => drop(stream.read_exact(&mut vec![0; *length]).await?),
                Step::Send(bytes) => stream.write_all(bytes).await?,
                Step::Drip(bytes, interval) => drip(&mut stream, bytes, *interval).await?,
                Step::Pause(time) => tokio::time::sleep(*time).await,
                Step::Stall => return drain(&mut stream).await,
                Step::Reset => return stream.set_zero_linger(),
                Step::Close => {
                    stream.shutdown().await?;
                    return drain(&mut stream).await;
                }
                Step::Repeat => break,
            }
        }
        if !matches!(script.last(), Some(Step::Repeat)) {
            return Ok(());
        }
    }
}

/// Byte by byte: what follows the head stays in the socket for the next step.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], interval: Duration) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(interval).await;
    }
    Ok(())
}

async fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}

/// Answers and scripts by name.
pub mod scripts {
    use super::*;

    pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    /// A head that promises ten bytes, and five of them.
    pub const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";

    pub fn ok() -> Script {
        vec![Step::ReadHead, Step::Send(OK.to_vec()), Step::Repeat]
    }

    pub fn stall_before_head() -> Script {
        vec![Step::ReadHead, Step::Stall]
    }

    pub fn stall_inside_head() -> Script {
        vec![Step::ReadHead, Step::Send(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), Step::Stall]
    }

    pub fn stall_mid_body() -> Script {
        vec![Step::ReadHead, Step::Send(HALF.to_vec()), Step::Stall]
    }

    pub fn drip_body(interval: Duration) -> Script {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec();
        vec![Step::ReadHead, Step::Send(head), Step::Drip(vec![b'x'; 1000], interval), Step::Stall]
    }

    pub fn drip_head(interval: Duration) -> Script {
        let head = format!("HTTP/1.1 200 OK\r\nx-slow: {}\r\n", "x".repeat(1000)).into_bytes();
        vec![Step::ReadHead, Step::Drip(head, interval), Step::Stall]
    }

    pub fn reset_at_accept() -> Script {
        vec![Step::Reset]
    }

    pub fn reset_before_head() -> Script {
        vec![Step::ReadHead, Step::Reset]
    }

    /// The pause lets the half arrive before the reset throws away what is on its way.
    pub fn reset_mid_body() -> Script {
        vec![Step::ReadHead, Step::Send(HALF.to_vec()), Step::Pause(Duration::from_millis(100)), Step::Reset]
    }

    pub fn close_before_head() -> Script {
        vec![Step::ReadHead, Step::Close]
    }

    pub fn close_mid_body() -> Script {
        vec![Step::ReadHead, Step::Send(HALF.to_vec()), Step::Close]
    }

    pub fn garbage() -> Script {
        vec![Step::ReadHead, Step::Send(b"\x00\xffthis is not HTTP\r\n\r\n".to_vec()), Step::Stall]
    }

    pub fn huge_head() -> Script {
        let head = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes();
        vec![Step::ReadHead, Step::Send(head), Step::Stall]
    }

    pub fn unasked_upgrade() -> Script {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_vec();
        vec![Step::ReadHead, Step::Send(head), Step::Stall]
    }

    /// An answer and five bytes more, which belong to nobody.
    pub fn extra_bytes() -> Script {
        vec![Step::ReadHead, Step::Send([OK, b"extra"].concat()), Step::Stall]
    }

    pub fn trailers() -> Script {
        let answer =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
        vec![Step::ReadHead, Step::Send(answer.to_vec()), Step::Repeat]
    }
}

/// An address to which no connection gets through: its backlog is full and nobody accepts.
#[derive(Debug)]
pub struct FullBacklog {
    pub address: SocketAddr,
    _listener: Socket,
    _fillers: Vec<TcpStream>,
}

impl FullBacklog {
    pub async fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("a bound socket can listen");
        let address = listener.local_addr().expect("it is bound").as_socket().expect("an IP socket");
        let mut fillers = Vec::new();
        // The first connections fit; the one whose SYN is dropped does not come back at once.
        while let Ok(filler) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            fillers.push(filler.expect("a connection that fits"));
            assert!(fillers.len() < 16, "the backlog does not fill within {PATIENCE:?}");
        }
        Self { address, _listener: listener, _fillers: fillers }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::http;
    use super::*;

    #[tokio::test]
    async fn connections_follow_their_scripts_in_order() {
        let upstream = FaultUpstream::start([scripts::reset_before_head(), scripts::ok()]).await;

        assert!(http::get(upstream.address, "/1").await.is_err());
        assert_eq!(http::get(upstream.address, "/2").await.unwrap().text(), "ok");
        assert_eq!(http::get(upstream.address, "/3").await.unwrap().text(), "ok");

        assert_eq!(upstream.accepted(), 3);
        assert!(upstream.heads()[1].starts_with("GET /2 HTTP/1.1\r\n"));
        upstream.abandoned().await;
    }

    #[tokio::test]
    async fn a_kept_connection_answers_again() {
        let upstream = FaultUpstream::answering(scripts::OK).await;
        let mut connection = http::Connection::open(upstream.address).await.unwrap();

        for _ in 0..2 {
            connection.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            assert_eq!(connection.response().await.unwrap().text(), "ok");
        }

        assert_eq!(upstream.accepted(), 1);
    }

    #[tokio::test]
    async fn a_broken_body_is_reported_as_incomplete() {
        for script in [scripts::close_mid_body(), scripts::reset_mid_body()] {
            let upstream = FaultUpstream::start([script]).await;

            let response = http::get(upstream.address, "/").await.unwrap();

            assert_eq!((response.text().as_str(), response.complete), ("hello", false));
        }
    }

    #[tokio::test]
    async fn chunked_answers_with_trailers_are_read() {
        let upstream = FaultUpstream::start([scripts::trailers()]).await;

        let response = http::get(upstream.address, "/").await.unwrap();

        assert_eq!((response.text().as_str(), response.complete), ("ok", true));
    }

    #[tokio::test]
    async fn a_full_backlog_lets_nobody_connect() {
        let full = FullBacklog::start().await;

        let started = Instant::now();
        let connected = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(full.address)).await;

        assert!(connected.is_err(), "{:?}", started.elapsed());
    }
}
