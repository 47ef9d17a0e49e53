//! What a good answer is: its status, fields and parts of its body, and the time by which it must be there.
//!
//! Written as `status=200-299,404`, `header:content-type=application/json`, `header:etag` (it is there),
//! `json:items.0.id=7` and `json:items` (it is there). Paths into JSON are those of the configuration file.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use serde_json::Value as Json;

use crate::config::model::StatusRange;
use crate::config::model::aggregate::{JsonPath, Step};
use crate::config::value::json_path::{parse_json_path, show_json_path};

/// One condition on an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    Status(Vec<StatusRange>),
    /// A field is there, or has this value.
    Header {
        name: HeaderName,
        value: Option<String>,
    },
    /// A part of the JSON body is there, or equals this.
    Json {
        path: JsonPath,
        value: Option<Json>,
    },
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(ranges) = text.strip_prefix("status=") {
            return Ok(Check::Status(ranges.split(',').map(status_range).collect::<Result<_, _>>()?));
        }
        let (left, value) = match text.split_once('=') {
            Some((left, value)) => (left, Some(value)),
            None => (text, None),
        };
        match left.split_once(':') {
            Some(("header", name)) => {
                let name = name.trim().parse().map_err(|_| format!("`{name}` is not a header name"))?;
                Ok(Check::Header { name, value: value.map(|value| value.trim().to_owned()) })
            }
            Some(("json", path)) => {
                let path = parse_json_path(path).map_err(|error| path_problem(path, &error))?;
                Ok(Check::Json { path, value: value.map(json_or_text) })
            }
            _ => {
                Err("write `status=200-299`, `header:NAME`, `header:NAME=VALUE`, `json:PATH` or `json:PATH=VALUE`"
                    .into())
            }
        }
    }
}

fn path_problem(path: &str, error: &crate::config::value::TextError) -> String {
    let help = error.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("the path `{path}` {}{help}", error.problem)
}

/// What is not JSON is a string: `json:name=anna` needs no quotes.
fn json_or_text(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// `200`, `200-299` or `2xx`.
fn status_range(text: &str) -> Result<StatusRange, String> {
    let text = text.trim();
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let class = text.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok());
    let range = match (class, text.split_once('-')) {
        (Some(class @ 1..=5), _) => Some((class * 100, class * 100 + 99)),
        (None, Some((first, last))) => number(first).zip(number(last)),
        (None, None) => number(text).map(|status| (status, status)),
        _ => None,
    };
    match range {
        Some((first, last)) if first <= last => Ok(StatusRange { first, last }),
        _ => Err(format!("`{text}` is not a status: write `200`, `200-299` or `2xx`")),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Status(ranges) => {
                let range = |range: &StatusRange| match range.first == range.last {
                    true => range.first.to_string(),
                    false => format!("{}-{}", range.first, range.last),
                };
                write!(f, "status={}", ranges.iter().map(range).collect::<Vec<_>>().join(","))
            }
            Check::Header { name, value: None } => write!(f, "header:{name}"),
            Check::Header { name, value: Some(value) } => write!(f, "header:{name}={value}"),
            Check::Json { path, value: None } => write!(f, "json:{}", show_json_path(path)),
            Check::Json { path, value: Some(value) } => write!(f, "json:{}={value}", show_json_path(path)),
        }
    }
}

/// An answer as checks see it.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub headers: &'a HeaderMap,
    /// `None` if it was not kept, or too long to be.
    pub body: Option<&'a [u8]>,
}

/// Everything that is expected of a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The answer is a success with these, an error with any other.
    pub statuses: Vec<StatusRange>,
    /// All must hold. On answers with an expected status only: nobody looks for a field in a 503.
    pub checks: Vec<Check>,
    /// An answer must have arrived by then, whatever it says: the deadline of the configuration under test.
    pub deadline: Option<Duration>,
    /// How much later is still in time.
    pub tolerance: Duration,
}

/// An answer has to be read by a process that does other things as well, on a machine that is under load.
pub const TOLERANCE: Duration = Duration::from_millis(100);

/// What a status should be when nobody says: the request was understood and done, or is answered elsewhere.
pub const SUCCESS: StatusRange = StatusRange { first: 200, last: 399 };

impl Default for Expectation {
    fn default() -> Self {
        Self { statuses: vec![SUCCESS], checks: Vec::new(), deadline: None, tolerance: TOLERANCE }
    }
}

impl Expectation {
    /// Adds checks of the command line. Those of a status replace the statuses that are expected otherwise.
    pub fn with_checks(mut self, checks: &[Check]) -> Self {
        for check in checks {
            match check {
                Check::Status(ranges) => self.statuses.clone_from(ranges),
                other => self.checks.push(other.clone()),
            }
        }
        self
    }

    pub fn needs_body(&self) -> bool {
        self.checks.iter().any(|check| matches!(check, Check::Json { .. }))
    }

    /// Whether the answer is as expected; counts which check it fails first.
    pub fn judge(&self, answer: &Answer<'_>, tally: &Tally) -> bool {
        if !contains(&self.statuses, answer.status) {
            return false;
        }
        // Parsed once for all checks, and only for checks of the body.
        let json = answer.body.and_then(|body| serde_json::from_slice::<Json>(body).ok());
        let failed = self.checks.iter().position(|check| !check.holds(answer, json.as_ref()));
        if let Some(index) = failed {
            tally.failed_checks[index].fetch_add(1, Ordering::Relaxed);
        }
        failed.is_none()
    }
}

fn contains(ranges: &[StatusRange], status: u16) -> bool {
    ranges.iter().any(|range| (range.first..=range.last).contains(&status))
}

impl Check {
    fn holds(&self, answer: &Answer<'_>, json: Option<&Json>) -> bool {
        match self {
            Check::Status(ranges) => contains(ranges, answer.status),
            Check::Header { name, value: None } => answer.headers.contains_key(name),
            Check::Header { name, value: Some(value) } => {
                answer.headers.get_all(name).iter().any(|field| field.as_bytes() == value.as_bytes())
            }
            Check::Json { path, value } => json.is_some_and(|json| holds_at(json, &path.steps, value.as_ref())),
        }
    }
}

/// `*` asks it of every element, of which there must be one.
fn holds_at(json: &Json, steps: &[Step], value: Option<&Json>) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        return value.is_none_or(|value| value == json);
    };
    match (step, json) {
        (Step::Key(name), Json::Object(members)) => members.get(name).is_some_and(|json| holds_at(json, rest, value)),
        (Step::Key(index), Json::Array(items)) => {
            let item = index.parse::<usize>().ok().and_then(|index| items.get(index));
            item.is_some_and(|json| holds_at(json, rest, value))
        }
        (Step::Each, Json::Array(items)) => !items.is_empty() && items.iter().all(|json| holds_at(json, rest, value)),
        (Step::Each, Json::Object(members)) => {
            !members.is_empty() && members.values().all(|json| holds_at(json, rest, value))
        }
        _ => false,
    }
}

/// Expectations that were not met, counted while the run goes on.
#[derive(Debug, Default)]
pub struct Tally {
    /// By the index of the check.
    failed_checks: Vec<AtomicU64>,
    late: AtomicU64,
    /// The longest time of those, in nanoseconds.
    latest_ns: AtomicU64,
}

impl Tally {
    pub fn of(expectation: &Expectation) -> Self {
        let failed_checks = expectation.checks.iter().map(|_| AtomicU64::new(0)).collect();
        Self { failed_checks, ..Self::default() }
    }

    /// Starts the clock of a request that is about to be sent on an open connection: what the target's own clock can
    /// know. When it is dropped the answer was there, or the request was given up, which is no excuse.
    pub fn promise(&self, expectation: &Expectation) -> Option<Promise<'_>> {
        let limit = expectation.deadline? + expectation.tolerance;
        Some(Promise { tally: self, limit, began: Instant::now() })
    }

    /// How many answers came later than promised, and the longest time.
    pub fn late(&self) -> (u64, Duration) {
        let latest = Duration::from_nanos(self.latest_ns.load(Ordering::Relaxed));
        (self.late.load(Ordering::Relaxed), latest)
    }

    /// How many answers failed each check.
    pub fn failed_checks(&self) -> impl Iterator<Item = u64> + '_ {
        self.failed_checks.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The clock of one request; see [`Tally::promise`].
#[derive(Debug)]
pub struct Promise<'a> {
    tally: &'a Tally,
    limit: Duration,
    began: Instant,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if took > self.limit {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.tally.late.fetch_add(1, Ordering::Relaxed);
            self.tally.latest_ns.fetch_max(nanos, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectation(checks: &[&str]) -> Expectation {
        let checks: Vec<Check> = checks.iter().map(|text| text.parse().expect(text)).collect();
        Expectation::default().with_checks(&checks)
    }

    fn passes(checks: &[&str], status: u16, body: &str) -> bool {
        let expectation = expectation(checks);
        let headers: HeaderMap =
            [("content-type".parse().unwrap(), "application/json".parse().unwrap())].into_iter().collect();
        let answer = Answer { status, headers: &headers, body: Some(body.as_bytes()) };
        expectation.judge(&answer, &Tally::of(&expectation))
    }

    #[test]
    fn without_checks_success_is_2xx_and_3xx() {
        for (status, expected) in [(199, false), (200, true), (302, true), (399, true), (404, false), (503, false)] {
            assert_eq!(passes(&[], status, ""), expected, "{status}");
        }
    }

    #[test]
    fn a_check_of_the_status_replaces_what_is_expected_otherwise() {
        assert!(passes(&["status=404"], 404, ""));
        assert!(!passes(&["status=404"], 200, ""));
        assert!(passes(&["status=2xx,429"], 429, ""));
        assert!(passes(&["status=200-204"], 204, ""));
    }

    #[test]
    fn fields_exist_or_have_a_value() {
        assert!(passes(&["header:Content-Type"], 200, ""));
        assert!(passes(&["header:content-type=application/json"], 200, ""));
        assert!(!passes(&["header:content-type=text/html"], 200, ""));
        assert!(!passes(&["header:etag"], 200, ""));
    }

    #[test]
    fn parts_of_json_exist_or_equal_a_value() {
        let body = r#"{"name":"anna","items":[{"id":7},{"id":7}],"none":null,"empty":[]}"#;
        for (check, expected) in [
            ("json:name=anna", true),
            ("json:name=\"anna\"", true),
            ("json:name=bert", false),
            ("json:items.0.id=7", true),
            ("json:/items/1/id=7", true),
            ("json:items.*.id=7", true),
            ("json:items.*.id=8", false),
            ("json:items.2", false),
            ("json:none", true),
            ("json:none=null", true),
            ("json:empty.*", false),
            ("json:items=[{\"id\":7},{\"id\":7}]", true),
        ] {
            assert_eq!(passes(&[check], 200, body), expected, "{check}");
        }
        assert!(!passes(&["json:name"], 200, "not json"));
    }

    #[test]
    fn checks_are_shown_as_they_are_written() {
        for text in ["status=200-299,404", "header:etag", "header:etag=x", "json:items.0.id=7", "json:items"] {
            assert_eq!(text.parse::<Check>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_told_with_what_to_write() {
        for (text, help) in [
            ("latency=5", "status=200-299"),
            ("status=ok", "2xx"),
            ("status=299-200", "200-299"),
            ("status=999", "2xx"),
            ("header:a b=1", "not a header name"),
            ("json:$.items[0]", "items.0"),
        ] {
            let error = text.parse::<Check>().expect_err(text);
            assert!(error.contains(help), "{text}: {error}");
        }
    }

    #[test]
    fn each_failed_check_is_counted() {
        let expectation = expectation(&["header:content-type", "header:etag"]);
        let tally = Tally::of(&expectation);
        let headers: HeaderMap = [("content-type".parse().unwrap(), "x".parse().unwrap())].into_iter().collect();

        assert!(!expectation.judge(&Answer { status: 200, headers: &headers, body: None }, &tally));

        assert_eq!(tally.failed_checks().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn an_answer_after_the_deadline_is_counted_however_it_ended() {
        let mut expectation =
            Expectation { deadline: Some(Duration::ZERO), tolerance: Duration::ZERO, ..Expectation::default() };
        let tally = Tally::default();
        drop(tally.promise(&expectation));
        expectation.deadline = Some(Duration::from_secs(3600));
        drop(tally.promise(&expectation));
        expectation.deadline = None;
        assert!(tally.promise(&expectation).is_none());

        assert_eq!(tally.late().0, 1);
    }
}
