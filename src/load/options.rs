//! The command line of `forebay load`: its flags, and what they come to.
//!
//! What can be said wrongly is said here, before anything is sent: combinations that clap cannot see, shapes of
//! arrivals, files. Gates and the reports have their own modules.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::arrivals::{Arrivals, Profile, Spacing};
use super::checks::Check;
use super::core::{Model, Think};
use super::gates::Gate;
use super::targets::Url;
use crate::units;

mod shape;

pub use shape::{ArrivalsOption, Rate};

const DEFAULT_RATE: Rate = Rate(50.0);

#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// What to load: `http://127.0.0.1:8080/users`.
    #[arg(required_unless_present_any = ["targets", "config"], conflicts_with_all = ["targets", "config"])]
    pub url: Option<Url>,

    #[command(flatten)]
    pub load: LoadShape,
    #[command(flatten)]
    pub request: RequestOptions,
    #[command(flatten)]
    pub connection: ConnectionOptions,
    #[command(flatten)]
    pub judgement: JudgementOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadShape {
    /// Requests per second, `200`, `200/s` or `30/min`, whether answers come or not; with --sessions, sessions.
    ///
    /// The default is 50/s.
    #[arg(short, long, value_name = "RATE", conflicts_with = "users")]
    pub rate: Option<Rate>,
    /// How long requests are sent, besides the warm-up. Then answers are waited for, at most --timeout.
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub duration: Duration,
    /// `poisson` (independent users), `even`, `burst:N`; or a shape of the rate over the run instead of --rate:
    /// `ramp:0/s..500/s`, `steps:100/s,200/s,400/s`, `sine:200/s,100/s,30s` (mean, amplitude, period).
    ///
    /// Both go together as in `even+ramp:0/s..500/s`.
    #[arg(long, value_name = "SHAPE", default_value = "poisson", conflicts_with = "users")]
    pub arrivals: ArrivalsOption,
    /// What random arrivals and choices are drawn from; the same seed gives the same run. Random by default, reported.
    #[arg(long)]
    pub seed: Option<u64>,
    /// So many users in place of a rate, each of whom waits for the answer before asking again. Latency measured like
    /// this hides what a slow server does to users who do not wait for each other.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub users: Option<u32>,
    /// Users come at --rate, and each makes so many requests in the mean, one after the other.
    #[arg(long, value_name = "REQUESTS", conflicts_with = "users", value_parser = session_length)]
    pub sessions: Option<f64>,
    /// The pause of a user between an answer and the next request: `1s` always, `~1s` in the mean (exponential).
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = think)]
    pub think: Think,
    /// Requests in flight at once, at most. What is due beyond that is not sent, and counted as shed. The default is
    /// 10000, or what the limit on open files allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_in_flight: Option<u64>,
    /// Time at the start that is not counted, in whole seconds, besides --duration.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = whole_seconds)]
    pub warm_up: u32,
    /// Do not send what is already so late, and count it as shed.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub deadline: Option<Duration>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestOptions {
    /// A file of requests: lines `GET http://... weight=3` with their headers, or vegeta's JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub targets: Option<PathBuf>,
    /// Load routes of this configuration; what they promise is checked, too.
    #[arg(short, long, value_name = "FILE", requires = "route")]
    pub config: Option<PathBuf>,
    /// A route of --config; may be repeated.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub route: Vec<String>,
    /// The path to ask a route for, in place of one made from its pattern.
    #[arg(long, requires = "config", value_parser = path)]
    pub path: Option<String>,
    /// GET, POST, ... The default is GET, or POST with a body.
    #[arg(short = 'X', long, conflicts_with = "targets", value_parser = method)]
    pub method: Option<Method>,
    /// A header to send, `name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, or `@FILE`.
    #[arg(long, value_name = "TEXT", conflicts_with = "targets")]
    pub body: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionOptions {
    /// From the sending of a request to the end of its answer. The default is 10s, or more for a route that may take
    /// longer.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
    /// Making a connection, TLS included.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub connect_timeout: Duration,
    /// Speak HTTP/2: by ALPN with https, at once with http.
    #[arg(long)]
    pub http2: bool,
    /// A new connection for each request.
    #[arg(long, conflicts_with = "requests_per_connection")]
    pub no_reuse: bool,
    /// Close a connection after so many requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_connection: Option<u32>,
    /// Trust the CAs in this PEM file instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// The client's own certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key of --cert, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Do not check the target's certificate.
    #[arg(long, conflicts_with = "cacert")]
    pub insecure: bool,
    /// Connect to this unix socket, whatever the host.
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,
    /// A host outside of this machine and private networks that may be loaded; may be repeated.
    #[arg(long, value_name = "HOST")]
    pub allow_target: Vec<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Judgement")]
pub struct JudgementOptions {
    /// What a good answer has: `status=200`, `header:etag`, `json:items.0.id=7`; may be repeated.
    #[arg(long, value_name = "CHECK")]
    pub check: Vec<Check>,
    /// Exit with 3 unless this holds: `p99<250ms`, `errors<1%`, `achieved>99%`; may be repeated.
    #[arg(long, value_name = "GATE")]
    pub fail: Vec<Gate>,
    /// End the run as soon as a gate is missed for certain: a p99 is, after 1000 answers, `max<1s` at the first.
    #[arg(long, requires = "fail")]
    pub abort_on_fail: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Write the result for programs, with all distributions.
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<PathBuf>,
    /// Write one page with all pictures, for people.
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<PathBuf>,
    /// Write a line of JSON for each second.
    #[arg(long, value_name = "FILE")]
    pub report_ndjson: Option<PathBuf>,
    /// Write the percentiles as HdrHistogram's tools do.
    #[arg(long, value_name = "FILE")]
    pub report_hgrm: Option<PathBuf>,
    /// Join each request with its line in this access log, which the sidecar that is loaded writes on this machine, and
    /// say where the time of all and of the slowest 1 % went. Each request gets an `x-request-id` and a `traceparent`.
    #[arg(long, value_name = "ACCESS_LOG")]
    pub waterfall: Option<PathBuf>,
    /// Show the numbers of the running test to Prometheus, at /metrics of this address; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = crate::config::address_option)]
    pub metrics: Option<SocketAddr>,
    /// Spin before each release: microseconds more exact, at the price of a CPU.
    #[arg(long)]
    pub precise: bool,
    /// Threads that send. The default is half of the CPUs, so that the target gets the rest.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Print the report only.
    #[arg(short, long)]
    pub quiet: bool,
}

impl LoadShape {
    /// # Errors
    ///
    /// For combinations that say the rate twice or not usefully.
    pub fn model(&self) -> Result<Model, String> {
        let model = match (self.users, self.sessions) {
            (Some(users), _) => Model::Closed { users, think: self.think },
            (None, Some(mean_requests)) => Model::Sessions { starts: self.starts()?, mean_requests, think: self.think },
            (None, None) if self.think != Think::Fixed(0) => {
                return Err("--think belongs to --users or --sessions: in an open model nobody waits".into());
            }
            (None, None) => Model::Open(self.starts()?),
        };
        model.check()?;
        Ok(model)
    }

    fn starts(&self) -> Result<Arrivals, String> {
        if self.arrivals.has_shape() && self.rate.is_some() {
            return Err("--arrivals says the rate already; leave --rate out, or the shape".into());
        }
        let rate = self.rate.unwrap_or(DEFAULT_RATE);
        if rate.0 == 0.0 {
            return Err("--rate 0 sends nothing; only a shape of --arrivals may begin or end with it".into());
        }
        Ok(self.arrivals.arrivals(rate, f64::from(self.warm_up), self.duration.as_secs_f64()))
    }

    /// Nanoseconds of sending, the warm-up included.
    pub fn total(&self) -> Duration {
        self.duration + Duration::from_secs(self.warm_up.into())
    }

    /// The highest rate of requests that is planned; unknown in a closed model. For sessions it is what their starts
    /// would come to if nobody ever waited.
    pub fn peak_rate(&self, model: &Model) -> Option<f64> {
        match model {
            Model::Closed { .. } => None,
            Model::Open(arrivals) => peak(arrivals),
            Model::Sessions { starts, mean_requests, .. } => peak(starts).map(|rate| rate * mean_requests),
        }
    }

    /// Whether the user said nothing about the load.
    pub fn is_default(&self) -> bool {
        self.rate.is_none() && self.users.is_none() && !self.arrivals.has_shape()
    }
}

fn peak(arrivals: &Arrivals) -> Option<f64> {
    match arrivals {
        Arrivals::Shaped { profile: Profile::Sine { mean, amplitude, .. }, .. } => Some(mean + amplitude),
        Arrivals::Shaped { profile: Profile::Lines(lines), .. } => {
            lines.iter().flat_map(|line| [line.from, line.to]).max_by(f64::total_cmp)
        }
        Arrivals::Recorded(_) => None,
    }
}

impl RequestOptions {
    pub fn header_map(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        headers
    }

    /// # Errors
    ///
    /// When the file of `@FILE` cannot be read.
    pub fn body(&self) -> Result<Bytes, String> {
        match self.body.as_deref() {
            None => Ok(Bytes::new()),
            Some(text) => match text.strip_prefix('@') {
                None => Ok(Bytes::copy_from_slice(text.as_bytes())),
                Some(file) => {
                    let bytes = std::fs::read(Path::new(file)).map_err(|error| format!("{file}: {error}"))?;
                    Ok(Bytes::from(bytes))
                }
            },
        }
    }

    pub fn method_or_default(&self) -> Method {
        let default = if self.body.is_some() { Method::POST } else { Method::GET };
        self.method.clone().unwrap_or(default)
    }
}

/// `500ms`, `2s`: the units of the configuration file.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() || time > Duration::from_secs(7 * 86_400) {
        return Err("expected more than zero and at most a week".to_owned());
    }
    Ok(time)
}

fn whole_seconds(text: &str) -> Result<u32, String> {
    let time = units::parse_duration(text).map_err(|error| error.to_string())?;
    let seconds = u32::try_from(time.as_secs()).ok().filter(|seconds| time.subsec_nanos() == 0 && *seconds <= 86_400);
    seconds.ok_or_else(|| "expected whole seconds, at most a day".to_owned())
}

fn think(text: &str) -> Result<Think, String> {
    let nanos = |text: &str| {
        let time = units::parse_duration(text).map_err(|error| error.to_string())?;
        u64::try_from(time.as_nanos()).map_err(|_| "is too long".to_owned())
    };
    match text.strip_prefix('~') {
        Some(mean) => nanos(mean).map(Think::Exponential),
        None => nanos(text).map(Think::Fixed),
    }
}

fn session_length(text: &str) -> Result<f64, String> {
    let mean = text.parse::<f64>().ok().filter(|mean| (1.0..=1e6).contains(mean));
    mean.ok_or_else(|| "expected a number of requests, 1 or more".to_owned())
}

pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    let name = HeaderName::from_str(name.trim()).map_err(|_| "this is not a header name")?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "this is not a header value")?;
    Ok((name, value))
}

fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.to_ascii_uppercase().as_bytes()).map_err(|_| "this is not an HTTP method".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with `/`".to_owned()) }
}

/// The arguments as they were typed, for reports, without the values of headers that carry credentials.
pub fn masked(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut masked = Vec::new();
    let mut takes_header = false;
    for argument in arguments {
        let inline =
            ["-H", "--header="].iter().find(|flag| argument.starts_with(**flag) && argument.len() > flag.len());
        masked.push(match inline {
            Some(flag) => format!("{flag}{}", mask_header(&argument[flag.len()..])),
            None if takes_header => mask_header(&argument),
            None => argument.clone(),
        });
        takes_header = argument == "-H" || argument == "--header";
    }
    masked
}

fn mask_header(text: &str) -> String {
    const SECRET: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];
    match text.split_once(':') {
        Some((name, _)) if SECRET.iter().any(|secret| name.trim().eq_ignore_ascii_case(secret)) => {
            format!("{name}: ***")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
