//! The ledger: in which second a request is booked, and that both equations hold in each.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn sample(number: u64, intended: u64, sent: u64, ended: u64, end: End) -> Sample {
    Sample { number, target: 0, intended, sent, first_byte: None, ended, end, bytes: 10, connect: None }
}

/// Books one request from beginning to end.
fn book(ledger: &mut Ledger, sample: &Sample) {
    ledger.scheduled(sample.intended);
    ledger.sent(sample.intended, sample.sent);
    ledger.ended(sample);
}

fn close(mut ledger: Ledger, now: u64, warm_up: u32) -> Closed {
    let mut book = Book::new(warm_up);
    book.absorb(ledger.take(now));
    book.close()
}

#[test]
fn a_late_answer_is_booked_in_the_second_in_which_it_was_due() {
    let mut ledger = Ledger::new(0);
    book(&mut ledger, &sample(0, 900 * MS, 1_100 * MS, 2_500 * MS, End::Ok { status: 200 }));

    let closed = close(ledger, 3 * SECOND, 0);

    let [first, second, third] = &closed.seconds[..] else { panic!("three rows: {:?}", closed.seconds) };
    assert_eq!((first.counts.scheduled, first.counts.sent, first.counts.ok), (1, 1, 1));
    assert_eq!((second.counts, third.counts), (Counts::default(), Counts::default()));
    assert_eq!((first.during.sent, second.during.sent, third.during.ended), (0, 1, 1));
    assert_eq!((second.during.in_flight_ns, third.during.in_flight_ns), (900 * MS, 500 * MS));
    assert_eq!(closed.total.response.sum_ns(), u128::from(1_600 * MS));
    assert_eq!(closed.total.service.sum_ns(), u128::from(1_400 * MS));
    assert_eq!(closed.total.lateness.sum_ns(), u128::from(200 * MS));
}

#[test]
fn censored_requests_are_in_the_distribution_and_failures_are_not() {
    let mut ledger = Ledger::new(0);
    book(&mut ledger, &sample(0, 0, 0, MS, End::Ok { status: 200 }));
    book(&mut ledger, &sample(1, 1, 1, 2 * MS, End::ConnectionError(ErrorKind::Refused)));
    book(&mut ledger, &sample(2, 2, 2, 3 * MS, End::HttpError { status: 503 }));
    book(&mut ledger, &sample(3, 3, 3, 4 * MS, End::Timeout));
    book(&mut ledger, &sample(4, 4, 4, 5 * MS, End::Unfinished));

    let totals = close(ledger, SECOND, 0).totals;

    assert!(totals.counts.is_closed());
    assert_eq!((totals.response.count, totals.service.count, totals.failed.count), (3, 3, 2));
    assert_eq!(totals.censored_from_ns, Some(4 * MS - 3));
    assert_eq!(totals.statuses, BTreeMap::from([(200, 1), (503, 1)]));
    assert_eq!(totals.errors, BTreeMap::from([(ErrorKind::Refused, 1)]));
}

#[test]
fn an_expected_refusal_is_ok_and_improves_no_percentile() {
    let mut ledger = Ledger::new(0);
    book(&mut ledger, &sample(0, 0, 0, 9 * MS, End::Ok { status: 404 }));
    book(&mut ledger, &sample(1, 1, 1, MS, End::Ok { status: 429 }));

    let closed = close(ledger, SECOND, 0);

    assert_eq!((closed.totals.counts.ok, closed.totals.response.count, closed.totals.failed.count), (2, 1, 1));
    assert_eq!(closed.targets[&0].response.count, 1);
}

#[test]
fn the_warm_up_is_kept_apart() {
    let mut ledger = Ledger::new(1);
    book(&mut ledger, &sample(0, 0, 0, 1_500 * MS, End::HttpError { status: 500 }));
    book(&mut ledger, &sample(1, 1_000 * MS, 1_600 * MS, 1_700 * MS, End::Ok { status: 200 }));

    let closed = close(ledger, 2 * SECOND, 1);

    assert_eq!((closed.totals.counts.sent, closed.totals.counts.http_error), (1, 0));
    assert_eq!(closed.warm_up.expect("is kept").counts.http_error, 1);
    assert_eq!(closed.totals.statuses, BTreeMap::from([(200, 1)]));
    assert_eq!(closed.targets[&0].counts.sent, 1);
    assert_eq!(closed.seconds.iter().map(|second| second.warm_up).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_second_is_settled_when_it_is_over_and_nothing_in_it_is_open() {
    let mut ledger = Ledger::new(0);
    let mut whole = Book::new(0);
    book(&mut ledger, &sample(0, 0, 0, MS, End::Ok { status: 200 }));
    ledger.scheduled(SECOND);
    ledger.sent(SECOND, SECOND);
    whole.absorb(ledger.take(2 * SECOND));

    assert!(whole.settle(SECOND - 1).is_empty(), "the second is not over");
    assert_eq!(whole.settle(3 * SECOND).iter().map(|second| second.second).collect::<Vec<_>>(), [0]);
    assert_eq!(whole.counts().sent, 2, "what is open counts too");

    ledger.ended(&sample(1, SECOND, SECOND, 3 * SECOND - 1, End::Ok { status: 200 }));
    whole.absorb(ledger.take(3 * SECOND));

    assert_eq!(whole.settle(3 * SECOND).iter().map(|second| second.second).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(whole.open().count(), 0);
    assert_eq!(whole.total().counts.ok, 2);
}

#[test]
fn times_beyond_the_range_are_counted_as_such() {
    let mut timings = Timings::default();
    timings.record(HIGHEST_NS);
    timings.record(HIGHEST_NS + 1);

    assert_eq!((timings.count(), timings.saturated()), (2, 1));
    assert!(timings.max_ns() >= HIGHEST_NS);
    assert_eq!(timings.sum_ns(), 2 * u128::from(HIGHEST_NS) + 1);
}

/// What may happen to one request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Shed(Shed),
    Unsent,
    Sent { late: u64, took: u64, end: End },
}

fn fate() -> impl Strategy<Value = Fate> {
    let end = prop_oneof![
        Just(End::Ok { status: 200 }),
        Just(End::HttpError { status: 503 }),
        Just(End::ConnectionError(ErrorKind::Reset)),
        Just(End::Timeout),
        Just(End::Unfinished),
    ];
    prop_oneof![
        1 => Just(Fate::Shed(Shed::Cap)),
        1 => Just(Fate::Shed(Shed::Deadline)),
        1 => Just(Fate::Unsent),
        7 => (0..2 * SECOND, 0..3 * SECOND, end).prop_map(|(late, took, end)| Fate::Sent { late, took, end }),
    ]
}

/// Something that happens at an instant; the order is that of the enum where instants are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Scheduled,
    Sent,
    Ended,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any requests with any fates, dealt to any number of workers that hand over at any times: no count is lost,
    /// both equations hold in every second, and both sides of Little's law are the same number.
    #[test]
    fn the_ledger_closes_at_every_second(
        requests in prop::collection::vec((0..5 * SECOND, 0..4_usize, fate()), 1..60),
        hand_overs in prop::collection::vec(0..12 * SECOND, 0..12),
        warm_up in 0..3_u32,
    ) {
        let mut events = Vec::new();
        for (index, (intended, _, fate)) in requests.iter().enumerate() {
            events.push((*intended, index, Event::Scheduled));
            if let Fate::Sent { late, took, .. } = fate {
                events.push((intended + late, index, Event::Sent));
                events.push((intended + late + took, index, Event::Ended));
            }
        }
        events.sort_unstable_by_key(|(at, index, event)| (*at, *event, *index));
        let mut hand_overs = hand_overs;
        hand_overs.sort_unstable();

        let mut workers: Vec<Ledger> = (0..4).map(|_| Ledger::new(warm_up)).collect();
        let mut whole = Book::new(warm_up);
        let mut settled = Vec::new();
        let mut hand_overs = hand_overs.into_iter().peekable();
        for (at, index, event) in events {
            while let Some(now) = hand_overs.next_if(|now| *now < at) {
                workers.iter_mut().for_each(|worker| whole.absorb(worker.take(now)));
                settled.extend(whole.settle(now));
            }
            let (intended, worker, fate) = requests[index];
            let worker = &mut workers[worker];
            match (event, fate) {
                (Event::Scheduled, _) => {
                    worker.scheduled(intended);
                    match fate {
                        Fate::Shed(why) => worker.shed(intended, why),
                        Fate::Unsent => worker.unsent(intended),
                        Fate::Sent { .. } => {}
                    }
                }
                (Event::Sent, _) => worker.sent(intended, at),
                (Event::Ended, Fate::Sent { late, end, .. }) => {
                    worker.ended(&sample(index as u64, intended, intended + late, at, end));
                }
                (Event::Ended, _) => unreachable!("only what was sent ends"),
            }
        }
        workers.iter_mut().for_each(|worker| whole.absorb(worker.take(12 * SECOND)));
        let closed = whole.close();

        let mut sum = Counts::default();
        for second in &closed.seconds {
            prop_assert!(second.counts.is_closed(), "{second:?}");
            prop_assert_eq!(second.response.count, second.counts.ok + second.counts.censored());
            prop_assert_eq!(second.service.count, second.response.count);
            prop_assert_eq!(second.failed.count, second.counts.http_error + second.counts.connection_error);
            prop_assert_eq!(second.lateness.count, second.counts.sent);
            prop_assert_eq!(second.warm_up, second.second < warm_up);
            sum.add(&second.counts);
        }
        prop_assert_eq!(sum.scheduled, requests.len() as u64);
        let mut measured = closed.totals.counts;
        if let Some(warm_up) = &closed.warm_up {
            measured.add(&warm_up.counts);
        }
        prop_assert_eq!(measured, sum);
        for second in settled {
            prop_assert!(closed.seconds.contains(&second), "settled seconds do not change: {:?}", second);
        }
        let during = |of: fn(&During) -> u64| closed.seconds.iter().map(|second| of(&second.during)).sum::<u64>();
        prop_assert_eq!(during(|during| during.sent), sum.sent);
        prop_assert_eq!(during(|during| during.ended), sum.sent);
        prop_assert_eq!(closed.area_ns, closed.service_ns, "Little's law is an identity");
    }
}
