//! Times and sizes of an aggregate against the deadline, the upstreams' limits and the memory.

use std::time::Duration;

use super::super::decode::Decoder;
use super::super::diagnostic::{Code, Problem};
use super::super::elements::Root;
use super::check::Checked;
use super::memory;
use crate::units::{show_duration, show_size};

/// Above this, somebody should have meant it.
const MUCH_MEMORY: u64 = 1 << 30;

impl Checked<'_> {
    /// A timeout that the deadline always comes before, and ways through the graph that do not fit into it.
    pub(super) fn times(&self, cx: &mut Decoder<'_>) {
        let Some(deadline) = self.route.value.deadline.copied().and_then(|deadline| deadline.after()) else { return };
        let mut never = false;
        for source in self.aggregate.sources() {
            let Some((timeout, span)) = source.value.timeout.written().filter(|(time, _)| **time >= deadline) else {
                continue;
            };
            never = true;
            let message = format!(
                "the `timeout` of source `{}` can never fire: {} is not below the deadline of route `{}`, {}",
                source.name,
                show_duration(*timeout),
                self.route.name,
                show_duration(deadline)
            );
            let problem = Problem::error(Code::NeverFires, span, message)
                .related(self.route.value.deadline.span(), "the deadline");
            cx.report(
                problem.help(format!("make it shorter than {}, or the deadline longer", show_duration(deadline))),
            );
        }
        if !never {
            self.longest_way(cx, deadline);
        }
    }

    fn longest_way(&self, cx: &mut Decoder<'_>, deadline: Duration) {
        let way = self.graph.longest();
        let Some(last) = way.steps.last().filter(|_| way.time > deadline) else { return };
        let sources = self.aggregate.sources();
        let steps: Vec<String> = way.steps.iter().map(|step| self.with_timeout(*step)).collect();
        let message = format!(
            "{} take up to {} together, which does not fit into the deadline of route `{}`, {}",
            steps.join(", then "),
            show_duration(way.time),
            self.route.name,
            show_duration(deadline)
        );
        let place = sources[*last].value.timeout.span().or(Some(sources[*last].span.clone()));
        let problem =
            Problem::warning(Code::Conflict, place, message).related(self.route.value.deadline.span(), "the deadline");
        let name = &sources[*last].name;
        cx.report(problem.help(format!(
            "`{name}` gets what the others leave of the deadline; shorten their timeouts or raise the deadline"
        )));
    }

    fn with_timeout(&self, source: usize) -> String {
        let item = &self.aggregate.sources()[source];
        match item.value.timeout.copied() {
            Some(timeout) => format!("`{}` ({})", item.name, show_duration(timeout)),
            None => format!("`{}`", item.name),
        }
    }

    /// What all requests in flight can hold together.
    pub(super) fn memory(&self, cx: &mut Decoder<'_>, root: &Root) {
        let Some(max_bytes) = self.aggregate.max_bytes.copied() else { return };
        let answers = self.aggregate.sources().iter().map(|source| {
            let max_body = source.value.max_body.copied().map_or(0, |size| size.0);
            let items = source.value.max_items.copied().filter(|_| source.value.for_each.is_written());
            let at_once = items.map(|items| source.value.concurrency.copied().map_or(items, |calls| calls.min(items)));
            (memory::answers(max_body, items), memory::answers(max_body, at_once))
        });
        let bound = memory::bound(answers, max_bytes.0);
        let of_all = root.limits.get().and_then(|limits| limits.max_in_flight.copied());
        let running = self.aggregate.background_on().and_then(|background| background.max_running.copied());
        let in_flight = [self.route.value.max_in_flight.copied(), of_all, running].into_iter().flatten().min();
        let total = bound.peak.saturating_mul(in_flight.unwrap_or(1) as u64);
        if total <= MUCH_MEMORY {
            return;
        }
        let message = match in_flight {
            Some(count) => format!(
                "the answers of route `{}` may take {} of memory: {count} requests in flight, each up to {}",
                self.route.name,
                show_bytes(total),
                show_bytes(bound.peak)
            ),
            None => format!(
                "the answers to one request of route `{}` may take {} of memory",
                self.route.name,
                show_bytes(total)
            ),
        };
        let place = self.aggregate.max_bytes.span().or(self.route.value.max_in_flight.span());
        let problem = Problem::warning(Code::Exposed, place.or(Some(self.route.span.clone())), message);
        cx.report(problem.help("lower `max_bytes` of the aggregate, `max_body` of its sources or `max_in_flight`"));
    }

    /// Calls at once that the upstream never lets through.
    pub(super) fn concurrency(&self, cx: &mut Decoder<'_>, root: &Root) {
        for source in self.aggregate.sources().iter().filter(|source| source.value.for_each.is_written()) {
            let Some((concurrency, span)) = source.value.concurrency.written() else { continue };
            let upstream = root.upstreams().iter().find(|item| Some(&item.name) == source.value.upstream.get());
            let Some(limit) = upstream.map(|upstream| &upstream.value.max_in_flight) else { continue };
            let Some((max, limit_span)) = limit.written().filter(|(max, _)| *max < concurrency) else { continue };
            let message = format!("{concurrency} calls at once can never be reached: the upstream has {max} in flight");
            let problem = Problem::warning(Code::NeverFires, span, message)
                .related(Some(limit_span), "the limit of the upstream");
            cx.report(problem.help(format!("lower `concurrency` to {max} at most, or raise `max_in_flight`")));
        }
    }
}

/// A size for people: the largest unit that gives a whole number, or one digit behind the point.
pub fn show_bytes(bytes: u64) -> String {
    let exact = show_size(bytes);
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if !exact.ends_with(name) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{}{name}", tenths / 10, tenths % 10)
        }
        _ => exact,
    }
}
