//! All limits of one configuration, built from it and from the ones before it.
//!
//! A reload takes over state in two steps. `Limits::build` decides which objects the new configuration shares with the
//! old one and changes none of them, so a reload that fails later leaves the running limits alone. `Limits::activate`
//! sets the new numbers in place, at the moment the new configuration begins to serve.
//!
//! * A rate limit is taken over when its configuration is equal (its name is part of it). A changed one starts with full
//!   buckets: a bucket's number means nothing under another rate.
//! * An in-flight limit belongs to its owner's name (route, upstream, global): it is always taken over and then resized,
//!   since requests in flight do not go away because a number changed. One that is new starts from zero: requests that
//!   were admitted before it existed are not counted.
//! * A client limit is taken over while its key is of the same kind.

use std::collections::HashMap;
use std::sync::Arc;

use super::admission::Admission;
use super::client::ClientLimiter;
use super::in_flight::InFlightLimiter;
use super::key::Seed;
use super::rate::RateLimiter;
use super::rates::RateLimiters;
use crate::config::model::{ClientInFlight, Config, InFlight, RateLimit, Route, RouteAction};
use crate::telemetry::metrics::{ClientLimitMetrics, LimiterMetrics, QueueMetrics};

/// Whose in-flight limit it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueScope<'a> {
    Global,
    Route(&'a str),
    Upstream(&'a str),
}

/// Hands out the metric handles; called once for each limit that is built.
pub trait LimitMetrics {
    fn rate_limit(&self, name: &str) -> Arc<LimiterMetrics>;
    /// The client in-flight limit of this route: `admitted`, `rejected`, `keys` and `overflows` (too many clients) are used.
    fn client_limit(&self, route: &str) -> Arc<ClientLimitMetrics>;
    fn queue(&self, scope: QueueScope<'_>) -> Arc<QueueMetrics>;
}

/// The limits of one configuration.
#[derive(Debug, Default)]
pub struct Limits {
    rates: HashMap<String, Arc<RateLimiter>>,
    global: Option<Arc<InFlightLimiter>>,
    upstreams: HashMap<String, Arc<InFlightLimiter>>,
    routes: HashMap<String, Arc<Admission>>,
    /// New numbers for limiters that were taken over.
    resizes: Vec<Resize>,
}

#[derive(Debug)]
enum Resize {
    Queue(Arc<InFlightLimiter>, InFlight),
    Client(Arc<ClientLimiter>, ClientInFlight),
}

impl Limits {
    /// Builds the limits of `config`, sharing with `previous` what is the same.
    pub fn build(config: &Config, previous: Option<&Limits>, seed: Seed, metrics: &dyn LimitMetrics) -> Self {
        let mut builder = Builder { limits: Limits::default(), previous, seed, metrics };
        let shared = builder.rates(&config.rate_limits);
        builder.limits.global = builder.queue(QueueScope::Global, config.in_flight.as_ref());
        for upstream in &config.upstreams {
            if let Some(limiter) = builder.queue(QueueScope::Upstream(&upstream.name), upstream.in_flight.as_ref()) {
                builder.limits.upstreams.insert(upstream.name.clone(), limiter);
            }
        }
        for route in &config.routes {
            let admission = Arc::new(builder.route(route, &shared));
            builder.limits.routes.insert(route.name.clone(), admission);
        }
        builder.limits
    }

    /// Sets the new numbers of limiters that were taken over. To be called when this configuration begins to serve.
    pub fn activate(&self) {
        for resize in &self.resizes {
            match resize {
                Resize::Queue(limiter, limit) => limiter.resize(limit.clone()),
                Resize::Client(limiter, limit) => limiter.resize(limit.clone()),
            }
        }
    }

    /// What the requests of this route meet. To be looked up once, when routes are compiled.
    pub fn route(&self, name: &str) -> Option<&Arc<Admission>> {
        self.routes.get(name)
    }

    /// What a source of an aggregate meets besides the limits of its route: the in-flight limit of its upstream.
    pub fn source(&self, upstream: &str) -> Admission {
        Admission { upstream: self.upstreams.get(upstream).cloned(), ..Admission::default() }
    }

    pub fn rate_limit(&self, name: &str) -> Option<&Arc<RateLimiter>> {
        self.rates.get(name)
    }

    pub fn global(&self) -> Option<&Arc<InFlightLimiter>> {
        self.global.as_ref()
    }

    pub fn upstream(&self, name: &str) -> Option<&Arc<InFlightLimiter>> {
        self.upstreams.get(name)
    }
}

struct Builder<'a> {
    limits: Limits,
    previous: Option<&'a Limits>,
    seed: Seed,
    metrics: &'a dyn LimitMetrics,
}

impl Builder<'_> {
    fn route(&mut self, route: &Route, shared: &[Arc<RateLimiter>]) -> Admission {
        let own = self.rates(&route.rate_limits);
        let upstream = match &route.action {
            RouteAction::Proxy { upstream } => self.limits.upstreams.get(&upstream.name).cloned(),
            // Each source meets the limit of its own upstream.
            RouteAction::Respond { .. } | RouteAction::Aggregate(_) | RouteAction::Results { .. } => None,
        };
        Admission {
            rates: RateLimiters::new(shared.iter().cloned().chain(own)),
            client: route.client_in_flight.as_ref().map(|limit| self.client(&route.name, limit)),
            route: self.queue(QueueScope::Route(&route.name), route.in_flight.as_ref()),
            global: self.limits.global.clone(),
            upstream,
        }
    }

    fn rates(&mut self, configs: &[Arc<RateLimit>]) -> Vec<Arc<RateLimiter>> {
        configs.iter().map(|config| self.rate(config)).collect()
    }

    fn rate(&mut self, config: &Arc<RateLimit>) -> Arc<RateLimiter> {
        let known = self.limits.rates.get(&config.name).or_else(|| self.previous?.rates.get(&config.name));
        let limiter = match known {
            Some(limiter) if limiter.config() == config => Arc::clone(limiter),
            _ => {
                let metrics = self.metrics.rate_limit(&config.name);
                Arc::new(RateLimiter::new(Arc::clone(config), self.seed, metrics))
            }
        };
        self.limits.rates.insert(config.name.clone(), Arc::clone(&limiter));
        limiter
    }

    fn queue(&mut self, scope: QueueScope<'_>, limit: Option<&InFlight>) -> Option<Arc<InFlightLimiter>> {
        let limit = limit?;
        let known = self.previous.and_then(|previous| match &scope {
            QueueScope::Global => previous.global.as_ref(),
            QueueScope::Route(name) => previous.routes.get(*name)?.route.as_ref(),
            QueueScope::Upstream(name) => previous.upstreams.get(*name),
        });
        let Some(limiter) = known else {
            return Some(InFlightLimiter::new(limit.clone(), self.metrics.queue(scope)));
        };
        self.limits.resizes.push(Resize::Queue(Arc::clone(limiter), limit.clone()));
        Some(Arc::clone(limiter))
    }

    fn client(&mut self, route: &str, limit: &ClientInFlight) -> Arc<ClientLimiter> {
        let known = self.previous.and_then(|previous| previous.routes.get(route)?.client.as_ref());
        match known {
            Some(limiter) if limiter.limit().key == limit.key => {
                self.limits.resizes.push(Resize::Client(Arc::clone(limiter), limit.clone()));
                Arc::clone(limiter)
            }
            _ => ClientLimiter::new(limit.clone(), self.seed, self.metrics.client_limit(route)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BY_CLIENT, client_limit_metrics, config, in_flight, limiter_metrics, queue_metrics, rate, route,
    };
    use super::*;
    use crate::config::model::QueueOrder;
    use std::time::Duration;

    struct Metrics;

    impl LimitMetrics for Metrics {
        fn rate_limit(&self, _name: &str) -> Arc<LimiterMetrics> {
            limiter_metrics()
        }

        fn client_limit(&self, _route: &str) -> Arc<ClientLimitMetrics> {
            client_limit_metrics()
        }

        fn queue(&self, _scope: QueueScope<'_>) -> Arc<QueueMetrics> {
            queue_metrics()
        }
    }

    fn build(config: &Config, previous: Option<&Limits>) -> Limits {
        Limits::build(config, previous, Seed(1), &Metrics)
    }

    fn limits_of(rate_count: u32, max: usize) -> Config {
        let mut route = route("r");
        route.rate_limits = vec![Arc::new(rate(rate_count, 1, 5))];
        route.in_flight = Some(in_flight(max, 2, Duration::from_secs(1), QueueOrder::Fifo));
        route.client_in_flight = Some(ClientInFlight { max, key: BY_CLIENT, max_keys: 10 });
        config(vec![route])
    }

    #[test]
    fn what_did_not_change_keeps_its_state() {
        let old = build(&limits_of(1, 4), None);
        let new = build(&limits_of(1, 4), Some(&old));

        assert!(Arc::ptr_eq(old.rate_limit("test").unwrap(), new.rate_limit("test").unwrap()));
        let (old, new) = (old.route("r").unwrap(), new.route("r").unwrap());
        assert!(Arc::ptr_eq(old.route.as_ref().unwrap(), new.route.as_ref().unwrap()));
        assert!(Arc::ptr_eq(old.client.as_ref().unwrap(), new.client.as_ref().unwrap()));
    }

    #[test]
    fn a_changed_rate_begins_anew() {
        let old = build(&limits_of(1, 4), None);
        let new = build(&limits_of(2, 4), Some(&old));

        assert!(!Arc::ptr_eq(old.rate_limit("test").unwrap(), new.rate_limit("test").unwrap()));
    }

    #[test]
    fn a_changed_maximum_is_set_only_when_the_new_configuration_serves() {
        let old = build(&limits_of(1, 4), None);
        let limiter = Arc::clone(old.route("r").unwrap().route.as_ref().unwrap());

        let new = build(&limits_of(1, 7), Some(&old));
        assert_eq!(limiter.limit().max, 4, "the reload may still fail");

        new.activate();
        assert_eq!(limiter.limit().max, 7);
        assert_eq!(new.route("r").unwrap().client.as_ref().unwrap().limit().max, 7);
    }
}
