//! What is seen of a run while it goes on: a block that is drawn anew on a terminal, a line each second elsewhere.
//!
//! Whoever observes the driver (in its own task, not a worker's) keeps a [`Tracker`] and leaves a [`Snapshot`] behind
//! some times a second. A [`View`] has a thread of its own, takes the latest and draws it: a terminal that is slow or stopped (Ctrl-S)
//! holds up the drawing, never the run.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::driver::Progress;
use super::ledger::{Book, Counts, Second, Timings};
use super::report::Look;
use super::result::{Distribution, SecondRecord};
use super::{ErrorKind, SECOND};

mod draw;
pub mod exposition;

/// Four pictures a second are fluent enough to read numbers in.
const FRAME: Duration = Duration::from_millis(250);
/// Workers hand over every tenth of a second: a second that has just ended lacks what they have not told yet.
const TOLD_AFTER_NS: u64 = 250_000_000;
/// Seconds that are kept to be shown: more than a terminal is wide.
const ROWS: usize = 240;

/// In which part of the run it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    WarmUp,
    Measuring,
    /// Everything was sent; answers are waited for.
    Draining,
    /// Ctrl-C: nothing more is sent, answers are waited for.
    Interrupted,
}

/// Where the run stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    pub phase: Phase,
    pub elapsed_ns: u64,
    pub planned_ns: u64,
    pub in_flight: u64,
}

/// Everything that is shown, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub moment: Moment,
    /// Without the warm-up, as the rest but for the rows.
    pub counts: Counts,
    pub errors: BTreeMap<ErrorKind, u64>,
    pub response: Quick,
    pub service: Quick,
    pub lateness_p99_ns: u64,
    /// The last seconds that are over, in order.
    pub rows: Vec<Row>,
}

/// What is shown of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quick {
    pub count: u64,
    pub p50_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

impl Quick {
    fn of(timings: &Timings) -> Self {
        Self {
            count: timings.count(),
            p50_ns: timings.quantile_ns(0.5),
            p95_ns: timings.quantile_ns(0.95),
            p99_ns: timings.quantile_ns(0.99),
            max_ns: timings.max_ns(),
        }
    }

    fn of_distribution(distribution: &Distribution) -> Self {
        Self {
            count: distribution.count,
            p50_ns: distribution.p50_ns,
            p95_ns: distribution.p95_ns,
            p99_ns: distribution.p99_ns,
            max_ns: distribution.max_ns,
        }
    }
}

/// A second that is over: what became, up to now, of the requests that were due in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    pub second: u32,
    pub counts: Counts,
    /// Requests sent and ended while it lasted.
    pub sent: u64,
    pub ended: u64,
    pub response: Quick,
    pub lateness_p99_ns: u64,
}

impl Row {
    fn of_open(index: u32, second: &Second) -> Self {
        Self {
            second: index,
            counts: second.counts,
            sent: second.during.sent,
            ended: second.during.ended,
            response: Quick::of(&second.response),
            lateness_p99_ns: second.lateness.quantile_ns(0.99),
        }
    }

    fn of_settled(second: &SecondRecord) -> Self {
        Self {
            second: second.second,
            counts: second.counts,
            sent: second.during.sent,
            ended: second.during.ended,
            response: Quick::of_distribution(&second.response),
            lateness_p99_ns: second.lateness.p99_ns,
        }
    }

    /// Requests due in it that are still in flight.
    fn open(&self) -> u64 {
        self.counts.sent.saturating_sub(self.counts.ended())
    }
}

/// Makes snapshots. Constant memory.
#[derive(Debug, Default)]
pub struct Tracker {
    warm_up: u32,
    planned_ns: u64,
    settled: BTreeMap<u32, Row>,
}

impl Tracker {
    /// `warm_up` in seconds, as in the plan.
    pub fn new(warm_up: u32, planned_ns: u64) -> Self {
        Self { warm_up, planned_ns, settled: BTreeMap::new() }
    }

    /// What the driver tells of, made into what is shown. Some hundred microseconds in the task of the caller.
    pub fn observe(&mut self, progress: &Progress<'_>, interrupted: bool) -> Snapshot {
        progress.settled.iter().for_each(|second| self.settled(second));
        let phase = match (interrupted, progress.draining) {
            (true, _) => Phase::Interrupted,
            (false, true) => Phase::Draining,
            (false, false) if progress.now < u64::from(self.warm_up) * SECOND => Phase::WarmUp,
            (false, false) => Phase::Measuring,
        };
        let moment =
            Moment { phase, elapsed_ns: progress.now, planned_ns: self.planned_ns, in_flight: progress.in_flight };
        self.snapshot(progress.book, moment)
    }

    fn settled(&mut self, second: &SecondRecord) {
        self.settled.insert(second.second, Row::of_settled(second));
        while self.settled.len() > ROWS {
            self.settled.pop_first();
        }
    }

    /// Adds up what is settled and what is not.
    fn snapshot(&self, book: &Book, moment: Moment) -> Snapshot {
        // At the end there is no later picture for it to be whole in.
        let lag = if moment.phase == Phase::Draining { 0 } else { TOLD_AFTER_NS };
        let now = u32::try_from(moment.elapsed_ns.saturating_sub(lag) / SECOND).unwrap_or(u32::MAX);
        let mut response = book.total().response.clone();
        let mut service = book.total().service.clone();
        let mut lateness = book.total().lateness.clone();
        let mut rows = self.settled.clone();
        for (index, second) in book.open() {
            if index >= self.warm_up {
                response.merge(second.response.clone());
                service.merge(second.service.clone());
                lateness.merge(second.lateness.clone());
            }
            if index < now {
                rows.insert(index, Row::of_open(index, second));
            }
        }
        Snapshot {
            moment,
            counts: book.counts(),
            errors: book.errors().clone(),
            response: Quick::of(&response),
            service: Quick::of(&service),
            lateness_p99_ns: lateness.quantile_ns(0.99),
            rows: rows.into_values().collect(),
        }
    }
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A block that is drawn anew: needs a terminal that knows the usual codes.
    Block,
    /// A line each second.
    Lines,
    Quiet,
}

impl Mode {
    pub fn of(quiet: bool, terminal: bool) -> Self {
        match (quiet, terminal) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Block,
            (false, false) => Mode::Lines,
        }
    }
}

/// The thread that shows a run. It ends by [`View::stop`], or when the output fails, as when a pipe is closed.
#[derive(Debug)]
pub struct View {
    /// Dropping it ends the thread.
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl View {
    /// `title` is the first line of the block; `look` is asked for each picture, since windows change their size.
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(
        mode: Mode,
        title: String,
        look: impl Fn() -> Look + Send + 'static,
        output: impl Write + Send + 'static,
        snapshots: watch::Receiver<Snapshot>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut screen = Screen { mode, title, output, drawn: 0, next_second: 0 };
        let thread = thread::Builder::new().name("live-view".to_owned()).spawn(move || {
            // The last picture is drawn after the stop: also a run shorter than a frame is seen, and no line is lost.
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(FRAME) {
                let snapshot = snapshots.borrow().clone();
                if screen.show(&snapshot, &look()).is_err() {
                    return;
                }
            }
            let snapshot = snapshots.borrow().clone();
            // Nobody is left to be told that the output is gone.
            let _ = screen.end(&snapshot, &look());
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the showing and removes the block, so that a report takes its place.
    pub fn stop(self) {
        drop(self.stop);
        // A panic there has been reported by its hook; the run's result does not depend on it.
        let _ = self.thread.join();
    }
}

/// What is on the screen, or in the file.
struct Screen<W> {
    mode: Mode,
    title: String,
    output: W,
    /// Lines of the block that is there now.
    drawn: usize,
    /// The first second that has no line yet.
    next_second: u32,
}

impl<W: Write> Screen<W> {
    fn show(&mut self, snapshot: &Snapshot, look: &Look) -> std::io::Result<()> {
        match self.mode {
            Mode::Quiet => Ok(()),
            Mode::Lines => self.lines(snapshot),
            Mode::Block => self.block(snapshot, look),
        }
    }

    fn end(&mut self, snapshot: &Snapshot, look: &Look) -> std::io::Result<()> {
        self.show(snapshot, look)?;
        if self.mode == Mode::Block && self.drawn > 0 {
            write!(self.output, "\x1b[{}A\x1b[J", self.drawn)?;
            self.output.flush()?;
        }
        Ok(())
    }

    fn lines(&mut self, snapshot: &Snapshot) -> std::io::Result<()> {
        for row in snapshot.rows.iter().filter(|row| row.second >= self.next_second) {
            writeln!(self.output, "{}", draw::line(snapshot, row))?;
        }
        self.next_second = snapshot.rows.last().map_or(self.next_second, |row| self.next_second.max(row.second + 1));
        self.output.flush()
    }

    /// One write for the whole picture, or it flickers. Lines that are too long are cut by the terminal (`?7l`) and not
    /// wrapped, which would spoil the count of lines to go up by.
    fn block(&mut self, snapshot: &Snapshot, look: &Look) -> std::io::Result<()> {
        let lines = draw::block(&self.title, snapshot, look);
        let mut picture = String::from("\x1b[?7l");
        if self.drawn > 0 {
            picture.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            picture.push_str(line);
            picture.push_str("\x1b[K\n");
        }
        picture.push_str("\x1b[J\x1b[?7h");
        self.drawn = lines.len();
        self.output.write_all(picture.as_bytes())?;
        self.output.flush()
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
