//! Tests of `flights`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use futures_util::task::{ArcWake, waker};
use tokio::time::{sleep, timeout};

use super::*;
use crate::message::head::{HeadLimits, parse_request};

/// An answer of the tests: its number tells the pieces of work apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    number: usize,
    reason: Reason,
}

impl Shared for Reply {
    fn reason(&self) -> Reason {
        self.reason
    }
}

/// Work that is counted.
#[derive(Clone, Default)]
struct Upstream {
    begun: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// One piece of work that has not been dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Upstream {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn work(&self, seconds: u64, reason: Reason) -> impl Future<Output = Reply> + Send + 'static {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        async move {
            sleep(Duration::from_secs(seconds)).await;
            drop(open);
            Reply { number, reason }
        }
    }

    fn ok(&self, seconds: u64) -> impl Future<Output = Reply> + Send + 'static {
        self.work(seconds, Reason::Ok)
    }
}

struct Setup {
    flights: Flights<Reply>,
    upstream: Upstream,
    tasks: Tasks,
    telemetry: Arc<Telemetry>,
}

fn setup(on_client_gone: ClientGone) -> Setup {
    let (tasks, telemetry) = (Tasks::default(), Telemetry::quiet());
    let flights = Flights::new(on_client_gone, tasks.clone(), telemetry.clone());
    Setup { flights, upstream: Upstream::default(), tasks, telemetry }
}

impl Setup {
    fn join(&self, key: &Key, seconds: u64) -> Joined<Reply> {
        self.flights.join(key.clone(), || self.upstream.ok(seconds))
    }
}

const ALL_PARTS: [CoalesceKey; 3] = [CoalesceKey::Path, CoalesceKey::Query, CoalesceKey::Body];

fn key_of(head: &str, parts: &[CoalesceKey], body: Option<&str>) -> Key {
    let mut parsed = RequestHead::default();
    let text = format!("{head}\r\nhost: example.com\r\n\r\n");
    parse_request(text.as_bytes(), &HeadLimits::default(), &mut parsed).expect("the head is valid");
    let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    Key::new("users", &Coalesce { key: parts.to_vec() }, &parsed, body.as_ref())
}

fn key(path: &str) -> Key {
    key_of(&format!("GET {path} HTTP/1.1"), &ALL_PARTS, None)
}

/// Lets every task that can go on do so.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_identical_requests_are_one_piece_of_work() {
    let setup = setup(ClientGone::Cancel);

    let joined: Vec<_> = (0..1000).map(|_| setup.join(&key("/users"), 1)).collect();
    let leaders = joined.iter().filter(|joined| joined.leads()).count();
    let answers = futures_util::future::join_all(joined.into_iter().map(Joined::answer)).await;

    assert_eq!((leaders, setup.upstream.begun()), (1, 1));
    assert!(answers.iter().all(|answer| *answer == Ok(Reply { number: 1, reason: Reason::Ok })));
    assert_eq!(setup.flights.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn different_requests_do_not_share() {
    let setup = setup(ClientGone::Cancel);

    let (first, second) = (setup.join(&key("/a"), 1), setup.join(&key("/b"), 1));

    assert!(first.leads() && second.leads());
    assert_eq!(setup.flights.running(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_leads_may_leave_and_the_others_get_the_answer() {
    let setup = setup(ClientGone::Cancel);
    let leader = setup.join(&key("/users"), 2);
    let follower = setup.join(&key("/users"), 2);
    assert!(leader.leads() && !follower.leads());

    assert!(timeout(Duration::from_secs(1), leader.answer()).await.is_err(), "its deadline is shorter than the work");

    assert_eq!(follower.answer().await, Ok(Reply { number: 1, reason: Reason::Ok }));
    assert_eq!(setup.telemetry.detached.finished.get(), 0, "there was a client all the time");
}

#[tokio::test(start_paused = true)]
async fn the_work_is_dropped_when_the_last_one_leaves() {
    let setup = setup(ClientGone::Cancel);
    let joined = [setup.join(&key("/users"), 60), setup.join(&key("/users"), 60)];
    settle().await;
    let [first, second] = joined;
    drop(first);
    settle().await;
    assert_eq!(setup.upstream.open(), 1, "somebody waits still");

    drop(second);
    settle().await;

    assert_eq!((setup.upstream.open(), setup.flights.running(), setup.tasks.running()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn work_of_which_everybody_left_before_it_ran_is_dropped_too() {
    let setup = setup(ClientGone::Cancel);

    drop(setup.join(&key("/users"), 60));
    settle().await;

    assert_eq!((setup.upstream.open(), setup.flights.running()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_joins_before_the_work_is_given_up_keeps_it() {
    let setup = setup(ClientGone::Cancel);
    let first = setup.join(&key("/users"), 1);
    settle().await;

    // No other task runs between the two.
    drop(first);
    let second = setup.join(&key("/users"), 1);

    assert!(!second.leads());
    assert_eq!(second.answer().await.map(|reply| reply.number), Ok(1));
    assert_eq!(setup.upstream.begun(), 1);
}

/// The moment that cannot be hit from outside: the task has seen that everybody left, and has not yet locked the table.
#[tokio::test(start_paused = true)]
async fn a_flight_that_somebody_joined_meanwhile_is_not_given_up() {
    let setup = setup(ClientGone::Cancel);
    let joined = setup.join(&key("/users"), 1);
    let (hashed, sender) = {
        let table = setup.flights.inner.lock();
        let (hashed, sender) = table.iter().next().expect("one flight");
        (hashed.clone(), Arc::clone(sender))
    };
    let place = Place { inner: Arc::clone(&setup.flights.inner), key: hashed, sender };

    assert!(!place.give_up());
    assert_eq!(setup.flights.running(), 1);

    drop(joined);
    assert!(place.give_up());
    assert_eq!(setup.flights.running(), 0);
}

/// Notes how many flights there are when it is woken.
struct Witness {
    flights: Flights<Reply>,
    seen: Mutex<Option<usize>>,
}

impl ArcWake for Witness {
    fn wake_by_ref(witness: &Arc<Self>) {
        *witness.seen.lock().unwrap() = Some(witness.flights.running());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_has_left_the_table_when_its_answer_is_seen() {
    let setup = setup(ClientGone::Cancel);
    let witness = Arc::new(Witness { flights: setup.flights.clone(), seen: Mutex::default() });
    let mut answer = Box::pin(setup.join(&key("/users"), 1).answer());
    let waker = waker(Arc::clone(&witness));
    assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

    assert!(setup.tasks.wait_idle(Duration::from_secs(5)).await);

    assert_eq!(*witness.seen.lock().unwrap(), Some(0), "else who joins again would get the same answer for ever");
    assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_work_was_given_up_begins_anew() {
    let setup = setup(ClientGone::Cancel);
    drop(setup.join(&key("/users"), 1));
    settle().await;

    let second = setup.join(&key("/users"), 1);

    assert!(second.leads());
    assert_eq!(second.answer().await.map(|reply| reply.number), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_after_the_end() {
    let setup = setup(ClientGone::Cancel);
    let first = setup.join(&key("/users"), 1);
    let late_reader = setup.join(&key("/users"), 1);
    assert_eq!(first.answer().await.map(|reply| reply.number), Ok(1));

    let second = setup.join(&key("/users"), 1);

    assert!(second.leads());
    assert_eq!(second.answer().await.map(|reply| reply.number), Ok(2));
    assert_eq!(late_reader.answer().await.map(|reply| reply.number), Ok(1), "who had joined has its answer");
}

#[tokio::test(start_paused = true)]
async fn with_finish_the_work_goes_on_alone_and_is_counted() {
    let setup = setup(ClientGone::Finish);
    let detached = &setup.telemetry.detached;

    drop(setup.join(&key("/users"), 5));
    settle().await;
    assert_eq!((setup.upstream.open(), detached.running.get(), setup.flights.running()), (1, 1, 1));

    assert!(setup.tasks.wait_idle(Duration::from_secs(10)).await, "shutdown waits for it");
    assert_eq!((setup.upstream.open(), detached.running.get(), setup.flights.running()), (0, 0, 0));
    assert_eq!((detached.finished.get(), detached.cut.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn detached_work_that_fails_counts_as_cut() {
    let setup = setup(ClientGone::Finish);

    drop(setup.flights.join(key("/users"), || setup.upstream.work(1, Reason::DeadlineFirstByte)));

    assert!(setup.tasks.wait_idle(Duration::from_secs(10)).await);
    assert_eq!((setup.telemetry.detached.finished.get(), setup.telemetry.detached.cut.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn work_that_went_on_alone_can_be_joined() {
    let setup = setup(ClientGone::Finish);
    drop(setup.join(&key("/users"), 5));
    settle().await;

    let late = setup.join(&key("/users"), 5);

    assert!(!late.leads());
    assert_eq!(late.answer().await.map(|reply| reply.number), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_every_wait_with_an_error() {
    let setup = setup(ClientGone::Cancel);
    let leader = setup.flights.join(key("/users"), || async {
        sleep(Duration::from_secs(1)).await;
        panic!("on purpose")
    });
    let follower = setup.join(&key("/users"), 1);

    assert_eq!(leader.answer().await, Err(Reason::Internal));
    assert_eq!(follower.answer().await, Err(Reason::Internal));

    assert!(setup.join(&key("/users"), 1).leads(), "the broken flight is gone");
    assert_eq!(setup.tasks.panics(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_work_leaves_no_entry_behind() {
    let setup = setup(ClientGone::Cancel);
    let start = || -> std::future::Pending<Reply> { panic!("on purpose") };

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| setup.flights.join(key("/users"), start)));

    assert!(panicked.is_err());
    assert_eq!(setup.flights.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_follower_with_time_left_survives_the_leaders_deadline() {
    let setup = setup(ClientGone::Cancel);
    let key = key("/users");
    let leader = setup.flights.join(key.clone(), || setup.upstream.work(1, Reason::DeadlineFirstByte));
    let deadline = Instant::now() + Duration::from_secs(5);

    let follower = setup.flights.answer(&key, Some(deadline), || setup.upstream.ok(2)).await;

    assert_eq!(leader.answer().await.map(|reply| reply.reason), Ok(Reason::DeadlineFirstByte));
    assert_eq!(follower, Answered { result: Ok(Reply { number: 2, reason: Reason::Ok }), leads: true });
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_time_left_does_not_begin_anew() {
    let setup = setup(ClientGone::Cancel);
    let key = key("/users");
    let _leader = setup.flights.join(key.clone(), || setup.upstream.work(1, Reason::DeadlineFirstByte));
    let deadline = Instant::now() + Duration::from_secs(1);

    let follower = setup.flights.answer(&key, Some(deadline), || setup.upstream.ok(2)).await;

    // Its own deadline and the leader's end are the same instant: either may come first.
    let reason = follower.result.map_or_else(|reason| reason, |reply| reply.reason);
    assert_eq!(reason, Reason::DeadlineFirstByte);
    assert_eq!(setup.upstream.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_its_own_deadline() {
    let setup = setup(ClientGone::Cancel);
    let key = key("/users");
    let _leader = setup.flights.join(key.clone(), || setup.upstream.work(5, Reason::Ok));
    let started = Instant::now();

    let follower = setup.flights.answer(&key, Some(started + Duration::from_secs(1)), || setup.upstream.ok(2)).await;

    assert_eq!(follower, Answered { result: Err(Reason::DeadlineFirstByte), leads: false });
    assert_eq!(started.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn of_many_followers_with_time_left_one_leads_again() {
    let setup = setup(ClientGone::Cancel);
    let key = key("/users");
    let leader = setup.flights.join(key.clone(), || setup.upstream.work(1, Reason::SourcesTimedOut));

    let followers = (0..100).map(|_| setup.flights.answer(&key, None, || setup.upstream.ok(2)));
    let answers = futures_util::future::join_all(followers).await;
    drop(leader);

    assert_eq!(answers.iter().filter(|answer| answer.leads).count(), 1);
    assert!(answers.iter().all(|answer| answer.result.as_ref().is_ok_and(|reply| reply.number == 2)));
}

#[tokio::test(start_paused = true)]
async fn it_always_fails_for_time_but_every_request_gets_an_answer() {
    let setup = setup(ClientGone::Cancel);
    let key = key("/users");

    let requests = (0..50).map(|_| setup.flights.answer(&key, None, || setup.upstream.work(0, Reason::SourceTimeout)));
    let answers = futures_util::future::join_all(requests).await;

    assert!(answers.iter().all(|answer| answer.leads), "each takes its own end, at the latest");
    assert_eq!(setup.flights.running(), 0);
}

/// Joining, leaving and ending at the same time on several threads: nobody waits for ever, nothing stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_threads() {
    let setup = setup(ClientGone::Cancel);
    let clients = (0..8).map(|client: usize| {
        let (flights, upstream, key) = (setup.flights.clone(), setup.upstream.clone(), key("/users"));
        tokio::spawn(async move {
            for round in 0..500 {
                let joined = flights.join(key.clone(), || {
                    let work = upstream.ok(0);
                    async move {
                        tokio::task::yield_now().await;
                        work.await
                    }
                });
                if !(client + round).is_multiple_of(3) {
                    joined.answer().await.expect("nothing panics");
                }
            }
        })
    });

    let all = timeout(Duration::from_secs(60), futures_util::future::join_all(clients)).await.expect("nobody hangs");

    assert!(all.iter().all(Result::is_ok));
    assert!(setup.tasks.wait_idle(Duration::from_secs(10)).await);
    assert_eq!((setup.flights.running(), setup.upstream.open()), (0, 0));
}

#[test]
fn users_never_share_whatever_the_configuration_says() {
    let request = |fields: &str| key_of(&format!("GET /users HTTP/1.1{fields}"), &[], None);
    let distinct = [
        request(""),
        request("\r\nauthorization: Bearer a"),
        request("\r\nauthorization: Bearer b"),
        request("\r\nauthorization:"),
        request("\r\ncookie: Bearer a"),
        request("\r\ncookie: a=1"),
        request("\r\ncookie: a=1\r\ncookie: b=2"),
        request("\r\ncookie: b=2\r\ncookie: a=1"),
        request("\r\ncookie: a=1; b=2"),
        key_of("HEAD /users HTTP/1.1", &[], None),
        Key::new("other", &Coalesce { key: Vec::new() }, &RequestHead::default(), None),
    ];

    for (index, one) in distinct.iter().enumerate() {
        assert!(distinct[..index].iter().all(|other| other != one), "{one:?} is not told apart");
    }
    assert_eq!(request("\r\ncookie: a=1"), request("\r\nCookie: a=1\r\nx-other: 1"));
}

#[test]
fn the_configured_parts_count_and_no_others() {
    let (path, query, body) = ([CoalesceKey::Path], [CoalesceKey::Query], [CoalesceKey::Body]);
    let tenant = [CoalesceKey::Header("x-tenant".into())];
    let get = |target: &str, parts: &[CoalesceKey]| key_of(&format!("GET {target} HTTP/1.1"), parts, None);
    let post = |text, parts: &[CoalesceKey]| key_of("POST / HTTP/1.1\r\ncontent-length: 1", parts, Some(text));
    let of = |tenant_field: &str, parts: &[CoalesceKey]| key_of(&format!("GET / HTTP/1.1{tenant_field}"), parts, None);

    assert_eq!(get("/a?x", &path), get("/a?y", &path));
    assert_ne!(get("/a", &path), get("/b", &path));
    assert_eq!(get("/a?x", &query), get("/b?x", &query));
    assert_ne!(get("/a?", &query), get("/a", &query), "an empty query is not a missing one");
    assert_eq!(post("x", &path), post("y", &path));
    assert_ne!(post("x", &body), post("y", &body));
    assert_ne!(of("\r\nx-tenant: 1", &tenant), of("\r\nx-tenant: 2", &tenant));
    assert_ne!(of("", &tenant), of("\r\nx-tenant:", &tenant));
    assert_ne!(of("\r\nx-tenant: 1\r\nx-tenant: 2", &tenant), of("\r\nx-tenant: 1", &tenant));
    assert_eq!(of("\r\nx-tenant: 1", &path), of("\r\nx-tenant: 2", &path));
}

#[test]
fn parts_cannot_be_shifted_into_each_other() {
    let parts = [CoalesceKey::Header("x-a".into()), CoalesceKey::Header("x-b".into())];
    let request = |fields: &str| key_of(&format!("GET / HTTP/1.1{fields}"), &parts, None);

    assert_ne!(request("\r\nx-a: 1"), request("\r\nx-b: 1"));
    assert_ne!(request("\r\nx-a: 12\r\nx-b: 3"), request("\r\nx-a: 1\r\nx-b: 23"));
}
