//! Work that ends when it is done, when the client leaves or when its time is over, whichever comes first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

use super::body::Source;
use super::relay::{AnswerStop, Live, RequestEnd};
use super::respond::Failure;
use super::timer::LazyTimer;
use crate::config::model::ClientGone;
use crate::telemetry::Reason;
use crate::telemetry::metrics::DetachedMetrics;

/// Waits for `work` while the client stays and the clock allows.
pub async fn race<T>(
    work: impl Future<Output = T>,
    source: &mut Source<'_>,
    live: &Live,
    timer: &mut LazyTimer,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if source.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientGone.into()));
        }
        live.clock.poll_expired(cx, timer).map(|reason| Err(reason.into()))
    })
    .await
}

/// Polls both loops of one attempt and the clock until the answer is through or something ends it.
pub async fn run_both<T>(
    request: impl Future<Output = RequestEnd>,
    answer: impl Future<Output = Result<T, AnswerStop>>,
    live: &Live,
    timer: &mut LazyTimer,
    on_gone: ClientGone,
    detached: &DetachedMetrics,
) -> Result<T, Failure> {
    let mut request = pin!(request);
    let mut answer = pin!(answer);
    let mut watching = true;
    let mut alone = None;
    let result = poll_fn(|cx| {
        if watching && let Poll::Ready(end) = request.as_mut().poll(cx) {
            watching = false;
            match end {
                // What the upstream works on may go on without the client, but only if it has the whole request.
                RequestEnd::ClientGone
                    if on_gone == ClientGone::Finish && live.request_sent.load(Ordering::Relaxed) =>
                {
                    live.client_gone.store(true, Ordering::Relaxed);
                }
                RequestEnd::ClientGone => return Poll::Ready(Err(Reason::ClientGone.into())),
                RequestEnd::Refused(reason, detail) => return Poll::Ready(Err(Failure::refused(reason, detail))),
            }
        }
        if live.client_gone.load(Ordering::Relaxed) {
            alone.get_or_insert_with(|| detached.begin());
        }
        if let Poll::Ready(done) = answer.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|stop| match stop {
                AnswerStop::ClientGone => Reason::ClientGone.into(),
                AnswerStop::Upstream(reason, detail) => Failure::detailed(reason, detail),
            }));
        }
        live.clock.poll_expired(cx, timer).map(|reason| Err(reason.into()))
    })
    .await;
    if let (Some(alone), Ok(_)) = (alone, &result) {
        alone.finished();
    }
    result
}
