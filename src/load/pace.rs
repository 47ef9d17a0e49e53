//! Waiting for an instant, to a few microseconds.
//!
//! The runtime's own timers round up to the next millisecond (measured: 1.07 ms late in the median), which a load
//! generator must not add to every latency. So the release path waits on a timer of the kernel instead: `timerfd`, on
//! the monotonic clock, absolute, and watched by the same poll as the sockets. It is as exact as a sleeping thread
//! with a timer slack of 1 ns (13 us in the median for both), and unlike a pacing thread it needs no second thread to
//! be woken before the request is on its way: the worker that wakes up is the one that sends.
//!
//! What is left is the time in which the machine wakes a thread (66 us in the median on a virtual machine). It is learnt, and the
//! timer is set earlier by it; who wakes up too early spends the rest polling, a tenth of the time at most. For those who
//! want less there is spinning for longer. Each turn of the spin goes through the runtime, so answers are still taken as
//! they come.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::SECOND;
use crate::monotonic::Monotonic;

/// How long before its instant a precise pacer starts to spin: longer than the kernel's wake-up takes, usually.
const SPIN: u64 = 80_000;

/// What a pacer that is not precise may spend polling: one part in so many of each wait.
const POLLING: u64 = 10;

/// The time of a run: nanoseconds since its start, on the monotonic clock. Copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// The start on the same clock as the kernel's timers count it.
    start_monotonic: u64,
    /// The start as other processes would read it; unlike the one for timers it may err to both sides.
    start_of_machine: u64,
}

impl Clock {
    /// The run starts this long after now, so that all who take part are there.
    pub fn starting_in(lead: Duration) -> Self {
        // In this order: the timers may fire a little late by our clock, but not early.
        let start = Instant::now() + lead;
        let monotonic = clock_gettime(ClockId::Monotonic);
        let now = u64::try_from(monotonic.tv_sec).unwrap_or_default() * SECOND
            + u64::try_from(monotonic.tv_nsec).unwrap_or_default();
        Self { start, start_monotonic: now + nanoseconds(lead), start_of_machine: Monotonic::now().of(start) }
    }

    /// 0 before the start.
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    pub fn at(&self, instant: Instant) -> u64 {
        nanoseconds(instant.saturating_duration_since(self.start))
    }

    /// An instant of the run as one of the machine's monotonic clock, in nanoseconds.
    pub fn of_machine(&self, at: u64) -> u64 {
        self.start_of_machine.saturating_add(at)
    }

    fn monotonic(&self, at: u64) -> Timespec {
        let at = self.start_monotonic.saturating_add(at);
        // An expiry of 0 would disarm the timer. It cannot be: the clock counts from the machine's start.
        let whole = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        Timespec { tv_sec: whole(at / SECOND), tv_nsec: whole(at % SECOND) }
    }
}

/// 584 years fit.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for instants of a clock. Belongs to the runtime in which it was made.
#[derive(Debug)]
pub struct Pacer {
    clock: Clock,
    timer: AsyncFd<OwnedFd>,
    precise: bool,
    wake_up: Cell<WakeUp>,
}

/// Nanoseconds that waking up takes in the median, as far as is known: one step up for each that took longer, one down
/// for each that did not (Frugal-1U of Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
#[derive(Debug, Clone, Copy, Default)]
struct WakeUp(u64);

impl WakeUp {
    const STEP: u64 = 1_000;
    /// More is not the machine's waking up, but work that was in the way.
    const MOST: u64 = 100_000;

    fn learn(self, took: u64) -> Self {
        Self(if took > self.0 { (self.0 + Self::STEP).min(Self::MOST) } else { self.0.saturating_sub(Self::STEP) })
    }
}

impl Pacer {
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new(clock: Clock, precise: bool) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { clock, timer: watched(timer)?, precise, wake_up: Cell::default() })
    }

    /// Returns at `at` or a little later, never before. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// None that are expected: the kernel does not refuse to arm a timer that exists.
    pub async fn until(&self, at: u64) -> io::Result<()> {
        let now = self.clock.now();
        if now < at {
            let early = if self.precise { SPIN } else { self.wake_up.get().0.min((at - now) / POLLING) };
            let wake_at = at - early.min(at);
            if self.sleep_until(wake_at).await? {
                self.wake_up.set(self.wake_up.get().learn(self.clock.now() - wake_at));
            }
        }
        while self.clock.now() < at {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Returns when the run starts.
    ///
    /// # Errors
    ///
    /// As [`Pacer::until`].
    pub async fn start(&self) -> io::Result<()> {
        self.arm(0)?;
        self.timer.readable().await?.clear_ready();
        Ok(())
    }

    /// Whether it slept: it was not too late for that.
    async fn sleep_until(&self, at: u64) -> io::Result<bool> {
        let mut slept = false;
        // Not for the readiness but for the clock: one may be left over from a wait that was dropped. The expiry need
        // not be read, which saves a system call for each request: arming again forgets it.
        while self.clock.now() < at {
            self.arm(at)?;
            self.timer.readable().await?.clear_ready();
            slept = true;
        }
        Ok(slept)
    }

    fn arm(&self, at: u64) -> io::Result<()> {
        let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
        let expiry = Itimerspec { it_interval: never_again, it_value: self.clock.monotonic(at) };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &expiry)?;
        Ok(())
    }
}

/// The successor of this constructor is `unsafe` and asks for a promise: that the descriptor stays open and the same
/// while it is watched. An `OwnedFd` that nobody else can reach keeps it by itself.
#[expect(deprecated, reason = "sound for a descriptor that is owned; see https://github.com/tokio-rs/tokio/pull/8587")]
fn watched(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[tokio::test]
    async fn waits_end_after_their_instant_and_never_before() {
        for precise in [false, true] {
            let clock = Clock::starting_in(Duration::from_millis(5));
            let pacer = Pacer::new(clock, precise).expect("a timer");

            pacer.start().await.expect("waits");
            for at in [0, 0, MS / 10, MS, MS, 7 * MS, 3 * MS] {
                pacer.until(at).await.expect("waits");
                assert!(clock.now() >= at, "{at}, precise: {precise}");
            }
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_dropped_does_not_end_the_next_one() {
        let clock = Clock::starting_in(Duration::ZERO);
        let pacer = Pacer::new(clock, false).expect("a timer");
        tokio::select! {
            biased;
            // On a busy machine it may be over at the first poll; then nothing is left over.
            _ = pacer.until(MS) => {}
            () = std::future::ready(()) => {}
        }
        // Its timer expires unseen.
        while clock.now() < 2 * MS {
            std::hint::spin_loop();
        }

        pacer.until(20 * MS).await.expect("waits");

        assert!(clock.now() >= 20 * MS);
    }

    #[test]
    fn what_waking_up_takes_is_learnt_as_the_median() {
        // Three in five take 40 us, the others a millisecond.
        let took = |n: u32| if n % 5 < 3 { 40_000 } else { 1_000_000 };
        let learnt = (0..1000).map(took).fold(WakeUp::default(), WakeUp::learn);
        assert!((38_000..=43_000).contains(&learnt.0), "{learnt:?}");

        let slow = (0..1000).fold(learnt, |learnt, _| learnt.learn(5_000_000));
        assert_eq!(slow.0, WakeUp::MOST);
        assert_eq!((0..1000).fold(slow, |learnt, _| learnt.learn(0)).0, 0);
    }

    #[test]
    fn the_time_before_the_start_is_zero() {
        let clock = Clock::starting_in(Duration::from_secs(3600));

        assert_eq!(clock.now(), 0);
        assert_eq!(clock.at(Instant::now() + Duration::from_secs(3601)) / SECOND, 1);
    }
}
