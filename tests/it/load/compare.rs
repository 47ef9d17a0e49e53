//! `forebay compare --ab`: its runs are processes of their own, and end with it.

use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use super::super::support::eventually;
use super::super::support::fault_upstream::{FaultUpstream, Script, Step, scripts};
use super::super::support::process::{Process, command};
use super::{code, url};

/// A comparison in its first run, which goes on for a minute.
struct Comparing {
    process: Process,
    run: PathBuf,
    /// Of temporary files.
    folder: TempDir,
}

impl Comparing {
    async fn start(script: Script) -> (Self, FaultUpstream) {
        let target = FaultUpstream::start([script]).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = url(target.address);
        let mut compare = command(env!("CARGO_BIN_EXE_forebay"));
        compare.env("TMPDIR", folder.path()).args(["compare", "--ab", &address, &address, "--"]);
        compare.args(["-r", "50/s", "-d", "60s", "--timeout", "60s", "--quiet"]);
        let process = Process::start("forebay compare", compare);
        eventually("the first run is under way", async || (target.accepted() > 0).then_some(())).await;
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let run = std::fs::read_to_string(children).expect("it runs");
        let run = PathBuf::from(format!("/proc/{}", run.trim()));
        assert!(run.exists(), "{run:?}");
        (Self { process, run, folder }, target)
    }

    /// One that nobody waits for stays as a zombie until init looks.
    fn is_running(&self) -> bool {
        let status = std::fs::read_to_string(self.run.join("status"));
        status.is_ok_and(|status| !status.contains("State:\tZ"))
    }

    fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.folder.path()).expect("is there").count()
    }
}

#[tokio::test]
async fn a_signal_to_the_comparison_alone_ends_its_run_and_leaves_no_files() {
    for signal in [Signal::TERM, Signal::INT] {
        // Answers that never come are not waited for.
        let (mut comparing, _target) = Comparing::start(scripts::stall_before_head()).await;
        assert_eq!(comparing.temporary_files(), 1);

        comparing.process.signal(signal);
        let code = code(comparing.process.ended().await);

        let said = comparing.process.stderr.all().join("\n");
        assert_eq!(code, 130, "{said}");
        assert!(said.contains("interrupted in the run of before-1.json: nothing is compared"), "{said}");
        assert!(!comparing.is_running(), "the run goes on");
        assert_eq!(comparing.temporary_files(), 0);
    }
}

#[tokio::test]
async fn a_run_ends_when_the_comparison_is_killed() {
    let (mut comparing, _target) = Comparing::start(scripts::ok()).await;

    comparing.process.signal(Signal::KILL);
    comparing.process.ended().await;

    eventually("the run ends as well", async || (!comparing.is_running()).then_some(())).await;
}

/// A run is through when its last request is answered, often before its planned end; then the next one begins.
#[tokio::test]
async fn runs_in_turn_are_not_said_to_have_run_at_the_same_time() {
    let script = vec![Step::ReadHead, Step::Send(scripts::OK.to_vec()), Step::Repeat];
    let target = FaultUpstream::start([script]).await;
    let address = url(target.address);
    let mut compare = command(env!("CARGO_BIN_EXE_forebay"));
    compare.args(["compare", "--resamples", "200", "--allow-void", "--repeats", "1", "--ab", &address, &address]);
    // The last request of each run is due half a second before the end.
    compare.args(["--", "-r", "2/s", "--arrivals", "even", "-d", "1s", "--quiet"]);
    let mut process = Process::start("forebay compare", compare);

    let code = code(process.ended().await);

    let (shown, said) = (process.stdout.all().join("\n"), process.stderr.all().join("\n"));
    assert_eq!(code, 0, "{shown}\n{said}");
    assert!(!shown.contains("at the same time"), "{shown}");
}
