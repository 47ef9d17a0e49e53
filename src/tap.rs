//! Copies of bodies that pass: for a mirror and for a recording. A copy has a bound of its own, all copies of one purpose
//! together have another, and what does not fit is not copied; what passes never waits for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

/// The bytes that all copies of one purpose may hold together.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(bytes) })
    }

    /// So much of it, if it is there.
    pub fn share(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let mut share = Share { budget: self.clone(), bytes: 0 };
        share.grow(bytes).then_some(share)
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Part of a budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes so much more, if it is there.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let is_there = self.budget.take(bytes);
        if is_there {
            self.bytes += bytes;
        }
        is_there
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// A copied body; its memory counts until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Copied {
    pub bytes: Bytes,
    _share: Arc<Share>,
}

/// One body being copied.
#[derive(Debug)]
pub struct Tap {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    /// `None` once it did not fit: then nothing is kept.
    share: Option<Share>,
    /// Told when the body is complete.
    waiting: Option<oneshot::Sender<Option<Copied>>>,
    done: Option<Copied>,
}

impl Tap {
    /// Copies at most so many bytes, if the budget has them.
    pub fn new(most: usize, budget: &Arc<Budget>) -> Self {
        let share = Share { budget: budget.clone(), bytes: 0 };
        let state = State { bytes: Vec::new(), share: Some(share), waiting: None, done: None };
        Self { most, state: Mutex::new(state) }
    }

    /// Resolves when the body is complete, with its copy, or with `None` as soon as it does not fit. Fails when neither ever
    /// happens.
    pub fn completion(&self) -> oneshot::Receiver<Option<Copied>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().waiting = Some(sender);
        receiver
    }

    /// A part of the body passed.
    pub fn copy(&self, data: &[u8]) {
        let mut state = self.lock();
        let State { bytes, share, waiting, .. } = &mut *state;
        let Some(held) = share else { return };
        if bytes.len() + data.len() <= self.most && held.grow(data.len()) {
            bytes.extend_from_slice(data);
        } else {
            *bytes = Vec::new();
            *share = None;
            if let Some(waiting) = waiting.take() {
                // Nobody may wait any more.
                let _ = waiting.send(None);
            }
        }
    }

    /// The body is complete. Only the first time counts.
    pub fn complete(&self) {
        let mut state = self.lock();
        let State { bytes, share, waiting, done } = &mut *state;
        if done.is_none()
            && let Some(share) = share.take()
        {
            *done = Some(Copied { bytes: std::mem::take(bytes).into(), _share: Arc::new(share) });
        }
        if let Some(waiting) = waiting.take() {
            // Nobody may wait any more.
            let _ = waiting.send(done.clone());
        }
    }

    /// The copy of a complete body; `None` when it did not fit or is not complete.
    pub fn copied(&self) -> Option<Copied> {
        self.lock().done.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_copied_whole_or_not_at_all() {
        let budget = Budget::new(100);
        let (fits, too_large) = (Tap::new(8, &budget), Tap::new(8, &budget));
        let waiting = fits.completion();

        for part in [&b"four"[..], b"more"] {
            fits.copy(part);
            too_large.copy(part);
        }
        too_large.copy(b"!");
        assert!(fits.copied().is_none(), "it is not complete");
        fits.complete();
        too_large.complete();

        assert_eq!(waiting.await.unwrap().unwrap().bytes, "fourmore");
        assert_eq!(fits.copied().unwrap().bytes, "fourmore");
        assert!(too_large.copied().is_none());
    }

    #[test]
    fn copies_share_a_budget_and_give_it_back_with_the_last_clone() {
        let budget = Budget::new(10);
        let first = Tap::new(10, &budget);
        first.copy(b"12345678");
        first.complete();
        let copied = first.copied().unwrap();
        drop(first);

        let second = Tap::new(10, &budget);
        second.copy(b"123");
        second.complete();
        assert!(second.copied().is_none(), "the first copy is still held");

        drop(copied);
        let third = Tap::new(10, &budget);
        third.copy(b"1234567890");
        third.complete();
        assert!(third.copied().is_some());
    }

    #[tokio::test]
    async fn who_waits_for_a_body_that_does_not_fit_is_told_before_its_end() {
        let tap = Tap::new(3, &Budget::new(10));
        let waiting = tap.completion();

        tap.copy(b"1234");

        assert!(waiting.await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_waits_for_a_body_that_breaks_off_is_told() {
        let tap = Tap::new(10, &Budget::new(10));
        let waiting = tap.completion();
        tap.copy(b"1");

        drop(tap);

        assert!(waiting.await.is_err());
    }
}
