//! Runs in real time over a protocol that is a few lines: the books close however a run ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::arrivals::{Arrivals, Spacing};
use super::super::core::{Model, Think};
use super::super::result::Outcome;
use super::super::sim::plan;
use super::*;

const MS: u64 = 1_000_000;

/// Answers after a while, or never, and remembers who asked.
#[derive(Debug, Default)]
struct Fake {
    after: Option<Duration>,
    numbers: Mutex<BTreeSet<u64>>,
    calls: AtomicU64,
}

impl Fake {
    fn answers(after: Duration) -> Arc<Self> {
        Arc::new(Self { after: Some(after), ..Self::default() })
    }

    fn hangs() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

impl Protocol for Arc<Fake> {
    async fn call(&self, _target: usize, number: u64, connected: &Connected) -> CallEnd {
        self.calls.fetch_add(1, Ordering::Relaxed);
        connected.note(Duration::from_millis(1));
        self.numbers.lock().expect("is whole").insert(number);
        match self.after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        CallEnd { bytes: 7, ..CallEnd::without_answer(End::Ok { status: 200 }) }
    }
}

fn short(rate: f64, ms: u64) -> Plan {
    Plan { duration: ms * MS, ..plan(Model::Open(Arrivals::constant(rate, Spacing::Even)), 1) }
}

async fn run_quietly<P: Protocol>(plan: &Plan, protocols: Vec<P>) -> Report {
    let report = run(plan, protocols, Manner::default(), &Control::default(), |_| {}).await.expect("runs");
    assert_books_close(&report);
    report
}

fn assert_books_close(report: &Report) {
    assert!(report.closed.seconds.iter().all(|second| second.counts.is_closed()), "{:?}", report.closed.seconds);
    assert_eq!(report.closed.area_ns, report.closed.service_ns, "Little's law");
    assert!(report.little.difference <= report.little.bound);
}

#[tokio::test]
async fn every_request_is_made_once_whatever_the_number_of_workers() {
    for workers in [1, 3] {
        let fake = Fake::answers(Duration::from_millis(2));

        let report = run_quietly(&short(1000.0, 200), vec![Arc::clone(&fake); workers]).await;

        let counts = report.closed.totals.counts;
        assert_eq!((counts.scheduled, counts.sent + counts.unsent, counts.bytes), (200, 200, 7 * counts.ok));
        assert_eq!(fake.calls.load(Ordering::Relaxed), counts.sent);
        assert_eq!(fake.numbers.lock().expect("is whole").len() as u64, counts.sent, "no number twice");
        assert!(report.closed.total.service.quantile_ns(0.0) >= 2 * MS);
        assert_eq!((report.plan.workers, report.plan.ran_s), (workers, 0.2));
    }
}

#[tokio::test]
async fn precise_runs_and_closed_models_and_sessions_come_to_their_end() {
    let closed = Plan { model: Model::Closed { users: 5, think: Think::Fixed(MS) }, ..short(1.0, 100) };
    let starts = Arrivals::constant(200.0, Spacing::Poisson);
    let sessions = Model::Sessions { starts, mean_requests: 3.0, think: Think::Exponential(5 * MS) };
    let sessions = Plan { model: sessions, ..short(1.0, 100) };

    for plan in [short(500.0, 100), closed, sessions] {
        let fake = Fake::answers(Duration::from_millis(1));

        let report = run(&plan, vec![fake], Manner { precise: true, tap: None }, &Control::default(), |_| {})
            .await
            .expect("runs");

        assert_books_close(&report);
        assert!(report.closed.totals.counts.ok > 5, "{:?}", report.closed.totals.counts);
    }
}

#[tokio::test]
async fn requests_that_take_too_long_are_timeouts_and_censored() {
    let plan = Plan { timeout: 30 * MS, ..short(100.0, 100) };

    let report = run_quietly(&plan, vec![Fake::hangs()]).await;

    let totals = &report.closed.totals;
    assert_eq!((totals.counts.timeout, totals.response.count), (totals.counts.sent, totals.counts.sent));
    assert!(totals.censored_from_ns.is_some_and(|from| from >= 30 * MS));
}

#[tokio::test]
async fn what_is_in_flight_when_the_drain_ends_is_unfinished() {
    let plan = Plan { drain: 50 * MS, ..short(100.0, 100) };

    let report = run_quietly(&plan, vec![Fake::hangs(), Fake::hangs()]).await;

    let totals = &report.closed.totals;
    assert_eq!((totals.counts.unfinished, totals.counts.scheduled), (totals.counts.sent, 10));
    assert!(totals.censored_from_ns.is_some_and(|from| from >= 50 * MS), "{totals:?}");
}

#[tokio::test]
async fn stopping_ends_the_run_and_lets_requests_end() {
    let control = Control::default();
    let stop = control.stop.clone();
    let plan = short(500.0, 3_600_000);

    let report = run(&plan, vec![Fake::answers(Duration::from_millis(30))], Manner::default(), &control, |progress| {
        if progress.now > 250 * MS {
            stop.cancel();
        }
    });
    let report = report.await.expect("runs");

    assert_books_close(&report);
    assert_eq!(report.verdict.outcome, Outcome::Interrupted);
    assert_eq!(report.closed.totals.counts.unfinished, 0, "they were waited for");
    assert!(report.plan.ran_s < 3600.0 && report.plan.ran_s > 0.25);
    assert!(report.closed.totals.counts.scheduled as f64 <= report.plan.ran_s * 500.0 + 1.0);
}

#[tokio::test]
async fn aborting_gives_up_what_is_in_flight() {
    let control = Control::default();
    let abort = control.abort.clone();
    let plan = short(500.0, 3_600_000);

    let report = run(&plan, vec![Fake::hangs()], Manner::default(), &control, |progress| {
        if progress.in_flight > 10 {
            abort.cancel();
        }
    });
    let report = report.await.expect("runs");

    assert_books_close(&report);
    assert_eq!(report.verdict.outcome, Outcome::Interrupted);
    assert_eq!(report.closed.totals.counts.unfinished, report.closed.totals.counts.sent);
}

#[tokio::test]
async fn observers_see_every_second_once() {
    let mut seen = Vec::new();
    let fake = Fake::answers(Duration::from_millis(1));
    let plan = Plan { warm_up: 1, ..short(50.0, 1_300) };
    let control = Control::default();

    let report = run(&plan, vec![fake], Manner::default(), &control, |progress| {
        seen.extend(progress.settled.iter().map(|second| second.second));
    });
    let report = report.await.expect("runs");

    assert_eq!(seen, report.closed.seconds.iter().map(|second| second.second).collect::<Vec<_>>());
    let result = report.into_result(vec!["forebay".into()], &["GET /".into()]);
    assert_eq!(result.targets[0].counts.sent, result.totals.counts.sent);
    assert_eq!(result.warm_up.expect("was asked for").counts.scheduled, 50);
    assert_eq!(result.totals.counts.scheduled, 15);
}

#[tokio::test]
async fn connections_are_counted_also_of_requests_without_an_answer() {
    let timeout = Plan { timeout: 20 * MS, ..short(100.0, 100) };
    let given_up = Plan { drain: MS, ..short(100.0, 100) };
    for plan in [timeout, given_up] {
        let counts = run_quietly(&plan, vec![Fake::hangs()]).await.closed.totals.counts;

        assert_eq!((counts.connections, counts.censored()), (counts.sent, counts.sent));
        assert!(counts.sent > 0);
    }
}

#[tokio::test]
async fn a_call_that_panics_is_unfinished_and_the_run_goes_on() {
    struct Panics;
    impl Protocol for Panics {
        async fn call(&self, _target: usize, number: u64, _connected: &Connected) -> CallEnd {
            if number.is_multiple_of(2) {
                // Without the hook, which prints a backtrace for longer than this run takes.
                std::panic::resume_unwind(Box::new("an even number"));
            }
            CallEnd::without_answer(End::HttpError { status: 500 })
        }
    }

    let report = run_quietly(&short(100.0, 100), vec![Panics]).await;

    let counts = report.closed.totals.counts;
    assert_eq!(counts.unfinished + counts.http_error + counts.unsent, 10);
    assert!(counts.unfinished > 0 && counts.http_error > 0, "{counts:?}");
}
