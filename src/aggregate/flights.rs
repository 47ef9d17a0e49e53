//! Identical requests of several clients that are in flight at the same time share one piece of work.
//!
//! Known elsewhere as "single flight" (groupcache) or request collapsing (Varnish). Nothing is cached: a flight is found
//! only while its work runs, and the next request after its end begins another.
//!
//! The work runs as a task of its own, so that it belongs to nobody: whoever came first may leave like everyone else.
//! Those who wait hold receivers of a watch channel; when the last one is dropped, the task learns it from the channel and
//! ends its work or goes on without clients, as `on_client_gone` says. Joining and giving up both happen under the
//! table's lock, so that nobody can join a flight that has just decided to end.
//!
//! The table holds one entry for each piece of work that runs. What bounds it is what bounds work: the admission of the
//! route. Move the permit of the request that leads into its work, so that work which goes on without clients keeps its
//! place too.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::model::ClientGone;
use crate::config::model::aggregate::{Coalesce, CoalesceKey};
use crate::message::head::RequestHead;
use crate::tasks::Tasks;
use crate::telemetry::{Reason, ReasonClass, Telemetry};

/// What several clients can get: cheap to clone (an `Arc`, or `Bytes` and small things), and with a reason for its end.
pub trait Shared: Clone + Send + Sync + 'static {
    fn reason(&self) -> Reason;
}

/// The work in flight of one route. Clones share it.
#[derive(Debug)]
pub struct Flights<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    table: Mutex<Table<T>>,
    hasher: RandomState,
    tasks: Tasks,
    telemetry: Arc<Telemetry>,
    on_client_gone: ClientGone,
}

/// The sender gives those who join their receivers; it is dropped with the work, which ends every wait.
type Table<T> = HashMap<Hashed, Arc<watch::Sender<Option<T>>>>;

/// One client's part in a flight; dropping it leaves.
#[derive(Debug)]
#[must_use = "dropping it leaves the flight"]
pub struct Joined<T> {
    receiver: watch::Receiver<Option<T>>,
    leads: bool,
}

/// What [`Flights::answer`] got, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// `Reason::Internal`: the work panicked. A reason of time: the request's own deadline came before the shared answer.
    pub result: Result<T, Reason>,
    /// The work was begun for this request; false when it shared that of another.
    pub leads: bool,
}

impl<T> Clone for Flights<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Shared> Flights<T> {
    /// `tasks` is what shutdown waits for; `telemetry` counts work that goes on without clients.
    pub fn new(on_client_gone: ClientGone, tasks: Tasks, telemetry: Arc<Telemetry>) -> Self {
        let (table, hasher) = (Mutex::default(), RandomState::new());
        Self { inner: Arc::new(Inner { table, hasher, tasks, telemetry, on_client_gone }) }
    }

    /// The answer to a request that may wait until `deadline`: from the flight with its key, or from one that `start`
    /// begins.
    ///
    /// The work ends at the deadline of the request that began it. A request that shared it and has time left then
    /// joins again, and leads if nobody else was faster: the deadline of one client never ends the request of another.
    ///
    /// Who shares waits no longer than until its own deadline. Who leads waits for its work, which ends at the same time by
    /// itself, and with an answer of what is there by then. Drop the future when the client is gone.
    pub async fn answer<W>(&self, key: &Key, deadline: Option<Instant>, start: impl FnOnce() -> W) -> Answered<T>
    where
        W: Future<Output = T> + Send + 'static,
    {
        let mut start = Some(start);
        loop {
            let joined = self.join(key.clone(), || {
                let start = start.take().expect("a request that has led does not join again");
                start()
            });
            let leads = joined.leads();
            let result = match deadline {
                Some(deadline) if !leads => {
                    tokio::time::timeout_at(deadline, joined.answer()).await.unwrap_or(Err(Reason::DeadlineFirstByte))
                }
                _ => joined.answer().await,
            };
            let out_of_time = result.as_ref().is_ok_and(|answer| answer.reason().expired().is_some());
            let time_left = deadline.is_none_or(|deadline| Instant::now() < deadline);
            if leads || !out_of_time || !time_left {
                return Answered { result, leads };
            }
        }
    }

    /// Joins the flight with this key, or begins one with what `start` returns. The flight is joined when this returns.
    pub fn join<W>(&self, key: Key, start: impl FnOnce() -> W) -> Joined<T>
    where
        W: Future<Output = T> + Send + 'static,
    {
        let hashed = Hashed { hash: self.inner.hasher.hash_one(&key), key };
        let mut table = self.inner.lock();
        if let Some(sender) = table.get(&hashed) {
            return Joined { receiver: sender.subscribe(), leads: false };
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        table.insert(hashed.clone(), Arc::clone(&sender));
        drop(table);
        // From here on the entry goes when this does, also when `start` panics.
        let place = Place { inner: Arc::clone(&self.inner), key: hashed, sender };
        self.inner.tasks.spawn("coalesced request", fly(place, Box::pin(start())));
        Joined { receiver, leads: true }
    }

    /// Pieces of work that run now.
    pub fn running(&self) -> usize {
        self.inner.lock().len()
    }
}

impl<T: Shared> Joined<T> {
    /// The work was begun by this request; otherwise it shares that of another.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Waits for the end of the work; dropping the future leaves. `Reason::Internal` when the work panicked.
    pub async fn answer(mut self) -> Result<T, Reason> {
        match self.receiver.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().ok_or(Reason::Internal),
            // Every sender is gone, and none has sent anything.
            Err(_) => Err(Reason::Internal),
        }
    }
}

/// The task of one flight. The work is boxed, since this would hold it twice otherwise: as its argument and as what it polls.
async fn fly<T: Shared>(place: Place<T>, mut work: Pin<Box<impl Future<Output = T>>>) {
    let telemetry = Arc::clone(&place.inner.telemetry);
    // Work that went on without clients is counted as that to its end, even if somebody joins it later.
    let mut alone = None;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            // The last receiver was dropped.
            () = place.sender.closed(), if alone.is_none() => match place.inner.on_client_gone {
                ClientGone::Cancel if place.give_up() => return,
                // Somebody joined at the last moment.
                ClientGone::Cancel => {}
                ClientGone::Finish => alone = Some(telemetry.detached.begin()),
            },
        }
    };
    if let Some(alone) = alone
        && result.reason().class() == ReasonClass::Success
    {
        alone.finished();
    }
    place.land(result);
}

/// The entry of one flight in the table; gone when this is dropped, however the work ends.
struct Place<T> {
    inner: Arc<Inner<T>>,
    key: Hashed,
    sender: Arc<watch::Sender<Option<T>>>,
}

impl<T> Place<T> {
    /// Leaves the table, unless somebody waits.
    fn give_up(&self) -> bool {
        let mut table = self.inner.lock();
        let deserted = self.sender.receiver_count() == 0;
        if deserted {
            table.remove(&self.key);
        }
        deserted
    }

    /// Leaves the table first: who joins after an answer must get a new one, and not this one again.
    fn land(self, result: T) {
        self.leave();
        self.sender.send_replace(Some(result));
    }

    /// Leaves the table; does nothing when this has left, even if another flight has the same key by now.
    fn leave(&self) {
        let mut table = self.inner.lock();
        if table.get(&self.key).is_some_and(|sender| Arc::ptr_eq(sender, &self.sender)) {
            table.remove(&self.key);
        }
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T> Inner<T> {
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        // Every change is a single operation on the map: a poisoned table is still a whole one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What makes requests identical: compared byte by byte, since a collision of hashes would show one user's answer to
/// another. Clones share memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    route: Box<str>,
    /// One for each part, in an order that depends on the configuration alone; each is the list of its values.
    values: Vec<Vec<Box<[u8]>>>,
    body: Option<Bytes>,
}

/// Fields that say who asks. They count whatever the configuration says.
const IDENTITY: [&str; 2] = ["authorization", "cookie"];

impl Key {
    /// Of a request to `route`: its method, `Authorization` and `Cookie`, and what `coalesce` names. `body` is kept with
    /// the flight when it counts.
    ///
    /// What the templates of the route's sources use must be among the parts, or clients get each other's answers.
    pub fn new(route: &str, coalesce: &Coalesce, head: &RequestHead, body: Option<&Bytes>) -> Self {
        let mut values = vec![vec![Box::from(head.method.as_str().as_bytes())]];
        values.extend(IDENTITY.iter().map(|name| field_values(head, name)));
        let mut with_body = false;
        for part in &coalesce.key {
            match part {
                CoalesceKey::Path => values.push(vec![Box::from(head.path())]),
                // No query is not an empty one.
                CoalesceKey::Query => values.push(head.query().map(Box::from).into_iter().collect()),
                CoalesceKey::Header(name) => values.push(field_values(head, name)),
                CoalesceKey::Body => with_body = true,
            }
        }
        let body = body.filter(|_| with_body).cloned();
        Self(Arc::new(Parts { route: route.into(), values, body }))
    }
}

/// All values: a second `Cookie` says as much about the user as the first one.
fn field_values(head: &RequestHead, name: &str) -> Vec<Box<[u8]>> {
    if name == "host" {
        // HTTP/2 has it as `:authority`.
        return vec![Box::from(head.authority())];
    }
    head.fields.values_of(name).map(Box::from).collect()
}

/// A key with its hash, which is made before the table is locked: a key may hold a large body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hashed {
    hash: u64,
    key: Key,
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[cfg(test)]
#[path = "flights_tests.rs"]
mod tests;
