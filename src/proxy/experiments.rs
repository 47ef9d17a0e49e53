//! What is done with a request beside answering it, when the configuration asks for it: faults, copies, a recording.

use tokio::time::Instant;

use super::body::Source;
use super::exchange::{Exchange, Facts, Matched};
use super::generation::{Generation, RouteRuntime};
use super::mirror::{self, Mirrored};
use super::prepare::RequestId;
use super::race::race;
use super::relay::Live;
use super::respond::Failure;
use crate::config::model::FaultEnd;
use crate::faults::Strike;
use crate::recorder::Recorded;
use crate::routing;
use crate::telemetry::Reason;

impl Exchange<'_> {
    /// Before anything of the head is changed: a recording holds what the client sent.
    pub fn begin_recording(&self, generation: &Generation, matched: &Matched, facts: &Facts) -> Option<Box<Recorded>> {
        let recorder = generation.recorder.as_ref()?;
        let id = facts.request_id.as_ref().map_or("", RequestId::as_str);
        recorder.record(&matched.route.route.name, id, self.head, self.started)
    }

    /// Sends copies of the request; gives what it has to do for them.
    pub fn mirror(&self, route: &RouteRuntime, facts: &Facts) -> Option<Mirrored> {
        let mirror = route.mirror.as_ref()?;
        let original = mirror::Original {
            proxy: self.proxy,
            listener: &self.connection.listener,
            route: &route.route,
            head: self.head,
            target: &self.work.target,
            request_id: facts.request_id.as_ref().map_or("", RequestId::as_str),
        };
        mirror::begin(mirror, &original)
    }

    /// The fault that this request meets.
    pub fn strike(&self, route: &RouteRuntime) -> Option<Strike> {
        let fields = &self.head.fields;
        route.faults.as_ref()?.strike(Instant::now(), |header| routing::header_holds(header, fields))
    }

    /// Does what the fault wants before the upstream is asked. The delay stands for a slow upstream: the permits are held,
    /// and its `first_byte` ends it.
    pub async fn suffer(
        &mut self,
        strike: &Strike,
        route: &RouteRuntime,
        source: &mut Source<'_>,
        live: &Live,
        facts: &mut Facts,
    ) -> Result<(), Failure> {
        facts.fault = Some(strike.what());
        facts.bandwidth = strike.bandwidth;
        if let Some(delay) = strike.delay {
            let begun = Instant::now();
            live.clock.enter(Reason::DeadlineFirstByte);
            if let Some(upstream) = &route.upstream {
                live.clock.limit_answer(upstream.config.timeouts.first_byte, Reason::FirstByteTimeout);
            }
            let held = race(tokio::time::sleep_until(begun + delay), source, live, self.timer).await;
            live.clock.unlimit_answer();
            facts.timings.fault_delay = Some(begun.elapsed());
            held?;
        }
        match strike.end {
            Some(FaultEnd::Abort(status)) => Err(Failure { status: Some(status), ..Reason::FaultAbort.into() }),
            Some(FaultEnd::Reset) => Err(Reason::FaultReset.into()),
            None => Ok(()),
        }
    }

    /// Hands the answer to who waits for it. The head at hand is the one that the client got, unless the answer is one of
    /// a failure.
    pub fn end_experiments(&self, generation: &Generation, facts: &mut Facts) {
        let head = &self.work.answer;
        let by_upstream = matches!(facts.reason, None | Some(Reason::Ok | Reason::Upstream5xx));
        if let Some(mirrored) = facts.mirrored.take().filter(|_| by_upstream) {
            mirrored.answered(head);
        }
        if let (Some(mut recorded), Some(recorder)) = (facts.recorded.take(), &generation.recorder) {
            let answered = by_upstream || facts.reason == Some(Reason::Partial);
            recorded.ended(facts.status, facts.timings.total, answered.then_some(head));
            recorder.finish(recorded);
        }
    }
}
