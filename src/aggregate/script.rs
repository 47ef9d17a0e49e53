//! A [`Fetch`] that does what a test wrote down, under the clock of the test, and remembers what happened to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Answer, Call, Called, Failed, Fetch};
use crate::telemetry::Reason;

/// Answers by target. One that is not written down panics.
#[derive(Default)]
pub(crate) struct Script {
    lines: Mutex<HashMap<String, VecDeque<Line>>>,
    log: Mutex<Log>,
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    delay: Duration,
    end: End,
}

#[derive(Debug, Clone)]
pub(crate) enum End {
    Answer(Answer),
    Fails(Reason),
    Panics,
    /// Not even at the deadline.
    Never,
}

/// What happened. Calls are named by their targets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub begun: Vec<String>,
    pub cancelled: Vec<String>,
    /// Of each call, in the order of `begun`.
    pub deadlines: Vec<Option<Instant>>,
    pub in_flight: usize,
    pub in_flight_max: usize,
}

impl Script {
    /// JSON with status 200.
    pub(crate) fn answers(self, target: &str, delay: Duration, body: &str) -> Self {
        self.ends(target, delay, End::Answer(answer(200, body)))
    }

    /// The first call of the target ends as the first line says, the second as the second; the last line stays.
    pub(crate) fn ends(self, target: &str, delay: Duration, end: End) -> Self {
        lock(&self.lines).entry(target.into()).or_default().push_back(Line { delay, end });
        self
    }

    pub(crate) fn log(&self) -> Log {
        lock(&self.log).clone()
    }

    fn next(&self, target: &str) -> Line {
        let mut lines = lock(&self.lines);
        let lines = lines.get_mut(target).unwrap_or_else(|| panic!("no line for {target}"));
        if lines.len() > 1 { lines.pop_front() } else { lines.front().cloned() }.expect("each target has a line")
    }
}

impl Fetch for Script {
    async fn fetch(&self, call: Call, deadline: Option<Instant>) -> Called {
        let line = self.next(&call.target);
        let flight = Flight::begin(self, call, deadline);
        if matches!(line.end, End::Never) {
            std::future::pending::<()>().await;
        }
        let result = tokio::select! {
            biased;
            () = sleep(line.delay) => line.end.result(),
            () = until(deadline) => Err(failed(Reason::DeadlineBody)),
        };
        flight.end();
        Called { result, attempts: 1, queue: Duration::ZERO }
    }
}

impl End {
    fn result(self) -> Result<Answer, Failed> {
        match self {
            End::Answer(answer) => Ok(answer),
            End::Fails(reason) => Err(failed(reason)),
            End::Panics => panic!("as the script says"),
            End::Never => unreachable!("waited for above"),
        }
    }
}

pub(crate) fn answer(status: u16, body: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Answer { status, content_type: Some("application/json".into()), content_encoding: None, body }
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn failed(reason: Reason) -> Failed {
    Failed { reason, detail: None, retry_after: None }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

/// A call in flight; one that is dropped before its end was cancelled.
struct Flight<'a> {
    script: &'a Script,
    target: Option<String>,
}

impl<'a> Flight<'a> {
    fn begin(script: &'a Script, call: Call, deadline: Option<Instant>) -> Self {
        let mut log = lock(&script.log);
        log.begun.push(call.target.clone());
        log.deadlines.push(deadline);
        log.in_flight += 1;
        log.in_flight_max = log.in_flight_max.max(log.in_flight);
        Self { script, target: Some(call.target) }
    }

    fn end(mut self) {
        self.target = None;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut log = lock(&self.script.log);
        log.in_flight -= 1;
        log.cancelled.extend(self.target.take());
    }
}
