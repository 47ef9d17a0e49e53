//! The way of a request through its limits, and what it holds while it waits.
//!
//! 1. **Rate limits**, those over all routes and the route's own, decided together. First, because they are the cheapest
//!    refusal and say what clients may *ask for*. In `delay` mode the request waits here and holds nothing but its place
//!    and its token.
//! 2. **Client in flight**: never waits. Before the queues, so that one client cannot fill them; a waiting request counts
//!    as in flight for its client.
//! 3. **Route in flight**, with its queue. Held while waiting: the client's place. What a route lets through at once is
//!    settled before anything that routes share is touched.
//! 4. **Global in flight**, with its queue. Held while waiting: the above. It bounds the memory and the descriptors of the process.
//! 5. **Upstream in flight**, with its queue. Held while waiting: all of the above, since a request that waits for an
//!    upstream is a request in this process. Last, so that an upstream's permit, the scarcest thing here, is never held
//!    by a request that waits for something else: while requests wait, every permit is at work.
//!
//! The price of that order: the queue of a slow upstream takes up global permits. Where a global limit is set, it should be
//! above the sum of `max + queue.capacity` of the upstreams, or one slow upstream can fill it.
//!
//! Every request takes these steps in the same order and each wait is bounded (its own limit and the request's deadline),
//! so there is no deadlock, and no wait without end. Permits are given back together, when `Permits` is dropped.
//!
//! **Rate tokens are not given back when a later step refuses the request.** A rate limit counts what was asked; a client that
//! hammers a full queue must not do so free of charge, and a token cannot be put back exactly once others have been
//! taken after it (`rates.rs`). A request that is refused by one *rate limit* does not consume from the others.
//!
//! `try_admit` is the hot path: no wait, no allocation, no future. When something has to be waited for it returns what it
//! has so far as `Pending`, and `Pending::wait` goes on from there; `admit` does both.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{ClientLimiter, ClientPermit};
use super::fields::Standing;
use super::in_flight::{InFlightLimiter, Permit, Refused, Unavailable};
use super::key::RequestKeys;
use super::rates::{Delay, RateDecision, RateLimiters};
use crate::telemetry::Reason;

/// The limits that the requests of one route meet.
#[derive(Debug, Default)]
pub struct Admission {
    /// Those over all routes first, then the route's own.
    pub rates: RateLimiters,
    pub client: Option<Arc<ClientLimiter>>,
    pub route: Option<Arc<InFlightLimiter>>,
    pub global: Option<Arc<InFlightLimiter>>,
    pub upstream: Option<Arc<InFlightLimiter>>,
}

/// The places of an admitted request, given back when this is dropped, and what admission took.
#[derive(Debug, Default)]
#[must_use = "dropping the permits ends the request's place in every limit"]
pub struct Permits {
    upstream: Option<Permit>,
    global: Option<Permit>,
    route: Option<Permit>,
    client: Option<ClientPermit>,
    /// Waited for a rate limit; `None` when there was nothing to wait for.
    pub rate_delay: Option<Duration>,
    /// Waited in the in-flight queues, together; `None` when there was nothing to wait for.
    pub queue: Option<Duration>,
    /// For `RateLimit` and `RateLimit-Policy`: see `rate_fields`.
    pub standing: Option<Standing>,
}

impl Permits {
    /// How many limits this request holds a place in.
    pub fn held(&self) -> usize {
        [self.upstream.is_some(), self.global.is_some(), self.route.is_some(), self.client.is_some()]
            .into_iter()
            .filter(|held| *held)
            .count()
    }

    fn add_queue(&mut self, waited: Duration) {
        if !waited.is_zero() {
            self.queue = Some(self.queue.unwrap_or_default() + waited);
        }
    }
}

/// Why a request was not admitted, and what to tell the client.
#[derive(Debug)]
pub struct Rejection {
    pub reason: Reason,
    /// When it is worth to come back; `retry_after_seconds` makes the field of it. `None` when the deadline passed.
    pub retry_after: Option<Duration>,
    pub standing: Option<Standing>,
    pub rate_delay: Option<Duration>,
    pub queue: Option<Duration>,
}

/// The answer of the fast path.
#[derive(Debug)]
pub enum TryAdmit<'a> {
    Admitted(Permits),
    Rejected(Rejection),
    /// Something has to be waited for.
    Wait(Pending<'a>),
}

/// A request half-way through its limits. Dropping it gives back what it has.
#[derive(Debug)]
#[must_use = "the request is not admitted before `wait` says so"]
pub struct Pending<'a> {
    admission: &'a Admission,
    permits: Permits,
    deadline: Option<Instant>,
    next: Step,
}

#[derive(Debug)]
enum Step {
    /// Wait for the tokens, then for the client's place (whose key is known already), and so on.
    Delay(Delay, ClientKey),
    Queue(Stage),
}

/// What is needed to take the client's place after a delay, when the request's head is no longer at hand.
#[derive(Debug, Clone, Copy)]
struct ClientKey(Option<u64>);

/// The in-flight limits, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Route,
    Global,
    Upstream,
}

const STAGES: [Stage; 3] = [Stage::Route, Stage::Global, Stage::Upstream];

impl Admission {
    /// Admits, refuses, or waits within the limits' own bounds and the deadline. Dropping the future leaves every queue.
    pub async fn admit(&self, keys: &RequestKeys<'_>, deadline: Option<Instant>) -> Result<Permits, Rejection> {
        match self.try_admit(keys, deadline) {
            TryAdmit::Admitted(permits) => Ok(permits),
            TryAdmit::Rejected(rejection) => Err(rejection),
            TryAdmit::Wait(pending) => pending.wait().await,
        }
    }

    /// Admits or refuses at once where nothing has to be waited for.
    pub fn try_admit(&self, keys: &RequestKeys<'_>, deadline: Option<Instant>) -> TryAdmit<'_> {
        let mut permits = Permits::default();
        let client = ClientKey(self.client.as_ref().map(|client| client.key(keys)));
        match self.rates.decide(keys, deadline) {
            RateDecision::Admit(standing) => permits.standing = standing,
            RateDecision::Delay(delay) => {
                let next = Step::Delay(delay, client);
                return TryAdmit::Wait(Pending { admission: self, permits, deadline, next });
            }
            RateDecision::Reject(rejection) => {
                return TryAdmit::Rejected(Rejection {
                    reason: rejection.reason,
                    retry_after: Some(rejection.retry_after),
                    standing: Some(rejection.standing),
                    rate_delay: None,
                    queue: None,
                });
            }
        }
        if let Err(rejection) = self.enter_client(client, &mut permits) {
            return TryAdmit::Rejected(rejection);
        }
        match self.try_stages(&mut permits) {
            None => TryAdmit::Admitted(permits),
            Some(stage) => TryAdmit::Wait(Pending { admission: self, permits, deadline, next: Step::Queue(stage) }),
        }
    }

    fn enter_client(&self, key: ClientKey, permits: &mut Permits) -> Result<(), Rejection> {
        if let (Some(limiter), ClientKey(Some(key))) = (&self.client, key) {
            let Some(permit) = limiter.try_acquire_key(key) else {
                // When the client's own requests end is its own knowledge; a second is the shortest that can be said.
                return Err(permits.reject(Reason::ClientLimit, Some(Duration::from_secs(1))));
            };
            permits.client = Some(permit);
        }
        Ok(())
    }

    /// Takes every permit that is free, in order; the first stage that is not.
    fn try_stages(&self, permits: &mut Permits) -> Option<Stage> {
        STAGES.into_iter().find(|stage| {
            let Some(limiter) = self.limiter(*stage) else { return false };
            let permit = limiter.try_acquire();
            let missing = permit.is_none();
            permits.put(*stage, permit);
            missing
        })
    }

    fn limiter(&self, stage: Stage) -> Option<&Arc<InFlightLimiter>> {
        match stage {
            Stage::Route => self.route.as_ref(),
            Stage::Global => self.global.as_ref(),
            Stage::Upstream => self.upstream.as_ref(),
        }
    }
}

impl Permits {
    fn put(&mut self, stage: Stage, permit: Option<Permit>) {
        match stage {
            Stage::Route => self.route = permit,
            Stage::Global => self.global = permit,
            Stage::Upstream => self.upstream = permit,
        }
    }

    /// The rejection of a request that got this far.
    fn reject(&mut self, reason: Reason, retry_after: Option<Duration>) -> Rejection {
        Rejection {
            reason,
            retry_after,
            standing: self.standing.take(),
            rate_delay: self.rate_delay,
            queue: self.queue,
        }
    }
}

impl Pending<'_> {
    /// Waits for what is missing.
    pub async fn wait(self) -> Result<Permits, Rejection> {
        let Self { admission, mut permits, deadline, next } = self;
        let first = match next {
            Step::Queue(stage) => stage,
            Step::Delay(delay, client) => {
                permits.rate_delay = Some(delay.wait());
                permits.standing = delay.wait_for_turn().await;
                admission.enter_client(client, &mut permits)?;
                Stage::Route
            }
        };
        for stage in STAGES.into_iter().skip_while(|stage| *stage != first) {
            if let Some(limiter) = admission.limiter(stage) {
                match limiter.acquire(deadline).await {
                    Ok((permit, waited)) => {
                        permits.add_queue(waited);
                        permits.put(stage, Some(permit));
                    }
                    Err(refused) => return Err(queue_rejection(permits, refused)),
                }
            }
        }
        Ok(permits)
    }
}

fn queue_rejection(mut permits: Permits, refused: Refused) -> Rejection {
    permits.add_queue(refused.waited);
    let (reason, retry_after) = match refused.why {
        Unavailable::QueueFull => (Reason::QueueFull, Some(refused.retry_after)),
        Unavailable::QueueTimeout => (Reason::QueueTimeout, Some(refused.retry_after)),
        Unavailable::Deadline => (Reason::DeadlineQueue, None),
    };
    permits.reject(reason, retry_after)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
