use super::*;
use crate::telemetry::test_support::{aggregate, failed, ok, record};
use crate::telemetry::{Telemetry, UNMATCHED};

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(ms)
}

fn open() -> Store {
    let store = Store::default();
    store.tend(at(0));
    store
}

/// A request of so many milliseconds that ended for this reason.
fn offer(store: &Store, took: u64, reason: Reason, at: SystemTime) {
    let telemetry = Telemetry::quiet();
    let mut record = record(&telemetry, UNMATCHED);
    record.timings.total = Duration::from_millis(took);
    record.reason = reason;
    store.offer(&record, at);
}

fn kept(store: &Store, sought: Sought) -> Vec<u128> {
    store.read(sought).iter().map(|notable| notable.timings.total.as_millis()).collect()
}

#[test]
fn the_slowest_stay_whatever_the_order_in_which_they_come() {
    for step in [1, 7, 11] {
        let store = open();
        for index in 0..23 {
            offer(&store, 1 + index * step % 23, Reason::Ok, at(index));
        }

        assert_eq!(kept(&store, Sought::Slowest), [23, 22, 21, 20, 19, 18, 17, 16]);
        assert_eq!(store.threshold.load(Ordering::Relaxed), 16_000_000);
        assert_eq!(kept(&store, Sought::Failed), []);
    }
}

#[test]
fn a_slow_request_is_forgotten_in_time_and_makes_room() {
    let store = open();
    (1..=8).for_each(|took| offer(&store, took * 1000, Reason::Ok, at(took * 60_000)));

    store.tend(at(605_000 + 60_000));
    offer(&store, 5, Reason::Ok, at(670_000));

    assert_eq!(kept(&store, Sought::Slowest), [8000, 7000, 6000, 5000, 4000, 3000, 2000, 5]);
}

#[test]
fn a_flood_of_one_reason_leaves_the_others() {
    let store = open();
    offer(&store, 1, Reason::ConnectFailed, at(0));
    (1..=50).for_each(|index| offer(&store, 1000 + index, Reason::QueueFull, at(index * 100)));

    let reasons: Vec<_> = store.read(Sought::Failed).iter().map(|notable| notable.reason).collect();

    assert_eq!(reasons.len(), KEPT);
    assert_eq!((reasons[0], reasons[KEPT - 1]), (Reason::QueueFull, Reason::ConnectFailed));
    assert_eq!(kept(&store, Sought::Failed)[0], 1050, "the latest first");
}

#[test]
fn failures_at_once_are_left_out_and_counted() {
    let store = open();
    // None of them slow.
    (0..KEPT as u64).for_each(|_| offer(&store, 60_000, Reason::Ok, at(0)));

    (0..100).for_each(|_| offer(&store, 1, Reason::QueueFull, at(5)));

    assert_eq!((kept(&store, Sought::Failed).len(), store.left_out()), (1, 99));
}

#[test]
fn a_request_never_waits_for_a_reader() {
    let store = open();
    let reader = store.lock();

    offer(&store, 1000, Reason::Internal, at(1));

    drop(reader);
    assert_eq!((kept(&store, Sought::Failed).len(), store.left_out()), (0, 1));
}

#[test]
fn nothing_is_kept_before_somebody_tends_the_store() {
    let store = Store::default();

    offer(&store, 60_000, Reason::Internal, at(1));

    assert!(store.read(Sought::Slowest).is_empty() && store.read(Sought::Failed).is_empty());
}

#[test]
fn query_host_and_client_are_not_kept_and_the_rest_is_cut() {
    let telemetry = Telemetry::quiet();
    let mut record = record(&telemetry, UNMATCHED);
    let (target, detail) = (format!("/{}?token=hunter2", "é".repeat(1000)), "d".repeat(5000));
    let id = "i".repeat(500);
    (record.target, record.detail, record.request_id) = (&target, Some(detail.as_str()), &id);

    let notable = Notable::of(&record, at(0));

    let shown = format!("{notable:?}");
    assert!(notable.path.len() <= MAX_PATH && shown.len() < 1500, "{shown}");
    for hidden in ["hunter2", record.host, "10.1.2.3"] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }
}

#[test]
fn an_aggregate_keeps_when_each_source_ran() {
    let (aggregate, telemetry) = (aggregate(&["user", "orders", "idle"]), Telemetry::quiet());
    let mut idle = failed(2, 0, Reason::NotNeeded);
    idle.attempts = 0;
    let outcomes = [ok(0, 20), failed(1, 2000, Reason::SourceTimeout), idle];
    let sources = SourcesRecord { aggregate: &aggregate, outcomes: &outcomes, usable: 1, asked: 2 };
    let mut record = record(&telemetry, UNMATCHED);
    record.sources = Some(&sources);

    let mut spans = Notable::of(&record, at(0)).sources;

    spans.sort_by_key(|span| span.took);
    let shown: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.outcome, span.took.as_millis())).collect();
    assert_eq!(shown, [("user", "ok", 20), ("orders", "failed", 2000)]);
}
