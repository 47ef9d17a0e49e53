//! Starting and stopping: the phases of the process, and the orderly way out.
//!
//! ```text
//! Starting -> Serving -> Lame ------------> Draining -----------------> Stopped
//!                        not ready,         accepting has stopped,
//!                        still accepting,   keep-alive is off, until the last
//!                        for accept_grace   request ends or drain_timeout
//! ```
//!
//! The lame phase is what makes a rolling deployment lossless: those who route to this process learn from
//! `/readyz` that it is going, while it still takes what they send meanwhile. A hand-over to a new process
//! skips it, because the new process already accepts on the same sockets.
//!
//! The decisions are plain functions of the time and the counts ([`Drain`]); the loop around them only waits.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::model::Shutdown;
use crate::tasks::Tasks;

/// How often the counts are looked at while draining. Polling, and not one more notification on the data path,
/// because it happens once in a process's life and must not cost a request anything before that.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// After the last request: how long connections may take to close by themselves (TLS close, GOAWAY, the
/// client reading the end of the answer). Below the second within which the process promises to be gone.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Within this time of a signal to stop, another is the same stroke told twice: `timeout` signals its child and then its
/// group, and a Ctrl-C reaches a process from the terminal and from the wrapper that passes it on. Nobody strikes so fast.
pub const SAME_STROKE: Duration = Duration::from_millis(100);

/// Signals waiting to be handled; more of them at once say nothing new.
const SIGNAL_QUEUE: usize = 8;

/// Where in its life the process is. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Starting,
    Serving,
    /// Told to stop: not ready, but still accepting.
    Lame,
    /// Not accepting; what is in flight runs to its end, connections close after it.
    Draining,
    /// Everything that still runs ends now.
    Stopped,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Lame => "stopping",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
        }
    }
}

/// The phase, shared by everything that acts on it. Clones are cheap and see the same phase.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The same phase as in `changes`: read once for each request, where the lock of a watch channel is too much.
    phase: AtomicU8,
    changes: watch::Sender<Phase>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    pub fn new() -> Self {
        let changes = watch::Sender::new(Phase::Starting);
        Self { inner: Arc::new(Inner { phase: AtomicU8::new(Phase::Starting as u8), changes }) }
    }

    pub fn phase(&self) -> Phase {
        *self.inner.changes.borrow()
    }

    /// Moves on to `phase`; false when the process is already there or further.
    pub fn advance(&self, phase: Phase) -> bool {
        self.inner.changes.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
                self.inner.phase.store(phase as u8, Ordering::Release);
            }
            forward
        })
    }

    /// True while new work should be sent here.
    pub fn is_serving(&self) -> bool {
        self.raw() == Phase::Serving as u8
    }

    /// False once connections should close after the answer they are giving: one atomic load.
    pub fn keep_alive(&self) -> bool {
        self.raw() < Phase::Draining as u8
    }

    /// Ends when the process is in `phase` or beyond.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.inner.changes.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = changes.wait_for(|current| *current >= phase).await;
    }

    fn raw(&self) -> u8 {
        self.inner.phase.load(Ordering::Acquire)
    }
}

/// What an operator's signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop in order; a second one: stop now.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: start the new binary and pass the sockets on.
    HandOver,
}

/// Takes over the process's signals. They arrive in the returned channel, in tests from anywhere.
///
/// Installed before anything else starts: as PID 1 of a container a process has no default handlers, so a
/// SIGTERM during a slow start would otherwise be lost.
pub fn signals(tasks: &Tasks) -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNAL_QUEUE);
    let (mut stops, stop_sender) = (Stops::new()?, sender.clone());
    tasks.spawn("signal", async move {
        let forward = async { while stop_sender.send(stops.next().await).await.is_ok() {} };
        tokio::select! {
            () = forward => {}
            () = stop_sender.closed() => {}
        }
    });
    for (kind, meaning) in [(SignalKind::hangup(), Signal::Reload), (SignalKind::user_defined2(), Signal::HandOver)] {
        tasks.spawn("signal", forward(signal(kind)?, meaning, sender.clone()));
    }
    Ok(receiver)
}

/// The process's SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Stops {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    strokes: Strokes,
}

impl Stops {
    /// # Errors
    ///
    /// When the signals cannot be taken over.
    pub fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, strokes: Strokes::default() })
    }

    /// The next stroke.
    pub async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if self.strokes.is_new(Instant::now()) {
                return Signal::Stop;
            }
        }
    }
}

/// Tells a second stroke from an echo of the first.
#[derive(Debug, Default)]
struct Strokes {
    last: Option<Instant>,
}

impl Strokes {
    /// An echo does not prolong the time in which there are echoes.
    fn is_new(&mut self, now: Instant) -> bool {
        let is_new = self.last.is_none_or(|last| now.duration_since(last) >= SAME_STROKE);
        if is_new {
            self.last = Some(now);
        }
        is_new
    }
}

/// Ends when the receiver is gone.
async fn forward(mut source: UnixSignal, meaning: Signal, sender: mpsc::Sender<Signal>) {
    loop {
        tokio::select! {
            received = source.recv() => {
                if received.is_none() || sender.send(meaning).await.is_err() {
                    return;
                }
            }
            () = sender.closed() => return,
        }
    }
}

/// The next SIGTERM or SIGINT; anything else means nothing here, and is only logged.
pub async fn next_stop(signals: &mut mpsc::Receiver<Signal>) {
    while let Some(signal) = signals.recv().await {
        if signal == Signal::Stop {
            return;
        }
        tracing::warn!(?signal, "signal ignored: only a stop counts now");
    }
    std::future::pending().await
}

/// What is being shut down.
pub trait Work {
    /// Ends the accept loops and closes their sockets.
    fn stop_accepting(&self);
    /// Requests that have not ended, detached ones included.
    fn open_requests(&self) -> usize;
    fn open_connections(&self) -> usize;
}

/// How shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every request ended by itself.
    Drained,
    /// The drain limit came first; this many requests were cut.
    Cut { requests: usize },
    /// A second signal came first.
    Interrupted { requests: usize },
}

/// Whether to go through the lame phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Told to stop: others must first notice.
    Announce,
    /// A new process already serves the same sockets.
    HandedOver,
}

/// Leads the process from serving to stopped. `interrupt` is the second signal.
pub async fn shut_down(
    lifecycle: &Lifecycle,
    settings: &Shutdown,
    farewell: Farewell,
    work: &impl Work,
    interrupt: impl Future<Output = ()>,
) -> Outcome {
    let outcome = tokio::select! {
        // A second signal wins over a drain that is complete at the same moment: it asked for "now".
        biased;
        () = interrupt => Outcome::Interrupted { requests: work.open_requests() },
        outcome = drain(lifecycle, settings, farewell, work) => outcome,
    };
    // The interrupt may have come in the lame phase, with the sockets still open.
    work.stop_accepting();
    lifecycle.advance(Phase::Stopped);
    outcome
}

async fn drain(lifecycle: &Lifecycle, settings: &Shutdown, farewell: Farewell, work: &impl Work) -> Outcome {
    if farewell == Farewell::Announce {
        lifecycle.advance(Phase::Lame);
        if !settings.accept_grace.is_zero() {
            tracing::info!(grace = ?settings.accept_grace, "stopping: not ready, still accepting");
            tokio::time::sleep(settings.accept_grace).await;
        }
    }
    work.stop_accepting();
    lifecycle.advance(Phase::Draining);
    let mut drain = Drain::new(Instant::now(), settings.drain_timeout);
    tracing::info!(requests = work.open_requests(), limit = ?settings.drain_timeout, "draining: not accepting");
    loop {
        match drain.step(Instant::now(), work.open_requests(), work.open_connections()) {
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::End(outcome) => return outcome,
        }
    }
}

/// The decision when draining is over.
#[derive(Debug)]
struct Drain {
    limit: Instant,
    /// Since when no request has been open.
    quiet_since: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait(Duration),
    End(Outcome),
}

impl Drain {
    fn new(now: Instant, timeout: Duration) -> Self {
        Self { limit: now + timeout, quiet_since: None }
    }

    /// A connection without a request may still be about to carry one (its head is on the way), so a request
    /// that shows up starts the quiet time afresh.
    fn step(&mut self, now: Instant, requests: usize, connections: usize) -> Step {
        if requests > 0 {
            self.quiet_since = None;
            if now >= self.limit {
                return Step::End(Outcome::Cut { requests });
            }
            return Step::Wait(DRAIN_POLL.min(self.limit - now));
        }
        let quiet_until = *self.quiet_since.get_or_insert(now) + CLOSE_GRACE;
        let end = quiet_until.min(self.limit);
        if connections == 0 || now >= end {
            return Step::End(Outcome::Drained);
        }
        Step::Wait(DRAIN_POLL.min(end - now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    /// Work whose counts a test sets, by hand or from a task.
    #[derive(Default)]
    struct FakeWork {
        requests: AtomicUsize,
        connections: AtomicUsize,
        stopped: AtomicBool,
    }

    impl FakeWork {
        fn with(requests: usize, connections: usize) -> Arc<Self> {
            Arc::new(Self { requests: requests.into(), connections: connections.into(), ..Self::default() })
        }

        fn end_requests_after(self: &Arc<Self>, time: Duration) {
            let work = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                work.requests.store(0, Ordering::Relaxed);
            });
        }
    }

    impl Work for Arc<FakeWork> {
        fn stop_accepting(&self) {
            self.stopped.store(true, Ordering::Relaxed);
        }

        fn open_requests(&self) -> usize {
            self.requests.load(Ordering::Relaxed)
        }

        fn open_connections(&self) -> usize {
            self.connections.load(Ordering::Relaxed)
        }
    }

    const SETTINGS: Shutdown =
        Shutdown { accept_grace: Duration::from_secs(5), drain_timeout: Duration::from_secs(30) };

    fn serving() -> Lifecycle {
        let lifecycle = Lifecycle::new();
        lifecycle.advance(Phase::Serving);
        lifecycle
    }

    async fn never_interrupted(lifecycle: &Lifecycle, farewell: Farewell, work: &Arc<FakeWork>) -> Outcome {
        shut_down(lifecycle, &SETTINGS, farewell, work, std::future::pending()).await
    }

    #[test]
    fn phases_only_move_forward() {
        let lifecycle = Lifecycle::new();
        assert!(lifecycle.advance(Phase::Draining));

        assert!(!lifecycle.advance(Phase::Serving));
        assert!(!lifecycle.advance(Phase::Draining));

        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_right_after_another_is_the_same_stroke() {
        let start = Instant::now();
        let table = [(0, true), (0, false), (60, false), (99, false), (100, true), (199, false), (200, true)];

        let mut strokes = Strokes::default();
        for (millis, expected) in table {
            assert_eq!(strokes.is_new(start + Duration::from_millis(millis)), expected, "after {millis} ms");
        }
    }

    #[test]
    fn serving_and_keep_alive_follow_the_phase() {
        let table = [
            (Phase::Starting, false, true),
            (Phase::Serving, true, true),
            (Phase::Lame, false, true),
            (Phase::Draining, false, false),
            (Phase::Stopped, false, false),
        ];
        let lifecycle = Lifecycle::new();
        for (phase, is_serving, keep_alive) in table {
            lifecycle.advance(phase);
            assert_eq!((lifecycle.is_serving(), lifecycle.keep_alive()), (is_serving, keep_alive), "{phase:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_process_leaves_after_the_accept_grace() {
        let (lifecycle, work, started) = (serving(), FakeWork::with(0, 0), Instant::now());

        let outcome = never_interrupted(&lifecycle, Farewell::Announce, &work).await;

        assert_eq!(outcome, Outcome::Drained);
        assert_eq!(started.elapsed(), SETTINGS.accept_grace);
        assert_eq!(lifecycle.phase(), Phase::Stopped);
    }

    #[tokio::test(start_paused = true)]
    async fn the_lame_phase_still_accepts() {
        let (lifecycle, work) = (serving(), FakeWork::with(0, 0));
        let (probe, probed) = (lifecycle.clone(), Arc::clone(&work));
        let observer = tokio::spawn(async move {
            tokio::time::sleep(SETTINGS.accept_grace - Duration::from_millis(1)).await;
            (probe.phase(), probed.stopped.load(Ordering::Relaxed))
        });

        never_interrupted(&lifecycle, Farewell::Announce, &work).await;

        assert_eq!(observer.await.unwrap(), (Phase::Lame, false));
        assert!(work.stopped.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn exits_within_a_second_of_the_last_request() {
        let (lifecycle, work, started) = (serving(), FakeWork::with(3, 7), Instant::now());
        let last = SETTINGS.accept_grace + Duration::from_secs(2);
        work.end_requests_after(last);

        let outcome = never_interrupted(&lifecycle, Farewell::Announce, &work).await;

        assert_eq!(outcome, Outcome::Drained);
        assert!(started.elapsed() >= last);
        assert!(started.elapsed() < last + Duration::from_secs(1), "took {:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn never_stays_longer_than_the_drain_limit() {
        let (lifecycle, work, started) = (serving(), FakeWork::with(2, 2), Instant::now());

        let outcome = never_interrupted(&lifecycle, Farewell::Announce, &work).await;

        assert_eq!(outcome, Outcome::Cut { requests: 2 });
        assert_eq!(started.elapsed(), SETTINGS.accept_grace + SETTINGS.drain_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_drains_at_once() {
        let (lifecycle, work, started) = (serving(), FakeWork::with(1, 1), Instant::now());
        work.end_requests_after(Duration::from_secs(1));

        let outcome = never_interrupted(&lifecycle, Farewell::HandedOver, &work).await;

        assert_eq!(outcome, Outcome::Drained);
        assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_it_at_once_in_every_phase() {
        for seconds in [1, 10] {
            let (lifecycle, work, started) = (serving(), FakeWork::with(1, 1), Instant::now());
            let second = Duration::from_secs(seconds);

            let interrupt = tokio::time::sleep(second);
            let outcome = shut_down(&lifecycle, &SETTINGS, Farewell::Announce, &work, interrupt).await;

            assert_eq!(outcome, Outcome::Interrupted { requests: 1 });
            assert_eq!(started.elapsed(), second);
            assert!(work.stopped.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_late_request_restarts_the_quiet_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut drain = Drain::new(start, Duration::from_secs(30));

        assert!(matches!(drain.step(at(0), 0, 1), Step::Wait(_)));
        assert!(matches!(drain.step(at(400), 1, 1), Step::Wait(_)));
        assert!(matches!(drain.step(at(600), 0, 1), Step::Wait(_)));

        assert!(matches!(drain.step(at(1099), 0, 1), Step::Wait(_)));
        assert_eq!(drain.step(at(1100), 0, 1), Step::End(Outcome::Drained));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stop_signal_is_a_next_stop() {
        let (sender, mut receiver) = mpsc::channel(4);
        for signal in [Signal::Reload, Signal::HandOver, Signal::Stop] {
            sender.send(signal).await.unwrap();
        }

        next_stop(&mut receiver).await;

        assert!(receiver.is_empty());
    }
}
