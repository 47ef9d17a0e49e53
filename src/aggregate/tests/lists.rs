//! One call for each item of a list.

use super::*;
use crate::aggregate::json::Json;
use crate::aggregate::script::{End, ms};
use crate::aggregate::testing::{aggregate, for_each, source};
use crate::aggregate::{Items, Value};
use crate::config::model::aggregate::{OnError, TooMany};

/// `/{item}` for each of `{query.ids}`.
fn each(concurrency: usize, max_items: usize) -> Source {
    with(source("users", "/{item}"), |source| source.for_each = Some(for_each("query.ids", concurrency, max_items)))
}

async fn run_for(ids: &str, source: Source, script: &Script) -> Ran {
    try_run(aggregate(vec![source]), &query(&[("ids", ids)]), script, None).await.expect("not refused")
}

fn items(ran: &Ran) -> Items {
    ran.outcomes[0].items.expect("it is a list")
}

#[tokio::test(start_paused = true)]
async fn five_hundred_items_are_never_more_in_flight_than_allowed() {
    let ids: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let script = ids.iter().fold(Script::default(), |script, id| script.answers(&format!("/{id}"), ms(100), id));

    let ran = run_for(&ids.join(","), each(16, 500), &script).await;

    assert_eq!((script.log().in_flight_max, script.log().begun.len()), (16, 500));
    assert_eq!(ran.took, ms(100) * 500_u32.div_ceil(16));
    assert_eq!(ran.body(), format!(r#"{{"users":[{}]}}"#, ids.join(",")));
    assert_eq!((ran.outcomes[0].attempts, ran.outcomes[0].status), (500, None));
}

#[tokio::test(start_paused = true)]
async fn a_value_is_called_for_once_and_stands_in_each_of_its_places() {
    let script = Script::default().answers("/a", ms(30), "1").answers("/b", ms(10), "2");

    let ran = run_for(" b, a,,b ,a,b", each(16, 10), &script).await;

    assert_eq!(script.log().begun, ["/b", "/a"]);
    assert_eq!(ran.body(), r#"{"users":[2,1,2,1,2]}"#);
    assert_eq!(items(&ran), Items { total: 5, failed: 0, distinct: 2, cut: 0 });
}

/// A kilobyte asked for again and again must not become a gigabyte.
#[tokio::test(start_paused = true)]
async fn what_stands_in_many_places_counts_in_each_of_them() {
    let answer = "8".repeat(1000);
    let script = Script::default().answers("/1", ms(10), &answer);
    let run_with = async |inputs: &Inputs, list: &str, max_bytes| {
        let users = with(source("users", "/{item}"), |source| source.for_each = Some(for_each(list, 16, 10_000)));
        let aggregate = Aggregate { max_bytes, ..aggregate(vec![users]) };
        try_run(aggregate, inputs, &script, None).await.expect("not refused")
    };
    let same = query(&[("ids", &["1"; 10].join(","))]);
    // One text, and so one call, written in three ways.
    let alike = Json::parse(r#"["1",1,"\u0031"]"#.into(), 64).expect("JSON");
    let alike = Inputs { body: Some(alike), ..Inputs::default() };

    assert_eq!(run_with(&same, "query.ids", 10_000).await.endings(), ["ok"]);
    let beyond = run_with(&same, "query.ids", 9_999).await;
    assert_eq!((beyond.reasons(), beyond.outcomes[0].attempts), (vec![Reason::UpstreamTooLarge], 1));
    assert_eq!(run_with(&alike, "body", 3_000).await.endings(), ["ok"]);
    assert_eq!(run_with(&alike, "body", 2_999).await.reasons(), [Reason::UpstreamTooLarge]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_an_answer() {
    let ran = run_for(" , ", each(1, 1), &Script::default()).await;

    assert_eq!((ran.body(), ran.endings(), ran.took), (r#"{"users":[]}"#, vec!["ok"], ms(0)));
}

#[tokio::test(start_paused = true)]
async fn too_many_items_are_refused_or_cut_and_said() {
    let script = ["/1", "/2"].into_iter().fold(Script::default(), |script, path| script.answers(path, ms(1), "0"));
    let ids = query(&[("ids", "1,2,1,3")]);
    let refused = try_run(aggregate(vec![each(4, 3)]), &ids, &script, None).await.err().expect("refused");
    assert_eq!(refused.reason, Reason::TooManyItems);
    assert_eq!(refused.detail, "the list `query.ids` has 4 items, and 3 are allowed");

    let cut = with(each(4, 3), |source| source.for_each.as_mut().expect("it is a list").too_many = TooMany::Cut);
    let ran = run_for("1,2,1,3", cut, &script).await;
    assert_eq!(ran.body(), r#"{"users":[0,0,0]}"#);
    assert_eq!(items(&ran), Items { total: 3, failed: 0, distinct: 2, cut: 1 });
    assert_eq!(ran.merged.truncated, [(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_the_request_does_not_have_is_refused() {
    let refused = |inputs: Inputs, list: &'static str| async move {
        let source = with(each(1, 1), |source| source.for_each = Some(for_each(list, 1, 1)));
        try_run(aggregate(vec![source]), &inputs, &Script::default(), None).await.err().expect("refused").detail
    };
    let body = Json::raw_literal(r#"{"ids":{"0":1}}"#);

    assert_eq!(refused(Inputs::default(), "query.ids").await, "the list `query.ids` is missing");
    let inputs = Inputs { body: Some(body), ..Inputs::default() };
    assert_eq!(refused(inputs, "body.ids").await, "`body.ids` is no list");
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_from_an_earlier_answer() {
    let script = Script::default()
        .answers("/team", ms(100), r#"{"members":[{"id":7},{"id":"x"},{"id":7,"again":true}]}"#)
        .answers("/users/7", ms(100), r#""seven""#)
        .answers("/users/x", ms(50), r#""x""#);
    let of_team = |limit: usize| {
        with(source("users", "/users/{item.id}"), |source| source.for_each = Some(for_each("#0.members", 8, limit)))
    };

    let ran = run(aggregate(vec![source("team", "/team"), of_team(3)]), &script).await;

    assert_eq!(ran.took, ms(200));
    assert!(ran.body().ends_with(r#""users":["seven","x","seven"]}"#), "{}", ran.body());
    assert_eq!(script.log().begun.len(), 3, "two different elements that make the same call share it");
    assert_eq!((ran.outcomes[1].attempts, ran.outcomes[1].coalesced), (2, true));

    let ran = run(aggregate(vec![source("team", "/team"), of_team(2)]), &script).await;
    assert_eq!(ran.reasons(), [Reason::Ok, Reason::TooManyItems]);
    let nowhere = with(of_team(2), |source| source.for_each = Some(for_each("#0.nowhere", 8, 9)));
    let ran = run(aggregate(vec![source("team", "/team"), nowhere]), &script).await;
    assert_eq!(ran.reasons(), [Reason::Ok, Reason::MissingValue]);
}

fn one_of_three_fails() -> Script {
    Script::default().answers("/1", ms(10), "1").ends("/2", ms(20), End::Fails(Reason::UpstreamReset)).answers(
        "/3",
        ms(30),
        "3",
    )
}

#[tokio::test(start_paused = true)]
async fn a_failed_item_is_treated_in_its_own_place() {
    for (on_error, body) in [
        (OnError::Embed, r#"{"users":[1,{"error":"users failed: The upstream broke the connection"},3]}"#),
        (OnError::Omit, r#"{"users":[1,3]}"#),
        (OnError::Value("null".into()), r#"{"users":[1,null,3]}"#),
    ] {
        let source = with(each(3, 3), |source| source.on_error = on_error);

        let ran = run_for("1,2,3", source, &one_of_three_fails()).await;

        assert_eq!((ran.body(), ran.endings()), (body, vec!["partial"]));
        assert_eq!(items(&ran), Items { total: 3, failed: 1, distinct: 3, cut: 0 });
        assert_eq!(ran.merged.reason, Reason::Partial);
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_items_fail_the_source_does() {
    let error = r#"{"error":"users failed: The upstream broke the connection"}"#;
    for (on_error, ending, value) in [
        (OnError::Embed, "failed", Some(format!("[{error},{error}]"))),
        (OnError::Omit, "failed", None),
        (OnError::Value("0".into()), "fallback", Some("[0,0]".into())),
    ] {
        let source = with(each(3, 3), |source| source.on_error = on_error);
        let script = ["/1", "/2"]
            .into_iter()
            .fold(Script::default(), |script, path| script.ends(path, ms(1), End::Fails(Reason::UpstreamReset)));

        let ran = run_for("1,2", source, &script).await;

        assert_eq!((ran.endings(), ran.reasons()), (vec![ending], vec![Reason::UpstreamReset]));
        let expected = value.map_or(Value::Absent, |text| Value::Json(Json::raw_literal(&text)));
        assert_eq!(ran.outcomes[0].value, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn with_fail_the_first_of_the_list_is_named_however_fast_the_others_were() {
    let script = Script::default()
        .answers("/ok", ms(10), "0")
        .ends("/late", ms(90), End::Fails(Reason::ConnectFailed))
        .answers("/between", ms(50), "0")
        .ends("/early", ms(20), End::Fails(Reason::UpstreamReset))
        .answers("/slow", ms(5000), "0");
    let source = with(each(5, 9), |source| source.on_error = OnError::Fail);

    let ran = run_for("ok,late,between,early,slow,never", source, &script).await;

    assert_eq!((ran.reasons(), ran.took), (vec![Reason::ConnectFailed], ms(90)));
    assert_eq!(script.log().cancelled, ["/slow"]);
    assert!(!script.log().begun.contains(&"/never".to_string()));
}

#[tokio::test(start_paused = true)]
async fn another_source_stands_in_for_the_whole_list() {
    let script = one_of_three_fails().answers("/spare", ms(10), r#"["spare"]"#);
    let list = with(each(3, 3), |source| source.on_error = OnError::Source(1));

    let sources = aggregate(vec![list, source("spare", "/spare")]);
    let ran = try_run(sources, &query(&[("ids", "1,2,3")]), &script, None).await.expect("not refused");

    assert_eq!((ran.body(), ran.endings()), (r#"{"users":["spare"]}"#, vec!["fallback", "ok"]));
    assert_eq!((ran.took, script.log().cancelled), (ms(30), vec!["/3".to_string()]));
}

#[tokio::test(start_paused = true)]
async fn the_timeout_bounds_the_whole_list() {
    let script = Script::default()
        .answers("/1", ms(100), "1")
        .answers("/2", ms(100), "2")
        .ends("/3", ms(0), End::Never)
        .answers("/4", ms(1), "4");
    let source = with(each(1, 9), |source| source.timeout = Some(ms(250)));

    let ran = run_for("1,2,3,4", source, &script).await;

    let late = r#"{"error":"users failed: The source took longer than its timeout"}"#;
    assert_eq!((ran.took, ran.body()), (ms(250), &*format!(r#"{{"users":[1,2,{late},{late}]}}"#)));
    assert_eq!(script.log().begun, ["/1", "/2", "/3"]);
    assert_eq!(ran.outcomes[0].attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_called_for_or_panics_fails_alone() {
    let script = Script::default().answers("/1", ms(1), "1").ends("/boom", ms(1), End::Panics);

    let ran = run_for("1,..,boom", with(each(9, 9), |source| source.on_error = OnError::Omit), &script).await;

    assert_eq!((ran.body(), items(&ran).failed), (r#"{"users":[1]}"#, 2));
}
