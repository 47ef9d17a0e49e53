//! The HTML report of a comparison.

use super::super::testing::{SERVER, Server};
use super::super::{Settings, bootstrap::Random, compare, text::tests::comparison};
use super::*;

#[test]
fn the_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    let page = render(&comparison());

    for foreign in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("worse") && page.contains("+3.1 .. +7.0 %"));
}

#[test]
fn what_users_typed_cannot_become_markup() {
    let page = render(&comparison());

    assert!(page.contains("?a=1&amp;b=&lt;2&gt;") && !page.contains("b=<2>"));
}

#[test]
fn both_spectra_are_drawn() {
    let mut random = Random::new(1);
    let server = Server { seconds: 10, ..SERVER };
    let (before, after) = (server.input("a", &mut random), server.input("b", &mut random));
    let compared = compare(&[before], &[after], &Settings { resamples: 200, ..Settings::default() });

    let page = render(&compared.expect("compares"));

    for class in ["line before", "line after"] {
        assert_eq!(page.matches(&format!("<path class=\"{class}\"")).count(), 1, "{class}");
    }
    let tick = |name: &str| page.contains(&format!("text-anchor=middle>{name}<"));
    assert!(tick("p50") && tick("p90") && !tick("p99.9") && !page.contains("NaN"));
}

#[test]
fn without_times_there_is_no_chart() {
    assert!(render(&comparison()).contains("There are no response times."));
}
