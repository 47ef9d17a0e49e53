//! The work of one source: one call, or one for each item of its list.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::board::Report;
use super::call::{Call, Failed, Fetch};
use super::calls::{Budget, Calls, Sharing, panicked};
use super::interpret::interpret;
use super::json::Json;
use super::limit::Limit;
use super::list;
use super::off_loop::{LARGE, off_loop, size_of};
use super::outcome::Value;
use super::plan::Plan;
use super::template::{Inputs, MissingValue, Scope, build_call};
use crate::config::model::aggregate::Source;
use crate::telemetry::Reason;

/// What all sources of one request work with.
pub(super) struct Run<'a, F> {
    pub plan: &'a Plan,
    pub inputs: &'a Inputs,
    pub calls: Calls<'a, F>,
    pub budget: &'a Budget,
}

/// What one of them has to itself.
pub(super) struct Job {
    pub source: usize,
    pub limit: Limit,
    /// Values of the sources that its templates mention, by index; as long as it must be for that.
    pub known: Vec<Option<Json>>,
    /// `None`: no other can make the same call.
    pub sharing: Option<Sharing>,
}

impl<F> Run<'_, F> {
    pub(super) fn source(&self, job: &Job) -> &Arc<Source> {
        &self.plan.aggregate().sources[job.source]
    }
}

/// Does all of it. A panic is this source's failure alone.
pub(super) async fn work<F: Fetch>(run: &Run<'_, F>, job: Job) -> (usize, Report) {
    let work = async {
        match &run.source(&job).for_each {
            None => call(run, &job, None).await,
            Some(for_each) => list::call_each(run, &job, for_each).await,
        }
    };
    let report = AssertUnwindSafe(work).catch_unwind().await;
    (job.source, report.unwrap_or_else(|panic| Report::new(Err(panicked(&*panic)))))
}

/// One call, from its template to the value of its answer.
pub(super) async fn call<F: Fetch>(run: &Run<'_, F>, job: &Job, item: Option<&Json>) -> Report {
    let mut report = Report::new(Err(job.limit.missed()));
    if job.limit.has_passed(Instant::now()) {
        return report;
    }
    // What is known of the call stays known when it is cut short.
    let work = AssertUnwindSafe(answer(run, job, item, &mut report)).catch_unwind();
    let work = work.map(|done| done.unwrap_or_else(|panic| Err(panicked(&*panic))));
    let result = job.limit.bound(work).await;
    report.result = result;
    report
}

async fn answer<F: Fetch>(
    run: &Run<'_, F>,
    job: &Job,
    item: Option<&Json>,
    report: &mut Report,
) -> Result<Value, Failed> {
    let source = run.source(job);
    let call = prepare(run, job, item).await?;
    report.attempts = 1;
    let (called, coalesced) = run.calls.send(call, job.limit.at(), job.sharing).await;
    report.attempts = called.attempts;
    report.queue = called.queue;
    report.coalesced = coalesced;
    let answer = called.result?;
    report.status = Some(answer.status);
    let read = interpret(source, answer).await?;
    run.budget.take(read.decoded)?;
    Ok(read.value)
}

async fn prepare<F>(run: &Run<'_, F>, job: &Job, item: Option<&Json>) -> Result<Call, Failed> {
    let call = if size_of(run.inputs, &job.known) <= LARGE {
        build_call(run.plan.aggregate(), job.source, &Scope { item, ..Scope::new(run.inputs, &job.known) })
    } else {
        let (aggregate, inputs) = (run.plan.aggregate().clone(), run.inputs.clone());
        let (source, known, item) = (job.source, job.known.clone(), item.cloned());
        let scoped =
            move || build_call(&aggregate, source, &Scope { item: item.as_ref(), ..Scope::new(&inputs, &known) });
        off_loop(scoped).await?
    };
    call.map_err(unprepared)
}

fn unprepared(missing: MissingValue) -> Failed {
    let reason = if missing.from_client { Reason::BadRequest } else { Reason::MissingValue };
    Failed { reason, detail: Some(missing.to_string()), retry_after: None }
}
