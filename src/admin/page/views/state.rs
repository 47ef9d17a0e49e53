//! What stands above every view: which process this is, and what somebody should know about it now.

use serde::{Deserialize, Serialize};

use super::super::Now;
use super::Part;
use crate::load::report::svg::escape;
use crate::shutdown::Phase;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: String,
    pub phase: String,
    pub ready: bool,
    /// Of the running configuration.
    pub config_hash: String,
    /// Streams of live data that are open now.
    pub viewers: usize,
    pub notices: Vec<Notice>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// `"warn"` or `"bad"`.
    pub level: String,
    pub text: String,
}

impl State {
    pub fn of(now: &Now<'_>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: now.phase.as_str().to_owned(),
            ready: now.phase == Phase::Serving && now.data_path_ready,
            config_hash: now.view.version.config.hash.clone(),
            viewers: now.viewers,
            notices: notices(now),
        }
    }

    pub fn part(&self) -> Part {
        let ready = if self.ready { "ready" } else { "not ready" };
        let facts = format!(
            "Forebay {}: {}, {ready}; configuration {}; {} watching",
            self.version, self.phase, self.config_hash, self.viewers
        );
        let (mut html, mut text) = (format!("<p class=\"facts\">{}</p>", escape(&facts)), format!("{facts}\n"));
        for notice in &self.notices {
            let words = escape(&notice.text);
            html.push_str(&format!("<p class=\"notice {}\" role=\"status\">{words}</p>", notice.level));
            text.push_str(&format!("{} {}\n", if notice.level == "bad" { "!!" } else { "!" }, notice.text));
        }
        Part::Block { id: "state", html, text }
    }
}

/// A name that was mistyped, or that a reload has removed.
pub fn unknown_route(now: &Now<'_>, route: &str) -> Option<Notice> {
    let known = now.history.newest()?.routes.iter().any(|(name, _)| name == route);
    let text = format!("No route is named {route}: /overview lists them.");
    (!known).then(|| Notice { level: "warn".to_owned(), text })
}

/// The most urgent first. Faults on purpose and load tests are here as well, since they explain everything else on the page.
fn notices(now: &Now<'_>) -> Vec<Notice> {
    let notice = |level: &str, text: String| Notice { level: level.to_owned(), text };
    let mut notices = Vec::new();
    if now.phase == Phase::Serving && !now.data_path_ready {
        notices.push(notice("bad", "The data path is not ready: /readyz answers 503.".into()));
    }
    if now.panics > 0 {
        let text = format!("Panics caught since the start: {}. Each is a defect of Forebay, see the log.", now.panics);
        notices.push(notice("bad", text));
    }
    if now.view.last_reload.as_ref().is_some_and(|reload| reload.result.is_err()) {
        let text = "The last reload was refused and the configuration before it runs on: /config says why.";
        notices.push(notice("bad", text.into()));
    }
    let reading = now.history.newest();
    for faults in reading.into_iter().flat_map(|reading| &reading.faults).filter(|faults| faults.armed > 0) {
        let text = format!(
            "Faults on purpose on route {}: {} armed, {} requests meet one now.",
            faults.route, faults.armed, faults.active
        );
        notices.push(notice("warn", text));
    }
    for (route, rate) in now.history.load_tests() {
        let text = format!("A load test runs: forebay load sends {} requests/s to route {route}.", show_rate(rate));
        notices.push(notice("warn", text));
    }
    if now.phase != Phase::Serving {
        notices.push(notice("warn", format!("This process is {}.", now.phase.as_str())));
    }
    if !now.view.pending_restart.is_empty() {
        let settings = now.view.pending_restart.join(", ");
        notices.push(notice("warn", format!("Changed, but waiting for a restart: {settings}.")));
    }
    notices
}

/// `200`, `3.5`, `0.25`: below ten a second, whole numbers would say little, or that nothing is sent.
fn show_rate(rate: f64) -> String {
    if rate >= 9.95 {
        return format!("{rate:.0}");
    }
    format!("{rate:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_load_test_has_a_rate_as_well() {
        let shown = [0.25, 0.5, 3.0, 9.99, 200.4].map(show_rate);

        assert_eq!(shown, ["0.25", "0.5", "3", "10", "200"]);
    }
}
