//! `[route.NAME] fault`: what is done to requests on purpose, and `[faults]`, without which none of it is.

use std::time::Duration;

use super::limits::{MOST_IN_FLIGHT, no_effect};
use crate::config::decode::{Decoder, Field, Spot, element};
use crate::config::describe::{DAY, SECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::value::container::OneOrMany;
use crate::config::value::http::HeaderMatches;
use crate::config::value::latency::WrittenDelay;
use crate::config::value::quantity::ByteRate;
use crate::config::value::scalar::Fraction;

element! {
    /// Whether the faults of the routes are done. Off, they are only checked.
    pub struct Faults {
        /// Do them.
        enabled: bool = false, instead_of(&["enable", "on", "active"]);
        /// Which requests meet a fault, and for how long they are delayed, is the same for the same seed.
        seed: u64 = 0;
    }
}

element! {
    /// Something done to requests on purpose, after they were admitted. Only with `[faults] enabled = true`.
    pub struct Fault {
        /// Hold the request for so long, within its deadline and the upstream's `first_byte`, before it is sent.
        delay: WrittenDelay = none, instead_of(&["latency", "fixed_delay"]), example("{ lognormal = { median = \"100ms\", p99 = \"2s\" } }");
        /// Answer with this status, and do not ask the upstream.
        abort: u16 = none, between(200, 599), instead_of(&["status", "http_status"]), example("503");
        /// End the client's connection (over HTTP/2 its stream) without an answer, and do not ask the upstream.
        reset: bool = false;
        /// Send the answer's body no faster than this.
        bandwidth: ByteRate = none, instead_of(&["rate", "throttle"]), example("\"16KiB/s\"");
        /// The part of the requests that meets it, from 0.0 to 1.0.
        fraction: Fraction = 1.0, instead_of(&["percentage", "percent", "probability", "share"]);
        /// Only requests with these headers: the exact value, or `true` for any.
        headers: HeaderMatches = none, instead_of(&["header"]), example("{ \"x-fault\" = true }");
        /// Requests that meet it at once. Beyond it they go on as usual, and are counted.
        max_active: usize = 100, between(1, MOST_IN_FLIGHT), instead_of(&["max_active_faults"]);
        /// It ends by itself so long after the configuration that has it was taken.
        end_after: Duration = "10m", between(SECOND, 30 * DAY), instead_of(&["duration", "for", "lasts"]);
    }
}

impl Faults {
    pub fn resolve(&self) -> Option<model::Faults> {
        Some(model::Faults { enabled: self.enabled.copied()?, seed: self.seed.copied()? })
    }
}

/// All faults of a route.
pub fn resolve(faults: &Field<OneOrMany<Fault>>) -> Option<Vec<model::Fault>> {
    let Some(faults) = faults.get() else { return (!faults.is_written()).then(Vec::new) };
    faults.items.iter().map(|fault| fault.value.resolve()).collect()
}

impl Fault {
    fn resolve(&self) -> Option<model::Fault> {
        let end = match (self.reset.copied()?, self.abort.copied()) {
            (true, _) => Some(model::FaultEnd::Reset),
            (false, status) => status.map(model::FaultEnd::Abort),
        };
        Some(model::Fault {
            delay: self.delay.cloned().map(|delay| delay.latency),
            end,
            bandwidth: self.bandwidth.copied().map(|rate| rate.0).filter(|rate| *rate > 0),
            fraction: self.fraction.copied()?.0,
            headers: self.headers.cloned().map(|headers| headers.0).unwrap_or_default(),
            max_active: self.max_active.copied()?,
            end_after: self.end_after.copied()?,
        })
    }

    fn check(&self, cx: &mut Decoder<'_>, spot: &Spot<Fault>) {
        let resets = self.reset.copied() == Some(true);
        let holds_back = self.bandwidth.copied().is_some_and(|rate| rate.0 > 0);
        if !resets && [self.delay.is_written(), self.abort.is_written(), holds_back] == [false; 3] {
            let problem = match self.bandwidth.key_span() {
                Some(span) if self.bandwidth.is_written() => {
                    let message = "this fault does nothing: a `bandwidth` of 0, or \"off\", limits nothing";
                    Problem::error(Code::InvalidValue, span, message).help(
                        "write more than 0, as in \"16KiB/s\"; to let nothing through, use `reset = true` or a `delay`",
                    )
                }
                _ => Problem::error(Code::MissingKey, spot.span.clone(), "this fault does nothing")
                    .help("add `delay`, `abort`, `reset = true` or `bandwidth`"),
            };
            cx.report(problem);
        }
        if resets && self.abort.is_written() {
            let problem =
                Problem::error(Code::Conflict, self.abort.key_span(), "`abort` and `reset` exclude each other")
                    .related(self.reset.key_span(), "the connection is broken, so nobody gets an answer");
            cx.report(problem.help("keep one; write two faults, each with its `fraction`, to have both"));
        }
        if resets || self.abort.is_written() {
            no_effect(cx, "bandwidth", &self.bandwidth, "the request gets no body of the upstream's");
        }
    }
}

/// The faults of a route, each by itself and with what switches them on.
pub fn check(cx: &mut Decoder<'_>, faults: &Field<OneOrMany<Fault>>, settings: &Field<Faults>) {
    let Some(written) = faults.get() else { return };
    for fault in &written.items {
        fault.value.check(cx, fault);
    }
    let enabled = settings.get().and_then(|settings| settings.enabled.copied()).unwrap_or(false);
    if !enabled && !written.items.is_empty() {
        let problem = Problem::warning(Code::NoEffect, faults.key_span(), "`fault` has no effect: faults are off");
        cx.report(problem.help("add enabled = true in [faults] to do them"));
    }
}
