//! Two targets loaded in turn: before, after, after, before, and so on.
//!
//! In this order, what drifts evenly during the whole time weighs as much on one side as on the other. Each run is a
//! process of its own (`forebay load`), so none inherits connections, buffers or a warm allocator from another. Both
//! runs of a repeat have the same seed: the same arrivals, one difference less.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

use crate::exit_code::Exit;
use crate::shutdown::{SAME_STROKE, Stops};

/// Tells a run the process that started it, and that it must not outlive it.
const STARTER: &str = "FOREBAY_COMPARE_PID";

/// What to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interleaving {
    /// URLs, or configuration files.
    pub targets: [String; 2],
    pub repeats: u32,
    pub seed: u64,
    /// Options for `load`.
    pub load: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    side: Side,
    /// From 0.
    repeat: u32,
}

/// Loads both targets in turn and returns the results of each side.
///
/// # Errors
///
/// When a run fails or is interrupted: what to say, and the code to end with. No run goes on then.
pub async fn measure(plan: &Interleaving, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), (Exit, String)> {
    let mut stops = Stops::new().map_err(|error| (Exit::Failed, error.to_string()))?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for turn in turns(plan.repeats) {
        let file = folder.join(turn.file());
        let mut run = start(&arguments(plan, turn, &file)).map_err(|error| (Exit::Failed, error))?;
        let status = tokio::select! {
            status = run.wait() => status.map_err(|error| (Exit::Failed, format!("cannot wait for a run: {error}")))?,
            // To this process; Ctrl-C in a terminal reaches the run as well, `kill` does not.
            _ = stops.next() => {
                end(&mut run, &mut stops).await;
                return Err(interrupted(turn));
            }
        };
        judge(turn, status)?;
        match turn.side {
            Side::Before => before.push(file),
            Side::After => after.push(file),
        }
    }
    Ok((before, after))
}

/// For a run, at its start: has the kernel end it if the process that compares is killed and cannot do so itself.
/// What nobody waits for would go on loading the target.
pub fn stay_with_starter() {
    let Some(starter) = std::env::var(STARTER).ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
        return;
    };
    // Without the kernel's help, the starter ends it by a signal, unless it is killed.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    // It may have been killed before that.
    if getppid() != Some(starter) {
        std::process::exit(Exit::Interrupted.code().into());
    }
}

/// Ends a run and waits for that. Its answers are not waited for, since nothing is made of them: for that, a second
/// stroke is needed, also where Ctrl-C in a terminal has reached it already. Another stroke to this process means that
/// even this takes too long.
async fn end(run: &mut Child, stops: &mut Stops) {
    let strokes = async {
        loop {
            // It has not been waited for while it has a number, so that is still its own; it may just have ended.
            let pid = run.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            if tokio::time::timeout(2 * SAME_STROKE, run.wait()).await.is_ok() {
                return;
            }
        }
    };
    tokio::select! {
        () = strokes => {}
        _ = stops.next() => {
            // What cannot be killed has ended.
            let _ = run.kill().await;
        }
    }
}

fn turns(repeats: u32) -> impl Iterator<Item = Turn> {
    (0..repeats).flat_map(|repeat| {
        let sides = if repeat % 2 == 0 { [Side::Before, Side::After] } else { [Side::After, Side::Before] };
        sides.map(|side| Turn { side, repeat })
    })
}

impl Turn {
    fn file(self) -> String {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        format!("{side}-{}.json", self.repeat + 1)
    }
}

fn arguments(plan: &Interleaving, turn: Turn, file: &Path) -> Vec<String> {
    let target = &plan.targets[turn.side as usize];
    let mut arguments = vec!["load".to_owned()];
    // A configuration file is no URL; its routes are named by the options.
    if !target.contains("://") {
        arguments.push("--config".to_owned());
    }
    arguments.push(target.clone());
    if !plan.load.iter().any(|option| option == "--seed" || option.starts_with("--seed=")) {
        let seed = plan.seed.wrapping_add(u64::from(turn.repeat));
        arguments.extend(["--seed".to_owned(), seed.to_string()]);
    }
    arguments.extend(["--report-json".to_owned(), file.display().to_string()]);
    arguments.extend(plan.load.iter().cloned());
    arguments
}

/// The run shows itself on stderr; its own report would bury the comparison.
fn start(arguments: &[String]) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.env(STARTER, std::process::id().to_string());
    command.spawn().map_err(|error| format!("cannot start a run: {error}"))
}

/// A run that missed a gate or is void has a result, which says so itself.
fn judge(turn: Turn, status: ExitStatus) -> Result<(), (Exit, String)> {
    let is = |exit: Exit| status.code() == Some(i32::from(exit.code()));
    if is(Exit::Done) || is(Exit::GateMissed) || is(Exit::Void) {
        return Ok(());
    }
    if is(Exit::Interrupted) {
        return Err(interrupted(turn));
    }
    let exit = if is(Exit::Usage) { Exit::Usage } else { Exit::Failed };
    Err((exit, format!("the run of {} failed: {status}", turn.file())))
}

fn interrupted(turn: Turn) -> (Exit, String) {
    (Exit::Interrupted, format!("interrupted in the run of {}: nothing is compared", turn.file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Interleaving {
        Interleaving {
            targets: ["http://127.0.0.1:1/".into(), "new.toml".into()],
            repeats: 4,
            seed: 7,
            load: vec!["-r".into(), "5/s".into()],
        }
    }

    #[test]
    fn an_even_drift_weighs_alike_on_both_sides() {
        let sides: Vec<Side> = turns(4).map(|turn| turn.side).collect();

        let places =
            |side| sides.iter().enumerate().filter(|(_, it)| **it == side).map(|(place, _)| place).sum::<usize>();
        assert_eq!(sides.len(), 8);
        assert_eq!(places(Side::Before), places(Side::After));
    }

    #[test]
    fn both_runs_of_a_repeat_have_the_same_seed_and_files_of_their_own() {
        let lines: Vec<String> =
            turns(2).map(|turn| arguments(&plan(), turn, Path::new(&turn.file())).join(" ")).collect();

        assert_eq!(
            lines,
            [
                "load http://127.0.0.1:1/ --seed 7 --report-json before-1.json -r 5/s",
                "load --config new.toml --seed 7 --report-json after-1.json -r 5/s",
                "load --config new.toml --seed 8 --report-json after-2.json -r 5/s",
                "load http://127.0.0.1:1/ --seed 8 --report-json before-2.json -r 5/s",
            ]
        );
    }

    #[test]
    fn a_seed_that_is_given_stays() {
        let plan = Interleaving { load: vec!["--seed=3".into()], ..plan() };
        let turn = Turn { side: Side::Before, repeat: 5 };

        let line = arguments(&plan, turn, Path::new("f")).join(" ");

        assert_eq!(line, "load http://127.0.0.1:1/ --report-json f --seed=3");
    }
}
