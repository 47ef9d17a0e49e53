//! The command: a load test that sends what was recorded, and says what has changed since.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::import::{self, Import, Reading, vegeta};
use super::options::{ReplayOptions, Written};
use super::schedule::{self, Requests, Schedule, Wish};
use super::{Record, recording};
use crate::config::model::StatusRange;
use crate::exit_code::Exit;
use crate::load::arrivals::Arrivals;
use crate::load::client::Client;
use crate::load::core::{Model, Targets};
use crate::load::report::format;
use crate::load::result::RunResult;
use crate::load::run::{self, Failure, Job, Parts, Terms};
use crate::load::targets::{Target, Url};
use crate::load::{CallEnd, End, Protocol};

/// A file is read as a whole, since it has to be sorted.
const MOST_BYTES: u64 = 1 << 30;
/// Differing pairs of statuses that a note names.
const PAIRS_SHOWN: usize = 5;

/// Replays a file. `command_line` is what was typed.
///
/// # Errors
///
/// When it cannot begin, with what is wrong; nothing was sent then. Or when its report cannot be written.
pub async fn execute(options: ReplayOptions, command_line: Vec<String>) -> Result<Exit, Failure> {
    let seed = run::seed(options.replay.seed);
    let url = options.url.as_ref().ok_or_else(|| Failure::usage("nothing to send to: write a URL"))?;
    let import = read(&options, seed).map_err(Failure::usage)?;
    let (job, script) = job(&options, url, import, seed).map_err(Failure::usage)?;
    let ReplayOptions { connection, judgement, output, .. } = options;
    let terms = Terms { allow_target: connection.allow_target, judgement, output, command_line };
    let script = Arc::new(script);
    let replayer = |client| Replayer { client, script: Arc::clone(&script) };
    run::conduct(job, terms, replayer, |result| script.remarks(result)).await
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

fn job(options: &ReplayOptions, url: &Url, import: Import, seed: u64) -> Result<(Job, Script), String> {
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

    let script = Script::new(&records, &schedule, &requests);
    let groups = schedule.records.iter().map(|record| requests.group_of_record[*record as usize]);
    let parts = Parts {
        model: Model::Open(Arrivals::Recorded(Arc::clone(&schedule.instants))),
        targets: targets(&records, &requests, options, url),
        choice: Targets::Listed(groups.collect()),
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
    Ok((job, script))
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

/// What is sent as which request of the run, and how its answers compare with the recorded ones.
struct Script {
    /// By the number of the request.
    targets: Vec<u32>,
    recorded: Vec<Option<u16>>,
    /// Of the records that are sent, in order of size.
    durations: Vec<u64>,
    same: AtomicU64,
    /// Recorded and replayed status. Its size is bounded by the pairs of statuses there are.
    different: Mutex<BTreeMap<(u16, u16), u64>>,
}

impl Script {
    fn new(records: &[Record], schedule: &Schedule, requests: &Requests) -> Self {
        let sent = || schedule.records.iter().map(|record| *record as usize);
        let mut durations: Vec<u64> = sent().filter_map(|record| records[record].duration).collect();
        durations.sort_unstable();
        Self {
            targets: sent().map(|record| requests.of_record[record]).collect(),
            recorded: sent().map(|record| records[record].status).collect(),
            durations,
            same: AtomicU64::new(0),
            different: Mutex::default(),
        }
    }

    fn compare(&self, request: usize, end: End) {
        let (End::Ok { status } | End::HttpError { status }) = end else { return };
        match self.recorded[request] {
            None => {}
            Some(recorded) if recorded == status => {
                self.same.fetch_add(1, Ordering::Relaxed);
            }
            Some(recorded) => {
                let mut different = self.different.lock().unwrap_or_else(PoisonError::into_inner);
                *different.entry((recorded, status)).or_default() += 1;
            }
        }
    }

    fn remarks(&self, result: &RunResult) -> Vec<String> {
        self.statuses().into_iter().chain(self.latencies(result)).collect()
    }

    fn statuses(&self) -> Option<String> {
        let same = self.same.load(Ordering::Relaxed);
        let different = self.different.lock().unwrap_or_else(PoisonError::into_inner);
        let changed: u64 = different.values().sum();
        if same + changed == 0 {
            return None;
        }
        let mut pairs: Vec<_> = different.iter().collect();
        pairs.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut shown: Vec<String> = pairs
            .iter()
            .take(PAIRS_SHOWN)
            .map(|((then, now), count)| format!("{then} then and {now} now ({count})"))
            .collect();
        if pairs.len() > PAIRS_SHOWN {
            shown.push("others".to_owned());
        }
        let colon = if shown.is_empty() { "" } else { ": " };
        Some(format!("statuses: {same} as recorded, {changed} not{colon}{}", shown.join(", ")))
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

/// Sends request `n` of the script as request `n` of the run, whichever worker has it.
struct Replayer {
    client: Client,
    script: Arc<Script>,
}

impl Protocol for Replayer {
    async fn call(&self, _group: usize, number: u64) -> CallEnd {
        let request = usize::try_from(number).expect("the script has as many requests as the run, and is in memory");
        let end = self.client.call(self.script.targets[request] as usize, number).await;
        self.script.compare(request, end.end);
        end
    }
}
