//! The SQLite file of the shop. Everything here blocks.

use std::{collections::HashMap, path::Path, time::Duration};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::BoxError;

pub(crate) type Pool = r2d2::Pool<SqliteConnectionManager>;

/// An order that is not executed yet.
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) amount: u64,
    pub(crate) cents: u64,
}

/// An order whose execution has failed this often is left alone.
const MAX_ATTEMPTS: u32 = 3;

/// Not `SQLITE_OPEN_CREATE`: a file that is not there is an error.
fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

pub(crate) fn open(file: &Path, connections: u32) -> Result<Pool, BoxError> {
    check(file)?;
    let manager = SqliteConnectionManager::file(file).with_flags(flags());
    let pool = Pool::builder().max_size(connections).connection_timeout(Duration::from_secs(1));
    Ok(pool.build(manager)?)
}

/// Checks that the file can be opened and queried.
pub(crate) fn check(file: &Path) -> Result<(), BoxError> {
    let query = || {
        let connection = Connection::open_with_flags(file, flags())?;
        connection.query_row("SELECT count(*) FROM products", [], |_| Ok(()))
    };
    query().map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Returns the price of each product in cents.
pub(crate) fn products(pool: &Pool) -> Result<HashMap<String, u64>, BoxError> {
    let connection = pool.get()?;
    let mut products = connection.prepare("SELECT name, cents FROM products")?;
    let products = products.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(products.collect::<Result<_, _>>()?)
}

/// Stores an order, and returns its number.
pub(crate) fn place(pool: &Pool, product: &str, amount: u64, cents: u64) -> Result<i64, BoxError> {
    let insert = "INSERT INTO orders (product, amount, cents) VALUES (?, ?, ?) RETURNING number";
    let number = |row: &rusqlite::Row<'_>| row.get(0);
    Ok(pool.get()?.query_row(insert, (product, amount, cents), number)?)
}

/// Returns the next order, and counts the attempt, so that an order that lets the worker panic is
/// not executed for ever.
pub(crate) fn begin_next_order(pool: &Pool) -> Result<Option<Order>, BoxError> {
    let update = "UPDATE orders SET attempts = attempts + 1 WHERE number = (
            SELECT min(number) FROM orders WHERE NOT executed AND attempts < ?
        ) RETURNING number, amount, cents";
    let order = |row: &rusqlite::Row<'_>| {
        Ok(Order { number: row.get(0)?, amount: row.get(1)?, cents: row.get(2)? })
    };
    Ok(pool.get()?.query_row(update, [MAX_ATTEMPTS], order).optional()?)
}

/// The order could not be executed, for a reason that is not its own.
pub(crate) fn put_back(pool: &Pool, number: i64) -> Result<(), BoxError> {
    pool.get()?.execute("UPDATE orders SET attempts = attempts - 1 WHERE number = ?", [number])?;
    Ok(())
}

/// The order is executed.
pub(crate) fn end(pool: &Pool, number: i64) -> Result<(), BoxError> {
    pool.get()?.execute("UPDATE orders SET executed = TRUE WHERE number = ?", [number])?;
    Ok(())
}

/// Returns the number of all orders, and of those that are executed.
pub(crate) fn count(pool: &Pool) -> Result<(u64, u64), BoxError> {
    let count = "SELECT count(*), count(*) FILTER (WHERE executed) FROM orders";
    Ok(pool.get()?.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}
