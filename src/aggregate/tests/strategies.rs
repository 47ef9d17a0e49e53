//! How many answers are enough, and what becomes of the rest.

use super::*;
use crate::aggregate::script::{End, answer, ms};
use crate::aggregate::testing::{aggregate, source};
use crate::config::model::aggregate::{OnError, Strategy};

/// `/0`, `/1`, ... each of which answers with its number after so many milliseconds; a failure is a negative number.
fn script(delays: &[i64]) -> Script {
    delays.iter().enumerate().fold(Script::default(), |script, (n, delay)| {
        let target = format!("/{n}");
        match u64::try_from(*delay) {
            Ok(delay) => script.answers(&target, ms(delay), &n.to_string()),
            Err(_) => script.ends(&target, ms(delay.unsigned_abs()), End::Fails(Reason::UpstreamReset)),
        }
    })
}

fn by(strategy: Strategy, count: usize) -> Aggregate {
    let sources = (0..count).map(|n| source(&format!("s{n}"), &format!("/{n}")));
    Aggregate { strategy, ..aggregate(sources.collect()) }
}

#[tokio::test(start_paused = true)]
async fn first_takes_the_first_usable_answer_and_cancels_the_others() {
    let script = script(&[-10, 300, 100, 200]);

    let ran = run(by(Strategy::First, 4), &script).await;

    assert_eq!((ran.took, ran.body()), (ms(100), "2"));
    assert_eq!(ran.endings(), ["failed", "not_needed", "ok", "not_needed"]);
    assert_eq!(ran.told, [0, 2, 1, 3]);
    assert_eq!(ran.outcomes[1].took, ms(100));
    assert_eq!(sorted(script.log().cancelled), ["/1", "/3"]);
    assert_eq!((ran.merged.reason, ran.merged.completeness()), (Reason::Ok, "1/1".into()));
}

#[tokio::test(start_paused = true)]
async fn first_fails_when_all_have() {
    let ran = run(by(Strategy::First, 3), &script(&[-10, -30, -20])).await;

    assert_eq!((ran.took, ran.merged.reason), (ms(30), Reason::UpstreamReset));
    assert_eq!(ran.endings(), ["failed"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_ends_as_soon_as_it_is_reached() {
    let script = script(&[-10, 300, 100, 200]);

    let ran = run(by(Strategy::Quorum(2), 4), &script).await;

    assert_eq!(
        (ran.took, ran.body()),
        (ms(200), r#"{"s0":{"error":"s0 failed: The upstream broke the connection"},"s2":2,"s3":3}"#)
    );
    assert_eq!(ran.endings(), ["failed", "not_needed", "ok", "ok"]);
    assert_eq!((ran.merged.reason, ran.merged.completeness()), (Reason::Ok, "2/2".into()));
    assert_eq!(script.log().cancelled, ["/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_ends_as_soon_as_it_cannot_be_reached_any_more() {
    let script = script(&[-10, 20, -30, 5000]);

    let ran = run(by(Strategy::Quorum(3), 4), &script).await;

    assert_eq!(ran.took, ms(30));
    assert_eq!(ran.endings(), ["failed", "ok", "failed", "not_needed"]);
    assert_eq!(script.log().cancelled, ["/3"]);
    assert_eq!(ran.merged.completeness(), "1/3");
}

#[tokio::test(start_paused = true)]
async fn fallback_asks_one_after_the_other() {
    let script = script(&[-10, -20, 30, 40]);

    let ran = run(by(Strategy::Fallback, 4), &script).await;

    assert_eq!((ran.took, ran.body()), (ms(60), "2"));
    assert_eq!(script.log().begun, ["/0", "/1", "/2"]);
    assert_eq!(script.log().in_flight_max, 1);
    assert_eq!(ran.endings(), ["failed", "failed", "ok", "not_needed"]);
    assert_eq!((ran.outcomes[3].attempts, ran.outcomes[3].took), (0, ms(0)));
}

#[tokio::test(start_paused = true)]
async fn fallback_shares_one_deadline() {
    let hung = |script: Script, n: usize| script.ends(&format!("/{n}"), ms(0), End::Never);
    let script = (0..3).fold(Script::default(), hung);
    let sources = (0..3).map(|n| with(source(&format!("s{n}"), &format!("/{n}")), |s| s.timeout = Some(ms(400))));
    let chain = Aggregate { strategy: Strategy::Fallback, ..aggregate(sources.collect()) };

    let ran = run_within(chain, &script, Some(ms(1000))).await;

    assert_eq!(ran.took, ms(1000));
    assert_eq!(ran.reasons(), [Reason::SourceTimeout, Reason::SourceTimeout, Reason::DeadlineFirstByte]);
    assert_eq!((ran.merged.status, ran.merged.reason), (504, Reason::SourcesTimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_of_a_source_counts_in_a_race() {
    let mut race = by(Strategy::First, 2);
    let first = with((*race.sources[0]).clone(), |source| source.on_error = OnError::Source(2));
    race.sources =
        vec![first.into(), race.sources[1].clone(), with(source("spare", "/2"), |s| s.standby = true).into()];

    let ran = run(race, &script(&[-10, 500, 20])).await;

    assert_eq!((ran.took, ran.body()), (ms(30), "2"));
    assert_eq!(ran.endings(), ["fallback", "not_needed", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn what_had_failed_before_the_others_won_stays_failed() {
    let mut race = by(Strategy::First, 2);
    let first = with((*race.sources[0]).clone(), |source| source.on_error = OnError::Source(2));
    race.sources =
        vec![first.into(), race.sources[1].clone(), with(source("spare", "/2"), |s| s.standby = true).into()];
    let script = script(&[-10, 100, 5000]);

    let ran = run(race, &script).await;

    assert_eq!(ran.endings(), ["failed", "ok", "not_needed"]);
    assert_eq!((ran.outcomes[0].reason, script.log().cancelled), (Reason::UpstreamReset, vec!["/2".to_string()]));
    assert_eq!(ran.told, [1, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_whole_cancels_every_call() {
    let script = script(&[100, 200, 300]);
    let plan = Plan::new(Arc::new(by(Strategy::All, 3)));
    let inputs = Inputs::default();

    let gone = tokio::time::timeout(ms(150), execute(&plan, &inputs, &script, None, |_| {})).await;

    assert!(gone.is_err());
    assert_eq!((sorted(script.log().cancelled), script.log().in_flight), (vec!["/1".into(), "/2".into()], 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_needed_is_cancelled_before_anybody_is_told() {
    let script = script(&[100, 200, 300]);
    let plan = Plan::new(Arc::new(by(Strategy::First, 3)));
    let mut in_flight = Vec::new();

    let told = |_: &Outcome| in_flight.push(script.log().in_flight);
    execute(&plan, &Inputs::default(), &script, None, told).await.expect("not refused");

    assert_eq!(in_flight, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sources_take_as_long_as_one() {
    let delays = vec![100; 1000];

    let ran = run(by(Strategy::All, 1000), &script(&delays)).await;

    assert_eq!((ran.took, ran.merged.completeness()), (ms(100), "1000/1000".into()));
}

#[tokio::test(start_paused = true)]
async fn statuses_that_count_are_configured_and_redirects_are_not_followed() {
    let script = Script::default()
        .ends("/0", ms(1), End::Answer(answer(404, "null")))
        .ends("/1", ms(1), End::Answer(answer(302, "{}")))
        .ends("/2", ms(1), End::Answer(answer(304, "")));
    let mut sources = by(Strategy::All, 3);
    let lenient = with((*sources.sources[0]).clone(), |source| source.success[0].last = 499);
    sources.sources[0] = with(lenient, |source| source.success[0].first = 400).into();

    let ran = run(sources, &script).await;

    assert_eq!(ran.reasons(), [Reason::Ok, Reason::UpstreamStatus, Reason::UpstreamStatus]);
    assert_eq!(ran.outcomes.iter().map(|o| o.status).collect::<Vec<_>>(), [Some(404), Some(302), Some(304)]);
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
