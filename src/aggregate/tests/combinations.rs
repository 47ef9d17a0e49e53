//! Every combination of what up to three sources can do and of what may stand in for them, against an oracle that knows
//! nothing of how it is done.
//!
//! Source `n` ends after 10 + `n` ms, or hangs until its timeout of 1000 + `n` ms, so that the order of all ends is known.

use std::collections::BTreeMap;

use super::*;
use crate::aggregate::script::{End, answer, ms};
use crate::aggregate::testing::{aggregate, source};
use crate::config::model::aggregate::OnError;
use crate::telemetry::{Completeness, Telemetry, catalogue};

const MAX_DEPTH: usize = 8;

/// What a source does.
struct Behaviour {
    name: &'static str,
    end: fn() -> End,
    /// What it should come to.
    status: Option<u16>,
    result: Result<&'static str, Reason>,
}

#[rustfmt::skip]
const BEHAVIOURS: [Behaviour; 10] = [
    Behaviour { name: "ok", end: || End::Answer(answer(200, r#"{"n":1.0}"#)), status: Some(200), result: Ok(r#"{"n":1.0}"#) },
    Behaviour { name: "slow", end: || End::Never, status: None, result: Err(Reason::SourceTimeout) },
    Behaviour { name: "4xx", end: || End::Answer(answer(404, "{}")), status: Some(404), result: Err(Reason::UpstreamStatus) },
    Behaviour { name: "5xx", end: || End::Answer(answer(503, "{}")), status: Some(503), result: Err(Reason::Upstream5xx) },
    Behaviour { name: "reset", end: || End::Fails(Reason::UpstreamReset), status: None, result: Err(Reason::UpstreamReset) },
    Behaviour { name: "bad JSON", end: || End::Answer(answer(200, "{\"n\":")), status: Some(200), result: Err(Reason::UpstreamBadBody) },
    Behaviour { name: "too large", end: || End::Fails(Reason::UpstreamTooLarge), status: None, result: Err(Reason::UpstreamTooLarge) },
    Behaviour { name: "too deep", end: || End::Answer(answer(200, "[[[[[[[[[1]]]]]]]]]")), status: Some(200), result: Err(Reason::UpstreamTooDeep) },
    Behaviour { name: "204", end: || End::Answer(answer(204, "")), status: Some(204), result: Ok("null") },
    Behaviour { name: "empty", end: || End::Answer(answer(200, "")), status: Some(200), result: Err(Reason::UpstreamBadBody) },
];

/// What the configuration says about failures: the same for all sources of a combination.
#[derive(Debug, Clone, Copy, PartialEq)]
enum OnFailure {
    Embed,
    Omit,
    Fail,
    Value,
    Spare,
    /// The other source fails as well.
    BrokenSpare,
}

const ON_FAILURE: [OnFailure; 6] =
    [OnFailure::Embed, OnFailure::Omit, OnFailure::Fail, OnFailure::Value, OnFailure::Spare, OnFailure::BrokenSpare];

impl OnFailure {
    fn setting(self, sources: usize) -> OnError {
        match self {
            OnFailure::Embed => OnError::Embed,
            OnFailure::Omit => OnError::Omit,
            OnFailure::Fail => OnError::Fail,
            OnFailure::Value => OnError::Value("[0]".into()),
            OnFailure::Spare | OnFailure::BrokenSpare => OnError::Source(sources),
        }
    }

    fn has_spare(self) -> bool {
        matches!(self, OnFailure::Spare | OnFailure::BrokenSpare)
    }
}

/// What should come out.
#[derive(Debug, PartialEq)]
struct Expected {
    status: u16,
    reason: Reason,
    completeness: String,
    body: Option<String>,
    took: Duration,
    reasons: Vec<Reason>,
}

#[tokio::test(start_paused = true)]
async fn every_combination_comes_to_what_the_oracle_says() {
    let telemetry = Telemetry::quiet();
    let mut expected_counts = BTreeMap::new();
    let mut checked = 0;
    for count in 1..=3 {
        for number in 0..BEHAVIOURS.len().pow(count) {
            let digit = |place| &BEHAVIOURS[number / BEHAVIOURS.len().pow(place) % BEHAVIOURS.len()];
            let behaviours: Vec<&Behaviour> = (0..count).map(digit).collect();
            for on_failure in ON_FAILURE {
                let names: Vec<&str> = behaviours.iter().map(|behaviour| behaviour.name).collect();
                let expected = oracle(&behaviours, on_failure);
                assert_eq!(actual(&behaviours, on_failure, &telemetry).await, expected, "{names:?} {on_failure:?}");
                count_expected(&expected, &mut expected_counts);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, (10 + 100 + 1000) * ON_FAILURE.len());
    assert_eq!(counted(&telemetry), expected_counts, "the metrics say the same");
}

/// Answers by completeness and failures by reason: what the metrics should have counted.
fn count_expected(expected: &Expected, counts: &mut BTreeMap<String, u64>) {
    let completeness = match expected.reason {
        Reason::Ok => "complete",
        Reason::Partial => "partial",
        _ => "failed",
    };
    *counts.entry(completeness.to_owned()).or_default() += 1;
    for reason in expected.reasons.iter().filter(|reason| !matches!(reason, Reason::Ok | Reason::NotNeeded)) {
        *counts.entry(reason.code().to_owned()).or_default() += 1;
    }
}

/// The same from the exposition, over all routes and sources.
fn counted(telemetry: &Telemetry) -> BTreeMap<String, u64> {
    let (_, text) = telemetry.render("text/plain");
    let mut counts = BTreeMap::new();
    for line in String::from_utf8(text).expect("text").lines() {
        let label = match line.split_once('{') {
            Some((name, _)) if name == catalogue::AGGREGATE_ANSWERS.name => "completeness=\"",
            Some((name, _)) if name == catalogue::SOURCE_FAILURES.name => "reason=\"",
            _ => continue,
        };
        let word = line.split_once(label).and_then(|(_, rest)| rest.split_once('"')).expect("the label is there").0;
        let number: f64 = line.rsplit_once(' ').expect("a value").1.parse().expect("a number");
        if number > 0.0 {
            *counts.entry(word.to_owned()).or_default() += number as u64;
        }
    }
    counts
}

async fn actual(behaviours: &[&Behaviour], on_failure: OnFailure, telemetry: &Telemetry) -> Expected {
    let mut script = Script::default();
    let mut sources = Vec::new();
    for (n, behaviour) in behaviours.iter().enumerate() {
        script = script.ends(&format!("/{n}"), ms(10 + n as u64), (behaviour.end)());
        sources.push(with(source(&format!("s{n}"), &format!("/{n}")), |source| {
            source.timeout = Some(ms(1000 + n as u64));
            source.max_depth = MAX_DEPTH;
            source.on_error = on_failure.setting(behaviours.len());
        }));
    }
    if on_failure.has_spare() {
        sources.push(source("spare", "/spare"));
        let end = if on_failure == OnFailure::Spare {
            End::Answer(answer(200, "7"))
        } else {
            End::Fails(Reason::ConnectFailed)
        };
        script = script.ends("/spare", ms(100), end);
    }
    let aggregate = Aggregate { meta: true, partial_status: 206, ..aggregate(sources) };

    let route = format!("{}-{on_failure:?}", behaviours.len());
    let metrics = telemetry.aggregate(&route, &aggregate);
    let ran = run(aggregate, &script).await;
    metrics.record(&ran.outcomes, ran.took, Completeness::of(ran.merged.reason));

    Expected {
        status: ran.merged.status,
        reason: ran.merged.reason,
        completeness: ran.merged.completeness(),
        body: ran.merged.body.is_some().then(|| ran.body().to_owned()),
        took: ran.took,
        reasons: ran.reasons(),
    }
}

fn oracle(behaviours: &[&Behaviour], on_failure: OnFailure) -> Expected {
    let ends: Vec<u64> =
        behaviours.iter().enumerate().map(|(n, b)| if b.name == "slow" { 1000 } else { 10 } + n as u64).collect();
    let failures = |n: &usize| behaviours[*n].result.is_err();
    let failed: Vec<usize> = (0..behaviours.len()).filter(failures).collect();
    let first_failure = failed.iter().map(|n| ends[*n]).min();
    if on_failure == OnFailure::Fail
        && let Some(end) = first_failure
    {
        return without_answer(behaviours, &ends, end);
    }

    let replaced = matches!(on_failure, OnFailure::Value | OnFailure::Spare);
    let usable = if replaced { behaviours.len() } else { behaviours.len() - failed.len() };
    let mut reasons: Vec<Reason> = behaviours.iter().map(|b| b.result.err().unwrap_or(Reason::Ok)).collect();
    let answered = (usable > 0).then(|| body(behaviours, &ends, on_failure, usable, first_failure));
    let (status, reason) = match usable {
        0 => {
            let reason = reason_of_all(&reasons);
            (reason.status(), reason)
        }
        _ if usable == behaviours.len() => (200, Reason::Ok),
        _ => (206, Reason::Partial),
    };
    if on_failure.has_spare() {
        reasons.push(match (first_failure, on_failure) {
            (None, _) => Reason::NotNeeded,
            (Some(_), OnFailure::Spare) => Reason::Ok,
            (Some(_), _) => Reason::ConnectFailed,
        });
    }
    let spare_end = first_failure.filter(|_| on_failure.has_spare()).map(|end| end + 100);
    Expected {
        status,
        reason,
        completeness: format!("{usable}/{}", behaviours.len()),
        body: answered,
        took: ms(ends.iter().copied().chain(spare_end).max().expect("there is a source")),
        reasons,
    }
}

/// The first failure ended it at `end`: what had not ended then was not needed.
fn without_answer(behaviours: &[&Behaviour], ends: &[u64], end: u64) -> Expected {
    let reason = |n: usize| match behaviours[n].result {
        _ if ends[n] > end => Reason::NotNeeded,
        Ok(_) => Reason::Ok,
        Err(reason) => reason,
    };
    let reasons: Vec<Reason> = (0..behaviours.len()).map(reason).collect();
    let fatal =
        reasons.iter().copied().find(|reason| !matches!(reason, Reason::Ok | Reason::NotNeeded)).expect("one failed");
    let usable = reasons.iter().filter(|reason| **reason == Reason::Ok).count();
    Expected {
        status: fatal.status(),
        reason: fatal,
        completeness: format!("{usable}/{}", behaviours.len()),
        body: None,
        took: ms(end),
        reasons,
    }
}

fn reason_of_all(reasons: &[Reason]) -> Reason {
    match reasons {
        [only] => *only,
        [first, others @ ..] if others.iter().all(|other| other == first) => match first {
            Reason::SourceTimeout => Reason::SourcesTimedOut,
            same => *same,
        },
        _ => Reason::SourcesFailed,
    }
}

fn body(
    behaviours: &[&Behaviour],
    ends: &[u64],
    on_failure: OnFailure,
    usable: usize,
    first_failure: Option<u64>,
) -> String {
    let mut parts = Vec::new();
    let mut meta = Vec::new();
    for (n, behaviour) in behaviours.iter().enumerate() {
        let status = behaviour.status.map_or(String::new(), |status| format!(r#","status":{status}"#));
        let took = ends[n];
        match behaviour.result {
            Ok(value) => {
                parts.push(format!(r#""s{n}":{value}"#));
                meta.push(format!(r#""s{n}":{{"outcome":"ok"{status},"ms":{took},"attempts":1}}"#));
            }
            Err(reason) => {
                let value = match on_failure {
                    OnFailure::Embed => Some(error(&format!("s{n}"), reason)),
                    OnFailure::Omit | OnFailure::Fail => None,
                    OnFailure::Value => Some("[0]".into()),
                    OnFailure::Spare => Some("7".into()),
                    OnFailure::BrokenSpare => Some(error("spare", Reason::ConnectFailed)),
                };
                let (word, fallback) = match on_failure {
                    OnFailure::Value => ("fallback", r#","fallback":{"value":true}"#),
                    OnFailure::Spare => ("fallback", r#","fallback":{"source":"spare"}"#),
                    _ => ("failed", ""),
                };
                parts.extend(value.map(|value| format!(r#""s{n}":{value}"#)));
                meta.push(format!(
                    r#""s{n}":{{"outcome":"{word}"{status},"reason":"{reason}","ms":{took},"attempts":1{fallback}}}"#
                ));
            }
        }
    }
    match (on_failure, first_failure) {
        (OnFailure::Spare, Some(_)) => {
            meta.push(r#""spare":{"outcome":"ok","status":200,"ms":100,"attempts":1}"#.into())
        }
        (OnFailure::BrokenSpare, Some(_)) => {
            meta.push(r#""spare":{"outcome":"failed","reason":"connect_failed","ms":100,"attempts":1}"#.into());
        }
        _ => {}
    }
    let completeness = format!("{usable}/{}", behaviours.len());
    parts.push(format!(r#""_meta":{{"completeness":"{completeness}","sources":{{{}}}}}"#, meta.join(",")));
    format!("{{{}}}", parts.join(","))
}

fn error(name: &str, reason: Reason) -> String {
    format!(r#"{{"error":"{name} failed: {}"}}"#, reason.title().trim_end_matches('.'))
}
