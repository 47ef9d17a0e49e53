//! Reasons to doubt that two sides can be compared: whatever differs between them besides what was to be compared.
//!
//! Nothing here stops a comparison: comparing two hosts is fine if that was the question. But nobody should find out
//! afterwards that one run was sent at twice the rate.

use serde::{Deserialize, Serialize};

use crate::load::result::{Outcome, RunResult};

use super::Input;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A run is void: its numbers mean nothing, nor do differences to them.
    Void,
    Interrupted,
    /// The same run is on both sides, or twice on one.
    SameRun,
    /// Two runs took place at the same time and were in each other's way.
    Overlap,
    Arrivals,
    Length,
    Targets,
    Limits,
    Environment,
    Version,
    /// The offered rate changes within a run.
    Unsteady,
    GeneratorStalls,
    /// One run each: whether another run of the same would differ is unknown.
    SingleRuns,
}

pub fn warnings(before: &[Input], after: &[Input]) -> Vec<Warning> {
    let all: Vec<&Input> = before.iter().chain(after).collect();
    let mut found: Vec<Warning> = all.iter().flat_map(|input| of_run(input)).collect();
    found.extend(same_run(&all));
    found.extend(overlap(&all));
    found.extend(differences(&all));
    if before.len() == 1 && after.len() == 1 {
        found.push(Warning {
            kind: Kind::SingleRuns,
            text: "one run on each side: how much two runs of the same would differ is not in the intervals; \
                   with several runs on each side, it is"
                .into(),
        });
    }
    found
}

fn of_run(input: &Input) -> Vec<Warning> {
    let Input { name, result } = input;
    let mut found = Vec::new();
    match result.verdict.outcome {
        Outcome::Complete => {}
        Outcome::Void => {
            let reasons: Vec<&str> = result.verdict.reasons.iter().map(|reason| reason.text.as_str()).collect();
            found.push(Warning { kind: Kind::Void, text: format!("{name} is void: {}", reasons.join("; ")) });
        }
        Outcome::Interrupted => {
            let (ran, planned) = (result.plan.ran_s, result.plan.duration_s);
            let text = format!("{name} was interrupted after {ran:.0} s of {planned:.0} s");
            found.push(Warning { kind: Kind::Interrupted, text });
        }
    }
    if !result.generator.stalls.is_empty() {
        let (count, longest) = (result.generator.stalls.len(), longest_stall(result));
        let text = format!("{name}: stalls of the generator itself: {count}, the longest {longest:.3} s");
        found.push(Warning { kind: Kind::GeneratorStalls, text });
    }
    if let Some((first, second)) = unsteady(result) {
        let text = format!(
            "{name}: {first:.0}/s in the first half and {second:.0}/s in the second; intervals assume a steady run"
        );
        found.push(Warning { kind: Kind::Unsteady, text });
    }
    found
}

fn longest_stall(result: &RunResult) -> f64 {
    result.generator.stalls.iter().map(|stall| stall.length_s).fold(0.0, f64::max)
}

/// The rates of both halves, if they differ by more than chance would have it (five standard deviations of Poisson
/// arrivals) and by more than 10 %.
fn unsteady(result: &RunResult) -> Option<(f64, f64)> {
    let scheduled: Vec<f64> = result
        .seconds
        .iter()
        .filter(|record| !record.warm_up && f64::from(record.second) < result.plan.ran_s.floor())
        .map(|record| record.counts.scheduled as f64)
        .collect();
    let half = scheduled.len() / 2;
    if half < 3 {
        return None;
    }
    let (first, second): (f64, f64) =
        (scheduled[..half].iter().sum(), scheduled[scheduled.len() - half..].iter().sum());
    let difference = (first - second).abs();
    let matters = difference > 5.0 * (first + second).sqrt() && difference > 0.1 * first.max(second);
    matters.then_some((first / half as f64, second / half as f64))
}

fn same_run(all: &[&Input]) -> Option<Warning> {
    pairs(all).find(|(one, other)| one.result == other.result).map(|(one, other)| Warning {
        kind: Kind::SameRun,
        text: format!("{} and {} are the same run: evidence is counted twice", one.name, other.name),
    })
}

fn overlap(all: &[&Input]) -> Option<Warning> {
    // A run that was through early makes room for the next one then, not at its planned end.
    let took = |input: &Input| input.result.plan.took_s.unwrap_or(input.result.plan.ran_s);
    let end = |input: &Input| input.result.started_unix + took(input);
    let at_once = |one: &Input, other: &Input| {
        one.result.started_unix < end(other) && other.result.started_unix < end(one) && one.result != other.result
    };
    pairs(all).find(|(one, other)| at_once(one, other)).map(|(one, other)| Warning {
        kind: Kind::Overlap,
        text: format!("{} and {} ran at the same time, so each may have slowed down the other", one.name, other.name),
    })
}

fn pairs<'a>(all: &'a [&'a Input]) -> impl Iterator<Item = (&'a Input, &'a Input)> {
    all.iter().enumerate().flat_map(move |(at, one)| all[at + 1..].iter().map(move |other| (*one, *other)))
}

/// A property that all runs should share, as people read it.
type Property = (Kind, &'static str, fn(&RunResult) -> String);

const PROPERTIES: [Property; 9] = [
    (Kind::Arrivals, "model", |result| result.plan.model.clone()),
    (Kind::Arrivals, "arrivals", |result| result.plan.arrivals.clone()),
    (Kind::Length, "length", |result| {
        format!("{:.0} s with {} s of warm-up", result.plan.duration_s, result.plan.warm_up_s)
    }),
    (Kind::Targets, "targets", targets),
    (Kind::Limits, "timeout", |result| format!("{} s", result.plan.timeout_s)),
    (Kind::Limits, "cap", |result| {
        let deadline = result.plan.deadline_s.map_or("none".into(), |seconds| format!("{seconds} s"));
        format!("{} in flight, deadline {deadline}", result.plan.in_flight_cap)
    }),
    (Kind::Environment, "host", |result| {
        let environment = &result.environment;
        format!("{}, {} x {}, {}", environment.host, environment.cpus, environment.cpu, environment.kernel)
    }),
    (Kind::Environment, "load of the host before", |result| load_class(result).into()),
    (Kind::Version, "version of the generator", |result| result.version.clone()),
];

fn targets(result: &RunResult) -> String {
    let mut names: Vec<&str> = result.targets.iter().map(|target| target.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// Coarse, since it never is exactly the same.
fn load_class(result: &RunResult) -> &'static str {
    let environment = &result.environment;
    match environment.load_average / environment.cpus.max(1) as f64 {
        idle if idle < 0.5 => "mostly idle",
        busy if busy < 1.0 => "busy",
        _ => "more work than CPUs",
    }
}

/// Each property with the first run that differs from the first of all.
fn differences(all: &[&Input]) -> Vec<Warning> {
    let Some((first, others)) = all.split_first() else { return Vec::new() };
    let differs = |(kind, what, read): &Property| {
        let expected = read(&first.result);
        let other = others.iter().find(|other| read(&other.result) != expected)?;
        let text = format!("other {what}: {expected} in {}, {} in {}", first.name, read(&other.result), other.name);
        Some(Warning { kind: *kind, text })
    };
    PROPERTIES.iter().filter_map(differs).collect()
}

#[cfg(test)]
#[path = "comparable_tests.rs"]
mod tests;
