//! The files of a server that is started without a configuration: a `server.toml` and two databases
//! to choose from. They are created from the public-domain tables in `data/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params};

use crate::{BoxError, database::SCHEMA_VERSION};

const COUNTRIES: &str = include_str!("data/iso3166.tab");
const ZONES: &str = include_str!("data/zone1970.tab");

const CONFIG: &str = r#"# Edit this file while the server runs.

# Part of every response.
name = "first"
# world.sqlite or europe.sqlite
database = "world.sqlite"
title = "Time zones of the world"
greeting = "Countries and the time zones they keep."
# The number of countries on the front page.
limit = 20
"#;

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE zone (name TEXT PRIMARY KEY, coordinates TEXT NOT NULL, comment TEXT);
    CREATE TABLE country_zone (
        country TEXT NOT NULL REFERENCES country,
        zone TEXT NOT NULL REFERENCES zone,
        PRIMARY KEY (country, zone)
    );
";

/// Creates the missing files in `directory`, and returns the path of the configuration file.
pub(crate) fn seed(directory: &Path) -> Result<PathBuf, BoxError> {
    fs::create_dir_all(directory)?;
    write_new(&directory.join("world.sqlite"), |path| database(path, "world", ""))?;
    write_new(&directory.join("europe.sqlite"), |path| database(path, "europe", "Europe/"))?;
    let config = directory.join("server.toml");
    write_new(&config, |path| Ok(fs::write(path, CONFIG)?))?;
    Ok(config)
}

/// Writes a file unless it exists. The file is renamed when it is complete.
fn write_new(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    write(&unfinished)?;
    Ok(fs::rename(unfinished, path)?)
}

/// Creates a database of the zones whose names start with `prefix`, and of their countries.
fn database(path: &Path, label: &str, prefix: &str) -> Result<(), BoxError> {
    let names: BTreeMap<&str, &str> =
        rows(COUNTRIES).filter_map(|row| Some((*row.first()?, *row.get(1)?))).collect();
    let mut database = Connection::open(path)?;
    let transaction = database.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.execute("INSERT INTO meta VALUES ('label', ?)", [label])?;
    let mut countries = BTreeSet::new();
    for row in rows(ZONES) {
        let [codes, coordinates, zone, comment @ ..] = row.as_slice() else {
            return Err(format!("a row of zone1970.tab is too short: {row:?}").into());
        };
        if !zone.starts_with(prefix) {
            continue;
        }
        transaction.execute(
            "INSERT INTO zone VALUES (?, ?, ?)",
            params![zone, coordinates, comment.first()],
        )?;
        for code in codes.split(',') {
            if countries.insert(code) {
                let name =
                    names.get(code).ok_or_else(|| format!("iso3166.tab has no country {code}"))?;
                transaction.execute("INSERT INTO country VALUES (?, ?)", [code, name])?;
            }
            transaction.execute("INSERT INTO country_zone VALUES (?, ?)", [code, zone])?;
        }
    }
    Ok(transaction.commit()?)
}

/// Returns the rows of a table of the tz database: tabs separate columns, `#` begins a comment.
fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').collect())
}
