//! The absolute deadline of a request: computed once at the door, passed inward, never extended.

use std::time::Duration;

use tokio::time::Instant;

/// The longest deadline that a client may ask for; more digits than this hold are refused by [`parse_header`].
const MAX_HEADER_DIGITS: usize = 10;

/// A point in time, or none for routes with `deadline = "none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub const NONE: Deadline = Deadline(None);

    pub fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// `start` is when the first byte of the head arrived. A span beyond the clock's range is no deadline.
    pub fn after(start: Instant, span: Duration) -> Self {
        Self(start.checked_add(span))
    }

    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// What is left at `now`; zero when it has passed, `None` when there is no deadline.
    pub fn remaining(self, now: Instant) -> Option<Duration> {
        self.0.map(|deadline| deadline.saturating_duration_since(now))
    }

    pub fn has_passed(self, now: Instant) -> bool {
        self.0.is_some_and(|deadline| deadline <= now)
    }

    /// The earlier of the two; no deadline is later than any.
    pub fn min(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// When a phase that begins at `now` and may take `timeout` must end, and whether it is the deadline that ends it.
    pub fn bound(self, now: Instant, timeout: Duration) -> Bound {
        let by_timeout = Deadline::after(now, timeout);
        let end = self.min(by_timeout);
        Bound { end: end.0, by_deadline: self.0.is_some() && end == self }
    }
}

/// The end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// `None`: the phase has no end.
    pub end: Option<Instant>,
    /// True when the deadline is what ends the phase, false when its own timeout does.
    pub by_deadline: bool,
}

/// Reads `x-forebay-deadline-ms`: what the caller has left, as plain digits.
pub fn parse_header(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || value.len() > MAX_HEADER_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = value.iter().fold(0u64, |millis, digit| millis * 10 + u64::from(digit - b'0'));
    Some(Duration::from_millis(millis))
}

/// Appends the value of `x-forebay-deadline-ms`, rounded down so that the upstream gives up first.
pub fn write_header(out: &mut Vec<u8>, remaining: Duration) {
    // Ten digits are 115 days.
    let millis = remaining.as_millis().min(9_999_999_999);
    out.extend_from_slice(itoa::Buffer::new().format(millis).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_left_shrinks_to_zero_and_no_further() {
        let start = Instant::now();
        let deadline = Deadline::after(start, SECOND);

        assert_eq!(deadline.remaining(start), Some(SECOND));
        tokio::time::advance(3 * SECOND).await;

        assert_eq!(deadline.remaining(Instant::now()), Some(Duration::ZERO));
        assert!(deadline.has_passed(Instant::now()));
        assert_eq!(Deadline::NONE.remaining(start), None);
        assert!(!Deadline::NONE.has_passed(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_counts_and_none_is_the_latest() {
        let now = Instant::now();
        let (early, late) = (Deadline::after(now, SECOND), Deadline::after(now, 2 * SECOND));

        assert_eq!(early.min(late), early);
        assert_eq!(late.min(early), early);
        assert_eq!(Deadline::NONE.min(late), late);
        assert_eq!(late.min(Deadline::NONE), late);
        assert_eq!(Deadline::after(now, Duration::MAX), Deadline::NONE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_ends_by_its_timeout_or_by_the_deadline() {
        let now = Instant::now();
        let deadline = Deadline::after(now, 2 * SECOND);

        assert_eq!(deadline.bound(now, SECOND), Bound { end: Some(now + SECOND), by_deadline: false });
        assert_eq!(deadline.bound(now, 3 * SECOND), Bound { end: Some(now + 2 * SECOND), by_deadline: true });
        assert_eq!(Deadline::NONE.bound(now, SECOND), Bound { end: Some(now + SECOND), by_deadline: false });
        assert_eq!(Deadline::NONE.bound(now, Duration::MAX), Bound { end: None, by_deadline: false });
    }

    #[test]
    fn the_header_is_plain_milliseconds() {
        assert_eq!(parse_header(b"1500"), Some(Duration::from_millis(1500)));
        for bad in ["", "-1", "+1", "1.5", "1s", " 1", "12345678901"] {
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
        let mut out = Vec::new();
        write_header(&mut out, Duration::from_micros(1_999_999));
        assert_eq!(out, b"1999");
        out.clear();
        write_header(&mut out, Duration::MAX);
        assert!(parse_header(&out).is_some());
    }
}
