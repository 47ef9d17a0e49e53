//! One load test from its options to its exit code: `job` turns options into a plan and targets, here they are
//! performed and shown, `outputs` writes what was asked for, `notes` says what the configuration under test promised
//! and did not keep.

mod job;
mod notes;
mod outputs;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::job::{Job, Parts, seed};
use self::outputs::Outputs;
use super::client::origin::{Resolved, resolve};
use super::client::{Blueprint, Client};
use super::driver::{self, Control, Manner};
use super::gates::{self, Evidence, Gate};
use super::ledger::Book;
use super::live::exposition;
use super::live::{Mode, Snapshot, Tracker, View};
use super::options::{JudgementOptions, LoadOptions, OutputOptions};
use super::report::{Look, is_dumb_terminal, text};
use super::result::{GateRecord, Outcome, RunResult};
use super::waterfall::{Follower, RunId, Waterfall};
use super::{Protocol, safety};
use crate::config::Config;
use crate::exit_code::Exit;
use crate::output;
use crate::scrape;
use crate::shutdown::Stops;

/// Why a test did not begin, or could not be reported.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    fn failed(message: impl ToString) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }
}

/// Runs a load test. `config` is the configuration that the options name, `command_line` what was typed.
///
/// # Errors
///
/// When it cannot begin, with what is wrong; nothing was sent then. Or when its report cannot be written.
pub async fn execute(
    options: LoadOptions,
    config: Option<&Config>,
    command_line: Vec<String>,
) -> Result<Exit, Failure> {
    let job = Job::new(&options, config).map_err(Failure::usage)?;
    let LoadOptions { connection, judgement, output, .. } = options;
    let terms = Terms { allow_target: connection.allow_target, judgement, output, command_line };
    conduct(job, terms, Plain).await
}

/// In what a kind of test differs from a plain one.
pub trait Course {
    type Protocol: Protocol;

    /// How the client of a worker is used.
    fn protocol(&self, client: Client) -> Self::Protocol;

    /// Before the run, with a client of its own. What is sent here is in no number of the report.
    fn prepare(&self, client: &Client) -> impl Future<Output = ()>;

    /// Adds to the result what only it knows.
    fn conclude(&self, result: &mut RunResult);
}

/// Sends what the plan says.
struct Plain;

impl Course for Plain {
    type Protocol = Client;

    fn protocol(&self, client: Client) -> Client {
        client
    }

    async fn prepare(&self, _: &Client) {}

    fn conclude(&self, _: &mut RunResult) {}
}

/// What a test is judged by and where it is reported.
pub struct Terms {
    pub allow_target: Vec<String>,
    pub judgement: JudgementOptions,
    pub output: OutputOptions,
    pub command_line: Vec<String>,
}

/// Performs a job from the safety checks to the reports.
///
/// # Errors
///
/// As [`execute`].
pub async fn conduct(mut job: Job, terms: Terms, course: impl Course) -> Result<Exit, Failure> {
    let Terms { allow_target, judgement, output, command_line } = terms;
    let resolved = resolve_all(&job).await.map_err(Failure::failed)?;
    safety::check_targets(&resolved, &allow_target).map_err(Failure::usage)?;
    if let Some(peak) = job.peak_rate {
        safety::check_rate(peak, &resolved).map_err(Failure::usage)?;
    }
    let announcement = job.announcement(&resolved);
    let follower = output.waterfall.as_deref().map(Follower::start).transpose().map_err(Failure::usage)?;
    job.client.ids = follower.as_ref().map(|_| RunId::random());
    let tap = follower.as_ref().zip(job.client.ids).map(|(follower, run)| follower.tap(run, job.plan.warm_up));
    let manner = Manner { precise: output.precise, tap };
    let blueprint = Blueprint::new(job.requests(), resolved, job.client.clone()).map_err(Failure::usage)?;
    let outputs = Outputs::open(&output).map_err(Failure::failed)?;
    let metrics = output.metrics.map(|address| scrape::bind("--metrics", address)).transpose();
    let metrics = metrics.map_err(Failure::failed)?;
    if !output.quiet {
        let stderr = io::stderr();
        let line = Look::of(&stderr).bold(announcement.as_str()).into_owned();
        // Nobody is left to be told when it is closed.
        let _ = writeln!(stderr.lock(), "{line}");
        if let Some(address) = metrics.as_ref().and_then(|listener| listener.local_addr().ok()) {
            let _ = writeln!(stderr.lock(), "metrics at http://{address}/metrics while it runs");
        }
    }

    let gates = if judgement.abort_on_fail { judgement.fail.as_slice() } else { &[] };
    let clients = (0..job.workers).map(|_| blueprint.client().map(|client| course.protocol(client)));
    let clients = clients.collect::<io::Result<Vec<_>>>().map_err(Failure::failed)?;
    course.prepare(&blueprint.client().map_err(Failure::failed)?).await;
    let (report, missed) = perform(&job, clients, &output, manner, metrics, gates).await.map_err(Failure::failed)?;
    let mut result = report.into_result(command_line, &job.names);
    result.waterfall = follower.map(Follower::finish).transpose().map_err(Failure::failed)?;
    result.notes = job.remarks.clone();
    result.notes.extend(notes::of(&job, &blueprint, &result));
    result.notes.extend(result.waterfall.iter().flat_map(Waterfall::remarks));
    course.conclude(&mut result);
    judge(&judgement.fail, missed, &mut result)?;
    // What cannot be shown can be in the files still.
    let shown = show(&result);
    outputs.write(&result).map_err(Failure::failed)?;
    shown?;
    Ok(exit(&result))
}

async fn resolve_all(job: &Job) -> io::Result<Vec<Resolved>> {
    let mut resolved: Vec<Resolved> = Vec::new();
    for target in &job.targets {
        let origin = &target.template.origin;
        if !resolved.iter().any(|known| known.origin == *origin) {
            resolved.push(resolve(origin).await?);
        }
    }
    Ok(resolved)
}

/// The run itself, watched by whoever sits before it. Also returns the gate that ended it.
async fn perform<P: Protocol>(
    job: &Job,
    clients: Vec<P>,
    output: &OutputOptions,
    manner: Manner,
    metrics: Option<TcpListener>,
    abort_gates: &[Gate],
) -> io::Result<(driver::Report, Option<GateRecord>)> {
    let control = Control::default();
    let mode = Mode::of(output.quiet, io::stderr().is_terminal() && !is_dumb_terminal());
    // The block says it itself, and would be torn by other lines.
    let _signals = Signals::watch(&control, mode == Mode::Lines)?;
    let (snapshots, shown) = watch::channel(Snapshot::default());
    let is_watched = mode != Mode::Quiet || metrics.is_some();
    let scraped = serve_metrics(metrics, shown.clone());
    let view = View::start(mode, job.title(), || Look::of(io::stderr()), io::stderr(), shown)?;

    let mut tracker = Tracker::new(job.plan.warm_up, job.plan.duration);
    let mut missed = None;
    let run = driver::run(&job.plan, clients, manner, &control, |progress| {
        if is_watched {
            snapshots.send_replace(tracker.observe(progress, control.stop.is_cancelled()));
        }
        if missed.is_none() && !abort_gates.is_empty() {
            missed = missed_already(abort_gates, job.plan.warm_up, progress.book);
            if missed.is_some() {
                control.stop.cancel();
            }
        }
    });
    let report = tokio::select! {
        report = run => report,
        // Not before the run: it serves until it is dropped, or cannot begin.
        error = scraped => Err(error),
    };
    view.stop();
    Ok((report?, missed))
}

/// Shows the latest snapshot to whoever asks, for as long as it is awaited. Ends only by an error.
async fn serve_metrics(listener: Option<TcpListener>, snapshots: watch::Receiver<Snapshot>) -> io::Error {
    let Some(listener) = listener else { return std::future::pending().await };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    scrape::serve(listener, move || exposition::render(&snapshots.borrow())).await;
    std::future::pending().await
}

/// A gate that the run cannot pass any more.
fn missed_already(gates: &[Gate], warm_up: u32, book: &Book) -> Option<GateRecord> {
    let mut total = book.total().clone();
    for (_, second) in book.open().filter(|(index, _)| *index >= warm_up) {
        total.merge(second.clone());
    }
    gates::abort(gates, &Evidence::of_second(&total, book.statuses()))
}

fn judge(all: &[Gate], missed: Option<GateRecord>, result: &mut RunResult) -> Result<(), Failure> {
    gates::judge(all, result).map_err(Failure::failed)?;
    if let Some(missed) = missed {
        result.notes.push(format!("ended early, because the gate {} was missed", missed.gate));
        if let Some(gate) = result.gates.iter_mut().find(|gate| gate.gate == missed.gate) {
            *gate = missed;
        }
        gates::note_missed(result);
    }
    Ok(())
}

fn show(result: &RunResult) -> Result<(), Failure> {
    let stdout = io::stdout();
    let text = text::render(result, &Look::of(&stdout)).map_err(Failure::failed)?;
    output::print(&text).map_err(Failure::failed)?;
    Ok(())
}

/// A missed gate that ended the run counts before the interruption that it caused; numbers that mean nothing count
/// before what they would say about gates.
fn exit(result: &RunResult) -> Exit {
    match result.verdict.outcome {
        Outcome::Void => Exit::Void,
        _ if gates::missed(result) => Exit::GateMissed,
        Outcome::Interrupted => Exit::Interrupted,
        Outcome::Complete => Exit::Done,
    }
}

/// Ctrl-C and SIGTERM: the first ends the sending, the second everything.
struct Signals(CancellationToken);

impl Signals {
    fn watch(control: &Control, is_told: bool) -> io::Result<Self> {
        let mut stops = Stops::new()?;
        let (control, over) = (control.clone(), CancellationToken::new());
        let guard = Self(over.clone());
        tokio::spawn(async move {
            let both = async {
                stops.next().await;
                control.stop.cancel();
                if is_told {
                    let _ = writeln!(io::stderr(), "no more requests; waiting for answers, Ctrl-C again ends it now");
                }
                stops.next().await;
                control.abort.cancel();
            };
            tokio::select! {
                () = both => {}
                () = over.cancelled() => {}
            }
        });
        Ok(guard)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
