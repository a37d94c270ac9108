//! `database`: the SQLite file that the configuration names, open for reading.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use mainstay::{Build, ServiceId};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::{BoxError, blocking, config::Config};

/// What `seed.rs` writes as `user_version`.
pub(crate) const SCHEMA_VERSION: i32 = 1;

const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(crate) struct Database {
    /// The name that the file gives itself.
    pub(crate) label: String,
    /// A connection serves one query at a time, hence several.
    connections: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Zone {
    name: String,
    coordinates: String,
    comment: Option<String>,
}

/// A country as the catalog takes it in.
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
        // SQLite opens anything; only a query tells whether it is a database, and ours.
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
        Ok(Self { label, connections, turn: AtomicUsize::new(0) })
    }

    /// The time zones of a country. Blocks.
    pub(crate) fn zones(&self, country: &str) -> rusqlite::Result<Vec<Zone>> {
        self.query(
            "SELECT zone.name, zone.coordinates, zone.comment FROM zone
             JOIN country_zone ON country_zone.zone = zone.name
             WHERE country_zone.country = ? ORDER BY zone.name",
            [country],
            |row| Ok(Zone { name: row.get(0)?, coordinates: row.get(1)?, comment: row.get(2)? }),
        )
    }

    /// All countries with the number of their time zones. Blocks.
    pub(crate) fn countries(&self) -> rusqlite::Result<Vec<Country>> {
        self.query(
            "SELECT code, name, (SELECT count(*) FROM country_zone WHERE country = code) FROM country",
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
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
        lock(&self.connections[turn]).prepare_cached(sql)?.query_map(parameters, row)?.collect()
    }
}

/// A query that panicked left nothing half done: all of them only read.
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
