//! The Python services that Forebay stands in front of: the FastAPI application and the synchronous server.

use std::net::SocketAddr;
use std::process::Command;

use super::process::{Process, command};
use super::{installed, repository};

/// A running Python service; killed when dropped.
#[derive(Debug)]
pub struct Service {
    pub address: SocketAddr,
    _process: Process,
}

impl Service {
    /// The FastAPI application on uvicorn; see `tests/services/app.py` for its arguments.
    pub async fn app(arguments: &[&str]) -> Self {
        Self::start("app.py", installed("target/services-venv/bin/python"), arguments).await
    }

    /// Python's own single-threaded HTTP server, which sleeps so long in each request.
    pub async fn synchronous(seconds: &str) -> Self {
        Self::start("sync_server.py", "python3".into(), &[seconds]).await
    }

    async fn start(script: &str, python: std::path::PathBuf, arguments: &[&str]) -> Self {
        let mut run: Command = command(python);
        run.arg(repository("tests/services").join(script)).args(arguments);
        let mut process = Process::start(script, run);
        let address = process
            .output("says where it listens", |lines| {
                lines.iter().find_map(|line| line.strip_prefix("listening on http://")?.parse().ok())
            })
            .await;
        Self { address, _process: process }
    }
}
