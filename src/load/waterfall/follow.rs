//! The thread that follows the access log while a run goes on.
//!
//! Workers put what has ended into a box, which costs them a lock that is held for one copy; this thread empties it and
//! reads the log some fifty times a second. After the run it waits a little for the last lines.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::join::{Half, Join};
use super::record::Waterfall;
use super::segments::Asked;
use super::tail::Tail;
use super::{RequestKey, RunId};
use crate::load::driver::Tap;
use crate::load::pace::Clock;
use crate::load::{SECOND, Sample};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The sidecar writes a line 10 ms after the request's end at the latest, unless its output is stuck.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Requests that may end between two looks: more than three million a second.
pub const MOST_AT_ONCE: usize = 1 << 16;

/// Follows an access log. Dropping it ends its thread.
#[derive(Debug)]
pub struct Follower {
    log: PathBuf,
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<io::Result<Join>>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    content: Mutex<Content>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    ended: Vec<Half>,
    lost: u64,
    /// The run is over; how long lines may still be waited for.
    until: Option<Instant>,
}

impl Follower {
    /// Follows from the present end of the file on.
    ///
    /// # Errors
    ///
    /// When it cannot be followed, or a thread cannot be made.
    pub fn start(log: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            let advice = "name the file of `[access_log] output` of a running sidecar on this machine";
            io::Error::new(error.kind(), format!("--waterfall {}: {error}; {advice}", log.display()))
        };
        let tail = Tail::open(log).map_err(named)?;
        let mailbox = Arc::<Mailbox>::default();
        let shared = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new().name("waterfall".into()).spawn(move || follow(tail, &shared))?;
        Ok(Self { log: log.to_owned(), mailbox, thread: Some(thread) })
    }

    /// What the driver tells of each request. Those that failed are no part of the response times, and of the first
    /// `warm_up` seconds none is.
    pub fn tap(&self, run: RunId, warm_up: u32) -> Tap {
        let (mailbox, measured_from) = (Arc::clone(&self.mailbox), u64::from(warm_up) * SECOND);
        Arc::new(move |clock: &Clock, sample: &Sample, answered: Option<RequestKey>| {
            if sample.intended >= measured_from && sample.end.is_timed() {
                mailbox.put(half(clock, sample, answered, run));
            }
        })
    }

    /// Waits for the last lines and says what was found. Blocks its thread for two seconds at most.
    ///
    /// # Errors
    ///
    /// When the file could not be read any more.
    pub fn finish(mut self) -> io::Result<Waterfall> {
        self.mailbox.close(Instant::now() + LAST_LINES);
        let thread = self.thread.take().expect("only finishing takes it");
        let join = thread.join().unwrap_or_else(|_| Err(io::Error::other("following the access log panicked")))?;
        Ok(join.finish(self.log.display().to_string()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.mailbox.close(Instant::now());
    }
}

fn half(clock: &Clock, sample: &Sample, answered: Option<RequestKey>, run: RunId) -> Half {
    Half {
        answered,
        sent_as: RequestKey::of(run.request(sample.number).as_bytes()),
        number: sample.number,
        asked: Asked {
            intended: clock.of_machine(sample.intended),
            sent: clock.of_machine(sample.sent),
            ended: clock.of_machine(sample.ended),
            connect: sample.connect.unwrap_or_default(),
        },
    }
}

fn follow(mut tail: Tail, mailbox: &Mailbox) -> io::Result<Join> {
    let mut join = Join::default();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        // In this order: a request that was given up before its line was written is known before its line is, and need
        // not be found afterwards.
        let more = tail.read(|line| lines.push(line.to_vec()))?;
        let until = mailbox.empty(&mut join);
        lines.drain(..).for_each(|line| join.logged(&line));
        if more {
            continue;
        }
        match until {
            Some(until) if !join.is_waiting() || Instant::now() >= until => return Ok(join),
            _ => mailbox.wait(),
        }
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        // Whoever panicked with the lock was copying plain data.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, half: Half) {
        let mut content = self.lock();
        if content.ended.len() < MOST_AT_ONCE {
            content.ended.push(half);
        } else {
            content.lost += 1;
        }
    }

    /// Hands everything over, and says until when to go on if the run is over.
    fn empty(&self, join: &mut Join) -> Option<Instant> {
        let (ended, lost, until) = {
            let mut content = self.lock();
            (mem::take(&mut content.ended), mem::take(&mut content.lost), content.until)
        };
        ended.into_iter().for_each(|half| join.ended(half));
        join.lost(lost);
        until
    }

    fn wait(&self) {
        let content = self.lock();
        // Once the run is over nobody wakes it any more, and looking is all that is left.
        drop(self.wake.wait_timeout(content, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner));
    }

    fn close(&self, until: Instant) {
        self.lock().until.get_or_insert(until);
        self.wake.notify_all();
    }
}
