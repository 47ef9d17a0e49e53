//! Comparing answers with the recorded ones while a replay goes on.
//!
//! Comparing must not be measured: statuses are counted where the answer is, which takes less than a microsecond, and
//! bodies are handed to a thread of their own. What waits for it is bounded in number and bytes; what finds no room is
//! counted. Of what differs, counters by path are kept, and one example of each.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::difference::{Difference, Mask, of_bodies};
use super::{Answer, Record};
use crate::aggregate::decode::decode;
use crate::config::model::aggregate::JsonPath;
use crate::config::value::json_path::show_json_path;
use crate::load::answers::{Answers, DifferenceRecord, Kind};
use crate::load::client::Received;

/// Bodies that may wait to be compared, and their bytes.
const MOST_WAITING: usize = 4096;
const MOST_WAITING_BYTES: usize = 64 << 20;
/// Of a body when its content coding is undone.
const MOST_DECODED: u64 = 32 << 20;
/// Paths at which differences are counted; keys may be made of ids.
const MOST_PATHS: usize = 200;

/// What two answers to the same request differ in when nothing has changed.
#[derive(Debug, Default)]
pub struct Noise {
    pub mask: Mask,
    pub learned: Vec<JsonPath>,
    /// Targets whose body is another one each time as a whole.
    pub restless: BTreeSet<u32>,
}

/// Compares as a run goes on.
#[derive(Debug)]
pub struct Comparison {
    shared: Arc<Shared>,
    waiting: Mutex<Option<SyncSender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    records: Arc<[Record]>,
    told: Vec<JsonPath>,
    noise: OnceLock<Noise>,
    bytes: AtomicUsize,
    tally: Mutex<Tally>,
}

#[derive(Debug)]
struct Work {
    record: u32,
    target: u32,
    received: Received,
}

#[derive(Debug, Default)]
struct Tally {
    found: Answers,
    paths: BTreeMap<(String, Kind), DifferenceRecord>,
}

impl Comparison {
    /// # Errors
    ///
    /// When a thread cannot be made.
    pub fn start(records: Arc<[Record]>, told: Vec<JsonPath>) -> io::Result<Self> {
        let (waiting, work) = sync_channel(MOST_WAITING);
        let (noise, bytes, tally) = (OnceLock::new(), AtomicUsize::new(0), Mutex::default());
        let shared = Arc::new(Shared { records, told, noise, bytes, tally });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("answers".into()).spawn(move || theirs.work(work))?;
        Ok(Self { shared, waiting: Mutex::new(Some(waiting)), thread: Mutex::new(Some(thread)) })
    }

    /// The mask as told.
    pub fn told(&self) -> Mask {
        Mask::new(self.shared.told.iter().cloned())
    }

    /// What was learned before the run; counts once, and from then on.
    pub fn learn(&self, noise: Noise) {
        let _ = self.shared.noise.set(noise);
    }

    /// An answer to this record, sent to this target, has this status and, if the recorded one has a body, this one.
    pub fn answered(&self, record: u32, target: u32, status: u16, received: Option<Received>) {
        let then = &self.shared.records[record as usize];
        let Some(recorded) = then.status else { return };
        if recorded != status {
            let (recorded, replayed) = (recorded.to_string(), status.to_string());
            let mut tally = self.shared.tally();
            tally.found.compared += 1;
            tally.found.different += 1;
            tally.count("status".into(), Kind::Status, then, String::new(), recorded, replayed);
        } else if let (Some(received), Some(_)) = (received, &then.answer) {
            self.queue(Work { record, target, received });
        } else {
            self.shared.tally().same(false);
        }
    }

    fn queue(&self, work: Work) {
        let size = work.received.body.as_ref().map_or(0, Vec::len);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = self.shared.bytes.fetch_add(size, Ordering::Relaxed) + size <= MOST_WAITING_BYTES;
        let is_queued = has_room && waiting.as_ref().is_some_and(|waiting| waiting.try_send(work).is_ok());
        if !is_queued {
            self.shared.bytes.fetch_sub(size, Ordering::Relaxed);
            let mut tally = self.shared.tally();
            tally.same(false);
            tally.found.dropped += 1;
        }
    }

    /// Compares what still waits, and says what came of it.
    pub fn finish(&self) -> Answers {
        // Without a sender the thread ends after the last one.
        drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It catches nothing; if it panicked, what it has counted so far is still there.
            let _ = thread.join();
        }
        let Tally { mut found, paths } = mem::take(&mut *self.shared.tally());
        found.differences = paths.into_values().collect();
        found.differences.sort_by_key(|one| std::cmp::Reverse(one.answers));
        let shown = |paths: &[JsonPath]| paths.iter().map(show_json_path).collect();
        found.ignored = shown(&self.shared.told);
        found.learned = self.shared.noise.get().map(|noise| shown(&noise.learned)).unwrap_or_default();
        found
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Whoever panicked with the lock was counting.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, work: Receiver<Work>) {
        let told = Mask::new(self.told.iter().cloned());
        for Work { record, target, received } in work {
            let size = received.body.as_ref().map_or(0, Vec::len);
            let noise = self.noise.get();
            let mask = noise.map_or(&told, |noise| &noise.mask);
            let then = &self.records[record as usize];
            let is_restless = noise.is_some_and(|noise| noise.restless.contains(&target));
            let differences = then.answer.as_ref().and_then(|answer| differences(answer, received, mask));
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.tally().compared(then, differences.filter(|_| !is_restless));
        }
    }
}

impl Tally {
    fn same(&mut self, with_body: bool) {
        self.found.compared += 1;
        self.found.equal += 1;
        self.found.bodies += u64::from(with_body);
    }

    /// `None` if the bodies say nothing about each other.
    fn compared(&mut self, then: &Record, differences: Option<Vec<Difference>>) {
        let Some(differences) = differences else {
            self.found.incomparable += 1;
            return self.same(false);
        };
        if differences.is_empty() {
            return self.same(true);
        }
        self.found.compared += 1;
        self.found.bodies += 1;
        self.found.different += 1;
        // A path that differs in many places of one answer counts once.
        let mut seen = BTreeSet::new();
        for one in differences {
            let path = one.path();
            if seen.insert((path.clone(), one.kind)) {
                self.count(path, one.kind, then, one.place, one.recorded, one.replayed);
            }
        }
    }

    fn count(&mut self, path: String, kind: Kind, then: &Record, place: String, recorded: String, replayed: String) {
        let key = (path.clone(), kind);
        if let Some(known) = self.paths.get_mut(&key) {
            known.answers += 1;
        } else if self.paths.len() < MOST_PATHS {
            let request = format!("{} {}", then.method, then.path);
            self.paths.insert(key, DifferenceRecord { path, kind, answers: 1, request, place, recorded, replayed });
        } else {
            self.found.others += 1;
        }
    }
}

/// In what a received answer differs from a recorded one; `None` if that cannot be told.
fn differences(recorded: &Answer, received: Received, mask: &Mask) -> Option<Vec<Difference>> {
    if recorded.is_cut {
        return None;
    }
    let then = content(&recorded.headers, recorded.body.clone())?;
    let now = content(&received.headers, received.body?.into())?;
    Some(of_bodies(&then, &now, mask))
}

/// In what two answers to one request differ: noise. `None` if that cannot be told.
pub fn noise(one: Received, other: Received, mask: &Mask) -> Option<Vec<Difference>> {
    let first = content(&one.headers, one.body?.into())?;
    let second = content(&other.headers, other.body?.into())?;
    Some(of_bodies(&first, &second, mask))
}

fn content(headers: &HeaderMap, body: Bytes) -> Option<Bytes> {
    let coding = headers.get(CONTENT_ENCODING).map(|coding| coding.to_str()).transpose().ok()?;
    decode(coding, body, MOST_DECODED).ok()
}

#[cfg(test)]
#[path = "comparison_tests.rs"]
mod tests;
