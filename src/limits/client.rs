//! At most so many in flight for each client key, without a queue: the client can hold its requests back itself.
//!
//! A key is kept exactly as long as it has something in flight, so the table needs no eviction and frees no key early.
//! It holds no more entries than there are requests in flight, and at most `max_keys`; when that many clients are active at once,
//! a request of one more client is refused (`client_limit`, counted as an overflow) instead of going uncounted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::{RequestKeys, Seed, key_hash};
use crate::config::model::{ClientInFlight, LimitKey};
use crate::telemetry::metrics::ClientLimitMetrics;

/// The keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Counts = HashMap<u64, usize, BuildHasherDefault<AsIs>>;

/// The in-flight limit of the clients of one route.
#[derive(Debug)]
pub struct ClientLimiter {
    state: Mutex<State>,
    /// The kind of key never changes: other keys make another limiter.
    key: LimitKey,
    seed: Seed,
    metrics: Arc<ClientLimitMetrics>,
}

struct State {
    limit: ClientInFlight,
    counts: Counts,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("limit", &self.limit).field("keys", &self.counts.len()).finish()
    }
}

/// One request of one client in flight; dropping it gives the place back.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct ClientPermit {
    limiter: Arc<ClientLimiter>,
    key: u64,
}

impl ClientLimiter {
    pub fn new(limit: ClientInFlight, seed: Seed, metrics: Arc<ClientLimitMetrics>) -> Arc<Self> {
        let key = limit.key.clone();
        let state = State { limit, counts: Counts::default() };
        Arc::new(Self { state: Mutex::new(state), key, seed, metrics })
    }

    /// The key under which this client's requests are counted.
    pub fn key(&self, request: &RequestKeys<'_>) -> u64 {
        key_hash(self.seed, &self.key, request)
    }

    /// A place for a request of this client; `None` when it has `max` in flight, or when `max_keys` others are active.
    pub fn try_acquire(self: &Arc<Self>, request: &RequestKeys<'_>) -> Option<ClientPermit> {
        self.try_acquire_key(self.key(request))
    }

    /// As `try_acquire`, when the key is known already.
    pub fn try_acquire_key(self: &Arc<Self>, key: u64) -> Option<ClientPermit> {
        let admitted = self.lock().enter(key, &self.metrics);
        if admitted {
            self.metrics.admitted.inc()
        } else {
            self.metrics.rejected.inc()
        }
        admitted.then(|| ClientPermit { limiter: Arc::clone(self), key })
    }

    /// Changes the numbers; what is in flight stays counted. The kind of key cannot change: that is another limiter.
    pub fn resize(&self, limit: ClientInFlight) {
        debug_assert_eq!(self.key, limit.key);
        self.lock().limit = limit;
    }

    pub fn limit(&self) -> ClientInFlight {
        self.lock().limit.clone()
    }

    /// Clients with something in flight.
    pub fn keys(&self) -> usize {
        self.lock().counts.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single operation on the map: a poisoned table is still a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, key: u64, metrics: &ClientLimitMetrics) -> bool {
        let keys = self.counts.len();
        match self.counts.entry(key) {
            Entry::Occupied(mut count) if *count.get() < self.limit.max => *count.get_mut() += 1,
            Entry::Occupied(_) => return false,
            Entry::Vacant(_) if keys >= self.limit.max_keys => {
                metrics.overflows.inc();
                return false;
            }
            Entry::Vacant(place) => {
                place.insert(1);
                metrics.keys.inc();
            }
        }
        true
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        if let Entry::Occupied(mut count) = state.counts.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
                self.limiter.metrics.keys.dec();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BY_CLIENT, client, client_limit_metrics};
    use super::*;

    fn limiter(max: usize, max_keys: usize) -> Arc<ClientLimiter> {
        let limit = ClientInFlight { max, key: BY_CLIENT, max_keys };
        ClientLimiter::new(limit, Seed(3), client_limit_metrics())
    }

    #[test]
    fn one_client_cannot_have_more_than_its_share() {
        let limiter = limiter(2, 10);

        let first = limiter.try_acquire(&client(1)).unwrap();
        let _second = limiter.try_acquire(&client(1)).unwrap();
        assert!(limiter.try_acquire(&client(1)).is_none());
        let _other = limiter.try_acquire(&client(2)).unwrap();

        drop(first);
        assert!(limiter.try_acquire(&client(1)).is_some());
    }

    #[test]
    fn a_client_without_anything_in_flight_takes_no_place() {
        let limiter = limiter(1, 2);
        let one = limiter.try_acquire(&client(1)).unwrap();
        let _two = limiter.try_acquire(&client(2)).unwrap();
        assert!(limiter.try_acquire(&client(3)).is_none(), "the table is full of active clients");
        assert_eq!(limiter.metrics.overflows.get(), 1);

        drop(one);

        assert_eq!(limiter.keys(), 1);
        assert!(limiter.try_acquire(&client(3)).is_some());
        assert_eq!(limiter.metrics.keys.get(), 1);
    }

    #[test]
    fn a_panicking_holder_gives_its_place_back() {
        let limiter = limiter(1, 2);
        let held = limiter.try_acquire(&client(1)).unwrap();

        let _ = std::thread::spawn(move || {
            let _held = held;
            panic!("expected by the test");
        })
        .join();

        assert_eq!(limiter.keys(), 0);
    }
}
