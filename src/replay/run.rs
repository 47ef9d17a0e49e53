//! The command: a load test that sends what was recorded, and says what has changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::comparison::{self, Comparison, Noise};
use super::difference::{Difference, Mask};
use super::import::{self, Import, Reading, vegeta};
use super::options::{ReplayOptions, Written};
use super::schedule::{self, Requests, Schedule, Wish};
use super::{Record, recording};
use crate::config::model::StatusRange;
use crate::config::value::json_path::show_json_path;
use crate::exit_code::Exit;
use crate::load::arrivals::Arrivals;
use crate::load::client::Client;
use crate::load::core::{Model, Targets};
use crate::load::report::format;
use crate::load::result::RunResult;
use crate::load::run::{self, Course, Failure, Job, Parts, Terms};
use crate::load::targets::{Target, Url};
use crate::load::{CallEnd, Connected, End, Protocol};

/// A file is read as a whole, since it has to be sorted.
const MOST_BYTES: u64 = 1 << 30;
/// Different requests that are sent twice to learn noise, and the time that all of them may take.
const MOST_REPEATED: usize = 100;
const LEARNING: Duration = Duration::from_secs(30);

/// Replays a file. `command_line` is what was typed.
///
/// # Errors
///
/// When it cannot begin, with what is wrong; nothing was sent then. Or when its report cannot be written.
pub async fn execute(options: ReplayOptions, command_line: Vec<String>) -> Result<Exit, Failure> {
    let seed = run::seed(options.replay.seed);
    let url = options.url.as_ref().ok_or_else(|| Failure::usage("nothing to send to: write a URL"))?;
    let import = read(&options, seed).map_err(Failure::usage)?;
    let (job, replay) = job(&options, url, import, seed).map_err(Failure::usage)?;
    let ReplayOptions { connection, judgement, output, .. } = options;
    let terms = Terms { allow_target: connection.allow_target, judgement, output, command_line };
    run::conduct(job, terms, replay).await
}

/// The records of a file in another format, and what is to be said of them.
///
/// # Errors
///
/// When the file cannot be used.
pub fn convert(options: &ReplayOptions, written: Written) -> Result<(String, Vec<String>), Failure> {
    let Import { records, notes } = read(options, run::seed(options.replay.seed)).map_err(Failure::usage)?;
    let records = &records[schedule::part(&records, options.replay.window)];
    let text = match (written, &options.url) {
        (Written::Recording, _) => recording::render(records),
        (Written::Vegeta, Some(url)) => vegeta::render(records, &url.origin),
        (Written::Vegeta, None) => return Err(Failure::usage("vegeta's targets are URLs: write where they are")),
    };
    Ok((text, notes))
}

fn read(options: &ReplayOptions, seed: u64) -> Result<Import, String> {
    let file = options.file.display();
    let named = |error: &dyn std::fmt::Display| format!("{file}: {error}");
    let size = fs::metadata(&options.file).map_err(|error| named(&error))?.len();
    if size > MOST_BYTES {
        return Err(named(&"larger than 1 GiB; split it"));
    }
    let bytes = fs::read(&options.file).map_err(|error| named(&error))?;
    // Logs hold what clients sent, which need not be text; such lines then name no path that could be sent.
    let text = String::from_utf8_lossy(&bytes);
    let reading = Reading { format: options.replay.format, keep_secrets: options.replay.keep_secrets, seed };
    import::parse(&text, reading).map_err(|error| named(&error))
}

fn job(options: &ReplayOptions, url: &Url, import: Import, seed: u64) -> Result<(Job, Replay), String> {
    if url.path != "/" {
        return Err(format!("the paths are those of the recording; write {} alone", url.origin));
    }
    let replay = &options.replay;
    let Import { records, mut notes } = import;
    let wish = Wish {
        speed: replay.speed,
        multiply: replay.multiply,
        window: replay.window,
        unsafe_methods: replay.unsafe_methods,
        seed,
    };
    let schedule = schedule::lay_out(&records, &wish)?;
    let requests = schedule::requests(&records);
    notes.extend(schedule.notes.iter().cloned());

    let groups: Arc<[u32]> = schedule.records.iter().map(|record| requests.group_of_record[*record as usize]).collect();
    let targets = targets(&records, &requests, options, url);
    let records: Arc<[Record]> = records.into();
    let script = Script::new(&records, &schedule, &requests);
    let comparison = Comparison::start(Arc::clone(&records), replay.ignore_path.clone());
    let comparison = comparison.map_err(|error| error.to_string())?;
    let parts = Parts {
        model: Model::Open(Arrivals::Recorded(Arc::clone(&schedule.instants))),
        targets,
        choice: Targets::Listed(groups),
        seed,
        duration: schedule.duration(),
        warm_up: 0,
        max_in_flight: replay.max_in_flight,
        deadline: replay.deadline,
        peak_rate: Some(schedule.peak_rate()),
        remarks: notes,
        names: requests.groups,
    };
    let job = Job::assemble(parts, &options.connection, &options.judgement, &options.output)?;
    let learns = replay.noise_from_repeat;
    Ok((job, Replay { script: Arc::new(script), comparison: Arc::new(comparison), records, learns }))
}

/// One for each different request, which may be answered as it was then, or well.
fn targets(records: &[Record], requests: &Requests, options: &ReplayOptions, url: &Url) -> Vec<Target> {
    let target = |record: &u32| {
        let Record { method, path, headers, body, .. } = &records[*record as usize];
        let url = Url { origin: url.origin.clone(), path: path.clone() };
        let mut headers = headers.clone();
        for (name, _) in &options.replay.headers {
            headers.remove(name);
        }
        for (name, value) in &options.replay.headers {
            headers.append(name.clone(), value.clone());
        }
        Target::new(method.clone(), &url, headers, body.clone())
    };
    let mut targets: Vec<Target> = requests.different.iter().map(target).collect();
    for (record, target) in records.iter().zip(&requests.of_record) {
        let statuses = &mut targets[*target as usize].expectation.statuses;
        if let Some(status) = record.status
            && !statuses.iter().any(|range| (range.first..=range.last).contains(&status))
        {
            statuses.push(StatusRange { first: status, last: status });
        }
    }
    targets
}

/// What is sent as which request of the run.
struct Script {
    /// By the number of the request.
    targets: Vec<u32>,
    records: Vec<u32>,
    /// Of the records that are sent, in order of size.
    durations: Vec<u64>,
    /// Errors of now that are as recorded, and so count as ok.
    errors_again: AtomicU64,
}

impl Script {
    fn new(records: &[Record], schedule: &Schedule, requests: &Requests) -> Self {
        let sent = || schedule.records.iter().map(|record| *record as usize);
        let mut durations: Vec<u64> = sent().filter_map(|record| records[record].duration).collect();
        durations.sort_unstable();
        Self {
            targets: sent().map(|record| requests.of_record[record]).collect(),
            records: schedule.records.clone(),
            durations,
            errors_again: AtomicU64::new(0),
        }
    }

    /// Different requests that can be asked again without doing anything, evenly spread over all of them.
    fn samples(&self, records: &[Record]) -> Vec<u32> {
        let is_usable = |record: u32| {
            let Record { method, answer, .. } = &records[record as usize];
            method.is_safe() && answer.is_some()
        };
        let all = self.targets.iter().zip(&self.records).filter(|(_, record)| is_usable(**record));
        let usable: BTreeSet<u32> = all.map(|(target, _)| *target).collect();
        let step = usable.len().div_ceil(MOST_REPEATED).max(1);
        usable.into_iter().step_by(step).collect()
    }

    /// What "ok" means, where it does not mean success.
    fn as_recorded(&self) -> Option<String> {
        let again = self.errors_again.load(Ordering::Relaxed);
        let are = match again {
            0 => return None,
            1 => "1 of them is an error".to_owned(),
            many => format!("{} of them are errors", format::count(many)),
        };
        Some(format!("ok means success, or the status that was recorded for the request: {are}, as then"))
    }

    /// Of all that were planned then, and of all that were answered now.
    fn latencies(&self, result: &RunResult) -> Option<String> {
        let time = |ns: u64| format::time(ns as f64);
        let (median, tail) = (quantile(&self.durations, 0.5)?, quantile(&self.durations, 0.99)?);
        let now = &result.totals.response;
        (now.count > 0).then(|| {
            format!(
                "recorded: p50 {}, p99 {}; replayed: p50 {}, p99 {}",
                time(median),
                time(tail),
                time(now.p50_ns),
                time(now.p99_ns)
            )
        })
    }
}

/// The smallest of sorted values that so large a part of them does not exceed.
fn quantile(sorted: &[u64], part: f64) -> Option<u64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The course of a replay.
struct Replay {
    script: Arc<Script>,
    comparison: Arc<Comparison>,
    records: Arc<[Record]>,
    /// Asks twice before the run.
    learns: bool,
}

impl Course for Replay {
    type Protocol = Replayer;

    fn protocol(&self, client: Client) -> Replayer {
        let (script, comparison) = (Arc::clone(&self.script), Arc::clone(&self.comparison));
        Replayer { client, script, comparison, records: Arc::clone(&self.records) }
    }

    async fn prepare(&self, client: &Client) {
        if !self.learns {
            return;
        }
        let told = self.comparison.told();
        let mut noise = Noise::default();
        let mut paths = BTreeMap::new();
        let asking = async {
            for target in self.script.samples(&self.records) {
                let Some(differences) = ask_twice(client, target, &told).await else { continue };
                for one in differences {
                    if one.pattern.steps.is_empty() {
                        noise.restless.insert(target);
                    } else {
                        paths.insert(show_json_path(&one.pattern), one.pattern);
                    }
                }
            }
        };
        // What was learned until then is learned.
        let _ = tokio::time::timeout(LEARNING, asking).await;
        noise.learned = paths.into_values().collect();
        noise.mask = told.with(noise.learned.iter().cloned());
        self.comparison.learn(noise);
    }

    fn conclude(&self, result: &mut RunResult) {
        result.notes.extend(self.script.as_recorded());
        result.notes.extend(self.script.latencies(result));
        let answers = self.comparison.finish();
        result.answers = (answers.compared > 0).then_some(answers);
    }
}

/// Sends request `n` of the script as request `n` of the run, whichever worker has it.
struct Replayer {
    client: Client,
    script: Arc<Script>,
    comparison: Arc<Comparison>,
    records: Arc<[Record]>,
}

impl Protocol for Replayer {
    async fn call(&self, _group: usize, number: u64, connected: &Connected) -> CallEnd {
        let request = usize::try_from(number).expect("the script has as many requests as the run, and is in memory");
        let (target, record) = (self.script.targets[request], self.script.records[request]);
        let has_answer = self.records[record as usize].answer.is_some();
        let (end, received) = self.client.fetch(target as usize, number, has_answer, connected).await;
        if matches!(end.end, End::Ok { status: 400.. }) {
            self.script.errors_again.fetch_add(1, Ordering::Relaxed);
        }
        if let End::Ok { status } | End::HttpError { status } = end.end {
            self.comparison.answered(record, target, status, received);
        }
        end
    }
}

/// In what two answers to one request differ, one asked for after the other. `None` unless both came.
async fn ask_twice(client: &Client, target: u32, told: &Mask) -> Option<Vec<Difference>> {
    // Numbers that no request of the run has.
    let connected = Connected::default();
    let ask = |number| client.fetch(target as usize, number, true, &connected);
    let (one, other) = (ask(u64::MAX).await.1?, ask(u64::MAX - 1).await.1?);
    comparison::noise(one, other, told)
}
