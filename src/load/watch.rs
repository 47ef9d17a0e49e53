//! The generator watches itself, and says when its numbers mean nothing.
//!
//! A load test measures two programs, and blames one of them. Here the other one testifies: a heartbeat thread notices
//! when this process did not run (stopped by a signal, starved of CPU), the workers' CPU time says whether they were
//! the bottleneck, the lateness of every request is recorded, and [`judge`] draws the conclusion from all of it.
//!
//! # Little's law as a check of the books
//!
//! N = X R holds exactly for any stretch of time that begins and ends with nothing in flight; it needs no steady state
//! (Little, "A proof for the queuing formula L = λW", 1961; Stidham's version of it for sample paths, 1974). A run is
//! such a stretch, because a request that is given up at the end is booked as ended then, with its age as its time. So
//! both sides are the same area, added up along two paths: along the time (how many are in flight, integrated at every
//! change) and along the requests (service time after service time). They may differ by rounding only. A larger
//! difference means that requests were lost or that instants were taken from clocks that disagree, and nothing that
//! was measured can be believed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::SECOND;
use super::ledger::{Closed, Counts};
use super::pace::Clock;
use super::result::{Environment, Generator, Little, Reason, Rule, StallRecord};

/// How often the heart beats, and what counts as standing still.
const BEAT: Duration = Duration::from_millis(10);
const STALL_NS: u64 = 50_000_000;

/// Stalls that are listed one by one; a process that has more has said enough.
const STALLS_MAX: usize = 1000;

/// Ticks of `/proc/self/stat` in a second: `USER_HZ`, which is part of the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Share of the CPU from which a worker counts as saturated: the rest is what the kernel takes for others.
const CPU_LIMIT: f64 = 0.9;
/// Share of the scheduled requests that must have been sent.
const RATE_LIMIT: f64 = 0.98;
/// Lateness at p99 that makes a run void: more than this share of the median response and more than this time.
const LATENESS_SHARE: f64 = 0.1;
const LATENESS_NS: u64 = 1_000_000;
/// Share of the run that the generator may have stood still: from here on its stalls are in p99.
const STALL_SHARE: f64 = 0.01;
/// Rounding, generously: both sides of Little's law are sums of the same integers.
const LITTLE_SHARE: f64 = 1e-3;
const LITTLE_ABSOLUTE: f64 = 1e-6;

/// A thread that notices when the process did not run.
#[derive(Debug)]
pub struct Heartbeat {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Vec<StallRecord>>,
}

impl Heartbeat {
    /// # Errors
    ///
    /// When the system allows no further thread.
    pub fn start(clock: Clock) -> std::io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || beat(clock, &seen))?;
        Ok(Self { stopping, thread })
    }

    /// When the process stood still since the start.
    pub fn stop(self) -> Vec<StallRecord> {
        self.stopping.store(true, Ordering::Relaxed);
        // A heart that panicked has nothing to tell; it cannot, short of the allocator failing.
        self.thread.join().unwrap_or_default()
    }
}

fn beat(clock: Clock, stopping: &AtomicBool) -> Vec<StallRecord> {
    let mut stalls = Vec::new();
    let mut last = clock.now();
    while !stopping.load(Ordering::Relaxed) {
        std::thread::sleep(BEAT);
        let now = clock.now();
        stalls.extend(stall(last, now).filter(|_| stalls.len() < STALLS_MAX));
        last = now;
    }
    stalls
}

/// What the time between two beats means.
fn stall(last: u64, now: u64) -> Option<StallRecord> {
    let length = now.saturating_sub(last);
    let seconds = |ns: u64| ns as f64 / SECOND as f64;
    (length > STALL_NS).then(|| StallRecord { at_s: seconds(last), length_s: seconds(length) })
}

/// CPU seconds of this process up to now, in user mode and in the kernel.
pub fn process_cpu() -> (f64, f64) {
    fs::read_to_string("/proc/self/stat").ok().and_then(|stat| parse_cpu(&stat)).unwrap_or_default()
}

/// Fields 14 and 15 of proc(5). The name in field 2 may contain anything, so they are counted from its end.
fn parse_cpu(stat: &str) -> Option<(f64, f64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11).map(str::parse::<f64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

/// CPU time of the thread that asks, in nanoseconds.
pub fn thread_cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or_default() * SECOND + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// The machine as it is now.
pub fn environment() -> Environment {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    Environment {
        host: line("/proc/sys/kernel/hostname"),
        kernel: line("/proc/sys/kernel/osrelease"),
        cpu: model.unwrap_or_default().to_string(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_average: line("/proc/loadavg").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default(),
    }
}

/// Little's law for a run that took `elapsed` nanoseconds, drain included.
pub fn little(area_ns: u128, service_ns: u128, ended: u64, elapsed: u64) -> Little {
    let elapsed_s = elapsed.max(1) as f64 / SECOND as f64;
    let in_flight_mean = area_ns as f64 / elapsed.max(1) as f64;
    let throughput_per_s = ended as f64 / elapsed_s;
    let service_mean_s = if ended == 0 { 0.0 } else { service_ns as f64 / SECOND as f64 / ended as f64 };
    let product = throughput_per_s * service_mean_s;
    Little {
        in_flight_mean,
        throughput_per_s,
        service_mean_s,
        difference: (in_flight_mean - product).abs(),
        bound: LITTLE_SHARE * in_flight_mean.max(product) + LITTLE_ABSOLUTE,
    }
}

/// What a verdict is based on.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Of the measured part of the run.
    pub counts: Counts,
    pub response_p50_ns: u64,
    pub lateness_p99_ns: u64,
    /// Of the whole run, from the start to the last instant at which something was due.
    pub ran_ns: u64,
    /// Whether the equations of the ledger hold at every second.
    pub accounts_close: bool,
    /// Somebody ended the run early, and knows that it is not the whole run.
    pub interrupted: bool,
    pub generator: Generator,
    pub little: Little,
}

impl Facts {
    pub fn of(closed: &Closed, generator: Generator, little: Little, ran_ns: u64) -> Self {
        Self {
            counts: closed.totals.counts,
            response_p50_ns: closed.totals.response.p50_ns,
            lateness_p99_ns: closed.totals.lateness.p99_ns,
            ran_ns,
            accounts_close: closed.seconds.iter().all(|second| second.counts.is_closed()),
            interrupted: false,
            generator,
            little,
        }
    }
}

/// Why the numbers of a run mean nothing; empty if they do mean something.
pub fn judge(facts: &Facts) -> Vec<Reason> {
    let rules = [empty, accounting, little_law, rate, lateness, own_stall, cpu];
    rules.iter().filter_map(|rule| rule(facts)).map(|(rule, text)| Reason { rule, text }).collect()
}

type Finding = Option<(Rule, String)>;

fn empty(facts: &Facts) -> Finding {
    (facts.counts.scheduled == 0 && !facts.interrupted).then(|| {
        let text = "no request was due after the warm-up; raise the rate or the duration, or shorten the warm-up";
        (Rule::Empty, text.into())
    })
}

fn accounting(facts: &Facts) -> Finding {
    (!facts.accounts_close).then(|| {
        let text = "some requests have no outcome in the books; this is a bug, please report it with this result";
        (Rule::Accounting, text.into())
    })
}

fn little_law(facts: &Facts) -> Finding {
    let Little { in_flight_mean, throughput_per_s, service_mean_s, difference, bound } = facts.little;
    (difference > bound).then(|| {
        let text = format!(
            "Little's law does not hold: {in_flight_mean:.3} in flight in the mean, but {throughput_per_s:.1}/s of \
             {service_mean_s:.6} s each are {:.3} ({difference:.3} apart, {bound:.3} allowed); requests were lost or \
             clocks disagree, please report it with this result",
            throughput_per_s * service_mean_s
        );
        (Rule::Little, text)
    })
}

fn rate(facts: &Facts) -> Finding {
    let Counts { mut scheduled, sent, shed, mut unsent, shed_deadline, .. } = facts.counts;
    if facts.interrupted {
        // Those that were due just then are unsent because of that.
        scheduled -= unsent;
        unsent = 0;
    }
    (scheduled > 0 && (sent as f64) < RATE_LIMIT * scheduled as f64).then(|| {
        let share = 100.0 * sent as f64 / scheduled as f64;
        let advice = if unsent > shed {
            "the generator could not keep up or the run was cut short; lower the rate or give it more workers"
        } else if shed_deadline > shed - shed_deadline {
            "most were later than the deadline before they could leave; lower the rate or raise the deadline"
        } else {
            "the cap on requests in flight was reached, so the target does not keep up; lower the rate or raise the cap"
        };
        let text = format!(
            "the rate was not reached: {sent} of {scheduled} scheduled requests were sent ({share:.1} %, {shed} shed, \
             {unsent} unsent); {advice}"
        );
        (Rule::RateNotReached, text)
    })
}

fn lateness(facts: &Facts) -> Finding {
    let (late, median) = (facts.lateness_p99_ns, facts.response_p50_ns);
    // Without an answer there is no response time that lateness could have spoilt.
    (median > 0 && late > LATENESS_NS && late as f64 > LATENESS_SHARE * median as f64).then(|| {
        let ms = |ns: u64| ns as f64 / 1e6;
        let text = format!(
            "one request in a hundred left {:.2} ms late or more, which is over a tenth of the median response of \
             {:.2} ms; lower the rate, leave the generator a core of its own, or try --precise",
            ms(late),
            ms(median)
        );
        (Rule::Lateness, text)
    })
}

fn own_stall(facts: &Facts) -> Finding {
    let stalls = &facts.generator.stalls;
    let total: f64 = stalls.iter().map(|stall| stall.length_s).sum();
    // Nor does a fraction of a second say how often it stands still.
    let ran_s = if facts.interrupted { facts.ran_ns.max(SECOND) } else { facts.ran_ns } as f64 / SECOND as f64;
    let longest = stalls.iter().max_by(|one, other| one.length_s.total_cmp(&other.length_s))?;
    (total > STALL_SHARE * ran_s).then(|| {
        let text = format!(
            "the generator itself stood still for {total:.2} s (stalls: {}, longest {:.2} s at {:.2} s): it \
             was stopped by a signal or got no CPU, and the latencies around that are its own; repeat the run on a \
             machine with a free core",
            stalls.len(),
            longest.length_s,
            longest.at_s
        );
        (Rule::OwnStall, text)
    })
}

fn cpu(facts: &Facts) -> Finding {
    let Generator { busiest_worker, precise, .. } = facts.generator;
    // A run that was interrupted at once is little more than the start of its threads.
    let is_short = facts.interrupted && facts.ran_ns < SECOND;
    (busiest_worker > CPU_LIMIT && !precise && !is_short).then(|| {
        let text = format!(
            "a worker of the generator used {:.0} % of a core, so the generator was the bottleneck; lower the rate or \
             give it more workers",
            100.0 * busiest_worker
        );
        (Rule::CpuSaturated, text)
    })
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
