//! The event loop's health: tokio's own numbers, and a canary that measures how late a timer fires.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::{Instant, MissedTickBehavior};

use super::catalogue;
use super::histogram::Histogram;
use super::hub::{Telemetry, lock};
use super::snapshot::Snapshot;

const CANARY_PERIOD: Duration = Duration::from_millis(100);
/// Reading the allocator's statistics merges all arenas; once a second costs nothing.
const TICKS_PER_ALLOCATOR_SAMPLE: u64 = 10;

/// The runtimes that are watched, by name.
#[derive(Debug, Default)]
pub(super) struct Runtimes(Mutex<BTreeMap<&'static str, Watched>>);

#[derive(Debug)]
struct Watched {
    metrics: RuntimeMetrics,
    lag: Arc<Histogram>,
}

impl Runtimes {
    pub(super) fn snapshot(&self, snapshot: &mut Snapshot) {
        for (name, Watched { metrics, lag }) in lock(&self.0).iter() {
            let busy: Duration = (0..metrics.num_workers()).map(|i| metrics.worker_total_busy_duration(i)).sum();
            snapshot.number(&catalogue::RUNTIME_WORKERS, &[name], metrics.num_workers() as f64);
            snapshot.number(&catalogue::RUNTIME_ALIVE_TASKS, &[name], metrics.num_alive_tasks() as f64);
            snapshot.number(&catalogue::RUNTIME_GLOBAL_QUEUE_DEPTH, &[name], metrics.global_queue_depth() as f64);
            snapshot.number(&catalogue::RUNTIME_BUSY_SECONDS, &[name], busy.as_secs_f64());
            snapshot.histogram(&catalogue::RUNTIME_LAG, &[name], lag.snapshot());
        }
    }
}

/// Watches the runtime it runs on, under this name, until it is dropped or aborted; spawn it once per runtime.
pub async fn watch(telemetry: Arc<Telemetry>, name: &'static str) {
    let lag = Arc::new(Histogram::new(telemetry.layout.clone()));
    let watched = Watched { metrics: Handle::current().metrics(), lag: lag.clone() };
    lock(&telemetry.runtimes.0).insert(name, watched);

    let mut ticks = tokio::time::interval(CANARY_PERIOD);
    // Each tick is measured against its own due time; a burst after a stall would measure the stall many times.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 0u64.. {
        let due = ticks.tick().await;
        lag.observe(Instant::now().saturating_duration_since(due));
        if count.is_multiple_of(TICKS_PER_ALLOCATOR_SAMPLE) {
            telemetry.allocator.sample();
        }
    }
}
