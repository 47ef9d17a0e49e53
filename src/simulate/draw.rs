//! What chance decides about one request.
//!
//! Pure: a draw is a function of the seed, the upstream's name and the number of the request, never of the order in
//! which threads ask. Two runs of the same seed see the same latencies, which makes them comparable (common random
//! numbers), and one request can be explained afterwards.

use std::time::Duration;

use http::StatusCode;

use super::schedule::Now;
use super::settings::{FaultKind, Upstream};
use crate::chance::{self, choose};
use crate::latency;

/// What one request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    pub latency: Duration,
    pub status: StatusCode,
    pub fault: Option<FaultKind>,
}

/// Each decision draws from a stream of its own, so that adding an error to a configuration leaves the latencies of
/// all requests as they were.
#[derive(Clone, Copy)]
enum Stream {
    Latency = 1,
    Status = 2,
    Fault = 3,
}

/// The draw for request number `n` (from 0) at `upstream`, while no change of its schedule holds.
pub fn draw(seed: u64, upstream: &Upstream, n: u64) -> Draw {
    draw_during(seed, upstream, n, Now::default())
}

/// The same for a request whose service begins so many nanoseconds after the schedule did. Chance is the same as
/// without the schedule: a request that is slow stays slow compared with the others.
pub fn draw_at(seed: u64, upstream: &Upstream, n: u64, time: u64) -> Draw {
    draw_during(seed, upstream, n, upstream.schedule.at(time))
}

fn draw_during(seed: u64, upstream: &Upstream, n: u64, now: Now<'_>) -> Draw {
    let unit = |stream: Stream| chance::unit(seed, &upstream.name, n, stream as u64);
    let latency = now.latency.unwrap_or(&upstream.latency).quantile(unit(Stream::Latency));
    let errors = now.errors.unwrap_or(&upstream.errors).iter().copied();
    let faults = now.faults.unwrap_or(&upstream.faults).iter().map(|fault| (fault.kind, fault.probability));
    Draw {
        latency: now.factor.map_or(latency, |factor| scaled(latency, factor)),
        status: choose(unit(Stream::Status), errors).unwrap_or(upstream.status),
        fault: choose(unit(Stream::Fault), faults),
    }
}

fn scaled(latency: Duration, factor: f64) -> Duration {
    latency::duration(latency.as_nanos() as f64 * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::settings::{Change, Factor, Fault, Latency, Schedule};

    const DRAWS: u64 = 100_000;

    fn noisy() -> Upstream {
        Upstream {
            latency: Latency::Uniform { min: Duration::from_millis(100), max: Duration::from_millis(300) },
            errors: vec![(StatusCode::INTERNAL_SERVER_ERROR, 0.3), (StatusCode::BAD_GATEWAY, 0.1)],
            faults: vec![Fault { kind: FaultKind::Truncate, probability: 0.05 }],
            ..Upstream::new("noisy")
        }
    }

    #[test]
    fn the_same_number_draws_the_same_in_any_order() {
        let upstream = noisy();

        let forwards: Vec<Draw> = (0..1000).map(|n| draw(1, &upstream, n)).collect();
        let mut backwards: Vec<Draw> = (0..1000).rev().map(|n| draw(1, &upstream, n)).collect();
        backwards.reverse();

        assert_eq!(forwards, backwards);
    }

    #[test]
    fn seed_and_name_change_the_draws() {
        let upstream = noisy();
        let renamed = Upstream { name: "other".to_owned(), ..noisy() };
        let latencies = |seed, upstream| (0..16).map(|n| draw(seed, upstream, n).latency).collect::<Vec<_>>();

        assert_ne!(latencies(1, &upstream), latencies(2, &upstream));
        assert_ne!(latencies(1, &upstream), latencies(1, &renamed));
    }

    #[test]
    fn an_added_error_leaves_the_latencies_as_they_were() {
        let without = Upstream { errors: Vec::new(), ..noisy() };

        assert!((0..1000).all(|n| draw(5, &noisy(), n).latency == draw(5, &without, n).latency));
    }

    #[test]
    fn any_number_of_threads_draws_the_same() {
        let latency = Latency::Lognormal { median: Duration::from_millis(40), p99: Duration::from_millis(900) };
        let upstream = Upstream { latency, ..noisy() };
        let list = |numbers: std::ops::Range<u64>| -> String {
            numbers.map(|n| format!("{:?}\n", draw(7, &upstream, n))).collect()
        };

        let alone = list(0..80_000);
        let together: String = std::thread::scope(|scope| {
            let list = &list;
            let threads: Vec<_> =
                (0..8).map(|thread| scope.spawn(move || list(thread * 10_000..(thread + 1) * 10_000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });

        assert!(alone == together, "byte by byte");
    }

    #[test]
    fn a_change_takes_the_place_of_what_it_names_and_leaves_chance_alone() {
        let slower = Change {
            at: Duration::from_secs(4),
            lasts: Some(Duration::from_secs(1)),
            factor: Some(Factor { from: 3.0, to: 3.0 }),
            errors: Some(vec![(StatusCode::SERVICE_UNAVAILABLE, 1.0)]),
            faults: Some(Vec::new()),
            ..Change::default()
        };
        let upstream = Upstream { schedule: Schedule { changes: vec![slower] }, ..noisy() };

        for n in 0..100 {
            let (usual, changed) = (draw(1, &upstream, n), draw_at(1, &upstream, n, 4_500_000_000));
            assert_eq!(usual, draw_at(1, &upstream, n, 5_000_000_000), "it is over");
            assert_eq!(changed.latency, 3 * usual.latency);
            assert_eq!((changed.status, changed.fault), (StatusCode::SERVICE_UNAVAILABLE, None));
        }
    }

    #[test]
    fn errors_and_faults_come_as_often_as_configured() {
        let upstream = noisy();
        let share =
            |is: &dyn Fn(Draw) -> bool| (0..DRAWS).filter(|n| is(draw(9, &upstream, *n))).count() as f64 / DRAWS as f64;

        assert!((share(&|d| d.status == StatusCode::INTERNAL_SERVER_ERROR) - 0.3).abs() < 0.01);
        assert!((share(&|d| d.status == StatusCode::BAD_GATEWAY) - 0.1).abs() < 0.01);
        assert!((share(&|d| d.status == StatusCode::OK) - 0.6).abs() < 0.01);
        assert!((share(&|d| d.fault == Some(FaultKind::Truncate)) - 0.05).abs() < 0.01);
    }
}
