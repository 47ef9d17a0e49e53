//! The delimited protobuf format, the only one that carries native histograms.
//!
//! Encoded by hand: nine message types with few fields do not earn a code generator. Field numbers from
//! `io/prometheus/client/metrics.proto` (<https://github.com/prometheus/client_model>).

use std::time::UNIX_EPOCH;

use super::catalogue::{Kind, Metric};
use super::histogram::{Exemplar, HistogramSnapshot, SCHEMA, ZERO_THRESHOLD};
use super::snapshot::{Series, Snapshot, Value};

/// Each `MetricFamily` after its length.
pub(super) fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * 1024);
    for (metric, series) in snapshot.families() {
        let family = encode_family(metric, series);
        varint(&mut out, family.len() as u64);
        out.extend_from_slice(&family);
    }
    out
}

fn encode_family(metric: &Metric, series: &[Series]) -> Vec<u8> {
    let mut family = Message::default();
    family.text(1, metric.name);
    family.text(2, metric.help);
    let kind = match metric.kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Histogram => 4,
    };
    family.unsigned(3, kind);
    for series in series {
        family.message(4, &encode_metric(metric.kind, series));
    }
    if metric.unit.as_str() != "" {
        family.text(5, metric.unit.as_str());
    }
    family.0
}

fn encode_metric(kind: Kind, series: &Series) -> Message {
    let mut metric = Message::default();
    for (name, value) in &series.labels {
        metric.message(1, &label_pair(name, value));
    }
    match &series.value {
        Value::Number(number) => {
            let mut value = Message::default();
            value.double(1, *number);
            metric.message(if kind == Kind::Counter { 3 } else { 2 }, &value);
        }
        Value::Histogram(histogram) => metric.message(7, &encode_histogram(histogram)),
    }
    metric
}

fn label_pair(name: &str, value: &str) -> Message {
    let mut pair = Message::default();
    pair.text(1, name);
    pair.text(2, value);
    pair
}

fn encode_histogram(histogram: &HistogramSnapshot) -> Message {
    let mut message = Message::default();
    message.unsigned(1, histogram.count);
    message.double(2, histogram.sum.as_secs_f64());
    for bucket in histogram.classic_buckets() {
        let mut classic = Message::default();
        classic.unsigned(1, bucket.cumulative);
        classic.double(2, bucket.upper);
        if let Some(exemplar) = bucket.exemplar {
            classic.message(3, &encode_exemplar(exemplar));
        }
        message.message(3, &classic);
    }
    message.signed(5, i64::from(SCHEMA));
    message.double(6, ZERO_THRESHOLD);
    message.unsigned(7, histogram.zero_count());
    let native = NativeBuckets::new(histogram.native_buckets());
    for (offset, length) in &native.spans {
        let mut span = Message::default();
        span.signed(1, i64::from(*offset));
        span.unsigned(2, u64::from(*length));
        message.message(12, &span);
    }
    // A span without a bucket says "this is a native histogram" while nothing was observed.
    if native.spans.is_empty() {
        message.message(12, &Message::default());
    }
    for delta in &native.deltas {
        message.signed(13, *delta);
    }
    for exemplar in histogram.exemplars() {
        message.message(16, &encode_exemplar(exemplar));
    }
    message
}

/// Runs of neighbouring buckets: a span is (gap since the last one's end, length), the counts are deltas.
#[derive(Debug, Default, PartialEq)]
struct NativeBuckets {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
}

impl NativeBuckets {
    fn new(buckets: impl Iterator<Item = (i32, u64)>) -> Self {
        let mut native = Self::default();
        let (mut next, mut last) = (0, 0i64);
        for (index, count) in buckets {
            match native.spans.last_mut() {
                Some((_, length)) if index == next => *length += 1,
                _ => native.spans.push((index - next, 1)),
            }
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            native.deltas.push(count - last);
            (next, last) = (index + 1, count);
        }
        native
    }
}

fn encode_exemplar(exemplar: &Exemplar) -> Message {
    let mut message = Message::default();
    message.message(1, &label_pair("trace_id", &String::from_utf8_lossy(&exemplar.trace_id)));
    message.double(2, exemplar.value);
    let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut timestamp = Message::default();
    timestamp.unsigned(1, at.as_secs());
    timestamp.unsigned(2, u64::from(at.subsec_nanos()));
    message.message(3, &timestamp);
    message
}

/// A protobuf message under construction.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    fn tag(&mut self, field: u64, wire_type: u64) {
        varint(&mut self.0, field << 3 | wire_type);
    }

    fn unsigned(&mut self, field: u64, value: u64) {
        self.tag(field, VARINT);
        varint(&mut self.0, value);
    }

    /// `sint32` and `sint64`: zigzag, so that small negative numbers are short.
    fn signed(&mut self, field: u64, value: i64) {
        self.unsigned(field, ((value << 1) ^ (value >> 63)) as u64);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Message) {
        self.bytes(field, &value.0);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, LENGTH_DELIMITED);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
