//! One rate limit: governor's GCRA (generic cell rate algorithm, ITU-T I.371) on the store of `store.rs`.
//!
//! Admitted requests never exceed `burst + rate x t` in any window of length `t`: the interval between tokens is rounded
//! up to whole nanoseconds, and a token that is given back is given back exactly or not at all (`Buckets::undo`).

use std::cmp::max;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use tokio::time::Instant;

use super::fields::policy_field;
use super::key::{RequestKeys, Seed, key_hash};
use super::store::{Access, Bucket, Buckets, Op, Seen};
use crate::config::model::{LimitKey, RateLimit, RateMode};
use crate::telemetry::metrics::LimiterMetrics;

/// tokio's clock, so that limits follow the paused clock of tests. It begins at its first reading, which governor takes as
/// its own zero: both then count from the same moment.
#[derive(Debug, Default)]
struct TokioClock {
    begin: OnceLock<Instant>,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.begin.get_or_init(|| now))
    }
}

type Gcra = governor::RateLimiter<Access, Buckets, TokioClock, StateInformationMiddleware>;

/// What one limit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is a token: this many are left after it, and the bucket is full again in `reset`.
    Free { remaining: u32, reset: Duration, seen: Seen },
    /// The next token is free in `wait`.
    Busy { wait: Duration, bucket: Bucket },
}

/// A token taken from one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub key: u64,
    /// Zero: it may be used now.
    pub wait: Duration,
    pub remaining: u32,
    pub reset: Duration,
    pub seen: Seen,
}

/// Why no token was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoToken {
    /// True: there would be one in time, but too many wait already.
    pub delay_full: bool,
    /// When a token is free.
    pub wait: Duration,
}

/// One configured rate limit with its buckets.
pub struct RateLimiter {
    config: Arc<RateLimit>,
    gcra: Gcra,
    /// The same buckets as governor's, for `undo`.
    buckets: Buckets,
    seed: Seed,
    /// Requests that wait in `delay` mode, at most `max_delayed`.
    waiting: AtomicUsize,
    metrics: Arc<LimiterMetrics>,
    policy: String,
}

impl RateLimiter {
    pub fn new(config: Arc<RateLimit>, seed: Seed, metrics: Arc<LimiterMetrics>) -> Self {
        let buckets = match config.key {
            LimitKey::None => Buckets::single(),
            _ => Buckets::keyed(config.max_keys, Arc::clone(&metrics)),
        };
        let quota = quota(&config);
        Self {
            policy: policy_field(&config.name, quota.burst_size().get(), window(quota)),
            gcra: Gcra::new(quota, buckets.clone(), TokioClock::default()),
            buckets,
            seed,
            waiting: AtomicUsize::new(0),
            metrics,
            config,
        }
    }

    pub fn config(&self) -> &Arc<RateLimit> {
        &self.config
    }

    /// Requests that wait now (`mode = "delay"`).
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The value of `RateLimit-Policy`.
    pub(super) fn policy(&self) -> &str {
        &self.policy
    }

    pub(super) fn metrics(&self) -> &LimiterMetrics {
        &self.metrics
    }

    pub(super) fn key(&self, request: &RequestKeys<'_>) -> u64 {
        key_hash(self.seed, &self.config.key, request)
    }

    /// Asks without taking: `Err` when `take` would fail now.
    pub(super) fn peek(&self, key: u64, max_wait: Duration) -> Result<(), NoToken> {
        match self.decide(key, Op::Peek) {
            Verdict::Free { .. } => Ok(()),
            Verdict::Busy { wait, .. } if self.config.mode != RateMode::Delay || wait > max_wait => {
                Err(NoToken { delay_full: false, wait })
            }
            Verdict::Busy { wait, .. } if self.waiting() >= self.config.max_delayed => {
                Err(NoToken { delay_full: true, wait })
            }
            Verdict::Busy { .. } => Ok(()),
        }
    }

    /// Takes a token: one that is free now or, in `delay` mode, one that is free within `max_wait` and for which there is
    /// a waiting place. A token with a wait holds its place until `leave`.
    pub(super) fn take(&self, key: u64, max_wait: Duration) -> Result<Taken, NoToken> {
        match self.decide(key, Op::Take) {
            Verdict::Free { remaining, reset, seen } => {
                self.count_overflow(seen.bucket);
                Ok(Taken { key, wait: Duration::ZERO, remaining, reset, seen })
            }
            Verdict::Busy { wait, .. } if self.config.mode == RateMode::Delay => self.reserve(key, wait, max_wait),
            Verdict::Busy { wait, bucket } => {
                self.count_overflow(bucket);
                Err(NoToken { delay_full: false, wait })
            }
        }
    }

    /// Puts a token back where that is exact; see `Buckets::undo`.
    pub(super) fn undo(&self, taken: &Taken) -> bool {
        self.buckets.undo(taken.key, taken.seen)
    }

    /// A waiting request left, with its turn or before it.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.waiting.dec();
    }

    /// Takes a token of the future at once, so that requests run in the order in which they came.
    fn reserve(&self, key: u64, wait: Duration, max_wait: Duration) -> Result<Taken, NoToken> {
        if wait > max_wait {
            return Err(NoToken { delay_full: false, wait });
        }
        if !self.enter() {
            return Err(NoToken { delay_full: true, wait });
        }
        let taken = self.reserve_within(key, wait, max_wait);
        if taken.is_err() {
            self.leave();
        }
        taken
    }

    /// Every turn of the loop means that another request has taken the token meanwhile: there is always progress.
    fn reserve_within(&self, key: u64, mut wait: Duration, max_wait: Duration) -> Result<Taken, NoToken> {
        while wait <= max_wait {
            match self.decide(key, Op::Ahead(nanos(wait))) {
                Verdict::Free { remaining, reset, seen } => {
                    self.count_overflow(seen.bucket);
                    return Ok(Taken { key, wait, remaining, reset, seen });
                }
                Verdict::Busy { wait: more, .. } => wait = wait.saturating_add(more),
            }
        }
        Err(NoToken { delay_full: false, wait })
    }

    fn enter(&self) -> bool {
        let below = |waiting: usize| (waiting < self.config.max_delayed).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).is_ok();
        if entered {
            self.metrics.waiting.inc();
        }
        entered
    }

    fn decide(&self, key: u64, op: Op) -> Verdict {
        let now = self.gcra.clock().now();
        let access = Access::new(key, op, nanos(now));
        match self.gcra.check_key(&access) {
            Ok(snapshot) => {
                let seen = access.seen.get();
                let reset = Duration::from_nanos(seen.after).saturating_sub(now);
                Verdict::Free { remaining: snapshot.remaining_burst_capacity(), reset, seen }
            }
            // governor read its clock after `now`, so this wait is never too short.
            Err(until) => Verdict::Busy { wait: until.wait_time_from(now), bucket: access.seen.get().bucket },
        }
    }

    fn count_overflow(&self, bucket: Bucket) {
        if bucket == Bucket::Overflow {
            self.metrics.overflows.inc();
        }
    }
}

impl std::fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimiter").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The quota in governor's terms. What would not fit in 64 bits of nanoseconds (a burst that takes a century to fill) is
/// cut to what does: a smaller burst, never a faster rate.
fn quota(config: &RateLimit) -> Quota {
    const LONGEST: u64 = u64::MAX / 8;
    let per = nanos(config.rate.per);
    let interval = per.div_ceil(u64::from(max(config.rate.count, 1))).clamp(1, LONGEST);
    let burst = u64::from(max(config.burst, 1)).min(LONGEST / interval).max(1);
    let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new).expect("between 1 and the configured u32");
    Quota::with_period(Duration::from_nanos(interval)).expect("an interval of at least 1 ns").allow_burst(burst)
}

/// The time in which an empty bucket fills: the window of the policy field.
fn window(quota: Quota) -> Duration {
    quota.replenish_interval().saturating_mul(quota.burst_size().get())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
