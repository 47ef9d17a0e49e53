//! What the integration tests share: the real binary, hostile clients and upstreams, real services, metrics.
//!
//! Everything listens on free loopback ports and ends with the value that started it.

// Each helper is here for several test modules; not each build of the one binary uses all of them.
#![allow(dead_code)]

pub mod chromium;
pub mod fault_upstream;
pub mod forebay;
pub mod http;
pub mod load;
pub mod metrics;
pub mod panels;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod services;
pub mod simulator;
pub mod systemd;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

/// After so long, what should have happened has not. Generous: the machine may be busy with other builds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a busy machine may add to a time that is bounded from above: an upper bound tells "at its time" from "never", or from
/// much later, and measures nothing.
pub const SLACK: Duration = Duration::from_secs(10);

/// Waits for a condition; says what did not come about.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// The same for what is much work.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "after {patience:?}, this has not come about: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A file or folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Something that `scripts/setup.sh` installs.
pub fn installed(path: &str) -> PathBuf {
    let path = repository(path);
    assert!(path.exists(), "{} is missing: run scripts/setup.sh", path.display());
    path
}
