//! Recording: requests as clients sent them, to a file that `forebay replay` sends again.
//!
//! The requests never wait: what cannot be handed over is dropped and counted. A thread of its own takes secrets out,
//! and writes. The file is a new one, has a largest size, and ends after a while.

mod redact;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use crate::chance;
use crate::config::model::Record as Settings;
use crate::message::head::{Body, Fields, RequestHead, ResponseHead};
use crate::replay::{Answer, Record, add_field, recording};
use crate::tap::{Budget, Copied, Share, Tap};
use crate::telemetry::{RecordMetrics, RecordResult};
use crate::units::show_duration;
pub use redact::Names;

/// Requests that may wait for the writer.
const MOST_WAITING: usize = 1024;
/// Bytes of heads and bodies that are held for requests in flight and for those that wait.
const MOST_BYTES: usize = 32 << 20;

/// The recording of one configuration.
#[derive(Debug)]
pub struct Recorder {
    settings: Arc<Settings>,
    names: Names,
    began: Instant,
    begun: AtomicBool,
    /// False before it begins and after it has ended.
    active: AtomicBool,
    budget: Arc<Budget>,
    metrics: Arc<RecordMetrics>,
    /// While it is active. Without a lock, since every recorded request comes by.
    writer: ArcSwapOption<SyncSender<Message>>,
}

enum Message {
    Request(Box<Recorded>),
    /// Everything before this is written when the sender in it is dropped.
    Flush(SyncSender<()>),
}

/// A request that is being recorded.
#[derive(Debug)]
pub struct Recorded {
    head: RequestHead,
    /// Of the budget, for both heads.
    heads: Share,
    started: Instant,
    body: Arc<Tap>,
    has_body: bool,
    /// Of the answer, where it is recorded.
    answer: Option<Arc<Tap>>,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    status: u16,
    duration: Duration,
    answer: Option<ResponseHead>,
}

impl Recorded {
    /// The tap that the request's body has to pass.
    pub fn body(&self) -> &Arc<Tap> {
        &self.body
    }

    /// The tap that the answer's body has to pass.
    pub fn answer(&self) -> Option<&Arc<Tap>> {
        self.answer.as_ref()
    }

    /// It ended with this status after this time; `answer` is the head as the client got it, of an answer that is none of a
    /// failure.
    pub fn ended(&mut self, status: u16, duration: Duration, answer: Option<&ResponseHead>) {
        let answer = answer.filter(|_| self.answer.is_some()).cloned();
        let answer = answer.filter(|answer| self.heads.grow(answer.fields.capacity_bytes()));
        self.ended = Some(Ended { status, duration, answer });
    }
}

impl Recorder {
    /// Does nothing before [`Recorder::begin`].
    pub fn new(settings: Arc<Settings>, metrics: Arc<RecordMetrics>) -> Arc<Self> {
        Arc::new(Self {
            names: Names { redact: settings.redact.clone(), keep: settings.keep.clone() },
            settings,
            began: Instant::now(),
            begun: AtomicBool::new(false),
            active: AtomicBool::new(false),
            budget: Budget::new(MOST_BYTES),
            metrics,
            writer: ArcSwapOption::empty(),
        })
    }

    /// True when it does, or did, what these settings say: a reload that leaves them alone neither begins nor lengthens it.
    /// One that could not begin did not.
    pub fn is(&self, settings: &Settings) -> bool {
        self.begun.load(Ordering::Relaxed) && *self.settings == *settings
    }

    /// Opens the file and starts. A file that is there already is never written to: then nothing is recorded, and the log
    /// says so. Does nothing when it has begun.
    pub fn begin(self: &Arc<Self>) {
        if self.begun.load(Ordering::Relaxed) {
            return;
        }
        let file = self.settings.file.display();
        match self.start() {
            Ok(()) => {
                let ends_within = show_duration(self.settings.end_after);
                tracing::warn!(%file, ends_within, "recording requests; secrets are taken out by their names");
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tracing::error!(%file, "nothing is recorded: the file is there already; move it away and reload");
            }
            Err(error) => tracing::error!(%file, %error, "nothing is recorded: the file cannot be written"),
        }
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        // What is left of it is what people sent, and no business of other users of the machine.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.settings.file)?;
        let head = recording::head();
        let mut file = BufWriter::new(file);
        file.write_all(head.as_bytes())?;
        file.flush()?;
        let output = Output { file, left: self.settings.max_file_bytes.saturating_sub(head.len() as u64), recorded: 0 };
        let (sender, messages) = mpsc::sync_channel(MOST_WAITING);
        let ends = std::time::Instant::now() + self.settings.end_after;
        // The thread must not keep the recorder alive: it ends when that is dropped.
        let recorder = Arc::downgrade(self);
        let names = self.names.clone();
        let (settings, metrics, began) = (self.settings.clone(), self.metrics.clone(), self.began);
        thread::Builder::new().name("forebay-recorder".into()).spawn(move || {
            let writing = Writing { names, settings, metrics: metrics.clone(), began };
            let recorded = writing.run(&messages, output, ends);
            if let Some(recorder) = recorder.upgrade() {
                recorder.end();
            }
            let unwritten = messages.try_iter().filter(|message| matches!(message, Message::Request(_)));
            unwritten.for_each(|_| metrics.count(RecordResult::Dropped));
            // The next recording may have begun meanwhile.
            metrics.active.dec();
            tracing::info!(recorded, file = %writing.settings.file.display(), "the recording has ended");
        })?;
        self.metrics.active.inc();
        self.writer.store(Some(Arc::new(sender)));
        self.active.store(true, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The request as it is recorded, if it is: by its route and by the hash of its id.
    pub fn record(&self, route: &str, request_id: &str, head: &RequestHead, started: Instant) -> Option<Box<Recorded>> {
        let Settings { routes, sample, max_body_bytes, answers, end_after, .. } = &*self.settings;
        if !self.active.load(Ordering::Relaxed) || !(routes.is_empty() || routes.iter().any(|name| name == route)) {
            return None;
        }
        if started >= self.began + *end_after {
            self.end();
            return None;
        }
        if chance::unit(0, request_id, 0, 2) >= *sample {
            return None;
        }
        let head = head.clone();
        let Some(heads) = self.budget.share(head.fields.capacity_bytes()) else {
            self.metrics.count(RecordResult::Dropped);
            return None;
        };
        let tap = || Arc::new(Tap::new(*max_body_bytes, &self.budget));
        Some(Box::new(Recorded {
            started,
            body: tap(),
            has_body: !matches!(head.framing(), Body::None | Body::Length(0)),
            answer: answers.then(tap),
            ended: None,
            head,
            heads,
        }))
    }

    /// Hands a request over to the writer.
    pub fn finish(&self, recorded: Box<Recorded>) {
        let sent =
            self.writer.load().as_ref().is_some_and(|writer| writer.try_send(Message::Request(recorded)).is_ok());
        if !sent {
            self.metrics.count(RecordResult::Dropped);
        }
    }

    /// Lets the writer write what it has, and stop.
    fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
        self.writer.store(None);
    }

    /// At the end of the process: waits until everything handed over is written, at most for `timeout`. Blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (sender, done) = mpsc::sync_channel(0);
        let writer = self.writer.load_full();
        match writer.map(|writer| writer.try_send(Message::Flush(sender))) {
            Some(Ok(())) => done.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected),
            Some(Err(TrySendError::Full(_))) => false,
            _ => true,
        }
    }
}

struct Output {
    file: BufWriter<File>,
    left: u64,
    recorded: u64,
}

/// What the thread works with.
struct Writing {
    names: Names,
    settings: Arc<Settings>,
    metrics: Arc<RecordMetrics>,
    began: Instant,
}

impl Writing {
    /// Writes until nobody sends any more, its time is over, the file is full or cannot be written; gives the number of
    /// requests.
    fn run(&self, messages: &Receiver<Message>, mut output: Output, ends: std::time::Instant) -> u64 {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => Ok(message),
                Err(TryRecvError::Empty) => {
                    if let Err(error) = output.file.flush() {
                        tracing::error!(%error, "the recording cannot be written");
                        return output.recorded;
                    }
                    messages.recv_timeout(ends.saturating_duration_since(std::time::Instant::now())).map_err(drop)
                }
                Err(TryRecvError::Disconnected) => Err(()),
            };
            match message {
                Ok(Message::Request(recorded)) => {
                    if !self.write(&recorded, &mut output) {
                        return output.recorded;
                    }
                }
                Ok(Message::Flush(done)) => {
                    let _ = output.file.flush();
                    drop(done);
                }
                Err(()) => {
                    // An error was already said, or is about the very last lines.
                    let _ = output.file.flush();
                    return output.recorded;
                }
            }
        }
    }

    /// False when the recording is over.
    fn write(&self, recorded: &Recorded, output: &mut Output) -> bool {
        let Some(record) = self.convert(recorded) else {
            self.metrics.count(RecordResult::LeftOut);
            return true;
        };
        let line = recording::line(&record);
        if line.len() as u64 > output.left {
            tracing::warn!("the recording has reached max_size");
            self.metrics.count(RecordResult::Dropped);
            let _ = output.file.flush();
            return false;
        }
        if let Err(error) = output.file.write_all(line.as_bytes()) {
            tracing::error!(%error, "the recording cannot be written");
            self.metrics.count(RecordResult::Failed);
            return false;
        }
        output.left -= line.len() as u64;
        output.recorded += 1;
        self.metrics.count(RecordResult::Written);
        true
    }

    /// `None` when it could not be sent again as it was: its body is not there.
    fn convert(&self, recorded: &Recorded) -> Option<Record> {
        let head = &recorded.head;
        let at = u64::try_from(recorded.started.saturating_duration_since(self.began).as_nanos()).ok()?;
        let method = http::Method::from_bytes(head.method.as_str().as_bytes()).ok()?;
        let target = self.names.target(std::str::from_utf8(head.target()).ok()?).into_owned();
        let mut record = Record::new(at, method, target);
        record.headers = self.headers(&head.fields);
        if recorded.has_body {
            record.body = self.body(&record.headers, &recorded.body.copied()?)?;
        }
        let ended = recorded.ended.as_ref()?;
        record.status = (ended.status >= 100).then_some(ended.status);
        record.duration = u64::try_from(ended.duration.as_nanos()).ok();
        record.answer = ended.answer.as_ref().map(|answer| {
            let headers = self.headers(&answer.fields);
            let body = recorded.answer.as_ref().and_then(|tap| tap.copied());
            let body = body.and_then(|body| self.body(&headers, &body));
            let is_cut = body.is_none();
            Answer::new(&headers, body.unwrap_or_default(), is_cut)
        });
        Some(record)
    }

    /// As it may be kept; `None` when nobody can tell whether it holds a secret.
    fn body(&self, headers: &HeaderMap, body: &Copied) -> Option<Bytes> {
        if body.bytes.is_empty() {
            return Some(Bytes::new());
        }
        let looked_into = self.looked_into(headers, body);
        looked_into.or_else(|| self.settings.opaque_bodies.then(|| body.bytes.clone()))
    }

    fn looked_into(&self, headers: &HeaderMap, body: &Copied) -> Option<Bytes> {
        if headers.contains_key(http::header::CONTENT_ENCODING) {
            return None;
        }
        let content_type = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
        self.names.body(content_type, &body.bytes).map(|body| Bytes::copy_from_slice(&body))
    }

    fn headers(&self, fields: &Fields) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value, _) in fields.iter() {
            let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { continue };
            // What cannot be sent again is left out, as in every other recording.
            let _ = add_field(&mut headers, name, &self.names.field(name, value));
        }
        headers
    }
}

#[cfg(test)]
mod tests;
