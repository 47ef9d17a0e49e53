use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::telemetry::test_support::record;
use crate::telemetry::{Reason, Telemetry};

/// One sample line: name, labels, value, exemplar.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    exemplar: Option<String>,
}

/// A strict reader of one line of either text format: anything unexpected panics.
fn parse_sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).expect("a name");
    let (name, mut rest) = line.split_at(name_end);
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").expect("a label");
            let (value, after) = parse_quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "label {label} twice");
            match after.split_at(1) {
                (",", more) => inside = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let rest = rest.strip_prefix(' ').expect("one space before the value");
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) => (value, Some(exemplar.to_owned())),
        None => (rest, None),
    };
    Sample { name: name.to_owned(), labels, value: value.parse().expect("a number"), exemplar }
}

/// The value up to the closing quote, and what follows it.
fn parse_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().expect("an escaped character").1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                other => panic!("unknown escape \\{other}"),
            }),
            '\n' => panic!("a bare line feed"),
            other => value.push(other),
        }
    }
    panic!("no closing quote")
}

/// A whole strict parse: head lines before samples, families not interleaved, no series twice.
fn parse(text: &str, dialect: Dialect) -> Vec<Sample> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut families, mut series) = (Vec::new(), HashSet::new(), HashSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').expect("help").0.to_owned();
            assert!(families.insert(family.clone()), "{family} twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, value) = rest.split_once(' ').expect("a type");
            assert_eq!(name, family);
            kind = value.to_owned();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect("a unit");
            assert!(name == family && name.ends_with(unit) && dialect == Dialect::OpenMetrics, "{line}");
        } else if line != "# EOF" {
            let sample = parse_sample(line);
            let ends: &[&str] = match (kind.as_str(), dialect) {
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                ("counter", Dialect::OpenMetrics) => &["_total"],
                _ => &[""],
            };
            assert!(ends.iter().any(|end| sample.name == format!("{family}{end}")), "{line} inside {family}");
            assert!(series.insert((sample.name.clone(), sample.labels.clone())), "{line} twice");
            samples.push(sample);
        }
    }
    assert_eq!(dialect == Dialect::OpenMetrics, text.ends_with("# EOF\n"));
    samples
}

fn find<'a>(samples: &'a [Sample], name: &str, labels: &[(&str, &str)]) -> &'a Sample {
    let matches = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(k, v)| sample.labels.get(*k).map(String::as_str) == Some(*v))
    };
    samples.iter().find(matches).unwrap_or_else(|| panic!("no {name} {labels:?}"))
}

fn busy() -> std::sync::Arc<Telemetry> {
    let telemetry = Telemetry::quiet();
    let mut record = record(&telemetry, "a \"quoted\" \\ route\n");
    telemetry.finish_at(&record, UNIX_EPOCH + Duration::from_millis(1_700_000_000_125));
    record.reason = Reason::DeadlineFirstByte;
    record.status = 504;
    record.method = "BREW";
    telemetry.finish_at(&record, SystemTime::UNIX_EPOCH);
    telemetry.upstream("u").attempt(Reason::Ok, Duration::from_millis(20), None, Some(Duration::from_micros(80)));
    telemetry.queue("upstream", "u").waited(Duration::ZERO);
    telemetry.limiter("l").admitted.inc();
    telemetry.listener("main").accepted.inc();
    telemetry
}

#[test]
fn text_is_strictly_valid_and_says_what_happened() {
    let telemetry = busy();

    let (content_type, body) = telemetry.render("");

    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let samples = parse(&String::from_utf8(body).unwrap(), Dialect::Prometheus);
    let route = ("route", "a \"quoted\" \\ route\n");
    assert_eq!(find(&samples, "forebay_requests_total", &[route, ("reason", "ok")]).value, 1.0);
    assert_eq!(find(&samples, "forebay_requests_total", &[route, ("reason", "queue_full")]).value, 0.0);
    assert_eq!(find(&samples, "forebay_requests_by_code_total", &[route, ("code", "5xx")]).value, 1.0);
    assert_eq!(find(&samples, "forebay_requests_by_method_total", &[route, ("method", "_OTHER")]).value, 1.0);
    let timeout = [route, ("phase", "first_byte"), ("limit", "deadline")];
    assert_eq!(find(&samples, "forebay_timeouts_total", &timeout).value, 1.0);
    assert_eq!(find(&samples, "forebay_request_duration_seconds_count", &[route]).value, 2.0);
    assert_eq!(find(&samples, "forebay_request_duration_seconds_bucket", &[route, ("le", "1.0")]).value, 0.0);
    assert_eq!(find(&samples, "forebay_request_duration_seconds_bucket", &[route, ("le", "1.5")]).value, 2.0);
    assert_eq!(find(&samples, "forebay_requests_total", &[("route", "_unmatched"), ("reason", "no_route")]).value, 0.0);
    assert!(find(&samples, "process_resident_memory_bytes", &[]).value > 0.0);
    assert!(samples.iter().all(|sample| sample.exemplar.is_none()));
}

#[test]
fn openmetrics_is_strictly_valid_and_has_exemplars() {
    let (content_type, body) = busy().render("application/openmetrics-text");

    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let samples = parse(&String::from_utf8(body).unwrap(), Dialect::OpenMetrics);
    let labels = [("route", "a \"quoted\" \\ route\n"), ("le", "1.5")];
    let bucket = find(&samples, "forebay_request_duration_seconds_bucket", &labels);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(bucket.exemplar, Some(format!("{{trace_id=\"{trace}\"}} 1.25 0.000")));
}

#[test]
fn two_scrapes_without_traffic_are_alike() {
    let telemetry = busy();
    let snapshot = telemetry.snapshot(Instant::now());
    for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
        assert_eq!(encode(&snapshot, format), encode(&snapshot, format));
    }
}

#[test]
fn histogram_series_agree_within_a_scrape() {
    let samples = parse(&String::from_utf8(busy().render("").1).unwrap(), Dialect::Prometheus);
    for count in samples.iter().filter(|sample| sample.name.ends_with("_seconds_count")) {
        let mut labels = count.labels.clone();
        labels.insert("le".into(), "+Inf".into());
        let bucket = count.name.replace("_count", "_bucket");
        let infinite = samples.iter().find(|sample| sample.name == bucket && sample.labels == labels).unwrap();
        assert_eq!(infinite.value, count.value, "{}", count.name);
    }
}

#[test]
fn accept_decides_the_format() {
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let with_native = format!(
        "{protobuf};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    );
    for (accept, expected) in [
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
        ("application/json", Format::Text),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", Format::OpenMetrics),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.5", Format::Text),
        ("application/openmetrics-text;version=2.0.0", Format::Text),
        ("application/openmetrics-text;q=0", Format::Text),
        (with_native.as_str(), Format::Protobuf),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited", Format::Text),
    ] {
        assert_eq!(Format::negotiate(accept), expected, "{accept}");
    }
}

#[test]
fn bounds_are_spelt_as_prometheus_3_does() {
    for (value, spelling) in [
        (1.0, "1.0"),
        (0.0025, "0.0025"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.000015, "1.5e-05"),
        (60.0, "60.0"),
        (100_000.0, "100000.0"),
        (1e6, "1e+06"),
        (2.5e7, "2.5e+07"),
        (0.0, "0.0"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(canonical_float(value), spelling);
    }
}

proptest! {
    #[test]
    fn any_label_value_survives(value in any::<String>()) {
        let mut out = String::from("name");
        write_labels(&mut out, &[("label", value.clone())], None);
        out.push_str(" 1");

        prop_assert_eq!(&parse_sample(&out).labels["label"], &value);
    }

    #[test]
    fn any_accept_value_gives_a_format(accept in any::<String>()) {
        prop_assert!(!Format::negotiate(&accept).content_type().is_empty());
    }
}
