//! Two targets loaded in turn: before, after, after, before, and so on.
//!
//! In this order, what drifts evenly during the whole time weighs as much on one side as on the other. Each run is a
//! process of its own (`forebay load`), so none inherits connections, buffers or a warm allocator from another. Both
//! runs of a repeat have the same seed: the same arrivals, one difference less.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit_code::Exit;

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
/// When a run fails or is interrupted: what to say, and the code to end with.
pub async fn measure(plan: &Interleaving, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), (Exit, String)> {
    // Ctrl-C reaches the run as well, which ends in order; this process waits for that.
    let _interrupts = signal(SignalKind::interrupt()).map_err(|error| (Exit::Failed, error.to_string()))?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for turn in turns(plan.repeats) {
        let file = folder.join(turn.file());
        let status = load(&arguments(plan, turn, &file)).await.map_err(|error| (Exit::Failed, error))?;
        judge(turn, status)?;
        match turn.side {
            Side::Before => before.push(file),
            Side::After => after.push(file),
        }
    }
    Ok((before, after))
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
async fn load(arguments: &[String]) -> Result<ExitStatus, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.status().await.map_err(|error| format!("cannot start a run: {error}"))
}

/// A run that missed a gate or is void has a result, which says so itself.
fn judge(turn: Turn, status: ExitStatus) -> Result<(), (Exit, String)> {
    let is = |exit: Exit| status.code() == Some(i32::from(exit.code()));
    if is(Exit::Done) || is(Exit::GateMissed) || is(Exit::Void) {
        return Ok(());
    }
    let run = turn.file();
    if is(Exit::Interrupted) {
        return Err((Exit::Interrupted, format!("interrupted in the run of {run}: nothing is compared")));
    }
    let exit = if is(Exit::Usage) { Exit::Usage } else { Exit::Failed };
    Err((exit, format!("the run of {run} failed: {status}")))
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
