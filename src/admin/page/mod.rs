//! The built-in page: what this process does now and did within the last minutes, for a browser, a terminal or a program,
//! without Prometheus and Grafana.
//!
//! [`sample`] reads the numbers once a second into [`history`]; [`views`] are plain data made from it; [`table`] and
//! [`draw`] show them, [`html`] puts a page around them, [`events`] sends what changed of what [`rendered`] holds. Nothing here is called by a request
//! of the data path, and nothing here holds what such a request would wait for.

pub mod assets;
mod draw;
pub mod events;
pub mod format;
pub mod history;
pub mod html;
mod rendered;
pub mod sample;
pub mod table;
pub mod views;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use self::history::History;
use self::rendered::Renderings;
use super::Admin;
use crate::admin::View;
use crate::shutdown::Phase;
use crate::telemetry::Telemetry;

/// Streams of live data at once. Far fewer than the connections: each may watch a view of its own, rendered every second.
pub const MAX_STREAMS: usize = 8;

/// What the page remembers.
#[derive(Debug)]
pub struct Page {
    history: Mutex<History>,
    /// Counts the readings: whoever streams waits for the next one.
    readings: watch::Sender<u64>,
    streams: Arc<Semaphore>,
    rendered: Renderings,
}

/// All that a view is made from.
pub struct Now<'a> {
    pub view: &'a View,
    pub history: &'a History,
    pub telemetry: &'a Telemetry,
    pub phase: Phase,
    pub data_path_ready: bool,
    pub panics: u64,
    pub viewers: usize,
}

impl Default for Page {
    fn default() -> Self {
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { history: Mutex::default(), readings: watch::Sender::new(0), streams, rendered: Renderings::default() }
    }
}

impl Page {
    /// Streams that are open now.
    pub fn viewers(&self) -> usize {
        MAX_STREAMS - self.streams.available_permits()
    }

    /// Held while a view is made, by whoever looks, and while a reading is added; never by a request.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view of this name, as of the newest reading. Up to some milliseconds for hundreds of routes: call it off the event
/// loop.
pub fn view(admin: &Admin, name: views::Name, route: Option<&str>) -> views::View {
    let (view, history) = (admin.view.load(), admin.page.history());
    let now = Now {
        view: &view,
        history: &history,
        telemetry: &admin.telemetry,
        phase: admin.lifecycle.phase(),
        data_path_ready: admin.data_path.ready(),
        panics: admin.telemetry.panics.get(),
        viewers: admin.page.viewers(),
    };
    views::make(name, route, &now)
}

#[cfg(test)]
mod tests;
