//! One running upstream: its endpoints and the tasks that keep them current.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::endpoints::EndpointSet;
use super::health::{self, Probe};
use super::resolve::{self, Resolve};
use crate::config::model;

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
        seed: u64,
    ) -> Arc<Self> {
        let (endpoints, stop) = (EndpointSet::new(&config.endpoints), CancellationToken::new());
        let name: Arc<str> = Arc::from(config.name.as_str());
        if config.endpoints.iter().any(|address| matches!(address, model::EndpointAddress::Name { .. })) {
            let (set, configured) = (Arc::clone(&endpoints), config.endpoints.clone());
            let task = resolve::run(Arc::clone(&name), set, configured, config.dns_refresh, resolver, stop.clone());
            tokio::spawn(task);
        }
        if let Some(check) = config.health.clone() {
            let rng = SmallRng::seed_from_u64(seed);
            tokio::spawn(health::run(name, Arc::clone(&endpoints), check, probe, rng, stop.clone()));
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
