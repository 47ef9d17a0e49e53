//! Every expression of dashboards and rules is asked of real Prometheus servers under a real mixed load, and has an
//! answer: nothing is blank because of a name, a label, a mistake, or the kind of histogram.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::rules::promtool;
use crate::support::fault_upstream::{FaultUpstream, scripts};
use crate::support::forebay::Forebay;
use crate::support::http;
use crate::support::process::{Process, command};
use crate::support::prometheus::{self, Format, Prometheus, Setup, Version};

const CONFIG: &str = r#"
    [access_log]
    output = "off"

    [faults]
    enabled = true

    [upstream.app]
    endpoints = ["APP"]
    max_in_flight = 50
    health = { path = "/health", interval = "1s" }

    [upstream.hanging]
    endpoints = ["HANGING"]
    timeouts = { first_byte = "40ms" }

    [upstream.down]
    endpoints = ["DOWN"]

    [route.root]
    path = "/"
    upstream = "app"
    objective = { availability = "99.9%", latency = "50ms" }
    mirror = { upstream = "app", compare = true }

    # Of three at once, one is served, one waits in vain, one is refused.
    [route.late]
    path = "/late"
    upstream = "hanging"
    deadline = "50ms"
    max_in_flight = 1
    queue = { capacity = 1, timeout = "20ms" }
    rate_limit = { rate = "1000/s", burst = 10, key = "client_ip" }

    [route.client]
    path = "/client"
    upstream = "app"
    client_in_flight = { max = 10, key = "client_ip" }
    fault = { delay = "1ms" }

    [route.left]
    path = "/left"
    upstream = "hanging"
    on_client_gone = "finish"

    [route.page]
    path = "/page"
    [route.page.aggregate]
    coalesce = ["path", "query"]
    [route.page.aggregate.source]
    whole = { upstream = "app", path = "/whole", timeout = "1s" }
    broken = { upstream = "down", path = "/broken", timeout = "1s", on_error = "omit" }
    items = { upstream = "app", path = "/items/{item}", for_each = "{query.id}", timeout = "1s" }

    [route.report]
    path = "/report"
    methods = ["POST"]
    aggregate = { background = true, source = { whole = { upstream = "app", path = "/whole" } } }

    [route.results]
    path = "/results/{id}"
    results_of = "report"
"#;

/// A sidecar that everything happens to, and two load tests: one of the sidecar, one of something that breaks.
struct Stage {
    forebay: Forebay,
    load: Vec<SocketAddr>,
    _processes: Vec<Process>,
    _upstreams: [FaultUpstream; 3],
}

impl Stage {
    async fn set() -> Self {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        let app = FaultUpstream::answering(answer).await;
        let hanging = FaultUpstream::start([scripts::stall_before_head()]).await;
        let breaking = FaultUpstream::start([scripts::reset_before_head()]).await;
        // Nobody listens there any more.
        let down = FaultUpstream::answering(answer).await.address;
        let addresses = [("APP", app.address), ("HANGING", hanging.address), ("DOWN", down)];
        let config = addresses.iter().fold(CONFIG.to_owned(), |text, (word, at)| text.replace(word, &at.to_string()));
        let forebay = Forebay::start(&config).await;
        let mut stage =
            Self { forebay, load: Vec::new(), _processes: Vec::new(), _upstreams: [app, hanging, breaking] };
        stage.load_test(stage.forebay.address()).await;
        stage.load_test(stage._upstreams[2].address).await;
        stage
    }

    async fn load_test(&mut self, target: SocketAddr) {
        let mut run = command(env!("CARGO_BIN_EXE_forebay"));
        run.args(["load", &format!("http://{target}/"), "-r", "40/s", "-d", "10m", "--metrics", "127.0.0.1:0"]);
        let mut load = Process::start("forebay load", run);
        let find = |lines: &[String]| {
            let address = lines.iter().find_map(|line| line.strip_prefix("metrics at http://")?.split_once('/'));
            address.map(|(address, _)| address.parse().expect("an address"))
        };
        self.load.push(load.output("says where its numbers are", find).await);
        self._processes.push(load);
    }

    async fn server(&self, version: Version, format: Format) -> Prometheus {
        let (admin, load) = ([self.forebay.admin()], self.load.as_slice());
        let jobs: &[(&str, &[SocketAddr])] = &[("forebay", &admin), ("load", load)];
        let rules = forebay::rules::file(forebay::rules::RUNBOOKS);
        Prometheus::start(&Setup { version, format, jobs, rules: Some(&rules) }).await
    }

    /// Some requests of each kind, and now and then a reload.
    async fn play(&self, round: usize) {
        let targets = ["/", "/late", "/late", "/late", "/client", "/page?id=1&id=2", "/page?id=3", "/nowhere"];
        let answers = join_all(targets.map(|target| http::get(self.forebay.address(), target))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        drop(http::hold(self.forebay.address(), "/left").await);
        let job = http::request(self.forebay.address(), "POST", "/report", &[], b"").await;
        assert_eq!(job.expect("an answer").status, 202);
        if round % 20 == 5 {
            self.forebay.signal(Signal::HUP);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_an_answer_in_every_version_and_format() {
    let stage = Arc::new(Stage::set().await);
    let servers = [
        (Version::Oldest, Format::Classic),
        (Version::Oldest, Format::Native),
        (Version::Newest, Format::Classic),
        (Version::Newest, Format::Native),
        (Version::Newest, Format::Text),
    ];
    let asked = [dashboard_expressions(), rule_expressions()].concat();
    assert!(asked.len() > 200, "only {}", asked.len());
    let servers = join_all(servers.map(async |(version, format)| {
        let prometheus = stage.server(version, format).await;
        (format, format!("{version:?} {format:?}"), prometheus, asked.clone())
    }));
    let mut servers = servers.await;
    let deadline = Instant::now() + Duration::from_secs(90);

    for round in 0.. {
        stage.play(round).await;
        if round % 10 != 9 {
            continue;
        }
        for (_, _, prometheus, asked) in &mut servers {
            let mut unanswered = Vec::new();
            for expression in asked.drain(..) {
                let series = prometheus.query(&expression).await;
                if series.iter().all(|series| series.value.is_nan()) {
                    unanswered.push(expression);
                }
            }
            *asked = unanswered;
        }
        if servers.iter().all(|(_, _, _, asked)| asked.is_empty()) {
            break;
        }
        let open = servers.iter().map(|(_, name, _, asked)| format!("{name}:\n  {}", asked.join("\n  ")));
        assert!(Instant::now() < deadline, "no answer but NaN:\n{}", open.collect::<Vec<_>>().join("\n"));
    }

    for (format, name, prometheus, _) in &servers {
        has_one_kind_of_histograms(*format, name, prometheus).await;
        variables_have_values(name, prometheus).await;
        let rules = prometheus.rules().await;
        assert_eq!(rules.len(), forebay::rules::recordings().len() + forebay::rules::alerts().len());
        let wrong: Vec<_> = rules.into_iter().filter(|(_, wrong)| wrong.is_some()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        // Those that have to fire in this mess are pending at least.
        for alert in ["ForebayPartialAnswers", "ForebayShedding", "ForebayTimeouts"] {
            let pending = prometheus.query(&format!("ALERTS{{alertname=\"{alert}\"}}")).await;
            assert!(!pending.is_empty(), "{name}: {alert} is silent");
        }
    }
}

/// A roll-out is marked where it begins, and neither at its next instances nor at a restart.
#[tokio::test]
async fn a_new_version_is_marked_once() {
    let files = forebay::dashboards::files();
    let (_, overview) = files.iter().find(|(name, _)| name == "overview.json").expect("it is there");
    let overview: Value = serde_json::from_str(overview).expect("JSON");
    let mut annotations = overview["annotations"]["list"].as_array().expect("annotations").iter();
    let marked = annotations.find(|annotation| annotation["name"] == "New version").expect("it is there");
    let expression = all_chosen(marked["expr"].as_str().expect("an expression"));
    // Every five seconds: one instance gets the new version after a minute, the other half a minute later.
    let series = [("a", "1", "1x11 stale"), ("a", "2", "_x12 1x12"), ("b", "1", "1x17 stale"), ("b", "2", "_x18 1x6")];
    let series = series.map(|(instance, version, values)| {
        let labels = format!("job=\"f\",instance=\"{instance}\",version=\"{version}\"");
        json!({ "series": format!("forebay_build_info{{{labels}}}"), "values": values })
    });
    let new = json!([{ "labels": "{job=\"f\", version=\"2\"}", "value": 1 }]);
    let seen = [("55s", json!([])), ("65s", new), ("75s", json!([])), ("95s", json!([]))];
    let seen = seen.map(|(at, samples)| json!({ "expr": expression, "eval_time": at, "exp_samples": samples }));
    let tests = json!([{ "interval": "5s", "input_series": series, "promql_expr_test": seen }]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = json!({ "rule_files": [], "evaluation_interval": "5s", "tests": tests });
    std::fs::write(folder.path().join("version.yaml"), file.to_string()).expect("written");

    for version in [Version::Oldest, Version::Newest] {
        promtool(version, folder.path(), &["test", "rules", "version.yaml"]).await;
    }
}

/// The formats are what they are called: otherwise all of this would be asked of one kind.
async fn has_one_kind_of_histograms(format: Format, name: &str, prometheus: &Prometheus) {
    let native = prometheus.query("forebay_request_duration_seconds").await;
    let classic = prometheus.query("forebay_request_duration_seconds_bucket").await;
    assert_eq!((native.is_empty(), classic.is_empty()), (format != Format::Native, format == Format::Native), "{name}");
}

/// As Grafana asks for them when everything is chosen.
async fn variables_have_values(name: &str, prometheus: &Prometheus) {
    for (file, text) in forebay::dashboards::files() {
        let dashboard: Value = serde_json::from_str(&text).expect(&file);
        for variable in dashboard["templating"]["list"].as_array().expect("variables") {
            let query = variable["query"].as_str().expect("a query");
            let Some(query) = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')) else {
                assert_eq!((&variable["type"], query), (&Value::from("datasource"), "prometheus"));
                continue;
            };
            let (selector, label) = query.rsplit_once(", ").expect("a selector and a label");
            let values = prometheus.label_values(label, &all_chosen(selector)).await;
            assert!(!values.is_empty(), "{name}, {file}: nothing to choose from for {query}");
            let jobs = if file == "load.json" { &["forebay", "load"][..] } else { &["forebay"] };
            assert!(label != "job" || values == jobs, "{name}, {file}: {values:?}");
        }
    }
}

/// Over a time in which something has come.
fn all_chosen(expression: &str) -> String {
    prometheus::all_chosen(expression, "10s")
}

/// Of panels and annotations. Whether something has changed is asked as how often it has.
fn dashboard_expressions() -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in forebay::dashboards::files() {
        let dashboard: Value = serde_json::from_str(&text).expect(&name);
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        found.extend(targets.map(|target| all_chosen(target["expr"].as_str().expect("an expression"))));
        for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
            let expression = annotation["expr"].as_str().expect("an expression");
            found.push(all_chosen(expression.strip_suffix(" > 0").expect("how often")));
        }
    }
    found
}

/// What is recorded, what is recorded from, and what alerts measure.
fn rule_expressions() -> Vec<String> {
    let recordings = forebay::rules::recordings();
    let recorded = recordings.into_iter().flat_map(|recording| [recording.name, recording.expression]);
    let alerts = forebay::rules::alerts();
    let measured = alerts.into_iter().flat_map(|alert| alert.measures).map(|measure| measure.expression);
    recorded.chain(measured).collect()
}
