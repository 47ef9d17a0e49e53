//! A body that is sent no faster than so many bytes per second: the bandwidth of a fault.

use std::time::Duration;

use tokio::time::Instant;

/// How often something is sent, at most: often enough to look like a slow line, and seldom enough to cost little.
const STEPS_PER_SECOND: u64 = 20;

/// Says how much may be sent, and when the next piece may.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    next: Option<Instant>,
}

impl Throttle {
    /// At least 1 byte per second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next: None }
    }

    /// The most that may be sent at once.
    pub fn piece(&self) -> usize {
        usize::try_from(self.bytes_per_second.div_ceil(STEPS_PER_SECOND)).unwrap_or(usize::MAX)
    }

    /// Notes that so many bytes were sent; gives the instant at which the next may be. Time in which nothing was there
    /// to be sent is not made up for.
    pub fn sent(&mut self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let next = self.next.map_or(now, |next| next.max(now)) + takes;
        self.next = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_its_size_over_the_rate_and_pauses_are_not_made_up_for() {
        let mut throttle = Throttle::new(1000);
        let start = Instant::now();
        assert_eq!(throttle.piece(), 50);

        let mut next = start;
        for _ in 0..40 {
            next = throttle.sent(50, next);
        }
        assert_eq!(next - start, Duration::from_secs(2));

        let later = next + Duration::from_secs(5);
        assert_eq!(throttle.sent(50, later) - later, Duration::from_millis(50));
        assert_eq!(Throttle::new(1).piece(), 1);
    }
}
