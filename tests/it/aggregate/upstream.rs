//! An HTTP/1 upstream that answers by request: what it says, and when, is up to a function of the test. It knows how many
//! requests it works on, and who has left.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::eventually;

/// What a request gets.
#[derive(Debug)]
pub struct Reply {
    when: When,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum When {
    After(Duration),
    Opened(Gate),
    Never,
}

impl Reply {
    pub fn json(body: impl AsRef<str>) -> Self {
        Self::with(200, "content-type: application/json\r\n", body.as_ref())
    }

    /// `fields` are whole lines.
    pub fn with(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status} Status\r\n{fields}content-length: {}\r\n\r\n", body.len());
        Self { when: When::After(Duration::ZERO), bytes: [head.as_bytes(), body].concat() }
    }

    pub fn never() -> Self {
        Self { when: When::Never, bytes: Vec::new() }
    }

    pub fn after(self, time: Duration) -> Self {
        Self { when: When::After(time), ..self }
    }

    pub fn when(self, gate: &Gate) -> Self {
        Self { when: When::Opened(gate.clone()), ..self }
    }
}

/// Holds back answers until the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// A running upstream; stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What the upstream has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whole, head and body.
    pub requests: Vec<String>,
    pub working: usize,
    pub most_working: usize,
    pub answered: usize,
    /// Requests whose connection ended before their answer.
    pub abandoned: usize,
}

impl Upstream {
    /// `reply` is given each request, whole.
    pub async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::<Mutex<Seen>>::default();
        let (shared, reply) = (Arc::clone(&seen), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, reply) = (Arc::clone(&shared), Arc::clone(&reply));
                // An error means that the peer has gone.
                connections.spawn(async move { serve(stream, &seen, &*reply).await });
            }
        });
        Self { address, seen, task }
    }

    /// The same JSON for every request.
    pub async fn json(body: &'static str) -> Self {
        Self::start(move |_| Reply::json(body)).await
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no holder panics").clone()
    }

    /// The first lines of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().requests.iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until it has seen what the test waits for.
    pub async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        eventually(what, async || condition(&self.seen()).then_some(())).await;
    }

    pub async fn working_on(&self, count: usize) {
        self.until(&format!("the upstream works on {count} requests"), |seen| seen.working == count).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Seen>,
    reply: &(dyn Fn(&str) -> Reply + Sync),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let count = |change: fn(&mut Seen)| change(&mut seen.lock().expect("no holder panics"));
    loop {
        let request = read_request(&mut stream).await?;
        let Reply { when, bytes } = reply(&request);
        {
            let mut seen = seen.lock().expect("no holder panics");
            seen.requests.push(request);
            seen.working += 1;
            seen.most_working = seen.most_working.max(seen.working);
        }
        let due = async {
            match when {
                When::After(time) => tokio::time::sleep(time).await,
                When::Opened(gate) => gate.opened().await,
                When::Never => std::future::pending().await,
            }
        };
        let stays = tokio::select! {
            biased;
            () = due => true,
            // Nothing may come before the answer, so this is the end of the connection.
            _ = stream.read_u8() => false,
        };
        if !stays {
            count(|seen| {
                seen.working -= 1;
                seen.abandoned += 1;
            });
            return Ok(());
        }
        // Before it is written: who has the answer sees that the work is over.
        count(|seen| {
            seen.working -= 1;
            seen.answered += 1;
        });
        stream.write_all(&bytes).await?;
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        raw.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&raw).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let start = raw.len();
    raw.resize(start + length, 0);
    stream.read_exact(&mut raw[start..]).await?;
    Ok(String::from_utf8_lossy(&raw).into_owned())
}
