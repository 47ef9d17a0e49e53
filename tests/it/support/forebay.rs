//! The real binary, `forebay run`, with a configuration of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::eventually;
use super::metrics::Scrape;
use super::process::{Process, command};

/// A running sidecar; killed when dropped.
#[derive(Debug)]
pub struct Forebay {
    pub process: Process,
    /// By name: `main` for a lone `[listener]`, and `admin`.
    pub addresses: BTreeMap<String, SocketAddr>,
    directory: TempDir,
}

impl Forebay {
    /// Starts `forebay run` and waits until it listens. `config` says nothing about the admin listener and the
    /// reloading of files; `[listener]` is on a free port unless it has one of its own.
    pub async fn start(config: &str) -> Self {
        Self::start_in(Self::directory(config), command(env!("CARGO_BIN_EXE_forebay"))).await
    }

    /// Like `start`, with so many file descriptors for the process.
    pub async fn start_with_files(config: &str, files: usize) -> Self {
        let mut limited = command("prlimit");
        limited.arg(format!("--nofile={files}:{files}")).arg(env!("CARGO_BIN_EXE_forebay"));
        Self::start_in(Self::directory(config), limited).await
    }

    fn directory(config: &str) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut text = String::new();
        if !config.contains("[listener") {
            text += "[listener]\naddress = \"127.0.0.1:0\"\n\n";
        }
        if !config.contains("[admin]") {
            text += "[admin]\naddress = \"127.0.0.1:0\"\n\n";
        }
        if !config.contains("[shutdown]") {
            // The default waits for balancers that a test does not have.
            text += "[shutdown]\naccept_grace = \"0s\"\n\n";
        }
        let path = directory.path().join("forebay.toml");
        std::fs::write(&path, text + config).expect("the configuration is written");
        directory
    }

    /// Starts with the `forebay.toml` of this directory.
    pub async fn start_file(directory: TempDir) -> Self {
        Self::start_in(directory, command(env!("CARGO_BIN_EXE_forebay"))).await
    }

    /// Starts with a file of the repository, as somebody who copied it would: on ports and with services that the
    /// environment names. The port of the listener and that of the admin listener are any free ones.
    pub async fn start_example(file: &str, variables: &[(&str, &dyn ToString)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::copy(super::repository(file), directory.path().join("forebay.toml")).expect("the example is copied");
        let mut run = command(env!("CARGO_BIN_EXE_forebay"));
        run.env("FOREBAY_PORT", "0").env("FOREBAY_ADMIN_PORT", "0");
        run.envs(variables.iter().map(|(name, value)| (name, value.to_string())));
        Self::start_in(directory, run).await
    }

    async fn start_in(directory: TempDir, mut run: Command) -> Self {
        run.arg("run").arg("-c").arg(directory.path().join("forebay.toml")).env("NO_COLOR", "1");
        let expected = expected_listeners(directory.path(), &run);
        let mut process = Process::start("forebay", run);
        let addresses = process
            .output("says where it listens", |lines| {
                let addresses = listening(lines);
                (addresses.len() >= expected).then_some(addresses)
            })
            .await;
        let forebay = Self { process, addresses, directory };
        eventually("forebay is ready", async || {
            let ready = super::http::get(forebay.admin(), "/readyz").await;
            ready.is_ok_and(|response| response.status == 200).then_some(())
        })
        .await;
        forebay
    }

    /// The address of the listener `main`.
    pub fn address(&self) -> SocketAddr {
        self.addresses["main"]
    }

    pub fn admin(&self) -> SocketAddr {
        self.addresses["admin"]
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("forebay.toml")
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::fetch(self.admin()).await
    }

    /// Waits until nothing is in flight, as far as the metrics tell, and takes a new scrape: the numbers of one scrape are
    /// not of one moment, and its counters may be older than its gauges.
    pub async fn idle(&self) -> Scrape {
        eventually("nothing is in flight any more", async || {
            let scrape = self.scrape().await;
            let busy = scrape.sum("forebay_requests_in_flight", &[]) + scrape.sum("forebay_upstream_in_flight", &[]);
            (busy == 0.0).then_some(())
        })
        .await;
        self.scrape().await
    }

    /// The access log so far (of `access_log.output = "stdout"`, the default).
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        self.process.stdout.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the access log has so many lines.
    pub async fn access_log_of(&self, lines: usize) -> Vec<serde_json::Value> {
        eventually(&format!("the access log has {lines} lines"), async || {
            let log = self.access_log();
            (log.len() >= lines).then_some(log)
        })
        .await
    }
}

/// How many listeners the configuration has, admin included. A configuration with mistakes is for the binary to report.
fn expected_listeners(directory: &Path, run: &Command) -> usize {
    let own = |name: &str| run.get_envs().find(|(own, _)| *own == name)?.1?.to_str().map(str::to_owned);
    let variable = |name: &str| own(name).or_else(|| std::env::var(name).ok());
    match forebay::config::load(&directory.join("forebay.toml"), &variable) {
        Ok(loaded) => loaded.config.listeners.len() + usize::from(loaded.config.admin.address.is_some()),
        Err(_) => usize::MAX,
    }
}

/// The listeners in lines such as `... listening on http://127.0.0.1:40123 (main)`.
fn listening(lines: &[String]) -> BTreeMap<String, SocketAddr> {
    let parse = |line: &String| {
        let (_, rest) = line.split_once("listening on http")?;
        let (address, rest) = rest.trim_start_matches('s').strip_prefix("://")?.split_once(" (")?;
        Some((rest.split_once(')')?.0.to_owned(), address.parse().ok()?))
    };
    lines.iter().filter_map(parse).collect()
}

#[test]
fn the_lines_that_name_the_listeners_are_understood() {
    let lines = ["INFO listening on http://127.0.0.1:1 (main)", "listening on https://[::1]:2 (tls) x", "else"];

    let found = listening(&lines.map(str::to_owned));

    assert_eq!(found["main"], "127.0.0.1:1".parse().unwrap());
    assert_eq!(found["tls"], "[::1]:2".parse().unwrap());
    assert_eq!(found.len(), 2);
}
