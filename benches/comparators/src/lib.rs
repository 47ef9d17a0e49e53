//! What the comparator programs share: their command line, their runtime and their accept loop.
//!
//! Every program here is a single-threaded proxy from `--listen` to `--upstream`, so that one of them can be
//! measured against one worker of nginx. None is a product: they answer "what does this foundation cost?".

#![forbid(unsafe_code)]

pub mod buffer;

use std::future::Future;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The command line: `--name value` pairs only.
pub struct Options {
    pairs: Vec<(String, String)>,
}

impl Options {
    pub fn from_args() -> Self {
        Self::from_args_after(0)
    }

    /// For programs whose first `skipped` words are not options.
    pub fn from_args_after(skipped: usize) -> Self {
        let mut words = std::env::args().skip(1 + skipped);
        let mut pairs = Vec::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").unwrap_or_else(|| usage(&format!("`{word}` is not an option")));
            let value = words.next().unwrap_or_else(|| usage(&format!("`--{name}` needs a value")));
            pairs.push((name.to_owned(), value));
        }
        Self { pairs }
    }

    /// The value of `--name`, when it was given.
    pub fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        let (_, text) = self.pairs.iter().rev().find(|(known, _)| known == name)?;
        Some(text.parse().unwrap_or_else(|_| usage(&format!("`--{name} {text}` cannot be read"))))
    }

    pub fn require<T: FromStr>(&self, name: &str) -> T {
        self.get(name).unwrap_or_else(|| usage(&format!("`--{name}` is missing")))
    }

    pub fn listen(&self) -> SocketAddr {
        self.require("listen")
    }

    pub fn upstream(&self) -> SocketAddr {
        self.require("upstream")
    }

    /// From the first byte of the request to the last byte of the answer.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.get("deadline-ms").unwrap_or(15_000))
    }

    /// The whole request head, from its first byte.
    pub fn head_deadline(&self) -> Duration {
        Duration::from_millis(self.get("head-ms").unwrap_or(10_000))
    }
}

/// Says what is wrong with the command line and ends the process as `EX_USAGE`.
pub fn usage(problem: &str) -> ! {
    eprintln!("error: {problem}; write `--listen ADDRESS --upstream ADDRESS [--deadline-ms N] [--head-ms N]`");
    std::process::exit(64)
}

/// Runs `work` to its end on a single-threaded runtime.
pub fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only an epoll descriptor")
        .block_on(work)
}

/// Accepts for ever; every connection runs in a task of its own.
pub async fn accept_loop<F, Work>(address: SocketAddr, mut serve: F) -> std::io::Result<()>
where
    F: FnMut(TcpStream) -> Work,
    Work: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}
