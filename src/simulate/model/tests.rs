//! The model against naive twins: other ways to reckon the same thing, exactly.

use proptest::prelude::*;

use super::*;
use crate::simulate::settings::{Change, Fault, FaultKind, Latency, Schedule};

const MS: u64 = 1_000_000;

fn server(workers: usize, queue: usize) -> Upstream {
    let workers = NonZeroUsize::new(workers).unwrap();
    Upstream {
        capacity: Capacity::Workers { workers, queue },
        latency: Latency::Fixed(Duration::from_millis(10)),
        ..Upstream::new("a")
    }
}

fn model(upstream: Upstream) -> Model {
    Model::new(1, Arc::new(upstream))
}

/// Lets requests come with these times and holds (nanoseconds), and gives the ends by number; `None` for the refused.
fn run(mut model: Model, arrivals: &[(u64, u64)]) -> Vec<Option<u64>> {
    for (number, (at, hold)) in arrivals.iter().enumerate() {
        let hold = Some(Duration::from_nanos(*hold));
        let _ = model.arrive(*at, Arrival { hold, ..Arrival::new(number as u64) });
    }
    let mut ends = vec![None; arrivals.len()];
    while let Some(done) = model.completed(u64::MAX - 1) {
        assert!(done.arrived <= done.started && done.started <= done.ended);
        ends[done.number as usize] = Some(done.ended);
    }
    ends
}

#[test]
fn the_queue_has_its_length_and_the_next_one_is_refused() {
    let mut model = model(server(1, 2));

    for number in 0..3 {
        assert!(model.arrive(0, Arrival::new(number)).is_ok());
    }
    assert_eq!(model.arrive(5 * MS, Arrival::new(3)), Err(Full));
    assert!(model.arrive(10 * MS, Arrival::new(4)).is_ok(), "the first one is done in this moment");

    let levels = model.levels();
    assert_eq!((levels.in_service, levels.queued, levels.refused, levels.peak_queued), (1, 2, 1, 2));
}

#[test]
fn the_last_one_first() {
    let lifo = Upstream { discipline: Discipline::Lifo, ..server(1, 10) };

    let ends = run(model(lifo), &[(0, 10 * MS), (1, 10 * MS), (2, 10 * MS), (11 * MS, 10 * MS)]);

    assert_eq!(ends, [10, 40, 20, 30].map(|time| Some(time * MS)));
}

#[test]
fn shared_workers_divide_their_time() {
    let shared = || model(Upstream { discipline: Discipline::Ps, ..server(1, 10) });

    assert_eq!(run(shared(), &[(0, 10 * MS), (0, 10 * MS)]), [Some(20 * MS); 2]);
    // Alone for 5 ms, then both at half speed until the first is done.
    assert_eq!(run(shared(), &[(0, 10 * MS), (5 * MS, 10 * MS)]), [Some(15 * MS), Some(20 * MS)]);
    // Two workers: nobody is faster than one worker.
    let two = model(Upstream { discipline: Discipline::Ps, ..server(2, 10) });
    assert_eq!(run(two, &[(0, 10 * MS), (0, 10 * MS), (0, 20 * MS)]), [Some(15 * MS), Some(15 * MS), Some(25 * MS)]);
}

#[test]
fn a_stall_holds_up_all_of_them() {
    let stall = Change {
        at: Duration::from_millis(5),
        lasts: Some(Duration::from_millis(100)),
        stall: true,
        ..Change::default()
    };
    let schedule = Schedule { changes: vec![stall] };
    let arrivals = [(0, 10 * MS), (0, 10 * MS), (50 * MS, 0)];
    let ends = |upstream: Upstream| run(model(Upstream { schedule: schedule.clone(), ..upstream }), &arrivals);

    assert_eq!(ends(server(1, 10)), [110, 120, 120].map(|time| Some(time * MS)));
    assert_eq!(ends(Upstream::new("a")), [110, 110, 105].map(|time| Some(time * MS)));
    let shared = Upstream { discipline: Discipline::Ps, ..server(1, 10) };
    assert_eq!(ends(shared), [120, 120, 105].map(|time| Some(time * MS)));
}

#[test]
fn the_schedule_can_wait_for_the_first_request() {
    let stall = Change { lasts: Some(Duration::from_millis(100)), stall: true, ..Change::default() };
    let schedule = Schedule { changes: vec![stall] };
    let upstream = Upstream { schedule, schedule_from: ScheduleFrom::FirstRequest, ..Upstream::new("a") };

    assert_eq!(run(model(upstream), &[(1000 * MS, 0), (1101 * MS, 0)]), [Some(1100 * MS), Some(1101 * MS)]);
}

#[test]
fn workers_come_and_go_by_the_schedule() {
    let fewer = Change { lasts: Some(Duration::from_millis(15)), workers: NonZeroUsize::new(1), ..Change::default() };
    let upstream = || Upstream { schedule: Schedule { changes: vec![fewer.clone()] }, ..server(3, 10) };

    let ends = run(model(upstream()), &[(0, 10 * MS); 4]);
    assert_eq!(ends, [10, 20, 25, 25].map(|time| Some(time * MS)), "at 15 ms there are three workers");
    let shared = run(model(Upstream { discipline: Discipline::Ps, ..upstream() }), &[(0, 10 * MS); 3]);
    assert_eq!(shared, [Some(20 * MS); 3], "half of the work by one worker, the rest by three");
}

#[test]
fn a_request_that_keeps_its_worker_gives_it_back_when_it_leaves() {
    let mut model = model(server(1, 1));
    let ticket = model.arrive(0, Arrival { keeps_worker: true, ..Arrival::new(0) }).unwrap();
    model.arrive(0, Arrival::new(1)).unwrap();

    assert!(model.completed(10 * MS).is_some_and(|done| done.keeps_worker));
    assert_eq!(model.next_event(), None, "the worker is taken");
    model.leave(30 * MS, ticket);
    assert_eq!(model.next_event(), Some(40 * MS));
    model.leave(31 * MS, ticket);
    assert_eq!(model.levels().in_service, 1, "leaving twice changes nothing");
}

#[test]
fn faults_that_take_time_keep_their_worker() {
    let faults = vec![Fault { kind: FaultKind::StallBeforeHead, probability: 1.0 }];
    let mut model = model(Upstream { faults, ..server(1, 1) });
    model.arrive(0, Arrival::new(0)).unwrap();

    assert!(model.completed(10 * MS).is_some_and(|done| done.keeps_worker));
    assert_eq!(model.levels().in_service, 1);
}

#[test]
fn clients_that_leave_free_the_queue_and_the_worker() {
    let mut model = model(server(1, 1));
    let first = model.arrive(0, Arrival::new(0)).unwrap();
    let second = model.arrive(0, Arrival::new(1)).unwrap();

    model.leave(MS, second);
    let third = model.arrive(MS, Arrival::new(2)).unwrap();
    model.leave(2 * MS, first);

    assert_eq!(model.next_event(), Some(12 * MS));
    assert_eq!(model.completed(12 * MS).map(|done| done.ticket), Some(third));
    assert_eq!(model.levels(), Levels { peak_in_service: 1, peak_queued: 1, ..Levels::default() });
}

#[test]
fn a_sync_server_is_one_worker_with_an_endless_queue() {
    let sync = Upstream { capacity: Capacity::Sync { queue: 1 }, ..Upstream::new("a") };

    let ends = run(model(sync), &[(0, 10 * MS); 20]);

    assert_eq!(ends.last(), Some(&Some(200 * MS)));
}

#[test]
fn time_does_not_go_back() {
    let mut model = model(server(1, 1));
    model.arrive(10 * MS, Arrival::new(0)).unwrap();
    model.arrive(5 * MS, Arrival::new(1)).unwrap();

    assert_eq!(model.completed(30 * MS).map(|done| done.ended), Some(20 * MS));
    assert_eq!(model.completed(30 * MS).map(|done| (done.arrived, done.ended)), Some((10 * MS, 30 * MS)));
}

/// Arrival times in order, and holds.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0_u64..20, 0_u64..50), 1..60).prop_map(|steps| {
        let mut now = 0;
        let each = steps.into_iter().map(|(gap, hold)| {
            now += gap;
            (now, hold)
        });
        each.collect()
    })
}

proptest! {
    /// Kiefer and Wolfowitz: whoever comes takes the worker that is free first.
    #[test]
    fn first_come_first_served_by_the_workers_own_calendars(arrivals in arrivals(), workers in 1_usize..5) {
        let mut free_at = vec![0_u64; workers];
        let expected: Vec<Option<u64>> = arrivals.iter().map(|(at, hold)| {
            let worker = free_at.iter_mut().min().unwrap();
            *worker = (*worker).max(*at) + hold;
            Some(*worker)
        }).collect();

        prop_assert_eq!(run(model(server(workers, usize::MAX)), &arrivals), expected);
    }

    /// One worker is never idle while there is work, so its busy times do not depend on who is first.
    #[test]
    fn no_discipline_loses_or_adds_work(arrivals in arrivals()) {
        let last_end = |discipline| {
            let ends = run(model(Upstream { discipline, ..server(1, usize::MAX) }), &arrivals);
            ends.into_iter().map(|end| end.expect("nobody is refused")).max()
        };

        let expected = last_end(Discipline::Fifo);
        prop_assert_eq!(last_end(Discipline::Lifo), expected);
        // Shared work ends between two nanoseconds, which is rounded up each time.
        let late = last_end(Discipline::Ps).zip(expected).map(|(shared, exact)| shared - exact);
        prop_assert!(late.is_some_and(|late| late <= arrivals.len() as u64), "{late:?}");
    }

    #[test]
    fn whoever_is_not_refused_is_done_and_the_levels_are_kept(
        arrivals in arrivals(), workers in 1_usize..4, queue in 0_usize..4, which in 0..3,
    ) {
        let discipline = [Discipline::Fifo, Discipline::Lifo, Discipline::Ps][which as usize];
        let mut model = model(Upstream { discipline, ..server(workers, queue) });
        let mut taken = 0;
        for (number, (at, hold)) in arrivals.iter().enumerate() {
            let hold = Some(Duration::from_nanos(*hold));
            taken += usize::from(model.arrive(*at, Arrival { hold, ..Arrival::new(number as u64) }).is_ok());
            let Levels { in_service, queued, .. } = model.levels();
            prop_assert!(in_service + queued <= workers + queue);
            prop_assert!(discipline == Discipline::Ps || queued == 0 || in_service == workers);
        }
        let done = std::iter::from_fn(|| model.completed(u64::MAX - 1)).count();

        prop_assert_eq!(done, taken);
        prop_assert_eq!(model.levels().refused as usize, arrivals.len() - taken);
        prop_assert_eq!((model.levels().in_service, model.levels().queued), (0, 0));
    }
}
