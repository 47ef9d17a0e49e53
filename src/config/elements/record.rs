//! `[record]`: requests are written to a file that `forebay replay` sends again.

use std::path::PathBuf;
use std::time::Duration;

use super::limits::no_effect;
use crate::config::decode::{Decoder, Spot, element};
use crate::config::describe::{DAY, GIB, KIB, SECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::suggest::nearest;
use crate::config::value::quantity::Size;
use crate::config::value::scalar::Fraction;

element! {
    /// Requests are written to a file that `forebay replay` sends again. Secrets are taken out by their names.
    pub struct Record {
        /// The file, relative to this one. Without it nothing is recorded. It must not be there yet: nothing is ever written over.
        file: PathBuf = none, instead_of(&["output", "path"]), example("\"traffic.ndjson\"");
        /// The part of the requests that is recorded, from 0.0 to 1.0, chosen by the hash of the request's id.
        sample: Fraction = 1.0, instead_of(&["fraction", "percentage"]);
        /// Only requests of these routes. By default of every route.
        routes: Vec<Spot<String>> = [], instead_of(&["route"]), example("[\"users\"]");
        /// Requests with a larger body are left out.
        max_body: Size = "64KiB", between(0, GIB), instead_of(&["max_body_size"]);
        /// Record the answers as well, so that a replay can be compared with them.
        answers: bool = false, instead_of(&["responses"]);
        /// Names of headers, query parameters and members of bodies whose values are taken out, besides those that everybody keeps
        /// secret: authorization, cookies, and what has token, secret, password, credential or api-key in its name.
        redact: Vec<String> = [], instead_of(&["redact_headers", "secrets"]), example("[\"x-account\", \"iban\"]");
        /// Names whose values stay although everybody keeps them secret.
        keep: Vec<String> = [], example("[\"csrf-token\"]");
        /// Also bodies that are neither JSON nor forms, into which nobody can look for secrets.
        opaque_bodies: bool = false;
        /// The recording ends when the file would become larger.
        max_size: Size = "100MiB", between(KIB, 1024 * GIB), instead_of(&["max_bytes", "max_file_size"]);
        /// The recording ends so long after the configuration that has it was taken.
        end_after: Duration = "1h", between(SECOND, 30 * DAY), instead_of(&["duration", "for"]);
    }
}

impl Record {
    /// `Some(None)` when nothing is recorded.
    pub fn resolve(&self) -> Option<Option<model::Record>> {
        if !self.file.is_written() {
            return Some(None);
        }
        let lower = |names: &Vec<String>| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Some(Some(model::Record {
            file: self.file.cloned()?,
            sample: self.sample.copied()?.0,
            routes: self.routes.get()?.iter().map(|route| route.value.clone()).collect(),
            max_body_bytes: usize::try_from(self.max_body.copied()?.0).ok()?,
            answers: self.answers.copied()?,
            redact: self.redact.get().map(lower)?,
            keep: self.keep.get().map(lower)?,
            opaque_bodies: self.opaque_bodies.copied()?,
            max_file_bytes: self.max_size.copied()?.0,
            end_after: self.end_after.copied()?,
        }))
    }

    /// A recording that does not happen, or stays empty.
    pub fn check(&self, cx: &mut Decoder<'_>, routes: &[&str]) {
        if !self.file.is_written() {
            let why = "without a `file` nothing is recorded";
            no_effect(cx, "sample", &self.sample, why);
            no_effect(cx, "routes", &self.routes, why);
            no_effect(cx, "answers", &self.answers, why);
            no_effect(cx, "end_after", &self.end_after, why);
        }
        for route in self.routes.get().into_iter().flatten() {
            if routes.contains(&route.value.as_str()) {
                continue;
            }
            let message = format!("there is no route `{}`", route.value);
            let problem = Problem::error(Code::UnknownName, route.span.clone(), message);
            cx.report(match nearest(&route.value, routes.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("name routes of this file, or leave `routes` out to record them all"),
            });
        }
    }
}
