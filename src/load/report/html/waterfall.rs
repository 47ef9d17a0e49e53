//! Where the time went: the way of the slowest requests step by step, every part of the requests beside each other, and
//! the slowest ones by name.

use std::fmt::Write as _;

use super::super::super::waterfall::record::{Cohort, Waterfall};
use super::super::super::waterfall::segments::{COUNT, TITLES};
use super::super::svg::{WIDTH, escape, short};
use super::super::{format, share, telling};
use super::{Page, figure};

const ROW: f64 = 24.0;
const BAR: f64 = 15.0;
/// Room for the names before the bars, and for the numbers after them.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 150.0;

impl Page {
    pub(super) fn waterfall(&mut self, found: &Waterfall) {
        let (Some(_), Some(tail)) = (found.all(), found.tail()) else { return };
        let text = format!(
            "Mean of the slowest 1 % ({}, {} and more), from when they were due to their last byte. One clock on \
             both sides: {} of {} requests were joined with {}.",
            format::many(tail.count, "request"),
            format::nanos(tail.fastest_ns),
            format::count(found.joined),
            format::count(found.requests),
            found.log
        );
        self.push(&figure("Waterfall of the slowest 1 %", &text, &[], &steps(tail)));
        let cohorts: Vec<&Cohort> = found.cohorts.iter().collect();
        let shown = telling(&cohorts);
        let keys: Vec<(String, &str)> = shown.iter().map(|index| (format!("w{index}"), TITLES[*index])).collect();
        let keys: Vec<(&str, &str)> = keys.iter().map(|(class, title)| (class.as_str(), *title)).collect();
        let text = "Shares of the mean response time. What grows towards the last row makes the slow ones slow.";
        self.push(&figure("Where the time went", text, &keys, &bars(&cohorts)));
        self.cohorts(&cohorts, &shown);
        self.slowest(found);
    }

    fn cohorts(&mut self, cohorts: &[&Cohort], shown: &[usize]) {
        let names: Vec<String> = cohorts.iter().map(|cohort| name(cohort)).collect();
        let head: Vec<&str> = [""].into_iter().chain(names.iter().map(String::as_str)).collect();
        self.table("waterfall", &head, |rows| {
            let row = |rows: &mut String, title: &str, value: &dyn Fn(&Cohort) -> String| {
                let _ = write!(rows, "<tr><th scope=row>{}", escape(title));
                cohorts.iter().for_each(|cohort| rows.push_str(&format!("<td>{}", value(cohort))));
            };
            row(rows, "Requests", &|cohort| format::count(cohort.count));
            for index in shown {
                row(rows, TITLES[*index], &|cohort| {
                    let part = cohort.segments.parts()[*index];
                    format!("{} <small>{}</small>", format::time(part), share(part, cohort.response_ns))
                });
            }
            row(rows, "Response time", &|cohort| format::time(cohort.response_ns));
        });
    }

    fn slowest(&mut self, found: &Waterfall) {
        self.push("<details><summary>The slowest requests, by the id that the access log has</summary>");
        let head: Vec<&str> = ["Request id", "Response"].into_iter().chain(TITLES).collect();
        self.table("seconds", &head, |rows| {
            for slow in &found.slowest {
                let _ = write!(rows, "<tr><td class=text><code>{}</code>", escape(&slow.request_id));
                let _ = write!(rows, "<td>{}", format::nanos(slow.response_ns));
                slow.segments.parts().iter().for_each(|part| rows.push_str(&format!("<td>{}", format::nanos(*part))));
            }
        });
        self.push("</details>");
    }
}

fn name(cohort: &Cohort) -> String {
    let percent =
        |share: f64| format::three_digits(share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned();
    match (cohort.from, cohort.to) {
        (0.0, 1.0) => "All".to_owned(),
        (0.0, to) => format!("Fastest {} %", percent(to)),
        (from, 1.0) => format!("Slowest {} %", percent(1.0 - from)),
        (from, to) => format!("{} to {} %", percent(from), percent(to)),
    }
}

/// Each piece begins where the one before ended.
fn steps(tail: &Cohort) -> String {
    let scale = (WIDTH - LEFT - RIGHT) / tail.response_ns.max(1.0);
    let (mut body, mut at, mut y) = (String::new(), 0.0, 4.0);
    for index in telling(&[tail]) {
        let part = tail.segments.parts()[index];
        let (x, width) = (LEFT + at * scale, (part * scale).max(1.0));
        let middle = short(y + BAR - 3.0);
        let _ =
            write!(body, "<text x={} y={middle} text-anchor=end>{}</text>", short(LEFT - 10.0), escape(TITLES[index]));
        let _ = write!(body, "<path class=grid d=\"M{} {}V{}\"/>", short(x), short(y - 4.0), short(y + BAR));
        let _ = write!(
            body,
            "<rect class=\"w w{index}\" x={} y={} width={} height={BAR} />",
            short(x),
            short(y),
            short(width)
        );
        let numbers = format!("{}, {}", format::time(part), share(part, tail.response_ns));
        let _ = write!(body, "<text x={} y={middle}>{}</text>", short(x + width + 8.0), escape(&numbers));
        at += part;
        y += ROW;
    }
    svg("steps", "Waterfall of the slowest 1 %", y, &body)
}

/// One bar for each part of the requests.
fn bars(cohorts: &[&Cohort]) -> String {
    let (mut body, mut y) = (String::new(), 4.0);
    for cohort in cohorts {
        let scale = (WIDTH - LEFT - RIGHT) / cohort.response_ns.max(1.0);
        let middle = short(y + BAR - 3.0);
        let _ =
            write!(body, "<text x={} y={middle} text-anchor=end>{}</text>", short(LEFT - 10.0), escape(&name(cohort)));
        let mut x = LEFT;
        for (index, part) in cohort.segments.parts().into_iter().enumerate().filter(|(_, part)| *part > 0.0) {
            let title = format!("{}: {}, {}", TITLES[index], format::time(part), share(part, cohort.response_ns));
            let _ = write!(
                body,
                "<rect class=\"w w{index}\" x={} y={} width={} height={BAR}><title>{}</title></rect>",
                short(x),
                short(y),
                short(part * scale),
                escape(&title)
            );
            x += part * scale;
        }
        let _ = write!(body, "<text x={} y={middle}>{}</text>", short(x + 8.0), format::time(cohort.response_ns));
        y += ROW;
    }
    svg("shares", "Where the time went", y, &body)
}

fn svg(id: &str, title: &str, height: f64, body: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-labelledby=\"{id}-t\"><title id={id}-t>{}; the numbers are in \
         the table below.</title>{body}</svg>",
        escape(title)
    )
}

const _: () = assert!(COUNT == 11, "style.css has a colour for each piece: w0 to w10");
