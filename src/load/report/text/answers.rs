//! The part of the report about answers that were compared with recorded ones.

use super::super::super::answers::{Answers, DifferenceRecord};
use super::super::format;
use super::Page;

/// Differences that are shown; all are in the JSON.
const SHOWN: usize = 5;

pub fn write(page: &mut Page<'_>, answers: &Answers) {
    let n = format::count;
    let share = format::percent(answers.different, answers.compared);
    page.item(
        "compared",
        &format!(
            "{} with the recorded answers, {} of them with their bodies: {} equal, {} different ({share})",
            n(answers.compared),
            n(answers.bodies),
            n(answers.equal),
            n(answers.different)
        ),
    );
    answers.differences.iter().take(SHOWN).for_each(|one| page.item("", &sentence(one)));
    let more = answers.differences.len().saturating_sub(SHOWN);
    if more > 0 {
        page.item("", &format!("and {more} more paths, in the JSON report"));
    }
    for (name, paths) in [("ignored", &answers.ignored), ("noise, found by asking twice", &answers.learned)] {
        if !paths.is_empty() {
            page.item("", &format!("{name}: {}", paths.join(", ")));
        }
    }
    for (count, why) in [
        (answers.incomparable, "bodies could not be compared: recorded in part, too long, or in an unknown coding"),
        (answers.dropped, "bodies were not compared, for there was no room to wait"),
    ] {
        if count > 0 {
            page.item("", &format!("{} {why}", n(count)));
        }
    }
}

/// `items.*.price: value in 2, as GET /items/7: items.0.price had 12.5, has 13`
fn sentence(one: &DifferenceRecord) -> String {
    let place = if one.place.is_empty() || one.place == one.path { String::new() } else { format!("{} ", one.place) };
    format!("{}: {} in {}, as {}: {place}{}", one.path, one.kind, format::count(one.answers), one.request, one.change())
}

#[cfg(test)]
mod tests {
    use super::super::super::{Look, fixture};

    #[test]
    fn what_differs_is_said_with_an_example() {
        let mut result = fixture::result();
        result.answers = Some(fixture::answers());

        let text = super::super::render(&result, &Look::PLAIN).expect("whole histograms");

        for line in [
            "compared   1 000 with the recorded answers, 990 of them with their bodies: 700 equal, 300 different",
            "items.*.price: value in 290, as GET /items/7: items.0.price had 12.5, has 13",
            "status: status in 10, as GET /gone: had 200, has 404",
            "ignored: meta.time",
            "noise, found by asking twice: id",
            "3 bodies could not be compared",
        ] {
            assert!(text.contains(line), "{line}:\n{text}");
        }
    }
}
