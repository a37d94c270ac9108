//! `catalog`: all countries in memory, listed the way the page wants them. It hangs on the database and
//! on the page, which both hang on the configuration.

use std::{collections::BTreeMap, sync::Arc};

use mainstay::Build;

use crate::{BoxError, Services, blocking, database::Database, page::Page};

#[derive(Debug)]
pub(crate) struct Catalog {
    /// Of the database it was made from.
    pub(crate) label: String,
    countries: BTreeMap<String, Entry>,
    /// The list on the front page, made once and not per request.
    pub(crate) list: String,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) zones: u32,
}

impl Catalog {
    fn new(database: &Database, page: &Page) -> rusqlite::Result<Self> {
        let countries: BTreeMap<_, _> = database
            .countries()?
            .into_iter()
            .map(|country| (country.code, Entry { name: country.name, zones: country.zones }))
            .collect();
        let list = countries
            .iter()
            .take(page.limit)
            .map(|(code, country)| page.country(code, &country.name, country.zones))
            .collect();
        Ok(Self { label: database.label.clone(), countries, list })
    }

    pub(crate) fn country(&self, code: &str) -> Option<&Entry> {
        self.countries.get(code)
    }
}

pub(crate) async fn build(build: Build<Catalog>, services: Services) -> Result<Catalog, BoxError> {
    let database = build.wait_for(services.database).await?;
    let page = build.wait_for(services.page).await?;
    let source = Arc::clone(&database);
    let built = blocking(move || Ok(Catalog::new(&source, &page)?)).await;
    built.inspect_err(|error| {
        // It is the database that has to restart; this build goes down with it.
        let _ = services.registry.report(&database, error.to_string());
    })
}
