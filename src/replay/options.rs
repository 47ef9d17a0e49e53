//! The command line of `forebay replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};

use super::import::Format;
use super::schedule::Window;
use crate::config::model::aggregate::JsonPath;
use crate::config::value::json_path::parse_json_path;
use crate::load::options::{ConnectionOptions, JudgementOptions, OutputOptions, header, time};
use crate::load::targets::Url;

#[derive(Debug, Clone, Args)]
pub struct ReplayOptions {
    /// Recorded requests: a recording, a HAR file, vegeta's JSON targets with `at`, an access log of Forebay, nginx or
    /// Envoy, or a timing script of h2load.
    pub file: PathBuf,
    /// Where they are sent, whatever host they went to then: `http://127.0.0.1:8080`.
    #[arg(required_unless_present = "convert")]
    pub url: Option<Url>,

    #[command(flatten)]
    pub replay: ReplayShape,
    #[command(flatten)]
    pub connection: ConnectionOptions,
    #[command(flatten)]
    pub judgement: JudgementOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Replay")]
pub struct ReplayShape {
    /// What the file is, when its first line does not tell.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// So many times as fast: 2 halves every distance between requests.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    pub speed: f64,
    /// Send every record so many times: the rate is a multiple, bursts keep their length.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub multiply: u32,
    /// A part of the recording, from its first record on: `10s..2m`, `10s..`, `..2m`.
    #[arg(long, value_name = "A..B", default_value = "..")]
    pub window: Window,
    /// Also send POST, PUT, DELETE and others that may change something.
    #[arg(long)]
    pub unsafe_methods: bool,
    /// Keep recorded credentials: Authorization, Cookie and the like are dropped otherwise.
    #[arg(long)]
    pub keep_secrets: bool,
    /// A header to send in place of the recorded one, `name: value`; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What copies and times of whole seconds are spread by. Random by default, reported.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Requests in flight at once, at most. What is due beyond that is not sent, and counted as shed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_in_flight: Option<u64>,
    /// Do not send what is already so late, and count it as shed.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub deadline: Option<Duration>,
    /// A part of JSON answers that is not compared with the recorded ones, `meta.time` or `items.*.id`; may be repeated.
    #[arg(long, value_name = "PATH", value_parser = json_path)]
    pub ignore_path: Vec<JsonPath>,
    /// Before the replay, send up to 100 of its safe requests twice: what differs then is noise, and not compared.
    #[arg(long)]
    pub noise_from_repeat: bool,
    /// Send nothing; write the requests of the window to stdout in this format. Vegeta's needs the URL.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub convert: Option<Written>,
}

/// A format that is also written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Written {
    /// This program's own.
    Recording,
    /// Vegeta's JSON targets, with `at`.
    Vegeta,
}

fn json_path(text: &str) -> Result<JsonPath, String> {
    parse_json_path(text).map_err(|error| {
        let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
        format!("this path {}{help}", error.problem)
    })
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| (0.001..=1000.0).contains(speed));
    speed.ok_or_else(|| "expected a factor from 0.001 to 1000".to_owned())
}
