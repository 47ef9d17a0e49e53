//! Identical calls of one aggregate are sent once.

use super::*;
use crate::aggregate::script::{End, answer, ms};
use crate::aggregate::testing::{aggregate, json_path, source, template, upstream};
use crate::config::model::aggregate::{OnError, RequestBody};

/// At one upstream.
fn same(name: &str, path: &str) -> Source {
    with(source(name, path), |source| source.upstream = upstream("users"))
}

fn timed(name: &str, timeout: u64) -> Source {
    with(same(name, "/1"), |source| source.timeout = Some(ms(timeout)))
}

#[tokio::test(start_paused = true)]
async fn the_same_call_is_sent_once_and_each_takes_its_own_part() {
    let script = Script::default().answers("/1", ms(100), r#"{"name":"Ada","age":36}"#);
    let part = |name: &str| with(same(name, "/1"), |source| source.select = Some(json_path(name)));

    let ran = run(aggregate(vec![part("name"), part("age"), part("none")]), &script).await;

    assert_eq!(script.log().begun, ["/1"]);
    assert!(ran.body().starts_with(r#"{"name":"Ada","age":36,"none":{"error""#), "{}", ran.body());
    assert_eq!(ran.outcomes.iter().map(|o| o.coalesced).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(ran.outcomes.iter().map(|o| o.attempts).sum::<u32>(), 1);
    assert_eq!(ran.reasons(), [Reason::Ok, Reason::Ok, Reason::UpstreamBadBody]);
}

#[tokio::test(start_paused = true)]
async fn a_later_stage_uses_the_answer_that_is_there() {
    let script = Script::default().answers("/1", ms(100), "1").answers("/2", ms(50), r#"{"next":1}"#);

    let ran =
        run(aggregate(vec![same("a", "/1"), same("b", "/2"), same("c", "/{#1.next}"), same("d", "/{#0}")]), &script)
            .await;

    assert_eq!((script.log().begun, ran.took), (vec!["/1".to_string(), "/2".into()], ms(100)));
    assert_eq!(ran.outcomes.iter().map(|o| o.coalesced).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(ran.outcomes[2].took, ms(50), "it came when half of the time was over");
}

#[tokio::test(start_paused = true)]
async fn the_one_with_more_time_does_not_suffer_from_the_one_with_less() {
    for sources in [vec![timed("short", 100), timed("long", 1000)], vec![timed("long", 1000), timed("short", 100)]] {
        let long = sources.iter().position(|source| source.name == "long").expect("one is");
        let script = Script::default().answers("/1", ms(500), "1");

        let ran = run(aggregate(sources), &script).await;

        assert_eq!((ran.outcomes[long].reason, ran.outcomes[long].took), (Reason::Ok, ms(500)));
        assert_eq!((ran.outcomes[1 - long].reason, ran.outcomes[1 - long].took), (Reason::SourceTimeout, ms(100)));
        assert_eq!((script.log().begun.len(), script.log().cancelled.len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_no_more_time_than_the_longest_of_those_that_may_share_it() {
    let script = Script::default().answers("/1", ms(10), "1");
    let begun = Instant::now();

    run_within(aggregate(vec![timed("a", 100), timed("b", 300)]), &script, Some(ms(5000))).await;
    assert_eq!(script.log().deadlines, [Some(begun + ms(300))]);

    let script = Script::default().answers("/1", ms(10), "2").answers("/2", ms(10), "1");
    let begun = Instant::now();
    run_within(aggregate(vec![timed("a", 100), same("later", "/{#0}")]), &script, Some(ms(5000))).await;
    assert_eq!(script.log().deadlines[0], Some(begun + ms(5000)), "the later one might make the same call");

    let script = Script::default().answers("/1", ms(10), "1").answers("/later/1", ms(10), "1");
    let begun = Instant::now();
    run_within(aggregate(vec![timed("a", 100), same("later", "/later/{#0}")]), &script, Some(ms(5000))).await;
    assert_eq!(script.log().deadlines[0], Some(begun + ms(100)), "the later one cannot make the same call");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_waits_for_any_more_is_cancelled() {
    let script = Script::default().ends("/1", ms(0), End::Never).answers("/2", ms(500), "2");

    let ran = run(aggregate(vec![timed("a", 100), timed("b", 200), same("c", "/2")]), &script).await;

    assert_eq!(ran.reasons(), [Reason::SourceTimeout, Reason::SourceTimeout, Reason::Ok]);
    assert_eq!((script.log().begun.len(), script.log().cancelled), (2, vec!["/1".to_string()]));
}

#[tokio::test(start_paused = true)]
async fn calls_that_change_something_or_differ_are_sent_each() {
    let post = |name: &str| with(same(name, "/1"), |source| source.method = "POST".into());
    let with_body = |name: &str| with(same(name, "/1"), |source| source.body = Some(RequestBody::Text(template("x"))));
    let smaller = |name: &str| with(same(name, "/1"), |source| source.max_body_bytes = 10);
    let elsewhere = source("elsewhere", "/1");
    let script = Script::default().answers("/1", ms(10), "1");
    let sources = vec![post("a"), post("b"), with_body("c"), with_body("d"), smaller("e"), elsewhere, same("f", "/1")];

    let ran = run(aggregate(sources), &script).await;

    assert_eq!(script.log().begun.len(), 7);
    assert!(ran.outcomes.iter().all(|outcome| !outcome.coalesced));
}

#[tokio::test(start_paused = true)]
async fn failures_are_shared_too() {
    let script = Script::default().ends("/1", ms(10), End::Answer(answer(503, ""))).answers("/1", ms(10), "1");
    let a = with(same("a", "/1"), |source| source.on_error = OnError::Source(1));

    let ran = run(aggregate(vec![a, same("again", "/1")]), &script).await;

    assert_eq!(ran.reasons(), [Reason::Upstream5xx, Reason::Upstream5xx]);
    assert_eq!(script.log().begun.len(), 1, "asking the same again is what retries are for");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_shared_call_is_the_failure_of_those_that_share_it() {
    let script = Script::default().ends("/1", ms(10), End::Panics).answers("/2", ms(10), "2");

    let ran = run(aggregate(vec![same("a", "/1"), same("b", "/1"), same("c", "/2")]), &script).await;

    assert_eq!(ran.reasons(), [Reason::Internal, Reason::Internal, Reason::Ok]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_once_in_the_bound_however_many_share_it() {
    let script = Script::default().answers("/1", ms(10), r#""12345678""#);
    let sources = aggregate(vec![same("a", "/1"), same("b", "/1")]);

    let ran = run(Aggregate { max_bytes: 10, ..sources }, &script).await;

    assert_eq!(ran.endings(), ["ok", "ok"]);
}
