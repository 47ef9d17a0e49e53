//! Gates: what a run must fulfil, written as `p99<250ms`, and whether it did.
//!
//! ```text
//! p50 p90 p99.9 max mean   < TIME    of the response time, or of service:p99, lateness:p99
//! errors timeouts shed ... < SHARE   errors<1%, status_5xx<0.1%; or a number: timeouts=0
//! achieved                 > SHARE   of what was scheduled, what was sent
//! different                < SHARE   of the answers that a replay compared with the recorded ones
//! ```
//!
//! Requests that timed out or were given up are in the distributions with the age at which they were last seen, so
//! what is read from there may be less than the truth. A gate with an upper limit passes only if it would pass however
//! long those requests had really taken; where that is open it fails, and says that the value is "at least" so much.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::censored::{Censored, Reading, Statistic, service_from};
use super::ledger::{Counts, Second};
use super::report::format;
use super::result::{GateRecord, HistogramError, Outcome, RunResult};
use crate::units::parse_duration;

mod parse;

/// A running test is not ended by a gate before this many requests have ended...
const FEWEST_SAMPLES: u64 = 100;
/// ...and before it would have this many beyond the limit if it just met the gate: 10 000 for `p99.9` and
/// `errors<0.1%`. Else one slow request at the start ends a run that is fine.
const FEWEST_BEYOND: f64 = 10.0;

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    text: String,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Time { of: Times, statistic: Statistic, compare: Compare, limit_ns: u64 },
    Count { of: Counted, compare: Compare, limit: Limit },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Response,
    Service,
    Lateness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Sent, but not answered as expected: the four below together.
    Errors,
    HttpErrors,
    ConnectionErrors,
    Timeouts,
    Unfinished,
    Shed,
    Unsent,
    Status(u16),
    /// `status_5xx`.
    StatusClass(u16),
    /// Neither shed nor unsent, of all that were scheduled.
    Achieved,
    /// Of the answers that were compared with recorded ones.
    Different,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    /// 1 % is 0.01.
    Share(f64),
    Number(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

impl Compare {
    fn holds<T: PartialOrd>(self, value: T, limit: T) -> bool {
        match self {
            Compare::Below => value < limit,
            Compare::AtMost => value <= limit,
            Compare::Above => value > limit,
            Compare::AtLeast => value >= limit,
            Compare::Equal => value == limit,
        }
    }

    fn is_upper(self) -> bool {
        matches!(self, Compare::Below | Compare::AtMost | Compare::Equal)
    }
}

/// Why a gate cannot be read: what is wrong, where, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateError {
    text: String,
    /// In bytes, at characters' borders.
    span: Range<usize>,
    problem: String,
    help: String,
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().map(|char| if char.is_control() { '?' } else { char }).collect();
        let before = self.text[..self.span.start].chars().count();
        let width = self.text[self.span.clone()].chars().count().max(1);
        writeln!(f, "gate `{shown}`: {}", self.problem)?;
        writeln!(f, "  {shown}")?;
        write!(f, "  {}{} {}", " ".repeat(before), "^".repeat(width), self.help)
    }
}

impl std::error::Error for GateError {}

impl FromStr for Gate {
    type Err = GateError;

    fn from_str(text: &str) -> Result<Self, GateError> {
        parse::gate(text)
    }
}

/// As it was written.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What gates are judged by: the totals of a run that is over or under way.
pub struct Evidence<'a> {
    counts: Counts,
    statuses: &'a BTreeMap<u16, u64>,
    response: Censored<'a>,
    service: Censored<'a>,
    lateness: Censored<'a>,
    /// Answers that differ from the recorded ones, of those compared.
    different: (u64, u64),
}

impl<'a> Evidence<'a> {
    /// Of a run under way.
    pub fn of_second(total: &'a Second, statuses: &'a BTreeMap<u16, u64>) -> Self {
        let censored = total.counts.censored();
        Self {
            counts: total.counts,
            statuses,
            response: Censored::of_timings(&total.response, censored, total.censored_from),
            service: Censored::of_timings(
                &total.service,
                censored,
                service_from(total.censored_from, total.lateness.max_ns()),
            ),
            lateness: Censored::of_timings(&total.lateness, 0, None),
            different: (0, 0),
        }
    }

    /// Of a result, also one that was read from a file.
    ///
    /// # Errors
    ///
    /// When a histogram in it is damaged.
    pub fn of_result(result: &'a RunResult) -> Result<Self, HistogramError> {
        let totals = &result.totals;
        Ok(Self {
            counts: totals.counts,
            statuses: &totals.statuses,
            response: Censored::response(totals)?,
            service: Censored::service(totals)?,
            lateness: Censored::of_distribution(&totals.lateness, 0, None)?,
            different: result.answers.as_ref().map_or((0, 0), |answers| (answers.different, answers.compared)),
        })
    }

    fn values(&self, of: Times) -> &Censored<'a> {
        match of {
            Times::Response => &self.response,
            Times::Service => &self.service,
            Times::Lateness => &self.lateness,
        }
    }
}

impl Gate {
    /// Whether the gate holds, and what was measured, in words.
    pub fn evaluate(&self, evidence: &Evidence<'_>) -> GateRecord {
        let (passed, measured) = match self.condition {
            Condition::Time { of, statistic, compare, limit_ns } => {
                judge_time(evidence, of, statistic, compare, limit_ns)
            }
            Condition::Count { of, compare, limit } => judge_count(evidence, of, compare, limit),
        };
        GateRecord { gate: self.text.clone(), passed: Some(passed), measured }
    }

    /// Whether a run under way misses this gate so clearly that it need not go on.
    fn ends(&self, evidence: &Evidence<'_>) -> bool {
        self.is_decisive(evidence) && self.evaluate(evidence).passed == Some(false)
    }

    /// Whether there is enough to end a run by. What can never be undone needs no sample size.
    fn is_decisive(&self, evidence: &Evidence<'_>) -> bool {
        let counts = &evidence.counts;
        match self.condition {
            Condition::Time { compare, .. } if !compare.is_upper() => false,
            // Bodies are compared behind the run.
            Condition::Count { of: Counted::Different, .. } => false,
            Condition::Time { of, statistic: Statistic::Quantile(q), .. } => {
                is_enough(evidence.values(of).len(), 1.0 - q)
            }
            Condition::Time { statistic: Statistic::Max, .. } => true,
            Condition::Time { of, statistic: Statistic::Mean, .. } => is_enough(evidence.values(of).len(), 1.0),
            Condition::Count { compare: Compare::Equal, limit, of } => of.count(evidence).0 > limit.floor(of, evidence),
            Condition::Count { of: Counted::Achieved, limit: Limit::Share(share), .. } => {
                is_enough(counts.scheduled, 1.0 - share)
            }
            Condition::Count { compare, limit: Limit::Share(share), .. } => {
                compare.is_upper() && is_enough(counts.ended(), share)
            }
            Condition::Count { compare, limit: Limit::Number(_), .. } => compare.is_upper(),
        }
    }
}

fn is_enough(samples: u64, tolerated: f64) -> bool {
    samples >= FEWEST_SAMPLES && samples as f64 * tolerated >= FEWEST_BEYOND
}

fn judge_time(
    evidence: &Evidence<'_>,
    of: Times,
    statistic: Statistic,
    compare: Compare,
    limit_ns: u64,
) -> (bool, String) {
    let values = evidence.values(of);
    if values.is_empty() {
        return (false, format!("there is no {}: no request was {}", of.noun(), of.condition()));
    }
    let Reading { ns, at_least } = values.read(statistic);
    let met = !compare.is_upper() || values.surely(statistic, |ns| compare.holds(ns, limit_ns), limit_ns);
    let passed = met && compare.holds(ns, limit_ns as f64);
    let name = format!("{statistic} of {}", of.noun());
    if !at_least {
        return (passed, format!("{name} was {}", format::time(ns)));
    }
    let why = format!("{} timed out or unfinished", format::count(values.censored()));
    (passed, format!("{name} was at least {} ({why})", format::time(ns)))
}

fn judge_count(evidence: &Evidence<'_>, of: Counted, compare: Compare, limit: Limit) -> (bool, String) {
    let (count, whole) = of.count(evidence);
    if whole == 0 {
        return (false, format!("no request was {}", of.whole()));
    }
    let passed = match limit {
        // Multiplied, not divided: 1 of 100 is exactly 1 %.
        Limit::Share(share) => compare.holds(count as f64, share * whole as f64),
        Limit::Number(number) => compare.holds(count, number),
    };
    let measured = format!(
        "{of} {} of {} {} ({})",
        format::count(count),
        format::count(whole),
        of.whole(),
        format::percent(count, whole)
    );
    (passed, measured)
}

impl Limit {
    fn floor(self, of: Counted, evidence: &Evidence<'_>) -> u64 {
        match self {
            Limit::Share(share) => (share * of.count(evidence).1 as f64) as u64,
            Limit::Number(number) => number,
        }
    }
}

impl Times {
    fn noun(self) -> &'static str {
        match self {
            Times::Response => "response time",
            Times::Service => "service time",
            Times::Lateness => "lateness",
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Times::Response | Times::Service => "answered",
            Times::Lateness => "sent",
        }
    }
}

impl Counted {
    /// The count and what it is a share of. A share during the run is one of the requests that have ended.
    fn count(self, evidence: &Evidence<'_>) -> (u64, u64) {
        let counts = &evidence.counts;
        let statuses = |range: std::ops::RangeInclusive<u16>| evidence.statuses.range(range).map(|(_, n)| n).sum();
        match self {
            Counted::Errors => (counts.ended() - counts.ok, counts.ended()),
            Counted::HttpErrors => (counts.http_error, counts.ended()),
            Counted::ConnectionErrors => (counts.connection_error, counts.ended()),
            Counted::Timeouts => (counts.timeout, counts.ended()),
            Counted::Unfinished => (counts.unfinished, counts.ended()),
            Counted::Status(status) => (statuses(status..=status), counts.ended()),
            Counted::StatusClass(class) => (statuses(class * 100..=class * 100 + 99), counts.ended()),
            Counted::Shed => (counts.shed, counts.scheduled),
            Counted::Unsent => (counts.unsent, counts.scheduled),
            Counted::Achieved => (counts.scheduled.saturating_sub(counts.shed + counts.unsent), counts.scheduled),
            Counted::Different => evidence.different,
        }
    }

    fn whole(self) -> &'static str {
        match self {
            Counted::Shed | Counted::Unsent | Counted::Achieved => "scheduled",
            Counted::Different => "compared",
            _ => "sent",
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Counted::Status(status) => write!(f, "status {status}:"),
            Counted::StatusClass(class) => write!(f, "status {class}xx:"),
            Counted::Errors => f.write_str("errors:"),
            Counted::HttpErrors => f.write_str("http errors:"),
            Counted::ConnectionErrors => f.write_str("connection errors:"),
            Counted::Timeouts => f.write_str("timeouts:"),
            Counted::Unfinished => f.write_str("unfinished:"),
            Counted::Shed => f.write_str("shed:"),
            Counted::Unsent => f.write_str("unsent:"),
            Counted::Achieved => f.write_str("achieved"),
            Counted::Different => f.write_str("different:"),
        }
    }
}

/// Judges a run that is over, and writes it down there. An interrupted run is not judged: it is not the run that the
/// gates were written for.
///
/// # Errors
///
/// When a histogram of the result is damaged, which one that was just made is not.
pub fn judge(gates: &[Gate], result: &mut RunResult) -> Result<(), HistogramError> {
    result.gates = if result.verdict.outcome == Outcome::Interrupted {
        let measured = "not evaluated: the run was interrupted".to_owned();
        gates
            .iter()
            .map(|gate| GateRecord { gate: gate.text.clone(), passed: None, measured: measured.clone() })
            .collect()
    } else {
        let evidence = Evidence::of_result(result)?;
        gates.iter().map(|gate| gate.evaluate(&evidence)).collect()
    };
    note_missed(result);
    Ok(())
}

/// Writes the missed gates into the verdict.
pub fn note_missed(result: &mut RunResult) {
    let missed = result.gates.iter().filter(|gate| gate.passed == Some(false));
    result.verdict.gates_missed = missed.map(|gate| gate.gate.clone()).collect();
}

/// Whether any gate of a result was missed: exit code 3.
pub fn missed(result: &RunResult) -> bool {
    !result.verdict.gates_missed.is_empty()
}

/// The first gate that a run under way misses, for `--abort-on-fail`. Nothing is said before there are enough samples
/// to tell; what cannot be made good any more (`timeouts=0`, `max<1s`) counts at once.
pub fn abort(gates: &[Gate], evidence: &Evidence<'_>) -> Option<GateRecord> {
    gates.iter().find(|gate| gate.ends(evidence)).map(|gate| gate.evaluate(evidence))
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
