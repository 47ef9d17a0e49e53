//! Reading the Prometheus text format.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::http;

/// The samples of one scrape, by name and labels.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    /// Fetches `/metrics`.
    pub async fn fetch(admin: SocketAddr) -> Self {
        let response = http::get(admin, "/metrics").await.expect("the admin listener answers");
        assert_eq!(response.status, 200, "{}", response.text());
        Self::parse(&response.text())
    }

    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse_sample);
        Self { samples: samples.collect() }
    }

    /// The one sample that has this name and at least these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let value = found.next();
        assert!(found.next().is_none(), "{name} with {labels:?} is more than one series");
        value
    }

    /// The sum over all series that have this name and at least these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = f64> + 'a {
        self.samples
            .iter()
            .filter(move |((sample, _), _)| sample == name)
            .filter(move |((_, has), _)| labels.iter().all(|(key, value)| has.get(*key).is_some_and(|v| v == value)))
            .map(|(_, value)| *value)
    }
}

fn parse_sample(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("not a sample: {line}"));
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest),
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().and_then(|number| number.parse().ok());
    ((name.to_owned(), labels), value.unwrap_or_else(|| panic!("no value: {line}")))
}

/// The labels up to the closing brace, and what follows it.
fn parse_labels(mut text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return (labels, rest);
        }
        let (name, rest) = text.split_once("=\"").expect("a label's name and value");
        let (value, rest) = parse_value(rest);
        labels.insert(name.to_owned(), value);
        text = rest;
    }
}

/// A quoted value up to its closing quote, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    panic!("a label's value does not end: {text}");
}

#[test]
fn samples_are_read_with_their_labels() {
    let scrape = Scrape::parse(
        "# HELP a_total Words.\n# TYPE a_total counter\na_total{route=\"x,y}\",reason=\"o\\\"k\"} 3\n\
         a_total{route=\"z\",reason=\"ok\"} 4 1700000000\nb 1.5e3\nc{le=\"+Inf\"} +Inf\n",
    );

    assert_eq!(scrape.get("a_total", &[("route", "x,y}")]), Some(3.0));
    assert_eq!(scrape.get("a_total", &[("reason", "o\"k")]), Some(3.0));
    assert_eq!(scrape.sum("a_total", &[]), 7.0);
    assert_eq!(scrape.get("b", &[]), Some(1500.0));
    assert_eq!(scrape.get("c", &[]), Some(f64::INFINITY));
    assert_eq!(scrape.get("d", &[]), None);
}
