//! Calls the sources of an aggregate, each as soon as it may, and says what became of them.
//!
//! All of it runs on the caller's task: dropping the future cancels every call that is in flight. [`Board`] decides,
//! [`work`] does what one source does; here is only the waiting between them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::board::{Board, Report};
use super::call::{Failed, Fetch};
use super::calls::{Budget, Calls, Sharing};
use super::merge::{Merged, merge, part};
use super::off_loop::{LARGE, off_loop, size_of};
use super::outcome::{Outcome, Value};
use super::plan::{Plan, Refusal, check_all};
use super::template::Inputs;
use super::work::{Job, Run, work};

type Running<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = (usize, Report)> + Send + 'a>>>;

/// One outcome for each source, in the order of the file. `on_end` is told of each as it ends; not of standby sources that
/// were never called.
///
/// Nothing is begun after `deadline`, and nothing goes on beyond it.
pub async fn execute<F: Fetch>(
    plan: &Plan,
    inputs: &Inputs,
    fetch: &F,
    deadline: Option<Instant>,
    mut on_end: impl FnMut(&Outcome),
) -> Result<Vec<Outcome>, Refusal> {
    check(plan, inputs).await?;
    let budget = Budget::new(plan.aggregate().max_bytes);
    let run = Run { plan, inputs, calls: Calls::new(fetch, &budget), budget: &budget };
    let mut board = Board::new(plan, Instant::now(), deadline);
    let mut running = Running::new();
    while !board.is_over() {
        begin(&run, &mut board, &running);
        board.tell(&mut on_end);
        match running.next().await {
            Some((source, report)) => board.end(source, report, Instant::now()),
            None if board.is_over() => {}
            None => board.end_the_stuck(Instant::now()),
        }
    }
    // Cancels what is still in flight, before anybody is told that it was not needed.
    drop(running);
    board.close(Instant::now());
    board.tell(&mut on_end);
    Ok(board.into_outcomes())
}

/// [`Plan::check`], off the event loop when the request is large.
pub async fn check(plan: &Plan, inputs: &Inputs) -> Result<(), Refusal> {
    if size_of(inputs, &[]) <= LARGE {
        return plan.check(inputs);
    }
    let (aggregate, asking, inputs) = (plan.aggregate().clone(), plan.asking().clone(), inputs.clone());
    let checked = off_loop(move || check_all(&aggregate, &asking, &inputs)).await;
    checked.unwrap_or_else(|failed| Err(failed.into()))
}

fn begin<'a, F: Fetch>(run: &'a Run<'a, F>, board: &mut Board<'_>, running: &Running<'a>) {
    let starts = board.begin(Instant::now());
    if starts.is_empty() {
        return;
    }
    let latest = board.latest_ends();
    for start in starts {
        let sharing = run.plan.groups()[start.source].map(|group| Sharing { group, until: latest[group] });
        let job = Job { source: start.source, limit: start.limit, known: start.known, sharing };
        running.push(Box::pin(work(run, job)));
    }
}

/// Makes the answer, off the event loop when the parts are large. Gives the outcomes back, for the log.
pub async fn merge_off_loop(plan: &Plan, inputs: &Inputs, outcomes: Vec<Outcome>) -> (Vec<Outcome>, Merged) {
    if outcomes.iter().map(size).sum::<usize>() + size_of(inputs, &[]) <= LARGE {
        let merged = merge(plan.aggregate(), inputs, &outcomes);
        return (outcomes, merged);
    }
    let (aggregate, inputs, outcomes) = (plan.aggregate().clone(), inputs.clone(), Arc::new(outcomes));
    let shared = outcomes.clone();
    let merged = off_loop(move || merge(&aggregate, &inputs, &shared)).await.unwrap_or_else(no_answer);
    // The other owner is gone with the work.
    (Arc::unwrap_or_clone(outcomes), merged)
}

/// One source's line in a stream, off the event loop when its value is large. `None` after a panic; the summary still says
/// what became of the source.
pub async fn part_off_loop(plan: &Plan, outcome: Outcome) -> Option<Bytes> {
    if size(&outcome) <= LARGE {
        return Some(part(plan.aggregate(), &outcome));
    }
    let aggregate = plan.aggregate().clone();
    off_loop(move || part(&aggregate, &outcome)).await.ok()
}

fn no_answer(failed: Failed) -> Merged {
    Merged {
        status: failed.reason.status(),
        reason: failed.reason,
        content_type: "application/json".into(),
        body: None,
        usable: 0,
        asked: 0,
        truncated: Vec::new(),
        retry_after: failed.retry_after,
        failed_source: None,
        detail: failed.detail,
    }
}

fn size(outcome: &Outcome) -> usize {
    match &outcome.value {
        Value::Json(json) => json.as_bytes().len(),
        Value::Raw { .. } | Value::Absent => 0,
    }
}
