//! What waits for what, how long, and what a failure does. The rows are those of the tutorial's scenarios.

use super::*;
use crate::aggregate::json::Json;
use crate::aggregate::script::{End, answer, ms};
use crate::aggregate::testing::{aggregate, for_each, source, template};
use crate::aggregate::{Answer, Ending, Fallback};
use crate::config::model::aggregate::{BodyShape, Format, OnError};

fn three_users() -> Aggregate {
    let user = |n: u32| source(&format!("user{n}"), &format!("/{n}"));
    Aggregate { body: BodyShape::Respond(users_list(3)), ..aggregate(vec![user(1), user(2), user(3)]) }
}

#[tokio::test(start_paused = true)]
async fn row_2_together_takes_as_long_as_the_slowest() {
    for (delays, expected) in [(vec![2000, 1000, 3000], 3000), (vec![1000, 500], 1000)] {
        let sources = (0..delays.len()).map(|n| source(&format!("s{n}"), &format!("/{n}")));
        let script = delays
            .iter()
            .enumerate()
            .fold(Script::default(), |script, (n, delay)| script.answers(&format!("/{n}"), ms(*delay), "1"));

        let ran = run(aggregate(sources.collect()), &script).await;

        assert_eq!(ran.took, ms(expected));
        assert_eq!(script.log().in_flight_max, delays.len());
    }
}

#[tokio::test(start_paused = true)]
async fn row_7_sources_that_need_each_other_run_in_order_and_the_others_do_not_wait() {
    let script = Script::default()
        .answers("/a", ms(1000), r#"{"next":"b"}"#)
        .answers("/b", ms(1000), r#"{"next":"c"}"#)
        .answers("/c", ms(1000), r#"{"next":null}"#)
        .answers("/alone", ms(1500), "true");
    let sources = vec![
        source("third", "/{#1.next}"),
        source("second", "/{#3.next}"),
        source("alone", "/alone"),
        source("first", "/a"),
    ];

    let ran = run(aggregate(sources), &script).await;

    assert_eq!(ran.took, ms(3000));
    assert_eq!(script.log().begun, ["/alone", "/a", "/b", "/c"]);
    assert_eq!(ran.told, [3, 2, 1, 0]);
    assert_eq!(
        ran.outcomes.iter().map(|outcome| outcome.begun).collect::<Vec<_>>(),
        [ms(2000), ms(1000), ms(0), ms(0)]
    );
    assert_eq!(
        ran.outcomes.iter().map(|outcome| outcome.took).collect::<Vec<_>>(),
        [ms(1000), ms(1000), ms(1500), ms(1000)]
    );
    assert_eq!(ran.body(), r#"{"third":{"next":null},"second":{"next":"c"},"alone":true,"first":{"next":"b"}}"#);
}

#[tokio::test(start_paused = true)]
async fn row_8_three_users_in_the_time_of_the_slowest_in_order() {
    let script = Script::default()
        .answers("/1", ms(1000), r#"{"id":1}"#)
        .answers("/2", ms(900), r#"{"id":2}"#)
        .answers("/3", ms(800), r#"{"id":3}"#);

    let ran = run(three_users(), &script).await;

    assert_eq!(ran.took, ms(1000));
    assert_eq!(ran.body(), r#"{"users":[{"id":1},{"id":2},{"id":3}]}"#);
    assert_eq!((ran.merged.status, ran.merged.reason, ran.merged.completeness()), (200, Reason::Ok, "3/3".into()));
}

#[tokio::test(start_paused = true)]
async fn row_9_a_hung_source_becomes_an_error_in_its_place_at_its_timeout() {
    let script = Script::default().answers("/1", ms(1000), r#"{"id":1}"#).ends("/2", ms(0), End::Never).answers(
        "/3",
        ms(1000),
        r#"{"id":3}"#,
    );
    let sources = (1..=3).map(|n| {
        with(source(&format!("user {n}"), &format!("/{n}")), |source| {
            source.timeout = Some(ms(2000));
            source.error_message = "Failed to fetch {name}: {error}".into();
        })
    });
    let aggregate = Aggregate { body: BodyShape::Respond(users_list(3)), ..aggregate(sources.collect()) };

    let ran = run_within(aggregate, &script, Some(ms(5000))).await;

    assert_eq!(ran.took, ms(2000));
    let error = r#"{"error":"Failed to fetch user 2: The source took longer than its timeout"}"#;
    assert_eq!(ran.body(), format!(r#"{{"users":[{{"id":1}},{error},{{"id":3}}]}}"#));
    assert_eq!((ran.merged.status, ran.merged.reason, ran.merged.completeness()), (200, Reason::Partial, "2/3".into()));
    assert_eq!(script.log().cancelled, ["/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_own_timeout_or_the_routes_deadline_whichever_is_first() {
    // The script gives up at its deadline, and says so in its own words.
    for (timeout, deadline, took, reason) in [
        (Some(2000), Some(3000), 2000, Reason::SourceTimeout),
        (Some(3000), Some(2000), 2000, Reason::DeadlineBody),
        (Some(2000), Some(2000), 2000, Reason::DeadlineBody),
        (Some(2000), None, 2000, Reason::SourceTimeout),
        (None, Some(2000), 2000, Reason::DeadlineBody),
        (None, None, 9000, Reason::Ok),
    ] {
        let script = Script::default().answers("/", ms(9000), "1");
        let slow = with(source("slow", "/"), |source| source.timeout = timeout.map(ms));

        let ran = run_within(aggregate(vec![slow]), &script, deadline.map(ms)).await;

        assert_eq!((ran.took, ran.reasons()), (ms(took), vec![reason]), "{timeout:?} {deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_at_the_deadline_is_cut() {
    let script = Script::default().ends("/", ms(0), End::Never);

    let ran = run_within(aggregate(vec![source("hung", "/")]), &script, Some(ms(700))).await;

    assert_eq!((ran.took, ran.reasons()), (ms(700), vec![Reason::DeadlineFirstByte]));
    assert_eq!(ran.merged.status, 504);
    assert_eq!(ran.outcomes[0].attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_the_very_instant_of_the_timeout_counts() {
    let script = Script::default().answers("/", ms(500), "1");
    let source = with(source("just", "/"), |source| source.timeout = Some(ms(500)));

    let ran = run(aggregate(vec![source]), &script).await;

    assert_eq!(ran.endings(), ["ok"]);
}

#[tokio::test(start_paused = true)]
async fn each_stage_gets_what_is_left_and_nothing_begins_after_the_deadline() {
    let script = Script::default().answers("/a", ms(600), "1").answers("/b/1", ms(600), "2");
    let sources = vec![source("a", "/a"), source("b", "/b/{#0}"), source("c", "/c/{#1}")];
    let ran = run_within(aggregate(sources), &script, Some(ms(1000))).await;

    assert_eq!(ran.took, ms(1000));
    assert_eq!(ran.reasons(), [Reason::Ok, Reason::DeadlineBody, Reason::DependencyFailed]);
    let deadlines = script.log().deadlines;
    assert_eq!(deadlines[0], deadlines[1], "both are told the route's deadline");

    let script = Script::default().ends("/a", ms(0), End::Never);
    let a = with(source("a", "/a"), |source| source.on_error = OnError::Value("7".into()));
    let ran = run_within(aggregate(vec![a, source("b", "/b/{#0}")]), &script, Some(ms(1000))).await;

    assert_eq!(ran.reasons(), [Reason::DeadlineFirstByte, Reason::DeadlineQueue]);
    assert_eq!(script.log().begun, ["/a"]);
    assert_eq!(ran.outcomes[1].attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_value_is_seen_by_others_and_an_embedded_error_is_not() {
    for (on_error, begun, reasons) in [
        (OnError::Value("7".into()), vec!["/a", "/b/7"], [Reason::UpstreamReset, Reason::Ok]),
        (OnError::Embed, vec!["/a"], [Reason::UpstreamReset, Reason::DependencyFailed]),
        (OnError::Omit, vec!["/a"], [Reason::UpstreamReset, Reason::DependencyFailed]),
    ] {
        let script = Script::default().ends("/a", ms(5), End::Fails(Reason::UpstreamReset)).answers("/b/7", ms(5), "1");
        let a = with(source("a", "/a"), |source| source.on_error = on_error.clone());

        let ran = run(aggregate(vec![a, source("b", "/b/{#0}")]), &script).await;

        assert_eq!(
            (script.log().begun, ran.reasons()),
            (begun.iter().map(|s| s.to_string()).collect(), reasons.into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_source_is_called_only_when_needed_and_once_for_all() {
    let one = with(source("one", "/1"), |source| source.on_error = OnError::Source(2));
    let two = with(source("two", "/2"), |source| source.on_error = OnError::Source(2));
    let sources = aggregate(vec![one, two, source("spare", "/spare")]);
    let script = Script::default().answers("/1", ms(10), "1").answers("/2", ms(10), "2");
    let ran = run(sources.clone(), &script).await;
    assert_eq!(ran.endings(), ["ok", "ok", "not_needed"]);
    assert_eq!((ran.told.len(), ran.body()), (2, r#"{"one":1,"two":2}"#));

    let script = Script::default()
        .ends("/1", ms(10), End::Fails(Reason::UpstreamReset))
        .ends("/2", ms(500), End::Answer(answer(503, "")))
        .answers("/spare", ms(100), "9");
    let ran = run(sources, &script).await;
    assert_eq!(script.log().begun, ["/1", "/2", "/spare"]);
    assert_eq!(ran.reasons(), [Reason::UpstreamReset, Reason::Upstream5xx, Reason::Ok]);
    assert_eq!(ran.outcomes[0].ending, Ending::Fallback(Fallback::Source(2)));
    assert_eq!((ran.body(), ran.merged.completeness()), (r#"{"one":9,"two":9}"#, "2/2".into()));
    assert_eq!(ran.told, [2, 0, 1]);
    assert_eq!((ran.outcomes[0].took, ran.outcomes[2].begun), (ms(10), ms(10)), "its own call, and then the other's");
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_fallbacks_shares_one_deadline() {
    let a = with(source("a", "/a"), |source| {
        source.timeout = Some(ms(400));
        source.on_error = OnError::Source(1);
    });
    let b = with(source("b", "/b"), |source| {
        source.timeout = Some(ms(400));
        source.on_error = OnError::Source(2);
    });
    let script =
        ["/a", "/b", "/c"].into_iter().fold(Script::default(), |script, path| script.ends(path, ms(0), End::Never));

    let ran = run_within(aggregate(vec![a, b, source("c", "/c")]), &script, Some(ms(1000))).await;

    assert_eq!(ran.took, ms(1000));
    assert_eq!(ran.reasons(), [Reason::SourceTimeout, Reason::SourceTimeout, Reason::DeadlineFirstByte]);
    assert_eq!(ran.endings(), ["failed", "failed", "failed"]);
    assert_eq!(ran.outcomes[0].value, ran.outcomes[2].value, "what became of the last one counts");
}

#[tokio::test(start_paused = true)]
async fn without_a_required_source_there_is_no_answer_and_nothing_goes_on() {
    for change in [|s: &mut Source| s.required = true, |s: &mut Source| s.on_error = OnError::Fail] {
        let script = Script::default()
            .answers("/quick", ms(50), "1")
            .ends("/needed", ms(100), End::Answer(answer(404, "")))
            .answers("/slow", ms(5000), "1");
        let sources =
            vec![source("slow", "/slow"), with(source("needed", "/needed"), change), source("quick", "/quick")];

        let ran = run(aggregate(sources), &script).await;

        assert_eq!(ran.took, ms(100));
        assert_eq!(ran.endings(), ["not_needed", "failed", "ok"]);
        assert_eq!((ran.merged.status, ran.merged.reason), (502, Reason::UpstreamStatus));
        assert_eq!(ran.merged.failed_source, Some(1));
        assert_eq!((script.log().cancelled, ran.told), (vec!["/slow".to_string()], vec![2, 1, 0]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_about_to_begin_when_a_needed_source_fell_was_never_called() {
    let script = Script::default().answers("/x", ms(20), "1").ends("/y", ms(10), End::Fails(Reason::UpstreamReset));
    let needed = with(source("needed", "/{#0}/{#1}"), |source| source.required = true);

    let ran = run(aggregate(vec![source("x", "/x"), source("y", "/y"), source("z", "/z/{#0}"), needed]), &script).await;

    assert_eq!(ran.merged.failed_source, Some(3));
    assert_eq!((ran.outcomes[2].attempts, ran.outcomes[2].reason), (0, Reason::NotNeeded));
}

#[tokio::test(start_paused = true)]
async fn a_required_source_with_a_fallback_is_there() {
    let needed = with(source("needed", "/needed"), |source| {
        source.required = true;
        source.on_error = OnError::Source(1);
    });
    let script =
        Script::default().ends("/needed", ms(5), End::Fails(Reason::ConnectFailed)).answers("/spare", ms(5), "1");
    let ran = run(aggregate(vec![needed.clone(), source("spare", "/spare")]), &script).await;
    assert_eq!((ran.merged.status, ran.body()), (200, r#"{"needed":1}"#));

    let script = Script::default().ends("/needed", ms(5), End::Fails(Reason::ConnectFailed)).ends(
        "/spare",
        ms(5),
        End::Fails(Reason::UpstreamReset),
    );
    let ran = run(aggregate(vec![needed, source("spare", "/spare")]), &script).await;
    assert_eq!((ran.merged.reason, ran.merged.failed_source), (Reason::ConnectFailed, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_standby_source_that_must_not_fail_is_as_good_as_a_required_one() {
    let a = with(source("a", "/a"), |source| source.on_error = OnError::Source(1));
    let spare = with(source("spare", "/spare"), |source| source.on_error = OnError::Fail);
    let script = Script::default()
        .ends("/a", ms(5), End::Fails(Reason::ConnectFailed))
        .ends("/spare", ms(5), End::Fails(Reason::UpstreamReset))
        .answers("/c", ms(5000), "1")
        .answers("/d", ms(1), "1");

    let ran = run(aggregate(vec![a, spare, source("c", "/c"), source("d", "/d")]), &script).await;

    assert_eq!((ran.took, ran.endings()), (ms(10), vec!["failed", "failed", "not_needed", "ok"]));
    assert_eq!((ran.merged.reason, ran.merged.failed_source), (Reason::UpstreamReset, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_source_is_its_failure_alone() {
    let script = Script::default().ends("/1", ms(10), End::Panics).answers("/2", ms(20), "2");

    let ran = run(aggregate(vec![source("one", "/1"), source("two", "/2")]), &script).await;

    assert_eq!((ran.reasons(), ran.merged.completeness()), (vec![Reason::Internal, Reason::Ok], "1/2".into()));
    assert_eq!(ran.outcomes[0].detail.as_deref(), Some("panic: as the script says"));
}

#[tokio::test(start_paused = true)]
async fn a_value_of_a_standby_source_that_nobody_needed_is_not_there() {
    let a = with(source("a", "/a"), |source| source.on_error = OnError::Source(1));
    let script = Script::default().answers("/a", ms(10), "1");

    let ran = run(aggregate(vec![a, source("spare", "/spare"), source("c", "/{#1}")]), &script).await;

    assert_eq!(ran.reasons(), [Reason::Ok, Reason::NotNeeded, Reason::DependencyFailed]);
}

#[tokio::test(start_paused = true)]
async fn answers_together_stay_within_the_bound_of_the_aggregate() {
    let script = Script::default().answers("/1", ms(10), r#""123456""#).answers("/2", ms(20), r#""123456""#);
    let sources = aggregate(vec![source("one", "/1"), source("two", "/2")]);

    let ran = run(Aggregate { max_bytes: 15, ..sources.clone() }, &script).await;
    assert_eq!(ran.reasons(), [Reason::Ok, Reason::UpstreamTooLarge]);
    assert_eq!(run(Aggregate { max_bytes: 16, ..sources }, &script).await.endings(), ["ok", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn what_decoding_adds_counts_in_the_bound_too() {
    // "[1]", by Python's `gzip.compress`.
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x8b\x36\x8c\x05\x00\xb8\x32\x2f\x4c\x03\x00\x00\x00";
    let encoded = Answer { content_encoding: Some("gzip".into()), body: gzip[..].into(), ..answer(200, "") };
    let script = Script::default().ends("/", ms(1), End::Answer(encoded));
    let within = |max_bytes| Aggregate { max_bytes, ..aggregate(vec![source("a", "/")]) };

    assert_eq!(run(within(gzip.len() as u64 + 3), &script).await.body(), r#"{"a":[1]}"#);
    assert_eq!(run(within(gzip.len() as u64 + 2), &script).await.reasons(), [Reason::UpstreamTooLarge]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_what_the_calls_need_is_refused_before_any_call() {
    let script = Script::default();
    let by_id = aggregate(vec![source("one", "/1"), source("two", "/users/{query.id}")]);
    let refused = |inputs: Inputs| {
        let (by_id, script) = (by_id.clone(), &script);
        async move { try_run(by_id, &inputs, script, None).await.err().expect("refused") }
    };

    assert_eq!(
        refused(Inputs::default()).await,
        Refusal { reason: Reason::BadRequest, detail: "the value of `query.id` is missing".into() }
    );
    assert_eq!(refused(query(&[("id", "..")])).await.reason, Reason::BadRequest);
    assert_eq!(script.log().begun.len(), 0);

    let optional = with(source("one", "/1"), |source| source.query = vec![("id".into(), template("{query.id}"))]);
    let script = Script::default().answers("/1", ms(10), "1");
    assert_eq!(run(aggregate(vec![optional]), &script).await.endings(), ["ok"]);
}

#[tokio::test(start_paused = true)]
async fn all_orders_of_completion_give_the_same_bytes() {
    for count in 1..=5 {
        let mut bodies = std::collections::BTreeSet::new();
        for delays in permutations(count) {
            let sources = (0..count).map(|n| source(&format!("s{n}"), &format!("/{n}"))).collect();
            let script = delays.iter().enumerate().fold(Script::default(), |script, (n, delay)| match n {
                3 => script.ends("/3", ms(*delay), End::Fails(Reason::UpstreamReset)),
                _ => script.answers(&format!("/{n}"), ms(*delay), &format!(r#"{{"n":{n},"same":{n}.0}}"#)),
            });
            let ran = run(aggregate(sources), &script).await;
            bodies.insert(ran.body().to_owned());
        }
        assert_eq!(bodies.len(), 1, "{count} sources: {bodies:?}");
    }
}

fn permutations(count: u64) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new()];
    for next in 1..=count {
        all = all
            .iter()
            .flat_map(|shorter| (0..=shorter.len()).map(move |at| (shorter, at)))
            .map(|(shorter, at)| {
                let mut longer = shorter.clone();
                longer.insert(at, next);
                longer
            })
            .collect();
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_is_read_and_merged_off_the_loop_all_the_same() {
    let large = format!("[{}1]", "1,".repeat(300 << 10));
    let script = Script::default().answers("/", ms(10), &large).answers("/text", ms(10), "hello");
    let text = with(source("text", "/text"), |source| source.format = Format::Text);

    let ran = run(aggregate(vec![source("large", "/"), text]), &script).await;

    assert_eq!(ran.body(), format!(r#"{{"large":{large},"text":"hello"}}"#));
}

#[tokio::test(start_paused = true)]
async fn parts_of_large_values_reach_their_places_all_the_same() {
    let large = format!(r#"{{"pad":"{}","id":7,"ids":[1,2]}}"#, "x".repeat(300 << 10));
    let script =
        ["/7", "/a/7", "/b/1", "/b/2"].into_iter().fold(Script::default(), |s, path| s.answers(path, ms(1), "1"));
    let script = script.answers("/large", ms(1), &large);
    let each = with(source("each", "/b/{item}"), |source| source.for_each = Some(for_each("#0.ids", 1, 9)));
    let sources =
        aggregate(vec![source("large", "/large"), source("one", "/a/{#0.id}"), each, source("b", "/{body.id}")]);
    let inputs = Inputs { body: Some(Json::raw_literal(&large)), ..Inputs::default() };

    let ran = try_run(sources.clone(), &inputs, &script, None).await.expect("not refused");
    assert_eq!(ran.endings(), ["ok"; 4]);

    let inputs = Inputs { body: Some(Json::raw_literal(&large.replace("\"id\"", "\"no\""))), ..Inputs::default() };
    let refused = try_run(sources, &inputs, &script, None).await.err().expect("refused");
    assert_eq!(refused.reason, Reason::BadRequest);
}
