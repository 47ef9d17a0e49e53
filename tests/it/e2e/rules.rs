//! `promtool` of the oldest and the newest Prometheus about the rules: they are right, and every alert fires when it should,
//! says what it should, and clears again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use forebay::rules::{self, Alert};

use crate::support::process::{Process, command};
use crate::support::prometheus::Version;

/// Minutes for which it is bad, and then well, unless the case has more.
const BAD: u32 = 40;
const WELL: u32 = 80;

/// One alert: the series that make it fire within [`BAD`] minutes and clear within those that are well.
struct Case {
    alert: &'static str,
    series: Vec<(&'static str, String)>,
    /// Of the alert that fires, besides its severity.
    labels: &'static [(&'static str, &'static str)],
    /// As its annotations show it.
    value: &'static str,
    /// Minutes that are well.
    well: u32,
    /// Native histograms, which `promtool` 2.42 cannot read.
    native: bool,
}

fn case(
    alert: &'static str,
    labels: &'static [(&'static str, &'static str)],
    value: &'static str,
    series: Vec<(&'static str, String)>,
) -> Case {
    Case { alert, series, labels, value, well: WELL, native: false }
}

/// A gauge: this while it is bad, that while it is well.
fn was(bad: &str, well: &str) -> String {
    format!("{bad}x{} {well}x{}", BAD - 1, WELL)
}

/// A counter that grows by so much a minute while it is bad.
fn grew(by: u32) -> String {
    format!("0+{by}x{} {}x{WELL}", BAD - 1, by * (BAD - 1))
}

/// A counter that always grows.
fn grows(by: u32) -> String {
    format!("0+{by}x{}", BAD + WELL)
}

fn always(value: &str) -> String {
    format!("{value}x{}", BAD + WELL)
}

/// Classic buckets of a histogram whose observations, ten a minute, lie below the first bound when it is well.
fn buckets(name_and_labels: &'static str, low: f64, high: f64) -> Vec<(&'static str, String)> {
    let bucket = |le: &str| {
        let (name, labels) = name_and_labels.split_once('{').expect("labels");
        let series = format!("{name}_bucket{{le=\"{le}\",{labels}");
        &*Box::leak(series.into_boxed_str())
    };
    let end = 10 * (BAD - 1);
    vec![
        (bucket(&format!("{low:?}")), format!("0x{} 0+10x{WELL}", BAD - 1)),
        (bucket(&format!("{high:?}")), format!("0+10x{} {end}+10x{WELL}", BAD - 1)),
        (bucket("+Inf"), format!("0+10x{} {end}+10x{WELL}", BAD - 1)),
    ]
}

/// The same as a native histogram: ten a minute in (0.5, 1], then in (0.008, 0.016].
fn native() -> String {
    let histogram = |low: u32, high: u32| {
        format!("{{{{schema:0 sum:{high} count:{} offset:-6 buckets:[{low} 0 0 0 0 0 {high}]}}}}", low + high)
    };
    let end = 10 * BAD;
    format!("{0}+{0}x{1} {2}+{3}x{WELL}", histogram(0, 10), BAD - 1, histogram(10, end), histogram(10, 0))
}

fn with<T>(mut all: Vec<T>, more: impl IntoIterator<Item = T>) -> Vec<T> {
    all.extend(more);
    all
}

/// `third` says that the newest Prometheus is a 3, which interpolates within native buckets exponentially, not linearly.
fn cases(third: bool) -> Vec<Case> {
    let all = [budgets(), configuration(), upstreams(), limits(), answers(), process(), natives(third)];
    all.into_iter().flatten().collect()
}

fn budgets() -> Vec<Case> {
    // One in ten misses, where one in a thousand may.
    let burn = |alert, well| Case {
        well,
        ..case(
            alert,
            &[("job", "f"), ("route", "a"), ("objective", "latency")],
            "10%",
            vec![
                (
                    r#"forebay_objective_ratio{job="f",instance="i",route="a",objective="latency"}"#,
                    format!("0.999x{}", BAD + well),
                ),
                (
                    r#"forebay_objective_requests_total{job="f",instance="i",route="a",objective="latency"}"#,
                    format!("0+600x{}", BAD + well),
                ),
                (
                    r#"forebay_objective_misses_total{job="f",instance="i",route="a",objective="latency"}"#,
                    format!("0+60x{} {}x{well}", BAD - 1, 60 * (BAD - 1)),
                ),
                // A route that keeps its promise, and one that nobody asks.
                (
                    r#"forebay_objective_ratio{job="f",instance="i",route="b",objective="latency"}"#,
                    format!("0.999x{}", BAD + well),
                ),
                (
                    r#"forebay_objective_requests_total{job="f",instance="i",route="b",objective="latency"}"#,
                    format!("0+600x{}", BAD + well),
                ),
                (
                    r#"forebay_objective_misses_total{job="f",instance="i",route="b",objective="latency"}"#,
                    format!("0x{}", BAD + well),
                ),
                (
                    r#"forebay_objective_requests_total{job="f",instance="i",route="c",objective="latency"}"#,
                    format!("0x{}", BAD + well),
                ),
            ],
        )
    };
    vec![
        burn("ForebayBudgetBurn1h", WELL),
        burn("ForebayBudgetBurn6h", WELL),
        burn("ForebayBudgetBurn1d", 150),
        burn("ForebayBudgetBurn3d", 400),
    ]
}

fn configuration() -> Vec<Case> {
    vec![
        case(
            "ForebayReloadFailed",
            &[("job", "f")],
            "1",
            vec![
                (r#"forebay_config_last_reload_successful{job="f",instance="i"}"#, was("0", "1")),
                (r#"forebay_config_last_reload_successful{job="f",instance="j"}"#, always("1")),
            ],
        ),
        case(
            "ForebayConfigDrift",
            &[("job", "f")],
            "2",
            vec![
                (r#"forebay_config_info{job="f",instance="i",hash="new"}"#, always("1")),
                (r#"forebay_config_info{job="f",instance="j",hash="old"}"#, format!("1x{} stale", BAD - 1)),
            ],
        ),
        case(
            "ForebayFaultsArmed",
            &[("job", "f"), ("route", "a")],
            "2",
            vec![(r#"forebay_faults_armed{job="f",instance="i",route="a"}"#, was("2", "0"))],
        ),
    ]
}

fn upstreams() -> Vec<Case> {
    let attempts = (r#"forebay_upstream_attempts_total{job="f",upstream="u",reason="ok"}"#, grows(100));
    vec![
        case(
            "ForebayUpstreamDown",
            &[("job", "f"), ("upstream", "u")],
            "0",
            vec![(r#"forebay_upstream_endpoint_up{job="f",instance="i",upstream="u",endpoint="e"}"#, was("0", "1"))],
        ),
        case(
            "ForebayEndpointDown",
            &[("job", "f"), ("upstream", "u"), ("endpoint", "e")],
            "0.25",
            vec![
                (r#"forebay_upstream_endpoint_up{job="f",instance="i",upstream="u",endpoint="e"}"#, was("0", "1")),
                (r#"forebay_upstream_endpoint_up{job="f",instance="j",upstream="u",endpoint="e"}"#, was("0", "1")),
                (r#"forebay_upstream_endpoint_up{job="f",instance="k",upstream="u",endpoint="e"}"#, was("0", "1")),
                (r#"forebay_upstream_endpoint_up{job="f",instance="l",upstream="u",endpoint="e"}"#, always("1")),
            ],
        ),
        case(
            "ForebayTimeoutHeadroomGone",
            &[("job", "f"), ("upstream", "u")],
            "99.5%",
            with(
                buckets(r#"forebay_upstream_first_byte_seconds{job="f",upstream="u"}"#, 0.5, 1.0),
                [(r#"forebay_timeout_seconds{job="f",scope="upstream",name="u",phase="first_byte"}"#, always("1"))],
            ),
        ),
        case(
            "ForebayConnectFailures",
            &[("job", "f"), ("upstream", "u")],
            "30%",
            vec![attempts, (r#"forebay_upstream_connect_retries_total{job="f",upstream="u"}"#, grew(30))],
        ),
        case(
            "ForebayDnsFailures",
            &[("job", "f"), ("upstream", "u")],
            "15",
            vec![(r#"forebay_upstream_dns_failures_total{job="f",upstream="u"}"#, grew(1))],
        ),
    ]
}

fn limits() -> Vec<Case> {
    const QUEUE: &[(&str, &str)] = &[("job", "f"), ("scope", "route"), ("name", "a")];
    vec![
        case(
            "ForebayShedding",
            QUEUE,
            "20%",
            vec![
                (r#"forebay_queue_results_total{job="f",scope="route",name="a",result="admitted"}"#, grows(80)),
                (r#"forebay_queue_results_total{job="f",scope="route",name="a",result="full"}"#, grew(15)),
                (r#"forebay_queue_results_total{job="f",scope="route",name="a",result="timeout"}"#, grew(5)),
            ],
        ),
        case(
            "ForebayInFlightAtLimit",
            QUEUE,
            "1",
            vec![
                (r#"forebay_permits_in_use{job="f",scope="route",name="a"}"#, was("8", "7")),
                (r#"forebay_permits_limit{job="f",scope="route",name="a"}"#, always("8")),
            ],
        ),
        case(
            "ForebayQueueWait",
            QUEUE,
            "99.5%",
            with(
                buckets(r#"forebay_queue_wait_seconds{job="f",scope="route",name="a"}"#, 0.25, 0.5),
                [(r#"forebay_timeout_seconds{job="f",scope="route",name="a",phase="queue"}"#, always("0.5"))],
            ),
        ),
        case(
            "ForebayRateLimiting",
            &[("job", "f"), ("limiter", "l")],
            "20%",
            vec![
                (r#"forebay_rate_limit_decisions_total{job="f",limiter="l",decision="admitted"}"#, grows(80)),
                (r#"forebay_rate_limit_decisions_total{job="f",limiter="l",decision="rejected"}"#, grew(20)),
            ],
        ),
        case(
            "ForebayKeyTableFull",
            &[("job", "f"), ("limiter", "l")],
            "15",
            vec![(r#"forebay_rate_limit_overflows_total{job="f",limiter="l"}"#, grew(1))],
        ),
        case(
            "ForebayConnectionsRejected",
            &[("job", "f"), ("listener", "main")],
            "1",
            vec![(r#"forebay_connections_rejected_total{job="f",listener="main"}"#, grew(60))],
        ),
    ]
}

fn answers() -> Vec<Case> {
    const ROUTE: &[(&str, &str)] = &[("job", "f"), ("route", "a")];
    let requests = || (r#"forebay_requests_total{job="f",route="a",reason="ok"}"#, grows(100));
    vec![
        case(
            "ForebayTimeouts",
            ROUTE,
            "5%",
            vec![requests(), (r#"forebay_timeouts_total{job="f",route="a",phase="queue",limit="deadline"}"#, grew(5))],
        ),
        case(
            "ForebayPartialAnswers",
            ROUTE,
            "20%",
            vec![
                (r#"forebay_aggregate_answers_total{job="f",route="a",completeness="complete"}"#, grows(80)),
                (r#"forebay_aggregate_answers_total{job="f",route="a",completeness="partial"}"#, grew(20)),
            ],
        ),
        case(
            "ForebayDetachedWork",
            &[("job", "f")],
            "20%",
            vec![requests(), (r#"forebay_detached_tasks_ended_total{job="f",result="finished"}"#, grew(20))],
        ),
        case(
            "ForebayJobsRefused",
            ROUTE,
            "20%",
            vec![
                (r#"forebay_jobs_total{job="f",route="a",outcome="finished"}"#, grows(80)),
                (r#"forebay_jobs_total{job="f",route="a",outcome="refused"}"#, grew(20)),
            ],
        ),
        case(
            "ForebayResultsEvicted",
            ROUTE,
            "15",
            vec![(r#"forebay_job_evictions_total{job="f",route="a"}"#, grew(1))],
        ),
    ]
}

fn process() -> Vec<Case> {
    const INSTANCE: &[(&str, &str)] = &[("job", "f"), ("instance", "i")];
    let build = || (r#"forebay_build_info{job="f",instance="i",version="1"}"#, always("1"));
    vec![
        case(
            "ForebayDown",
            INSTANCE,
            "0",
            vec![
                (r#"up{job="f",instance="i"}"#, format!("1x5 0x{} 1x{WELL}", BAD - 7)),
                (r#"forebay_build_info{job="f",instance="i",version="1"}"#, format!("1x5 _x{} 1x{WELL}", BAD - 7)),
                // Another program that is down is not ours to tell of.
                (r#"up{job="other",instance="o"}"#, always("0")),
            ],
        ),
        case(
            "ForebayRestarts",
            INSTANCE,
            "3",
            vec![
                build(),
                (r#"process_start_time_seconds{job="f",instance="i"}"#, format!("1x19 2x4 3x4 4x{}", BAD + WELL - 30)),
            ],
        ),
        case("ForebayPanics", &[("job", "f")], "15", vec![(r#"forebay_panics_total{job="f"}"#, grew(1))]),
        case(
            "ForebayFileDescriptors",
            INSTANCE,
            "90%",
            vec![
                build(),
                (r#"process_open_fds{job="f",instance="i"}"#, was("90", "10")),
                (r#"process_max_fds{job="f",instance="i"}"#, always("100")),
                (r#"process_open_fds{job="other",instance="o"}"#, always("99")),
                (r#"process_max_fds{job="other",instance="o"}"#, always("100")),
            ],
        ),
        case(
            "ForebayRuntimeLag",
            INSTANCE,
            "99.5ms",
            buckets(r#"forebay_runtime_lag_seconds{job="f",instance="i",runtime="main"}"#, 0.05, 0.1),
        ),
        case(
            "ForebayWorkersBusy",
            INSTANCE,
            "90%",
            vec![
                (r#"forebay_runtime_busy_seconds_total{job="f",instance="i",runtime="main"}"#, grew(108)),
                (r#"forebay_runtime_workers{job="f",instance="i",runtime="main"}"#, always("2")),
            ],
        ),
        case(
            "ForebayAccessLogLoss",
            &[("job", "f")],
            "1",
            vec![(r#"forebay_access_log_lines_total{job="f",result="dropped"}"#, grew(60))],
        ),
    ]
}

/// Alerts about quantiles once more, of native histograms.
fn natives(third: bool) -> Vec<Case> {
    let (share, time) = if third { ("99.31%", "993.1ms") } else { ("99.5%", "995ms") };
    let of = |alert, labels, value, series| Case { native: true, ..case(alert, labels, value, series) };
    vec![
        of(
            "ForebayTimeoutHeadroomGone",
            &[("job", "f"), ("upstream", "u")],
            share,
            vec![
                (r#"forebay_upstream_first_byte_seconds{job="f",upstream="u"}"#, native()),
                (r#"forebay_timeout_seconds{job="f",scope="upstream",name="u",phase="first_byte"}"#, always("1")),
            ],
        ),
        of(
            "ForebayQueueWait",
            &[("job", "f"), ("scope", "route"), ("name", "a")],
            share,
            vec![
                (r#"forebay_queue_wait_seconds{job="f",scope="route",name="a"}"#, native()),
                (r#"forebay_timeout_seconds{job="f",scope="route",name="a",phase="queue"}"#, always("1")),
            ],
        ),
        of(
            "ForebayRuntimeLag",
            &[("job", "f"), ("instance", "i")],
            time,
            vec![(r#"forebay_runtime_lag_seconds{job="f",instance="i",runtime="main"}"#, native())],
        ),
    ]
}

/// A text of an alert with what it names filled in.
fn filled_in(text: &str, case: &Case) -> String {
    let labels: BTreeMap<&str, &str> = case.labels.iter().copied().collect();
    let mut parts = text.split("{{ ");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (what, rest) = part.split_once(" }}").expect("it is closed");
        filled += match what.strip_prefix("$labels.") {
            Some(label) => labels.get(label).copied().unwrap_or_default(),
            None => case.value,
        };
        filled += rest;
    }
    filled
}

/// The test file of `promtool` for these cases: JSON, which is YAML as well.
fn test_file(alerts: &[Alert], cases: &[Case]) -> String {
    let mut tests = Vec::new();
    for case in cases {
        let alert = alerts.iter().find(|alert| alert.name == case.alert).expect(case.alert);
        let series: Vec<_> = case
            .series
            .iter()
            .map(|(series, values)| serde_json::json!({ "series": series, "values": values }))
            .collect();
        let severity = format!("{:?}", alert.severity).to_lowercase();
        let mut labels: BTreeMap<&str, &str> = case.labels.iter().copied().collect();
        labels.insert("severity", &severity);
        let annotations = serde_json::json!({
            "summary": filled_in(alert.summary, case), "description": filled_in(alert.description, case),
            "runbook_url": format!("{}#{}", rules::RUNBOOKS, alert.name.to_lowercase()),
        });
        let fires = serde_json::json!([{ "exp_labels": labels, "exp_annotations": annotations }]);
        tests.push(serde_json::json!({
            "name": case.alert, "interval": "1m", "input_series": series,
            "alert_rule_test": [
                { "eval_time": "0m", "alertname": alert.name, "exp_alerts": [] },
                { "eval_time": format!("{}m", BAD - 1), "alertname": alert.name, "exp_alerts": fires },
                { "eval_time": format!("{}m", BAD + case.well - 5), "alertname": alert.name, "exp_alerts": [] },
            ],
        }));
    }
    let file = serde_json::json!({ "rule_files": [rules::FILE], "evaluation_interval": "1m", "tests": tests });
    format!("{file:#}")
}

/// What it says.
pub(super) async fn promtool(version: Version, folder: &Path, arguments: &[&str]) -> String {
    let mut run = command(version.promtool());
    run.args(arguments).current_dir(folder);
    let mut promtool = Process::start("promtool", run);
    let status = promtool.ended_within(Duration::from_secs(240)).await; // It counts through days, minute by minute.
    let mut said = String::new();
    for line in [promtool.stdout.all(), promtool.stderr.all()].concat() {
        writeln!(said, "{line}").expect("a string takes all");
    }
    assert!(status.success(), "promtool {arguments:?} of {version:?}: {status}\n{said}");
    said
}

async fn succeeds(version: Version, folder: &Path, arguments: &[&str]) {
    let said = promtool(version, folder, arguments).await;
    assert!(said.contains("SUCCESS"), "{arguments:?}: {said}");
}

#[test]
fn every_alert_has_a_case_in_which_it_fires_and_clears() {
    let (alerts, cases) = (rules::alerts(), cases(true));
    for alert in &alerts {
        assert!(cases.iter().any(|case| case.alert == alert.name && !case.native), "{} has no case", alert.name);
    }
    let with_quantile = alerts.iter().filter(|alert| {
        let expression = alert.expression();
        expression.contains("histogram_quantile") || expression.contains(":p99_5m")
    });
    for alert in with_quantile {
        assert!(cases.iter().any(|case| case.alert == alert.name && case.native), "{} natively", alert.name);
    }
}

#[tokio::test]
async fn alerts_fire_say_what_they_should_and_clear() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(rules::FILE), rules::file(rules::RUNBOOKS)).expect("the rules are written");
    let version = promtool(Version::Newest, folder.path(), &["--version"]).await;
    let third = version.contains("promtool, version 3.");
    let (native, classic): (Vec<_>, Vec<_>) = cases(third).into_iter().partition(|case| case.native);
    for (name, cases) in [("classic.yaml", &classic), ("native.yaml", &native)] {
        std::fs::write(folder.path().join(name), test_file(&rules::alerts(), cases)).expect("the cases are written");
    }

    succeeds(Version::Oldest, folder.path(), &["check", "rules", rules::FILE]).await;
    succeeds(Version::Newest, folder.path(), &["check", "rules", "--lint=all", "--lint-fatal", rules::FILE]).await;
    succeeds(Version::Oldest, folder.path(), &["test", "rules", "classic.yaml"]).await;
    succeeds(Version::Newest, folder.path(), &["test", "rules", "classic.yaml"]).await;
    succeeds(Version::Newest, folder.path(), &["test", "rules", "native.yaml"]).await;
}
