//! An HTTP/1 upstream that keeps every byte of the requests it gets and gives all of them the same answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[derive(Debug)]
pub struct Recorder {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub async fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), answer.to_owned());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&seen), answer.clone()));
            }
        });
        Self { address, requests, task }
    }

    pub async fn ok() -> Self {
        Self::start(OK).await
    }

    /// All requests so far, whole: head, body as framed, trailers.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no holder panics").clone()
    }

    /// The only request.
    pub fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The values of a field in a recorded request.
pub fn values<'r>(request: &'r str, name: &str) -> Vec<&'r str> {
    let (head, _) = request.split_once("\r\n\r\n").expect("a whole head");
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, answer: String) -> io::Result<()> {
    loop {
        let request = read_request(&mut stream).await?;
        seen.lock().expect("no holder panics").push(request);
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut raw = Vec::new();
    read_until(stream, &mut raw, b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&raw).to_ascii_lowercase() + "\r\n";
    if let Some(length) = values(&head, "content-length").first() {
        let start = raw.len();
        raw.resize(start + length.parse::<usize>().expect("a length"), 0);
        stream.read_exact(&mut raw[start..]).await?;
    } else if !values(&head, "transfer-encoding").is_empty() {
        read_chunks(stream, &mut raw).await?;
    }
    Ok(String::from_utf8_lossy(&raw).into_owned())
}

async fn read_chunks(stream: &mut TcpStream, raw: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = raw.len();
        read_until(stream, raw, b"\r\n").await?;
        let size = String::from_utf8_lossy(&raw[line..raw.len() - 2]).into_owned();
        let size = usize::from_str_radix(&size, 16).expect("a chunk size");
        if size == 0 {
            return loop {
                let line = raw.len();
                read_until(stream, raw, b"\r\n").await?;
                if raw.len() == line + 2 {
                    break Ok(());
                }
            };
        }
        let start = raw.len();
        raw.resize(start + size + 2, 0);
        stream.read_exact(&mut raw[start..]).await?;
    }
}

/// Reads byte by byte; the end counts only in what was read here.
async fn read_until(stream: &mut TcpStream, raw: &mut Vec<u8>, end: &[u8]) -> io::Result<()> {
    let start = raw.len();
    while !raw[start..].ends_with(end) {
        raw.push(stream.read_u8().await?);
    }
    Ok(())
}
