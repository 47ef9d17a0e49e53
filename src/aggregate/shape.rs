//! What of an answer stays, and under which names: `select`, then `keep`, `drop` and `rename`.
//!
//! Paths go through arrays with `*` only; a name never reaches into an array's elements by itself. What no path touches
//! keeps its bytes. An object or array on the way of a path is written anew, without white space.
//!
//! The recursion is as deep as the longest path, which the configuration bounds, never as deep as the value.

use super::json::{Json, each_item, each_member, index, is_name, separate, write_string};
use crate::config::model::aggregate::{JsonPath, Source, Step};

/// The answer has no part that `select` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeError;

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer has nothing at the path of `select`")
    }
}

impl std::error::Error for ShapeError {}

/// The part of an answer that the source stands for.
pub fn shape(source: &Source, answer: Json) -> Result<Json, ShapeError> {
    let mut json = match &source.select {
        Some(path) => answer.get(path).ok_or(ShapeError)?,
        None => answer,
    };
    if !source.keep.is_empty() {
        json = keep(&json, &source.keep);
    }
    if !source.drop.is_empty() {
        json = drop(&json, &source.drop);
    }
    if !source.rename.is_empty() {
        json = rename(&json, &source.rename);
    }
    Ok(json)
}

/// Only what the paths reach. Objects and arrays on the way stay, empty if need be; a scalar on the way does not, since it
/// was not asked for, and at the root it becomes `null`.
pub(super) fn keep(json: &Json, paths: &[JsonPath]) -> Json {
    let paths: Vec<&[Step]> = paths.iter().map(|path| &path.steps[..]).collect();
    let mut out = Vec::with_capacity(json.as_bytes().len());
    if !write_kept(json.as_bytes(), &paths, &mut out) {
        return Json::null();
    }
    Json::written(out)
}

/// Without what the paths reach.
pub(super) fn drop(json: &Json, paths: &[JsonPath]) -> Json {
    if paths.iter().any(|path| path.steps.is_empty()) {
        return Json::null();
    }
    let paths: Vec<&[Step]> = paths.iter().map(|path| &path.steps[..]).collect();
    let mut out = Vec::with_capacity(json.as_bytes().len());
    write_without(json.as_bytes(), &paths, &mut out);
    Json::written(out)
}

/// With the last names of the paths changed, in place. A member that had the new name already gives way: an object with
/// one name twice would mean different things to different readers.
pub(super) fn rename(json: &Json, names: &[(JsonPath, String)]) -> Json {
    let names: Vec<Renaming> = names.iter().map(|(path, name)| Renaming { steps: &path.steps, name }).collect();
    let mut out = Vec::with_capacity(json.as_bytes().len());
    write_renamed(json.as_bytes(), &names, &mut out);
    Json::written(out)
}

/// Where a child stands in its parent.
#[derive(Clone, Copy)]
enum Place<'a> {
    Member(&'a [u8]),
    Item(usize),
}

impl Place<'_> {
    fn is_met_by(self, step: &Step) -> bool {
        match (step, self) {
            (Step::Each, _) => true,
            (Step::Key(key), Place::Member(name)) => is_name(name, key),
            (Step::Key(key), Place::Item(at)) => index(key) == Some(at),
        }
    }

    fn write_name(self, out: &mut Vec<u8>) {
        if let Place::Member(name) = self {
            out.extend_from_slice(name);
            out.push(b':');
        }
    }
}

/// What is left of the paths that go through this child.
fn through<'p>(paths: &[&'p [Step]], place: Place<'_>) -> Vec<&'p [Step]> {
    let tails = paths.iter().filter_map(|path| {
        let (step, rest) = path.split_first()?;
        place.is_met_by(step).then_some(rest)
    });
    tails.collect()
}

/// Calls `take` for each child and where it stands; false for a scalar. Writes the brackets around it.
fn rewrite<'a>(json: &'a [u8], out: &mut Vec<u8>, mut take: impl FnMut(Place<'a>, &'a [u8], &mut Vec<u8>)) -> bool {
    match json.first() {
        Some(b'[') => {
            out.push(b'[');
            let mut at = 0;
            each_item(json, &mut |item| {
                take(Place::Item(at), item, out);
                at += 1;
            });
            out.push(b']');
        }
        Some(b'{') => {
            out.push(b'{');
            each_member(json, &mut |name, value| take(Place::Member(name), value, out));
            out.push(b'}');
        }
        _ => return false,
    }
    true
}

fn write_kept(json: &[u8], paths: &[&[Step]], out: &mut Vec<u8>) -> bool {
    if paths.iter().any(|path| path.is_empty()) {
        out.extend_from_slice(json);
        return true;
    }
    rewrite(json, out, |place, value, out| {
        let rest = through(paths, place);
        if rest.is_empty() {
            return;
        }
        let before = out.len();
        separate(out);
        place.write_name(out);
        if !write_kept(value, &rest, out) {
            out.truncate(before);
        }
    })
}

fn write_without(json: &[u8], paths: &[&[Step]], out: &mut Vec<u8>) {
    let container = rewrite(json, out, |place, value, out| {
        let rest = through(paths, place);
        if rest.iter().any(|path| path.is_empty()) {
            return;
        }
        separate(out);
        place.write_name(out);
        if rest.is_empty() {
            out.extend_from_slice(value);
        } else {
            write_without(value, &rest, out);
        }
    });
    if !container {
        out.extend_from_slice(json);
    }
}

#[derive(Clone, Copy)]
struct Renaming<'p> {
    steps: &'p [Step],
    name: &'p str,
}

fn write_renamed(json: &[u8], names: &[Renaming<'_>], out: &mut Vec<u8>) {
    let taken = new_names(json, names);
    let container = rewrite(json, out, |place, value, out| {
        let new = new_name(place, names);
        if new.is_none() && matches!(place, Place::Member(old) if taken.iter().any(|name| is_name(old, name))) {
            return;
        }
        separate(out);
        match new {
            Some(name) => {
                write_string(name, out);
                out.push(b':');
            }
            None => place.write_name(out),
        }
        let deeper = names.iter().filter_map(|renaming| {
            let (step, rest) = renaming.steps.split_first()?;
            (!rest.is_empty() && place.is_met_by(step)).then_some(Renaming { steps: rest, ..*renaming })
        });
        let deeper: Vec<Renaming> = deeper.collect();
        if deeper.is_empty() {
            out.extend_from_slice(value);
        } else {
            write_renamed(value, &deeper, out);
        }
    });
    if !container {
        out.extend_from_slice(json);
    }
}

/// The names that members of this object are about to get.
fn new_names<'p>(json: &[u8], names: &[Renaming<'p>]) -> Vec<&'p str> {
    let mut taken = Vec::new();
    if names.iter().any(|renaming| renaming.steps.len() == 1) {
        each_member(json, &mut |name, _| taken.extend(new_name(Place::Member(name), names)));
    }
    taken
}

/// Elements of arrays have no names; nor can all members of an object get the same one.
fn new_name<'p>(place: Place<'_>, names: &[Renaming<'p>]) -> Option<&'p str> {
    let Place::Member(old) = place else { return None };
    names.iter().find_map(|renaming| match renaming.steps {
        [Step::Key(key)] if is_name(old, key) => Some(renaming.name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::testing::{json_path, source};
    use proptest::prelude::*;

    fn json(text: &str) -> Json {
        Json::parse(bytes::Bytes::copy_from_slice(text.as_bytes()), 64).expect(text)
    }

    fn paths(texts: &[&str]) -> Vec<JsonPath> {
        texts.iter().map(|text| json_path(text)).collect()
    }

    #[test]
    fn select_comes_first_and_rename_last() {
        let mut source = source("user", "/");
        source.select = Some(json_path("data.*"));
        source.keep = paths(&["*.id", "*.name", "*.secret"]);
        source.drop = paths(&["*.secret"]);
        source.rename = vec![(json_path("*.name"), "title".into())];
        let answer = json(r#"{"data":[{"id":0.10,"name":{"x": 1},"secret":1,"more":2},{"id":1e400}],"n":1}"#);

        let shaped = shape(&source, answer).expect("data is there");

        assert_eq!(shaped, json(r#"[{"id":0.10,"title":{"x": 1}},{"id":1e400}]"#));
    }

    #[test]
    fn selecting_what_is_not_there_is_an_error() {
        let mut source = source("user", "/");
        source.select = Some(json_path("data"));

        assert_eq!(shape(&source, json(r#"{"error":1}"#)), Err(ShapeError));
        assert_eq!(shape(&source, json("null")), Err(ShapeError));
        assert_eq!(shape(&source, json(r#"{"data":null}"#)), Ok(json("null")));
    }

    #[test]
    fn an_answer_that_nothing_touches_keeps_its_bytes() {
        let answer = json("{ \"b\" : 1.0 ,\n \"b\" : [ ] }");

        assert_eq!(shape(&source("user", "/"), answer.clone()), Ok(answer));
    }

    #[test]
    fn only_what_is_kept_stays() {
        for (before, kept, after) in [
            (r#"{"a":1,"b":2,"c":3}"#, &["c", "a"][..], r#"{"a":1,"c":3}"#),
            (r#"{"a":{"x":[ 1, 2 ],"y":2},"b":1}"#, &["a.x"], r#"{"a":{"x":[ 1, 2 ]}}"#),
            (r#"{"a":{"x":1}}"#, &["a", "a.y"], r#"{"a":{"x":1}}"#),
            (r#"{"a":{"x":1}}"#, &["a.y"], r#"{"a":{}}"#),
            (r#"{"a":5,"b":1}"#, &["a.y", "b"], r#"{"b":1}"#),
            (r#"[{"a":1,"b":2},{"b":3},7]"#, &["*.a"], r#"[{"a":1},{}]"#),
            (r#"[{"a":1}]"#, &["a"], "[]"),
            (r#"{"l":[10,11,12]}"#, &["l.0", "l.2"], r#"{"l":[10,12]}"#),
            (r#"{"u":{"x":{"id":1,"n":2},"y":{"id":3}}}"#, &["u.*.id"], r#"{"u":{"x":{"id":1},"y":{"id":3}}}"#),
            (r#"{"a":1,"a":2}"#, &["a"], r#"{"a":1,"a":2}"#),
            ("5", &["a"], "null"),
            ("null", &["a"], "null"),
        ] {
            assert_eq!(keep(&json(before), &paths(kept)), json(after), "{before} {kept:?}");
        }
    }

    #[test]
    fn what_is_dropped_goes() {
        for (before, dropped, after) in [
            (r#"{"a":1,"b": 2,"c":3}"#, &["b"][..], r#"{"a":1,"c":3}"#),
            (r#"{"a":{"x":1,"y":2}}"#, &["a.x", "z"], r#"{"a":{"y":2}}"#),
            (r#"[{"a":1,"b":2},{"b":3},7]"#, &["*.b"], r#"[{"a":1},{},7]"#),
            (r#"[{"a":1}]"#, &["a"], r#"[{"a":1}]"#),
            ("[10,11,12]", &["0", "1"], "[12]"),
            (r#"{"a":1,"\u0061":2,"b":3}"#, &["a"], r#"{"b":3}"#),
            (r#"{"a":[1,2]}"#, &["a.*"], r#"{"a":[]}"#),
            ("5", &["a"], "5"),
            ("5", &[""], "null"),
        ] {
            assert_eq!(drop(&json(before), &paths(dropped)), json(after), "{before} {dropped:?}");
        }
    }

    #[test]
    fn names_change_in_place() {
        for (before, path, name, after) in [
            (r#"{"a":1,"b":0.10}"#, "b", "x\"y", r#"{"a":1,"x\"y":0.10}"#),
            (r#"{"a":{"b":{ "c":1}}}"#, "a.b", "z", r#"{"a":{"z":{ "c":1}}}"#),
            (r#"[{"a":1},{"a":2},{}]"#, "*.a", "z", r#"[{"z":1},{"z":2},{}]"#),
            (r#"{"a":1,"z":2}"#, "a", "z", r#"{"z":1}"#),
            (r#"{"z":2}"#, "a", "z", r#"{"z":2}"#),
            (r#"{"a":1}"#, "*", "z", r#"{"a":1}"#),
            ("[1]", "0", "z", "[1]"),
            ("5", "a", "z", "5"),
        ] {
            assert_eq!(rename(&json(before), &[(json_path(path), name.into())]), json(after), "{before} {path}");
        }
    }

    #[test]
    fn names_can_be_exchanged_and_renamed_inside_what_is_renamed() {
        let names = [("a", "b"), ("b", "a"), ("a.c", "d")].map(|(path, name)| (json_path(path), name.to_owned()));

        assert_eq!(rename(&json(r#"{"a":{"c":1},"b":2}"#), &names), json(r#"{"b":{"d":1},"a":2}"#));
    }

    /// JSON whose numbers no float survives.
    fn any_json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?";
        let leaf = prop_oneof![number, "\"[a-c\\[{,]{0,3}\"", Just("null".to_owned())];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let members = proptest::collection::vec(("[a-c]", inner.clone()), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
                members.prop_map(|members| {
                    let members: Vec<String> =
                        members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    fn numbers(text: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(text);
        let split = text.split(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c)));
        split.filter(|word| word.contains(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
    }

    proptest! {
        #[test]
        fn no_number_changes(text in any_json(), path in "(([a-c]|\\*|0)\\.){0,2}([a-c]|\\*)") {
            let (before, path) = (json(&text), json_path(&path));
            let mut left = numbers(before.as_bytes()).into_iter();

            let kept = numbers(keep(&before, std::slice::from_ref(&path)).as_bytes());
            prop_assert!(kept.iter().all(|number| left.any(|other| other == *number)), "in order, as written");
            let dropped = numbers(drop(&before, std::slice::from_ref(&path)).as_bytes());
            let mut left = numbers(before.as_bytes()).into_iter();
            prop_assert!(dropped.iter().all(|number| left.any(|other| other == *number)));
            let renamed = rename(&before, &[(path, "new".to_owned())]);
            prop_assert_eq!(numbers(renamed.as_bytes()), numbers(before.as_bytes()));
        }
    }
}
