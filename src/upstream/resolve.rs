//! DNS names of endpoints, resolved again and again off the data path.
//!
//! The last good answer stays in use while the resolver fails or answers with nothing: a resolver that is down must not
//! take a working upstream with it. A failure is retried after a second, then two, four, up to `dns_refresh`.
//!
//! Lookups go through the system's resolver on tokio's blocking pool and have no time limit of our own: a lookup that is
//! given up goes on in its thread, so giving up and asking again would pile up threads. Each name has at most one
//! running, and other names do not wait for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use super::endpoints::EndpointSet;
use crate::config::model::EndpointAddress;
use crate::telemetry::metrics::UpstreamMetrics;

const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Turns a name into addresses.
pub trait Resolve: Send + Sync + 'static {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver: `/etc/hosts`, then DNS, as `getaddrinfo` does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Keeps the names among `configured` resolved until `stop`. Ends at once when there are none.
pub(super) async fn run(
    metrics: Arc<UpstreamMetrics>,
    set: Arc<EndpointSet>,
    configured: Vec<EndpointAddress>,
    refresh: Duration,
    resolver: Arc<dyn Resolve>,
    stop: CancellationToken,
) {
    let names = configured.iter().enumerate().filter_map(|(index, address)| match address {
        EndpointAddress::Name { host, port } => Some((index, host.as_str(), *port)),
        EndpointAddress::Socket(_) => None,
    });
    let loops = names.map(|(index, host, port)| {
        let (metrics, set, resolver) = (&metrics, &set, &resolver);
        async move {
            let mut failures = 0;
            loop {
                let answer = resolver.resolve(host, port).await;
                failures = if take_in(&metrics.name, set, index, host, answer) {
                    0
                } else {
                    metrics.dns_failures.inc();
                    failures + 1
                };
                tokio::time::sleep(pause(failures, refresh)).await;
            }
        }
    });
    stop.run_until_cancelled(join_all(loops)).await;
}

/// Uses an answer; false when it is none.
fn take_in(upstream: &str, set: &EndpointSet, index: usize, host: &str, answer: io::Result<Vec<SocketAddr>>) -> bool {
    match answer {
        Ok(addresses) if !addresses.is_empty() => {
            let count = addresses.len();
            if set.resolved(index, addresses) {
                tracing::info!(upstream, host, count, "addresses changed");
            }
            true
        }
        Ok(_) => {
            tracing::warn!(upstream, host, "name has no address, the last answer stays in use");
            false
        }
        Err(error) => {
            tracing::warn!(upstream, host, %error, "cannot resolve name, the last answer stays in use");
            false
        }
    }
}

/// The time to the next lookup after this many failures in a row.
fn pause(failures: u32, refresh: Duration) -> Duration {
    match failures.checked_sub(1) {
        None => refresh,
        Some(doublings) => FIRST_RETRY.saturating_mul(1 << doublings.min(20)).min(refresh),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::telemetry::Telemetry;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers with what is scripted, then fails.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Vec<u8>>>,
        asked: Mutex<Vec<Duration>>,
        begin: Option<Instant>,
    }

    impl Resolve for Script {
        fn resolve<'a>(&'a self, _host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            self.asked.lock().unwrap().push(self.begin.unwrap().elapsed());
            let answer = self.answers.lock().unwrap().pop_front();
            let address = move |n: u8| SocketAddr::from(([10, 0, 0, n], port));
            let answer = answer.map(|octets| octets.into_iter().map(address).collect());
            Box::pin(std::future::ready(answer.ok_or_else(|| io::Error::other("no such host"))))
        }
    }

    struct Running {
        set: Arc<EndpointSet>,
        script: Arc<Script>,
        metrics: Arc<UpstreamMetrics>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(answers: &[&[u8]]) -> Running {
        let configured = vec![EndpointAddress::Name { host: "api.example".into(), port: 80 }];
        let answers = Mutex::new(answers.iter().map(|octets| octets.to_vec()).collect());
        let script = Arc::new(Script { answers, begin: Some(Instant::now()), ..Script::default() });
        let (set, stop) = (EndpointSet::new(&configured, Vec::new()), CancellationToken::new());
        let resolver: Arc<dyn Resolve> = Arc::clone(&script) as _;
        let metrics = Telemetry::quiet().upstream("u");
        let task =
            tokio::spawn(run(Arc::clone(&metrics), Arc::clone(&set), configured, 5 * SECOND, resolver, stop.clone()));
        Running { set, script, metrics, stop, task }
    }

    fn addresses(set: &EndpointSet) -> Vec<String> {
        set.status().iter().map(|status| status.address.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_resolved_again_at_the_refresh_time() {
        let running = start(&[&[1], &[2, 3]]);

        sleep(SECOND).await;
        assert_eq!(addresses(&running.set), ["10.0.0.1:80"]);
        sleep(5 * SECOND).await;
        assert_eq!(addresses(&running.set), ["10.0.0.2:80", "10.0.0.3:80"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_stays_while_the_resolver_fails() {
        let running = start(&[&[1], &[]]);

        sleep(30 * SECOND).await;

        assert_eq!(addresses(&running.set), ["10.0.0.1:80"]);
        let asked: Vec<u64> = running.script.asked.lock().unwrap().iter().map(Duration::as_secs).collect();
        assert_eq!(asked, [0, 5, 6, 8, 12, 17, 22, 27], "retries double up to the refresh time");
        assert_eq!(running.metrics.dns_failures.get(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_when_it_is_stopped() {
        let running = start(&[&[1]]);
        sleep(SECOND).await;

        running.stop.cancel();

        tokio::time::timeout(SECOND, running.task).await.expect("ends at once").unwrap();
    }

    #[tokio::test]
    async fn the_system_resolver_knows_localhost() {
        let addresses = SystemResolver.resolve("localhost", 80).await.unwrap();

        assert!(addresses.iter().any(|address| address.ip().is_loopback()));
    }
}
