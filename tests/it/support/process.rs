//! A child process with its output, which ends with the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually, eventually_within};

/// A running program. Dropped, it is killed and waited for.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Held open: the test services end when it closes.
    stdin: Option<ChildStdin>,
    readers: Vec<JoinHandle<()>>,
    pub stdout: Lines,
    pub stderr: Lines,
}

/// The lines that a process has written so far.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn collect(&self, output: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.0.lock().expect("no holder panics").push(line);
            }
        })
    }
}

/// A command that is killed by the kernel, should the test's thread end without cleaning up (a killed test run).
/// So start it from the test itself, not from a thread that ends earlier.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig").arg("KILL").arg("--").arg(program);
    command
}

impl Process {
    pub fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.collect(child.stdout.take().expect("piped")),
            stderr.collect(child.stderr.take().expect("piped")),
        ];
        Self { name: name.to_owned(), stdin: child.stdin.take(), child, readers, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of all its threads together, in clock ticks (a hundredth of a second).
    pub fn cpu_ticks(&self) -> u64 {
        cpu_ticks(&format!("/proc/{}/stat", self.id()))
    }

    /// The same for each thread that is called `name` and is not the main one; by number, so the oldest comes first.
    pub fn cpu_ticks_of_threads(&self, name: &str) -> Vec<u64> {
        let tasks = format!("/proc/{}/task", self.id());
        let listed = std::fs::read_dir(&tasks).expect("it runs");
        let mut numbers: Vec<u32> = listed
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .filter(|task| *task != self.id())
            .collect();
        numbers.sort_unstable();
        let called =
            |task: &u32| std::fs::read_to_string(format!("{tasks}/{task}/comm")).is_ok_and(|is| is.trim_end() == name);
        numbers.iter().filter(|task| called(task)).map(|task| cpu_ticks(&format!("{tasks}/{task}/stat"))).collect()
    }

    /// Writes to its standard input.
    pub fn types(&mut self, text: &str) {
        self.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("it reads");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id")).expect("not zero");
        kill_process(pid, signal).expect("the process has not been waited for, so its id is still its own");
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Waits for the process to end by itself; then all that it has written is in `stdout` and `stderr`.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE).await
    }

    pub async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually_within(patience, &what, async || self.has_ended().filter(|_| self.has_been_read())).await
    }

    fn has_been_read(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Waits for output in which `find` finds something; fails at once when the process ends before.
    pub async fn output<T>(&mut self, what: &str, find: impl Fn(&[String]) -> Option<T>) -> T {
        let what = format!("{} {what}", self.name);
        eventually(&what, async || {
            // In this order: all that it wrote before its end must be looked at.
            let ended = self.has_ended().filter(|_| self.has_been_read());
            let lines = [self.stdout.all(), self.stderr.all()].concat();
            let found = find(&lines);
            if let (None, Some(status)) = (&found, ended) {
                panic!("{what}: it ended ({status}) after saying\n{}", lines.join("\n"));
            }
            found
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of {}:\n{}", self.name, self.stderr.all().join("\n"));
        }
    }
}

fn cpu_ticks(stat: &str) -> u64 {
    let stat = std::fs::read_to_string(stat).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Of a process that has one.
pub fn only_child(parent: u32) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("a child list");
    let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("one child");
    Pid::from_raw(child).expect("not zero")
}
