//! A real Prometheus that scrapes what the test tells it to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

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

impl Prometheus {
    /// Scrapes `/metrics` of `target` twice a second.
    pub async fn scraping(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
             scrape_configs:\n- job_name: forebay\n  static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        std::fs::write(&config, text).expect("the configuration is written");
        let mut run = command(installed("target/tools/usr/bin/prometheus"));
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
        eventually("prometheus has scraped its target", async || {
            let up = prometheus.try_query("up == 1").await?;
            (!up.is_empty()).then_some(())
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

    async fn try_query(&self, promql: &str) -> Option<Vec<Series>> {
        let response =
            http::get(self.address, &format!("/api/v1/query?query={}", percent_encoded(promql))).await.ok()?;
        let answer = (response.status == 200).then(|| response.json())?;
        let result = answer["data"]["result"].as_array()?;
        result.iter().map(series).collect()
    }
}

fn series(json: &serde_json::Value) -> Option<Series> {
    let labels = json["metric"].as_object()?.iter();
    let labels = labels.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect::<Option<_>>()?;
    Some(Series { labels, value: json["value"][1].as_str()?.parse().ok()? })
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
