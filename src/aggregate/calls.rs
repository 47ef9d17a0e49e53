//! The calls of one aggregate: identical ones are sent once, all answers together stay within a bound, and a panic in one
//! is that call's failure.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Shared, WeakShared};
use tokio::time::Instant;

use super::call::{Call, Called, Failed, Fetch};
use crate::message::head::Method;
use crate::telemetry::Reason;

/// Bytes of answers that may still be kept.
pub(super) struct Budget(AtomicU64);

impl Budget {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self(AtomicU64::new(max_bytes))
    }

    /// What does not fit any more is not kept, and its call fails.
    pub(super) fn take(&self, bytes: u64) -> Result<(), Failed> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| Failed {
            reason: Reason::UpstreamTooLarge,
            detail: Some("the answers together are larger than `max_bytes` of the aggregate".into()),
            retry_after: None,
        })
    }
}

/// How long a call that others may share has to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    /// Calls can only be identical within one group of sources.
    pub group: usize,
    /// The end of the last source of the group: that the first to call has less time must not hurt the others.
    pub until: Option<Instant>,
}

type InFlight<'a> = Pin<Box<dyn Future<Output = Called> + Send + 'a>>;

enum Sent<'a> {
    /// Weak, so that the call is cancelled when the last one that waits for it leaves.
    InFlight(WeakShared<InFlight<'a>>),
    /// Its body is counted in the budget, so keeping it is bounded.
    Ended(Called),
}

/// An identical call.
enum Found<'a> {
    InFlight(Shared<InFlight<'a>>),
    Ended(Called),
}

pub(super) struct Calls<'a, F> {
    fetch: &'a F,
    budget: &'a Budget,
    /// By call, in which `source` is the number of the group. Never locked over an await.
    sent: Mutex<HashMap<Call, Sent<'a>>>,
}

impl<'a, F: Fetch> Calls<'a, F> {
    pub(super) fn new(fetch: &'a F, budget: &'a Budget) -> Self {
        Self { fetch, budget, sent: Mutex::default() }
    }

    /// Sends a call, or waits for an identical one of another source; then `true`.
    pub(super) async fn send(&self, call: Call, until: Option<Instant>, sharing: Option<Sharing>) -> (Called, bool) {
        match sharing {
            Some(sharing) if may_share(&call) => self.share(call, sharing).await,
            _ => (self.begin(call, until).await, false),
        }
    }

    /// Boxed, because the futures around it are moved about: with it inside, each would be a dozen KiB.
    fn begin(&self, call: Call, until: Option<Instant>) -> InFlight<'a> {
        Box::pin(fetch(self.fetch, self.budget, call, until))
    }

    async fn share(&self, call: Call, sharing: Sharing) -> (Called, bool) {
        let key = Call { source: sharing.group, ..call.clone() };
        let (flight, joined) = match self.find(&key) {
            Some(Found::Ended(called)) => return (at_no_cost(called), true),
            Some(Found::InFlight(flight)) => (flight, true),
            None => (self.take_off(&key, call, sharing.until), false),
        };
        let called = flight.await;
        self.lock().insert(key, Sent::Ended(called.clone()));
        (if joined { at_no_cost(called) } else { called }, joined)
    }

    fn find(&self, key: &Call) -> Option<Found<'a>> {
        match self.lock().get(key)? {
            Sent::InFlight(flight) => flight.upgrade().map(Found::InFlight),
            Sent::Ended(called) => Some(Found::Ended(called.clone())),
        }
    }

    fn take_off(&self, key: &Call, call: Call, until: Option<Instant>) -> Shared<InFlight<'a>> {
        let flight = self.begin(call, until).shared();
        if let Some(weak) = flight.downgrade() {
            self.lock().insert(key.clone(), Sent::InFlight(weak));
        }
        flight
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Call, Sent<'a>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeating such a call changes nothing at the upstream (RFC 9110 §9.2.1), so one can stand for two.
fn may_share(call: &Call) -> bool {
    matches!(call.method, Method::Get | Method::Head) && call.body.is_none()
}

/// As another source sees a call: it made no attempt and took no place in a queue.
fn at_no_cost(called: Called) -> Called {
    Called { attempts: 0, queue: Duration::ZERO, ..called }
}

async fn fetch<F: Fetch>(fetch: &F, budget: &Budget, call: Call, until: Option<Instant>) -> Called {
    // A `fetch` that panics before its first await does so inside this block.
    let work = async { fetch.fetch(call, until).await };
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(mut called) => {
            called.result = called.result.and_then(|answer| budget.take(answer.body.len() as u64).map(|()| answer));
            called
        }
        Err(panic) => Called { result: Err(panicked(&*panic)), attempts: 1, queue: Duration::ZERO },
    }
}

/// The failure of the one whose code panicked.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Failed {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Failed { reason: Reason::Internal, detail: Some(format!("panic: {message}")), retry_after: None }
}
