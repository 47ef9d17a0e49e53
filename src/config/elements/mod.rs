//! The tables of the file, one file each: what is written ([`element!`](super::decode)), what is checked within the
//! table, and how it becomes what the program uses. Checks between tables are in [`super::check`].

pub mod aggregate;
pub mod fault;
pub mod limits;
pub mod listener;
pub mod mirror;
pub mod objective;
pub mod record;
pub mod route;
pub mod service;
pub mod upstream;

use super::decode::{Element, element};
use super::describe::{Shape, Table};
use super::model::PathPattern;
use super::value::container::{Named, NamedItem};
use fault::Faults;
use limits::GlobalLimits;
use listener::Listeners;
use record::Record;
use route::Route;
use service::{AccessLog, Admin, Log, Metrics, Reload, Runtime, Shutdown};
use upstream::Upstream;

element! {
    /// The whole file.
    pub struct Root {
        /// Threads of the data path.
        runtime: Runtime = {};
        /// A socket that takes requests. `[listener]` alone is one named "main"; several are `[listener.NAME]`.
        listener: Listeners = {}, instead_of(&["listen", "listeners", "server", "bind"]);
        /// The listener for metrics, health and the configuration view.
        admin: Admin = {};
        /// What happens on SIGTERM.
        shutdown: Shutdown = {};
        /// When the file is read again.
        reload: Reload = {};
        /// One line for each request.
        access_log: AccessLog = {};
        /// What Forebay says about itself.
        log: Log = {}, instead_of(&["logging"]);
        /// How metrics are kept.
        metrics: Metrics = {};
        /// Limits over all routes together.
        limits: GlobalLimits = {};
        /// Requests are written to a file that can be sent again.
        record: Record = {}, instead_of(&["recording", "recorder", "capture"]);
        /// Whether the faults of the routes are done.
        faults: Faults = {};
        /// A service behind Forebay: `[upstream.NAME]`.
        upstream: Named<Upstream> = {}, instead_of(&["upstreams", "cluster", "backend", "backends"]);
        /// Which requests go where, and within what bounds: `[route.NAME]`.
        route: Named<Route> = {}, instead_of(&["routes", "location"]);
    }
}

impl Root {
    pub fn routes(&self) -> &[NamedItem<Route>] {
        self.route.get().map_or(&[], |named| named.items.as_slice())
    }

    pub fn upstreams(&self) -> &[NamedItem<Upstream>] {
        self.upstream.get().map_or(&[], |named| named.items.as_slice())
    }

    /// The path of the route that gives the results of this one.
    pub fn results_path(&self, of: &str) -> Option<&PathPattern> {
        let mut givers =
            self.routes().iter().filter(|route| route.value.results_of.get().is_some_and(|name| name == of));
        givers.next()?.value.path.get()
    }
}

/// Calls `visit` for each table of the file with its place: `[route.NAME]`, `[route.NAME] queue`.
pub fn visit_tables(visit: &mut impl FnMut(&str, &Table)) {
    visit_table("the top of the file", &Root::table(), visit);
}

fn visit_table(place: &str, table: &Table, visit: &mut impl FnMut(&str, &Table)) {
    visit(place, table);
    for key in &table.keys {
        let (child, named) = match &key.shape {
            Shape::Map { value, .. } => (value.table(), true),
            shape => (shape.table(), false),
        };
        let Some(child) = child else { continue };
        let place = match (place.strip_prefix('['), place.strip_suffix(']')) {
            (None, _) if named => format!("[{}.NAME]", key.name),
            (None, _) => format!("[{}]", key.name),
            // These are too large to stand inside another table.
            (_, Some(header)) if named => format!("{header}.{}.NAME]", key.name),
            (_, Some(header)) if key.name == "aggregate" => format!("{header}.{}]", key.name),
            (_, Some(_)) => format!("{place} {}", key.name),
            (_, None) => format!("{place}.{}", key.name),
        };
        visit_table(&place, &child, visit);
    }
}

/// The tables in which a key is known, for a key that stands in a wrong one.
pub fn homes_of(key: &str) -> Vec<String> {
    const MOST: usize = 3;
    let mut homes = Vec::new();
    visit_tables(&mut |place, table| {
        if table.key(key).is_some() && place.starts_with('[') {
            homes.push(place.to_owned());
        }
    });
    if homes.len() > MOST { Vec::new() } else { homes }
}
