//! In what two answers differ: part by part if both are JSON, else as a whole.
//!
//! Paths are written as in the configuration file and in checks, names between dots, `*` for the elements of a list; the
//! whole is [`WHOLE`]. What the mask names is as if it were the same, with everything below it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::config::model::aggregate::{JsonPath, Step};
use crate::config::value::json_path::show_json_path;
use crate::load::answers::Kind;

/// The path of a body that differs as a whole.
pub const WHOLE: &str = "(whole body)";
/// Differences of two answers that are looked for; more of them say nothing more.
pub const MOST_IN_ONE: usize = 100;
/// Characters of a value that are shown.
const SHOWN: usize = 80;

/// One part in which two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Without the places in lists, so that what differs in all of them is one thing.
    pub pattern: JsonPath,
    /// With them.
    pub place: String,
    pub kind: Kind,
    /// As text, cut; empty where there is nothing.
    pub recorded: String,
    pub replayed: String,
}

impl Difference {
    /// The pattern as it is written, also behind `--ignore-path`.
    pub fn path(&self) -> String {
        if self.pattern.steps.is_empty() { WHOLE.to_owned() } else { show_json_path(&self.pattern) }
    }
}

/// Parts that are not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask(Vec<JsonPath>);

impl Mask {
    pub fn new(paths: impl IntoIterator<Item = JsonPath>) -> Self {
        Self(paths.into_iter().collect())
    }

    pub fn with(&self, paths: impl IntoIterator<Item = JsonPath>) -> Self {
        Self(self.0.iter().cloned().chain(paths).collect())
    }

    fn covers(&self, place: &[Place<'_>]) -> bool {
        self.0.iter().any(|path| {
            path.steps.len() == place.len() && path.steps.iter().zip(place).all(|(step, place)| place.is(step))
        })
    }
}

/// A step on the way to a part.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Member(&'a str),
    Element(usize),
}

impl Place<'_> {
    fn is(&self, step: &Step) -> bool {
        match (step, self) {
            (Step::Each, _) => true,
            (Step::Key(name), Place::Member(member)) => name == member,
            (Step::Key(index), Place::Element(element)) => index.parse() == Ok(*element),
        }
    }
}

/// Compares two bodies. Nothing differs if nothing is returned, and at most [`MOST_IN_ONE`] parts are.
pub fn of_bodies(recorded: &[u8], replayed: &[u8], mask: &Mask) -> Vec<Difference> {
    if recorded == replayed {
        return Vec::new();
    }
    let parse = |body: &[u8]| serde_json::from_slice::<Json>(body).ok();
    match (parse(recorded), parse(replayed)) {
        (Some(recorded), Some(replayed)) => of_json(&recorded, &replayed, mask),
        (then, now) => {
            let kind = if then.is_some() == now.is_some() { Kind::Value } else { Kind::Type };
            let text = |body: &[u8]| cut(&String::from_utf8_lossy(body));
            vec![difference(&[], kind, text(recorded), text(replayed))]
        }
    }
}

pub fn of_json(recorded: &Json, replayed: &Json, mask: &Mask) -> Vec<Difference> {
    let mut search = Search { mask, place: Vec::new(), found: Vec::new() };
    search.compare(Some(recorded), Some(replayed));
    search.found
}

struct Search<'a> {
    mask: &'a Mask,
    place: Vec<Place<'a>>,
    found: Vec<Difference>,
}

impl<'a> Search<'a> {
    fn compare(&mut self, recorded: Option<&'a Json>, replayed: Option<&'a Json>) {
        if self.found.len() >= MOST_IN_ONE || self.mask.covers(&self.place) {
            return;
        }
        let kind = match (recorded, replayed) {
            (Some(Json::Object(then)), Some(Json::Object(now))) => {
                let names: BTreeSet<&'a String> = then.keys().chain(now.keys()).collect();
                names.into_iter().for_each(|name| self.part(Place::Member(name), then.get(name), now.get(name)));
                return;
            }
            (Some(Json::Array(then)), Some(Json::Array(now))) => {
                let all = 0..then.len().max(now.len());
                all.for_each(|index| self.part(Place::Element(index), then.get(index), now.get(index)));
                return;
            }
            (Some(then), Some(now)) if is_same(then, now) => return,
            (Some(then), Some(now)) if kind_of(then) == kind_of(now) => Kind::Value,
            (Some(_), Some(_)) => Kind::Type,
            (Some(_), None) => Kind::Missing,
            (None, _) => Kind::Added,
        };
        let text = |json: Option<&Json>| json.map(|json| cut(&json.to_string())).unwrap_or_default();
        self.found.push(difference(&self.place, kind, text(recorded), text(replayed)));
    }

    fn part(&mut self, place: Place<'a>, recorded: Option<&'a Json>, replayed: Option<&'a Json>) {
        self.place.push(place);
        self.compare(recorded, replayed);
        self.place.pop();
    }
}

/// `1` and `1.0` are one number.
fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) if one.is_f64() || other.is_f64() => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

fn kind_of(json: &Json) -> u8 {
    match json {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    }
}

fn difference(place: &[Place<'_>], kind: Kind, recorded: String, replayed: String) -> Difference {
    let exact = |place: &Place<'_>| match place {
        Place::Member(name) => Step::Key((*name).to_owned()),
        Place::Element(index) => Step::Key(index.to_string()),
    };
    let general = |place: &Place<'_>| match place {
        Place::Member(name) => Step::Key((*name).to_owned()),
        Place::Element(_) => Step::Each,
    };
    let steps = |step: &dyn Fn(&Place<'_>) -> Step| JsonPath { steps: place.iter().map(step).collect() };
    Difference { pattern: steps(&general), place: show_json_path(&steps(&exact)), kind, recorded, replayed }
}

/// On one line.
fn cut(text: &str) -> String {
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    let mut shown: String = text.chars().take(SHOWN).map(plain).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::value::json_path::parse_json_path;

    fn mask(paths: &[&str]) -> Mask {
        Mask::new(paths.iter().map(|path| parse_json_path(path).expect(path)))
    }

    fn found(recorded: &Json, replayed: &Json, ignored: &[&str]) -> Vec<(String, String, Kind)> {
        let differences = of_json(recorded, replayed, &mask(ignored));
        differences.into_iter().map(|one| (one.path(), one.place, one.kind)).collect()
    }

    #[test]
    fn each_part_that_differs_is_named() {
        let then = json!({"id": 7, "name": "anna", "old": 1, "items": [{"price": 1.0}, {"price": 2}], "none": null});
        let now = json!({"id": "7", "name": "bert", "new": 1, "items": [{"price": 1}, {"price": 3}, {}], "none": null});

        let found = found(&then, &now, &[]);

        let expected = [
            ("id", "id", Kind::Type),
            ("items.*.price", "items.1.price", Kind::Value),
            ("items.*", "items.2", Kind::Added),
            ("name", "name", Kind::Value),
            ("new", "new", Kind::Added),
            ("old", "old", Kind::Missing),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(path, place, kind)| ((*path).into(), (*place).into(), *kind)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_mask_names_is_passed_over_with_all_below() {
        let then =
            json!({"meta": {"time": 1, "deep": {"x": 1}}, "items": [{"at": 1, "n": 1}, {"at": 2, "n": 1}], "a.b": 1});
        let now =
            json!({"meta": {"time": 2, "deep": {"x": 2}}, "items": [{"at": 3, "n": 1}, {"at": 4, "n": 2}], "a.b": 2});

        let paths =
            |ignored: &[&str]| found(&then, &now, ignored).into_iter().map(|(path, ..)| path).collect::<Vec<_>>();

        assert_eq!(paths(&["meta", "items.*.at", "/a.b"]), ["items.*.n"]);
        assert_eq!(paths(&["meta.time", "items.0", "items.1.n", "/a.b"]), ["items.*.at", "meta.deep.x"]);
        assert_eq!(paths(&["*"]), [""; 0]);
        assert_eq!(paths(&["meta", "items"]), ["/a.b"]);
    }

    #[test]
    fn bodies_that_are_no_json_are_compared_whole() {
        let of = |then: &str, now: &str| {
            of_bodies(then.as_bytes(), now.as_bytes(), &Mask::default()).pop().map(|one| (one.path(), one.kind))
        };

        assert_eq!(of("a", "a"), None);
        assert_eq!(of("{\"a\": 1}", "{ \"a\":1 }"), None);
        assert_eq!(of("a", "b"), Some((WHOLE.into(), Kind::Value)));
        assert_eq!(of("[]", "<html>"), Some((WHOLE.into(), Kind::Type)));
        assert_eq!(of("1", "2"), Some((WHOLE.into(), Kind::Value)));
    }

    #[test]
    fn what_is_found_and_shown_is_bounded() {
        let (then, now) = (json!(vec![1; 1000]), json!(vec![2; 1000]));
        let long = [json!("x".repeat(1000)), json!("y\n".repeat(1000))];

        assert_eq!(of_json(&then, &now, &Mask::default()).len(), MOST_IN_ONE);
        let one = &of_json(&long[0], &long[1], &Mask::default())[0];
        assert!(one.recorded.chars().count() == SHOWN + 1 && !one.replayed.contains('\n'));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (0..3_i64).prop_map(Json::from),
            "[ab]{0,2}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                proptest::collection::btree_map("[a-c.*/]{0,2}", inner, 0..3)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Nothing is found in equals, something in others, and nothing any more once its paths are ignored.
        #[test]
        fn what_is_found_can_be_ignored(then in any_json(), now in any_json()) {
            prop_assert_eq!(of_json(&then, &then, &Mask::default()), vec![]);
            let found = of_json(&then, &now, &Mask::default());
            prop_assert_eq!(found.is_empty(), then == now);

            let patterns: Vec<JsonPath> = found.into_iter().map(|one| one.pattern).collect();

            prop_assert_eq!(of_json(&then, &now, &Mask::new(patterns)), vec![]);
        }
    }
}
