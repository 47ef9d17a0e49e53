//! The endpoints of one upstream, as the data path sees them.
//!
//! `pick` reads an immutable list behind an `ArcSwap` and moves one atomic counter: no lock, and an even share for each
//! healthy endpoint (unhealthy ones are not skipped at picking time, which would give their share to their neighbour; the
//! list is written anew when the health of one changes).
//!
//! **When no endpoint is healthy, all of them are used** (Envoy's "panic mode", at a threshold of zero). All checks failing
//! at once is more often a wrong check (a renamed path, an expired token, a full disk under the checker) than all endpoints
//! being down. If the check is wrong, traffic goes on and a warning says what is going on; if the endpoints are down, the client
//! gets `connect_failed` or `connect_timeout`, which say more at 3 a.m. than `no_endpoint`. `no_endpoint` is left for the
//! case in which there is no address at all: a name that has not been resolved yet.
//!
//! **Passive marking.** An endpoint to which a connection failed is avoided for `AVOID`, so that without health checks a
//! dead endpoint costs one attempt per second and not one in `n` requests. It is only a preference: when every healthy endpoint is
//! avoided, they are used all the same.
//!
//! **What the metrics say**: a configured endpoint is up while one of its addresses is, and a name without an address is
//! not. That is what the checks found, also while all endpoints are used because none is up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::{Health, Transition};
use crate::config::model::{EndpointAddress, HealthCheck};

/// How long an endpoint is avoided after a failed connection.
const AVOID: Duration = Duration::from_secs(1);

/// One address of an upstream. Stays the same object while the address is in use, over DNS changes of the others.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The name it came from, for SNI and `Host`; `None` for a literal address.
    pub host: Option<Arc<str>>,
    /// `host:port`, or the address where there is no name: what `Host` says to this endpoint.
    pub authority: Box<str>,
    health: Mutex<Health>,
    up: AtomicBool,
    /// Milliseconds since `begin`; 0: not avoided.
    avoid_until: AtomicU64,
    begin: Instant,
}

impl Endpoint {
    fn new(address: SocketAddr, host: Option<Arc<str>>) -> Arc<Self> {
        let authority = host.as_ref().map_or_else(|| address.to_string(), |host| format!("{host}:{}", address.port()));
        Arc::new(Self {
            address,
            authority: authority.into(),
            host,
            health: Mutex::new(Health::default()),
            up: AtomicBool::new(true),
            avoid_until: AtomicU64::new(0),
            begin: Instant::now(),
        })
    }

    /// What the active checks say; true until they say otherwise.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// The proxy could not connect: other endpoints are preferred for a moment.
    pub fn connect_failed(&self) {
        let until = (self.begin.elapsed() + AVOID).as_millis();
        self.avoid_until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The proxy has connected: nothing to avoid.
    pub fn connected(&self) {
        if self.avoid_until.load(Ordering::Relaxed) != 0 {
            self.avoid_until.store(0, Ordering::Relaxed);
        }
    }

    /// Reads the clock only for endpoints that failed lately.
    fn is_avoided(&self) -> bool {
        let until = self.avoid_until.load(Ordering::Relaxed);
        until != 0 && self.begin.elapsed().as_millis() < u128::from(until)
    }

    fn is(&self, address: SocketAddr, host: Option<&str>) -> bool {
        self.address == address && self.host.as_deref() == host
    }
}

/// One endpoint as the admin page and the metrics show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    pub address: SocketAddr,
    pub host: Option<Arc<str>>,
    pub up: bool,
}

#[derive(Debug, Default)]
struct List {
    all: Vec<Arc<Endpoint>>,
    /// Those to pick from: the healthy ones, or all when none is.
    usable: Vec<Arc<Endpoint>>,
}

/// One entry of the configuration with the addresses that it stands for now.
#[derive(Debug)]
struct Source {
    configured: EndpointAddress,
    addresses: Vec<SocketAddr>,
    /// The metric of the configured entry.
    up: Option<IntGauge>,
}

/// The endpoints of one upstream.
#[derive(Debug)]
pub struct EndpointSet {
    list: ArcSwap<List>,
    next: AtomicUsize,
    /// Locked by the writers only, for as long as it takes to write a new list.
    sources: Mutex<Vec<Source>>,
    /// How many endpoints there are, for `wait_for_addresses`.
    count: watch::Sender<usize>,
}

impl EndpointSet {
    /// Literal addresses can be picked at once, names when they have been resolved. `gauges` are those of the entries
    /// of `configured`, in the same order; an entry without one is not exported.
    pub fn new(configured: &[EndpointAddress], gauges: Vec<IntGauge>) -> Arc<Self> {
        let mut gauges = gauges.into_iter();
        let source = |configured: &EndpointAddress| Source {
            up: gauges.next(),
            addresses: match configured {
                EndpointAddress::Socket(address) => vec![*address],
                EndpointAddress::Name { .. } => Vec::new(),
            },
            configured: configured.clone(),
        };
        let set = Self {
            list: ArcSwap::default(),
            next: AtomicUsize::new(0),
            sources: Mutex::new(configured.iter().map(source).collect()),
            count: watch::Sender::new(0),
        };
        set.rewrite(&set.lock());
        Arc::new(set)
    }

    /// The next endpoint: round robin over the healthy ones, none of `tried` while there is another. `None` only when
    /// there is no address at all.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let list = self.list.load();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let start = turn.checked_rem(list.usable.len())?;
        let (before, from) = list.usable.split_at(start);
        let in_turn = || from.iter().chain(before);
        let untried = || in_turn().filter(|endpoint| !tried.contains(&endpoint.address));
        let best = untried().find(|endpoint| !endpoint.is_avoided());
        best.or_else(|| untried().next()).or_else(|| in_turn().next()).cloned()
    }

    /// Every endpoint, in the order of the configuration.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.list.load().all.clone()
    }

    pub fn status(&self) -> Vec<EndpointStatus> {
        let status = |e: &Arc<Endpoint>| EndpointStatus { address: e.address, host: e.host.clone(), up: e.is_up() };
        self.list.load().all.iter().map(status).collect()
    }

    /// Waits until there is an address to connect to, healthy or not. The caller sets the time limit.
    pub async fn wait_for_addresses(&self) {
        // An error would mean that the sender is gone; it lives in `self`.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// New addresses for the configured entry at `index`. In any order; true when they differ from those before.
    ///
    /// Endpoints that stay keep their state; those that are gone are not picked any more, while requests that have them
    /// go on.
    pub(super) fn resolved(&self, index: usize, mut addresses: Vec<SocketAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        let mut sources = self.lock();
        let Some(source) = sources.get_mut(index).filter(|source| source.addresses != addresses) else {
            return false;
        };
        source.addresses = addresses;
        self.rewrite(&sources);
        true
    }

    /// Takes in the outcome of one probe; what changed, if anything did.
    pub(super) fn probed(&self, endpoint: &Endpoint, healthy: bool, check: &HealthCheck) -> Option<Transition> {
        let transition = endpoint.health.lock().unwrap_or_else(PoisonError::into_inner).observe(healthy, check)?;
        endpoint.up.store(transition == Transition::Up, Ordering::Relaxed);
        self.rewrite(&self.lock());
        Some(transition)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        // A source is replaced as a whole: a poisoned list is still a valid one.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the list anew; `sources` is the held lock, so that writers come one after the other.
    fn rewrite(&self, sources: &[Source]) {
        let old = self.list.load();
        let mut all: Vec<Arc<Endpoint>> = Vec::new();
        for source in sources {
            let host = match &source.configured {
                EndpointAddress::Socket(_) => None,
                EndpointAddress::Name { host, .. } => Some(host.as_str()),
            };
            for &address in &source.addresses {
                if !all.iter().any(|endpoint| endpoint.is(address, host)) {
                    let known = old.all.iter().find(|endpoint| endpoint.is(address, host));
                    all.push(known.cloned().unwrap_or_else(|| Endpoint::new(address, host.map(Arc::from))));
                }
            }
        }
        let healthy: Vec<_> = all.iter().filter(|endpoint| endpoint.is_up()).cloned().collect();
        for source in sources {
            if let Some(gauge) = &source.up {
                let up = healthy.iter().any(|endpoint| source.addresses.contains(&endpoint.address));
                gauge.set(i64::from(up));
            }
        }
        let usable = if healthy.is_empty() { all.clone() } else { healthy };
        self.count.send_replace(all.len());
        self.list.store(Arc::new(List { all, usable }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    fn literals(n: u8) -> Arc<EndpointSet> {
        EndpointSet::new(&(1..=n).map(|n| EndpointAddress::Socket(address(n))).collect::<Vec<_>>(), Vec::new())
    }

    fn named() -> Arc<EndpointSet> {
        EndpointSet::new(&[EndpointAddress::Name { host: "api.example".into(), port: 80 }], Vec::new())
    }

    fn check() -> HealthCheck {
        HealthCheck {
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 1,
            healthy_after: 1,
            expect: Vec::new(),
        }
    }

    fn mark(set: &EndpointSet, n: u8, up: bool) {
        let endpoint = set.endpoints().into_iter().find(|e| e.address == address(n)).unwrap();
        set.probed(&endpoint, up, &check());
    }

    fn picks(set: &EndpointSet, count: usize) -> Vec<u8> {
        (0..count).map(|_| last_octet(&set.pick(&[]).unwrap())).collect()
    }

    fn last_octet(endpoint: &Endpoint) -> u8 {
        match endpoint.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => panic!("the tests use IPv4"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_take_turns() {
        assert_eq!(picks(&literals(3), 6), [1, 2, 3, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_of_an_unhealthy_endpoint_is_spread_over_all_others() {
        let set = literals(4);
        mark(&set, 2, false);

        let picks = picks(&set, 300);

        assert!([1, 3, 4].iter().all(|n| picks.iter().filter(|p| *p == n).count() == 100));
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_healthy_endpoint_all_are_used() {
        let set = literals(2);
        mark(&set, 1, false);
        mark(&set, 2, false);
        assert_eq!(picks(&set, 4).iter().filter(|n| **n == 1).count(), 2);

        mark(&set, 2, true);
        assert_eq!(picks(&set, 3), [2, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_attempt_goes_to_another_endpoint_where_there_is_one() {
        let set = literals(3);

        let tried = [address(1), address(3)];
        assert!((0..6).all(|_| set.pick(&tried).unwrap().address == address(2)));

        let all = [address(1), address(2), address(3)];
        assert!(set.pick(&all).is_some(), "a single endpoint may be tried twice");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_refused_a_connection_is_avoided_for_a_moment() {
        let set = literals(2);
        let first = set.pick(&[]).unwrap();

        first.connect_failed();
        assert_eq!(picks(&set, 4), [2, 2, 2, 2]);

        tokio::time::advance(AVOID).await;
        assert!(picks(&set, 2).contains(&1));

        set.endpoints().iter().for_each(|endpoint| endpoint.connect_failed());
        assert!(set.pick(&[]).is_some(), "all avoided is none avoided");
        first.connected();
        assert_eq!(picks(&set, 2), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_has_no_endpoint() {
        let set = named();
        assert!(set.pick(&[]).is_none());

        set.resolved(0, vec![address(1)]);

        let endpoint = set.pick(&[]).unwrap();
        assert_eq!(endpoint.host.as_deref(), Some("api.example"));
        tokio::time::timeout(Duration::from_secs(1), set.wait_for_addresses()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_of_an_answer_changes_nothing() {
        let set = named();
        assert!(set.resolved(0, vec![address(2), address(1), address(2)]));
        let before = set.endpoints();

        assert!(!set.resolved(0, vec![address(1), address(2)]));

        assert!(before.iter().zip(set.endpoints()).all(|(a, b)| Arc::ptr_eq(a, &b)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_stays_keeps_its_health_and_one_that_goes_is_drained() {
        let set = named();
        set.resolved(0, vec![address(1), address(2)]);
        mark(&set, 2, false);
        let held = set.pick(&[]).unwrap();
        assert_eq!(held.address, address(1));

        set.resolved(0, vec![address(2), address(3)]);

        assert_eq!(picks(&set, 2), [3, 3]);
        assert!(held.is_up(), "the request that has it goes on");
        let up: Vec<bool> = set.status().iter().map(|status| status.up).collect();
        assert_eq!(up, [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_under_two_entries_gets_one_share() {
        let entry = EndpointAddress::Socket(address(1));
        let set = EndpointSet::new(&[entry.clone(), entry, EndpointAddress::Socket(address(2))], Vec::new());

        assert_eq!(picks(&set, 4), [1, 2, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_gauge_of_an_entry_is_up_while_one_of_its_addresses_is() {
        let gauge = || IntGauge::new("up", "for the test").unwrap();
        let gauges = vec![gauge(), gauge()];
        let name = EndpointAddress::Name { host: "api.example".into(), port: 80 };
        let set = EndpointSet::new(&[EndpointAddress::Socket(address(9)), name], gauges.clone());
        let values = || gauges.iter().map(IntGauge::get).collect::<Vec<_>>();
        assert_eq!(values(), [1, 0], "a name without an answer takes no request");

        set.resolved(1, vec![address(1), address(2)]);
        mark(&set, 9, false);
        mark(&set, 1, false);
        assert_eq!(values(), [0, 1]);

        mark(&set, 2, false);
        assert_eq!(values(), [0, 0], "also when all are used because none is up");
    }
}
