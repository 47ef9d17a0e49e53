//! Active health checks: when an endpoint is taken out and brought back, and the task that asks.
//!
//! An endpoint counts as up until its checks say otherwise, so that a start does not wait for a round of probes; the first
//! round runs at once. `unhealthy_after` failures in a row take it out, `healthy_after` successes in a row bring it back.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::endpoints::{Endpoint, EndpointSet};
use crate::config::model::HealthCheck;
use crate::telemetry::metrics::UpstreamMetrics;

/// Probes of one upstream that run at once.
const CONCURRENT_PROBES: usize = 16;

/// What an endpoint's checks have said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    up: bool,
    /// Outcomes in a row that speak against `up`.
    against: u32,
}

/// A change of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    Up,
    Down,
}

impl Default for Health {
    fn default() -> Self {
        Self { up: true, against: 0 }
    }
}

impl Health {
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Takes in one outcome.
    pub fn observe(&mut self, healthy: bool, check: &HealthCheck) -> Option<Transition> {
        if healthy == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.up { check.unhealthy_after } else { check.healthy_after };
        if self.against < needed {
            return None;
        }
        *self = Self { up: healthy, against: 0 };
        Some(if healthy { Transition::Up } else { Transition::Down })
    }
}

/// Why a probe got no status.
#[derive(Debug)]
pub enum ProbeError {
    /// Connecting or exchanging failed; the text is for the log.
    Failed(String),
    Timeout(Duration),
    UnexpectedStatus(u16),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(detail) => f.write_str(detail),
            Self::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            Self::UnexpectedStatus(status) => write!(f, "answered with the unexpected status {status}"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// Asks one endpoint for its health. The caller holds the time limit: the future may be dropped at any point.
pub trait Probe: Send + Sync + 'static {
    /// The status of the answer to `GET path`.
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, path: &'a str) -> BoxFuture<'a, Result<u16, ProbeError>>;
}

/// Probes in the clear, over a connection of its own: it also checks that the endpoint accepts new ones.
#[derive(Debug, Clone, Copy)]
pub struct HttpProbe {
    /// HTTP/2 by prior knowledge instead of HTTP/1.1.
    pub http2: bool,
}

impl Probe for HttpProbe {
    fn probe<'a>(&'a self, endpoint: &'a Endpoint, path: &'a str) -> BoxFuture<'a, Result<u16, ProbeError>> {
        Box::pin(async move {
            let stream = TcpStream::connect(endpoint.address).await.map_err(failed("connect"))?;
            let request = probe_request(endpoint, path, self.http2)?;
            if self.http2 { probe_http2(stream, request).await } else { probe_http1(stream, request).await }
        })
    }
}

async fn probe_http1(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<u16, ProbeError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(failed("begin HTTP/1.1"))?;
    status(sender.send_request(request), connection).await
}

async fn probe_http2(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<u16, ProbeError> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(failed("begin HTTP/2"))?;
    status(sender.send_request(request), connection).await
}

/// Drives the connection until the head of the answer is there, which is all that is asked for.
async fn status(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<u16, ProbeError> {
    let mut answer = pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // Read to its end in one go: the answer, or the reason why there is none, has been handed over by now.
        _ = connection => answer.await,
    };
    Ok(answer.map_err(failed("get an answer"))?.status().as_u16())
}

fn failed<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> ProbeError {
    move |error| ProbeError::Failed(format!("cannot {what}: {error}"))
}

fn probe_request(endpoint: &Endpoint, path: &str, http2: bool) -> Result<Request<Empty<Bytes>>, ProbeError> {
    let authority = &*endpoint.authority;
    let builder = Request::get(if http2 { format!("http://{authority}{path}") } else { path.to_owned() })
        .header(header::USER_AGENT, "forebay-health-check");
    let builder = if http2 { builder } else { builder.header(header::HOST, authority) };
    builder.body(Empty::new()).map_err(failed("build the request"))
}

/// Probes every endpoint of `set` each interval until `stop`. The jitter of ±10 % keeps many proxies from asking at once.
pub(super) async fn run(
    metrics: Arc<UpstreamMetrics>,
    set: Arc<EndpointSet>,
    check: HealthCheck,
    probe: Arc<dyn Probe>,
    mut rng: SmallRng,
    stop: CancellationToken,
) {
    let rounds = async {
        loop {
            let next = Instant::now() + check.interval.mul_f64(rng.random_range(0.9..1.1));
            round(&metrics, &set, &check, &*probe).await;
            sleep_until(next).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

async fn round(metrics: &UpstreamMetrics, set: &EndpointSet, check: &HealthCheck, probe: &dyn Probe) {
    let endpoints = set.endpoints();
    let probes = stream::iter(&endpoints).for_each_concurrent(CONCURRENT_PROBES, |endpoint| async move {
        let outcome = ask(endpoint, check, probe).await;
        let counter = if outcome.is_ok() { &metrics.health_checks_passed } else { &metrics.health_checks_failed };
        counter.inc();
        let transition = set.probed(endpoint, outcome.is_ok(), check);
        report(&metrics.name, endpoint, transition, outcome.err());
    });
    probes.await;
}

async fn ask(endpoint: &Endpoint, check: &HealthCheck, probe: &dyn Probe) -> Result<(), ProbeError> {
    let answer = timeout(check.timeout, probe.probe(endpoint, &check.path)).await;
    let status = answer.map_err(|_| ProbeError::Timeout(check.timeout))??;
    let expected = check.expect.iter().any(|range| (range.first..=range.last).contains(&status));
    if expected { Ok(()) } else { Err(ProbeError::UnexpectedStatus(status)) }
}

fn report(upstream: &str, endpoint: &Endpoint, transition: Option<Transition>, error: Option<ProbeError>) {
    let endpoint = endpoint.address;
    let cause = error.map(|error| error.to_string()).unwrap_or_default();
    match transition {
        Some(Transition::Down) => tracing::warn!(upstream, %endpoint, cause, "endpoint is unhealthy"),
        Some(Transition::Up) => tracing::info!(upstream, %endpoint, "endpoint is healthy again"),
        None => {}
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
