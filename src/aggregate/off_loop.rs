//! Work that would hold up every other request on its thread goes to the blocking pool.

use super::call::Failed;
use super::json::Json;
use super::template::Inputs;
use crate::telemetry::Reason;

/// Bodies and values beyond this are worked on elsewhere. Nothing may hold the event loop for more than about half a
/// millisecond; checking JSON of small members goes at 290 MB/s (release build, the development machine), so this many
/// bytes take 0.45 ms. Looking for a part of a value is as much work as checking it.
pub(super) const LARGE: usize = 128 << 10;

/// The same for encoded bodies: JSON grows about eightfold when it is inflated, which is slower than checking it.
pub(super) const LARGE_ENCODED: usize = 8 << 10;

/// Dropping the future does not end the work: it is bounded by the limits of the bodies it is about.
pub(super) async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failed {
        reason: Reason::Internal,
        detail: Some(format!("work on a large body: {error}")),
        retry_after: None,
    })
}

/// Bytes in which references may look for their values.
pub(super) fn size_of(inputs: &Inputs, known: &[Option<Json>]) -> usize {
    known.iter().chain([&inputs.body]).flatten().map(|json| json.as_bytes().len()).sum()
}
