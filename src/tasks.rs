//! Spawning: every task has a name, is counted, and cannot die unseen.
//!
//! A panic in a spawned task is normally swallowed by its join handle. Here it is caught, logged with the
//! task's name and counted, and the process lives on: one broken connection must not end the others.
//! Whoever spawns says what stops the task; [`Tasks::wait_idle`] is how shutdown finds out that it did.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::IntCounter;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A group of tasks that are waited for together. Clones share the group.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    panics: IntCounter,
}

impl Default for Tasks {
    /// With a counter of its own, which no registry knows.
    fn default() -> Self {
        Self::new(IntCounter::new("panics", "tasks that panicked").expect("this is a metric name"))
    }
}

impl Tasks {
    /// Panics are counted in `panics`.
    pub fn new(panics: IntCounter) -> Self {
        Self { tracker: TaskTracker::new(), panics }
    }

    /// Runs `future` on the current runtime. The handle may be dropped: the task goes on.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let panics = self.panics.clone();
        // Unwind safety: the future is dropped when it ends, so nobody can see what the panic left half done, except
        // through shared state, whose locks and RAII guards must hold up anyway. Combinators and not an `async` block:
        // a block would hold the future twice, as what it captured and as what it polls.
        self.tracker.spawn(AssertUnwindSafe(future).catch_unwind().map(move |ended| {
            if let Err(payload) = ended {
                panics.inc();
                tracing::error!(task = name, message = panic_message(&*payload), "a task panicked");
            }
        }))
    }

    /// Tasks that have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tasks that ended by a panic, since the start.
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Waits until every task has ended, at most for `limit`; false when some still run then.
    pub async fn wait_idle(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// The text of a panic: `panic!` carries a `&str` or a `String`, `panic_any` could carry anything.
fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_task() {
        let tasks = Tasks::default();
        for seconds in [1, 3, 2] {
            tasks.spawn("sleeper", tokio::time::sleep(Duration::from_secs(seconds)));
        }
        let started = tokio::time::Instant::now();

        assert_eq!(tasks.running(), 3);
        assert!(tasks.wait_idle(Duration::from_secs(10)).await);

        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_gives_up_at_its_limit() {
        let tasks = Tasks::default();
        let task = tasks.spawn("stuck", std::future::pending());

        assert!(!tasks.wait_idle(Duration::from_secs(5)).await);

        task.abort();
        assert!(tasks.wait_idle(Duration::from_secs(5)).await, "an aborted task counts as ended");
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_stays_inside_its_task() {
        let tasks = Tasks::default();
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.spawn("sound", async {});

        assert!(tasks.wait_idle(Duration::from_secs(5)).await);

        assert_eq!(tasks.panics(), 1);
    }

    #[test]
    fn both_kinds_of_panic_text_are_read() {
        assert_eq!(panic_message(&"literal"), "literal");
        assert_eq!(panic_message(&String::from("formatted")), "formatted");
        assert_eq!(panic_message(&7_u8), "no message");
    }
}
