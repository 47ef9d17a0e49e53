//! The one task that reads the numbers, once a second. It ends with the admin listener.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior};

use crate::admin::Admin;

const EVERY: Duration = Duration::from_secs(1);

/// Reads for ever.
pub async fn run(admin: Arc<Admin>) {
    let mut ticks = tokio::time::interval(EVERY);
    // A late reading is a longer second, not two short ones.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reader = Arc::clone(&admin);
        if let Err(error) = tokio::task::spawn_blocking(move || take(&reader)).await {
            tracing::error!(%error, "reading the numbers for the admin page panicked");
        }
    }
}

/// One reading.
pub fn take(admin: &Admin) {
    admin.telemetry.tend_notable(SystemTime::now());
    let now = Instant::now();
    let reading = admin.telemetry.reading(now);
    admin.page.history().add(reading, now);
    admin.page.readings.send_modify(|count| *count += 1);
}
