//! Faults: what is done on purpose to some requests of a route, so that one can see how their clients, the limits and
//! the alerts take it.
//!
//! Pure but for its counters: who asks says what time it is. Which request meets a fault, and for how long it is
//! delayed, is a function of the seed, the route and the number of the request among those that the fault looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::chance;
use crate::config::model::{Fault, FaultEnd, HeaderMatch};
use crate::telemetry::FaultMetrics;
use crate::units::show_duration;

/// The faults of a route since the configuration that has them was taken.
#[derive(Debug)]
pub struct Faults {
    route: String,
    seed: u64,
    armed: Vec<Armed>,
    metrics: Arc<FaultMetrics>,
    announced: AtomicBool,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    ends: Instant,
    /// Requests that it has looked at.
    looked_at: AtomicU64,
    active: AtomicUsize,
    end_is_logged: AtomicBool,
}

/// Each decides by a number of its own, so that a changed `fraction` leaves the delays as they were.
enum Stream {
    Meets = 1,
    Delay = 2,
}

impl Faults {
    /// From now on, until each has ended.
    pub fn new(route: &str, faults: &[Fault], seed: u64, metrics: Arc<FaultMetrics>, now: Instant) -> Arc<Self> {
        let arm = |fault: &Fault| Armed {
            fault: fault.clone(),
            ends: now + fault.end_after,
            looked_at: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            end_is_logged: AtomicBool::new(false),
        };
        let armed = faults.iter().map(arm).collect();
        Arc::new(Self { route: route.to_owned(), seed, armed, metrics, announced: AtomicBool::new(false) })
    }

    /// True when these are the faults that `faults` and `seed` describe: a reload that leaves them alone neither begins
    /// nor lengthens them.
    pub fn are(&self, faults: &[Fault], seed: u64) -> bool {
        self.seed == seed && self.armed.iter().map(|armed| &armed.fault).eq(faults)
    }

    /// To be called when the configuration begins to serve: from then on log and metrics say that faults are done.
    pub fn announce(&self) {
        if !self.announced.swap(true, Ordering::Relaxed) {
            let longest = self.armed.iter().map(|armed| armed.fault.end_after).max().unwrap_or_default();
            let ends_within = show_duration(longest);
            tracing::warn!(route = self.route, ends_within, "faults are on: requests of this route fail on purpose");
        }
        self.metrics.set_ends(self.armed.iter().map(|armed| armed.ends).collect());
    }

    /// What this request meets: the first fault that takes it. `holds` says whether a header is as wanted.
    pub fn strike(self: &Arc<Self>, now: Instant, holds: impl Fn(&HeaderMatch) -> bool) -> Option<Strike> {
        let mut candidates = self.armed.iter().enumerate();
        candidates.find_map(|(index, armed)| self.strike_with(index, armed, now, &holds))
    }

    fn strike_with(
        self: &Arc<Self>,
        index: usize,
        armed: &Armed,
        now: Instant,
        holds: &impl Fn(&HeaderMatch) -> bool,
    ) -> Option<Strike> {
        if now >= armed.ends {
            if !armed.end_is_logged.swap(true, Ordering::Relaxed) {
                tracing::info!(route = self.route, "a fault of this route has ended");
            }
            return None;
        }
        let Fault { delay, end, bandwidth, fraction, headers, max_active, .. } = &armed.fault;
        if !headers.iter().all(holds) {
            return None;
        }
        let number = armed.looked_at.fetch_add(1, Ordering::Relaxed);
        let draw = |stream: Stream| {
            let stream = (index as u64) << 8 | stream as u64;
            chance::unit(self.seed, &self.route, number, stream)
        };
        if draw(Stream::Meets) >= *fraction {
            return None;
        }
        let below = |active: usize| (active < *max_active).then_some(active + 1);
        if armed.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_err() {
            self.metrics.skipped.inc();
            return None;
        }
        let delay = delay.as_ref().map(|latency| latency.quantile(draw(Stream::Delay)));
        self.metrics.begin(delay.is_some(), *end, bandwidth.is_some());
        Some(Strike { faults: self.clone(), index, delay, end: *end, bandwidth: *bandwidth })
    }
}

/// One request meets a fault; it is active until this is dropped.
#[derive(Debug)]
pub struct Strike {
    faults: Arc<Faults>,
    index: usize,
    pub delay: Option<Duration>,
    pub end: Option<FaultEnd>,
    /// Bytes per second of the answer's body.
    pub bandwidth: Option<u64>,
}

impl Strike {
    /// What is done, for the log.
    pub fn what(&self) -> &'static str {
        match (self.delay, self.end, self.bandwidth) {
            (None, None, _) => "bandwidth",
            (Some(_), None, None) => "delay",
            (Some(_), None, Some(_)) => "delay,bandwidth",
            (None, Some(FaultEnd::Abort(_)), _) => "abort",
            (None, Some(FaultEnd::Reset), _) => "reset",
            (Some(_), Some(FaultEnd::Abort(_)), _) => "delay,abort",
            (Some(_), Some(FaultEnd::Reset), _) => "delay,reset",
        }
    }
}

impl Drop for Strike {
    fn drop(&mut self) {
        self.faults.armed[self.index].active.fetch_sub(1, Ordering::Relaxed);
        self.faults.metrics.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;
    use crate::telemetry::Telemetry;

    fn fault() -> Fault {
        Fault {
            delay: None,
            end: Some(FaultEnd::Abort(503)),
            bandwidth: None,
            fraction: 1.0,
            headers: Vec::new(),
            max_active: 1000,
            end_after: Duration::from_secs(60),
        }
    }

    fn slow(fraction: f64) -> Fault {
        let latency = Latency::Uniform { min: Duration::from_millis(100), max: Duration::from_millis(300) };
        Fault { delay: Some(latency), end: None, fraction, ..fault() }
    }

    fn faults(faults: &[Fault]) -> (Arc<Faults>, Arc<FaultMetrics>) {
        let metrics = Telemetry::quiet().faults("api");
        (Faults::new("api", faults, 7, metrics.clone(), Instant::now()), metrics)
    }

    fn strikes(faults: &Arc<Faults>, count: usize) -> Vec<Option<Strike>> {
        (0..count).map(|_| faults.strike(Instant::now(), |_| true)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_strikes_the_same_requests_for_as_long() {
        let delays = |seed| {
            let faults = Faults::new("api", &[slow(0.3)], seed, Telemetry::quiet().faults("api"), Instant::now());
            strikes(&faults, 1000).iter().map(|strike| strike.as_ref()?.delay).collect::<Vec<_>>()
        };

        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        let met = delays(7).iter().flatten().count();
        assert!((250..350).contains(&met), "{met} of 1000 at 0.3");
        let range = Duration::from_millis(100)..=Duration::from_millis(300);
        assert!(delays(7).iter().flatten().all(|delay| range.contains(delay)));
    }

    #[tokio::test(start_paused = true)]
    async fn another_fraction_leaves_the_delays_of_the_requests_as_they_were() {
        let (all, some) = (faults(&[slow(1.0)]).0, faults(&[slow(0.3)]).0);

        let pairs = strikes(&all, 500).into_iter().zip(strikes(&some, 500));

        assert!(pairs.filter_map(|(all, some)| Some((all?, some?))).all(|(all, some)| all.delay == some.delay));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself() {
        let (faults, metrics) = faults(&[fault()]);
        faults.announce();
        assert_eq!(metrics.armed(Instant::now()), 1);

        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(faults.strike(Instant::now(), |_| true).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;

        assert!(faults.strike(Instant::now(), |_| true).is_none());
        assert_eq!(metrics.armed(Instant::now()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_max_active_requests_go_on_as_usual_and_are_counted() {
        let (faults, metrics) = faults(&[Fault { max_active: 2, ..fault() }]);

        let mut held = strikes(&faults, 5);
        assert_eq!(held.iter().flatten().count(), 2);
        assert_eq!((metrics.active.get(), metrics.skipped.get()), (2, 3));

        held.clear();
        assert_eq!(metrics.active.get(), 0);
        assert!(faults.strike(Instant::now(), |_| true).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_requests_with_its_headers_meet_it_and_the_first_that_takes_one_counts() {
        let wanted = HeaderMatch { name: "x-fault".into(), value: None };
        let (faults, _) = faults(&[Fault { headers: vec![wanted.clone()], ..fault() }, slow(1.0)]);

        let plain = faults.strike(Instant::now(), |_| false).unwrap();
        let asked = faults.strike(Instant::now(), |header| *header == wanted).unwrap();

        assert_eq!((plain.what(), asked.what()), ("delay", "abort"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_knows_the_same_faults_again() {
        let (faults, _) = faults(&[fault()]);

        assert!(faults.are(&[fault()], 7));
        assert!(!faults.are(&[fault()], 8));
        assert!(!faults.are(&[slow(1.0)], 7));
        assert!(!faults.are(&[], 7));
    }
}
