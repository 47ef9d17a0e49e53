//! The bytes that answers hold together, with a bound.
//!
//! An answer is made whole, and its bytes stay until its clients have taken them. A scrape of a large configuration takes
//! megabytes, so a few clients that read slowly could hold as much memory as they like. So when the bound would be passed,
//! the answers that were begun first are broken off. Nobody is refused for being late, nor for the size of an answer; and
//! each answer has [`READ_TIME`] in which it is safe, the next one waits for it: whoever reads at once gets it whole,
//! however many there are who do not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::logging::RateBound;

/// An answer that was begun less than this ago is not broken off. Enough for tens of megabytes in a data centre; a scrape that
/// has to wait for it as well stays below Prometheus' own timeout of 10 s.
pub const READ_TIME: Duration = Duration::from_secs(2);

/// The newest answers are never broken off, whatever their size: two Prometheus that scrape at once are common.
const ALWAYS_KEPT: usize = 2;

/// Answers that were broken off are reported this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// All answers of a listener that are being read.
#[derive(Debug)]
pub struct Held {
    limit: usize,
    answers: Mutex<Answers>,
    reports: RateBound,
}

#[derive(Debug, Default)]
struct Answers {
    next: u64,
    /// In the order in which they were begun.
    list: VecDeque<Answer>,
}

#[derive(Debug)]
struct Answer {
    number: u64,
    bytes: usize,
    begun: Instant,
    readers: Vec<(u64, CancellationToken)>,
}

/// What an answer consists of, for one reader or several; counted until it is dropped.
#[derive(Debug)]
pub struct Content {
    bytes: Vec<u8>,
    number: u64,
    held: Arc<Held>,
}

/// A connection that reads an answer, until it has taken or lost it.
struct Reader {
    content: Arc<Content>,
    number: u64,
}

impl Held {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, answers: Mutex::default(), reports: RateBound::new(LOG_EVERY) })
    }

    /// Counts these bytes; makes room for them by breaking off the oldest answers, after up to [`READ_TIME`].
    pub async fn hold(self: &Arc<Self>, bytes: Vec<u8>) -> Arc<Content> {
        let size = bytes.capacity();
        let wait = self.lock().wait(size, self.limit, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let (number, broken_off) = self.lock().add(size, self.limit, Instant::now());
        if broken_off > 0
            && let Some(suppressed) = self.reports.allow(std::time::Instant::now())
        {
            let limit = self.limit;
            tracing::warn!(
                broken_off,
                limit,
                suppressed,
                "slow readers hold too many bytes of admin answers: broken off"
            );
        }
        Arc::new(Content { bytes, number, held: Arc::clone(self) })
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        // Every change of the list is one step, so a panic elsewhere left it whole.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// How many of the oldest answers have to go for a new one of this size. The list is as short as the connections are few.
    fn in_the_way(&self, size: usize, limit: usize) -> usize {
        let mut bytes = self.bytes() + size;
        let may_go = (self.list.len() + 1).saturating_sub(ALWAYS_KEPT);
        let goes = |answer: &&Answer| {
            let too_many = bytes > limit;
            bytes -= answer.bytes;
            too_many
        };
        self.list.iter().take(may_go).take_while(goes).count()
    }

    /// How long until those have had their time.
    fn wait(&self, size: usize, limit: usize, now: Instant) -> Duration {
        let youngest = self.in_the_way(size, limit).checked_sub(1).and_then(|last| self.list.get(last));
        youngest.map_or(Duration::ZERO, |answer| (answer.begun + READ_TIME).saturating_duration_since(now))
    }

    /// The number of the new answer, and how many others were broken off for it.
    fn add(&mut self, size: usize, limit: usize, now: Instant) -> (u64, usize) {
        let broken_off = self.in_the_way(size, limit);
        for answer in self.list.drain(..broken_off) {
            answer.readers.iter().for_each(|(_, end)| end.cancel());
        }
        let number = self.number();
        self.list.push_back(Answer { number, bytes: size, begun: now, readers: Vec::new() });
        (number, broken_off)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn bytes(&self) -> usize {
        self.list.iter().map(|answer| answer.bytes).sum()
    }

    fn answer(&mut self, number: u64) -> Option<&mut Answer> {
        self.list.iter_mut().find(|answer| answer.number == number)
    }
}

impl Content {
    /// The bytes for one connection, which `end` ends when they are broken off.
    pub fn read(self: Arc<Self>, end: CancellationToken) -> Bytes {
        let mut answers = self.held.lock();
        let number = answers.number();
        match answers.answer(self.number) {
            Some(answer) => answer.readers.push((number, end)),
            // Broken off already.
            None => end.cancel(),
        }
        drop(answers);
        Bytes::from_owner(Reader { content: self, number })
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.held.lock().list.retain(|answer| answer.number != self.number);
    }
}

impl AsRef<[u8]> for Reader {
    fn as_ref(&self) -> &[u8] {
        &self.content.bytes
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Its connection goes on, with other answers.
        if let Some(answer) = self.content.held.lock().answer(self.content.number) {
            answer.readers.retain(|(number, _)| *number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hold(held: &Arc<Held>, bytes: usize) -> (Bytes, CancellationToken) {
        let end = CancellationToken::new();
        (held.hold(vec![7; bytes]).await.read(end.clone()), end)
    }

    fn ended<const N: usize>(answers: [&(Bytes, CancellationToken); N]) -> [bool; N] {
        answers.map(|(_, end)| end.is_cancelled())
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_answers_make_room_after_their_time_and_no_more_of_them_than_need_be() {
        let (held, start) = (Held::new(100), Instant::now());
        let (first, second, third) = (hold(&held, 30).await, hold(&held, 30).await, hold(&held, 30).await);
        assert_eq!((ended([&first, &second, &third]), held.bytes()), ([false; 3], 90));

        let fourth = hold(&held, 40).await;

        assert_eq!((ended([&first, &second, &third, &fourth]), held.bytes()), ([true, false, false, false], 100));
        assert_eq!(start.elapsed(), READ_TIME);
        let _fifth = hold(&held, 30).await;
        assert_eq!((ended([&second, &third, &fourth]), start.elapsed()), ([true, false, false], READ_TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_not_counted_and_nobody_waits_for_it() {
        let (held, start) = (Held::new(100), Instant::now());
        let slow = hold(&held, 50).await;
        for _ in 0..10 {
            let (content, end) = hold(&held, 50).await;
            assert_eq!((content.len(), end.is_cancelled()), (50, false));
        }

        assert_eq!((ended([&slow]), held.bytes(), start.elapsed()), ([false], 50, Duration::ZERO));
        drop(slow);
        assert_eq!(held.bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_size_of_an_answer_is_no_reason_to_break_the_newest_ones_off() {
        let held = Held::new(100);
        let small = hold(&held, 1).await;
        let (first, second) = (hold(&held, 500).await, hold(&held, 500).await);

        assert_eq!(ended([&small, &first, &second]), [true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_still_read_an_answer_end_with_it_and_those_who_have_read_it_do_not() {
        let held = Held::new(100);
        let content = held.hold(vec![7; 60]).await;
        let ends = [(); 3].map(|()| CancellationToken::new());
        let [quick, slow, slower] = ends.clone().map(|end| Arc::clone(&content).read(end));
        drop((quick, content));
        let second = hold(&held, 30).await;

        let third = hold(&held, 60).await;

        assert_eq!(ends.map(|end| end.is_cancelled()), [false, true, true]);
        assert_eq!((ended([&second, &third]), held.bytes()), ([false, false], 90));
        drop((slow, slower));
        assert_eq!(held.bytes(), 90, "an answer that was broken off takes no other with it when it ends");
    }
}
