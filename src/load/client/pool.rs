//! The connections of a client, by origin.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Settings;
use super::http1::{Connection, Idle};
use super::http2::Connections;
use super::origin::{Connector, Origin, Resolved};
use crate::load::ErrorKind;

/// The connections to one origin.
pub enum Pool {
    Http1(Http1),
    Http2(Connections),
}

/// Builds the pool of each origin once.
pub struct Pools<'a> {
    resolved: &'a [Resolved],
    tls: Option<&'a Arc<rustls::ClientConfig>>,
    settings: &'a Settings,
    made: HashMap<Origin, Arc<Pool>>,
}

impl<'a> Pools<'a> {
    pub fn new(resolved: &'a [Resolved], tls: Option<&'a Arc<rustls::ClientConfig>>, settings: &'a Settings) -> Self {
        Self { resolved, tls, settings, made: HashMap::new() }
    }

    pub fn of(&mut self, origin: &Origin) -> io::Result<Arc<Pool>> {
        if let Some(pool) = self.made.get(origin) {
            return Ok(Arc::clone(pool));
        }
        let found = self.resolved.iter().find(|resolved| resolved.origin == *origin);
        let resolved = found.ok_or_else(|| io::Error::other(format!("{origin} was not resolved")))?;
        let Settings { http2, requests_per_connection, connect_timeout, .. } = *self.settings;
        let connector = Arc::new(Connector::new(resolved, self.tls, http2, connect_timeout)?);
        let pool = Arc::new(if http2 {
            Pool::Http2(Connections::new(connector, requests_per_connection))
        } else {
            Pool::Http1(Http1 { connector, requests_per_connection, idle: Idle::default() })
        });
        self.made.insert(origin.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}

pub struct Http1 {
    connector: Arc<Connector>,
    requests_per_connection: u32,
    idle: Idle,
}

impl Http1 {
    /// A connection, and how long it took to make it if it is new.
    pub async fn take(&self) -> Result<(Connection, Option<Duration>), ErrorKind> {
        if let Some(connection) = self.idle.take().await {
            return Ok((connection, None));
        }
        let began = Instant::now();
        let connection = Connection::new(self.connector.connect().await?).await?;
        Ok((connection, Some(began.elapsed())))
    }

    pub async fn put(&self, connection: Connection) {
        if connection.requests < self.requests_per_connection {
            self.idle.put(connection).await;
        }
    }
}
