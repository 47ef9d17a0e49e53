//! The simulator's own numbers, for people and for Prometheus. Text only.

use std::fmt::Write as _;
use std::time::Duration;

use super::Handle;

/// A line for each upstream: what came, and how exactly it was held.
pub fn summary<'a>(handles: impl IntoIterator<Item = &'a Handle>) -> String {
    let mut text = String::new();
    for handle in handles {
        let (stats, error) = (handle.stats(), handle.hold_error());
        write!(text, "{}: requests {}, refused {}", handle.name, stats.requests, stats.refused)
            .expect("a string takes all");
        if error.count > 0 {
            write!(text, "; held longer than drawn by p50 {}, p99 {}, ", micros(error.p50), micros(error.p99))
                .and_then(|()| write!(text, "at most {}", micros(error.max)))
                .expect("a string takes all");
        }
        text.push('\n');
    }
    text
}

fn micros(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{} us", time.as_micros())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// The text format of Prometheus, version 0.0.4.
pub fn exposition(handles: &[Handle]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Handle) -> u64| {
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("a string takes all");
        for handle in handles {
            let upstream = escaped(&handle.name);
            writeln!(text, "{name}{{upstream=\"{upstream}\"}} {}", value(handle)).expect("a string takes all");
        }
    };
    family("simulated_connections_total", "counter", "Connections accepted.", |handle| handle.stats().accepted);
    family("simulated_requests_total", "counter", "Requests read.", |handle| handle.stats().requests);
    family("simulated_refused_total", "counter", "Requests answered 503 because the queue was full.", |handle| {
        handle.stats().refused
    });
    family("simulated_in_service", "gauge", "Requests that occupy a worker.", |handle| {
        handle.stats().in_service as u64
    });
    family("simulated_queued", "gauge", "Requests that wait for a worker.", |handle| handle.stats().queued as u64);
    text + &hold_errors(handles)
}

fn hold_errors(handles: &[Handle]) -> String {
    const NAME: &str = "simulated_hold_error_seconds";
    let mut text = format!(
        "# HELP {NAME} How much longer requests were held than drawn, since the start.\n# TYPE {NAME} summary\n"
    );
    for handle in handles {
        let (upstream, error) = (escaped(&handle.name), handle.hold_error());
        for (quantile, value) in [("0.5", error.p50), ("0.99", error.p99), ("1", error.max)] {
            let seconds = value.as_secs_f64();
            writeln!(text, "{NAME}{{upstream=\"{upstream}\",quantile=\"{quantile}\"}} {seconds}")
                .expect("a string takes all");
        }
        let sum = error.sum.as_secs_f64();
        write!(
            text,
            "{NAME}_sum{{upstream=\"{upstream}\"}} {sum}\n{NAME}_count{{upstream=\"{upstream}\"}} {}\n",
            error.count
        )
        .expect("a string takes all");
    }
    text
}

/// As a label's value.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Settings, Simulator, Upstream};

    #[test]
    fn every_upstream_has_its_line_and_its_series() {
        let upstreams = vec![Upstream::new("a"), Upstream::new("b \"quoted\"")];
        let simulator = Simulator::bind(Settings { upstreams, ..Settings::default() }).expect("free ports");
        let handles: Vec<Handle> = simulator.handles().cloned().collect();

        assert_eq!(summary(&handles), "a: requests 0, refused 0\nb \"quoted\": requests 0, refused 0\n");
        let text = exposition(&handles);
        assert!(text.contains("# TYPE simulated_requests_total counter\nsimulated_requests_total{upstream=\"a\"} 0\n"));
        assert!(text.contains("simulated_queued{upstream=\"b \\\"quoted\\\"\"} 0\n"), "{text}");
        assert!(text.contains("simulated_hold_error_seconds{upstream=\"a\",quantile=\"0.99\"} 0\n"), "{text}");
        assert!(text.ends_with("simulated_hold_error_seconds_count{upstream=\"b \\\"quoted\\\"\"} 0\n"), "{text}");
    }
}
