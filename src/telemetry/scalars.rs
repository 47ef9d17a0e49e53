//! Counters and gauges: children of `prometheus` vectors in a registry of our own, created from the catalogue.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::catalogue::Metric;

/// Get-or-create by metric and label values. Used when a configuration is loaded, never by a request.
#[derive(Debug)]
pub(super) struct Scalars {
    registry: Registry,
    families: Mutex<BTreeMap<&'static str, Vector>>,
}

#[derive(Debug, Clone)]
enum Vector {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Float(GaugeVec),
}

impl Scalars {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, families: Mutex::default() }
    }

    pub(super) fn counter(&self, metric: &'static Metric, values: &[&str]) -> IntCounter {
        let vector = self.vector(metric, || {
            let vector = IntCounterVec::new(opts(metric), metric.labels).expect(VALID);
            self.registry.register(Box::new(vector.clone())).expect(ONCE);
            Vector::Counter(vector)
        });
        let Vector::Counter(vector) = vector else { panic!("{} is used as two types", metric.name) };
        vector.with_label_values(values)
    }

    pub(super) fn gauge(&self, metric: &'static Metric, values: &[&str]) -> IntGauge {
        let vector = self.vector(metric, || {
            let vector = IntGaugeVec::new(opts(metric), metric.labels).expect(VALID);
            self.registry.register(Box::new(vector.clone())).expect(ONCE);
            Vector::Gauge(vector)
        });
        let Vector::Gauge(vector) = vector else { panic!("{} is used as two types", metric.name) };
        vector.with_label_values(values)
    }

    /// Sets a gauge that is not a whole number.
    pub(super) fn set(&self, metric: &'static Metric, values: &[&str], value: f64) {
        let vector = self.vector(metric, || {
            let vector = GaugeVec::new(opts(metric), metric.labels).expect(VALID);
            self.registry.register(Box::new(vector.clone())).expect(ONCE);
            Vector::Float(vector)
        });
        let Vector::Float(vector) = vector else { panic!("{} is used as two types", metric.name) };
        vector.with_label_values(values).set(value);
    }

    /// Drops all series of one metric.
    pub(super) fn clear(&self, metric: &'static Metric) {
        match self.lock().get(metric.name) {
            Some(Vector::Counter(vector)) => vector.reset(),
            Some(Vector::Gauge(vector)) => vector.reset(),
            Some(Vector::Float(vector)) => vector.reset(),
            None => {}
        }
    }

    /// Drops the series, of whatever metric, that carry all of these labels. Handles given out before keep working
    /// but are no longer exported.
    pub(super) fn remove(&self, labels: &[(&str, &str)]) {
        for vector in self.lock().values() {
            vector.remove(labels);
        }
    }

    /// [`Scalars::remove`] in one metric only.
    pub(super) fn remove_from(&self, metric: &'static Metric, labels: &[(&str, &str)]) {
        if let Some(vector) = self.lock().get(metric.name) {
            vector.remove(labels);
        }
    }

    fn vector(&self, metric: &'static Metric, create: impl FnOnce() -> Vector) -> Vector {
        self.lock().entry(metric.name).or_insert_with(create).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Vector>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const VALID: &str = "the catalogue's names and labels are valid, which a test checks";
const ONCE: &str = "a family is registered when it is first used, under the lock, and the registry is ours alone";

fn opts(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

impl Vector {
    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        match self {
            Vector::Counter(vector) => vector.collect(),
            Vector::Gauge(vector) => vector.collect(),
            Vector::Float(vector) => vector.collect(),
        }
    }

    fn remove(&self, labels: &[(&str, &str)]) {
        for family in self.collect() {
            for series in family.get_metric() {
                let all: HashMap<&str, &str> = series.get_label().iter().map(|l| (l.name(), l.value())).collect();
                if !labels.iter().all(|(name, value)| all.get(name) == Some(value)) {
                    continue;
                }
                // An error means that it is gone already, which is what is wanted.
                let _gone = match self {
                    Vector::Counter(vector) => vector.remove(&all),
                    Vector::Gauge(vector) => vector.remove(&all),
                    Vector::Float(vector) => vector.remove(&all),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::*;
    use super::*;

    #[test]
    fn the_same_labels_give_the_same_counter_and_removal_forgets_it() {
        let scalars = Scalars::new(Registry::new());
        scalars.counter(&QUEUE_RESULTS, &["route", "a", "full"]).inc();
        scalars.counter(&QUEUE_RESULTS, &["upstream", "a", "full"]).inc();
        assert_eq!(scalars.counter(&QUEUE_RESULTS, &["route", "a", "full"]).get(), 1);

        scalars.remove(&[("scope", "route"), ("name", "a")]);

        assert_eq!(scalars.counter(&QUEUE_RESULTS, &["route", "a", "full"]).get(), 0);
        assert_eq!(scalars.counter(&QUEUE_RESULTS, &["upstream", "a", "full"]).get(), 1);
    }
}
