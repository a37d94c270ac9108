//! `database`: the SQLite file that the configuration names, opened read-only.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use mainstay::{ServiceId, supervise::Build};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::{BoxError, blocking, config::Config};

/// The value of `user_version` in the files that `seed.rs` creates.
pub(crate) const SCHEMA_VERSION: i32 = 1;

const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(crate) struct Database {
    /// The label that is stored in the file.
    pub(crate) label: String,
    /// Several connections, because each executes one query at a time.
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Zone {
    name: String,
    coordinates: String,
    comment: Option<String>,
}

/// A country, for the catalog.
pub(crate) struct Country {
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) zones: u32,
}

impl Database {
    fn open(path: &Path) -> Result<Self, BoxError> {
        let context = |error: rusqlite::Error| format!("cannot open {}: {error}", path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            connections
                .push(Mutex::new(Connection::open_with_flags(path, flags).map_err(context)?));
        }
        // SQLite opens any file; only a query shows whether it is a database with this schema.
        let first = lock(&connections[0]);
        let version: i32 =
            first.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(context)?;
        if version != SCHEMA_VERSION {
            return Err(format!(
                "{} has schema version {version}, not {SCHEMA_VERSION}",
                path.display()
            )
            .into());
        }
        let label = first
            .query_row("SELECT value FROM meta WHERE key = 'label'", [], |row| row.get(0))
            .map_err(context)?;
        drop(first);
        Ok(Self { label, connections, next: AtomicUsize::new(0) })
    }

    /// Returns the time zones of a country. Blocks.
    pub(crate) fn zones(&self, country: &str) -> rusqlite::Result<Vec<Zone>> {
        self.query(
            "SELECT zone.name, zone.coordinates, zone.comment FROM zone
             JOIN country_zone ON country_zone.zone = zone.name
             WHERE country_zone.country = ? ORDER BY zone.name",
            [country],
            |row| Ok(Zone { name: row.get(0)?, coordinates: row.get(1)?, comment: row.get(2)? }),
        )
    }

    /// Returns all countries with the number of their time zones. Blocks.
    pub(crate) fn countries(&self) -> rusqlite::Result<Vec<Country>> {
        self.query(
            "SELECT code, name, (SELECT count(*) FROM country_zone WHERE country = code)
             FROM country",
            [],
            |row| Ok(Country { code: row.get(0)?, name: row.get(1)?, zones: row.get(2)? }),
        )
    }

    fn query<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        lock(&self.connections[next]).prepare_cached(sql)?.query_map(parameters, row)?.collect()
    }
}

/// The lock may be poisoned: queries only read, so a panic leaves nothing incomplete.
fn lock(connection: &Mutex<Connection>) -> std::sync::MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn build(
    build: Build<Database>,
    config: ServiceId<Config>,
) -> Result<Database, BoxError> {
    let config = build.wait_for(config).await?;
    blocking(move || Database::open(&config.database)).await
}
