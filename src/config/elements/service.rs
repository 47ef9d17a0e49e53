//! The tables about the process itself: runtime, admin, shutdown, reload, logs, metrics.

use std::time::Duration;

use crate::config::decode::{Decoder, element};
use crate::config::describe::{DAY, HOUR, MINUTE, SECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::value::network::AddressOrOff;
use crate::config::value::scalar::Fraction;
use crate::config::value::secret::SecretText;

element! {
    /// Threads of the data path.
    pub struct Runtime {
        /// Worker threads. 0 is one for each core that the process may use.
        threads: usize = 0, between(0, 1024), instead_of(&["workers", "worker_threads", "worker_processes"]);
    }
}

element! {
    /// The listener for metrics, health and the configuration view.
    pub struct Admin {
        /// Where it listens, or "off". Only this machine reaches 127.0.0.1.
        address: AddressOrOff = "127.0.0.1:9901", instead_of(&["listen", "bind", "addr"]);
        /// Asked for as `Authorization: Bearer ...` on every path but the health ones. From the environment or a file.
        token: SecretText = none, example("\"${FOREBAY_ADMIN_TOKEN}\"");
    }
}

element! {
    /// What happens on SIGTERM.
    pub struct Shutdown {
        /// How long requests are still accepted while `/readyz` already fails. Balancers need that long to look away.
        accept_grace: Duration = "2s", between(0, HOUR);
        /// After that, the longest time for requests in flight to end. Together below the 30 s that Kubernetes waits.
        drain_timeout: Duration = "25s", between(0, DAY), instead_of(&["grace_period", "timeout"]);
    }
}

element! {
    /// When the file is read again, besides on SIGHUP.
    pub struct Reload {
        /// Read again when the file, a certificate or a secret's file changes.
        watch: bool = true;
    }
}

element! {
    /// One line of JSON for each request.
    pub struct AccessLog {
        /// "stdout", "stderr", "off" or "file:PATH".
        output: model::LogOutput = "stdout", instead_of(&["path", "file"]);
        /// The part of the successful requests that is logged, from 0.0 to 1.0. All others are always logged.
        sample: Fraction = 1.0;
        /// Lines that may wait to be written. Beyond it lines are dropped and counted; requests never wait.
        buffer: usize = 8192, between(1, 1_048_576);
    }
}

element! {
    /// What Forebay says about itself, on stderr.
    pub struct Log {
        /// A filter: "info", "warn", "forebay=debug,warn".
        level: String = "info", instead_of(&["filter"]);
        /// "text" to be read by people, "json" by programs.
        format: model::LogFormat = "text";
    }
}

element! {
    /// How metrics are kept.
    pub struct Metrics {
        /// Upper bounds of the latency histograms' buckets, in seconds, ascending.
        buckets: Vec<f64> = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0];
        /// The window over which peaks of requests in flight are taken. At least the scrape interval.
        peak_window: Duration = "60s", between(SECOND, 60 * MINUTE);
    }
}

impl Runtime {
    pub fn resolve(&self) -> Option<model::Runtime> {
        Some(model::Runtime { threads: self.threads.copied()? })
    }
}

impl Admin {
    pub fn resolve(&self) -> Option<model::Admin> {
        Some(model::Admin { address: self.address.copied()?.0, token: self.token.cloned().map(|token| token.0) })
    }

    /// Whoever reaches the admin listener sees the routes, the upstreams and the traffic.
    pub fn check(&self, cx: &mut Decoder<'_>) {
        let Some(address) = self.address.copied() else { return };
        let public = address.0.filter(|address| !address.ip().is_loopback());
        if let (Some(public), false) = (public, self.token.is_written()) {
            let message = format!("the admin listener on {public} is open to the network without a token");
            let problem = Problem::error(Code::Exposed, self.address.span(), message);
            cx.report(problem.help("add token = \"${FOREBAY_ADMIN_TOKEN}\", or listen on 127.0.0.1"));
        }
        if address.0.is_none() && self.token.is_written() {
            let problem = Problem::warning(Code::NoEffect, self.token.key_span(), "`token` has no effect");
            cx.report(problem.related(self.address.span(), "the admin listener is off"));
        }
    }
}

impl Shutdown {
    pub fn resolve(&self) -> Option<model::Shutdown> {
        Some(model::Shutdown { accept_grace: self.accept_grace.copied()?, drain_timeout: self.drain_timeout.copied()? })
    }
}

impl Reload {
    pub fn resolve(&self) -> Option<model::Reload> {
        Some(model::Reload { watch: self.watch.copied()? })
    }
}

impl AccessLog {
    pub fn resolve(&self) -> Option<model::AccessLog> {
        Some(model::AccessLog {
            output: self.output.cloned()?,
            sample: self.sample.copied()?.0,
            buffer: self.buffer.copied()?,
        })
    }
}

impl Log {
    pub fn resolve(&self) -> Option<model::Log> {
        Some(model::Log { level: self.level.cloned()?, format: self.format.copied()? })
    }

    /// A filter that is not understood would silence the log.
    pub fn check(&self, cx: &mut Decoder<'_>) {
        let Some((level, span)) = self.level.written() else { return };
        for directive in level.split(',') {
            let (target, word) = directive.trim().rsplit_once('=').unwrap_or(("", directive.trim()));
            if is_level(word) && is_target(target) {
                continue;
            }
            let problem = Problem::error(Code::InvalidValue, span.clone(), "this is not a log filter")
                .expected("off, error, warn, info, debug or trace, also for one part: \"forebay=debug,warn\"");
            cx.report(problem);
            return;
        }
    }
}

fn is_level(word: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_ascii_lowercase().as_str())
}

fn is_target(target: &str) -> bool {
    target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

impl Metrics {
    pub fn resolve(&self) -> Option<model::Metrics> {
        Some(model::Metrics { buckets: self.buckets.cloned()?, peak_window: self.peak_window.copied()? })
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        const MOST: usize = 64;
        let Some((buckets, span)) = self.buckets.written() else { return };
        let ascending = buckets.windows(2).all(|pair| pair[0] < pair[1]);
        let positive = buckets.first().is_some_and(|first| *first > 0.0);
        if !ascending || !positive || buckets.len() > MOST {
            let problem = Problem::error(Code::InvalidValue, span, "these cannot be the buckets of a histogram");
            cx.report(problem.expected(format!("1 to {MOST} numbers above 0, each larger than the one before")));
        }
    }
}
