use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::telemetry::Telemetry;
use crate::telemetry::snapshot::Value;
use crate::telemetry::test_support::{aggregate, failed, list, ok};

/// Three sources, of which the last one has a list.
fn metrics(telemetry: &Telemetry) -> Arc<AggregateMetrics> {
    let mut aggregate = aggregate(&["one", "two", "many"]);
    list(&mut aggregate, 2);
    telemetry.aggregate("all", &aggregate)
}

/// The number of the series of this metric whose labels, after the route, have these values.
fn number(telemetry: &Telemetry, metric: &Metric, labels: &[&str]) -> f64 {
    match series(telemetry, metric, labels) {
        Value::Number(number) => number,
        Value::Histogram(histogram) => histogram.count as f64,
    }
}

fn series(telemetry: &Telemetry, metric: &Metric, labels: &[&str]) -> Value {
    let snapshot = telemetry.snapshot(Instant::now());
    let (_, series) = snapshot.families().find(|(found, _)| found.name == metric.name).expect("the family exists");
    let values = |labels: &[(&str, String)]| labels.iter().skip(1).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    series.iter().find(|series| values(&series.labels) == labels).expect("the series exists").value.clone()
}

fn begun(mut outcome: Outcome, ms: u64) -> Outcome {
    outcome.begun = Duration::from_millis(ms);
    outcome
}

/// Others had answered: never called when `ms` is zero.
fn not_needed(source: usize, ms: u64) -> Outcome {
    Outcome { ending: Ending::NotNeeded, reason: Reason::NotNeeded, attempts: u32::from(ms > 0), ..ok(source, ms) }
}

#[test]
fn every_source_counts_its_end_its_reason_and_its_time() {
    let telemetry = Telemetry::quiet();
    let metrics = metrics(&telemetry);
    let fallback = Outcome { ending: Ending::Fallback(Fallback::Value), ..failed(1, 500, Reason::Upstream5xx) };

    let second = Duration::from_secs(1);
    metrics.record(&[ok(0, 1000), fallback, failed(2, 0, Reason::MissingValue)], second, Completeness::Partial);
    let outcomes = [ok(0, 1000), failed(1, 2000, Reason::SourceTimeout), not_needed(2, 0)];
    metrics.record(&outcomes, 2 * second, Completeness::Partial);

    let number = |metric, labels: &[&str]| number(&telemetry, metric, labels);
    assert_eq!(number(&SOURCE_OUTCOMES, &["one", "ok"]), 2.0);
    assert_eq!(number(&SOURCE_OUTCOMES, &["one", "failed"]), 0.0);
    assert_eq!(number(&SOURCE_OUTCOMES, &["two", "fallback"]), 1.0);
    assert_eq!(number(&SOURCE_OUTCOMES, &["two", "failed"]), 1.0);
    assert_eq!(number(&SOURCE_OUTCOMES, &["many", "not_needed"]), 1.0);
    assert_eq!(number(&SOURCE_FAILURES, &["two", "upstream_5xx"]), 1.0);
    assert_eq!(number(&SOURCE_FAILURES, &["two", "source_timeout"]), 1.0);
    assert_eq!(number(&SOURCE_FAILURES, &["many", "missing_value"]), 1.0);
    assert_eq!(number(&SOURCE_FAILURES, &["one", "source_timeout"]), 0.0);
    assert_eq!(number(&SOURCE_DURATION, &["one"]), 2.0);
    assert_eq!(number(&SOURCE_DURATION, &["two"]), 2.0);
    let Value::Histogram(duration) = series(&telemetry, &SOURCE_DURATION, &["two"]) else { panic!("a histogram") };
    assert_eq!(duration.sum, Duration::from_millis(2500));
}

#[test]
fn the_speed_up_is_the_sum_of_the_parts_over_the_whole() {
    let telemetry = Telemetry::quiet();
    let metrics = metrics(&telemetry);

    let whole = Duration::from_millis(1002);
    metrics.record(&[ok(0, 1000), ok(1, 1000), ok(2, 1000)], whole, Completeness::Complete);

    assert_eq!(number(&telemetry, &AGGREGATE_SOURCE_SECONDS, &[]), 3.0);
    assert_eq!(number(&telemetry, &AGGREGATE_ELAPSED_SECONDS, &[]), 1.002);
}

#[test]
fn a_cancelled_source_adds_nothing_to_durations() {
    let telemetry = Telemetry::quiet();
    let metrics = metrics(&telemetry);

    let outcomes = [ok(0, 10), not_needed(1, 10), not_needed(2, 10)];
    metrics.record(&outcomes, Duration::from_millis(10), Completeness::Complete);

    assert_eq!(number(&telemetry, &SOURCE_DURATION, &["two"]), 0.0);
    assert_eq!(number(&telemetry, &AGGREGATE_SOURCE_SECONDS, &[]), 0.01);
    assert_eq!(number(&telemetry, &SOURCE_LAST, &["one"]), 0.0, "it waited for nobody else");
}

#[test]
fn the_last_source_is_the_one_that_the_answer_waited_for() {
    let shared = Outcome { coalesced: true, ..ok(0, 30) };
    for (outcomes, expected) in [
        (vec![ok(0, 10), ok(1, 30), ok(2, 20)], Some(1)),
        // Begun after the first, and over before it.
        (vec![ok(0, 30), begun(ok(1, 10), 15)], Some(0)),
        (vec![ok(0, 30), begun(ok(1, 10), 30)], Some(1)),
        (vec![ok(0, 10), failed(1, 30, Reason::SourceTimeout)], Some(1)),
        (vec![ok(0, 10), not_needed(1, 30), ok(2, 20)], Some(2)),
        (vec![ok(0, 20), ok(1, 20)], Some(0)),
        (vec![shared, ok(1, 30)], Some(1)),
        (vec![ok(0, 10)], None),
        (vec![ok(0, 10), not_needed(1, 30)], None),
        (vec![ok(0, 10), Outcome { attempts: 0, ..failed(1, 0, Reason::DependencyFailed) }], None),
        (vec![], None),
    ] {
        assert_eq!(last_to_end(&outcomes), expected, "{outcomes:?}");
    }
}

#[test]
fn lists_count_their_size_and_what_became_of_their_items() {
    let telemetry = Telemetry::quiet();
    let metrics = metrics(&telemetry);
    let items = Items { total: 100, failed: 3, distinct: 90, cut: 12 };

    let many = Outcome { ending: Ending::Partial, reason: Reason::Partial, items: Some(items), ..ok(2, 400) };
    metrics.record(&[ok(0, 1), ok(1, 1), many], Duration::from_millis(400), Completeness::Partial);

    let number = |metric, labels: &[&str]| number(&telemetry, metric, labels);
    assert_eq!(number(&SOURCE_ITEMS, &["many", "ok"]), 97.0);
    assert_eq!(number(&SOURCE_ITEMS, &["many", "failed"]), 3.0);
    assert_eq!(number(&SOURCE_ITEMS, &["many", "cut"]), 12.0);
    assert_eq!(number(&SOURCE_OUTCOMES, &["many", "partial"]), 1.0);
    let Value::Histogram(sizes) = series(&telemetry, &SOURCE_FAN_OUT, &["many"]) else { panic!("a histogram") };
    assert_eq!((sizes.count, sizes.sum.as_secs()), (1, 90));
    let bucket = sizes.classic_buckets().find(|bucket| bucket.cumulative == 1).unwrap();
    assert_eq!(bucket.upper, 100.0);
}

#[test]
fn shared_answers_are_counted_within_and_between_requests() {
    let telemetry = Telemetry::quiet();
    let metrics = metrics(&telemetry);

    let twin = Outcome { coalesced: true, attempts: 0, ..ok(1, 10) };
    metrics.record(&[ok(0, 10), twin], Duration::from_millis(10), Completeness::Complete);
    metrics.joined();

    assert_eq!(number(&telemetry, &SOURCE_COALESCED, &["two"]), 1.0);
    assert_eq!(number(&telemetry, &SOURCE_COALESCED, &["one"]), 0.0);
    assert_eq!(number(&telemetry, &AGGREGATE_COALESCED, &[]), 1.0);
}

#[test]
fn completeness_follows_the_reason_of_the_merge() {
    for reason in Reason::ALL {
        let expected = match reason {
            Reason::Ok => "complete",
            Reason::Partial => "partial",
            _ => "failed",
        };
        assert_eq!(Completeness::of(*reason).as_str(), expected);
    }
}

#[test]
fn each_ending_has_its_own_series() {
    for (index, ending) in ENDINGS.into_iter().enumerate() {
        assert_eq!(ending_index(ending), index);
    }
}

fn any_outcome(source: usize) -> impl Strategy<Value = Outcome> {
    let ending = (0..ENDINGS.len()).prop_map(|index| ENDINGS[index]);
    let reason = (0..Reason::COUNT).prop_map(|index| Reason::ALL[index]);
    let times = (0u64..100_000, 0u64..100_000);
    (ending, reason, times, 0u32..3, any::<bool>()).prop_map(
        move |(ending, reason, (start, ms), attempts, coalesced)| {
            let outcome = Outcome { ending, reason, attempts, coalesced, ..ok(source, ms) };
            begun(outcome, start)
        },
    )
}

proptest! {
    /// What several metrics say about the same thing agrees, whatever the outcomes.
    #[test]
    fn the_metrics_of_an_aggregate_agree(rounds in prop::collection::vec((any_outcome(0), any_outcome(1), any_outcome(2)), 0..8)) {
        let telemetry = Telemetry::quiet();
        let metrics = metrics(&telemetry);

        for (one, two, many) in rounds.clone() {
            metrics.record(&[one, two, many], Duration::from_millis(1), Completeness::Complete);
        }

        let mut sum = Duration::ZERO;
        let mut last = 0.0;
        for source in ["one", "two", "many"] {
            let outcomes: f64 = ENDINGS.iter().map(|e| number(&telemetry, &SOURCE_OUTCOMES, &[source, e.code()])).sum();
            prop_assert_eq!(outcomes, rounds.len() as f64);
            let Value::Histogram(duration) = series(&telemetry, &SOURCE_DURATION, &[source]) else { panic!("a histogram") };
            sum += duration.sum;
            last += number(&telemetry, &SOURCE_LAST, &[source]);
        }
        prop_assert_eq!(number(&telemetry, &AGGREGATE_SOURCE_SECONDS, &[]), sum.as_secs_f64());
        prop_assert!(last <= rounds.len() as f64);
    }
}
