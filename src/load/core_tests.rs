//! The core of a run by hand: what it releases, sheds and leaves unsent, for each model.

use super::super::arrivals::Spacing;
use super::super::sim::plan;
use super::super::{SECOND, Sample};
use super::*;

/// Everything that a core reports.
#[derive(Debug, Default)]
struct Seen {
    scheduled: Vec<u64>,
    shed: Vec<(u64, Shed)>,
    unsent: Vec<u64>,
}

impl Sink for Seen {
    fn scheduled(&mut self, intended: u64) {
        self.scheduled.push(intended);
    }
    fn shed(&mut self, intended: u64, why: Shed) {
        self.shed.push((intended, why));
    }
    fn unsent(&mut self, intended: u64) {
        self.unsent.push(intended);
    }
    fn sent(&mut self, _: u64, _: u64) {}
    fn ended(&mut self, _: &Sample) {}
}

fn open(rate: f64) -> Plan {
    plan(Model::Open(Arrivals::constant(rate, Spacing::Even)), 1)
}

fn release(core: &mut Core, now: u64, seen: &mut Seen) -> Release {
    match core.next(now, seen) {
        Step::Release(release) => release,
        other => panic!("a request is due at {now}: {other:?}"),
    }
}

#[test]
fn a_late_performer_gets_everything_that_was_due_with_its_own_instant() {
    let mut core = Core::new(&open(10.0), 0, 1);
    let mut seen = Seen::default();

    let due: Vec<u64> = (0..3).map(|_| release(&mut core, 250_000_000, &mut seen).intended).collect();

    assert_eq!(due, [0, 100_000_000, 200_000_000]);
    assert_eq!(core.next(250_000_000, &mut seen), Step::Wait(300_000_000));
    assert_eq!(core.horizon(250_000_000), 250_000_000);
    assert_eq!(core.horizon(350_000_000), 300_000_000);
    assert_eq!(seen.scheduled, due);
}

#[test]
fn what_is_beyond_the_cap_or_the_deadline_is_shed_and_counted() {
    let mut core = Core::new(&Plan { cap: 1, deadline: Some(150_000_000), ..open(10.0) }, 0, 1);
    let mut seen = Seen::default();

    let first = release(&mut core, 0, &mut seen);
    assert_eq!(core.next(100_000_000, &mut seen), Step::Wait(200_000_000));
    core.ended(&first, 400_000_000);
    let next = release(&mut core, 400_000_000, &mut seen);

    assert_eq!(next.intended, 300_000_000);
    assert_eq!(seen.shed, [(100_000_000, Shed::Cap), (200_000_000, Shed::Deadline)]);
    assert_eq!(seen.scheduled.len(), 4);
}

#[test]
fn what_is_not_released_shortly_after_the_end_is_unsent() {
    let mut seen = Seen::default();
    let mut core = Core::new(&open(10.0), 0, 1);

    let late = release(&mut core, SECOND + RELEASE_GRACE - 1, &mut seen);
    let end = core.next(SECOND + RELEASE_GRACE, &mut seen);

    assert_eq!((late.intended, end), (0, Step::Done));
    assert_eq!(seen.unsent.len(), 9);
    assert_eq!(seen.scheduled.len(), 10);
}

#[test]
fn a_run_that_is_stopped_never_had_what_came_later() {
    let mut seen = Seen::default();
    let mut core = Core::new(&open(10.0), 0, 1);
    release(&mut core, 0, &mut seen);

    core.stop(450_000_000);

    assert_eq!(core.next(450_000_000, &mut seen), Step::Done);
    assert_eq!(seen.unsent, [100_000_000, 200_000_000, 300_000_000, 400_000_000]);
    assert_eq!(core.end(), 450_000_000);
}

#[test]
fn finishing_books_the_rest() {
    let mut seen = Seen::default();
    let mut core = Core::new(&open(10.0), 0, 1);

    core.finish(&mut seen);

    assert_eq!((seen.scheduled.len(), seen.unsent.len()), (10, 10));
}

#[test]
fn workers_share_an_open_run_without_changing_it() {
    let arrivals = Arrivals::constant(1000.0, Spacing::Poisson);
    let mut plan = plan(Model::Open(arrivals), 2);
    plan.targets = Targets::Weighted(vec![1.0, 3.0]);
    let all = |workers: usize| {
        let mut all = Vec::new();
        for worker in 0..workers {
            let mut core = Core::new(&plan, worker, workers);
            let mut seen = Seen::default();
            while let Step::Release(release) = core.next(2 * SECOND, &mut seen) {
                all.push((release.number, release.intended, release.target));
            }
        }
        all.sort_unstable();
        all
    };

    let alone = all(1);

    assert_eq!(all(8), alone);
    assert!(alone.iter().enumerate().all(|(index, (number, ..))| *number == index as u64));
    let second = alone.iter().filter(|(_, _, target)| *target == 1).count() as f64 / alone.len() as f64;
    // Five standard errors of a share of 3/4 of about 2000.
    assert!((second - 0.75).abs() < 0.05, "{second}");
}

#[test]
fn a_cap_is_shared_by_the_workers() {
    let caps: Vec<u64> = (0..3).map(|worker| Core::new(&Plan { cap: 8, ..open(1.0) }, worker, 3).cap).collect();

    assert_eq!(caps, [3, 3, 2]);
}

#[test]
fn closed_users_wait_for_their_answer_and_think() {
    let model = Model::Closed { users: 2, think: Think::Fixed(10) };
    let mut core = Core::new(&Plan { cap: 1, ..plan(model, 1) }, 0, 1);
    let mut seen = Seen::default();

    let first = release(&mut core, 0, &mut seen);
    let second = release(&mut core, 0, &mut seen);
    assert_eq!(core.next(0, &mut seen), Step::Wait(SECOND));
    core.ended(&first, 100);
    assert_eq!(core.next(100, &mut seen), Step::Wait(110));
    let again = release(&mut core, 115, &mut seen);

    assert_eq!((again.intended, again.number), (110, 2));
    core.ended(&second, SECOND);
    core.ended(&again, SECOND);
    assert_eq!(core.next(SECOND, &mut seen), Step::Done);
    assert!(seen.shed.is_empty(), "the cap gives way to the users");
}

#[test]
fn sessions_have_a_geometric_length() {
    let mean = 4.0;
    let lengths: Vec<u64> = (0..100_000).map(|visitor| geometric(11, visitor, mean)).collect();

    let average = lengths.iter().sum::<u64>() as f64 / 1e5;
    let ones = lengths.iter().filter(|length| **length == 1).count() as f64 / 1e5;

    // Standard deviation sqrt(1-p)/p = 3.46 and sqrt(p(1-p)) = 0.43, by sqrt(1e5) = 316; 4.9 of them for 1e-6.
    assert!((average - mean).abs() < 4.9 * 3.46 / 316.0, "{average}");
    assert!((ones - 0.25).abs() < 4.9 * 0.433 / 316.0, "{ones}");
    assert_eq!(geometric(1, 1, 1.0), 1);
}

#[test]
fn a_session_that_is_turned_away_is_over() {
    let model = Model::Sessions {
        starts: Arrivals::constant(10.0, Spacing::Even),
        mean_requests: 1000.0,
        think: Think::Fixed(0),
    };
    let mut core = Core::new(&Plan { cap: 1, ..plan(model, 1) }, 0, 1);
    let mut seen = Seen::default();

    let first = release(&mut core, 0, &mut seen);
    assert_eq!(core.next(999_999_999, &mut seen), Step::Wait(SECOND));
    core.ended(&first, 999_999_999);
    let again = release(&mut core, 999_999_999, &mut seen);

    assert_eq!(seen.shed.len(), 9);
    assert_eq!(again.intended, 999_999_999, "the first session goes on");
}

#[test]
fn nonsense_is_named() {
    let starts = Arrivals::constant(1.0, Spacing::Even);
    let sessions =
        |mean_requests| Model::Sessions { starts: starts.clone(), mean_requests, think: Think::Fixed(0) }.check();

    assert!(Model::Closed { users: 0, think: Think::Fixed(0) }.check().is_err());
    assert!(sessions(0.5).is_err());
    assert!(sessions(f64::INFINITY).is_err());
    assert!(sessions(1.5).is_ok());
    assert!(Model::Open(Arrivals::constant(-1.0, Spacing::Even)).check().is_err());
}
