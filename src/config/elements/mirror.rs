//! `[route.NAME] mirror`: copies of requests for another upstream.

use std::sync::Arc;
use std::time::Duration;

use super::limits::MOST_IN_FLIGHT;
use super::route::HeaderEdits;
use crate::config::decode::{Decoder, element};
use crate::config::describe::{GIB, HOUR, MILLISECOND};
use crate::config::diagnostic::{Code, Problem};
use crate::config::model;
use crate::config::model::aggregate::JsonPath;
use crate::config::value::container::Switch;
use crate::config::value::http::Method;
use crate::config::value::quantity::Size;

/// More copies of each request are a load test, for which there is `forebay load`.
const MOST_COPIES: f64 = 10.0;

element! {
    /// Copies of the route's requests go to another upstream, whose answers nobody gets. Requests never wait for them.
    pub struct Mirror {
        /// The upstream that gets the copies.
        upstream: String = required, instead_of(&["to", "backend", "cluster"]), example("\"users-next\"");
        /// Copies of each request: 0.1 is one for a tenth of the requests, chosen by the hash of the request's id, 2 is two for each.
        copies: f64 = 1.0, instead_of(&["fraction", "percentage", "sample", "multiple", "factor"]);
        /// Methods that are mirrored. What changes something would change it twice: write it only for an upstream of its own data.
        methods: Vec<Method> = ["GET", "HEAD", "OPTIONS"], instead_of(&["method"]);
        /// Copies in flight at once. Beyond it copies are dropped and counted; none waits.
        max_in_flight: usize = 100, between(1, MOST_IN_FLIGHT), instead_of(&["concurrency"]);
        /// Requests with a larger body are not mirrored.
        max_body: Size = "64KiB", between(0, GIB), instead_of(&["max_body_size"]);
        /// Bytes of bodies that are held for all copies together. Beyond it copies are dropped and counted.
        max_bytes: Size = "16MiB", between(0, 64 * GIB), instead_of(&["max_memory"]);
        /// The time for everything about one copy.
        timeout: Duration = "5s", between(MILLISECOND, HOUR), instead_of(&["deadline"]);
        /// Change the copies' headers. They carry what the request carries, credentials as well, and `x-forebay-mirror: true`.
        request_headers: HeaderEdits = {};
        /// Compare the answers: `true`, or a table. Of several copies, the first.
        compare: Switch<Compare> = none, instead_of(&["diff"]), example("{ ignore = [\"meta.time\"] }");
    }
}

element! {
    /// How the answers of the two upstreams are compared: by status and body, JSON part by part.
    pub struct Compare {
        /// Parts of JSON bodies that may differ, with everything below them: "meta.time", "items.*.id".
        ignore: Vec<JsonPath> = [], instead_of(&["ignore_paths", "mask", "noise"]);
    }
}

impl Mirror {
    pub fn resolve(&self, upstreams: &[Arc<model::Upstream>]) -> Option<model::Mirror> {
        let name = self.upstream.get()?;
        let bytes = |size: Size| usize::try_from(size.0).ok();
        Some(model::Mirror {
            upstream: upstreams.iter().find(|upstream| upstream.name == *name)?.clone(),
            copies: self.copies.copied().filter(|copies| (0.0..=MOST_COPIES).contains(copies))?,
            methods: self.methods.get()?.iter().map(|method| method.0.clone()).collect(),
            max_in_flight: self.max_in_flight.copied()?,
            max_body_bytes: bytes(self.max_body.copied()?)?,
            max_bytes: bytes(self.max_bytes.copied()?)?,
            timeout: self.timeout.copied()?,
            request_headers: self.request_headers.get()?.resolve()?,
            compare: match self.compare.get().and_then(|compare| compare.0.as_ref()) {
                Some(compare) => Some(compare.ignore.cloned()?),
                None => None,
            },
        })
    }

    pub fn check(&self, cx: &mut Decoder<'_>) {
        if let Some((copies, span)) = self.copies.written()
            && !(0.0..=MOST_COPIES).contains(copies)
        {
            let problem = Problem::error(Code::OutOfRange, span, "`copies` is out of range");
            let problem = problem.expected(format!("from 0.0 (none) to {MOST_COPIES:.1}"));
            cx.report(problem.help("for more load than that there is `forebay load`"));
        }
        if let Some((methods, span)) = self.methods.written()
            && methods.is_empty()
        {
            let problem = Problem::error(Code::InvalidValue, span, "`methods` is empty: nothing is mirrored");
            cx.report(problem.help("take `mirror` out, or name a method"));
        }
        if let Some(edits) = self.request_headers.get() {
            edits.check(cx);
        }
    }
}
