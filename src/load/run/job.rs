//! From options to what is to be done: the plan, the targets and how requests travel. Sends nothing, resolves nothing.

use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::load::checks::Expectation;
use crate::load::client::origin::Resolved;
use crate::load::client::{self, Template, tls};
use crate::load::core::{Model, Plan, Targets};
use crate::load::options::{ConnectionOptions, JudgementOptions, LoadOptions, OutputOptions, RequestOptions};
use crate::load::targets::{self, RouteRequest, Target};
use crate::sockets;
use crate::units::show_duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than a request answers are waited for in the end.
const DRAIN_BEYOND: Duration = Duration::from_secs(1);
const IN_FLIGHT: u64 = 10_000;
/// Descriptors for everything but connections: files, timers, the terminal.
const FILES_KEPT: u64 = 64;
/// Names of targets in the announcement.
const TARGETS_SHOWN: usize = 3;

/// A load test that can begin.
#[derive(Debug)]
pub struct Job {
    pub plan: Plan,
    pub targets: Vec<Target>,
    /// As reports have them.
    pub names: Vec<String>,
    pub client: client::Settings,
    pub workers: usize,
    /// The highest rate that is planned, where that can be said.
    pub peak_rate: Option<f64>,
    /// What the reader of the report should know about how this was put together.
    pub remarks: Vec<String>,
    is_default: bool,
}

/// In what the kinds of load tests differ.
#[derive(Debug)]
pub struct Parts {
    pub model: Model,
    pub targets: Vec<Target>,
    /// As reports have them; for most tests they are those of `targets`.
    pub names: Vec<String>,
    pub choice: Targets,
    pub seed: u64,
    /// The warm-up included.
    pub duration: Duration,
    pub warm_up: u32,
    pub max_in_flight: Option<u64>,
    pub deadline: Option<Duration>,
    pub peak_rate: Option<f64>,
    pub remarks: Vec<String>,
}

impl Job {
    /// # Errors
    ///
    /// What is wrong with the options, or with the files that they name.
    pub fn new(options: &LoadOptions, config: Option<&Config>) -> Result<Self, String> {
        let LoadOptions { load, request, connection, judgement, output, .. } = options;
        let model = load.model()?;
        let peak_rate = load.peak_rate(&model);
        let (targets, remarks) = targets_of(options, config, peak_rate)?;
        let parts = Parts {
            model,
            names: targets.iter().map(|target| target.name.clone()).collect(),
            choice: choice(&targets),
            targets,
            seed: seed(load.seed),
            duration: load.total(),
            warm_up: load.warm_up,
            max_in_flight: load.max_in_flight,
            deadline: load.deadline,
            peak_rate,
            remarks,
        };
        let mut job = Self::assemble(parts, connection, judgement, output)?;
        job.is_default = load.is_default();
        trust_own_listener(config, request, &mut job.client, &job.targets, &mut job.remarks);
        Ok(job)
    }

    /// # Errors
    ///
    /// When a time is too long.
    pub fn assemble(
        parts: Parts,
        connection: &ConnectionOptions,
        judgement: &JudgementOptions,
        output: &OutputOptions,
    ) -> Result<Self, String> {
        let Parts { model, mut targets, names, choice, peak_rate, mut remarks, .. } = parts;
        for target in &mut targets {
            target.template.origin.unix.clone_from(&connection.unix);
            target.expectation = std::mem::take(&mut target.expectation).with_checks(&judgement.check);
        }
        let timeout = timeout(connection, &targets, &mut remarks);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).map_err(|_| "a time is too long".to_owned());
        let plan = Plan {
            model,
            targets: choice,
            seed: parts.seed,
            duration: nanoseconds(parts.duration)?,
            warm_up: parts.warm_up,
            cap: cap(parts.max_in_flight, sockets::raise_file_limit(), &mut remarks),
            timeout: nanoseconds(timeout)?,
            deadline: parts.deadline.map(nanoseconds).transpose()?,
            // Every request in flight reaches its own end, also the last.
            drain: nanoseconds(timeout + DRAIN_BEYOND)?,
        };
        let workers = output.workers.map_or_else(default_workers, usize::from);
        let client = client_settings(connection);
        Ok(Self { plan, targets, names, client, workers, peak_rate, remarks, is_default: false })
    }

    pub fn requests(&self) -> Vec<(Template, Expectation)> {
        self.targets.iter().map(|target| (target.template.clone(), target.expectation.clone())).collect()
    }

    /// What is loaded, in a few words.
    pub fn title(&self) -> String {
        let first = self.names.first().map_or("", String::as_str);
        match self.names.len() {
            0 | 1 => first.to_owned(),
            many => format!("{first} and {} more", many - 1),
        }
    }

    /// What will be sent where, in one line.
    pub fn announcement(&self, resolved: &[Resolved]) -> String {
        let names: Vec<&str> = self.names.iter().take(TARGETS_SHOWN).map(String::as_str).collect();
        let more = match self.names.len().saturating_sub(TARGETS_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let addresses: Vec<String> =
            resolved.iter().flat_map(|origin| &origin.addresses).map(ToString::to_string).collect();
        let at = if addresses.is_empty() { String::new() } else { format!(" at {}", addresses.join(", ")) };
        let plan = &self.plan;
        let default = if self.is_default { " (the default; --rate says otherwise)" } else { "" };
        format!(
            "loading {}{more}{at}: {}, {}{default} for {}, seed {}, at most {} in flight",
            names.join(", "),
            plan.model.name(),
            plan.model.describe(),
            show_duration(Duration::from_nanos(plan.duration)),
            plan.seed,
            plan.cap,
        )
    }
}

fn targets_of(
    options: &LoadOptions,
    config: Option<&Config>,
    peak_rate: Option<f64>,
) -> Result<(Vec<Target>, Vec<String>), String> {
    let request = &options.request;
    if let Some(url) = &options.url {
        let target = Target::new(request.method_or_default(), url, request.header_map(), request.body()?);
        return Ok((vec![target], Vec::new()));
    }
    if let Some(file) = &request.targets {
        return Ok((targets_of_file(file, request)?, Vec::new()));
    }
    let config = config.ok_or("nothing to load: write a URL, --targets or --config")?;
    let wanted = RouteRequest {
        method: request.method.clone().or_else(|| request.body.is_some().then_some(http::Method::POST)),
        path: request.path.clone(),
        headers: request.header_map(),
        body: request.body()?,
        peak_rate,
    };
    targets::of_routes(config, &request.route, &wanted)
}

fn targets_of_file(file: &Path, request: &RequestOptions) -> Result<Vec<Target>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut targets = targets::parse_file(&text, folder, &|path| std::fs::read(path)).map_err(|error| named(&error))?;
    for target in &mut targets {
        // What the file says goes before what holds for all.
        for (name, value) in &request.headers {
            if !target.template.headers.contains_key(name) {
                target.template.headers.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(targets)
}

/// As told, or any that is short enough to be typed again.
pub fn seed(told: Option<u64>) -> u64 {
    told.unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

fn choice(targets: &[Target]) -> Targets {
    let weights: Option<Vec<f64>> = targets.iter().map(|target| target.weight).collect();
    match weights {
        Some(weights) => Targets::Weighted(weights),
        None => Targets::InOrder(u32::try_from(targets.len()).unwrap_or(u32::MAX)),
    }
}

/// Long enough to see an answer that comes after a deadline, unless the user says otherwise.
fn timeout(connection: &ConnectionOptions, targets: &[Target], remarks: &mut Vec<String>) -> Duration {
    let deadline = targets::longest_deadline(targets);
    let Some(timeout) = connection.timeout else {
        return deadline.map_or(TIMEOUT, |deadline| TIMEOUT.max(2 * deadline + Duration::from_secs(1)));
    };
    if let Some(deadline) = deadline.filter(|deadline| timeout <= *deadline) {
        remarks.push(format!(
            "--timeout {} ends requests before the deadline of {}: whether that is kept cannot be seen",
            show_duration(timeout),
            show_duration(deadline)
        ));
    }
    timeout
}

/// Each request in flight may need a descriptor of its own. Who names a number has it: what then fails is counted.
fn cap(wanted: Option<u64>, files: u64, remarks: &mut Vec<String>) -> u64 {
    let most = files.saturating_sub(FILES_KEPT).max(1);
    if most < IN_FLIGHT && wanted.is_none() {
        remarks.push(format!(
            "at most {most} requests in flight, since this process may have {files} files open (`ulimit -n`)"
        ));
    }
    wanted.unwrap_or(IN_FLIGHT.min(most))
}

fn client_settings(connection: &ConnectionOptions) -> client::Settings {
    let requests_per_connection =
        if connection.no_reuse { 1 } else { connection.requests_per_connection.unwrap_or(u32::MAX) };
    client::Settings {
        http2: connection.http2,
        requests_per_connection,
        connect_timeout: connection.connect_timeout,
        tls: tls::Settings {
            ca: connection.cacert.clone(),
            identity: connection.cert.clone().zip(connection.key.clone()),
            insecure: connection.insecure,
        },
        ids: None,
    }
}

/// The listener of one's own configuration is reached by its address, for which its certificate was hardly made.
fn trust_own_listener(
    config: Option<&Config>,
    request: &RequestOptions,
    client: &mut client::Settings,
    targets: &[Target],
    remarks: &mut Vec<String>,
) {
    let uses_tls = targets.iter().any(|target| target.template.origin.tls);
    if config.is_some() && request.config.is_some() && uses_tls && client.tls.ca.is_none() && !client.tls.insecure {
        client.tls.insecure = true;
        remarks.push("the listener's certificate is not checked; --cacert has it checked".to_owned());
    }
}

/// Half of the CPUs: the target is usually on the same machine.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_leaves_room_for_other_files_unless_it_is_named() {
        let mut remarks = Vec::new();
        assert_eq!(cap(None, 1 << 20, &mut remarks), IN_FLIGHT);
        assert_eq!(cap(Some(5000), 1024, &mut remarks), 5000);
        assert!(remarks.is_empty());
        assert_eq!(cap(None, 1024, &mut remarks), 960);
        assert!(remarks[0].contains("ulimit -n"), "{remarks:?}");
        assert_eq!(cap(None, 3, &mut remarks), 1);
    }
}
