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
fn rewrite<'a>(json: &'a [u8], out: &mut Vec<u8>, take: &mut dyn FnMut(Place<'a>, &'a [u8], &mut Vec<u8>)) -> bool {
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
    rewrite(json, out, &mut |place, value, out| {
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
    let container = rewrite(json, out, &mut |place, value, out| {
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
    let container = rewrite(json, out, &mut |place, value, out| {
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
