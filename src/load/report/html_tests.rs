//! The page: whole in itself, and its numbers those of the result.

use super::super::fixture;
use super::*;
use crate::load::ledger::{Counts, Second};
use crate::load::result::SecondRecord;

fn page(result: &RunResult) -> String {
    render(result).expect("whole histograms")
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let joined = RunResult { waterfall: Some(fixture::waterfall()), ..fixture::result() };
    for result in [joined, fixture::result(), fixture::void(), fixture::interrupted(), fixture::empty()] {
        let page = page(&result);

        for word in ["src=", "href", "url(", "@import", "<script", "<link", "<iframe", "<img", "xlink", "javascript"] {
            assert!(!page.contains(word), "{word}");
        }
        let own = page.replace("http://127.0.0.1:8080/agg", "");
        assert!(!own.contains("http://") && !own.contains("https://") && !own.contains("//cdn"));
    }
}

/// What is between the tags of cells, by row, of the tables of this class.
fn cells(page: &str, class: &str) -> Vec<Vec<String>> {
    let start = format!("<table class=\"{class}\">");
    let table = page.split(&start).nth(1).expect(class).split("</table>").next().expect("ends");
    let body = table.split("<tbody>").nth(1).expect("a body");
    let text = |cell: &str| {
        let after = cell.split_once('>').map_or(cell, |(_, after)| after);
        after.split('<').next().unwrap_or_default().trim().to_owned()
    };
    let rows = body.split("<tr").skip(1);
    rows.map(|row| row.split("<td").skip(1).map(text).collect()).collect()
}

#[test]
fn the_table_of_times_has_the_numbers_of_the_result() {
    let result = fixture::result();
    let totals = &result.totals;

    let rows = cells(&page(&result), "times");

    let expected =
        [&totals.response, &totals.service, &totals.first_byte, &totals.failed, &totals.connect, &totals.lateness];
    assert_eq!(rows.len(), expected.len());
    for (row, of) in rows.iter().zip(expected) {
        let times = [of.p50_ns, of.p90_ns, of.p95_ns, of.p99_ns, of.p999_ns, of.max_ns].map(format::nanos);
        let bare: Vec<&str> = row.iter().map(|cell| cell.trim_start_matches("&ge;")).collect();
        assert_eq!(bare[0], format::count(of.count));
        assert_eq!(bare[1], format::time(of.mean_ns));
        assert_eq!(bare[2..], times);
    }
    assert!(
        rows[0][7].starts_with("&ge;") && rows[1][7].starts_with("&ge;"),
        "the one that timed out is a lower bound"
    );
    assert!(!rows[0][5].starts_with("&ge;"));
}

#[test]
fn the_table_of_seconds_has_the_numbers_of_the_seconds() {
    let result = fixture::result();

    let rows = cells(&page(&result), "seconds");

    assert_eq!(rows.len(), result.seconds.len());
    for (row, second) in rows.iter().zip(&result.seconds) {
        let counts = &second.counts;
        let numbers = [
            counts.scheduled,
            counts.sent,
            counts.shed,
            counts.unsent,
            counts.ok,
            counts.http_error,
            counts.connection_error,
            counts.timeout,
            counts.unfinished,
        ];
        assert_eq!(row[0], format!("{} s", second.second));
        assert_eq!(row[1..10], numbers.map(format::count));
        if second.response.count > 0 {
            let bare: Vec<&str> = row[11..].iter().map(|cell| cell.trim_start_matches("&ge;")).collect();
            let times =
                [second.response.p50_ns, second.response.p99_ns, second.response.max_ns, second.lateness.p99_ns];
            assert_eq!(bare, times.map(format::nanos));
        }
    }
}

#[test]
fn the_table_of_the_waterfall_has_the_numbers_of_the_result() {
    let found = fixture::waterfall();
    let result = RunResult { waterfall: Some(found.clone()), ..fixture::result() };

    let page = page(&result);

    let rows = cells(&page, "waterfall");
    let column = |index: usize| -> Vec<&str> { rows.iter().map(|row| row[index].as_str()).collect() };
    for (index, cohort) in found.cohorts.iter().enumerate() {
        let parts = cohort.segments.parts().into_iter().enumerate().filter(|(index, _)| ![4, 6].contains(index));
        let expected: Vec<String> = [format::count(cohort.count)]
            .into_iter()
            .chain(parts.map(|(_, part)| format::time(part)))
            .chain([format::time(cohort.response_ns)])
            .collect();
        assert_eq!(column(index), expected);
    }
    assert!(page.contains(&found.slowest[0].request_id));
    assert!(page.contains("<th scope=col>Slowest 1 %<tbody>"), "the last column");
}

#[test]
fn counts_gates_and_surroundings_are_there() {
    let result = fixture::result();
    let page = page(&result);

    for text in [
        "<h1>GET http://127.0.0.1:8080/agg</h1>",
        "<td>2 200<td>100 %",
        "<td>2 194<td>99.73 %",
        "<td>11<td>0.501 %",
        "<code>p99&lt;250ms</code><td class=\"text bad\">missed",
        "Some CPU &lt;2 GHz&gt;",
        "<td class=text>400 ms at 7.25 s",
        "-H &#39;x-note: it&#39;\\&#39;&#39;s&#39; --seed 7",
        "Fri, 15 Jan 2027 08:00:00 GMT",
        "3 answers came after its timeout",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn what_others_named_cannot_become_markup() {
    let mut result = fixture::result();
    let evil = "\"><script>alert(1)</script>";
    result.targets[0].name = evil.into();
    result.command_line.push(evil.into());
    result.notes.push(evil.into());
    let mut answers = fixture::answers();
    answers.differences[0].path = evil.into();
    answers.differences[0].replayed = evil.into();
    answers.ignored.push(evil.into());
    result.answers = Some(answers);
    result.environment.host = evil.into();
    result.gates[0].measured = evil.into();
    result.gates[1].gate = evil.into();
    result
        .verdict
        .reasons
        .push(crate::load::result::Reason { rule: crate::load::result::Rule::Empty, text: evil.into() });

    assert!(!page(&result).contains("<script"));
}

#[test]
fn ten_minutes_stay_below_300_kilobytes() {
    let page = page(&fixture::run(600));

    assert!(page.len() < 300 * 1024, "{} bytes", page.len());
    assert!(page.contains("Every 5 seconds"));
}

/// As many bins as there may be, and something in every cell of the map.
#[test]
fn so_does_the_worst_run() {
    let mut result = fixture::result();
    let count = 1_234_567;
    let mut second = Second {
        counts: Counts {
            scheduled: count,
            sent: count,
            shed: count,
            unsent: count,
            ok: 10,
            http_error: count,
            connection_error: count,
            timeout: count,
            unfinished: count,
            ..Counts::default()
        },
        censored_from: Some(1_000_000),
        ..Second::default()
    };
    for step in 0..200 {
        second.response.record((100_000.0 * 1.06_f64.powi(step)) as u64);
        second.lateness.record(step as u64 * 1_000);
    }
    result.seconds = vec![SecondRecord::of(0, false, &second); 200];
    result.seconds.iter_mut().zip(0..).for_each(|(second, index)| second.second = index);

    let page = page(&result);

    assert!(page.len() < 300 * 1024, "{} bytes", page.len());
}

#[test]
fn bins_lose_no_request() {
    let result = fixture::run(250);

    let bins = bins::of(&result).expect("whole");

    let scheduled: u64 = bins.iter().map(|bin| bin.counts.scheduled).sum();
    let answered: u64 = bins.iter().map(|bin| bin.response.len()).sum();
    assert_eq!(scheduled, 250 * 200);
    assert_eq!(answered, result.seconds.iter().map(|second| second.response.count).sum::<u64>());
    assert!(bins.len() <= 200 && bins[0].seconds == 2);
}

#[test]
fn charts_are_named_for_those_who_do_not_see_them() {
    let page = page(&fixture::result());

    let charts = page.matches("<svg").count();
    assert_eq!(charts, 6);
    assert_eq!(page.matches("role=img aria-labelledby=").count(), charts);
    assert_eq!(page.matches("</desc>").count(), charts);
}

/// For looking at it: `FOREBAY_PAGE=/tmp/page cargo test --lib html` writes the pages there.
#[test]
fn pages_can_be_looked_at() {
    let Some(folder) = std::env::var_os("FOREBAY_PAGE") else { return };
    let folder = std::path::PathBuf::from(folder);
    std::fs::create_dir_all(&folder).expect("can be made");
    let runs = [
        ("complete", fixture::result()),
        ("void", fixture::void()),
        ("interrupted", fixture::interrupted()),
        ("empty", fixture::empty()),
        ("long", fixture::run(600)),
    ];
    for (name, result) in runs {
        std::fs::write(folder.join(name).with_extension("html"), page(&result)).expect("can be written");
    }
}

#[test]
fn where_the_generator_stood_still_is_in_the_legend_of_every_chart_that_shows_it() {
    let page = page(&fixture::result());

    let bands = page.matches("<rect class=stall ").count();
    assert_eq!(page.matches("<i class=stall></i>the generator itself stood still").count(), bands);
    assert!(bands > 0);
}
