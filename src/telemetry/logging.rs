//! Forebay's own log (`tracing`): to stderr, so that stdout stays free for the access log.
//!
//! Lines go through a bounded queue to a thread that writes them. A reader of stderr that stalls costs lines, never a
//! request, a signal or the exit: written from the workers, a full pipe froze the whole process.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::hub::lock;
use crate::config::model::{Log, LogFormat};

/// Why the log could not be set up.
#[derive(Debug)]
pub enum LoggingError {
    /// `log.level` is not a filter.
    Filter(String),
    /// The process has a log already.
    AlreadySet,
}

impl std::fmt::Display for LoggingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Filter(why) => {
                write!(f, "log.level is not a filter: {why}; write for example \"info\" or \"forebay=debug,warn\"")
            }
            Self::AlreadySet => f.write_str("the process has a log already"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Lines that may wait for a reader of stderr; beyond it they are dropped.
const MAX_WAITING_LINES: usize = 4096;

/// Sets the process's log; once, by the binary. `tracing` is global by design; nothing else here is. Dropping the guard
/// writes what still waits, for about a second at most.
pub fn init(config: &Log) -> Result<WorkerGuard, LoggingError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING_LINES)
        .thread_name("log")
        .finish(io::stderr());
    let subscriber = subscriber(config, io::stderr().is_terminal(), writer)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::AlreadySet)?;
    Ok(guard)
}

/// Is this a valid `log.level`? For checking a configuration without taking it.
pub fn check_filter(level: &str) -> Result<(), LoggingError> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| LoggingError::Filter(error.to_string()))?;
    if level.contains("h2") {
        return Ok(filter);
    }
    // h2 warns about what clients do, once for each connection: theirs to cause, nothing for an operator to act on.
    let quiet = "h2=error".parse().expect("this is a directive");
    Ok(filter.add_directive(quiet))
}

fn subscriber<W>(config: &Log, colours: bool, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&config.level)?).with_writer(writer);
    Ok(match config.format {
        LogFormat::Text => Box::new(builder.with_ansi(colours).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_current_span(false).finish()),
    })
}

/// Lets one message through per period, for places where every request or connection could log. The messages in
/// between are counted and reported with the next one.
#[derive(Debug)]
pub struct RateBound {
    every: Duration,
    state: Mutex<Suppressed>,
}

#[derive(Debug, Default)]
struct Suppressed {
    last: Option<Instant>,
    count: u64,
}

impl RateBound {
    pub fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// `Some(n)`: log now, and say that `n` were left out since the last one. `None`: leave it out.
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        match state.last {
            Some(last) if now.saturating_duration_since(last) < self.every => {
                state.count += 1;
                None
            }
            _ => {
                state.last = Some(now);
                Some(std::mem::take(&mut state.count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let config = Log { level: level.into(), format };
        let subscriber = subscriber(&config, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lock(&memory.0).clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_the_fields_at_the_top() {
        let text = logged("info", LogFormat::Json, || tracing::info!(route = "users", "taken"));

        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["route"], &value["message"], &value["level"]),
            (&"users".into(), &"taken".into(), &"INFO".into())
        );
    }

    #[test]
    fn the_filter_holds_and_a_wrong_one_is_explained() {
        assert_eq!(logged("warn", LogFormat::Text, || tracing::info!("hidden")), "");
        assert!(logged("warn", LogFormat::Text, || tracing::warn!("shown")).contains("shown"));

        let error = check_filter("forebay=loud").unwrap_err().to_string();
        assert!(error.starts_with("log.level is not a filter"), "{error}");
    }

    #[test]
    fn one_message_per_period_and_the_rest_is_counted() {
        let bound = RateBound::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);

        let decisions = [0, 1, 9, 10, 11, 30].map(|second| bound.allow(at(second)));

        assert_eq!(decisions, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
