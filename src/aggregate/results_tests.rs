//! Tests of `results`.

use std::collections::HashSet;

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::config::model::PathPattern;
use crate::telemetry::Telemetry;

const KEEP: Duration = Duration::from_secs(60);

fn bounds(max_running: usize, max_results: usize, max_bytes: u64) -> Background {
    let results = PathPattern::Exact("/results".into());
    Background { results, keep: KEEP, max_running, max_results, max_bytes }
}

fn results(bounds: &Background) -> Arc<Results> {
    Results::new(bounds, Telemetry::quiet().jobs("reports"))
}

fn roomy() -> Arc<Results> {
    results(&bounds(10, 10, 1000))
}

fn answer(bytes: usize) -> Stored {
    let body = Some(Bytes::from(vec![b'x'; bytes]));
    Stored { status: 200, reason: Reason::Ok, headers: Vec::new(), body }
}

/// Runs a job to its end.
fn kept(results: &Arc<Results>, bytes: usize) -> Id {
    let job = results.begin().unwrap();
    let id = job.id();
    job.finish(answer(bytes));
    id
}

fn stored(results: &Results, id: Id) -> Arc<Stored> {
    match results.get(id) {
        Lookup::Ready { stored, .. } => stored,
        other => panic!("no result but {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_its_result_is_kept_for_its_time() {
    let results = roomy();
    let begun = Instant::now();
    let job = results.begin().unwrap();
    let id = job.id();

    advance(Duration::from_secs(5)).await;
    assert_eq!(results.get(id), Lookup::Running { since: begun });

    job.finish(answer(3));
    let expires = Instant::now() + KEEP;
    assert_eq!(results.get(id), Lookup::Ready { stored: Arc::new(answer(3)), expires });

    advance(KEEP - Duration::from_millis(1)).await;
    assert!(matches!(results.get(id), Lookup::Ready { .. }), "looking does not end it, nor does it make it last");

    advance(Duration::from_millis(1)).await;
    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_job_may_run_for_longer_than_results_are_kept() {
    let results = roomy();
    let job = results.begin().unwrap();

    advance(KEEP * 10).await;
    assert!(matches!(results.get(job.id()), Lookup::Running { .. }));

    let id = job.id();
    job.finish(answer(1));
    assert!(matches!(results.get(id), Lookup::Ready { .. }));
}

#[test]
fn an_id_is_written_and_read_in_one_way() {
    let id = Id::random().unwrap();
    let text = id.to_string();

    assert_eq!(Id::parse(&text), Some(id));
    assert_eq!(Id::parse(&Id(7).to_string()), Some(Id(7)), "leading zeros stay");
    let others = ["", "7", &text[1..], &format!("{text}0"), "0000000000000000000000000000000A"];
    for other in others.into_iter().chain(["+000000000000000000000000000000a", "000000000000000000000000000000é"]) {
        assert_eq!(Id::parse(other), None, "{other:?}");
    }
    assert!(!format!("{id:?}").contains(&text), "an id in a log would be a key to its result");
}

#[test]
fn ids_do_not_repeat() {
    let ids: HashSet<_> = (0..1000).map(|_| Id::random().unwrap()).collect();

    assert_eq!(ids.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_never_given_out_is_unknown() {
    let results = roomy();

    assert_eq!(results.get(Id(1)), Lookup::Unknown);
    assert_eq!(results.remove(Id(1)), Removed::Unknown);
}

#[tokio::test(start_paused = true)]
async fn no_more_jobs_run_than_allowed() {
    let results = results(&bounds(2, 10, 1000));
    let (first, _second) = (results.begin().unwrap(), results.begin().unwrap());

    assert_eq!(results.begin().err(), Some(Reason::TooManyJobs));

    first.finish(answer(1));
    assert!(results.begin().is_ok());
    assert_eq!(results.metrics.refused.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_dropped_has_failed() {
    let results = roomy();
    let job = results.begin().unwrap();
    let id = job.id();

    drop(job);

    assert_eq!(*stored(&results, id), Stored::failed(Reason::Internal));
    assert_eq!(results.counts().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_job() {
    let results = roomy();
    let job = results.begin().unwrap();
    let id = job.id();
    let tasks = crate::tasks::Tasks::default();

    tasks.spawn("job", job.run(async { panic!("on purpose") }));
    assert!(tasks.wait_idle(Duration::from_secs(5)).await);

    assert_eq!(stored(&results, id).reason, Reason::Internal);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_results_make_room() {
    let results = results(&bounds(10, 2, 1000));

    let ids: Vec<_> = (0..3).map(|_| kept(&results, 1)).collect();

    assert_eq!(results.get(ids[0]), Lookup::Gone);
    assert!(matches!(results.get(ids[1]), Lookup::Ready { .. }));
    assert!(matches!(results.get(ids[2]), Lookup::Ready { .. }));
    assert_eq!(results.metrics.evictions.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_make_room_too_and_headers_count() {
    let results = results(&bounds(10, 10, 100));
    let (first, second) = (kept(&results, 40), kept(&results, 40));
    let job = results.begin().unwrap();
    let third = job.id();

    job.finish(Stored { headers: vec![("content-type", "application/json".into())], ..answer(20) });

    assert_eq!(results.get(first), Lookup::Gone);
    assert!(matches!(results.get(second), Lookup::Ready { .. }));
    assert!(matches!(results.get(third), Lookup::Ready { .. }));
    assert_eq!(results.counts().bytes, 40 + 20 + 12 + 16);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_alone_pushes_nothing_out() {
    let results = results(&bounds(10, 10, 100));
    let small = kept(&results, 100);

    let large = kept(&results, 101);

    assert!(matches!(results.get(small), Lookup::Ready { .. }));
    assert_eq!(*stored(&results, large), Stored::failed(Reason::ResultTooLarge));
    assert_eq!(results.metrics.evictions.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn running_jobs_are_never_evicted() {
    let results = results(&bounds(10, 1, 10));
    let job = results.begin().unwrap();

    let others: Vec<_> = (0..5).map(|_| kept(&results, 10)).collect();

    assert!(matches!(results.get(job.id()), Lookup::Running { .. }));
    assert!(matches!(results.get(others[4]), Lookup::Ready { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_removed_result_is_gone() {
    let results = roomy();
    let id = kept(&results, 5);

    assert_eq!(results.remove(id), Removed::Result);

    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.remove(id), Removed::Gone);
    assert_eq!(results.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn removing_a_running_job_cancels_its_work() {
    let results = roomy();
    let job = results.begin().unwrap();
    let id = job.id();
    let work = tokio::spawn(job.run(std::future::pending()));
    tokio::task::yield_now().await;

    assert_eq!(results.remove(id), Removed::Cancelled);
    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.counts().running, 1, "it counts until it has ended");

    work.await.unwrap();
    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_removed_job_that_ends_all_the_same_leaves_nothing() {
    let results = roomy();
    let job = results.begin().unwrap();
    let id = job.id();

    results.remove(id);
    assert!(job.cancelled().is_cancelled());
    job.finish(answer(5));

    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_ids_are_remembered() {
    let results = results(&bounds(10, 2, 1000));
    let ids: Vec<_> = (0..5).map(|_| kept(&results, 1)).collect();

    let found: Vec<_> = ids.iter().map(|id| results.get(*id)).collect();

    assert_eq!(found[..3], [Lookup::Unknown, Lookup::Gone, Lookup::Gone]);
    assert!(found[3..].iter().all(|found| matches!(found, Lookup::Ready { .. })));
}

#[tokio::test(start_paused = true)]
async fn sleeping_until_the_next_sweep_frees_results_in_time() {
    let results = roomy();
    let first_sweep = results.next_sweep(Instant::now());
    assert_eq!(first_sweep, Instant::now() + KEEP, "even what ends right now does not expire before");
    advance(Duration::from_secs(10)).await;
    kept(&results, 7);
    let expires = Instant::now() + KEEP;

    tokio::time::sleep_until(first_sweep).await;
    results.sweep(Instant::now());
    assert_eq!(results.lock().kept.len(), 1);
    assert_eq!(results.next_sweep(Instant::now()), expires);

    tokio::time::sleep_until(expires).await;
    results.sweep(Instant::now());
    assert_eq!((results.lock().kept.len(), results.metrics.result_bytes.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_keep_without_end_overflows_nothing() {
    let results = results(&Background { keep: Duration::MAX, ..bounds(1, 1, 10) });
    let id = kept(&results, 1);

    assert!(matches!(results.get(id), Lookup::Ready { .. }));
    assert_eq!(results.next_sweep(Instant::now()), Instant::now() + MAX_SWEEP_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_results_and_jobs_over() {
    let results = results(&bounds(3, 3, 1000));
    let jobs = [results.begin().unwrap(), results.begin().unwrap()];
    let ids: Vec<_> = (0..3).map(|_| kept(&results, 10)).collect();

    results.resize(&bounds(1, 1, 1000));

    assert!(matches!(results.get(ids[2]), Lookup::Ready { .. }));
    assert_eq!((results.get(ids[1]), results.get(ids[0])), (Lookup::Gone, Lookup::Unknown));
    assert_eq!(results.begin().err(), Some(Reason::TooManyJobs));
    let running: Vec<_> = jobs.iter().map(Job::id).collect();
    assert!(running.iter().all(|id| matches!(results.get(*id), Lookup::Running { .. })));
    for job in jobs {
        job.finish(answer(1));
    }
    assert_eq!(results.get(running[0]), Lookup::Gone);
    assert!(matches!(results.get(running[1]), Lookup::Ready { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_reload_with_another_time_counts_for_what_is_kept_already() {
    let results = roomy();
    let id = kept(&results, 1);
    advance(Duration::from_secs(10)).await;

    results.resize(&Background { keep: Duration::from_secs(10), ..bounds(10, 10, 1000) });

    assert_eq!(results.get(id), Lookup::Gone);
    assert_eq!(results.metrics.evictions.get(), 0, "it expired");
}

#[tokio::test(start_paused = true)]
async fn metrics_follow_and_are_given_back() {
    let telemetry = Telemetry::quiet();
    let metrics = telemetry.jobs("reports");
    let results = Results::new(&bounds(10, 10, 1000), metrics.clone());
    kept(&results, 10);
    kept(&results, 20);
    results.begin().unwrap().finish(Stored::failed(Reason::SourcesFailed));
    assert_eq!((metrics.results.get(), metrics.result_bytes.get()), (3, 30));

    drop(results);

    assert_eq!((metrics.results.get(), metrics.result_bytes.get()), (0, 0));
}

/// One thing that happens to the results of a route. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    Finish(usize, usize),
    Abandon(usize),
    Get(usize),
    Remove(usize),
    Advance(u64),
    Resize(usize, usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Begin),
        4 => (0_usize..100, 0_usize..60).prop_map(|(job, bytes)| Step::Finish(job, bytes)),
        1 => (0_usize..100).prop_map(Step::Abandon),
        2 => (0_usize..100).prop_map(Step::Get),
        1 => (0_usize..100).prop_map(Step::Remove),
        2 => (0_u64..40).prop_map(Step::Advance),
        1 => (0_usize..5, 0_usize..5, 0_u64..120).prop_map(|(jobs, results, bytes)| Step::Resize(jobs, results, bytes)),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What is said about an id, without the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Running,
    Ready(usize),
    Gone,
    Unknown,
}

fn word(lookup: &Lookup) -> Word {
    match lookup {
        Lookup::Running { .. } => Word::Running,
        Lookup::Ready { stored, .. } => Word::Ready(stored.body.as_ref().map_or(0, Bytes::len)),
        Lookup::Gone => Word::Gone,
        Lookup::Unknown => Word::Unknown,
    }
}

/// The naive twin: lists, searched from the front.
struct Twin {
    bounds: Background,
    /// Jobs, and whether they were removed.
    running: Vec<(Id, bool)>,
    /// In order of their end.
    kept: Vec<(Id, usize, Instant)>,
    gone: Vec<Id>,
}

impl Twin {
    fn new(bounds: Background) -> Self {
        Self { bounds, running: Vec::new(), kept: Vec::new(), gone: Vec::new() }
    }

    fn bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes, _)| *bytes as u64).sum()
    }

    fn word(&self, id: Id) -> Word {
        if self.running.contains(&(id, false)) {
            return Word::Running;
        }
        if let Some((_, bytes, _)) = self.kept.iter().find(|(kept, ..)| *kept == id) {
            return Word::Ready(*bytes);
        }
        if self.gone.contains(&id) { Word::Gone } else { Word::Unknown }
    }

    fn forget(&mut self, id: Id) {
        self.kept.retain(|(kept, ..)| *kept != id);
        self.gone.push(id);
        self.trim();
    }

    fn trim(&mut self) {
        let too_many = self.gone.len().saturating_sub(self.bounds.max_results);
        self.gone.drain(..too_many);
    }

    fn settle(&mut self) {
        let expired = |(_, _, ended): &(Id, usize, Instant)| ended.elapsed() >= KEEP;
        while let Some((id, ..)) = self.kept.first().copied().filter(expired) {
            self.forget(id);
        }
        while self.kept.len() > self.bounds.max_results || self.bytes() > self.bounds.max_bytes {
            self.forget(self.kept[0].0);
        }
        self.trim();
    }

    fn end(&mut self, id: Id, bytes: usize) {
        // What has expired goes before what ends now, in the memory of ids too.
        self.settle();
        let at = self.running.iter().position(|(running, _)| *running == id).unwrap();
        let (_, removed) = self.running.remove(at);
        if !removed {
            let bytes = if bytes as u64 > self.bounds.max_bytes { 0 } else { bytes };
            self.kept.push((id, bytes, Instant::now()));
        }
        self.settle();
    }

    fn remove(&mut self, id: Id) {
        self.settle();
        match self.word(id) {
            Word::Running => {
                self.running.iter_mut().filter(|(running, _)| *running == id).for_each(|(_, removed)| *removed = true);
                self.forget(id);
            }
            Word::Ready(_) => self.forget(id),
            Word::Gone | Word::Unknown => {}
        }
    }
}

/// The results and their twin, on which the same is done.
struct Pair {
    results: Arc<Results>,
    twin: Twin,
    jobs: Vec<Job>,
    ids: Vec<Id>,
}

impl Pair {
    fn new() -> Self {
        let bounds = bounds(3, 3, 100);
        Self { results: results(&bounds), twin: Twin::new(bounds), jobs: Vec::new(), ids: Vec::new() }
    }

    fn id(&self, index: usize) -> Option<Id> {
        (!self.ids.is_empty()).then(|| self.ids[index % self.ids.len()])
    }

    fn take_job(&mut self, index: usize) -> Option<Job> {
        (!self.jobs.is_empty()).then(|| self.jobs.remove(index % self.jobs.len()))
    }

    fn begin(&mut self) {
        let begun = self.results.begin();
        assert_eq!(begun.is_ok(), self.twin.running.len() < self.twin.bounds.max_running);
        if let Ok(job) = begun {
            self.twin.running.push((job.id(), false));
            self.ids.push(job.id());
            self.jobs.push(job);
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin => self.begin(),
            Step::Finish(index, bytes) => {
                if let Some(job) = self.take_job(index) {
                    self.twin.end(job.id(), bytes);
                    job.finish(answer(bytes));
                }
            }
            Step::Abandon(index) => {
                if let Some(job) = self.take_job(index) {
                    self.twin.end(job.id(), 0);
                }
            }
            Step::Get(index) => {
                let _ = self.id(index).map(|id| self.results.get(id));
            }
            Step::Remove(index) => {
                if let Some(id) = self.id(index) {
                    self.twin.remove(id);
                    self.results.remove(id);
                }
            }
            Step::Advance(seconds) => advance(Duration::from_secs(seconds)).await,
            Step::Resize(max_running, max_results, max_bytes) => {
                self.twin.settle();
                self.twin.bounds = bounds(max_running, max_results, max_bytes);
                self.results.resize(&self.twin.bounds);
            }
        }
        self.twin.settle();
    }

    fn compare(&self) {
        for id in &self.ids {
            assert_eq!(word(&self.results.get(*id)), self.twin.word(*id));
        }
        let counts = self.results.counts();
        let twin = Counts { running: self.twin.running.len(), kept: self.twin.kept.len(), bytes: self.twin.bytes() };
        assert_eq!(counts, twin);
        assert!(counts.kept <= self.twin.bounds.max_results && counts.bytes <= self.twin.bounds.max_bytes);
        let metrics = &self.results.metrics;
        assert_eq!((metrics.results.get(), metrics.result_bytes.get()), (counts.kept as i64, counts.bytes as i64));
        assert!(self.results.lock().gone.order.len() <= self.twin.bounds.max_results);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Bounds hold, and every id is answered for as by a list that is searched: so no running job is ever lost.
    #[test]
    fn results_are_those_of_their_naive_twin(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new();
            for step in steps {
                pair.step(step).await;
                pair.compare();
            }
        });
    }
}
