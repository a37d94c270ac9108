//! The files of the first start.

use std::{fs, path::Path};

use rusqlite::Connection;

use crate::BoxError;

const CONFIG: &str = "\
# Edit this file while the shop runs.
connections = 4
# The payment provider. Without it, nobody pays.
# payments = \"https://payments.example\"
";

const FLAGS: &str = "sale = false\n";

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE products (name TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
    INSERT INTO products VALUES ('tea', 450), ('coffee', 620), ('cup', 1200);
    CREATE TABLE orders (
        number INTEGER PRIMARY KEY,
        product TEXT NOT NULL,
        amount INTEGER NOT NULL,
        cents INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        executed INTEGER NOT NULL DEFAULT FALSE
    ) STRICT;";

/// Creates the files that are missing.
pub(crate) fn create_missing_files(directory: &Path) -> Result<(), BoxError> {
    fs::create_dir_all(directory)?;
    for (name, text) in [("shop.toml", CONFIG), ("flags.toml", FLAGS)] {
        let file = directory.join(name);
        if !file.exists() {
            fs::write(file, text)?;
        }
    }
    let file = directory.join("tls.pem");
    if !file.exists() {
        let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()])?;
        fs::write(file, made.cert.pem() + &made.signing_key.serialize_pem())?;
    }
    let file = directory.join("shop.sqlite");
    if !file.exists() {
        // Under another name first: the next start must not find a file without tables.
        let new = directory.join("new.sqlite");
        let _ = fs::remove_file(&new);
        Connection::open(&new)?.execute_batch(SCHEMA)?;
        fs::rename(new, file)?;
    }
    Ok(())
}
