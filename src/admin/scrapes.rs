//! Encoding the metrics for whoever asks, once for all who ask meanwhile.
//!
//! Encoding takes milliseconds for each hundred of routes, so it leaves the event loop, and one format is encoded once at a
//! time. Who comes meanwhile waits for the next one, which all share who wait for it: it was begun after they asked, so
//! nobody gets numbers from before the question, and many who ask cost no more than a few.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Mutex, Semaphore};

use super::held::{Content, Held};
use super::problem::Problem;
use crate::telemetry::Telemetry;
use crate::telemetry::exposition::Format;

pub const BUSY: Problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once: try again");

const FAILED: Problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded: see the log");

/// How long a scrape waits for those before it: twice what one takes that has to wait for bytes. Below Prometheus' own timeout
/// of 10 s, so that it sees an answer.
const TURN_WAIT: Duration = Duration::from_secs(7);

#[derive(Debug)]
pub struct Scrapes {
    /// For those who wait.
    pub(super) places: Semaphore,
    pub(super) turns: [Turn; Format::ALL.len()],
}

/// One format. Who holds `last` encodes.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Encodings so far, the one that runs included.
    begun: AtomicU64,
    pub(super) last: Arc<Mutex<Last>>,
}

/// The last encoding with its number; here only while somebody reads it.
#[derive(Debug, Default)]
pub(super) struct Last {
    number: u64,
    content: Weak<Content>,
}

impl Scrapes {
    pub fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places), turns: Default::default() }
    }

    /// The metrics in this format, not older than the question.
    pub async fn get(
        &self,
        format: Format,
        telemetry: &Arc<Telemetry>,
        held: &Arc<Held>,
    ) -> Result<Arc<Content>, Problem> {
        let _place = self.places.try_acquire().map_err(|_| BUSY)?;
        let turn = &self.turns[format as usize];
        let asked = turn.begun.load(Ordering::SeqCst);
        let last = tokio::time::timeout(TURN_WAIT, Arc::clone(&turn.last).lock_owned()).await.map_err(|_| BUSY)?;
        if last.number > asked
            && let Some(content) = last.content.upgrade()
        {
            return Ok(content);
        }
        let (telemetry, number) = (Arc::clone(telemetry), turn.begun.fetch_add(1, Ordering::SeqCst) + 1);
        // The turn is kept until the work is done, also when the client has left and nobody waits for it.
        let encoded = tokio::task::spawn_blocking(move || (telemetry.encode(format), last)).await;
        let (bytes, mut last) = encoded.map_err(|error| {
            tracing::error!(%error, "encoding the metrics panicked");
            FAILED
        })?;
        let content = held.hold(bytes).await;
        *last = Last { number, content: Arc::downgrade(&content) };
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const FORMAT: Format = Format::Text;

    #[tokio::test]
    async fn all_who_wait_share_what_was_begun_after_they_asked() {
        let (scrapes, telemetry, held) = (Scrapes::new(8), Telemetry::quiet(), Held::new(usize::MAX));
        let turn = &scrapes.turns[FORMAT as usize];
        let encoding = turn.last.lock().await;

        let waiting = join_all((0..5).map(|_| scrapes.get(FORMAT, &telemetry, &held)));
        let (answers, ()) = tokio::join!(waiting, async { drop(encoding) });

        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0])));
        assert_eq!(turn.begun.load(Ordering::SeqCst), 1);
        let later = scrapes.get(FORMAT, &telemetry, &held).await.unwrap();
        assert!(!Arc::ptr_eq(&later, &answers[0]), "it was begun before this question");
    }

    #[tokio::test]
    async fn who_leaves_takes_nothing_from_those_who_wait() {
        let (scrapes, telemetry, held) = (Scrapes::new(8), Telemetry::quiet(), Held::new(usize::MAX));
        let mut leaving = Box::pin(scrapes.get(FORMAT, &telemetry, &held));
        assert!(futures_util::poll!(leaving.as_mut()).is_pending(), "it encodes");
        let mut waiting = Box::pin(scrapes.get(FORMAT, &telemetry, &held));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());

        drop(leaving);

        let content = waiting.await.unwrap();
        assert!(content.read(CancellationToken::new()).starts_with(b"# HELP "));
        assert_eq!(scrapes.places.available_permits(), 8);
    }
}
