//! Finding the line of each request while both come in, in any order.

use std::collections::HashMap;
use std::mem;

use super::RequestKey;
use super::cohorts::Profile;
use super::line::Line;
use super::record::Waterfall;
use super::segments::{self, Asked};

/// Requests that may wait for their line: about 25 MB.
pub const MOST_REQUESTS: usize = 1 << 18;
/// Lines that may wait for their request, those of other traffic among them: about 15 MB.
pub const MOST_LINES: usize = 1 << 16;

/// A request that has ended, as the generator saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half {
    /// Of the id that its answer named.
    pub answered: Option<RequestKey>,
    /// Of the id that it was sent with.
    pub sent_as: RequestKey,
    pub number: u64,
    pub asked: Asked,
}

/// What was joined so far, and what waits.
#[derive(Debug)]
pub struct Join {
    requests: Waiting<Half>,
    lines: Waiting<Line>,
    profile: Profile,
    found: Waterfall,
}

impl Default for Join {
    fn default() -> Self {
        Self::of_size(MOST_REQUESTS, MOST_LINES)
    }
}

impl Join {
    pub(super) fn of_size(requests: usize, lines: usize) -> Self {
        Self {
            requests: Waiting::new(requests),
            lines: Waiting::new(lines),
            profile: Profile::default(),
            found: Waterfall::default(),
        }
    }

    pub fn ended(&mut self, half: Half) {
        self.found.requests += 1;
        self.found.identified += u64::from(half.answered.is_some());
        let key = half.answered.unwrap_or(half.sent_as);
        match self.lines.take(key) {
            Some(line) => self.pair(&half, &line),
            None => self.found.dropped += self.requests.insert(key, half),
        }
    }

    pub fn logged(&mut self, text: &[u8]) {
        self.found.lines += 1;
        let Some(line) = Line::parse(text) else {
            self.found.unreadable += 1;
            return;
        };
        let own = self.requests.take(line.key());
        match own.or_else(|| self.requests.take(line.trace?)) {
            Some(half) => self.pair(&half, &line),
            // Most likely of other traffic.
            None => drop(self.lines.insert(line.key(), line)),
        }
    }

    /// Requests that were lost before they came here.
    pub fn lost(&mut self, count: u64) {
        self.found.requests += count;
        self.found.dropped += count;
    }

    /// Whether some request waits for its line.
    pub fn is_waiting(&self) -> bool {
        !self.requests.is_empty()
    }

    pub fn finish(self, log: String) -> Waterfall {
        Waterfall {
            log,
            missing: self.requests.len() as u64,
            cohorts: self.profile.cohorts(),
            slowest: self.profile.slowest(),
            ..self.found
        }
    }

    fn pair(&mut self, half: &Half, line: &Line) {
        match segments::join(&half.asked, &line.seen) {
            Some(joined) => {
                self.found.joined += 1;
                self.found.cut_max_ns = self.found.cut_max_ns.max(joined.cut);
                self.profile.add(half.number, &line.request_id, &joined);
            }
            None => self.found.disagreeing += 1,
        }
    }
}

/// Things that wait, by key, in two generations of which the older one makes room: the last half of the bound is
/// always kept.
#[derive(Debug)]
struct Waiting<T> {
    young: HashMap<RequestKey, T>,
    old: HashMap<RequestKey, T>,
    most: usize,
}

impl<T> Waiting<T> {
    fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    /// How many had to go for it.
    fn insert(&mut self, key: RequestKey, value: T) -> u64 {
        let mut gone = 0;
        if self.young.len() >= (self.most / 2).max(1) {
            gone = mem::replace(&mut self.old, mem::take(&mut self.young)).len() as u64;
        }
        gone + u64::from(self.young.insert(key, value).is_some())
    }

    fn take(&mut self, key: RequestKey) -> Option<T> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}
