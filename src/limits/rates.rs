//! Several rate limits over one request: the strictest decides, and a rejected request takes from none of them.
//!
//! All limits are asked first (`peek`); only when every one has a token are they taken, in order. Alone in the world that
//! is exact: a rejection took nothing. Under concurrency another request may take the last token of a later limit between
//! the question and the taking; then the tokens already taken are put back. Each limit takes back only what nobody has
//! built on (`Buckets::undo`), otherwise the token is lost: in that double race a limit lets through one request too few,
//! and never one too many. With a single limit there is nothing to ask first and nothing to put back.
//!
//! `mode = "delay"`: the token is reserved at once, so that requests run in the order in which they came, and the request
//! waits for it outside of any lock. Waiting has two bounds, the deadline or 60 s without one (a token that comes later is
//! refused at once) and `max_delayed`. A waiter that leaves before its turn gives its token back if it was the last in line; from the
//! middle of the line it cannot be given back (those behind it keep their times), and the slot passes unused.
//!
//! `mode = "shadow"`: decided after the others have admitted the request, counted, and without any effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fields::{Standing, stricter};
use super::key::RequestKeys;
use super::rate::{NoToken, RateLimiter, Taken};
use crate::config::model::RateMode;
use crate::telemetry::Reason;

/// How long a request without a deadline may be delayed: nothing waits for ever.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The rate limits of one scope, in the order of the file.
#[derive(Debug, Default)]
pub struct RateLimiters {
    enforced: Vec<Arc<RateLimiter>>,
    shadow: Vec<Arc<RateLimiter>>,
}

/// What the limits say together.
#[derive(Debug)]
pub enum RateDecision {
    /// With the strictest standing; `None` without any enforced limit.
    Admit(Option<Standing>),
    /// Admitted after a wait.
    Delay(Delay),
    Reject(RateRejection),
}

/// Which limit refuses the request, and until when.
#[derive(Debug)]
pub struct RateRejection {
    /// `RateLimited` or `DelayQueueFull`.
    pub reason: Reason,
    /// A request that comes back after this time finds a token, unless another has taken it.
    pub retry_after: Duration,
    pub standing: Standing,
}

/// A request with reserved tokens that are not free yet. Dropping it gives them back as far as possible.
#[derive(Debug)]
pub struct Delay {
    until: Instant,
    wait: Duration,
    places: Vec<Place>,
    standing: Option<Standing>,
}

impl Delay {
    /// How long the request waits in all.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Waits for the tokens; they are used when this returns.
    pub async fn wait_for_turn(mut self) -> Option<Standing> {
        tokio::time::sleep_until(self.until).await;
        for place in &mut self.places {
            place.used = true;
        }
        self.standing.take()
    }
}

/// A waiting place in one limit, with the token that it waits for.
#[derive(Debug)]
struct Place {
    limiter: Arc<RateLimiter>,
    taken: Taken,
    used: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.used {
            self.limiter.undo(&self.taken);
        }
        self.limiter.leave();
    }
}

/// What has been taken so far.
struct Grant<'a> {
    wait: Duration,
    /// Allocates only when the request has to wait.
    places: Vec<Place>,
    /// The limit that leaves the least, with what it said.
    strictest: Option<(&'a Arc<RateLimiter>, Taken)>,
}

impl RateLimiters {
    pub fn new(limiters: impl IntoIterator<Item = Arc<RateLimiter>>) -> Self {
        let (shadow, enforced) = limiters.into_iter().partition(|l| l.config().mode == RateMode::Shadow);
        Self { enforced, shadow }
    }

    pub fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.shadow.is_empty()
    }

    /// Every limit, the enforced ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RateLimiter>> {
        self.enforced.iter().chain(&self.shadow)
    }

    /// Decides on one request. Never waits; no allocation unless the request has to.
    pub fn decide(&self, keys: &RequestKeys<'_>, deadline: Option<Instant>) -> RateDecision {
        if self.is_empty() {
            return RateDecision::Admit(None);
        }
        let max_wait = deadline.map_or(LONGEST_DELAY, |d| d.saturating_duration_since(Instant::now()));
        match self.ask_all(keys, max_wait).and_then(|()| self.take_from(0, keys, max_wait)) {
            Ok(grant) => {
                self.run_shadow(keys);
                decision(grant)
            }
            Err((limiter, refused)) => {
                limiter.metrics().rejected.inc();
                RateDecision::Reject(rejection(limiter, refused))
            }
        }
    }

    /// The refusal with the longest wait, if there is one: a client that heeds it is not refused by another limit then.
    fn ask_all(&self, keys: &RequestKeys<'_>, max_wait: Duration) -> Result<(), (&Arc<RateLimiter>, NoToken)> {
        if self.enforced.len() < 2 {
            return Ok(());
        }
        let refusals = self.enforced.iter().filter_map(|l| Some((l, l.peek(l.key(keys), max_wait).err()?)));
        refusals.max_by_key(|(_, refused)| refused.wait).map_or(Ok(()), Err)
    }

    /// Takes from the limits from `index` on, or from none of them. Recursion keeps what was taken on the stack.
    fn take_from(
        &self,
        index: usize,
        keys: &RequestKeys<'_>,
        max_wait: Duration,
    ) -> Result<Grant<'_>, (&Arc<RateLimiter>, NoToken)> {
        let Some(limiter) = self.enforced.get(index) else {
            return Ok(Grant { wait: Duration::ZERO, places: Vec::new(), strictest: None });
        };
        let taken = limiter.take(limiter.key(keys), max_wait).map_err(|refused| (limiter, refused))?;
        let place = (!taken.wait.is_zero()).then(|| Place { limiter: Arc::clone(limiter), taken, used: false });
        match self.take_from(index + 1, keys, max_wait) {
            Ok(grant) => Ok(grant.with(limiter, taken, place)),
            Err(refusal) => {
                if place.is_none() {
                    limiter.undo(&taken);
                }
                Err(refusal)
            }
        }
    }

    fn run_shadow(&self, keys: &RequestKeys<'_>) {
        for limiter in &self.shadow {
            match limiter.take(limiter.key(keys), Duration::ZERO) {
                Ok(_) => limiter.metrics().admitted.inc(),
                Err(_) => limiter.metrics().shadow_rejected.inc(),
            }
        }
    }
}

impl<'a> Grant<'a> {
    fn with(mut self, limiter: &'a Arc<RateLimiter>, taken: Taken, place: Option<Place>) -> Self {
        match place {
            Some(place) => {
                limiter.metrics().delayed.inc();
                self.places.push(place);
            }
            None => limiter.metrics().admitted.inc(),
        }
        self.wait = self.wait.max(taken.wait);
        self.strictest = match self.strictest {
            Some(other) if stricter(room(&other.1), room(&taken)) => Some(other),
            _ => Some((limiter, taken)),
        };
        self
    }
}

fn room(taken: &Taken) -> (u32, Duration) {
    (taken.remaining, taken.reset)
}

fn decision(grant: Grant<'_>) -> RateDecision {
    let standing = grant.strictest.map(|(limiter, taken)| Standing {
        limiter: Arc::clone(limiter),
        remaining: taken.remaining,
        reset: taken.reset,
    });
    if grant.places.is_empty() {
        return RateDecision::Admit(standing);
    }
    let until = Instant::now() + grant.wait;
    RateDecision::Delay(Delay { until, wait: grant.wait, places: grant.places, standing })
}

fn rejection(limiter: &Arc<RateLimiter>, refused: NoToken) -> RateRejection {
    let reason = if refused.delay_full { Reason::DelayQueueFull } else { Reason::RateLimited };
    let standing = Standing { limiter: Arc::clone(limiter), remaining: 0, reset: refused.wait };
    RateRejection { reason, retry_after: refused.wait, standing }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
