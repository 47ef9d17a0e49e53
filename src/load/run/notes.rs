//! What a run showed beyond its numbers: checks that failed, and promises of the configuration that were not kept.

use super::job::Job;
use crate::load::checks::{Expectation, Tally};
use crate::load::client::Blueprint;
use crate::load::ledger::Counts;
use crate::load::report::format;
use crate::load::result::RunResult;
use crate::load::targets::Target;
use crate::units::show_duration;

/// A recording may hold a hundred thousand different requests.
const MOST_NOTES: usize = 50;

pub fn of(job: &Job, blueprint: &Blueprint, result: &RunResult) -> Vec<String> {
    let mut notes = Vec::new();
    let mut more = 0;
    for (target, (expectation, tally)) in job.targets.iter().zip(blueprint.tallies()) {
        let of_target = broken_promise(target, expectation, tally).into_iter();
        let of_target: Vec<String> = of_target.chain(failed_checks(target, expectation, tally)).collect();
        more += of_target.len();
        notes.extend(of_target);
        notes.truncate(MOST_NOTES);
    }
    more -= notes.len();
    if more > 0 {
        notes.push(format!("{more} more remarks of this kind"));
    }
    let refused = result.totals.statuses.get(&429).copied().unwrap_or_default();
    if refused > 0 {
        notes.push(format!("429: the target's rate limit refused {}", format::many(refused, "request")));
    }
    // First: nothing else matters then.
    notes.splice(0..0, nothing_succeeded(&result.totals.counts));
    notes
}

/// Gates or not, whoever mistyped the path should not read on as if this were a measurement.
fn nothing_succeeded(counts: &Counts) -> Option<String> {
    // Whoever interrupts twice waits for no answer.
    (counts.sent > counts.unfinished && counts.ok == 0).then(|| {
        "no request succeeded: look at the URL and the target first; `--fail 'errors<1%'` makes this exit code 3".into()
    })
}

fn broken_promise(target: &Target, expectation: &Expectation, tally: &Tally) -> Option<String> {
    let (late, latest) = tally.late();
    let deadline = expectation.deadline.filter(|_| late > 0)?;
    Some(format!(
        "BROKEN PROMISE: {} took longer than its deadline of {} (and {} of tolerance) {}, at worst {}",
        target.name,
        show_duration(deadline),
        show_duration(expectation.tolerance),
        format::many(late, "time"),
        format::time(latest.as_nanos() as f64),
    ))
}

fn failed_checks<'a>(
    target: &'a Target,
    expectation: &'a Expectation,
    tally: &'a Tally,
) -> impl Iterator<Item = String> + 'a {
    let counted = expectation.checks.iter().zip(tally.failed_checks()).filter(|(_, failed)| *failed > 0);
    counted.map(|(check, failed)| {
        format!("the check {check} failed for {} of {}", format::many(failed, "answer"), target.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_any_success_is_named() {
        let counts = |sent, ok| Counts { sent, ok, ..Counts::default() };

        assert!(nothing_succeeded(&counts(5, 0)).is_some_and(|note| note.contains("no request succeeded")));
        assert_eq!(nothing_succeeded(&counts(5, 1)), None);
        assert_eq!(nothing_succeeded(&counts(0, 0)), None);
        assert_eq!(nothing_succeeded(&Counts { unfinished: 5, ..counts(5, 0) }), None);
    }
}
