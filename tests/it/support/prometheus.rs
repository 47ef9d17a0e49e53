//! A real Prometheus that scrapes what the test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::process::{Process, command};
use super::{eventually, http, installed};

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// An expression of a dashboard in which every variable means all, and rates are taken over `window`.
pub fn all_chosen(expression: &str, window: &str) -> String {
    let chosen = ["$job", "$instance", "$route", "$upstream"];
    let expression = chosen.iter().fold(expression.to_owned(), |text, name| text.replace(name, ".+"));
    expression.replace("$__rate_interval", window)
}

/// One series over time: instants in seconds since 1970, without those for which there is nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    pub labels: BTreeMap<String, String>,
    pub points: Vec<(f64, f64)>,
}

/// Which instants are asked for, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub from: f64,
    pub to: f64,
    pub step: f64,
}

/// Which Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The oldest that is supported: 2.42.
    Oldest,
    /// A 3, or what `scripts/setup.sh` could get instead.
    Newest,
}

impl Version {
    pub fn prometheus(self) -> PathBuf {
        installed(&format!("target/tools/{}usr/bin/prometheus", self.folder()))
    }

    pub fn promtool(self) -> PathBuf {
        installed(&format!("target/tools/{}usr/bin/promtool", self.folder()))
    }

    fn folder(self) -> &'static str {
        match self {
            Version::Oldest => "",
            Version::Newest => "new/",
        }
    }
}

/// How it asks for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As it does unless told otherwise: OpenMetrics, classic histograms.
    Classic,
    /// Protobuf with native histograms.
    Native,
    /// Text 0.0.4 only, which a version before 2.49 cannot be told.
    Text,
}

/// What a server is to do.
#[derive(Debug)]
pub struct Setup<'a> {
    pub version: Version,
    pub format: Format,
    /// Jobs with what to scrape.
    pub jobs: &'a [(&'a str, &'a [SocketAddr])],
    /// A file of rules.
    pub rules: Option<&'a str>,
}

impl Setup<'_> {
    fn config(&self, directory: &Path) -> String {
        let mut text =
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s }\n".to_owned();
        if let Some(rules) = self.rules {
            std::fs::write(directory.join("rules.yml"), rules).expect("the rules are written");
            text += "rule_files: [rules.yml]\n";
        }
        text += "scrape_configs:\n";
        for (job, targets) in self.jobs {
            let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
            text += &format!("- job_name: {job}\n  static_configs: [{{ targets: [{}] }}]\n", targets.join(", "));
            if self.format == Format::Text {
                text += "  scrape_protocols: [PrometheusText0.0.4]\n";
            }
        }
        text
    }
}

impl Prometheus {
    /// Scrapes `/metrics` of `target` twice a second.
    pub async fn scraping(target: SocketAddr) -> Self {
        let jobs: &[(&str, &[SocketAddr])] = &[("forebay", &[target])];
        Self::start(&Setup { version: Version::Oldest, format: Format::Classic, jobs, rules: None }).await
    }

    pub async fn start(setup: &Setup<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, setup.config(directory.path())).expect("the configuration is written");
        let mut run = command(setup.version.prometheus());
        if setup.format == Format::Native {
            run.arg("--enable-feature=native-histograms");
        }
        run.arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::start("prometheus", run);
        let address = process
            .output("says where it listens", |lines| {
                let line = lines.iter().find(|line| line.contains("msg=\"Listening on\""))?;
                line.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
            })
            .await;
        let prometheus = Self { address, _process: process, _directory: directory };
        let targets: usize = setup.jobs.iter().map(|(_, targets)| targets.len()).sum();
        eventually("prometheus has scraped its targets", async || {
            let up = prometheus.try_query("up == 1").await?;
            (up.len() == targets).then_some(())
        })
        .await;
        prometheus
    }

    /// An instant query; the series of its answer.
    pub async fn query(&self, promql: &str) -> Vec<Series> {
        self.try_query(promql).await.unwrap_or_else(|| panic!("prometheus does not answer {promql}"))
    }

    /// An instant query whose answer is one number.
    pub async fn number(&self, promql: &str) -> f64 {
        let series = self.query(promql).await;
        assert_eq!(series.len(), 1, "{promql}: {series:?}");
        series[0].value
    }

    /// A query over time.
    pub async fn over(&self, promql: &str, span: Span) -> Vec<Course> {
        let Span { from, to, step } = span;
        let request = format!("query_range?query={}&start={from}&end={to}&step={step}", percent_encoded(promql));
        let answer = self.data(&request).await.unwrap_or_else(|| panic!("prometheus does not answer {promql}"));
        let courses: Option<_> = answer["result"].as_array().and_then(|all| all.iter().map(course).collect());
        courses.unwrap_or_else(|| panic!("{promql}: {answer}"))
    }

    /// The values that a label has in the series of a selector.
    pub async fn label_values(&self, label: &str, selector: &str) -> Vec<String> {
        let answer = self.data(&format!("label/{label}/values?match[]={}", percent_encoded(selector))).await;
        let values = answer.unwrap_or_else(|| panic!("prometheus does not answer {selector}"));
        values.as_array().expect("a list").iter().map(|value| value.as_str().expect("a text").to_owned()).collect()
    }

    /// All rules: name, and what was wrong with their last evaluation.
    pub async fn rules(&self) -> Vec<(String, Option<String>)> {
        let answer = self.data("rules").await.expect("prometheus tells its rules");
        let groups = answer["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let rule = |rule: &serde_json::Value| {
            let health = rule["health"].as_str().expect("its health");
            let wrong = (health != "ok").then(|| format!("{health}: {}", rule["lastError"]));
            (rule["name"].as_str().expect("a name").to_owned(), wrong)
        };
        rules.map(rule).collect()
    }

    async fn try_query(&self, promql: &str) -> Option<Vec<Series>> {
        let answer = self.data(&format!("query?query={}", percent_encoded(promql))).await?;
        answer["result"].as_array()?.iter().map(series).collect()
    }

    async fn data(&self, request: &str) -> Option<serde_json::Value> {
        let response = http::get(self.address, &format!("/api/v1/{request}")).await.ok()?;
        let mut answer = (response.status == 200).then(|| response.json())?;
        Some(answer["data"].take())
    }
}

/// The value of a native histogram is the count of its observations.
fn series(json: &serde_json::Value) -> Option<Series> {
    let value = json["value"][1].as_str().or_else(|| json["histogram"][1]["count"].as_str())?;
    Some(Series { labels: labels(json)?, value: value.parse().ok()? })
}

fn course(json: &serde_json::Value) -> Option<Course> {
    let point = |point: &serde_json::Value| Some((point[0].as_f64()?, point[1].as_str()?.parse().ok()?));
    let points: Option<Vec<(f64, f64)>> = json["values"].as_array()?.iter().map(point).collect();
    let points = points?.into_iter().filter(|(_, value)| !value.is_nan()).collect();
    Some(Course { labels: labels(json)?, points })
}

fn labels(json: &serde_json::Value) -> Option<BTreeMap<String, String>> {
    let labels = json["metric"].as_object()?.iter();
    labels.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
