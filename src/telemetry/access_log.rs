//! The access log: one line per request, never in the way of a request.
//!
//! A line is formatted into a scratch buffer of its thread and copied under a mutex into one shared buffer, which a
//! writer thread swaps for its own empty one and hands to the output with one `write` call. Compared with a channel of
//! strings this costs no allocation per line, holds the lock for one `memcpy`, and turns many lines into one system
//! call. The buffer is bounded in lines and bytes; a line beyond it is dropped and counted.
//!
//! Waking a thread costs a system call, so the writer lingers a little after its first line: at most a hundred
//! wake-ups a second whatever the load, and a line is at most 10 ms old when it is written.
//!
//! The output may be slow, full or gone: the writer counts what it could not write and goes on, so the log resumes by
//! itself when the output recovers.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use prometheus::IntCounter;

use super::logging::RateBound;
use super::scalars::Scalars;
use super::{Reason, RequestRecord, access_line, catalogue};
use crate::chance::{FNV_OFFSET, fnv1a};
use crate::config::model::{self, LogOutput};
use crate::monotonic::Monotonic;

/// How long the writer collects lines before it writes them.
const LINGER: Duration = Duration::from_millis(10);
/// Bytes allowed for each line that may wait; a usual line has 500 to 700, the longest about 16 KiB, and up to
/// 48 KiB for an aggregate of many failed sources.
const BYTES_PER_LINE: usize = 1024;
/// Bytes that end the collecting early. Larger batches save no system calls worth counting, and fall out of the cache.
const WRITE_AT: usize = 128 * 1024;
/// A buffer that a burst made larger than this is given back.
const KEPT_CAPACITY: usize = 256 * 1024;
/// How long a non-blocking output may stay full before its lines count as failed.
const STUCK_AFTER: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The request side. Dropping it ends the writer after what is buffered.
#[derive(Debug)]
pub(super) struct AccessLog {
    shared: Arc<Shared>,
    clock: Monotonic,
}

#[derive(Debug)]
struct Shared {
    enabled: AtomicBool,
    /// A request with reason `ok` is logged when the hash of its id is below this; `u64::MAX` logs all.
    sample_below: AtomicU64,
    state: Mutex<State>,
    /// The writer waits here for lines, the end of its linger time, a new output or the end.
    wake: Condvar,
    /// `flush` waits here for lines to be done with.
    progress: Condvar,
    counters: Counters,
}

#[derive(Debug)]
struct Counters {
    written: IntCounter,
    sampled_out: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
}

struct State {
    buffer: Vec<u8>,
    lines: usize,
    max_lines: usize,
    writer: Writer,
    /// Set by a reload; the writer takes it over before its next batch.
    new_output: Option<Box<dyn Write + Send>>,
    /// Someone waits in `flush`: no lingering.
    hurry: bool,
    closing: bool,
    /// Lines ever accepted, and lines done with (written or failed).
    accepted: u64,
    done: u64,
}

/// What the writer does, so that a line wakes it only when it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    NotStarted,
    /// Waits for the first line.
    Idle,
    /// Collects lines until its linger time is over or there are enough for a batch.
    Lingering,
    /// Was woken or writes; it will look at the buffer again by itself.
    Busy,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("lines", &self.lines).field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl AccessLog {
    pub(super) fn new(scalars: &Scalars, config: &model::AccessLog) -> io::Result<Self> {
        let counter = |result| scalars.counter(&catalogue::ACCESS_LOG_LINES, &[result]);
        let state = State {
            buffer: Vec::new(),
            lines: 0,
            max_lines: 0,
            writer: Writer::NotStarted,
            new_output: None,
            hurry: false,
            closing: false,
            accepted: 0,
            done: 0,
        };
        let shared = Arc::new(Shared {
            enabled: AtomicBool::new(false),
            sample_below: AtomicU64::new(0),
            state: Mutex::new(state),
            wake: Condvar::new(),
            progress: Condvar::new(),
            counters: Counters {
                written: counter("written"),
                sampled_out: counter("sampled_out"),
                dropped: counter("dropped"),
                failed: counter("failed"),
            },
        });
        let log = Self { shared, clock: Monotonic::now() };
        log.reconfigure(config)?;
        Ok(log)
    }

    /// Takes over new settings and opens the output again, which is how a rotated file is let go. On an error nothing
    /// has changed.
    pub(super) fn reconfigure(&self, config: &model::AccessLog) -> io::Result<()> {
        match open(&config.output)? {
            Some(output) => self.set_output(Box::new(output), config)?,
            None => self.shared.enabled.store(false, Ordering::Relaxed),
        }
        Ok(())
    }

    fn set_output(&self, output: Box<dyn Write + Send>, config: &model::AccessLog) -> io::Result<()> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if state.writer == Writer::NotStarted {
            let writer = shared.clone();
            thread::Builder::new().name("forebay-access-log".into()).spawn(move || run(&writer))?;
        }
        state.writer = Writer::Busy;
        state.new_output = Some(output);
        state.max_lines = config.buffer.max(1);
        drop(state);
        shared.sample_below.store(sample_threshold(config.sample), Ordering::Relaxed);
        shared.enabled.store(true, Ordering::Relaxed);
        shared.wake.notify_one();
        Ok(())
    }

    /// The request path: about a microsecond, and it never waits for the output.
    pub(super) fn log(&self, record: &RequestRecord, at: SystemTime) {
        // One scratch buffer per thread, kept for its capacity only.
        thread_local!(static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

        if !self.shared.enabled.load(Ordering::Relaxed) {
            return;
        }
        if record.reason == Reason::Ok && !self.shared.samples(record.request_id) {
            self.shared.counters.sampled_out.inc();
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            access_line::write(line, record, at, self.clock.of(record.started));
            self.shared.push(line);
        });
    }

    /// Waits until every line accepted so far was written or counted as failed; false when `timeout` passed first.
    /// Blocks its thread.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.shared.lock();
        let goal = state.accepted;
        state.hurry = true;
        self.shared.wake.notify_one();
        let waited = self.shared.progress.wait_timeout_while(state, timeout, |state| state.done < goal);
        waited.unwrap_or_else(PoisonError::into_inner).0.done >= goal
    }

    pub(super) fn buffered_lines(&self) -> usize {
        self.shared.lock().lines
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn samples(&self, request_id: &str) -> bool {
        let below = self.sample_below.load(Ordering::Relaxed);
        below == u64::MAX || hash(request_id) < below
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.has_room(line.len()) {
            drop(state);
            self.counters.dropped.inc();
            return;
        }
        state.buffer.extend_from_slice(line);
        state.lines += 1;
        state.accepted += 1;
        let wake = match state.writer {
            Writer::Idle => true,
            Writer::Lingering => state.is_batch(),
            Writer::Busy | Writer::NotStarted => false,
        };
        if wake {
            state.writer = Writer::Busy;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits for lines and swaps them into `batch`, which is empty. `None` at the end.
    fn next_batch(&self, batch: &mut Vec<u8>) -> Option<Batch> {
        let mut state = self.lock();
        while !state.has_work() {
            state.writer = Writer::Idle;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.lines > 0 && !state.is_batch() && !state.is_urgent() {
            state.writer = Writer::Lingering;
            let full = |state: &mut State| !state.is_batch() && !state.is_urgent();
            let waited = self.wake.wait_timeout_while(state, LINGER, full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.writer = Writer::Busy;
        state.hurry = false;
        if state.closing && state.lines == 0 {
            return None;
        }
        std::mem::swap(&mut state.buffer, batch);
        let lines = std::mem::take(&mut state.lines);
        Some(Batch { lines: lines as u64, new_output: state.new_output.take() })
    }

    fn done(&self, lines: u64) {
        self.lock().done += lines;
        self.progress.notify_all();
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.lines < self.max_lines && self.buffer.len() + bytes <= self.max_bytes()
    }

    fn max_bytes(&self) -> usize {
        // The longest line fits also when only a few may wait.
        self.max_lines.saturating_mul(BYTES_PER_LINE).max(64 * 1024)
    }

    /// Enough to be worth a write at once.
    fn is_batch(&self) -> bool {
        self.lines >= self.max_lines.div_ceil(2) || self.buffer.len() >= WRITE_AT.min(self.max_bytes() / 2)
    }

    fn has_work(&self) -> bool {
        self.lines > 0 || self.new_output.is_some() || self.closing
    }

    fn is_urgent(&self) -> bool {
        self.hurry || self.closing || self.new_output.is_some()
    }
}

struct Batch {
    lines: u64,
    new_output: Option<Box<dyn Write + Send>>,
}

/// The writer thread.
fn run(shared: &Shared) {
    let mut sink = Sink::default();
    let mut buffer = Vec::new();
    let warnings = RateBound::new(WARN_EVERY);
    while let Some(batch) = shared.next_batch(&mut buffer) {
        if let Some(output) = batch.new_output {
            sink = Sink { output: Some(output), torn: false };
        }
        let failed = match sink.write(&buffer) {
            Ok(()) => 0,
            Err(Lost { lines, error }) => {
                if let Some(suppressed) = warnings.allow(Instant::now()) {
                    tracing::warn!(%error, lines, suppressed, "access log lines lost");
                }
                lines
            }
        };
        shared.counters.failed.inc_by(failed);
        shared.counters.written.inc_by(batch.lines.saturating_sub(failed));
        buffer.clear();
        buffer.shrink_to(KEPT_CAPACITY);
        shared.done(batch.lines);
    }
}

/// Where lines go, and whether the last one got there only in part.
#[derive(Default)]
struct Sink {
    output: Option<Box<dyn Write + Send>>,
    torn: bool,
}

#[derive(Debug)]
struct Lost {
    lines: u64,
    error: io::Error,
}

impl Sink {
    /// Writes whole lines. After an error the rest is lost; a line that was cut in the middle is ended before the next
    /// one, so that only that line is unreadable.
    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let Some(output) = &mut self.output else { return Ok(()) };
        if self.torn {
            write_some(output, b"\n").1.map_err(|error| Lost { lines: count_lines(lines), error })?;
            self.torn = false;
        }
        let (written, result) = write_some(output, lines);
        result.map_err(|error| {
            self.torn = written > 0 && lines[written - 1] != b'\n';
            Lost { lines: count_lines(&lines[written..]), error }
        })
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// `write_all` that says how far it came, and that waits a while when the output is non-blocking and full (a pipe that
/// another process made so).
fn write_some(output: &mut Box<dyn Write + Send>, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    let mut stuck_since = None;
    while written < bytes.len() {
        match output.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                stuck_since = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stuck_since.get_or_insert_with(Instant::now).elapsed() >= STUCK_AFTER {
                    return (written, Err(error));
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// The descriptor itself and not `std::io::Stdout`, whose own buffer and lock are in the way of one `write` per batch.
fn open(output: &LogOutput) -> io::Result<Option<File>> {
    Ok(Some(match output {
        LogOutput::Off => return Ok(None),
        LogOutput::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        LogOutput::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
        LogOutput::File(path) => {
            OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}{}", path.display(), advice(&error)))
            })?
        }
    }))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; make the folder first, or write `output = \"stdout\"`",
        io::ErrorKind::PermissionDenied => "; the user that Forebay runs as has to be able to write there",
        _ => "",
    }
}

/// The part of all hashes that is logged.
fn sample_threshold(sample: f64) -> u64 {
    // The cast saturates: 1.0 and above give `u64::MAX`, which means all; NaN gives 0.
    (sample * 2f64.powi(64)) as u64
}

/// FNV-1a, then the finisher of SplitMix64, since FNV leaves the high bits of short inputs poorly mixed. Any instance
/// with the same sample decides alike about one request id, so that its lines are found on all hops or on none.
fn hash(text: &str) -> u64 {
    let mut hash = fnv1a(FNV_OFFSET, text.as_bytes());
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
