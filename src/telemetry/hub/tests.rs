use std::net::SocketAddr;

use super::*;
use crate::config::model::aggregate::Background;
use crate::config::model::*;
use crate::telemetry::snapshot::Value;
use crate::telemetry::test_support::{aggregate, failed, list, ok, record, upstream};
use crate::telemetry::{Completeness, ReloadResult};

const MINUTE: Duration = Duration::from_secs(60);

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn listener(name: &str) -> Arc<Listener> {
    Arc::new(Listener {
        name: name.into(),
        address: address(0),
        tls: None,
        http2: false,
        http2_max_streams: 100,
        http2_stream_window: 65_535,
        http2_connection_window: 65_535,
        max_connections: 10,
        max_requests_per_connection: 1000,
        max_head_bytes: 1024,
        max_headers: 100,
        timeouts: ListenerTimeouts {
            tls_handshake: MINUTE,
            head: MINUTE,
            body: MINUTE,
            idle: MINUTE,
            write: MINUTE,
            lifetime: None,
        },
        min_body_rate: 0,
        trusted_proxies: Vec::new(),
    })
}

fn in_flight(max: usize) -> InFlight {
    let queue = Queue { capacity: 7, timeout: Duration::from_millis(200), order: QueueOrder::Fifo };
    InFlight { max, queue }
}

fn route(name: &str, upstream: &Arc<Upstream>) -> Arc<Route> {
    let limit = RateLimit {
        name: format!("route/{name}/0"),
        rate: Rate { count: 90, per: MINUTE },
        burst: 20,
        key: LimitKey::None,
        max_keys: 1,
        mode: RateMode::Reject,
        max_delayed: 0,
    };
    Arc::new(Route {
        name: name.into(),
        matches: RouteMatch {
            hosts: Vec::new(),
            path: PathPattern::Prefix(String::new()),
            methods: Vec::new(),
            headers: Vec::new(),
        },
        action: RouteAction::Proxy { upstream: upstream.clone() },
        deadline: Deadline::After(Duration::from_millis(2500)),
        objective: Objective::default(),
        rate_limits: vec![Arc::new(limit)],
        in_flight: None,
        client_in_flight: None,
        on_client_gone: ClientGone::Cancel,
        max_body_bytes: 1024,
        upgrades: Upgrades { protocols: Vec::new(), idle_timeout: MINUTE },
        rewrite: Rewrite::None,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        host: HostPolicy::Preserve,
        rate_limit_headers: true,
        mirror: None,
        faults: Vec::new(),
    })
}

fn config(hash: &str, upstreams: &[Arc<Upstream>], routes: &[Arc<Route>]) -> Config {
    Config {
        runtime: Runtime { threads: 1 },
        listeners: vec![listener("main")],
        admin: Admin { address: None, token: None },
        shutdown: Shutdown { accept_grace: MINUTE, drain_timeout: MINUTE },
        reload: Reload { watch: false },
        access_log: model::AccessLog { output: LogOutput::Off, sample: 1.0, buffer: 1 },
        log: Log { level: "info".into(), format: LogFormat::Text },
        metrics: Metrics { buckets: DEFAULT_BUCKETS.to_vec(), peak_window: MINUTE },
        rate_limits: Vec::new(),
        in_flight: Some(in_flight(100)),
        faults: Default::default(),
        record: None,
        upstreams: upstreams.to_vec(),
        routes: routes.to_vec(),
        hash: hash.into(),
    }
}

/// The samples of a scrape whose line starts so.
fn lines(telemetry: &Telemetry, start: &str) -> Vec<String> {
    let text = String::from_utf8(telemetry.render("text/plain").1).unwrap();
    text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn every_series_of_a_configuration_exists_at_zero() {
    let telemetry = Telemetry::quiet();
    let users = upstream("users", &[9001, 9002]);

    telemetry.apply(
        &config("abc", std::slice::from_ref(&users), &[route("slow", &users)]),
        UNIX_EPOCH + Duration::from_secs(5),
    );

    for expected in [
        "forebay_requests_total{route=\"slow\",reason=\"ok\"} 0",
        "forebay_timeouts_total{route=\"slow\",phase=\"queue\",limit=\"deadline\"} 0",
        "forebay_request_duration_seconds_count{route=\"slow\"} 0",
        "forebay_requests_in_flight_peak{route=\"slow\"} 0",
        "forebay_upstream_attempts_total{upstream=\"users\",reason=\"connect_failed\"} 0",
        "forebay_upstream_endpoint_up{upstream=\"users\",endpoint=\"127.0.0.1:9002\"} 1",
        "forebay_permits_limit{scope=\"upstream\",name=\"users\"} 64",
        "forebay_permits_limit{scope=\"global\",name=\"global\"} 100",
        "forebay_queue_capacity{scope=\"upstream\",name=\"users\"} 7",
        "forebay_rate_limit_configured_per_second{limiter=\"route/slow/0\"} 1.5",
        "forebay_rate_limit_decisions_total{limiter=\"route/slow/0\",decision=\"rejected\"} 0",
        "forebay_connections_open{listener=\"main\"} 0",
        "forebay_timeout_seconds{scope=\"route\",name=\"slow\",phase=\"deadline\"} 2.5",
        "forebay_timeout_seconds{scope=\"upstream\",name=\"users\",phase=\"connect\"} 0.25",
        "forebay_timeout_seconds{scope=\"upstream\",name=\"users\",phase=\"queue\"} 0.2",
        "forebay_config_info{hash=\"abc\"} 1",
        "forebay_config_last_reload_successful 1",
        "forebay_config_last_reload_success_timestamp_seconds 5",
        "forebay_config_reloads_total{result=\"failure\"} 0",
        "forebay_access_log_lines_total{result=\"dropped\"} 0",
    ] {
        assert_eq!(lines(&telemetry, expected.rsplit_once(' ').unwrap().0), [expected]);
    }
}

#[test]
fn a_reload_keeps_the_counts_of_what_stays_and_drops_what_is_gone() {
    let telemetry = Telemetry::quiet();
    let (users, orders) = (upstream("users", &[9001, 9002]), upstream("orders", &[9003]));
    let routes = [route("slow", &users), route("old", &orders)];
    telemetry.apply(&config("one", &[users, orders], &routes), UNIX_EPOCH);
    telemetry.finish(&record(&telemetry, "slow"));
    telemetry.finish(&record(&telemetry, "old"));
    let held = telemetry.route("slow");

    let users = upstream("users", &[9002]);
    telemetry.apply(&config("two", std::slice::from_ref(&users), &[route("slow", &users)]), UNIX_EPOCH);
    telemetry.reloaded(ReloadResult::Success);

    assert!(Arc::ptr_eq(&held, &telemetry.route("slow")));
    assert_eq!(held.requests(Reason::Ok), 1);
    let text = String::from_utf8(telemetry.render("").1).unwrap();
    for gone in ["\"old\"", "\"orders\"", "route/old/0", ":9001", "hash=\"one\""] {
        assert!(!text.contains(gone), "{gone} is still there");
    }
    assert_eq!(lines(&telemetry, "forebay_upstream_endpoint_up").len(), 1);
    assert_eq!(
        lines(&telemetry, "forebay_config_reloads_total{result=\"success\"}"),
        ["forebay_config_reloads_total{result=\"success\"} 1"]
    );
    assert!(text.contains("route=\"_unmatched\""));
}

/// A route whose answer is made of these sources; the last one has a list, and all of it may run in the background.
fn aggregate_route(name: &str, sources: &[&str], upstream: &Arc<Upstream>) -> Arc<Route> {
    let mut aggregate = aggregate(sources);
    list(&mut aggregate, sources.len() - 1);
    let first = Source::clone(&aggregate.sources[0]);
    aggregate.sources[0] = Arc::new(Source { timeout: Some(Duration::from_millis(1500)), ..first });
    aggregate.background = Some(Background {
        results: PathPattern::Prefix(String::new()),
        keep: MINUTE,
        max_running: 1,
        max_results: 1,
        max_bytes: 1,
    });
    let plain = Route::clone(&route(name, upstream));
    Arc::new(Route { action: RouteAction::Aggregate(Arc::new(aggregate)), ..plain })
}

#[test]
fn every_series_of_an_aggregate_exists_at_zero() {
    let telemetry = Telemetry::quiet();
    let users = upstream("users", &[9001]);

    telemetry.apply(
        &config("one", std::slice::from_ref(&users), &[aggregate_route("all", &["one", "many"], &users)]),
        UNIX_EPOCH,
    );

    for expected in [
        "forebay_aggregate_answers_total{route=\"all\",completeness=\"partial\"} 0",
        "forebay_aggregate_source_seconds_total{route=\"all\"} 0",
        "forebay_aggregate_elapsed_seconds_total{route=\"all\"} 0",
        "forebay_aggregate_coalesced_total{route=\"all\"} 0",
        "forebay_source_outcomes_total{route=\"all\",source=\"one\",outcome=\"fallback\"} 0",
        "forebay_source_failures_total{route=\"all\",source=\"one\",reason=\"source_timeout\"} 0",
        "forebay_source_duration_seconds_count{route=\"all\",source=\"many\"} 0",
        "forebay_source_last_total{route=\"all\",source=\"one\"} 0",
        "forebay_source_coalesced_total{route=\"all\",source=\"one\"} 0",
        "forebay_source_items_total{route=\"all\",source=\"many\",result=\"cut\"} 0",
        "forebay_source_fan_out_bucket{route=\"all\",source=\"many\",le=\"1000.0\"} 0",
        "forebay_jobs_running{route=\"all\"} 0",
        "forebay_jobs_total{route=\"all\",outcome=\"refused\"} 0",
        "forebay_job_results{route=\"all\"} 0",
        "forebay_job_result_bytes{route=\"all\"} 0",
        "forebay_job_evictions_total{route=\"all\"} 0",
        "forebay_timeout_seconds{scope=\"source\",name=\"all/one\",phase=\"source\"} 1.5",
    ] {
        assert_eq!(lines(&telemetry, expected.rsplit_once(' ').unwrap().0), [expected]);
    }
    assert_eq!(lines(&telemetry, "forebay_source_fan_out_count{route=\"all\",source=\"one\"}").len(), 0, "has no list");
}

#[test]
fn a_source_may_go_while_its_aggregate_stays_and_an_aggregate_while_its_route_stays() {
    let telemetry = Telemetry::quiet();
    let users = upstream("users", &[9001]);
    let apply =
        |routes: &[Arc<Route>]| telemetry.apply(&config("any", std::slice::from_ref(&users), routes), UNIX_EPOCH);
    apply(&[aggregate_route("all", &["gone", "kept", "many"], &users)]);
    let before = telemetry.aggregate("all", &aggregate(&["gone", "kept", "many"]));
    before.record(&[ok(0, 1), failed(1, 2, Reason::SourceTimeout), ok(2, 3)], MINUTE, Completeness::Partial);

    apply(&[aggregate_route("all", &["kept", "new", "many"], &users)]);

    let text = String::from_utf8(telemetry.render("").1).unwrap();
    assert!(!text.contains("\"gone\""), "its series are dropped");
    let kept = "forebay_source_failures_total{route=\"all\",source=\"kept\",reason=\"source_timeout\"}";
    assert_eq!(lines(&telemetry, kept), [format!("{kept} 1")], "its place in the file has changed, its count has not");
    assert_eq!(lines(&telemetry, "forebay_source_last_total").len(), 3);

    apply(&[route("all", &users)]);

    let text = String::from_utf8(telemetry.render("").1).unwrap();
    for gone in ["forebay_aggregate_", "forebay_source_", "forebay_job", "scope=\"source\""] {
        assert!(!text.lines().any(|line| line.starts_with('f') && line.contains(gone)), "{gone} is still there");
    }
    assert_eq!(lines(&telemetry, "forebay_request_bytes_total{route=\"all\"}").len(), 1);
}

#[test]
fn a_client_limit_may_go_while_its_route_stays() {
    let telemetry = Telemetry::quiet();
    let users = upstream("users", &[9001]);
    let plain = route("slow", &users);
    let limit = ClientInFlight { max: 2, key: LimitKey::None, max_keys: 10 };
    let limited = Arc::new(Route { client_in_flight: Some(limit), ..Route::clone(&plain) });

    telemetry.apply(&config("one", std::slice::from_ref(&users), &[limited]), UNIX_EPOCH);
    assert_eq!(lines(&telemetry, "forebay_client_limit").len(), 4);
    telemetry.apply(&config("two", &[users], &[plain]), UNIX_EPOCH);

    assert_eq!(lines(&telemetry, "forebay_client_limit").len(), 0);
    assert_eq!(lines(&telemetry, "forebay_request_bytes_total{route=\"slow\"}").len(), 1);
}

#[test]
fn a_refused_file_shows_until_the_next_good_one() {
    let telemetry = Telemetry::quiet();
    let successful = || lines(&telemetry, "forebay_config_last_reload_successful");

    telemetry.reloaded(ReloadResult::Failure);
    assert_eq!(successful(), ["forebay_config_last_reload_successful 0"]);

    telemetry.reloaded(ReloadResult::Success);
    assert_eq!(successful(), ["forebay_config_last_reload_successful 1"]);
}

#[test]
fn traffic_cannot_add_series() {
    let telemetry = Telemetry::quiet();
    let record = record(&telemetry, "slow");
    telemetry.finish(&record);
    let before = telemetry.snapshot(Instant::now()).series_count();

    for index in 0..1000u16 {
        telemetry.finish(&RequestRecord {
            method: &format!("METHOD{index}"),
            host: &format!("host{index}"),
            target: &format!("/{index}"),
            status: index,
            reason: Reason::ALL[usize::from(index) % Reason::COUNT],
            ..record.clone()
        });
    }

    assert_eq!(telemetry.snapshot(Instant::now()).series_count(), before);
}

#[test]
fn two_proxies_in_one_process_count_apart() {
    let (one, two) = (Telemetry::quiet(), Telemetry::quiet());

    one.finish(&record(&one, "slow"));

    assert_eq!((one.route("slow").requests(Reason::Ok), two.route("slow").requests(Reason::Ok)), (1, 0));
}

/// Little's law through the exported numbers: integral of in flight == sum of durations, when the guard and the record
/// are fed the same instants.
#[tokio::test(start_paused = true)]
async fn exported_in_flight_seconds_equal_the_exported_sum_of_durations() {
    let telemetry = Telemetry::quiet();
    let mut record = record(&telemetry, "slow");
    let mut running = Vec::new();
    for step in 0..50u64 {
        let started = Instant::now();
        running.push((started, record.route.in_flight.guard(started)));
        tokio::time::advance(Duration::from_micros(37 * step)).await;
        if step % 3 == 0 {
            let (started, guard) = running.remove(0);
            record.timings.total = started.elapsed();
            guard.leave(started + record.timings.total);
            telemetry.finish(&record);
        }
    }
    for (started, guard) in running {
        tokio::time::advance(Duration::from_millis(1)).await;
        record.timings.total = started.elapsed();
        guard.leave(started + record.timings.total);
        telemetry.finish(&record);
    }

    let snapshot = telemetry.snapshot(Instant::now());
    let value = |metric: &catalogue::Metric| {
        let (_, series) = snapshot.families().find(|(found, _)| found.name == metric.name).unwrap();
        series.iter().find(|series| series.labels[0].1 == "slow").unwrap().value.clone()
    };
    let Value::Number(integral) = value(&catalogue::REQUESTS_IN_FLIGHT_SECONDS) else { panic!("a number") };
    let Value::Histogram(durations) = value(&catalogue::REQUEST_DURATION) else { panic!("a histogram") };
    assert_eq!((durations.count, durations.sum.as_secs_f64()), (50, integral));
}

#[tokio::test(start_paused = true)]
async fn the_canary_measures_the_runtime_it_runs_on() {
    let telemetry = Telemetry::quiet();
    let canary = tokio::spawn(crate::telemetry::runtime::watch(telemetry.clone(), "main"));

    tokio::time::sleep(Duration::from_millis(950)).await;

    canary.abort();
    assert_eq!(
        lines(&telemetry, "forebay_runtime_lag_seconds_count"),
        ["forebay_runtime_lag_seconds_count{runtime=\"main\"} 10"]
    );
    assert_eq!(lines(&telemetry, "forebay_runtime_workers"), ["forebay_runtime_workers{runtime=\"main\"} 1"]);
    assert_eq!(lines(&telemetry, "forebay_allocator_bytes").len(), 4);
}
