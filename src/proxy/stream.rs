//! Answers of aggregates part by part, as the sources end: NDJSON or server-sent events. The last part is the summary,
//! which says what a whole answer would say in its status and its fields.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::aggregate::{Answering, Finished, Work, refused};
use super::body::Source;
use super::client::Client;
use super::exchange::{Done, Exchange, Facts};
use super::generation::AggregateRuntime;
use super::paced::Paced;
use super::respond::{self, Failure};
use crate::aggregate::{self, Outcome, Plan, Refusal};
use crate::config::model::ClientGone;
use crate::config::model::aggregate::Aggregate;
use crate::message::head::rules::list;
use crate::message::head::{Known, Method, ResponseBody};
use crate::telemetry::Reason;

/// How parts are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line of JSON for each part.
    NdJson,
    /// Server-sent events (WHATWG HTML §9.2): `part`, and one `summary` at the end.
    Events,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Format::NdJson => "application/x-ndjson",
            Format::Events => "text/event-stream",
        }
    }

    fn frame(self, event: &str, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Format::NdJson => {
                out.extend_from_slice(json);
                out.push(b'\n');
            }
            Format::Events => {
                out.extend_from_slice(format!("event: {event}\ndata: ").as_bytes());
                out.extend_from_slice(json);
                out.extend_from_slice(b"\n\n");
            }
        }
    }
}

/// The format that an `Accept` field asks for by its own name: whoever takes anything gets the whole answer.
pub fn asked_format<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Option<Format> {
    accept.flat_map(list).find_map(|range| {
        let mut parts = range.split(|byte| *byte == b';');
        let name = parts.next()?.trim_ascii();
        let refused = parts.any(|parameter| {
            let quality = parameter.trim_ascii().strip_prefix(b"q=");
            quality.is_some_and(|value| value.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        [Format::NdJson, Format::Events]
            .into_iter()
            .find(|format| !refused && name.eq_ignore_ascii_case(format.content_type().as_bytes()))
    })
}

impl Exchange<'_> {
    /// The format of a stream that this request asks for and its route allows.
    pub fn stream_format(&self, runtime: &AggregateRuntime) -> Option<Format> {
        let wanted = runtime.plan.aggregate().stream && self.head.method != Method::Head;
        wanted.then(|| asked_format(self.head.fields.values_of("accept"))).flatten()
    }

    /// Sends each part at its source's end, and the summary.
    pub async fn stream(
        &mut self,
        work: Work,
        format: Format,
        answering: &Answering<'_>,
        source: &mut Source<'_>,
        client: &mut Client<'_>,
        facts: &mut Facts,
    ) -> Result<Done, Failure> {
        let fields = self.begin_answer(200);
        fields.set_known(Known::ContentType, format.content_type().as_bytes());
        fields.set_known(Known::CacheControl, b"no-store");
        respond::push_date(fields);
        self.complete_head(answering, facts);
        if !source.is_done() || !self.proxy.lifecycle.keep_alive() {
            client.close_after();
        }
        facts.status = 200;
        facts.timings.response_started = Some(self.started.elapsed());
        let sink = client.begin(&mut self.work.answer, ResponseBody::Chunked);
        let sink = sink.map_err(|_| Failure::from(Reason::ClientGone))?;
        let write_limit = self.connection.listener.timeouts().write;
        let mut out = Paced::new(sink, self.timer, write_limit, facts.deadline).throttled(facts.bandwidth);

        let begun = Instant::now();
        let policy = answering.matched.route.route.on_client_gone;
        let aggregate = work.runtime.plan.aggregate().clone();
        let detached = &self.proxy.telemetry.detached;
        // As many parts as there are sources, at most.
        let (parts, waiting) = mpsc::unbounded_channel();
        let runtime = work.runtime.clone();
        let running = work.run(move |outcome| {
            // The receiver is gone when the client is. A copy shares the value's memory.
            let _ = parts.send(outcome.clone());
        });
        let (landed, stopped) = {
            let mut running = pin!(running);
            let mut writing = pin!(send_parts(&mut out, format, &runtime.plan, waiting));
            let (mut landed, mut written, mut stopped, mut alone) = (None, false, None, None);
            poll_fn(|cx| {
                if landed.is_none()
                    && let Poll::Ready(done) = running.as_mut().poll(cx)
                {
                    landed = Some(done);
                }
                if !written && stopped.is_none() {
                    match writing.as_mut().poll(cx) {
                        Poll::Ready(Ok(())) => written = true,
                        Poll::Ready(Err(reason)) => stopped = Some(reason),
                        Poll::Pending if source.poll_gone(cx).is_ready() => stopped = Some(Reason::ClientGone),
                        Poll::Pending => {}
                    }
                }
                match (&landed, stopped) {
                    (Some(_), Some(_)) => Poll::Ready(()),
                    (Some(_), None) if written => Poll::Ready(()),
                    (None, Some(_)) if policy == ClientGone::Cancel => Poll::Ready(()),
                    (None, Some(_)) => {
                        alone.get_or_insert_with(|| detached.begin());
                        Poll::Pending
                    }
                    _ => Poll::Pending,
                }
            })
            .await;
            if let (Some(alone), Some(_)) = (alone, &landed) {
                alone.finished();
            }
            (landed, stopped)
        };
        facts.timings.upstream = Some(begun.elapsed());
        facts.reason = stopped.or(landed.as_ref().map(reason_of));
        let mut complete = false;
        if let (None, Some(landed)) = (stopped, &landed) {
            let mut frame = Vec::new();
            format.frame("summary", &summary(&aggregate, landed), &mut frame);
            match out.send_rest(&frame).await {
                Ok(()) => complete = true,
                Err(reason) => facts.reason = Some(reason),
            }
        }
        facts.response_bytes = out.sent;
        facts.sources = landed.map(Arc::new);
        Ok(Done::Answered { complete })
    }
}

fn reason_of(landed: &Result<Finished, Refusal>) -> Reason {
    match landed {
        Ok(finished) => finished.merged.reason,
        Err(refusal) => refusal.reason,
    }
}

fn summary(aggregate: &Aggregate, landed: &Result<Finished, Refusal>) -> Bytes {
    match landed {
        Ok(finished) => aggregate::summary(aggregate, &finished.outcomes, &finished.merged),
        Err(refusal) => {
            let failure = refused(refusal.clone());
            let reason = failure.reason.code();
            serde_json::json!({ "summary": { "status": failure.status(), "reason": reason, "detail": refusal.detail } })
                .to_string()
                .into()
        }
    }
}

/// Writes parts until there are no more; the head leaves at once.
async fn send_parts(
    out: &mut Paced<'_>,
    format: Format,
    plan: &Plan,
    mut waiting: mpsc::UnboundedReceiver<Outcome>,
) -> Result<(), Reason> {
    out.write(&[]).await?;
    let mut frame = Vec::new();
    while let Some(outcome) = waiting.recv().await {
        let Some(part) = aggregate::part_off_loop(plan, outcome).await else { continue };
        frame.clear();
        format.frame("part", &part, &mut frame);
        out.write(&frame).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_a_stream_gets_one() {
        let asked = |accept: &str| asked_format([accept.as_bytes()].into_iter());
        assert_eq!(asked("application/x-ndjson"), Some(Format::NdJson));
        assert_eq!(asked("text/html, Text/Event-Stream;q=0.5"), Some(Format::Events));
        for whole in ["", "*/*", "text/*", "application/json", "text/event-stream;q=0", "text/event-stream; q=0.0"] {
            assert_eq!(asked(whole), None, "{whole}");
        }
    }

    #[test]
    fn parts_are_framed_as_their_format_wants() {
        let framed = |format: Format| {
            let mut out = Vec::new();
            format.frame("part", b"{\"a\":1}", &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(framed(Format::NdJson), "{\"a\":1}\n");
        assert_eq!(framed(Format::Events), "event: part\ndata: {\"a\":1}\n\n");
    }
}
