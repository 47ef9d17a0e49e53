//! `forebay simulate` with services of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tempfile::TempDir;

use super::metrics::Scrape;
use super::process::{Process, command};

/// Running simulated services; killed when dropped.
#[derive(Debug)]
pub struct Simulator {
    addresses: BTreeMap<String, SocketAddr>,
    metrics: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Simulator {
    /// `upstreams` is a file of `forebay simulate` that names no addresses, and so gets free ones.
    pub async fn start(upstreams: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("upstreams.toml");
        let metrics = "[metrics]\naddress = \"127.0.0.1:0\"\n\n";
        std::fs::write(&file, format!("{metrics}{upstreams}")).expect("the services are written");
        let mut run = command(env!("CARGO_BIN_EXE_forebay"));
        run.arg("simulate").arg("-c").arg(&file);
        let mut process = Process::start("forebay simulate", run);
        let expected = upstreams.lines().filter(|line| line.starts_with("[upstream.")).count();
        let (addresses, metrics) = process
            .output("names its services", |lines| {
                let addresses: BTreeMap<_, _> = lines.iter().filter_map(|line| named(line)).collect();
                let metrics = lines.iter().find_map(|line| line.strip_prefix("http://")?.strip_suffix("/metrics"))?;
                (addresses.len() == expected).then_some((addresses, metrics.parse().ok()?))
            })
            .await;
        Self { addresses, metrics, _process: process, _directory: directory }
    }

    pub fn address(&self, upstream: &str) -> SocketAddr {
        self.addresses[upstream]
    }

    /// What the simulator itself counted, whatever a proxy in front of it says.
    pub async fn scrape(&self) -> Scrape {
        Scrape::fetch(self.metrics).await
    }
}

/// The service in a line such as `http://127.0.0.1:40123 (users)`.
fn named(line: &str) -> Option<(String, SocketAddr)> {
    let (address, name) = line.strip_prefix("http://")?.strip_suffix(')')?.split_once(" (")?;
    Some((name.to_owned(), address.parse().ok()?))
}
