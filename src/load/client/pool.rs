//! The connections of a run: by origin, and within it by thread.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::Settings;
use super::http1::{Connection, Idle};
use super::http2::Connections;
use super::origin::{Connector, Origin, Resolved};
use crate::load::ErrorKind;

/// The connections to one origin.
pub enum Pool {
    Http1(Http1),
    Http2(Http2),
}

/// Builds the pool of each origin once.
pub struct Pools<'a> {
    resolved: &'a [Resolved],
    tls: Option<Arc<rustls::ClientConfig>>,
    settings: &'a Settings,
    made: HashMap<Origin, Arc<Pool>>,
}

impl<'a> Pools<'a> {
    pub fn new(resolved: &'a [Resolved], tls: Option<Arc<rustls::ClientConfig>>, settings: &'a Settings) -> Self {
        Self { resolved, tls, settings, made: HashMap::new() }
    }

    pub fn of(&mut self, origin: &Origin) -> io::Result<Arc<Pool>> {
        if let Some(pool) = self.made.get(origin) {
            return Ok(Arc::clone(pool));
        }
        let found = self.resolved.iter().find(|resolved| resolved.origin == *origin);
        let resolved = found.ok_or_else(|| io::Error::other(format!("{origin} was not resolved")))?;
        let Settings { http2, requests_per_connection, connect_timeout, .. } = *self.settings;
        let connector = Arc::new(Connector::new(resolved, self.tls.as_ref(), http2, connect_timeout)?);
        let pool = Arc::new(if http2 {
            Pool::Http2(Http2 { connector, requests_per_connection, threads: PerThread::default() })
        } else {
            Pool::Http1(Http1 { connector, requests_per_connection, threads: PerThread::default() })
        });
        self.made.insert(origin.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}

pub struct Http1 {
    connector: Arc<Connector>,
    requests_per_connection: u32,
    threads: PerThread<Idle>,
}

impl Http1 {
    /// A connection, and how long it took to make it if it is new.
    pub async fn take(&self) -> Result<(Connection, Option<Duration>), ErrorKind> {
        if self.requests_per_connection > 1 {
            // Looked up at each use and not held: a task may move to another thread while it waits.
            let idle = self.threads.mine(Idle::default);
            if let Some(connection) = idle.take().await {
                return Ok((connection, None));
            }
        }
        let began = Instant::now();
        let connection = Connection::new(self.connector.connect().await?).await?;
        Ok((connection, Some(began.elapsed())))
    }

    pub async fn put(&self, connection: Connection) {
        if connection.requests < self.requests_per_connection {
            self.threads.mine(Idle::default).put(connection).await;
        }
    }
}

pub struct Http2 {
    connector: Arc<Connector>,
    requests_per_connection: u32,
    threads: PerThread<Connections>,
}

impl Http2 {
    pub fn mine(&self) -> Arc<Connections> {
        self.threads.mine(|| Connections::new(Arc::clone(&self.connector), self.requests_per_connection))
    }
}

/// A value for each thread that asks. A connection stays with the thread that made it: its readiness comes from that
/// thread's runtime, which other threads would have to wait for, and which may end before theirs.
struct PerThread<T>(RwLock<HashMap<ThreadId, Arc<T>>>);

impl<T> Default for PerThread<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> PerThread<T> {
    fn mine(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let thread = std::thread::current().id();
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&thread).cloned();
        known.unwrap_or_else(|| {
            let mut threads = self.0.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(threads.entry(thread).or_insert_with(|| Arc::new(make())))
        })
    }
}
