//! Who may begin, who has ended, and whether it is enough: the order of an aggregate without its waiting.
//!
//! `execute` asks what to begin, waits, and tells what came of it. Everything that decides is here, on plain data.
//!
//! A source begins when it is *wanted* and all sources that it takes values from have ended (Kahn's algorithm: a count of
//! those still open, taken down at each end). Wanted are, from the beginning, all sources but the standby ones; under
//! [`Strategy::Fallback`] only the first, then each next one when the one before was of no use. A standby source is
//! wanted once a source fails that names it in its `on_error`; that one ends together with it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Failed;
use super::json::Json;
use super::limit::{Limit, later};
use super::on_error;
use super::outcome::{Ending, Fallback, Items, Outcome, Value};
use super::plan::Plan;
use crate::config::model::aggregate::{OnError, Source, Strategy};
use crate::telemetry::Reason;

/// What a source's own work came to, before its `on_error`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    pub result: Result<Value, Failed>,
    /// What stands in the body where `result` is a failure that a list already put into words, item by item.
    pub in_its_place: Option<Value>,
    pub status: Option<u16>,
    pub attempts: u32,
    pub queue: Duration,
    pub coalesced: bool,
    pub items: Option<Items>,
}

impl Report {
    pub(super) fn new(result: Result<Value, Failed>) -> Self {
        Self {
            result,
            in_its_place: None,
            status: None,
            attempts: 0,
            queue: Duration::ZERO,
            coalesced: false,
            items: None,
        }
    }
}

/// A source that begins now.
pub(super) struct Start {
    pub source: usize,
    pub limit: Limit,
    /// Values of the sources that it takes some from, by index.
    pub known: Vec<Option<Json>>,
}

pub(super) struct Board<'a> {
    plan: &'a Plan,
    begun: Instant,
    deadline: Option<Instant>,
    seats: Vec<Seat>,
    /// Wanted, and nothing left to wait for.
    ready: VecDeque<usize>,
    /// Ended, and not yet told.
    news: VecDeque<usize>,
    /// Sources other than standby ones that may still become usable.
    open: usize,
    usable: usize,
    enough: bool,
}

struct Seat {
    state: State,
    wanted: bool,
    /// Sources it takes values from that have not ended.
    waits_for: usize,
    /// Sources that failed and end when this one does.
    stood_in_for: Vec<usize>,
}

enum State {
    Idle,
    Running(Instant, Limit),
    /// Failed; another source's answer may take its place.
    Replaced(Outcome),
    Ended(Outcome),
}

impl<'a> Board<'a> {
    pub(super) fn new(plan: &'a Plan, begun: Instant, deadline: Option<Instant>) -> Self {
        let sources = &plan.aggregate().sources;
        let seat = |source: &Source| Seat {
            state: State::Idle,
            wanted: false,
            waits_for: source.after.len(),
            stood_in_for: Vec::new(),
        };
        let mut board = Self {
            plan,
            begun,
            deadline,
            seats: sources.iter().map(|source| seat(source)).collect(),
            ready: VecDeque::new(),
            news: VecDeque::new(),
            open: sources.iter().filter(|source| !source.standby).count(),
            usable: 0,
            enough: false,
        };
        board.want_the_first();
        board
    }

    /// Nothing more is needed, or it cannot be had any more.
    pub(super) fn is_over(&self) -> bool {
        self.enough || self.open == 0
    }

    /// Takes what can begin now. What needs a source that failed ends here.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<Start> {
        let mut starts = Vec::new();
        while !self.is_over()
            && let Some(source) = self.ready.pop_front()
        {
            let limit = Limit::new(now, self.source(source).timeout, self.deadline);
            self.seats[source].state = State::Running(now, limit);
            match self.known(source) {
                Ok(known) => starts.push(Start { source, limit, known }),
                Err(needed) => self.end(source, Report::new(Err(self.dependency_failed(needed))), now),
            }
        }
        if self.is_over() {
            // Nobody will begin these: one that could not be had was indispensable.
            for start in starts.drain(..) {
                self.seats[start.source].state = State::Idle;
            }
        }
        starts
    }

    /// For each group of sources whose calls may be identical: when the last of them that has not ended must have.
    pub(super) fn latest_ends(&self) -> Vec<Option<Instant>> {
        let mut latest = vec![Some(self.begun); self.plan.group_count()];
        for (seat, group) in self.seats.iter().zip(self.plan.groups()) {
            let (Some(group), Some(at)) = (*group, self.may_last_until(seat)) else { continue };
            latest[group] = later(latest[group], at);
        }
        latest
    }

    /// A running source has ended.
    pub(super) fn end(&mut self, source: usize, report: Report, now: Instant) {
        let outcome = self.outcome(source, report, now);
        match self.source(source).on_error {
            OnError::Source(stand_in) if outcome.ending == Ending::Failed => self.replace(source, outcome, stand_in),
            _ => self.settle(source, outcome),
        }
    }

    /// Nothing runs and nothing can begin: what still waits does so for a standby source that nobody needed, or for one
    /// that waits for it. Such a value will never be there.
    pub(super) fn end_the_stuck(&mut self, now: Instant) {
        let stuck = self.seats.iter().position(|seat| seat.wanted && matches!(seat.state, State::Idle));
        let source = stuck.expect("sources are open, and none of them runs");
        let needed = self.source(source).after.iter().copied().find(|needed| self.ended(*needed).is_none());
        let failed = self.dependency_failed(needed.unwrap_or(source));
        self.seats[source].state = State::Running(now, Limit::new(now, None, self.deadline));
        self.end(source, Report::new(Err(failed)), now);
    }

    /// Ends what is left: others were enough, or one failed without which there is no answer. What failed stays failed.
    pub(super) fn close(&mut self, now: Instant) {
        for source in 0..self.seats.len() {
            let began = match std::mem::replace(&mut self.seats[source].state, State::Idle) {
                State::Ended(outcome) => {
                    self.seats[source].state = State::Ended(outcome);
                    continue;
                }
                State::Replaced(outcome) => {
                    self.finish(source, outcome);
                    continue;
                }
                State::Running(began, _) => Some(began),
                State::Idle => None,
            };
            let never_asked = began.is_none() && self.source(source).standby;
            self.finish(source, self.not_needed(source, began, now));
            if never_asked {
                self.news.pop_back();
            }
        }
    }

    /// Outcomes that nobody was told of yet, in the order of their ends.
    pub(super) fn tell(&mut self, mut on_end: impl FnMut(&Outcome)) {
        while let Some(source) = self.news.pop_front() {
            if let Some(outcome) = self.ended(source) {
                on_end(outcome);
            }
        }
    }

    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        let outcome = |seat: Seat| match seat.state {
            State::Ended(outcome) => outcome,
            _ => unreachable!("the board was closed"),
        };
        self.seats.into_iter().map(outcome).collect()
    }

    fn want_the_first(&mut self) {
        if self.plan.aggregate().strategy == Strategy::Fallback {
            return self.want_the_next();
        }
        for source in 0..self.seats.len() {
            if !self.source(source).standby {
                self.want(source);
            }
        }
    }

    /// Under [`Strategy::Fallback`].
    fn want_the_next(&mut self) {
        let next = (0..self.seats.len()).find(|next| !self.seats[*next].wanted && !self.source(*next).standby);
        if let Some(next) = next {
            self.want(next);
        }
    }

    fn want(&mut self, source: usize) {
        let seat = &mut self.seats[source];
        if !seat.wanted {
            seat.wanted = true;
            if seat.waits_for == 0 {
                self.ready.push_back(source);
            }
        }
    }

    /// The source failed: `stand_in` is asked, and both end together.
    fn replace(&mut self, source: usize, outcome: Outcome, stand_in: usize) {
        self.seats[source].state = State::Replaced(outcome);
        if let Some(instead) = self.ended(stand_in).map(Replacement::of) {
            return self.settle_replaced(source, instead);
        }
        self.seats[stand_in].stood_in_for.push(source);
        self.want(stand_in);
    }

    fn settle_replaced(&mut self, source: usize, instead: Replacement) {
        match std::mem::replace(&mut self.seats[source].state, State::Idle) {
            State::Replaced(mut outcome) => {
                outcome.value = instead.value;
                if instead.is_usable {
                    outcome.ending = Ending::Fallback(Fallback::Source(instead.source));
                }
                self.settle(source, outcome);
            }
            other => self.seats[source].state = other,
        }
    }

    /// The source has ended for good: tells those that wait for it, and counts.
    fn settle(&mut self, source: usize, outcome: Outcome) {
        let usable = outcome.ending.is_usable();
        self.finish(source, outcome);
        for dependent in self.plan.dependents(source) {
            let seat = &mut self.seats[*dependent];
            seat.waits_for -= 1;
            if seat.wanted && seat.waits_for == 0 && matches!(seat.state, State::Idle) {
                self.ready.push_back(*dependent);
            }
        }
        for replaced in std::mem::take(&mut self.seats[source].stood_in_for) {
            if let Some(instead) = self.ended(source).map(Replacement::of) {
                self.settle_replaced(replaced, instead);
            }
        }
        self.count(source, usable);
    }

    fn finish(&mut self, source: usize, outcome: Outcome) {
        self.seats[source].state = State::Ended(outcome);
        self.news.push_back(source);
    }

    fn count(&mut self, source: usize, usable: bool) {
        let settings = self.source(source);
        let indispensable = settings.required || settings.on_error == OnError::Fail;
        self.enough |= indispensable && !usable;
        if settings.standby {
            return;
        }
        self.open -= 1;
        self.usable += usize::from(usable);
        match self.plan.aggregate().strategy {
            Strategy::All => {}
            Strategy::First => self.enough |= usable,
            Strategy::Quorum(n) => self.enough |= self.usable >= n || self.usable + self.open < n,
            Strategy::Fallback if usable => self.enough = true,
            Strategy::Fallback => self.want_the_next(),
        }
    }

    fn outcome(&self, source: usize, report: Report, now: Instant) -> Outcome {
        let State::Running(began, _) = self.seats[source].state else { unreachable!("only a running source ends") };
        let (ending, reason, value, failed) = match report.result {
            Ok(value) if report.items.is_some_and(|items| items.failed > 0) => {
                (Ending::Partial, Reason::Partial, value, None)
            }
            Ok(value) => (Ending::Ok, Reason::Ok, value, None),
            Err(failed) => {
                let (ending, value) = on_error::place(self.source(source), failed.reason, report.in_its_place);
                (ending, failed.reason, value, Some(failed))
            }
        };
        let (detail, retry_after) = failed.map_or((None, None), |failed| (failed.detail, failed.retry_after));
        Outcome {
            source,
            ending,
            reason,
            detail,
            status: report.status,
            attempts: report.attempts,
            begun: began - self.begun,
            took: now - began,
            queue: report.queue,
            coalesced: report.coalesced,
            items: report.items,
            retry_after,
            value,
        }
    }

    fn not_needed(&self, source: usize, began: Option<Instant>, now: Instant) -> Outcome {
        Outcome {
            source,
            ending: Ending::NotNeeded,
            reason: Reason::NotNeeded,
            detail: None,
            status: None,
            attempts: u32::from(began.is_some()),
            begun: began.map_or(Duration::ZERO, |began| began - self.begun),
            took: began.map_or(Duration::ZERO, |began| now - began),
            queue: Duration::ZERO,
            coalesced: false,
            items: None,
            retry_after: None,
            value: Value::Absent,
        }
    }

    /// The values that a source needs, or the source that has none for it.
    fn known(&self, source: usize) -> Result<Vec<Option<Json>>, usize> {
        let needed = &self.source(source).after;
        let mut known = vec![None; needed.iter().max().map_or(0, |last| last + 1)];
        for needed in needed {
            let outcome = self.ended(*needed).filter(|outcome| outcome.ending.is_usable()).ok_or(*needed)?;
            if let Value::Json(json) = &outcome.value {
                known[*needed] = Some(json.clone());
            }
        }
        Ok(known)
    }

    fn dependency_failed(&self, needed: usize) -> Failed {
        let detail = format!("source `{}` has no value", self.source(needed).name);
        Failed { reason: Reason::DependencyFailed, detail: Some(detail), retry_after: None }
    }

    /// `None`: its call has ended. `Some(None)`: nothing bounds it.
    fn may_last_until(&self, seat: &Seat) -> Option<Option<Instant>> {
        match &seat.state {
            State::Idle => Some(self.deadline),
            State::Running(_, limit) => Some(limit.at()),
            State::Replaced(_) | State::Ended(_) => None,
        }
    }

    fn ended(&self, source: usize) -> Option<&Outcome> {
        match &self.seats[source].state {
            State::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    fn source(&self, source: usize) -> &'a Source {
        &self.plan.aggregate().sources[source]
    }
}

/// What a source that stands in for others gives them.
struct Replacement {
    source: usize,
    is_usable: bool,
    /// Also of one that failed: what became of it counts, so its error stands in the place of both.
    value: Value,
}

impl Replacement {
    fn of(outcome: &Outcome) -> Self {
        Self { source: outcome.source, is_usable: outcome.ending.is_usable(), value: outcome.value.clone() }
    }
}
