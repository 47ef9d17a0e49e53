//! `[route.NAME.objective]`: what the route promises. Alerts are about these promises, not about single mistakes.

use std::time::Duration;

use crate::config::check::is_misspelt;
use crate::config::decode::{Decoder, Field, element};
use crate::config::describe::{DAY, MILLISECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::value::http::UpgradeProtocol;
use crate::config::value::quantity::Percentage;

use super::limits::no_effect;

element! {
    /// What the route promises. Metrics count how often a promise is kept; the alerts of `forebay rules` follow from it.
    pub struct Objective {
        /// The share of requests that are answered: without a 5xx, whoever made it, and within all time limits. What the
        /// client caused (4xx of Forebay's own, 429, leaving) does not count.
        availability: Percentage = none, instead_of(&["success", "success_rate", "slo"]), example("\"99.9%\"");
        /// How long a request that is answered well may take, from its first byte to the answer's last.
        latency: Duration = none, between(MILLISECOND, DAY), instead_of(&["threshold", "within"]), example("\"300ms\"");
        /// The share of requests answered well that are to be as fast as `latency`.
        latency_target: Percentage = "99%", instead_of(&["latency_percentile", "target", "quantile"]);
    }
}

impl Objective {
    pub fn resolve(&self) -> Option<model::Objective> {
        let availability = if self.availability.is_written() { Some(self.availability.copied()?.0) } else { None };
        let latency = if self.latency.is_written() {
            Some(model::LatencyObjective { within: self.latency.copied()?, target: self.latency_target.copied()?.0 })
        } else {
            None
        };
        Some(model::Objective { availability, latency })
    }

    pub fn check(
        &self,
        cx: &mut Decoder<'_>,
        table: Option<std::ops::Range<usize>>,
        deadline: &Field<model::Deadline>,
        upgrades: &Field<Vec<UpgradeProtocol>>,
    ) {
        let promises = self.availability.is_written() || self.latency.is_written();
        if !promises && !is_misspelt(cx, "availability") && !is_misspelt(cx, "latency") {
            let problem = Problem::error(Code::MissingKey, table, "this objective promises nothing");
            cx.report(problem.help("add `availability = \"99.9%\"` or `latency = \"300ms\"`, or take `objective` out"));
        }
        if !self.latency.is_written() {
            no_effect(cx, "latency_target", &self.latency_target, "there is no `latency`");
        }
        let Some((latency, span)) = self.latency.written() else { return };
        if let Some(limit) = deadline.copied().and_then(model::Deadline::after).filter(|limit| latency >= limit) {
            let shown = crate::units::show_duration;
            let message = format!(
                "`latency` is always kept: {} is not below the route's deadline, {}",
                shown(*latency),
                shown(limit)
            );
            let problem =
                Problem::error(Code::Conflict, span.clone(), message).related(deadline.span(), "the deadline");
            cx.report(problem.help("promise less time, or make the deadline longer"));
        }
        if let Some((_, upgrade)) = upgrades.written().filter(|(protocols, _)| !protocols.is_empty()) {
            let message = "an upgraded connection lasts as long as its peers want: it has no latency to promise";
            let problem = Problem::error(Code::Conflict, span, message).related(Some(upgrade), "upgrades are allowed");
            cx.report(problem.help("give upgrades a route of their own, or take `latency` out"));
        }
    }
}
