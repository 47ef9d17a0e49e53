//! How often a comparison is wrong, and how often it finds what is there: by simulation, with fixed seeds.

use super::testing::{SERVER, Server};
use super::*;

/// Fewer resamples than by default, since builds with debug assertions are slow: intervals are as wide on average.
const RESAMPLES: usize = 200;

fn settings(metrics: &[&str]) -> Settings {
    let metrics = metrics.iter().map(|name| name.parse().expect("is a metric")).collect();
    Settings { metrics: Some(metrics), resamples: RESAMPLES, ..Settings::default() }
}

/// Every difference counts, however small.
fn without_thresholds(metrics: &[&str]) -> Settings {
    Settings { threshold: 0.0, share_threshold: 0.0, ..settings(metrics) }
}

fn verdicts(before: Vec<Run>, after: Vec<Run>, settings: &Settings) -> Vec<Row> {
    let (groups, _) = Group::both(before, after, settings);
    rows(&groups, settings)
}

/// In how many of so many comparisons of one run each some metric has one of the verdicts.
fn found(before: Server, after: Server, pairs: u64, settings: &Settings, wanted: &[Verdict]) -> usize {
    let one = |pair: &u64| {
        let mut random = Random::new(1000 + pair);
        let (before, after) = (before.run(&mut random), after.run(&mut random));
        let settings = Settings { seed: *pair, ..settings.clone() };
        verdicts(vec![before], vec![after], &settings).iter().any(|row| wanted.contains(&row.verdict))
    };
    (0..pairs).filter(one).count()
}

const DIFFERENT: [Verdict; 2] = [Verdict::Better, Verdict::Worse];
const FAMILY: [&str; 7] = ["p50", "p90", "p95", "p99", "mean", "rate", "errors"];

#[test]
fn equal_servers_differ_in_about_one_of_twenty_comparisons() {
    let false_alarms = found(SERVER, SERVER, 400, &without_thresholds(&FAMILY), &DIFFERENT);

    // Of 400 trials that succeed with 5 %, 99 of 100 have 10 to 32 successes.
    assert!((10..=32).contains(&false_alarms), "{false_alarms} of 400");
}

#[test]
fn a_threshold_makes_false_alarms_rarer() {
    let false_alarms = found(SERVER, SERVER, 60, &settings(&FAMILY), &DIFFERENT);

    assert!(false_alarms <= 6, "{false_alarms} of 60");
}

#[test]
fn five_percent_more_latency_are_found_nine_times_of_ten() {
    let before = Server { rate: 120.0, ..SERVER };
    let after = Server { median_ns: 1.05 * before.median_ns, ..before };

    let found = found(before, after, 60, &settings(&FAMILY), &[Verdict::Worse]);

    assert!(found >= 54, "{found} of 60");
}

#[test]
fn more_errors_and_fewer_requests_are_found() {
    let more_errors = Server { errors: 0.03, ..SERVER };
    let fewer_requests = Server { rate: 0.9 * SERVER.rate, ..SERVER };

    let errors = found(SERVER, more_errors, 20, &settings(&["errors"]), &[Verdict::Worse]);
    let rate = found(SERVER, fewer_requests, 20, &settings(&["rate"]), &[Verdict::Worse]);
    let less = found(more_errors, SERVER, 20, &settings(&["errors", "http_errors"]), &[Verdict::Better]);

    assert!([errors, rate, less].iter().all(|found| *found >= 18), "{errors}, {rate}, {less} of 20");
}

/// Runs that differ by 3 % as a whole: `runs` on each side, 40 comparisons.
fn false_alarms_of_differing_runs(runs: usize) -> usize {
    let server = Server { between_runs: 0.03, seconds: 30, ..SERVER };
    let one = |seed: &u64| {
        let mut random = Random::new(5000 + seed);
        let mut side = || (0..runs).map(|_| server.run(&mut random)).collect::<Vec<_>>();
        let (before, after) = (side(), side());
        let settings = without_thresholds(&["p50", "mean"]);
        verdicts(before, after, &settings).iter().any(|row| DIFFERENT.contains(&row.verdict))
    };
    (0..40).filter(one).count()
}

#[test]
fn several_runs_on_each_side_show_how_much_runs_differ() {
    let (one, four) = (false_alarms_of_differing_runs(1), false_alarms_of_differing_runs(4));

    // With 5 % each, more than 6 of 40 happen in 1 of 70 experiments; one run on each side cannot know.
    assert!(four <= 6, "{four} of 40");
    assert!(one >= 12, "{one} of 40");
}

fn two_inputs(after: Server) -> (Vec<Input>, Vec<Input>) {
    let mut random = Random::new(3);
    let before = SERVER.input("before.json", &mut random);
    (vec![before], vec![after.input("after.json", &mut random)])
}

fn row<'a>(comparison: &'a Comparison, metric: &str) -> &'a Row {
    comparison.metrics.iter().find(|row| row.metric == metric).expect("is compared")
}

#[test]
fn results_in_their_json_form_are_compared() {
    let (before, after) = two_inputs(Server { median_ns: 1.5 * SERVER.median_ns, ..SERVER });

    let comparison = compare(&before, &after, &Settings { resamples: 200, ..Settings::default() }).expect("compares");

    let p50 = row(&comparison, "p50");
    let interval = p50.interval().expect("has one");
    assert_eq!((comparison.verdict, p50.verdict), (Verdict::Worse, Verdict::Worse));
    assert!((interval.low..=interval.high).contains(&0.5), "{interval:?}");
    assert!((p50.before.expect("measured") / SERVER.median_ns - 1.0).abs() < 0.05);
    assert_eq!((comparison.before.seconds, comparison.method.block_s), (60.0, 5));
    // 3600 requests are too few for it, and it says how many more are needed.
    let p999 = row(&comparison, "p99.9");
    assert_eq!((p999.verdict, p999.difference), (Verdict::Undecided, None));
    assert!((100.0..250.0).contains(&p999.longer_s.expect("known")), "{p999:?}");
    // No row for errors that did not happen, one for those that did.
    let names: Vec<&str> = comparison.metrics.iter().map(|row| row.metric.as_str()).collect();
    assert_eq!(names[12..], ["rate", "errors", "http_errors"]);
}

#[test]
fn the_same_seed_gives_the_same_comparison_and_another_nearly_so() {
    let (before, after) = two_inputs(SERVER);
    let with_seed = |seed| {
        let settings = Settings { seed, resamples: 200, ..Settings::default() };
        compare(&before, &after, &settings).expect("compares")
    };

    let (one, again, other) = (with_seed(1), with_seed(1), with_seed(2));

    assert_eq!(one, again);
    assert_ne!(one.metrics, other.metrics);
    let half = |comparison: &Comparison| {
        let interval = row(comparison, "p50").interval().expect("has one");
        interval.high - interval.low
    };
    assert!((half(&one) / half(&other) - 1.0).abs() < 0.3, "{} {}", half(&one), half(&other));
}

#[test]
fn a_run_against_itself_differs_by_nothing() {
    let (before, _) = two_inputs(SERVER);

    let comparison = compare(&before, &before, &Settings { resamples: 200, ..Settings::default() }).expect("compares");

    for row in &comparison.metrics {
        assert!(row.difference.is_none_or(|difference| difference == 0.0), "{row:?}");
        assert!(matches!(row.verdict, Verdict::Same | Verdict::Undecided), "{row:?}");
    }
}

#[test]
fn a_percentile_of_requests_that_were_given_up_decides_nothing_good() {
    let (mut before, after) = two_inputs(SERVER);
    before[0].result.totals.censored_from_ns = Some(25_000_000);

    let comparison = compare(&before, &after, &Settings { resamples: 200, ..Settings::default() }).expect("compares");

    let (p50, p90) = (row(&comparison, "p50"), row(&comparison, "p90"));
    assert!(!p50.before_at_least && p90.before_at_least && !p90.after_at_least);
    assert_eq!(p90.verdict, Verdict::Undecided);
    assert!(p90.why.as_ref().is_some_and(|why| why.contains("timeout")));
}

#[test]
fn no_run_and_no_second_are_errors_that_name_the_file() {
    let (before, mut after) = two_inputs(Server { seconds: 3, ..SERVER });

    let none = compare(&before, &[], &Settings::default()).expect_err("no run");
    let short = compare(&before, &after, &Settings { resamples: 200, ..Settings::default() }).expect("compares");
    after[0].result.plan.warm_up_s = 3;
    let empty = compare(&before, &after, &Settings::default()).expect_err("only warm-up");

    assert!(none.to_string().starts_with("after: "), "{none}");
    assert!(empty.to_string().starts_with("after.json: "), "{empty}");
    assert!(short.metrics.iter().all(|row| row.verdict == Verdict::Undecided));
}

/// The table behind the claims in the documentation: `cargo test calibration -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes: it prints rates and judges nothing"]
fn calibration() {
    let pairs = 500;
    for (seconds, correlation) in [(20, 0.4), (60, 0.0), (60, 0.4), (60, 0.6), (60, 0.8), (300, 0.8)] {
        let server = Server { seconds, correlation, rate: 3600.0 / seconds as f64, ..SERVER };
        let settings = Settings { resamples: 300, ..without_thresholds(&FAMILY) };
        let count = found(server, server, pairs, &settings, &DIFFERENT);
        println!("{seconds} s, correlation {correlation}: {count} false alarms in {pairs} comparisons");
    }
}
