//! Simulated runs, so that it is known what differs.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use crate::load::ledger::{Counts, During, Second, Timings};
use crate::load::result::{
    Environment, Generator, Little, PlanRecord, RunResult, SCHEMA, SecondRecord, TargetRecord, Totals, Verdict,
};

use super::Input;
use super::bootstrap::{Random, Sparse};
use super::runs::{Run, Slice, Spread};

/// A server whose latencies are lognormal around a level that wanders: an autoregression from second to second.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub seconds: usize,
    /// Requests per second, Poisson.
    pub rate: f64,
    pub median_ns: f64,
    pub sigma: f64,
    /// Of the level, as a logarithm.
    pub wander: f64,
    /// Between the levels of neighbouring seconds.
    pub correlation: f64,
    /// Between whole runs, as a logarithm.
    pub between_runs: f64,
    pub errors: f64,
}

pub const SERVER: Server = Server {
    seconds: 60,
    rate: 60.0,
    median_ns: 20e6,
    sigma: 0.4,
    wander: 0.03,
    correlation: 0.4,
    between_runs: 0.0,
    errors: 0.01,
};

impl Server {
    pub fn run(&self, random: &mut Random) -> Run {
        let seconds = self.simulate(random);
        let slices = seconds.into_iter().map(|(counts, times)| {
            let sum_ns = times.iter().map(|time| *time as f64).sum();
            let cells = times.iter().map(|time| (bucket(*time), 1)).collect();
            let response = Spread { times: Sparse::new(cells), count: counts.ok, sum_ns };
            Slice { length_s: 1.0, counts, service: response.clone(), response }
        });
        Run { slices: slices.collect(), censored_from_ns: None, service_censored_from_ns: None }
    }

    /// The same with everything that a result has.
    pub fn result(&self, random: &mut Random) -> RunResult {
        let mut total = Second::default();
        let mut records = Vec::new();
        for (index, (counts, times)) in (0..).zip(self.simulate(random)) {
            let mut timings = Timings::default();
            times.iter().for_each(|time| timings.record(*time));
            let second = Second {
                counts,
                response: timings.clone(),
                service: timings,
                during: During::default(),
                ..Second::default()
            };
            records.push(SecondRecord::of(index, false, &second));
            total.merge(second);
        }
        result(self, &total, records)
    }

    pub fn input(&self, name: &str, random: &mut Random) -> Input {
        let mut result = self.result(random);
        // Not at the same time as others.
        result.started_unix += (random.next_u64() % 1_000_000_000) as f64;
        Input { name: name.into(), result }
    }

    /// Of each second what became of its requests, and the times of those that were answered.
    fn simulate(&self, random: &mut Random) -> Vec<(Counts, Vec<u64>)> {
        let of_run = self.median_ns.ln() + self.between_runs * normal(random);
        let mut level = self.wander * normal(random);
        let fresh = self.wander * (1.0 - self.correlation * self.correlation).sqrt();
        let mut seconds = Vec::new();
        for _ in 0..self.seconds {
            level = self.correlation * level + fresh * normal(random);
            let scheduled = (self.rate + self.rate.sqrt() * normal(random)).round().max(0.0) as u64;
            let http_error = (0..scheduled).filter(|_| uniform(random) < self.errors).count() as u64;
            let ok = scheduled - http_error;
            let times = (0..ok).map(|_| (of_run + level + self.sigma * normal(random)).exp() as u64);
            seconds.push((Counts { scheduled, sent: scheduled, ok, http_error, ..Counts::default() }, times.collect()));
        }
        seconds
    }
}

fn result(server: &Server, total: &Second, seconds: Vec<SecondRecord>) -> RunResult {
    let totals = Totals::of(total, BTreeMap::new(), BTreeMap::new());
    RunResult {
        schema: SCHEMA.into(),
        version: "0.1.0".into(),
        started_unix: 1_800_000_000.0,
        command_line: ["forebay", "load", "http://127.0.0.1:8080/users?a=1&b=<2>"].map(Into::into).into(),
        plan: PlanRecord {
            model: "open".into(),
            arrivals: format!("poisson, {}/s", server.rate),
            duration_s: server.seconds as f64,
            ran_s: server.seconds as f64,
            timeout_s: 30.0,
            ..PlanRecord::default()
        },
        environment: Environment { cpus: 2, ..Environment::default() },
        targets: vec![TargetRecord {
            name: "GET /users".into(),
            counts: totals.counts,
            response: totals.response.clone(),
        }],
        totals,
        warm_up: None,
        seconds,
        generator: Generator::default(),
        little: Little::default(),
        waterfall: None,
        answers: None,
        verdict: Verdict::new(false, vec![]),
        gates: vec![],
        notes: vec![],
    }
}

/// The bucket of a histogram of 3 digits.
fn bucket(value: u64) -> u64 {
    let bits = 64 - value.leading_zeros();
    value | ((1 << bits.saturating_sub(11).max(6)) - 1)
}

fn uniform(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// G. Box and M. Muller, 1958.
pub fn normal(random: &mut Random) -> f64 {
    (-2.0 * (1.0 - uniform(random)).ln()).sqrt() * (TAU * uniform(random)).cos()
}
