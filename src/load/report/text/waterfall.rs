//! The part of the report about where the time went, joined with the sidecar's log.

use super::super::super::waterfall::record::{Cohort, Waterfall};
use super::super::super::waterfall::segments::TITLES;
use super::super::{format, share, telling};
use super::{INDENT, Page};

/// Of the table beside its names.
const TABLE: usize = 36;
/// The longest name.
const NAME: usize = 26;
/// Pieces that are named in the sentence.
const NAMED: usize = 3;

pub fn write(page: &mut Page<'_>, found: &Waterfall) {
    let (Some(all), Some(tail)) = (found.all(), found.tail()) else { return };
    page.item("waterfall", &sentence(tail));
    if page.look.width >= INDENT + TABLE + NAME {
        table(page, all, tail);
    }
    let joined = format!("{} of {} requests", format::count(found.joined), format::count(found.requests));
    page.item("", &format!("{joined} were joined with {}", found.log));
    page.gap();
}

/// `of the slowest 1 % (60 requests, 909 ms and more): 71 % waiting in the queue, 20 % the upstream's first byte`
fn sentence(tail: &Cohort) -> String {
    let mut parts: Vec<(f64, &str)> = tail.segments.parts().into_iter().zip(TITLES).collect();
    parts.sort_by(|one, other| other.0.total_cmp(&one.0));
    let named = parts.iter().take(NAMED).filter(|(part, _)| part * 100.0 >= tail.response_ns);
    let named: Vec<String> = named.map(|(part, title)| format!("{} {title}", share(*part, tail.response_ns))).collect();
    format!(
        "of the slowest 1 % ({}, {} and more): {}",
        format::many(tail.count, "request"),
        format::nanos(tail.fastest_ns),
        named.join(", ")
    )
}

fn table(page: &mut Page<'_>, all: &Cohort, tail: &Cohort) {
    let head = format!("{:INDENT$}{:>18}{:>18}", "", "mean of all", "slowest 1 %");
    let head = page.look.dim(head.as_str());
    page.line(&head);
    let cells =
        |part: f64, cohort: &Cohort| format!("{:>11}{:>7}", format::time(part), share(part, cohort.response_ns));
    for index in telling(&[all, tail]) {
        let (of_all, of_tail) = (all.segments.parts()[index], tail.segments.parts()[index]);
        page.line(&format!("{:INDENT$}{}{}  {}", "", cells(of_all, all), cells(of_tail, tail), TITLES[index]));
    }
    let sums = format!("{}{}", cells(all.response_ns, all), cells(tail.response_ns, tail));
    page.line(&format!("{:INDENT$}{sums}  response time", ""));
}

#[cfg(test)]
mod tests {
    use super::super::super::{Look, fixture, golden};

    #[test]
    fn the_report_is_the_one_that_is_kept() {
        let mut result = fixture::result();
        result.waterfall = Some(fixture::waterfall());

        let text = super::super::render(&result, &Look::PLAIN).expect("whole histograms");

        golden::compare("tests/it/load/waterfall.txt", &text);
    }

    #[test]
    fn a_narrow_terminal_gets_the_sentence_only() {
        let mut result = fixture::result();
        result.waterfall = Some(fixture::waterfall());
        let look = Look { colour: false, width: 40 };

        let text = super::super::render(&result, &look).expect("whole histograms");

        assert!(text.contains("of the slowest 1 %") && !text.contains("mean of all"), "{text}");
        let wide: Vec<&str> = text.lines().filter(|line| line.len() > 40 && !line.contains("http://")).collect();
        assert!(wide.is_empty(), "{wide:?}");
    }
}
