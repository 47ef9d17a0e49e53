//! One running upstream: its endpoints and the tasks that keep them current.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::endpoints::EndpointSet;
use super::health::{self, Probe};
use super::resolve::{self, Resolve};
use crate::config::model;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::UpstreamMetrics;

/// The endpoints of one configured upstream, kept current while this exists: dropping it stops its tasks.
#[derive(Debug)]
pub struct Upstream {
    config: Arc<model::Upstream>,
    endpoints: Arc<EndpointSet>,
    /// The owner of the tasks' life: dropped with the last generation that uses this upstream.
    _tasks: DropGuard,
}

impl Upstream {
    /// Starts the tasks: name resolution where there are names, health checks where they are configured. Must be called
    /// inside a tokio runtime. `seed` spreads the health checks of many processes.
    pub fn start(
        config: Arc<model::Upstream>,
        resolver: Arc<dyn Resolve>,
        probe: Arc<dyn Probe>,
        telemetry: &Telemetry,
        seed: u64,
    ) -> Arc<Self> {
        let metrics: Arc<UpstreamMetrics> = telemetry.upstream(&config.name);
        let gauges = config.endpoints.iter().map(|endpoint| telemetry.endpoint_up(&config.name, endpoint)).collect();
        let (endpoints, stop) = (EndpointSet::new(&config.endpoints, gauges), CancellationToken::new());
        if config.endpoints.iter().any(|address| matches!(address, model::EndpointAddress::Name { .. })) {
            let (set, configured) = (Arc::clone(&endpoints), config.endpoints.clone());
            let task = resolve::run(Arc::clone(&metrics), set, configured, config.dns_refresh, resolver, stop.clone());
            tokio::spawn(task);
        }
        if let Some(check) = config.health.clone() {
            let rng = SmallRng::seed_from_u64(seed);
            tokio::spawn(health::run(metrics, Arc::clone(&endpoints), check, probe, rng, stop.clone()));
        }
        Arc::new(Self { config, endpoints, _tasks: stop.drop_guard() })
    }

    /// True when `config` describes the same endpoints, checked in the same way: a reload then keeps this object and
    /// with it the health and the answers it has.
    pub fn serves(&self, config: &model::Upstream) -> bool {
        let ours = &*self.config;
        ours.name == config.name
            && ours.endpoints == config.endpoints
            && ours.health == config.health
            && ours.dns_refresh == config.dns_refresh
            && ours.tls == config.tls
            && ours.protocol == config.protocol
    }

    pub fn endpoints(&self) -> &Arc<EndpointSet> {
        &self.endpoints
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use futures_util::future::BoxFuture;

    use super::super::{HttpProbe, SystemResolver};
    use super::*;
    use crate::config::model::{EndpointAddress, UpstreamProtocol, UpstreamTimeouts};

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixed;

    impl Resolve for Fixed {
        fn resolve<'a>(&'a self, _host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            Box::pin(std::future::ready(Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])))
        }
    }

    fn config(endpoint: EndpointAddress) -> model::Upstream {
        model::Upstream {
            name: "api".into(),
            endpoints: vec![endpoint],
            protocol: UpstreamProtocol::Http1,
            tls: None,
            timeouts: UpstreamTimeouts {
                connect: SECOND,
                tls: SECOND,
                first_byte: SECOND,
                between_bytes: SECOND,
                idle: SECOND,
            },
            in_flight: None,
            max_idle_connections: 1,
            health: None,
            dns_refresh: SECOND,
            max_response_head_bytes: 1024,
            max_response_body_bytes: None,
            connect_retries: 0,
        }
    }

    fn named() -> EndpointAddress {
        EndpointAddress::Name { host: "api.example".into(), port: 80 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_started_upstream_gets_its_addresses_and_stops_with_its_owner() {
        let upstream = Upstream::start(
            Arc::new(config(named())),
            Arc::new(Fixed),
            Arc::new(HttpProbe { http2: false }),
            &Telemetry::quiet(),
            1,
        );
        let set = Arc::clone(upstream.endpoints());

        tokio::time::timeout(SECOND, set.wait_for_addresses()).await.expect("resolved at once");
        assert!(set.pick(&[]).is_some());

        drop(upstream);
        let alone = async {
            while Arc::strong_count(&set) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SECOND, alone).await.expect("the task lets go of the endpoints");
    }

    #[tokio::test]
    async fn a_reload_keeps_an_upstream_whose_endpoints_and_checks_are_the_same() {
        let probe: Arc<dyn Probe> = Arc::new(HttpProbe { http2: false });
        let literal = EndpointAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 80)));
        let upstream =
            Upstream::start(Arc::new(config(literal.clone())), Arc::new(SystemResolver), probe, &Telemetry::quiet(), 1);

        let mut same = config(literal);
        same.connect_retries = 7;
        assert!(upstream.serves(&same), "how requests are sent is not this object's business");
        assert!(!upstream.serves(&config(named())));
    }
}
