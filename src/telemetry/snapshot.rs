//! All metrics at one moment, as plain data: what the encoders of `exposition` turn into bytes.

use std::collections::HashMap;

use prometheus::proto::{MetricFamily, MetricType};

use super::catalogue::{self, Metric};
use super::histogram::HistogramSnapshot;

/// The families of a scrape, in the order of the catalogue; empty ones are left out.
#[derive(Debug, Default)]
pub struct Snapshot {
    families: HashMap<&'static str, Vec<Series>>,
}

/// One series of a family.
#[derive(Debug, Clone)]
pub struct Series {
    /// In the order of the catalogue.
    pub labels: Vec<(&'static str, String)>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    Number(f64),
    Histogram(Box<HistogramSnapshot>),
}

impl Snapshot {
    pub fn families(&self) -> impl Iterator<Item = (&'static Metric, &[Series])> {
        catalogue::ALL.iter().filter_map(|metric| Some((metric, self.families.get(metric.name)?.as_slice())))
    }

    pub(super) fn number(&mut self, metric: &'static Metric, values: &[&str], value: f64) {
        self.push(metric, values, Value::Number(value));
    }

    pub(super) fn histogram(&mut self, metric: &'static Metric, values: &[&str], value: HistogramSnapshot) {
        self.push(metric, values, Value::Histogram(Box::new(value)));
    }

    fn push(&mut self, metric: &'static Metric, values: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        let labels = metric.labels.iter().copied().zip(values.iter().map(|value| (*value).to_owned())).collect();
        self.families.entry(metric.name).or_default().push(Series { labels, value });
    }

    /// Takes over what a `prometheus` registry gathered. A family that the catalogue does not list is left out:
    /// the catalogue is what is documented and tested.
    pub(super) fn extend(&mut self, gathered: &[MetricFamily]) {
        for family in gathered {
            let Some(metric) = catalogue::find(family.name()) else { continue };
            for series in family.get_metric() {
                let value = match family.get_field_type() {
                    MetricType::COUNTER => series.get_counter().get_value(),
                    MetricType::GAUGE => series.get_gauge().get_value(),
                    _ => continue,
                };
                let label = |name| series.get_label().iter().find(|label| label.name() == name);
                let values: Vec<&str> =
                    metric.labels.iter().map(|name| label(*name).map_or("", |label| label.value())).collect();
                self.number(metric, &values, value);
            }
        }
    }

    /// Replaces the value of a metric without labels.
    pub(super) fn replace(&mut self, metric: &'static Metric, value: f64) {
        self.families.remove(metric.name);
        self.number(metric, &[], value);
    }

    /// How many time series a scrape makes: buckets, sum and count of a histogram are one each.
    pub fn series_count(&self) -> usize {
        let samples = |series: &Series| match &series.value {
            Value::Number(_) => 1,
            Value::Histogram(histogram) => histogram.classic_buckets().count() + 2,
        };
        self.families.values().flatten().map(samples).sum()
    }
}
