//! `for_each`: one call for each distinct value of a list, so many at once, the results in the list's order.
//!
//! An item that fails is treated by the source's `on_error` in its own place: the error, nothing, or the value. With
//! `fail`, and with another source that stands in for the whole, the first item *of the list* that fails ends it: those
//! before it are waited for, since which one is named must not depend on which was faster.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;

use super::board::Report;
use super::call::{Failed, Fetch};
use super::json::Json;
use super::off_loop::{LARGE, off_loop, size_of};
use super::on_error;
use super::outcome::{Items, Value};
use super::template::{Inputs, Scope};
use super::work::{Job, Run, call};
use crate::config::model::aggregate::{ForEach, OnError, Reference, Source, TooMany};
use crate::telemetry::Reason;

/// Why there is no list to call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoList {
    /// Nothing is where it should be.
    Missing,
    /// Neither an array nor, from the request's head, text.
    NoArray,
    /// So many, and `too_many = "refuse"`.
    TooMany(usize),
}

/// A list, ready to be called for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct List {
    /// Each value once, in the order of its first appearance.
    distinct: Vec<Json>,
    /// For each place of the list: which of them stands there.
    places: Vec<usize>,
    cut: usize,
}

impl List {
    /// `values`: of the sources that have ended, by index.
    pub(super) fn find(for_each: &ForEach, inputs: &Inputs, values: &[Option<Json>]) -> Result<Self, NoList> {
        let found = Scope::new(inputs, values).value(&for_each.list).ok_or(NoList::Missing)?;
        let values = match for_each.list {
            Reference::Parameter(_) | Reference::Query(_) | Reference::Header(_) => {
                found.text().map(|text| parts(&text, for_each.max_items))
            }
            _ => found.first_items(for_each.max_items),
        };
        let (values, total) = values.ok_or(NoList::NoArray)?;
        Self::within(values, total, for_each)
    }

    /// `values`: the first `max_items` of `total`.
    fn within(values: Vec<Json>, total: usize, for_each: &ForEach) -> Result<Self, NoList> {
        let cut = total - values.len();
        if cut > 0 && for_each.too_many == TooMany::Refuse {
            return Err(NoList::TooMany(total));
        }
        let mut list = List { cut, ..List::default() };
        let mut seen = HashMap::new();
        for value in values {
            let next = list.distinct.len();
            let place = *seen.entry(value.clone()).or_insert(next);
            if place == next {
                list.distinct.push(value);
            }
            list.places.push(place);
        }
        Ok(list)
    }
}

/// Values between commas: the first `max` of them, and how many there are.
fn parts(text: &str, max: usize) -> (Vec<Json>, usize) {
    let all = || text.split(',').map(str::trim).filter(|value| !value.is_empty());
    (all().take(max).map(Json::string).collect(), all().count())
}

/// All the calls of a source with a list.
pub(super) async fn call_each<F: Fetch>(run: &Run<'_, F>, job: &Job, for_each: &ForEach) -> Report {
    let list = match find(run, job, for_each).await {
        Ok(list) => list,
        Err(failed) => return Report::new(Err(failed)),
    };
    let reports = call_distinct(run, job, &list.distinct, for_each.concurrency).await;
    let source = run.source(job).clone();
    let placed = list.places.iter().filter_map(|place| reports[*place].as_ref()).map(size).sum::<usize>();
    if let Err(failed) = run.budget.take(beyond_the_calls(placed, &reports)) {
        return Report { attempts: attempts(&reports), ..Report::new(Err(failed)) };
    }
    if placed <= LARGE {
        return assemble(&source, &list, &reports);
    }
    off_loop(move || assemble(&source, &list, &reports)).await.unwrap_or_else(|failed| Report::new(Err(failed)))
}

async fn find<F>(run: &Run<'_, F>, job: &Job, for_each: &ForEach) -> Result<List, Failed> {
    let list = if size_of(run.inputs, &job.known) <= LARGE {
        List::find(for_each, run.inputs, &job.known)
    } else {
        let (for_each, inputs, known) = (for_each.clone(), run.inputs.clone(), job.known.clone());
        off_loop(move || List::find(&for_each, &inputs, &known)).await?
    };
    list.map_err(|no_list| no_list.failed(for_each))
}

impl NoList {
    fn failed(self, for_each: &ForEach) -> Failed {
        let (reason, detail) = match self {
            NoList::Missing => (Reason::MissingValue, "the list is not there".into()),
            NoList::NoArray => (Reason::MissingValue, "the list is no array".into()),
            NoList::TooMany(items) => {
                (Reason::TooManyItems, format!("{items} items, and {} are allowed", for_each.max_items))
            }
        };
        Failed { reason, detail: Some(detail), retry_after: None }
    }
}

/// One report for each value; `None` for those that were not needed any more.
async fn call_distinct<F: Fetch>(
    run: &Run<'_, F>,
    job: &Job,
    values: &[Json],
    concurrency: usize,
) -> Vec<Option<Report>> {
    let stops = stops_at_a_failure(run.source(job));
    let mut reports = Vec::new();
    reports.resize_with(values.len(), || None);
    let mut handles: Vec<AbortHandle> = Vec::new();
    let mut running = FuturesUnordered::new();
    // Values from here on are not called for.
    let mut end = values.len();
    loop {
        while running.len() < concurrency.max(1) && handles.len() < end {
            let (handle, registration) = AbortHandle::new_pair();
            let index = handles.len();
            let item = async move { (index, call(run, job, Some(&values[index])).await) };
            handles.push(handle);
            running.push(Abortable::new(item, registration));
        }
        match running.next().await {
            None => return reports,
            Some(Err(_aborted)) => {}
            Some(Ok((index, report))) => {
                if stops && report.result.is_err() {
                    end = index;
                    handles.iter().skip(index + 1).for_each(AbortHandle::abort);
                }
                reports[index] = Some(report);
            }
        }
    }
}

/// A list of which a part is missing is of no use to this source.
fn stops_at_a_failure(source: &Source) -> bool {
    matches!(source.on_error, OnError::Fail | OnError::Source(_))
}

/// Bytes of the list that no call has paid for. An answer arrives once and is written wherever its value stands in the
/// list, which the client may have filled with one and the same: uncounted, a short request makes gigabytes.
fn beyond_the_calls(placed: usize, reports: &[Option<Report>]) -> u64 {
    let paid: usize = reports.iter().flatten().filter(|report| !report.coalesced).map(size).sum();
    placed.saturating_sub(paid) as u64
}

fn attempts(reports: &[Option<Report>]) -> u32 {
    reports.iter().flatten().map(|report| report.attempts).sum()
}

fn assemble(source: &Source, list: &List, reports: &[Option<Report>]) -> Report {
    let called = || reports.iter().flatten();
    let fails = |place: &usize| reports[*place].as_ref().is_some_and(|report| report.result.is_err());
    let items = Items {
        total: list.places.len(),
        failed: list.places.iter().filter(|place| fails(place)).count(),
        distinct: list.distinct.len(),
        cut: list.cut,
    };
    let failed = match called().find_map(|report| report.result.as_ref().err()) {
        Some(first) if items.failed == items.total || stops_at_a_failure(source) => Some(first.clone()),
        _ => None,
    };
    let placed: Vec<Option<Json>> = reports.iter().map(|report| in_place(source, report.as_ref())).collect();
    let array = Value::Json(Json::array(list.places.iter().filter_map(|place| placed[*place].as_ref())));
    Report {
        attempts: attempts(reports),
        queue: called().map(|report| report.queue).max().unwrap_or_default(),
        coalesced: called().any(|report| report.coalesced),
        items: Some(items),
        in_its_place: failed.is_some().then(|| array.clone()),
        ..Report::new(failed.map_or(Ok(array), Err))
    }
}

fn in_place(source: &Source, report: Option<&Report>) -> Option<Json> {
    match &report?.result {
        Ok(Value::Json(value)) => Some(value.clone()),
        // `raw` is for an aggregate with a single answer.
        Ok(Value::Raw { .. } | Value::Absent) => None,
        Err(failed) => on_error::item(source, failed.reason),
    }
}

fn size(report: &Report) -> usize {
    match &report.result {
        Ok(Value::Json(value)) => value.as_bytes().len(),
        _ => 0,
    }
}
